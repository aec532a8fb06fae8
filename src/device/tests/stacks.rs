//! What lies on what, and what that means for readers.

use super::machine::{Machine, inventory, target};
use crate::device::{Consistency, Inventory, claim_read};
use std::path::Path;

fn names(inventory: &Inventory, set: &std::collections::BTreeSet<crate::device::DevNum>) -> String {
    let mut names: Vec<&str> = set
        .iter()
        .map(|dev| inventory.device(*dev).unwrap().name.as_str())
        .collect();
    names.sort_unstable();
    names.join(" ")
}

fn above(inventory: &Inventory, name: &str) -> String {
    names(
        inventory,
        &inventory.above(inventory.named(name).unwrap().dev),
    )
}

fn beneath(inventory: &Inventory, name: &str) -> String {
    names(
        inventory,
        &inventory.beneath(inventory.named(name).unwrap().dev),
    )
}

#[test]
fn layers_are_followed_both_ways() {
    let (_machine, laptop) = inventory("nvme-laptop");
    assert_eq!(above(&laptop, "nvme0n1p3"), "dm-0 dm-1 dm-2 nvme0n1p3");
    assert_eq!(beneath(&laptop, "dm-1"), "dm-0 dm-1 nvme0n1 nvme0n1p3");
    let (_machine, server) = inventory("sata-server");
    assert_eq!(
        above(&server, "sdb"),
        "dm-0 dm-1 md0 md1 sdb sdb1 sdb2 sdb3"
    );
    assert_eq!(beneath(&server, "md0"), "md0 sda sda2 sdb sdb2");
    let (_machine, loops) = inventory("snap-loops");
    assert_eq!(
        above(&loops, "vda1"),
        "loop0 loop1 loop3 loop3p1 loop5 vda1"
    );
    assert_eq!(beneath(&loops, "loop3p1"), "loop3 loop3p1 vda vda1");
    let (_machine, live) = inventory("rescue-stick");
    assert_eq!(above(&live, "sda1"), "loop0 sda1");
}

#[test]
fn paths_are_placed_on_their_disks() {
    let (_machine, inventory) = inventory("sata-server");
    let on = |path: &str| names(&inventory, &inventory.devices_of_path(Path::new(path)));
    assert_eq!(on("/srv/store"), "dm-1");
    assert_eq!(on("/srv/store/not/yet"), "dm-1");
    assert_eq!(on("/boot/x"), "md0");
    assert_eq!(on("/home"), "dm-0");
    assert_eq!(on("/mnt/nas/x"), "", "a network share lies on no disk");
}

#[test]
fn circles_end() {
    let machine = Machine::new("container-host");
    machine.link("/sys/devices/virtual/block/bcache0/holders/sdc", "../../x");
    let inventory = machine.read();
    assert_eq!(above(&inventory, "sdc"), "bcache0 sdc");
}

#[test]
fn all_of_a_btrfs_is_mounted() {
    let (_machine, inventory) = inventory("container-host");
    assert_eq!(
        names(&inventory, &inventory.devices_of_path(Path::new("/data/x"))),
        "sda sdb"
    );
}

#[test]
fn readers_are_told_how_quiet_a_source_is() {
    let consistency = |machine: &str, name: &str| {
        let (_machine, inventory) = inventory(machine);
        inventory.consistency(&target(&inventory, name)).unwrap()
    };
    assert_eq!(consistency("sata-server", "sdc"), Consistency::Unmounted);
    let live = |c| match c {
        Consistency::Live(texts) => texts.join("\n"),
        other => panic!("{other:?}"),
    };
    let text = live(consistency("nvme-laptop", "nvme0n1"));
    for part in [
        "/dev/dm-1 (vg-root) is mounted at / (ext4, read-write)",
        "/dev/dm-2 is in use as swap",
        "/dev/nvme0n1p3 is held by LUKS /dev/dm-0 (cryptroot)",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(live(consistency("snap-loops", "/var/lib/images/disk.img")).contains("/mnt/img"));
    assert_eq!(
        consistency("snap-loops", "/var/lib/images/idle.img"),
        Consistency::Unmounted
    );
    match consistency("snap-loops", "loop0") {
        Consistency::ReadOnlyMounted(texts) => assert!(texts[0].contains("/snap/core20/1974")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_claimed_with_others_but_not_against_a_writer() {
    let (machine, inventory) = inventory("snap-loops");
    let file = target(&inventory, "/var/lib/images/idle.img");
    let first = claim_read(&inventory, &file).unwrap();
    let second = claim_read(&inventory, &file).unwrap();
    assert_eq!(first.identity(), second.identity());
    assert_eq!(first.consistency(), &Consistency::Unmounted);
    drop((first, second));
    let writer = std::fs::File::open(machine.at("/var/lib/images/idle.img")).unwrap();
    writer.lock().unwrap();
    let error = claim_read(&inventory, &file).unwrap_err();
    assert_eq!(error.kind(), crate::base::ErrorKind::Locked);
}
