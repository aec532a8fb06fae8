//! A disk into an image.

use super::place::Place;
use super::take::{Fallback, TakeOptions, Taken, take};
use super::{Context, ImageRecord, describe};
use crate::base::{BlockSize, ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Phase, Result};
use crate::block::{BlockSource, Mapping};
use crate::chain::{Catalog, Image};
use crate::device::{self, Consistency, Inventory, ReadClaim, Resolved};
pub use crate::image::PartitionInfo;
use crate::image::{
    ByteRange, Compression, Header, ImageReader, ImageWriter, Info, Kind, RawTable, SourceInfo,
    Summary,
};
use crate::layout;
use crate::pipeline::{Selection, write_blocks};
use crate::store::{FileName, LocalStore, LockMode, Store, StoreLock};
use crate::sys;
use serde::Serialize;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// zstd level unless asked otherwise.
pub const DEFAULT_LEVEL: i32 = 3;
/// A frame window holds this many bytes, whatever the block size.
const WINDOW_LOG2: u8 = 20;
/// A store with less room than this cannot take any image.
const LEAST_ROOM: u64 = 64 << 10;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The disk: path, name, serial number or file.
    pub source: String,
    /// The store's folder.
    pub store: PathBuf,
    /// Name of the history; made from the disk's identity when absent.
    pub set: Option<String>,
    /// Unit of block states.
    pub block_size: BlockSize,
    /// How frames are stored.
    pub compression: Compression,
    /// The person's own words.
    pub comment: Option<String>,
    /// What is taken and what is left out.
    pub take: TakeOptions,
    /// Whether a partition that has to be taken whole is an error.
    pub strict: bool,
}

/// What a backup will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupPlan {
    /// The disk.
    pub source: SourceInfo,
    /// The store.
    pub store: String,
    /// Name of the history.
    pub set: String,
    /// Place in it.
    pub sequence: u64,
    /// `full`.
    pub kind: &'static str,
    /// Why that kind.
    pub reason: String,
    /// Name of the file to be.
    pub file: String,
    /// Unit of block states in bytes.
    pub block_size: u64,
    /// `none` or `zstd:LEVEL`.
    pub compression: String,
    /// How the source is kept still.
    pub consistency: String,
    /// What each partition holds and how much of it is taken; number 0 is a disk without any.
    pub partitions: Vec<PartitionInfo>,
    /// What is taken whole because its used map is not known.
    pub fallbacks: Vec<Fallback>,
    /// Bytes that will be read or are known to be zero.
    pub take_bytes: u64,
    /// Of these, bytes that the source knows to be zero.
    pub hole_bytes: u64,
    /// Room in the store, where it says.
    pub store_free_bytes: Option<u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupReport {
    /// The new image.
    pub image: ImageRecord,
    /// The disk.
    pub source: SourceInfo,
    /// Bytes read from it.
    pub read_bytes: u64,
    /// Length of the image file.
    pub stored_bytes: u64,
    /// What could not be read.
    pub unreadable: Vec<ByteRange>,
    /// What each partition holds and how much of it was taken.
    pub partitions: Vec<PartitionInfo>,
    /// What was taken whole because its used map is not known.
    pub fallbacks: Vec<Fallback>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Everything that is settled before the first block is read.
struct Prepared {
    claim: ReadClaim,
    selection: Selection,
    header: Header,
    info: Info,
    tables: Vec<RawTable>,
    plan: BackupPlan,
}

/// What a backup would do. Changes nothing.
///
/// # Errors
/// `NotFound`, `Refused` or `Source` when the disk cannot be found or read, `Usage` for a bad set name.
pub fn plan(context: &Context<'_>, request: &BackupRequest) -> Result<BackupPlan> {
    let store = existing_store(&request.store)?;
    prepare(context, request, store.as_ref()).map(|prepared| prepared.plan)
}

/// Makes the image.
///
/// # Errors
/// As [`plan`]; `Locked` while another run writes to the store, `Destination` when the store fails or
/// is full, `Interrupted` or `Terminated`. After any of them the store is as it was.
pub fn run(context: &Context<'_>, request: &BackupRequest) -> Result<BackupReport> {
    let store = LocalStore::create(&request.store)?;
    let _lock = lock(&store)?;
    let prepared = prepare(context, request, Some(&store))?;
    if let Consistency::Live(_) = prepared.claim.consistency() {
        // A disk is read past the page cache: what programs have written must be on it first.
        sys::sync_all();
    }
    if let Some(free) = prepared
        .plan
        .store_free_bytes
        .filter(|free| *free < LEAST_ROOM)
    {
        return Err(
            Error::new(ErrorKind::Destination, "begin an image in", store.name())
                .because(format!(
                    "only {} are free there and {} are to be imaged",
                    ByteLen(free),
                    ByteLen(prepared.plan.take_bytes)
                ))
                .hint("free some space or choose another store"),
        );
    }
    prepared
        .plan
        .warnings
        .iter()
        .for_each(|w| context.observer.event(Event::Warning(w.clone())));
    write(context, &store, prepared, request.compression)
}

/// The store, if there is one yet: a dry run makes none.
fn existing_store(path: &Path) -> Result<Option<LocalStore>> {
    match LocalStore::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// One writing run at a time; what dead ones left is cleared.
fn lock(store: &LocalStore) -> Result<StoreLock> {
    let holder = format!(
        "{}, process {}, backup",
        sys::hostname(),
        std::process::id()
    );
    let lock = store.lock(LockMode::Exclusive, &holder)?;
    store.clean_up()?;
    Ok(lock)
}

fn prepare(
    context: &Context<'_>,
    request: &BackupRequest,
    store: Option<&LocalStore>,
) -> Result<Prepared> {
    let inventory = Inventory::read(&context.root)?;
    let resolved = device::resolve(&inventory, &request.source)?;
    let claim = device::claim_read(&inventory, &resolved)?;
    let source = claim.source();
    if source.is_empty() {
        return Err(Error::new(ErrorKind::Source, "image", source.name())
            .because("it is empty: it has not a single byte"));
    }
    let layout = layout::read(source.as_ref())?;
    let tables = layout::raw_regions(source.as_ref(), &layout)?
        .into_iter()
        .map(|region| (region.offset, region.bytes))
        .collect();
    let in_flux = |part: Extent| in_flux(&inventory, &resolved, &claim, part);
    let Taken {
        selection,
        partitions,
        fallbacks,
        notes,
    } = take(
        &source,
        &layout,
        request.block_size,
        &request.take,
        &in_flux,
        context.cancel,
    )?;
    if request.strict {
        refuse_fallbacks(&fallbacks, source.name())?;
    }
    let (consistency, mut warnings) = describe::consistency(claim.consistency(), source.name());
    warnings.extend(layout.findings.iter().cloned());
    warnings.extend(fallbacks.iter().map(Fallback::text));
    warnings.extend(notes);
    warnings.extend(store_on_source(&inventory, &resolved, &request.store));
    let catalog = store.map(|s| Catalog::load(s)).transpose()?;
    let place = Place::find(request.set.as_deref(), &claim, catalog.as_ref())?;
    let created = super::now();
    let source_info = describe::source(&claim, source.as_ref(), &layout);
    let window_log2 = WINDOW_LOG2.saturating_sub(request.block_size.log2()).min(6);
    let header = Header {
        id: Uuid::new_v4(),
        set: place.set_id,
        parent: None,
        kind: Kind::Full,
        disk_len: source.len(),
        block_size: request.block_size,
        window_log2,
    };
    let hole_bytes = hole_bytes(source.as_ref())?;
    let take_bytes = selection.taken_bytes(source.len(), request.block_size);
    let store_free_bytes = store
        .map(|s| s.space())
        .transpose()?
        .flatten()
        .map(|s| s.available);
    let needed = take_bytes.saturating_sub(hole_bytes);
    if let Some(free) = store_free_bytes.filter(|free| *free < needed) {
        warnings.push(format!(
            "the store has {} free and {} are to be imaged: unless they compress well, it will not \
             be enough",
            ByteLen(free),
            ByteLen(needed)
        ));
    }
    let plan = BackupPlan {
        source: source_info.clone(),
        store: request.store.display().to_string(),
        set: place.set.clone(),
        sequence: place.sequence,
        kind: Kind::Full.name(),
        reason: "every image of this version is full".to_owned(),
        file: place.file_name(created, Kind::Full),
        block_size: request.block_size.bytes(),
        compression: match request.compression {
            Compression::None => "none".to_owned(),
            Compression::Zstd(level) => format!("zstd:{level}"),
        },
        consistency: consistency.clone(),
        partitions: partitions.clone(),
        fallbacks,
        take_bytes,
        hole_bytes,
        store_free_bytes,
        warnings,
    };
    let info = Info {
        tool: concat!("strata ", env!("CARGO_PKG_VERSION")).to_owned(),
        created,
        set: place.set,
        sequence: place.sequence,
        source: source_info,
        host: describe::host(&context.root),
        consistency,
        comment: request.comment.clone(),
        layout: serde_json::to_value(&layout).unwrap_or_default(),
        take: request.take.info(),
        partitions,
    };
    drop(source);
    Ok(Prepared {
        claim,
        selection,
        header,
        info,
        tables,
        plan,
    })
}

fn write(
    context: &Context<'_>,
    store: &LocalStore,
    prepared: Prepared,
    compression: Compression,
) -> Result<BackupReport> {
    let Prepared {
        claim,
        selection,
        header,
        info,
        tables,
        plan,
    } = prepared;
    let file = FileName::new(plan.file.clone())?;
    let upload = store.create(&file)?;
    let mut writer = ImageWriter::start(upload, file.as_str(), header, &info, &tables)?;
    let source = claim.source();
    let resources = context.resources();
    let totals = write_blocks(
        source.as_ref(),
        &selection,
        compression,
        &mut writer,
        resources,
    )?;
    let mut warnings = plan.warnings;
    if !totals.unreadable.is_empty() {
        let lost: u64 = totals.unreadable.iter().map(|e| e.len.0).sum();
        warnings.push(format!(
            "{lost} bytes in {} places could not be read; the image lists them",
            totals.unreadable.len()
        ));
    }
    let unreadable: Vec<ByteRange> = totals.unreadable.iter().map(|e| (*e).into()).collect();
    let summary = Summary {
        finished: super::now(),
        unreadable: unreadable.clone(),
        warnings: warnings.clone(),
        ..Summary::default()
    };
    let (upload, finished) = writer.finish(summary)?;
    context.cancel.check()?;
    let phase = Phase::Sync;
    context
        .observer
        .event(Event::PhaseStarted { phase, bytes: None });
    upload.publish()?;
    context.observer.event(Event::PhaseFinished { phase });
    // Opened again: what is reported is what a reader will find.
    let reader = ImageReader::open(store.open(&file)?)?;
    if reader.root() != finished.root {
        return Err(Error::new(
            ErrorKind::Destination,
            "trust",
            format!("{}/{file}", store.name()),
        )
        .because("it does not read back as it was written")
        .hint("the store's medium may be failing; remove that file and use another store"));
    }
    Ok(BackupReport {
        image: ImageRecord::of(&Image::of(file, &reader)),
        source: plan.source,
        read_bytes: totals.read,
        stored_bytes: finished.len,
        unreadable,
        partitions: plan.partitions,
        fallbacks: plan.fallbacks,
        warnings,
    })
}

/// Why the used map of a part of the source would be out of date before it is read.
fn in_flux(
    inventory: &Inventory,
    source: &Resolved,
    claim: &ReadClaim,
    part: Extent,
) -> Result<Option<String>> {
    if !matches!(claim.consistency(), Consistency::Live(_)) {
        return Ok(None);
    }
    Ok(match inventory.part_consistency(source, part)? {
        Consistency::Live(uses) => Some(format!(
            "it is in use while it is read, and what becomes allocated meanwhile must not be left \
             out ({})",
            uses.join("; ")
        )),
        Consistency::Unmounted | Consistency::ReadOnlyMounted(_) => None,
    })
}

fn refuse_fallbacks(fallbacks: &[Fallback], source: &str) -> Result<()> {
    if fallbacks.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = fallbacks.iter().map(Fallback::text).collect();
    Err(
        Error::new(ErrorKind::Source, "tell what is in use of", source)
            .because(all.join("; "))
            .hint("mend what is named there, or leave out --strict to take all blocks of it"),
    )
}

/// An image on the very disk that it is of is gone when that disk is.
fn store_on_source(inventory: &Inventory, source: &Resolved, store: &Path) -> Option<String> {
    let Resolved::Device { device, .. } = source else {
        return None;
    };
    let below = inventory.devices_of_path(store);
    let same = below.contains(&device.dev) || below.contains(&device.whole());
    same.then(|| {
        format!(
            "the store {} lies on the disk that is imaged: should the disk fail, the image is lost \
             with it",
            store.display()
        )
    })
}

/// How much of the source is known to be zero without reading it.
fn hole_bytes(source: &dyn BlockSource) -> Result<u64> {
    let (mut at, mut holes) = (0, 0);
    while at < source.len().0 {
        let (len, hole) = match source.mapping(ByteOffset(at))? {
            Mapping::Data(len) => (len.0, 0),
            Mapping::Zero(len) => (len.0, len.0),
        };
        at += len;
        holes += hole;
    }
    Ok(holes)
}
