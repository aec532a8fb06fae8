//! Logs of recent fsyncs. Between two commits, fsync writes a small tree for each subvolume; a mount
//! after a crash replays them. Neither their blocks nor the data that only they know are in the
//! extent tree (`fs/btrfs/tree-log.c`).

use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::disk::{Key, Root, Superblock, file_extent, tree};
use super::tree::Trees;

/// Keeps all log trees and all data that they lead to; how many log trees there are.
///
/// # Errors
/// A doubt when anything about them is not as it should be: without its logs the file system may
/// not mount.
pub(super) fn keep(
    trees: &Trees<'_, '_>,
    superblock: &Superblock,
    map: &mut MapBuilder,
) -> Result<u64, Doubt> {
    if superblock.log_root == 0 {
        return Ok(0);
    }
    let top = Root {
        owner: tree::LOG,
        at: superblock.log_root,
        level: superblock.log_root_level,
        // It was written after the last commit, on the way to the next.
        generation: superblock.generation.saturating_add(1),
    };
    let map = std::cell::RefCell::new(map);
    let keep = |at: u64, len: u64| keep_all(trees, &mut map.borrow_mut(), at, len);
    let mut node = |at: u64| keep(at, superblock.node());
    let mut logs = 0;
    trees.items_telling(top, &mut node, &mut |key, raw| {
        let is_log = key.objectid == tree::LOG && key.kind == Key::ROOT_ITEM;
        ensure(is_log, || {
            format!("its tree of logs holds an item with the key {key}")
        })?;
        let log = Root::decode(&raw, tree::LOG)?;
        logs += 1;
        let mut node = |at: u64| keep(at, superblock.node());
        trees.items_telling(log, &mut node, &mut |key, raw| {
            if key.kind != Key::EXTENT_DATA {
                return Ok(());
            }
            match file_extent(&raw)? {
                Some((at, len)) => keep(at, len),
                None => Ok(()),
            }
        })
    })?;
    Ok(logs)
}

/// Keeps `len` logical bytes from `at` in all their copies.
fn keep_all(trees: &Trees<'_, '_>, map: &mut MapBuilder, at: u64, len: u64) -> Result<(), Doubt> {
    let place = trees.chunks().find(at, len)?;
    for copy in place.copies_of(at) {
        map.keep(copy..copy.saturating_add(len));
    }
    Ok(())
}
