//! NTFS: which clusters are in use.
//!
//! The answer is `$Bitmap`, and it is only believed when nothing says otherwise:
//! - The volume was let go of cleanly: its flags, its journal (`$LogFile`), the version that Windows
//!   gives the journal while it keeps newer metadata elsewhere (fast startup, hibernation, a disk
//!   that was unplugged), and the first bytes of `hiberfil.sys`.
//! - Every record of the MFT in use is whole, and every cluster that any attribute of any file has is
//!   marked used; of this the map's safety depends in the end. Clusters that are marked used and
//!   belong to nothing are normal.
//! - The first records equal their copy in `$MFTMirr`.
//!
//! ntfs-3g neither marks a volume dirty nor keeps a journal (it empties it when it mounts). A copy
//! taken while ntfs-3g has the volume mounted therefore looks clean, and only the comparison of all
//! files with the bitmap tells whether it is one state: ntfs-3g marks clusters before it writes the
//! record that has them, and where the two were written in another order a file has free clusters,
//! which is a doubt. What passes holds every cluster of every file that the copy shows.
//!
//! In use whatever the bitmap says: the first cluster, the MFT, its mirror, the journal, the bitmap,
//! and all from the last cluster's end on, where the backup of the boot sector lies.
//!
//! Memory: 1 MiB of the MFT or the bitmap at a time, the runs of at most a few files (3 MiB each);
//! clusters of files are compared with the map in the making, not with the bitmap.

mod boot;
mod contents;
mod disk;
mod files;
mod index;
mod log;
mod stream;
mod walk;

use super::doubt::Doubt;
use super::files::Search;
use super::raw::Raw;
use super::volume::Volume;
use super::{Found, Reader, Used};
use boot::Boot;
use disk::{VOLUME_NAME, text};
use stream::{Content, Mft, boot_sector};

/// Reads NTFS volumes.
pub(super) struct Ntfs;

impl Reader for Ntfs {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let Some(sector) = boot_sector(volume)? else {
            return Ok(None);
        };
        let label = match label(volume, &sector) {
            Err(stopped @ Doubt::Stopped(_)) => return Err(stopped),
            // A volume without a readable label is still one.
            Err(Doubt::Unsure(_)) => None,
            Ok(label) => label,
        };
        Ok(Some(Found {
            kind: "NTFS".to_owned(),
            label,
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::used(volume)
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        files::files(volume, search)
    }
}

fn label(volume: &Volume<'_>, sector: &[u8]) -> Result<Option<String>, Doubt> {
    let boot = Boot::decode(&Raw::new(sector, "boot sector"), volume.len())?;
    let mft = Mft::open(volume, boot)?;
    Ok(match mft.content(walk::VOLUME, VOLUME_NAME, "")? {
        Some(Content::Resident(value)) => Some(text(&value)).filter(|t| !t.is_empty()),
        _ => None,
    })
}
