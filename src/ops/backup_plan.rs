//! What a backup will do, and everything that is settled before the first block is read.

use super::backup::{BackupRequest, Split};
use super::encryption::{KeyRecord, Protection};
use super::history::History;
use super::piped::PIPE;
use super::place::{file_name, label};
use super::state::Keeper;
use super::take::{Fallback, Taken, take};
use super::{Context, describe};
use crate::base::{BlockSize, ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Phase, Result};
use crate::block::{BlockSource, Mapping};
use crate::chain::{self, ChainView, Image};
use crate::crypt::KeySet;
use crate::device::{self, Consistency, Inventory, ReadClaim, Resolved};
use crate::image::{
    BlockStates, Header, Info, Parent, PartitionInfo, RawTable, SourceInfo, TableCopy,
};
use crate::layout;
use crate::pipeline::Selection;
use crate::store::Store;
use crate::sys;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Parts have whole mebibytes where nobody asked for others.
const PART_STEP: u64 = 1 << 20;

/// Exponent of the length of a frame window in bytes.
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
    pub sequence: u32,
    /// `full`, `incremental` or `differential`.
    pub kind: &'static str,
    /// The image that it builds on.
    pub parent: Option<String>,
    /// Why that kind.
    pub reason: String,
    /// Name of the file to be.
    pub file: String,
    /// Unit of block states in bytes.
    pub block_size: u64,
    /// `none` or `zstd:LEVEL`.
    pub compression: String,
    /// Bytes of each part of the file; absent when it is not cut.
    pub part_bytes: Option<u64>,
    /// The keys that will open it, none of them when they are still to be made; absent when it will not be
    /// encrypted.
    pub keys: Option<Vec<KeyRecord>>,
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
    /// Bytes that an interrupted run has stored of this very image, where there are any: what of them is still as
    /// on the disk is not stored again.
    pub continues_bytes: Option<u64>,
    /// Room in the store, where it says.
    pub store_free_bytes: Option<u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Everything that is settled before the first block is read.
pub(super) struct Prepared {
    pub(super) claim: ReadClaim,
    pub(super) parent: Option<ParentTable>,
    pub(super) selection: Selection,
    pub(super) header: Header,
    pub(super) info: Info,
    pub(super) tables: Vec<RawTable>,
    pub(super) plan: BackupPlan,
    pub(super) protection: Protection,
    /// Whether its history has no image yet: then it has no id, but a name.
    pub(super) begins: bool,
    /// Keeps what the next image must know, where this one cannot be read again.
    pub(super) keeper: Option<Keeper>,
}

impl Prepared {
    /// The keys that the image is encrypted with. New ones are made now, so this is called once, when
    /// everything else is settled.
    ///
    /// # Errors
    /// `Usage` when they cannot be made, `Destination` when a recovery key cannot be written.
    pub(super) fn take_keys(&mut self, context: &Context<'_>) -> Result<Option<Arc<KeySet>>> {
        let protection = std::mem::replace(&mut self.protection, Protection::None);
        let keys = protection.keys(context)?;
        if let Some(keys) = &keys {
            self.plan.keys = Some(keys.keys().iter().map(KeyRecord::of).collect());
        }
        Ok(keys)
    }

    /// A name for the file that the image becomes.
    pub(super) fn file_name(&self) -> String {
        let (header, info) = (&self.header, &self.info);
        let label = label(&info.set, header.set, self.protection.is_some());
        file_name(&label, header.sequence, info.created, header.kind)
    }

    /// Begins to keep what the next image of a store must know of this one, if it cannot be read again.
    /// `keys` are those of [`Prepared::take_keys`].
    ///
    /// # Errors
    /// `Destination`.
    pub(super) fn keep(&mut self, keys: &KeySet) -> Result<()> {
        let set = &self.info.set;
        self.keeper = Some(Keeper::begin(&self.header, set, &self.info.source, keys)?);
        Ok(())
    }
}

/// Looks at the source and settles what will be done. Changes nothing.
///
/// # Errors
/// As [`plan`](super::backup::plan).
pub(super) fn prepare(
    context: &Context<'_>,
    request: &BackupRequest,
    store: Option<&Arc<dyn Store>>,
) -> Result<Prepared> {
    let inventory = Inventory::read(&context.root)?;
    let resolved = device::resolve(&inventory, &request.source)?;
    if request.set.is_none() && store.is_some() {
        device::check_no_twin(&inventory, &resolved)?;
    }
    let claim = device::claim_read(&inventory, &resolved)?;
    let source = context.paced_source(claim.source());
    if source.is_empty() {
        return Err(Error::new(ErrorKind::Source, "image", source.name())
            .because("it is empty: it has not a single byte"));
    }
    let layout = layout::read(source.as_ref())?;
    let tables = layout::raw_regions(source.as_ref(), &layout)?
        .into_iter()
        .map(|region| (region.offset, region.bytes))
        .collect();
    let history = History::find(context, request, &claim, &layout, store)?;
    let block_size = history.block_size;
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
            block_size,
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
    if !request.into_pipe() {
        warnings.extend(store_on_source(&inventory, &resolved, &request.store));
    }
    warnings.extend(history.warnings);
    let History {
        place,
        kind,
        parent,
        mut reason,
        protection,
        damaged,
        ..
    } = history;
    if request.into_pipe() && request.wish != chain::Wish::Full {
        "it goes into a pipe".clone_into(&mut reason);
    }
    let created = super::now();
    if let Some(newest) = place.images.last().filter(|i| i.info.created > created) {
        warnings.push(format!(
            "the clock says {}, which is before the newest image of the set ({}): the order of the \
             images does not depend on it, but retention does",
            super::time_text(created),
            super::time_text(newest.info.created)
        ));
    }
    let source_info = describe::source(&claim, source.as_ref(), &layout);
    let header = Header {
        id: Uuid::new_v4(),
        set: place.set_id,
        sequence: place.sequence,
        parent: parent.as_ref().map(ParentTable::link),
        kind,
        disk_len: source.len(),
        block_size,
        window_log2: window_log2(block_size),
    };
    let hole_bytes = hole_bytes(source.as_ref(), &selection, block_size)?;
    let take_bytes = selection.taken_in(Extent::whole(source.len()), block_size);
    let store_free_bytes = store
        .map(|s| s.space())
        .transpose()?
        .flatten()
        .map(|s| s.available);
    let needed = take_bytes.saturating_sub(hole_bytes);
    warnings.extend(store_nearly_full(
        store_free_bytes,
        needed,
        parent.as_ref().map(|_| place.images.as_slice()),
    ));
    let part_bytes = part_len(request, store, &place.images)?;
    let plan = BackupPlan {
        part_bytes,
        source: source_info.clone(),
        store: request.store.display().to_string(),
        set: place.set.clone(),
        sequence: place.sequence,
        kind: kind.name(),
        parent: header.parent.map(|p| p.id.to_string()),
        reason: reason.clone(),
        file: match request.into_pipe() {
            true => PIPE.to_owned(),
            false => place.file_name(created, kind, protection.is_some()),
        },
        block_size: block_size.bytes(),
        compression: request.compression.to_string(),
        keys: protection.records(),
        consistency: consistency.clone(),
        partitions: partitions.clone(),
        fallbacks,
        take_bytes,
        hole_bytes,
        continues_bytes: None,
        store_free_bytes,
        warnings,
    };
    let info = Info {
        tool: concat!("strata ", env!("CARGO_PKG_VERSION")).to_owned(),
        created,
        set: place.set.clone(),
        source: source_info,
        host: describe::host(&context.root),
        consistency,
        reason,
        compression: request.compression.to_string(),
        comment: request.comment.clone(),
        layout: serde_json::to_value(&layout).unwrap_or_default(),
        take: request.take.info(),
        partitions,
        healed: damaged,
    };
    drop(source);
    Ok(Prepared {
        claim,
        parent,
        selection,
        header,
        info,
        tables,
        plan,
        protection,
        begins: place.begins,
        keeper: None,
    })
}

/// A frame window holds 1 MiB, whatever the block size.
pub(super) fn window_log2(block_size: BlockSize) -> u8 {
    WINDOW_LOG2.saturating_sub(block_size.log2()).min(6)
}

/// What is known of the image that the new one builds on.
pub(super) enum ParentTable {
    /// All of it, from its files.
    View(Box<ChainView>),
    /// What this machine has kept of it.
    Kept(Box<TableCopy>),
}

impl ParentTable {
    fn link(&self) -> Parent {
        let (header, root) = match self {
            ParentTable::View(view) => (view.image().header(), view.image().root()),
            ParentTable::Kept(table) => (table.of(), table.root()),
        };
        Parent {
            id: header.id,
            sequence: header.sequence,
            root,
        }
    }

    pub(super) fn states(&self) -> &dyn BlockStates {
        match self {
            ParentTable::View(view) => view.as_ref(),
            ParentTable::Kept(table) => table.as_ref(),
        }
    }
}

/// The increments that are looked at to guess the next one.
const LATEST_INCREMENTS: usize = 7;

/// Warns when the image may not fit: a full one of `needed` bytes, or, given the images of its set so
/// far, one that is as long as the longest of the latest increments.
fn store_nearly_full(free: Option<u64>, needed: u64, so_far: Option<&[Image]>) -> Option<String> {
    let free = free?;
    let Some(images) = so_far else {
        return (free < needed).then(|| {
            format!(
                "the store has {} free and {} are to be imaged: unless they compress well, it will \
                 not be enough",
                ByteLen(free),
                ByteLen(needed)
            )
        });
    };
    let increments = images.iter().rev().take(LATEST_INCREMENTS);
    let increments = increments.filter(|i| i.header.parent.is_some());
    let longest = increments.map(|i| i.len).max()?;
    (free < longest).then(|| {
        format!(
            "the store has {} free and the longest of the latest increments took {}: `strata prune` \
             makes room",
            ByteLen(free),
            ByteLen(longest)
        )
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

/// Into parts of how many bytes the image is cut: as asked for, or as the newest image of its set is.
fn part_len(
    request: &BackupRequest,
    store: Option<&Arc<dyn Store>>,
    images: &[Image],
) -> Result<Option<u64>> {
    if request.into_pipe() && request.split.is_some() {
        return Err(
            Error::new(ErrorKind::Usage, "split", "what goes into a pipe")
                .hint("leave out --split; whoever reads the pipe may cut what comes"),
        );
    }
    match (request.split, store, images.last()) {
        (Some(Split::Parts(len)), ..) => Ok(Some(len)),
        (Some(Split::Auto), ..) => Ok(longest_part(&request.store)),
        (None, Some(store), Some(newest)) => store.part_len(&newest.file),
        (None | Some(Split::Whole), ..) => Ok(None),
    }
}

/// How long parts are at most in a folder whose file system takes no long files.
pub(super) fn longest_part(folder: &Path) -> Option<u64> {
    let longest = sys::longest_file(folder)?;
    Some(longest / PART_STEP * PART_STEP)
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
