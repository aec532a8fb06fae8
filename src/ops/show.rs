//! What is in an image?

use super::partitions::layout_of;
use super::{Context, Found, ImageRecord, Library};
use crate::base::Result;
use crate::chain::BrokenLink;
pub use crate::image::TakeInfo;
use crate::image::{BlockCounts, ByteRange, HostInfo, PartitionInfo, SourceInfo};
use crate::layout::Layout;
use serde::Serialize;
use std::path::Path;

/// All that an image says about itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// As in a listing.
    pub image: ImageRecord,
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
    /// Ids of the images that are needed to read it, oldest first.
    pub needs: Vec<String>,
    /// What could not be read.
    pub unreadable: Vec<ByteRange>,
    /// What was warned of when it was made.
    pub warnings: Vec<String>,
    /// Damage that did not keep it from being opened.
    pub damage: Vec<String>,
    /// The person's own words.
    pub comment: Option<String>,
}

/// Describes the image that `wanted` names.
///
/// # Errors
/// `NotFound`, `Damaged`, or `Usage` when a store is needed and none was named.
pub fn show(_: &Context<'_>, store: Option<&Path>, wanted: &str) -> Result<Shown> {
    let Found { image, view, .. } = Library::open(store)?.find(wanted)?;
    let reader = view.image();
    let (info, summary) = (reader.info(), reader.summary());
    let mut damage = reader.findings().to_vec();
    damage.extend(view.lineage().broken.as_ref().map(BrokenLink::words));
    let lineage = view.lineage().images.iter();
    Ok(Shown {
        image: ImageRecord::of(&image),
        tool: info.tool.clone(),
        source: info.source.clone(),
        host: info.host.clone(),
        consistency: info.consistency.clone(),
        finished: super::time_text(summary.finished),
        layout: layout_of(&view)?,
        take: info.take.clone(),
        partitions: info.partitions.clone(),
        blocks: summary.blocks,
        changed: summary.changed,
        reason: info.reason.clone(),
        compression: info.compression.clone(),
        needs: lineage
            .filter(|i| i.header.id != image.header.id)
            .map(|i| i.header.id.to_string())
            .collect(),
        unreadable: summary.unreadable.clone(),
        warnings: summary.warnings.clone(),
        damage,
        comment: info.comment.clone(),
    })
}
