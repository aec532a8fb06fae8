//! Source to image: read, look at each block once, write in order.

use super::adapt::Adapt;
use super::in_place::as_in_parent;
use super::ordered::{self, Emit};
use super::parent::Parent;
use super::pool::Pool;
use super::reading::{Bring, Disk, WindowContent, with_readers};
use super::{Masked, Resources, Selection};
use crate::base::{
    BlockIndex, ByteOffset, Error, ErrorKind, Event, Extent, Phase, Result, to_u64, to_usize,
};
use crate::block::{BlockSource, Effort, Mapping, Missing, Rescue};
use crate::image::{
    Around, BlockState, BlockStates, EncodedWindow, Encoder, Encoding, ImageWriter, Payloads,
    Piece, Unfinished, encode_window,
};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is read, and how.
pub struct Input<'a> {
    /// The disk.
    pub source: &'a dyn BlockSource,
    /// What is taken of it.
    pub selection: &'a Selection,
    /// What is done about bad spots.
    pub effort: Effort<'a>,
    /// What it holds except in some places, ascending and apart: only these are read from the disk.
    pub known: Option<(&'a dyn BlockSource, &'a [Extent])>,
    /// The same image as another run had begun it: what it holds of blocks that are as they were is not made again.
    pub begun: Option<&'a Unfinished>,
    /// What observers are told that is done.
    pub phase: Phase,
}

impl<'a> Input<'a> {
    /// What `selection` takes of `source`, every sector of it read once.
    pub fn new(source: &'a dyn BlockSource, selection: &'a Selection) -> Input<'a> {
        Input {
            source,
            selection,
            effort: Effort::THOROUGH,
            known: None,
            begun: None,
            phase: Phase::Backup,
        }
    }
}

/// What a backup read and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupTotals {
    /// Bytes read from the source.
    pub read: u64,
    /// What could not be read.
    pub missing: Missing,
    /// Blocks of which the parent's table could not be read: they were taken as new.
    pub parent_lost: u64,
}

/// So many windows are handed to a worker at once where it reads them itself: fewer are not worth waking others for,
/// who take a core away from it. The last ones come one by one, so that no worker is left with many.
const BATCH: usize = 4;
/// Windows ahead of each thread: enough to outlast a store that is busy with itself for a tenth of a second.
const AHEAD: usize = 32;

/// A window to encode.
pub(super) struct Job {
    pub(super) first: BlockIndex,
    pub(super) count: u64,
    pub(super) around: Around,
    /// What was read, where the producer did that.
    pub(super) content: Option<WindowContent>,
}

impl Job {
    /// The block behind the last.
    pub(super) fn end(&self) -> u64 {
        self.first.0 + self.count
    }

    pub(super) fn with(self, content: WindowContent) -> Job {
        Job {
            content: Some(content),
            ..self
        }
    }
}

enum Output {
    Run(Run),
    Windows(Vec<Encoded>),
}

struct Encoded {
    window: EncodedWindow,
    /// Bytes that it stands for, and how many of them were read.
    len: usize,
    read: usize,
    /// Whether a worker made it.
    made: bool,
    missing: Missing,
}

/// Blocks without content, not read.
#[derive(Clone, Copy)]
struct Run {
    state: BlockState,
    since: u32,
    count: u64,
    bytes: u64,
}

/// What workers and the writer tell each other.
struct Way {
    payloads: Payloads,
    adapt: Adapt,
}

/// Writes every block of `input` into `writer`: what its selection takes with the content of its bytes
/// in use and zeros for the others, the rest as `Unused`, or as `Zero` where it was left out on request.
/// Ranges that the source knows to be zero are not read. What `parent` holds already is not stored
/// again: its table is read along with the disk, a page at a time.
///
/// # Errors
/// `Source` when the source fails as a whole or not a byte of it can be read, `Destination` when the image's
/// sink does, `Interrupted` or `Terminated` when cancelled; `Internal` when a frame does not decode to what went
/// in: as many are decoded again as `encoding` says. Single bad spots are no error: see
/// [`BackupTotals::missing`].
pub fn write_blocks<W: Write>(
    input: &Input<'_>,
    parent: Option<&dyn BlockStates>,
    encoding: impl Into<Encoding>,
    writer: &mut ImageWriter<W>,
    resources: Resources<'_>,
) -> Result<BackupTotals> {
    let encoding = encoding.into();
    let header = writer.header().clone();
    let pool = Pool::of(header.window_len());
    let mut totals = BackupTotals::default();
    let observer = resources.observer;
    let (phase, bytes) = (input.phase, Some(header.disk_len.0));
    observer.event(Event::PhaseStarted { phase, bytes });
    let masked = Masked::new(input.source, input.selection);
    let disk = Disk {
        mapping: &masked,
        source: input.source,
        rescue: Rescue::new(&masked, input.effort.clone()),
        known: input.known,
        begun: input.begun,
        selection: input.selection,
        header: &header,
        pool: &pool,
    };
    let disk = &disk;
    let tickets = resources.windows(header.window_len(), AHEAD);
    let planner = Planner {
        disk,
        parent: Parent::new(parent),
        batch: BATCH.min(tickets / 2),
    };
    let parent_lost = AtomicU64::new(0);
    let lost = &parent_lost;
    let way = &Way {
        payloads: Payloads::default(),
        adapt: Adapt::new(encoding.compression, resources.threads, tickets),
    };
    ordered::run(
        resources.threads,
        tickets,
        move |emit| {
            planner.plan(emit, &resources)?;
            lost.store(planner.parent.lost(), Ordering::Relaxed);
            Ok(())
        },
        || {
            let encoder = Encoder::new(encoding)?;
            let mut encoder = encoder.with_payloads(way.payloads.clone());
            let mut scratch = Vec::new();
            Ok(move |jobs: Vec<Job>| {
                let found = as_in_parent(disk, &jobs, &mut scratch);
                let encoded = jobs.into_iter().zip(found).map(|(job, found)| {
                    let len = to_usize(disk.extent(job.first.0, job.count).len.0);
                    let (window, missing) = match found {
                        Some(window) => (window, Missing::default()),
                        None => encode(disk, job, way, &mut encoder, &mut scratch)?,
                    };
                    way.adapt.made();
                    Ok(Encoded {
                        window,
                        len,
                        read: len,
                        made: true,
                        missing,
                    })
                });
                encoded.collect::<Result<_>>().map(Output::Windows)
            })
        },
        |output| {
            resources.cancel.check()?;
            consume(output, writer, way, &mut totals, observer)
        },
    )?;
    totals.missing = std::mem::take(&mut totals.missing).normalized();
    if input.known.is_none() && disk.rescue.has_read_nothing() {
        return Err(Error::new(ErrorKind::Source, "image", input.source.name())
            .because("nothing of it can be read")
            .hint("see whether it is still plugged in, and what `dmesg` says"));
    }
    totals.parent_lost = parent_lost.into_inner();
    observer.event(Event::PhaseFinished { phase });
    Ok(totals)
}

fn encode(
    disk: &Disk<'_>,
    job: Job,
    way: &Way,
    encoder: &mut Encoder,
    scratch: &mut Vec<u8>,
) -> Result<(EncodedWindow, Missing)> {
    let content = match job.content {
        Some(content) => content,
        None => disk.read(job.first.0, job.count)?,
    };
    let known = disk.known(job.first.0, job.count, &content.missing);
    let bytes = &content.data[..content.len];
    let Job { first, around, .. } = job;
    if let Some(level) = way.adapt.level() {
        encoder.set_level(level)?;
    }
    let window = encode_window(disk.header, first, bytes, &known, &around, encoder, scratch)?;
    disk.pool.give(content.data);
    Ok((window, content.missing))
}

fn consume<W: Write>(
    output: Output,
    writer: &mut ImageWriter<W>,
    way: &Way,
    totals: &mut BackupTotals,
    observer: &dyn crate::base::Observer,
) -> Result<()> {
    match output {
        Output::Run(run) => {
            writer.push_run(run.state, run.since, run.count)?;
            observer.event(Event::Advanced { bytes: run.bytes });
        }
        Output::Windows(windows) => {
            for Encoded {
                window,
                len,
                read,
                made,
                missing,
            } in windows
            {
                writer.push_window(&window)?;
                way.payloads.give(window);
                if made {
                    way.adapt.written();
                }
                totals.read += to_u64(read);
                for extent in &missing.bad {
                    observer.event(Event::Unreadable(*extent));
                }
                totals.missing.add(missing);
                observer.event(Event::Advanced { bytes: to_u64(len) });
            }
        }
    }
    Ok(())
}

/// The producer: goes through the disk window by window.
struct Planner<'a> {
    disk: &'a Disk<'a>,
    parent: Parent<'a>,
    /// Windows that a worker gets at once where it reads them itself.
    batch: usize,
}

/// A window of `len` bytes that was read and holds nothing new.
fn unchanged_but_read(window: EncodedWindow, len: usize) -> Output {
    Output::Windows(vec![Encoded {
        window,
        len,
        read: len,
        made: false,
        missing: Missing::default(),
    }])
}

impl Planner<'_> {
    fn plan(&self, emit: &mut Emit<Vec<Job>, Output>, resources: &Resources<'_>) -> Result<()> {
        with_readers(self.disk, unchanged_but_read, |bring| {
            self.plan_windows(emit, bring, resources)
        })
    }

    fn plan_windows(
        &self,
        emit: &mut Emit<Vec<Job>, Output>,
        bring: Bring<'_, Output>,
        resources: &Resources<'_>,
    ) -> Result<()> {
        let windows = self.disk.header.window_blocks();
        let blocks = self.disk.header.blocks();
        let (mut run, mut batch) = (PendingRun::default(), Vec::new());
        let mut zero_until = ByteOffset(0);
        let mut data_until = ByteOffset(0);
        let mut left = self.disk.selection.take.count_in(0..blocks);
        let mut at = 0;
        while at < blocks {
            resources.cancel.check()?;
            if let Some((output, count)) = self.unchanged(at) {
                flush(&mut batch, emit)?;
                run.flush(emit)?;
                emit.ready(output)?;
                at += count;
                continue;
            }
            let count = self
                .runs_free(at)
                .unwrap_or_else(|| windows.min(blocks - at));
            let taken = self.disk.selection.take.count_in(at..at + count);
            left = left.saturating_sub(taken);
            if taken == 0 {
                flush(&mut batch, emit)?;
                self.unread_run(at, count, &mut run, emit)?;
                at += count;
                continue;
            }
            let window = self.disk.extent(at, count);
            if window.start >= data_until && window.start >= zero_until {
                match self.disk.mapping.mapping(window.start)? {
                    Mapping::Zero(len) => zero_until = ByteOffset(window.start.0 + len.0),
                    Mapping::Data(len) => data_until = ByteOffset(window.start.0 + len.0),
                }
            }
            let zeros = self.whole_zero_windows(at, zero_until);
            if zeros > 0 {
                flush(&mut batch, emit)?;
                self.unread_run(at, zeros, &mut run, emit)?;
                at += zeros;
                continue;
            }
            run.flush(emit)?;
            let job = self.window(at, count);
            if self.disk.mapping.is_cached(self.disk.extent(at, count)) {
                batch.push(job);
                let is_near_the_end = left < to_u64(resources.threads * self.batch) * windows;
                if is_near_the_end || batch.len() >= self.batch {
                    flush(&mut batch, emit)?;
                }
            } else {
                flush(&mut batch, emit)?;
                bring(job, emit)?;
            }
            at += count;
        }
        flush(&mut batch, emit)?;
        run.flush(emit)
    }

    /// The blocks of a window, or of more where all are alike, when none of them can have changed and the
    /// parent's table says what they are.
    fn unchanged(&self, at: u64) -> Option<(Output, u64)> {
        let changed = self.disk.selection.changed.as_ref()?;
        let windows = self.disk.header.window_blocks();
        let window = at..(at + windows).min(self.disk.header.blocks());
        let next = changed.next_from(BlockIndex(at)).map(|b| b.0);
        if next.is_some_and(|next| next < window.end) {
            return None;
        }
        match self.parent.piece(at)? {
            Piece::Lost { .. } => None,
            Piece::Uniform {
                blocks,
                state,
                since,
            } => {
                // Up to the window with the next block that may have changed.
                let end = next.map_or(blocks.end, |next| blocks.end.min(next / windows * windows));
                let count = end.checked_sub(at).filter(|count| *count > 0)?;
                let bytes = self.disk.extent(at, count).len.0;
                let run = Run {
                    state,
                    since,
                    count,
                    bytes,
                };
                Some((Output::Run(run), count))
            }
            Piece::Leaf(leaf) => {
                let blocks = window.clone().map(|b| leaf.block(BlockIndex(b)).copied());
                let blocks: Option<Vec<_>> = blocks.collect();
                let count = window.end - at;
                let kept = Encoded {
                    window: EncodedWindow::with_frame(BlockIndex(at), blocks?, None),
                    len: to_usize(self.disk.extent(at, count).len.0),
                    read: 0,
                    made: false,
                    missing: Missing::default(),
                };
                Some((Output::Windows(vec![kept]), count))
            }
        }
    }

    /// How many blocks from `at`, in whole windows, are wholly unselected; `None` when fewer than one window.
    fn runs_free(&self, at: u64) -> Option<u64> {
        let windows = self.disk.header.window_blocks();
        let next = self
            .disk
            .selection
            .take
            .next_from(BlockIndex(at))
            .map_or(self.disk.header.blocks(), |b| b.0);
        let free = next.saturating_sub(at);
        let whole = if next == self.disk.header.blocks() {
            free
        } else {
            free / windows * windows
        };
        (whole > windows).then_some(whole)
    }

    /// How many blocks from `at`, in whole windows or to the disk's end, lie before `zero_until`.
    fn whole_zero_windows(&self, at: u64, zero_until: ByteOffset) -> u64 {
        let size = self.disk.header.block_size;
        if zero_until.0 >= self.disk.header.disk_len.0 {
            return self.disk.header.blocks() - at;
        }
        let end = zero_until.0 / size.bytes();
        let windows = self.disk.header.window_blocks();
        end.saturating_sub(at) / windows * windows
    }

    /// Blocks that need not be read. Those that are taken are known to be zero.
    fn unread_run(
        &self,
        at: u64,
        count: u64,
        run: &mut PendingRun,
        emit: &mut Emit<Vec<Job>, Output>,
    ) -> Result<()> {
        let Selection { take, blank, .. } = self.disk.selection;
        let last = at + count;
        let (mut next, mut end) = (at, at);
        while next < last {
            let block = BlockIndex(next);
            if next == end {
                end = blank.end_of_run(next..take.end_of_run(next..last));
            }
            let alike = next..end;
            let state = self.disk.state_unread(block);
            let (since, count) = self.parent.since(&alike, state, self.disk.header.sequence);
            let bytes = self.disk.extent(next, count).len.0;
            let same = Run {
                state,
                since,
                count,
                bytes,
            };
            run.add(same, emit)?;
            next += count;
        }
        Ok(())
    }

    /// A window whose content is in memory already is read by the worker, which has it in its
    /// processor's cache then.
    fn window(&self, at: u64, count: u64) -> Job {
        Job {
            first: BlockIndex(at),
            count,
            around: Around {
                base: self.parent.base(at),
                kept: self.disk.begun.and_then(|b| b.leaf(BlockIndex(at))),
            },
            content: None,
        }
    }
}

fn flush(batch: &mut Vec<Job>, emit: &mut Emit<Vec<Job>, Output>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    emit.job_of(batch.len(), std::mem::take(batch))
}

/// Neighbouring runs of one state and image, joined before they are passed on.
#[derive(Default)]
struct PendingRun(Option<Run>);

impl PendingRun {
    fn add(&mut self, new: Run, emit: &mut Emit<Vec<Job>, Output>) -> Result<()> {
        match &mut self.0 {
            Some(run) if run.state == new.state && run.since == new.since => {
                run.count += new.count;
                run.bytes += new.bytes;
                Ok(())
            }
            _ => {
                self.flush(emit)?;
                self.0 = Some(new);
                Ok(())
            }
        }
    }

    fn flush(&mut self, emit: &mut Emit<Vec<Job>, Output>) -> Result<()> {
        match self.0.take() {
            Some(run) => emit.ready(Output::Run(run)),
            None => Ok(()),
        }
    }
}
