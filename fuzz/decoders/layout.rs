//! A disk's partition table, and the table on disks of other lengths.

use crate::Target;
use crate::damage;
use crate::seeds::{self, RAW, Sparse, records_of, sector};
use crate::watch::within_memory;
use diskstrata::base::{
    ByteLen, ByteOffset, ErrorKind, Extent, Geometry, Result, SectorSize, to_u64, to_usize,
};
use diskstrata::block::{BlockSource, Capsule};
use diskstrata::layout::{
    self, Adapted, Layout, MAX_RAW_BYTES, critical_extents, free_tail, min_disk_len, raw_regions,
    table_extents,
};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) const TARGET: Target = Target {
    name: "layout",
    prepare: || {
        disks();
    },
    run,
};

/// Behind the byte that chooses the disk stand these: how the new length is chosen (1), its sector (1),
/// a number (6).
const CHOICE: usize = 8;
/// The longest read, and all reads of one table.
const LONGEST: u64 = 1 << 20;
const TOTAL: u64 = 16 << 20;

/// The disks of `fixtures/layout`.
fn disks() -> &'static [Capsule] {
    static DISKS: OnceLock<Vec<Capsule>> = OnceLock::new();
    DISKS.get_or_init(|| {
        let entries = std::fs::read_dir(seeds::fixture("layout")).expect("the fixtures");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        paths.iter().map(|path| load(path)).collect()
    })
}

fn load(path: &std::path::Path) -> Capsule {
    let text = std::fs::read_to_string(path).expect("a fixture");
    let value: serde_json::Value = serde_json::from_str(&text).expect("a fixture");
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let bytes_of = |hex: &str| {
        let digit = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("digits");
        (0..hex.len()).step_by(2).map(digit).collect::<Vec<u8>>()
    };
    let runs = value["runs"].as_array().expect("runs");
    let runs = runs.iter().map(|run| {
        let bytes = bytes_of(run["hex"].as_str().expect("digits"));
        (number(&run["offset"]), bytes)
    });
    let pieces: Vec<(u64, Vec<u8>)> = runs.collect();
    let sector = sector(u32::try_from(number(&value["sector"])).expect("a sector"));
    let extents = pieces
        .iter()
        .map(|(at, bytes)| extent(*at, bytes.len()))
        .collect();
    let source = Sparse {
        geometry: Geometry {
            len: ByteLen(number(&value["len"])),
            logical_sector: sector,
            physical_sector: sector,
        },
        pieces,
    };
    Capsule::record(&source, extents).expect("in memory")
}

fn extent(at: u64, len: usize) -> Extent {
    Extent {
        start: ByteOffset(at),
        len: ByteLen(to_u64(len)),
    }
}

fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let mut choice = [0; CHOICE];
    let (chosen, rest) = rest.split_at(rest.len().min(CHOICE));
    choice[..chosen.len()].copy_from_slice(chosen);
    if *first < RAW {
        let disks = disks();
        let disk = &disks[usize::from(*first) % disks.len()];
        let disk = damage::damaged(disk, &records_of(rest)).0;
        survive(&disk, choice);
    } else if *first < 0xE0 {
        // A disk's first bytes.
        let size = [512, 4096, 2048, 512][usize::from(choice[1] >> 6)];
        let len = 1 << (u32::from(choice[7]) % 61);
        let source = Sparse {
            geometry: Geometry {
                len: ByteLen(len),
                logical_sector: sector(size),
                physical_sector: sector(size),
            },
            pieces: vec![(0, rest[..rest.len().min(to_usize(len))].to_vec())],
        };
        survive(&source, choice);
    } else if let Ok(layout) = serde_json::from_slice::<Layout>(rest) {
        // A layout out of an image.
        let len = ByteLen(layout.disk_len);
        if layout.validate(len).is_ok() {
            let empty = Sparse {
                geometry: Geometry::of_len(len),
                pieces: Vec::new(),
            };
            within_memory("use", || used(&layout, &empty, choice));
        }
    }
}

/// Does everything that can be done with a disk, and checks every promise that can be checked.
fn survive(disk: &dyn BlockSource, choice: [u8; CHOICE]) {
    let metered = Metered {
        inner: disk,
        longest: AtomicU64::new(0),
        total: AtomicU64::new(0),
    };
    let layout = within_memory("read", || layout::read(&metered)).expect("no read fails");
    assert!(metered.longest.load(Relaxed) <= LONGEST && metered.total.load(Relaxed) <= TOTAL);
    layout.validate(disk.len()).expect("what was read is valid");
    assert_eq!(layout::read(disk).expect("no read fails"), layout);
    let text = serde_json::to_string(&layout).expect("plain data");
    let stored: Layout = serde_json::from_str(&text).expect("what an image holds");
    assert_eq!(stored, layout);
    let mut at = 0;
    for partition in &layout.partitions {
        assert!(partition.start >= at, "partitions overlap");
        at = partition.extent().end().0;
    }
    within_memory("use", || used(&layout, disk, choice));
}

fn used(layout: &Layout, disk: &dyn BlockSource, choice: [u8; CHOICE]) {
    let end = disk.len().0;
    for p in layout.shown() {
        assert!(p.extent().end().0 <= end && p.start > 0 && p.len > 0);
        let _ = (p.display_name(), p.type_name(), p.attribute_names());
    }
    assert!(table_extents(layout).iter().all(|e| e.end().0 <= end));
    assert_eq!(free_tail(layout).end().0, end);
    assert!(layout.usable().is_none_or(|e| e.end().0 <= end));
    match raw_regions(disk, layout) {
        Ok(raw) => {
            let bytes: usize = raw.iter().map(|r| r.bytes.len()).sum();
            assert!(to_u64(bytes) <= MAX_RAW_BYTES);
            let inside = |r: &layout::RawRegion| extent(r.offset.0, r.bytes.len()).end().0 <= end;
            assert!(raw.iter().all(inside));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
    }
    let least = min_disk_len(layout).0;
    for len in [new_len(choice, end, least), end, least] {
        let critical = critical_extents(layout, ByteLen(len));
        assert!(critical.iter().all(|e| e.end().0 <= len));
        for sector in [layout.sector, layout.disk_sector, other_sector(choice[1])] {
            match layout::adapt(layout, disk, ByteLen(len), sector) {
                Ok(adapted) => check_plan(layout, disk, len, &adapted),
                Err(error) => {
                    let kinds = [ErrorKind::Refused, ErrorKind::Damaged];
                    assert!(kinds.contains(&error.kind()), "{error}");
                }
            }
        }
    }
}

fn new_len(choice: [u8; CHOICE], end: u64, least: u64) -> u64 {
    let mut number = [0; 8];
    number[..6].copy_from_slice(&choice[2..]);
    let number = u64::from_le_bytes(number);
    let small = number % (1 << 21);
    match choice[0] % 6 {
        0 => end.saturating_mul(2),
        1 => end.saturating_add(small),
        2 => end.saturating_sub(small),
        3 => least.saturating_sub(small),
        4 => least.saturating_add(small),
        _ => number,
    }
}

fn other_sector(choice: u8) -> SectorSize {
    sector([512, 4096, 1024, 2048][usize::from(choice % 4)])
}

fn check_plan(layout: &Layout, disk: &dyn BlockSource, len: u64, adapted: &Adapted) {
    let apart = |touched: Extent| {
        let mut partitions = layout.partitions.iter();
        partitions.all(|p| p.extent().intersect(touched).is_none())
    };
    let mut at = 0;
    for patch in &adapted.patches {
        let touched = extent(patch.offset.0, patch.bytes.len());
        assert!(patch.offset.0 >= at, "patches overlap");
        at = touched.end().0;
        assert!(at <= len, "a patch passes the end");
        assert!(apart(touched), "a patch in a partition");
    }
    for zero in &adapted.zero {
        assert!(zero.end().0 <= len && apart(*zero), "zeros where data is");
        let patches = adapted.patches.iter();
        let mut patches = patches.map(|p| extent(p.offset.0, p.bytes.len()));
        assert!(
            patches.all(|p| p.intersect(*zero).is_none()),
            "zeros over a patch"
        );
    }
    if !adapted.patches.is_empty() {
        let new = Patched { disk, len, adapted };
        let again = layout::read(&new).expect("no read fails");
        if again.table.name() == "gpt" {
            assert_eq!(again.partitions, layout.partitions);
        }
    }
}

/// The disk as it would be after a restore.
struct Patched<'a> {
    disk: &'a dyn BlockSource,
    len: u64,
    adapted: &'a Adapted,
}

impl BlockSource for Patched<'_> {
    fn name(&self) -> &str {
        "patched"
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            len: ByteLen(self.len),
            ..self.disk.geometry()
        }
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let wanted = extent(offset.0, buf.len());
        let held = self.disk.len().0.saturating_sub(offset.0);
        let held = to_usize(held.min(to_u64(buf.len())));
        buf.fill(0);
        if held > 0 {
            self.disk.read_at(offset, &mut buf[..held])?;
        }
        let within = |e: Extent| to_usize(e.start.0 - offset.0)..to_usize(e.end().0 - offset.0);
        for zero in &self.adapted.zero {
            if let Some(part) = zero.intersect(wanted) {
                buf[within(part)].fill(0);
            }
        }
        for patch in &self.adapted.patches {
            if let Some(part) = extent(patch.offset.0, patch.bytes.len()).intersect(wanted) {
                let from = to_usize(part.start.0 - patch.offset.0);
                let bytes = &patch.bytes[from..from + to_usize(part.len.0)];
                buf[within(part)].copy_from_slice(bytes);
            }
        }
        Ok(())
    }
}

/// A disk whose reads are counted.
struct Metered<'a> {
    inner: &'a dyn BlockSource,
    longest: AtomicU64,
    total: AtomicU64,
}

impl BlockSource for Metered<'_> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let len = to_u64(buf.len());
        assert!(
            offset.0.saturating_add(len) <= self.inner.len().0,
            "a read past the end"
        );
        self.longest.fetch_max(len, Relaxed);
        self.total.fetch_add(len, Relaxed);
        self.inner.read_at(offset, buf)
    }
}
