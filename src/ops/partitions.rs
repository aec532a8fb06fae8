//! The parts of a disk, of this machine or inside an image.

use crate::base::{BlockSize, ByteOffset, Cancel, Error, ErrorKind, Extent, Geometry, Result};
use crate::block::{BlockSource, SliceSource};
use crate::chain::ChainView;
use crate::fs::Certainty;
use crate::image::PartitionInfo;
use crate::layout::{Layout, Partition};
use crate::pipeline::{Selection, Used, select};
use std::sync::Arc;

/// The layout of an imaged disk: the one that its image carries, or, where that is missing or does
/// not fit the disk, a new reading of the imaged bytes.
///
/// # Errors
/// `Damaged` when the imaged table cannot be read.
pub(super) fn layout_of(view: &ChainView) -> Result<Layout> {
    let image = view.image();
    let stored = serde_json::from_value::<Layout>(image.info().layout.clone());
    match stored {
        Ok(layout) if layout.validate(image.header().disk_len).is_ok() => Ok(layout),
        _ => crate::layout::read(view),
    }
}

/// Partition `number` of `layout`.
///
/// # Errors
/// `NotFound`, saying which there are.
pub(super) fn numbered<'a>(layout: &'a Layout, number: u32, of: &str) -> Result<&'a Partition> {
    layout.partition(number).ok_or_else(|| {
        let there: Vec<String> = layout
            .partitions
            .iter()
            .map(|p| p.number.to_string())
            .collect();
        let why = match there.as_slice() {
            [] => "there are no partitions".to_owned(),
            some => format!("there are {}", some.join(", ")),
        };
        Error::new(
            ErrorKind::NotFound,
            "find",
            format!("partition {number} of {of}"),
        )
        .because(why)
        .hint("`strata show` lists the partitions of an image, `strata disks` those of a disk")
    })
}

/// What a backup takes, and of which partition how much.
pub(super) fn selection_of(
    source: &Arc<dyn BlockSource>,
    layout: &Layout,
    block_size: BlockSize,
    cancel: &Cancel,
) -> Result<(Selection, Vec<PartitionInfo>)> {
    let mut reports = Vec::new();
    for partition in parts_of(layout, source.geometry()) {
        let name = format!("{} partition {}", source.name(), partition.number);
        let slice = SliceSource::new(name, Arc::clone(source), partition.extent)?;
        reports.push((partition, crate::fs::used(&slice, cancel)?));
    }
    let used: Vec<Used<'_>> = reports
        .iter()
        .map(|(part, report)| Used {
            extent: part.extent,
            unit: report.unit,
            map: &report.used,
        })
        .collect();
    let selection = select(source.len(), block_size, &used);
    let infos: Vec<PartitionInfo> = reports
        .iter()
        .map(|(part, report)| PartitionInfo {
            number: part.number,
            start: part.extent.start.0,
            length: part.extent.len.0,
            filesystem: report.kind.clone(),
            label: report.label.clone(),
            used: report.used_bytes(part.extent.len).0,
            taken: taken_of(&selection, block_size, part.extent),
            reason: match &report.certainty {
                Certainty::Certain => report.basis.clone(),
                Certainty::Unknown(why) => format!("all of it: {why}"),
            },
        })
        .collect();
    Ok((selection, infos))
}

/// How many bytes of `extent` lie in blocks that are taken.
fn taken_of(selection: &Selection, block_size: BlockSize, extent: Extent) -> u64 {
    let first = block_size.index_of(extent.start);
    let last = extent.end().0.div_ceil(block_size.bytes());
    let runs = selection.take.runs_from(first);
    let runs = runs.take_while(|run| run.start < last);
    runs.filter_map(|run| {
        let start = ByteOffset(run.start.saturating_mul(block_size.bytes()));
        let end = ByteOffset(run.end.saturating_mul(block_size.bytes()));
        Extent::between(start, end)?.intersect(extent)
    })
    .map(|taken| taken.len.0)
    .sum()
}

/// One place where a file system may be.
#[derive(Debug, Clone, Copy)]
struct Part {
    number: u32,
    extent: Extent,
}

/// The partitions, or the whole disk as number 0 when it has none.
fn parts_of(layout: &Layout, geometry: Geometry) -> Vec<Part> {
    if layout.partitions.is_empty() {
        let extent = Extent {
            start: ByteOffset(0),
            len: geometry.len,
        };
        return vec![Part { number: 0, extent }];
    }
    layout
        .partitions
        .iter()
        .map(|p| Part {
            number: p.number,
            extent: p.extent(),
        })
        .collect()
}
