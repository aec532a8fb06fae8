//! What a store had confirmed and lost, as far as it can be had again.
//!
//! A store that does not keep what it says it keeps may have all bytes of a published file and not its name:
//! there is a file then that looks like what a killed run had begun. That it was an image is known where this machine
//! remembers its id, or where another image builds on it. Of protections, this machine remembers all it has made.

use super::Context;
use super::anew::{free_name, names_in};
use super::place::{file_name, label, label_and_number};
use super::remembered::Remembered;
use crate::base::{Digest, Event, Result};
use crate::chain::{self, Catalog, Image, Records};
use crate::image::{ImageReader, Unasked, Unfinished};
use crate::pipeline::{Depth, Sample, verify_file};
use crate::store::{FileName, Leftover, Store};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Gives images their names again where those were lost and every byte is there, and protects again what this
/// machine had protected. To be called under an exclusive lock, before anything unfinished is taken away. Returns
/// what a person should know, and was told.
///
/// # Errors
/// `Destination`, `Interrupted`, `Terminated`.
pub(super) fn bring_back(context: &Context<'_>, store: &Arc<dyn Store>) -> Result<Vec<String>> {
    let remembered = Remembered::of(Path::new(store.name()));
    let mut told = bring_back_images(context, store, &remembered)?;
    told.extend(protect_again(store.as_ref(), &remembered)?);
    told.iter()
        .for_each(|note| context.observer.event(Event::Warning(note.clone())));
    Ok(told)
}

/// An image without a name.
struct Nameless {
    leftover: Box<dyn Leftover>,
    image: Image,
}

fn bring_back_images(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    remembered: &Remembered,
) -> Result<Vec<String>> {
    let leftovers = store.leftovers()?.into_iter();
    let known = leftovers.filter_map(|leftover| Some((id_in(leftover.as_ref())?, leftover)));
    let mut nameless: Vec<(Uuid, Box<dyn Leftover>)> = known.collect();
    if nameless.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = Catalog::load(store.as_ref())?;
    // With what the whole of it has to be, where that is known.
    let mut wanted: Vec<(Uuid, Option<Digest>)> = Vec::new();
    wanted.extend(remembered.images().into_iter().map(|id| (id, None)));
    wanted.extend(catalog.images.iter().filter_map(parent_of));
    let mut found = Vec::new();
    while let Some((id, root)) = wanted.pop() {
        // Of an image that is there, somebody had begun another file.
        if catalog.by_id(id).is_some() {
            continue;
        }
        for (_, leftover) in nameless.extract_if(.., |(other, _)| *other == id) {
            let Some(image) = whole_image(context, leftover.as_ref())? else {
                continue;
            };
            let is_other = root.is_some_and(|root| root != image.root);
            if is_other || may_stand(&catalog, &image.file) {
                continue;
            }
            wanted.extend(parent_of(&image));
            found.push(Nameless { leftover, image });
            break;
        }
    }
    // What others build on stands before they do.
    found.sort_by_key(|nameless| nameless.image.header.sequence);
    let told = found
        .into_iter()
        .map(|nameless| give_name(store.as_ref(), nameless));
    told.collect()
}

/// What `image` builds on.
fn parent_of(image: &Image) -> Option<(Uuid, Option<Digest>)> {
    let parent = image.header.parent.as_ref()?;
    Some((parent.id, Some(parent.root)))
}

/// Whether an image of which the name would be `file` may be one that is in the store and cannot be opened just now.
fn may_stand(catalog: &Catalog, file: &FileName) -> bool {
    let place = label_and_number(file.as_str());
    let same = |other: &FileName| place.is_some() && label_and_number(other.as_str()) == place;
    let unopened = catalog.broken.iter().chain(&catalog.refused);
    unopened.map(|b| &b.file).any(same)
}

fn give_name(store: &dyn Store, nameless: Nameless) -> Result<String> {
    let Nameless { leftover, image } = nameless;
    let file = match leftover.file() {
        Some(file) => file,
        None => free_name(
            &names_in(store)?,
            &image,
            image.header.kind,
            image.key_set.is_some(),
        )?,
    };
    let (form, len) = (leftover.form(), leftover.bytes().len());
    leftover.resume(&file, &form, len)?.publish()?;
    Ok(format!(
        "number {} of set {} ({}) had lost its name and stands again as {file}: {} had confirmed it and loses what it \
         confirms",
        image.header.sequence,
        image.info.set,
        image.header.id,
        store.name()
    ))
}

/// The id of the image that begins in `leftover`.
fn id_in(leftover: &dyn Leftover) -> Option<Uuid> {
    Unfinished::open(leftover.bytes()).map(|image| image.header().id)
}

/// The image in `leftover`, with its usual name, when nothing of its file is missing or damaged. Whether older images
/// are there that it builds on is not asked.
///
/// # Errors
/// `Interrupted`, `Terminated`.
fn whole_image(context: &Context<'_>, leftover: &dyn Leftover) -> Result<Option<Image>> {
    let Ok(reader) = ImageReader::open(leftover.bytes()).map(Arc::new) else {
        return Ok(None);
    };
    let (all, resources) = (Sample::ALL, context.resources());
    let damage = verify_file(&reader, &Unasked, Depth::Quick, all, resources)?;
    let (header, info) = (reader.header(), reader.info());
    let label = label(&info.set, header.set, reader.key_set().is_some());
    let name = file_name(&label, header.sequence, info.created, header.kind);
    // The name of a set may be anything.
    let name = FileName::new(name).ok().filter(|_| damage.is_empty());
    Ok(name.map(|name| Image::of(name, &reader)))
}

fn protect_again(store: &dyn Store, remembered: &Remembered) -> Result<Vec<String>> {
    if remembered.protections().is_empty() {
        return Ok(Vec::new());
    }
    let (catalog, records) = (Catalog::load(store)?, Records::load(store)?);
    let mut told = Vec::new();
    for lost in remembered.lost_protections(&catalog, &records) {
        if chain::protect(store, lost.image, lost.note.as_deref(), lost.noted)? {
            told.push(format!(
                "{} is protected again: it was protected here, and {} did not say so any more; `strata protect --off` \
                 on this machine ends that",
                lost.words(),
                store.name()
            ));
        }
    }
    Ok(told)
}
