//! Which features the map is right with. Everything else is a doubt.
//!
//! Bits: `fs/xfs/libxfs/xfs_format.h` of Linux.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::unknown_bits;
use super::disk::Superblock;

/// Structures carry a UUID of their own.
pub(super) const META_UUID: u32 = 0x4;
/// Only xfs_repair may touch it.
const NEEDS_REPAIR: u32 = 0x10;
/// Zoned: file data may lie behind the file system on the same device. And gaps between zones.
const ZONED: u32 = 0x200 | 0x400;
/// File types in directories, sparse inode chunks, own UUID, large timestamps, large extent
/// counters, exchange of ranges, parent pointers, directory of metadata: none of them changes what
/// the trees of free space mean.
const INCOMPATIBLE: u32 =
    FILE_TYPES | SPARSE_CHUNKS | META_UUID | 0x8 | 0x20 | 0x40 | 0x80 | METADATA_DIRECTORY;
const FILE_TYPES: u32 = 0x1;
const SPARSE_CHUNKS: u32 = 0x2;
/// Inodes of the file system itself have a directory of their own.
pub(super) const METADATA_DIRECTORY: u32 = 0x100;
/// Tree of free inodes, reverse map, shared extents, counts of inode tree blocks.
const RO_COMPATIBLE: u32 = 0x1 | REVERSE_MAP | 0x4 | 0x8;
const REVERSE_MAP: u32 = 0x2;
/// Extended attributes in the log, which only matter to a log with something in it.
const LOG_INCOMPATIBLE: u32 = 0x1;
/// Version 4: all bits but 0x200, shared read-only volumes that nothing can mount any more.
const VERSION_BITS: u32 = 0xFDFF;
/// Version 4: `features2` counts.
const MORE_BITS: u16 = 0x8000;
/// Counters of the superblock only written at unmount.
const LAZY_COUNTERS: u32 = 0x2;
/// Lazy counters, attributes of version 2, 32-bit project numbers, file types in directories.
const FEATURES2: u32 = LAZY_COUNTERS | 0x8 | 0x80 | FILE_TYPES_V4;
const FILE_TYPES_V4: u32 = 0x200;

/// Doubts what is not known, and what is known to be different.
pub(super) fn check(superblock: &Superblock) -> Result<(), Doubt> {
    ensure(
        !superblock.in_progress,
        || "mkfs.xfs or a copy of it was stopped before it was finished",
    )?;
    ensure(
        superblock.incompatible & NEEDS_REPAIR == 0,
        || "it is marked as in need of repair: run xfs_repair on it",
    )?;
    ensure(
        superblock.incompatible & ZONED == 0,
        || "it is zoned, and its file data may lie behind its end",
    )?;
    let words: &[(&str, u32, u32)] = if superblock.v5() {
        let (ro, log) = (superblock.ro_compatible, superblock.log_incompatible);
        &[
            ("incompatible", superblock.incompatible, INCOMPATIBLE),
            ("read-only compatible", ro, RO_COMPATIBLE),
            ("log-incompatible", log, LOG_INCOMPATIBLE),
        ]
    } else {
        let version = superblock.version_bits.into();
        &[
            ("version 4", version, VERSION_BITS),
            ("second version 4", second_word(superblock), FEATURES2),
        ]
    };
    for (word, found, known) in words {
        if let Some(bits) = unknown_bits((*found).into(), (*known).into()) {
            return Err(Doubt::new(format!(
                "it has {word} features that are not known: {bits}"
            )));
        }
    }
    Ok(())
}

/// The second word of features of version 4, if it counts.
fn second_word(superblock: &Superblock) -> u32 {
    if superblock.version_bits & MORE_BITS == 0 {
        return 0;
    }
    superblock.features2
}

/// Whether group headers count the blocks of trees.
pub(super) fn counts_tree_blocks(superblock: &Superblock) -> bool {
    superblock.v5() || second_word(superblock) & LAZY_COUNTERS != 0
}

/// Whether groups have a tree of the reverse map.
pub(super) fn has_reverse_map(superblock: &Superblock) -> bool {
    superblock.ro_compatible & REVERSE_MAP != 0
}

/// Whether directories say what kind of file an entry is.
pub(super) fn has_file_types(superblock: &Superblock) -> bool {
    superblock.incompatible & FILE_TYPES != 0 || second_word(superblock) & FILE_TYPES_V4 != 0
}

/// Whether a chunk of inodes may have holes.
pub(super) fn has_sparse_chunks(superblock: &Superblock) -> bool {
    superblock.incompatible & SPARSE_CHUNKS != 0
}
