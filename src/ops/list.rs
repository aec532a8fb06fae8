//! Which images are there?

use super::{Context, ImageRecord, Library};
use crate::base::Result;
use serde::Serialize;
use std::path::Path;

/// The images of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Those that can be opened, by set, then by their place in it.
    pub images: Vec<ImageRecord>,
    /// Files called like images that cannot be opened.
    pub broken: Vec<BrokenFile>,
}

/// A file that is no readable image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenFile {
    /// Its name.
    pub file: String,
    /// What is wrong.
    pub message: String,
}

/// Lists the store at `store`.
///
/// # Errors
/// `NotFound` without such a store, `Usage` when none was named.
pub fn list(_: &Context<'_>, store: Option<&Path>) -> Result<Listing> {
    let catalog = Library::open(store)?.catalog()?;
    let broken = |b: &crate::chain::Broken| BrokenFile {
        file: b.file.to_string(),
        message: b.error.to_string(),
    };
    Ok(Listing {
        images: catalog.images.iter().map(ImageRecord::of).collect(),
        broken: catalog.broken.iter().map(broken).collect(),
    })
}
