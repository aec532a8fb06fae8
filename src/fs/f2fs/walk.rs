//! The used map of an F2FS file system: the newest checkpoint says which blocks of segment
//! information count, and those have a bit for every block of the main area.

use super::super::Used;
use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::super::volume::Volume;
use super::count;
use super::disk::{
    BLOCK, Checkpoint, SEGMENT, SIT_PER_BLOCK, SUPERBLOCK, SUPERBLOCK_LEN, Segment, Superblock,
    bit, flag, follows, journal,
};
use crate::base::to_usize;
use std::collections::BTreeMap;

/// Blocks of segment information that are read at once.
const AT_ONCE: u64 = 256;

/// What a person can do about nearly everything that is doubted here.
const CHECK: &str = "fsck.f2fs repairs it";

/// The map.
///
/// # Errors
/// A doubt when it was not unmounted, is damaged, or is of a kind that is not known.
pub(super) fn used(volume: &Volume<'_>) -> Result<Used, Doubt> {
    let superblock = superblock(volume)?;
    let (start, checkpoint) = newest(volume, &superblock)?;
    is_at_rest(volume, &superblock, &checkpoint)?;
    is_sane(&superblock, &checkpoint)?;
    let versions = read(
        volume,
        start * BLOCK,
        checkpoint.sit_bitmap_at(superblock.payload),
    )?;
    let (block, at) = checkpoint
        .sit_journal_at()
        .filter(|(block, _)| *block < checkpoint.pack_blocks)
        .ok_or_else(|| Doubt::new(format!("its checkpoint has no room for summaries; {CHECK}")))?;
    let summary = volume.read((start + block) * BLOCK, BLOCK)?;
    let journal = entries_by_segment(&superblock, journal(&summary, at)?)?;
    let (map, counted) = build(volume, &superblock, &checkpoint, &versions, &journal)?;
    let claimed = checkpoint.valid_blocks;
    ensure(counted <= claimed, || {
        format!(
            "its segments have {counted} blocks in use, and its checkpoint says {claimed}; {CHECK}"
        )
    })?;
    let mut used = Used::mapped(map);
    if counted < claimed {
        let again = count::in_use(volume, &superblock, start, &checkpoint)?;
        ensure(again == counted, || {
            format!("its segments have {counted} blocks in use, and its files {again}; {CHECK}")
        })?;
        used.notes.push(format!(
            "{} blocks are reserved for files and not written yet",
            claimed - counted
        ));
    }
    Ok(used)
}

fn read(volume: &Volume<'_>, base: u64, range: std::ops::Range<u64>) -> Result<Vec<u8>, Doubt> {
    volume.read(base + range.start, range.end - range.start)
}

/// Both copies, which must agree.
fn superblock(volume: &Volume<'_>) -> Result<Superblock, Doubt> {
    let copy = |block: u64, name: &str| {
        let bytes = volume.read(block * BLOCK + SUPERBLOCK, SUPERBLOCK_LEN)?;
        Superblock::decode(&bytes).map_err(|doubt| match doubt {
            Doubt::Unsure(why) => Doubt::new(format!("in its {name} superblock: {why}")),
            stopped @ Doubt::Stopped(_) => stopped,
        })
    };
    let (first, second) = (copy(0, "first")?, copy(1, "second")?);
    ensure(first == second, || {
        format!("its two superblocks are not the same; {CHECK}")
    })?;
    let end = first.blocks.checked_mul(BLOCK);
    ensure(end.is_some_and(|end| end <= volume.len()), || {
        format!(
            "it is {} blocks of {BLOCK} bytes long, and here are {} bytes",
            first.blocks,
            volume.len()
        )
    })?;
    Ok(first)
}

/// The first block and the contents of the newest of the two checkpoints that are whole.
fn newest(volume: &Volume<'_>, superblock: &Superblock) -> Result<(u64, Checkpoint), Doubt> {
    let mut found: Option<(u64, Checkpoint)> = None;
    for start in [superblock.checkpoints, superblock.checkpoints + SEGMENT] {
        let Some(pack) = pack(volume, start)? else {
            continue;
        };
        // Versions are compared as the kernel does, who lets them wrap around.
        let newer = |old: &Checkpoint| {
            let ahead = pack.version.wrapping_sub(old.version);
            ahead != 0 && ahead < 1 << 63
        };
        if found.as_ref().is_none_or(|(_, old)| newer(old)) {
            found = Some((start, pack));
        }
    }
    found.ok_or_else(|| Doubt::new(format!("neither of its checkpoints is whole; {CHECK}")))
}

/// The checkpoint pack at `start`, if its first and its last block are right and the same version.
fn pack(volume: &Volume<'_>, start: u64) -> Result<Option<Checkpoint>, Doubt> {
    let Some(first) = Checkpoint::decode(&volume.read(start * BLOCK, BLOCK)?)? else {
        return Ok(None);
    };
    if !(2..=SEGMENT).contains(&first.pack_blocks) {
        return Ok(None);
    }
    let last = start + first.pack_blocks - 1;
    let last = Checkpoint::decode(&volume.read(last * BLOCK, BLOCK)?)?;
    Ok(last
        .filter(|last| last.version == first.version)
        .map(|_| first))
}

/// Nothing is left to recover, and nobody has asked for a check.
fn is_at_rest(
    volume: &Volume<'_>,
    superblock: &Superblock,
    checkpoint: &Checkpoint,
) -> Result<(), Doubt> {
    for (flags, what) in flag::TROUBLE {
        ensure(!checkpoint.has(flags), || format!("{what}; {CHECK}"))?;
    }
    let unknown = checkpoint.flags & !flag::KNOWN;
    ensure(unknown == 0, || {
        format!("its checkpoint has unknown flags: {unknown:#x}")
    })?;
    ensure(!superblock.has_errors(), || {
        format!("the kernel has found errors in it; {CHECK}")
    })?;
    let dirty = "it was not unmounted: files written after its last checkpoint lie in blocks that \
                 it calls free; mount it once and unmount it";
    ensure(checkpoint.has(flag::UMOUNT), || dirty)?;
    // The flag stays until the next checkpoint, and files can be written and synced before that. A
    // mount finds them in a chain of nodes that begins where the checkpoint has its next free block.
    let (segment, block) = checkpoint.next_node;
    ensure(
        segment < superblock.main_segments && block < SEGMENT,
        || format!("its next node is said to go to block {block} of segment {segment}; {CHECK}"),
    )?;
    let node = volume.read((superblock.segment(segment) + block) * BLOCK, BLOCK)?;
    ensure(!follows(checkpoint, &node)?, || dirty)
}

/// The checkpoint fits to the superblock.
fn is_sane(superblock: &Superblock, checkpoint: &Checkpoint) -> Result<(), Doubt> {
    for (what, found, segments) in [
        (
            "segment information",
            checkpoint.sit_bitmap,
            superblock.sit_segments,
        ),
        (
            "node addresses",
            checkpoint.nat_bitmap,
            superblock.nat_segments,
        ),
    ] {
        let expected = segments / 2 * SEGMENT / 8;
        ensure(u64::from(found) == expected, || {
            format!("its version bitmap of {what} has {found} bytes, not {expected}; {CHECK}")
        })?;
    }
    let bitmap = checkpoint.sit_bitmap_at(superblock.payload);
    ensure(bitmap.end <= (superblock.payload + 1) * BLOCK, || {
        format!("its version bitmaps are larger than its checkpoint; {CHECK}")
    })?;
    let first = checkpoint.summaries;
    ensure(
        first > superblock.payload && first < checkpoint.pack_blocks,
        || format!("its summaries are said to begin at block {first} of its checkpoint; {CHECK}"),
    )?;
    for segment in checkpoint.current {
        ensure(segment < superblock.main_segments, || {
            format!(
                "it is said to be writing segment {segment} of {}; {CHECK}",
                superblock.main_segments
            )
        })?;
    }
    Ok(())
}

fn entries_by_segment(
    superblock: &Superblock,
    entries: Vec<(u64, Segment)>,
) -> Result<BTreeMap<u64, Segment>, Doubt> {
    let mut by_segment = BTreeMap::new();
    for (number, segment) in entries {
        ensure(number < superblock.main_segments, || {
            format!(
                "its journal has segment {number} of {}; {CHECK}",
                superblock.main_segments
            )
        })?;
        ensure(by_segment.insert(number, segment).is_none(), || {
            format!("its journal has segment {number} twice; {CHECK}")
        })?;
    }
    Ok(by_segment)
}

/// Reads all segment information, of which entries of `journal` are newer: the map, and how many
/// blocks are in use.
fn build(
    volume: &Volume<'_>,
    superblock: &Superblock,
    checkpoint: &Checkpoint,
    versions: &[u8],
    journal: &BTreeMap<u64, Segment>,
) -> Result<(MapBuilder, u64), Doubt> {
    // Only blocks of the main area are ever freed: all areas before it and what lies behind stay.
    let mut map = MapBuilder::new(volume.len(), BLOCK);
    let mut counted = 0u64;
    let blocks = superblock.sit_blocks();
    let mut next = 0;
    while next < blocks {
        let second = bit(versions, next);
        let limit = blocks.min(next + AT_ONCE);
        let end = (next..limit).find(|b| bit(versions, *b) != second);
        let end = end.unwrap_or(limit);
        let copy = if second { superblock.sit_copy() } else { 0 };
        let at = (superblock.sit + copy + next) * BLOCK;
        let bytes = volume.read(at, (end - next) * BLOCK)?;
        for (block, bytes) in (next..end).zip(bytes.chunks(to_usize(BLOCK))) {
            let first = block * SIT_PER_BLOCK;
            let last = (first + SIT_PER_BLOCK).min(superblock.main_segments);
            for (index, number) in (first..last).enumerate() {
                let segment = match journal.get(&number) {
                    Some(newer) => *newer,
                    None => Segment::decode(bytes, index, number)?,
                };
                counted += u64::from(segment.count());
                free(&mut map, superblock.segment(number), &segment);
            }
        }
        next = end;
    }
    // A mount that looked for files to recover must not find what an older use of the target has
    // left in the blocks that come next.
    for segment in checkpoint.current {
        let first = superblock.segment(segment);
        map.keep(first * BLOCK..(first + SEGMENT) * BLOCK);
    }
    Ok((map, counted))
}

fn free(map: &mut MapBuilder, first: u64, segment: &Segment) {
    for gap in segment.gaps() {
        map.free((first + gap.start) * BLOCK..(first + gap.end) * BLOCK);
    }
}
