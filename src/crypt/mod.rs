//! Encrypted files: `docs/format.md`, section 14, made code. What is inside them is not looked at.
//!
//! A file is a plain head, which says who may open it, and chunks of ciphertext behind it. Everything
//! that a file holds is in the chunks, so whoever lacks a key learns its length and nothing else.
//!
//! Promises: no byte of a file is handed out before it is authenticated; no nonce is used twice with
//! a key, because every run that writes into a file draws a key of its own and writes each chunk once; a head that
//! somebody without the key set's secret made is not believed; secrets are wiped when they are dropped.
//! Must not know: where files live, what an image is, how a person is asked for a password.

mod chunk;
mod earlier;
mod file;
mod head;
mod key_set;
mod reader;
mod recipient;
mod rewrite;
mod ring;
mod secret;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unfinished;
mod writer;

pub use file::EncryptedFile;
pub use head::{Head, is_encrypted};
pub use key_set::{KeyEntry, KeyKind, KeySet};
pub use reader::DecryptReader;
pub use recipient::{Identity, Recipient, protect_identity};
pub use rewrite::{Rewrite, rewrap};
pub use ring::{KeyRing, KeySource, NoKeys};
pub use secret::{Passphrase, Random, Secret};
pub use unfinished::{GoingOn, UnfinishedFile};
pub use writer::EncryptWriter;
