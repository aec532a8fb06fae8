//! A disk into an image.

pub use super::backup_plan::BackupPlan;
use super::backup_plan::{ParentTable, Prepared, prepare};
pub use super::backup_report::BackupReport;
use super::encryption::NewKeys;
use super::images::lock;
use super::piped::{PIPE, PIPE_NAME, PipeOutput};
use super::remembered::Remembered;
pub use super::rescue::{DEFAULT_RETRIES, RescueOptions, RescuePass};
use super::rescue::{Rescuer, Stopwatch, first_effort, goes_on_from, missing_in_words, report_of};
use super::rescue_map::MapFile;
use super::resume::{self, Begun, Destination};
use super::state::Keeper;
use super::stores;
use super::take::TakeOptions;
use super::{Context, ImageRecord};
use crate::base::{
    BlockSize, ByteLen, Digest, Error, ErrorKind, Event, Extent, Phase, Result, normalize,
};
use crate::block::Missing;
pub use crate::chain::Wish;
use crate::chain::{ChainView, Image};
use crate::device::Consistency;
pub use crate::image::PartitionInfo;
use crate::image::{
    BlockCounts, BlockStates, Compression, Encoding, Finished, Header, ImageReader, ImageWriter,
    Info, Kind, Proof, Summary, Unfinished,
};
use crate::pipeline::{Depth, Input, Without, verify_disk, write_blocks};
pub use crate::store::MIN_PART_LEN;
use crate::store::{FileName, Form, LockMode, Store};
use crate::sys;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// A store with less room than this cannot take any image.
const LEAST_ROOM: u64 = 64 << 10;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The disk: path, name, serial number or file.
    pub source: String,
    /// The store's folder; `-` for none.
    pub store: PathBuf,
    /// Name of the history; made from the disk's identity when absent.
    pub set: Option<String>,
    /// Full, incremental or differential.
    pub wish: Wish,
    /// Unit of block states; that of the history when absent.
    pub block_size: Option<BlockSize>,
    /// How frames are stored.
    pub compression: Compression,
    /// The person's own words.
    pub comment: Option<String>,
    /// What is taken and what is left out.
    pub take: TakeOptions,
    /// Whether a partition that has to be taken whole is an error.
    pub strict: bool,
    /// Into parts of which length; as the newest image of the set when absent.
    pub split: Option<Split>,
    /// Keys of a new history; none: not encrypted.
    pub encrypt: NewKeys,
    /// Whether it is meant that anybody can read the image.
    pub no_encrypt: bool,
    /// What is done about bad sectors.
    pub rescue: RescueOptions,
    /// Whether what the image builds on is searched for damage, also when none is known.
    pub heal: bool,
    /// Whether every frame, and not a sample of them, is decoded again before it is written.
    pub paranoid: bool,
}

/// How an image file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// As the store's file system demands it: FAT takes files of up to 4 GiB.
    Auto,
    /// Not, even if the set was so far.
    Whole,
    /// Into parts of so many bytes.
    Parts(u64),
}

impl BackupRequest {
    /// How frames are made.
    pub(super) fn encoding(&self) -> Encoding {
        Encoding {
            proof: if self.paranoid {
                Proof::ALL
            } else {
                Proof::SAMPLED
            },
            ..self.compression.into()
        }
    }

    /// Whether the image goes to standard output instead of a store.
    pub fn into_pipe(&self) -> bool {
        self.store.as_os_str() == PIPE
    }
}

/// What a backup would do. Changes nothing.
///
/// # Errors
/// `NotFound`, `Refused` or `Source` when the disk cannot be found or read, `Usage` for a bad set name.
pub fn plan(context: &Context<'_>, request: &BackupRequest) -> Result<BackupPlan> {
    let store = match request.into_pipe() {
        true => None,
        false => existing_store(context, &request.store)?,
    };
    let map = map_file(request)?;
    let goes_on = store
        .as_ref()
        .map(|s| goes_on_from(s.as_ref(), map.as_ref()))
        .transpose()?
        .flatten();
    let prepared = prepare(context, request, store.as_ref())?;
    let begun = store
        .as_ref()
        .map(|s| resume::begun_bytes(context, s.as_ref(), &prepared))
        .transpose()?;
    let mut plan = prepared.plan;
    plan.continues_bytes = begun.flatten();
    if let Some((image, missing)) = goes_on {
        plan.kind = Kind::Incremental.name();
        plan.parent = Some(image.header.id.to_string());
        plan.reason = format!(
            "reads again what number {} could not",
            image.header.sequence
        );
        (plan.take_bytes, plan.hole_bytes) = (missing.bytes(), 0);
    }
    Ok(plan)
}

/// The map that was asked for.
fn map_file(request: &BackupRequest) -> Result<Option<MapFile>> {
    let path = request.rescue.map.as_deref();
    path.map(MapFile::open).transpose()
}

/// Makes the image.
///
/// # Errors
/// As [`plan`]; `Locked` while another run writes to the store, `Destination` when the store fails or
/// is full, `Interrupted` or `Terminated`. After any of them the store is as it was.
pub fn run(context: &Context<'_>, request: &BackupRequest) -> Result<BackupReport> {
    let store = stores::create(context, &request.store)?;
    let report = run_in(context, &store, request)?;
    Remembered::of(&request.store).note(&report.image);
    Ok(report)
}

/// [`run`] in any store; the folder that `request` names is asked only which files it takes.
///
/// # Errors
/// As [`run`].
pub fn run_in(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    request: &BackupRequest,
) -> Result<BackupReport> {
    let (begun, told) = resume::settle_but_begun(context, store)?;
    let mut report = run_beside(context, store, request, begun)?;
    report.warnings.splice(0..0, told);
    Ok(report)
}

/// [`run_in`], when what dead runs left is cleared, but for what was `begun`.
fn run_beside(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    request: &BackupRequest,
    begun: Vec<Begun>,
) -> Result<BackupReport> {
    let _lock = lock(store.as_ref(), LockMode::Adding, "backup")?;
    let map = map_file(request)?;
    map.as_ref().map(MapFile::check_writable).transpose()?;
    let rescuer = |map| Rescuer {
        context,
        request,
        store,
        map,
    };
    if let Some((image, missing)) = goes_on_from(store.as_ref(), map.as_ref())? {
        let report = report_of(store, &image)?;
        return rescuer(map).run(image.header.id, missing, report);
    }
    let mut prepared = prepare(context, request, Some(store))?;
    let begun = resume::choose(context, begun, &mut prepared)?;
    if let Some(free) = prepared
        .plan
        .store_free_bytes
        // What is there of the image takes no more room, and goes when that is too little.
        .filter(|free| *free < LEAST_ROOM && begun.is_none())
    {
        return Err(no_room(store.as_ref(), free, &prepared.plan));
    }
    let avoid = match &map {
        Some(map) => {
            map.decode(ByteLen(prepared.plan.source.bytes))?
                .unwrap_or_default()
                .failed
        }
        None => Vec::new(),
    };
    let made = write(context, store, prepared, request, (begun, avoid))?;
    match made.later {
        true => rescuer(map).run(made.id, made.missing, made.report),
        false => Ok(made.report.lacking(&made.missing)),
    }
}

/// The error of a store that has no room to begin an image in.
fn no_room(store: &dyn Store, free: u64, plan: &BackupPlan) -> Error {
    let (free, wanted) = (ByteLen(free), ByteLen(plan.take_bytes));
    Error::new(ErrorKind::Destination, "begin an image in", store.name())
        .because(format!(
            "only {free} are free there and {wanted} are to be imaged"
        ))
        .hint("free some space or choose another store")
}

/// Makes a full image in `out`, which is read by somebody else: a pipe.
///
/// # Errors
/// As [`plan`]; `Usage` for an image that builds on another, `Destination` when `out` fails,
/// `Interrupted` or `Terminated`. What was written until then is not an image.
pub fn run_into_pipe(
    context: &Context<'_>,
    request: &BackupRequest,
    out: &mut dyn Write,
) -> Result<BackupReport> {
    if matches!(request.wish, Wish::Incremental | Wish::Differential) {
        return Err(
            Error::new(ErrorKind::Usage, "build on another image", "in a pipe")
                .because("only a store knows what there is to build on")
                .hint("leave out --incremental and --differential, or name a folder with --store"),
        );
    }
    if request.rescue.map.is_some() {
        return Err(
            Error::new(ErrorKind::Usage, "keep a rescue map", "of a pipe")
                .because("what went through it cannot be gone on from")
                .hint("leave out --rescue-map, or name a folder with --store"),
        );
    }
    let mut prepared = prepare(context, request, None)?;
    let keys = prepared.take_keys(context)?;
    let out = PipeOutput::new(context, out, keys.as_deref()).map_err(in_pipe)?;
    let writer = ImageWriter::start(
        out,
        PIPE_NAME,
        prepared.header.clone(),
        &prepared.info,
        &prepared.tables,
    );
    let writer = writer.map_err(in_pipe)?;
    let made = make(context, writer, None, prepared, request, Attempt::Only);
    let (out, made) = made.map_err(|stopped| in_pipe(stopped.error))?;
    out.finish().map_err(in_pipe)?;
    let image = ImageRecord {
        bytes: made.finished.len,
        root: made.finished.root.to_string(),
        key_set: keys.map(|k| k.id().to_string()),
        ..ImageRecord::begun(&made.header, &made.info)
    };
    let blocks = made.finished.blocks;
    // Of a full image, every block is new.
    let missing = made.missing.clone();
    Ok(made.report(image, blocks, blocks).lacking(&missing))
}

/// `e`, with a hint where the reader of the pipe has gone.
pub(super) fn in_pipe(e: Error) -> Error {
    match e.os_error() {
        Some(sys::errno::EPIPE) => {
            e.hint("whoever reads the pipe has ended before the image did, and says why")
        }
        _ => e,
    }
}

/// The store, if there is one yet: a dry run makes none.
pub(super) fn existing_store(context: &Context<'_>, path: &Path) -> Result<Option<Arc<dyn Store>>> {
    match stores::open(context, path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// An image that was written, on its way to be published.
struct Made {
    header: Header,
    info: Info,
    plan: BackupPlan,
    finished: Finished,
    read: u64,
    continued: u64,
    healed: u64,
    missing: Missing,
    warnings: Vec<String>,
    keeper: Option<Keeper>,
}

/// Whether what cannot be read is tried again later.
enum Attempt {
    /// It is not.
    Only,
    /// It is. These bytes are left for then.
    First(Vec<Extent>),
}

impl Made {
    fn report(self, image: ImageRecord, blocks: BlockCounts, changed: BlockCounts) -> BackupReport {
        BackupReport {
            image,
            reason: self.plan.reason,
            blocks,
            changed,
            source: self.plan.source,
            read_bytes: self.read,
            stored_bytes: self.finished.len,
            part_bytes: self.plan.part_bytes,
            keys: self.plan.keys,
            continued_bytes: self.continued,
            healed_bytes: self.healed,
            unreadable: Vec::new(),
            untried: Vec::new(),
            rescue: Vec::new(),
            partitions: self.plan.partitions,
            fallbacks: self.plan.fallbacks,
            warnings: self.warnings,
        }
    }
}

/// Why an image was not finished, and what it was written to, as far as that still takes anything.
struct Stopped<W> {
    error: Error,
    sink: Option<W>,
}

impl<W> From<Error> for Stopped<W> {
    fn from(error: Error) -> Stopped<W> {
        Stopped { error, sink: None }
    }
}

/// Writes the image by `writer`; what is `begun` of it is not made again.
fn make<W: Write>(
    context: &Context<'_>,
    mut writer: ImageWriter<W>,
    begun: Option<&Unfinished>,
    prepared: Prepared,
    request: &BackupRequest,
    attempt: Attempt,
) -> std::result::Result<(W, Made), Stopped<W>> {
    let Prepared {
        claim,
        parent,
        selection,
        header,
        info,
        tables: _,
        plan,
        protection: _,
        begins: _,
        keeper,
    } = prepared;
    if let Consistency::Live(_) = claim.consistency() {
        // A disk is read past the page cache: what programs have written must be on it first.
        sys::sync_all();
    }
    plan.warnings
        .iter()
        .for_each(|w| context.observer.event(Event::Warning(w.clone())));
    let lost = match &parent {
        Some(ParentTable::View(view)) if request.heal || !info.healed.is_empty() => {
            lost_of(context, view)?
        }
        _ => Vec::new(),
    };
    let healed = lost.iter().map(|e| e.len.0).fold(0, u64::saturating_add);
    let parent = parent.as_ref().map(|p| Without::new(p.states(), &lost));
    if let Some(keeper) = &keeper {
        writer.tell(keeper.listener());
    }
    let source = context.paced_source(claim.source());
    let watch = Stopwatch::new();
    let clock = || watch.elapsed();
    let (later, avoid) = match attempt {
        Attempt::Only => (false, Vec::new()),
        Attempt::First(avoid) => (true, avoid),
    };
    let input = Input {
        effort: first_effort(&request.rescue, later, avoid, &clock),
        begun,
        ..Input::new(source.as_ref(), &selection)
    };
    let totals = write_blocks(
        &input,
        parent.as_ref().map(|p| p as &dyn BlockStates),
        request.encoding(),
        &mut writer,
        context.resources(),
    );
    let totals = match totals {
        Ok(totals) => totals,
        Err(error) => {
            let sink = Some(writer.into_sink());
            return Err(Stopped { error, sink });
        }
    };
    let missing = totals.missing;
    let mut warnings = plan.warnings.clone();
    if totals.parent_lost > 0 {
        warnings.push(format!(
            "the table of the image that this one builds on is damaged: {} blocks were stored again; \
             `strata verify` tells what is lost of older images",
            totals.parent_lost
        ));
    }
    let in_image = warnings.iter().cloned().chain(missing_in_words(&missing));
    let summary = Summary {
        finished: super::now(),
        unreadable: missing.all().into_iter().map(Into::into).collect(),
        untried: missing.untried.iter().map(|e| (*e).into()).collect(),
        warnings: in_image.collect(),
        ..Summary::default()
    };
    let (sink, finished) = writer.finish(summary)?;
    if let Err(error) = context.cancel.check() {
        let sink = Some(sink);
        return Err(Stopped { error, sink });
    }
    let made = Made {
        header,
        info,
        plan,
        finished,
        read: totals.read,
        continued: 0,
        healed,
        missing,
        warnings,
        keeper,
    };
    Ok((sink, made))
}

/// What of the disk of `view` its files have lost.
fn lost_of(context: &Context<'_>, view: &ChainView) -> Result<Vec<Extent>> {
    let blocks = 0..view.header().blocks();
    let damage = verify_disk(view, blocks, Depth::Deep, context.resources())?;
    Ok(normalize(damage.into_iter().map(|d| d.extent).collect()))
}

/// An image in a store.
struct Written {
    id: Uuid,
    report: BackupReport,
    missing: Missing,
    /// Whether what is missing can be tried again.
    later: bool,
}

/// Writes the image into `store`, going on with what was begun of it. The bytes `avoid` are left for later, if
/// there can be a later.
fn write(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    mut prepared: Prepared,
    request: &BackupRequest,
    (begun, avoid): (Option<Begun>, Vec<Extent>),
) -> Result<Written> {
    let file = FileName::new(prepared.plan.file.clone())?;
    let blind = prepared.protection.is_blind(context);
    let form = Form {
        part_len: prepared.plan.part_bytes,
        keys: prepared.take_keys(context)?,
    };
    if let (Some(keys), true) = (&form.keys, blind) {
        prepared.keep(keys)?;
    }
    let destination = Destination::new(store.as_ref(), &file, &form, &prepared, begun);
    let Destination { writer, begun } = destination.map_err(|e| match e.is_full() {
        // Some file systems keep more for themselves than they call taken.
        true => match store.space() {
            Ok(Some(space)) => no_room(store.as_ref(), space.available, &prepared.plan),
            Ok(None) | Err(_) => e,
        },
        false => e,
    })?;
    // An image that cannot be read here is nothing that another could be made from.
    let attempt = match blind {
        true => Attempt::Only,
        false => Attempt::First(avoid),
    };
    let unfinished = begun.as_ref().map(|(image, _)| image);
    let made = make(context, writer, unfinished, prepared, request, attempt);
    let (upload, mut made) = made.map_err(|Stopped { error, sink }| {
        if let Some(upload) = sink {
            resume::leave(context, upload, &error);
        }
        error
    })?;
    made.continued = begun.map_or(0, |(_, upload)| upload.kept());
    let phase = Phase::Sync;
    context
        .observer
        .event(Event::PhaseStarted { phase, bytes: None });
    upload.publish()?;
    context.observer.event(Event::PhaseFinished { phase });
    made.warnings.extend(store.caveats());
    if let Some(keeper) = made.keeper.take()
        && let Err(e) = keeper.keep(&made.header, made.finished.root, store.as_ref(), &file)
    {
        let note = format!("the next image will be a full one: {e}");
        context.observer.event(Event::Warning(note.clone()));
        made.warnings.push(note);
    }
    let reader = reopened(store, &file, made.finished.root)?;
    let (blocks, changed) = (reader.summary().blocks, reader.summary().changed);
    let record = ImageRecord::of(&Image::of(file, &reader));
    Ok(Written {
        id: made.header.id,
        missing: made.missing.clone(),
        later: !blind,
        report: made.report(record, blocks, changed),
    })
}

/// The image in `file`, opened again: what is reported is what a reader will find.
///
/// # Errors
/// `Destination` when its root digest is not `root`.
pub(super) fn reopened(
    store: &Arc<dyn Store>,
    file: &FileName,
    root: Digest,
) -> Result<ImageReader> {
    let reader = ImageReader::open(store.open(file)?)?;
    if reader.root() == root {
        return Ok(reader);
    }
    Err(Error::new(
        ErrorKind::Destination,
        "trust",
        format!("{}/{file}", store.name()),
    )
    .because("it does not read back as it was written")
    .hint("the store's medium may be failing; remove that file and use another store"))
}
