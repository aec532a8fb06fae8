//! Images that a store had confirmed, and of which it has lost no more than the name.
//!
//! A store that does not keep what it says it keeps may have all bytes of a published file and not its name:
//! there is a file then that looks like what a killed run had begun. This machine knows better where it remembers
//! the image's id.

use super::Context;
use super::anew::{free_name, names_in};
use super::place::label_and_number;
use super::remembered::Remembered;
use crate::base::{BlockIndex, Error, Event, Result};
use crate::chain::{Catalog, Image};
use crate::image::{Child, ImageReader, Leaf, OlderFiles, Unfinished};
use crate::pipeline::{Depth, Sample, verify_file};
use crate::store::{FileName, Leftover, Store};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Gives the newest images that this machine made in `store` their names again, where those were lost and every
/// byte is there. To be called under an exclusive lock, before anything unfinished is taken away.
///
/// # Errors
/// `Destination`, `Interrupted`, `Terminated`.
pub(super) fn bring_back(context: &Context<'_>, store: &Arc<dyn Store>) -> Result<()> {
    let leftovers = store.leftovers()?;
    if leftovers.is_empty() {
        return Ok(());
    }
    let remembered = Remembered::of(Path::new(store.name())).images();
    let mut catalog = None;
    for leftover in leftovers {
        let id = id_in(leftover.as_ref());
        let known = id.and_then(|id| Some((id, remembered.get(&id)?)));
        let Some((id, called)) = known else {
            continue;
        };
        let catalog = match &mut catalog {
            Some(catalog) => catalog,
            none => none.insert(Catalog::load(store.as_ref())?),
        };
        // Of an image that is there, somebody had begun another file.
        if stands(catalog, id, called) {
            continue;
        }
        let Some(reader) = whole_image(context, leftover.as_ref())? else {
            continue;
        };
        let image = Image::of(called.clone(), &reader);
        let file = name_of(store.as_ref(), leftover.as_ref(), &image)?;
        let (form, len) = (leftover.form(), leftover.bytes().len());
        leftover.resume(&file, &form, len)?.publish()?;
        context.observer.event(Event::Warning(format!(
            "number {} of set {} ({id}) had lost its name and stands again as {file}, whole: {} had confirmed it and \
             loses what it confirms",
            image.header.sequence,
            image.info.set,
            store.name()
        )));
    }
    Ok(())
}

/// Whether the image `id`, whose file was `called` so, is in the store, or may be one that cannot be opened just now.
fn stands(catalog: &Catalog, id: Uuid, called: &FileName) -> bool {
    let place = label_and_number(called.as_str());
    let may_be = |file: &FileName| place.is_some() && label_and_number(file.as_str()) == place;
    catalog.by_id(id).is_some() || catalog.broken.iter().any(|b| may_be(&b.file))
}

/// The id of the image that begins in `leftover`.
fn id_in(leftover: &dyn Leftover) -> Option<Uuid> {
    Unfinished::open(leftover.bytes()).map(|image| image.header().id)
}

/// The image in `leftover` when nothing of its file is missing or damaged. Whether older images are there that it
/// builds on is not asked.
///
/// # Errors
/// `Interrupted`, `Terminated`.
fn whole_image(context: &Context<'_>, leftover: &dyn Leftover) -> Result<Option<ImageReader>> {
    let Ok(reader) = ImageReader::open(leftover.bytes()) else {
        return Ok(None);
    };
    let damage = verify_file(
        &reader,
        &NotAsked,
        Depth::Quick,
        Sample::ALL,
        context.resources(),
    )?;
    Ok(damage.is_empty().then_some(reader))
}

fn name_of(store: &dyn Store, leftover: &dyn Leftover, image: &Image) -> Result<FileName> {
    match leftover.file() {
        Some(file) => Ok(file),
        None => free_name(
            &names_in(store)?,
            image,
            image.header.kind,
            image.key_set.is_some(),
        ),
    }
}

/// Older files that have whatever is asked for.
struct NotAsked;

impl OlderFiles for NotAsked {
    fn has_page(&self, _level: u8, _index: u64, _child: &Child) -> Result<()> {
        Ok(())
    }

    fn missing(&self, _leaf: &Leaf) -> Vec<(BlockIndex, Error)> {
        Vec::new()
    }
}
