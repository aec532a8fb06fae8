//! Stores by their folders.

use crate::base::Result;
use crate::store::{LocalStore, SplitStore, Store};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// The store in the folder `path`.
///
/// # Errors
/// `NotFound` when there is no such folder, `Destination`.
pub(super) fn open(path: &Path) -> Result<Arc<dyn Store>> {
    LocalStore::open(path).map(in_parts)
}

/// The store in the folder `path`, which is made if need be.
///
/// # Errors
/// `Destination`.
pub(super) fn create(path: &Path) -> Result<Arc<dyn Store>> {
    LocalStore::create(path).map(in_parts)
}

/// Whether `path` is that of a file, in one piece or in parts.
pub(super) fn is_file(path: &Path) -> bool {
    let mut first = path.as_os_str().to_owned();
    first.push(".001");
    path.is_file() || Path::new(&first).is_file()
}

/// Files may lie in parts in any store.
fn in_parts(local: LocalStore) -> Arc<dyn Store> {
    Arc::new(SplitStore::new(Arc::new(local), Uuid::new_v4))
}
