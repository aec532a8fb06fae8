//! Which images this machine has protected in a store: one that loses the note of it would let the image go.
//!
//! Beside the notes of the newest images (`super::remembered`) lies one for each protection, `DIGEST-ID.protected`.

use super::ImageRecord;
use super::remembered::{Note, Remembered};
use crate::base::{Digest, Result};
use crate::chain::{Catalog, Records};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const SUFFIX: &str = ".protected";

/// A protection that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProtectionNote {
    /// The folder.
    store: String,
    /// Name of the history.
    set: String,
    /// Place of the image in it.
    sequence: u32,
    /// The image's id.
    #[serde(with = "uuid::serde::simple")]
    pub(super) image: Uuid,
    /// The person's own words.
    pub(super) note: Option<String>,
    /// When it was made, in seconds since 1970.
    pub(super) noted: i64,
}

impl Note for ProtectionNote {
    fn store(&self) -> &str {
        &self.store
    }
}

impl ProtectionNote {
    /// Which image it is of, in words.
    pub(super) fn words(&self) -> String {
        format!(
            "number {} of set {} ({})",
            self.sequence, self.set, self.image
        )
    }
}

impl Remembered {
    /// All protections of images in the store. What cannot be read is not remembered.
    pub(super) fn protections(&self) -> Vec<ProtectionNote> {
        let notes = self.notes(SUFFIX).into_iter();
        notes.filter_map(|name| self.read(&name)).collect()
    }

    /// Those of images that are in `catalog` and that `records` does not say are protected.
    pub(super) fn lost_protections(
        &self,
        catalog: &Catalog,
        records: &Records,
    ) -> Vec<ProtectionNote> {
        let mut lost = self.protections();
        lost.retain(|p| {
            !records.protected.contains_key(&p.image) && catalog.by_id(p.image).is_some()
        });
        lost
    }

    /// Those of images that are in `catalog` no more. One that cannot be opened just now may be such an image.
    pub(super) fn protections_of_nothing(&self, catalog: &Catalog) -> Vec<Uuid> {
        if !catalog.broken.is_empty() || !catalog.refused.is_empty() {
            return Vec::new();
        }
        let ids = self.protections().into_iter().map(|p| p.image);
        ids.filter(|id| catalog.by_id(*id).is_none()).collect()
    }

    /// Remembers that `image` is protected, for the reason in `words`.
    pub(super) fn note_protection(&self, image: &ImageRecord, words: Option<&str>) {
        // It says what to expect of the store, no more.
        let _ = self.write_protection(image, words);
    }

    /// Forgets the protections of `images`.
    pub(super) fn forget_protections(&self, images: &[Uuid]) {
        self.drop_notes(SUFFIX, |note: &ProtectionNote| images.contains(&note.image));
    }

    fn write_protection(&self, image: &ImageRecord, words: Option<&str>) -> Result<()> {
        let (Some(store), Ok(id)) = (self.store(), Uuid::parse_str(&image.id)) else {
            return Ok(());
        };
        let context = "diskstrata protection of an image in a store 1";
        let key = Digest::derive(context, &[store.as_bytes(), &[0], id.as_bytes()]);
        let note = ProtectionNote {
            store: store.to_owned(),
            set: image.set.clone(),
            sequence: image.sequence,
            image: id,
            note: words.map(str::to_owned),
            noted: super::now(),
        };
        self.put(&key, &image.id, SUFFIX, &note)
    }
}
