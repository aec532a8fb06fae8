//! What a backup takes and what it leaves out, on disks whose free space is full of old bytes.

use crate::kit::bytes::{self, FILLER, assert_same, assert_same_range};
use crate::kit::privileged::{Loop, Mount, privileged};
use crate::kit::run::{Outcome, text};
use crate::kit::store::{Store, number};
use crate::kit::{KIB, MIB, scratch, tools};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What stands in free space.
const OLD: &[u8; 16] = b"deleted-secrets!";

/// Partitions: 1 ext4, 2 swap, 3 bytes that mean nothing, 4 BIOS boot.
const PARTS: [(u64, u64); 4] = [
    (MIB, 64 * MIB),
    (65 * MIB, 16 * MIB),
    (81 * MIB, 4 * MIB),
    (85 * MIB, MIB),
];

/// A disk of 96 MiB that has seen use: every byte that nobody wrote since says so.
fn used_disk(dir: &Path) -> PathBuf {
    let path = dir.join("disk");
    bytes::create_sparse(&path, 96 * MIB);
    let pattern = OLD.repeat(64 * 1024);
    for at in (0..96 * MIB).step_by(1 << 20) {
        bytes::write(&path, at, &pattern);
    }
    // Outside of partitions nothing is old.
    bytes::write(&path, 0, &vec![0; 1 << 20]);
    bytes::write(&path, 86 * MIB, &vec![0; 10 << 20]);
    let guid = "--disk-guid=00000000-0000-4000-8000-00000000d15c";
    let mut args: Vec<String> = vec!["-a2048".into(), guid.into()];
    for (index, (start, len)) in PARTS.iter().enumerate() {
        let (n, kind) = (index + 1, ["8300", "8200", "8300", "ef02"][index]);
        args.push(format!("-n{n}:{}:{}", start / 512, (start + len) / 512 - 1));
        args.push(format!("-t{n}:{kind}"));
        args.push(format!("-u{n}:00000000-0000-4000-8000-00000000000{n}"));
    }
    args.push(text(&path).to_owned());
    tools::run("sgdisk", &args);

    let tree = scratch();
    let mut stream = bytes::Stream::new(7);
    for n in 0..40u64 {
        let content = stream.bytes(100 + n * 3000);
        std::fs::write(tree.path().join(format!("file-{n}")), content).unwrap();
    }
    let options = format!(
        "offset={MIB},nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,\
         hash_seed=00000000-0000-4000-8000-0000000000e4"
    );
    let uuid = "00000000-0000-4000-8000-0000000000e4";
    // Without room for growth, which is in use but never written.
    let ext4 = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^resize_inode",
        "-b",
        "4096",
        "-U",
        uuid,
        "-E",
        &options,
    ];
    let ext4 = [&ext4[..], &["-d", text(tree.path()), text(&path), "16384"]].concat();
    tools::run("mke2fs", &ext4);

    let swap = dir.join("swap");
    bytes::create_sparse(&swap, PARTS[1].1);
    tools::run("mkswap", &["-q", "-U", uuid, "-L", "pages", text(&swap)]);
    bytes::write(&path, PARTS[1].0, &bytes::read(&swap, 0, 4096));
    path
}

fn plan(store: &Store, disk: &Path, options: &[&str]) -> Value {
    let backup = store
        .backup(disk)
        .args(options)
        .args(["--dry-run", "--json"]);
    backup.run().expect(0).json()["plan"].clone()
}

fn part(plan: &Value, wanted: u64) -> &Value {
    let mut parts = plan["partitions"].as_array().unwrap().iter();
    parts.find(|p| number(p, "number") == wanted).unwrap()
}

/// How often `needle` stands in the first `len` bytes behind `at`, on a grid of its length.
fn count(path: &Path, at: u64, len: u64, needle: &[u8]) -> usize {
    let content = bytes::read(path, at, len);
    content
        .chunks(needle.len())
        .filter(|c| *c == needle)
        .count()
}

/// Exports the newest image as a raw disk.
fn exported(store: &Store, dir: &Path, name: &str) -> PathBuf {
    let raw = dir.join(name);
    let export = store.verb("export").args(["latest", text(&raw)]);
    export.run().expect(0);
    raw
}

#[test]
fn free_space_is_not_in_the_image() {
    let dir = scratch();
    let disk = used_disk(dir.path());
    let store = Store::new(dir.path(), "store");
    let planned = plan(&store, &disk, &[]);
    let (ext4, swap) = (part(&planned, 1), part(&planned, 2));
    assert_eq!(ext4["filesystem"], "ext4");
    assert_eq!(swap["filesystem"], "swap");
    assert_eq!(swap["label"], "pages");
    assert_eq!(number(swap, "used"), 4 * KIB, "{swap}");
    assert_eq!(part(&planned, 4)["filesystem"], "BIOS boot");

    let said = tools::run("dumpe2fs", &["-h", text(&extracted(&disk, dir.path()))]);
    let field = |name: &str| -> u64 {
        let line = said.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    let in_use = (field("Block count:") - field("Free blocks:")) * 4096;
    assert_eq!(number(ext4, "used"), in_use);

    store.backed_up(&disk);
    let raw = exported(&store, dir.path(), "raw");
    assert!(count(&disk, PARTS[0].0, PARTS[0].1, OLD) > 100_000);
    assert_eq!(count(&raw, PARTS[0].0, PARTS[0].1, OLD), 0);
    assert_eq!(count(&raw, PARTS[1].0, PARTS[1].1, OLD), 0);
    // What means nothing to anybody is there to the last byte.
    assert_same_range(&disk, PARTS[2].0, &raw, PARTS[2].0, PARTS[2].1 + PARTS[3].1);
    assert_same_range(&disk, 0, &raw, 0, MIB);
    let restored = extracted(&raw, dir.path());
    tools::run("e2fsck", &["-fn", text(&restored)]);
}

/// The ext4 partition as a file.
fn extracted(disk: &Path, dir: &Path) -> PathBuf {
    let name = disk.file_name().unwrap().to_str().unwrap();
    let alone = dir.join(format!("ext4-of-{name}"));
    std::fs::write(&alone, bytes::read(disk, PARTS[0].0, PARTS[0].1)).unwrap();
    alone
}

#[test]
fn other_bytes_in_free_space_make_no_difference() {
    let dir = scratch();
    let disk = used_disk(dir.path());
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk);
    // The same disk, with other old bytes in the free space of its first two partitions.
    let other = dir.path().join("other");
    std::fs::copy(&disk, &other).unwrap();
    for (start, len) in &PARTS[..2] {
        let mut content = bytes::read(&other, *start, *len);
        let old = content.chunks_mut(OLD.len()).filter(|c| c == OLD);
        old.for_each(|c| c.copy_from_slice(b"other old bytes."));
        bytes::write(&other, *start, &content);
    }
    let against = |path: &Path| store.verify(&["latest", "--against", text(path)]);
    against(&disk).expect(0);
    against(&other).expect(0);

    // A byte in use is a difference: the last one of a file's first block, and one of the table.
    let at = PARTS[0].0 + 1024 + 0x78;
    bytes::flip(&other, at);
    against(&other).expect(11);
    bytes::flip(&other, at);
    bytes::flip(&other, PARTS[2].0);
    against(&other).expect(11);
}

#[test]
fn all_blocks_are_all_bytes() {
    let dir = scratch();
    let disk = used_disk(dir.path());
    let store = Store::new(dir.path(), "store");
    let planned = plan(&store, &disk, &["--all-blocks"]);
    assert_eq!(part(&planned, 1)["taken"], part(&planned, 1)["length"]);
    assert_eq!(part(&planned, 1)["filesystem"], "ext4");
    assert_eq!(planned["fallbacks"], Value::Array(Vec::new()));
    store.backup(&disk).arg("--all-blocks").run().expect(0);
    assert_same(&disk, &exported(&store, dir.path(), "raw"));
    store
        .verify(&["latest", "--against", text(&disk)])
        .expect(0);
    let shown = store
        .verb("show")
        .args(["latest", "--json"])
        .run()
        .expect(0);
    assert_eq!(shown.json()["take"]["all_blocks"], true);
}

#[test]
fn one_partition_of_many() {
    let dir = scratch();
    let disk = used_disk(dir.path());
    let store = Store::new(dir.path(), "store");
    let backup = store.backup(&disk).args(["--partition", "3,4"]);
    backup.run().expect(0);
    let raw = exported(&store, dir.path(), "raw");
    assert_same_range(&disk, PARTS[2].0, &raw, PARTS[2].0, PARTS[2].1 + PARTS[3].1);
    // The partition table and the gaps come along, the others do not.
    assert_same_range(&disk, 0, &raw, 0, MIB);
    assert_same_range(&disk, 86 * MIB, &raw, 86 * MIB, 10 * MIB);
    let zeros = vec![0; 4096];
    assert_eq!(bytes::read(&raw, PARTS[0].0 + 4096, 4096), zeros);
    store
        .verify(&["latest", "--against", text(&disk)])
        .expect(0);

    let target = dir.path().join("target");
    bytes::create_filled(&target, 96 * MIB);
    let whole = store.restore("latest", &target).run().expect(0);
    whole.expect_says("partition 1 was left out");
    let wanted = |number: &str| {
        let restore = store.restore("latest", &dir.path().join("part"));
        restore.args(["--partition", number]).run()
    };
    wanted("1").expect(10).expect_says("left out");
    wanted("3").expect(0);
    assert_same_range(&disk, PARTS[2].0, &dir.path().join("part"), 0, PARTS[2].1);
    store
        .backup(&disk)
        .args(["--partition", "9"])
        .run()
        .expect(10);
}

#[test]
fn strict_runs_fail_where_others_take_everything() {
    let dir = scratch();
    let disk = used_disk(dir.path());
    let store = Store::new(dir.path(), "store");
    let strict = || -> Outcome { store.backup(&disk).arg("--strict").run() };
    strict().expect(5).expect_says("partition 3");
    assert!(store.list().is_empty());
    let report = store.backup(&disk).arg("--json").run().expect(0).json();
    let fallbacks = report["fallbacks"].as_array().unwrap();
    assert_eq!(fallbacks.len(), 1, "{report}");
    assert_eq!(number(&fallbacks[0], "partition"), 3);
    assert_eq!(number(&fallbacks[0], "bytes"), 4 * MIB);
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("partition 3 (unknown) is taken whole, all 4 MiB"),
        "{warnings}"
    );
    // What is known to have no file system is no fallback.
    bytes::write(&disk, PARTS[2].0, &vec![0; 4 << 20]);
    let options = ["--strict", "--partition", "1,2,4"];
    store.backup(&disk).args(options).run().expect(0);
}

#[test]
fn what_is_left_out_on_request_reads_as_zeros() {
    let dir = scratch();
    let disk = used_disk(dir.path());
    let store = Store::new(dir.path(), "store");
    let report = store.backup(&disk).args(["--exclude", "swap", "--json"]);
    let report = report.run().expect(0).json();
    let swap = &report["partitions"].as_array().unwrap()[1];
    assert!(number(swap, "excluded") >= 15 * MIB, "{swap}");
    let shown = store
        .verb("show")
        .args(["latest", "--json"])
        .run()
        .expect(0);
    let shown = shown.json();
    assert_eq!(shown["take"]["exclude"][0], "swap");
    // Recorded as zeros, not as free.
    assert!(number(&shown["blocks"], "zero") >= 15 * 16, "{shown}");
    let target = dir.path().join("target");
    bytes::create_filled(&target, 96 * MIB);
    store.restore("latest", &target).run().expect(0);
    assert_eq!(
        count(&target, PARTS[1].0 + MIB, 15 * MIB, &[0; 16]),
        (15 << 20) / 16
    );
    store
        .verify(&["latest", "--against", text(&disk)])
        .expect(0);
    store
        .backup(&disk)
        .args(["--exclude", "music"])
        .run()
        .expect(2)
        .expect_says("pagefile");
}

#[test]
fn ends_of_partitions_hold_no_old_bytes() {
    let dir = scratch();
    let disk = used_disk(dir.path());
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk);
    let target = dir.path().join("target");
    bytes::create_filled(&target, 96 * MIB);
    store.restore("latest", &target).run().expect(0);
    for (start, len) in PARTS {
        for at in [start, start + len - MIB] {
            assert_eq!(count(&target, at, MIB, &[FILLER; 16]), 0, "at {at}");
        }
    }
}

#[test]
fn what_is_mounted_for_writing_is_taken_whole() {
    if !privileged("what is mounted for writing is taken whole") {
        return;
    }
    let dir = scratch();
    let disk = used_disk(dir.path());
    let alone = extracted(&disk, dir.path());
    let device = Loop::new(&alone);
    let store = Store::new(dir.path(), "store");
    let whole = |options: &str| {
        let mount = Mount::with_options(device.path(), &dir.path().join("mnt"), options);
        let planned = plan(&store, device.path(), &[]);
        drop(mount);
        std::fs::remove_dir(dir.path().join("mnt")).unwrap();
        part(&planned, 0).clone()
    };
    let live = whole("rw");
    // An image of all bytes is compared with all bytes, though less would be taken now.
    {
        let mount = Mount::with_options(device.path(), &dir.path().join("mnt"), "rw");
        store.backup(device.path()).run().expect(0);
        drop(mount);
        std::fs::remove_dir(dir.path().join("mnt")).unwrap();
    }
    let target = dir.path().join("target");
    store.restore("latest", &target).run().expect(0);
    store
        .verify(&["latest", "--against", text(&target)])
        .expect(0);
    assert_eq!(live["used"], live["length"], "{live}");
    assert!(
        live["reason"].as_str().unwrap().contains("mounted at"),
        "{live}"
    );
    let still = whole("ro");
    assert!(
        number(&still, "used") < number(&still, "length") / 2,
        "{still}"
    );
}

#[test]
fn disks_show_what_is_used_free_and_taken() {
    if !privileged("disks show what is used, free and taken") {
        return;
    }
    let dir = scratch();
    let disk = used_disk(dir.path());
    let device = Loop::read_only(&disk);
    let planned = plan(&Store::new(dir.path(), "store"), &disk, &[]);
    let listed = crate::kit::run::strata("disks")
        .arg("--json")
        .run()
        .expect(0)
        .json();
    let mut disks = listed["disks"].as_array().unwrap().iter();
    let found = disks.find(|d| d["path"] == text(device.path())).unwrap();
    assert_eq!(found["contents"], planned["partitions"], "{found}");
    assert_eq!(found["take_bytes"], planned["take_bytes"]);
    let shown = crate::kit::run::strata("disks").run().expect(0);
    shown.expect_says("ext4").expect_says("TAKEN");
    let quick = crate::kit::run::strata("disks").args(["--no-contents", "--json"]);
    let quick = quick.run().expect(0).json();
    let mut disks = quick["disks"].as_array().unwrap().iter();
    let found = disks.find(|d| d["path"] == text(device.path())).unwrap();
    assert_eq!(found["contents"], Value::Array(Vec::new()));
}
