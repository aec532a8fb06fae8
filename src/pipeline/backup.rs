//! Source to image: read, look at each block once, write in order.

use super::ordered::{self, Emit};
use super::{Masked, Resources, Selection};
use crate::base::{
    BlockIndex, BlockSize, ByteOffset, Event, Extent, Phase, Result, normalize, to_u64, to_usize,
};
use crate::block::{AlignedBuf, BlockSource, Mapping, read_rescuing};
use crate::image::{
    BlockState, Compression, EncodedWindow, Encoder, Header, ImageWriter, encode_window,
};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// What a backup read and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupTotals {
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes that could not be read, ascending.
    pub unreadable: Vec<Extent>,
}

/// A window that was read.
struct Job {
    first: BlockIndex,
    data: AlignedBuf,
    len: usize,
    known: Vec<Option<BlockState>>,
    unreadable: Vec<Extent>,
}

enum Output {
    Run {
        state: BlockState,
        count: u64,
        bytes: u64,
    },
    Window {
        window: EncodedWindow,
        data: AlignedBuf,
        len: usize,
        unreadable: Vec<Extent>,
    },
}

/// Buffers between uses. Their number is bounded by the tickets of the run.
type Pool = Mutex<Vec<AlignedBuf>>;

/// Writes every block of `source` into `writer`: what `selection` takes with the content of its bytes
/// in use and zeros for the others, the rest as `Unused`, or as `Zero` where it was left out on request.
/// Ranges that the source knows to be zero are not read.
///
/// # Errors
/// `Source` when the source fails as a whole, `Destination` when the image's sink does, `Interrupted`
/// or `Terminated` when cancelled. Single bad spots are no error: see [`BackupTotals::unreadable`].
pub fn write_blocks<W: Write>(
    source: &dyn BlockSource,
    selection: &Selection,
    compression: Compression,
    writer: &mut ImageWriter<W>,
    resources: Resources<'_>,
) -> Result<BackupTotals> {
    let header = writer.header().clone();
    let pool = Pool::default();
    let mut totals = BackupTotals::default();
    let observer = resources.observer;
    let (phase, bytes) = (Phase::Backup, Some(header.disk_len.0));
    observer.event(Event::PhaseStarted { phase, bytes });
    let masked = Masked::new(source, selection);
    let reader = Reader {
        source: &masked,
        selection,
        header: &header,
        pool: &pool,
    };
    ordered::run(
        resources.threads,
        resources.tickets(header.window_len()),
        |emit| reader.read_all(emit, &resources),
        || {
            let (mut encoder, mut scratch) = (Encoder::new(compression)?, Vec::new());
            let header = &header;
            Ok(move |job| encode(header, job, &mut encoder, &mut scratch))
        },
        |output| {
            resources.cancel.check()?;
            consume(output, writer, &pool, &mut totals, observer)
        },
    )?;
    totals.unreadable = normalize(std::mem::take(&mut totals.unreadable));
    observer.event(Event::PhaseFinished { phase });
    Ok(totals)
}

fn encode(
    header: &Header,
    job: Job,
    encoder: &mut Encoder,
    scratch: &mut Vec<u8>,
) -> Result<Output> {
    let Job {
        first,
        data,
        len,
        known,
        unreadable,
    } = job;
    let window = encode_window(header, first, &data[..len], &known, encoder, scratch)?;
    Ok(Output::Window {
        window,
        data,
        len,
        unreadable,
    })
}

fn consume<W: Write>(
    output: Output,
    writer: &mut ImageWriter<W>,
    pool: &Pool,
    totals: &mut BackupTotals,
    observer: &dyn crate::base::Observer,
) -> Result<()> {
    match output {
        Output::Run {
            state,
            count,
            bytes,
        } => {
            writer.push_run(state, count)?;
            observer.event(Event::Advanced { bytes });
        }
        Output::Window {
            window,
            data,
            len,
            unreadable,
        } => {
            writer.push_window(&window)?;
            pool.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(data);
            totals.read += to_u64(len);
            unreadable
                .iter()
                .for_each(|e| observer.event(Event::Unreadable(*e)));
            totals.unreadable.extend(unreadable);
            observer.event(Event::Advanced { bytes: to_u64(len) });
        }
    }
    Ok(())
}

/// The producer: goes through the disk window by window.
struct Reader<'a> {
    source: &'a dyn BlockSource,
    selection: &'a Selection,
    header: &'a Header,
    pool: &'a Pool,
}

impl Reader<'_> {
    fn read_all(&self, emit: &mut Emit<Job, Output>, resources: &Resources<'_>) -> Result<()> {
        let windows = self.header.window_blocks();
        let blocks = self.header.blocks();
        let mut run = PendingRun::default();
        let mut zero_until = ByteOffset(0);
        let mut data_until = ByteOffset(0);
        let mut at = 0;
        while at < blocks {
            resources.cancel.check()?;
            let count = self
                .runs_free(at)
                .unwrap_or_else(|| windows.min(blocks - at));
            if self.selection.take.count_in(at..at + count) == 0 {
                self.unread_run(at, count, &mut run, emit)?;
                at += count;
                continue;
            }
            let window = self.extent(at, count);
            if window.start >= data_until && window.start >= zero_until {
                match self.source.mapping(window.start)? {
                    Mapping::Zero(len) => zero_until = ByteOffset(window.start.0 + len.0),
                    Mapping::Data(len) => data_until = ByteOffset(window.start.0 + len.0),
                }
            }
            let zeros = self.whole_zero_windows(at, zero_until);
            if zeros > 0 {
                self.unread_run(at, zeros, &mut run, emit)?;
                at += zeros;
                continue;
            }
            run.flush(emit)?;
            emit.job(self.read_window(at, count)?)?;
            at += count;
        }
        run.flush(emit)
    }

    /// How many blocks from `at`, in whole windows, are wholly unselected; `None` when fewer than one window.
    fn runs_free(&self, at: u64) -> Option<u64> {
        let windows = self.header.window_blocks();
        let next = self
            .selection
            .take
            .next_from(BlockIndex(at))
            .map_or(self.header.blocks(), |b| b.0);
        let free = next.saturating_sub(at);
        let whole = if next == self.header.blocks() {
            free
        } else {
            free / windows * windows
        };
        (whole > windows).then_some(whole)
    }

    /// How many blocks from `at`, in whole windows or to the disk's end, lie before `zero_until`.
    fn whole_zero_windows(&self, at: u64, zero_until: ByteOffset) -> u64 {
        let size = self.header.block_size;
        if zero_until.0 >= self.header.disk_len.0 {
            return self.header.blocks() - at;
        }
        let end = zero_until.0 / size.bytes();
        let windows = self.header.window_blocks();
        end.saturating_sub(at) / windows * windows
    }

    /// Blocks that need not be read. Those that are taken are known to be zero.
    fn unread_run(
        &self,
        at: u64,
        count: u64,
        run: &mut PendingRun,
        emit: &mut Emit<Job, Output>,
    ) -> Result<()> {
        let Selection { take, blank, .. } = self.selection;
        let mut next = at;
        while next < at + count {
            let block = BlockIndex(next);
            let end = take.end_of_run(block).0.min(blank.end_of_run(block).0);
            let end = end.min(at + count);
            let state = self.state_unread(block);
            run.add(state, end - next, self.bytes(next, end - next), emit)?;
            next = end;
        }
        Ok(())
    }

    fn state_unread(&self, block: BlockIndex) -> BlockState {
        let zero = self.selection.take.contains(block) || self.selection.blank.contains(block);
        if zero {
            BlockState::Zero
        } else {
            BlockState::Unused
        }
    }

    fn read_window(&self, at: u64, count: u64) -> Result<Job> {
        let extent = self.extent(at, count);
        let len = to_usize(extent.len.0);
        let pooled = self
            .pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut data = pooled.unwrap_or_else(|| AlignedBuf::zeroed(self.header.window_len()));
        let unreadable = read_rescuing(self.source, extent.start, &mut data[..len])?;
        self.source.done_with(extent);
        let size = self.header.block_size;
        let known = (at..at + count)
            .map(|b| self.known(BlockIndex(b), size, &unreadable))
            .collect();
        Ok(Job {
            first: BlockIndex(at),
            data,
            len,
            known,
            unreadable,
        })
    }

    fn known(&self, block: BlockIndex, size: BlockSize, bad: &[Extent]) -> Option<BlockState> {
        if !self.selection.take.contains(block) {
            return Some(self.state_unread(block));
        }
        let extent = size.extent_of(block, self.header.disk_len);
        bad.iter()
            .any(|e| e.intersect(extent).is_some())
            .then_some(BlockState::Unreadable)
    }

    fn extent(&self, at: u64, count: u64) -> Extent {
        self.header.extent_of(&(at..at + count))
    }

    fn bytes(&self, at: u64, count: u64) -> u64 {
        self.extent(at, count).len.0
    }
}

/// Neighbouring runs of one state, joined before they are passed on.
#[derive(Default)]
struct PendingRun(Option<(BlockState, u64, u64)>);

impl PendingRun {
    fn add(
        &mut self,
        state: BlockState,
        count: u64,
        bytes: u64,
        emit: &mut Emit<Job, Output>,
    ) -> Result<()> {
        match &mut self.0 {
            Some((same, blocks, len)) if *same == state => {
                *blocks += count;
                *len += bytes;
                Ok(())
            }
            _ => {
                self.flush(emit)?;
                self.0 = Some((state, count, bytes));
                Ok(())
            }
        }
    }

    fn flush(&mut self, emit: &mut Emit<Job, Output>) -> Result<()> {
        match self.0.take() {
            Some((state, count, bytes)) => emit.ready(Output::Run {
                state,
                count,
                bytes,
            }),
            None => Ok(()),
        }
    }
}
