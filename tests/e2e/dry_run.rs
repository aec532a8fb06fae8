//! `--dry-run` shows the plan and does nothing else.

use crate::kit::bytes::{self, fingerprint};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Loop, privileged};
use crate::kit::scratch;
use crate::kit::store::Store;

#[test]
fn of_a_backup_leaves_store_and_source_alone() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 61);
    let before = fingerprint(&disk.path);
    let store = Store::new(dir.path(), "store");
    let planned = store
        .backup(&disk.path)
        .args(["--dry-run", "--json"])
        .run()
        .expect(0);
    let plan = &planned.json()["plan"];
    assert_eq!(plan["kind"], "full", "{planned}");
    assert_eq!(plan["partitions"].as_array().unwrap().len(), 4, "{planned}");
    let taken = plan["take_bytes"].as_u64().unwrap();
    assert!(taken > 0 && taken <= disk.len, "{planned}");
    assert_eq!(store.all_files(), []);

    store.backed_up(&disk.path);
    let listed = store.list();
    let files = store.all_files();
    store.backup(&disk.path).arg("--dry-run").run().expect(0);
    assert_eq!(store.list(), listed);
    assert_eq!(store.all_files(), files);
    assert_eq!(fingerprint(&disk.path), before);
}

#[test]
fn of_a_backup_does_not_make_the_store_folder() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 62);
    let store = Store::at(&dir.path().join("not-there"));
    let _ = store.backup(&disk.path).arg("--dry-run").run();
    assert!(!store.dir.exists());
}

#[test]
fn of_a_restore_leaves_the_target_alone() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 63);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let files = store.all_files();

    let used = dir.path().join("used.img");
    bytes::create_filled(&used, disk.len);
    let before = fingerprint(&used);
    let planned = store
        .restore("latest", &used)
        .args(["--dry-run", "--json"])
        .run()
        .expect(0);
    assert!(planned.json()["plan"].is_object(), "{planned}");
    assert_eq!(fingerprint(&used), before);

    // A plan needs no confirmation.
    let unconfirmed = store
        .verb("restore")
        .arg("latest")
        .arg(&used)
        .arg("--dry-run");
    unconfirmed.run().expect(0).expect_says("used.img");
    assert_eq!(fingerprint(&used), before);

    let new = dir.path().join("new.img");
    store
        .restore("latest", &new)
        .arg("--dry-run")
        .run()
        .expect(0);
    assert!(!new.exists());
    assert_eq!(store.all_files(), files);
}

#[test]
fn of_a_restore_leaves_a_device_alone() {
    if !privileged("a dry run leaves a loop device alone") {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 64);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let used = dir.path().join("used.img");
    bytes::create_filled(&used, disk.len);
    let before = fingerprint(&used);
    {
        let device = Loop::new(&used);
        store
            .restore("latest", device.path())
            .arg("--dry-run")
            .run()
            .expect(0);
    }
    assert_eq!(fingerprint(&used), before);
}
