//! Which blocks a backup looks at. Pure.

use crate::base::{BlockMap, BlockSize, ByteLen, ByteOffset, Extent};

/// What will be taken of a disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Blocks to read; every other block becomes `Unused`.
    pub take: BlockMap,
}

/// One partition's share of a disk: where it lies, and which of its units are in use.
#[derive(Debug, Clone, Copy)]
pub struct Used<'a> {
    /// The partition.
    pub extent: Extent,
    /// Size of the units in `map`, in bytes.
    pub unit: ByteLen,
    /// Units in use, counted from the partition's start.
    pub map: &'a BlockMap,
}

/// Takes every block except those that lie wholly in unused units of one partition: table, gaps
/// and tails always come along, and a block that is partly in use is in use.
pub fn select(disk_len: ByteLen, block_size: BlockSize, partitions: &[Used<'_>]) -> Selection {
    let blocks = block_size.count(disk_len);
    let mut take = BlockMap::full(blocks);
    for part in partitions {
        for free in part.map.gaps() {
            let start = free
                .start
                .saturating_mul(part.unit.0)
                .saturating_add(part.extent.start.0);
            let end = free
                .end
                .saturating_mul(part.unit.0)
                .saturating_add(part.extent.start.0);
            let Some(free) = Extent::between(ByteOffset(start), ByteOffset(end))
                .and_then(|e| e.intersect(part.extent))
            else {
                continue;
            };
            // Inward: only blocks that are free to their last byte.
            let first = free.start.0.div_ceil(block_size.bytes());
            let last = free.end().0 / block_size.bytes();
            take.remove_range(first..last);
        }
    }
    Selection { take }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        }
    }

    #[test]
    fn without_partitions_everything_is_taken() {
        let size = BlockSize::new(4096).unwrap();
        assert_eq!(
            select(ByteLen(4096 * 3 + 1), size, &[]).take,
            BlockMap::full(4)
        );
    }

    #[test]
    fn only_wholly_free_blocks_are_left_out() {
        let size = BlockSize::new(8192).unwrap();
        // A partition at an odd sector; units of 1 KiB; unit 0, and units from 40 on are in use.
        let mut map = BlockMap::empty(64);
        map.insert_range(0..1);
        map.insert_range(40..64);
        let used = Used {
            extent: extent(512, 64 * 1024),
            unit: ByteLen(1024),
            map: &map,
        };
        let take = select(ByteLen(100 * 1024), size, &[used]).take;
        // Free bytes are 1536..41472: blocks 1 to 4 wholly, blocks 0 and 5 partly.
        assert_eq!(take.runs().collect::<Vec<_>>(), vec![0..1, 5..13]);
    }

    #[test]
    fn a_map_that_passes_its_partition_does_not_reach_the_next() {
        let size = BlockSize::new(4096).unwrap();
        let map = BlockMap::empty(1000);
        let used = Used {
            extent: extent(4096, 8192),
            unit: ByteLen(4096),
            map: &map,
        };
        let take = select(ByteLen(4096 * 10), size, &[used]).take;
        assert_eq!(take.runs().collect::<Vec<_>>(), vec![0..1, 3..10]);
    }
}
