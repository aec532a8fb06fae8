//! An image as a disk, whichever files its bytes lie in.

use super::files::Files;
use super::lineage::Lineage;
use super::recent::Recent;
use crate::base::{
    AlignedBuf, BlockIndex, ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result,
    to_u64, to_usize,
};
use crate::block::{BlockSource, Mapping};
use crate::image::limits::NODE_CHILDREN;
use crate::image::{
    Block, BlockStates, BlockTable, Body, Child, Content, FrameReader, FrameRef, FrameSource,
    Header, ImageReader, Leaf, Node, OlderFiles, Page, PagePlace, Piece, RecordRef, Source,
    frame_of, read_window, span_of,
};
use crate::store::Store;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Table pages kept in memory: at most twice as many, some 10 KiB each. Whoever reads in order needs one of each
/// level; leaves for 4 GiB of 64 KiB blocks fit for who does not.
const PAGES: usize = 256;

/// Frames of older files whose places are kept in memory: at most twice as many, 32 bytes each. A year
/// of increments fits, of which hardly a page would.
const FRAMES: usize = 1 << 18;

/// Which page of which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PageKey {
    link: usize,
    level: u8,
    index: u64,
}

/// Which image, and the number of the leaf.
type LeafKey = (usize, u64);

/// The disk that an image stands for, readable anywhere. Every block is compared with its digest
/// when it is read; one that does not match is an error, never data.
///
/// A block is found by one descent of the image's own table, which says of every page and every block
/// which image recorded it: the number of images in the chain does not matter. Memory and open files
/// are bounded, however long it is.
pub struct ChainView {
    files: Files,
    image: Arc<ImageReader>,
    geometry: Geometry,
    pages: Mutex<Recent<PageKey, Page>>,
    frames: Mutex<Recent<LeafKey, Arc<[FrameRef]>>>,
}

/// What a read keeps between windows.
struct Tools {
    frames: FrameReader,
    window: AlignedBuf,
}

impl ChainView {
    /// The disk of the youngest image of `lineage`, whose files are in `store`. Where a link is broken,
    /// what would come from behind it is lost, and only that.
    ///
    /// # Errors
    /// `NotFound` or `Damaged` when the image itself cannot be opened.
    pub fn open(store: Arc<dyn Store>, lineage: Lineage) -> Result<ChainView> {
        let (files, image) = Files::open(store, lineage)?;
        Ok(ChainView::with(files, image))
    }

    /// The disk of a full image.
    ///
    /// # Errors
    /// `Damaged` when the image builds on another: alone it is not a disk.
    pub fn of(image: Arc<ImageReader>) -> Result<ChainView> {
        if let Some(parent) = image.header().parent {
            return Err(
                Error::new(ErrorKind::Damaged, "read", image.name()).because(format!(
                    "it builds on image {}, which is needed too",
                    parent.id
                )),
            );
        }
        Ok(ChainView::with(Files::of(Arc::clone(&image))?, image))
    }

    fn with(files: Files, image: Arc<ImageReader>) -> ChainView {
        let geometry = image.info().source.geometry(image.header().disk_len);
        ChainView {
            files,
            image,
            geometry,
            pages: Mutex::new(Recent::new(PAGES)),
            // One without frames takes memory too.
            frames: Mutex::new(Recent::weighed(FRAMES, |frames| 4 + frames.len())),
        }
    }

    /// The image behind it.
    pub fn image(&self) -> &Arc<ImageReader> {
        &self.image
    }

    /// The images whose files are read, oldest first.
    pub fn lineage(&self) -> &Lineage {
        self.files.lineage()
    }

    /// The image whose file has what image number `since` recorded, by its place in the lineage.
    ///
    /// # Errors
    /// `Damaged` when that lies behind a broken link.
    pub fn holder(&self, since: u32) -> Result<usize> {
        self.files.holder(since)
    }

    /// The page as it lies in the file of image `link`.
    fn page_in(&self, link: usize, level: u8, index: u64) -> Result<Page> {
        let key = PageKey { link, level, index };
        if let Some(page) = locked(&self.pages).get(&key) {
            return Ok(page);
        }
        let page = self.read_page(link, level, index)?;
        locked(&self.pages).put(key, page.clone());
        Ok(page)
    }

    fn read_page(&self, link: usize, level: u8, index: u64) -> Result<Page> {
        if level >= self.image.top_level() {
            return self.files.reader(link)?.top();
        }
        let (at, content) = self.place_in(link, level, index)?;
        self.files.reader(link)?.page(level, index, at, content)
    }

    /// Where a page below the top lies in the file of image `link`, and what it stands for.
    fn place_in(&self, link: usize, level: u8, index: u64) -> Result<(RecordRef, Content)> {
        let above = self.page_in(link, level + 1, index / NODE_CHILDREN)?;
        let child = match &above.body {
            Body::Node(node) => node.children.get(to_usize(index % NODE_CHILDREN)).copied(),
            Body::Leaf(_) => None,
        };
        match child {
            Some(Child {
                place: PagePlace::Here(at),
                content,
                ..
            }) => Ok((at, content)),
            _ => Err(self.files.misfit(link, level, index)),
        }
    }

    /// The frames of leaf `index` in the file of image `link`.
    fn frames_in(&self, link: usize, index: u64) -> Result<Arc<[FrameRef]>> {
        if let Some(frames) = locked(&self.frames).get(&(link, index)) {
            return Ok(frames);
        }
        let frames: Arc<[FrameRef]> = if self.image.top_level() == 0 {
            match &self.page_in(link, 0, index)?.body {
                Body::Leaf(leaf) => leaf.frames.as_slice().into(),
                Body::Node(_) => return Err(self.files.misfit(link, 0, index)),
            }
        } else {
            let (at, _) = self.place_in(link, 0, index)?;
            self.files.reader(link)?.frames(index, at)?.into()
        };
        locked(&self.frames).put((link, index), Arc::clone(&frames));
        Ok(frames)
    }

    /// What the table of image `link` says of the blocks around `block`.
    fn piece_in(&self, link: usize, block: BlockIndex) -> Piece {
        match self.page_in(link, self.image.top_level(), 0) {
            Ok(top) => self.descend(top, block),
            Err(error) => Piece::Lost {
                blocks: 0..self.header().blocks(),
                error,
            },
        }
    }

    /// Descends from `page` to the leaf of `block`, or to what stands for it.
    fn descend(&self, mut page: Page, block: BlockIndex) -> Piece {
        loop {
            let node = match page.body {
                Body::Leaf(leaf) => return Piece::Leaf(leaf),
                Body::Node(node) => node,
            };
            match self.child_of(&node, block) {
                Ok(below) => page = below,
                Err(piece) => return piece,
            }
        }
    }

    fn child_of(&self, node: &Node, block: BlockIndex) -> std::result::Result<Page, Piece> {
        let level = node.level - 1;
        let index = block.0 / span_of(level);
        let i = to_usize(index % NODE_CHILDREN);
        let blocks = node.child_range(self.header(), i);
        let lost = |error| Piece::Lost {
            blocks: blocks.clone(),
            error,
        };
        let Some(child) = node.children.get(i) else {
            return Err(lost(self.files.misfit(self.files.point(), level, index)));
        };
        match (child.place, child.content) {
            (PagePlace::Nowhere, Content::Uniform(state)) => Err(Piece::Uniform {
                blocks,
                state,
                since: child.since,
            }),
            _ => self.page(level, index, child).map_err(lost),
        }
    }

    /// Reads from `offset` as much of `buf` as lies in one frame window or one run; returns how much.
    fn read_part(&self, offset: u64, buf: &mut [u8], tools: &mut Tools) -> Result<usize> {
        let header = self.header();
        let block = header.block_size.index_of(ByteOffset(offset));
        let upto = |end: u64| {
            let until = header.extent_of(&(0..end)).end().0;
            to_usize((until - offset).min(to_u64(buf.len())))
        };
        let leaf = match self.piece(block) {
            Piece::Lost { error, .. } => return Err(error),
            Piece::Uniform { blocks, .. } => {
                let count = upto(blocks.end);
                buf[..count].fill(0);
                return Ok(count);
            }
            Piece::Leaf(leaf) => leaf,
        };
        let run = content_run(&leaf, block);
        if !run.1 {
            let count = upto(run.0);
            buf[..count].fill(0);
            return Ok(count);
        }
        let start = block.0 / header.window_blocks() * header.window_blocks();
        let blocks = start..(start + header.window_blocks()).min(leaf.end());
        let sources = self.sources(&leaf, &blocks);
        let (frames, room) = (&mut tools.frames, std::mem::take(&mut tools.window));
        let window = read_window(header, &leaf, &blocks, &sources, frames, room);
        let wanted = block.0..run.0.min(blocks.end);
        if window.lost.iter().any(|b| wanted.contains(&b.0)) {
            let damaged = || Error::new(ErrorKind::Damaged, "read", self.name());
            return Err(window.error.unwrap_or_else(damaged));
        }
        let count = upto(wanted.end);
        let from = to_usize(offset - header.extent_of(&blocks).start.0);
        buf[..count].copy_from_slice(&window.data[from..from + count]);
        tools.window = window.data;
        Ok(count)
    }

    fn beyond_end(&self, what: &str, place: &str) -> Error {
        Error::new(
            ErrorKind::Internal,
            what,
            format!("{}, {place}", self.name()),
        )
        .because(format!("its disk ends at {}", self.geometry.len.0))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of the run of blocks around `block` that all have content or all have none, and which.
fn content_run(leaf: &Leaf, block: BlockIndex) -> (u64, bool) {
    let at = to_usize(block.0 - leaf.first.0);
    let content = |i: usize| leaf.blocks.get(i).is_some_and(|b| b.state.has_content());
    let with = content(at);
    let more = (at..leaf.blocks.len()).take_while(|i| content(*i) == with);
    (block.0 + to_u64(more.count()), with)
}

impl BlockStates for ChainView {
    fn header(&self) -> &Header {
        self.image.header()
    }

    fn piece(&self, block: BlockIndex) -> Piece {
        self.piece_in(self.files.point(), block)
    }
}

impl BlockTable for ChainView {
    fn title(&self) -> &str {
        self.image.name()
    }

    fn top(&self) -> Result<Page> {
        self.page_in(self.files.point(), self.image.top_level(), 0)
    }

    fn page(&self, level: u8, index: u64, child: &Child) -> Result<Page> {
        let link = self.holder(child.since)?;
        let page = self.page_in(link, level, index)?;
        if page.content.matches(child.content) {
            return Ok(page);
        }
        Err(self.files.misfit(link, level, index))
    }

    fn sources(&self, leaf: &Leaf, blocks: &Range<u64>) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        // Neighbours mostly come from the same frame.
        let mut same: Option<(u32, FrameRef, usize)> = None;
        for index in blocks.clone() {
            let Some(block) = leaf.block(BlockIndex(index)) else {
                continue;
            };
            if !block.state.has_content() {
                continue;
            }
            let bit = 1 << (index - blocks.start);
            if let Some((since, frame, at)) = &same
                && *since == block.since
                && frame.blocks().any(|b| b.0 == index)
                && let Some(source) = sources.get_mut(*at)
            {
                source.wanted |= bit;
                continue;
            }
            let frame = self.frame_of(leaf, block.since, BlockIndex(index));
            let known = frame.as_ref().ok().and_then(|(image, frame)| {
                sources.iter().position(|s| match &s.frame {
                    Ok((other, same)) => {
                        std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(image)) && same == frame
                    }
                    Err(_) => false,
                })
            });
            let at = known.unwrap_or_else(|| {
                sources.push(Source {
                    wanted: 0,
                    frame: frame.clone(),
                });
                sources.len() - 1
            });
            if let Some(source) = sources.get_mut(at) {
                source.wanted |= bit;
            }
            same = frame.ok().map(|(_, frame)| (block.since, frame, at));
        }
        sources
    }
}

impl OlderFiles for ChainView {
    fn has_page(&self, level: u8, index: u64, child: &Child) -> Result<()> {
        self.page(level, index, child).map(drop)
    }

    fn missing(&self, leaf: &Leaf) -> Vec<(BlockIndex, Error)> {
        let parent = self.header().parent_sequence();
        let older = |b: &Block| b.state.has_content() && b.since <= parent;
        if !leaf.blocks.iter().any(older) {
            return Vec::new();
        }
        // The parent says the same of them, and where it has them from is its own matter.
        let above = self.files.point().checked_sub(1);
        let base = above.map(|link| self.piece_in(link, leaf.first));
        let held = |index: BlockIndex, block: &Block| {
            let link = self.holder(block.since)?;
            match &base {
                Some(Piece::Leaf(base)) if base.block(index) == Some(block) => Ok(()),
                Some(Piece::Lost { error, .. }) => Err(error.clone()),
                _ => Err(self.files.misfit(link, 0, leaf.index())),
            }
        };
        let blocks = (leaf.first.0..).map(BlockIndex).zip(&leaf.blocks);
        blocks
            .filter(|(_, block)| older(block))
            .filter_map(|(index, block)| Some((index, held(index, block).err()?)))
            .collect()
    }
}

impl ChainView {
    /// The frame with the content of a block that image number `since` recorded.
    fn frame_of(
        &self,
        leaf: &Leaf,
        since: u32,
        block: BlockIndex,
    ) -> Result<(Arc<dyn FrameSource>, FrameRef)> {
        let link = self.holder(since)?;
        let frames = self.frames_in(link, leaf.index())?;
        let frame = frame_of(&frames, block).copied();
        let frame = frame.ok_or_else(|| self.files.misfit(link, 0, leaf.index()))?;
        Ok((self.files.reader(link)? as _, frame))
    }
}

impl BlockSource for ChainView {
    fn name(&self) -> &str {
        self.image.name()
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let wanted = Extent {
            start: offset,
            len: ByteLen(to_u64(buf.len())),
        };
        let inside = Extent::whole(self.geometry.len).contains(wanted);
        if !inside || offset.checked_add(wanted.len).is_none() {
            return Err(self.beyond_end("read", &wanted.to_string()));
        }
        let mut tools = Tools {
            frames: FrameReader::new()?,
            window: AlignedBuf::default(),
        };
        let mut done = 0;
        while done < buf.len() {
            done += self.read_part(offset.0 + to_u64(done), &mut buf[done..], &mut tools)?;
        }
        Ok(())
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        if offset.0 >= self.geometry.len.0 {
            return Err(self.beyond_end("look at", &format!("byte {offset}")));
        }
        let header = self.header();
        let block = header.block_size.index_of(offset);
        let (end, with_content) = match self.piece(block) {
            Piece::Lost { error, .. } => return Err(error),
            Piece::Uniform { blocks, .. } => (blocks.end, false),
            Piece::Leaf(leaf) => content_run(&leaf, block),
        };
        let len = ByteLen(header.extent_of(&(0..end)).end().0 - offset.0);
        Ok(if with_content {
            Mapping::Data(len)
        } else {
            Mapping::Zero(len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::contract;
    use crate::image::testing;

    #[test]
    fn an_image_is_a_disk() {
        for len in [20_001, 4096 * 40, 4096 * 2100 + 5] {
            let mut disk = contract::pattern(len);
            let zeros = len / 5 / 4096 * 4096;
            disk[zeros..zeros + len / 4].fill(0);
            let view = ChainView::of(Arc::new(testing::open(testing::image_of(&disk)))).unwrap();
            contract::check_source(&view, &disk);
        }
    }
}
