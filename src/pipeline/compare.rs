//! Does a disk hold what an image says? By digests, without decoding the image.

use super::mask::WIDE_GAP;
use super::pool::Pool;
use super::{Resources, ordered};
use crate::base::{
    AlignedBuf, BlockIndex, BlockMap, ByteOffset, Digest, Event, Extent, Phase, Result, normalize,
    outside, to_u64, to_usize,
};
use crate::block::Mapping;
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
    /// What they must hold; zeros without it.
    leaf: Option<Arc<Leaf>>,
    blocks: Range<u64>,
    /// Runs among them of which nothing is asked.
    skipped: Vec<Range<u64>>,
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
    let planner = Planner {
        header,
        disk,
        what,
        except: normalize(what.except.clone()),
    };
    let pool = Pool::of(header.window_len());
    ordered::run(
        resources.threads,
        resources.tickets(header.window_len()),
        |emit| {
            table.each_piece(what.blocks.clone(), &mut |piece| {
                resources.cancel.check()?;
                planner.plan(piece, &mut |blocks, leaf| match leaf {
                    Work::Skip => emit.ready((Vec::new(), header.extent_of(&blocks).len.0)),
                    Work::Zero => emit.job(Job {
                        leaf: None,
                        blocks,
                        skipped: Vec::new(),
                    }),
                    Work::Leaf(leaf, skipped) => emit.job(Job {
                        leaf: Some(leaf),
                        blocks,
                        skipped,
                    }),
                })
            })
        },
        || {
            let mut buf = pool.take();
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
    /// But for these runs.
    Leaf(Arc<Leaf>, Vec<Range<u64>>),
}

/// What is asked of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Nothing, and it may not be read.
    Avoided,
    Nothing,
    Content,
    Zeros,
}

struct Planner<'a> {
    header: &'a Header,
    disk: &'a ReadBlocks<'a>,
    what: &'a Compared,
    /// What is left out: ascending, apart.
    except: Vec<Extent>,
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
                match outside(lost, &self.except).is_empty() {
                    true => each(blocks, Work::Skip),
                    false => Err(error),
                }
            }
            Piece::Uniform { blocks, state, .. } => self.run(clip(blocks), state, each),
            Piece::Leaf(leaf) => self.leaf(&leaf, clip(leaf.first.0..leaf.end()), each),
        }
    }

    /// Groups blocks of a leaf that are compared alike, at most a window at once. What lies between two runs of
    /// content comes with them, where that is less to read than another request costs.
    fn leaf(
        &self,
        leaf: &Arc<Leaf>,
        blocks: Range<u64>,
        each: &mut dyn FnMut(Range<u64>, Work) -> Result<()>,
    ) -> Result<()> {
        let mut at = blocks.start;
        while at < blocks.end {
            if self.class_of(leaf, at) == Class::Content {
                let until = blocks.end.min(at + self.header.window_blocks());
                let (end, skipped) = self.content(leaf, at..until);
                each(at..end, Work::Leaf(Arc::clone(leaf), skipped))?;
                at = end;
                continue;
            }
            let (class, end) = self.run_of(leaf, at..blocks.end);
            match class {
                Class::Zeros => self.zeros(at..end, each)?,
                _ => each(at..end, Work::Skip)?,
            }
            at = end;
        }
        Ok(())
    }

    fn class_of(&self, leaf: &Leaf, block: u64) -> Class {
        match leaf.blocks[to_usize(block - leaf.first.0)].state {
            _ if self.is_excepted(block) => Class::Avoided,
            BlockState::Unreadable if !self.what.unreadable => Class::Avoided,
            BlockState::Data | BlockState::Unreadable => Class::Content,
            BlockState::Zero => Class::Zeros,
            BlockState::Unused if self.is_in_use(block) => Class::Zeros,
            BlockState::Unused => Class::Nothing,
        }
    }

    /// The class of the first of `blocks`, and where those of the same class end.
    fn run_of(&self, leaf: &Leaf, blocks: Range<u64>) -> (Class, u64) {
        let class = self.class_of(leaf, blocks.start);
        let mut others = blocks.start + 1..blocks.end;
        let end = others.find(|b| self.class_of(leaf, *b) != class);
        (class, end.unwrap_or(blocks.end))
    }

    /// Where the runs of content end that begin with `blocks` and are read together; and those between them of
    /// which nothing is asked.
    fn content(&self, leaf: &Leaf, blocks: Range<u64>) -> (u64, Vec<Range<u64>>) {
        let (mut end, mut skipped) = (blocks.start, Vec::new());
        let (mut at, mut between) = (blocks.start, Vec::new());
        while at < blocks.end {
            let (class, run_end) = self.run_of(leaf, at..blocks.end);
            let near = self.header.extent_of(&(end..at)).len.0 < WIDE_GAP;
            match class {
                _ if !near => break,
                Class::Avoided => break,
                Class::Zeros => {}
                Class::Nothing => between.push(at..run_end),
                Class::Content => {
                    skipped.append(&mut between);
                    end = run_end;
                }
            }
            at = run_end;
        }
        (end, skipped)
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
        if only.is_some_and(|map| !map.intersects(blocks.clone())) {
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
        let next = self.except.partition_point(|e| e.end().0 <= extent.start.0);
        let next = self.except.get(next);
        next.is_some_and(|e| e.start.0 < extent.end().0)
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
        if job.skipped.iter().any(|run| run.contains(&block.0)) {
            continue;
        }
        let extent = header.extent_of(&(block.0..block.0 + 1));
        let expected = job.leaf.as_ref().and_then(|leaf| leaf.block(block));
        let digest = expected.filter(|b| b.state.has_content()).map(|b| b.digest);
        let mut same = match digest {
            None => is_zero(bytes),
            Some(digest) => Digest::of(bytes) == digest,
        };
        if let (false, Some(digest), Some(read_whole)) = (same, digest, disk.read_whole) {
            read_whole(extent.start, bytes)?;
            same = Digest::of(bytes) == digest;
        }
        if !same {
            wrong.push(extent);
        }
    }
    Ok(wrong)
}
