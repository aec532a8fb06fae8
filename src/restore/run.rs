//! Writing to a target, step by step, and finding out what it holds.

use super::critical::Critical;
use super::execute::Restored;
use super::plan::RestorePlan;
use super::recent::Recent;
use crate::base::Silent;
use crate::base::{
    AlignedBuf, BlockMap, ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Phase, Result,
    normalize, outside, to_u64, to_usize,
};
use crate::block::{BlockTarget, fill_unreadable};
use crate::image::{Block, BlockState, BlockStates, Header, Summary, Window, is_zero};
use crate::pipeline::{Compared, Extracted, ReadBlocks, Resources, compare};
use std::ops::Range;

/// The very last bytes to be written: MBR, and the primary GPT header with sectors of 512 or 4096
/// bytes. Without the MBR neither firmware nor kernel sees a table.
const LAST_WRITTEN: u64 = 8192;

/// Longest range that is zeroed or discarded in one call: between two the run can be stopped.
const ZERO_STEP: u64 = 256 << 20;

/// How far writing runs ahead before the kernel is asked to begin writing to the medium.
const WRITE_BACK_STEP: u64 = 8 << 20;

/// As much of the pattern is made and written at once.
const PATTERN_STEP: u64 = 1 << 20;

/// A restore under way.
pub(super) struct Run<'a> {
    header: &'a Header,
    plan: &'a RestorePlan,
    target: &'a dyn BlockTarget,
    resources: Resources<'a>,
    pub(super) report: Restored,
    /// Written, but the kernel was not asked yet to begin writing it out.
    unflushed: Extent,
    /// The only blocks to write, where the target holds others already.
    pub(super) only: Option<BlockMap>,
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
            only: None,
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

    /// Writes what was extracted; returns how many bytes of the imaged disk that is.
    pub(super) fn write(&mut self, extracted: &Extracted) -> Result<u64> {
        let extent = self.header.extent_of(&extracted.blocks());
        match extracted {
            Extracted::Run { state, .. } => self.write_run(extent, *state)?,
            Extracted::Unwanted { .. } => self.report.unchanged += extent.len.0,
            Extracted::Lost { error, .. } => self.write_lost(extent, error)?,
            Extracted::Window(window) => self.write_window(window)?,
        }
        Ok(extent.len.0)
    }

    fn write_window(&mut self, window: &Window) -> Result<()> {
        if let Some(error) = &window.error {
            return self.write_damaged(window, error);
        }
        self.write_whole(window)
    }

    /// Writes a window some of whose blocks are known to be lost: the pattern stands in their place.
    fn write_damaged(&mut self, window: &Window, error: &Error) -> Result<()> {
        let header = self.header;
        let start = header
            .extent_of(&(window.first.0..window.first.0 + 1))
            .start;
        let mut data = window.data.clone();
        for block in &window.lost {
            let extent = header.extent_of(&(block.0..block.0 + 1));
            self.check_lost(extent, error)?;
            let from = to_usize(extent.start.0 - start.0);
            if let Some(place) = data.get_mut(from..from + to_usize(extent.len.0)) {
                fill_unreadable(place, extent.start);
            }
        }
        self.write_whole(&Window {
            first: window.first,
            blocks: window.blocks.clone(),
            data,
            lost: Vec::new(),
            error: None,
        })
    }

    /// Writes the pattern where nothing is known of the image.
    fn write_lost(&mut self, imaged: Extent, error: &Error) -> Result<()> {
        self.check_lost(imaged, error)?;
        let mut data = vec![0; to_usize(PATTERN_STEP.min(imaged.len.0))];
        let mut at = imaged.start.0;
        while at < imaged.end().0 {
            self.resources.cancel.check()?;
            let len = (imaged.end().0 - at).min(to_u64(data.len()));
            let extent = Extent {
                start: ByteOffset(at),
                len: ByteLen(len),
            };
            let part = &mut data[..to_usize(len)];
            fill_unreadable(part, extent.start);
            self.write_data(extent, part)?;
            at += len;
        }
        Ok(())
    }

    /// Fails with `error` unless `imaged` is known to be lost.
    fn check_lost(&self, imaged: Extent, error: &Error) -> Result<()> {
        match outside(imaged, self.lost).is_empty() {
            true => Ok(()),
            false => Err(error.clone()),
        }
    }

    fn write_whole(&mut self, window: &Window) -> Result<()> {
        let header = self.header;
        let first = window.first.0;
        let whole = header.extent_of(&(first..first + to_u64(window.blocks.len())));
        let alike = |a: &Block, b: &Block| {
            a.state == b.state || a.state.has_content() && b.state.has_content()
        };
        let mut at = first;
        for run in window.blocks.chunk_by(alike) {
            let end = at + to_u64(run.len());
            let extent = header.extent_of(&(at..end));
            at = end;
            let Some(state) = run.first().map(|b| b.state) else {
                continue;
            };
            if state.has_content() {
                for wanted in self.wanted(extent) {
                    let from = to_usize(wanted.start.0 - whole.start.0);
                    self.write_data(wanted, &window.data[from..from + to_usize(wanted.len.0)])?;
                }
            } else {
                self.write_run(extent, state)?;
            }
        }
        Ok(())
    }

    /// The parts of an imaged range of whole blocks with content that the target does not hold yet.
    fn wanted(&mut self, imaged: Extent) -> Vec<Extent> {
        let Some(only) = &self.only else {
            return vec![imaged];
        };
        let header = self.header;
        let size = header.block_size.bytes();
        let blocks = imaged.start.0 / size..imaged.end().0.div_ceil(size);
        let wanted: Vec<Extent> = only
            .runs_in(blocks)
            .filter_map(|run| header.extent_of(&run).intersect(imaged))
            .collect();
        let bytes: u64 = wanted.iter().map(|e| e.len.0).sum();
        self.report.unchanged += imaged.len.0 - bytes;
        wanted
    }

    /// The parts of an imaged range that are written now: on the target, outside critical ranges.
    fn parts(&self, imaged: Extent) -> Vec<Extent> {
        match self.plan.on_target(imaged) {
            Some(whole) => outside(whole, &self.plan.critical),
            None => Vec::new(),
        }
    }

    fn write_data(&mut self, imaged: Extent, data: &[u8]) -> Result<()> {
        let Some(whole) = self.plan.on_target(imaged) else {
            return Ok(());
        };
        // The first bytes of a block may lie before the restored range.
        let skipped = self.plan.source.start.0.saturating_sub(imaged.start.0);
        for part in self.parts(imaged) {
            let from = to_usize(part.start.0 - whole.start.0 + skipped);
            self.target
                .write_at(part.start, &data[from..from + to_usize(part.len.0)])?;
            self.report.written += part.len.0;
            self.write_back(part);
        }
        Ok(())
    }

    fn write_run(&mut self, imaged: Extent, state: BlockState) -> Result<()> {
        for part in self.parts(imaged) {
            if state == BlockState::Unused {
                for inner in outside(part, &self.plan.edges) {
                    self.give_back(inner)?;
                }
                let edges = self.plan.edges.iter().filter_map(|e| e.intersect(part));
                for edge in edges.collect::<Vec<_>>() {
                    self.zero(edge)?;
                }
            } else {
                self.zero_unless_held(part)?;
            }
        }
        Ok(())
    }

    /// Zeros what is not known to be zero already.
    fn zero_unless_held(&mut self, extent: Extent) -> Result<()> {
        let (Some(only), Some(imaged)) = (&self.only, self.plan.on_image(extent)) else {
            return self.zero(extent);
        };
        let header = self.header;
        let size = header.block_size.bytes();
        let blocks = imaged.start.0 / size..imaged.end().0.div_ceil(size);
        let wanted: Vec<Extent> = only
            .runs_in(blocks)
            .filter_map(|run| {
                self.plan
                    .on_target(header.extent_of(&run))?
                    .intersect(extent)
            })
            .collect();
        wanted.into_iter().try_for_each(|part| self.zero(part))
    }

    /// Discards what nobody uses; zeros it where the medium cannot discard, unless what is there may
    /// stay.
    fn give_back(&mut self, extent: Extent) -> Result<()> {
        if self.target.starts_zeroed() {
            return Ok(());
        }
        let resources = self.resources;
        for step in steps(extent) {
            resources.cancel.check()?;
            if self.target.discard(step)? {
                self.report.discarded += step.len.0;
            } else if self.only.is_none() {
                self.zero(step)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, extent: Extent) -> Result<()> {
        self.report.zeroed += extent.len.0;
        if self.target.starts_zeroed() {
            return Ok(());
        }
        for step in steps(extent) {
            self.resources.cancel.check()?;
            self.target.write_zeros(step)?;
        }
        Ok(())
    }

    /// Keeps the last sync short.
    fn write_back(&mut self, written: Extent) {
        if self.unflushed.is_empty() {
            self.unflushed = written;
        } else {
            let end = self.unflushed.end().max(written.end());
            self.unflushed.len = ByteLen(end.0.saturating_sub(self.unflushed.start.0));
        }
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

/// Cuts a long range into pieces between which a run can be stopped.
fn steps(extent: Extent) -> impl Iterator<Item = Extent> {
    let end = extent.end().0;
    let mut at = extent.start.0;
    std::iter::from_fn(move || {
        let len = (end - at).min(ZERO_STEP);
        let step = Extent {
            start: ByteOffset(at),
            len: ByteLen(len),
        };
        at += len;
        (len > 0).then_some(step)
    })
}
