//! What is in an image?

pub use super::hits::{FileRecord, Hit};
use super::hits::{hits, hits_on};
use super::partitions::layout_of;
use super::{Context, ImageRecord, Library};
use crate::base::Result;
use crate::chain::{self, BrokenLink, ChainView};
pub use crate::image::TakeInfo;
use crate::image::{
    BlockCounts, BlockStates, ByteRange, HostInfo, Info, PartitionInfo, SourceInfo, Summary,
};
use crate::layout::Layout;
use serde::Serialize;
use std::path::Path;

/// All that an image says about itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// As in a listing.
    pub image: ImageRecord,
    /// How long parts of its file are at most, in bytes; absent when it is not cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_bytes: Option<u64>,
    /// In how many numbered files it lies; absent when it is not cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
    /// Program and version that wrote it.
    pub tool: String,
    /// The imaged disk.
    pub source: SourceInfo,
    /// The machine.
    pub host: HostInfo,
    /// How the source was kept still.
    pub consistency: String,
    /// When it was complete, RFC 3339 in UTC.
    pub finished: String,
    /// The decoded partition table.
    pub layout: Layout,
    /// What was asked to be taken and left out.
    pub take: TakeInfo,
    /// What each partition held and how much of it was taken.
    pub partitions: Vec<PartitionInfo>,
    /// Why it was made as a full, incremental or differential image.
    pub reason: String,
    /// How its frames were compressed.
    pub compression: String,
    /// Blocks of the disk by state.
    pub blocks: BlockCounts,
    /// Of these, the ones that differed from the parent.
    pub changed: BlockCounts,
    /// Where these are, ascending; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_ranges: Option<Vec<ChangedRange>>,
    /// Ids of the images that are needed to read it, oldest first.
    pub needs: Vec<String>,
    /// What could not be read.
    pub unreadable: Vec<ByteRange>,
    /// Of this, what was passed over among bad sectors and not tried one by one.
    pub untried: Vec<ByteRange>,
    /// What it belongs to.
    pub hits: Vec<Hit>,
    /// What was warned of when it was made.
    pub warnings: Vec<String>,
    /// Damage that did not keep it from being opened.
    pub damage: Vec<String>,
    /// The person's own words.
    pub comment: Option<String>,
}

/// A run of the changed-block map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedRange {
    /// Where on the disk.
    #[serde(flatten)]
    pub range: ByteRange,
    /// What it is now: `data`, `zero`, `unused`, `unreadable`.
    pub state: &'static str,
}

fn changed_ranges(view: &ChainView) -> Result<Vec<ChangedRange>> {
    let mut ranges = Vec::new();
    chain::changed(view, &mut |blocks, state| {
        ranges.push(ChangedRange {
            range: view.header().extent_of(&blocks).into(),
            state: state.name(),
        });
        Ok(())
    })?;
    Ok(ranges)
}

/// Describes the image that `wanted` names; with `with_changed`, its changed-block map too.
///
/// # Errors
/// `NotFound`, `Damaged`, or `Usage` when a store is needed and none was named.
pub fn show(
    context: &Context<'_>,
    store: Option<&Path>,
    wanted: &str,
    with_changed: bool,
) -> Result<Shown> {
    show_in(&Library::open(context, store)?, wanted, with_changed)
}

/// [`show`], in a library that is open.
///
/// # Errors
/// As [`show`].
pub fn show_in(library: &Library<'_>, wanted: &str, with_changed: bool) -> Result<Shown> {
    let found = library.find(wanted)?;
    let (image, view, store) = (&found.image, &found.view, &found.store);
    let reader = view.image();
    let mut damage = reader.findings().to_vec();
    damage.extend(view.lineage().broken.as_ref().map(BrokenLink::words));
    let lineage = view.lineage().images.iter();
    let record = ImageRecord::of(image);
    let layout = layout_of(view)?;
    Ok(Shown {
        hits: hits_on(view, library.cancel(), &reader.summary().unreadable)?,
        part_bytes: store.part_len(&image.file)?,
        parts: store.part_count(&image.file)?,
        changed_ranges: with_changed.then(|| changed_ranges(view)).transpose()?,
        needs: lineage
            .filter(|i| i.header.id != image.header.id)
            .map(|i| i.header.id.to_string())
            .collect(),
        ..of_image(record, reader.info(), reader.summary(), layout, damage)
    })
}

/// What an image that needs no other says of itself.
pub(super) fn of_image(
    image: ImageRecord,
    info: &Info,
    summary: &Summary,
    layout: Layout,
    damage: Vec<String>,
) -> Shown {
    Shown {
        image,
        part_bytes: None,
        parts: None,
        tool: info.tool.clone(),
        source: info.source.clone(),
        host: info.host.clone(),
        consistency: info.consistency.clone(),
        finished: super::time_text(summary.finished),
        layout,
        take: info.take.clone(),
        partitions: info.partitions.clone(),
        reason: info.reason.clone(),
        compression: info.compression.clone(),
        blocks: summary.blocks,
        changed: summary.changed,
        changed_ranges: None,
        needs: Vec::new(),
        unreadable: summary.unreadable.clone(),
        untried: summary.untried.clone(),
        hits: hits(&info.partitions, &summary.unreadable),
        warnings: summary.warnings.clone(),
        damage,
        comment: info.comment.clone(),
    }
}
