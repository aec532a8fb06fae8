//! ext2, ext3 and ext4: their block bitmaps tell what is in use.
//!
//! A bit of a group's bitmap is a block, or a cluster of blocks with BIGALLOC; a group that was
//! never used has no bitmap. All of that is believed when the file system was left cleanly, or when
//! its own journal can be read to the end: then the bitmaps are those that a mount would leave, and
//! what either they or the older ones call in use is in use. Superblock copies, descriptors,
//! bitmaps, inode tables and the journal are always kept.
//!
//! Relies on `fs/ext4` and `fs/jbd2` of the Linux kernel and on e2fsprogs 1.47 for the format.

mod bits;
mod descriptor;
mod disk;
mod entries;
mod features;
mod files;
mod inode;
mod journal;
mod layout;
mod log;
mod state;
mod view;
mod walk;

use super::doubt::Doubt;
use super::files::Search;
use super::volume::Volume;
use super::{Found, Reader, Used};
use disk::{Identity, SUPERBLOCK_AT, SUPERBLOCK_LEN};

/// Reads ext2, ext3, ext4 and journals of their own device.
pub(super) struct Ext;

impl Reader for Ext {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        Ok(identify(volume)?.map(|identity| Found {
            kind: identity.kind.to_owned(),
            label: identity.label,
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let journal = identify(volume)?.is_some_and(|identity| identity.is_journal());
        if journal {
            return Ok(Used::whole(
                volume,
                "a journal for another file system: all of it is in use",
            ));
        }
        walk::used(volume)
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        if identify(volume)?.is_some_and(|identity| identity.is_journal()) {
            search.metadata(0..volume.len());
            return Ok(());
        }
        files::files(volume, search)
    }
}

fn identify(volume: &Volume<'_>) -> Result<Option<Identity>, Doubt> {
    if volume.len() < SUPERBLOCK_AT + SUPERBLOCK_LEN {
        return Ok(None);
    }
    Identity::decode(&volume.read(SUPERBLOCK_AT, SUPERBLOCK_LEN)?)
}
