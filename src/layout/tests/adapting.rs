//! Tables on disks of another size: `sgdisk` finds nothing wrong, and reading again gives the same
//! partitions.

use super::{SparseDisk, disk, extent, fix_checksums};
use crate::base::{ByteLen, ErrorKind, SectorSize, to_usize};
use crate::layout::{
    Adapted, CopyState, Layout, Table, adapt, critical_extents, free_tail, min_disk_len, read,
};
use std::process::Command;

const GPTS: [&str; 7] = [
    "gpt-512",
    "gpt-4096",
    "gpt-4-entries",
    "gpt-256-entries",
    "gpt-moved-array",
    "gpt-3tib",
    "gpt-hybrid",
];

fn plan(disk: &SparseDisk, len: u64) -> crate::base::Result<(Layout, Adapted)> {
    let layout = read(disk).unwrap();
    let adapted = adapt(
        &layout,
        disk,
        ByteLen(len),
        SectorSize::new(disk.sector).unwrap(),
    )?;
    Ok((layout, adapted))
}

/// What a restore of `disk` to `len` bytes leaves.
fn restored(disk: &SparseDisk, len: u64) -> SparseDisk {
    let (_, adapted) = plan(disk, len).unwrap();
    let mut out = disk.resized(len);
    for extent in &adapted.zero {
        assert!(extent.end().0 <= len);
        out.put(extent.start.0, &vec![0; to_usize(extent.len.0)]);
    }
    for patch in &adapted.patches {
        out.put(patch.offset.0, &patch.bytes);
    }
    out
}

/// What `sgdisk -v` says of a disk, or `None` where it cannot say. It takes files for disks with sectors
/// of 512.
fn sgdisk_verify(disk: &SparseDisk) -> Option<String> {
    if disk.sector != 512 {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    disk.write_to(&path);
    let Ok(output) = Command::new("sgdisk").arg("-v").arg(&path).output() else {
        eprintln!("SKIPPED: sgdisk is not installed, nobody else checks the adapted table");
        return None;
    };
    assert!(output.stderr.is_empty(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asserts that `sgdisk` finds `new` in order and warns of nothing that it did not warn of in `old`.
fn sgdisk_approves(old: &SparseDisk, new: &SparseDisk) {
    let (Some(before), Some(after)) = (sgdisk_verify(old), sgdisk_verify(new)) else {
        return;
    };
    assert!(after.contains("No problems found"), "{after}");
    let warnings = |text: &str| text.matches("Warning").count();
    assert!(warnings(&after) <= warnings(&before), "{after}");
}

fn check(name: &str, len: u64) {
    let old = disk(name);
    let before = read(&old).unwrap();
    let new = restored(&old, len);
    let after = read(&new).unwrap();
    assert_eq!(after.partitions, before.partitions, "{name} on {len}");
    assert_eq!(after.disk_id, before.disk_id);
    assert!(after.certain, "{name} on {len}: {:?}", after.findings);
    assert_eq!(after.findings, before.findings, "{name} on {len}");
    let (Table::Gpt(a), Table::Gpt(b)) = (&before.table, &after.table) else {
        panic!()
    };
    assert_eq!(a.primary, b.primary, "the primary copy stays where it is");
    assert_eq!(
        (a.first_usable, a.entry_count, a.entry_size),
        (b.first_usable, b.entry_count, b.entry_size)
    );
    let sectors = len / u64::from(old.sector);
    assert_eq!(b.backup.header_lba, Some(sectors - 1));
    assert_eq!(b.backup.entries_lba, Some(b.last_usable + 1));
    sgdisk_approves(&old, &new);
    let critical = critical_extents(&before, ByteLen(len));
    let (_, adapted) = plan(&old, len).unwrap();
    for patch in adapted.patches {
        let place = extent(patch.offset.0, crate::base::to_u64(patch.bytes.len()));
        assert!(
            critical.iter().any(|c| c.contains(place)),
            "{name}: {place} in {critical:?}"
        );
    }
}

#[test]
fn larger_disks_get_their_backup_at_the_end() {
    for name in GPTS {
        let len = disk(name).len;
        for grown in [len + (1 << 30), len * 3, len + 4096, len + 16 * 4096] {
            check(name, grown);
        }
    }
}

#[test]
fn smaller_disks_down_to_the_last_sector() {
    for name in GPTS {
        let layout = read(&disk(name)).unwrap();
        let least = min_disk_len(&layout).0;
        assert!(least <= disk(name).len, "{name}");
        if least < disk(name).len {
            check(name, least);
        }
        let error = plan(&disk(name), least - 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{name}");
        assert!(error.subject().contains("partition"), "{error}");
        assert!(free_tail(&layout).start.0 < least);
    }
}

#[test]
fn the_partition_that_does_not_fit_is_named() {
    let error = plan(&disk("gpt-512"), 4 << 30).unwrap_err();
    assert!(error.to_string().contains("partition 2 (root)"), "{error}");
    assert!(error.next_step().is_some());
    let error = plan(&disk("mbr-logicals"), 40 << 20).unwrap_err();
    assert!(error.to_string().contains("partition 4"), "{error}");
    let error = plan(&disk("fat32-disk"), 40 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn the_same_size_changes_nothing() {
    for name in super::TABLES {
        let (_, adapted) = plan(&disk(name), disk(name).len).unwrap();
        assert_eq!(adapted, Adapted::default(), "{name}");
    }
    let mut damaged = disk("gpt-512");
    damaged.flip(600);
    let (_, adapted) = plan(&damaged, damaged.len).unwrap();
    assert_eq!(adapted, Adapted::default());
}

#[test]
fn tables_without_a_backup_need_no_patch() {
    for name in [
        "mbr-logicals",
        "mbr-4096",
        "mbr-loop",
        "fat32-disk",
        "stale-gpt",
    ] {
        let (_, adapted) = plan(&disk(name), disk(name).len * 2).unwrap();
        assert_eq!(adapted, Adapted::default(), "{name}");
    }
    let len = min_disk_len(&read(&disk("mbr-logicals")).unwrap());
    assert_eq!(len, ByteLen((26624 + 90000) * 512));
    let (_, adapted) = plan(&disk("mbr-logicals"), len.0).unwrap();
    assert_eq!(adapted, Adapted::default());
}

#[test]
fn the_old_backup_is_zeroed_and_nothing_else() {
    let old = disk("gpt-512");
    let (_, adapted) = plan(&old, old.len * 2).unwrap();
    assert_eq!(adapted.zero, [extent(old.len - 33 * 512, 33 * 512)]);
    // Old and new backup overlap: only what the new one leaves is zeroed.
    let (_, adapted) = plan(&old, old.len + 2 * 512).unwrap();
    assert_eq!(adapted.zero, [extent(old.len - 33 * 512, 2 * 512)]);
    let (_, adapted) = plan(&disk("gpt-4-entries"), 32 << 20).unwrap();
    assert_eq!(adapted.zero, []);
}

#[test]
fn the_protective_entry_covers_the_new_disk() {
    let new = restored(&disk("gpt-512"), 7 << 40);
    assert_eq!(new.get(0x1be + 12, 4), [0xff; 4]);
    let new = restored(&disk("gpt-4-entries"), 100 << 20);
    assert_eq!(new.get(0x1be + 12, 4), 204_799u32.to_le_bytes());
    // LBA 204799 with 255 heads and 63 sectors is cylinder 12, head 190, sector 50.
    assert_eq!(new.get(0x1be + 5, 3), [190, 50, 12]);
}

#[test]
fn a_hybrid_mbr_stays_bit_for_bit() {
    let old = disk("gpt-hybrid");
    let new = restored(&old, old.len * 2);
    assert_eq!(new.get(0, 512), old.get(0, 512));
    let (_, adapted) = plan(&old, old.len * 2).unwrap();
    assert!(adapted.findings[0].contains("hybrid"));
    // One whose protective entry fills the rest of the disk goes with its end.
    let mut old = disk("gpt-hybrid");
    let slot = 0x1be;
    assert_eq!(old.get(slot + 4, 1), [0xee]);
    let rest = |len: u64| u32::try_from(len / 512 - 1).unwrap().to_le_bytes();
    old.put(slot + 12, &rest(old.len));
    let new = restored(&old, old.len * 2);
    assert_eq!(new.get(slot + 12, 4), rest(old.len * 2));
    assert_eq!(new.get(0x1ce, 0x32), old.get(0x1ce, 0x32));
}

#[test]
fn a_lost_copy_is_made_anew_on_another_size() {
    let last = disk("gpt-512").len - 512;
    for at in [600, 1100, last + 60, last - 32 * 512] {
        let mut old = disk("gpt-512");
        old.flip(at);
        let new = restored(&old, old.len * 2);
        let layout = read(&new).unwrap();
        assert!(
            layout.certain && layout.findings.is_empty(),
            "{:?}",
            layout.findings
        );
        sgdisk_approves(&disk("gpt-512"), &new);
    }
    let mut old = disk("gpt-moved-array");
    old.put(512, &[0; 33 * 512]);
    let layout = read(&old).unwrap();
    let Table::Gpt(gpt) = &layout.table else {
        panic!()
    };
    assert_eq!(
        (gpt.primary.state, gpt.primary.entries_lba),
        (CopyState::Missing, None)
    );
    let new = restored(&old, old.len * 2);
    assert!(read(&new).unwrap().certain);
    // The array is back at LBA 2 now, and sgdisk warns of the gap behind it.
    let verdict = sgdisk_verify(&new);
    assert!(verdict.is_none_or(|text| text.contains("No problems found")));
}

/// Its entries would belong at LBA 2.
#[test]
fn a_partition_where_a_lost_array_belongs_is_not_overwritten() {
    let mut old = disk("gpt-512");
    let header = old.len - 512;
    // The first partition, in the backup, begins at LBA 2; the primary names an array beyond the disk.
    old.put(header - 32 * 512 + 32, &2u64.to_le_bytes());
    fix_checksums(&mut old, header);
    old.put(512 + 72, &(1u64 << 32).to_le_bytes());
    fix_checksums(&mut old, 512);
    let layout = read(&old).unwrap();
    assert_eq!((layout.partitions[0].start, layout.certain), (1024, false));
    let refused = plan(&old, old.len * 2).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    let text = refused.to_string();
    assert!(text.contains("partition 1 lies where"), "{text}");
    assert_eq!(plan(&old, old.len).unwrap().1, Adapted::default());
}

#[test]
fn copies_that_differ_become_one() {
    let mut old = disk("gpt-512");
    let header = old.len - 512;
    old.put(header - 32 * 512 + 56, b"X\0");
    fix_checksums(&mut old, header);
    let (_, adapted) = plan(&old, old.len * 2).unwrap();
    assert!(adapted.findings[0].contains("differed"));
    let new = restored(&old, old.len * 2);
    assert_eq!(
        read(&new).unwrap().partitions,
        read(&old).unwrap().partitions
    );
    assert!(read(&new).unwrap().certain);
}

#[test]
fn fields_of_later_revisions_survive() {
    let mut old = disk("gpt-512");
    old.put(512 + 12, &128u32.to_le_bytes());
    old.put(512 + 100, b"vendor");
    fix_checksums(&mut old, 512);
    let new = restored(&old, old.len * 2);
    assert_eq!(new.get(512 + 100, 6), b"vendor");
    assert_eq!(new.get(new.len - 512 + 100, 6), b"vendor");
    assert!(read(&new).unwrap().certain);
}

#[test]
fn other_sectors_are_refused_where_a_table_counts_in_them() {
    let layout = read(&disk("gpt-512")).unwrap();
    let error = adapt(
        &layout,
        &disk("gpt-512"),
        ByteLen(9 << 30),
        SectorSize::S4096,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    // A file that holds the image of a 4Kn disk goes to a file and to a 4Kn disk.
    let file = disk("gpt-4096").with_sector(512);
    let layout = read(&file).unwrap();
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let adapted = adapt(&layout, &file, ByteLen(9 << 30), sector).unwrap();
        assert_eq!(adapted.findings.is_empty(), sector == SectorSize::S4096);
        assert!(!adapted.patches.is_empty());
    }
    let none = read(&disk("fat32-disk")).unwrap();
    let len = ByteLen(disk("fat32-disk").len);
    assert!(adapt(&none, &disk("fat32-disk"), len, SectorSize::S4096).is_ok());
}

#[test]
fn an_image_that_is_not_what_its_layout_says_is_damaged() {
    let layout = read(&disk("gpt-512")).unwrap();
    let other = SparseDisk::zeros(8 << 30, 512);
    let error = adapt(&layout, &other, ByteLen(9 << 30), SectorSize::S512).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}
