//! Where the blocks of one inode lie: extents, or the older lists of blocks. Facts:
//! `fs/ext4/ext4_extents.h` and "Documentation/filesystems/ext4", "Index Nodes".

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::disk::Superblock;
use super::view::View;
use crate::base::to_usize;

/// Levels of an extent tree.
const MAX_DEPTH: u16 = 5;
/// Runs that an inode's blocks may lie in; a journal lies in a few.
const MAX_RUNS: usize = 1 << 16;
const FLAG_EXTENTS: u32 = 0x8_0000;
const EXTENTS_MAGIC: u16 = 0xF30A;
/// Longer extents are allocated and not yet written.
const MAX_WRITTEN: u16 = 32768;

/// Blocks of an inode that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First block, in the file.
    pub(super) first: u64,
    /// First block, in the file system.
    pub(super) at: u64,
    /// Number of blocks.
    pub(super) len: u64,
}

/// The blocks of an inode.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Ascending and gapless from block 0 of the file.
    pub(super) runs: Vec<Run>,
    /// Blocks that tell where those are.
    pub(super) index: Vec<u64>,
}

impl Blocks {
    /// Where block `number` of the file lies.
    pub(super) fn at(&self, number: u64) -> Result<u64, Doubt> {
        let next = self.runs.partition_point(|run| run.first <= number);
        let run = next.checked_sub(1).and_then(|n| self.runs.get(n));
        let run = run.filter(|run| number - run.first < run.len);
        run.map(|run| run.at + (number - run.first))
            .ok_or_else(|| Doubt::new(format!("its journal has no block {number}")))
    }

    /// How many blocks it has.
    pub(super) fn len(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.first + run.len)
    }

    fn push(&mut self, at: u64, len: u64, limit: u64) -> Result<(), Doubt> {
        let inside = at > 0 && at.checked_add(len).is_some_and(|end| end <= limit);
        ensure(inside, || {
            format!("its journal claims {len} blocks at block {at}; run e2fsck")
        })?;
        let first = self.len();
        match self.runs.last_mut() {
            Some(run) if run.at + run.len == at => run.len += len,
            _ => self.runs.push(Run { first, at, len }),
        }
        ensure(
            self.runs.len() <= MAX_RUNS,
            || "its journal lies in too many pieces to be believed",
        )
    }
}

/// Reads one inode.
struct Walk<'w> {
    view: &'w View<'w>,
    superblock: &'w Superblock,
    /// Seed of the checksums of this inode's blocks.
    seed: u32,
    /// Blocks of the file.
    wanted: u64,
    blocks: Blocks,
}

/// The blocks of inode `number`, which lies in the inode table at block `table`.
///
/// # Errors
/// A doubt unless all blocks of the file are there, inside the file system.
pub(super) fn blocks(
    view: &View<'_>,
    superblock: &Superblock,
    number: u64,
    table: u64,
) -> Result<Blocks, Doubt> {
    let index = number.saturating_sub(1) % superblock.inodes_per_group * superblock.inode;
    let block = view.read(table + index / superblock.block, 1)?;
    let from = to_usize(index % superblock.block);
    let bytes = Raw::new(&block, "inode table").slice(from, to_usize(superblock.inode))?;
    let raw = Raw::new(bytes, "journal inode");
    let seed = seed(&raw, superblock, number)?;
    check(&raw, superblock, seed)?;
    let size = u64::from(raw.le32(0x6C)?) << 32 | u64::from(raw.le32(0x04)?);
    ensure(raw.le16(0x00)? & 0xF000 == 0x8000 && size > 0, || {
        format!("its journal, inode {number}, is no file; run e2fsck")
    })?;
    let wanted = size / superblock.block;
    ensure(wanted <= superblock.blocks, || {
        format!("its journal claims to be {size} bytes long; run e2fsck")
    })?;
    let mut walk = Walk {
        view,
        superblock,
        seed,
        wanted,
        blocks: Blocks::default(),
    };
    let tree = raw.slice(0x28, 60)?;
    if raw.le32(0x20)? & FLAG_EXTENTS != 0 {
        walk.extents(tree, None)?;
    } else {
        walk.lists(tree)?;
    }
    let found = walk.blocks.len();
    ensure(found >= wanted, || {
        format!("only {found} of {wanted} blocks of its journal are there; run e2fsck")
    })?;
    Ok(walk.blocks)
}

fn seed(raw: &Raw<'_>, superblock: &Superblock, number: u64) -> Result<u32, Doubt> {
    let number = u32::try_from(number)
        .map_err(|_| Doubt::new(format!("it cannot have an inode {number}")))?;
    let seed = checksum::crc32c_raw(superblock.seed, &number.to_le_bytes());
    Ok(checksum::crc32c_raw(seed, raw.slice(0x64, 4)?))
}

/// Doubts unless the inode has the checksum that it should have.
fn check(raw: &Raw<'_>, superblock: &Superblock, seed: u32) -> Result<(), Doubt> {
    const LOW: usize = 0x7C;
    const HIGH: usize = 0x82;
    if !superblock.has_metadata_csum() {
        return Ok(());
    }
    // The upper half is there when the inode is long enough for it and says so.
    let long = raw.bytes().len() > 128 && raw.le16(0x80)? >= 4;
    let mut bytes = raw.bytes().to_vec();
    let mut stored = u32::from(raw.le16(LOW)?);
    bytes[LOW..LOW + 2].fill(0);
    if long {
        stored |= u32::from(raw.le16(HIGH)?) << 16;
        bytes[HIGH..HIGH + 2].fill(0);
    }
    let mask = if long { !0 } else { 0xFFFF };
    let computed = checksum::crc32c_raw(seed, &bytes) & mask;
    ensure(
        checksum::matches(computed, stored),
        || "the checksum of its journal's inode is wrong; run e2fsck",
    )
}

impl Walk<'_> {
    fn limit(&self) -> u64 {
        self.superblock.blocks
    }

    fn done(&self) -> bool {
        self.blocks.len() >= self.wanted
    }

    /// A node of an extent tree; `depth` is what the node above leads to expect.
    fn extents(&mut self, node: &[u8], depth: Option<u16>) -> Result<(), Doubt> {
        let raw = Raw::new(node, "extent tree");
        let (entries, room, own) = (raw.le16(2)?, raw.le16(4)?, raw.le16(6)?);
        let sound = raw.le16(0)? == EXTENTS_MAGIC
            && entries <= room
            && depth.map_or(own <= MAX_DEPTH, |depth| own == depth);
        ensure(
            sound,
            || "the extent tree of its journal is damaged; run e2fsck",
        )?;
        for number in 0..usize::from(entries) {
            let entry = raw.from(12 + 12 * number)?;
            ensure(
                u64::from(entry.le32(0)?) == self.blocks.len(),
                || "the extents of its journal leave a gap; run e2fsck",
            )?;
            if own == 0 {
                let len = entry.le16(4)?;
                ensure(
                    len > 0 && len <= MAX_WRITTEN,
                    || "its journal has blocks that were never written; run e2fsck",
                )?;
                let at = u64::from(entry.le16(6)?) << 32 | u64::from(entry.le32(8)?);
                self.blocks.push(at, len.into(), self.limit())?;
            } else {
                let at = u64::from(entry.le16(8)?) << 32 | u64::from(entry.le32(4)?);
                let child = self.index_block(at)?;
                self.check_node(&child)?;
                self.extents(&child, Some(own - 1))?;
            }
        }
        Ok(())
    }

    fn check_node(&self, node: &[u8]) -> Result<(), Doubt> {
        if !self.superblock.has_metadata_csum() {
            return Ok(());
        }
        let raw = Raw::new(node, "extent tree");
        let end = 12 + 12 * usize::from(raw.le16(4)?);
        let computed = checksum::crc32c_raw(self.seed, raw.slice(0, end)?);
        ensure(
            checksum::matches(computed, raw.le32(end)?),
            || "a checksum in the extent tree of its journal is wrong; run e2fsck",
        )
    }

    /// Reads a block that tells of others.
    fn index_block(&mut self, at: u64) -> Result<Vec<u8>, Doubt> {
        let sound = at > 0 && at < self.limit() && self.blocks.index.len() < MAX_RUNS;
        ensure(sound, || {
            format!("its journal cannot have an index in block {at}; run e2fsck")
        })?;
        self.blocks.index.push(at);
        self.view.read(at, 1)
    }

    /// Twelve blocks, then one, two and three levels of lists.
    fn lists(&mut self, tree: &[u8]) -> Result<(), Doubt> {
        let raw = Raw::new(tree, "block list");
        for number in 0..15 {
            if self.done() {
                break;
            }
            let at = raw.le32(4 * number)?;
            self.list(at.into(), number.saturating_sub(11))?;
        }
        Ok(())
    }

    fn list(&mut self, at: u64, level: usize) -> Result<(), Doubt> {
        if level == 0 {
            return self.blocks.push(at, 1, self.limit());
        }
        let list = self.index_block(at)?;
        let raw = Raw::new(&list, "block list");
        for number in 0..list.len() / 4 {
            if self.done() {
                break;
            }
            self.list(raw.le32(4 * number)?.into(), level - 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_and_are_found() {
        let mut blocks = Blocks::default();
        for (at, len) in [(100, 3), (103, 2), (50, 1)] {
            blocks.push(at, len, 200).unwrap();
        }
        assert_eq!(blocks.runs.len(), 2);
        assert_eq!(blocks.at(4).unwrap(), 104);
        assert_eq!(blocks.at(5).unwrap(), 50);
        assert!(blocks.at(6).is_err());
        assert!(blocks.push(199, 2, 200).is_err());
        assert!(blocks.push(0, 1, 200).is_err());
    }
}
