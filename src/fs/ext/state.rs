//! Is the file system as its metadata says? Decided before any bitmap is read: with a journal to
//! replay all bitmaps agree with themselves and describe the past.

use super::super::doubt::{Doubt, ensure};
use super::super::volume::Volume;
use super::descriptor::Descriptor;
use super::disk::{self, STATE_ERROR, STATE_VALID, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock};
use super::features::{compat, incompat};
use super::inode::{self, Blocks};
use super::journal;
use super::log::LogSuperblock;
use super::view::{Overlay, View};
use super::walk;

/// A file system whose metadata may be believed.
pub(super) struct Settled<'v> {
    /// Its blocks, as a replay of the journal leaves them.
    pub(super) view: View<'v>,
    /// Its superblock, likewise.
    pub(super) superblock: Superblock,
    /// Where its own journal lies.
    pub(super) journal: Option<Blocks>,
    /// Whether there was something to replay.
    pub(super) replayed: bool,
}

/// Reads superblock and journal.
///
/// # Errors
/// A doubt when the file system was not left cleanly and its journal does not mend that, when it is
/// known to have errors, or when it is mounted elsewhere.
pub(super) fn settle<'v>(volume: &'v Volume<'v>) -> Result<Settled<'v>, Doubt> {
    let bytes = volume.read(SUPERBLOCK_AT, SUPERBLOCK_LEN)?;
    let superblock = Superblock::decode(&bytes, volume.len())?;
    let recover = superblock.features.incompat(incompat::RECOVER);
    let view = View::new(volume, superblock.block, Overlay::new());
    let mut settled = Settled {
        view,
        superblock,
        journal: None,
        replayed: recover,
    };
    if !settled.superblock.features.compat(compat::HAS_JOURNAL) {
        ensure(
            !recover,
            || "it wants a journal replayed, and has none; run e2fsck",
        )?;
    } else if settled.superblock.journal_inode == 0 {
        ensure(
            !recover,
            || "its journal, which lies on another disk, holds changes; mount it once and unmount it cleanly",
        )?;
    } else {
        settle_journal(volume, &mut settled)?;
    }
    check_state(&settled.superblock)?;
    if settled.superblock.features.incompat(incompat::MMP) {
        let block = settled.superblock.mmp_block;
        let inside = (1..settled.superblock.blocks).contains(&block);
        ensure(inside, || {
            format!("its block of multiple mount protection cannot be block {block}")
        })?;
        disk::check_mmp(&settled.view.read(block, 1)?, &settled.superblock)?;
    }
    Ok(settled)
}

/// The file system as it lies on the disk, whatever state that is in, for who looks for files in what is
/// damaged.
///
/// # Errors
/// A doubt when the superblock itself is not to be believed.
pub(super) fn as_it_lies<'v>(volume: &'v Volume<'v>) -> Result<Settled<'v>, Doubt> {
    let bytes = volume.read(SUPERBLOCK_AT, SUPERBLOCK_LEN)?;
    let superblock = Superblock::decode(&bytes, volume.len())?;
    Ok(Settled {
        view: View::new(volume, superblock.block, Overlay::new()),
        superblock,
        journal: None,
        replayed: false,
    })
}

/// Looks into the file system's own journal, and replays it when it has to be.
fn settle_journal<'v>(volume: &'v Volume<'v>, settled: &mut Settled<'v>) -> Result<(), Doubt> {
    let superblock = &settled.superblock;
    let blocks = journal_blocks(&settled.view, superblock)?;
    let first = blocks.at(0)?;
    let log = LogSuperblock::decode(&settled.view.read_old(first, 1)?)?;
    ensure(
        log.block == superblock.block && log.blocks <= blocks.len(),
        || {
            format!(
                "its journal says that it has {} blocks of {} bytes, and has {} of {}; run e2fsck",
                log.blocks,
                log.block,
                blocks.len(),
                superblock.block
            )
        },
    )?;
    ensure(log.error == 0, || {
        format!("its journal was stopped by error {}; run e2fsck", log.error)
    })?;
    ensure(
        settled.replayed || log.start == 0,
        || "its journal holds changes although its superblock says that it holds none; run e2fsck",
    )?;
    if settled.replayed {
        let limit = volume.len() / superblock.block;
        let overlay = journal::replay(&settled.view, &log, &blocks, limit)?;
        let view = View::new(volume, superblock.block, overlay);
        let replayed = Superblock::decode(&view.superblock()?, volume.len())?;
        ensure(
            superblock.is_grown_to(&replayed),
            || "its journal holds another file system's superblock; run e2fsck",
        )?;
        settled.superblock = replayed;
        settled.view = view;
    }
    settled.journal = Some(blocks);
    Ok(())
}

fn journal_blocks(view: &View<'_>, superblock: &Superblock) -> Result<Blocks, Doubt> {
    let number = superblock.journal_inode;
    let group = number.saturating_sub(1) / superblock.inodes_per_group;
    ensure(group < superblock.groups(), || {
        format!("its journal cannot be inode {number}; run e2fsck")
    })?;
    let descriptor = walk::descriptor(
        &view.read_old(
            superblock.descriptor_block(group / superblock.descriptors_per_block()),
            1,
        )?,
        superblock,
        group,
    )?;
    let Descriptor { inode_table, .. } = descriptor;
    walk::check_inside(
        superblock,
        "inode table",
        group,
        inode_table,
        superblock.inode_table_blocks(),
    )?;
    inode::journal_blocks(view, superblock, number, inode_table)
}

fn check_state(superblock: &Superblock) -> Result<(), Doubt> {
    let state = superblock.state;
    ensure(
        state & STATE_ERROR == 0,
        || "it is marked as having errors; run e2fsck",
    )?;
    let count = superblock.error_count;
    ensure(count == 0, || {
        format!("it has recorded {count} errors; run e2fsck")
    })?;
    ensure(
        state & STATE_VALID != 0,
        || "it was not unmounted cleanly; run e2fsck",
    )
}
