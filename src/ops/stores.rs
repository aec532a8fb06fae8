//! Stores by their folders.

use super::{Context, random};
use crate::base::Result;
use crate::store::{EncryptedStore, LocalStore, ReopenedStore, SplitStore, Store};
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
    LocalStore::open(path).map(|local| encrypted(context, in_parts(context, local)))
}

/// The store in the folder `path`, to read from; parts that are not there are asked for where somebody brings
/// them.
///
/// # Errors
/// `NotFound` when there is no such folder, `Destination`.
pub(super) fn open_to_read(context: &Context<'_>, path: &Path) -> Result<Arc<dyn Store>> {
    let local = LocalStore::open(path)?;
    let in_parts = match &context.bringer {
        None => in_parts(context, local),
        Some(bringer) => {
            let store = ReopenedStore::new(path.to_owned());
            let split = in_parts(context, store);
            split.with_bringer(Arc::clone(bringer))
        }
    };
    Ok(Arc::new(encrypted(context, in_parts)))
}

/// The store in the folder `path`, which is made if need be.
///
/// # Errors
/// `Destination`.
pub(super) fn create(context: &Context<'_>, path: &Path) -> Result<Arc<dyn Store>> {
    let in_parts = LocalStore::create(path).map(|local| in_parts(context, local))?;
    Ok(Arc::new(encrypted(context, in_parts)))
}

/// Whether `path` is that of a file, in one piece or in parts.
pub(super) fn is_file(path: &Path) -> bool {
    let mut first = path.as_os_str().to_owned();
    first.push(".001");
    path.is_file() || Path::new(&first).is_file()
}

/// Files may lie in parts in any store.
fn in_parts(context: &Context<'_>, folder: impl Store + 'static) -> SplitStore {
    SplitStore::new(context.paced_store(Arc::new(folder)), Uuid::new_v4)
}

/// Files may be encrypted in any store.
fn encrypted(context: &Context<'_>, in_parts: SplitStore) -> EncryptedStore {
    EncryptedStore::new(Arc::new(in_parts), Arc::clone(&context.keys), random)
}
