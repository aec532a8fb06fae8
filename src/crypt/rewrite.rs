//! Other keys for a file that exists: only its head changes.

use super::head::Head;
use super::key_set::KeySet;
use super::ring::KeyRing;
use super::secret::Random;
use crate::base::Result;

/// Bytes to be written over a file's head. Each step must be durable before the next begins; cut anywhere,
/// the head is the old or the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Where, and what.
    pub steps: Vec<(u64, Vec<u8>)>,
}

/// How the file with `head`, called `name` in messages, gets the keys of `key_set`.
///
/// # Errors
/// As [`KeyRing`]: it must be opened first; `Usage` when its head has no room for so many.
pub fn rewrap(
    head: &Head,
    name: &str,
    keys: &KeyRing,
    key_set: &KeySet,
    random: Random,
) -> Result<Rewrite> {
    let opened = keys.open(head, name)?;
    if opened.key_set == *key_set {
        return Ok(Rewrite {
            steps: head.leftover().into_iter().collect(),
        });
    }
    let keys = (&opened.file_key, opened.earlier.as_slice());
    let steps = head.rewrite(keys, key_set, random)?.to_vec();
    Ok(Rewrite { steps })
}
