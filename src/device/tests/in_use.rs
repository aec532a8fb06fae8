//! Disks in use in every way that the recorded machines know, and idle ones.

use super::machine::{Machine, inventory};
use super::words::{has, plain};

#[test]
fn idle_disks_are_permitted() {
    for (machine, name) in [
        ("sata-server", "sdc"),
        ("sata-server", "/dev/sda1"),
        ("usb-stick", "/dev/sdc"),
        ("rescue-stick", "nvme0n1"),
        ("rescue-stick", "nvme0n1p1"),
        ("rescue-stick", "/dev/sda2"),
        ("mmc-board", "mmcblk1"),
        ("swap", "sda3"),
        ("multipath-san", "/dev/sdf"),
        ("container-host", "sdg"),
        ("snap-loops", "loop5"),
        ("snap-loops", "/var/lib/images/free.img"),
        ("snap-loops", "/var/lib/images/new.img"),
    ] {
        let (_machine, inventory) = inventory(machine);
        assert_eq!(plain(&inventory, name), "", "{machine}: {name}");
    }
}

#[test]
fn a_system_disk_through_luks_and_lvm() {
    let (_machine, inventory) = inventory("nvme-laptop");
    let all = [
        "the running system has its / on /dev/dm-1 (vg-root)",
        "/dev/dm-1 (vg-root) is mounted at / (ext4, read-write)",
        "/dev/dm-2 is in use as swap",
        "/dev/nvme0n1p3 is held by LUKS /dev/dm-0 (cryptroot)",
        "/dev/dm-0 (cryptroot) is held by LVM /dev/dm-1 (vg-root)",
    ];
    let disk = plain(&inventory, "nvme0n1");
    has(&disk, &all);
    has(
        &disk,
        &[
            "the running system has its /boot on /dev/nvme0n1p2",
            "the running system has its /boot/efi on /dev/nvme0n1p1",
        ],
    );
    has(&plain(&inventory, "nvme0n1p3"), &all);
    let boot = plain(&inventory, "nvme0n1p2");
    has(&boot, &["/boot"]);
    assert!(!boot.contains("held by"), "{boot}");
}

#[test]
fn raid_members() {
    let (_machine, inventory) = inventory("sata-server");
    has(
        &plain(&inventory, "/dev/sdb2"),
        &[
            "/dev/sdb2 is held by software RAID (raid1) /dev/md0",
            "the running system has its /boot on /dev/md0",
        ],
    );
    has(
        &plain(&inventory, "md1"),
        &[
            "/dev/md1 is held by LVM /dev/dm-0 (vg0-root)",
            "mounted at /srv",
        ],
    );
}

#[test]
fn multipath_paths_and_maps() {
    let (_machine, inventory) = inventory("multipath-san");
    has(
        &plain(&inventory, "/dev/sdd"),
        &[
            "/dev/sdd is held by multipath /dev/dm-0 (mpatha)",
            "mounted at /data (xfs",
        ],
    );
    has(
        &plain(&inventory, "/dev/sdd1"),
        &["/dev/sdd is held by multipath"],
    );
    let map = plain(&inventory, "mpatha");
    has(
        &map,
        &[
            "mounted at /data",
            "held by mapped partition /dev/dm-1 (mpatha-part1)",
        ],
    );
    assert!(
        !map.contains("held by multipath"),
        "the map is no second disk: {map}"
    );
}

#[test]
fn bcache_and_btrfs_members() {
    let (_machine, inventory) = inventory("container-host");
    has(
        &plain(&inventory, "sdc"),
        &["/dev/sdc is held by bcache /dev/bcache0"],
    );
    has(&plain(&inventory, "sdd"), &["/dev/sdd is held by bcache"]);
    has(
        &plain(&inventory, "sdb"),
        &[
            "mounted at /data (btrfs",
            "held by the mounted btrfs 3f1c7a52",
        ],
    );
}

#[test]
fn swap_on_a_partition_and_in_a_file() {
    let (_machine, inventory) = inventory("swap");
    has(&plain(&inventory, "sda2"), &["/dev/sda2 is in use as swap"]);
    has(
        &plain(&inventory, "sdb"),
        &["/data/swap file is in use as swap"],
    );
    has(
        &plain(&inventory, "/data/swap file"),
        &["this file is in use as swap"],
    );
    assert_eq!(plain(&inventory, "/data/other"), "");
}

#[test]
fn mounts_with_odd_names() {
    let (_machine, inventory) = inventory("usb-stick");
    has(
        &plain(&inventory, "sdb1"),
        &["/dev/sdb1 is mounted at /media/ann/My Stick (vfat"],
    );
    has(&plain(&inventory, "sdb"), &["/media/ann/My Stick"]);
}

#[test]
fn mounts_of_other_namespaces() {
    let (_machine, inventory) = inventory("container-host");
    let text = plain(&inventory, "sde");
    has(
        &text,
        &[
            "mounted at /scratch (ext4, read-write) in another mount namespace, seen by process 4242 (containerd)",
        ],
    );
    assert_eq!(
        text.matches("/scratch").count(),
        1,
        "each namespace once: {text}"
    );
}

#[test]
fn lower_folders_of_overlays() {
    let (_machine, inventory) = inventory("container-host");
    has(
        &plain(&inventory, "sdf"),
        &[
            "mounted at /srv/layers (ext4",
            "mounted at /srv/merged (overlay",
        ],
    );
}

#[test]
fn the_stick_that_the_rescue_system_runs_from() {
    let (_machine, inventory) = inventory("rescue-stick");
    for name in ["sda", "sda1", "loop0"] {
        has(
            &plain(&inventory, name),
            &["the running system has its / on"],
        );
    }
    has(
        &plain(&inventory, "sda"),
        &["/run/live/medium", "loop device /dev/loop0 shows its file"],
    );
}

#[test]
fn a_live_system_whose_folders_lead_nowhere() {
    let machine = Machine::new("rescue-stick");
    let table = std::fs::read_to_string(machine.at("/proc/self/mountinfo")).unwrap();
    let table = table.replace(
        "lowerdir=/run/live/rootfs/filesystem.squashfs/",
        "lowerdir=/minimal.squashfs:/cow2",
    );
    machine.write("/proc/self/mountinfo", table.as_bytes());
    let inventory = machine.read();
    has(
        &plain(&inventory, "sda1"),
        &["the running system has its / on"],
    );
    assert_eq!(plain(&inventory, "nvme0n1"), "");
}

#[test]
fn loop_devices_and_the_files_behind_them() {
    let (machine, inventory) = inventory("snap-loops");
    has(&plain(&inventory, "loop3"), &["mounted at /mnt/img"]);
    has(
        &plain(&inventory, "/var/lib/images/disk.img"),
        &["loop device /dev/loop3 shows this file"],
    );
    let idle = "loop device /dev/loop5 shows this file as a disk";
    has(&plain(&inventory, "/var/lib/images/idle.img"), &[idle]);
    std::fs::hard_link(machine.at("/var/lib/images/idle.img"), machine.at("/other")).unwrap();
    has(&plain(&inventory, "/other"), &[idle]);
    has(
        &plain(&inventory, "vda"),
        &["loop device /dev/loop5 shows its file /var/lib/images/idle.img"],
    );
}
