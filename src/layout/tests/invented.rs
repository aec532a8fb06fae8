//! Disks that no tool makes: each rule that makes a disk opaque, and each other thing that may stand
//! in the first sector.

use super::{SparseDisk, disk, extent, fix_checksums};
use crate::base::ByteLen;
use crate::block::{Fault, FaultSource, Faults};
use crate::layout::{Layout, Table, adapt, read};
use std::sync::Arc;

const LEN: u64 = 64 << 20;

/// A disk whose MBR has these entries: type, start, count.
fn mbr(entries: &[(u8, u32, u32)]) -> SparseDisk {
    let mut disk = SparseDisk::zeros(LEN, 512);
    boot_record(&mut disk, 0, entries);
    disk
}

fn boot_record(disk: &mut SparseDisk, lba: u64, entries: &[(u8, u32, u32)]) {
    for (slot, (kind, start, count)) in (0u64..).zip(entries) {
        let at = lba * 512 + 0x1be + slot * 16;
        disk.put(at + 4, &[*kind]);
        disk.put(at + 8, &start.to_le_bytes());
        disk.put(at + 12, &count.to_le_bytes());
    }
    disk.put(lba * 512 + 510, &[0x55, 0xaa]);
}

fn seen(disk: &SparseDisk) -> Layout {
    let layout = read(disk).unwrap();
    layout.validate(ByteLen(disk.len)).unwrap();
    layout
}

fn opaque(disk: &SparseDisk, word: &str) {
    let layout = seen(disk);
    match &layout.table {
        Table::Opaque { reason } => assert!(reason.contains(word), "{reason}"),
        other => panic!("{word}: {other:?}"),
    }
    assert!(layout.findings.iter().any(|f| f.contains(word)) && !layout.certain);
}

fn none(disk: &SparseDisk, word: &str) {
    let layout = seen(disk);
    match &layout.table {
        Table::None { reason } => assert!(reason.contains(word), "{reason}"),
        other => panic!("{word}: {other:?}"),
    }
}

#[test]
fn an_mbr_that_cannot_be_true_is_opaque() {
    opaque(&mbr(&[(0x83, 0, 100)]), "sector 0");
    opaque(&mbr(&[(0x83, 2048, 200_000)]), "past the end");
    opaque(&mbr(&[(0x83, u32::MAX, u32::MAX)]), "past the end");
    opaque(&mbr(&[(0x83, 2048, 4096), (0x83, 4096, 100)]), "overlap");
    opaque(&mbr(&[(0x83, 2048, 4096), (0x83, 2048, 4096)]), "overlap");
    opaque(
        &mbr(&[(0x05, 2048, 4096), (0x85, 8192, 100)]),
        "more than one extended",
    );
    opaque(&mbr(&[(0x42, 63, 100_000)]), "dynamic");
    opaque(&mbr(&[(0x05, 2048, 4096)]), "no boot record");
}

#[test]
fn what_is_not_plausible_is_no_table() {
    none(&mbr(&[]), "without partitions");
    none(&mbr(&[(0x83, 2048, 0)]), "without partitions");
    let mut odd = mbr(&[(0x83, 2048, 100)]);
    odd.put(0x1be, &[0x31]);
    none(&odd, "no partition table");
    none(&SparseDisk::zeros(LEN, 512), "no partition table");
}

#[test]
fn a_type_of_zero_with_a_length_is_a_partition_to_linux() {
    let layout = seen(&mbr(&[(0, 2048, 100)]));
    assert_eq!(layout.partitions[0].type_name(), Some("Empty"));
    assert_eq!(
        (
            layout.disk_id.clone(),
            layout.partitions[0].unique_id.clone()
        ),
        (None, None)
    );
}

/// A container of sectors 2000..12000 whose first EBR has `entries`.
fn chain(entries: &[(u8, u32, u32)]) -> SparseDisk {
    let mut disk = mbr(&[(0x0f, 2000, 10_000)]);
    boot_record(&mut disk, 2000, entries);
    disk
}

#[test]
fn chains_are_followed_as_linux_does() {
    assert!(seen(&chain(&[])).partitions.is_empty());
    // A link in the first slot, an empty link, data in the second.
    let mut odd = chain(&[(0x05, 100, 50)]);
    boot_record(&mut odd, 2100, &[(0x05, 200, 50), (0x83, 10, 20)]);
    boot_record(&mut odd, 2200, &[]);
    let layout = seen(&odd);
    assert_eq!(
        (layout.partitions[0].number, layout.partitions[0].start),
        (5, 2110 * 512)
    );
    // Garbage in the third slot is none; what fits there is a partition (OS/2).
    let layout = seen(&chain(&[
        (0x83, 63, 100),
        (0, 0, 0),
        (0x83, 9_990, 100),
        (0x83, 200, 9),
    ]));
    let starts: Vec<_> = layout
        .partitions
        .iter()
        .map(|p| (p.number, p.start / 512))
        .collect();
    assert_eq!(starts, [(5, 2063), (6, 2200)]);
}

#[test]
fn chains_that_cannot_be_true_are_opaque() {
    opaque(&chain(&[(0x05, 0, 50)]), "loop");
    opaque(
        &chain(&[(0x83, 63, 10), (0x05, 20_000, 50)]),
        "leaves the extended",
    );
    opaque(&chain(&[(0x83, 0, 10)]), "covers its own link");
    opaque(&chain(&[(0x83, 63, 50_000)]), "leaves the extended");
    opaque(&chain(&[(0x83, 63, 100), (0x83, 100, 100)]), "overlap");
    let mut over = chain(&[(0x83, 63, 1000), (0x05, 500, 50)]);
    boot_record(&mut over, 2500, &[]);
    opaque(&over, "covers the table");
    let mut primary = chain(&[]);
    boot_record(&mut primary, 0, &[(0x0f, 2000, 10_000), (0x83, 5000, 10)]);
    opaque(&primary, "crosses the extended");
}

#[test]
fn long_chains_end() {
    let long = |links: u32, kind: u8| {
        let mut disk = mbr(&[(0x05, 2000, 100_000)]);
        for n in 0..links {
            let data = (kind, 1, u32::from(kind != 0));
            boot_record(
                &mut disk,
                2000 + u64::from(n) * 2,
                &[data, (0x05, n * 2 + 2, 2)],
            );
        }
        boot_record(&mut disk, 2000 + u64::from(links) * 2, &[]);
        disk
    };
    assert_eq!(seen(&long(251, 0x83)).partitions.len(), 251);
    opaque(&long(252, 0x83), "than Linux numbers");
    assert!(seen(&long(501, 0)).partitions.is_empty());
    opaque(&long(502, 0), "more than 502 links");
}

#[test]
fn boot_sectors_of_file_systems_are_told_from_mbrs() {
    let mut exfat = mbr(&[]);
    exfat.put(3, b"EXFAT   ");
    none(&exfat, "exFAT");
    let mut bitlocker = mbr(&[]);
    bitlocker.put(3, b"-FVE-FS-");
    none(&bitlocker, "BitLocker");
    // Boot code that happens to look like an entry: both are there, so nothing is believed.
    let mut both = disk("fat32-disk");
    boot_record(&mut both, 0, &[(0x83, 2048, 100)]);
    opaque(&both, "at once");
    let mut text = disk("fat32-disk");
    text.put(0x1be, b"press any key");
    none(&text, "FAT");
    // A parameter block that grub-install kept, without a FAT behind it.
    let mut grub = disk("mbr-logicals");
    grub.put(3, &disk("fat32-disk").get(3, 87));
    assert_eq!(seen(&grub).partitions.len(), 7);
    let bad = Faults::new(vec![Fault::read_in(extent(32 * 512, 512), 5)]);
    let layout = read(&FaultSource::new(Arc::new(grub), bad)).unwrap();
    assert_eq!(
        layout.table.name(),
        "opaque",
        "nobody knows whether the FAT is there"
    );
    // A FAT whose boot code has the protective type in its place, and no GPT.
    let mut protective = disk("fat32-disk");
    boot_record(&mut protective, 0, &[(0xee, 7, 9)]);
    none(&protective, "FAT");
}

#[test]
fn tables_of_other_systems_are_opaque() {
    let cases: [(u64, &[u8], &str); 7] = [
        (0, &[0x0b, 0xe5, 0xa9, 0x41], "SGI"),
        (0, &[0xc9, 0xc2, 0xd4, 0xc1], "AIX"),
        (0, b"RDSK", "Amiga"),
        (508, &[0xda, 0xbe], "Sun"),
        (512, &[0x57, 0x45, 0x56, 0x82], "BSD"),
        (6 * 512, b"PRIVHEAD", "dynamic"),
        (512, b"PM", "Apple"),
    ];
    for (at, magic, word) in cases {
        let mut disk = SparseDisk::zeros(LEN, 512);
        if word == "Apple" {
            disk.put(0, b"ER");
        }
        disk.put(at, magic);
        opaque(&disk, word);
    }
}

#[test]
fn an_optical_image_with_a_table_inside_is_opaque() {
    let mut iso = mbr(&[(0x17, 100, 1000)]);
    iso.put(0x8001, b"CD001");
    opaque(&iso, "ISO 9660");
    let mut inside = mbr(&[(0x17, 64, 1000)]);
    inside.put(0x8001, b"CD001");
    assert_eq!(seen(&inside).partitions.len(), 1);
}

#[test]
fn a_gpt_without_protective_mbr_does_not_count() {
    let mut bare = disk("gpt-512");
    bare.put(0, &[0; 512]);
    opaque(&bare, "no protective MBR");
    bare.put(512, &[0; 512]);
    none(&bare, "no partition table");
    assert!(seen(&bare).findings[0].contains("old GPT"));
    let mut late = disk("gpt-512");
    late.put(0x1be + 8, &[2]);
    assert!(seen(&late).findings[0].contains("out of order"));
}

#[test]
fn a_hybrid_entry_beside_the_gpt_is_opaque() {
    let mut disk = disk("gpt-hybrid");
    let at = 0x1be + 16;
    disk.put(at + 8, &40u32.to_le_bytes());
    opaque(&disk, "hybrid MBR");
}

/// `gpt-4-entries` with `bytes` at `at` of the first slot, in both copies.
fn slot(at: u64, bytes: &[u8]) -> SparseDisk {
    let mut disk = disk("gpt-4-entries");
    let backup = disk.len - 512;
    for array in [1024, backup - 512] {
        disk.put(array + at, bytes);
    }
    fix_checksums(&mut disk, 512);
    fix_checksums(&mut disk, backup);
    disk
}

#[test]
fn gpt_entries_that_cannot_be_true_are_opaque() {
    opaque(&slot(40, &131_072u64.to_le_bytes()), "past the end");
    opaque(&slot(40, &u64::MAX.to_le_bytes()), "past the end");
    opaque(&slot(40, &100u64.to_le_bytes()), "behind its end");
    opaque(&slot(32, &0u64.to_le_bytes()), "starts at 0");
    opaque(&slot(32, &1u64.to_le_bytes()), "covers the table");
    opaque(&slot(40, &10_240u64.to_le_bytes()), "overlap");
    let ldm = uuid::Uuid::from_u128(0x5808c8aa_7e8f_42e0_85d2_e1e90434cfb3);
    opaque(&slot(0, &ldm.to_bytes_le()), "dynamic");
    let second = disk("gpt-4-entries").get(1024 + 128 + 16, 16);
    let twice = seen(&slot(16, &second));
    assert!(twice.findings[0].contains("shares its unique GUID"));
    let early = seen(&slot(32, &1000u64.to_le_bytes()));
    assert!(early.findings[0].contains("outside the range"));
    assert_eq!(early.partitions[0].start, 1000 * 512);
}

#[test]
fn large_slots_and_many_slots() {
    // 16 slots of 256 bytes: the specification allows it, Linux and the crate `gpt` do not.
    let mut disk = disk("gpt-4-entries");
    let backup = disk.len - 512;
    let second = disk.get(1024 + 128, 128);
    let first = disk.get(1024, 128);
    for (header, array) in [(512, 1024), (backup, backup - 8 * 512)] {
        disk.put(array, &[0; 4096]);
        disk.put(array, &first);
        disk.put(array + 256, &second);
        disk.put(header + 80, &[16, 0, 0, 0, 0, 1, 0, 0]);
        disk.put(header + 48, &(131_072u64 - 10).to_le_bytes());
        disk.put(header + 72, &(array / 512).to_le_bytes());
        fix_checksums(&mut disk, header);
    }
    let layout = seen(&disk);
    assert_eq!(
        layout
            .partitions
            .iter()
            .map(|p| p.number)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(layout.certain);
    let adapted = adapt(&layout, &disk, ByteLen(LEN * 2), layout.sector).unwrap();
    assert_eq!(
        adapted
            .patches
            .iter()
            .map(|p| p.bytes.len())
            .collect::<Vec<_>>(),
        [512, 512, 4096, 512]
    );
}

#[test]
fn leftovers_of_another_table_at_the_end_are_not_the_backup() {
    let mut disk = disk("gpt-512");
    let header = disk.len - 512;
    disk.put(header + 56, &[9; 16]);
    fix_checksums(&mut disk, header);
    let layout = seen(&disk);
    assert!(
        layout.findings[0].contains("belongs to another table"),
        "{:?}",
        layout.findings
    );
    assert_eq!(layout.partitions.len(), 4);
}
