//! A disk cut into cells of equal width, and how much of what lies in each. Pure.

use crate::base::{ByteLen, ByteOffset, Extent, to_u64, to_usize};
use serde::Serialize;

/// What some bytes of an imaged disk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Stored content.
    Data,
    /// Known to be zeros.
    Zero,
    /// Not in use, not looked at.
    Unused,
    /// In a block of which parts could not be read.
    Unreadable,
}

/// How many bytes of a stretch of the disk are what. The first four add up to its length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Bytes with content.
    pub data: u64,
    /// Bytes known to be zero.
    pub zero: u64,
    /// Bytes not in use.
    pub unused: u64,
    /// Bytes of blocks with unreadable parts.
    pub unreadable: u64,
    /// Bytes, of any of the above, that the image recorded itself instead of leaving them to its parent.
    pub changed: u64,
}

impl Cell {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        [self.data, self.zero, self.unused, self.unreadable]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Counts `bytes` more. Saturates, which no disk of less than 2^64 bytes comes to.
    pub fn add(&mut self, bytes: u64, class: Class, changed: bool) {
        let sum = match class {
            Class::Data => &mut self.data,
            Class::Zero => &mut self.zero,
            Class::Unused => &mut self.unused,
            Class::Unreadable => &mut self.unreadable,
        };
        *sum = sum.saturating_add(bytes);
        if changed {
            self.changed = self.changed.saturating_add(bytes);
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Cell) -> Cell {
        Cell {
            data: self.data.saturating_add(other.data),
            zero: self.zero.saturating_add(other.zero),
            unused: self.unused.saturating_add(other.unused),
            unreadable: self.unreadable.saturating_add(other.unreadable),
            changed: self.changed.saturating_add(other.changed),
        }
    }
}

/// A disk in cells. Memory: one [`Cell`] for each, whatever the disk's length.
#[derive(Debug, Clone)]
pub struct Cells {
    disk: Extent,
    width: u64,
    cells: Vec<Cell>,
}

impl Cells {
    /// At most `count` empty cells over a disk of `disk_len` bytes: as many as that many bytes can be
    /// cut into with equal widths, the last one shorter; one at least.
    pub fn new(disk_len: ByteLen, count: usize) -> Cells {
        Cells::in_units(disk_len, count, ByteLen(1))
    }

    /// [`Cells::new`], with widths that are whole multiples of `unit`, so that no unit lies in two cells.
    pub fn in_units(disk_len: ByteLen, count: usize, unit: ByteLen) -> Cells {
        let unit = unit.0.max(1);
        let units = disk_len.0.div_ceil(unit);
        let width = units.div_ceil(to_u64(count).max(1)).saturating_mul(unit);
        let width = width.min(disk_len.0).max(1);
        let cells = to_usize(disk_len.0.div_ceil(width).max(1));
        Cells {
            disk: Extent::whole(disk_len),
            width,
            cells: vec![Cell::default(); cells],
        }
    }

    /// The width of every cell but the last, which may be shorter. Not zero.
    pub fn width(&self) -> ByteLen {
        ByteLen(self.width)
    }

    /// Counts the bytes of `extent` in the cells that they lie in; what lies outside of the disk
    /// counts nowhere. Time: one step for each cell touched.
    pub fn add(&mut self, extent: Extent, class: Class, changed: bool) {
        let Some(extent) = extent.intersect(self.disk) else {
            return;
        };
        let (mut at, end) = (extent.start, extent.end());
        while at < end {
            let index = at.0 / self.width;
            let next = index.saturating_add(1).saturating_mul(self.width);
            let next = end.min(ByteOffset(next));
            if let Some(cell) = self.cells.get_mut(to_usize(index)) {
                cell.add(next.0 - at.0, class, changed);
            }
            at = next;
        }
    }

    /// The cells in the order of the disk.
    pub fn into_cells(self) -> Vec<Cell> {
        self.cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLASSES: [Class; 4] = [Class::Data, Class::Zero, Class::Unused, Class::Unreadable];

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset(start), ByteLen(len)).unwrap()
    }

    #[test]
    fn there_is_always_a_cell_and_never_more_than_bytes() {
        let shape = |len, count| {
            let cells = Cells::new(ByteLen(len), count);
            (cells.width().0, cells.into_cells().len())
        };
        assert_eq!(shape(0, 10), (1, 1));
        assert_eq!(shape(10, 0), (10, 1));
        assert_eq!(shape(3, 10), (1, 3));
        assert_eq!(shape(100, 10), (10, 10));
        assert_eq!(shape(101, 10), (11, 10));
        assert_eq!(shape(10, 7), (2, 5), "seven equal widths do not fit");
        assert_eq!(shape(u64::MAX, 1), (u64::MAX, 1));
        assert_eq!(shape(u64::MAX, 1000).1, 1000);
    }

    #[test]
    fn a_block_lies_in_one_cell() {
        let cells = |len, count| {
            Cells::in_units(ByteLen(len), count, ByteLen(4096))
                .width()
                .0
        };
        assert_eq!(cells(1 << 20, 100), 3 * 4096);
        assert_eq!(cells(5000, 100), 4096);
        assert_eq!(cells(100, 100), 100, "no cell is longer than the disk");
        assert_eq!(cells(u64::MAX, 3) % 4096, 0);
    }

    #[test]
    fn nothing_is_counted_outside_of_the_disk() {
        let mut cells = Cells::new(ByteLen(10), 2);
        cells.add(extent(8, u64::MAX - 8), Class::Data, false);
        cells.add(extent(10, 5), Class::Zero, true);
        cells.add(extent(3, 0), Class::Zero, true);
        let last = Cell {
            data: 2,
            ..Cell::default()
        };
        assert_eq!(cells.into_cells(), [Cell::default(), last]);
    }

    #[test]
    fn the_end_of_the_largest_disk_is_counted() {
        let mut cells = Cells::new(ByteLen(u64::MAX), 3);
        cells.add(extent(0, u64::MAX), Class::Unused, true);
        let cells = cells.into_cells();
        let all = cells.iter().fold(Cell::default(), |sum, c| sum.plus(c));
        assert_eq!((all.bytes(), all.changed), (u64::MAX, u64::MAX));
    }

    proptest! {
        #[test]
        fn cells_are_what_counting_every_byte_gives(
            len in 0u64..300,
            count in 0usize..40,
            unit in 1u64..9,
            runs in prop::collection::vec((0u64..330, 0u64..120, 0usize..4, any::<bool>()), 0..12),
        ) {
            let mut cells = Cells::in_units(ByteLen(len), count, ByteLen(unit));
            let width = cells.width().0;
            let mut model = vec![Cell::default(); cells.cells.len()];
            for (start, run, class, changed) in runs {
                cells.add(extent(start, run), CLASSES[class], changed);
                for byte in (start..start + run).filter(|b| *b < len) {
                    model[to_usize(byte / width)].add(1, CLASSES[class], changed);
                }
            }
            prop_assert!(model.len() <= count.max(1));
            prop_assert!(width.is_multiple_of(unit) || width == len.max(1));
            prop_assert_eq!(cells.into_cells(), model);
        }
    }
}
