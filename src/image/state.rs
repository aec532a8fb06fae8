//! What an image says of one block.

/// The state of a block. Section 5 of `docs/format.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockState {
    /// As in the parent.
    Inherit,
    /// Content is stored here.
    Data,
    /// Reads as zeros.
    Zero,
    /// Not in use, not looked at; reads as zeros.
    Unused,
    /// Parts could not be read; what could is stored here.
    Unreadable,
}

impl BlockState {
    /// Every state, in the order of their stored values.
    pub const ALL: [BlockState; 5] = [
        BlockState::Inherit,
        BlockState::Data,
        BlockState::Zero,
        BlockState::Unused,
        BlockState::Unreadable,
    ];

    /// The stored value, 1 to 5.
    pub fn to_byte(self) -> u8 {
        match self {
            BlockState::Inherit => 1,
            BlockState::Data => 2,
            BlockState::Zero => 3,
            BlockState::Unused => 4,
            BlockState::Unreadable => 5,
        }
    }

    /// The state of a stored value.
    pub fn from_byte(byte: u8) -> Option<BlockState> {
        BlockState::ALL.into_iter().find(|s| s.to_byte() == byte)
    }

    /// Whether blocks of this state have a digest and bytes in a frame.
    pub fn is_stored(self) -> bool {
        matches!(self, BlockState::Data | BlockState::Unreadable)
    }
}
