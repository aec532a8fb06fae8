//! What lies where on an imaged disk, in as many cells as somebody wants to draw.

use super::map_tally::Tally;
use super::partitions::layout_of;
use super::{Context, Found, ImageRecord, Library};
use crate::base::{ByteLen, Extent, Result, to_u64};
use crate::image::{Block, BlockState, BlockStates, PartitionInfo, Piece};
use crate::layout::Layout;
use serde::Serialize;
use std::ops::Range;
use std::path::Path;

pub use super::map_cells::{Cell, Cells, Class};

/// An imaged disk in cells of equal width.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskMap {
    /// The image. In one without a parent all bytes count as changed.
    pub image: ImageRecord,
    /// Length of the disk in bytes.
    pub disk_bytes: u64,
    /// Unit of block states in bytes.
    pub block_size: u64,
    /// Width of a cell in bytes, not zero; the last one may be shorter.
    pub cell_bytes: u64,
    /// The cells in the order of the disk, one at least.
    pub cells: Vec<Cell>,
    /// The whole disk.
    pub totals: Cell,
    /// The partitions by ascending start; they do not overlap. A disk without partitions is one with
    /// number 0 where it is known what it holds.
    pub partitions: Vec<MapPartition>,
    /// What no partition covers, by ascending start.
    pub gaps: Vec<MapGap>,
}

/// A partition of an imaged disk. Its texts come from the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapPartition {
    /// Its number, as Linux counts.
    pub number: u32,
    /// The label of its file system, or else its name in the partition table, or its type; may be
    /// empty.
    pub name: String,
    /// What was found in it; may be empty.
    pub filesystem: String,
    /// Position on the disk in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// How much of what lies in it, to the byte.
    pub totals: Cell,
}

/// A stretch between partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapGap {
    /// Position on the disk in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// How much of what lies in it, to the byte.
    pub totals: Cell,
}

impl DiskMap {
    /// Whether it can be told what changed: the image has a parent.
    pub fn has_parent(&self) -> bool {
        self.image.parent.is_some()
    }
}

/// Maps the disk of the image that `wanted` names in at most `cells` cells, which do not cut blocks.
/// Reads the table of the image, and no data.
///
/// # Errors
/// `NotFound`, `Damaged` when a part of the table is lost, `Locked`, or `Usage`
/// when a store is needed and none was named.
pub fn map(
    context: &Context<'_>,
    store: Option<&Path>,
    wanted: &str,
    cells: usize,
) -> Result<DiskMap> {
    let Found { image, view, .. } = &Library::open(context, store)?.find(wanted)?;
    let header = view.header();
    let parent = header.parent_sequence();
    let layout = layout_of(view)?;
    let partitions = partitions_of(&layout, &view.image().info().partitions, header.disk_len);
    let cells = Cells::in_units(header.disk_len, cells, ByteLen(header.block_size.bytes()));
    let mut tally = Tally::new(header.disk_len, cells, partitions);
    let mut add = |blocks: Range<u64>, state: BlockState, since: u32| {
        tally.add(header.extent_of(&blocks), class_of(state), since > parent);
    };
    view.each_piece(0..header.blocks(), &mut |piece| {
        context.cancel.check()?;
        match piece {
            Piece::Lost { error, .. } => return Err(error),
            Piece::Uniform {
                blocks,
                state,
                since,
            } => add(blocks, state, since),
            Piece::Leaf(leaf) => {
                let alike = |a: &Block, b: &Block| a.state == b.state && a.since == b.since;
                let mut at = leaf.first.0;
                for run in leaf.blocks.chunk_by(alike) {
                    let end = at + to_u64(run.len());
                    if let Some(first) = run.first() {
                        add(at..end, first.state, first.since);
                    }
                    at = end;
                }
            }
        }
        Ok(())
    })?;
    Ok(tally.finish(ImageRecord::of(image)))
}

fn class_of(state: BlockState) -> Class {
    match state {
        BlockState::Data => Class::Data,
        BlockState::Zero => Class::Zero,
        BlockState::Unused => Class::Unused,
        BlockState::Unreadable => Class::Unreadable,
    }
}

/// The partitions of `layout` with what was found in them.
fn partitions_of(layout: &Layout, infos: &[PartitionInfo], disk: ByteLen) -> Vec<MapPartition> {
    let info_of = |number| infos.iter().find(|info| info.number == number);
    let describe = |number, extent: Extent, names: [Option<String>; 2]| {
        let info = info_of(number);
        let label = info.and_then(|i| i.label.clone());
        let names = std::iter::once(label).chain(names).flatten();
        MapPartition {
            number,
            name: names
                .into_iter()
                .find(|n| !n.is_empty())
                .unwrap_or_default(),
            filesystem: info.map(|i| i.filesystem.clone()).unwrap_or_default(),
            start: extent.start.0,
            length: extent.len.0,
            totals: Cell::default(),
        }
    };
    if layout.partitions.is_empty() && info_of(0).is_some() {
        return vec![describe(0, Extent::whole(disk), [None, None])];
    }
    let partitions = layout.partitions.iter().map(|p| {
        let names = [Some(p.display_name()), p.type_name().map(str::to_owned)];
        describe(p.number, p.extent(), names)
    });
    partitions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Cancel, Silent};

    fn golden(cells: usize) -> DiskMap {
        let cancel = Cancel::new();
        let context = Context::new(&cancel, &Silent);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/image/v1-zstd.strata");
        map(&context, None, path, cells).unwrap()
    }

    #[test]
    fn every_state_of_a_full_image_is_counted() {
        // `tests/golden.rs` knows how many blocks have which state; the last one is short.
        let totals = Cell {
            data: 5 * 4096 - 123,
            zero: 2048 * 4096,
            unused: 4096,
            unreadable: 4096,
            changed: 2055 * 4096 - 123,
        };
        for cells in [1, 7, 100, 5000] {
            let map = golden(cells);
            assert_eq!(map.totals, totals);
            assert!(map.cells.len() <= cells);
            // One cell is the whole disk, which ends within a block.
            assert!(map.cells.len() == 1 || map.cell_bytes.is_multiple_of(4096));
            let sum = map.cells.iter().fold(Cell::default(), |sum, c| sum.plus(c));
            assert_eq!(sum, totals);
            assert_eq!((map.partitions.len(), map.gaps.len()), (0, 1));
            assert!(!map.has_parent());
        }
        let map = golden(5000);
        assert_eq!(map.cells.len(), 2055, "a cell a block");
        assert_eq!(map.cells[9].unused, 4096);
    }

    #[test]
    fn partitions_have_the_best_name_there_is() {
        let info = |number, label: Option<&str>| PartitionInfo {
            number,
            filesystem: "ext4".to_owned(),
            label: label.map(str::to_owned),
            ..PartitionInfo::default()
        };
        let mut layout = layout_of_nothing();
        let whole = partitions_of(&layout, &[info(0, Some("stick"))], ByteLen(1 << 20));
        assert_eq!(
            (whole[0].length, whole[0].name.as_str()),
            (1 << 20, "stick")
        );
        assert_eq!(partitions_of(&layout, &[], ByteLen(1 << 20)), []);
        for (number, name) in [(1, "boot"), (2, ""), (3, "root")] {
            layout.partitions.push(crate::layout::Partition {
                number,
                start: u64::from(number) << 12,
                len: 4096,
                kind: crate::layout::PartitionKind::Primary,
                type_id: "0x83".to_owned(),
                name: name.to_owned(),
                unique_id: None,
                bootable: false,
                attributes: 0,
            });
        }
        let infos = [info(1, Some("")), info(3, Some("system"))];
        let found = partitions_of(&layout, &infos, ByteLen(1 << 20));
        let names: Vec<[&str; 2]> = found
            .iter()
            .map(|p| [p.name.as_str(), p.filesystem.as_str()])
            .collect();
        assert_eq!(names, [["boot", "ext4"], ["Linux", ""], ["system", "ext4"]]);
    }

    fn layout_of_nothing() -> Layout {
        let disk = crate::block::MemorySource::new("memory", vec![0; 1 << 20]);
        crate::layout::read(&disk).unwrap()
    }
}
