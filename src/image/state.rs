//! What an image says of one block.

use crate::base::Digest;

/// The state of a block. Section 5 of `docs/format.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockState {
    /// Has content.
    Data,
    /// Reads as zeros.
    Zero,
    /// Not in use, not looked at; reads as zeros.
    Unused,
    /// Parts could not be read; what could is content.
    Unreadable,
}

impl BlockState {
    /// Every state, in the order of their stored values.
    pub const ALL: [BlockState; 4] = [
        BlockState::Data,
        BlockState::Zero,
        BlockState::Unused,
        BlockState::Unreadable,
    ];

    /// The stored value, 1 to 4.
    pub fn to_byte(self) -> u8 {
        match self {
            BlockState::Data => 1,
            BlockState::Zero => 2,
            BlockState::Unused => 3,
            BlockState::Unreadable => 4,
        }
    }

    /// The state of a stored value.
    pub fn from_byte(byte: u8) -> Option<BlockState> {
        BlockState::ALL.into_iter().find(|s| s.to_byte() == byte)
    }

    /// Whether blocks of this state have a digest and bytes in a frame.
    pub fn has_content(self) -> bool {
        matches!(self, BlockState::Data | BlockState::Unreadable)
    }

    /// The word for people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            BlockState::Data => "data",
            BlockState::Zero => "zero",
            BlockState::Unused => "unused",
            BlockState::Unreadable => "unreadable",
        }
    }
}

/// All that a table says of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its state.
    pub state: BlockState,
    /// Sequence number of the image that recorded this state and content.
    pub since: u32,
    /// Of its content; zeros where it has none.
    pub digest: Digest,
}

impl Block {
    /// A block without content.
    pub fn empty(state: BlockState, since: u32) -> Block {
        Block {
            state,
            since,
            digest: Digest::default(),
        }
    }

    /// Whether both are the same content in the same state, whoever recorded it.
    pub fn is_like(&self, other: &Block) -> bool {
        self.state == other.state && self.digest == other.digest
    }
}
