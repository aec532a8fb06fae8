//! The blocks of a disk as an image sees them, wherever their bytes lie: in its own file or in those
//! of older images.

use super::frame_reader::FrameReader;
use super::header::Header;
use super::leaf::{FrameRef, Leaf};
use super::node::Child;
use super::page::Page;
use super::reader::ImageReader;
use super::state::{Block, BlockState};
use crate::base::{BlockIndex, Digest, Error, Result, to_u64, to_usize};
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
    /// The file and the frame in it, which may hold other blocks too.
    pub frame: Result<(Arc<ImageReader>, FrameRef)>,
}

/// Every block of a disk with its state and digest, and where its content is.
///
/// # Contract
/// - Calls come from any number of threads.
/// - `piece` answers for every block of the disk; pieces do not overlap, and a window of frames lies
///   in one piece.
pub trait BlockTable: Send + Sync {
    /// What to call it in messages.
    fn title(&self) -> &str;

    /// Identity and geometry.
    fn header(&self) -> &Header;

    /// What is known of the blocks around `block`, which is below the number of blocks.
    fn piece(&self, block: BlockIndex) -> Piece;

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

/// What a file needs from the files of older images.
pub trait OlderFiles: Send + Sync {
    /// Whether the page that `child` of a node refers to is there and stands for what it says.
    ///
    /// # Errors
    /// `Damaged` when it does not.
    fn has_page(&self, level: u8, index: u64, child: &Child) -> Result<()>;

    /// The blocks of `leaf` whose content should be in older files and is not, or is another.
    fn missing(&self, leaf: &Leaf) -> Vec<(BlockIndex, Error)>;
}

/// The content of up to 64 blocks.
#[derive(Debug)]
pub struct Window {
    /// First block.
    pub first: BlockIndex,
    /// What the table says of each.
    pub blocks: Vec<Block>,
    /// Content of all of them; zeros where a block has none.
    pub data: Vec<u8>,
    /// Blocks whose content is damaged; zeros stand in `data`.
    pub lost: Vec<BlockIndex>,
    /// What is wrong with them.
    pub error: Option<Error>,
}

/// Reads the content of `blocks`, a window of `leaf`, from `sources`. Every block is compared with its
/// digest.
pub fn read_window(
    header: &Header,
    leaf: &Leaf,
    blocks: &Range<u64>,
    sources: &[Source],
    reader: &mut FrameReader,
) -> Window {
    let from = to_usize(blocks.start - leaf.first.0);
    let to = to_usize(blocks.end - leaf.first.0);
    let mut window = Window {
        first: BlockIndex(blocks.start),
        blocks: leaf.blocks.get(from..to).unwrap_or_default().to_vec(),
        data: Vec::new(),
        lost: Vec::new(),
        error: None,
    };
    let whole = to_usize(header.extent_of(blocks).len.0);
    if let [source] = sources
        && window.take_whole(header, source, reader)
    {
        window.data = reader.exchange(Vec::new());
        return window;
    }
    window.data = vec![0; whole];
    sources
        .iter()
        .for_each(|source| window.take(header, source, reader));
    window.lost.sort_unstable();
    window
}

impl Window {
    /// Whether `source` alone holds every block, nothing else, and all is right: the content then stands
    /// in `reader`.
    fn take_whole(&self, header: &Header, source: &Source, reader: &mut FrameReader) -> bool {
        let Ok((image, frame)) = &source.frame else {
            return false;
        };
        let size = header.block_size.as_usize();
        let all = self.blocks.iter().all(|b| b.state.has_content());
        let same = frame.mask == source.wanted && frame.first == self.first;
        all && same
            && to_u64(self.blocks.len()) == u64::from(source.wanted.count_ones())
            && reader.read(image, frame).is_ok()
            && self
                .blocks
                .iter()
                .zip(reader.blocks().chunks(size))
                .all(|(block, bytes)| block.digest == Digest::of(bytes))
    }

    fn take(&mut self, header: &Header, source: &Source, reader: &mut FrameReader) {
        let read = match &source.frame {
            Ok((image, frame)) => reader.read(image, frame).map(|()| (image, frame)),
            Err(error) => Err(error.clone()),
        };
        let (image, frame) = match read {
            Ok(found) => found,
            Err(error) => return self.lose(source.wanted, error),
        };
        let size = header.block_size.as_usize();
        let mut wrong = source.wanted;
        for (held, bytes) in frame.blocks().zip(reader.blocks().chunks(size)) {
            let Some(bit) = held.0.checked_sub(self.first.0).filter(|bit| *bit < 64) else {
                continue;
            };
            let wanted = source.wanted >> bit & 1 == 1;
            let block = self.blocks.get(to_usize(bit));
            if wanted && block.is_some_and(|b| b.digest == Digest::of(bytes)) {
                let at = to_usize(bit) * size;
                if let Some(place) = self.data.get_mut(at..at + bytes.len()) {
                    place.copy_from_slice(bytes);
                    wrong &= !(1 << bit);
                }
            }
        }
        if wrong != 0 {
            let why = "blocks there do not match their digests";
            self.lose(wrong, image.damage_in_frame(frame, why));
        }
    }

    fn lose(&mut self, wanted: u64, error: Error) {
        let lost = (0..64).filter(|bit| wanted >> bit & 1 == 1);
        let first = self.first.0;
        self.lost.extend(lost.map(|bit| BlockIndex(first + bit)));
        self.error.get_or_insert(error);
    }
}
