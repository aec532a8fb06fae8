//! Several images of a history become one.

use super::images::lock;
use super::removal::{check_readable, check_settled, execute, settle};
use super::stores;
use super::{Context, ImageRecord};
use crate::base::{Error, ErrorKind, Event, Result};
use crate::chain::{Catalog, Image, Records, plan_removal};
use crate::store::{LockMode, Store};
use serde::Serialize;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct MergeRequest {
    /// The store's folder.
    pub store: PathBuf,
    /// `A..B`: all from A to B; `..B`: all that B builds on, so that B becomes full.
    pub range: String,
}

/// What a merge will do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MergeReport {
    /// The image that takes in the others, as it is before.
    pub into: ImageRecord,
    /// The images that go, oldest first.
    pub absorbs: Vec<ImageRecord>,
    /// The image afterwards; absent in a plan.
    pub result: Option<ImageRecord>,
    /// Frames that were copied as they were.
    pub copied_frames: u64,
    /// Frames that were put together anew.
    pub encoded_frames: u64,
}

/// What a merge would do. Changes nothing.
///
/// # Errors
/// `Usage`, `NotFound`, `Damaged`; `Refused` when an image in between is protected or others build on it.
pub fn plan(context: &Context<'_>, request: &MergeRequest) -> Result<MergeReport> {
    let store = stores::open(context, &request.store)?;
    let catalog = Catalog::load(store.as_ref())?;
    let (into, absorbs) = chosen(store.as_ref(), &catalog, request)?;
    Ok(MergeReport {
        into: ImageRecord::of(&into),
        absorbs: absorbs.iter().map(ImageRecord::of).collect(),
        result: None,
        copied_frames: 0,
        encoded_frames: 0,
    })
}

/// Merges.
///
/// # Errors
/// As [`plan`]; `Locked`, `Destination`, `Interrupted`, `Terminated`. The images that go are removed
/// when the new file is published, synced and read again.
pub fn run(context: &Context<'_>, request: &MergeRequest) -> Result<MergeReport> {
    run_in(context, &stores::open(context, &request.store)?, request)
}

/// [`run`] in any store; the folder that `request` names is not looked at.
///
/// # Errors
/// As [`run`].
pub fn run_in(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    request: &MergeRequest,
) -> Result<MergeReport> {
    let _lock = lock(store.as_ref(), LockMode::Exclusive, "merge")?;
    // Which image is meant is decided first: what is finished now may change what a place in the
    // history means.
    let before = Catalog::load(store.as_ref())?;
    let wanted = request.range.split_once("..").map(|(_, into)| into);
    let wanted = wanted.and_then(|into| before.find(into, &super::time_zone()).ok());
    let settled = settle(context, store)?;
    let catalog = Catalog::load(store.as_ref())?;
    check_settled(&catalog, store.as_ref())?;
    if let Some(into) = wanted {
        let id = into.header.id;
        if let Some((_, absorbed)) = settled.merged.iter().find(|(of, _)| *of == id) {
            let finished = "a merge into this image had been interrupted and is finished now; \
                            nothing else was done";
            context.observer.event(Event::Warning(finished.to_owned()));
            return Ok(MergeReport {
                into: ImageRecord::of(into),
                absorbs: absorbed.iter().map(ImageRecord::of).collect(),
                result: catalog.by_id(id).map(ImageRecord::of),
                copied_frames: 0,
                encoded_frames: 0,
            });
        }
    }
    let (into, absorbs) = chosen(store.as_ref(), &catalog, request)?;
    let unwanted = absorbs.iter().map(|i| i.header.id).collect();
    let removal = plan_removal(&catalog, &unwanted);
    let done = execute(context, store, &catalog, &removal)?;
    if let Some(failure) = done.failures.first() {
        return Err(Error::new(ErrorKind::Damaged, "merge", &request.range)
            .because(failure.clone())
            .hint("`strata verify --deep` tells what is damaged; nothing was changed"));
    }
    let catalog = Catalog::load(store.as_ref())?;
    Ok(MergeReport {
        result: catalog.by_id(into.header.id).map(ImageRecord::of),
        into: ImageRecord::of(&into),
        absorbs: absorbs.iter().map(ImageRecord::of).collect(),
        copied_frames: done.copied_frames,
        encoded_frames: done.encoded_frames,
    })
}

/// The image that takes in others, and those, oldest first.
fn chosen(
    store: &dyn Store,
    catalog: &Catalog,
    request: &MergeRequest,
) -> Result<(Image, Vec<Image>)> {
    let refuse = |kind, why: String| Error::new(kind, "merge", &request.range).because(why);
    let Some((from, to)) = request.range.split_once("..") else {
        return Err(
            refuse(ErrorKind::Usage, "it is not of the form A..B".to_owned())
                .hint("A..B merges all images from A to B into B; ..B makes B a full image"),
        );
    };
    check_readable(catalog, store)?;
    let zone = super::time_zone();
    let into = catalog.find(to, &zone)?;
    let lineage = catalog.lineage(into);
    lineage.check()?;
    let first = match from {
        "" => 0,
        from => {
            let from = catalog.find(from, &zone)?;
            let place = lineage
                .images
                .iter()
                .position(|i| i.header.id == from.header.id);
            place.ok_or_else(|| {
                let why = format!("{} does not build on {}", into.file, from.file);
                refuse(ErrorKind::Usage, why)
                    .hint("`strata list` shows which image is whose parent")
            })?
        }
    };
    let absorbs: Vec<Image> = lineage
        .images
        .iter()
        .skip(first)
        .filter(|i| i.header.id != into.header.id)
        .cloned()
        .collect();
    if absorbs.is_empty() {
        return Err(refuse(
            ErrorKind::Usage,
            "there is nothing to merge".to_owned(),
        ));
    }
    let records = Records::load(store)?;
    if let Some(image) = absorbs
        .iter()
        .find(|i| records.protected.contains_key(&i.header.id))
    {
        return Err(
            refuse(ErrorKind::Refused, format!("{} is protected", image.file))
                .hint("`strata protect --off IMAGE` takes that back"),
        );
    }
    let unwanted: HashSet<Uuid> = absorbs.iter().map(|i| i.header.id).collect();
    let removal = plan_removal(catalog, &unwanted);
    if let Some((base, many)) = removal.bases.first() {
        let file = catalog.by_id(*base).map_or("", |i| i.file.as_str());
        let why =
            format!("{many} images build on {file}: merged into each, it would be stored as often");
        return Err(refuse(ErrorKind::Refused, why).hint("remove the others first, or keep it"));
    }
    Ok((into.clone(), absorbs))
}
