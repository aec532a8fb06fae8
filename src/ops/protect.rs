//! An image that no prune and no merge may remove.

use super::images::lock_to_read;
use super::{Context, ImageRecord};
use crate::base::Result;
use crate::chain::{self, Catalog};
use crate::store::Store;
use serde::Serialize;
use std::path::Path;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protected {
    /// The image.
    pub image: ImageRecord,
    /// Whether it is protected now.
    pub protected: bool,
    /// Whether that is new.
    pub changed: bool,
}

/// Protects the image that `wanted` names, or takes that back when `off`.
///
/// # Errors
/// `NotFound`, `Usage` for too long a note, `Locked`, `Destination`.
pub fn protect(
    context: &Context<'_>,
    store: &Path,
    wanted: &str,
    note: Option<&str>,
    off: bool,
) -> Result<Protected> {
    let store = super::stores::open(context, store)?;
    protect_in(store.as_ref(), wanted, note, off)
}

/// [`protect`] in any store.
///
/// # Errors
/// As [`protect`].
pub fn protect_in(
    store: &dyn Store,
    wanted: &str,
    note: Option<&str>,
    off: bool,
) -> Result<Protected> {
    let _lock = lock_to_read(store, "protect")?;
    let catalog = Catalog::load(store)?;
    let image = catalog.find(wanted, &super::time_zone())?;
    let id = image.header.id;
    let changed = if off {
        chain::unprotect(store, id)?
    } else {
        chain::protect(store, id, note, super::now())?
    };
    Ok(Protected {
        image: ImageRecord::of(image),
        protected: !off,
        changed,
    })
}
