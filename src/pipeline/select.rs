//! Which blocks a backup looks at, and which bytes of them. Pure.

use crate::base::{BlockMap, BlockSize, ByteLen, ByteOffset, Extent, normalize};

/// One partition's share of a disk: where it lies, and which of its units are in use.
#[derive(Debug, Clone, PartialEq)]
pub struct Used {
    /// The partition.
    pub extent: Extent,
    /// Size of the units in `map`, in bytes.
    pub unit: ByteLen,
    /// Units in use, counted from the partition's start.
    pub map: BlockMap,
}

impl Used {
    /// The bytes of the disk that the units `gap` cover.
    fn bytes_of(&self, gap: &std::ops::Range<u64>) -> Option<Extent> {
        let place = |unit: u64| {
            let bytes = unit.saturating_mul(self.unit.0);
            ByteOffset(bytes.saturating_add(self.extent.start.0))
        };
        Extent::between(place(gap.start), place(gap.end))?.intersect(self.extent)
    }
}

/// What will be taken of a disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Blocks to read: those that hold a byte in use.
    pub take: BlockMap,
    /// Blocks that are not taken because their content was left out on request: they are recorded
    /// as zeros. Every other block that is not taken becomes `Unused`.
    pub blank: BlockMap,
    /// Blocks that may differ from the parent in their content or in whether they are taken. The others are
    /// taken over from its table, unread. `None`: all may.
    pub changed: Option<BlockMap>,
    /// Partitions by ascending start; no two share a byte.
    parts: Vec<Used>,
    /// Bytes left out on request, ascending.
    left_out: Vec<Extent>,
}

impl Selection {
    /// Every byte of a disk.
    pub fn everything(disk_len: ByteLen, block_size: BlockSize) -> Selection {
        select(disk_len, block_size, Vec::new(), Vec::new())
    }

    /// The same, all but `changed` as the parent has it.
    pub fn only(changed: BlockMap, disk_len: ByteLen, block_size: BlockSize) -> Selection {
        Selection {
            changed: Some(changed),
            ..Selection::everything(disk_len, block_size)
        }
    }

    /// How many bytes of `extent` lie in blocks that are taken.
    pub fn taken_in(&self, extent: Extent, block_size: BlockSize) -> u64 {
        let first = block_size.index_of(extent.start).0;
        let last = extent.end().0.div_ceil(block_size.bytes());
        self.take
            .runs_in(first..last)
            .filter_map(|run| {
                let place = |block: u64| ByteOffset(block.saturating_mul(block_size.bytes()));
                Extent::between(place(run.start), place(run.end))?.intersect(extent)
            })
            .map(|taken| taken.len.0)
            .sum()
    }

    /// The bytes of `extent` that are not in use or were left out, ascending and apart.
    pub fn unused_in(&self, extent: Extent) -> Vec<Extent> {
        let first = self
            .parts
            .partition_point(|p| p.extent.end() <= extent.start);
        let mut unused = Vec::new();
        for part in self.parts.iter().skip(first) {
            let Some(shared) = part.extent.intersect(extent) else {
                break;
            };
            let from = (shared.start.0 - part.extent.start.0) / part.unit.0;
            let to = (shared.end().0 - part.extent.start.0).div_ceil(part.unit.0);
            let gaps = part.map.gaps_in(from..to);
            unused.extend(gaps.filter_map(|gap| part.bytes_of(&gap)?.intersect(extent)));
        }
        let first = self.left_out.partition_point(|e| e.end() <= extent.start);
        let near = self.left_out.iter().skip(first);
        unused.extend(near.map_while(|e| e.intersect(extent)));
        normalize(unused)
    }
}

/// Takes every block except those that lie wholly in unused units of one partition or in what was
/// `left_out`: partition table, gaps and tails always come along, and a block that is partly in use
/// is in use.
///
/// No two of `partitions` share a byte.
pub fn select(
    disk_len: ByteLen,
    block_size: BlockSize,
    mut partitions: Vec<Used>,
    left_out: Vec<Extent>,
) -> Selection {
    let blocks = block_size.count(disk_len);
    partitions.sort_by_key(|p| p.extent.start);
    let left_out = normalize(left_out);
    // Inward: only blocks that are free to their last byte.
    let inward = |free: Extent| {
        let end = free.end().0;
        let last = if end >= disk_len.0 {
            blocks
        } else {
            end / block_size.bytes()
        };
        free.start.0.div_ceil(block_size.bytes())..last
    };
    // Grows from nothing: removing from a full set looks at all of it each time.
    let mut untaken = BlockMap::empty(blocks);
    for part in &partitions {
        for free in part.map.gaps().filter_map(|gap| part.bytes_of(&gap)) {
            untaken.insert_range(inward(free));
        }
    }
    let mut blank = BlockMap::empty(blocks);
    left_out.iter().for_each(|e| blank.insert_range(inward(*e)));
    untaken.union_with(&blank);
    let mut take = BlockMap::full(blocks);
    take.subtract(&untaken);
    take.compact();
    Selection {
        take,
        blank,
        changed: None,
        parts: partitions,
        left_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        }
    }

    fn runs(map: &BlockMap) -> Vec<std::ops::Range<u64>> {
        map.runs().collect()
    }

    #[test]
    fn without_partitions_everything_is_taken() {
        let size = BlockSize::new(4096).unwrap();
        let selection = Selection::everything(ByteLen(4096 * 3 + 1), size);
        assert_eq!(selection.take, BlockMap::full(4));
        assert_eq!(selection.unused_in(extent(0, 4096 * 3 + 1)), []);
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
            map,
        };
        let selection = select(ByteLen(100 * 1024), size, vec![used], vec![]);
        // Free bytes are 1536..41472: blocks 1 to 4 wholly, blocks 0 and 5 partly.
        assert_eq!(runs(&selection.take), [0..1, 5..13]);
        assert_eq!(selection.unused_in(extent(0, 8192)), [extent(1536, 6656)]);
        let block_5 = selection.unused_in(extent(5 * 8192, 8192));
        assert_eq!(block_5, [extent(40_960, 512)]);
    }

    #[test]
    fn a_map_that_passes_its_partition_does_not_reach_the_next() {
        let size = BlockSize::new(4096).unwrap();
        let used = Used {
            extent: extent(4096, 8192),
            unit: ByteLen(4096),
            map: BlockMap::empty(1000),
        };
        let selection = select(ByteLen(4096 * 10), size, vec![used], vec![]);
        assert_eq!(runs(&selection.take), [0..1, 3..10]);
        assert_eq!(selection.unused_in(extent(0, 40_960)), [extent(4096, 8192)]);
    }

    #[test]
    fn what_is_left_out_on_request_is_blank_and_masked() {
        let size = BlockSize::new(4096).unwrap();
        let out = vec![extent(6000, 12_000)];
        let selection = select(ByteLen(4096 * 10), size, vec![], out);
        assert_eq!(runs(&selection.take), [0..2, 4..10]);
        assert_eq!(selection.blank.runs().flatten().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(
            selection.unused_in(extent(4096, 4096)),
            [extent(6000, 2192)]
        );
    }

    proptest! {
        #[test]
        fn a_byte_is_taken_exactly_unless_it_is_unused(
            free in proptest::collection::vec((0u64..60, 1u64..20), 0..8),
            start in 0u64..20,
            out in proptest::collection::vec((0u64..60_000, 1u64..9000), 0..3),
        ) {
            let (size, len) = (BlockSize::new(4096).unwrap(), 70_001);
            let mut map = BlockMap::full(64);
            free.iter().for_each(|(at, n)| map.remove_range(*at..(at + n).min(64)));
            let part = extent(start * 512, 64 * 1024);
            let used = Used { extent: part, unit: ByteLen(1024), map: map.clone() };
            let out: Vec<Extent> = out.iter().map(|(at, n)| extent(*at, *n)).collect();
            let selection = select(ByteLen(len), size, vec![used], out.clone());
            let is_out = |at: u64| out.iter().any(|e| e.contains(extent(at, 1)));
            let is_free = |at: u64| part.contains(extent(at, 1))
                && !map.contains(crate::base::BlockIndex((at - part.start.0) / 1024));
            let unused = selection.unused_in(extent(0, len));
            for at in (0..len).step_by(256) {
                let listed = unused.iter().any(|e| e.contains(extent(at, 1)));
                prop_assert_eq!(listed, is_free(at) || is_out(at), "byte {}", at);
                let block = size.index_of(ByteOffset(at));
                prop_assert!(selection.take.contains(block) || listed, "byte {}", at);
                if selection.blank.contains(block) {
                    prop_assert!(is_out(at), "byte {}", at);
                }
            }
        }
    }
}
