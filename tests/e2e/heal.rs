//! Damage in the store whose content is still on the source: the next image stores it again, and the chain is
//! whole from there on.

use crate::kit::bytes::{self, assert_same_range};
use crate::kit::disk::{Disk, Layout};
use crate::kit::scratch;
use crate::kit::store::Store;
use serde_json::Value;
use std::path::Path;

struct History {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
}

impl History {
    /// A full image and an incremental one, of random bytes.
    fn new() -> History {
        let dir = scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "source.img", 301);
        let store = Store::new(dir.path(), "store");
        store.backed_up(&disk.path);
        bytes::write_random(&disk.path, disk.len / 4, 65_536, 302);
        store.backed_up(&disk.path);
        History { dir, disk, store }
    }

    /// One byte in the middle of the file of image number `n`, from 0, is another now.
    fn damage(&self, n: usize) {
        let file = self.store.file_of(&self.store.list()[n]);
        bytes::flip(&file, bytes::length(&file) / 2);
    }

    fn backup(&self, args: &[&str]) -> Value {
        let report = self
            .store
            .backup(&self.disk.path)
            .args(args)
            .arg("--json")
            .run();
        report.expect(0).json()
    }

    /// Whether the newest image gives the disk back.
    #[track_caller]
    fn is_whole(&self) {
        let target = self.dir.path().join("target.img");
        self.store.restore("latest", &target).run().expect(0);
        assert_same_range(&target, 0, &self.disk.path, 0, self.disk.len);
    }
}

fn fails_to_restore(store: &Store, dir: &Path, image: &Value) {
    let id = image["image"]["id"]
        .as_str()
        .or(image["id"].as_str())
        .unwrap();
    store.restore(id, &dir.join("never.img")).run().expect(7);
}

#[test]
fn what_verify_found_is_stored_again_once() {
    let history = History::new();
    history.damage(0);
    history.store.verify::<&str>(&[]).expect(7);
    let before = history.store.list();
    let report = history.backup(&[]);
    assert_eq!(report["image"]["kind"], "incremental", "{report}");
    let healed = report["healed_bytes"].as_u64().unwrap();
    assert!((1..=1 << 20).contains(&healed), "{report}");
    // What was lost, and not a full image.
    assert!(
        report["stored_bytes"].as_u64().unwrap() < healed + 65_536,
        "{report}"
    );
    assert!(
        report["reason"].as_str().unwrap().contains("stored again"),
        "{report}"
    );
    history.is_whole();
    for older in &before {
        fails_to_restore(&history.store, history.dir.path(), older);
    }
    // That the old damage is found again and again changes nothing.
    history.store.verify::<&str>(&[]).expect(7);
    bytes::write_random(&history.disk.path, 0, 4096, 303);
    let report = history.backup(&[]);
    assert_eq!(report["healed_bytes"], 0, "{report}");
    assert_eq!(report["image"]["kind"], "incremental", "{report}");
    let report = history.backup(&[]);
    let reason = report["reason"].as_str().unwrap();
    assert!(!reason.contains("stored again"), "{report}");
    history.is_whole();
}

#[test]
fn damage_that_nobody_has_found_is_looked_for_on_request() {
    let history = History::new();
    history.damage(1);
    let report = history.backup(&[]);
    assert_eq!(report["healed_bytes"], 0, "nobody knew: {report}");
    fails_to_restore(&history.store, history.dir.path(), &report);
    let report = history.backup(&["--heal"]);
    assert!(report["healed_bytes"].as_u64() > Some(0), "{report}");
    history.is_whole();
}

#[test]
fn what_the_disk_no_longer_needs_is_not_missed() {
    let history = History::new();
    history.damage(1);
    history.store.verify(&["latest"]).expect(7);
    // All of what the damaged image has stored is something else now.
    bytes::write_random(
        &history.disk.path,
        history.disk.len / 4 - 65_536,
        3 * 65_536,
        304,
    );
    let report = history.backup(&[]);
    assert_eq!(report["image"]["kind"], "incremental", "{report}");
    history.is_whole();
}

#[test]
fn whole_images_are_searched_in_vain() {
    let history = History::new();
    let report = history.backup(&["--heal"]);
    assert_eq!(report["healed_bytes"], 0, "{report}");
    assert_eq!(report["changed"]["data"], 0, "{report}");
}
