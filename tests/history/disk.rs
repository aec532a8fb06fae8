//! A disk in memory, and what an image of it must say of each block.

use crate::world::odd_len;
use diskstrata::base::{
    BlockIndex, BlockMap, BlockSize, ByteLen, ByteOffset, Extent, Geometry, Result, to_u64,
    to_usize,
};
use diskstrata::block::{BlockSource, Fault, FaultSource, Faults, Mapping, fill_unreadable};
use diskstrata::image::BlockState;
use diskstrata::pipeline::{Selection, Used, select};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;
const EIO: i32 = 5;

/// The bytes of a block; without any it is zero.
pub(crate) type Content = Option<Arc<[u8]>>;

/// What an image must say of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) state: BlockState,
    pub(crate) content: Content,
}

/// One change of the disk. Numbers beyond the end are cut off.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// New content, of a kind that the seed decides.
    Write {
        at: u64,
        count: u64,
        seed: u32,
    },
    Zero {
        at: u64,
        count: u64,
    },
    /// Content that stands elsewhere.
    Copy {
        from: u64,
        at: u64,
        count: u64,
    },
    /// Content that stood there when so many images ago one was made.
    Revert {
        at: u64,
        count: u64,
        back: usize,
    },
    Free {
        at: u64,
        count: u64,
    },
    Allocate {
        at: u64,
        count: u64,
    },
    /// Left out on request from now on, or no longer.
    LeaveOut {
        at: u64,
        count: u64,
    },
    TakeAgain,
    /// Sectors that cannot be read from now on, or can again.
    Spoil {
        sector: u64,
        count: u64,
    },
    Heal,
    /// Another length, of so many whole blocks and a bit: what is new is zero and in use.
    Resize {
        blocks: u64,
    },
}

/// Changing content.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) len: u64,
    content: Vec<Content>,
    used: BlockMap,
    left_out: BlockMap,
    bad: BTreeSet<u64>,
    /// The content whenever an image was made.
    past: Vec<Vec<Content>>,
}

impl Disk {
    /// A disk of zeros, all of it in use.
    pub(crate) fn new(len: u64) -> Disk {
        let blocks = block_size().count(ByteLen(len));
        Disk {
            len,
            content: vec![None; to_usize(blocks)],
            used: BlockMap::full(blocks),
            left_out: BlockMap::empty(blocks),
            bad: BTreeSet::new(),
            past: Vec::new(),
        }
    }

    pub(crate) fn blocks(&self) -> u64 {
        to_u64(self.content.len())
    }

    /// Remembers the content for [`Edit::Revert`].
    pub(crate) fn remember(&mut self) {
        self.past.push(self.content.clone());
    }

    pub(crate) fn edit(&mut self, edit: &Edit) {
        let blocks = self.blocks();
        let clip = |at: u64, count: u64| at.min(blocks)..(at + count).min(blocks);
        match edit {
            Edit::Write { at, count, seed } => {
                for (block, n) in clip(*at, *count).zip(0..) {
                    self.set(block, Some(fresh(seed + n)));
                }
            }
            Edit::Zero { at, count } => clip(*at, *count).for_each(|b| self.set(b, None)),
            Edit::Copy { from, at, count } => {
                for (old, new) in clip(*from, *count).zip(clip(*at, *count)) {
                    self.set(new, self.content[to_usize(old)].clone());
                }
            }
            Edit::Revert { at, count, back } => {
                let Some(place) = self.past.len().checked_sub(back + 1) else {
                    return;
                };
                for block in clip(*at, *count) {
                    let was = self.past[place].get(to_usize(block));
                    self.set(block, was.cloned().flatten());
                }
            }
            Edit::Free { at, count } => self.used.remove_range(clip(*at, *count)),
            Edit::Allocate { at, count } => self.used.insert_range(clip(*at, *count)),
            Edit::LeaveOut { at, count } => self.left_out.insert_range(clip(*at, *count)),
            Edit::TakeAgain => self.left_out = BlockMap::empty(blocks),
            Edit::Spoil { sector, count } => {
                let sectors = self.len.div_ceil(SECTOR);
                self.bad.extend(*sector..(sector + count).min(sectors));
            }
            Edit::Heal => self.bad.clear(),
            Edit::Resize { blocks } => self.resize(odd_len(*blocks)),
        }
    }

    fn resize(&mut self, len: u64) {
        self.len = len;
        let old = self.blocks();
        let blocks = block_size().count(ByteLen(len));
        let fit = |map: &BlockMap| {
            let mut new = BlockMap::empty(blocks);
            for run in map.runs().filter(|run| run.start < blocks) {
                new.insert_range(run.start..run.end.min(blocks));
            }
            new
        };
        (self.used, self.left_out) = (fit(&self.used), fit(&self.left_out));
        self.used.insert_range(old.min(blocks)..blocks);
        self.content.resize(to_usize(blocks), None);
        // The last block was short, or is now.
        for block in [old.min(blocks) - 1, blocks - 1] {
            self.set(block, self.content[to_usize(block)].clone());
        }
        self.bad.retain(|sector| *sector < len.div_ceil(SECTOR));
    }

    /// Gives a block content; the last one may be short.
    fn set(&mut self, block: u64, content: Content) {
        let len = to_usize(self.extent(block).len.0);
        let fits = content.map(|bytes| {
            let mut whole = bytes.to_vec();
            whole.resize(len, 1);
            whole.into()
        });
        self.content[to_usize(block)] =
            fits.filter(|bytes: &Arc<[u8]>| bytes.iter().any(|b| *b != 0));
    }

    fn extent(&self, block: u64) -> Extent {
        block_size().extent_of(BlockIndex(block), ByteLen(self.len))
    }

    /// What an image must say of it now.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        (0..self.blocks()).map(|block| self.cell(block)).collect()
    }

    fn cell(&self, block: u64) -> Cell {
        let content = self.content[to_usize(block)].clone();
        let (left_out, used) = (
            self.left_out.contains(BlockIndex(block)),
            self.used.contains(BlockIndex(block)),
        );
        let state = match &content {
            _ if left_out => BlockState::Zero,
            _ if !used => BlockState::Unused,
            _ if self.is_bad(block) => {
                let content = Some(self.rescued(block));
                return Cell {
                    state: BlockState::Unreadable,
                    content,
                };
            }
            Some(_) => BlockState::Data,
            None => BlockState::Zero,
        };
        let content = content.filter(|_| state.has_content());
        Cell { state, content }
    }

    fn is_bad(&self, block: u64) -> bool {
        let sectors = block * (BLOCK / SECTOR)..(block + 1) * (BLOCK / SECTOR);
        self.bad.range(sectors).next().is_some()
    }

    /// What can be read of a block, and the pattern elsewhere.
    fn rescued(&self, block: u64) -> Arc<[u8]> {
        let extent = self.extent(block);
        let mut bytes = vec![0; to_usize(extent.len.0)];
        copy(&self.content[to_usize(block)], 0, &mut bytes);
        for (sector, part) in (extent.start.0 / SECTOR..).zip(bytes.chunks_mut(to_usize(SECTOR))) {
            if self.bad.contains(&sector) {
                fill_unreadable(part, ByteOffset(sector * SECTOR));
            }
        }
        bytes.into()
    }

    /// What is taken of it.
    pub(crate) fn selection(&self) -> Selection {
        let whole = Extent::whole(ByteLen(self.len));
        let used = Used {
            extent: whole,
            unit: ByteLen(BLOCK),
            map: self.used.clone(),
        };
        let bytes = |run: std::ops::Range<u64>| {
            let end = self.extent(run.end - 1).end();
            Extent::between(self.extent(run.start).start, end).unwrap()
        };
        let left_out = self.left_out.runs().map(bytes).collect();
        select(ByteLen(self.len), block_size(), vec![used], left_out)
    }

    /// The disk as it is read; with `holes` it knows where it is zero.
    pub(crate) fn source(&self, holes: bool) -> impl BlockSource + use<> {
        let sectors = self.bad.iter().map(|sector| Extent {
            start: ByteOffset(sector * SECTOR),
            len: ByteLen(SECTOR),
        });
        let faults = sectors.map(|bad| Fault::read_in(bad, EIO)).collect();
        let disk = Disk {
            past: Vec::new(),
            ..self.clone()
        };
        FaultSource::new(Arc::new(Source { disk, holes }), Faults::new(faults))
    }
}

struct Source {
    disk: Disk,
    holes: bool,
}

impl BlockSource for Source {
    fn name(&self) -> &str {
        "disk"
    }

    fn geometry(&self) -> Geometry {
        Geometry::of_len(ByteLen(self.disk.len))
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        read_cells(offset.0, buf, |block| &self.disk.content[to_usize(block)]);
        Ok(())
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let first = offset.0 / BLOCK;
        let is_hole =
            |b: u64| self.holes && self.disk.content[to_usize(b)].is_none() && !self.disk.is_bad(b);
        let alike = (first..self.disk.blocks()).find(|b| is_hole(*b) != is_hole(first));
        let end = alike.map_or(self.disk.len, |b| b * BLOCK);
        let len = ByteLen(end - offset.0);
        Ok(if is_hole(first) {
            Mapping::Zero(len)
        } else {
            Mapping::Data(len)
        })
    }
}

/// Fills `buf`, which lies at `offset` of a disk, from the blocks that `content` gives.
pub(crate) fn read_cells<'a>(offset: u64, buf: &mut [u8], content: impl Fn(u64) -> &'a Content) {
    let mut done = 0;
    while done < buf.len() {
        let at = offset + to_u64(done);
        let count = to_usize(BLOCK - at % BLOCK).min(buf.len() - done);
        copy(
            content(at / BLOCK),
            to_usize(at % BLOCK),
            &mut buf[done..done + count],
        );
        done += count;
    }
}

fn copy(content: &Content, from: usize, into: &mut [u8]) {
    match content {
        Some(bytes) => into.copy_from_slice(&bytes[from..from + into.len()]),
        None => into.fill(0),
    }
}

/// Text, noise, or zeros but for one byte.
fn fresh(seed: u32) -> Arc<[u8]> {
    let mut bytes = vec![0; to_usize(BLOCK)];
    match seed % 3 {
        0 => {
            let line = format!("line {seed} of a text\n");
            bytes = line.bytes().cycle().take(to_usize(BLOCK)).collect();
        }
        1 => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes());
            hasher.finalize_xof().fill(&mut bytes);
        }
        _ => bytes[to_usize(u64::from(seed) % 97)] = 1 + u8::try_from(seed % 255).unwrap(),
    }
    bytes.into()
}

pub(crate) fn block_size() -> BlockSize {
    BlockSize::new(BLOCK).unwrap()
}
