//! Counting again what is in use, from the nodes of the files.
//!
//! A checkpoint counts blocks that files have reserved and not written yet, so its count can be
//! larger than that of the segments. Then nodes and their data are counted, which are in use by
//! records that have nothing to do with those of the segments.

use super::super::doubt::{Doubt, ensure};
use super::super::volume::Volume;
use super::disk::{BLOCK, Checkpoint, SEGMENT, Superblock, bit};
use super::node::{FIRST_NODE, NAT_PER_BLOCK, address, data_blocks, journal};
use crate::base::{to_u64, to_usize};
use std::collections::BTreeMap;

/// More nodes than this are not counted, for the sake of memory: 32 MiB of addresses.
const MAX_NODES: usize = 8 << 20;
/// Nodes that are read at once, when they lie together.
const AT_ONCE: usize = 256;

/// How many blocks the files of `checkpoint`, whose pack begins at block `start`, use: nodes and data.
///
/// # Errors
/// A doubt when something cannot be read or does not add up.
pub(super) fn in_use(
    volume: &Volume<'_>,
    superblock: &Superblock,
    start: u64,
    checkpoint: &Checkpoint,
) -> Result<u64, Doubt> {
    let mut nodes = addresses(volume, superblock, start, checkpoint)?;
    nodes.sort_unstable();
    let main = superblock.main..superblock.segment(superblock.main_segments);
    let inside = |at: &u32| main.contains(&u64::from(*at));
    ensure(nodes.iter().all(inside), || "a node lies where none can")?;
    ensure(
        nodes.windows(2).all(|pair| pair[0] != pair[1]),
        || "two nodes lie in the same block",
    )?;
    let mut count = to_u64(nodes.len());
    let mut rest = nodes.as_slice();
    while let Some(first) = rest.first() {
        let first = u64::from(*first);
        let together = rest.iter().take(AT_ONCE).enumerate();
        let run = together.take_while(|(n, at)| u64::from(**at) == first + to_u64(*n));
        let run = run.count();
        let bytes = volume.read(first * BLOCK, to_u64(run) * BLOCK)?;
        for (at, node) in (first..).zip(bytes.chunks(to_usize(BLOCK))) {
            count += data_blocks(node, superblock.flexible, &main, at)?;
        }
        rest = &rest[run..];
    }
    Ok(count)
}

/// Where all nodes lie.
fn addresses(
    volume: &Volume<'_>,
    superblock: &Superblock,
    start: u64,
    checkpoint: &Checkpoint,
) -> Result<Vec<u32>, Doubt> {
    let place = checkpoint.nat_bitmap_at(superblock.payload);
    let versions = volume.read(start * BLOCK + place.start, place.end - place.start)?;
    let newer: BTreeMap<u64, u32> = match checkpoint.nat_journal_at() {
        Some((block, at)) => {
            let summary = volume.read((start + block) * BLOCK, BLOCK)?;
            journal(&summary, at)?.into_iter().collect()
        }
        None => BTreeMap::new(),
    };
    let mut nodes: Vec<u32> = newer.values().copied().filter(|at| *at != 0).collect();
    for block in 0..superblock.nat_segments / 2 * SEGMENT {
        // The copies of a segment follow each other.
        let second = if bit(&versions, block) { SEGMENT } else { 0 };
        let at = superblock.nat + block / SEGMENT * SEGMENT * 2 + block % SEGMENT + second;
        let bytes = volume.read(at * BLOCK, BLOCK)?;
        for (index, node) in (0..NAT_PER_BLOCK).enumerate() {
            let node = block * NAT_PER_BLOCK + node;
            if node < FIRST_NODE || newer.contains_key(&node) {
                continue;
            }
            let at = address(&bytes, index)?;
            if at != 0 {
                nodes.push(at);
            }
        }
        ensure(nodes.len() <= MAX_NODES, || {
            format!("it has more than {MAX_NODES} nodes, too many to count them")
        })?;
    }
    Ok(nodes)
}
