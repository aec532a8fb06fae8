//! Bytes that are wiped when they are no longer needed.

use crate::base::Result;
use age::secrecy::SecretString;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Fills a buffer with bytes that nobody can guess. This room draws none itself.
pub type Random = fn(&mut [u8]) -> Result<()>;

/// A password as a person gave it. Wiped when dropped, never shown.
pub type Passphrase = SecretString;

/// 32 secret bytes. On the heap, so that moving the value leaves no copy behind.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8; 32]>);

impl Secret {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// A new one.
    ///
    /// # Errors
    /// As `random`.
    pub fn random(random: Random) -> Result<Secret> {
        let mut bytes = Box::new([0; Secret::LEN]);
        random(bytes.as_mut_slice())?;
        Ok(Secret(bytes))
    }

    /// A copy of `bytes`, which must be 32.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Secret> {
        let mut copy = Box::new([0; Secret::LEN]);
        (bytes.len() == copy.len()).then(|| copy.copy_from_slice(bytes))?;
        Some(Secret(copy))
    }

    /// The key for one purpose, named by `context`, that follows from `parts` (BLAKE3 in its key
    /// derivation mode).
    pub(super) fn derive(context: &str, parts: &[&[u8]]) -> Secret {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in parts {
            hasher.update(part);
        }
        let mut bytes = Box::new([0; Secret::LEN]);
        hasher.finalize_xof().fill(bytes.as_mut_slice());
        hasher.zeroize();
        Secret(bytes)
    }

    /// The bytes, for whoever computes with them.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
