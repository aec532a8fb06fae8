//! Building the table while frames are written: only the open page of each level is in memory.

use super::header::Header;
use super::info::BlockCounts;
use super::leaf::{FrameRef, Leaf};
use super::limits::{LEAF_BLOCKS, NODE_CHILDREN};
use super::node::{Child, Node};
use super::state::BlockState;
use super::trailer::RecordRef;
use super::tree::top_level;
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
    blocks: u64,
    next: u64,
    top_level: u8,
    leaf: Leaf,
    /// `nodes[0]` is the open node of level 1.
    nodes: Vec<Node>,
    top: Option<Top>,
    counts: BlockCounts,
}

impl TableBuilder {
    pub(super) fn new(header: &Header) -> TableBuilder {
        let blocks = header.blocks();
        let top_level = top_level(blocks);
        TableBuilder {
            blocks,
            next: 0,
            top_level,
            leaf: empty_leaf(0),
            nodes: (1..=top_level)
                .map(|level| Node {
                    level,
                    index: 0,
                    children: vec![],
                })
                .collect(),
            top: None,
            counts: BlockCounts::default(),
        }
    }

    /// The next block that has no state yet.
    pub(super) fn next(&self) -> BlockIndex {
        BlockIndex(self.next)
    }

    pub(super) fn counts(&self) -> BlockCounts {
        self.counts
    }

    /// Gives the next `count` blocks a state without content.
    pub(super) fn push_run(
        &mut self,
        state: BlockState,
        count: u64,
        write: &mut WritePage<'_>,
    ) -> Result<()> {
        if state.is_stored() || count > self.blocks - self.next {
            return Err(self.misuse("a run has content or passes the end"));
        }
        self.count(state, count);
        let mut left = count;
        while left > 0 {
            let room = LEAF_BLOCKS - to_u64(self.leaf.states.len());
            let now = left.min(room);
            let len = self.leaf.states.len() + to_usize(now);
            self.leaf.states.resize(len, state);
            self.next += now;
            left -= now;
            self.close_full(write)?;
        }
        Ok(())
    }

    /// Gives the next blocks their states; stored ones are in `frame`, if there is one. The blocks
    /// lie in one window, so they never cross the end of a leaf.
    pub(super) fn push_window(
        &mut self,
        states: &[BlockState],
        digests: &[Digest],
        frame: Option<FrameRef>,
        write: &mut WritePage<'_>,
    ) -> Result<()> {
        let room = LEAF_BLOCKS - to_u64(self.leaf.states.len());
        let count = to_u64(states.len());
        if count > room || count > self.blocks - self.next {
            return Err(self.misuse("a window crosses a leaf or the end"));
        }
        states.iter().for_each(|s| self.count(*s, 1));
        self.leaf.states.extend_from_slice(states);
        self.leaf.digests.extend_from_slice(digests);
        self.leaf.frames.extend(frame);
        self.next += count;
        self.close_full(write)
    }

    /// The top page, once every block has its state.
    pub(super) fn finish(self) -> Result<Top> {
        let missing = self.misuse("blocks are missing");
        self.top.ok_or(missing)
    }

    fn count(&mut self, state: BlockState, count: u64) {
        let slot = match state {
            BlockState::Inherit => &mut self.counts.inherit,
            BlockState::Data => &mut self.counts.data,
            BlockState::Zero => &mut self.counts.zero,
            BlockState::Unused => &mut self.counts.unused,
            BlockState::Unreadable => &mut self.counts.unreadable,
        };
        *slot += count;
    }

    fn close_full(&mut self, write: &mut WritePage<'_>) -> Result<()> {
        let full = to_u64(self.leaf.states.len()) == LEAF_BLOCKS || self.next == self.blocks;
        if !full || self.leaf.states.is_empty() {
            return Ok(());
        }
        let next_leaf = self.leaf.index() + 1;
        let leaf = std::mem::replace(&mut self.leaf, empty_leaf(next_leaf));
        let (index, uniform) = (leaf.index(), leaf.uniform());
        let child = match uniform.filter(|_| self.top_level > 0) {
            Some(state) => Child::Uniform(state),
            None => {
                let (payload, digest) = leaf.encode();
                self.store(
                    &FinishedPage {
                        level: 0,
                        index,
                        payload,
                        digest,
                    },
                    write,
                )?
            }
        };
        self.add_child(1, child, write)
    }

    /// Writes a page; remembers it when it is the top.
    fn store(&mut self, page: &FinishedPage, write: &mut WritePage<'_>) -> Result<Child> {
        let place = write(page)?;
        if page.level == self.top_level {
            self.top = Some(Top {
                place,
                digest: page.digest,
            });
        }
        let (offset, stored_len) = (place.offset, place.stored_len);
        Ok(Child::Stored {
            digest: page.digest,
            offset,
            stored_len,
        })
    }

    fn add_child(&mut self, level: u8, child: Child, write: &mut WritePage<'_>) -> Result<()> {
        let Some(open) = self.nodes.get_mut(usize::from(level) - 1) else {
            return Ok(());
        };
        open.children.push(child);
        if to_u64(open.children.len()) < NODE_CHILDREN && self.next < self.blocks {
            return Ok(());
        }
        let fresh = Node {
            level,
            index: open.index + 1,
            children: vec![],
        };
        let node = std::mem::replace(open, fresh);
        let child = match node.uniform().filter(|_| level < self.top_level) {
            Some(state) => Child::Uniform(state),
            None => {
                let (payload, digest) = node.encode();
                self.store(
                    &FinishedPage {
                        level,
                        index: node.index,
                        payload,
                        digest,
                    },
                    write,
                )?
            }
        };
        self.add_child(level + 1, child, write)
    }

    fn misuse(&self, why: &str) -> Error {
        let subject = format!("the image's table at block {}", self.next);
        Error::new(ErrorKind::Internal, "extend", subject).because(why)
    }
}

fn empty_leaf(index: u64) -> Leaf {
    let first = BlockIndex(index * LEAF_BLOCKS);
    Leaf {
        first,
        states: vec![],
        digests: vec![],
        frames: vec![],
    }
}
