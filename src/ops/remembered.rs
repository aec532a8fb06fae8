//! Which image was the newest that this machine made in a store: a store that has lost it cannot tell.
//!
//! One note for each history and store lies in the folder for state, `DIGEST-ID.newest`. Where there is no such
//! folder, or nothing can be written there, nothing is remembered, which is nobody's failure: the image itself is
//! in the store.

use super::place::label_and_number;
use super::{ImageRecord, state};
use crate::base::{Digest, Error, ErrorKind, Result, to_u64, to_usize};
use crate::chain::Catalog;
use crate::store::{FileName, LocalStore, Store, write_error};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use uuid::Uuid;

const SUFFIX: &str = ".newest";
/// The longest note that is read, in bytes: three names and a path.
const MAX_NOTE: u64 = 16 << 10;
/// The most notes that are read: one for each history and store.
const MAX_NOTES: usize = 10_000;

/// The newest image of a history in a store, as it was when this machine had made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    /// The folder.
    store: String,
    /// Name of the history.
    set: String,
    /// Place of the image in it.
    sequence: u32,
    /// The image's id.
    image: String,
    /// Its file.
    file: String,
    /// When it was begun, RFC 3339 in UTC.
    time: String,
    /// When the note was made, in seconds since 1970.
    noted: i64,
}

impl Note for Newest {
    fn store(&self) -> &str {
        &self.store
    }
}

/// What is noted of something in a store.
pub(super) trait Note: Serialize + DeserializeOwned {
    /// The store's folder.
    fn store(&self) -> &str;
}

/// What is remembered of one store.
pub(super) struct Remembered {
    /// The folder for state, if there is one.
    folder: Option<LocalStore>,
    /// The store's folder; empty when it cannot be told apart from others.
    store: String,
}

impl Remembered {
    /// What this machine remembers of the store in the folder `store`.
    pub(super) fn of(store: &Path) -> Remembered {
        let folder = state::folder().and_then(|folder| LocalStore::open(&folder).ok());
        Remembered::in_folder(folder, store)
    }

    fn in_folder(folder: Option<LocalStore>, store: &Path) -> Remembered {
        let path = std::fs::canonicalize(store).ok();
        let path = path.and_then(|path| path.to_str().map(str::to_owned));
        Remembered {
            folder,
            store: path.unwrap_or_default(),
        }
    }

    /// The newest image of each history in the store. What cannot be read is not remembered.
    fn newest(&self) -> Vec<Newest> {
        let mut sets: BTreeMap<String, Newest> = BTreeMap::new();
        for note in self
            .notes(SUFFIX)
            .iter()
            .filter_map(|name| self.read::<Newest>(name))
        {
            // A run that was killed leaves the note before its own, too.
            match sets.get(&note.set) {
                Some(known) if known.noted > note.noted => {}
                _ => drop(sets.insert(note.set.clone(), note)),
            }
        }
        sets.into_values().collect()
    }

    /// The notes whose names end with `suffix`.
    pub(super) fn notes(&self, suffix: &str) -> Vec<FileName> {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.store.is_empty()) else {
            return Vec::new();
        };
        let names = folder
            .list()
            .unwrap_or_default()
            .into_iter()
            .map(|e| e.name);
        let notes = names.filter(|name| name.as_str().ends_with(suffix));
        notes.take(MAX_NOTES).collect()
    }

    /// What stands in the note `name`, if that can be read and is of this store.
    pub(super) fn read<T: Note>(&self, name: &FileName) -> Option<T> {
        let file = self.folder.as_ref()?.open(name).ok()?;
        if file.len() > MAX_NOTE {
            return None;
        }
        let mut bytes = vec![0; to_usize(file.len())];
        file.read_at(0, &mut bytes).ok()?;
        let note: T = serde_json::from_slice(&bytes).ok()?;
        (note.store() == self.store).then_some(note)
    }

    /// The store's folder, as notes name it; `None` when it cannot be told apart from others.
    pub(super) fn store(&self) -> Option<&str> {
        Some(self.store.as_str()).filter(|store| !store.is_empty())
    }

    /// Writes `note`, which is called by `key` of this store, `id` and `suffix`, in place of others with that key.
    ///
    /// # Errors
    /// `Destination`.
    pub(super) fn put<T: Note>(
        &self,
        key: &Digest,
        id: &str,
        suffix: &str,
        note: &T,
    ) -> Result<()> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => state::made_folder()?,
        };
        let key = key.to_string();
        let name = FileName::new(format!("{key}-{id}{suffix}"))?;
        let bytes = serde_json::to_vec(note)
            .map_err(|e| Error::new(ErrorKind::Internal, "encode", name.as_str()).caused_by(e))?;
        if to_u64(bytes.len()) > MAX_NOTE {
            return Ok(());
        }
        let names = folder.list()?.into_iter().map(|e| e.name);
        let known: Vec<FileName> = names.filter(|n| n.as_str().starts_with(&key)).collect();
        if known.contains(&name) {
            folder.remove(&name)?;
        }
        let mut upload = folder.create(&name)?;
        let written = upload.write_all(&bytes);
        written.map_err(|e| write_error(name.as_str(), e))?;
        upload.publish()?;
        for older in known.iter().filter(|known| **known != name) {
            folder.remove(older)?;
        }
        Ok(())
    }

    /// Removes the notes whose names end with `suffix` and that are `unwanted`.
    pub(super) fn drop_notes<T: Note>(&self, suffix: &str, unwanted: impl Fn(&T) -> bool) {
        let Some(folder) = &self.folder else {
            return;
        };
        let is_unwanted = |name: &FileName| self.read(name).is_some_and(|note| unwanted(&note));
        for name in self.notes(suffix).into_iter().filter(is_unwanted) {
            // The worst is a warning too many.
            let _ = folder.remove(&name);
        }
    }

    /// The number of the newest image that was made of the history called `set`.
    pub(super) fn number_of(&self, set: &str) -> Option<u32> {
        let newest = self.newest().into_iter().find(|n| n.set == set);
        newest.map(|newest| newest.sequence)
    }

    /// The ids of the newest images of all histories.
    pub(super) fn images(&self) -> Vec<Uuid> {
        let ids = self.newest().into_iter().map(|newest| newest.image);
        ids.filter_map(|id| Uuid::parse_str(&id).ok()).collect()
    }

    /// What a person should know of histories that end before they did, all or the one called `set`, when a store
    /// holds what `catalog` says.
    pub(super) fn lost_of(&self, set: Option<&str>, catalog: &Catalog) -> Vec<String> {
        let newest = self.newest().into_iter();
        let wanted = newest.filter(|newest| set.is_none_or(|set| newest.set == set));
        let lost = wanted.filter_map(|newest| {
            let end = newest.end_in(catalog)?;
            (end < newest.sequence).then(|| newest.lost(&self.store, end.saturating_add(1)))
        });
        lost.collect()
    }

    /// Remembers `made`, the newest image of its history, in place of the one before.
    pub(super) fn note(&self, made: &ImageRecord) {
        // It says what to expect of the store, no more: an image is not worse for want of it.
        let _ = self.write(made);
    }

    /// Forgets the notes of images that were removed on purpose.
    pub(super) fn forget(&self, removed: &[Uuid]) {
        let removed: Vec<String> = removed.iter().map(Uuid::to_string).collect();
        self.drop_notes(SUFFIX, |note: &Newest| removed.contains(&note.image));
    }

    fn write(&self, made: &ImageRecord) -> Result<()> {
        let Some(store) = self.store() else {
            return Ok(());
        };
        let context = "diskstrata newest image of a set in a store 1";
        let key = Digest::derive(context, &[store.as_bytes(), &[0], made.set.as_bytes()]);
        let note = Newest {
            store: store.to_owned(),
            set: made.set.clone(),
            sequence: made.sequence,
            image: made.id.clone(),
            file: made.file.clone(),
            time: made.time.clone(),
            noted: super::now(),
        };
        self.put(&key, &made.id, SUFFIX, &note)
    }
}

impl Newest {
    /// The highest number of its history in a store, 0 for none; `None` when its file is there, whether it can be
    /// opened or not.
    fn end_in(&self, catalog: &Catalog) -> Option<u32> {
        if catalog.files().any(|file| file.as_str() == self.file) {
            return None;
        }
        let own = catalog.images.iter().filter(|i| i.info.set == self.set);
        let opened = own.map(|image| image.header.sequence);
        // Of what cannot be opened, the names tell.
        let label = label_and_number(&self.file).map(|(label, _)| label);
        let named = catalog.files().filter_map(|f| label_and_number(f.as_str()));
        let alike = named.filter(|(other, _)| Some(*other) == label);
        let named = alike.map(|(_, number)| number);
        Some(opened.chain(named).max().unwrap_or(0))
    }

    /// That it is gone, and so is all from number `first` on.
    fn lost(&self, store: &str, first: u32) -> String {
        let (numbers, are) = match first {
            first if first == self.sequence => (format!("number {first}"), "is"),
            first => (format!("numbers {first} to {}", self.sequence), "are"),
        };
        format!(
            "{numbers} of set {} {are} gone from {store}: {} was made here on {} and was safely stored, as the store \
             said; if nobody removed it, the store loses what it has confirmed",
            self.set, self.image, self.time
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::file_name;
    use super::*;
    use crate::chain::Broken;
    use crate::image::Kind;

    fn made(set: &str, sequence: u32) -> ImageRecord {
        ImageRecord {
            id: format!("id-{set}-{sequence}"),
            parent: None,
            kind: "full",
            set: set.to_owned(),
            sequence,
            time: "2026-01-02T03:04:05Z".to_owned(),
            bytes: 1,
            disk_bytes: 1,
            block_size: 4096,
            root: String::new(),
            file: file_name(set, sequence, 0, Kind::Full),
            key_set: None,
        }
    }

    #[test]
    fn the_newest_image_of_each_history_and_store_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let state = LocalStore::create(&dir.path().join("state")).unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        for store in [&a, &b] {
            std::fs::create_dir(store).unwrap();
        }
        let of = |store: &Path| Remembered::in_folder(Some(state.clone()), store);
        (1..=3).for_each(|n| of(&a).note(&made("x", n)));
        of(&a).note(&made("y", 7));
        of(&b).note(&made("x", 1));
        assert_eq!(state.list().unwrap().len(), 3, "one for each");
        assert_eq!(of(&a).number_of("x"), Some(3));
        assert_eq!(of(&b).number_of("x"), Some(1));
        assert_eq!(of(&b).number_of("y"), None);
        let lost = |files: &[(&str, u32)], set| {
            let broken = files.iter().map(|(set, number)| Broken {
                file: FileName::new(made(set, *number).file).unwrap(),
                error: Error::new(ErrorKind::WrongKey, "open", "it"),
            });
            of(&a).lost_of(set, &Catalog::of(Vec::new(), broken.collect()))
        };
        assert_eq!(lost(&[("x", 3), ("y", 7)], None), [""; 0], "all are there");
        let all = lost(&[], None);
        assert!(all[0].starts_with("numbers 1 to 3 of set x are"), "{all:?}");
        assert!(all[1].starts_with("numbers 1 to 7 of set y are"), "{all:?}");
        // Files that cannot be opened tell by their names where a history ends.
        let one = lost(&[("x", 2), ("y", 4)], Some("x"));
        assert!(one[0].starts_with("number 3 of set x is gone"), "{one:?}");
        assert_eq!(one.len(), 1);
        assert_eq!(
            lost(&[("x", 5), ("y", 7)], None),
            [""; 0],
            "others made more"
        );
        // Made after the loss.
        of(&a).note(&made("x", 4));
        assert_eq!(lost(&[("x", 2), ("x", 4)], Some("x")), [""; 0], "said once");
    }

    #[test]
    fn what_cannot_be_remembered_is_nobodys_failure() {
        let dir = tempfile::tempdir().unwrap();
        let state = LocalStore::create(&dir.path().join("state")).unwrap();
        let of = |store: &Path| Remembered::in_folder(Some(state.clone()), store);
        of(dir.path()).note(&made("x", 5));
        let note = state.list().unwrap().remove(0).name;
        std::fs::write(dir.path().join("state").join(note.as_str()), b"{").unwrap();
        let nothing = Catalog::of(Vec::new(), Vec::new());
        assert_eq!(of(dir.path()).lost_of(None, &nothing), [""; 0]);
        of(&dir.path().join("nowhere")).note(&made("x", 5));
        assert_eq!(state.list().unwrap().len(), 1);
    }
}
