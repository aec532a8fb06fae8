//! A system disk, named in `STRATA_SYSTEM_DISK` or made of this machine's files: there and back
//! again onto bytes that are not zero. The file systems' own tools find nothing to complain of, and
//! every file is the same.

use crate::kit::bytes::{self, fingerprint};
use crate::kit::privileged::{Loop, Mount, privileged};
use crate::kit::run::text;
use crate::kit::store::Store;
use crate::kit::{GIB, scratch, tools};
use crate::manifest::Manifest;
use std::path::{Path, PathBuf};

/// The checks that each file system's own tool makes without writing.
fn check(filesystem: &str) -> Option<&'static [&'static str]> {
    Some(match filesystem {
        "ext2" | "ext3" | "ext4" => &["e2fsck", "-fn"],
        "vfat" => &["fsck.fat", "-n"],
        "xfs" => &["xfs_repair", "-n"],
        "btrfs" => &["btrfs", "check", "--readonly"],
        "ntfs" => &["ntfsfix", "--no-action"],
        _ => return None,
    })
}

/// Checks every file system of `disk` and returns their kinds.
fn checked(disk: &Path) -> Vec<String> {
    let table = tools::table(disk).expect("a system disk has a partition table");
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let mut kinds = Vec::new();
    for partition in table["partitions"].as_array().unwrap() {
        let at = |key: &str| partition[key].as_u64().unwrap() * sector;
        let device = Loop::of_range(disk, at("start"), at("size"));
        let probe = ["-p", "-o", "value", "-s", "TYPE", text(device.path())];
        let said = tools::try_run("blkid", &probe);
        let kind = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        if let Some(words) = check(&kind) {
            let args = [&words[1..], &[text(device.path())]].concat();
            tools::run(words[0], &args);
        }
        kinds.push(kind);
    }
    kinds
}

/// The files of every file system of `disk` that can be mounted here.
fn manifests(disk: &Path, dir: &Path) -> Vec<Manifest> {
    let table = tools::table(disk).expect("a system disk has a partition table");
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let mut found = Vec::new();
    for (index, partition) in table["partitions"].as_array().unwrap().iter().enumerate() {
        let at = |key: &str| partition[key].as_u64().unwrap() * sector;
        let device = Loop::of_range_read_only(disk, at("start"), at("size"));
        let probe = ["-p", "-o", "value", "-s", "TYPE", text(device.path())];
        let said = tools::try_run("blkid", &probe);
        let kind = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        let mount = dir.join(format!("mount-{index}"));
        match kind.as_str() {
            "ext4" | "btrfs" => {
                found.push(Manifest::of(Mount::read_only(device.path(), &mount).path()));
            }
            "xfs" => {
                let mount = Mount::with_options(device.path(), &mount, "ro,nouuid");
                found.push(Manifest::of(mount.path()));
            }
            _ => continue,
        }
        std::fs::remove_dir(&mount).unwrap();
    }
    found
}

/// The disk that was named, or one made here of this machine's files.
fn system_disk(dir: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("STRATA_SYSTEM_DISK") {
        return path.into();
    }
    let path = dir.join("system.img");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/disks/system-disk");
    tools::run(text(&script), &[text(&path)]);
    path
}

#[test]
#[ignore = "needs a whole system as a disk image: `./test --long`"]
fn comes_back_with_sound_file_systems() {
    if !privileged("a system disk comes back with sound file systems") {
        return;
    }
    let dir = scratch();
    let disk = system_disk(dir.path());
    let before = fingerprint(&disk);
    let kinds = checked(&disk);
    let known = kinds.iter().any(|kind| check(kind).is_some());
    assert!(known, "no file system to check: {kinds:?}");
    let files = manifests(&disk, dir.path());
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk);
    store.verify(&["--deep"]).expect(0);
    store
        .verify(&["latest", "--against", text(&disk)])
        .expect(0);

    let target = dir.path().join("target.img");
    bytes::create_filled(&target, bytes::length(&disk));
    {
        let device = Loop::new(&target);
        store.restore("latest", device.path()).run().expect(0);
    }
    assert_eq!(checked(&target), kinds);
    let restored = manifests(&target, dir.path());
    assert_eq!(files.len(), restored.len());
    files
        .iter()
        .zip(&restored)
        .for_each(|(a, b)| a.assert_same(b));

    let larger = dir.path().join("larger.img");
    bytes::create_sparse(&larger, bytes::length(&disk) + GIB);
    store.restore("latest", &larger).run().expect(0);
    // A partition off the usual boundaries, which the imaged disk had too, is no problem.
    let said = tools::run("sgdisk", &["-v", text(&larger)]);
    assert!(said.contains("No problems found"), "{said}");
    assert_eq!(checked(&larger), kinds);
    assert_eq!(fingerprint(&disk), before, "the source");
}
