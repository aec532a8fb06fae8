//! What is in an image?

use super::partitions::layout_of;
use super::{Context, Found, ImageRecord, Library};
use crate::base::Result;
use crate::chain::ChainView;
pub use crate::image::TakeInfo;
use crate::image::{BlockCounts, ByteRange, HostInfo, PartitionInfo, SourceInfo};
use crate::layout::Layout;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

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
    /// Blocks by state.
    pub blocks: BlockCounts,
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
    let Found { image, reader, .. } = Library::open(store)?.find(wanted)?;
    let (info, summary) = (reader.info(), reader.summary());
    Ok(Shown {
        image: ImageRecord::of(&image),
        tool: info.tool.clone(),
        source: info.source.clone(),
        host: info.host.clone(),
        consistency: info.consistency.clone(),
        finished: super::time_text(summary.finished),
        layout: layout_of(&ChainView::new(Arc::clone(&reader))?)?,
        take: info.take.clone(),
        partitions: info.partitions.clone(),
        blocks: summary.blocks,
        unreadable: summary.unreadable.clone(),
        warnings: summary.warnings.clone(),
        damage: reader.findings().to_vec(),
        comment: info.comment.clone(),
    })
}
