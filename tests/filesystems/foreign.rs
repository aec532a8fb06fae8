//! Disks that others made: images that packages of Debian hold go through a backup and onto random
//! bytes. The partition table, what each file system's own checker says, and all files are the same
//! before and after.
//!
//! The packages are downloaded once into the tests' own folder below `target`. Where there is no
//! apt-get or no network these tests say `SKIPPED (needs apt and network)`; with
//! `STRATA_REQUIRE_FOREIGN=1` that is a failure. The large packages belong to the long campaign.

use crate::cycle::{Cycle, Part};
use crate::kit::privileged::{Loop, Mount, privileged};
use crate::kit::{bytes, long, scratch, store::number, tools};
use crate::manifest::Manifest;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the images of `forensics-samples-*` are, without their last word.
const SAMPLE: &str = "usr/share/forensics-samples/fs.";

#[test]
fn grub_rescue_disks() {
    images(
        "grub-rescue-pc",
        &[
            "usr/lib/grub-rescue/grub-rescue-cdrom.iso",
            "usr/lib/grub-rescue/grub-rescue-floppy.img",
        ],
    );
}

#[test]
fn ipxe_disk() {
    images("ipxe", &["usr/lib/ipxe/ipxe.iso"]);
}

#[test]
fn four_file_systems_on_one_disk() {
    sample("multiple");
}

/// One disk each, 30 MiB to download.
macro_rules! samples {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            if long() {
                sample(stringify!($name));
            }
        })*
    };
}

samples! { btrfs exfat ext2 ext4 ntfs vfat }

fn sample(name: &str) {
    images(
        &format!("forensics-samples-{name}"),
        &[&format!("{SAMPLE}{name}.xz")],
    );
}

/// Takes images of a package through the cycle; those that end in `.xz` are unpacked first.
fn images(package: &str, files: &[&str]) {
    let Some(folder) = unpacked(package) else {
        return;
    };
    for file in files {
        let dir = scratch();
        let path = folder.join(file);
        let plain = path.with_extension("");
        if file.ends_with(".xz") && !plain.exists() {
            tools::run("xz", &["--decompress", "--keep", path.to_str().unwrap()]);
        }
        round_trip(
            if file.ends_with(".xz") { &plain } else { &path },
            dir.path(),
        );
    }
}

/// The files of a package, downloaded and unpacked once.
fn unpacked(package: &str) -> Option<PathBuf> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
    let folder = cache.join(package);
    if folder.exists() {
        return Some(folder);
    }
    fs::create_dir_all(&cache).unwrap();
    let part = tempfile::Builder::new()
        .prefix(package)
        .tempdir_in(&cache)
        .unwrap();
    let download = || {
        let mut apt = tools::tool("apt-get");
        let apt = apt
            .args(["download", "--quiet", package])
            .current_dir(part.path());
        apt.output().is_ok_and(|output| output.status.success())
    };
    let update = || tools::tool("apt-get").args(["update", "--quiet"]).output();
    let there = download() || (update().is_ok() && download());
    if !there {
        let required = std::env::var_os("STRATA_REQUIRE_FOREIGN").is_some_and(|v| v == "1");
        assert!(
            !required,
            "{package} cannot be downloaded, and STRATA_REQUIRE_FOREIGN=1 says it can"
        );
        eprintln!("SKIPPED (needs apt and network): {package} cannot be downloaded");
        return None;
    }
    let mut entries = fs::read_dir(part.path()).unwrap();
    let file = entries
        .next()
        .expect("a downloaded package")
        .unwrap()
        .path();
    let whole = part.path().join("unpacked");
    tools::run("dpkg-deb", &[Path::new("--extract"), &file, &whole]);
    fs::rename(&whole, &folder).unwrap();
    Some(folder)
}

fn round_trip(disk: &Path, dir: &Path) {
    let cycle = Cycle::of(disk, dir);
    assert_eq!(table(disk), table(&cycle.restored), "{}", disk.display());
    let parts = cycle.plan["partitions"].as_array().unwrap();
    assert!(!parts.is_empty(), "{}", cycle.plan);
    for part in parts {
        let (start, len) = (number(part, "start"), number(part, "length"));
        let what = Part(part);
        println!(
            "{} at {start}: {}, {} of {len} bytes: {}",
            disk.display(),
            what.kind(),
            what.used(),
            what.reason()
        );
        if what.used() == len {
            bytes::assert_same_range(disk, start, &cycle.restored, start, len);
        }
        let before = Look::at(disk, part, dir, "before");
        let after = Look::at(&cycle.restored, part, dir, "after");
        assert_eq!(before.verdict, after.verdict, "{part}");
        match (before.files, after.files) {
            (Some(before), Some(after)) => before.assert_same(&after),
            (before, after) => assert!(before.is_none() && after.is_none(), "{part}"),
        }
    }
}

/// The partitions of a disk, without the paths of their devices.
fn table(disk: &Path) -> Option<Value> {
    let found = tools::table(disk)?;
    let parts = found["partitions"].as_array()?.iter();
    Some(
        parts
            .map(|p| json!([p["start"], p["size"], p["type"]]))
            .collect(),
    )
}

/// What the tools of a file system say of a partition.
struct Look {
    /// Exit status and words of its checker.
    verdict: Option<String>,
    /// Its files, where they can be listed.
    files: Option<Manifest>,
}

impl Look {
    /// Looks at a copy of partition `part` of `disk`, under the same name each time.
    fn at(disk: &Path, part: &Value, dir: &Path, when: &str) -> Look {
        let dir = dir.join(format!("{when}-{}", number(part, "number")));
        fs::create_dir(&dir).unwrap();
        let copy = dir.join("partition");
        copy_range(disk, number(part, "start"), number(part, "length"), &copy);
        let path = copy.to_str().unwrap();
        let kind = tools::try_run("blkid", &["-p", "-o", "value", "-s", "TYPE", path]);
        let kind = String::from_utf8_lossy(&kind.stdout).trim().to_owned();
        Look {
            verdict: verdict(&kind, &dir, path),
            files: files(&kind, &dir, &copy),
        }
    }
}

fn copy_range(disk: &Path, start: u64, len: u64, to: &Path) {
    bytes::create_sparse(to, len);
    let mut at = 0;
    while at < len {
        let count = (len - at).min(crate::kit::MIB);
        bytes::write(to, at, &bytes::read(disk, start + at, count));
        at += count;
    }
}

/// What the checker of a file system says without writing; `None` where there is none.
fn verdict(kind: &str, dir: &Path, path: &str) -> Option<String> {
    let (tool, args): (&str, &[&str]) = match kind {
        "ext2" | "ext3" | "ext4" => ("e2fsck", &["-f", "-n"]),
        "vfat" => ("fsck.fat", &["-n"]),
        "exfat" => ("fsck.exfat", &["-n"]),
        "ntfs" => ("ntfsfix", &["-n"]),
        "btrfs" => ("btrfs", &["check", "--readonly"]),
        "xfs" => ("xfs_repair", &["-n"]),
        _ => return None,
    };
    let output = tools::try_run(tool, &[args, &[path]].concat());
    let all = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&all).replace(dir.to_str().unwrap(), "");
    Some(format!("{kind}: {}\n{said}", output.status))
}

/// The files of a file system, mounted or copied out by its own tool.
fn files(kind: &str, dir: &Path, copy: &Path) -> Option<Manifest> {
    let at = dir.join("files");
    match kind {
        "vfat" => {
            fs::create_dir(&at).unwrap();
            let (from, to) = (copy.to_str().unwrap(), at.to_str().unwrap());
            tools::run("mcopy", &["-s", "-p", "-Q", "-i", from, "::*", to]);
            Some(Manifest::of(&at))
        }
        "ext2" | "ext3" | "ext4" | "btrfs" | "xfs" | "ntfs" => {
            if !privileged("the files of disks that others made") {
                return None;
            }
            let device = Loop::new(copy);
            if !mounts(device.path(), &at) {
                println!("{kind} at {} cannot be mounted", copy.display());
                return None;
            }
            let mount = Mount::new(device.path(), &at);
            Some(Manifest::of(mount.path()))
        }
        _ => None,
    }
}

/// Whether the system can mount `device`; samples of damage are among the disks.
fn mounts(device: &Path, at: &Path) -> bool {
    fs::create_dir(at).unwrap();
    let mounted = tools::try_run("mount", &[device, at]).status.success();
    if mounted {
        tools::run("umount", &[at]);
    }
    fs::remove_dir(at).unwrap();
    mounted
}
