//! Stores that lose what they confirmed, or cannot give it just now: the machine that made it remembers, and says so.

use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Outcome, Strata};
use crate::kit::store::{Store, number, text};
use crate::kit::{bytes, scratch};
use serde_json::Value;
use std::path::{Path, PathBuf};

struct Machine {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
}

impl Machine {
    /// One whose store holds a full image and two increments.
    fn new() -> Machine {
        Machine::keeping(&[])
    }

    /// Such a one, whose images are kept as `args` say.
    fn keeping(args: &[&str]) -> Machine {
        let dir = scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "source.img", 411);
        let store = Store::new(dir.path(), "store");
        let machine = Machine { dir, disk, store };
        let first = machine.store.backup(&machine.disk.path).args(args);
        let first = match args.contains(&"--recovery-key") {
            true => first.arg(machine.key()),
            false => first,
        };
        machine.with_state(first).run().expect(0);
        for _ in 0..2 {
            assert_eq!(gone(&machine.backup()), [""; 0]);
        }
        machine
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// The file of its private key, where its images are encrypted.
    fn key(&self) -> PathBuf {
        self.dir.path().join("key.txt")
    }

    /// `command`, with what the machine remembers and its key.
    fn with_state(&self, command: Strata) -> Strata {
        self.with_key(command).env("STRATA_STATE", self.state())
    }

    fn with_key(&self, command: Strata) -> Strata {
        match self.key().exists() {
            true => command.env("STRATA_IDENTITY", self.key()),
            false => command,
        }
    }

    fn backs_up(&self) -> Outcome {
        let seed = self.store.all_files().len() as u64;
        bytes::write_random(&self.disk.path, 0, 4096, seed);
        let backup = self.store.backup(&self.disk.path).arg("--json");
        self.with_state(backup).run()
    }

    fn backup(&self) -> Value {
        self.backs_up().expect(0).json()
    }

    fn verify(&self, state: &Path) -> Outcome {
        let verify = self.store.verb("verify").arg("--json");
        self.with_key(verify).env("STRATA_STATE", state).run()
    }

    /// Takes the name of `image` away, as a power cut does when the store has not kept what it said it had.
    fn lose_name(&self, image: &Value) {
        let folder = &self.store.dir;
        let file = text(image, "file");
        let part = format!("{file}.001");
        if !folder.join(&part).exists() {
            let begun = folder.join(format!(".unfinished-0-{file}"));
            return std::fs::rename(folder.join(file), begun).unwrap();
        }
        // With it goes that the mark of unfinished parts was taken away.
        let id = &std::fs::read(folder.join(&part)).unwrap()[16..32];
        std::fs::write(folder.join(format!("{file}.unfinished")), id).unwrap();
        let begun = folder.join(format!(".unfinished-0-{part}"));
        std::fs::rename(folder.join(part), begun).unwrap();
    }

    /// Neither verify nor the next backup says that anything is gone.
    #[track_caller]
    fn misses_nothing(&self) {
        let verified = self.verify(&self.state());
        assert_eq!(gone(&verified.expect(0).json()), [""; 0]);
        assert_eq!(gone(&self.backup()), [""; 0]);
    }

    /// The notes of what is protected.
    fn protections(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(&self.store.dir).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let protects = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("protected-")
        };
        let notes: Vec<PathBuf> = paths.filter(protects).collect();
        assert!(!notes.is_empty());
        notes
    }

    /// Takes them away.
    fn lose_protections(&self) {
        let notes = self.protections().into_iter();
        notes.for_each(|path| std::fs::remove_file(path).unwrap());
    }

    /// Takes the files of the newest images away, as a power cut may have.
    fn lose(&self, images: usize) {
        for image in self.store.list().iter().rev().take(images) {
            std::fs::remove_file(self.store.file_of(image)).unwrap();
        }
    }
}

/// What is said to be gone.
fn gone(report: &Value) -> Vec<String> {
    let warnings = report["warnings"].as_array().unwrap().iter();
    let texts = warnings.map(|w| w.as_str().unwrap().to_owned());
    texts.filter(|text| text.contains("gone from")).collect()
}

#[test]
fn verify_and_the_next_backup_name_images_that_a_store_has_lost() {
    for lost in 1..=3 {
        let machine = Machine::new();
        let verified = machine.verify(&machine.state());
        assert_eq!(gone(&verified.expect(0).json()), [""; 0]);
        machine.lose(lost);
        let numbers = match lost {
            1 => "number 3 of set".to_owned(),
            lost => format!("numbers {} to 3 of set", 4 - lost),
        };
        let verified = machine.verify(&machine.state());
        let said = gone(&verified.expect(0).json());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&numbers), "{said:?}");
        // Another machine cannot know.
        let elsewhere = machine.verify(&machine.dir.path().join("another"));
        assert_eq!(gone(&elsewhere.expect(0).json()), [""; 0]);
        let dry = machine.store.backup(&machine.disk.path);
        let dry = dry.arg("--dry-run").env("STRATA_STATE", machine.state());
        let dry = dry.run().expect(0);
        assert!(dry.all_text().contains("gone from"), "{dry}");
        let report = machine.backup();
        let said = gone(&report);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&numbers), "{said:?}");
        // Should the lost ones turn up, none of them and no other claim one place.
        let number = number(&report["image"], "sequence");
        assert_eq!(number, 4);
        assert_eq!(gone(&machine.backup()), [""; 0], "said once");
        assert_eq!(
            gone(&machine.verify(&machine.state()).expect(0).json()),
            [""; 0]
        );
        let notes = std::fs::read_dir(machine.state()).unwrap();
        let notes = notes.filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_str().unwrap().ends_with(".newest")
        });
        assert_eq!(notes.count(), 1, "one for the history");
    }
}

/// All of the newest image is there, but its name: the next run that cleans up knows what it is.
#[test]
fn an_image_that_has_lost_its_name_stands_again() {
    for (args, verb) in [
        (&[][..], "backup"),
        (&[], "prune"),
        (&["--split", "1M"], "backup"),
        (&["--split", "1M"], "prune"),
        (&["--recovery-key"], "backup"),
        (&["--split", "1M", "--recovery-key"], "backup"),
    ] {
        let machine = Machine::keeping(args);
        bytes::write_random(&machine.disk.path, 65536, 3 << 20, 77);
        let made = machine.backup();
        let image = &made["image"];
        let copy = machine.dir.path().join("copy");
        std::fs::copy(&machine.disk.path, &copy).unwrap();
        machine.lose_name(image);
        let verified = machine.verify(&machine.state()).expect(0);
        assert_eq!(gone(&verified.json()).len(), 1, "{args:?}");
        let outcome = match verb {
            "backup" => machine.backs_up(),
            _ => {
                let prune = machine.store.verb("prune").args(["--keep-last", "9"]);
                machine.with_state(prune).run()
            }
        };
        let outcome = outcome.expect(0);
        assert!(
            outcome.stderr.contains("stands again"),
            "{args:?}: {outcome}"
        );
        if verb == "backup" {
            let report = outcome.json();
            assert_eq!(gone(&report), [""; 0], "{args:?}");
            assert_eq!(report["image"]["parent"], image["id"], "{args:?}: {report}");
            assert_eq!(number(&report["image"], "sequence"), 5);
        }
        let target = machine.dir.path().join("target");
        let restore = machine.store.restore(text(image, "id"), &target);
        machine.with_state(restore).run().expect(0);
        bytes::assert_same(&copy, &target);
        let deep = machine.store.verb("verify").arg("--deep");
        machine.with_state(deep).run().expect(0);
        machine.misses_nothing();
    }
}

/// Of two images that lost their names, one builds on the other; and what another image builds on was an image,
/// whoever remembers it.
#[test]
fn what_an_image_builds_on_stands_again_too() {
    let machine = Machine::new();
    let made = [machine.backup(), machine.backup()].map(|made| made["image"].clone());
    made.iter().for_each(|image| machine.lose_name(image));
    let outcome = machine.backs_up().expect(0);
    assert_eq!(
        outcome.stderr.matches("stands again").count(),
        2,
        "{outcome}"
    );
    let report = outcome.json();
    assert_eq!(report["image"]["parent"], made[1]["id"], "{report}");
    let told = report["warnings"].to_string();
    assert_eq!(told.matches("stands again").count(), 2, "{told}");
    machine.verify(&machine.state()).expect(0);
    machine.lose_name(&made[0]);
    let prune = machine.store.verb("prune").args(["--keep-last", "9"]);
    let elsewhere = machine.dir.path().join("another");
    let outcome = prune.env("STRATA_STATE", elsewhere).run().expect(0);
    assert!(outcome.stderr.contains("stands again"), "{outcome}");
    machine.store.verify(&["--deep"]).expect(0);
    machine.misses_nothing();
}

/// What was protected stays, although the store has lost that it is.
#[test]
fn a_protection_that_a_store_has_lost_is_made_again() {
    for verb in ["backup", "prune"] {
        let machine = Machine::new();
        let first = machine.store.list()[0].clone();
        let protect = machine.store.verb("protect").arg(text(&first, "id"));
        let protect = protect.args(["--note", "before the upgrade"]);
        machine.with_state(protect).run().expect(0);
        machine.lose_protections();
        let warnings = machine.verify(&machine.state()).expect(0).json();
        let warnings = warnings["warnings"].to_string();
        assert!(
            warnings.contains("number 1 of set") && warnings.contains("was protected here"),
            "{warnings}"
        );
        let elsewhere = machine.dir.path().join("another");
        let other = machine.verify(&elsewhere).expect(0).json();
        assert!(
            !other["warnings"].to_string().contains("protected"),
            "{other}"
        );
        let prune = machine
            .store
            .verb("prune")
            .args(["--keep-last", "1", "--json"]);
        let prune = machine.with_state(prune);
        let plan = machine
            .store
            .verb("prune")
            .args(["--keep-last", "1", "--json", "--dry-run"]);
        let plan = machine.with_state(plan).run().expect(0).json();
        assert_eq!(plan["plan"]["images"][0]["keep"], true, "{plan}");
        let report = match verb {
            "backup" => machine.backup(),
            _ => prune.run().expect(0).json(),
        };
        let told = report["warnings"].to_string();
        assert!(told.contains("protected again"), "{told}");
        let pruned = prune.run().expect(0).json();
        assert!(
            !pruned["warnings"].to_string().contains("again"),
            "{pruned}"
        );
        assert_eq!(machine.store.list()[0]["id"], first["id"]);
        let notes = machine.protections();
        let words = std::fs::read_to_string(&notes[0]).unwrap();
        assert!(words.contains("before the upgrade"), "{words}");
        // Taken back, it is not made again.
        let off = machine
            .store
            .verb("protect")
            .arg(text(&first, "id"))
            .arg("--off");
        machine.with_state(off).run().expect(0);
        prune.run().expect(0);
        assert_ne!(machine.store.list()[0]["id"], first["id"]);
        machine.misses_nothing();
    }
}

/// Where image and protection are gone, that is said, and by prune once.
#[test]
fn a_protected_image_that_is_gone_with_its_protection_is_named() {
    let machine = Machine::new();
    let first = machine.store.list()[0].clone();
    let protect = machine.store.verb("protect").arg(text(&first, "id"));
    machine.with_state(protect).run().expect(0);
    machine.lose_protections();
    machine.store.list().iter().for_each(|image| {
        std::fs::remove_file(machine.store.file_of(image)).unwrap();
    });
    machine.backup();
    let said = gone(&machine.verify(&machine.state()).expect(0).json());
    assert!(
        said.iter().any(|s| s.contains("is protected and gone")),
        "{said:?}"
    );
    let prune = machine.with_state(machine.store.verb("prune").args(["--keep-last", "9"]));
    let outcome = prune.run().expect(0);
    assert!(outcome.stderr.contains("was protected"), "{outcome}");
    machine.misses_nothing();
}

/// Whoever wants to see nothing but what went wrong sees that.
#[test]
fn a_quiet_run_says_what_is_gone() {
    let machine = Machine::new();
    machine.lose(1);
    for verb in [
        machine.store.verb("verify"),
        machine.store.backup(&machine.disk.path),
    ] {
        let outcome = machine.with_state(verb.arg("--quiet")).run().expect(0);
        assert!(outcome.stderr.contains("gone from"), "{outcome}");
    }
}

/// The file that has the name may be the image, as soon as it can be opened again.
#[test]
fn an_image_that_cannot_be_opened_is_not_replaced_by_one_without_a_name() {
    let machine = Machine::new();
    let made = machine.backup();
    let file = machine.store.file_of(&made["image"]);
    let whole = std::fs::read(&file).unwrap();
    machine.lose_name(&made["image"]);
    let mut damaged = whole.clone();
    damaged[128..192].fill(0);
    std::fs::write(&file, damaged).unwrap();
    let outcome = machine.backs_up().expect(0);
    assert!(!outcome.stderr.contains("stands again"), "{outcome}");
    std::fs::write(&file, whole).unwrap();
    machine.misses_nothing();
}

/// What is not whole is no image, whatever is remembered of it.
#[test]
fn an_image_that_has_lost_its_name_and_a_byte_is_gone() {
    let machine = Machine::new();
    bytes::write_random(&machine.disk.path, 65536, 3 << 20, 77);
    let made = machine.backup();
    bytes::flip(&machine.store.file_of(&made["image"]), 1 << 20);
    machine.lose_name(&made["image"]);
    let outcome = machine.backs_up().expect(0);
    assert!(!outcome.stderr.contains("stands again"), "{outcome}");
    let said = gone(&outcome.json());
    assert_eq!(said.len(), 1, "{said:?}");
    machine.store.assert_no_clutter();
    machine.misses_nothing();
}

/// A file that cannot be opened may be the newest image: nobody builds on an older one without a word, or gives its
/// number away.
#[test]
fn a_backup_names_what_cannot_be_opened_of_its_set() {
    for damaged in 1..=3 {
        let machine = Machine::new();
        let images = machine.store.list();
        let files = images.iter().rev().take(damaged);
        let files: Vec<_> = files.map(|image| machine.store.file_of(image)).collect();
        for file in &files {
            bytes::write(file, 128, &[0; 64]);
        }
        let report = machine.backup();
        let warnings = report["warnings"].as_array().unwrap();
        for file in &files {
            let name = file.file_name().unwrap().to_str().unwrap();
            let named = warnings.iter().any(|w| w.as_str().unwrap().contains(name));
            assert!(named, "{name}: {warnings:?}");
        }
        assert_eq!(number(&report["image"], "sequence"), 4);
        let kind = if damaged == 3 { "full" } else { "incremental" };
        assert_eq!(report["image"]["kind"], kind);
        let target = machine.dir.path().join("target");
        let restore = machine.store.restore("latest", &target);
        restore.run().expect(0);
        bytes::assert_same(&machine.disk.path, &target);
    }
}

/// What is removed by the rules leaves the newest image, and a merge keeps its number.
#[test]
fn what_was_pruned_is_not_said_to_be_lost() {
    let machine = Machine::new();
    let prune = machine.store.verb("prune").args(["--keep-last", "1"]);
    prune.run().expect(0);
    machine.misses_nothing();
}

/// A history that moved to another store is not missed in the old one.
#[test]
fn what_was_moved_is_not_said_to_be_lost() {
    let machine = Machine::new();
    let moved = machine
        .store
        .verb("copy")
        .args(["--all", "--remove-old", "--to"]);
    let moved = moved.arg(machine.dir.path().join("other"));
    moved.env("STRATA_STATE", machine.state()).run().expect(0);
    machine.misses_nothing();
}

/// A note in the store names an image that is gone, which no rule would have removed.
#[test]
fn a_protected_image_that_is_gone_is_named() {
    let machine = Machine::new();
    let protect = machine.store.verb("protect").arg("latest");
    protect.run().expect(0);
    machine.lose(1);
    let elsewhere = machine.dir.path().join("another");
    let said = gone(&machine.verify(&elsewhere).expect(0).json());
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("is protected"), "{said:?}");
    let prune = machine.store.verb("prune").args(["--keep-last", "2"]);
    let outcome = prune.run().expect(0);
    assert!(outcome.stderr.contains("was protected"), "{outcome}");
    assert_eq!(gone(&machine.verify(&elsewhere).expect(0).json()), [""; 0]);
}
