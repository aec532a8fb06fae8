//! Stores that lose what they confirmed, or cannot give it just now: the machine that made it remembers, and says so.

use crate::kit::disk::{Disk, Layout};
use crate::kit::run::Outcome;
use crate::kit::store::{Store, number};
use crate::kit::{bytes, scratch};
use serde_json::Value;
use std::path::Path;

struct Machine {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
}

impl Machine {
    /// One whose store holds a full image and two increments.
    fn new() -> Machine {
        let dir = scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "source.img", 411);
        let store = Store::new(dir.path(), "store");
        let machine = Machine { dir, disk, store };
        for _ in 0..3 {
            assert_eq!(gone(&machine.backup()), [""; 0]);
        }
        machine
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    fn backup(&self) -> Value {
        bytes::write_random(
            &self.disk.path,
            0,
            4096,
            self.store.all_files().len() as u64,
        );
        let backup = self.store.backup(&self.disk.path).arg("--json");
        let run = backup.env("STRATA_STATE", self.state()).run();
        run.expect(0).json()
    }

    fn verify(&self, state: &Path) -> Outcome {
        let verify = self.store.verb("verify").arg("--json");
        verify.env("STRATA_STATE", state).run()
    }

    /// Neither verify nor the next backup says that anything is gone.
    #[track_caller]
    fn misses_nothing(&self) {
        let verified = self.verify(&self.state());
        assert_eq!(gone(&verified.expect(0).json()), [""; 0]);
        assert_eq!(gone(&self.backup()), [""; 0]);
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
