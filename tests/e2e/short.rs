//! Reads and writes that do less than they were asked for, as the kernel may at any time: of a source, a store
//! and a target. What comes of it is the same.

use crate::kit::bytes::Stream;
use crate::kit::recorded::{RecordedFolder, Short};
use crate::kit::store::Store;
use crate::kit::{KIB, scratch, size};
use std::path::Path;

/// A byte, less than a sector, less than a page.
const LENS: [usize; 3] = [1, 511, 4095];

/// Every so many-th call is short in turn.
const STEP: usize = 2;

/// Not so many blocks.
const DISK: u64 = 600 * KIB;

fn content() -> Vec<u8> {
    let mut content = Stream::new(511).bytes(DISK);
    content[size(200 * KIB)..size(300 * KIB)].fill(0);
    content
}

/// Does it with one call after the other that is short, and with all of them. Says how many runs that were.
fn shorten_everywhere(folder: &RecordedFolder, what: &str, mut run: impl FnMut(&str)) -> u64 {
    let mut runs = 0;
    for len in LENS {
        for nth in (1..).step_by(STEP) {
            let lasting = false;
            folder.shorten(Short { nth, len, lasting });
            run(&format!("{what}: {len} bytes at read or write {nth}"));
            if !folder.lengthen() {
                break;
            }
            runs += 1;
        }
    }
    for len in &LENS[1..] {
        folder.shorten(Short {
            nth: 1,
            len: *len,
            lasting: true,
        });
        run(&format!("{what}: never more than {len} bytes"));
        assert!(folder.lengthen(), "{what}");
        runs += 1;
    }
    assert!(runs > 8, "{what}: {runs} runs");
    println!("{what}: {runs} runs with short reads and writes");
    runs
}

/// Makes an image and says what a restore of it, to a file that is new, gives back.
fn imaged(store: &Store, disk: &Path, restored: &Path, what: &str) -> Vec<u8> {
    let outcome = store.backup(disk).arg("--full").run();
    assert_eq!(outcome.code(), Some(0), "{what}: {outcome}");
    let _ = std::fs::remove_file(restored);
    store.restore("latest", restored).run().expect(0);
    std::fs::read(restored).unwrap()
}

#[test]
fn a_source_that_is_read_in_short_pieces() {
    let Some(folder) = RecordedFolder::mount("a source with short reads") else {
        return;
    };
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    folder.put("disk.img", content());
    let disk = folder.path().join("disk.img");
    let restored = dir.path().join("restored.img");
    shorten_everywhere(&folder, "a source", |when| {
        assert!(
            imaged(&store, &disk, &restored, when) == content(),
            "{when}"
        );
    });
}

#[test]
fn a_store_that_is_written_and_read_in_short_pieces() {
    let Some(folder) = RecordedFolder::mount("a store with short reads and writes") else {
        return;
    };
    let dir = scratch();
    let disk = dir.path().join("disk.img");
    std::fs::write(&disk, content()).unwrap();
    let store = Store::at(folder.path());
    let before = folder.files();
    let target = dir.path().join("target.img");
    assert!(imaged(&store, &disk, &target, "undisturbed") == content());
    let with_image = folder.files();
    shorten_everywhere(&folder, "a store that is written", |when| {
        folder.reset(&before);
        assert!(imaged(&store, &disk, &target, when) == content(), "{when}");
        store.verify(&["--deep"]).expect(0);
        store.assert_no_clutter();
    });
    folder.reset(&with_image);
    shorten_everywhere(&folder, "a store that is read", |when| {
        let _ = std::fs::remove_file(&target);
        store.restore("latest", &target).run().expect(0);
        assert!(std::fs::read(&target).unwrap() == content(), "{when}");
    });
}

#[test]
fn a_target_that_is_written_and_read_in_short_pieces() {
    let Some(folder) = RecordedFolder::mount("a target with short reads and writes") else {
        return;
    };
    let dir = scratch();
    let disk = dir.path().join("disk.img");
    std::fs::write(&disk, content()).unwrap();
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk);
    let target = folder.path().join("target.img");
    shorten_everywhere(&folder, "a target", |when| {
        folder.put("target.img", vec![0xA5; size(DISK)]);
        let outcome = store.restore("latest", &target).run();
        assert_eq!(outcome.code(), Some(0), "{when}: {outcome}");
        let files = folder.files();
        let (_, now) = &files[std::ffi::OsStr::new("target.img")];
        assert!(*now == content(), "{when}");
    });
}
