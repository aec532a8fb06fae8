//! Which blocks two images have that are not alike.

use super::view::ChainView;
use crate::base::{BlockIndex, Error, ErrorKind, Result};
use crate::image::{
    Block, BlockState, BlockStates, BlockTable, Body, Content, Node, Page, PagePlace, Piece,
};
use std::ops::Range;

/// A run of blocks that differ alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The blocks.
    pub blocks: Range<u64>,
    /// Their state in the first image.
    pub old: BlockState,
    /// Their state in the second one.
    pub new: BlockState,
}

/// Calls `each` for every run of blocks that are not alike in both images, ascending. What both have
/// alike is passed over page by page, by its digest.
///
/// # Errors
/// `Usage` when the images are of disks or blocks of different sizes; `Damaged` when a table is;
/// what `each` returns.
pub fn diff(
    old: &ChainView,
    new: &ChainView,
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let (a, b) = (old.header(), new.header());
    if a.disk_len != b.disk_len || a.block_size != b.block_size {
        return Err(Error::new(
            ErrorKind::Usage,
            "compare",
            format!("{} and {}", old.title(), new.title()),
        )
        .because(format!(
            "one is of {} bytes in blocks of {}, the other of {} in blocks of {}",
            a.disk_len.0,
            a.block_size.bytes(),
            b.disk_len.0,
            b.block_size.bytes()
        )));
    }
    let mut walk = Walk {
        old,
        new,
        pending: None,
        each,
    };
    walk.pages(&old.top()?, &new.top()?)?;
    walk.flush()
}

struct Walk<'a> {
    old: &'a ChainView,
    new: &'a ChainView,
    pending: Option<Difference>,
    each: &'a mut dyn FnMut(Difference) -> Result<()>,
}

impl Walk<'_> {
    fn pages(&mut self, old: &Page, new: &Page) -> Result<()> {
        if old.digest == new.digest {
            return Ok(());
        }
        match (&old.body, &new.body) {
            (Body::Leaf(a), Body::Leaf(b)) => {
                let pairs = a.blocks.iter().zip(&b.blocks);
                for (index, (a, b)) in (a.first.0..).zip(pairs) {
                    self.blocks(index..index + 1, a, b)?;
                }
                Ok(())
            }
            (Body::Node(a), Body::Node(b)) => self.nodes(a, b),
            // Both trees have the same shape.
            _ => Err(Error::new(ErrorKind::Internal, "compare", "two tables")),
        }
    }

    fn nodes(&mut self, a: &Node, b: &Node) -> Result<()> {
        for (i, (old, new)) in a.children.iter().zip(&b.children).enumerate() {
            if old.content == new.content {
                continue;
            }
            let (level, index) = (a.level - 1, a.child_index(i));
            if let (Content::Uniform(x), Content::Uniform(y)) = (old.content, new.content) {
                let range = a.child_range(self.old.header(), i);
                self.blocks(range, &Block::empty(x, 0), &Block::empty(y, 0))?;
            } else if old.place == PagePlace::Nowhere || new.place == PagePlace::Nowhere {
                self.block_by_block(a.child_range(self.old.header(), i))?;
            } else {
                let old = self.old.page(level, index, old)?;
                let new = self.new.page(level, index, new)?;
                self.pages(&old, &new)?;
            }
        }
        Ok(())
    }

    /// One side has a page there and the other none.
    fn block_by_block(&mut self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (a, b) = (
                self.old.piece(BlockIndex(at)),
                self.new.piece(BlockIndex(at)),
            );
            let end = a.blocks().end.min(b.blocks().end).min(range.end);
            match (&a, &b) {
                (Piece::Lost { error, .. }, _) | (_, Piece::Lost { error, .. }) => {
                    return Err(error.clone());
                }
                (Piece::Uniform { state: x, .. }, Piece::Uniform { state: y, .. }) => {
                    self.blocks(at..end, &Block::empty(*x, 0), &Block::empty(*y, 0))?;
                }
                _ => {
                    for index in at..end {
                        if let (Some(x), Some(y)) = (block_of(&a, index), block_of(&b, index)) {
                            self.blocks(index..index + 1, &x, &y)?;
                        }
                    }
                }
            }
            at = end;
        }
        Ok(())
    }

    fn blocks(&mut self, blocks: Range<u64>, old: &Block, new: &Block) -> Result<()> {
        if old.is_like(new) {
            return Ok(());
        }
        match &mut self.pending {
            Some(run)
                if run.blocks.end == blocks.start
                    && run.old == old.state
                    && run.new == new.state =>
            {
                run.blocks.end = blocks.end;
                Ok(())
            }
            _ => {
                self.flush()?;
                self.pending = Some(Difference {
                    blocks,
                    old: old.state,
                    new: new.state,
                });
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self.pending.take() {
            Some(run) => (self.each)(run),
            None => Ok(()),
        }
    }
}

fn block_of(piece: &Piece, index: u64) -> Option<Block> {
    match piece {
        Piece::Uniform { state, .. } => Some(Block::empty(*state, 0)),
        Piece::Leaf(leaf) => leaf.block(BlockIndex(index)).copied(),
        Piece::Lost { .. } => None,
    }
}
