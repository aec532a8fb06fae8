//! The shape of the table: which page covers which blocks.

use super::header::Header;
use super::limits::{LEAF_BLOCKS, NODE_CHILDREN};

/// The blocks of leaf `index`.
pub(super) fn leaf_len(header: &Header, index: u64) -> u64 {
    header
        .blocks()
        .saturating_sub(index.saturating_mul(LEAF_BLOCKS))
        .min(LEAF_BLOCKS)
}

/// The level whose single page covers a disk of `blocks` blocks.
pub(super) fn top_level(blocks: u64) -> u8 {
    let mut level = 0;
    let mut pages = blocks.div_ceil(LEAF_BLOCKS);
    while pages > 1 {
        pages = pages.div_ceil(NODE_CHILDREN);
        level += 1;
    }
    level
}

/// How many pages `level` has on a disk of `blocks` blocks.
pub(super) fn pages_at(blocks: u64, level: u8) -> u64 {
    (0..level).fold(blocks.div_ceil(LEAF_BLOCKS), |pages, _| {
        pages.div_ceil(NODE_CHILDREN)
    })
}

/// Blocks below one page of `level`; saturates far above any disk.
pub fn span_of(level: u8) -> u64 {
    (0..level).fold(LEAF_BLOCKS, |span, _| span.saturating_mul(NODE_CHILDREN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_cover_the_disk() {
        assert_eq!(top_level(1), 0);
        assert_eq!(top_level(256), 0);
        assert_eq!(top_level(257), 1);
        assert_eq!(top_level(256 * 128), 1);
        assert_eq!(top_level(256 * 128 + 1), 2);
        assert_eq!(pages_at(256 * 128 + 1, 1), 2);
        // 64 PiB in 4 KiB blocks is the deepest tree.
        assert_eq!(top_level(1 << 44), 6);
    }
}
