//! Building a used map from what is proven free.

use super::volume::Piece;
use crate::base::{BlockMap, ByteLen};
use std::ops::Range;

/// Units are doubled until there are at most this many: with all of them in use the map is small,
/// and a cluster offset that is no multiple of the unit only costs a unit at each end.
const MAX_UNITS: u64 = 1 << 32;
/// What the map may take of memory before units are doubled: a map of 16 TiB then has units of 64 KiB
/// in the worst case.
const MAX_MEMORY: u64 = 24 << 20;
/// After doubling so much less is taken that the next look is far off.
const MEMORY_AFTER_DOUBLING: u64 = 16 << 20;
/// What one change adds at the most: a run, in a vector that grows by doubling.
const MEMORY_OF_A_CHANGE: u64 = 8;

/// A used map in the making. Everything is in use until it is proven free, and what is kept stays
/// in use whatever is said of it before or later.
///
/// Memory is bounded: a map too fragmented for it gets coarser units, which only ever makes more of
/// the partition count as used.
#[derive(Debug)]
pub(super) struct MapBuilder {
    len: u64,
    unit: u64,
    free: BlockMap,
    kept: BlockMap,
    /// What the two sets take of memory at the most.
    memory: u64,
}

impl MapBuilder {
    /// All of a volume of `len` bytes in use, told apart in units of `unit` bytes (the file system's
    /// block; at least 512).
    pub(super) fn new(len: u64, unit: u64) -> MapBuilder {
        let mut unit = unit.clamp(512, 1 << 30);
        while len.div_ceil(unit) > MAX_UNITS {
            unit *= 2;
        }
        let units = len.div_ceil(unit);
        MapBuilder {
            len,
            unit,
            free: BlockMap::empty(units),
            kept: BlockMap::empty(units),
            memory: 0,
        }
    }

    /// These bytes are proven not to be in use. Rounded inward to whole units; clipped to the volume.
    pub(super) fn free(&mut self, bytes: Range<u64>) {
        let end = if bytes.end >= self.len {
            self.free.blocks()
        } else {
            bytes.end / self.unit
        };
        // A set that grows: removing from a full one looks at all of it each time.
        self.free.insert_range(bytes.start.div_ceil(self.unit)..end);
        self.changed();
    }

    /// These bytes are in use, whatever else is said of them. Rounded outward.
    pub(super) fn keep(&mut self, bytes: Range<u64>) {
        if bytes.start < bytes.end {
            self.kept
                .insert_range(bytes.start / self.unit..bytes.end.div_ceil(self.unit));
            self.changed();
        }
    }

    /// Whether any of these bytes is free so far, whether or not it is kept. Never says so of a byte
    /// that was not given to [`MapBuilder::free`].
    pub(super) fn frees(&self, bytes: Range<u64>) -> bool {
        let units = bytes.start / self.unit..bytes.end.div_ceil(self.unit);
        self.free.intersects(units)
    }

    /// Frees what `inner`, the map of a volume made of `pieces` of this one, does not use.
    pub(super) fn free_inside(&mut self, pieces: &[Piece], unit: ByteLen, inner: &BlockMap) {
        for gap in inner.gaps() {
            let (start, end) = (
                gap.start.saturating_mul(unit.0),
                gap.end.saturating_mul(unit.0),
            );
            let first = pieces.partition_point(|p| p.start + p.len <= start);
            for piece in pieces.iter().skip(first).take_while(|p| p.start < end) {
                let from = start.max(piece.start) - piece.start + piece.at;
                let to = end.min(piece.start + piece.len) - piece.start + piece.at;
                self.free(from..to);
            }
        }
    }

    /// The unit and the map.
    pub(super) fn finish(self) -> (ByteLen, BlockMap) {
        let mut used = BlockMap::full(self.free.blocks());
        used.subtract(&self.free);
        drop(self.free);
        used.union_with(&self.kept);
        used.compact();
        (ByteLen(self.unit), used)
    }

    fn changed(&mut self) {
        self.memory += MEMORY_OF_A_CHANGE;
        if self.memory < MAX_MEMORY {
            return;
        }
        self.look();
        while self.memory > MEMORY_AFTER_DOUBLING && self.free.blocks() > 1 {
            self.unit *= 2;
            self.free = self.free.coarser_inward();
            self.kept = self.kept.coarser();
            self.look();
        }
    }

    fn look(&mut self) {
        self.free.compact();
        self.kept.compact();
        self.memory = self.free.memory() + self.kept.memory();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_rounds_inward_and_kept_wins() {
        let mut map = MapBuilder::new(10_000, 1000);
        map.keep(3500..3501);
        map.free(1500..7200);
        map.free(9000..10_000);
        let (unit, used) = map.finish();
        assert_eq!(unit, ByteLen(1000));
        assert_eq!(used.runs().collect::<Vec<_>>(), [0..2, 3..4, 7..9]);
    }

    #[test]
    fn the_last_short_unit_can_be_free() {
        let mut map = MapBuilder::new(2049, 1024);
        map.free(1024..2049);
        let used: Vec<u64> = map.finish().1.runs().flatten().collect();
        assert_eq!(used, [0]);
    }

    #[test]
    fn inner_maps_land_where_their_pieces_are() {
        let pieces = [
            Piece {
                start: 0,
                len: 4096,
                at: 8192,
            },
            Piece {
                start: 4096,
                len: 4096,
                at: 0,
            },
        ];
        let mut inner = BlockMap::empty(8);
        inner.insert_range(0..1);
        inner.insert_range(7..8);
        let mut map = MapBuilder::new(16_384, 1024);
        map.free_inside(&pieces, ByteLen(1024), &inner);
        let used: Vec<_> = map.finish().1.runs().collect();
        assert_eq!(used, [3..9, 12..16]);
    }

    #[test]
    fn a_fragmented_map_of_16_tib_keeps_its_memory() {
        let len = 16 << 40;
        let mut map = MapBuilder::new(len, 4096);
        // Two million free blocks all over, then every other block of a part.
        for at in (0..len).step_by(8 << 20) {
            map.free(at..at + 4096);
        }
        for at in (0..16 << 30).step_by(8192) {
            map.free(at..at + 4096);
        }
        map.look();
        assert!(map.memory <= MAX_MEMORY, "{}", map.memory);
        let (unit, used) = map.finish();
        assert_eq!(used.blocks(), len / unit.0);
        // What is free stays a subset of what was said to be free.
        let free: u64 = used.gaps().map(|g| (g.end - g.start) * unit.0).sum();
        assert!(free <= ((2 << 20) + (2 << 20)) * 4096, "{free}");
    }

    #[test]
    fn huge_volumes_get_larger_units() {
        let map = MapBuilder::new(1 << 50, 512);
        assert_eq!(map.unit, 1 << 18);
    }
}
