//! Encrypted images: made, read with any of their keys and with no other, and nothing told without one.

mod blind;
mod copies;
mod images;
mod keys;
mod passwords;
mod resume;
mod trust;

use crate::kit::bytes;
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::Strata;
use crate::kit::store::Store;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a person does who has a password or the file of a private key. The key is much faster.
trait WithKeys {
    fn password(self, password: &str) -> Strata;
    fn identity(self, key: &Path) -> Strata;
}

impl WithKeys for Strata {
    fn password(self, password: &str) -> Strata {
        self.env("STRATA_PASSWORD", password)
    }

    fn identity(self, key: &Path) -> Strata {
        self.env("STRATA_IDENTITY", key)
    }
}

/// A disk and an encrypted history of it: a full image and `increments` others, with the disk as it was at
/// each.
struct History {
    dir: TempDir,
    disk: PathBuf,
    store: Store,
    /// The file of its private key.
    key: PathBuf,
    images: Vec<Value>,
    copies: Vec<PathBuf>,
}

impl History {
    fn new(seed: u64, increments: u64, args: &[&str]) -> History {
        let dir = crate::kit::scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "secret-name.img", seed).path;
        let store = Store::new(dir.path(), "store");
        let key = dir.path().join("key.txt");
        let mut history = History {
            dir,
            disk,
            store,
            key,
            images: Vec::new(),
            copies: Vec::new(),
        };
        for day in 0..=increments {
            if day > 0 {
                bytes::write_random(&history.disk, day * 900_000, 300_000, seed + day);
            }
            if day > 0 {
                history.backup(&[]);
                continue;
            }
            let key = history.key.clone();
            let mut all = vec!["--recovery-key", key.to_str().unwrap()];
            all.extend(args);
            history.first(&all);
        }
        history
    }

    #[track_caller]
    fn backup(&mut self, args: &[&str]) {
        let run = self.store.backup(&self.disk).args(args);
        self.made(run.identity(&self.key));
    }

    fn first(&mut self, args: &[&str]) {
        let run = self.store.backup(&self.disk).args(args);
        let state = self.path("state");
        self.made(run.env("STRATA_STATE", state));
    }

    #[track_caller]
    fn made(&mut self, run: Strata) {
        let report = run.arg("--json").run().expect(0).json();
        let copy = self.dir.path().join(format!("copy-{}", self.copies.len()));
        std::fs::copy(&self.disk, &copy).unwrap();
        self.images.push(report["image"].clone());
        self.copies.push(copy);
    }

    fn verb(&self, verb: &str) -> Strata {
        self.store.verb(verb).identity(&self.key)
    }

    /// The public half of its key.
    fn public(&self) -> String {
        let text = std::fs::read_to_string(&self.key).unwrap();
        let mut words = text.split_whitespace();
        words.find(|w| w.starts_with("age1")).unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Fails unless image `n` gives back the disk as it was.
    #[track_caller]
    fn check(&self, n: usize) {
        self.check_with(n, |s| s.identity(&self.key));
    }

    /// The same, opened as `with` says.
    #[track_caller]
    fn check_with(&self, n: usize, with: impl Fn(Strata) -> Strata) {
        let id = self.images[n]["id"].as_str().unwrap();
        let target = self.path("restored.img");
        let _ = std::fs::remove_file(&target);
        with(self.store.restore(id, &target)).run().expect(0);
        bytes::assert_same(&self.copies[n], &target);
    }
}

/// A private key that opens nothing here.
fn another_key(dir: &Path) -> PathBuf {
    let key = dir.join("another.txt");
    let small = dir.join("small.img");
    bytes::create_filled(&small, 8192);
    let store = Store::new(dir, "another");
    let backup = store.backup(&small).arg("--recovery-key").arg(&key);
    backup
        .env("STRATA_STATE", dir.join("another-state"))
        .run()
        .expect(0);
    key
}

/// All bytes of all files below `dir`, and their names.
fn everything_in(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, _) in Store::at(dir).all_files() {
        all.extend_from_slice(name.as_bytes());
        all.extend(std::fs::read(dir.join(name)).unwrap());
    }
    all
}

fn contains(all: &[u8], what: &[u8]) -> bool {
    all.windows(what.len()).any(|w| w == what)
}
