//! Reading the windows of a disk: several at once as long as all is well, one after the other among bad spots.

use super::Selection;
use super::backup::Job;
use super::crew::with_crew;
use super::in_place::read_as_in_parent;
use super::ordered::{Emit, Slot};
use super::pool::Pool;
use crate::base::{AlignedBuf, BlockIndex, Extent, Result, subtract, to_usize};
use crate::block::{BlockSource, Missing, Rescue};
use crate::image::{BlockState, EncodedWindow, Header, Unfinished};
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A window that was read.
pub(super) struct WindowContent {
    pub(super) data: AlignedBuf,
    pub(super) len: usize,
    pub(super) missing: Missing,
}

/// The disk as it is imaged; read by whoever can do it best.
pub(super) struct Disk<'a> {
    /// Knows what needs not be read, and what is read fast. Shows what is taken alone.
    pub(super) mapping: &'a dyn BlockSource,
    /// Shows all that it holds.
    pub(super) source: &'a dyn BlockSource,
    pub(super) rescue: Rescue<'a>,
    pub(super) known: Option<(&'a dyn BlockSource, &'a [Extent])>,
    pub(super) begun: Option<&'a Unfinished>,
    pub(super) selection: &'a Selection,
    pub(super) header: &'a Header,
    pub(super) pool: &'a Pool,
}

impl Disk<'_> {
    /// Reads a window that was handed over. One with bad spots waits for those before it. What holds nothing new is a
    /// result already, which `unchanged` makes of it.
    fn read_handed<O>(
        &self,
        (slot, job, turn): Handed<'_, O>,
        unchanged: impl Fn(EncodedWindow, usize) -> O,
    ) {
        let content = self.read_plainly(job.first.0, job.count).transpose();
        let content = content.unwrap_or_else(|| {
            turn.wait();
            self.read(job.first.0, job.count)
        });
        drop(turn);
        match content {
            Err(error) => slot.ready(Err(error)),
            Ok(content) => match read_as_in_parent(self, &job, &content) {
                None => slot.job(vec![job.with(content)]),
                Some(window) => {
                    self.pool.give(content.data);
                    slot.ready(Ok(unchanged(window, content.len)));
                }
            },
        }
    }

    /// A window without bad spots.
    fn read_plainly(&self, at: u64, count: u64) -> Result<Option<WindowContent>> {
        let extent = self.extent(at, count);
        let (mut data, len) = self.buffer(extent);
        let is_read = self.rescue.read_plainly(extent.start, &mut data[..len])?;
        Ok(is_read.then_some(WindowContent {
            data,
            len,
            missing: Missing::default(),
        }))
    }

    /// A buffer for `extent`, and how long that is.
    fn buffer(&self, extent: Extent) -> (AlignedBuf, usize) {
        (self.pool.take(), to_usize(extent.len.0))
    }

    pub(super) fn read(&self, at: u64, count: u64) -> Result<WindowContent> {
        let extent = self.extent(at, count);
        let (mut data, len) = self.buffer(extent);
        let missing = match self.known {
            None => {
                let missing = self.rescue.read(extent.start, &mut data[..len])?;
                self.used_of(missing, extent, &mut data[..len])
            }
            Some((known, wanted)) => {
                known.read_at(extent.start, &mut data[..len])?;
                self.fill_in(wanted, extent, &mut data[..len])?
            }
        };
        Ok(WindowContent { data, len, missing })
    }

    /// What of `missing`, which lies in `extent`, is in use; what is not is nobody's loss, and zero in `data`.
    fn used_of(&self, missing: Missing, extent: Extent, data: &mut [u8]) -> Missing {
        if missing.is_empty() {
            return missing;
        }
        let unused = self.selection.unused_in(extent);
        for gap in &unused {
            let from = to_usize(gap.start.0 - extent.start.0);
            data[from..from + to_usize(gap.len.0)].fill(0);
        }
        Missing {
            bad: subtract(&missing.bad, &unused),
            untried: subtract(&missing.untried, &unused),
        }
    }

    /// Reads those of the ranges `wanted` that lie in `extent`, whose content so far is `data`.
    fn fill_in(&self, wanted: &[Extent], extent: Extent, data: &mut [u8]) -> Result<Missing> {
        let first = wanted.partition_point(|e| e.end() <= extent.start);
        let near = wanted.iter().skip(first);
        let mut missing = Missing::default();
        for part in near.map_while(|e| e.intersect(extent)) {
            let from = to_usize(part.start.0 - extent.start.0);
            let place = &mut data[from..from + to_usize(part.len.0)];
            missing.add(self.rescue.read(part.start, place)?);
        }
        Ok(missing.normalized())
    }

    /// What is known of blocks without looking at their bytes.
    pub(super) fn known(&self, at: u64, count: u64, missing: &Missing) -> Vec<Option<BlockState>> {
        let bad = missing.all();
        let state = |block: u64| {
            if !self.selection.take.contains(BlockIndex(block)) {
                return Some(self.state_unread(BlockIndex(block)));
            }
            let extent = self.extent(block, 1);
            bad.iter()
                .any(|e| e.intersect(extent).is_some())
                .then_some(BlockState::Unreadable)
        };
        (at..at + count).map(state).collect()
    }

    pub(super) fn state_unread(&self, block: BlockIndex) -> BlockState {
        let zero = self.selection.take.contains(block) || self.selection.blank.contains(block);
        if zero {
            BlockState::Zero
        } else {
            BlockState::Unused
        }
    }

    pub(super) fn extent(&self, at: u64, count: u64) -> Extent {
        self.header.extent_of(&(at..at + count))
    }
}

/// A window that somebody else is to read, its place in the order, and what to wait for where it has bad spots.
type Handed<'a, O> = (Slot<Vec<Job>, O>, Job, Turn<'a>);

/// The windows that are being read, by their first blocks.
#[derive(Default)]
struct UnderWay {
    windows: Mutex<BTreeSet<u64>>,
    fewer: Condvar,
}

impl UnderWay {
    fn windows(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, window: u64) -> Turn<'_> {
        self.windows().insert(window);
        Turn { all: self, window }
    }

    /// Waits until none is under way that begins before `window`.
    fn wait_until(&self, window: u64) {
        let any =
            |windows: &mut BTreeSet<u64>| windows.first().is_some_and(|first| *first < window);
        drop(self.fewer.wait_while(self.windows(), any));
    }
}

/// A window that is being read, until this is dropped.
struct Turn<'a> {
    all: &'a UnderWay,
    window: u64,
}

impl Turn<'_> {
    /// Waits for those before it.
    fn wait(&self) {
        self.all.wait_until(self.window);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.windows().remove(&self.window);
        self.all.fewer.notify_all();
    }
}

/// Has a window read from the medium while the workers are busy.
pub(super) type Bring<'a, O> = &'a mut dyn FnMut(Job, &mut Emit<Vec<Job>, O>) -> Result<()>;

/// Runs `plan` with what has windows of `disk` read, where `unchanged` makes a result of one of so many bytes that holds
/// nothing new. Behind a bad spot one is read after the other: what is passed over depends on what was met before, and a
/// failing disk should not have more to do than must be.
///
/// # Errors
/// What `plan` returns.
pub(super) fn with_readers<O: Send>(
    disk: &Disk<'_>,
    unchanged: impl Fn(EncodedWindow, usize) -> O + Sync,
    plan: impl FnOnce(Bring<'_, O>) -> Result<()>,
) -> Result<()> {
    let under_way = UnderWay::default();
    let each = |handed: Handed<'_, O>| disk.read_handed(handed, &unchanged);
    // Nothing waits, so that no more is read than is under way when a bad spot is met.
    with_crew(0, each, |crew| {
        plan(&mut |job, emit| {
            let first = job.first.0;
            if disk.known.is_some() || disk.rescue.has_failed() {
                under_way.wait_until(first);
                let content = disk.read(first, job.count)?;
                return emit.job(vec![job.with(content)]);
            }
            crew.hand((emit.slot()?, job, under_way.begin(first)))
        })
    })
}
