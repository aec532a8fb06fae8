//! Notes of images that are being written anew in their own store: which file is to take the place of
//! which other one of the same image.
//!
//! While both are there the old one counts, which is known to be whole; see [`super::Catalog`].

use super::catalog::Image;
use super::records::{Note, REPLACING, Reading, encode, fill, name_of, read, remove};
use crate::base::Result;
use crate::store::{FileName, Store};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest note that is read, in bytes: two names.
const MAX_LEN: u64 = 4 << 10;

/// A file that is written to take the place of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunReplacement {
    /// The image.
    pub image: Uuid,
    /// The file that it has and the one that is written; `None` when the note cannot be read.
    pub files: Option<(FileName, FileName)>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    old: String,
    new: String,
}

impl BegunReplacement {
    /// Whether `image` is in the new file, and one of `others` is the same image in the old one.
    pub(super) fn is_under_way(&self, image: &Image, others: &[Image]) -> bool {
        let Some((old, new)) = &self.files else {
            return false;
        };
        let same = |other: &Image| {
            other.file == *old && other.header.id == self.image && other.root == image.root
        };
        image.header.id == self.image && image.file == *new && others.iter().any(same)
    }
}

/// Notes that the file `new` of `image` is about to be written, to take the place of its file `old`.
///
/// # Errors
/// `Destination`.
pub fn begin_replacing(
    store: &dyn Store,
    image: Uuid,
    old: &FileName,
    new: &FileName,
) -> Result<()> {
    let bytes = encode(&Body {
        old: old.to_string(),
        new: new.to_string(),
    })?;
    fill(store.create(&name_of(REPLACING, image)?)?, store, &bytes)
}

/// Takes back what [`begin_replacing`] has noted, if anything.
///
/// # Errors
/// `Destination`.
pub fn end_replacing(store: &dyn Store, image: Uuid) -> Result<()> {
    let names = store.list()?.into_iter().map(|entry| entry.name);
    let mut own = names.filter(|name| note_of(name) == Some(image));
    own.try_for_each(|name| remove(store, &name))
}

/// The replacements that were begun and not ended.
///
/// # Errors
/// When the store cannot be listed.
pub fn begun_replacements(store: &dyn Store) -> Result<Vec<BegunReplacement>> {
    let names: Vec<FileName> = store.list()?.into_iter().map(|e| e.name).collect();
    Ok(replacements_in(store, &names))
}

/// As [`begun_replacements`], in a store whose files are `names`.
pub(super) fn replacements_in(store: &dyn Store, names: &[FileName]) -> Vec<BegunReplacement> {
    let mut begun = Vec::new();
    for name in names {
        let Some(image) = note_of(name) else {
            continue;
        };
        let files = match read::<Body>(store, name, &mut MAX_LEN.clone()) {
            Reading::Gone => continue,
            Reading::Unreadable => None,
            Reading::Whole(body) => {
                let names = FileName::new(body.old).ok();
                names.zip(FileName::new(body.new).ok())
            }
        };
        begun.push(BegunReplacement { image, files });
    }
    begun
}

fn note_of(name: &FileName) -> Option<Uuid> {
    match Note::of(name)? {
        Note::Replacing(image) => Some(image),
        Note::Merging(_) | Note::Protected(_) | Note::Verified | Note::Odd => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{id, point};
    use super::*;
    use crate::chain::Records;
    use crate::store::MemoryStore;
    use std::io::Write;

    fn file(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    #[test]
    fn what_was_begun_is_found_until_it_ends() {
        let store = MemoryStore::new("memory");
        begin_replacing(&store, id(3), &file("a.strata"), &file("b.strata")).unwrap();
        let expected = BegunReplacement {
            image: id(3),
            files: Some((file("a.strata"), file("b.strata"))),
        };
        assert_eq!(begun_replacements(&store).unwrap(), [expected]);
        assert_eq!(Records::load(&store).unwrap(), Records::default());
        end_replacing(&store, id(4)).unwrap();
        assert_eq!(begun_replacements(&store).unwrap().len(), 1);
        end_replacing(&store, id(3)).unwrap();
        end_replacing(&store, id(3)).unwrap();
        assert_eq!(begun_replacements(&store).unwrap(), []);
    }

    #[test]
    fn a_note_that_cannot_be_read_names_no_file() {
        for text in ["{\"old\":\"a\"}", "{\"old\":\"a\",\"new\":\"../b\"}"] {
            let store = MemoryStore::new("memory");
            let mut upload = store.create(&name_of(REPLACING, id(5)).unwrap()).unwrap();
            upload.write_all(text.as_bytes()).unwrap();
            upload.publish().unwrap();
            let expected = BegunReplacement {
                image: id(5),
                files: None,
            };
            assert_eq!(begun_replacements(&store).unwrap(), [expected], "{text}");
        }
    }

    #[test]
    fn a_note_is_believed_of_two_files_of_one_image_only() {
        let begun = BegunReplacement {
            image: id(2),
            files: Some((file("2.strata"), file("new.strata"))),
        };
        let old = point(2, 1);
        let new = Image {
            file: file("new.strata"),
            ..old.clone()
        };
        let under_way =
            |new: &Image, old: &Image| begun.is_under_way(new, &[point(1, 0), old.clone()]);
        assert!(under_way(&new, &old));
        assert!(!under_way(&old, &new), "the other way round");
        assert!(
            !begun.is_under_way(&new, &[point(1, 0)]),
            "the old one is gone"
        );
        let other_content = Image {
            root: point(3, 1).root,
            ..new.clone()
        };
        assert!(!under_way(&other_content, &old));
        let other_image = Image {
            header: point(3, 1).header,
            ..new
        };
        assert!(!under_way(&other_image, &old));
    }
}
