//! Images that are encrypted by being copied, and copies of encrypted ones.

use super::{History, WithKeys, another_key, contains, everything_in};
use crate::kit::bytes::{self, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Strata, strata};
use crate::kit::scratch;
use crate::kit::store::Store;
use serde_json::Value;
use std::path::Path;

fn key_sets(store: &Store, key: &Path) -> Vec<Value> {
    let listed = store
        .verb("list")
        .arg("--json")
        .identity(key)
        .run()
        .expect(0)
        .json();
    let images = listed["images"].as_array().unwrap().iter();
    images.map(|i| i["key_set"].clone()).collect()
}

fn copy(from: &Store, to: &Store) -> Strata {
    from.verb("copy").arg("--all").arg("--to").arg(&to.dir)
}

#[track_caller]
fn check_latest(store: &Store, key: &Path, disk: &Path) {
    let target = store.dir.with_extension("restored");
    let _ = std::fs::remove_file(&target);
    store
        .restore("latest", &target)
        .identity(key)
        .run()
        .expect(0);
    assert_same(disk, &target);
}

#[test]
fn a_plain_history_is_encrypted_into_another_store() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "secret-name.img", 97).path;
    let (plain, safe) = (
        Store::new(dir.path(), "plain"),
        Store::new(dir.path(), "safe"),
    );
    plain.backed_up(&disk);
    bytes::write_random(&disk, 1 << 20, 300_000, 1);
    plain.backed_up(&disk);
    let key = dir.path().join("key.txt");
    let plan = copy(&plain, &safe)
        .args(["--dry-run", "--json", "--recovery-key"])
        .arg(&key);
    let plan = plan.run().expect(0).json();
    assert_eq!(plan["plan"]["images"][0]["encrypted"], true, "{plan}");
    assert!(!key.exists(), "a plan makes no key");
    let all = ["--recompress", "zstd:1", "--split", "1M", "--recovery-key"];
    copy(&plain, &safe).args(all).arg(&key).run().expect(0);
    let made = key_sets(&safe, &key);
    assert!(
        made.len() == 2 && made[0].is_string() && made[0] == made[1],
        "{made:?}"
    );
    check_latest(&safe, &key, &disk);
    let stored = everything_in(&safe.dir);
    assert!(!contains(&stored, b"secret-name"));
    // What comes later has the keys of the set that is there, and needs one of them.
    bytes::write_random(&disk, 3 << 20, 300_000, 2);
    plain.backed_up(&disk);
    copy(&plain, &safe).run().expect(8);
    let another = another_key(dir.path());
    copy(&plain, &safe).identity(&another).run().expect(8);
    copy(&plain, &safe).identity(&key).run().expect(0);
    assert_eq!(key_sets(&safe, &key), vec![made[0].clone(); 3]);
    check_latest(&safe, &key, &disk);
    safe.verb("verify")
        .arg("--deep")
        .identity(&key)
        .run()
        .expect(0);
    // A set is encrypted as a whole or not at all.
    let image = plain.list()[0]["id"].as_str().unwrap().to_owned();
    let in_place = plain
        .verb("copy")
        .arg(&image)
        .args(["--recovery-key", "/nowhere/key"]);
    in_place.run().expect(2);
    copy(&safe, &plain).identity(&key).run().expect(2);
    // Once the copies are verified, the old ones may go.
    copy(&plain, &safe)
        .arg("--remove-old")
        .identity(&key)
        .run()
        .expect(0);
    assert_eq!(plain.list().len(), 0);
    check_latest(&safe, &key, &disk);
}

#[test]
fn copies_of_encrypted_images_keep_their_keys_unless_told_otherwise() {
    let history = History::new(98, 2, &[]);
    let own = history.images[0]["key_set"].clone();
    let new = |name: &str| Store::new(history.dir.path(), name);
    let same = new("same");
    copy(&history.store, &same).run().expect(8);
    copy(&history.store, &same)
        .identity(&history.key)
        .run()
        .expect(0);
    assert_eq!(key_sets(&same, &history.key), vec![own.clone(); 3]);
    check_latest(&same, &history.key, &history.disk);
    let plain = new("plain");
    let open = copy(&history.store, &plain)
        .arg("--no-encrypt")
        .identity(&history.key);
    open.run().expect(0);
    assert_eq!(plain.list().len(), 3);
    plain.verb("verify").arg("--deep").run().expect(0);
    copy(&history.store, &plain)
        .identity(&history.key)
        .run()
        .expect(2);
    // Written anew in place, an image is encrypted as before.
    let latest = history.images[2]["id"].as_str().unwrap();
    let anew = history
        .verb("copy")
        .arg(latest)
        .args(["--recompress", "none"]);
    anew.run().expect(0);
    history.check(2);
    assert_eq!(key_sets(&history.store, &history.key), vec![own; 3]);
    // Through a pipe, for another key.
    let other = another_key(history.dir.path());
    let text = std::fs::read_to_string(&other).unwrap();
    let public = text
        .split_whitespace()
        .find(|w| w.starts_with("age1"))
        .unwrap();
    let piped = history
        .verb("copy")
        .arg(latest)
        .args(["--to", "-", "--recipient", public]);
    let piped = piped.run().expect(0).stdout;
    let verify = |key: &Path| strata("verify").arg("-").input(&piped).identity(key).run();
    verify(&other).expect(0);
    verify(&history.key).expect(8);
}
