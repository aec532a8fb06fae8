//! Physical volumes that LVM2's own tools make and read back. No device mapper is needed: logical
//! volumes are made without being activated, and files stand for them.

use crate::aged;
use crate::cycle::Cycle;
use crate::kit::privileged::{Loop, Mount, privileged, privileged_with_fs};
use crate::kit::{KIB, MIB, bytes, scratch, tools};
use crate::manifest::Manifest;
use std::path::{Path, PathBuf};
use std::process::Output;

const EXTENT: u64 = 4 * MIB;

/// A disk that is the only one that LVM sees.
pub(crate) struct Disk {
    device: Loop,
    /// Another that it sees.
    other: Option<Loop>,
    file: PathBuf,
    /// First byte of its extents.
    start: u64,
}

impl Disk {
    pub(crate) fn new(file: &Path) -> Disk {
        Disk {
            device: Loop::new(file),
            other: None,
            file: file.to_owned(),
            start: MIB,
        }
    }

    fn path(&self) -> &str {
        self.device.path().to_str().unwrap()
    }

    fn try_lvm(&self, tool: &str, args: &[&str]) -> Output {
        let other = self.other.as_ref().unwrap_or(&self.device);
        let filter = format!(
            "devices {{ filter = [\"a|^{}$|\", \"a|^{}$|\", \"r|.*|\"] use_devicesfile = 0 \
             obtain_device_list_from_udev = 0 }} global {{ use_lvmlockd = 0 use_lvmpolld = 0 \
             event_activation = 0 }} activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }} \
             backup {{ backup = 0 archive = 0 }}",
            self.path(),
            other.path().display()
        );
        let mut all = vec!["--config", &filter, "--driverloaded", "n"];
        all.extend(args);
        tools::try_run(tool, &all)
    }

    #[track_caller]
    pub(crate) fn lvm(&self, tool: &str, args: &[&str]) -> String {
        let output = self.try_lvm(tool, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes it the only disk of the group `vg0`, with `options` to `pvcreate`.
    pub(crate) fn make_group(&self, options: &[&str]) {
        let args = [&["-ff", "-y"], options, &[self.path()]].concat();
        self.lvm("pvcreate", &args);
        self.lvm("vgcreate", &["-s", "4m", "vg0", self.path()]);
    }

    /// A linear volume of so many extents.
    pub(crate) fn make_volume(&self, name: &str, extents: u64) {
        let extents = extents.to_string();
        let off = ["-an", "-Zn", "-Wn"];
        self.lvm(
            "lvcreate",
            &[
                &off,
                ["-l", extents.as_str(), "-n"].as_slice(),
                &[name, "vg0"],
            ]
            .concat(),
        );
    }

    /// Where `vg0/name` lies: first byte and length of each segment, as `lvs` tells.
    pub(crate) fn places(&self, name: &str) -> Vec<(u64, u64)> {
        let volume = format!("vg0/{name}");
        let args = ["--noheadings", "-o", "seg_pe_ranges", &volume];
        let listed = self.lvm("lvs", &args);
        let ranges = listed.split_whitespace();
        let place = |range: &str| {
            let (_, extents) = range.rsplit_once(':').unwrap();
            let (first, last) = extents.split_once('-').unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            (self.start + first * EXTENT, (last - first + 1) * EXTENT)
        };
        ranges.map(place).collect()
    }

    /// Copies the volume at `places` of the file `disk` into a new file.
    fn copy_out(disk: &Path, places: &[(u64, u64)], to: &Path) {
        let len = places.iter().map(|(_, len)| len).sum();
        bytes::create_sparse(to, len);
        let mut at = 0;
        for (place, len) in places {
            bytes::write(to, at, &bytes::read(disk, *place, *len));
            at += len;
        }
    }

    pub(crate) fn copy_in(&self, from: &Path, places: &[(u64, u64)]) {
        let mut at = 0;
        for (place, len) in places {
            bytes::write(&self.file, *place, &bytes::read(from, at, *len));
            at += len;
        }
    }
}

/// What the tools say of the disk, but for its device's name.
fn told(file: &Path) -> String {
    let disk = Disk::new(file);
    let columns = "lv_name,lv_uuid,seg_type,seg_start_pe,seg_pe_ranges";
    let volumes = disk.lvm("lvs", &["-a", "--noheadings", "-o", columns, "vg0"]);
    let group = disk.lvm(
        "vgs",
        &["--noheadings", "-o", "vg_uuid,vg_seqno,vg_mda_count", "vg0"],
    );
    disk.lvm("vgck", &["vg0"]);
    (volumes + &group).replace(disk.path(), "DISK")
}

#[test]
fn extents_that_no_volume_has_are_left_out() {
    if !privileged("LVM2 without file systems") {
        return;
    }
    let dir = scratch();
    let file = dir.path().join("pv");
    bytes::create_sparse(&file, 200 * MIB + 5 * KIB);
    let disk = Disk::new(&file);
    disk.make_group(&["--metadatacopies", "2"]);
    disk.make_volume("root", 6);
    disk.make_volume("home", 3);
    disk.lvm("lvextend", &["-l", "+4", "vg0/root"]);
    disk.lvm("lvremove", &["-y", "vg0/home"]);
    let places = disk.places("root");
    assert_eq!(places.len(), 2);
    for (at, len) in &places {
        bytes::write_random(&file, *at, *len, 7);
    }
    let count = disk.lvm(
        "vgs",
        &["--noheadings", "-o", "vg_extent_count,vg_free_count", "vg0"],
    );
    let counts: Vec<u64> = count
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    assert_eq!(counts[0] - counts[1], 10);
    drop(disk);
    let cycle = Cycle::of(&file, dir.path());
    cycle.only().assert_mapped("LVM2");
    assert_eq!(cycle.only().free(), counts[1] * EXTENT);
    assert_eq!(told(&file), told(&cycle.restored));
    for (at, len) in places {
        bytes::assert_same_range(&file, at, &cycle.restored, at, len);
    }
    let end = MIB + counts[0] * EXTENT;
    bytes::assert_same_range(&file, 0, &cycle.restored, 0, MIB);
    bytes::assert_same_range(&file, end, &cycle.restored, end, bytes::length(&file) - end);
}

#[test]
fn free_blocks_of_a_file_system_in_a_volume_are_left_out() {
    if !privileged_with_fs("ext4", "ext4 in a logical volume of two segments") {
        return;
    }
    let dir = scratch();
    let file = dir.path().join("pv");
    bytes::create_sparse(&file, 160 * MIB);
    let disk = Disk::new(&file);
    disk.make_group(&[]);
    disk.make_volume("root", 10);
    disk.make_volume("raw", 2);
    disk.lvm("lvextend", &["-l", "+7", "vg0/root"]);
    let places = disk.places("root");
    assert_eq!(places.len(), 2);
    let inner = dir.path().join("root");
    bytes::create_sparse(&inner, 17 * EXTENT);
    tools::run(
        "mkfs.ext4",
        &["-q", "-F", "-b", "4096", inner.to_str().unwrap()],
    );
    let manifest = {
        let device = Loop::new(&inner);
        let mount = Mount::new(device.path(), &dir.path().join("mnt"));
        aged::age(mount.path(), 20 * MIB, 11, aged::POSIX);
        Manifest::of(mount.path())
    };
    disk.copy_in(&inner, &places);
    let (raw, raw_len) = disk.places("raw")[0];
    bytes::write_random(&file, raw, raw_len, 8);
    drop(disk);
    let header = tools::run("dumpe2fs", &["-h", inner.to_str().unwrap()]);
    let blocks = header.lines().find_map(|l| l.strip_prefix("Free blocks:"));
    let blocks: u64 = blocks.unwrap().trim().parse().unwrap();

    let cycle = Cycle::of(&file, dir.path());
    cycle.only().assert_mapped("LVM2");
    let extents = (160 * MIB - MIB) / EXTENT - 19;
    assert_eq!(cycle.only().free(), extents * EXTENT + blocks * 4096);
    assert_eq!(told(&file), told(&cycle.restored));
    bytes::assert_same_range(&file, raw, &cycle.restored, raw, raw_len);
    let back = dir.path().join("root-restored");
    Disk::copy_out(&cycle.restored, &places, &back);
    tools::run("e2fsck", &["-fn", back.to_str().unwrap()]);
    let device = Loop::read_only(&back);
    let mount = Mount::new(device.path(), &dir.path().join("restored"));
    manifest.assert_same(&Manifest::of(mount.path()));
}

/// A snapshot of vg0/root in vg0/snap, as the description of a group has it.
const SNAPSHOT: &str = r#"logical_volumes {
    snapshot0 {
        id = "jO0VfD-vTUY-cyb8-VByP-2M6E-kt5h-PJ0idz"
        status = ["READ", "WRITE", "VISIBLE"]
        flags = []
        segment_count = 1
        segment1 {
            start_extent = 0
            extent_count = 8
            type = "snapshot"
            chunk_size = 8
            origin = "root"
            cow_store = "snap"
        }
    }
"#;

#[test]
fn origins_and_snapshots_are_taken_whole() {
    if !privileged("a snapshot of a logical volume") {
        return;
    }
    let dir = scratch();
    let file = dir.path().join("pv");
    bytes::create_sparse(&file, 100 * MIB);
    let disk = Disk::new(&file);
    disk.make_group(&[]);
    disk.make_volume("root", 8);
    disk.make_volume("snap", 3);
    // A file system with much free space: it must not be looked into.
    let inner = dir.path().join("root");
    bytes::create_sparse(&inner, 8 * EXTENT);
    tools::run("mkfs.ext4", &["-q", "-F", inner.to_str().unwrap()]);
    disk.copy_in(&inner, &disk.places("root"));
    let text = dir.path().join("vg0");
    let text = text.to_str().unwrap();
    disk.lvm("vgcfgbackup", &["-f", text, "vg0"]);
    let plain = std::fs::read_to_string(text).unwrap();
    let with_snapshot = plain.replacen("logical_volumes {", SNAPSHOT, 1);
    std::fs::write(text, with_snapshot).unwrap();
    disk.lvm("vgcfgrestore", &["-f", text, "vg0"]);
    let listed = disk.lvm("lvs", &["--noheadings", "-o", "lv_attr,origin", "vg0/snap"]);
    assert!(
        listed.trim().starts_with('s') && listed.contains("root"),
        "{listed}"
    );
    drop(disk);
    let cycle = Cycle::of(&file, dir.path());
    cycle.only().assert_mapped("LVM2");
    assert_eq!(cycle.only().free(), (24 - 11) * EXTENT);
    assert_eq!(told(&file), told(&cycle.restored));
}

#[test]
fn disks_that_do_not_describe_their_group_are_taken_whole() {
    if !privileged("LVM2 without a description") {
        return;
    }
    let dir = scratch();
    let file = dir.path().join("pv");
    let whole = |name: &str, why: &str| {
        let copy = dir.path().join(name);
        std::fs::copy(&file, &copy).unwrap();
        Cycle::of(&copy, dir.path())
            .only()
            .assert_whole("LVM2", why);
    };
    bytes::create_sparse(&file, 24 * MIB);
    let disk = Disk::new(&file);
    disk.lvm("pvcreate", &["-ff", "-y", disk.path()]);
    whole("orphan", "belongs to no volume group");
    disk.make_group(&[]);
    disk.make_volume("root", 2);
    drop(disk);
    bytes::flip(&file, 4096 + 40);
    whole("damaged", "checksum");
}

#[test]
fn groups_of_two_disks_are_taken_by_what_each_disk_knows() {
    if !privileged("LVM2 on two disks") {
        return;
    }
    let dir = scratch();
    let file = dir.path().join("pv");
    let file_2 = dir.path().join("pv-2");
    for file in [&file, &file_2] {
        bytes::create_sparse(file, 41 * MIB);
    }
    let mut disk = Disk::new(&file);
    let other = Loop::new(&file_2);
    let second = other.path().to_str().unwrap().to_owned();
    disk.other = Some(other);
    disk.make_group(&[]);
    disk.lvm("vgextend", &["vg0", &second]);
    let off = ["-an", "-Zn", "-Wn"];
    let striped = ["-i", "2", "-I", "64k", "-l", "4", "-n", "wide", "vg0"];
    disk.lvm("lvcreate", &[&off[..], &striped].concat());
    let plain = ["-l", "3", "-n", "far", "vg0", &second];
    disk.lvm("lvcreate", &[&off[..], &plain].concat());
    // Of two areas of four extents one half is here; the other volume is elsewhere.
    let cycle = Cycle::of(&file, dir.path());
    cycle.only().assert_mapped("LVM2");
    assert_eq!(cycle.only().free(), (10 - 2) * EXTENT);
    let cycle = Cycle::of(&file_2, dir.path());
    assert_eq!(cycle.only().free(), (10 - 5) * EXTENT);
    // What it holds from now on is out of date.
    disk.lvm("pvchange", &["--metadataignore", "y", disk.path()]);
    let copy = dir.path().join("ignored");
    std::fs::copy(&file, &copy).unwrap();
    let cycle = Cycle::of(&copy, dir.path());
    let why = "only on other physical volumes";
    cycle.only().assert_whole("LVM2", why);
}
