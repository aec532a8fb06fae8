//! Reading around bad spots: what is good first, and what is bad as closely as it pays.

use super::BlockSource;
use crate::base::{
    ByteLen, ByteOffset, Error, ErrorKind, Extent, Result, normalize, outside, to_u64, to_usize,
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What stands in an image, and after a restore on the target, where the source could not be
/// read: repeated from byte 0 of the disk, so that every 16-byte line of a hole shows it whole.
pub const UNREADABLE_PATTERN: [u8; 16] = *b"strata:unreadabl";

/// Fills `buf`, which lies at `offset` of the disk, with [`UNREADABLE_PATTERN`].
pub fn fill_unreadable(buf: &mut [u8], offset: ByteOffset) {
    let phase = to_usize(offset.0 % to_u64(UNREADABLE_PATTERN.len()));
    for (byte, pattern) in buf
        .iter_mut()
        .zip(UNREADABLE_PATTERN.iter().cycle().skip(phase))
    {
        *byte = *pattern;
    }
}

/// What could not be read, ascending and apart; no byte is in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Sectors that failed each time they were read.
    pub bad: Vec<Extent>,
    /// What was passed over because it lies among bad sectors, or was to be left for later.
    pub untried: Vec<Extent>,
}

impl Missing {
    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.bad.is_empty() && self.untried.is_empty()
    }

    /// Bytes that are missing.
    pub fn bytes(&self) -> u64 {
        let both = self.bad.iter().chain(&self.untried);
        both.fold(0, |sum, e| sum.saturating_add(e.len.0))
    }

    /// All of it, ascending and apart.
    pub fn all(&self) -> Vec<Extent> {
        normalize([self.bad.as_slice(), &self.untried].concat())
    }

    /// Takes in what is missing elsewhere.
    pub fn add(&mut self, other: Missing) {
        self.bad.extend(other.bad);
        self.untried.extend(other.untried);
    }

    /// The same, in order and with neighbours joined.
    #[must_use]
    pub fn normalized(self) -> Missing {
        Missing {
            bad: normalize(self.bad),
            untried: normalize(self.untried),
        }
    }
}

/// Time since some fixed moment.
pub type Clock<'a> = &'a (dyn Fn() -> Duration + Sync);

/// How much is done about bad spots.
#[derive(Clone)]
pub struct Effort<'a> {
    /// How often a sector is read before it counts as bad, at least 1.
    pub attempts: u32,
    /// Failing reads within one run of bad spots after which the rest of the run is left for later.
    pub run: Option<u32>,
    /// Time that all failing reads together may take. After that, what fails is not cut up any more.
    pub limit: Option<(Duration, Clock<'a>)>,
    /// What is not tried at all, ascending and apart.
    pub avoid: Vec<Extent>,
}

impl Effort<'_> {
    /// Every sector once, however long it takes.
    pub const THOROUGH: Effort<'static> = Effort {
        attempts: 1,
        run: None,
        limit: None,
        avoid: Vec::new(),
    };
}

/// Bad spots that are closer to one another than this are one run: 64 KiB.
const NEAR: u64 = 64 << 10;
/// After so many reads that failed one after another, a place that was good is read again: is the disk there?
const DOUBT: u64 = 64;
/// How much is passed over first, and at most, after a run of bad spots. It doubles as long as bad spots
/// follow, so that a region of any size is behind us after a few dozen reads.
const SKIP: (u64, u64) = (64 << 10, 256 << 20);

/// A disk that is read around its bad spots. Reads come from any thread, on the whole in ascending order.
pub struct Rescue<'a> {
    source: &'a dyn BlockSource,
    effort: Effort<'a>,
    sector: u64,
    progress: Mutex<Progress>,
}

/// The run of bad spots that was met last.
#[derive(Debug)]
struct Progress {
    /// Where its last bad sector ends, or what was passed over of it.
    end: u64,
    /// Failing reads in it.
    failed: u32,
    /// How much is passed over next.
    skip: u64,
    /// What lies before this, from the run on, is left for later.
    skip_until: u64,
    /// Time taken by all failing reads.
    spent: Duration,
    /// Where the last good read began.
    good: Option<u64>,
    /// Reads that failed since then.
    in_a_row: u64,
    /// Whether any read has failed.
    has_failed: bool,
}

impl Progress {
    /// Notes a read that failed at `at` after `took`.
    fn failed_at(&mut self, at: Extent, took: Duration) {
        if !self.is_near(at.start.0) || at.end().0 < self.end {
            self.failed = 0;
            self.skip = SKIP.0;
        }
        self.failed = self.failed.saturating_add(1);
        self.spent = self.spent.saturating_add(took);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.has_failed = true;
    }

    fn is_near(&self, start: u64) -> bool {
        start <= self.end.saturating_add(NEAR)
    }

    /// Leaves what follows `from` for later.
    fn skip_from(&mut self, from: u64) {
        self.skip_until = from.saturating_add(self.skip);
        self.end = self.skip_until;
        self.skip = (self.skip * 2).min(SKIP.1);
    }
}

impl<'a> Rescue<'a> {
    /// Reads `source` with `effort`.
    pub fn new(source: &'a dyn BlockSource, effort: Effort<'a>) -> Rescue<'a> {
        Rescue {
            sector: u64::from(source.geometry().logical_sector.bytes()),
            source,
            effort,
            progress: Mutex::new(Progress {
                end: 0,
                failed: 0,
                skip: SKIP.0,
                skip_until: 0,
                spent: Duration::ZERO,
                good: None,
                in_a_row: 0,
                has_failed: false,
            }),
        }
    }

    /// Fills `buf` from `offset` with one read. `false`: something there is bad or may be left out, which is for
    /// [`Rescue::read`] to find out; nothing is noted but that a read has failed. Several of these may be under way.
    ///
    /// # Errors
    /// As [`Rescue::read`].
    pub fn read_plainly(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<bool> {
        if self.passes_over(extent_of(offset, buf)) {
            return Ok(false);
        }
        match self.source.read_at(offset, buf) {
            Ok(()) => {
                self.was_good(offset);
                Ok(true)
            }
            Err(e) if is_bad_spot(&e) => {
                self.progress().has_failed = true;
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Notes that what is at `offset` was had without [`Rescue::read`].
    pub fn was_good(&self, offset: ByteOffset) {
        let mut progress = self.progress();
        (progress.good, progress.in_a_row) = (Some(offset.0), 0);
    }

    /// Fills `buf` from `offset` as far as the medium gives it. Where it does not, `buf` holds the pattern,
    /// and that is returned, to the logical sector.
    ///
    /// # Errors
    /// Anything but a bad spot: a device that is gone fails every read and must end the run.
    pub fn read(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<Missing> {
        let whole = extent_of(offset, buf);
        let mut missing = Missing::default();
        if self.passes_over(whole) {
            for wanted in outside(whole, &self.avoided(whole)) {
                let part = part_of(buf, offset, wanted);
                self.read_beyond_skipped(wanted.start, part, &mut missing)?;
            }
            for avoided in self.avoided(whole) {
                fill_unreadable(part_of(buf, offset, avoided), avoided.start);
                missing.untried.push(avoided);
            }
        } else {
            self.read_part(offset, buf, &mut missing)?;
        }
        Ok(missing.normalized())
    }

    /// Whether many reads have failed, and none was good: there is no disk.
    pub fn has_read_nothing(&self) -> bool {
        let progress = self.progress();
        progress.good.is_none() && progress.in_a_row >= DOUBT
    }

    /// Whether a bad spot was met.
    pub fn has_failed(&self) -> bool {
        self.progress().has_failed
    }

    /// Whether some of `whole` may have to be left out.
    pub fn passes_over(&self, whole: Extent) -> bool {
        !self.effort.avoid.is_empty() || self.progress().skip_until > whole.start.0
    }

    fn avoided(&self, whole: Extent) -> Vec<Extent> {
        let avoid = &self.effort.avoid;
        let first = avoid.partition_point(|e| e.end() <= whole.start);
        let near = avoid.iter().skip(first);
        near.map_while(|e| e.intersect(whole)).collect()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `read_part`, without what is being passed over. Behind that a single sector is tried first: it
    /// tells for little whether the run goes on.
    fn read_beyond_skipped(
        &self,
        offset: ByteOffset,
        buf: &mut [u8],
        missing: &mut Missing,
    ) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let until = self.progress().skip_until;
            let Some(left) = until.checked_sub(at.0).filter(|left| *left > 0) else {
                break;
            };
            let skipped = to_usize(left).min(rest.len());
            let (part, behind) = rest.split_at_mut(skipped);
            leave(at, part, missing);
            (at, rest) = (ByteOffset(at.0 + to_u64(skipped)), behind);
            let sector = self.to_boundary(at).min(rest.len());
            if sector == 0 {
                return Ok(());
            }
            let (probe, behind) = rest.split_at_mut(sector);
            if !self.read_sector(at, probe, missing)? {
                self.progress().skip_from(at.0 + to_u64(sector));
            }
            (at, rest) = (ByteOffset(at.0 + to_u64(sector)), behind);
        }
        self.read_part(at, rest, missing)
    }

    /// Bytes from `at` to the end of its sector of the disk.
    fn to_boundary(&self, at: ByteOffset) -> usize {
        to_usize(self.sector - at.0 % self.sector)
    }

    fn read_part(&self, offset: ByteOffset, buf: &mut [u8], missing: &mut Missing) -> Result<()> {
        if buf.is_empty() || self.attempt(offset, buf)? {
            return Ok(());
        }
        self.cut_up(offset, buf, missing)
    }

    /// Halves a range that failed until its parts are read or are single sectors.
    fn cut_up(&self, offset: ByteOffset, buf: &mut [u8], missing: &mut Missing) -> Result<()> {
        // Cut on a sector boundary of the disk, not of the buffer.
        let sector = to_usize(self.sector);
        let lead = to_usize(offset.0 % self.sector);
        let sectors = (lead + buf.len()).div_ceil(sector);
        if sectors <= 1 {
            // It was read once already.
            return self.read_again(offset, buf, 1, missing).map(drop);
        }
        let cut = sectors / 2 * sector - lead;
        let (low, high) = buf.split_at_mut(cut);
        let middle = ByteOffset(offset.0 + to_u64(cut));
        for (start, part) in [(offset, low), (middle, high)] {
            if self.is_enough(start, part) {
                leave(start, part, missing);
            } else if !self.attempt(start, part)? {
                self.cut_up(start, part, missing)?;
            }
        }
        Ok(())
    }

    /// Whether this run of bad spots, or all of them, took so long that `part` of it is left for later.
    fn is_enough(&self, start: ByteOffset, part: &[u8]) -> bool {
        let mut progress = self.progress();
        let end = start.0 + to_u64(part.len());
        if progress.skip_until > start.0 {
            progress.skip_until = progress.skip_until.max(end);
            progress.end = progress.skip_until;
            return true;
        }
        let many = self.effort.run.is_some_and(|most| progress.failed >= most);
        let in_run = many && progress.is_near(start.0);
        let in_all = self
            .effort
            .limit
            .as_ref()
            .is_some_and(|(limit, _)| progress.spent >= *limit);
        if in_run || in_all {
            progress.skip_from(end);
        }
        in_run || in_all
    }

    /// Reads a sector as often as that is wanted; whether it was read.
    fn read_sector(
        &self,
        offset: ByteOffset,
        buf: &mut [u8],
        missing: &mut Missing,
    ) -> Result<bool> {
        self.read_again(offset, buf, 0, missing)
    }

    /// As `read_sector`, after `before` attempts.
    fn read_again(
        &self,
        offset: ByteOffset,
        buf: &mut [u8],
        before: u32,
        missing: &mut Missing,
    ) -> Result<bool> {
        for _ in before..self.effort.attempts.max(1) {
            if self.attempt(offset, buf)? {
                return Ok(true);
            }
        }
        fill_unreadable(buf, offset);
        let bad = extent_of(offset, buf);
        self.progress().end = bad.end().0;
        missing.bad.push(bad);
        Ok(false)
    }

    /// Reads once. `false`: there is a bad spot.
    fn attempt(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<bool> {
        let now = || {
            let limit = self.effort.limit.as_ref();
            limit.map_or(Duration::ZERO, |(_, clock)| clock())
        };
        let began = now();
        match self.source.read_at(offset, buf) {
            Ok(()) => {
                self.was_good(offset);
                Ok(true)
            }
            Err(e) if is_bad_spot(&e) => {
                let took = now().saturating_sub(began);
                let mut progress = self.progress();
                progress.failed_at(extent_of(offset, buf), took);
                let doubtful = progress.in_a_row.is_multiple_of(DOUBT);
                let good = progress.good.filter(|_| doubtful);
                drop(progress);
                good.map_or(Ok(()), |at| self.check_there(ByteOffset(at)))?;
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Fails unless the disk still reads where it was read before: a disk that is gone fails as one that is bad
    /// all over does.
    fn check_there(&self, good: ByteOffset) -> Result<()> {
        let mut sector = vec![0; self.to_boundary(good)];
        let end = self.source.len().0;
        sector.truncate(to_usize(end.saturating_sub(good.0)));
        self.source.read_at(good, &mut sector).map_err(|e| {
            let why = format!("it is gone: what was read before cannot be read any more: {e}");
            Error::new(ErrorKind::Source, "go on with", self.source.name())
                .because(why)
                .hint("see whether it is still plugged in, and what `dmesg` says")
        })
    }
}

fn extent_of(offset: ByteOffset, buf: &[u8]) -> Extent {
    Extent {
        start: offset,
        len: ByteLen(to_u64(buf.len())),
    }
}

/// The part of `buf`, which begins at `offset`, that is `extent`.
fn part_of(buf: &mut [u8], offset: ByteOffset, extent: Extent) -> &mut [u8] {
    let from = to_usize(extent.start.0 - offset.0);
    &mut buf[from..from + to_usize(extent.len.0)]
}

/// Leaves `buf`, which begins at `at`, for later.
fn leave(at: ByteOffset, buf: &mut [u8], missing: &mut Missing) {
    fill_unreadable(buf, at);
    missing.untried.push(extent_of(at, buf));
}

/// Whether the error speaks of one spot of the medium rather than of the whole device. Numbers as
/// the block layer reports them (`block/blk-core.c`, `blk_errors`).
fn is_bad_spot(error: &Error) -> bool {
    use crate::sys::errno::{EILSEQ, EIO, ENODATA, EREMOTEIO};
    matches!(error.os_error(), Some(EIO | ENODATA | EREMOTEIO | EILSEQ))
}

#[cfg(test)]
mod tests;
