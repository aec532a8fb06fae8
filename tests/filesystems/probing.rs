//! What answers to several names, what has a tail, and what lies in a partition too small for it.

use crate::cycle::Cycle;
use crate::kit::bytes::{self, assert_same_range};
use crate::kit::run::text;
use crate::kit::{KIB, MIB, scratch, tools};
use std::path::{Path, PathBuf};

fn ext4(dir: &Path, name: &str, len: u64, fs_len: u64) -> PathBuf {
    let path = dir.join(name);
    bytes::create_sparse(&path, len);
    let blocks = (fs_len / 4096).to_string();
    tools::run(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-b", "4096", text(&path), &blocks],
    );
    path
}

#[test]
fn two_signatures_are_no_answer() {
    let dir = scratch();
    let both = ext4(dir.path(), "both", 400 * MIB, 400 * MIB);
    let xfs = dir.path().join("xfs");
    bytes::create_sparse(&xfs, 400 * MIB);
    tools::run("mkfs.xfs", &["-q", text(&xfs)]);
    // The superblock of XFS lies in front of that of ext4: both are whole.
    bytes::write(&both, 0, &bytes::read(&xfs, 0, 512));
    let cycle = Cycle::of(&both, dir.path());
    cycle.only().assert_whole("unknown", "signatures of");
    let part = cycle.only();
    let reason = part.reason();
    assert!(
        reason.contains("ext4") && reason.contains("XFS"),
        "{reason}"
    );
}

#[test]
fn what_lies_behind_a_file_system_comes_along() {
    let dir = scratch();
    let disk = ext4(dir.path(), "disk", 64 * MIB, 40 * MIB);
    // A superblock of RAID, keys, boot code: whatever lies there.
    let tail = bytes::Stream::new(9).bytes(70 * KIB);
    bytes::write(&disk, 40 * MIB, &tail);
    bytes::write(&disk, 64 * MIB - 70 * KIB, &tail);
    let cycle = Cycle::of(&disk, dir.path());
    cycle.only().assert_mapped("ext4");
    assert!(cycle.only().free() > 20 * MIB);
    assert_same_range(&disk, 40 * MIB, &cycle.restored, 40 * MIB, 24 * MIB);
}

#[test]
fn a_file_system_that_is_cut_off_is_taken_whole() {
    let dir = scratch();
    let disk = ext4(dir.path(), "disk", 64 * MIB, 64 * MIB);
    bytes::open_rw(&disk).set_len(48 * MIB).unwrap();
    let cycle = Cycle::of(&disk, dir.path());
    cycle.only().assert_whole("ext4", "");
    bytes::assert_same(&disk, &cycle.restored);
}

#[test]
fn noise_and_nothing_are_taken_whole() {
    let dir = scratch();
    for (name, noise) in [("noise", 16 * MIB), ("nothing", 0)] {
        let disk = dir.path().join(name);
        bytes::create_sparse(&disk, 16 * MIB);
        bytes::write_random(&disk, 0, noise, 5);
        let cycle = Cycle::of(&disk, dir.path());
        cycle.only().assert_whole("unknown", "no known file system");
        bytes::assert_same(&disk, &cycle.restored);
    }
}
