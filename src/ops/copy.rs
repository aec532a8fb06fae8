//! Images into new files, without their disk: into another store, into a pipe, or in place of the old
//! files, compressed or cut in another way.

use super::anew::{NewFile, check, compression_of, opened, publish, write_into};
use super::backup::{Split, existing_store, in_pipe};
pub use super::copy_plan::{CopyPlan, PlannedCopy};
use super::copy_plan::{Destination, chosen, found, staying, steps};
use super::encryption::{NewKeySet, NewKeys};
use super::images::{Origin, lock};
use super::piped::{PIPE, PIPE_NAME, PipeOutput};
use super::remembered::Remembered;
use super::removal::{
    check_readable, check_settled, check_single, settle, settle_if_alone, settle_replacements,
};
use super::{Context, ImageRecord, stores};
use crate::base::{Error, ErrorKind, Event, Phase, Result};
use crate::chain::{Catalog, ChainView, Image, Records, begin_replacing, end_replacing};
use crate::image::Compression;
use crate::pipeline::{Depth, Frames, Rewriting, Rewritten};
use crate::store::{Form, LockMode, Store};
use serde::Serialize;
use std::collections::HashSet;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// What a person asked for.
#[derive(Debug, Clone, Default)]
pub struct CopyRequest {
    /// The images; they lie in one store.
    pub images: Vec<String>,
    /// Every image of the store.
    pub all: bool,
    /// Every image of this set.
    pub set: Option<String>,
    /// The folder of the store that they are in.
    pub store: Option<PathBuf>,
    /// The folder of the store that they go into; `-` for a pipe; the same store, in place of the old files,
    /// when absent.
    pub to: Option<PathBuf>,
    /// How frames are stored; as they are when absent.
    pub recompress: Option<Compression>,
    /// Into parts of which length; when absent, in the same store as the old file is, in another one only
    /// where its file system takes no long files.
    pub split: Option<Split>,
    /// Keys for sets that the other store does not have yet; as the images are when none.
    pub encrypt: NewKeys,
    /// Whether the copies are not encrypted, although the images are.
    pub no_encrypt: bool,
    /// Whether the copies build on no other image.
    pub full: bool,
    /// Whether the old files go when the copies are verified; in the same store they always do.
    pub remove_old: bool,
}

impl CopyRequest {
    /// Whether the image goes to standard output instead of a store.
    pub fn into_pipe(&self) -> bool {
        self.to.as_deref() == Some(Path::new(PIPE))
    }

    /// Where it goes, in words.
    pub(super) fn to_text(&self) -> String {
        let to = self.to.as_deref().unwrap_or(Path::new("the same store"));
        to.display().to_string()
    }

    fn form(&self, image: &Image) -> Rewriting {
        Rewriting {
            frames: match self.recompress {
                None => Frames::Checked,
                Some(_) => Frames::Anew,
            },
            compression: self.recompress.unwrap_or_else(|| compression_of(image)),
            phase: Phase::Copy,
        }
    }
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    /// What was planned.
    pub plan: CopyPlan,
    /// The images that were written, as they are in their new files.
    pub images: Vec<ImageRecord>,
    /// Old files that are gone.
    pub removed: Vec<String>,
    /// Frames that were copied as they were.
    pub copied_frames: u64,
    /// Frames that were put together anew.
    pub encoded_frames: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl CopyReport {
    fn begun(plan: CopyPlan) -> CopyReport {
        CopyReport {
            images: Vec::new(),
            removed: Vec::new(),
            copied_frames: 0,
            encoded_frames: 0,
            warnings: plan.warnings.clone(),
            plan,
        }
    }

    fn add(&mut self, image: ImageRecord, rewritten: Rewritten) {
        self.images.push(image);
        self.copied_frames += rewritten.copied;
        self.encoded_frames += rewritten.encoded;
    }
}

/// What a copy would do. Changes nothing.
///
/// # Errors
/// `Usage`, `NotFound`, `Damaged`; `Refused` when the destination has another image of the same id.
pub fn plan(context: &Context<'_>, request: &CopyRequest) -> Result<CopyPlan> {
    let (from, request) = located(context, request)?;
    let source = Catalog::load(from.as_ref())?;
    let ids = chosen(&source, &request)?;
    let into = match (&request.to, request.into_pipe()) {
        (Some(to), false) => existing_store(context, to)?,
        _ => None,
    };
    let there = match &into {
        Some(into) => Catalog::load(into.as_ref())?,
        None => Catalog::of(Vec::new(), Vec::new()),
    };
    let destination = match (&request.to, request.into_pipe()) {
        (None, _) => Destination::Same,
        (Some(_), true) => Destination::Pipe,
        (Some(_), false) => Destination::Other(into.as_ref(), there),
    };
    steps(&request, &from, &source, &ids, &destination).map(|(_, plan)| plan)
}

/// Copies into a store.
///
/// # Errors
/// As [`plan`]; `Locked`, `Destination`, `Interrupted`, `Terminated`. An image that is damaged ends the run
/// and leaves nothing of itself; what was copied before stays. Nothing goes before its copy was read from
/// the store again and every block of it compared with its digest.
pub fn run(context: &Context<'_>, request: &CopyRequest) -> Result<CopyReport> {
    let (from, request) = located(context, request)?;
    let into = request.to.as_deref();
    let into = into.map(|to| stores::create(context, to)).transpose()?;
    run_in(context, &from, into.as_ref(), &request)
}

/// [`run`] from any store into any other, or in place; the folders that `request` names are asked only which
/// files they take.
///
/// # Errors
/// As [`run`].
pub fn run_in(
    context: &Context<'_>,
    from: &Arc<dyn Store>,
    into: Option<&Arc<dyn Store>>,
    request: &CopyRequest,
) -> Result<CopyReport> {
    match into {
        None => in_place(context, from, request),
        Some(into) => elsewhere(context, from, into, request),
    }
}

/// Copies one image, as a full one, into `out`, which is read by somebody else: a pipe.
///
/// # Errors
/// As [`plan`]; `Destination` when `out` fails, `Interrupted`, `Terminated`. What was written until then is
/// not an image.
pub fn run_into_pipe(
    context: &Context<'_>,
    request: &CopyRequest,
    out: &mut dyn Write,
) -> Result<CopyReport> {
    let (from, request) = located(context, request)?;
    let _lock = lock(from.as_ref(), LockMode::Shared, "copy")?;
    let source = Catalog::load(from.as_ref())?;
    let ids = chosen(&source, &request)?;
    let (steps, plan) = steps(&request, &from, &source, &ids, &Destination::Pipe)?;
    let mut report = CopyReport::begun(plan);
    let mut new_keys = NewKeySet::new(context, &request.encrypt);
    for step in steps {
        let keys = step.stored(&mut new_keys)?.keys;
        let (image, Some(new)) = (found(&source, step.id)?, step.new) else {
            continue;
        };
        let out = PipeOutput::new(context, &mut *out, keys.as_deref()).map_err(in_pipe)?;
        let view = ChainView::open(Arc::clone(&from), source.lineage(image))?;
        let form = request.form(image);
        let header = new.header.clone();
        let written = write_into(context, &view, header, form, out, PIPE_NAME);
        let (out, finished, rewritten) = written.map_err(in_pipe)?;
        out.finish().map_err(in_pipe)?;
        let (len, key_set) = (finished.len, keys.map(|k| k.id()));
        report.add(
            ImageRecord::of(&Image {
                len,
                key_set,
                ..new
            }),
            rewritten,
        );
    }
    Ok(report)
}

/// The store that the images are in, and the request with their names there and its folder.
fn located(context: &Context<'_>, request: &CopyRequest) -> Result<(Arc<dyn Store>, CopyRequest)> {
    check_usage(request)?;
    let origin = Origin::of(context, request.store.as_deref(), &request.images)?;
    if let Some(to) = &request.to
        && is_same_folder(&origin.folder, to)
    {
        return Err(Error::new(ErrorKind::Usage, "copy into", request.to_text())
            .because("the images are in that store")
            .hint("leave out --to to write them anew in their own store"));
    }
    let request = CopyRequest {
        images: origin.names,
        store: Some(origin.folder),
        ..request.clone()
    };
    Ok((origin.store, request))
}

fn check_usage(request: &CopyRequest) -> Result<()> {
    let usage = |what: &str, why: &str, hint: &str| {
        let error = Error::new(ErrorKind::Usage, "copy", what);
        Err(error.because(why).hint(hint))
    };
    if request.to.is_none() && (!request.encrypt.is_empty() || request.no_encrypt) {
        return usage(
            "with other keys into the same store",
            "a set is encrypted as a whole or not at all",
            "say where to with --to STORE; keys of encrypted images are changed with `strata key`",
        );
    }
    let nothing_asked = request.recompress.is_none() && request.split.is_none() && !request.full;
    if request.to.is_none() && nothing_asked {
        return usage(
            "into the same store",
            "nothing would change",
            "say where to with --to STORE, or what to change: --recompress, --split or --full",
        );
    }
    if !request.into_pipe() {
        return Ok(());
    }
    if request.split.is_some() || request.remove_old {
        return usage(
            "into a pipe",
            "what goes into one is neither cut nor verified",
            "leave out --split and --remove-old",
        );
    }
    if request.images.len() != 1 || request.all || request.set.is_some() {
        return usage(
            "several images into a pipe",
            "a pipe takes one",
            "name one image",
        );
    }
    Ok(())
}

/// Whether both paths lead to one folder.
fn is_same_folder(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    place(a).is_some_and(|a| place(b) == Some(a))
}

/// Finishes what an interrupted run left in `store`, which is locked by this run alone, and says so. Returns
/// the images that are meant and what the store holds then.
fn settled(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    request: &CopyRequest,
) -> Result<(Vec<Uuid>, Catalog)> {
    // What is finished now may change what a place in the history means.
    let ids = chosen(&Catalog::load(store.as_ref())?, request)?;
    for note in settle(context, store)?.removed {
        let note = format!("removed what an interrupted run left: {note}");
        context.observer.event(Event::Warning(note));
    }
    let catalog = Catalog::load(store.as_ref())?;
    check_settled(&catalog, store.as_ref())?;
    Ok((ids, catalog))
}

fn warn(context: &Context<'_>, plan: &CopyPlan) {
    let warnings = plan.warnings.iter().cloned();
    warnings.for_each(|w| context.observer.event(Event::Warning(w)));
}

/// Writes images anew, each in place of its old file.
fn in_place(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    request: &CopyRequest,
) -> Result<CopyReport> {
    let _lock = lock(store.as_ref(), LockMode::Exclusive, "copy")?;
    let (ids, mut catalog) = settled(context, store, request)?;
    check_single(&catalog, store.as_ref())?;
    let (steps, plan) = steps(request, store, &catalog, &ids, &Destination::Same)?;
    warn(context, &plan);
    let mut report = CopyReport::begun(plan);
    let mut new_keys = NewKeySet::new(context, &request.encrypt);
    for step in &steps {
        let Some(new) = &step.new else {
            continue;
        };
        let old = found(&catalog, step.id)?;
        begin_replacing(store.as_ref(), step.id, &old.file, &new.file)?;
        let job = Job {
            form: request.form(old),
            from: (store, &catalog),
            into: (store, &catalog),
            stored: step.stored(&mut new_keys)?,
        };
        let (image, rewritten) = match job.run(context, old, new) {
            Ok(copied) => copied,
            Err(e) => {
                // As far as that can be done now: the next run does it otherwise.
                let _ = settle_replacements(store);
                return Err(e);
            }
        };
        // Whatever happens now, one of the two files stays.
        store.remove(&old.file)?;
        report.removed.push(old.file.to_string());
        end_replacing(store.as_ref(), step.id)?;
        report.add(ImageRecord::of(&image), rewritten);
        catalog = catalog.with(image);
    }
    report.warnings.extend(store.caveats());
    Ok(report)
}

/// Copies images into another store.
fn elsewhere(
    context: &Context<'_>,
    from: &Arc<dyn Store>,
    into: &Arc<dyn Store>,
    request: &CopyRequest,
) -> Result<CopyReport> {
    let mode = match request.remove_old {
        true => LockMode::Exclusive,
        false => LockMode::Shared,
    };
    let _lock = lock(from.as_ref(), mode, "copy")?;
    settle_if_alone(context, into, "copy")?;
    let _adding = lock(into.as_ref(), LockMode::Adding, "copy")?;
    let (ids, source) = if request.remove_old {
        let (ids, source) = settled(context, from, request)?;
        check_readable(&source, from.as_ref())?;
        (ids, source)
    } else {
        let source = Catalog::load(from.as_ref())?;
        (chosen(&source, request)?, source)
    };
    let there = Catalog::load(into.as_ref())?;
    let destination = Destination::Other(Some(into), there);
    let (steps, plan) = steps(request, from, &source, &ids, &destination)?;
    let Destination::Other(_, mut there) = destination else {
        return Err(Error::new(ErrorKind::Internal, "copy", "into a store"));
    };
    warn(context, &plan);
    let mut report = CopyReport::begun(plan);
    let mut whole = HashSet::new();
    let mut new_keys = NewKeySet::new(context, &request.encrypt);
    for step in &steps {
        let Some(new) = &step.new else {
            continue;
        };
        let old = found(&source, step.id)?;
        let job = Job {
            form: request.form(old),
            from: (from, &source),
            into: (into, &there),
            stored: step.stored(&mut new_keys)?,
        };
        let (image, rewritten) = job.run(context, old, new)?;
        whole.insert(step.id);
        report.add(ImageRecord::of(&image), rewritten);
        there = there.with(image);
    }
    if request.remove_old {
        let records = Records::load(from.as_ref())?;
        let stay = staying(&source, &records, &ids);
        let goes: Vec<Uuid> = ids
            .iter()
            .filter(|id| !stay.contains_key(id))
            .copied()
            .collect();
        for id in &goes {
            check_all(context, into, &there, *id, &mut whole)?;
        }
        // What builds on others goes first, and the ids are in the other order.
        for id in goes.iter().rev() {
            context.cancel.check()?;
            let old = found(&source, *id)?;
            from.remove(&old.file)?;
            report.removed.push(old.file.to_string());
        }
        let remembered = Remembered::of(Path::new(from.name()));
        remembered.forget(&goes);
        remembered.forget_protections(&goes);
    }
    report.warnings.extend(into.caveats());
    Ok(report)
}

/// How one image gets into its new file.
struct Job<'a> {
    form: Rewriting,
    /// The store that it is in, and what that holds.
    from: (&'a Arc<dyn Store>, &'a Catalog),
    /// The store that it goes into, and what that holds.
    into: (&'a Arc<dyn Store>, &'a Catalog),
    /// Its parts and keys.
    stored: Form,
}

impl Job<'_> {
    /// Writes `old` as `new`, reads it from the store again and compares every block with its digest.
    ///
    /// # Errors
    /// `Damaged` when `old` is, `Destination`, `Interrupted`, `Terminated`. Nothing is left of the new file
    /// then, as far as the store still obeys.
    fn run(&self, context: &Context<'_>, old: &Image, new: &Image) -> Result<(Image, Rewritten)> {
        let ((from, source), (into, there)) = (self.from, self.into);
        let view = ChainView::open(Arc::clone(from), source.lineage(old))?;
        let file = NewFile {
            store: into,
            name: &new.file,
            header: new.header.clone(),
            form: self.stored.clone(),
        };
        let rewritten = publish(context, &view, self.form, file)?;
        let image = opened(into, &new.file).and_then(|image| {
            check(context, into, there.lineage(&image), Depth::Deep)?;
            Ok(image)
        });
        match image {
            Ok(image) if image.header == new.header && image.root == old.root => {
                Ok((image, rewritten))
            }
            outcome => {
                // Of no use, and what it was made of is all there.
                let _ = into.remove(&new.file);
                Err(match outcome {
                    Err(e) if e.kind() != ErrorKind::Damaged => e,
                    other => unfit(into.as_ref(), new, other.err()),
                })
            }
        }
    }
}

/// The error for a copy that is not what was written.
fn unfit(store: &dyn Store, new: &Image, why: Option<Error>) -> Error {
    let why = why.map(|e| format!(": {e}")).unwrap_or_default();
    let file = format!("{}/{}", store.name(), new.file);
    Error::new(ErrorKind::Destination, "trust", file)
        .because(format!("it does not read back as it was written{why}"))
        .hint("it was removed again; the store's medium may be failing: use another store")
}

/// Checks every file that image `id` of `store` needs, but for those that are known to be `whole`.
fn check_all(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    there: &Catalog,
    id: Uuid,
    whole: &mut HashSet<Uuid>,
) -> Result<()> {
    let lineage = there.lineage(found(there, id)?);
    lineage.check()?;
    for image in lineage.images {
        if !whole.insert(image.header.id) {
            continue;
        }
        check(context, store, there.lineage(&image), Depth::Deep).map_err(|e| {
            e.hint("the old files stay; `strata verify --deep` tells what is damaged in that store")
        })?;
    }
    Ok(())
}
