//! Stores by their folders.

use super::{Context, random};
use crate::base::Result;
use crate::store::{EncryptedStore, LocalStore, SplitStore, Store};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// The store in the folder `path`.
///
/// # Errors
/// `NotFound` when there is no such folder, `Destination`.
pub(super) fn open(context: &Context<'_>, path: &Path) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(open_encrypted(context, path)?))
}

/// [`open`], for whoever handles keys.
///
/// # Errors
/// As [`open`].
pub(super) fn open_encrypted(context: &Context<'_>, path: &Path) -> Result<EncryptedStore> {
    LocalStore::open(path).map(|local| wrapped(context, local))
}

/// The store in the folder `path`, which is made if need be.
///
/// # Errors
/// `Destination`.
pub(super) fn create(context: &Context<'_>, path: &Path) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(wrapped(context, LocalStore::create(path)?)))
}

/// Whether `path` is that of a file, in one piece or in parts.
pub(super) fn is_file(path: &Path) -> bool {
    let mut first = path.as_os_str().to_owned();
    first.push(".001");
    path.is_file() || Path::new(&first).is_file()
}

/// Files may lie in parts, and be encrypted, in any store.
fn wrapped(context: &Context<'_>, local: LocalStore) -> EncryptedStore {
    let in_parts = SplitStore::new(Arc::new(local), Uuid::new_v4);
    EncryptedStore::new(Arc::new(in_parts), Arc::clone(&context.keys), random)
}
