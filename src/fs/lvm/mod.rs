//! Physical volumes of LVM2.
//!
//! What no logical volume has is free; plain logical volumes (linear or striped, wholly on this
//! disk, not built upon) are looked into. It relies on the description of the volume group that the
//! disk itself carries, and takes all when that is not there, not up to date or not consistent.

mod disk;
mod group;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use super::doubt::Doubt;
use super::files::Search;
use super::volume::Volume;
use super::{Found, READERS, Reader, Used};
use crate::base::to_usize;

/// Reads physical volumes.
pub(super) struct Lvm2;

impl Reader for Lvm2 {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let bytes = walk::label_sectors(volume)?;
        let mut sectors = bytes.chunks_exact(to_usize(disk::SECTOR));
        Ok(sectors.any(disk::is_label).then(|| Found {
            kind: "LVM2".to_owned(),
            label: None,
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::map(volume, READERS)
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        walk::files(volume, READERS, search)
    }
}
