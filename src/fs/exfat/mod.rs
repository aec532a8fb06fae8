//! exFAT: which clusters its allocation bitmap calls free, once its directories agree with it.
//!
//! Answers for volumes with `EXFAT` in their boot sector. Relies on the boot region's checksum, on
//! the bitmap, and on a walk over all directories: a file in a cluster that the bitmap calls free has
//! been seen in the wild, and nothing else on the volume would show it. The file allocation table
//! alone proves nothing, since files in one piece do without it and deleted ones leave their chains.
//!
//! Memory: 8 MiB of pages of table and bitmap, directories yet to be read (16 MiB at the most) and
//! clusters of directories read (8 MiB at the most). Source of the format: Microsoft's "exFAT file
//! system specification", and fs/exfat/exfat_raw.h of Linux.

mod directory;
mod disk;
mod files;
mod streams;
mod walk;

use super::doubt::Doubt;
use super::files::Search;
use super::volume::Volume;
use super::{Found, Reader, Used};

/// Reads exFAT volumes.
pub(super) struct Exfat;

impl Reader for Exfat {
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
