//! What the image that a new one builds on says, asked block after block.

use crate::base::{BlockIndex, to_u64, to_usize};
use crate::image::{Base, Block, BlockState, BlockStates, Piece};
use std::cell::RefCell;
use std::ops::Range;

/// The parent's table, read along with the disk.
pub(super) struct Parent<'a> {
    table: Option<&'a dyn BlockStates>,
    /// The piece asked for last: neighbours are asked for one after the other.
    piece: RefCell<Option<Piece>>,
    lost: RefCell<u64>,
}

impl<'a> Parent<'a> {
    pub(super) fn new(table: Option<&'a dyn BlockStates>) -> Parent<'a> {
        Parent {
            table,
            piece: RefCell::new(None),
            lost: RefCell::new(0),
        }
    }

    /// Blocks of which its table could not be read.
    pub(super) fn lost(&self) -> u64 {
        *self.lost.borrow()
    }

    /// What it says of the blocks around `block`.
    pub(super) fn piece(&self, block: u64) -> Option<Piece> {
        let table = self.table?;
        let mut piece = self.piece.borrow_mut();
        let near = piece.take().filter(|p| p.blocks().contains(&block));
        let near = near.unwrap_or_else(|| {
            let piece = table.piece(BlockIndex(block));
            if let Piece::Lost { blocks, .. } = &piece {
                *self.lost.borrow_mut() += blocks.end - blocks.start;
            }
            piece
        });
        *piece = Some(near.clone());
        Some(near)
    }

    /// What it says of the window that starts at `block`.
    pub(super) fn base(&self, block: u64) -> Base {
        match self.piece(block) {
            None | Some(Piece::Lost { .. }) => Base::None,
            Some(Piece::Leaf(leaf)) => Base::Leaf(leaf),
            Some(Piece::Uniform { state, since, .. }) => Base::Uniform(Block::empty(state, since)),
        }
    }

    /// Who recorded that the first of `blocks`, which have no content, are in `state`, and how many of
    /// them that is true of: the image at place `new`, unless they were so before.
    pub(super) fn since(&self, blocks: &Range<u64>, state: BlockState, new: u32) -> (u32, u64) {
        let all = blocks.end - blocks.start;
        match self.piece(blocks.start) {
            None => (new, all),
            Some(Piece::Lost { blocks: lost, .. }) => (new, all.min(lost.end - blocks.start)),
            Some(Piece::Uniform {
                blocks: like,
                state: old,
                since,
            }) => {
                let since = if old == state { since } else { new };
                (since, all.min(like.end - blocks.start))
            }
            Some(Piece::Leaf(leaf)) => {
                let since_of = |b: &Block| if b.state == state { b.since } else { new };
                let from = to_usize(blocks.start - leaf.first.0);
                let rest = leaf.blocks.get(from..).unwrap_or_default();
                let since = rest.first().map_or(new, since_of);
                let alike = rest.iter().take_while(|b| since_of(b) == since).count();
                (since, to_u64(alike).clamp(1, all))
            }
        }
    }
}
