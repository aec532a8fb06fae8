//! Stores on file systems that are not what a disk's is: folders that cannot be synced, failures that are told of
//! when a file is closed.

use crate::kit::bytes::Stream;
use crate::kit::recorded::RecordedFolder;
use crate::kit::store::Store;
use crate::kit::{MIB, scratch};

const EIO: i32 = 5;
const EINVAL: i32 = 22;

#[test]
fn a_folder_that_cannot_be_synced_is_a_note() {
    let Some(folder) = RecordedFolder::mount("a share that syncs no folders") else {
        return;
    };
    folder.break_folder_sync(EINVAL);
    let dir = scratch();
    let disk = dir.path().join("disk.img");
    std::fs::write(&disk, Stream::new(81).bytes(2 * MIB)).unwrap();
    let store = Store::at(folder.path());
    let outcome = store.backup(&disk).run().expect(0);
    assert!(
        outcome.stderr.contains("the names of files durable"),
        "{outcome}"
    );
    let report = store.backup(&disk).arg("--json").run().expect(0).json();
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("the names of files durable"),
        "{warnings}"
    );
    store.verify(&["--deep"]).expect(0);
    for line in [
        store.verb("copy").args(["--all", "--split", "1M"]),
        store.verb("prune").args(["--keep-last", "1"]),
    ] {
        let outcome = line.run().expect(0);
        assert!(
            outcome.stderr.contains("the names of files durable"),
            "{outcome}"
        );
    }

    folder.break_folder_sync(EIO);
    let before = store.files();
    let outcome = store.backup(&disk).run();
    assert_eq!(outcome.code(), Some(6), "{outcome}");
    assert_eq!(store.files(), before);
}

#[test]
fn what_fails_when_it_is_closed_is_no_image() {
    let Some(folder) = RecordedFolder::mount("a share that fails on close") else {
        return;
    };
    folder.break_close(EIO);
    let dir = scratch();
    let disk = dir.path().join("disk.img");
    std::fs::write(&disk, Stream::new(82).bytes(2 * MIB)).unwrap();
    let store = Store::at(folder.path());
    let outcome = store.backup(&disk).run();
    assert_eq!(outcome.code(), Some(6), "{outcome}");
    assert!(outcome.stderr.contains("sync"), "{outcome}");
    assert_eq!(store.files(), []);
}
