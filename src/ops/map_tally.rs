//! Counting a disk at once in cells, in its partitions, in what lies between them, and as a whole. Pure.

use super::ImageRecord;
use super::map::{DiskMap, MapGap, MapPartition};
use super::map_cells::{Cell, Cells, Class};
use crate::base::{ByteLen, ByteOffset, Extent, outside};

/// The counts of one disk while they grow.
pub(super) struct Tally {
    disk_len: ByteLen,
    cells: Cells,
    totals: Cell,
    /// Partitions and gaps, ascending, covering the disk.
    regions: Vec<Region>,
}

struct Region {
    extent: Extent,
    totals: Cell,
    /// None for a gap.
    partition: Option<MapPartition>,
}

impl Tally {
    /// `partitions` ascend and do not overlap.
    pub(super) fn new(disk_len: ByteLen, cells: Cells, partitions: Vec<MapPartition>) -> Tally {
        let extent_of = |p: &MapPartition| Extent {
            start: ByteOffset(p.start),
            len: ByteLen(p.length),
        };
        let taken: Vec<Extent> = partitions.iter().map(extent_of).collect();
        let gaps = outside(Extent::whole(disk_len), &taken).into_iter();
        let region = |extent, partition| Region {
            extent,
            totals: Cell::default(),
            partition,
        };
        let mut regions: Vec<Region> = gaps.map(|gap| region(gap, None)).collect();
        regions.extend(
            partitions
                .into_iter()
                .map(|p| region(extent_of(&p), Some(p))),
        );
        regions.sort_by_key(|r| r.extent);
        Tally {
            disk_len,
            cells,
            totals: Cell::default(),
            regions,
        }
    }

    /// Counts the bytes of `extent`, which lies on the disk. `changed`: the image recorded them itself.
    pub(super) fn add(&mut self, extent: Extent, class: Class, changed: bool) {
        self.cells.add(extent, class, changed);
        self.totals.add(extent.len.0, class, changed);
        let first = self
            .regions
            .partition_point(|r| r.extent.end() <= extent.start);
        for region in self.regions.iter_mut().skip(first) {
            let Some(part) = region.extent.intersect(extent) else {
                break;
            };
            region.totals.add(part.len.0, class, changed);
        }
    }

    pub(super) fn finish(self, image: ImageRecord) -> DiskMap {
        let (mut partitions, mut gaps) = (Vec::new(), Vec::new());
        for Region {
            extent,
            totals,
            partition,
        } in self.regions
        {
            match partition {
                Some(partition) => partitions.push(MapPartition {
                    totals,
                    ..partition
                }),
                None => gaps.push(MapGap {
                    start: extent.start.0,
                    length: extent.len.0,
                    totals,
                }),
            }
        }
        DiskMap {
            block_size: image.block_size,
            image,
            disk_bytes: self.disk_len.0,
            cell_bytes: self.cells.width().0,
            cells: self.cells.into_cells(),
            totals: self.totals,
            partitions,
            gaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, start: u64, length: u64) -> MapPartition {
        MapPartition {
            number,
            name: String::new(),
            filesystem: String::new(),
            start,
            length,
            totals: Cell::default(),
        }
    }

    fn record() -> ImageRecord {
        ImageRecord {
            id: String::new(),
            parent: None,
            kind: "full",
            set: String::new(),
            sequence: 1,
            time: String::new(),
            bytes: 0,
            disk_bytes: 100,
            block_size: 4096,
            root: String::new(),
            file: String::new(),
            key_set: None,
        }
    }

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset(start), ByteLen(len)).unwrap()
    }

    #[test]
    fn bytes_are_counted_where_they_lie() {
        let cells = Cells::new(ByteLen(100), 4);
        let parts = vec![
            partition(1, 10, 20),
            partition(3, 30, 5),
            partition(2, 60, 40),
        ];
        let mut tally = Tally::new(ByteLen(100), cells, parts);
        tally.add(extent(0, 15), Class::Data, true);
        tally.add(extent(15, 50), Class::Zero, false);
        tally.add(extent(65, 1), Class::Unreadable, true);
        tally.add(extent(66, 34), Class::Unused, false);
        let map = tally.finish(record());
        let of = |data, zero, unused, unreadable, changed| Cell {
            data,
            zero,
            unused,
            unreadable,
            changed,
        };
        let parts: Vec<(u32, Cell)> = map
            .partitions
            .iter()
            .map(|p| (p.number, p.totals))
            .collect();
        assert_eq!(
            parts,
            [
                (1, of(5, 15, 0, 0, 5)),
                (3, of(0, 5, 0, 0, 0)),
                (2, of(0, 5, 34, 1, 1)),
            ]
        );
        let gaps: Vec<(u64, u64, Cell)> = map
            .gaps
            .iter()
            .map(|g| (g.start, g.length, g.totals))
            .collect();
        assert_eq!(
            gaps,
            [(0, 10, of(10, 0, 0, 0, 10)), (35, 25, of(0, 25, 0, 0, 0))]
        );
        assert_eq!(map.totals, of(15, 50, 34, 1, 16));
        assert_eq!(map.cells[0], of(15, 10, 0, 0, 15));
        let parts = map.partitions.iter().map(|p| &p.totals);
        let regions = parts.chain(map.gaps.iter().map(|g| &g.totals));
        let sum = |sum: Cell, part: &Cell| sum.plus(part);
        assert_eq!(regions.fold(Cell::default(), sum), map.totals);
        assert_eq!(map.cells.iter().fold(Cell::default(), sum), map.totals);
    }

    #[test]
    fn a_disk_without_partitions_is_one_gap() {
        let mut tally = Tally::new(ByteLen(100), Cells::new(ByteLen(100), 4), Vec::new());
        tally.add(extent(0, 100), Class::Data, true);
        let map = tally.finish(record());
        assert_eq!(map.gaps.len(), 1);
        assert_eq!(map.gaps[0].totals, map.totals);
    }
}
