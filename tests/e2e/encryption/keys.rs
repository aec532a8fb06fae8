//! Keys that come and go.

use super::{History, WithKeys};
use serde_json::Value;

fn names(report: &Value) -> Vec<&str> {
    let keys = report["keys"].as_array().unwrap().iter();
    keys.map(|k| k["name"].as_str().unwrap()).collect()
}

#[test]
fn keys_are_added_checked_and_removed() {
    let mut history = History::new(90, 2, &[]);
    let key = |history: &History, args: &[&str]| history.verb("key").args(args).arg("--json");
    let report = key(&history, &["list"]).run().expect(0).json();
    assert_eq!(
        (names(&report), &report["images"]),
        (vec!["recovery"], &Value::from(3))
    );
    let lengths = history.store.files();
    let added = key(&history, &["add", "--password", "--name", "office"]);
    let report = added
        .env("STRATA_NEW_PASSWORD", "second")
        .run()
        .expect(0)
        .json();
    assert_eq!(names(&report), ["recovery", "office"]);
    assert_eq!(history.store.files(), lengths, "only heads were written");
    (0..3).for_each(|n| history.check(n));
    let check = || history.store.verb("key").arg("check");
    check().password("second").run().expect(0);
    check().password("third").run().expect(8);
    // New images have the keys of the set.
    history.backup(&[]);
    history.check_with(3, |s| s.password("second"));
    let third = history.path("third.txt");
    let path = third.to_str().unwrap();
    key(
        &history,
        &["add", "--recovery-key", path, "--name", "third"],
    )
    .run()
    .expect(0);
    let removed = key(&history, &["remove", "recovery"])
        .identity(&third)
        .run()
        .expect(0);
    assert_eq!(names(&removed.json()), ["office", "third"]);
    assert!(
        removed.stderr.contains("can still read that copy"),
        "{removed}"
    );
    key(&history, &["list"]).run().expect(8);
    let target = history.path("target.img");
    history
        .store
        .restore("latest", &target)
        .identity(&history.key)
        .run()
        .expect(8);
    assert!(!target.exists());
    (0..4).for_each(|n| history.check_with(n, |s| s.identity(&third)));
    for (bad, code) in [
        (&["remove", "nobody"][..], 10),
        (&["add"], 2),
        (&["add", "--recovery-key", path], 6),
        (&["add", "--recipient", "age1nonsense"], 2),
        (&["list", "--set", "nonsense"], 10),
    ] {
        key(&history, bad).identity(&third).run().expect(code);
    }
    key(&history, &["remove", "office"])
        .identity(&third)
        .run()
        .expect(0);
    let last = key(&history, &["remove", "third"])
        .identity(&third)
        .run()
        .expect(2);
    last.expect_says("nobody could open");
    history.check_with(0, |s| s.identity(&third));
}

#[test]
fn a_rotation_gives_all_images_another_secret_and_keeps_their_keys() {
    let mut history = History::new(91, 2, &[]);
    let key = |history: &History, args: &[&str]| history.verb("key").args(args).arg("--json").run();
    let before = key(&history, &["list"]).expect(0).json();
    // Half of a rotation: the file that it did not come to is put back.
    let file = history.store.file_of(&history.images[0]);
    let old = std::fs::read(&file).unwrap();
    let rotated = key(&history, &["rotate"]).expect(0).json();
    assert_ne!(rotated["key_set"], before["key_set"]);
    assert_eq!(rotated["keys"], before["keys"]);
    (0..3).for_each(|n| history.check(n));
    std::fs::write(&file, &old).unwrap();
    let half = key(&history, &["list"]).expect(0).json();
    assert_eq!(half["stale"].as_array().unwrap().len(), 1, "{half}");
    // Which of the two is genuine is not decided by reading, unless somebody says it.
    let latest = history.images[2]["id"].as_str().unwrap();
    history.verb("show").arg("latest").run().expect(4);
    history.verb("show").arg(latest).run().expect(4);
    history.verb("backup").arg(&history.disk).run().expect(4);
    let both = half["key_set"].as_str().unwrap();
    let one = ["--key-set", both];
    history.verb("show").arg(latest).args(one).run().expect(0);
    let finished = key(&history, &["rotate"]).expect(0).json();
    assert_eq!(
        finished["key_set"], rotated["key_set"],
        "what was begun is finished"
    );
    assert_eq!(finished["stale"], Value::from(Vec::<String>::new()));
    history.backup(&[]);
    (0..4).for_each(|n| history.check(n));
    let last = key(&history, &["rotate"]).expect(0).json();
    assert_ne!(last["key_set"], rotated["key_set"]);
}
