//! A machine that makes images which it cannot read.

use crate::kit::bytes;
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::Strata;
use crate::kit::scratch;
use crate::kit::store::Store;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A machine with a disk and a folder for state, a store, and a private key that is elsewhere.
struct Machine {
    dir: TempDir,
    disk: PathBuf,
    store: Store,
    key: PathBuf,
    public: String,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let dir = scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "disk.img", seed).path;
        let store = Store::new(dir.path(), "store");
        // Any backup can make a key.
        let (key, other) = (dir.path().join("key.txt"), Store::new(dir.path(), "other"));
        let small = dir.path().join("small.img");
        bytes::create_filled(&small, 8192);
        let made = other.backup(&small).arg("--recovery-key").arg(&key);
        made.env("STRATA_STATE", dir.path().join("nowhere"))
            .run()
            .expect(0);
        let text = std::fs::read_to_string(&key).unwrap();
        let public = text
            .split_whitespace()
            .find(|w| w.starts_with("age1"))
            .unwrap();
        Machine {
            public: public.to_owned(),
            dir,
            disk,
            store,
            key,
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn blind(&self, args: &[&str]) -> Strata {
        let backup = self.store.backup(&self.disk).args(args).arg("--json");
        backup.env("STRATA_STATE", self.state())
    }

    #[track_caller]
    fn made(&self, args: &[&str]) -> Value {
        self.blind(args).run().expect(0).json()
    }

    fn with_key(&self, verb: &str) -> Strata {
        self.store.verb(verb).arg("--identity").arg(&self.key)
    }

    #[track_caller]
    fn check_latest(&self, expected: &Path) {
        let target = self.dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        let restore = self.store.restore("latest", &target);
        restore.arg("--identity").arg(&self.key).run().expect(0);
        bytes::assert_same(expected, &target);
    }
}

#[test]
fn increments_are_made_without_any_key_that_reads() {
    let machine = Machine::new(95);
    let first = machine.made(&["--recipient", &machine.public]);
    assert_eq!(first["image"]["kind"], "full");
    for day in 1..=4u64 {
        bytes::write_random(&machine.disk, day * 1_000_000, 200_000, day);
        let report = machine.made(&[]);
        assert_eq!(report["image"]["kind"], "incremental", "{report}");
        let (stored, whole) = (&report["stored_bytes"], &first["stored_bytes"]);
        assert!(
            stored.as_u64().unwrap() * 4 < whole.as_u64().unwrap(),
            "{stored} of {whole}"
        );
        machine.check_latest(&machine.disk);
    }
    // The machine itself can open none of them.
    machine
        .store
        .verb("list")
        .env("STRATA_STATE", machine.state())
        .run()
        .expect(8);
    machine.with_key("verify").arg("--deep").run().expect(0);
    let against = machine
        .with_key("verify")
        .arg("--against")
        .arg(&machine.disk);
    against.run().expect(0);
    // Only the newest state is kept, and nothing of the disk stands in it.
    let files = Store::at(&machine.state()).files();
    let states: Vec<_> = files
        .iter()
        .filter(|(n, _)| n.ends_with(".state"))
        .collect();
    assert_eq!(states.len(), 1, "{files:?}");
    for (name, _) in &files {
        let path = machine.state().join(name);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let state = std::fs::read(machine.state().join(&states[0].0)).unwrap();
    let block = bytes::read(&machine.disk, 1 << 20, 65536);
    let digest = blake3::hash(&block);
    assert!(
        !super::contains(&state, digest.as_bytes()),
        "not even digests"
    );
    assert!(!super::contains(&state, b"disk"));
}

#[test]
fn a_full_image_is_made_where_the_state_is_no_help() {
    let machine = Machine::new(96);
    machine.made(&["--recipient", &machine.public]);
    let second = machine.made(&[]);
    assert_eq!(second["image"]["kind"], "incremental");
    // Somebody else has gone on with the set.
    machine
        .with_key("backup")
        .arg(&machine.disk)
        .run()
        .expect(0);
    let third = machine.made(&[]);
    assert_eq!(third["image"]["kind"], "full", "{third}");
    assert_eq!(third["image"]["sequence"], 4);
    // The state is damaged, or gone.
    let find = |suffix: &str| {
        let files = Store::at(&machine.state()).files();
        let (name, _) = files
            .into_iter()
            .find(|(n, _)| n.ends_with(suffix))
            .unwrap();
        machine.state().join(name)
    };
    let state = find(".state");
    bytes::flip(&state, bytes::length(&state) - 20);
    assert_eq!(machine.made(&[])["image"]["kind"], "full");
    assert_eq!(machine.made(&[])["image"]["kind"], "incremental");
    std::fs::remove_file(find(".state")).unwrap();
    assert_eq!(machine.made(&[])["image"]["kind"], "full");
    machine.blind(&["--differential"]).run().expect(8);
    machine
        .blind(&["--recipient", "age1nonsense"])
        .run()
        .expect(2);
    machine.check_latest(&machine.disk);
    // Merged elsewhere, or another one of the same number, the newest image is not known here any more.
    bytes::write_random(&machine.disk, 2 << 20, 100_000, 9);
    assert_eq!(machine.made(&[])["image"]["kind"], "incremental");
    machine.with_key("merge").arg("..latest").run().expect(0);
    bytes::write_random(&machine.disk, 3 << 20, 100_000, 10);
    let merged = machine.made(&[]);
    assert_eq!(merged["image"]["kind"], "full", "{merged}");
    let lost = machine.made(&[]);
    assert_eq!(lost["image"]["kind"], "incremental");
    std::fs::remove_file(machine.store.file_of(&lost["image"])).unwrap();
    bytes::write_random(&machine.disk, 4 << 20, 100_000, 11);
    let other = machine
        .with_key("backup")
        .arg(&machine.disk)
        .arg("--json")
        .run()
        .expect(0)
        .json();
    assert_eq!(other["image"]["sequence"], lost["image"]["sequence"]);
    assert_eq!(machine.made(&[])["image"]["kind"], "full");
    machine.check_latest(&machine.disk);
    machine.with_key("verify").run().expect(0);
    // A change of keys leaves it the same.
    let add = machine.with_key("key").args(["add", "--recovery-key"]);
    add.arg(machine.dir.path().join("second.txt"))
        .run()
        .expect(0);
    assert_eq!(machine.made(&[])["image"]["kind"], "incremental");
    // Without the machine's key file, what is in the store is somebody else's.
    std::fs::remove_file(find(".key")).unwrap();
    machine.blind(&[]).run().expect(8);
}
