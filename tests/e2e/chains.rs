//! Histories: incremental and differential images, what may go, and any point of it restored.

use crate::kit::bytes::{self, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Mount, privileged};
use crate::kit::run::text;
use crate::kit::scratch;
use crate::kit::store::{Store, number};
use serde_json::Value;
use std::path::{Path, PathBuf};

const BLOCK: u64 = 64 << 10;

/// A disk without free space, its store, and copies of the disk as each image holds it.
struct History {
    dir: tempfile::TempDir,
    disk: PathBuf,
    store: Store,
    copies: Vec<PathBuf>,
    images: Vec<Value>,
}

impl History {
    fn new(seed: u64) -> History {
        let dir = scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "disk.img", seed).path;
        let store = Store::new(dir.path(), "store");
        History {
            dir,
            disk,
            store,
            copies: Vec::new(),
            images: Vec::new(),
        }
    }

    /// Images the disk as it is, with `args`; the report.
    #[track_caller]
    fn image(&mut self, args: &[&str]) -> Value {
        let run = self.store.backup(&self.disk).arg("--json").args(args).run();
        let report = run.expect(0).json();
        let copy = self.dir.path().join(format!("copy-{}", self.copies.len()));
        std::fs::copy(&self.disk, &copy).unwrap();
        self.copies.push(copy);
        self.images.push(report["image"].clone());
        report
    }

    /// A full image and `more` others, one block changed before each.
    fn of(seed: u64, more: u64) -> History {
        let mut history = History::new(seed);
        history.image(&[]);
        for n in 1..=more {
            bytes::write_random(&history.disk, n * 3 * BLOCK + 100, 4096, n);
            history.image(&[]);
        }
        history
    }

    /// Restores the image that `wanted` names; it has to be the disk that image number `n` (from 0)
    /// was made of.
    #[track_caller]
    fn check(&self, wanted: &str, n: usize) {
        let target = self.dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        self.store.restore(wanted, &target).run().expect(0);
        assert_same(&self.copies[n], &target);
    }

    fn id(&self, n: usize) -> &str {
        self.images[n]["id"].as_str().unwrap()
    }

    fn file(&self, n: usize) -> PathBuf {
        self.store.file_of(&self.images[n])
    }
}

#[test]
fn the_second_image_is_incremental_and_holds_what_changed() {
    let mut history = History::of(1, 1);
    assert_eq!(history.images[0]["kind"], "full");
    assert_eq!(history.images[1]["kind"], "incremental");
    assert_eq!(history.images[1]["parent"], history.images[0]["id"]);
    assert_eq!(history.images[1]["sequence"], 2);
    let shown = history
        .store
        .verb("show")
        .args(["latest", "--changed", "--json"]);
    let shown = shown.run().expect(0).json();
    assert_eq!(number(&shown["changed"], "data"), 1, "one write, one block");
    let ranges = shown["changed_ranges"].as_array().unwrap();
    assert_eq!(ranges.len(), 1);
    assert_eq!(number(&ranges[0], "start"), 3 * BLOCK);
    assert_eq!(number(&ranges[0], "length"), BLOCK);
    // The block does not compress; beside it stand table pages and what the image says of itself.
    let stored = number(&history.images[1], "bytes");
    assert!((BLOCK..BLOCK + 48 * 1024).contains(&stored), "{stored}");
    history.check("latest", 1);
    history.check(history.id(0), 0);
    // Nothing changed: nothing is stored.
    let report = history.image(&[]);
    for state in ["data", "zero", "unused", "unreadable"] {
        assert_eq!(number(&report["changed"], state), 0, "{report}");
    }
    history.check("latest", 2);
    history.store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_block_that_becomes_zero_is_recorded_as_zero() {
    let mut history = History::of(2, 0);
    bytes::write(&history.disk, 5 * BLOCK, &[0; 128 << 10]);
    let report = history.image(&[]);
    assert_eq!(number(&report["changed"], "zero"), 2, "{report}");
    assert_eq!(number(&report["changed"], "data"), 0, "{report}");
    history.check("latest", 1);
}

#[test]
fn a_differential_builds_on_the_last_full_image() {
    let mut history = History::of(3, 2);
    bytes::write_random(&history.disk, 40 * BLOCK, 100, 9);
    let report = history.image(&["--differential"]);
    assert_eq!(report["image"]["kind"], "differential");
    assert_eq!(report["image"]["parent"], history.images[0]["id"]);
    assert_eq!(
        number(&report["changed"], "data"),
        3,
        "all since the full image"
    );
    history.image(&["--full"]);
    assert_eq!(history.images[4]["parent"], Value::Null);
    history.image(&["--differential"]);
    assert_eq!(history.images[5]["parent"], history.images[4]["id"]);
    for n in 0..6 {
        history.check(history.id(n), n);
    }
}

#[test]
fn points_have_names() {
    let history = History::of(4, 3);
    history.check("disk@latest", 3);
    history.check("disk@-1", 2);
    history.check("disk@-3", 0);
    let time = history.images[1]["time"].as_str().unwrap();
    let found = history
        .store
        .verb("show")
        .args([&format!("disk@{time}"), "--json"]);
    let found = found.run().expect(0).json();
    let within = history.images[1]["time"] == found["image"]["time"];
    assert!(within, "{found}");
    let raw = history.dir.path().join("raw.img");
    let export = history.store.verb("export").arg("disk@-2").arg(&raw);
    export.run().expect(0);
    assert_same(&history.copies[1], &raw);
    let against = |point: &str| history.store.verify(&[point, "--against", text(&raw)]);
    against("disk@-2").expect(0);
    against("disk@-1").expect(11);
    for none in ["disk@-4", "disk@2001-01-01", "other@latest"] {
        history.store.verb("show").arg(none).run().expect(10);
    }
}

/// The reason of the last report, which has to be a full image with a warning.
#[track_caller]
fn full_because(report: &Value, part: &str) {
    assert_eq!(report["image"]["kind"], "full", "{report}");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains(part), "{reason}");
    let warned = report["warnings"].as_array().unwrap().iter();
    let warned = warned.filter_map(Value::as_str).any(|w| w.contains(part));
    assert!(warned, "{report}");
}

#[test]
fn what_must_not_be_chained_is_not() {
    let mut history = History::of(5, 1);
    let args = ["--set", "disk"];
    // Another block size.
    let report = history.image(&["--block-size", "128K"]);
    full_because(&report, "blocks of 131072");
    // A disk that grew.
    bytes::open_rw(&history.disk)
        .set_len(bytes::length(&history.disk) + (1 << 20))
        .unwrap();
    let report = history.image(&args);
    full_because(&report, "bytes now and had");
    // The parent's parent is gone.
    history.image(&args);
    assert_eq!(history.images[4]["kind"], "incremental");
    let gone = history.file(3);
    std::fs::remove_file(&gone).unwrap();
    let report = history.image(&args);
    full_because(&report, "the store does not hold it");
    // What was found damaged is stored again.
    bytes::flip(&history.file(5), bytes::length(&history.file(5)) / 2);
    history.store.verify(&["latest"]).expect(7);
    let report = history.image(&args);
    assert_eq!(report["image"]["kind"], "incremental");
    assert!(report["healed_bytes"].as_u64() > Some(0), "{report}");
    history.check("latest", 6);
}

#[test]
fn another_disk_of_the_same_name_gets_a_set_of_its_own() {
    let mut history = History::of(6, 1);
    let elsewhere = history.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let other = Disk::build(Layout::Gpt512, &elsewhere, "disk.img", 61).path;
    let image = history.store.backed_up(&other);
    assert_eq!(
        (&image["set"], &image["kind"]),
        (&"disk-2".into(), &"full".into())
    );
    // Both are known again.
    assert_eq!(history.store.backed_up(&other)["set"], "disk-2");
    history.image(&[]);
    assert_eq!(history.images[2]["set"], "disk");
    assert_eq!(history.images[2]["kind"], "incremental");
    // Where a person names the set of another disk, a full image begins.
    let moved = elsewhere.join("moved.img");
    std::fs::rename(&other, &moved).unwrap();
    let run = history
        .store
        .backup(&moved)
        .args(["--set", "disk", "--json"]);
    let report = run.run().expect(0).json();
    assert_eq!(report["image"]["kind"], "full", "{report}");
}

#[test]
fn a_missing_link_costs_the_younger_points_and_no_older_one() {
    let history = History::of(7, 3);
    std::fs::remove_file(history.file(1)).unwrap();
    let target = history.dir.path().join("x.img");
    for n in [2, 3] {
        let run = history
            .store
            .restore(history.id(n), &target)
            .run()
            .expect(7);
        run.expect_says(history.id(1));
        assert!(!target.exists());
    }
    history.check(history.id(0), 0);
    let listed = history.store.list();
    let incomplete: Vec<bool> = listed.iter().map(|i| i["incomplete"].is_string()).collect();
    assert_eq!(incomplete, [false, true, true]);
    let verified = history.store.verify(&["--json"]).expect(7).json();
    let of = |n: usize| {
        let all = verified["images"].as_array().unwrap().iter();
        let mut own = all.filter(|i| i["id"] == history.images[n]["id"]);
        own.next().unwrap().clone()
    };
    assert_eq!(of(0)["ok"], true, "{verified}");
    for n in [2, 3] {
        assert_eq!(of(n)["ok"], false, "{verified}");
        assert!(
            !of(n)["damage"].as_array().unwrap().is_empty(),
            "{verified}"
        );
    }
}

#[test]
fn damage_names_the_younger_images_that_it_hits() {
    let history = History::of(8, 2);
    bytes::flip(&history.file(0), bytes::length(&history.file(0)) / 2);
    let verified = history.store.verify(&["--json"]).expect(7).json();
    let images = verified["images"].as_array().unwrap();
    assert_eq!(images[0]["ok"], false, "{verified}");
    assert_eq!(images[1]["ok"], true, "its own file is whole: {verified}");
    let affected = images[0]["affects"].as_array().unwrap();
    assert_eq!(affected.len(), 2, "{verified}");
    assert_eq!(affected[0]["id"], history.images[1]["id"]);
    assert!(number(&affected[0], "bytes") > 0);
    let target = history.dir.path().join("x.img");
    history.store.restore("latest", &target).run().expect(7);
}

#[test]
fn the_full_image_rolls_forward_and_the_middle_is_merged() {
    let history = History::of(9, 5);
    let plan = history
        .store
        .verb("prune")
        .args(["--keep-last", "2", "--dry-run", "--json"]);
    let plan = plan.run().expect(0).json();
    let actions: Vec<&str> = plan["plan"]["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        ["merge", "merge", "merge", "merge", "keep", "keep"]
    );
    assert_eq!(history.store.list().len(), 6, "a plan changes nothing");
    history
        .store
        .verb("protect")
        .arg(history.id(2))
        .run()
        .expect(0);
    history
        .store
        .verb("prune")
        .args(["--keep-last", "2"])
        .run()
        .expect(0);
    let left = history.store.list();
    let ids: Vec<&Value> = left.iter().map(|i| &i["id"]).collect();
    let expected = [2, 4, 5].map(|n| &history.images[n]["id"]);
    assert_eq!(ids, expected);
    let kinds: Vec<&Value> = left.iter().map(|i| &i["kind"]).collect();
    assert_eq!(kinds, ["full", "incremental", "incremental"]);
    for (image, n) in left.iter().zip([2, 4, 5]) {
        assert_eq!(image["root"], history.images[n]["root"], "the same content");
        history.check(history.id(n), n);
    }
    assert_eq!(left[0]["protected"], true);
    history.store.verify(&["--deep"]).expect(0);
    history.store.assert_no_clutter();
    // Nothing is left to do.
    history
        .store
        .verb("prune")
        .args(["--keep-last", "2"])
        .run()
        .expect(0);
    let again = history.store.list();
    let files = |all: &[Value]| all.iter().map(|i| i["file"].clone()).collect::<Vec<_>>();
    assert_eq!(files(&again), files(&left));
}

#[test]
fn prune_needs_a_rule_and_a_store_that_can_be_read() {
    let history = History::of(10, 2);
    history.store.verb("prune").run().expect(2);
    history
        .store
        .verb("prune")
        .args(["--keep-last", "x"])
        .run()
        .expect(2);
    history
        .store
        .verb("prune")
        .args(["--keep-last", "1", "--set", "none"])
        .run()
        .expect(10);
    // A file that cannot be opened may need any of the others.
    bytes::open_rw(&history.file(2)).set_len(1000).unwrap();
    let refused = history
        .store
        .verb("prune")
        .args(["--keep-last", "1"])
        .run()
        .expect(7);
    refused.expect_says("cannot be opened");
    history.check(history.id(0), 0);
    history.check(history.id(1), 1);
}

#[test]
fn an_image_that_is_there_twice_is_not_counted_twice() {
    let history = History::of(17, 2);
    let copy = history.store.dir.join("a copy.strata");
    std::fs::copy(history.file(2), &copy).unwrap();
    for verb in [&["prune", "--keep-last", "1"][..], &["merge", "..latest"]] {
        let refused = history.store.verb(verb[0]).args(&verb[1..]).run().expect(4);
        refused.expect_says("are the same image");
    }
    std::fs::remove_file(&copy).unwrap();
    for n in 0..3 {
        history.check(history.id(n), n);
    }
    history
        .store
        .verb("prune")
        .args(["--keep-last", "1"])
        .run()
        .expect(0);
    history.check("latest", 2);
}

#[test]
fn a_broken_link_keeps_what_stands_on_it_and_the_rest_is_pruned() {
    let mut history = History::of(18, 3);
    history.image(&["--full"]);
    history.image(&[]);
    std::fs::remove_file(history.file(0)).unwrap();
    // Numbers 2 to 4 stand on what is gone: 2 and 3 cannot be merged into 4, which is protected.
    history
        .store
        .verb("protect")
        .arg(history.id(3))
        .run()
        .expect(0);
    let pruned = history
        .store
        .verb("prune")
        .args(["--keep-last", "1", "--json"]);
    let report = pruned.run().expect(7).json();
    assert_eq!(report["failures"].as_array().unwrap().len(), 1, "{report}");
    let left: Vec<u64> = history
        .store
        .list()
        .iter()
        .map(|i| number(i, "sequence"))
        .collect();
    assert_eq!(left, [2, 3, 4, 6]);
    history.check("latest", 5);
}

#[test]
fn images_are_merged_by_hand() {
    let history = History::of(11, 4);
    let range = format!("{}..{}", &history.id(1)[..8], &history.id(3)[..8]);
    let merge = |range: &str| history.store.verb("merge").arg(range);
    merge(&range).arg("--dry-run").run().expect(0);
    assert_eq!(history.store.list().len(), 5);
    let report = merge(&range).arg("--json").run().expect(0).json();
    assert_eq!(report["absorbs"].as_array().unwrap().len(), 2, "{report}");
    let ids: Vec<Value> = history
        .store
        .list()
        .iter()
        .map(|i| i["id"].clone())
        .collect();
    assert_eq!(ids, [0, 3, 4].map(|n| history.images[n]["id"].clone()));
    for n in [0, 3, 4] {
        history.check(history.id(n), n);
    }
    // A synthetic full image.
    merge("..latest").run().expect(0);
    let left = history.store.list();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["kind"], "full");
    history.check("latest", 4);
    history.store.verify(&["--deep"]).expect(0);
    merge("..latest").run().expect(2);
    merge("latest").run().expect(2);
}

#[test]
fn what_is_protected_or_built_on_by_several_is_not_merged() {
    let mut history = History::of(12, 1);
    history.image(&["--differential"]);
    let merge = history.store.verb("merge").arg("..latest").run().expect(4);
    merge.expect_says("build on");
    history
        .store
        .verb("protect")
        .arg(history.id(0))
        .run()
        .expect(0);
    let merge = history.store.verb("merge").arg("..latest").run().expect(4);
    merge.expect_says("protected");
    history
        .store
        .verb("protect")
        .args([history.id(0), "--off"])
        .run()
        .expect(0);
    for n in 0..3 {
        history.check(history.id(n), n);
    }
}

#[test]
fn two_images_are_compared() {
    let history = History::of(13, 2);
    let diff = |a: usize, b: usize| {
        let ids = [history.id(a), history.id(b)];
        history.store.verb("diff").args(ids).arg("--json")
    };
    let report = diff(0, 2).run().expect(0).json();
    assert_eq!(number(&report, "blocks"), 2);
    assert_eq!(number(&report, "bytes"), 2 * BLOCK);
    assert_eq!(report["ranges"].as_array().unwrap().len(), 2);
    diff(0, 2).arg("--exit-code").run().expect(11);
    let none = diff(1, 1).arg("--exit-code").run().expect(0).json();
    assert_eq!(number(&none, "blocks"), 0);
}

#[test]
fn a_rewind_writes_only_what_differs() {
    let history = History::of(14, 3);
    let target = history.dir.path().join("target.img");
    std::fs::copy(&history.copies[0], &target).unwrap();
    let whole = bytes::length(&target);
    let rewind = |wanted: usize, args: &[&str]| {
        let run = history.store.restore(history.id(wanted), &target);
        let report = run.args(args).arg("--json").run().expect(0).json();
        assert_same(&history.copies[wanted], &target);
        report
    };
    // The ends of the disk are always written: some MiB.
    let few = whole / 4;
    let report = rewind(3, &["--only-changed"]);
    assert!(number(&report, "written_bytes") < few, "{report}");
    assert!(number(&report, "unchanged_bytes") > whole / 2, "{report}");
    let report = rewind(1, &["--holds", history.id(3)]);
    assert!(number(&report, "written_bytes") < few, "{report}");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 0, "{report}");
    // A target that holds something else is found out.
    bytes::write_random(&target, 0, whole, 77);
    let report = rewind(2, &["--holds", history.id(1)]);
    assert!(number(&report, "written_bytes") > whole / 2, "{report}");
    let warned = report["warnings"][0].as_str().unwrap();
    assert!(warned.contains("does not hold"), "{warned}");
}

#[test]
fn verifications_are_noted_and_not_repeated() {
    let history = History::of(15, 2);
    let verified = |args: &[&str]| {
        let report = history.store.verify(args).expect(0).json();
        let count = |key: &str| report[key].as_array().unwrap().len();
        (count("images"), count("skipped"))
    };
    assert_eq!(verified(&["--json", "--older-than", "30d"]), (3, 0));
    assert_eq!(verified(&["--json", "--older-than", "30d"]), (0, 3));
    assert_eq!(
        verified(&["--json", "--deep", "--older-than", "30d"]),
        (3, 0)
    );
    assert_eq!(verified(&["--json", "--older-than", "30d"]), (0, 3));
    assert_eq!(verified(&["--json", "--sample", "5%"]), (3, 0));
    assert_eq!(verified(&["--json"]), (3, 0));
    let listed = history.store.list();
    let how: Vec<&str> = listed[0]["verified"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["how"].as_str().unwrap())
        .collect();
    assert_eq!(how.len(), 3, "{how:?}");
    history.store.verify(&["--sample", "0"]).expect(2);
    history.store.verify(&["--older-than", "soon"]).expect(2);
    // A chain is verified from its youngest image on.
    assert_eq!(verified(&["--json", "latest"]), (3, 0));
}

#[test]
fn a_chain_can_be_moved_to_another_folder() {
    let history = History::of(16, 2);
    let moved = history.dir.path().join("moved");
    std::fs::rename(&history.store.dir, &moved).unwrap();
    let file = moved.join(history.images[2]["file"].as_str().unwrap());
    let target = history.dir.path().join("target.img");
    let empty = Store::new(history.dir.path(), "empty");
    empty.restore(text(&file), &target).run().expect(0);
    assert_same(&history.copies[2], Path::new(&target));
}

#[test]
fn the_oldest_go_until_there_is_room() {
    if !privileged("a store of a known size is a file system in memory") {
        return;
    }
    let dir = scratch();
    let disk = dir.path().join("disk.img");
    bytes::create_sparse(&disk, 4 << 20);
    let folder = dir.path().join("memory");
    let memory = Mount::memory(&folder, 30 << 20);
    let store = Store::at(memory.path());
    for seed in 0..5 {
        bytes::write_random(&disk, 0, 4 << 20, seed);
        store.backup(&disk).arg("--full").run().expect(0);
    }
    let prune = |args: &[&str]| {
        store
            .verb("prune")
            .args(args)
            .arg("--json")
            .run()
            .expect(0)
            .json()
    };
    let plan = prune(&["--free-space", "20M", "--dry-run"]);
    let goes = |plan: &Value| {
        let images = plan["images"].as_array().unwrap().iter();
        images.filter(|i| i["keep"] == false).count()
    };
    assert_eq!(goes(&plan["plan"]), 3, "{plan}");
    prune(&["--free-space", "20M"]);
    let left: Vec<u64> = store.list().iter().map(|i| number(i, "sequence")).collect();
    assert_eq!(left, [4, 5], "the oldest three have gone");
    // There is room already.
    prune(&["--free-space", "20M"]);
    assert_eq!(store.list().len(), 2);
    // Not even the last but one goes below what a person wants to keep.
    let report = prune(&["--free-space", "29M", "--keep-least", "2"]);
    assert_eq!(store.list().len(), 2);
    let warned = report["warnings"].as_array().unwrap();
    assert!(!warned.is_empty(), "{report}");
    prune(&["--free-space", "29M"]);
    assert_eq!(store.list().len(), 1, "the newest always stays");
    let target = dir.path().join("target.img");
    store.restore("latest", &target).run().expect(0);
    assert_same(&disk, &target);
}
