//! Names of every kind, and names that lead nowhere or to several things.

use super::machine::{inventory, target};
use crate::base::ErrorKind;
use crate::device::{Inventory, Resolved, resolve};
use std::path::PathBuf;

fn device(inventory: &Inventory, name: &str) -> String {
    match target(inventory, name) {
        Resolved::Device { device, .. } => device.name.clone(),
        Resolved::File { path, .. } => panic!("{name} is the file {}", path.display()),
    }
}

fn error(inventory: &Inventory, name: &str) -> (ErrorKind, String) {
    let error = resolve(inventory, name).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn one_disk_has_many_names() {
    let (_machine, inventory) = inventory("nvme-laptop");
    for name in [
        "/dev/nvme0n1",
        "nvme0n1",
        "S6Z1NJ0W123456A",
        "eui.0025384b31a0b1c2",
        "nvme-Samsung_SSD_990_PRO_1TB_S6Z1NJ0W123456A",
        "/dev/disk/by-id/nvme-eui.0025384b31a0b1c2",
    ] {
        assert_eq!(device(&inventory, name), "nvme0n1", "{name}");
    }
    assert_eq!(device(&inventory, "/dev/mapper/vg-root"), "dm-1");
    assert_eq!(device(&inventory, "vg-root"), "dm-1");
    assert_eq!(device(&inventory, "dm-name-vg-root"), "dm-1");
    let part = "nvme-Samsung_SSD_990_PRO_1TB_S6Z1NJ0W123456A-part1";
    assert_eq!(device(&inventory, part), "nvme0n1p1");
}

#[test]
fn a_world_wide_name_in_any_spelling() {
    let (_machine, inventory) = inventory("sata-server");
    for name in [
        "wwn-0x5000c500a1b2c3d5",
        "0x5000C500A1B2C3D5",
        "5000c500a1b2c3d5",
    ] {
        assert_eq!(device(&inventory, name), "sdb", "{name}");
    }
    assert_eq!(
        device(&inventory, "ata-WDC_WD40EFRX-68N_WD-WX12D3456789"),
        "sdc"
    );
}

#[test]
fn disks_of_one_serial_are_not_guessed() {
    let (_machine, inventory) = inventory("usb-stick");
    let (kind, text) = error(&inventory, "0123456789ABCDEF");
    assert_eq!(kind, ErrorKind::Refused);
    assert!(text.contains("/dev/sdb (28.8 GiB"), "{text}");
    assert!(text.contains("/dev/sdc"), "{text}");
}

#[test]
fn ways_to_one_disk_are_the_map_above_them() {
    let (_machine, inventory) = inventory("multipath-san");
    assert_eq!(
        device(&inventory, "0x600508b400105e210000900000490000"),
        "dm-0"
    );
    assert_eq!(device(&inventory, "mpatha"), "dm-0");
    let (kind, text) = error(&inventory, "0x600508b400105e2100009000004a0000");
    assert_eq!(kind, ErrorKind::Refused, "no map, no choice");
    assert!(
        text.contains("/dev/sdf") && text.contains("/dev/sdg"),
        "{text}"
    );
}

#[test]
fn a_boot_area_is_only_meant_by_its_name() {
    let (_machine, inventory) = inventory("mmc-board");
    assert_eq!(device(&inventory, "0x1a2b3c4d"), "mmcblk0");
    assert_eq!(device(&inventory, "mmcblk0boot0"), "mmcblk0boot0");
    let (kind, text) = error(&inventory, "/dev/mmcblk0rpmb");
    assert_eq!(kind, ErrorKind::Refused);
    assert!(text.contains("replay-protected"), "{text}");
}

#[test]
fn names_that_are_absent() {
    let (_machine, inventory) = inventory("sata-server");
    for name in [
        "/dev/sdq",
        "sdq",
        "WD-WX12D3456780",
        "/dev/disk/by-id/ata-typo",
        "ata-a.b",
        "nvme-x.y1",
        "eui.0025384b31a0ffff",
        "/nowhere/at/all/disk.img",
        "",
    ] {
        let (kind, text) = error(&inventory, name);
        assert_eq!(kind, ErrorKind::NotFound, "{name}: {text}");
        assert!(
            text.contains("/dev/sdc (serial WD-WX12D3456789)"),
            "{name}: {text}"
        );
    }
}

#[test]
fn empty_drives_are_no_disks() {
    for (machine, name) in [
        ("sata-server", "/dev/sr0"),
        ("nvme-laptop", "sda"),
        ("snap-loops", "loop4"),
    ] {
        let (_machine, inventory) = inventory(machine);
        let (kind, text) = error(&inventory, name);
        assert_eq!(kind, ErrorKind::Refused, "{text}");
        assert!(text.contains("no medium"), "{text}");
    }
}

#[test]
fn files_that_are_there_or_will_be() {
    let (machine, inventory) = inventory("snap-loops");
    let file = |name: &str| match target(&inventory, name) {
        Resolved::File { path, exists } => (path, exists),
        Resolved::Device { device, .. } => panic!("{name} is {}", device.name),
    };
    let images = PathBuf::from("/var/lib/images");
    assert_eq!(
        file("/var/lib/images/disk.img"),
        (images.join("disk.img"), true)
    );
    assert_eq!(
        file("/var/lib/images/new.img"),
        (images.join("new.img"), false)
    );
    assert_eq!(file("new.img"), (PathBuf::from("/new.img"), false));
    machine.link("/alias", "var/lib/images/disk.img");
    assert_eq!(
        file("/alias"),
        (images.join("disk.img"), true),
        "links are resolved"
    );
    machine.link("/dangling", "var/lib/images/gone.img");
    assert_eq!(error(&inventory, "/dangling").0, ErrorKind::NotFound);
}

#[test]
fn a_file_called_like_a_disk_is_not_guessed() {
    let (machine, inventory) = inventory("snap-loops");
    machine.write("/vda", b"a file");
    let (kind, text) = error(&inventory, "vda");
    assert_eq!(kind, ErrorKind::Refused);
    assert!(
        text.contains("the file ./vda") && text.contains("/dev/vda"),
        "{text}"
    );
}

#[test]
fn folders_and_pipes_are_refused() {
    let (machine, inventory) = inventory("snap-loops");
    let (kind, text) = error(&inventory, "/var/lib/images");
    assert_eq!(kind, ErrorKind::Refused);
    assert!(text.contains("folder"), "{text}");
    let socket = machine.at("/socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    assert!(error(&inventory, "/socket").1.contains("socket"));
}

#[test]
fn the_running_machine_knows_null() {
    let Ok(inventory) = Inventory::read(std::path::Path::new("/")) else {
        eprintln!("SKIPPED: this machine shows no /sys/block or no mounts");
        return;
    };
    let (kind, text) = error(&inventory, "/dev/null");
    assert_eq!(kind, ErrorKind::Refused);
    assert!(text.contains("character device"), "{text}");
}
