//! A run of `fs::used` or `fs::files_hit` of which reads, bytes and memory are counted, and what has to hold for every
//! run whatever the disk holds.

use diskstrata::base::{ByteLen, ByteOffset, Cancel, Error, ErrorKind, Extent, Geometry, Result};
use diskstrata::block::{BlockSource, Mapping};
use diskstrata::fs::{Certainty, Hit, MAX_LISTED, UsedReport};
use peak_alloc::PeakAlloc;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts what the whole process has allocated.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What a run may allocate at once: 64 MiB.
pub(crate) const MOST_HEAP: u64 = 64 << 20;
/// What either may read of any disk beside an eighth of it: 256 MiB; and what one read costs of
/// that beside its bytes.
const BUDGET: u64 = 256 << 20;
const READ_COST: u64 = 512;
/// What is read beside that to tell bytes from the pattern of unreadable ones: a little for each range.
const AROUND: u64 = 64 << 10;
/// Where a disk claims to be huge that says nothing about how much of its metadata is there: no
/// damaged capsule is worth more than this. 1 GiB.
const MOST_BYTES: u64 = 1 << 30;

/// One run and what it took.
#[derive(Debug)]
pub(crate) struct Run<T = UsedReport> {
    pub(crate) len: u64,
    pub(crate) report: Result<T>,
    pub(crate) reads: u64,
    pub(crate) bytes: u64,
    /// What it may read, with the cost of each read.
    most: u64,
    /// The most that was allocated at once, beside what was allocated before.
    pub(crate) heap: u64,
}

/// Asks what is in use in `source`, counting. Memory is that of the process: nothing else may run.
pub(crate) fn run(source: &dyn BlockSource) -> Run {
    let most = most_to_read(source.len().0).min(MOST_BYTES);
    watched(source, most, |metered| {
        diskstrata::fs::used(metered, &Cancel::new())
    })
}

/// As [`run`], of a disk that has all the metadata that it claims to have.
pub(crate) fn run_whole(source: &dyn BlockSource) -> Run {
    watched(source, most_to_read(source.len().0), |metered| {
        diskstrata::fs::used(metered, &Cancel::new())
    })
}

/// Asks which files `ranges` of `source` hit, likewise.
pub(crate) fn run_hit(source: &dyn BlockSource, ranges: &[Extent]) -> Run<Hit> {
    let most = most_to_read(source.len().0).min(MOST_BYTES);
    watched(source, most, |metered| {
        diskstrata::fs::files_hit(metered, ranges, &Cancel::new())
    })
}

/// Ranges all over a disk of `len` bytes: its start, and every other of some equal parts.
pub(crate) fn ranges(len: u64) -> Vec<Extent> {
    const PARTS: u64 = 16;
    let part = len / PARTS;
    let range = |start, len| Extent {
        start: ByteOffset(start),
        len: ByteLen(len),
    };
    let every_other = (1..PARTS).step_by(2).map(|n| range(n * part, part));
    let start = range(0, (64 << 10).min(part / 2));
    std::iter::once(start)
        .chain(every_other)
        .filter(|r| !r.is_empty())
        .collect()
}

fn watched<T>(
    source: &dyn BlockSource,
    most: u64,
    ask: impl FnOnce(&dyn BlockSource) -> Result<T>,
) -> Run<T> {
    let metered = Metered {
        inner: source,
        reads: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        most,
    };
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let report = ask(&metered);
    let heap = HEAP.peak_usage().saturating_sub(before);
    Run {
        len: source.len().0,
        report,
        reads: metered.reads.into_inner(),
        bytes: metered.bytes.into_inner(),
        most,
        heap: u64::try_from(heap).unwrap_or(u64::MAX),
    }
}

/// The most that may be read of a disk of `len` bytes, with the cost of each read.
fn most_to_read(len: u64) -> u64 {
    (len / 8).saturating_add(BUDGET)
}

fn ensure(holds: bool, what: &dyn Fn() -> String) -> std::result::Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl<T> Run<T> {
    /// The answer, if it did not take more than it may.
    fn within_limits(&self) -> std::result::Result<&T, String> {
        let report = self.report.as_ref().map_err(|e| format!("an error: {e}"))?;
        let cost = self.bytes.saturating_add(self.reads * READ_COST);
        ensure(cost <= self.most + AROUND, &|| {
            format!("{} bytes in {} reads", self.bytes, self.reads)
        })?;
        ensure(self.heap <= MOST_HEAP, &|| {
            format!("{} bytes of memory", self.heap)
        })?;
        Ok(report)
    }
}

impl Run<Hit> {
    /// What it did that no run may do; `ranges` is what was asked for.
    ///
    /// # Errors
    /// The first breach, in words.
    pub(crate) fn check_hit(&self, ranges: &[Extent]) -> std::result::Result<&Hit, String> {
        let hit = self.within_limits()?;
        ensure(hit.files.len() <= MAX_LISTED, &|| "too many files".into())?;
        ensure(
            hit.more == 0 || hit.files.len() == MAX_LISTED || hit.incomplete.is_some(),
            &|| format!("{} more files, and room for them", hit.more),
        )?;
        ensure(hit.unknown.is_empty() || hit.incomplete.is_some(), &|| {
            "unknown bytes without a reason".into()
        })?;
        for part in [&hit.metadata, &hit.free, &hit.unknown] {
            let inside = |e: &Extent| ranges.iter().any(|range| range.contains(*e));
            ensure(part.iter().all(inside), &|| {
                "more than was asked for".into()
            })?;
            let apart = part.windows(2).all(|two| two[0].end() <= two[1].start);
            ensure(apart, &|| "extents that overlap".into())?;
        }
        for file in &hit.files {
            let sane = file.bytes > 0 || file.own_metadata;
            ensure(sane, &|| format!("{file:?} is not hit"))?;
        }
        Ok(hit)
    }
}

impl Run {
    /// What it did that no run may do.
    ///
    /// # Errors
    /// The first breach, in words.
    pub(crate) fn check(&self) -> std::result::Result<&UsedReport, String> {
        let report = self.within_limits()?;
        let used = report.used_bytes(ByteLen(self.len)).0;
        match &report.certainty {
            Certainty::Unknown(why) => {
                ensure(used == self.len, &|| {
                    format!("{used} bytes in use although nothing is known")
                })?;
                ensure(!why.trim().is_empty(), &|| {
                    "a doubt without a reason".into()
                })?;
            }
            Certainty::Certain => {
                let unit = report.unit.0;
                ensure(unit > 0, &|| "units of no length".into())?;
                let (units, blocks) = (self.len.div_ceil(unit), report.used.blocks());
                ensure(units == blocks, &|| {
                    format!("a map of {blocks} units of {unit} for {} bytes", self.len)
                })?;
            }
        }
        let end = report.used.runs().last().map_or(0, |run| run.end);
        ensure(end <= report.used.blocks(), &|| {
            format!("unit {end} is in use, past the end of the map")
        })?;
        for content in &report.contents {
            let last = content.extents.iter().map(|e| e.end().0).max();
            ensure(last.unwrap_or(0) <= self.len, &|| {
                format!("{:?} past the end", content.kind)
            })?;
        }
        for inside in &report.inside {
            let sane = inside.used <= inside.bytes && inside.bytes.0 <= self.len;
            ensure(sane, &|| format!("{inside:?} in {} bytes", self.len))?;
        }
        Ok(report)
    }
}

/// The first bytes that `truth` has in use and `found` has not, of a disk of `len` bytes.
pub(crate) fn missing(truth: &UsedReport, found: &UsedReport, len: u64) -> Option<Range<u64>> {
    let bytes = |run| bytes_of(run, truth.unit.0, len);
    missing_of(truth.used.runs().map(bytes), found, len)
}

fn bytes_of(units: Range<u64>, unit: u64, len: u64) -> Range<u64> {
    let end = |units: u64| units.saturating_mul(unit).min(len);
    end(units.start)..end(units.end)
}

/// The first bytes of the ascending `used` that `found` has not, of a disk of `len` bytes.
pub(crate) fn missing_of(
    used: impl Iterator<Item = Range<u64>>,
    found: &UsedReport,
    len: u64,
) -> Option<Range<u64>> {
    let mut gaps = found
        .used
        .gaps()
        .map(|gap| bytes_of(gap, found.unit.0, len));
    let mut gap = gaps.next()?;
    for run in used {
        while gap.end <= run.start {
            gap = gaps.next()?;
        }
        if gap.start < run.end && gap.start < gap.end && run.start < run.end {
            return Some(gap.start.max(run.start)..gap.end.min(run.end));
        }
    }
    None
}

/// Counts reads, and ends a run that reads too much: the reader takes that for a failing disk.
struct Metered<'a> {
    inner: &'a dyn BlockSource,
    reads: AtomicU64,
    bytes: AtomicU64,
    most: u64,
}

impl BlockSource for Metered<'_> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        let reads = self.reads.fetch_add(1, Relaxed) + 1;
        let bytes = self.bytes.fetch_add(len, Relaxed) + len;
        if bytes + reads * READ_COST > self.most {
            return Err(Error::new(
                ErrorKind::Source,
                "read",
                "more than may be read",
            ));
        }
        self.inner.read_at(offset, buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.inner.mapping(offset)
    }
}
