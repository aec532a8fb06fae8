//! Going on with a backup that did not end.
//!
//! What a killed run has written of its image is read again and believed as far as its checksums and digests go.
//! The disk is read as if nothing were there: each block has to be what it was, or is stored anew. So the
//! image is of the time of this run, whatever was written before it.

use super::Context;
use super::backup_plan::Prepared;
use super::brought_back::bring_back;
use super::encryption::Protection;
use super::images::lock;
use super::removal::clear;
use crate::base::{ByteLen, Error, ErrorKind, Event, Result};
use crate::chain::Catalog;
use crate::image::{Header, ImageWriter, Unfinished};
use crate::store::{Continued, FileName, Form, Leftover, LockMode, Store, Upload};
use std::sync::Arc;

/// Less than this is not left in a store by a run that can take it away: it is made again in a moment.
const LEAST_LEFT: u64 = 64 << 20;

/// An image that a dead run had begun, held by this one.
pub(super) struct Begun {
    leftover: Box<dyn Leftover>,
    image: Unfinished,
}

/// Clears what dead runs left, unless somebody uses the store: then the next run does. What they had begun of
/// images is not touched. Returns that, and what was brought back, for a message.
///
/// # Errors
/// `Destination`, `Interrupted`, `Terminated`.
pub(super) fn settle_but_begun(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
) -> Result<(Vec<Begun>, Vec<String>)> {
    let _lock = match lock(store.as_ref(), LockMode::Exclusive, "backup") {
        Err(e) if e.kind() == ErrorKind::Locked => return Ok((Vec::new(), Vec::new())),
        lock => lock?,
    };
    // Before what was begun is held.
    let told = bring_back(context, store)?;
    let begun = begun_in(store.as_ref())?;
    clear(context, store)?;
    Ok((begun, told))
}

/// How many bytes are there of the image that `prepared` is about. Changes nothing, and takes no lock of the store:
/// what a run on another machine is writing may be counted, too.
///
/// # Errors
/// `Destination`; as [`Protection::goes_on_with`].
pub(super) fn begun_bytes(
    context: &Context<'_>,
    store: &dyn Store,
    prepared: &Prepared,
) -> Result<Option<u64>> {
    let begun = begun_in(store)?;
    let mut most = None;
    for begun in &begun {
        if begun.fits(context, prepared)? {
            most = most.max(Some(begun.len()));
        }
    }
    Ok(most)
}

/// What is unfinished in `store` and a backup. A file that a merge or a copy had begun is of an image that is
/// there.
fn begun_in(store: &dyn Store) -> Result<Vec<Begun>> {
    let leftovers = store.leftovers()?;
    if leftovers.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = Catalog::load(store)?;
    let begun = leftovers.into_iter().filter_map(|leftover| {
        let image = Unfinished::open(leftover.bytes())?;
        let is_new = catalog.by_id(image.header().id).is_none();
        is_new.then_some(Begun { leftover, image })
    });
    Ok(begun.collect())
}

/// Of what was begun, what `prepared` is about; it takes its ids and its keys. What else there is of its history
/// goes, for nobody can go on with it any more; that of others stays.
///
/// # Errors
/// `Usage` when the recipients or the password that were named cannot be read.
pub(super) fn choose(
    context: &Context<'_>,
    begun: Vec<Begun>,
    prepared: &mut Prepared,
) -> Result<Option<Begun>> {
    let (own, _others): (Vec<_>, Vec<_>) = begun.into_iter().partition(|b| b.is_of(prepared));
    let (mut fitting, mut useless) = (Vec::new(), Vec::new());
    for begun in own {
        match begun.fits(context, prepared)? {
            true => fitting.push(begun),
            false => useless.push(begun),
        }
    }
    fitting.sort_by_key(Begun::len);
    let best = fitting.pop();
    for left in useless.into_iter().chain(fitting) {
        left.leftover.remove();
    }
    if let Some(best) = &best {
        (prepared.header.id, prepared.header.set) = {
            let header = best.image.header();
            (header.id, header.set)
        };
        if let Some(keys) = best.leftover.form().keys {
            prepared.protection = Protection::Kept(keys);
        }
        prepared.plan.file = match best.leftover.file() {
            Some(file) => file.to_string(),
            None => prepared.file_name(),
        };
        prepared.plan.continues_bytes = Some(best.len());
    }
    Ok(best)
}

impl Begun {
    fn len(&self) -> u64 {
        self.leftover.bytes().len()
    }

    /// Whether it is of the history of `prepared`. One that has no image yet has no id, but a name; of two that have
    /// images and one name, each has what it had begun.
    fn is_of(&self, prepared: &Prepared) -> bool {
        let set = self.image.header().set;
        set == prepared.header.set || prepared.begins && self.image.info().set == prepared.info.set
    }

    /// Whether it would be the very image.
    ///
    /// # Errors
    /// As [`Protection::goes_on_with`].
    fn fits(&self, context: &Context<'_>, prepared: &Prepared) -> Result<bool> {
        let (then, now) = (self.image.header(), &prepared.header);
        let set = if prepared.begins { then.set } else { now.set };
        let same = Header {
            id: then.id,
            set,
            ..now.clone()
        };
        let form = self.leftover.form();
        let stored_alike = form.part_len == prepared.plan.part_bytes
            && self.image.info().compression == prepared.info.compression;
        let fits = self.is_of(prepared) && same == *then && stored_alike;
        let keys = form.keys.as_deref();
        Ok(fits && prepared.protection.goes_on_with(context, keys)?)
    }
}

/// Where an image is written to.
pub(super) struct Destination {
    pub(super) writer: ImageWriter<Box<dyn Upload>>,
    /// What is there of it.
    pub(super) begun: Option<(Unfinished, Continued)>,
}

impl Destination {
    /// Begins the image of `prepared` as `file` in `store`, or goes on with what was `begun` of it.
    ///
    /// # Errors
    /// `Destination`, `Internal`.
    pub(super) fn new(
        store: &dyn Store,
        file: &FileName,
        form: &Form,
        prepared: &Prepared,
        begun: Option<Begun>,
    ) -> Result<Destination> {
        let (header, info, tables) = (&prepared.header, &prepared.info, &prepared.tables);
        if let Some(Begun { leftover, image }) = begun {
            let front = image.front();
            let upload = Continued::new(leftover, file.clone(), form.clone(), front);
            let keeper = upload.clone();
            let writer = ImageWriter::start_over(
                Box::new(upload.clone()) as Box<dyn Upload>,
                file.as_str(),
                header.clone(),
                (info, tables),
                front,
                move |at, len| keeper.keep(at, len),
            )?;
            if let Some(writer) = writer {
                let begun = Some((image, upload));
                return Ok(Destination { writer, begun });
            }
            Box::new(upload).abandon();
        }
        let upload = store.create_as(file, form)?;
        Ok(Destination {
            writer: ImageWriter::start(upload, file.as_str(), header.clone(), info, tables)?,
            begun: None,
        })
    }
}

/// Leaves what a run that ends with `error` has written for the next one, when that can go on with it and it is
/// worth it; else takes it away.
pub(super) fn leave(context: &Context<'_>, upload: Box<dyn Upload>, error: &Error) {
    let written = upload.written();
    let may_go_on = matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::Terminated | ErrorKind::Source
    );
    if !may_go_on || written < LEAST_LEFT {
        return upload.abandon();
    }
    if upload.leave() {
        context.observer.event(Event::Warning(format!(
            "{} that were stored stay in the store: the same backup goes on from there, `strata prune` takes \
             them away",
            ByteLen(written)
        )));
    }
}
