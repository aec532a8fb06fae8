//! Does a disk hold what an image says? By digests, without decoding the image.

use super::Resources;
use super::ordered;
use crate::base::{
    BlockIndex, BlockMap, ByteOffset, Digest, Event, Extent, Phase, Result, normalize, outside,
    to_u64, to_usize,
};
use crate::block::{AlignedBuf, Mapping};
use crate::image::{BlockState, BlockStates, Header, Leaf, Piece, is_zero};
use std::ops::Range;
use std::sync::Arc;

/// Fills a buffer from an offset of a disk.
pub type Read<'a> = &'a (dyn Fn(ByteOffset, &mut [u8]) -> Result<()> + Sync);

/// The disk to compare with, addressed as the imaged disk was.
pub struct ReadBlocks<'a> {
    /// Fills the buffer from an offset of the imaged disk.
    pub read: Read<'a>,
    /// Where `read` shows unused bytes as zeros: the bytes as they are. A block that was imaged whole
    /// is the same when these are.
    pub read_whole: Option<Read<'a>>,
    /// What lies at an offset; saves reading holes.
    pub mapping: &'a (dyn Fn(ByteOffset) -> Result<Mapping> + Sync),
}

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Blocks to look at.
    pub blocks: Range<u64>,
    /// Blocks that touch one of these bytes are left out.
    pub except: Vec<Extent>,
    /// Blocks that the disk has in use. Where the image knows them as unused they differ, unless they
    /// are zero; without this nothing is asked of unused blocks.
    pub in_use: Option<BlockMap>,
    /// Whether blocks with unreadable parts must hold their stored form too.
    pub unreadable: bool,
    /// The only blocks to look at, where not all are.
    pub only: Option<BlockMap>,
    /// What to call the phase.
    pub phase: Phase,
}

/// Neighbouring blocks to read and compare at once.
struct Job {
    leaf: Option<Arc<Leaf>>,
    blocks: Range<u64>,
}

/// Returns the byte ranges of blocks that differ, ascending.
///
/// # Errors
/// What `disk` returns; `Damaged` when the image's table is; `Interrupted` or `Terminated`.
pub fn compare(
    table: &dyn BlockStates,
    disk: &ReadBlocks<'_>,
    what: &Compared,
    resources: Resources<'_>,
) -> Result<Vec<Extent>> {
    let header = table.header();
    let mut differences = Vec::new();
    let phase = what.phase;
    let bytes = Some(header.extent_of(&what.blocks).len.0);
    resources
        .observer
        .event(Event::PhaseStarted { phase, bytes });
    let planner = Planner { header, disk, what };
    ordered::run(
        resources.threads,
        resources.tickets(header.window_len()),
        |emit| {
            table.each_piece(what.blocks.clone(), &mut |piece| {
                resources.cancel.check()?;
                planner.plan(piece, &mut |blocks, leaf| match leaf {
                    Work::Skip => emit.ready((Vec::new(), header.extent_of(&blocks).len.0)),
                    Work::Zero => emit.job(Job { leaf: None, blocks }),
                    Work::Leaf(leaf) => emit.job(Job {
                        leaf: Some(leaf),
                        blocks,
                    }),
                })
            })
        },
        || {
            let mut buf = AlignedBuf::zeroed(header.window_len());
            Ok(move |job: Job| {
                let bytes = header.extent_of(&job.blocks).len.0;
                Ok((check(header, disk, &job, &mut buf)?, bytes))
            })
        },
        |(found, bytes)| {
            resources.cancel.check()?;
            differences.extend(found);
            resources.observer.event(Event::Advanced { bytes });
            Ok(())
        },
    )?;
    resources.observer.event(Event::PhaseFinished { phase });
    Ok(normalize(differences))
}

enum Work {
    Skip,
    Zero,
    Leaf(Arc<Leaf>),
}

struct Planner<'a> {
    header: &'a Header,
    disk: &'a ReadBlocks<'a>,
    what: &'a Compared,
}

impl Planner<'_> {
    fn plan(
        &self,
        piece: Piece,
        each: &mut dyn FnMut(Range<u64>, Work) -> Result<()>,
    ) -> Result<()> {
        let clip = |blocks: Range<u64>| {
            blocks.start.max(self.what.blocks.start)..blocks.end.min(self.what.blocks.end)
        };
        match piece {
            Piece::Lost { blocks, error } => {
                let blocks = clip(blocks);
                let lost = self.header.extent_of(&blocks);
                match outside(lost, &self.what.except).is_empty() {
                    true => each(blocks, Work::Skip),
                    false => Err(error),
                }
            }
            Piece::Uniform { blocks, state, .. } => self.run(clip(blocks), state, each),
            Piece::Leaf(leaf) => self.leaf(&leaf, clip(leaf.first.0..leaf.end()), each),
        }
    }

    /// Groups blocks of a leaf that are compared alike, at most a window at once.
    fn leaf(
        &self,
        leaf: &Arc<Leaf>,
        blocks: Range<u64>,
        each: &mut dyn FnMut(Range<u64>, Work) -> Result<()>,
    ) -> Result<()> {
        let state_of = |b: u64| leaf.blocks[to_usize(b - leaf.first.0)].state;
        let class = |b: u64| match state_of(b) {
            _ if self.is_excepted(b) => 0,
            BlockState::Unreadable if !self.what.unreadable => 0,
            BlockState::Data | BlockState::Unreadable => 1,
            BlockState::Zero => 2,
            BlockState::Unused if self.is_in_use(b) => 2,
            BlockState::Unused => 0,
        };
        let mut at = blocks.start;
        while at < blocks.end {
            let this = class(at);
            let most = if this == 1 {
                self.header.window_blocks()
            } else {
                u64::MAX
            };
            let mut end = at + 1;
            while end < blocks.end && end - at < most && class(end) == this {
                end += 1;
            }
            match this {
                0 => each(at..end, Work::Skip)?,
                1 => each(at..end, Work::Leaf(Arc::clone(leaf)))?,
                _ => self.zeros(at..end, each)?,
            }
            at = end;
        }
        Ok(())
    }

    fn run(
        &self,
        blocks: Range<u64>,
        state: BlockState,
        each: &mut dyn FnMut(Range<u64>, Work) -> Result<()>,
    ) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let only = self.what.only.as_ref();
        if only.is_some_and(|map| map.count_in(blocks.clone()) == 0) {
            return each(blocks, Work::Skip);
        }
        match (state, &self.what.in_use) {
            (BlockState::Zero, _) => self.zeros(blocks, each),
            (BlockState::Unused, Some(in_use)) => {
                let mut at = blocks.start;
                while at < blocks.end {
                    let end = in_use.end_of_run(at..blocks.end);
                    if in_use.contains(BlockIndex(at)) {
                        self.zeros(at..end, each)?;
                    } else {
                        each(at..end, Work::Skip)?;
                    }
                    at = end;
                }
                Ok(())
            }
            _ => each(blocks, Work::Skip),
        }
    }

    fn is_in_use(&self, block: u64) -> bool {
        let in_use = self.what.in_use.as_ref();
        in_use.is_some_and(|map| map.contains(BlockIndex(block)))
    }

    /// Blocks that must be zero: holes are not read, the rest window by window.
    fn zeros(
        &self,
        blocks: Range<u64>,
        each: &mut dyn FnMut(Range<u64>, Work) -> Result<()>,
    ) -> Result<()> {
        let size = self.header.block_size;
        let mut at = blocks.start;
        let mut data_until = 0;
        while at < blocks.end {
            let start = self.header.extent_of(&(at..at + 1)).start;
            if start.0 >= data_until {
                match (self.disk.mapping)(start)? {
                    Mapping::Zero(len) => {
                        let hole_end = start.0.saturating_add(len.0);
                        let whole = if hole_end >= self.header.disk_len.0 {
                            blocks.end
                        } else {
                            (hole_end / size.bytes()).min(blocks.end)
                        };
                        if whole > at {
                            each(at..whole, Work::Skip)?;
                            at = whole;
                            continue;
                        }
                    }
                    Mapping::Data(len) => data_until = start.0.saturating_add(len.0),
                }
            }
            let mut end = (at + self.header.window_blocks()).min(blocks.end);
            if (at..end).any(|b| self.is_excepted(b)) {
                end = at + 1;
            }
            let work = if self.is_excepted(at) {
                Work::Skip
            } else {
                Work::Zero
            };
            each(at..end, work)?;
            at = end;
        }
        Ok(())
    }

    fn is_excepted(&self, block: u64) -> bool {
        let only = self.what.only.as_ref();
        if only.is_some_and(|map| !map.contains(BlockIndex(block))) {
            return true;
        }
        let extent = self.header.extent_of(&(block..block + 1));
        self.what
            .except
            .iter()
            .any(|e| e.intersect(extent).is_some())
    }
}

fn check(
    header: &Header,
    disk: &ReadBlocks<'_>,
    job: &Job,
    buf: &mut AlignedBuf,
) -> Result<Vec<Extent>> {
    let whole = header.extent_of(&job.blocks);
    let buf = &mut buf[..to_usize(whole.len.0)];
    (disk.read)(whole.start, buf)?;
    let mut wrong = Vec::new();
    for (i, bytes) in buf.chunks_mut(header.block_size.as_usize()).enumerate() {
        let block = BlockIndex(job.blocks.start + to_u64(i));
        let extent = header.extent_of(&(block.0..block.0 + 1));
        let mut same = match &job.leaf {
            None => is_zero(bytes),
            Some(leaf) => holds(leaf, block, bytes),
        };
        if let (false, Some(leaf), Some(read_whole)) = (same, &job.leaf, disk.read_whole) {
            read_whole(extent.start, bytes)?;
            same = holds(leaf, block, bytes);
        }
        if !same {
            wrong.push(extent);
        }
    }
    Ok(wrong)
}

fn holds(leaf: &Leaf, block: BlockIndex, bytes: &[u8]) -> bool {
    leaf.block(block).map(|b| b.digest) == Some(Digest::of(bytes))
}
