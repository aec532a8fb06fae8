//! A restore under way: what it did so far, what its target holds, and what makes that recognisable.

use super::critical::Critical;
use super::execute::Restored;
use super::plan::RestorePlan;
use super::recent::Recent;
use super::writer::{Done, Writer, around};
use crate::base::Silent;
use crate::base::{
    AlignedBuf, BlockMap, ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Phase, Result,
    normalize, to_u64, to_usize,
};
use crate::block::BlockTarget;
use crate::image::{BlockStates, Header, Summary, is_zero};
use crate::pipeline::{Compared, Extracted, ReadBlocks, Resources, compare};
use std::ops::Range;

/// The very last bytes to be written: MBR, and the primary GPT header with sectors of 512 or 4096
/// bytes. Without the MBR neither firmware nor kernel sees a table.
const LAST_WRITTEN: u64 = 8192;

/// How far writing runs ahead before the kernel is asked to begin writing to the medium.
const WRITE_BACK_STEP: u64 = 8 << 20;

/// A restore under way.
pub(super) struct Run<'a> {
    header: &'a Header,
    plan: &'a RestorePlan,
    target: &'a dyn BlockTarget,
    resources: Resources<'a>,
    pub(super) report: Restored,
    /// Written, but the kernel was not asked yet to begin writing it out.
    unflushed: Extent,
    /// What is known to be lost of the image.
    pub(super) lost: &'a [Extent],
}

impl<'a> Run<'a> {
    pub(super) fn new(
        header: &'a Header,
        plan: &'a RestorePlan,
        target: &'a dyn BlockTarget,
        resources: Resources<'a>,
    ) -> Run<'a> {
        Run {
            header,
            plan,
            target,
            resources,
            report: Restored::default(),
            unflushed: Extent::default(),
            lost: &[],
        }
    }

    /// The blocks that hold what is restored.
    pub(super) fn blocks(&self) -> Range<u64> {
        let (size, source) = (self.header.block_size.bytes(), self.plan.source);
        source.start.0 / size..source.end().0.div_ceil(size)
    }

    pub(super) fn begun(&self) -> Event {
        Event::PhaseStarted {
            phase: Phase::Restore,
            bytes: Some(self.header.extent_of(&self.blocks()).len.0),
        }
    }

    /// Makes the target recognisable.
    pub(super) fn end(
        mut self,
        critical: &Critical,
        read_back: bool,
        summary: &Summary,
    ) -> Result<Restored> {
        self.write_critical(&critical.0)?;
        if read_back {
            self.check_critical(&critical.0)?;
        }
        self.report.read_back = read_back;
        self.report.unreadable = summary
            .unreadable
            .iter()
            .filter_map(|r| Extent::new(ByteOffset(r.start), ByteLen(r.length)))
            .filter_map(|e| e.intersect(self.plan.source))
            .collect();
        Ok(self.report)
    }

    /// Takes away what would let the target be taken for a disk, the old one or a half-made one.
    pub(super) fn erase_critical(&mut self) -> Result<()> {
        if self.target.starts_zeroed() {
            return Ok(());
        }
        for extent in &self.plan.critical {
            self.target.write_zeros(*extent)?;
        }
        self.target.flush()
    }

    /// What writes the image's pieces, as far as the target does not hold them: of blocks with content, `only` these.
    pub(super) fn writer<'w>(&self, only: Option<&'w BlockMap>) -> Writer<'w>
    where
        'a: 'w,
    {
        Writer {
            header: self.header,
            plan: self.plan,
            target: self.target,
            cancel: self.resources.cancel,
            only,
            lost: self.lost,
        }
    }

    /// Adds what was done to the report; returns how many bytes of the imaged disk that is of.
    pub(super) fn add(&mut self, extracted: &Extracted, done: &Done) -> u64 {
        self.report.written += done.written;
        self.report.zeroed += done.zeroed;
        self.report.discarded += done.discarded;
        self.report.unchanged += done.unchanged;
        self.write_back(done.around);
        self.header.extent_of(&extracted.blocks()).len.0
    }

    /// Keeps the last sync short.
    fn write_back(&mut self, written: Extent) {
        self.unflushed = around(self.unflushed, written);
        if self.unflushed.len.0 >= WRITE_BACK_STEP {
            self.target.write_back(self.unflushed);
            self.unflushed = Extent::default();
        }
    }

    pub(super) fn sync(&self) -> Result<()> {
        let observer = self.resources.observer;
        observer.event(Event::PhaseStarted {
            phase: Phase::Sync,
            bytes: None,
        });
        self.target.flush()?;
        observer.event(Event::PhaseFinished { phase: Phase::Sync });
        Ok(())
    }

    /// Reads `blocks` back, but for the critical ranges; of them, `only` these.
    pub(super) fn read_back(
        &self,
        table: &dyn BlockStates,
        blocks: Range<u64>,
        only: Option<BlockMap>,
        phase: Phase,
    ) -> Result<()> {
        let wrong = self.compare(table, blocks, only, phase, self.resources)?;
        self.check_held(&wrong)
    }

    /// Reads back what was written lately, which then is forgotten.
    pub(super) fn read_back_recent(&self, recent: &mut Recent) -> Result<()> {
        self.target.flush()?;
        let resources = Resources {
            // It is a part of the restore to whoever watches.
            observer: &Silent,
            ..self.resources
        };
        let restored = self.blocks();
        for blocks in recent.ranges() {
            // Windows may begin before what is restored, and end behind it.
            let blocks = blocks.start.max(restored.start)..blocks.end.min(restored.end);
            let wrong = self.compare(recent, blocks, None, Phase::ReadBack, resources)?;
            self.check_held(&wrong)?;
        }
        recent.clear();
        Ok(())
    }

    fn check_held(&self, wrong: &[Extent]) -> Result<()> {
        match wrong.first() {
            None => Ok(()),
            Some(first) => {
                let place = self.plan.on_target(*first).unwrap_or(*first);
                Err(self.not_held(place, wrong.len()))
            }
        }
    }

    /// The blocks that the target does not hold yet; of `only` these, when given.
    pub(super) fn differing(
        &self,
        table: &dyn BlockStates,
        only: Option<BlockMap>,
    ) -> Result<BlockMap> {
        let header = self.header;
        let size = header.block_size.bytes();
        let mut blocks = BlockMap::empty(header.blocks());
        let phase = Phase::Compare;
        for extent in self.compare(table, self.blocks(), only, phase, self.resources)? {
            blocks.insert_range(extent.start.0 / size..extent.end().0.div_ceil(size));
        }
        Ok(blocks)
    }

    /// The parts of `blocks` that the target does not hold, outside critical ranges.
    fn compare(
        &self,
        table: &dyn BlockStates,
        blocks: Range<u64>,
        only: Option<BlockMap>,
        phase: Phase,
        resources: Resources<'_>,
    ) -> Result<Vec<Extent>> {
        let plan = self.plan;
        let critical = plan.critical.iter().filter_map(|e| plan.on_image(*e));
        let except = normalize(critical.chain(self.lost.iter().copied()).collect());
        let on_target = |at: ByteOffset| {
            ByteOffset(
                at.0.saturating_sub(plan.source.start.0)
                    .saturating_add(plan.start.0),
            )
        };
        let read = |at, buf: &mut [u8]| self.target.read_back(on_target(at), buf);
        let mapping = |at| self.target.mapping(on_target(at));
        let disk = ReadBlocks {
            read: &read,
            read_whole: None,
            mapping: &mapping,
        };
        let what = Compared {
            blocks,
            except,
            in_use: None,
            unreadable: true,
            only,
            phase,
        };
        compare(table, &disk, &what, resources)
    }

    /// Writes the critical ranges: everything but the first bytes, and when that is durable, those.
    fn write_critical(&mut self, critical: &[(Extent, AlignedBuf)]) -> Result<()> {
        let head = self.last_written();
        for (extent, bytes) in critical {
            let held = extent.intersect(head).map_or(0, |e| to_usize(e.len.0));
            let start = ByteOffset(extent.start.0 + to_u64(held));
            self.write_unless_zero(start, &bytes[held..])?;
        }
        self.sync()?;
        if let Some((extent, bytes)) = critical.first() {
            let held = extent.intersect(head).map_or(0, |e| to_usize(e.len.0));
            self.write_unless_zero(extent.start, &bytes[..held])?;
        }
        self.sync()
    }

    /// The critical ranges were erased before, so their zeros are there already.
    fn write_unless_zero(&mut self, start: ByteOffset, bytes: &[u8]) -> Result<()> {
        if is_zero(bytes) {
            self.report.zeroed += to_u64(bytes.len());
            return Ok(());
        }
        self.target.write_at(start, bytes)?;
        self.report.written += to_u64(bytes.len());
        Ok(())
    }

    /// The first bytes of the restored range.
    fn last_written(&self) -> Extent {
        Extent {
            start: self.plan.start,
            len: ByteLen(LAST_WRITTEN),
        }
    }

    fn check_critical(&self, critical: &[(Extent, AlignedBuf)]) -> Result<()> {
        for (extent, bytes) in critical {
            let mut found = AlignedBuf::zeroed(bytes.len());
            self.target.read_back(extent.start, &mut found)?;
            if found[..] != bytes[..] {
                // It must not be taken for a good disk.
                self.target.write_zeros(self.last_written())?;
                self.target.flush()?;
                return Err(self.not_held(*extent, 1));
            }
        }
        Ok(())
    }

    fn not_held(&self, first: Extent, count: usize) -> Error {
        let name = self.target.name();
        Error::new(ErrorKind::Destination, "trust", format!("{name}, {first}"))
            .because(format!(
                "it does not hold what was written there ({count} such {})",
                if count == 1 { "range" } else { "ranges" }
            ))
            .hint("the medium, its cable or its enclosure is failing: use another one")
    }
}
