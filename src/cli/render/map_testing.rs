//! Made-up disk maps for tests.

use crate::base::{ByteLen, ByteOffset, Extent, outside};
use crate::ops::ImageRecord;
use crate::ops::map::{Cell, Cells, Class, DiskMap, MapGap, MapPartition};
use proptest::prelude::*;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// A disk on its way to become a map. What nobody says anything of is unused.
pub(super) struct Sample {
    len: u64,
    count: usize,
    /// What no cell cuts, in bytes.
    unit: u64,
    parts: Vec<(u32, String, String, Extent)>,
    /// Ascending and apart.
    runs: Vec<(Extent, Class, bool)>,
    parent: bool,
}

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset(start), ByteLen(len)).unwrap()
}

impl Sample {
    /// `len` bytes in at most `count` cells.
    pub(super) fn new(len: u64, count: usize) -> Sample {
        Sample {
            len,
            count,
            unit: 4096,
            parts: Vec::new(),
            runs: Vec::new(),
            parent: false,
        }
    }

    pub(super) fn parent(mut self) -> Sample {
        self.parent = true;
        self
    }

    pub(super) fn part(mut self, n: u32, fs: &str, name: &str, start: u64, len: u64) -> Sample {
        let extent = extent(start, len);
        self.parts.push((n, fs.to_owned(), name.to_owned(), extent));
        self
    }

    pub(super) fn run(mut self, start: u64, len: u64, class: Class, changed: bool) -> Sample {
        self.runs.push((extent(start, len), class, changed));
        self
    }

    pub(super) fn data(self, start: u64, len: u64) -> Sample {
        self.run(start, len, Class::Data, false)
    }

    pub(super) fn zero(self, start: u64, len: u64) -> Sample {
        self.run(start, len, Class::Zero, false)
    }

    pub(super) fn changed(self, start: u64, len: u64) -> Sample {
        self.run(start, len, Class::Data, true)
    }

    pub(super) fn unreadable(self, start: u64, len: u64) -> Sample {
        self.run(start, len, Class::Unreadable, true)
    }

    fn totals(&self, within: Extent) -> Cell {
        let mut totals = Cell::default();
        for (run, class, changed) in self.all_runs() {
            if let Some(part) = run.intersect(within) {
                totals.add(part.len.0, class, changed);
            }
        }
        totals
    }

    fn all_runs(&self) -> Vec<(Extent, Class, bool)> {
        let said: Vec<Extent> = self.runs.iter().map(|(run, ..)| *run).collect();
        let rest = outside(Extent::whole(ByteLen(self.len)), &said);
        let rest = rest.into_iter().map(|run| (run, Class::Unused, false));
        self.runs.iter().copied().chain(rest).collect()
    }

    pub(super) fn map(&self) -> DiskMap {
        let whole = Extent::whole(ByteLen(self.len));
        let mut cells = Cells::in_units(whole.len, self.count, ByteLen(self.unit));
        for (run, class, changed) in self.all_runs() {
            cells.add(run, class, changed);
        }
        let taken: Vec<Extent> = self.parts.iter().map(|(.., extent)| *extent).collect();
        let gaps = outside(whole, &taken).into_iter().map(|gap| MapGap {
            start: gap.start.0,
            length: gap.len.0,
            totals: self.totals(gap),
        });
        let parts = self.parts.iter().map(|(n, fs, name, extent)| MapPartition {
            number: *n,
            name: name.clone(),
            filesystem: fs.clone(),
            start: extent.start.0,
            length: extent.len.0,
            totals: self.totals(*extent),
        });
        DiskMap {
            image: self.record(),
            disk_bytes: self.len,
            block_size: 65536,
            cell_bytes: cells.width().0,
            cells: cells.into_cells(),
            totals: self.totals(whole),
            partitions: parts.collect(),
            gaps: gaps.collect(),
        }
    }

    fn record(&self) -> ImageRecord {
        ImageRecord {
            id: "9f3a2c71-0b7e-4c55-8d0e-3f6f3d5a9e10".to_owned(),
            parent: self
                .parent
                .then(|| "5d1e77aa-92c4-4f0b-b1e0-6f0d7f6f2a31".to_owned()),
            kind: if self.parent { "incremental" } else { "full" },
            set: "laptop".to_owned(),
            sequence: 12,
            time: "2026-03-04T10:00:00Z".to_owned(),
            bytes: 10 * GIB,
            disk_bytes: self.len,
            block_size: 65536,
            root: String::new(),
            file: "laptop-0012.strata".to_owned(),
            key_set: None,
        }
    }
}

/// A disk of 500 GiB with four partitions that has seen some years.
pub(super) fn lived_in(count: usize) -> Sample {
    let mut sample = Sample::new(500 * GIB, count)
        .part(1, "vfat", "EFI System", MIB, 512 * MIB)
        .part(2, "ext4", "boot", 513 * MIB, GIB)
        .part(3, "ext4", "root", 1537 * MIB, 120 * GIB)
        .part(4, "xfs", "home", 121 * GIB + 513 * MIB, 350 * GIB)
        .data(0, 38 * MIB)
        .data(513 * MIB, 210 * MIB);
    // Every file system has its own rhythm of data and free space.
    let mut at = 1537 * MIB;
    let mut seed = 7u64;
    while at < 121 * GIB {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let len = (seed >> 33) % 900 * MIB + MIB;
        let gap = (seed >> 43) % 300 * (at / (10 * GIB)) * MIB / 4;
        let changed = (seed >> 20).is_multiple_of(9);
        let len = len.min(121 * GIB + 513 * MIB - at);
        sample = if changed {
            sample.changed(at, len / 8 + 4096)
        } else {
            sample.data(at, len)
        };
        at += len + gap + 8192;
    }
    let mut at = 121 * GIB + 513 * MIB;
    while at < 330 * GIB {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let len = (seed >> 33) % 4000 * MIB + MIB;
        let gap = (seed >> 43) % 2000 * MIB * (at / (60 * GIB)) / 5;
        let fresh = at > 200 * GIB && at < 215 * GIB;
        sample = sample.run(at, len, Class::Data, fresh);
        at += len + gap;
        if (240 * GIB..250 * GIB).contains(&at) {
            sample = sample.unreadable(at, 192 * KIB);
            at += MIB;
        }
    }
    sample.zero(380 * GIB, 12 * GIB).parent()
}

/// Maps of all kinds: tiny and huge disks, no partitions and 128 of them, texts of any kind.
pub(super) fn any_map() -> impl Strategy<Value = DiskMap> {
    let len = prop_oneof![0..5u64, 1..2 * MIB, MIB..1000 * GIB, Just(64 << 50)];
    let part = (1u64..1000, 0u64..1000, ".{0,40}", "[a-z0-9]{0,12}");
    let parts = prop_oneof![
        prop::collection::vec(part.clone(), 0..8),
        prop::collection::vec(part, 128)
    ];
    let run = (1u64..1000, 0u64..1000, 0usize..4, any::<bool>());
    let runs = prop::collection::vec(run, 0..60);
    let unit = prop_oneof![Just(1u64), Just(4096)];
    let shape = (len, 0usize..7000, unit, parts, runs, any::<bool>());
    shape.prop_map(|(len, count, unit, parts, runs, parent)| {
        let mut sample = Sample::new(len, count);
        (sample.unit, sample.parent) = (unit, parent);
        // Widths and distances are shares of the disk that together fit it.
        let all: u64 = parts.iter().map(|(a, b, ..)| a + b).sum::<u64>().max(1);
        let place = |share: u64, all: u64| {
            u64::try_from(u128::from(len) * u128::from(share) / u128::from(all)).unwrap()
        };
        let mut at = 0;
        for (n, (width, gap, name, fs)) in (1..).zip(&parts) {
            let (start, end) = (place(at + gap, all), place(at + gap + width, all));
            at += gap + width;
            if start < end {
                sample = sample.part(n, fs, name, start, end - start);
            }
        }
        let all: u64 = runs.iter().map(|(a, b, ..)| a + b).sum::<u64>().max(1);
        let mut at = 0;
        for (width, gap, class, changed) in runs {
            let (start, end) = (place(at + gap, all), place(at + gap + width, all));
            at += gap + width;
            let class = [Class::Data, Class::Zero, Class::Unused, Class::Unreadable][class];
            sample = sample.run(start, end - start, class, changed);
        }
        sample.map()
    })
}
