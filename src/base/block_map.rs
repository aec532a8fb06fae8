//! A set of block indexes: the common currency of used maps, changed maps and selections.

use super::{BlockIndex, BlockSize, ByteLen, Error, ErrorKind, Extent, Result, to_u64};
use roaring::RoaringTreemap;
use std::ops::Range;

/// What lies in ranges of up to so many blocks is counted run by run: the set itself counts from the beginning of
/// the 65,536 blocks in which a range begins.
const SHORT: u64 = 256;

/// A set of blocks out of `0..blocks()`.
///
/// Memory follows the number of runs, not the size of the disk, up to one bit a block in the most
/// fragmented case.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockMap {
    blocks: u64,
    set: RoaringTreemap,
}

impl BlockMap {
    /// No block of a disk of `blocks` blocks.
    pub fn empty(blocks: u64) -> BlockMap {
        BlockMap {
            blocks,
            set: RoaringTreemap::new(),
        }
    }

    /// The blocks of `size` that hold a byte of `extents`, of a disk of `len` bytes.
    pub fn holding(extents: &[Extent], len: ByteLen, size: BlockSize) -> BlockMap {
        let count = size.count(len);
        let mut blocks = BlockMap::empty(count);
        for extent in extents {
            let end = extent.end().0.div_ceil(size.bytes());
            blocks.insert_range(size.index_of(extent.start).0..end.min(count));
        }
        blocks
    }

    /// Every block of a disk of `blocks` blocks.
    pub fn full(blocks: u64) -> BlockMap {
        let mut map = BlockMap::empty(blocks);
        map.insert_range(0..blocks);
        map
    }

    /// How many blocks the disk has; members are below this.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many blocks are in the set.
    pub fn count(&self) -> u64 {
        self.set.len()
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether `block` is in the set.
    pub fn contains(&self, block: BlockIndex) -> bool {
        self.set.contains(block.0)
    }

    /// Adds one block. One past the end is ignored: the map never holds what the disk has not.
    pub fn insert(&mut self, block: BlockIndex) {
        if block.0 < self.blocks {
            self.set.insert(block.0);
        }
    }

    /// Adds a run, clipped to the disk.
    pub fn insert_range(&mut self, range: Range<u64>) {
        let end = range.end.min(self.blocks);
        if range.start < end {
            self.set.insert_range(range.start..end);
        }
    }

    /// Removes a run.
    pub fn remove_range(&mut self, range: Range<u64>) {
        if range.start < range.end {
            self.set.remove_range(range);
        }
    }

    /// How many blocks of `range` are in the set.
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        match range.end.saturating_sub(range.start) {
            ..=SHORT => self.runs_in(range).map(|run| run.end - run.start).sum(),
            _ => self.set.range_cardinality(range),
        }
    }

    /// Whether any block of `range` is in the set.
    pub fn intersects(&self, range: Range<u64>) -> bool {
        self.runs_in(range).next().is_some()
    }

    /// Adds every block of `other`.
    pub fn union_with(&mut self, other: &BlockMap) {
        self.set |= &other.set;
        self.set.remove_range(self.blocks..);
    }

    /// Keeps only blocks that `other` has too.
    pub fn intersect_with(&mut self, other: &BlockMap) {
        self.set &= &other.set;
    }

    /// Removes every block that `other` has.
    pub fn subtract(&mut self, other: &BlockMap) {
        self.set -= &other.set;
    }

    /// The blocks that are not in the set.
    pub fn complement(&self) -> BlockMap {
        let mut out = BlockMap::full(self.blocks);
        out.subtract(self);
        out
    }

    /// The runs of the set in ascending order; no two touch.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs_in(0..self.blocks)
    }

    /// The runs of the set within `range`, cut to it. What lies outside is not looked at.
    pub fn runs_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut pieces = self
            .bitmaps_from(range.start)
            .flat_map(|(base, mut iter)| {
                std::iter::from_fn(move || iter.next_range())
                    .map(move |r| base + u64::from(*r.start())..base + u64::from(*r.end()) + 1)
            })
            .map_while(move |run| {
                (run.start < range.end).then(|| run.start..run.end.min(range.end))
            })
            .peekable();
        std::iter::from_fn(move || {
            let mut run = pieces.next()?;
            while let Some(next) = pieces.next_if(|next| next.start == run.end) {
                run.end = next.end;
            }
            Some(run)
        })
    }

    /// What lies at or behind `start`, in parts of 2^32 blocks, each with its first number.
    fn bitmaps_from(&self, start: u64) -> impl Iterator<Item = (u64, roaring::bitmap::Iter<'_>)> {
        self.set
            .bitmaps()
            .filter(move |(high, _)| u64::from(*high) >= start >> 32)
            .map(move |(high, bitmap)| {
                let base = u64::from(high) << 32;
                let mut iter = bitmap.iter();
                if let Ok(low) = u32::try_from(start.saturating_sub(base)) {
                    iter.advance_to(low);
                }
                (base, iter)
            })
    }

    /// The runs of blocks that are not in the set, in ascending order.
    pub fn gaps(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.gaps_in(0..self.blocks)
    }

    /// The runs of blocks of `range` that are not in the set, in ascending order.
    pub fn gaps_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = range.end.min(self.blocks);
        let mut at = range.start;
        self.runs_in(at..end)
            .chain(std::iter::once(end..end))
            .map(move |run| {
                let gap = at..run.start;
                at = run.end;
                gap
            })
            .filter(|gap| gap.start < gap.end)
    }

    /// The set in blocks of twice the size: one is in it when either half is.
    #[must_use]
    pub fn coarser(&self) -> BlockMap {
        let mut out = BlockMap::empty(self.blocks.div_ceil(2));
        for run in self.runs() {
            out.insert_range(run.start / 2..run.end.div_ceil(2));
        }
        out.compact();
        out
    }

    /// The set in blocks of twice the size: one is in it when both halves are. Half a block at the
    /// end counts as whole.
    #[must_use]
    pub fn coarser_inward(&self) -> BlockMap {
        let mut out = BlockMap::empty(self.blocks.div_ceil(2));
        for run in self.runs() {
            let end = if run.end == self.blocks {
                out.blocks
            } else {
                run.end / 2
            };
            out.insert_range(run.start.div_ceil(2)..end);
        }
        out.compact();
        out
    }

    /// Holds the same set in as little memory as it can.
    pub fn compact(&mut self) {
        self.set.optimize();
    }

    /// About how many bytes of memory the set takes.
    pub fn memory(&self) -> u64 {
        to_u64(self.set.serialized_size())
    }

    /// The first block at or behind `start` that is in the set.
    pub fn next_from(&self, start: BlockIndex) -> Option<BlockIndex> {
        self.bitmaps_from(start.0)
            .find_map(|(base, mut iter)| Some(BlockIndex(base + u64::from(iter.next()?))))
    }

    /// The first block of `range` that is in the set if its first is not, and the other way round; the
    /// end of `range` when there is none.
    pub fn end_of_run(&self, range: Range<u64>) -> u64 {
        match self.runs_in(range.clone()).next() {
            Some(run) if run.start == range.start => run.end,
            Some(run) => run.start,
            None => range.end,
        }
    }

    /// The stored form: the number of blocks, then for each run the gap before it and its length,
    /// all as unsigned LEB128. `docs/format.md` section "Block maps" is normative.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.blocks);
        let mut at = 0;
        for run in self.runs() {
            put_varint(&mut out, run.start - at);
            put_varint(&mut out, run.end - run.start);
            at = run.end;
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Damaged` when a number is cut off or longer than 64 bits, a run is empty, touches the one
    /// before it or passes the end, or the disk has more than `max_blocks` blocks.
    pub fn decode(bytes: &[u8], max_blocks: u64) -> Result<BlockMap> {
        let bad = |what: &str| Error::new(ErrorKind::Damaged, "decode", "block map").because(what);
        let mut rest = bytes;
        let mut next = || take_varint(&mut rest);
        let blocks = next().ok_or_else(|| bad("the number of blocks is cut off"))?;
        if blocks > max_blocks {
            return Err(bad("it covers more blocks than the disk can have"));
        }
        let mut map = BlockMap::empty(blocks);
        let mut at = 0u64;
        while let Some(gap) = next() {
            let len = next().ok_or_else(|| bad("a run is cut off"))?;
            let start = at.checked_add(gap).filter(|s| *s < blocks);
            let start = start.ok_or_else(|| bad("a run starts past the end of the disk"))?;
            let end = start.checked_add(len).filter(|e| *e <= blocks);
            let end = end.ok_or_else(|| bad("a run ends past the end of the disk"))?;
            if len == 0 || (gap == 0 && at != 0) {
                return Err(bad("a run is empty or touches the one before it"));
            }
            map.insert_range(start..end);
            at = end;
        }
        if !rest.is_empty() {
            return Err(bad("a number is cut off or too long"));
        }
        Ok(map)
    }
}

/// Appends `value` as unsigned LEB128.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes one unsigned LEB128 number from the front; `None`, with `rest` untouched, when it is cut
/// off, longer than 64 bits or not in its shortest form.
fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, byte) in rest.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            if *byte == 0 && i > 0 {
                return None;
            }
            *rest = rest.get(i + 1..).unwrap_or_default();
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const BLOCKS: u64 = 300;

    fn model(ops: &[(bool, u64, u64)]) -> (BlockMap, BTreeSet<u64>) {
        let mut map = BlockMap::empty(BLOCKS);
        let mut set = BTreeSet::new();
        for &(insert, start, len) in ops {
            let range = start..start.saturating_add(len);
            if insert {
                map.insert_range(range.clone());
                set.extend(range.filter(|b| *b < BLOCKS));
            } else {
                map.remove_range(range.clone());
                set.retain(|b| !range.contains(b));
            }
        }
        (map, set)
    }

    fn ops() -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
        proptest::collection::vec((any::<bool>(), 0..320u64, 0..60u64), 0..20)
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(a in ops(), b in ops()) {
            let (map_a, set_a) = model(&a);
            let (map_b, set_b) = model(&b);
            let as_set = |m: &BlockMap| m.runs().flatten().collect::<BTreeSet<u64>>();
            prop_assert_eq!(as_set(&map_a), set_a.clone());
            prop_assert_eq!(map_a.count(), set_a.len() as u64);
            let mut union = map_a.clone();
            union.union_with(&map_b);
            prop_assert_eq!(as_set(&union), &set_a | &set_b);
            let mut both = map_a.clone();
            both.intersect_with(&map_b);
            prop_assert_eq!(as_set(&both), &set_a & &set_b);
            let mut less = map_a.clone();
            less.subtract(&map_b);
            prop_assert_eq!(as_set(&less), &set_a - &set_b);
            let all: BTreeSet<u64> = (0..BLOCKS).collect();
            prop_assert_eq!(as_set(&map_a.complement()), &all - &set_a);
            prop_assert_eq!(map_a.gaps().flatten().collect::<BTreeSet<u64>>(), &all - &set_a);
            prop_assert!(map_a.gaps().all(|gap| gap.start < gap.end));
            let inside: BTreeSet<u64> = map_a.gaps_in(17..200).flatten().collect();
            prop_assert_eq!(inside, (17..200).filter(|b| !set_a.contains(b)).collect::<BTreeSet<u64>>());
            let halves: BTreeSet<u64> = set_a.iter().map(|b| b / 2).collect();
            prop_assert_eq!(as_set(&map_a.coarser()), halves);
            let both = |b: &u64| set_a.contains(&(2 * b)) && set_a.contains(&(2 * b + 1));
            let wholes: BTreeSet<u64> = (0..BLOCKS / 2).filter(both).collect();
            prop_assert_eq!(as_set(&map_a.coarser_inward()), wholes);
            let mut compact = map_a.clone();
            compact.compact();
            prop_assert_eq!(&compact, &map_a);
            for range in [17..200, 17..BLOCKS, 90..91, 40..40, 0..BLOCKS] {
                let inside = set_a.range(range.clone()).count() as u64;
                prop_assert_eq!(map_a.count_in(range.clone()), inside);
                prop_assert_eq!(map_a.intersects(range), inside > 0);
            }
            let from_100: BTreeSet<u64> = map_a.runs_in(100..BLOCKS).flatten().collect();
            prop_assert_eq!(&from_100, &set_a.range(100..).copied().collect::<BTreeSet<u64>>());
            let inside: BTreeSet<u64> = map_a.runs_in(17..200).flatten().collect();
            prop_assert_eq!(inside, set_a.range(17..200).copied().collect::<BTreeSet<u64>>());
            prop_assert_eq!(map_a.next_from(BlockIndex(100)).map(|b| b.0), from_100.first().copied());
            let end = (100..BLOCKS).find(|b| set_a.contains(b) != set_a.contains(&100));
            prop_assert_eq!(map_a.end_of_run(100..BLOCKS), end.unwrap_or(BLOCKS));
            prop_assert_eq!(map_a.end_of_run(100..200), end.unwrap_or(BLOCKS).min(200));
        }

        #[test]
        fn runs_never_touch(a in ops()) {
            let (map, _) = model(&a);
            let runs: Vec<_> = map.runs().collect();
            for pair in runs.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
        }

        #[test]
        fn stored_form_round_trips(a in ops()) {
            let (map, _) = model(&a);
            prop_assert_eq!(BlockMap::decode(&map.encode(), BLOCKS).unwrap(), map);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(map) = BlockMap::decode(&bytes, 1 << 40) {
                prop_assert_eq!(map.encode(), bytes);
            }
        }
    }

    #[test]
    fn runs_join_over_the_32_bit_seam() {
        let mut map = BlockMap::empty(1 << 34);
        map.insert_range((1 << 32) - 5..(1 << 32) + 5);
        assert_eq!(
            map.runs().collect::<Vec<_>>(),
            vec![(1 << 32) - 5..(1 << 32) + 5]
        );
    }

    #[test]
    fn a_full_map_of_a_huge_disk_is_small() {
        let map = BlockMap::full(1 << 33);
        assert_eq!(map.count(), 1 << 33);
        assert!(map.encode().len() < 32);
    }

    #[test]
    fn hostile_counts_are_refused() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert_eq!(
            BlockMap::decode(&bytes, 1000).unwrap_err().kind(),
            ErrorKind::Damaged
        );
    }
}
