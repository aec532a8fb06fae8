//! Stores by their folders.

use crate::base::Result;
use crate::store::{LocalStore, PartBringer, ReopenedStore, SplitStore, Store};
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

/// The store in the folder `path`, to read from; parts that are not there are asked for where somebody brings
/// them.
///
/// # Errors
/// `NotFound` when there is no such folder, `Destination`.
pub(super) fn open_to_read(
    path: &Path,
    bringer: Option<&Arc<dyn PartBringer>>,
) -> Result<Arc<dyn Store>> {
    let local = LocalStore::open(path)?;
    let Some(bringer) = bringer else {
        return Ok(in_parts(local));
    };
    let store = ReopenedStore::new(path.to_owned());
    let split = SplitStore::new(Arc::new(store), Uuid::new_v4);
    Ok(Arc::new(split.with_bringer(Arc::clone(bringer))))
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
