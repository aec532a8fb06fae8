//! FAT12, FAT16 and FAT32: which clusters the file allocation tables do not call free.
//!
//! Answers for volumes whose boot sector is plausible, with or without the signature and the type
//! string that later systems added, and not for others that begin alike (NTFS, exFAT, BitLocker, JFS,
//! HPFS, a partition table). Relies on nothing but the tables: a cluster is free when every copy says
//! so. The count of free clusters that FAT32 keeps aside (FSInfo) is a hint and never looked at.
//!
//! Memory: a bit a cluster for the chains (32 MiB at the most of 2^28 clusters) and 2 MiB of tables,
//! whatever the size. Source of the format: Microsoft's "FAT File System Specification" 1.03, and
//! fs/fat/inode.c for what Linux makes of it.

mod chains;
mod directory;
mod disk;
mod files;
mod names;
#[cfg(test)]
mod tests;
mod walk;

use super::doubt::Doubt;
use super::files::Search;
use super::volume::Volume;
use super::{Found, Reader, Used};

/// Reads FAT volumes.
pub(super) struct Fat;

impl Reader for Fat {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        walk::recognise(volume)
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::used(volume)
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        files::files(volume, search)
    }
}
