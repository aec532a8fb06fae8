//! Images through pipes: made, verified, shown and restored without a file.

use crate::kit::bytes::{self, assert_same, assert_same_range};
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Outcome, STRATA, Strata, strata, text};
use crate::kit::store::{Store, number};
use crate::kit::{scratch, tools};
use std::path::Path;
use std::time::Duration;

fn into_pipe(source: &Path) -> Strata {
    strata("backup").arg(source).args(["--store", "-"])
}

/// The image of `source`, as it comes out of standard output.
#[track_caller]
fn image_of(source: &Path) -> Vec<u8> {
    into_pipe(source).run().expect(0).stdout
}

fn out_of_pipe(image: &[u8], target: &Path) -> Strata {
    let restore = strata("restore").arg("-").arg(target).arg("--yes");
    restore.input(image)
}

fn said_aside(run: &Outcome) -> serde_json::Value {
    let from = run.stderr.find('{').unwrap_or_else(|| panic!("{run}"));
    // Behind it, an error is told in words too.
    let mut objects = serde_json::Deserializer::from_str(&run.stderr[from..]).into_iter();
    objects
        .next()
        .unwrap()
        .unwrap_or_else(|e| panic!("{e}: {run}"))
}

#[test]
fn every_kind_of_disk_goes_through() {
    for (n, layout) in (0..).zip([Layout::Gpt512, Layout::Mbr, Layout::Odd, Layout::Zero]) {
        let dir = scratch();
        let disk = Disk::build(layout, dir.path(), "disk.img", 40 + n).path;
        let run = into_pipe(&disk).arg("--json").run().expect(0);
        let report = said_aside(&run);
        assert_eq!(report["image"]["file"], "-");
        assert_eq!(number(&report, "stored_bytes"), run.stdout.len() as u64);
        let target = dir.path().join("target.img");
        out_of_pipe(&run.stdout, &target).run().expect(0);
        // What was not in use reads as zeros: the same as from a store.
        let store = Store::new(dir.path(), "store");
        store.backed_up(&disk);
        let other = dir.path().join("other.img");
        store.restore("latest", &other).run().expect(0);
        assert_same(&other, &target);
    }
}

#[test]
fn what_went_through_a_pipe_is_an_image_like_any_other() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 50).path;
    let store = Store::new(dir.path(), "store");
    let file = store.dir.join("from-a-pipe.strata");
    let line = format!(
        "'{STRATA}' backup '{}' --store - > '{}'",
        text(&disk),
        text(&file)
    );
    tools::run("sh", &["-c", &line]);
    store.verify(&["--deep"]).expect(0);
    let images = store.list();
    assert_eq!(images.len(), 1);
    // The next image of the disk builds on it.
    bytes::write_random(&disk, 100_000, 4096, 1);
    let next = store.backed_up(&disk);
    assert_eq!(next["parent"], images[0]["id"]);
    let shown = |image: &[u8]| {
        let run = strata("show").args(["-", "--json"]).input(image).run();
        run.expect(0).json()
    };
    let piped = shown(&std::fs::read(&file).unwrap());
    let stored = store.verb("show").args(["from-a-pipe.strata", "--json"]);
    let mut stored = stored.run().expect(0).json();
    stored["image"]["file"] = "-".into();
    assert_eq!(piped, stored);
    // Without its parent, an increment is no disk.
    let increment = std::fs::read(store.file_of(&next)).unwrap();
    for verb in ["show", "verify"] {
        let run = strata(verb).arg("-").input(&increment).run();
        run.expect(7).expect_says("builds on another image");
    }
    let target = dir.path().join("target.img");
    out_of_pipe(&increment, &target).run().expect(7);
    assert!(!target.exists());
}

#[test]
fn a_shell_joins_both_ends() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "disk.img", 51);
    let target = dir.path().join("target.img");
    let (source, target_text) = (text(&disk.path), text(&target));
    let line = format!(
        "'{STRATA}' backup '{source}' --all-blocks --store - | '{STRATA}' restore - '{target_text}'"
    );
    tools::run("sh", &["-c", &line]);
    assert_same(&disk.path, &target);
    // One partition of it, into the same one of another disk.
    let part = disk.part(2);
    let other = Disk::build(Layout::Gpt512, dir.path(), "other.img", 52);
    let line = format!(
        "'{STRATA}' backup '{source}' --all-blocks --store - | \
         '{STRATA}' restore - '{}' --partition 2:2 --yes",
        text(&other.path)
    );
    tools::run("sh", &["-c", &line]);
    assert_same_range(&disk.path, part.start, &other.path, part.start, part.len);
}

#[test]
fn damage_is_named_and_leaves_no_disk() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "disk.img", 53).path;
    let image = image_of(&disk);
    let verify = |bytes: &[u8]| strata("verify").args(["-", "--json"]).input(bytes).run();
    let whole = verify(&image).expect(0).json();
    assert_eq!(whole["images"][0]["deep"], true);
    let mut flipped = image.clone();
    flipped[image.len() / 2] ^= 4;
    let report = verify(&flipped).expect(7).json();
    let damage = report["images"][0]["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 1, "{report}");
    assert_ne!(number(&damage[0], "length"), 0);
    for wrong in [&flipped[..], &image[..image.len() - 1], &image[..1000], &[]] {
        let target = dir.path().join("target.img");
        out_of_pipe(wrong, &target).run().expect(7);
        assert!(!target.exists(), "made for nothing");
        // On a disk, the old table is gone and there is no new one.
        std::fs::copy(&disk, &target).unwrap();
        out_of_pipe(wrong, &target).run().expect(7);
        if wrong.len() > 1000 {
            assert!(bytes::read(&target, 0, 8192).iter().all(|b| *b == 0));
        } else {
            assert_same(&disk, &target);
        }
        std::fs::remove_file(&target).unwrap();
    }
}

#[test]
fn what_a_pipe_cannot_do_is_refused() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "disk.img", 54).path;
    let refused = |run: Strata, code: i32, why: &str| {
        let outcome = run.run().expect(code).expect_says(why);
        assert!(outcome.stdout.is_empty(), "{outcome}");
    };
    for kind in ["--incremental", "--differential"] {
        refused(into_pipe(&disk).arg(kind), 2, "only a store knows");
    }
    let image = image_of(&disk);
    let with = |verb: &str, args: &[&str]| strata(verb).arg("-").args(args).input(&image);
    refused(with("show", &["--changed"]), 2, "--changed");
    refused(with("verify", &["--sample", "5%"]), 2, "--sample");
    refused(with("verify", &["--older-than", "1d"]), 2, "--older-than");
    refused(with("verify", &["--against", text(&disk)]), 2, "--against");
    let target = dir.path().join("target.img");
    refused(
        out_of_pipe(&image, &target).arg("--only-changed"),
        2,
        "read twice",
    );
    // What would be cut off cannot be looked at before it comes.
    bytes::create_filled(&target, bytes::length(&disk) - (1 << 20));
    refused(out_of_pipe(&image, &target), 4, "comes out of the pipe");
    // A failure is told aside as well.
    let run = into_pipe(Path::new("/nowhere"))
        .arg("--json")
        .run()
        .expect(10);
    assert!(run.stdout.is_empty(), "{run}");
    assert_eq!(said_aside(&run)["error"]["kind"], "not-found");
}

#[test]
fn a_reader_that_leaves_ends_the_backup() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 56).path;
    let line = format!(
        "'{STRATA}' backup '{}' --store - | head -c 100 > /dev/null; exit ${{PIPESTATUS[0]}}",
        text(&disk)
    );
    let ended = std::process::Command::new("bash")
        .args(["-c", &line])
        .output();
    let ended = ended.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(6), "{said}");
    assert!(said.contains("whoever reads the pipe"), "{said}");
}

#[test]
fn a_pipe_that_says_nothing_can_be_left() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "disk.img", 55).path;
    let image = image_of(&disk);
    let (pipe, target) = (dir.path().join("pipe"), dir.path().join("target.img"));
    tools::run("mkfifo", &[text(&pipe)]);
    std::fs::write(dir.path().join("half"), &image[..image.len() / 2]).unwrap();
    // Half an image, and then whoever writes does nothing for a long time.
    let line = format!(
        "(cat '{}/half'; exec sleep 100) > '{}' & '{STRATA}' restore - '{}' < '{}' & \
         restore=$!; sleep 2; kill -INT $restore; wait $restore; code=$?; kill %1; exit $code",
        text(dir.path()),
        text(&pipe),
        text(&target),
        text(&pipe),
    );
    let started = std::time::Instant::now();
    let ended = std::process::Command::new("bash")
        .args(["-mc", &line])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(!target.exists());
}
