//! From the allocation metadata to the map. The extent tree lists every extent in use, in the order
//! of logical addresses, so that each gap is free in all copies of its chunk; the device outside of
//! chunks is free but for what is listed in [`keep_fixed`].

use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::super::volume::Volume;
use super::chunks::{Chunks, Place};
use super::disk::{
    BlockGroup, Chunk, Device, EXTENT_OF_DATA, EXTENT_OF_TREE, Key, MIRRORS_AT, Root,
    SUPERBLOCK_LEN, Superblock, extent_flags, tree,
};
use super::groups::Groups;
use super::tree::Trees;
use super::{features, log};
use crate::base::to_u64;
use std::ops::Range;

/// The file system allocates nothing below (`BTRFS_DEVICE_RANGE_RESERVED`): boot loaders live there.
pub(super) const RESERVED: u64 = 1 << 20;
/// States of a device replacement that is not over: started, suspended.
const REPLACING: [u64; 2] = [1, 4];

/// What was found beside the map.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) map: MapBuilder,
    /// Tree blocks that were read from the other copy because one was damaged.
    pub(super) damaged: u64,
    /// How many logs of recent fsyncs there were.
    pub(super) logs: u64,
}

/// The map of the file system with this superblock.
///
/// # Errors
/// A doubt for whatever is not understood or does not add up.
pub(super) fn map(volume: &Volume<'_>, superblock: &Superblock) -> Result<Findings, Doubt> {
    let system = Trees::new(volume, superblock, Chunks::of_system(superblock)?);
    let root = chunk_root(superblock);
    let chunks = chunks(&system, superblock, root)?;
    let mut map = MapBuilder::new(volume.len(), superblock.block());
    let on_device = chunks.on_device()?;
    let trees = Trees::new(volume, superblock, chunks);
    trees.addresses(root)?;
    check_device_tree(&trees, superblock, &on_device)?;
    free_outside(superblock, &on_device, &mut |range| map.free(range));
    drop(on_device);
    walk_extents(&trees, superblock, &mut |range| map.free(range))?;
    let logs = log::keep(&trees, superblock, &mut map)?;
    keep_fixed(&mut map, volume, superblock);
    Ok(Findings {
        map,
        damaged: system.damaged() + trees.damaged(),
        logs,
    })
}

pub(super) fn chunk_root(superblock: &Superblock) -> Root {
    Root {
        owner: tree::CHUNK,
        at: superblock.chunk_root,
        level: superblock.chunk_root_level,
        generation: superblock.chunk_root_generation,
    }
}

/// All chunks, from the chunk tree. It must know this device alone, and all system chunks.
pub(super) fn chunks(
    system: &Trees<'_, '_>,
    superblock: &Superblock,
    root: Root,
) -> Result<Chunks, Doubt> {
    let mut chunks = Chunks::default();
    let (mut devices, mut listed) = (0u64, 0);
    system.items(
        root,
        Key::FIRST..=Key::LAST,
        &mut |key, raw| match key.kind {
            Key::DEV_ITEM => {
                devices += 1;
                let device = Device::decode(&raw)?;
                let this = device == superblock.device && key.offset == device.id;
                ensure(this, || {
                    format!("its chunk tree describes another device, {}", device.id)
                })
            }
            Key::CHUNK_ITEM => {
                let (chunk, len) = Chunk::decode(&raw)?;
                ensure(len == raw.bytes().len(), || {
                    format!("its chunk at {} has an item too long", key.offset)
                })?;
                let known = (key.offset, chunk);
                if superblock.system_chunks.contains(&known) {
                    listed += 1;
                }
                chunks.add(superblock, known.0, &known.1)
            }
            kind => Err(Doubt::new(format!(
                "its chunk tree holds an item of the unknown type {kind}"
            ))),
        },
    )?;
    ensure(devices == 1, || {
        format!("its chunk tree describes {devices} devices instead of 1")
    })?;
    ensure(
        listed == superblock.system_chunks.len(),
        || "its superblock lists system chunks that its chunk tree does not have",
    )?;
    Ok(chunks)
}

/// Where the root tree begins.
pub(super) fn top(superblock: &Superblock) -> Root {
    Root {
        owner: tree::ROOT,
        at: superblock.root,
        level: superblock.root_level,
        generation: superblock.generation,
    }
}

/// Where the tree `id` begins, from the root tree.
pub(super) fn root_of(
    trees: &Trees<'_, '_>,
    superblock: &Superblock,
    id: u64,
) -> Result<Root, Doubt> {
    let roots = top(superblock);
    let key = Key::new(id, Key::ROOT_ITEM, 0);
    let mut found = None;
    trees.items(roots, key..=key, &mut |_, raw| {
        found = Some(Root::decode(&raw, id)?);
        Ok(())
    })?;
    found.ok_or_else(|| Doubt::new(format!("it has no tree {id}")))
}

/// Device extents must be what chunks say, and no replacement of the device may be under way.
fn check_device_tree(
    trees: &Trees<'_, '_>,
    superblock: &Superblock,
    on_device: &[(u64, u64, u64)],
) -> Result<(), Doubt> {
    let root = root_of(trees, superblock, tree::DEVICE)?;
    let mut expected = on_device.iter();
    trees.items(root, Key::FIRST..=Key::LAST, &mut |key, raw| match key.kind {
        Key::DEV_EXTENT => {
            let found = (key.offset, raw.le64(24)?, raw.le64(16)?);
            let this = key.objectid == superblock.device.id && expected.next() == Some(&found);
            ensure(this, || {
                format!(
                    "its device tree has {} bytes at byte {} allocated, and its chunk tree has not",
                    found.1, found.0
                )
            })
        }
        Key::DEV_REPLACE => {
            let state = raw.le64(32)?;
            ensure(!REPLACING.contains(&state), || {
                "its device is being replaced by another"
            })
        }
        _ => Ok(()),
    })?;
    ensure(
        expected.next().is_none(),
        || "its chunk tree has chunks that its device tree does not have",
    )
}

/// What no chunk lies on is free.
pub(super) fn free_outside(
    superblock: &Superblock,
    on_device: &[(u64, u64, u64)],
    free: &mut dyn FnMut(Range<u64>),
) {
    let mut at = RESERVED;
    for (start, len, _) in on_device {
        if *start > at {
            free(at..*start);
        }
        at = at.max(start.saturating_add(*len));
    }
    let end = superblock.device.total_bytes;
    if end > at {
        // The builder reads a range up to its end as one that includes a short last unit.
        free(at..end / superblock.block() * superblock.block());
    }
}

/// Notes the block groups, when they are in a tree of their own; whether they are.
fn walk_block_groups(
    trees: &Trees<'_, '_>,
    superblock: &Superblock,
    groups: &mut Groups,
) -> Result<bool, Doubt> {
    if superblock.compat_ro & features::BLOCK_GROUP_TREE == 0 {
        return Ok(false);
    }
    let root = root_of(trees, superblock, tree::BLOCK_GROUP)?;
    trees.items(root, Key::FIRST..=Key::LAST, &mut |key, raw| {
        ensure(key.kind == Key::BLOCK_GROUP_ITEM, || {
            format!("its block-group tree holds an item of type {}", key.kind)
        })?;
        groups.met(trees.chunks(), key, BlockGroup::decode(&raw)?)
    })?;
    Ok(true)
}

/// The extent tree, from its first extent to its last.
fn walk_extents(
    trees: &Trees<'_, '_>,
    superblock: &Superblock,
    free: &mut dyn FnMut(Range<u64>),
) -> Result<(), Doubt> {
    let root = root_of(trees, superblock, tree::EXTENT)?;
    trees.addresses(root)?;
    let mut extents = Extents::new(trees.chunks(), superblock, free);
    let apart = walk_block_groups(trees, superblock, &mut extents.groups)?;
    let mut ignore = |_| Ok(());
    trees.items_telling(root, &mut ignore, &mut |key, raw| match key.kind {
        Key::EXTENT_ITEM | Key::METADATA_ITEM => {
            let flags = extent_flags(&raw)?;
            let len = if key.kind == Key::EXTENT_ITEM {
                key.offset
            } else {
                superblock.node()
            };
            if flags & EXTENT_OF_TREE != 0 {
                trees.found(key.objectid);
            }
            extents.next(key.objectid, len, flags)
        }
        Key::BLOCK_GROUP_ITEM => {
            ensure(!apart, || {
                format!("its block group at {} is in two trees", key.objectid)
            })?;
            let group = BlockGroup::decode(&raw)?;
            extents.groups.met(trees.chunks(), key, group)
        }
        kind if Key::REFERENCES.contains(&kind) => Ok(()),
        kind => Err(Doubt::new(format!(
            "its extent tree holds an item of the unknown type {kind}"
        ))),
    })?;
    let groups = extents.finish();
    groups.check(trees.chunks(), superblock)?;
    trees.lost().map_or(Ok(()), |at| {
        Err(Doubt::new(format!(
            "the block at its address {at} is part of its trees, and its extent tree does not list it"
        )))
    })
}

/// Extents as they come, and what lies between them.
pub(super) struct Extents<'a> {
    chunks: &'a Chunks,
    groups: Groups,
    superblock: &'a Superblock,
    /// Is told of what lies between them, in all copies.
    free: &'a mut dyn FnMut(Range<u64>),
    /// The chunk that extents are met in.
    index: usize,
    /// What is accounted for up to here, logical.
    at: u64,
    /// Whether extents from there on may be missing.
    skipped: bool,
}

impl<'a> Extents<'a> {
    pub(super) fn new(
        chunks: &'a Chunks,
        superblock: &'a Superblock,
        free: &'a mut dyn FnMut(Range<u64>),
    ) -> Extents<'a> {
        Extents {
            chunks,
            groups: Groups::of(chunks),
            superblock,
            free,
            index: 0,
            at: chunks.places().first().map_or(0, |p| p.start),
            skipped: false,
        }
    }

    /// The next extent.
    pub(super) fn next(&mut self, start: u64, len: u64, flags: u64) -> Result<(), Doubt> {
        while self.place().is_some_and(|p| p.end() <= start) {
            self.leave_chunk();
        }
        let block = self.superblock.block();
        let end = start.saturating_add(len);
        let whole = start.is_multiple_of(block) && len.is_multiple_of(block) && len > 0;
        let fits = self.place().is_some_and(|p| {
            start >= p.start && start >= self.at && end <= p.end() && holds(p, flags)
        });
        ensure(whole && fits, || {
            format!(
                "its extent of {len} bytes at {start} (flags {flags:#x}) overlaps another or does not fit into a block group"
            )
        })?;
        self.groups.count(self.index, len);
        self.free_to(start);
        self.at = end;
        self.skipped = false;
        Ok(())
    }

    /// Extents are missing here: nothing is known to be free up to the next one.
    pub(super) fn skip(&mut self) {
        self.skipped = true;
    }

    fn place(&self) -> Option<&'a Place> {
        self.chunks.places().get(self.index)
    }

    /// What lies before `end`, in this chunk, is free.
    fn free_to(&mut self, end: u64) {
        let known = !self.skipped && end > self.at;
        if let Some(place) = self.place().filter(|_| known) {
            for copy in place.copies_of(self.at) {
                (self.free)(copy..copy.saturating_add(end - self.at));
            }
        }
    }

    fn leave_chunk(&mut self) {
        let end = self.place().map_or(0, Place::end);
        self.free_to(end);
        self.index += 1;
        self.at = self.place().map_or(end, |p| p.start);
    }

    /// All that follows the last extent is free.
    pub(super) fn finish(mut self) -> Groups {
        while self.place().is_some() {
            self.leave_chunk();
        }
        self.groups
    }
}

/// Whether an extent with these flags belongs into a chunk of this kind.
fn holds(place: &Place, flags: u64) -> bool {
    let (data, tree) = (flags & EXTENT_OF_DATA != 0, flags & EXTENT_OF_TREE != 0);
    let for_data = place.kind & Chunk::DATA != 0;
    let for_trees = place.kind & (Chunk::METADATA | Chunk::SYSTEM) != 0;
    data != tree && (!data || for_data) && (!tree || for_trees)
}

/// Boot loaders and superblock before the first chunk, copies of the superblock, and all behind the
/// end of the file system.
fn keep_fixed(map: &mut MapBuilder, volume: &Volume<'_>, superblock: &Superblock) {
    let len = volume.len();
    map.keep(0..RESERVED.min(len));
    for at in MIRRORS_AT {
        map.keep(at.min(len)..(at + SUPERBLOCK_LEN).min(len));
    }
    map.keep(superblock.device.total_bytes.min(len)..len);
}

/// Doubts unless the file system fits on the volume.
pub(super) fn check_length(volume: &Volume<'_>, superblock: &Superblock) -> Result<(), Doubt> {
    let (claimed, len) = (superblock.device.total_bytes, volume.len());
    ensure(claimed <= len && superblock.total_bytes <= len, || {
        let claimed = claimed.max(superblock.total_bytes);
        format!("it claims {claimed} bytes, and the partition is {len} bytes long")
    })?;
    ensure(
        superblock.bytes_used <= claimed && to_u64(superblock.system_chunks.len()) > 0,
        || "its superblock claims more bytes in use than it has, or no system chunk",
    )
}
