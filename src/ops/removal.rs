//! Taking images out of a store: what others need of them is merged into those first.

use super::Context;
use super::anew::{NewFile, check, compression_of, free_name, header_with, names_in, publish};
use super::brought_back::bring_back;
use super::images::lock;
use crate::base::{Error, ErrorKind, Event, Phase, Result};
use crate::chain::{
    BegunMerge, Broken, Catalog, ChainView, Image, Lineage, Merge, Records, Removal, begin_merge,
    begun_merges, begun_replacements, end_merge, end_replacing, plan_removal,
};
use crate::pipeline::{Depth, Frames, Rewriting};
use crate::store::{FileName, LockMode, Store};
use std::sync::Arc;
use uuid::Uuid;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// Files that are gone.
    pub(super) files: Vec<String>,
    /// Images that were written anew, by the names of their new files.
    pub(super) rewritten: Vec<String>,
    /// Frames that were copied, and frames that were put together anew.
    pub(super) copied_frames: u64,
    pub(super) encoded_frames: u64,
    /// Why some images could not go.
    pub(super) failures: Vec<String>,
}

/// What an interrupted run had left, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// What was removed, for a message.
    pub(super) removed: Vec<String>,
    /// What was brought back before that, for a message.
    pub(super) brought_back: Vec<String>,
    /// Images that had taken in others, and those of them that were still there.
    pub(super) merged: Vec<(Uuid, Vec<Image>)>,
}

/// Clears what dead runs left, unless somebody uses the store: then the next run does. `what` says what for
/// the store is locked.
pub(super) fn settle_if_alone(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    what: &str,
) -> Result<()> {
    match lock(store.as_ref(), LockMode::Exclusive, what) {
        Ok(_lock) => settle(context, store).map(drop),
        Err(e) if e.kind() == ErrorKind::Locked => Ok(()),
        Err(e) => Err(e),
    }
}

/// Brings to an end what an interrupted run left: files of images that another file counts for go, and so
/// do the images that a merge had taken in. What only looks like it is brought back before. To be called under
/// an exclusive lock.
///
/// # Errors
/// `Destination`, `Interrupted`, `Terminated`.
pub(super) fn settle(context: &Context<'_>, store: &Arc<dyn Store>) -> Result<Settled> {
    let brought_back = bring_back(context, store)?;
    Ok(Settled {
        brought_back,
        ..clear(context, store)?
    })
}

/// [`settle`], where what is to be brought back is already.
///
/// # Errors
/// As [`settle`].
pub(super) fn clear(context: &Context<'_>, store: &Arc<dyn Store>) -> Result<Settled> {
    let mut settled = Settled {
        removed: store.clean_up()?,
        ..Settled::default()
    };
    let catalog = Catalog::load(store.as_ref())?;
    for old in &catalog.replaced {
        let Some(new) = catalog.by_id(old.header.id) else {
            continue;
        };
        match check(context, store, catalog.lineage(new), Depth::Quick) {
            Ok(()) => {
                store.remove(&old.file)?;
                let note = format!("{}, the same image as {}", old.file, new.file);
                settled.removed.push(note);
            }
            Err(e) if is_damage(&e) => {
                let note = format!(
                    "{} stays: {}, the same image, counts and is damaged: {e}",
                    old.file, new.file
                );
                context.observer.event(Event::Warning(note));
            }
            Err(e) => return Err(e),
        }
    }
    settle_merges(store, &mut settled)?;
    settle_replacements(store)?;
    Ok(settled)
}

/// Forgets the replacements of which only one file is left.
///
/// # Errors
/// `Destination`.
pub(super) fn settle_replacements(store: &Arc<dyn Store>) -> Result<()> {
    for begun in begun_replacements(store.as_ref())? {
        let catalog = Catalog::load(store.as_ref())?;
        let all = catalog.images.iter().chain(&catalog.replaced);
        let files = all.filter(|i| i.header.id == begun.image).count();
        // One that cannot be opened at this moment may be either of the two.
        let is_either = |b: &Broken| match &begun.files {
            Some((old, new)) => b.file == *old || b.file == *new,
            None => true,
        };
        if files < 2 && !catalog.broken.iter().any(is_either) {
            end_replacing(store.as_ref(), begun.image)?;
        }
    }
    Ok(())
}

/// Finishes the merges whose new file stands, and forgets the others.
fn settle_merges(store: &Arc<dyn Store>, settled: &mut Settled) -> Result<()> {
    for BegunMerge { into, absorbs } in begun_merges(store.as_ref())? {
        let catalog = Catalog::load(store.as_ref())?;
        let two_files = catalog.replaced.iter().any(|i| i.header.id == into);
        if two_files || !catalog.broken.is_empty() {
            // What stands is not known for certain; a later run will know.
            continue;
        }
        let stands = catalog.by_id(into).map(|image| catalog.lineage(image));
        let stands = stands.filter(|lineage| lineage.check().is_ok());
        let needs = |i: &Image| absorbs.contains(&i.header.id);
        if stands.is_some_and(|lineage| !lineage.images.iter().any(needs)) {
            let protected = Records::load(store.as_ref())?.protected;
            let goes = |id: &&Uuid| !protected.contains_key(id);
            let unwanted = absorbs.iter().filter(goes).copied().collect();
            let mut gone = Vec::new();
            // Only what nothing builds on: since then, something may.
            for id in plan_removal(&catalog, &unwanted).remove {
                if let Some(image) = catalog.by_id(id) {
                    store.remove(&image.file)?;
                    let note = format!("{}, which was merged into another", image.file);
                    settled.removed.push(note);
                    gone.push(image.clone());
                }
            }
            gone.reverse();
            settled.merged.push((into, gone));
        }
        end_merge(store.as_ref(), into)?;
    }
    Ok(())
}

fn is_damage(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}

/// Refuses to remove anything while two files hold one image and nothing says which of them counts.
///
/// # Errors
/// `Refused`, naming them.
pub(super) fn check_single(catalog: &Catalog, store: &dyn Store) -> Result<()> {
    let same = |i: &&Image| catalog.by_id(i.header.id).is_some_and(|o| o.file != i.file);
    let Some(copy) = catalog.images.iter().find(same) else {
        return Ok(());
    };
    let first = catalog.by_id(copy.header.id);
    let first = first.map_or("", |i| i.file.as_str());
    Err(
        Error::new(ErrorKind::Refused, "remove images from", store.name())
            .because(format!("{first} and {} are the same image", copy.file))
            .hint(format!("move {} out of the store", copy.file)),
    )
}

/// Refuses to remove anything while there are files that cannot be opened, since nobody knows what they
/// need, or while two files hold one image, since the rules would count it twice.
///
/// # Errors
/// `Damaged`, `WrongKey` or `Refused`, naming them.
pub(super) fn check_readable(catalog: &Catalog, store: &dyn Store) -> Result<()> {
    catalog.check_keys()?;
    check_single(catalog, store)?;
    if let Some(locked) = catalog.locked() {
        return Err(locked.clone());
    }
    let names: Vec<&str> = catalog.broken.iter().map(|b| b.file.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Damaged, "remove images from", store.name())
            .because(format!(
                "it has image files that cannot be opened, and what they need is not known: {}",
                names.join(", ")
            ))
            .hint("bring them back from a copy, or move them out of the store"),
    )
}

/// Refuses to remove anything while an image has two files because the one that counts is damaged: what the
/// other one needs would go, and with it the only whole copy.
///
/// # Errors
/// `Damaged`, naming them.
pub(super) fn check_settled(catalog: &Catalog, store: &dyn Store) -> Result<()> {
    let Some(old) = catalog.replaced.first() else {
        return Ok(());
    };
    let new = catalog.by_id(old.header.id).map_or("", |i| i.file.as_str());
    Err(
        Error::new(ErrorKind::Damaged, "remove images from", store.name())
            .because(format!(
                "{new} and {} are the same image, the first one counts and is damaged, and what the other \
                 needs must stay",
                old.file
            ))
            .hint(format!("move {new} out of the store and try again")),
    )
}

/// Carries out `removal`. At every moment every image that is listed can be restored: a new file is
/// published, synced and read again before the files that it replaces go. An image that cannot be
/// merged because something of it is damaged stays, with what it needs.
///
/// # Errors
/// `Destination`, `Interrupted`, `Terminated`; what was done until then stays done.
pub(super) fn execute(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    catalog: &Catalog,
    removal: &Removal,
) -> Result<Removed> {
    let mut done = Removed::default();
    for id in &removal.remove {
        context.cancel.check()?;
        remove(store, catalog, *id, &mut done)?;
    }
    for merge in &removal.merges {
        begin_merge(store.as_ref(), merge.image, &merge.absorbs)?;
        match merge_one(context, store, merge, &mut done) {
            Ok(()) => {
                for id in &merge.absorbs {
                    remove(store, catalog, *id, &mut done)?;
                }
            }
            Err(e) if e.kind() == ErrorKind::Damaged => done.failures.push(format!(
                "{} images stay that should have been merged: {e}",
                merge.absorbs.len()
            )),
            Err(e) => {
                // As far as that can be done now: the next run does it otherwise.
                let _ = settle_merges(store, &mut Settled::default());
                return Err(e);
            }
        }
        end_merge(store.as_ref(), merge.image)?;
    }
    Ok(done)
}

fn remove(store: &Arc<dyn Store>, catalog: &Catalog, id: Uuid, done: &mut Removed) -> Result<()> {
    let Some(image) = catalog.by_id(id) else {
        return Ok(());
    };
    store.remove(&image.file)?;
    done.files.push(image.file.to_string());
    Ok(())
}

fn merge_one(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    merge: &Merge,
    done: &mut Removed,
) -> Result<()> {
    // Read again: merges before this one have changed files.
    let catalog = Catalog::load(store.as_ref())?;
    let gone =
        || Error::new(ErrorKind::Destination, "merge", store.name()).because("an image is gone");
    let image = catalog.by_id(merge.image).ok_or_else(gone)?;
    // Before the parent is looked for: where a link is broken, it is not to be found.
    let lineage = catalog.lineage(image);
    lineage.check()?;
    let parent = merge.parent.map(|id| catalog.by_id(id).ok_or_else(gone));
    let parent = parent.transpose()?;
    let new = write(context, store, image, parent, lineage, done)?;
    // Read from the store before anything goes.
    let catalog = Catalog::load(store.as_ref())?;
    let published = catalog.by_id(image.header.id).filter(|i| i.file == new);
    let checked = published
        .ok_or_else(gone)
        .and_then(|published| check(context, store, catalog.lineage(published), Depth::Quick));
    if let Err(e) = checked {
        // It is of no use, and the files that it would have replaced are all there.
        store.remove(&new)?;
        return Err(e);
    }
    store.remove(&image.file)?;
    done.files.push(image.file.to_string());
    done.rewritten.push(new.to_string());
    Ok(())
}

/// Writes `image` with another parent, and publishes it.
fn write(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    image: &Image,
    parent: Option<&Image>,
    lineage: Lineage,
    done: &mut Removed,
) -> Result<FileName> {
    let view = ChainView::open(Arc::clone(store), lineage)?;
    let header = header_with(image, parent);
    let name = free_name(
        &names_in(store.as_ref())?,
        image,
        header.kind,
        image.key_set.is_some(),
    )?;
    let form = Rewriting {
        frames: Frames::Copied,
        compression: compression_of(image),
        phase: Phase::Merge,
    };
    let file = NewFile {
        store,
        name: &name,
        header,
        // It must fit where the one that it replaces has its place, and be read by whom that was.
        form: store.form_of(&image.file)?,
    };
    let rewritten = publish(context, &view, form, file)?;
    done.copied_frames += rewritten.copied;
    done.encoded_frames += rewritten.encoded;
    Ok(name)
}
