//! Full destinations: said with numbers, nothing half-made left, and nothing that was there lost.

use crate::kit::bytes::{self, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Loop, Mount, privileged};
use crate::kit::run::{Outcome, text};
use crate::kit::store::Store;
use crate::kit::{MIB, scratch, tools};
use std::path::{Path, PathBuf};

/// Fails unless it was said how much would have been needed and how much is free.
#[track_caller]
fn expect_full(outcome: Outcome) {
    let outcome = outcome.expect(6).expect_says("free");
    let words: Vec<&str> = outcome.stderr.split_whitespace().collect();
    let unit = |w: &str| ["B", "KiB", "MiB", "GiB"].contains(&w.trim_matches([',', '.', ';', ':']));
    let lengths = words
        .windows(2)
        .filter(|w| w[0].parse::<f64>().is_ok() && unit(w[1]));
    assert!(
        lengths.count() >= 2,
        "how much is needed and how much is free: {outcome}"
    );
}

/// Free space of a mounted file system, in bytes.
fn free(at: &std::path::Path) -> u64 {
    let said = tools::run("stat", &["-f", "-c", "%a %S", text(at)]);
    said.split_whitespace()
        .map(|n| n.parse::<u64>().unwrap())
        .product()
}

#[test]
fn a_store_that_is_full_keeps_what_it_has_and_nothing_else() {
    if !privileged("a store on a full file system") {
        return;
    }
    let dir = scratch();
    let small = Disk::build(Layout::Odd, dir.path(), "small.img", 101);
    let large = Disk::build(Layout::Random, dir.path(), "large.img", 102);
    let on_ext4 = dir.path().join("ext4.img");
    bytes::create_sparse(&on_ext4, 24 * MIB);
    tools::run(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-m", "0", text(&on_ext4)],
    );
    let device = Loop::new(&on_ext4);
    for mount in [
        Mount::memory(&dir.path().join("tmpfs"), 16 * MIB),
        Mount::new(device.path(), &dir.path().join("ext4")),
    ] {
        let store = Store::new(mount.path(), "store");
        store.backed_up(&small.path);
        let files = store.files();
        let room = free(mount.path());
        expect_full(store.backup(&large.path).run());
        let json = store.backup(&large.path).arg("--json").run().expect(6);
        assert_eq!(json.json()["error"]["kind"], "destination", "{json}");
        assert_eq!(store.files(), files);
        tools::run("sync", &["-f", text(mount.path())]);
        let given_back = free(mount.path());
        assert!(
            given_back + MIB >= room,
            "{given_back} bytes free, {room} before"
        );
        store.verify(&["--deep"]).expect(0);
        // The store goes on working.
        store.backed_up(&small.path);
        assert_eq!(store.list().len(), 2);
        store.assert_no_clutter();
        let target = dir.path().join("target.img");
        store.restore("latest", &target).run().expect(0);
        assert_same(&small.path, &target);
        std::fs::remove_file(&target).unwrap();
    }
}

#[test]
fn a_store_without_room_for_one_byte() {
    if !privileged("a store on a file system without any room") {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "disk.img", 103);
    let mount = Mount::memory(&dir.path().join("tmpfs"), MIB);
    let store = Store::new(mount.path(), "store");
    bytes::create_sparse(&mount.path().join("ballast"), 0);
    let ballast = vec![1; crate::kit::size(MIB)];
    // Takes all there is; the error says so.
    let _ = std::fs::write(mount.path().join("ballast"), &ballast);
    assert_eq!(free(mount.path()), 0);
    expect_full(store.backup(&disk.path).run());
    assert_eq!(store.files(), []);
}

#[test]
fn a_target_file_without_room() {
    if !privileged("a new target file on a full file system") {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 104);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let mount = Mount::memory(&dir.path().join("tmpfs"), 8 * MIB);
    let target = mount.path().join("target.img");
    store
        .restore("latest", &target)
        .run()
        .expect(6)
        .expect_says("target.img");
    assert!(
        !target.exists(),
        "a restore that could not be done leaves no half disk"
    );
    let raw = mount.path().join("export.raw");
    store
        .verb("export")
        .arg("latest")
        .arg(&raw)
        .run()
        .expect(6)
        .expect_says("export.raw");
    assert!(!raw.exists());
}

#[test]
fn a_sparse_target_needs_only_the_room_of_its_data() {
    if !privileged("a sparse target file on a small file system") {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(Layout::Zero, dir.path(), "disk.img", 105);
    bytes::write_random(&disk.path, 30 * MIB, MIB, 105);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let mount = Mount::memory(&dir.path().join("tmpfs"), 8 * MIB);
    let target = mount.path().join("target.img");
    store.restore("latest", &target).run().expect(0);
    assert_same(&disk.path, &target);
    let raw = mount.path().join("export.raw");
    store.verb("export").arg("latest").arg(&raw).run().expect(0);
    assert_same(&disk.path, &raw);
}

#[test]
fn a_store_that_is_read_only() {
    if !privileged("a store on a read-only file system") {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "disk.img", 106);
    let mount = Mount::memory(&dir.path().join("tmpfs"), 32 * MIB);
    let store = Store::new(mount.path(), "store");
    store.backed_up(&disk.path);
    tools::run("mount", &["-o", "remount,ro", text(mount.path())]);
    store.backup(&disk.path).run().expect(6);
    // Reading needs no writing.
    assert_eq!(store.list().len(), 1);
    store.verify(&["--deep"]).expect(0);
    let target = dir.path().join("target.img");
    store.restore("latest", &target).run().expect(0);
    assert_same(&disk.path, &target);
}

/// As a quota does it, but for everybody.
#[test]
fn a_limit_on_the_size_of_files_is_a_full_destination() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 107);
    let store = Store::new(dir.path(), "store");
    let script = "ulimit -f 4096; exec \"$@\"";
    let run = store
        .backup(&disk.path)
        .start_below(&["bash", "-c", script, "bash"]);
    run.wait().expect(6);
    assert_eq!(store.files(), []);
}

#[test]
fn few_files_may_be_open() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "disk.img", 108);
    let store = Store::new(dir.path(), "store");
    let target = dir.path().join("target.img");
    let few = ["bash", "-c", "ulimit -n 32; exec \"$@\"", "bash"];
    store.backup(&disk.path).start_below(&few).wait().expect(0);
    store
        .verb("verify")
        .arg("--deep")
        .start_below(&few)
        .wait()
        .expect(0);
    store
        .restore("latest", &target)
        .start_below(&few)
        .wait()
        .expect(0);
    assert_same(&disk.path, &target);
}

/// A disk of 1 MiB of which another block of 4 KiB was changed each day, and a store with all these days.
fn a_block_a_day(dir: &Path, days: u64) -> (PathBuf, Store) {
    let disk = dir.join("disk.img");
    bytes::create_sparse(&disk, MIB);
    bytes::write_random(&disk, 0, MIB, 109);
    let store = Store::new(dir, "store");
    for day in 0..days {
        bytes::write_random(&disk, day * 4096, 4096, 200 + day);
        let backup = store.backup(&disk);
        backup.args(["--block-size", "4K"]).run().expect(0);
    }
    (disk, store)
}

/// Each limit lets one file more be opened, and at some none beside the image's own: which those are depends on what
/// else a process has open.
#[test]
fn what_no_file_is_left_for_is_not_called_damaged() {
    let dir = scratch();
    let (_, store) = a_block_a_day(dir.path(), 8);
    let target = dir.path().join("target.img");
    let (mut in_vain, mut done) = (0, 0);
    for most in 5..14 {
        let limit = format!("--nofile={most}");
        let few = ["prlimit", &limit, "--"];
        let _ = std::fs::remove_file(&target);
        for run in [store.verb("verify"), store.restore("latest", &target)] {
            let outcome = run.start_below(&few).wait();
            assert!(!outcome.stderr.contains("damaged"), "{most}: {outcome}");
            match outcome.code() {
                Some(0) => done += 1,
                Some(6) => in_vain += 1,
                // Which disks there are could not be listed.
                Some(5) => {}
                _ => panic!("{most}: {outcome}"),
            }
        }
    }
    assert!(in_vain > 4 && done > 4, "{in_vain} in vain, {done} done");
}

/// A window of the disk has its blocks in 64 files, and the one behind it in others: not all can be open at once.
#[test]
fn a_long_chain_needs_few_open_files() {
    let dir = scratch();
    let (disk, store) = a_block_a_day(dir.path(), 130);
    let target = dir.path().join("target.img");
    for few in ["--nofile=100", "--nofile=100:4096"] {
        let few = ["prlimit", few, "--"];
        let _ = std::fs::remove_file(&target);
        let restore = store.restore("latest", &target);
        restore.start_below(&few).wait().expect(0);
        assert_same(&disk, &target);
        let deep = store.verb("verify").args(["latest", "--deep"]);
        deep.start_below(&few).wait().expect(0);
    }
    // Too few for one window: that is no damage.
    let restore = store.restore("latest", &dir.path().join("other.img"));
    let outcome = restore
        .start_below(&["prlimit", "--nofile=60", "--"])
        .wait();
    let outcome = outcome.expect(6).expect_says("ulimit");
    assert!(!outcome.stderr.contains("damaged"), "{outcome}");
    let prune = store.verb("prune").args(["--keep-last", "2"]);
    prune
        .start_below(&["prlimit", "--nofile=100", "--"])
        .wait()
        .expect(0);
    store.verify(&["--deep"]).expect(0);
}
