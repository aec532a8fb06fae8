//! A disk map as bands: one for each partition, and for each gap between them that is wide enough.

use super::clean;
use crate::base::ByteLen;
use crate::ops::map::{Cell, DiskMap, MapPartition};

/// A labelled stretch of the disk and the cells that are drawn for it.
pub(super) struct Band<'a> {
    /// What it is, safe to show: `1 ext4 root`.
    pub(super) title: String,
    /// Position on the disk in bytes.
    pub(super) start: u64,
    /// Length in bytes.
    pub(super) length: u64,
    /// What it holds, to the byte.
    pub(super) totals: &'a Cell,
    /// One at least. Every cell of the map is in exactly one band: the one that covers most of it.
    /// A partition that comes away empty has one of its own, which shows that partition alone.
    pub(super) cells: &'a [Cell],
    /// The bytes where the cells begin and end.
    from: u64,
    to: u64,
    cell_bytes: u64,
}

impl Band<'_> {
    /// The bytes from the first to behind the last of `cells`, an index range into its cells.
    pub(super) fn bytes_of(&self, cells: std::ops::Range<usize>) -> (u64, u64) {
        let at = |index: usize| {
            let offset = crate::base::to_u64(index).saturating_mul(self.cell_bytes);
            self.from.saturating_add(offset).min(self.to)
        };
        (at(cells.start), at(cells.end))
    }

    /// Where it lies and what it holds, a few words each. `parent`: whether changes are known.
    pub(super) fn facts(&self, parent: bool) -> Vec<Fact> {
        let fact = |text| Fact { text, alarm: false };
        let mut facts = vec![
            fact(format!(
                "{} at {}",
                ByteLen(self.length),
                ByteLen(self.start)
            )),
            fact(match self.totals.data {
                0 => "no data".to_owned(),
                data => format!("{} data", ByteLen(data)),
            }),
        ];
        if parent {
            facts.push(fact(match self.totals.changed {
                0 => "unchanged".to_owned(),
                changed => format!("{} changed", ByteLen(changed)),
            }));
        }
        if self.totals.unreadable > 0 {
            facts.push(Fact {
                text: format!("{} unreadable", ByteLen(self.totals.unreadable)),
                alarm: true,
            });
        }
        facts
    }
}

/// Something to say of a band.
pub(super) struct Fact {
    pub(super) text: String,
    /// Whether it must not be overlooked.
    pub(super) alarm: bool,
}

/// A stretch before it has its cells.
struct Region<'a> {
    title: String,
    start: u64,
    length: u64,
    totals: &'a Cell,
}

impl Region<'_> {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    fn overlap(&self, start: u64, end: u64) -> u64 {
        self.end().min(end).saturating_sub(self.start.max(start))
    }
}

/// The bands of `map` in the order of the disk, one at least.
pub(super) fn bands(map: &DiskMap) -> Vec<Band<'_>> {
    let regions = regions(map);
    let owners = owners(map, &regions);
    let mut bands = Vec::with_capacity(regions.len());
    let mut next = 0;
    for (index, region) in regions.into_iter().enumerate() {
        let first = next;
        while owners.get(next) == Some(&index) {
            next += 1;
        }
        let position = |cell| crate::base::to_u64(cell).saturating_mul(map.cell_bytes);
        let (cells, from, to) = if first == next {
            let own = std::slice::from_ref(region.totals);
            (own, region.start, region.end())
        } else {
            let to = position(next).min(map.disk_bytes);
            (&map.cells[first..next], position(first), to)
        };
        bands.push(Band {
            title: region.title,
            start: region.start,
            length: region.length,
            totals: region.totals,
            cells,
            from,
            to,
            cell_bytes: map.cell_bytes,
        });
    }
    bands
}

/// Partitions, and gaps of a cell or more, in the order of the disk.
fn regions(map: &DiskMap) -> Vec<Region<'_>> {
    let gaps = map.gaps.iter().filter(|g| g.length >= map.cell_bytes);
    let gaps = gaps.map(|gap| Region {
        title: "not partitioned".to_owned(),
        start: gap.start,
        length: gap.length,
        totals: &gap.totals,
    });
    let partitions = map.partitions.iter().map(|part| Region {
        title: title_of(part),
        start: part.start,
        length: part.length,
        totals: &part.totals,
    });
    let mut regions: Vec<Region<'_>> = gaps.chain(partitions).collect();
    regions.sort_by_key(|r| r.start);
    if regions.is_empty() {
        regions.push(Region {
            title: "not partitioned".to_owned(),
            start: 0,
            length: map.disk_bytes,
            totals: &map.totals,
        });
    }
    regions
}

fn title_of(part: &MapPartition) -> String {
    let number = match part.number {
        0 => "disk".to_owned(),
        number => number.to_string(),
    };
    // A name says more than that nothing was recognised.
    let filesystem = match part.filesystem.as_str() {
        "unknown" if !part.name.is_empty() => "",
        known => known,
    };
    let words = [number.as_str(), filesystem, &part.name];
    let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
    clean(&words.join(" "))
}

/// For each cell the index of the region that covers most of it; a cell that none covers goes with
/// its neighbour. Never descends.
fn owners(map: &DiskMap, regions: &[Region<'_>]) -> Vec<usize> {
    let mut owners = Vec::with_capacity(map.cells.len());
    let (mut first, mut owner, mut start) = (0, 0, 0u64);
    for _ in &map.cells {
        let end = start.saturating_add(map.cell_bytes);
        while regions.get(first).is_some_and(|r| r.end() <= start) {
            first += 1;
        }
        let mut most = 0;
        for (index, region) in regions.iter().enumerate().skip(first) {
            if region.start >= end {
                break;
            }
            let overlap = region.overlap(start, end);
            if overlap > most {
                (most, owner) = (overlap, index.max(owner));
            }
        }
        owners.push(owner);
        start = end;
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::super::map_testing::{GIB, MIB, Sample, any_map};
    use super::*;
    use proptest::prelude::*;

    fn shape(map: &DiskMap) -> Vec<(String, u64, usize)> {
        let bands = bands(map);
        let shapes = bands
            .iter()
            .map(|b| (b.title.clone(), b.bytes_of(0..0).0, b.cells.len()));
        shapes.collect()
    }

    #[test]
    fn a_cell_goes_to_whoever_has_most_of_it() {
        let map = Sample::new(GIB, 10)
            .part(1, "vfat", "EFI", MIB, 100 * MIB)
            .part(2, "", "reserved", 101 * MIB, 16 * MIB)
            .part(3, "ntfs", "Windows", 117 * MIB, 550 * MIB)
            .map();
        let at = |cell: u64| cell * map.cell_bytes;
        assert_eq!(
            shape(&map),
            [
                ("1 vfat EFI".to_owned(), 0, 1),
                ("2 reserved".to_owned(), 101 * MIB, 1),
                ("3 ntfs Windows".to_owned(), at(1), 6),
                ("not partitioned".to_owned(), at(7), 3),
            ]
        );
        let bands = bands(&map);
        assert_eq!(bands[1].bytes_of(0..1), (101 * MIB, 117 * MIB));
        assert_eq!(bands[3].bytes_of(0..3), (at(7), GIB));
    }

    #[test]
    fn small_gaps_have_no_band() {
        let map = Sample::new(GIB, 16)
            .part(1, "ext4", "", MIB, GIB - 2 * MIB)
            .map();
        assert_eq!(shape(&map), [("1 ext4".to_owned(), 0, 16)]);
    }

    #[test]
    fn a_disk_of_one_block_has_a_band() {
        let map = Sample::new(4096, 1000).map();
        assert_eq!(shape(&map), [("not partitioned".to_owned(), 0, 1)]);
        let map = Sample::new(0, 10).map();
        assert_eq!(shape(&map), [("not partitioned".to_owned(), 0, 1)]);
        let map = Sample::new(4096, 1000).part(0, "ext4", "", 0, 4096).map();
        assert_eq!(shape(&map), [("disk ext4".to_owned(), 0, 1)]);
    }

    #[test]
    fn a_title_says_what_is_known() {
        let title = |filesystem, name| {
            let map = Sample::new(GIB, 1).part(5, filesystem, name, 0, GIB).map();
            bands(&map)[0].title.clone()
        };
        assert_eq!(title("ext4", "root"), "5 ext4 root");
        assert_eq!(title("unknown", "EFI"), "5 EFI");
        assert_eq!(title("unknown", ""), "5 unknown");
        assert_eq!(title("", ""), "5");
    }

    #[test]
    fn what_was_not_read_is_a_fact_only_where_it_happened() {
        let map = Sample::new(GIB, 16).unreadable(5 * MIB, 4096).map();
        let texts = |parent| -> Vec<String> {
            let facts = bands(&map)[0].facts(parent);
            facts.into_iter().map(|f| f.text).collect()
        };
        assert_eq!(texts(false)[2], "4 KiB unreadable");
        assert_eq!(texts(true)[2], "4 KiB changed");
        let map = Sample::new(GIB, 16).map();
        assert_eq!(bands(&map)[0].facts(false).len(), 2);
    }

    proptest! {
        #[test]
        fn every_cell_is_drawn_once(map in any_map()) {
            let bands = bands(&map);
            let small = |b: &&Band<'_>| std::ptr::eq(b.cells.as_ptr(), b.totals);
            let drawn: Vec<Cell> = bands
                .iter()
                .filter(|b| !small(b))
                .flat_map(|b| b.cells.iter().copied())
                .collect();
            prop_assert_eq!(drawn, map.cells.clone());
            prop_assert!(bands.iter().all(|b| !b.cells.is_empty()));
            let parts = bands.iter().filter(|b| b.title != "not partitioned").count();
            prop_assert_eq!(parts, map.partitions.len());
        }
    }
}
