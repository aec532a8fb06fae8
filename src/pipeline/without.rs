//! A table that has lost some of its blocks.

use crate::base::{BlockIndex, BlockMap, Digest, Extent, to_usize};
use crate::image::{BlockState, BlockStates, Header, Leaf, Piece};
use std::sync::Arc;

/// `table`, of whose blocks some are `lost`: no content is like theirs, so what builds on it stores them anew.
pub struct Without<'a> {
    table: &'a dyn BlockStates,
    lost: BlockMap,
}

impl<'a> Without<'a> {
    /// `table` without the blocks that hold a byte of `lost`.
    pub fn new(table: &'a dyn BlockStates, lost: &[Extent]) -> Without<'a> {
        let header = table.header();
        let blocks = BlockMap::holding(lost, header.disk_len, header.block_size);
        Without {
            table,
            lost: blocks,
        }
    }
}

impl BlockStates for Without<'_> {
    fn header(&self) -> &Header {
        self.table.header()
    }

    fn piece(&self, block: BlockIndex) -> Piece {
        let piece = self.table.piece(block);
        let Piece::Leaf(leaf) = &piece else {
            return piece;
        };
        let mut lost = self.lost.runs_in(leaf.first.0..leaf.end()).peekable();
        if lost.peek().is_none() {
            return piece;
        }
        let mut blocks = leaf.blocks.clone();
        for run in lost {
            let range = to_usize(run.start - leaf.first.0)..to_usize(run.end - leaf.first.0);
            for block in blocks.get_mut(range).into_iter().flatten() {
                // No content has this digest.
                (block.state, block.digest) = (BlockState::Data, Digest::default());
            }
        }
        Piece::Leaf(Arc::new(Leaf {
            first: leaf.first,
            blocks,
            frames: leaf.frames.clone(),
        }))
    }
}
