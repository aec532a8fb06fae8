//! What differs between two images?

use super::partitions::layout_of;
use super::{Context, ImageRecord, Library};
use crate::base::{ByteLen, ByteOffset, Event, Extent, Phase, Result};
use crate::chain;
use crate::image::{BlockState, BlockStates, ByteRange};
use serde::Serialize;
use std::path::Path;

/// Where two images differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiffReport {
    /// The first image.
    pub old: ImageRecord,
    /// The second one.
    pub new: ImageRecord,
    /// Blocks that differ.
    pub blocks: u64,
    /// Bytes of the disk in them.
    pub bytes: u64,
    /// Of these, bytes that have content in the second image: what a restore of it onto a disk that
    /// holds the first has to write.
    pub content_bytes: u64,
    /// The same for each partition of the second image that differs; number 0 is what lies outside.
    pub partitions: Vec<PartitionDiff>,
    /// Where they differ, ascending; neighbours that differ in the same way are one range.
    pub ranges: Vec<DiffRange>,
}

/// What differs in one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionDiff {
    /// Its number; 0 is what lies outside of all.
    pub number: u32,
    /// Its name or what is in it.
    pub name: String,
    /// Bytes of blocks that differ.
    pub bytes: u64,
}

/// A range of the disk that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiffRange {
    /// Where.
    #[serde(flatten)]
    pub range: ByteRange,
    /// State in the first image: `data`, `zero`, `unused`, `unreadable`.
    pub old: &'static str,
    /// State in the second one.
    pub new: &'static str,
}

/// Compares the images that `old` and `new` name, table against table.
///
/// # Errors
/// `NotFound`, `Damaged`, `Locked`, `Usage` when they are of disks of different sizes.
pub fn diff(
    context: &Context<'_>,
    store: Option<&Path>,
    old: &str,
    new: &str,
) -> Result<DiffReport> {
    let library = Library::open(context, store)?;
    let (a, b) = (library.find(old)?, library.find(new)?);
    a.check_lineage()?;
    b.check_lineage()?;
    let header = b.view.header();
    let phase = Phase::Compare;
    context
        .observer
        .event(Event::PhaseStarted { phase, bytes: None });
    let mut report = DiffReport {
        old: ImageRecord::of(&a.image),
        new: ImageRecord::of(&b.image),
        blocks: 0,
        bytes: 0,
        content_bytes: 0,
        partitions: Vec::new(),
        ranges: Vec::new(),
    };
    chain::diff(&a.view, &b.view, &mut |found| {
        context.cancel.check()?;
        let extent = header.extent_of(&found.blocks);
        report.blocks += found.blocks.end - found.blocks.start;
        report.bytes += extent.len.0;
        if found.new.has_content() {
            report.content_bytes += extent.len.0;
        }
        report.ranges.push(DiffRange {
            range: extent.into(),
            old: BlockState::name(found.old),
            new: BlockState::name(found.new),
        });
        Ok(())
    })?;
    let layout = layout_of(&b.view)?;
    let mut outside = report.bytes;
    for partition in &layout.partitions {
        let bytes = bytes_in(&report.ranges, partition.extent());
        outside = outside.saturating_sub(bytes);
        if bytes > 0 {
            report.partitions.push(PartitionDiff {
                number: partition.number,
                name: partition.display_name(),
                bytes,
            });
        }
    }
    if outside > 0 {
        report.partitions.insert(
            0,
            PartitionDiff {
                bytes: outside,
                ..PartitionDiff::default()
            },
        );
    }
    context.observer.event(Event::PhaseFinished { phase });
    Ok(report)
}

fn bytes_in(ranges: &[DiffRange], part: Extent) -> u64 {
    let shared = ranges.iter().filter_map(|r| {
        let extent = Extent::new(ByteOffset(r.range.start), ByteLen(r.range.length))?;
        Some(extent.intersect(part)?.len.0)
    });
    shared.sum()
}
