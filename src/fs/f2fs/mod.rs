//! F2FS: which blocks of the main area are in use, from the newest checkpoint and the segment
//! information table.
//!
//! Certain when the file system was unmounted, no file waits to be recovered, both superblocks
//! agree, every segment's count is that of its map, and their sum is the checkpoint's or, where files
//! have reserved blocks that they have not written, that of the nodes and data of all files. Everything
//! before the main area and the six segments that are written to stay whole. Formats as in
//! "include/linux/f2fs_fs.h", rules as in "fs/f2fs/checkpoint.c", "segment.c" and "recovery.c".

mod count;
mod disk;
mod node;
mod walk;

use super::doubt::Doubt;
use super::volume::Volume;
use super::{Found, Reader, Used};

/// Reads F2FS.
pub(super) struct F2fs;

impl Reader for F2fs {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        if volume.len() < disk::SUPERBLOCK + disk::SUPERBLOCK_LEN {
            return Ok(None);
        }
        let bytes = volume.read(disk::SUPERBLOCK, disk::SUPERBLOCK_LEN)?;
        let there = bytes.starts_with(&disk::MAGIC.to_le_bytes());
        Ok(there.then(|| Found {
            kind: "F2FS".to_owned(),
            label: disk::label(&bytes),
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::used(volume)
    }
}
