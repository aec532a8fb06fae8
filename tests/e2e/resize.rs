//! Targets of another size: tables are fitted to a larger disk, and a smaller one is taken only
//! when nothing is lost.

use crate::kit::bytes::{self, assert_same_range, fingerprint};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Loop, privileged};
use crate::kit::store::Store;
use crate::kit::{MIB, scratch, tools};
use std::path::Path;

fn imaged(layout: Layout, dir: &Path) -> (Disk, Store) {
    let disk = Disk::build(layout, dir, "source.img", 31);
    let store = Store::new(dir, "store");
    store.backed_up(&disk.path);
    (disk, store)
}

#[track_caller]
fn assert_parts_same(disk: &Disk, target: &Path) {
    for part in &disk.parts {
        assert_same_range(&disk.path, part.start, target, part.start, part.len);
    }
    // Boot code lies before the table.
    assert_same_range(&disk.path, 0, target, 0, 440);
}

/// Partitions as `sfdisk` tells them, without the path of the disk in their names.
fn partitions(disk: &Path) -> Vec<serde_json::Value> {
    let table = tools::table(disk).expect("a partition table");
    let mut found = table["partitions"].as_array().unwrap().clone();
    for partition in &mut found {
        partition.as_object_mut().unwrap().remove("node");
    }
    found
}

#[test]
fn a_larger_file_gets_a_table_that_fits() {
    let dir = scratch();
    let (disk, store) = imaged(Layout::Gpt512, dir.path());
    for more in [MIB, 100 * MIB, 512] {
        let target = dir.path().join(format!("larger-{more}.img"));
        bytes::create_filled(&target, disk.len + more);
        store.restore("latest", &target).run().expect(0);
        assert_eq!(bytes::length(&target), disk.len + more);
        tools::assert_gpt_sound(&target);
        assert_parts_same(&disk, &target);
        assert_eq!(partitions(&target), partitions(&disk.path));
    }
}

#[test]
fn a_larger_mbr_disk_keeps_its_partitions() {
    let dir = scratch();
    let (disk, store) = imaged(Layout::Mbr, dir.path());
    let target = dir.path().join("larger.img");
    bytes::create_filled(&target, disk.len + 33 * MIB);
    store.restore("latest", &target).run().expect(0);
    assert_same_range(&disk.path, 0, &target, 0, disk.len);
    assert_eq!(partitions(&target), partitions(&disk.path));
}

#[test]
fn a_smaller_file_is_taken_when_only_free_space_is_cut() {
    let dir = scratch();
    let (disk, store) = imaged(Layout::Gpt512, dir.path());
    let last = disk.parts.last().unwrap();
    // The backup table needs 33 sectors behind the last partition.
    for len in [disk.len - MIB, last.start + last.len + 33 * 512] {
        let target = dir.path().join(format!("smaller-{len}.img"));
        bytes::create_filled(&target, len);
        store.restore("latest", &target).run().expect(0);
        tools::assert_gpt_sound(&target);
        assert_parts_same(&disk, &target);
        assert_eq!(partitions(&target), partitions(&disk.path));
    }
}

#[test]
fn a_file_into_which_a_partition_does_not_fit_is_refused() {
    let dir = scratch();
    let (disk, store) = imaged(Layout::Gpt512, dir.path());
    let last = disk.parts.last().unwrap();
    let end = last.start + last.len;
    for len in [
        end + 32 * 512,
        end,
        end - 512,
        disk.parts[2].start,
        MIB,
        512,
    ] {
        let target = dir.path().join("smaller.img");
        bytes::create_filled(&target, len);
        let before = fingerprint(&target);
        store.restore("latest", &target).run().expect(4);
        assert_eq!(fingerprint(&target), before, "{len} bytes");
    }
}

#[test]
fn a_disk_without_a_table_needs_all_its_room() {
    let dir = scratch();
    let (disk, store) = imaged(Layout::Random, dir.path());
    for less in [1, 512, MIB] {
        let target = dir.path().join("smaller.img");
        bytes::create_filled(&target, disk.len - less);
        let before = fingerprint(&target);
        store.restore("latest", &target).run().expect(4);
        assert_eq!(fingerprint(&target), before, "{less} bytes less");
    }
}

#[test]
fn an_mbr_disk_may_lose_zeros_behind_its_last_partition() {
    let dir = scratch();
    let (disk, store) = imaged(Layout::Mbr, dir.path());
    let target = dir.path().join("smaller.img");
    let len = 110 * MIB;
    bytes::create_filled(&target, len);
    store.restore("latest", &target).run().expect(0);
    assert_same_range(&disk.path, 0, &target, 0, len);
    let too_small = dir.path().join("too-small.img");
    bytes::create_filled(&too_small, 95 * MIB);
    let before = fingerprint(&too_small);
    store.restore("latest", &too_small).run().expect(4);
    assert_eq!(fingerprint(&too_small), before);
}

#[test]
fn a_larger_device_gets_a_table_that_fits() {
    if !privileged("a larger loop device gets a table that fits") {
        return;
    }
    for layout in [Layout::Gpt512, Layout::Gpt4096] {
        let dir = scratch();
        let disk = Disk::build(layout, dir.path(), "source.img", 31);
        let store = Store::new(dir.path(), "store");
        let source = Loop::with_sector(&disk.path, disk.sector);
        store.backed_up(source.path());
        let target = dir.path().join("larger.img");
        bytes::create_filled(&target, disk.len + 64 * MIB);
        let device = Loop::with_sector(&target, disk.sector);
        store.restore("latest", device.path()).run().expect(0);
        tools::assert_gpt_sound(device.path());
        assert_parts_same(&disk, device.path());
        assert_eq!(partitions(device.path()), partitions(source.path()));
    }
}

#[test]
fn a_smaller_device_is_refused_and_untouched() {
    if !privileged("a loop device that is too small is refused") {
        return;
    }
    let dir = scratch();
    let (disk, store) = imaged(Layout::Gpt512, dir.path());
    let last = disk.parts.last().unwrap();
    let target = dir.path().join("smaller.img");
    bytes::create_filled(&target, last.start + last.len);
    let before = fingerprint(&target);
    let device = Loop::new(&target);
    store.restore("latest", device.path()).run().expect(4);
    drop(device);
    assert_eq!(fingerprint(&target), before);
}
