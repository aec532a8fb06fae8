//! Encrypted images are images: every verb, parts and pipes too.

use super::{History, WithKeys, another_key, contains, everything_in};
use crate::kit::bytes::{self, assert_same};
use crate::kit::run::strata;
use crate::kit::store::Store;
use serde_json::Value;

#[test]
fn every_verb_works_with_the_key_and_tells_nothing_without() {
    let history = History::new(80, 3, &[]);
    (0..4).for_each(|n| history.check(n));
    assert_eq!(history.images[3]["kind"], "incremental");
    let latest = history.images[3]["id"].as_str().unwrap();
    let first = history.images[0]["id"].as_str().unwrap();
    let raw = history.path("raw.img");
    let disk = history.disk.to_str().unwrap();
    let raw = raw.to_str().unwrap();
    let merge = format!("..{}", &history.images[2]["id"].as_str().unwrap()[..8]);
    let target = history.path("target.img");
    let target = target.to_str().unwrap();
    let verbs: &[&[&str]] = &[
        &["list"],
        &["show", latest],
        &["map", latest],
        &["diff", first, latest],
        &["verify", "--deep"],
        &["verify", latest, "--against", disk],
        &["export", latest, raw],
        &["protect", latest],
        &["prune", "--keep-last", "1", "--dry-run"],
        &["merge", &merge, "--dry-run"],
        &["merge", &merge],
        &["prune", "--keep-last", "1"],
        &["restore", "latest", target, "--yes"],
        &["key", "list"],
        &["key", "check"],
    ];
    let another = another_key(history.dir.path());
    let before = history.store.all_files();
    for words in verbs {
        let run = |json: &[&str]| history.store.verb(words[0]).args(&words[1..]).args(json);
        let said = run(&[]).run().expect(8).all_text();
        let wrong = run(&["--json"]).identity(&another).run().expect(8);
        assert_eq!(wrong.json()["error"]["kind"], "wrong-key", "{words:?}");
        for secret in ["secret-name", &latest[..8], "incremental"] {
            let arguments = words.join(" ");
            assert!(
                arguments.contains(secret) || !said.contains(secret),
                "{words:?}: {said}"
            );
        }
    }
    assert_eq!(history.store.all_files(), before, "nothing was touched");
    for words in verbs {
        let run = history.verb(words[0]).args(&words[1..]).run();
        run.expect(0);
    }
    history.check(3);
    assert_same(&history.disk, std::path::Path::new(target));
    assert_same(&history.disk, std::path::Path::new(raw));
    // What merge and prune wrote is encrypted too.
    let listed = history.verb("list").arg("--json").run().expect(0).json();
    let key_sets: Vec<&Value> = listed["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["key_set"])
        .collect();
    assert!(
        !key_sets.is_empty() && key_sets.iter().all(|k| k.is_string()),
        "{listed}"
    );
    let all = everything_in(&history.store.dir);
    for secret in ["secret-name", "strata 0.", "full\"", "sRec"] {
        assert!(!contains(&all, secret.as_bytes()), "{secret:?} can be read");
    }
    let block = bytes::read(&history.disk, 3 << 20, 64);
    assert!(!contains(&all, &block), "content can be read");
}

#[test]
fn encrypted_images_come_in_parts() {
    let mut history = History::new(81, 2, &["--split", "1M"]);
    (0..3).for_each(|n| history.check(n));
    let parts = history.store.files().len();
    assert!(parts > 6, "{parts} parts");
    // The head lies in the first part.
    let second = history.path("second.txt");
    let add = history
        .verb("key")
        .args(["add", "--name", "second", "--recovery-key"]);
    add.arg(&second).run().expect(0);
    (0..3).for_each(|n| history.check_with(n, |s| s.identity(&second)));
    history
        .verb("prune")
        .args(["--keep-last", "1"])
        .run()
        .expect(0);
    history.backup(&[]);
    (2..4).for_each(|n| history.check_with(n, |s| s.identity(&second)));
    history.verb("verify").arg("--deep").run().expect(0);
    for (name, len) in history.store.files() {
        assert!(len <= 1 << 20, "{name} has {len} bytes");
    }
}

#[test]
fn encrypted_images_go_through_pipes() {
    let history = History::new(82, 0, &[]);
    let another = another_key(history.dir.path());
    let piped = strata("backup")
        .arg(&history.disk)
        .args(["--store", "-", "--recipient", &history.public()])
        .run()
        .expect(0)
        .stdout;
    assert!(!contains(&piped, b"secret-name"));
    let out = |verb: &str, image: &[u8]| strata(verb).arg("-").input(image);
    let verify = |image: &[u8]| out("verify", image).identity(&history.key).run();
    verify(&piped).expect(0);
    let shown = out("show", &piped).identity(&history.key).run();
    shown.expect(0).expect_says("secret-name");
    out("verify", &piped).run().expect(8);
    out("verify", &piped).identity(&another).run().expect(8);
    let target = history.path("piped.img");
    let restore = |image: &[u8]| {
        let restore = out("restore", image).arg(&target).arg("--yes");
        restore.identity(&history.key).run()
    };
    restore(&piped).expect(0);
    assert_same(&history.disk, &target);
    // It is an image like any other.
    let store = Store::new(history.dir.path(), "from-a-pipe");
    std::fs::write(store.dir.join("piped.strata"), &piped).unwrap();
    let deep = store.verb("verify").arg("--deep").identity(&history.key);
    deep.run().expect(0);
    for at in [70, 64 + 2 * 8192 + 5, piped.len() / 2, piped.len() - 3] {
        let mut bad = piped.clone();
        bad[at] ^= 0x10;
        verify(&bad).expect(7);
        restore(&bad).expect(7);
        restore(&piped[..at]).expect(7);
    }
}

/// Every stored byte that is changed is noticed, whatever it belongs to, and costs only what depends on it.
#[test]
fn damage_is_found_and_named() {
    let history = History::new(83, 1, &[]);
    let file = history.store.file_of(&history.images[0]);
    let len = bytes::length(&file);
    let good = std::fs::read(&file).unwrap();
    for at in [100, 64 + 8192 + 8192 + 5, len / 2, len - 1] {
        bytes::flip(&file, at);
        let run = history.verb("verify").arg("--deep").run();
        run.expect(7);
        std::fs::write(&file, &good).unwrap();
    }
    // A chunk from elsewhere in the file, or from another file of the same set.
    let sibling = std::fs::read(history.store.file_of(&history.images[1])).unwrap();
    let chunk = (16 << 10) + 16;
    let from = 64 + 2 * 8192;
    for source in [
        &good[from + 3 * chunk..from + 4 * chunk],
        &sibling[from..from + chunk],
    ] {
        let mut bad = good.clone();
        bad[from + chunk..from + 2 * chunk].copy_from_slice(source);
        std::fs::write(&file, &bad).unwrap();
        history.verb("verify").arg("--deep").run().expect(7);
    }
    std::fs::write(&file, &good[..good.len() - chunk]).unwrap();
    history.verb("verify").run().expect(7);
    std::fs::write(&file, &good).unwrap();
    history.verb("verify").arg("--deep").run().expect(0);
}
