//! What runs that did not end have left in a file with which another one went on: which chunks, and with which key.
//!
//! Each run encrypts with a file key of its own. So the one that goes on writes the same chunk numbers again without
//! repeating a nonce, whatever became of what was written before it.

use super::chunk::{TAG_LEN, aes};
use super::secret::Secret;
use crate::base::{Error, ErrorKind, Result};
use ring::aead::{Aad, Nonce};
use std::ops::Range;
use zeroize::Zeroizing;

/// The most runs that a file remembers beside its last one.
pub(super) const MAX_EARLIER: usize = 32;
/// Bytes of each: its file key, and its chunks as two numbers.
const ENTRY_LEN: usize = Secret::LEN + 16;

/// Chunks that were written with the key of an earlier run. In a list, the oldest stands first and counts first:
/// what it has lies within what the next one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Earlier {
    pub(super) chunks: Range<u64>,
    pub(super) file_key: Secret,
}

/// What a file has from earlier runs once another one goes on with it and keeps the chunks `kept`: of what was
/// written with `file_key`, and of what the runs before that left. `None` when these are too many runs.
pub(super) fn kept_of(
    earlier: &[Earlier],
    file_key: &Secret,
    kept: &Range<u64>,
) -> Option<Vec<Earlier>> {
    let mut list: Vec<Earlier> = Vec::new();
    let last = Earlier {
        chunks: 0..u64::MAX,
        file_key: file_key.clone(),
    };
    for Earlier { chunks, file_key } in earlier.iter().chain([&last]) {
        let chunks = chunks.start.max(kept.start)..chunks.end.min(kept.end);
        // What an older one has all of is not looked for in a younger one.
        if !chunks.is_empty() && list.last().is_none_or(|older| older.chunks != chunks) {
            let file_key = file_key.clone();
            list.push(Earlier { chunks, file_key });
        }
    }
    (list.len() <= MAX_EARLIER).then_some(list)
}

/// The list for the head of the file with `file_key`; empty when there is nothing in it.
///
/// # Errors
/// `Internal`.
pub(super) fn encrypt(earlier: &[Earlier], file_key: &Secret, salt: &[u8; 16]) -> Result<Vec<u8>> {
    if earlier.is_empty() {
        return Ok(Vec::new());
    }
    let len = earlier.len() * ENTRY_LEN;
    let mut bytes = Zeroizing::new(Vec::with_capacity(len + TAG_LEN));
    for Earlier { chunks, file_key } in earlier {
        bytes.extend_from_slice(file_key.bytes());
        bytes.extend_from_slice(&chunks.start.to_le_bytes());
        bytes.extend_from_slice(&chunks.end.to_le_bytes());
    }
    let key = aes(&key_for(file_key, salt))?;
    key.seal_in_place_append_tag(only_nonce(), Aad::empty(), &mut *bytes)
        .map_err(|_| Error::new(ErrorKind::Internal, "encrypt", "the keys of earlier runs"))?;
    Ok(std::mem::take(&mut *bytes))
}

/// The list in a head; `None` when it is not authentic or malformed.
pub(super) fn decrypt(list: &[u8], file_key: &Secret, salt: &[u8; 16]) -> Option<Vec<Earlier>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let key = aes(&key_for(file_key, salt)).ok()?;
    let mut bytes = Zeroizing::new(list.to_vec());
    let plain = key
        .open_in_place(only_nonce(), Aad::empty(), &mut bytes)
        .ok()?;
    let sane = plain.len().is_multiple_of(ENTRY_LEN) && plain.len() / ENTRY_LEN <= MAX_EARLIER;
    sane.then_some(())?;
    let mut earlier: Vec<Earlier> = Vec::new();
    for entry in plain.chunks(ENTRY_LEN) {
        let (file_key, chunks) = entry.split_at_checked(Secret::LEN)?;
        let (start, end) = chunks.split_at_checked(8)?;
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
        let chunks = number(start)?..number(end)?;
        let within = |older: &Range<u64>| {
            chunks.start <= older.start && older.end <= chunks.end && *older != chunks
        };
        let fits = !chunks.is_empty() && earlier.last().is_none_or(|e| within(&e.chunks));
        fits.then_some(())?;
        let file_key = Secret::from_slice(file_key)?;
        earlier.push(Earlier { chunks, file_key });
    }
    (!earlier.is_empty()).then_some(earlier)
}

/// The salt is drawn anew for every head, so that a key encrypts one list alone.
fn key_for(file_key: &Secret, salt: &[u8; 16]) -> Secret {
    Secret::derive("diskstrata earlier keys 1", &[file_key.bytes(), salt])
}

/// A key that is used once needs no other nonce.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;
    use proptest::prelude::*;

    fn key_of<'a>(earlier: &'a [Earlier], last: &'a Secret, chunk: u64) -> &'a Secret {
        let found = earlier.iter().find(|e| e.chunks.contains(&chunk));
        found.map_or(last, |e| &e.file_key)
    }

    proptest! {
        /// Beside a model that remembers of every chunk who wrote it.
        #[test]
        fn each_chunk_has_the_key_of_the_run_that_wrote_it_last(
            runs in proptest::collection::vec((0..4u64, 0..40u64), 0..30),
        ) {
            let salt = [3; 16];
            let mut last = Secret::random(random).unwrap();
            let mut earlier = Vec::new();
            let mut model = vec![last.clone(); 50];
            for (start, end) in runs {
                earlier = kept_of(&earlier, &last, &(start..end)).unwrap();
                last = Secret::random(random).unwrap();
                for (chunk, key) in (0..).zip(&mut model) {
                    if !(start..end).contains(&chunk) {
                        *key = last.clone();
                    }
                }
                for (chunk, key) in (0..).zip(&model) {
                    prop_assert_eq!(key_of(&earlier, &last, chunk), key);
                }
                let stored = encrypt(&earlier, &last, &salt).unwrap();
                prop_assert_eq!(stored.is_empty(), earlier.is_empty());
                prop_assert_eq!(decrypt(&stored, &last, &salt), Some(earlier.clone()));
            }
        }
    }

    #[test]
    fn a_list_that_is_another_is_refused() {
        let key = Secret::random(random).unwrap();
        let entry = |chunks| Earlier {
            chunks,
            file_key: Secret::random(random).unwrap(),
        };
        let good = vec![entry(1..4), entry(1..9)];
        let stored = encrypt(&good, &key, &[1; 16]).unwrap();
        assert_eq!(decrypt(&stored, &key, &[1; 16]), Some(good));
        assert_eq!(decrypt(&stored, &key, &[2; 16]), None, "another salt");
        for at in 0..stored.len() {
            let mut bad = stored.clone();
            bad[at] ^= 1;
            assert_eq!(decrypt(&bad, &key, &[1; 16]), None, "byte {at}");
        }
        #[allow(clippy::reversed_empty_ranges)]
        for bad in [
            vec![entry(4..4)],
            vec![entry(5..4)],
            vec![entry(1..9), entry(1..4)],
            vec![entry(1..4), entry(1..4)],
            vec![entry(1..4), entry(2..9)],
            (1..=33).map(|end| entry(0..end)).collect(),
        ] {
            let stored = encrypt(&bad, &key, &[1; 16]).unwrap();
            assert_eq!(decrypt(&stored, &key, &[1; 16]), None, "{bad:?}");
        }
    }

    #[test]
    fn so_many_runs_and_no_more_are_remembered() {
        let key = || Secret::random(random).unwrap();
        let mut earlier = Vec::new();
        for end in 1..=32 {
            earlier = kept_of(&earlier, &key(), &(0..end)).unwrap();
        }
        assert_eq!(earlier.len(), MAX_EARLIER);
        assert_eq!(kept_of(&earlier, &key(), &(0..33)), None);
        assert_eq!(kept_of(&earlier, &key(), &(0..7)).unwrap().len(), 7);
        // A run that adds nothing that is kept is forgotten.
        assert_eq!(kept_of(&earlier, &key(), &(0..32)).unwrap(), earlier);
    }
}
