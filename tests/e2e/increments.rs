//! Increments hold what changed, block by block, and nothing else.

use crate::kit::bytes::{self, Stream, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::store::Store;
use crate::kit::{KIB, scratch};
use serde_json::{Value, json};
use std::path::Path;

const BLOCK: u64 = 64 * KIB;

/// What the increment of `disk` that is made now says it holds.
#[track_caller]
fn changed(store: &Store, disk: &Path) -> Value {
    let image = store.backed_up(disk);
    assert_eq!(image["kind"], "incremental");
    let shown = store.verb("show").arg("latest").arg("--json").run();
    shown.expect(0).json()["changed"].clone()
}

fn blocks(data: u64, zero: u64) -> Value {
    json!({"data": data, "zero": zero, "unused": 0, "unreadable": 0})
}

#[test]
fn a_write_of_4_kib_costs_one_block() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk", 161);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let mut stream = Stream::new(162);
    let mut write = |at: u64, len: u64| bytes::write(&disk.path, at, &stream.bytes(len));

    assert_eq!(changed(&store, &disk.path), blocks(0, 0), "nothing");
    write(100 * BLOCK + 8 * KIB, 4 * KIB);
    assert_eq!(changed(&store, &disk.path), blocks(1, 0));
    // Its last and its first byte.
    write(101 * BLOCK - 1, 2);
    assert_eq!(changed(&store, &disk.path), blocks(2, 0));
    write(0, 1);
    write(disk.len - 1, 1);
    assert_eq!(changed(&store, &disk.path), blocks(2, 0), "both ends");

    let same = bytes::read(&disk.path, 50 * BLOCK, 2 * BLOCK);
    bytes::write(&disk.path, 50 * BLOCK, &same);
    assert_eq!(changed(&store, &disk.path), blocks(0, 0), "the same again");
    let zeros = vec![0; 64 << 10];
    bytes::write(&disk.path, 200 * BLOCK, &zeros);
    assert_eq!(changed(&store, &disk.path), blocks(0, 1), "zeros");
    bytes::write(&disk.path, 200 * BLOCK, &zeros);
    assert_eq!(changed(&store, &disk.path), blocks(0, 0), "zeros again");
    // What moves is stored where it is now.
    let other = bytes::read(&disk.path, 10 * BLOCK, BLOCK);
    bytes::write(&disk.path, 200 * BLOCK, &other);
    assert_eq!(changed(&store, &disk.path), blocks(1, 0), "a copy");

    let target = dir.path().join("target");
    bytes::create_filled(&target, disk.len);
    store.restore("latest", &target).run().expect(0);
    assert_same(&disk.path, &target);
    store.verify(&["--deep"]).expect(0);
}

/// Bytes that the file system does not use are no change, and what it begins to use is one.
#[test]
fn free_space_costs_nothing() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "disk", 163);
    let store = Store::new(dir.path(), "store");
    let image = store.backed_up(&disk.path);
    let ext4 = disk.part(3);
    // The tail of a file system that is a quarter full.
    bytes::write_random(
        &disk.path,
        ext4.start + ext4.len - 9 * BLOCK,
        6 * BLOCK,
        164,
    );
    assert_eq!(changed(&store, &disk.path), blocks(0, 0));
    let increment = store.list().pop().unwrap();
    let len = increment["bytes"].as_u64().unwrap();
    let full = image["bytes"].as_u64().unwrap();
    assert!(
        len < 16 * KIB && len * 100 < full,
        "{len} bytes, full {full}"
    );
}
