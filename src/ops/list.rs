//! Which images are there?

use super::{Context, ImageRecord, Library};
use crate::base::Result;
pub use crate::chain::How;
use crate::chain::{Image, Records, VerifiedRecord};
use crate::store::FileName;
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// The images of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Those that can be opened, by set, then by their place in it.
    pub images: Vec<Listed>,
    /// Files called like images that cannot be opened.
    pub broken: Vec<BrokenFile>,
}

/// An image of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The image.
    #[serde(flatten)]
    pub image: ImageRecord,
    /// In how many numbered files it lies; absent when it is not cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
    /// Whether no prune may remove it.
    pub protected: bool,
    /// The last verification of each kind.
    pub verified: Vec<VerifiedAt>,
    /// Why it cannot be restored as a whole, where that is known without reading it.
    pub incomplete: Option<String>,
}

/// A verification that was noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedAt {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// `quick`, `deep` or `sample`.
    pub how: How,
    /// Which share of the frames was looked at, in thousandths.
    pub share: u32,
    /// Whether nothing was wrong.
    pub ok: bool,
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
pub fn list(context: &Context<'_>, store: Option<&Path>) -> Result<Listing> {
    list_in(&Library::open(context, store)?)
}

/// [`list`], in a library that is open.
///
/// # Errors
/// As [`list`].
pub fn list_in(library: &Library<'_>) -> Result<Listing> {
    let catalog = library.catalog()?;
    catalog.check_any_opens()?;
    let store = library.store()?;
    let records = Records::load(store.as_ref())?;
    let entries = store.list()?.into_iter();
    let parts: HashMap<FileName, u32> = entries.filter_map(|e| Some((e.name, e.parts?))).collect();
    let incomplete = catalog.incomplete();
    let broken = |b: &crate::chain::Broken| BrokenFile {
        file: b.file.to_string(),
        message: b.error.to_string(),
    };
    Ok(Listing {
        images: catalog
            .images
            .iter()
            .map(|image| Listed {
                parts: parts.get(&image.file).copied(),
                ..listed(image, incomplete.get(&image.header.id), &records)
            })
            .collect(),
        broken: catalog
            .broken
            .iter()
            .chain(&catalog.refused)
            .map(broken)
            .collect(),
    })
}

fn listed(image: &Image, incomplete: Option<&String>, records: &Records) -> Listed {
    let id = image.header.id;
    let found = records.verified.get(&id).into_iter().flatten();
    // A note about another content is not about this image.
    let of_this = found.filter(|r| r.root == image.root);
    let verified = |r: &VerifiedRecord| VerifiedAt {
        time: super::time_text(r.time),
        how: r.how,
        share: r.share,
        ok: r.ok,
    };
    Listed {
        image: ImageRecord::of(image),
        parts: None,
        protected: records.protected.contains_key(&id),
        verified: of_this.map(verified).collect(),
        incomplete: incomplete.cloned(),
    }
}
