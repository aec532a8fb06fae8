//! The blocks of a disk as an image sees them, wherever their bytes lie: in its own file or in those
//! of older images.

use super::fetched::FrameFetcher;
use super::frame_reader::{FrameReader, FrameSource, mismatch};
use super::header::Header;
use super::leaf::{FrameRef, Leaf};
use super::node::Child;
use super::page::Page;
use super::state::{Block, BlockState};
use crate::base::{AlignedBuf, BlockIndex, Digest, Error, Result, to_usize};
use std::ops::Range;
use std::sync::Arc;

/// What a table says about a run of blocks.
#[derive(Debug, Clone)]
pub enum Piece {
    /// All are alike and have no content.
    Uniform {
        /// Their numbers.
        blocks: Range<u64>,
        /// Their state.
        state: BlockState,
        /// The image that recorded it.
        since: u32,
    },
    /// One leaf.
    Leaf(Arc<Leaf>),
    /// A table page is damaged or missing: nothing is known of these blocks.
    Lost {
        /// Their numbers.
        blocks: Range<u64>,
        /// What is wrong.
        error: Error,
    },
}

impl Piece {
    /// The blocks it is about.
    pub fn blocks(&self) -> Range<u64> {
        match self {
            Piece::Uniform { blocks, .. } | Piece::Lost { blocks, .. } => blocks.clone(),
            Piece::Leaf(leaf) => leaf.first.0..leaf.end(),
        }
    }
}

/// Where the content of some blocks of a window lies.
#[derive(Clone)]
pub struct Source {
    /// Bit i: block i of the window is wanted from here.
    pub wanted: u64,
    /// Where it is read from and the frame there, which may hold other blocks too.
    pub frame: Result<(Arc<dyn FrameSource>, FrameRef)>,
}

impl Source {
    /// Says that it will be read soon. A hint.
    pub fn will_need(&self) {
        if let Ok((file, frame)) = &self.frame {
            file.will_need(frame);
        }
    }

    /// Whether it is in memory, so that reading it waits for no medium.
    pub fn is_cached(&self) -> bool {
        match &self.frame {
            Ok((file, frame)) => file.is_cached(frame),
            Err(_) => true,
        }
    }

    /// Has it read now. What is wrong with it is said when it is wanted.
    pub fn fetch(&mut self, fetcher: &FrameFetcher) {
        if let Ok((file, frame)) = &self.frame {
            let fetched = fetcher.fetch(Arc::clone(file), frame);
            self.frame = fetched.map(|fetched| (Arc::new(fetched) as _, *frame));
        }
    }
}

/// Every block of a disk with its state and digest.
///
/// # Contract
/// - Calls come from any number of threads.
/// - `piece` answers for every block of the disk; pieces do not overlap, and a window of frames lies
///   in one piece.
pub trait BlockStates: Send + Sync {
    /// Identity and geometry.
    fn header(&self) -> &Header;

    /// What is known of the blocks around `block`, which is below the number of blocks.
    fn piece(&self, block: BlockIndex) -> Piece;

    /// Calls `visit` for every piece that has blocks in `range`, ascending; pieces are not clipped.
    ///
    /// # Errors
    /// Only what `visit` returns.
    fn each_piece(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end.min(self.header().blocks()) {
            let piece = self.piece(BlockIndex(at));
            at = piece.blocks().end;
            visit(piece)?;
        }
        Ok(())
    }
}

/// The table of an image, and where the content of its blocks is.
pub trait BlockTable: BlockStates {
    /// What to call it in messages.
    fn title(&self) -> &str;

    /// The top page of the table.
    ///
    /// # Errors
    /// `Damaged`.
    fn top(&self) -> Result<Page>;

    /// The page that `child` of a node stands for, unless it is nowhere. It is of `level` and has the
    /// number `index` there.
    ///
    /// # Errors
    /// `Damaged`, also when the page found is not the one that is meant.
    fn page(&self, level: u8, index: u64, child: &Child) -> Result<Page>;

    /// The frames with the content of those of `blocks`, a window of `leaf`, that have some.
    fn sources(&self, leaf: &Leaf, blocks: &Range<u64>) -> Vec<Source>;
}

/// What a file needs from the files of older images.
pub trait OlderFiles: Send + Sync {
    /// Whether the page that `child` of a node refers to is there and stands for what it says.
    ///
    /// # Errors
    /// `Damaged` when it does not.
    fn has_page(&self, level: u8, index: u64, child: &Child) -> Result<()>;

    /// The blocks of `leaf` whose content should be in older files, and of which the parent does not say
    /// the same. Whether the parent is right is found when that is verified.
    fn missing(&self, leaf: &Leaf) -> Vec<(BlockIndex, Error)>;
}

/// Older files that have whatever is asked for: for a look at one file alone.
pub struct Unasked;

impl OlderFiles for Unasked {
    fn has_page(&self, _level: u8, _index: u64, _child: &Child) -> Result<()> {
        Ok(())
    }

    fn missing(&self, _leaf: &Leaf) -> Vec<(BlockIndex, Error)> {
        Vec::new()
    }
}

/// The content of up to 64 blocks.
#[derive(Debug)]
pub struct Window {
    /// First block.
    pub first: BlockIndex,
    /// What the table says of each.
    pub blocks: Vec<Block>,
    /// Content of all of them; zeros where a block has none.
    pub data: AlignedBuf,
    /// Blocks whose content is damaged; zeros stand in `data`.
    pub lost: Vec<BlockIndex>,
    /// What is wrong with them.
    pub error: Option<Error>,
}

/// Reads the content of `blocks`, a window of `leaf`, from `sources`, into `buffer`. Every block is
/// compared with its digest.
pub fn read_window(
    header: &Header,
    leaf: &Leaf,
    blocks: &Range<u64>,
    sources: &[Source],
    reader: &mut FrameReader,
    buffer: AlignedBuf,
) -> Window {
    let from = to_usize(blocks.start - leaf.first.0);
    let to = to_usize(blocks.end - leaf.first.0);
    let mut window = Window {
        first: BlockIndex(blocks.start),
        blocks: leaf.blocks.get(from..to).unwrap_or_default().to_vec(),
        data: buffer,
        lost: Vec::new(),
        error: None,
    };
    let whole = to_usize(header.extent_of(blocks).len.0);
    window.data.set_len(whole);
    let size = header.block_size.as_usize();
    let mut filled = 0;
    for source in sources {
        filled |= match &source.frame {
            Ok((from, frame)) => window.take(size, source.wanted, from.as_ref(), frame, reader),
            Err(error) => window.lose(source.wanted, error.clone()),
        };
    }
    window.lost.sort_unstable();
    // What the buffer held before is nobody's content.
    for (bit, bytes) in window.data.chunks_mut(size).enumerate() {
        if filled >> bit & 1 == 0 {
            bytes.fill(0);
        }
    }
    window
}

impl Window {
    /// Fills in the blocks in `wanted` from `frame`; returns those that were right.
    fn take(
        &mut self,
        size: usize,
        wanted: u64,
        from: &dyn FrameSource,
        frame: &FrameRef,
        reader: &mut FrameReader,
    ) -> u64 {
        let read = match self.place_of(size, wanted, frame) {
            Some(place) => {
                let read = reader.read_into(from, frame, place);
                read.map(|()| self.right_in_place(size, wanted))
            }
            None => {
                let read = reader.read(from, frame);
                read.map(|()| self.copy(size, wanted, frame, reader.blocks()))
            }
        };
        let right = match read {
            Ok(right) => right,
            Err(error) => return self.lose(wanted, error),
        };
        let wrong = wanted & !right;
        if wrong != 0 {
            self.lose(wrong, mismatch(from, frame));
        }
        right
    }

    /// Where the blocks of `frame` stand one behind the other, if all of them and no others are `wanted`.
    fn place_of(&mut self, size: usize, wanted: u64, frame: &FrameRef) -> Option<&mut [u8]> {
        let lowest = wanted.trailing_zeros();
        let run = wanted.checked_shr(lowest)?;
        let adjoining = run & run.wrapping_add(1) == 0;
        let place = adjoining && frame.mask == wanted && frame.first == self.first;
        let start = to_usize(u64::from(lowest)) * size;
        let end = start + to_usize(u64::from(wanted.count_ones())) * size;
        let end = end.min(self.data.len());
        place.then(|| self.data.get_mut(start..end)).flatten()
    }

    /// Those of the blocks in `wanted` that stand where they belong and match their digests.
    fn right_in_place(&self, size: usize, wanted: u64) -> u64 {
        let mut right = 0;
        for ((bit, block), bytes) in (0..64).zip(&self.blocks).zip(self.data.chunks(size)) {
            if wanted >> bit & 1 == 1 && block.digest == Digest::of(bytes) {
                right |= 1 << bit;
            }
        }
        right
    }

    /// Copies those of the blocks in `wanted` that match their digests from `held`, the content of
    /// `frame`; returns which these are.
    fn copy(&mut self, size: usize, wanted: u64, frame: &FrameRef, held: &[u8]) -> u64 {
        let mut right = 0;
        for (index, bytes) in frame.blocks().zip(held.chunks(size)) {
            let Some(bit) = index.0.checked_sub(self.first.0).filter(|bit| *bit < 64) else {
                continue;
            };
            let block = self.blocks.get(to_usize(bit));
            let is_wanted = wanted >> bit & 1 == 1;
            if is_wanted && block.is_some_and(|b| b.digest == Digest::of(bytes)) {
                let at = to_usize(bit) * size;
                if let Some(place) = self.data.get_mut(at..at + bytes.len()) {
                    place.copy_from_slice(bytes);
                    right |= 1 << bit;
                }
            }
        }
        right
    }

    /// Notes that the blocks in `wanted` are lost; no block is right by that.
    fn lose(&mut self, wanted: u64, error: Error) -> u64 {
        let lost = (0..64).filter(|bit| wanted >> bit & 1 == 1);
        let first = self.first.0;
        self.lost.extend(lost.map(|bit| BlockIndex(first + bit)));
        self.error.get_or_insert(error);
        0
    }
}
