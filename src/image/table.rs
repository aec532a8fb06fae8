//! Building the table while frames are written: only the open page of each level is in memory.

use super::header::Header;
use super::info::BlockCounts;
use super::leaf::{FrameRef, Leaf};
use super::limits::{LEAF_BLOCKS, NODE_CHILDREN};
use super::node::{Child, Node, PagePlace};
use super::page::Content;
use super::state::{Block, BlockState};
use super::trailer::RecordRef;
use super::tree::{leaf_len, span_of, top_level};
use crate::base::{BlockIndex, Digest, Error, ErrorKind, Result, to_u64, to_usize};

/// A page that is complete and must be written next.
pub(super) struct FinishedPage {
    pub(super) level: u8,
    pub(super) index: u64,
    pub(super) payload: Vec<u8>,
    pub(super) digest: Digest,
}

/// Writes one page and says where it went.
pub(super) type WritePage<'a> = dyn FnMut(&FinishedPage) -> Result<RecordRef> + 'a;

/// The top page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Top {
    pub(super) place: RecordRef,
    pub(super) digest: Digest,
}

/// The open pages.
#[derive(Debug)]
pub(super) struct TableBuilder {
    header: Header,
    next: u64,
    top_level: u8,
    leaf: Leaf,
    /// `nodes[0]` is the open node of level 1.
    nodes: Vec<Node>,
    top: Option<Top>,
    counts: BlockCounts,
    changed: BlockCounts,
}

impl TableBuilder {
    pub(super) fn new(header: &Header) -> TableBuilder {
        let top_level = top_level(header.blocks());
        let nodes = (1..=top_level).map(|level| empty_node(level, 0)).collect();
        TableBuilder {
            header: header.clone(),
            next: 0,
            top_level,
            leaf: empty_leaf(0),
            nodes,
            top: None,
            counts: BlockCounts::default(),
            changed: BlockCounts::default(),
        }
    }

    /// The next block that has no state yet.
    pub(super) fn next(&self) -> BlockIndex {
        BlockIndex(self.next)
    }

    /// Blocks by state, without those of whole subtrees that were taken over.
    pub(super) fn counts(&self) -> BlockCounts {
        self.counts
    }

    /// Of these, the ones that this image recorded.
    pub(super) fn changed(&self) -> BlockCounts {
        self.changed
    }

    /// Gives the next `count` blocks a state without content, recorded by image `since`.
    pub(super) fn push_run(
        &mut self,
        state: BlockState,
        since: u32,
        count: u64,
        write: &mut WritePage<'_>,
    ) -> Result<()> {
        if state.has_content() || count > self.header.blocks() - self.next {
            return Err(self.misuse("a run has content or passes the end"));
        }
        self.check_since(since)?;
        self.count(state, since, count);
        let mut left = count;
        while left > 0 {
            if let Some((level, whole)) = self.whole_page(left) {
                left -= whole;
                self.add_subtree(level, whole, nowhere(state, since), write)?;
                continue;
            }
            let whole = leaf_len(&self.header, self.next / LEAF_BLOCKS);
            let now = left.min(whole - to_u64(self.leaf.blocks.len()));
            let len = self.leaf.blocks.len() + to_usize(now);
            self.leaf.blocks.resize(len, Block::empty(state, since));
            self.next += now;
            left -= now;
            self.close_full(write)?;
        }
        Ok(())
    }

    /// Gives the next blocks their states; those with content that are newer than the parent are in
    /// `frame`. The blocks lie in one window, so they never cross the end of a leaf.
    pub(super) fn push_window(
        &mut self,
        blocks: &[Block],
        frame: Option<FrameRef>,
        write: &mut WritePage<'_>,
    ) -> Result<()> {
        let room = LEAF_BLOCKS - to_u64(self.leaf.blocks.len());
        let count = to_u64(blocks.len());
        if count > room || count > self.header.blocks() - self.next {
            return Err(self.misuse("a window crosses a leaf or the end"));
        }
        for block in blocks {
            self.check_since(block.since)?;
            self.count(block.state, block.since, 1);
        }
        self.leaf.blocks.extend_from_slice(blocks);
        self.leaf.frames.extend(frame);
        self.next += count;
        self.close_full(write)
    }

    /// Takes over a subtree as it is: the next blocks are those below `child`, whose page would be of
    /// `level`. Nothing of it lies in this file.
    pub(super) fn push_subtree(
        &mut self,
        level: u8,
        child: Child,
        write: &mut WritePage<'_>,
    ) -> Result<()> {
        let span = span_of(level);
        let count = span.min(self.header.blocks() - self.next);
        let older = match child.place {
            PagePlace::Here(_) => false,
            PagePlace::Older => child.since <= self.header.parent_sequence(),
            PagePlace::Nowhere => true,
        };
        let aligned = self.next.is_multiple_of(span) && self.leaf.blocks.is_empty();
        if !older || !aligned || level >= self.top_level || count == 0 {
            return Err(self.misuse("a subtree does not fit there"));
        }
        self.check_since(child.since)?;
        self.add_subtree(level, count, child, write)
    }

    /// The highest page below the top whose blocks begin with the next one and are no more than `most`: its
    /// level, and how many these are. A run takes a few of them, however long the disk says it is.
    fn whole_page(&self, most: u64) -> Option<(u8, u64)> {
        let left = self.header.blocks() - self.next;
        let levels = (0..self.top_level)
            .rev()
            .filter(|_| self.leaf.blocks.is_empty());
        let mut spans = levels.map(|level| (level, span_of(level)));
        let (level, span) =
            spans.find(|(_, span)| self.next.is_multiple_of(*span) && left.min(*span) <= most)?;
        Some((level, left.min(span)))
    }

    /// Has `child` stand for the next `count` blocks, which are those of a page of `level`.
    fn add_subtree(
        &mut self,
        level: u8,
        count: u64,
        child: Child,
        write: &mut WritePage<'_>,
    ) -> Result<()> {
        self.next += count;
        self.leaf = empty_leaf(self.next.div_ceil(LEAF_BLOCKS));
        for node in self.nodes.iter_mut().take(usize::from(level)) {
            *node = empty_node(node.level, self.next.div_ceil(span_of(node.level)));
        }
        self.add_child(level + 1, child, write)
    }

    /// The top page, once every block has its state.
    pub(super) fn finish(self) -> Result<Top> {
        let missing = self.misuse("blocks are missing");
        self.top.ok_or(missing)
    }

    fn check_since(&self, since: u32) -> Result<()> {
        if (1..=self.header.sequence).contains(&since) {
            return Ok(());
        }
        Err(self.misuse("no such image can have recorded a block of this one"))
    }

    fn count(&mut self, state: BlockState, since: u32, count: u64) {
        self.counts.add(state, count);
        if since == self.header.sequence {
            self.changed.add(state, count);
        }
    }

    fn close_full(&mut self, write: &mut WritePage<'_>) -> Result<()> {
        let len = to_u64(self.leaf.blocks.len());
        if len < LEAF_BLOCKS && self.next < self.header.blocks() || len == 0 {
            return Ok(());
        }
        let next_leaf = self.leaf.index() + 1;
        let leaf = std::mem::replace(&mut self.leaf, empty_leaf(next_leaf));
        if !leaf.frames_hold_what_is_new(self.header.parent_sequence()) {
            return Err(self.misuse("frames do not hold what is new"));
        }
        let index = leaf.index();
        if let Some((state, since)) = leaf.uniform().filter(|_| self.top_level > 0) {
            return self.add_child(1, nowhere(state, since), write);
        }
        let since = leaf.since();
        let (payload, digest, content) = leaf.encode();
        let page = FinishedPage {
            level: 0,
            index,
            payload,
            digest,
        };
        let child = self.place(&page, since, content, write)?;
        self.add_child(1, child, write)
    }

    /// Writes a page unless an older file has it; remembers it when it is the top.
    fn place(
        &mut self,
        page: &FinishedPage,
        since: u32,
        content: Content,
        write: &mut WritePage<'_>,
    ) -> Result<Child> {
        let is_top = page.level == self.top_level;
        let place = if is_top || since > self.header.parent_sequence() {
            let place = write(page)?;
            if is_top {
                let digest = page.digest;
                self.top = Some(Top { place, digest });
            }
            PagePlace::Here(place)
        } else {
            PagePlace::Older
        };
        Ok(Child {
            content,
            since,
            place,
        })
    }

    fn add_child(&mut self, level: u8, child: Child, write: &mut WritePage<'_>) -> Result<()> {
        let Some(open) = self.nodes.get_mut(usize::from(level) - 1) else {
            return Ok(());
        };
        open.children.push(child);
        let full = to_u64(open.children.len()) == NODE_CHILDREN;
        if !full && self.next < self.header.blocks() {
            return Ok(());
        }
        let fresh = empty_node(level, open.index + 1);
        let node = std::mem::replace(open, fresh);
        if let Some((state, since)) = node.uniform().filter(|_| level < self.top_level) {
            return self.add_child(level + 1, nowhere(state, since), write);
        }
        let (payload, digest, content) = node.encode();
        let page = FinishedPage {
            level,
            index: node.index,
            payload,
            digest,
        };
        let child = self.place(&page, node.since(), content, write)?;
        self.add_child(level + 1, child, write)
    }

    fn misuse(&self, why: &str) -> Error {
        let subject = format!("the image's table at block {}", self.next);
        Error::new(ErrorKind::Internal, "extend", subject).because(why)
    }
}

fn nowhere(state: BlockState, since: u32) -> Child {
    Child {
        content: Content::Uniform(state),
        since,
        place: PagePlace::Nowhere,
    }
}

fn empty_node(level: u8, index: u64) -> Node {
    Node {
        level,
        index,
        children: vec![],
    }
}

fn empty_leaf(index: u64) -> Leaf {
    Leaf {
        first: BlockIndex(index * LEAF_BLOCKS),
        blocks: vec![],
        frames: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::super::limits::MAX_DISK_LEN;
    use super::*;

    #[test]
    fn a_run_takes_no_longer_because_the_disk_says_it_is_long() {
        let header = sample(MAX_DISK_LEN);
        let mut table = TableBuilder::new(&header);
        let mut pages = Vec::new();
        let mut write = |page: &FinishedPage| {
            pages.push((page.level, page.index));
            Ok(RecordRef::default())
        };
        let blocks = header.blocks();
        table.push_run(BlockState::Zero, 1, 1, &mut write).unwrap();
        let most = blocks - 2;
        table
            .push_run(BlockState::Unused, 1, most, &mut write)
            .unwrap();
        table.push_run(BlockState::Zero, 1, 1, &mut write).unwrap();
        table.finish().unwrap();
        // Both ends have a leaf, and the nodes above it.
        let last = |level| (level, (blocks - 1) / span_of(level));
        let first = (0..6).map(|level| (level, 0));
        let expected: Vec<_> = first.chain((0..7).map(last)).collect();
        assert_eq!(pages, expected);
    }
}
