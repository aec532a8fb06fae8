//! The bounds of format version 1, in one place. `docs/format.md` has the same numbers.

/// The longest disk: 64 PiB. Far above any device, far below where offsets could wrap.
pub const MAX_DISK_LEN: u64 = 1 << 56;

/// Largest exponent of a window's size in blocks: a frame's mask has 64 bits.
pub const MAX_WINDOW_LOG2: u8 = 6;

/// Largest exponent of a window's size in bytes: one decoded frame, the unit of all buffers.
pub const MAX_FRAME_LOG2: u8 = 22;

/// The longest decoded table page. A leaf of 256 blocks that all differ, in frames of one block, has
/// 14,872 bytes.
pub const MAX_PAGE_LEN: u32 = 16 << 10;

/// The longest decoded section: generous for text, harmless for memory.
pub const MAX_SECTION_LEN: u32 = 16 << 20;

/// The most values in the info section: four times what 4096 partitions need. A value takes up to 40 times
/// the memory of its text, and the text of a few KiB decompresses to 16 MiB.
pub const MAX_INFO_VALUES: usize = 1 << 18;

/// The most ranges in each list of the summary that is written: two full lists take some 10 MiB as text.
pub const MAX_LISTED_RANGES: usize = 1 << 17;

/// The most values in the summary section: more than 16 MiB have room for when all are unreadable ranges.
pub const MAX_SUMMARY_VALUES: usize = 5 << 19;

/// How much longer a stored payload may be than its decoded form.
pub const MAX_STORED_EXCESS: u32 = 64 << 10;

/// Blocks a leaf page covers.
pub const LEAF_BLOCKS: u64 = 256;

/// Children of a node page.
pub const NODE_CHILDREN: u64 = 128;

/// The most images in one chain: far more than a daily image for a lifetime, and a bound for whoever
/// follows parents.
pub const MAX_CHAIN: usize = 65_536;

/// The most raw regions in the tables section: a table has a handful, a chain of EBRs a few hundred.
pub const MAX_RAW_REGIONS: u32 = 4096;
