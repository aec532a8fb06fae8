//! What a backup will do, and everything that is settled before the first block is read.

use super::backup::BackupRequest;
use super::place::Place;
use super::take::{Fallback, Taken, take};
use super::{Context, describe};
use crate::base::{BlockSize, ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Phase, Result};
use crate::block::{BlockSource, Mapping};
use crate::chain::Catalog;
use crate::device::{self, Consistency, Inventory, ReadClaim, Resolved};
use crate::image::{Compression, Header, Info, Kind, PartitionInfo, RawTable, SourceInfo};
use crate::layout;
use crate::pipeline::Selection;
use crate::store::{LocalStore, Store};
use serde::Serialize;
use std::path::Path;
use uuid::Uuid;

/// A frame window holds this many bytes, whatever the block size.
const WINDOW_LOG2: u8 = 20;
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

/// Everything that is settled before the first block is read.
pub(super) struct Prepared {
    pub(super) claim: ReadClaim,
    pub(super) selection: Selection,
    pub(super) header: Header,
    pub(super) info: Info,
    pub(super) tables: Vec<RawTable>,
    pub(super) plan: BackupPlan,
}

/// Looks at the source and settles what will be done. Changes nothing.
///
/// # Errors
/// As [`plan`](super::backup::plan).
pub(super) fn prepare(
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
    } = scanned(context, || {
        take(
            &source,
            &layout,
            request.block_size,
            &request.take,
            &in_flux,
            context.cancel,
        )
    })?;
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
    let hole_bytes = hole_bytes(source.as_ref(), &selection, request.block_size)?;
    let take_bytes = selection.taken_in(Extent::whole(source.len()), request.block_size);
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

/// How much of what is taken is known to be zero without reading it.
fn hole_bytes(
    source: &dyn BlockSource,
    selection: &Selection,
    block_size: BlockSize,
) -> Result<u64> {
    let (mut at, mut holes) = (ByteOffset(0), 0);
    while at.0 < source.len().0 {
        let len = match source.mapping(at)? {
            Mapping::Data(len) => len,
            Mapping::Zero(len) => {
                holes += selection.taken_in(Extent { start: at, len }, block_size);
                len
            }
        };
        at = ByteOffset(at.0 + len.0);
    }
    Ok(holes)
}

/// Tells the observer that file systems are read.
fn scanned<T>(context: &Context<'_>, scan: impl FnOnce() -> Result<T>) -> Result<T> {
    let phase = Phase::Scan;
    context
        .observer
        .event(Event::PhaseStarted { phase, bytes: None });
    let found = scan()?;
    context.observer.event(Event::PhaseFinished { phase });
    Ok(found)
}
