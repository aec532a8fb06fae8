//! XFS, versions 4 and 5: what its free-space B-trees do not list is in use.
//!
//! Cleanliness comes first. A log that holds changes to replay makes every other structure one of
//! the past, although all of them agree with each other; so [`log`] reads the whole log before
//! anything else is believed. Then [`walk`] reads, in every allocation group, the free space sorted
//! by block and once more sorted by size, checks every block of both trees and their sums against
//! the group's header, and the sums of all groups against the superblock.
//!
//! Formats: `fs/xfs/libxfs/xfs_format.h` and `xfs_log_format.h` of Linux, and the book "XFS
//! Algorithms & Data Structures". All numbers are big-endian but for checksums.

mod disk;
mod entries;
mod features;
mod files;
mod inode;
mod log;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use super::doubt::Doubt;
use super::files::Search;
use super::volume::Volume;
use super::{Found, Reader, Used, raw};

/// Reads XFS.
pub(super) struct Xfs;

impl Reader for Xfs {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        if volume.len() < disk::SMALLEST {
            return Ok(None);
        }
        let start = volume.read(0, disk::SMALLEST)?;
        let there = start.starts_with(disk::MAGIC);
        Ok(there.then(|| Found {
            kind: "XFS".to_owned(),
            label: start.get(disk::LABEL).and_then(raw::label),
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::used(volume)
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        files::files(volume, search)
    }
}
