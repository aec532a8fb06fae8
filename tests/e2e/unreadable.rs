//! Sources with bad sectors: everything else is saved, the loss is named to the byte, exit code 3.

use crate::kit::bytes::{self, assert_same_range};
use crate::kit::privileged::{Loop, Mount, privileged, privileged_with_fs};
use crate::kit::run::{Outcome, text};
use crate::kit::store::Store;
use crate::kit::{KIB, MIB, scratch, tools};
use serde_json::Value;
use std::path::Path;

/// Ranges of a report's member, as pairs.
fn ranges(report: &Outcome, value: &Value) -> Vec<(u64, u64)> {
    let list = value.as_array().unwrap_or_else(|| panic!("{report}"));
    let pair = |r: &Value| Some((r["start"].as_u64()?, r["length"].as_u64()?));
    list.iter()
        .map(|r| pair(r).unwrap_or_else(|| panic!("{report}")))
        .collect()
}

/// Backs up a source that has lost exactly `bad`, and checks all that is told of it afterwards.
#[track_caller]
fn saved_but_for(source: &Path, truth: &Path, bad: &[(u64, u64)], dir: &Path) {
    let store = Store::new(dir, "store");
    let report = store.backup(source).arg("--json").run().expect(3);
    assert_eq!(
        ranges(&report, &report.json()["unreadable"]),
        bad,
        "{report}"
    );
    let said = store.backup(source).run().expect(3);
    for (start, _) in bad {
        assert!(
            said.all_text().contains(&start.to_string()),
            "{start}: {said}"
        );
    }
    let shown = store
        .verb("show")
        .args(["latest", "--json"])
        .run()
        .expect(0);
    assert_eq!(ranges(&shown, &shown.json()["unreadable"]), bad, "{shown}");
    assert!(
        shown.json()["blocks"]["unreadable"].as_u64() > Some(0),
        "{shown}"
    );
    // The image itself is whole: what it says is missing was missing.
    store.verify(&["--deep"]).expect(0);

    let target = dir.join("target.img");
    let len = bytes::length(truth);
    bytes::create_filled(&target, len);
    let restored = store
        .restore("latest", &target)
        .arg("--json")
        .run()
        .expect(3);
    assert_eq!(
        ranges(&restored, &restored.json()["unreadable"]),
        bad,
        "{restored}"
    );
    let mut at = 0;
    for (start, length) in bad {
        assert_same_range(truth, at, &target, at, start - at);
        at = start + length;
    }
    assert_same_range(truth, at, &target, at, len - at);
}

/// A loop device whose file was cut: what lies behind the cut cannot be read any more.
#[test]
fn the_end_of_a_disk() {
    if !privileged("a disk whose end cannot be read") {
        return;
    }
    let dir = scratch();
    let (truth, backing) = (dir.path().join("truth.img"), dir.path().join("source.img"));
    let (len, cut) = (16 * MIB, 11 * MIB + 20 * KIB);
    bytes::create_sparse(&truth, len);
    bytes::write_random(&truth, 0, len, 111);
    std::fs::copy(&truth, &backing).unwrap();
    let device = Loop::new(&backing);
    bytes::open_rw(&backing).set_len(cut).unwrap();
    saved_but_for(device.path(), &truth, &[(cut, len - cut)], dir.path());
}

/// A file on a btrfs, some of whose blocks no longer have the checksums that the btrfs remembers.
#[test]
fn blocks_in_the_middle() {
    if !privileged_with_fs("btrfs", "a disk with unreadable blocks in its middle") {
        return;
    }
    let dir = scratch();
    let truth = dir.path().join("truth.img");
    bytes::create_sparse(&truth, 16 * MIB);
    bytes::write_random(&truth, 0, 16 * MIB, 112);
    let medium = dir.path().join("btrfs.img");
    bytes::create_sparse(&medium, 160 * MIB);
    tools::run(
        "mkfs.btrfs",
        &["-q", "-d", "single", "-m", "single", text(&medium)],
    );
    let device = Loop::new(&medium);
    {
        let mount = Mount::new(device.path(), &dir.path().join("first"));
        std::fs::copy(&truth, mount.path().join("disk.img")).unwrap();
    }
    let bad = [
        (5 * MIB, 4 * KIB),
        (5 * MIB + 12 * KIB, 8 * KIB),
        (9 * MIB + 4 * KIB, 4 * KIB),
    ];
    for (start, len) in bad {
        for at in (start..start + len).step_by(4096) {
            spoil(&medium, &bytes::read(&truth, at, 4096));
        }
    }
    let mount = Mount::new(device.path(), &dir.path().join("second"));
    saved_but_for(&mount.path().join("disk.img"), &truth, &bad, dir.path());
}

/// Changes one byte of the one block of `medium` that holds `content`.
fn spoil(medium: &Path, content: &[u8]) {
    let len = bytes::length(medium);
    for at in (0..len).step_by(crate::kit::size(MIB)) {
        let chunk = bytes::read(medium, at, MIB.min(len - at));
        let found = chunk.chunks(4096).position(|block| block == content);
        if let Some(block) = found {
            bytes::flip(medium, at + 4096 * block as u64 + 100);
            return;
        }
    }
    panic!("the block is nowhere on the medium");
}

#[test]
fn a_disk_of_which_nothing_can_be_read_is_no_backup() {
    if !privileged("a disk of which nothing can be read") {
        return;
    }
    let dir = scratch();
    let backing = dir.path().join("source.img");
    bytes::create_filled(&backing, 8 * MIB);
    let device = Loop::new(&backing);
    bytes::open_rw(&backing).set_len(0).unwrap();
    let store = Store::new(dir.path(), "store");
    store.backup(device.path()).run().expect(5);
    assert_eq!(store.files(), []);
}
