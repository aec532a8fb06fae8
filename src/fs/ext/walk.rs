//! The map: what block bitmaps call free, without anything that the file system's own metadata
//! occupies.
//!
//! Two passes over the group descriptors. The first collects where metadata lies; the second reads
//! the bitmaps and holds them against it: a bitmap that calls metadata free, or counts that do not
//! agree, and nothing is believed.

use super::super::Used;
use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::bits;
use super::descriptor::Descriptor;
use super::disk::Superblock;
use super::features::incompat;
use super::state::{Settled, settle};
use crate::base::{BlockMap, to_u64, to_usize};
use std::ops::Range;

/// Descriptors and bitmaps are read in runs of at most so many bytes.
const RUN: u64 = 1 << 20;
/// After so many groups the set of metadata blocks is made compact.
const GROUPS_BETWEEN_LOOKS: u64 = 4096;
/// What the set of metadata blocks may take of memory.
const MAX_MEMORY: u64 = 16 << 20;

/// What is in use in the file system on `volume`.
///
/// # Errors
/// A doubt, see [`settle`] and the checks of both passes.
pub(super) fn used(volume: &Volume<'_>) -> Result<Used, Doubt> {
    let settled = settle(volume)?;
    let superblock = &settled.superblock;
    let metadata = Metadata::collect(&settled)?;
    let unit = superblock.block * superblock.ratio;
    let mut map = MapBuilder::new(volume.len(), unit);
    map.keep(0..superblock.cluster_at(0));
    map.keep(superblock.blocks * superblock.block..volume.len());
    for run in metadata.clusters.runs() {
        map.keep(superblock.cluster_at(run.start)..superblock.cluster_at(run.end));
    }
    let mut free = Free {
        settled: &settled,
        metadata,
        map,
        pending: 0..0,
        total: 0,
    };
    each_run(&settled, |group, descriptors| {
        free.groups(group, descriptors)
    })?;
    free.flush();
    let blocks = free.total.saturating_mul(superblock.ratio);
    // After a crash the superblock's count is as old as its last commit.
    let agree = settled.replayed || blocks == superblock.free_blocks;
    ensure(agree, || {
        format!(
            "its superblock counts {} free blocks and its groups have {blocks}; run e2fsck",
            superblock.free_blocks
        )
    })?;
    let mut used = Used::mapped(free.map);
    if settled.replayed {
        used.basis = Some("in use, with its journal replayed in memory".to_owned());
    }
    Ok(used)
}

/// The descriptor of `group` in `block`, the descriptor block that has it.
pub(super) fn descriptor(
    block: &[u8],
    superblock: &Superblock,
    group: u64,
) -> Result<Descriptor, Doubt> {
    let len = to_usize(superblock.descriptor);
    let at = to_usize(group % superblock.descriptors_per_block()) * len;
    let bytes = Raw::new(block, "group descriptor").slice(at, len)?;
    Descriptor::decode(bytes, superblock, group)
}

/// Doubts unless `len` blocks of a structure of `group`, from block `at`, are where they may be.
pub(super) fn check_inside(
    superblock: &Superblock,
    what: &str,
    group: u64,
    at: u64,
    len: u64,
) -> Result<(), Doubt> {
    let place = if superblock.features.incompat(incompat::FLEX_BG) {
        superblock.first_block..superblock.blocks
    } else {
        superblock.group_blocks(group)
    };
    let inside =
        at > 0 && at >= place.start && at.checked_add(len).is_some_and(|end| end <= place.end);
    ensure(inside, || {
        format!("the {what} of its group {group} cannot be at block {at}; run e2fsck")
    })
}

/// Hands all descriptors in ascending order to `each`, as many at once as lie side by side, with the
/// number of the first one's group.
fn each_run(
    settled: &Settled<'_>,
    mut each: impl FnMut(u64, &[Descriptor]) -> Result<(), Doubt>,
) -> Result<(), Doubt> {
    let superblock = &settled.superblock;
    let (blocks, per_block) = (
        superblock.descriptor_blocks(),
        superblock.descriptors_per_block(),
    );
    let mut index = 0;
    while index < blocks {
        let at = superblock.descriptor_block(index);
        let beside = |n: &u64| superblock.descriptor_block(index + n) == at + n;
        let most = (RUN / 4 / superblock.block).clamp(1, blocks - index);
        let count = (0..most).take_while(beside).count();
        let bytes = settled.view.read(at, to_u64(count))?;
        let first = index * per_block;
        let end = (first + to_u64(count) * per_block).min(superblock.groups());
        let descriptors: Vec<Descriptor> = bytes
            .chunks_exact(to_usize(superblock.descriptor))
            .zip(first..end)
            .map(|(bytes, group)| Descriptor::decode(bytes, superblock, group))
            .collect::<Result<_, _>>()?;
        each(first, &descriptors)?;
        index += to_u64(count);
    }
    Ok(())
}

/// What the file system's own structures occupy.
struct Metadata<'s> {
    superblock: &'s Superblock,
    /// Clusters, counted from the first of group 0.
    clusters: BlockMap,
}

impl<'s> Metadata<'s> {
    fn collect(settled: &'s Settled<'_>) -> Result<Metadata<'s>, Doubt> {
        let superblock = &settled.superblock;
        let mut metadata = Metadata {
            superblock,
            clusters: BlockMap::empty(superblock.clusters()),
        };
        each_run(settled, |first, descriptors| {
            for (group, descriptor) in (first..).zip(descriptors) {
                metadata.group(group, descriptor)?;
            }
            Ok(())
        })?;
        if let Some(journal) = &settled.journal {
            for run in &journal.runs {
                metadata.claim(run.at..run.at + run.len)?;
            }
            for block in &journal.index {
                metadata.claim(*block..block + 1)?;
            }
        }
        if superblock.features.incompat(incompat::MMP) {
            metadata.claim(superblock.mmp_block..superblock.mmp_block + 1)?;
        }
        metadata.clusters.compact();
        Ok(metadata)
    }

    fn group(&mut self, group: u64, descriptor: &Descriptor) -> Result<(), Doubt> {
        for range in self.superblock.base_blocks(group) {
            self.claim(range)?;
        }
        let table = self.superblock.inode_table_blocks();
        let parts = [
            ("block bitmap", descriptor.block_bitmap, 1),
            ("inode bitmap", descriptor.inode_bitmap, 1),
            ("inode table", descriptor.inode_table, table),
        ];
        for (what, at, len) in parts {
            check_inside(self.superblock, what, group, at, len)?;
            self.claim(at..at + len)?;
        }
        if group % GROUPS_BETWEEN_LOOKS == GROUPS_BETWEEN_LOOKS - 1 {
            self.clusters.compact();
            ensure(
                self.clusters.memory() <= MAX_MEMORY,
                || "its metadata lies in too many pieces to be followed",
            )?;
        }
        Ok(())
    }

    /// These blocks hold metadata.
    fn claim(&mut self, blocks: Range<u64>) -> Result<(), Doubt> {
        let (first, ratio) = (self.superblock.first_block, self.superblock.ratio);
        let start = blocks.start.saturating_sub(first) / ratio;
        let end = blocks.end.saturating_sub(first).div_ceil(ratio);
        // Several structures share a cluster, never a block.
        let twice = ratio == 1 && self.clusters.intersects(start..end);
        ensure(!twice, || {
            format!(
                "two of its structures claim the same of the blocks {} to {}; run e2fsck",
                blocks.start,
                blocks.end.saturating_sub(1)
            )
        })?;
        self.clusters.insert_range(start..end);
        Ok(())
    }
}

/// The second pass.
struct Free<'s, 'v> {
    settled: &'s Settled<'v>,
    metadata: Metadata<'s>,
    map: MapBuilder,
    /// Free clusters not yet told to `map`: runs go on over the ends of groups.
    pending: Range<u64>,
    /// Free clusters.
    total: u64,
}

impl Free<'_, '_> {
    /// The groups from `first` on, whose descriptors lie side by side.
    fn groups(&mut self, first: u64, descriptors: &[Descriptor]) -> Result<(), Doubt> {
        let superblock = &self.settled.superblock;
        let block = to_usize(superblock.block);
        let most = to_usize((RUN / superblock.block).max(1));
        let mut rest = descriptors;
        let mut group = first;
        while let Some(head) = rest.first() {
            // FLEX_BG puts the bitmaps of many groups side by side.
            let beside = |(n, d): &(usize, &Descriptor)| {
                d.uninitialised == head.uninitialised
                    && (d.uninitialised || d.block_bitmap == head.block_bitmap + to_u64(*n))
            };
            let count = rest
                .iter()
                .take(most)
                .enumerate()
                .take_while(beside)
                .count();
            let (run, tail) = rest.split_at(count);
            if head.uninitialised {
                for descriptor in run {
                    self.uninitialised(group, descriptor)?;
                    group += 1;
                }
            } else {
                let bitmaps = self.settled.view.read(head.block_bitmap, to_u64(count))?;
                for (descriptor, bitmap) in run.iter().zip(bitmaps.chunks_exact(block)) {
                    self.initialised(group, descriptor, bitmap)?;
                    group += 1;
                }
            }
            rest = tail;
        }
        Ok(())
    }

    /// A group whose bitmap was never written: all but metadata is free.
    fn uninitialised(&mut self, group: u64, descriptor: &Descriptor) -> Result<(), Doubt> {
        let clusters = self.settled.superblock.group_clusters(group);
        let taken = self.metadata.clusters.count_in(clusters.clone());
        self.check_count(group, descriptor, clusters.end - clusters.start - taken)?;
        // What metadata takes is kept in the map.
        self.free(clusters);
        Ok(())
    }

    fn initialised(
        &mut self,
        group: u64,
        descriptor: &Descriptor,
        bitmap: &[u8],
    ) -> Result<(), Doubt> {
        let superblock = &self.settled.superblock;
        let len = to_usize(superblock.clusters_per_group() / 8);
        let bitmap = Raw::new(bitmap, "block bitmap").slice(0, len)?;
        descriptor.check_bitmap(bitmap, superblock, group)?;
        let clusters = superblock.group_clusters(group);
        let runs = || bits::clear_runs(bitmap, clusters.end - clusters.start);
        let mut count = 0;
        for run in runs() {
            count += run.end - run.start;
            let run = clusters.start + run.start..clusters.start + run.end;
            ensure(!self.metadata.clusters.intersects(run), || {
                format!("the block bitmap of its group {group} calls metadata free; run e2fsck")
            })?;
        }
        self.check_count(group, descriptor, count)?;
        let older = self.older_bitmap(group, descriptor, len)?;
        let both = older.map(|older| bits::union(bitmap, &older));
        let bitmap = both.as_deref().unwrap_or(bitmap);
        for run in bits::clear_runs(bitmap, clusters.end - clusters.start) {
            self.free(clusters.start + run.start..clusters.start + run.end);
        }
        Ok(())
    }

    /// The bitmap of `group` before the replay, when that changes it: what only the older one calls
    /// in use is in use until a mount has replayed the journal.
    fn older_bitmap(
        &self,
        group: u64,
        descriptor: &Descriptor,
        len: usize,
    ) -> Result<Option<Vec<u8>>, Doubt> {
        let (view, superblock) = (&self.settled.view, &self.settled.superblock);
        if !view.has_newer(descriptor.block_bitmap) {
            return Ok(None);
        }
        let at = superblock.descriptor_block(group / superblock.descriptors_per_block());
        let older = self::descriptor(&view.read_old(at, 1)?, superblock, group);
        if older.is_ok_and(|older| older.uninitialised) {
            return Ok(None);
        }
        let mut bitmap = view.read_old(descriptor.block_bitmap, 1)?;
        bitmap.truncate(len);
        Ok(Some(bitmap))
    }

    fn check_count(
        &mut self,
        group: u64,
        descriptor: &Descriptor,
        counted: u64,
    ) -> Result<(), Doubt> {
        self.total = self.total.saturating_add(counted);
        ensure(counted == descriptor.free, || {
            format!(
                "the descriptor of its group {group} says that {} are free there, and {counted} are; run e2fsck",
                descriptor.free
            )
        })
    }

    /// These clusters are free.
    fn free(&mut self, clusters: Range<u64>) {
        if self.pending.end == clusters.start {
            self.pending.end = clusters.end;
        } else {
            self.flush();
            self.pending = clusters;
        }
    }

    fn flush(&mut self) {
        let superblock = &self.settled.superblock;
        let pending = std::mem::take(&mut self.pending);
        self.map
            .free(superblock.cluster_at(pending.start)..superblock.cluster_at(pending.end));
    }
}
