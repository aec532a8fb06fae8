//! Volumes made by hand, with the damage that no formatter makes.

use super::super::{Certainty, UsedReport, used};
use super::disk::Width;
use crate::base::{ByteLen, Cancel};
use crate::block::MemorySource;

const SECTOR: usize = 512;

/// A volume in memory: clusters of one sector, two tables, an empty root directory.
#[derive(Clone)]
struct Disk {
    bytes: Vec<u8>,
    width: Width,
    reserved: usize,
    table: usize,
    clusters: usize,
}

impl Disk {
    fn new(width: Width, clusters: usize) -> Disk {
        let bits = usize::try_from(width.bits()).unwrap();
        let table = ((clusters + 2) * bits).div_ceil(8 * SECTOR);
        let (reserved, root) = match width {
            Width::ThirtyTwo => (8, 0),
            Width::Twelve | Width::Sixteen => (1, 1),
        };
        let total = reserved + 2 * table + root + clusters;
        let mut disk = Disk {
            bytes: vec![0; total * SECTOR],
            width,
            reserved,
            table,
            clusters,
        };
        disk.put16(11, 512);
        disk.bytes[13] = 1;
        disk.put16(14, reserved);
        disk.bytes[16] = 2;
        disk.put16(17, root * 16);
        disk.put16(19, total);
        disk.bytes[21] = 0xF8;
        disk.put16(510, 0xAA55);
        disk.set(0, width.mask() & !0xFF | 0xF8);
        disk.set(1, width.mask());
        if width == Width::ThirtyTwo {
            disk.put16(36, table);
            disk.put16(44, 2);
            disk.put16(50, 6);
            disk.set(2, width.mask());
            disk.copy_boot();
        } else {
            disk.put16(22, table);
        }
        disk
    }

    fn put16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).unwrap();
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn copy_boot(&mut self) {
        self.bytes.copy_within(0..SECTOR, 6 * SECTOR);
    }

    /// Sets an entry in one table; the unused bits of its bytes stay.
    fn set_in(&mut self, copy: usize, cluster: usize, value: u32) {
        let table = (self.reserved + copy * self.table) * SECTOR;
        match self.width {
            Width::Twelve => {
                let at = table + cluster * 3 / 2;
                let pair = u32::from(self.bytes[at]) | u32::from(self.bytes[at + 1]) << 8;
                let pair = match cluster % 2 {
                    0 => pair & 0xF000 | value,
                    _ => pair & 0x000F | value << 4,
                };
                self.bytes[at..at + 2].copy_from_slice(&pair.to_le_bytes()[..2]);
            }
            Width::Sixteen => {
                let at = table + cluster * 2;
                self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes()[..2]);
            }
            Width::ThirtyTwo => {
                let at = table + cluster * 4;
                self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }

    fn set(&mut self, cluster: usize, value: u32) {
        self.set_in(0, cluster, value);
        self.set_in(1, cluster, value);
    }

    fn data_at(&self) -> usize {
        self.bytes.len() / SECTOR - self.clusters
    }

    fn report(&self) -> UsedReport {
        let source = MemorySource::new("m", self.bytes.clone());
        used(&source, &Cancel::new()).unwrap()
    }

    /// The used clusters of a certain map in which nothing before them is free.
    fn used(&self) -> Vec<usize> {
        let report = self.report();
        assert_eq!(report.certainty, Certainty::Certain);
        assert_eq!(
            (report.kind.as_str(), report.unit),
            (self.width.kind(), ByteLen(512))
        );
        let units = report.used.runs().flatten();
        let units: Vec<usize> = units.map(|u| usize::try_from(u).unwrap()).collect();
        let data = self.data_at();
        let (before, behind) = units.split_at(units.partition_point(|u| *u < data));
        assert_eq!(before.len(), data);
        behind.iter().map(|unit| unit - data + 2).collect()
    }

    #[track_caller]
    fn assert_doubt(&self, why: &str) {
        let report = self.report();
        assert_eq!(report.kind, self.width.kind());
        match &report.certainty {
            Certainty::Unknown(text) if text.contains(why) => {}
            other => panic!("{why:?} is not said: {other:?}"),
        }
    }

    #[track_caller]
    fn assert_unknown(&self, what: &str) {
        assert_eq!(self.report().kind, "unknown", "{what}");
    }

    /// A name in the root directory.
    fn name(&mut self, slot: usize, name: &[u8; 11], attributes: u8, cluster: usize) {
        let root = match self.width {
            Width::ThirtyTwo => self.data_at(),
            Width::Twelve | Width::Sixteen => self.data_at() - 1,
        };
        self.entry(root * SECTOR + slot * 32, name, attributes, cluster);
    }

    fn entry(&mut self, at: usize, name: &[u8; 11], attributes: u8, cluster: usize) {
        self.bytes[at..at + 11].copy_from_slice(name);
        self.bytes[at + 11] = attributes;
        self.put16(at + 26, cluster);
    }
}

fn all() -> [Disk; 3] {
    [
        Disk::new(Width::Twelve, 100),
        Disk::new(Width::Sixteen, 4200),
        Disk::new(Width::ThirtyTwo, 300),
    ]
}

#[test]
fn what_no_table_uses_is_free() {
    for mut disk in all() {
        let mask = disk.width.mask();
        disk.set(2, mask);
        for (cluster, next) in [(5, 6), (6, 90), (90, mask), (41, mask - 7), (42, mask - 15)] {
            disk.set(cluster, next);
        }
        // A bad cluster.
        disk.set(50, mask - 8);
        let last = disk.clusters + 1;
        disk.set(last, mask);
        assert_eq!(disk.used(), [2, 5, 6, 41, 42, 50, 90, last]);
        let notes = disk.report().notes;
        assert!(
            notes.len() == 1 && notes[0].starts_with("1 of its clusters"),
            "{notes:?}"
        );
    }
}

#[test]
fn the_upper_four_bits_of_fat32_mean_nothing() {
    let mut disk = Disk::new(Width::ThirtyTwo, 300);
    disk.set(10, 0xF000_0000);
    disk.set(11, 0x1000_000C);
    disk.set(12, 0xFFFF_FFFF);
    assert_eq!(disk.used(), [2, 11, 12]);
}

#[test]
fn the_count_of_clusters_makes_the_type() {
    assert_eq!(Disk::new(Width::Twelve, 4084).used(), [0; 0]);
    assert_eq!(Disk::new(Width::Sixteen, 4087).used(), [0; 0]);
    for clusters in [4085, 4086] {
        Disk::new(Width::Sixteen, clusters).assert_doubt("to Windows and FAT16 to other systems");
    }
    let mut disk = Disk::new(Width::Sixteen, 4200);
    disk.bytes[54..62].copy_from_slice(b"FAT12   ");
    disk.assert_doubt("its boot sector says FAT12");
}

#[test]
fn a_cluster_is_used_when_one_table_says_so() {
    for mut disk in all() {
        disk.set(2, disk.width.mask());
        disk.set_in(0, 30, disk.width.mask());
        disk.set_in(1, 31, disk.width.mask());
        assert_eq!(disk.used(), [2, 30, 31]);
        let notes = disk.report().notes;
        assert!(
            notes.len() == 1 && notes[0].contains("differ in 2 entries"),
            "{notes:?}"
        );

        let mut torn = disk.clone();
        torn.set_in(1, 40, 41);
        torn.assert_doubt("leads to cluster 41, which is free");

        for cluster in 60..67 {
            disk.set_in(1, cluster, disk.width.mask());
        }
        disk.assert_doubt("differ in more than 8 entries");
    }
}

#[test]
fn tables_that_are_not_kept_up_to_date_still_count() {
    let mut disk = Disk::new(Width::ThirtyTwo, 300);
    disk.bytes[40] = 0x81;
    disk.copy_boot();
    for cluster in 60..80 {
        disk.set_in(0, cluster, 0x0FFF_FFFF);
    }
    disk.set_in(0, 0, 0);
    disk.set_in(1, 100, 101);
    disk.set_in(1, 101, 0x0FFF_FFFF);
    let expected: Vec<usize> = [2].into_iter().chain(60..80).chain([100, 101]).collect();
    assert_eq!(disk.used(), expected);
    assert!(disk.report().notes[0].contains("table 1 is kept up to date"));
    disk.bytes[40] = 0x82;
    disk.copy_boot();
    disk.assert_doubt("table 2 is valid");
}

#[test]
fn a_volume_in_use_is_taken_whole() {
    for disk in all() {
        let state = if disk.width == Width::ThirtyTwo {
            65
        } else {
            37
        };
        for (bits, why) in [(1, "marked as in use (byte"), (2, "in need of a check")] {
            let mut dirty = disk.clone();
            dirty.bytes[state] = bits;
            dirty.assert_doubt(why);
        }
        let high = match disk.width {
            Width::Twelve => continue,
            Width::Sixteen => 15,
            Width::ThirtyTwo => 27,
        };
        for (bit, why) in [
            (high, "marked as in use (entry 1"),
            (high - 1, "has failed before"),
        ] {
            for copy in 0..2 {
                let mut dirty = disk.clone();
                dirty.set_in(copy, 1, disk.width.mask() & !(1 << bit));
                dirty.assert_doubt(why);
            }
        }
    }
}

#[test]
fn broken_chains_are_doubts() {
    let sixteen = Disk::new(Width::Sixteen, 4200);
    let with = |entries: &[(usize, u32)]| {
        let mut disk = sixteen.clone();
        for (cluster, value) in entries {
            disk.set(*cluster, *value);
        }
        disk
    };
    with(&[(9, 4202)]).assert_doubt("from cluster 9 to 4202, which does not exist");
    with(&[(9, 1)]).assert_doubt("from cluster 9 to 1,");
    with(&[(9, 20)]).assert_doubt("goes on in cluster 20");
    with(&[(20, 9)]).assert_doubt("from cluster 20 to 9, which is free");
    with(&[(9, 20), (10, 20), (20, 0xFFFF)]).assert_doubt("part of another file");
    with(&[(0, 0xFFF0)]).assert_doubt("begins with 0xfff0");
    assert_eq!(with(&[(9, 4201), (4201, 0xFFFF)]).used(), [9, 4201]);
}

#[test]
fn the_root_directory_proves_where_clusters_are() {
    for mut disk in all() {
        let mask = disk.width.mask();
        disk.set(2, mask);
        disk.set(7, mask);
        disk.set(8, mask);
        disk.name(0, b"LABEL      ", 0x08, 0);
        disk.name(1, b"FILE    TXT", 0x20, 7);
        disk.name(2, b"DIRECTORY  ", 0x10, 8);
        let at = (disk.data_at() + 6) * SECTOR;
        disk.entry(at, b".          ", 0x10, 8);
        assert_eq!(disk.used(), [2, 7, 8]);

        let mut other = disk.clone();
        other.entry(at, b".          ", 0x10, 9);
        other.assert_doubt("is not in cluster 8 at byte");
        let mut lost = disk.clone();
        lost.name(1, b"FILE    TXT", 0x20, 30);
        lost.assert_doubt("begins in cluster 30, which is free");
    }
    let mut disk = Disk::new(Width::ThirtyTwo, 300);
    disk.set(2, 0);
    disk.assert_doubt("its root directory in cluster 2 is free");
}

#[test]
fn an_empty_root_directory_behind_a_single_table_is_a_doubt() {
    let mut disk = Disk::new(Width::Sixteen, 4200);
    disk.bytes[16] = 1;
    let table = disk.table;
    disk.bytes
        .drain((1 + table) * SECTOR..(1 + 2 * table) * SECTOR);
    disk.put16(19, disk.bytes.len() / SECTOR);
    assert_eq!(disk.used(), [0; 0]);
    let at = SECTOR + 9 * 2;
    disk.bytes[at..at + 2].fill(0xFF);
    disk.assert_doubt("is empty, and 1 of its clusters are in use");
    disk.name(0, b"FILE    TXT", 0x20, 9);
    assert_eq!(disk.used(), [9]);
}

#[test]
fn damaged_boot_sectors_are_doubts() {
    let with = |at: usize, value: usize| {
        let mut disk = Disk::new(Width::ThirtyTwo, 300);
        disk.bytes[82..90].copy_from_slice(b"FAT32   ");
        disk.copy_boot();
        disk.put16(at, value);
        disk
    };
    with(11, 513).assert_doubt("sectors of 513 bytes");
    with(11, 1024).assert_doubt("");
    with(13, 0x0203).assert_doubt("clusters of 3 sectors");
    with(14, 9).assert_doubt("say different things");
    with(19, 400).assert_doubt("its partition only");
    with(36, 30).assert_doubt("does not fit its");
    with(42, 1).assert_doubt("unknown version");
    with(510, 0).assert_doubt("55 AA");
    let mut disk = Disk::new(Width::Sixteen, 4200);
    disk.put16(17, 0);
    disk.assert_doubt("without room for a root directory");
    disk.put16(17, 10);
    disk.assert_doubt("ends within a sector");
}

#[test]
fn what_lies_behind_the_volume_counts_as_used() {
    let mut disk = Disk::new(Width::Twelve, 100);
    disk.set(2, 0xFFF);
    disk.bytes.resize(disk.bytes.len() + 3 * SECTOR, 0);
    let report = disk.report();
    let end = report.used.blocks();
    assert_eq!(report.used.runs().last(), Some(end - 3..end));
}

#[test]
fn other_boot_sectors_are_not_fat() {
    let with = |at: usize, bytes: &[u8]| {
        let mut disk = Disk::new(Width::Sixteen, 4200);
        disk.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        disk
    };
    assert_eq!(with(3, b"MSDOS5.0").report().kind, "FAT16");
    for name in [b"NTFS    ", b"EXFAT   ", b"-FVE-FS-"] {
        let found = with(3, name).report().kind;
        assert!(!found.starts_with("FAT"), "{found}");
    }
    with(54, b"JFS     ").assert_unknown("JFS");
    with(54, b"HPFS    ").assert_unknown("HPFS");
    with(0x8000, b"JFS1").assert_unknown("JFS's superblock");
    let to_go = [
        0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0,
        0x01,
    ];
    let found = with(424, &to_go).report().kind;
    assert!(!found.starts_with("FAT"), "{found}");
    // A partition of type 6 from sector 63.
    let entry = [0x80, 1, 1, 0, 6, 15, 63, 31, 63, 0, 0, 0, 0, 4, 0, 0];
    with(446, &entry).assert_unknown("a partition table");
    let mut plain = with(446, &entry);
    plain.bytes[54..62].copy_from_slice(b"FAT16   ");
    assert_eq!(plain.report().kind, "FAT16");
    with(510, &[0, 0]).assert_unknown("no signature");
}
