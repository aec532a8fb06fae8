//! Whether images that stand side by side can come from the same hands. Pure.
//!
//! Whoever can write into a store can put an image there that opens with the right keys, when these are
//! public: what he cannot do is make it with the same key set. So a history is of one key set, or is not
//! encrypted at all, and where there are several, nobody says "the newest" without saying of what.

use super::catalog::{Catalog, Image};
use crate::base::{Error, ErrorKind, KeySetId, Result};
use std::collections::BTreeSet;

impl Catalog {
    /// What kept an image from being opened when that was for want of a key.
    pub fn locked(&self) -> Option<&Error> {
        let locked = self.broken.iter().find(|b| b.is_locked());
        locked.map(|b| &b.error)
    }

    /// Fails when there are images and not one of them can be opened for want of a key.
    ///
    /// # Errors
    /// `WrongKey`.
    pub fn check_any_opens(&self) -> Result<()> {
        match self.locked() {
            Some(locked) if self.images.is_empty() => Err(locked.clone()),
            _ => Ok(()),
        }
    }

    /// Fails when the images of the set called `name` are of several key sets, or only some of them are
    /// encrypted.
    ///
    /// # Errors
    /// `Refused`, naming them.
    pub fn check_keys_of(&self, name: &str) -> Result<()> {
        let key_sets = key_sets(self.set(name));
        if key_sets.len() < 2 {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::Refused, "trust the images of set", name)
                .because(format!("they were made with different keys: {}", in_words(&key_sets)))
                .hint(
                    "if `strata key rotate` was interrupted, run it again; if not, somebody may have put \
                     images there: --key-set ID leaves out all but those of ID",
                ),
        )
    }

    /// [`Catalog::check_keys_of`] for every set.
    ///
    /// # Errors
    /// `Refused`.
    pub fn check_keys(&self) -> Result<()> {
        let sets = self.newest_of_sets();
        sets.iter()
            .try_for_each(|i| self.check_keys_of(&i.info.set))
    }

    /// Fails when an image that was named only by its age, as `wanted`, could come from several hands.
    pub(super) fn check_only_keys(&self, wanted: &str) -> Result<()> {
        let key_sets = key_sets(&self.images);
        if key_sets.len() < 2 {
            return Ok(());
        }
        if let [only] = self.newest_of_sets().as_slice() {
            // Naming the set would not help.
            return self.check_keys_of(&only.info.set);
        }
        Err(
            Error::new(ErrorKind::Usage, "tell which image is meant by", wanted)
                .because(format!(
                    "the store has images made with different keys: {}",
                    in_words(&key_sets)
                ))
                .hint("say of which set: SET@latest, SET@TIME; `strata list` shows the sets"),
        )
    }
}

fn key_sets(images: &[Image]) -> BTreeSet<Option<KeySetId>> {
    images.iter().map(|i| i.key_set).collect()
}

fn in_words(key_sets: &BTreeSet<Option<KeySetId>>) -> String {
    let words = key_sets.iter().map(|k| match k {
        Some(id) => format!("key set {id}"),
        None => "not encrypted".to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::point;
    use super::*;
    use jiff::tz::TimeZone;
    use std::sync::Arc;

    fn image(n: u32, set: &str, key_set: Option<u8>) -> Image {
        let mut image = point(n, 0);
        image.key_set = key_set.map(|k| KeySetId([k; 16]));
        Arc::make_mut(&mut image.info).set = set.to_owned();
        image
    }

    fn catalog(images: &[(u32, &str, Option<u8>)]) -> Catalog {
        let images = images.iter().map(|(n, set, k)| image(*n, set, *k));
        Catalog::of(images.collect(), Vec::new())
    }

    #[test]
    fn a_set_is_of_one_key_set() {
        let good = catalog(&[(1, "a", Some(1)), (2, "a", Some(1)), (3, "b", None)]);
        good.check_keys().unwrap();
        for bad in [
            catalog(&[(1, "a", Some(1)), (2, "a", Some(2))]),
            catalog(&[(1, "a", Some(1)), (2, "a", None)]),
        ] {
            assert_eq!(bad.check_keys().unwrap_err().kind(), ErrorKind::Refused);
            // Of the only set, naming it would not help: the way out is another.
            for wanted in ["a@latest", "latest"] {
                let error = bad.find(wanted, &TimeZone::UTC).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Refused, "{wanted}");
                assert!(error.next_step().unwrap().contains("key rotate"), "{error}");
            }
        }
    }

    #[test]
    fn the_newest_of_several_hands_is_nobodys() {
        let mixed = catalog(&[(1, "a", Some(1)), (2, "b", Some(2))]);
        for wanted in ["latest", "2026-11-25"] {
            let error = mixed.find(wanted, &TimeZone::UTC).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{wanted}");
        }
        let found = mixed.find("a@latest", &TimeZone::UTC).unwrap();
        assert_eq!(found.header.sequence, 1);
        let one = catalog(&[(1, "a", Some(1)), (2, "b", Some(1))]);
        assert_eq!(
            one.find("latest", &TimeZone::UTC).unwrap().header.sequence,
            2
        );
    }
}
