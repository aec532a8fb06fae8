//! From the trees of free space to the map.

use super::super::Used;
use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::super::volume::Volume;
use super::disk::{self, Extent, GroupHeader, Superblock};
use super::tree::{Order, Seen, Walk};
use super::{features, log};
use std::ops::Range;

/// What a person should know of a file system with a realtime device.
const REALTIME: &str = "files may lie on its realtime device, which is another device: without that they are incomplete";

/// The map of a whole file system.
pub(super) fn used(volume: &Volume<'_>) -> Result<Used, Doubt> {
    let start = volume.read(0, disk::SMALLEST)?;
    let sector = Superblock::sector_of(&start)?;
    let superblock = Superblock::decode(&volume.read(0, sector)?)?;
    let bytes = superblock.bytes().unwrap_or(u64::MAX);
    ensure(bytes <= volume.len(), || {
        format!(
            "it is {bytes} bytes long, and what holds it only {}",
            volume.len()
        )
    })?;
    features::check(&superblock)?;
    let log = log::must_be_clean(volume, &superblock)?;

    // What lies behind the file system is never freed.
    let mut map = MapBuilder::new(volume.len(), superblock.block);
    map.keep(log.clone());
    let mut free = 0u64;
    for group in 0..superblock.groups {
        let found = Group {
            volume,
            superblock: &superblock,
            group,
            log: &log,
        };
        free = free.saturating_add(found.map(&mut map)?);
    }
    let said = superblock.free_blocks;
    ensure(free == said, || {
        format!(
            "its superblock counts {said} free blocks and its allocation groups {free}: run \
             xfs_repair on it"
        )
    })?;
    let mut used = Used::mapped(map);
    if superblock.realtime_blocks != 0 {
        used.notes.push(REALTIME.to_owned());
    }
    Ok(used)
}

/// An allocation group.
struct Group<'a, 'v> {
    volume: &'a Volume<'v>,
    superblock: &'a Superblock,
    /// Its number; it exists.
    group: u64,
    /// Bytes of the log, in this group or another one.
    log: &'a Range<u64>,
}

/// What the extents of a tree come to, in whatever order they come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    blocks: u64,
    longest: u64,
    extents: u64,
    /// Differs, but for a coincidence, when any of the extents does.
    mixed: u64,
}

impl Sum {
    fn add(&mut self, extent: Extent) {
        let count = u64::from(extent.count);
        self.blocks = self.blocks.saturating_add(count);
        self.longest = self.longest.max(count);
        self.extents += 1;
        self.mixed = self
            .mixed
            .wrapping_add(mix(u64::from(extent.start) << 32 | count));
    }
}

/// Spreads every bit of a number over all of it (the last steps of splitmix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

impl Group<'_, '_> {
    /// Frees in `map` what is free in the group. How many blocks of it the superblock counts as
    /// free: with those set aside for the trees and those in them.
    fn map(&self, map: &mut MapBuilder) -> Result<u64, Doubt> {
        let (superblock, group) = (self.superblock, self.group);
        let sector = superblock.sector;
        let start = superblock.byte_of(group, 0);
        // Superblock, free space, inodes, reserve of blocks for the trees.
        map.keep(start..start.saturating_add(4 * sector));
        let bytes = self.volume.read(start.saturating_add(sector), sector)?;
        let header = GroupHeader::decode(&bytes, superblock, group)?;
        let (sum, by_block) = self.walk(Order::Block, header.by_block, map)?;
        let (other, by_size) = self.walk(Order::Size, header.by_size, map)?;
        ensure(sum == other, || {
            self.text("has two trees of free space that differ")
        })?;
        ensure(sum.blocks == header.free, || {
            let (said, found) = (header.free, sum.blocks);
            self.text(&format!("counts {said} free blocks and lists {found}"))
        })?;
        ensure(sum.longest == header.longest, || {
            let (said, found) = (header.longest, sum.longest);
            self.text(&format!(
                "says that at most {said} blocks in a row are free and lists {found}"
            ))
        })?;
        let mut blocks = by_block.saturating_sub(1) + by_size.saturating_sub(1);
        if features::has_reverse_map(superblock) {
            blocks = blocks.saturating_add(header.reverse_map_blocks.saturating_sub(1));
        }
        let counted = features::counts_tree_blocks(superblock);
        ensure(!counted || header.tree_blocks == blocks, || {
            let said = header.tree_blocks;
            self.text(&format!("counts {said} blocks of trees and has {blocks}"))
        })?;
        let inside = superblock.blocks_of(group);
        ensure(sum.blocks + header.reserve + blocks <= inside, || {
            self.text("has more free blocks than blocks")
        })?;
        Ok(sum.blocks + header.reserve + blocks)
    }

    /// Walks a tree, and for the one by block frees what it lists. The sum of its extents, and the
    /// number of its blocks.
    fn walk(
        &self,
        order: Order,
        root: (u32, u32),
        map: &mut MapBuilder,
    ) -> Result<(Sum, u64), Doubt> {
        let (superblock, group) = (self.superblock, self.group);
        let range = |first: u32, count: u32| {
            let start = superblock.byte_of(group, first.into());
            start..start.saturating_add(u64::from(count).saturating_mul(superblock.block))
        };
        let (mut sum, mut blocks) = (Sum::default(), 0u64);
        let walk = Walk {
            volume: self.volume,
            superblock,
            group,
            headers: (4 * superblock.sector).div_ceil(superblock.block),
            order,
        };
        walk.run(root, &mut |seen| {
            match seen {
                Seen::Block(block) => {
                    blocks += 1;
                    map.keep(range(block, 1));
                }
                Seen::Free(extent) => {
                    sum.add(extent);
                    // Ends trees that list blocks many times over.
                    ensure(sum.blocks <= superblock.blocks_of(group), || {
                        self.text("lists more free blocks than it has blocks")
                    })?;
                    let bytes = range(extent.start, extent.count);
                    let apart = bytes.end <= self.log.start || self.log.end <= bytes.start;
                    ensure(apart, || self.text("lists blocks of the log as free"))?;
                    if order == Order::Block {
                        map.free(bytes);
                    }
                }
            }
            Ok(())
        })?;
        Ok((sum, blocks))
    }

    fn text(&self, what: &str) -> String {
        format!(
            "allocation group {} {what}: run xfs_repair on it",
            self.group
        )
    }
}
