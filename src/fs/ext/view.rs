//! A file system's blocks as they are once its journal has been replayed, without writing one.

use super::super::doubt::Doubt;
use super::super::raw::Raw;
use super::super::volume::Volume;
use crate::base::to_usize;
use std::collections::BTreeMap;

/// Where the journal holds a newer copy of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newer {
    /// The block that holds the copy.
    pub(super) at: u64,
    /// The copy's first four bytes were the journal's magic number and were zeroed.
    pub(super) escaped: bool,
}

/// The blocks that the journal has newer copies of.
pub(super) type Overlay = BTreeMap<u64, Newer>;

/// Blocks to read.
pub(super) struct View<'v> {
    volume: &'v Volume<'v>,
    /// Bytes in a block.
    block: u64,
    overlay: Overlay,
}

impl<'v> View<'v> {
    /// The blocks of `block` bytes of `volume`, with those of `overlay` in the place of older ones.
    pub(super) fn new(volume: &'v Volume<'v>, block: u64, overlay: Overlay) -> View<'v> {
        View {
            volume,
            block,
            overlay,
        }
    }

    /// `count` blocks from `first` as they lie on the disk.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub(super) fn read_old(&self, first: u64, count: u64) -> Result<Vec<u8>, Doubt> {
        let bytes = |blocks: u64| blocks.checked_mul(self.block);
        let range = bytes(first).zip(bytes(count));
        let (at, len) = range.ok_or_else(|| Doubt::new(format!("it has no block {first}")))?;
        self.volume.read(at, len)
    }

    /// `count` blocks from `first` as a replay leaves them.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub(super) fn read(&self, first: u64, count: u64) -> Result<Vec<u8>, Doubt> {
        let mut blocks = self.read_old(first, count)?;
        for (number, newer) in self.overlay.range(first..first.saturating_add(count)) {
            let copy = self.copy(*newer)?;
            let at = to_usize((number - first) * self.block);
            if let Some(place) = blocks.get_mut(at..at + copy.len()) {
                place.copy_from_slice(&copy);
            }
        }
        Ok(blocks)
    }

    /// Whether the journal has a newer copy of `block`.
    pub(super) fn has_newer(&self, block: u64) -> bool {
        self.overlay.contains_key(&block)
    }

    fn copy(&self, newer: Newer) -> Result<Vec<u8>, Doubt> {
        let mut copy = self.read_old(newer.at, 1)?;
        if let (true, Some(start)) = (newer.escaped, copy.get_mut(..4)) {
            start.copy_from_slice(&super::log::MAGIC.to_be_bytes());
        }
        Ok(copy)
    }

    /// The superblock as a replay leaves it.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub(super) fn superblock(&self) -> Result<Vec<u8>, Doubt> {
        use super::disk::{SUPERBLOCK_AT, SUPERBLOCK_LEN};
        let block = self.read(SUPERBLOCK_AT / self.block, 1)?;
        let raw = Raw::new(&block, "superblock");
        let bytes = raw.slice(
            to_usize(SUPERBLOCK_AT % self.block),
            to_usize(SUPERBLOCK_LEN),
        )?;
        Ok(bytes.to_vec())
    }
}
