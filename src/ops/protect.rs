//! An image that no prune and no merge may remove.

use super::images::lock_to_read;
use super::remembered::Remembered;
use super::{Context, ImageRecord};
use crate::base::Result;
use crate::chain::{self, Catalog};
use crate::store::Store;
use serde::Serialize;
use std::path::Path;
use uuid::Uuid;

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
    let remembered = Remembered::of(store);
    let store = super::stores::open(context, store)?;
    let done = protect_in(store.as_ref(), wanted, note, off)?;
    if !off {
        remembered.note_protection(&done.image, note);
    } else if let Ok(id) = Uuid::parse_str(&done.image.id) {
        remembered.forget_protections(&[id]);
    }
    Ok(done)
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
