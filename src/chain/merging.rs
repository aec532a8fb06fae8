//! Notes of merges under way, so that the next run can finish or undo what an interrupted one began.

use super::records::{MERGING, Note, Reading, encode, fill, name_of, read, remove};
use crate::base::Result;
use crate::store::{FileName, Store};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest note that is read, in bytes: one of a hundred thousand images.
const MAX_LEN: u64 = 4 << 20;

/// A merge that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunMerge {
    /// The image that takes in others.
    pub into: Uuid,
    /// The images that go when its new file stands, in the order in which they go; none when the note
    /// cannot be read.
    pub absorbs: Vec<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    absorbs: Vec<uuid::fmt::Simple>,
}

/// Notes that image `into` is about to take in `absorbs`.
///
/// # Errors
/// `Destination`.
pub fn begin_merge(store: &dyn Store, into: Uuid, absorbs: &[Uuid]) -> Result<()> {
    let absorbs = absorbs.iter().map(|id| id.simple()).collect();
    let bytes = encode(&Body { absorbs })?;
    fill(store.create(&name_of(MERGING, into)?)?, store, &bytes)
}

/// Takes back what [`begin_merge`] has noted, if anything.
///
/// # Errors
/// `Destination`.
pub fn end_merge(store: &dyn Store, into: Uuid) -> Result<()> {
    let of_image = |(name, of): (FileName, Uuid)| (of == into).then_some(name);
    let mut names = notes(store)?.into_iter().filter_map(of_image);
    names.try_for_each(|name| remove(store, &name))
}

/// The merges that were begun and not ended.
///
/// # Errors
/// When the store cannot be listed.
pub fn begun_merges(store: &dyn Store) -> Result<Vec<BegunMerge>> {
    let mut begun = Vec::new();
    for (name, into) in notes(store)? {
        let mut budget = MAX_LEN;
        let absorbs: Vec<Uuid> = match read::<Body>(store, &name, &mut budget) {
            Reading::Gone => continue,
            Reading::Unreadable => Vec::new(),
            Reading::Whole(body) => body.absorbs.into_iter().map(Uuid::from).collect(),
        };
        begun.push(BegunMerge { into, absorbs });
    }
    Ok(begun)
}

fn notes(store: &dyn Store) -> Result<Vec<(FileName, Uuid)>> {
    let names = store.list()?.into_iter().map(|entry| entry.name);
    let of_merge = |name: FileName| match Note::of(&name)? {
        Note::Merging(into) => Some((name, into)),
        Note::Replacing(_) | Note::Protected(_) | Note::Verified | Note::Odd => None,
    };
    Ok(names.filter_map(of_merge).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Records;
    use crate::store::MemoryStore;
    use std::io::Write;

    #[test]
    fn what_was_begun_is_found_until_it_ends() {
        let store = MemoryStore::new("memory");
        let id = Uuid::from_u128;
        begin_merge(&store, id(3), &[id(2), id(1)]).unwrap();
        begin_merge(&store, id(9), &[]).unwrap();
        let found = begun_merges(&store).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.contains(&BegunMerge {
            into: id(3),
            absorbs: vec![id(2), id(1)],
        }));
        assert_eq!(Records::load(&store).unwrap(), Records::default());
        end_merge(&store, id(3)).unwrap();
        end_merge(&store, id(3)).unwrap();
        assert_eq!(begun_merges(&store).unwrap().len(), 1);
    }

    #[test]
    fn a_note_that_cannot_be_read_absorbs_nothing() {
        let store = MemoryStore::new("memory");
        let name = name_of(MERGING, Uuid::from_u128(5)).unwrap();
        let mut upload = store.create(&name).unwrap();
        upload.write_all(b"{\"absorbs\":[\"x\"]}").unwrap();
        upload.publish().unwrap();
        let expected = BegunMerge {
            into: Uuid::from_u128(5),
            absorbs: Vec::new(),
        };
        assert_eq!(begun_merges(&store).unwrap(), [expected]);
    }
}
