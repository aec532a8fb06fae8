//! What a pipe's image said of the blocks that were written lately.

use crate::base::{BlockIndex, to_u64};
use crate::image::{BlockState, BlockStates, Header, Leaf, Piece};
use crate::pipeline::Extracted;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// So many blocks, and runs of others, are remembered before they are read back: some 3 MiB of memory,
/// and 4 GiB of the disk in blocks of 64 KiB.
const MOST: u64 = 1 << 16;

/// States and digests of some blocks, by the first of each piece.
pub(super) struct Recent {
    header: Header,
    pieces: BTreeMap<u64, Piece>,
    weight: u64,
}

impl Recent {
    pub(super) fn new(header: &Header) -> Recent {
        Recent {
            header: header.clone(),
            pieces: BTreeMap::new(),
            weight: 0,
        }
    }

    pub(super) fn add(&mut self, extracted: &Extracted) {
        let blocks = extracted.blocks();
        let piece = match extracted {
            Extracted::Window(window) => Piece::Leaf(Arc::new(Leaf {
                first: window.first,
                blocks: window.blocks.clone(),
                frames: Vec::new(),
            })),
            Extracted::Run { state, .. } => Piece::Uniform {
                blocks: blocks.clone(),
                state: *state,
                since: self.header.sequence,
            },
            Extracted::Unwanted { .. } | Extracted::Lost { .. } => return,
        };
        self.weight += match &piece {
            Piece::Leaf(leaf) => to_u64(leaf.blocks.len()),
            Piece::Uniform { .. } | Piece::Lost { .. } => 1,
        };
        self.pieces.insert(blocks.start, piece);
    }

    pub(super) fn is_full(&self) -> bool {
        self.weight >= MOST
    }

    /// The runs of blocks that are remembered, ascending.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for blocks in self.pieces.values().map(Piece::blocks) {
            match ranges.last_mut() {
                Some(last) if last.end == blocks.start => last.end = blocks.end,
                _ => ranges.push(blocks),
            }
        }
        ranges
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.weight = 0;
    }
}

impl BlockStates for Recent {
    fn header(&self) -> &Header {
        &self.header
    }

    /// Of what is not remembered, that nothing is asked of it.
    fn piece(&self, block: BlockIndex) -> Piece {
        let near = self.pieces.range(..=block.0).next_back();
        let found = near.map(|(_, piece)| piece);
        if let Some(piece) = found.filter(|p| p.blocks().contains(&block.0)) {
            return piece.clone();
        }
        let next = self.pieces.range(block.0..).next();
        let end = next.map_or(self.header.blocks(), |(first, _)| *first);
        Piece::Uniform {
            blocks: block.0..end,
            state: BlockState::Unused,
            since: self.header.sequence,
        }
    }
}
