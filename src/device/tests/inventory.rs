//! What is read from each machine.

use super::machine::{Machine, inventory};
use crate::base::ErrorKind;
use crate::device::{DeviceKind, Inventory, Transport};

fn names(inventory: &Inventory) -> Vec<&str> {
    inventory.disks().map(|d| d.name.as_str()).collect()
}

#[test]
fn a_laptop() {
    let (_machine, inventory) = inventory("nvme-laptop");
    assert_eq!(names(&inventory), ["dm-0", "dm-1", "dm-2", "nvme0n1"]);
    let disk = inventory.named("nvme0n1").unwrap();
    assert_eq!(disk.model.as_deref(), Some("Samsung SSD 990 PRO 1TB"));
    assert_eq!(disk.serial.as_deref(), Some("S6Z1NJ0W123456A"));
    assert_eq!(disk.wwn.as_deref(), Some("eui.0025384b31a0b1c2"));
    assert_eq!(disk.transport, Transport::Nvme);
    assert_eq!(disk.len.0, 1_000_204_886_016);
    assert_eq!(disk.rotational, Some(false));
    assert_eq!(disk.content.table.as_deref(), Some("gpt"));
    assert_eq!(disk.by_id.len(), 2, "{:?}", disk.by_id);
    assert!(
        inventory.named("nvme0c0n1").is_none(),
        "hidden paths are no disks"
    );
    let parts: Vec<_> = inventory.partitions_of(disk.dev).collect();
    assert_eq!(parts.len(), 3);
    let esp = parts[0].partition.as_ref().unwrap();
    assert_eq!((esp.number, esp.start.0), (1, 1 << 20));
    assert_eq!(esp.label.as_deref(), Some("EFI System Partition"));
    assert_eq!(parts[0].content.file_system.as_deref(), Some("vfat"));
    assert_eq!(parts[2].transport, Transport::Nvme);
    assert_eq!(
        inventory.named("dm-0").unwrap().role(),
        "LUKS /dev/dm-0 (cryptroot)"
    );
    assert_eq!(
        inventory.named("dm-1").unwrap().role(),
        "LVM /dev/dm-1 (vg-root)"
    );
    assert_eq!(inventory.named("zram0").unwrap().kind, DeviceKind::Memory);
}

#[test]
fn a_server() {
    let (_machine, inventory) = inventory("sata-server");
    assert_eq!(
        names(&inventory),
        ["dm-0", "dm-1", "md0", "md1", "sda", "sdb", "sdc"],
        "the drive without a medium is left out"
    );
    let disk = inventory.named("sda").unwrap();
    assert_eq!(disk.vendor, None, "libata's ATA is no maker");
    assert_eq!(disk.serial.as_deref(), Some("ZC1A2B3C"));
    assert!(disk.other_serials.is_empty(), "udev says the same");
    assert_eq!(disk.wwn.as_deref(), Some("0x5000c500a1b2c3d4"));
    assert_eq!(disk.transport, Transport::Sata);
    assert_eq!(disk.physical_sector.bytes(), 4096);
    let raid = inventory.named("md0").unwrap();
    assert_eq!(raid.role(), "software RAID (raid1) /dev/md0");
    assert_eq!(raid.slaves, ["sda2", "sdb2"]);
}

#[test]
fn a_board_with_boot_areas() {
    let (_machine, inventory) = inventory("mmc-board");
    assert_eq!(
        names(&inventory),
        ["mmcblk0", "mmcblk0boot0", "mmcblk0boot1", "mmcblk1"]
    );
    let main = inventory.named("mmcblk0").unwrap();
    assert_eq!(main.model.as_deref(), Some("DG4016"));
    assert_eq!(main.serial.as_deref(), Some("0x1a2b3c4d"));
    assert_eq!(main.transport, Transport::Mmc);
    let boot = inventory.named("mmcblk0boot0").unwrap();
    assert_eq!((boot.kind, boot.read_only), (DeviceKind::MmcBoot, true));
}

#[test]
fn a_stick_that_colours_the_terminal() {
    let (_machine, inventory) = inventory("usb-stick");
    let stick = inventory.named("sdb1").unwrap();
    assert_eq!(stick.content.label.as_deref(), Some("My ?[31mStick"));
    assert_eq!(stick.transport, Transport::Usb);
    let disk = inventory.named("sdb").unwrap();
    assert_eq!(disk.vendor.as_deref(), Some("Kingston"));
    assert_eq!(disk.serial.as_deref(), Some("0123456789ABCDEF"));
    let part = inventory.named("sda1").unwrap().partition.clone().unwrap();
    assert_eq!(
        part.label.as_deref(),
        Some("Linux filesystem"),
        "from the kernel, without udev"
    );
    assert_eq!(part.id.as_deref(), Some("01020304-05"));
    let json = serde_json::to_string(&inventory.entries()).unwrap();
    assert!(
        !json.contains('\u{1b}') && !json.contains("\\u001b"),
        "{json}"
    );
}

#[test]
fn loop_devices() {
    let (_machine, inventory) = inventory("snap-loops");
    assert_eq!(
        names(&inventory),
        ["loop0", "loop1", "loop3", "loop5", "vda"]
    );
    let gone = inventory.named("loop1").unwrap().loop_file.clone().unwrap();
    assert_eq!(
        gone.path.to_str(),
        Some("/var/lib/snapd/snaps/lxd_24322.snap")
    );
    assert_eq!(gone.id, None);
    let there = inventory.named("loop5").unwrap().loop_file.clone().unwrap();
    assert!(there.id.is_some());
}

#[test]
fn a_recorded_machine() {
    let (_machine, inventory) = inventory("virtio-vm");
    let disk = inventory.named("vda").unwrap();
    assert_eq!(disk.transport, Transport::Virtio);
    assert!(disk.serial.is_some());
    assert!(inventory.disks().all(|d| d.len.0 > 0));
    let uses = inventory.uses(disk);
    assert!(
        uses.iter()
            .any(|u| u.to_string().contains("mounted at / (")),
        "{uses:?}"
    );
}

#[test]
fn the_json_keeps_its_promise() {
    let (_machine, inventory) = inventory("nvme-laptop");
    let json = serde_json::to_value(inventory.entries()).unwrap();
    let disk = json
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["name"] == "nvme0n1")
        .unwrap();
    for member in [
        "name",
        "path",
        "bytes",
        "model",
        "serial",
        "wwn",
        "logical_sector",
        "physical_sector",
        "read_only",
        "removable",
        "table",
        "uses",
        "partitions",
    ] {
        assert!(disk.get(member).is_some(), "{member}");
    }
    let boot = &disk["partitions"][1];
    for member in [
        "number",
        "start",
        "bytes",
        "type",
        "label",
        "filesystem",
        "uses",
    ] {
        assert!(boot.get(member).is_some(), "{member}");
    }
    assert_eq!(boot["label"], "boot");
    assert_eq!(
        boot["uses"][0],
        "/dev/nvme0n1p2 is mounted at /boot (ext4, read-write)"
    );
    assert_eq!(
        disk["partitions"][2]["uses"][0],
        "/dev/nvme0n1p3 is held by LUKS /dev/dm-0 (cryptroot)"
    );
    assert_eq!(disk["uses"].as_array().unwrap().len(), 0);
}

#[test]
fn without_the_list_of_mounts_there_is_no_answer() {
    for gone in ["/proc/self/mountinfo", "/sys/block"] {
        let machine = Machine::new("virtio-vm");
        let at = machine.at(gone);
        let removed = std::fs::remove_file(&at).or_else(|_| std::fs::remove_dir_all(&at));
        removed.unwrap();
        let error = Inventory::read(machine.root.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source, "{gone}: {error}");
    }
    let machine = Machine::new("virtio-vm");
    machine.append("/proc/self/mountinfo", "28 1 nonsense");
    assert!(Inventory::read(machine.root.path()).is_err());
}

#[test]
fn hostile_numbers_are_survived() {
    let machine = Machine::new("usb-stick");
    let folder = machine.at("/sys/class/block/sdb").canonicalize().unwrap();
    for (file, value) in [
        ("size", "18446744073709551615"),
        ("size", "-1"),
        ("dev", "8:16:3"),
        ("queue/logical_block_size", "3"),
        ("sdb1/partition", "99999999999"),
        ("sdb1/start", "18446744073709551615"),
        ("diskseq", "x"),
    ] {
        let at = folder.join(file);
        let before = std::fs::read(&at).unwrap();
        std::fs::write(&at, value).unwrap();
        let inventory = machine.read();
        assert!(inventory.named("sda").is_some(), "{file}={value}");
        std::fs::write(&at, before).unwrap();
    }
}
