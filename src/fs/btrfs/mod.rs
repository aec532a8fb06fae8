//! Which blocks of a Btrfs are in use? Answered for file systems on one device, from the extent
//! tree, which lists every extent of every tree, snapshot and file, and from the logs of recent
//! fsyncs, which nothing else lists. It relies on the chunk tree for where extents lie, and believes
//! nothing whose checksum is wrong or whose sums do not agree.
//!
//! Backup roots in the superblock lead to older states whose blocks may be free: they are not kept.

mod checksum;
mod chunks;
mod disk;
mod features;
mod files;
mod groups;
mod log;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use super::doubt::{Doubt, ensure};
use super::files::Search;
use super::volume::Volume;
use super::{Found, Reader, Used};
use disk::{MIRRORS_AT, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock};

/// The reader of Btrfs.
pub(super) struct Btrfs;

impl Reader for Btrfs {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        if volume.len() < SUPERBLOCK_AT + SUPERBLOCK_LEN {
            return Ok(None);
        }
        let bytes = volume.read(SUPERBLOCK_AT, SUPERBLOCK_LEN)?;
        Ok(disk::is_superblock(&bytes).then(|| Found {
            kind: "Btrfs".to_owned(),
            label: disk::superblock_label(&bytes),
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let superblock = Superblock::decode(&volume.read(SUPERBLOCK_AT, SUPERBLOCK_LEN)?)?;
        ensure(superblock.bytenr == SUPERBLOCK_AT, || {
            format!(
                "its superblock says that it lies at byte {}",
                superblock.bytenr
            )
        })?;
        features::check(&superblock)?;
        walk::check_length(volume, &superblock)?;
        let mut notes = check_mirrors(volume, &superblock)?;
        let findings = walk::map(volume, &superblock)?;
        if findings.damaged > 0 {
            notes.push(format!(
                "{} blocks of its trees were damaged and were read from their second copy (`btrfs scrub` repairs them)",
                findings.damaged
            ));
        }
        let with_logs = "in use, the log of recent fsyncs included";
        Ok(Used {
            basis: (findings.logs > 0).then(|| with_logs.to_owned()),
            notes,
            ..Used::mapped(findings.map)
        })
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        files::files(volume, search)
    }
}

/// Compares the copies of the superblock; notes on those that are not good. They are written after
/// the first one, so one that is newer means that the first is not the one to go by.
fn check_mirrors(volume: &Volume<'_>, superblock: &Superblock) -> Result<Vec<String>, Doubt> {
    let mut notes = Vec::new();
    for at in MIRRORS_AT {
        if at + SUPERBLOCK_LEN > superblock.device.total_bytes {
            continue;
        }
        let copy = match volume.read(at, SUPERBLOCK_LEN) {
            Ok(bytes) => Superblock::decode(&bytes),
            Err(doubt) => Err(doubt),
        };
        match copy {
            Ok(copy) if copy.fsid == superblock.fsid && copy.bytenr == at => {
                ensure(copy.generation <= superblock.generation, || {
                    format!(
                        "the copy of its superblock at byte {at} is newer (generation {}) than the superblock (generation {})",
                        copy.generation, superblock.generation
                    )
                })?;
            }
            Ok(_) => notes.push(format!(
                "the copy of its superblock at byte {at} is that of another file system"
            )),
            Err(Doubt::Unsure(_)) => notes.push(format!(
                "the copy of its superblock at byte {at} is damaged"
            )),
            Err(stopped) => return Err(stopped),
        }
    }
    Ok(notes)
}
