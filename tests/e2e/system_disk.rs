//! A system disk, named in `STRATA_SYSTEM_DISK` or made of this machine's files: there and back
//! again, and the file systems' own tools find nothing to complain of.

use crate::kit::bytes::{self, assert_same, fingerprint};
use crate::kit::privileged::{Loop, privileged};
use crate::kit::run::text;
use crate::kit::store::Store;
use crate::kit::{GIB, scratch, tools};
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
#[ignore = "a long campaign"]
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
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk);
    store.verify(&["--deep"]).expect(0);
    store
        .verify(&["latest", "--against", text(&disk)])
        .expect(0);

    let target = dir.path().join("target.img");
    bytes::create_sparse(&target, bytes::length(&disk));
    {
        let device = Loop::new(&target);
        store.restore("latest", device.path()).run().expect(0);
    }
    assert_same(&disk, &target);
    assert_eq!(checked(&target), kinds);

    let larger = dir.path().join("larger.img");
    bytes::create_sparse(&larger, bytes::length(&disk) + GIB);
    store.restore("latest", &larger).run().expect(0);
    tools::assert_gpt_sound(&larger);
    assert_eq!(checked(&larger), kinds);
    assert_eq!(fingerprint(&disk), before, "the source");
}
