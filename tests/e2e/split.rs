//! Images in numbered parts: every verb works on them as on whole ones.

use crate::kit::bytes::{self, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::text;
use crate::kit::scratch;
use crate::kit::store::{Store, number};
use serde_json::Value;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// The parts of an image's file, ascending.
fn parts_of(store: &Store, image: &Value) -> Vec<PathBuf> {
    let file = image["file"].as_str().unwrap();
    let names = store.files().into_iter().map(|(name, _)| name);
    let own = names.filter(|name| name.starts_with(&format!("{file}.")));
    own.map(|name| store.dir.join(name)).collect()
}

fn backed_up(store: &Store, disk: &Path, args: &[&str]) -> Value {
    let run = store.backup(disk).arg("--json").args(args).run();
    run.expect(0).json()
}

#[test]
fn a_history_in_parts_is_a_history() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 60).path;
    let store = Store::new(dir.path(), "store");
    let report = backed_up(&store, &disk, &["--split", "1M"]);
    assert_eq!(number(&report, "part_bytes"), MIB);
    let first = parts_of(&store, &report["image"]);
    assert!(first.len() > 3, "{first:?}");
    assert!(first.iter().all(|part| bytes::length(part) <= MIB));
    let (mut copies, mut images) = (Vec::new(), vec![report["image"].clone()]);
    for day in 1..=5 {
        let copy = dir.path().join(format!("copy-{day}"));
        std::fs::copy(&disk, &copy).unwrap();
        copies.push(copy);
        bytes::write_random(&disk, day * 700_000, 1_500_000, day);
        // Nobody says it again: the set stays as it is.
        let report = backed_up(&store, &disk, &[]);
        assert_eq!(report["image"]["kind"], "incremental");
        assert!(parts_of(&store, &report["image"]).len() > 1);
        images.push(report["image"].clone());
    }
    // One that needs a single part does not make the next ones smaller.
    let unchanged = backed_up(&store, &disk, &[]);
    assert_eq!(parts_of(&store, &unchanged["image"]).len(), 1);
    let next = backed_up(&store, &disk, &[]);
    assert_eq!(number(&next, "part_bytes"), MIB);
    let plan = store
        .backup(&disk)
        .args(["--split", "none", "--dry-run", "--json"]);
    let plan = plan.run().expect(0).json();
    assert_eq!(plan["plan"]["part_bytes"], Value::Null);
    let listed = store.list();
    assert_eq!(listed.len(), 8, "one line for each image");
    for image in &listed {
        let parts = u64::try_from(parts_of(&store, image).len()).unwrap();
        assert_eq!(number(image, "parts"), parts);
    }
    let check = |id: &Value, copy: &Path| {
        let target = dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        store.restore(id.as_str().unwrap(), &target).run().expect(0);
        assert_same(copy, &target);
    };
    check(&images[2]["id"], &copies[2]);
    let range = format!("{}..{}", images[2]["id"], images[3]["id"]).replace('"', "");
    store.verb("merge").arg(range).run().expect(0);
    store
        .verb("prune")
        .args(["--keep-last", "4"])
        .run()
        .expect(0);
    let left = store.list();
    assert_eq!(left.len(), 4);
    // The full image was rolled forward, and is still in parts that fit.
    let parts = parts_of(&store, &left[0]);
    assert!(parts.len() > 3, "{parts:?}");
    assert!(parts.iter().all(|part| bytes::length(part) <= MIB));
    let all = left.iter().map(|image| parts_of(&store, image).len());
    assert_eq!(store.files().len(), all.sum::<usize>());
    store.verify(&["--deep"]).expect(0);
    check(&images[4]["id"], &copies[4]);
    check(&images[5]["id"], &disk);
    // By the path of the image, and of any part of it.
    let whole = store.dir.join(left[0]["file"].as_str().unwrap());
    for path in [&whole, &parts[0], &parts[2]] {
        let run = crate::kit::run::strata("show")
            .arg(path)
            .arg("--json")
            .run();
        let shown = run.expect(0).json();
        assert_eq!(shown["image"]["id"], left[0]["id"]);
        assert_eq!(number(&shown, "part_bytes"), MIB);
        assert_eq!(number(&shown, "parts"), number(&left[0], "parts"));
    }
    let shown = store.verb("show").arg("latest").run().expect(0);
    let count = number(&left[3], "parts");
    shown.expect_says(&format!("in {count} numbered file"));
    // A restore over a part of what it restores is refused.
    let run = store.restore("latest", &parts[1]).run();
    assert_ne!(run.code(), Some(0), "{run}");
    store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_part_that_is_missing_or_of_another_image_is_named() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 61).path;
    let store = Store::new(dir.path(), "store");
    let one = backed_up(&store, &disk, &["--split", "1M"]);
    let two = backed_up(&store, &disk, &["--full", "--split", "1M"]);
    let (one, two) = (&one["image"], &two["image"]);
    let (of_one, of_two) = (parts_of(&store, one), parts_of(&store, two));
    let aside = dir.path().join("aside");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::rename(&of_one[1], &aside).unwrap();
    let id = one["id"].as_str().unwrap();
    store
        .verify(&[""; 0])
        .expect(7)
        .expect_says(&name(&of_one[1]));
    let target = dir.path().join("target.img");
    store.restore("latest", &target).run().expect(0);
    let file = store.dir.join(one["file"].as_str().unwrap());
    let run = store
        .restore(text(&file), &dir.path().join("other.img"))
        .run();
    run.expect(7)
        .expect_says(&name(&of_one[1]))
        .expect_says("is missing");
    // The part of the other image in its place.
    std::fs::copy(&of_two[1], &of_one[1]).unwrap();
    let run = store
        .restore(text(&file), &dir.path().join("other.img"))
        .run();
    run.expect(7).expect_says("belongs to another file");
    // Nothing is removed while that is so, and nothing is lost when it is mended.
    store
        .verb("prune")
        .args(["--keep-last", "1"])
        .run()
        .expect(7);
    std::fs::rename(&aside, &of_one[1]).unwrap();
    store.verify(&["--deep"]).expect(0);
    store
        .restore(id, &dir.path().join("other.img"))
        .run()
        .expect(0);
    assert_same(&disk, &dir.path().join("other.img"));
}

#[test]
fn a_flipped_bit_is_found_in_the_part_that_has_it() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 62).path;
    let store = Store::new(dir.path(), "store");
    let report = backed_up(&store, &disk, &["--split", "1M"]);
    let parts = parts_of(&store, &report["image"]);
    bytes::flip(&parts[2], MIB / 2);
    let found = store.verify(&["--json"]).expect(7).json();
    let damage = found["images"][0]["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 1, "one frame: {found}");
}

#[test]
fn what_is_asked_is_planned_and_checked() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "disk.img", 63).path;
    let store = Store::new(dir.path(), "store");
    let plan = |args: &[&str]| {
        let run = store.backup(&disk).args(["--dry-run", "--json"]).args(args);
        run.run().expect(0).json()["plan"]["part_bytes"].clone()
    };
    assert_eq!(plan(&["--split", "650M"]), 650 * MIB);
    // A limit is told as it is: a file of 4 GiB is a byte too long for FAT.
    let text = store.backup(&disk).args(["--dry-run", "--split", "4095M"]);
    text.run()
        .expect(0)
        .expect_says("numbered files of 4095 MiB at most");
    assert_eq!(plan(&["--split", "auto"]), Value::Null, "no FAT");
    assert_eq!(plan(&[]), Value::Null);
    for bad in ["1023K", "many"] {
        store.backup(&disk).args(["--split", bad]).run().expect(2);
    }
    let pipe = crate::kit::run::strata("backup").arg(&disk);
    let pipe = pipe.args(["--store", "-", "--split", "1M"]).run();
    pipe.expect(2).expect_says("--split");
}

/// The number of parts is a column only where any image has some.
#[test]
fn a_list_counts_parts() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 64).path;
    let store = Store::new(dir.path(), "store");
    let whole = backed_up(&store, &disk, &[]);
    assert_eq!(whole["image"]["parts"], Value::Null);
    let list = || store.verb("list").run().expect(0).text().into_owned();
    assert!(!list().contains("PARTS"), "{}", list());
    let cut = backed_up(&store, &disk, &["--full", "--split", "1M"]);
    let count = parts_of(&store, &cut["image"]).len();
    let listed = list();
    let column = listed.lines().next().unwrap().find("PARTS").unwrap();
    let cell = |line: &str| {
        let from = line.get(column..).unwrap_or_default();
        from.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let cells: Vec<String> = listed.lines().skip(1).map(cell).collect();
    assert_eq!(cells, ["", &count.to_string()], "{listed}");
    assert_eq!(store.list()[0]["parts"], Value::Null);
}

/// On the last of several media: the image is there, and parts of it are not.
#[test]
fn a_list_says_what_is_missing() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 65).path;
    let store = Store::new(dir.path(), "store");
    let image = backed_up(&store, &disk, &["--split", "1M"])["image"].clone();
    let parts = parts_of(&store, &image);
    let (last, others) = parts.split_last().unwrap();
    others
        .iter()
        .for_each(|part| std::fs::remove_file(part).unwrap());
    assert!(last.exists());
    let says = format!("{} of its {} parts are missing", others.len(), parts.len());
    store.verb("list").run().expect(0).expect_says(&says);
    let listed = store.verb("list").arg("--json").run().expect(0).json();
    assert_eq!(listed["broken"][0]["file"], image["file"]);
}
