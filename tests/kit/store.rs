//! A store folder and the verbs that are used on it all the time.

use super::run::{Outcome, Strata, strata};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub(crate) struct Store {
    pub(crate) dir: PathBuf,
}

impl Store {
    /// An empty folder `name` in `dir`, as a store.
    pub(crate) fn new(dir: &Path, name: &str) -> Store {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        Store { dir }
    }

    /// A folder that is there already.
    pub(crate) fn at(dir: &Path) -> Store {
        Store {
            dir: dir.to_owned(),
        }
    }

    /// A command line of `verb` on this store.
    pub(crate) fn verb(&self, verb: &str) -> Strata {
        strata(verb).arg("--store").arg(&self.dir)
    }

    pub(crate) fn backup(&self, source: &Path) -> Strata {
        self.verb("backup").arg(source)
    }

    /// Backs up a source that is all readable; the image as JSON tells of it.
    #[track_caller]
    pub(crate) fn backed_up(&self, source: &Path) -> Value {
        let report = self.backup(source).arg("--json").run().expect(0).json();
        report["image"].clone()
    }

    /// A restore that asks nothing.
    pub(crate) fn restore(&self, image: &str, target: &Path) -> Strata {
        self.verb("restore").arg(image).arg(target).arg("--yes")
    }

    /// The images of the store, as `list` tells them; fails when anything in it is broken.
    #[track_caller]
    pub(crate) fn list(&self) -> Vec<Value> {
        let listed = self.verb("list").arg("--json").run().expect(0);
        let json = listed.json();
        assert_eq!(json["broken"], Value::Array(Vec::new()), "{listed}");
        json["images"]
            .as_array()
            .unwrap_or_else(|| panic!("{listed}"))
            .clone()
    }

    #[track_caller]
    pub(crate) fn verify<A: AsRef<OsStr>>(&self, args: &[A]) -> Outcome {
        self.verb("verify").args(args).run()
    }

    /// The path of an image's file.
    #[track_caller]
    pub(crate) fn file_of(&self, image: &Value) -> PathBuf {
        let name = image["file"].as_str().unwrap_or_else(|| panic!("{image}"));
        let path = self.dir.join(name);
        assert!(path.is_file(), "{} does not exist", path.display());
        path
    }

    /// All files below the folder, by name, with their lengths, but for the empty ones that locks
    /// hang on and the notes of what was verified and protected.
    pub(crate) fn files(&self) -> Vec<(String, u64)> {
        let empty = [".adding", ".lock", ".publishing"];
        let lock = |name: &str, len: u64| len == 0 && empty.contains(&name);
        let note = |name: &str| {
            let kind = name.starts_with("verified-") || name.starts_with("protected-");
            kind && name.ends_with(".json")
        };
        let mut files = self.all_files();
        files.retain(|(name, len)| !lock(name, *len) && !note(name));
        files
    }

    /// What stands in each of `files`.
    pub(crate) fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let files = self.files().into_iter();
        let content = |name: &String| std::fs::read(self.dir.join(name)).unwrap();
        files
            .map(|(name, _)| (name.clone(), content(&name)))
            .collect()
    }

    /// As `files`, with those of locks.
    pub(crate) fn all_files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        collect(&self.dir, "", &mut files);
        files.sort();
        files
    }

    /// Fails unless the folder holds the listed images and nothing beside them.
    #[track_caller]
    pub(crate) fn assert_no_clutter(&self) {
        let mut expected: Vec<String> = self
            .list()
            .iter()
            .map(|image| image["file"].as_str().unwrap().to_owned())
            .collect();
        expected.sort();
        let found: Vec<String> = self.files().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            found, expected,
            "files of the store and images that are listed"
        );
    }
}

fn collect(dir: &Path, prefix: &str, files: &mut Vec<(String, u64)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push((name, metadata.len()));
        }
    }
}

/// The text of a JSON member.
#[track_caller]
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is no text in {value}"))
}

/// The number of a JSON member.
#[track_caller]
pub(crate) fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} is no number in {value}"))
}
