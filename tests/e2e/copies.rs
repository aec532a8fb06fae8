//! Images copied into other stores and pipes, and written anew in their own.

use crate::kit::bytes::{self, Stream, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Mount, privileged};
use crate::kit::run::{STRATA, Strata, strata, text};
use crate::kit::store::{Store, number};
use crate::kit::{MIB, scratch, tools};
use crate::moments::{Moments, time, was_killed};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A full image of a disk that compresses in part, three increments, and what the disk was each time.
struct History {
    dir: tempfile::TempDir,
    store: Store,
    copies: Vec<PathBuf>,
    images: Vec<Value>,
}

impl History {
    fn new(seed: u64) -> History {
        let dir = scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "disk.img", seed).path;
        let store = Store::new(dir.path(), "store");
        bytes::write(&disk, MIB, &Stream::new(seed).text(2 * MIB));
        let (mut copies, mut images) = (Vec::new(), Vec::new());
        for n in 0..4u64 {
            bytes::write_random(&disk, n * 700_000, 100_000 * n, seed + n);
            images.push(store.backed_up(&disk));
            let copy = dir.path().join(format!("copy-{n}"));
            std::fs::copy(&disk, &copy).unwrap();
            copies.push(copy);
        }
        History {
            dir,
            store,
            copies,
            images,
        }
    }

    fn id(&self, n: usize) -> &str {
        self.images[n]["id"].as_str().unwrap()
    }

    /// A folder that is not there yet.
    fn other(&self) -> Store {
        Store::at(&self.dir.path().join("other"))
    }

    fn copy(&self, images: &[&str]) -> Strata {
        self.store.verb("copy").args(images)
    }

    /// Restores image `n` from `store` onto noise; it has to be what the disk was.
    #[track_caller]
    fn check(&self, store: &Store, n: usize) {
        let target = self.dir.path().join("target.img");
        bytes::create_filled(&target, bytes::length(&self.copies[n]));
        store.restore(self.id(n), &target).run().expect(0);
        assert_same(&self.copies[n], &target);
    }
}

/// Those members of the images of a store that a copy does not change.
fn same_of(images: &[Value], keys: &[&str]) -> Vec<Value> {
    let of = |image: &Value| keys.iter().map(|key| image[key].clone()).collect();
    images.iter().map(of).collect()
}

#[track_caller]
fn actions(plan: &Value) -> Vec<&str> {
    let images = plan["images"]
        .as_array()
        .unwrap_or_else(|| panic!("{plan}"));
    images
        .iter()
        .map(|i| i["action"].as_str().unwrap())
        .collect()
}

#[test]
fn a_history_goes_into_another_store() {
    let history = History::new(201);
    let (other, files) = (history.other(), history.store.files());
    let to = text(&other.dir);
    let copy = || history.copy(&["--all", "--to", to]);
    let plan = copy().args(["--dry-run", "--json"]).run().expect(0).json();
    assert_eq!(actions(&plan["plan"]), ["copy"; 4]);
    assert!(!other.dir.exists(), "a plan changes nothing");
    let report = copy().arg("--json").run().expect(0).json();
    assert_eq!(report["plan"]["images"], plan["plan"]["images"]);
    assert_eq!(number(&report, "encoded_frames"), 0, "{report}");
    let keys = [
        "id", "set", "sequence", "parent", "kind", "root", "time", "bytes",
    ];
    let (old, new) = (history.store.list(), other.list());
    assert_eq!(same_of(&old, &keys), same_of(&new, &keys));
    assert_eq!(history.store.files(), files, "the source is as it was");
    (0..4).for_each(|n| history.check(&other, n));
    other.verify(&["--deep"]).expect(0);
    other.assert_no_clutter();
    // Once more, there is nothing to do.
    let files = other.files();
    let report = copy().arg("--json").run().expect(0).json();
    assert_eq!(actions(&report["plan"]), ["skip"; 4]);
    assert_eq!(other.files(), files);
    copy().run().expect(0).expect_says("it is there already");
    // The next image of the disk builds on the copy.
    let next = other.backed_up(&history.dir.path().join("disk.img"));
    assert_eq!(next["parent"], history.images[3]["id"]);
}

#[test]
fn the_newest_alone_becomes_full_and_the_rest_joins_it() {
    let history = History::new(202);
    let other = history.other();
    let to = ["--to", text(&other.dir)];
    let newest = history.copy(&["latest"]).args(to);
    newest.run().expect(0).expect_says("number 3, is not there");
    let listed = other.list();
    assert_eq!(listed[0]["kind"], "full");
    assert_eq!(listed[0]["root"], history.images[3]["root"]);
    history.check(&other, 3);
    // By path, in any order; and the newest is there already.
    let paths = [2, 0, 1].map(|n| history.store.file_of(&history.images[n]));
    let by_path = strata("copy").args(&paths).args(to).arg("--json");
    let report = by_path.run().expect(0).json();
    assert_eq!(actions(&report["plan"]), ["copy"; 3]);
    let set = history.copy(&["--set", "disk"]).args(to).arg("--json");
    assert_eq!(actions(&set.run().expect(0).json()["plan"]), ["skip"; 4]);
    let kinds = same_of(&other.list(), &["kind"]);
    let expected = ["full", "incremental", "incremental", "full"];
    assert_eq!(kinds, expected.map(|kind| Value::from(vec![kind])));
    (0..4).for_each(|n| history.check(&other, n));
    // On request nothing builds on anything.
    let third = Store::at(&history.dir.path().join("third"));
    let full = history.copy(&["--all", "--full", "--to", text(&third.dir)]);
    full.run().expect(0);
    assert!(third.list().iter().all(|i| i["kind"] == "full"));
    std::fs::remove_file(third.file_of(&third.list()[0])).unwrap();
    history.check(&third, 2);
}

#[test]
fn copies_are_cut_and_compressed_as_asked() {
    let history = History::new(203);
    let other = history.other();
    let copy = history.copy(&["--all", "--to", text(&other.dir)]);
    let how = ["--split", "1M", "--recompress", "none", "--json"];
    let report = copy.args(how).run().expect(0).json();
    assert_eq!(number(&report, "copied_frames"), 0, "{report}");
    let bytes = |image: &Value| number(image, "bytes");
    let (old, new) = (&history.images[0], &other.list()[0]);
    assert!(
        bytes(old) + MIB < bytes(new),
        "text does not compress itself"
    );
    let parts = other.files();
    assert!(
        parts.len() > 8 && parts.iter().all(|(_, len)| *len <= MIB),
        "{parts:?}"
    );
    other.verify(&["--deep"]).expect(0);
    (0..4).for_each(|n| history.check(&other, n));
    // Parts go back into one file each, in place; the frames stay as they are.
    let whole = other
        .verb("copy")
        .args(["--all", "--split", "none", "--json"]);
    let report = whole.run().expect(0).json();
    assert_eq!(actions(&report["plan"]), ["replace"; 4]);
    assert_eq!(number(&report, "encoded_frames"), 0, "{report}");
    assert_eq!(other.files().len(), 4);
    assert_eq!(bytes(&other.list()[0]), bytes(new));
    other.assert_no_clutter();
    (0..4).for_each(|n| history.check(&other, n));
    let again = other
        .verb("copy")
        .args(["--all", "--split", "none", "--json"]);
    assert_eq!(actions(&again.run().expect(0).json()["plan"]), ["skip"; 4]);
}

#[test]
fn an_image_is_written_anew_below_its_children() {
    let history = History::new(204);
    let (store, id) = (&history.store, history.id(1));
    let keys = ["id", "set", "sequence", "parent", "kind", "root", "time"];
    let before = store.list();
    let files = store.all_files();
    let copy = |args: &[&str]| history.copy(&[id]).args(args).arg("--json");
    let plan = copy(&["--recompress", "zstd:19", "--dry-run"])
        .run()
        .expect(0);
    assert_eq!(actions(&plan.json()["plan"]), ["replace"]);
    assert_eq!(store.all_files(), files, "a plan changes nothing");
    let old = store.file_of(&before[1]);
    let report = copy(&["--recompress", "zstd:19"]).run().expect(0).json();
    assert!(!old.exists(), "{report}");
    assert_eq!(same_of(&store.list(), &keys), same_of(&before, &keys));
    store.assert_no_clutter();
    // The names take turns.
    copy(&["--recompress", "none"]).run().expect(0);
    assert_eq!(store.file_of(&store.list()[1]), old);
    assert_eq!(same_of(&store.list(), &keys), same_of(&before, &keys));
    (0..4).for_each(|n| history.check(store, n));
    store.verify(&["--deep"]).expect(0);
    // What was the third of a chain needs nothing any more.
    history.copy(&[history.id(2), "--full"]).run().expect(0);
    std::fs::remove_file(store.file_of(&store.list()[0])).unwrap();
    history.check(store, 2);
    history.check(store, 3);
}

#[test]
fn a_damaged_image_is_not_copied() {
    let history = History::new(205);
    let other = history.other();
    let damaged = history.store.file_of(&history.images[0]);
    bytes::flip(&damaged, bytes::length(&damaged) / 2);
    let files = history.store.files();
    for args in [
        &["--all", "--to", text(&other.dir)][..],
        &["--all", "--to", text(&other.dir), "--recompress", "none"],
        // It builds on the damaged one.
        &["latest", "--to", text(&other.dir)],
        &["--all", "--to", text(&other.dir), "--remove-old"],
    ] {
        let said = history.copy(args).run().expect(7);
        said.expect_says(damaged.file_name().unwrap().to_str().unwrap());
        assert_eq!(other.files(), []);
        assert_eq!(history.store.files(), files);
    }
    history
        .copy(&[history.id(0), "--recompress", "none"])
        .run()
        .expect(7);
    assert_eq!(history.store.files(), files);
    // Of one that cannot be opened, nobody knows what it is.
    bytes::open_rw(&damaged).set_len(1000).unwrap();
    let all = history.copy(&["--all", "--to", text(&other.dir)]);
    all.run().expect(7).expect_says("cannot be opened");
}

#[test]
fn a_pipe_takes_one_full_image() {
    let history = History::new(206);
    let (store, id) = (text(&history.store.dir), history.id(2));
    let line = format!("'{STRATA}' copy {id} --store '{store}' --to - | '{STRATA}' verify -");
    tools::run("sh", &["-c", &line]);
    let run = history.copy(&[id, "--to", "-", "--recompress", "none"]);
    let image = run.run().expect(0);
    let beside = Store::new(history.dir.path(), "from a pipe");
    std::fs::write(beside.dir.join("x.strata"), &image.stdout).unwrap();
    assert_eq!(beside.list()[0]["root"], history.images[2]["root"]);
    history.check(&beside, 2);
    let plan = history.copy(&[id, "--to", "-", "--dry-run", "--json"]);
    assert_eq!(
        plan.run().expect(0).json()["plan"]["images"][0]["kind"],
        "full"
    );
}

#[test]
fn what_moved_is_gone_and_what_is_needed_stays() {
    let history = History::new(207);
    let other = history.other();
    let to = ["--to", text(&other.dir), "--remove-old", "--json"];
    history
        .store
        .verb("protect")
        .arg(history.id(0))
        .run()
        .expect(0);
    // Number 2 has children, number 4 has none.
    let two = history.copy(&[history.id(1), history.id(3)]).args(to);
    let report = two.run().expect(0).json();
    let removed = report["removed"].as_array().unwrap();
    assert_eq!(removed, &[history.images[3]["file"].clone()], "{report}");
    let stays = same_of(
        report["plan"]["images"].as_array().unwrap(),
        &["stays", "removes"],
    );
    let expected = [
        Value::from(vec![Value::from("others build on it"), Value::from(false)]),
        Value::from(vec![Value::Null, Value::from(true)]),
    ];
    assert_eq!(stays, expected);
    let all = history.copy(&["--all"]).args(to).run().expect(0).json();
    assert_eq!(actions(&all["plan"]), ["copy", "skip", "copy"]);
    // The protected one is all that is left, and it is in both.
    assert_eq!(
        same_of(&history.store.list(), &["sequence"]),
        [Value::from(vec![1])]
    );
    assert_eq!(other.list().len(), 4);
    (0..4).for_each(|n| history.check(&other, n));
    history.check(&history.store, 0);
    history.store.assert_no_clutter();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let history = History::new(208);
    let (own, other) = (history.store.dir.clone(), history.other());
    let link = history.dir.path().join("link");
    std::os::unix::fs::symlink(&own, &link).unwrap();
    let to = text(&other.dir);
    for args in [
        &["--to", to][..],
        &["latest"],
        &["latest", "--all", "--to", to],
        &["latest", "--to", text(&own), "--remove-old"],
        &["latest", "--to", text(&link)],
        &["--all", "--to", "-"],
        &["latest", "--to", "-", "--remove-old"],
        &["latest", "--to", "-", "--split", "1M"],
        &["latest", "--to", to, "--split", "1K"],
        &["latest", "--to", to, "--recompress", "rar"],
    ] {
        history.copy(args).run().expect(2);
    }
    history
        .copy(&["nosuch@latest", "--to", to])
        .run()
        .expect(10);
    history
        .copy(&["--set", "nosuch", "--to", to])
        .run()
        .expect(10);
    strata("copy")
        .args(["latest", "--to", to])
        .run()
        .expect(2)
        .expect_says("STRATA_STORE");
    assert_eq!(history.store.list().len(), 4);
    // Two files of one image: which of them would go?
    let twice = own.join("twice.strata");
    std::fs::copy(history.store.file_of(&history.images[3]), &twice).unwrap();
    let anew = history.copy(&["latest", "--recompress", "none"]);
    anew.run().expect(4).expect_says("same image");
}

#[test]
fn a_destination_without_room_keeps_what_it_has() {
    if !privileged("a copy onto a full file system") {
        return;
    }
    let history = History::new(209);
    let room = bytes::length(&history.store.file_of(&history.images[0])) + MIB / 2;
    let mount = Mount::memory(
        &history.dir.path().join("tmpfs"),
        room.next_multiple_of(4096),
    );
    let other = Store::new(mount.path(), "other");
    let to = ["--all", "--to", text(&other.dir), "--remove-old"];
    let said = history.copy(&to).arg("--full").run().expect(6);
    said.expect_says("free");
    assert_eq!(other.list().len(), 1, "what was copied before stays");
    other.assert_no_clutter();
    assert_eq!(history.store.list().len(), 4);
    history.check(&other, 0);
}

/// Copies in place that are killed at any moment, with parts; the next one settles what they left.
#[test]
fn a_killed_copy_loses_nothing() {
    let history = History::new(210);
    let copy = |round: u64| {
        let how = ["none", "zstd:1"][usize::from(round.is_multiple_of(2))];
        let split = ["none", "1M"][usize::from(round.is_multiple_of(3))];
        let copy = history.copy(&["--all", "--recompress", how, "--split", split]);
        copy.args(["--limit-write", "40M"])
    };
    let mut measured = 0..;
    let mut moments = Moments::of(210, 12, || {
        let copy = copy(measured.next().unwrap());
        time(|| drop(copy.run().expect(0)))
    });
    let mut killed = 0;
    while moments.go_on(killed) {
        // Another compression than the one before, which is the last one that was measured.
        let round = 3 + moments.round();
        let outcome = moments.kill(&copy(round));
        killed += u64::from(was_killed(&outcome));
        let listed = history
            .store
            .verb("list")
            .arg("--json")
            .run()
            .expect(0)
            .json();
        assert_eq!(listed["images"].as_array().unwrap().len(), 4, "{listed}");
        history.check(&history.store, usize::try_from(round % 4).unwrap());
    }
    copy(1).run().expect(0);
    history.store.assert_no_clutter();
    history.store.verify(&["--deep"]).expect(0);
    (0..4).for_each(|n| history.check(&history.store, n));
}

/// A path that is called like a word for images is still a path.
#[test]
fn a_file_is_meant_by_its_path() {
    let history = History::new(211);
    let (store, other) = (&history.store, history.other());
    let full = store.file_of(&history.images[0]);
    let odd = store.dir.join("latest");
    std::fs::rename(&full, &odd).unwrap();
    let run = |path: &Path| {
        strata("copy")
            .arg(path)
            .args(["--to", text(&other.dir)])
            .run()
    };
    // It is not listed, so it is not taken for the newest one.
    run(&odd).expect(10);
    std::fs::rename(&odd, &full).unwrap();
    run(&full).expect(0);
    assert_eq!(other.list()[0]["id"], history.images[0]["id"]);
}
