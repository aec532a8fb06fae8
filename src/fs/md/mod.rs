//! Members of Linux' software RAID, and of RAIDs of firmware.
//!
//! A clean member of a mirror (RAID1) holds all of the array's data in one piece: that is looked
//! into. Of all other levels one member alone tells nothing, and all of it is taken.
//!
//! Where the superblock is at the end, the first bytes of the member are the first of the array, and
//! what lies on the array shows its signature there. A superblock at the start leaves room for none,
//! so that another signature beside it is a contradiction.

mod disk;
#[cfg(test)]
mod tests;
mod walk;

use super::doubt::Doubt;
use super::files::Search;
use super::volume::Volume;
use super::{Found, READERS, Reader, Used};

/// Reads members with their superblock at the end: versions 0.90 and 1.0, and RAIDs of firmware.
pub(super) struct AtEnd;
/// Reads members with their superblock at the start: versions 1.1 and 1.2.
pub(super) struct AtStart;

impl Reader for AtEnd {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        Ok(walk::find(volume, &walk::AT_END)?.map(|member| member.found))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::map(volume, &walk::AT_END, READERS)
    }

    fn shows_inner_signature(&self) -> bool {
        true
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        walk::files(volume, &walk::AT_END, READERS, search)
    }
}

impl Reader for AtStart {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        Ok(walk::find(volume, &walk::AT_START)?.map(|member| member.found))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::map(volume, &walk::AT_START, READERS)
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        walk::files(volume, &walk::AT_START, READERS, search)
    }
}
