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
/// The content lies in the inode.
pub(super) const FLAG_INLINE: u32 = 0x1000_0000;
/// An extended attribute of other inodes; it has no name.
pub(super) const FLAG_ATTRIBUTE: u32 = 0x20_0000;
/// Kinds of inodes.
pub(super) const KIND_FILE: u16 = 0x8000;
pub(super) const KIND_DIRECTORY: u16 = 0x4000;
const KIND_LINK: u16 = 0xA000;
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

/// An inode whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) number: u64,
    /// Kind and permissions.
    pub(super) mode: u16,
    /// How many names it has.
    pub(super) links: u16,
    /// Bytes of its content.
    pub(super) size: u64,
    pub(super) flags: u32,
    /// The block with its extended attributes, or 0.
    pub(super) attributes: u64,
    /// Where its blocks lie, or content.
    pub(super) tree: [u8; 60],
    /// Seed of the checksums of its blocks.
    seed: u32,
}

impl Inode {
    /// Inode `number` in `bytes`.
    ///
    /// # Errors
    /// A doubt when its checksum is wrong.
    pub(super) fn decode(
        bytes: &[u8],
        superblock: &Superblock,
        number: u64,
    ) -> Result<Inode, Doubt> {
        let raw = Raw::new(bytes, "inode");
        let seed = seed(&raw, superblock, number)?;
        check(&raw, superblock, number, seed)?;
        let mut tree = [0; 60];
        tree.copy_from_slice(raw.slice(0x28, 60)?);
        Ok(Inode {
            number,
            mode: raw.le16(0x00)?,
            links: raw.le16(0x1A)?,
            size: u64::from(raw.le32(0x6C)?) << 32 | u64::from(raw.le32(0x04)?),
            flags: raw.le32(0x20)?,
            attributes: u64::from(raw.le16(0x76)?) << 32 | u64::from(raw.le32(0x68)?),
            tree,
            seed,
        })
    }

    /// Its kind, as the upper bits of its mode say it.
    pub(super) fn kind(&self) -> u16 {
        self.mode & 0xF000
    }

    /// Whether `tree` tells where blocks lie: in devices, pipes, short links and content within the
    /// inode it is something else.
    pub(super) fn has_blocks(&self) -> bool {
        if self.flags & FLAG_INLINE != 0 {
            return false;
        }
        match self.kind() {
            KIND_FILE | KIND_DIRECTORY => true,
            KIND_LINK => self.flags & FLAG_EXTENTS != 0 || self.size >= 60,
            _ => false,
        }
    }

    /// Tells `see` of everything that says where its blocks lie, in the order of the file.
    ///
    /// # Errors
    /// What `see` returns, and when the run was stopped; damage goes to `see`.
    pub(super) fn walk(
        &self,
        view: &View<'_>,
        superblock: &Superblock,
        see: &mut dyn FnMut(Seen) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let mut walk = Walk {
            view,
            superblock,
            inode: self,
            see,
        };
        if self.flags & FLAG_EXTENTS != 0 {
            let node = walk.node(&self.tree, None);
            walk.extents(node)
        } else {
            walk.lists()
        }
    }
}

/// What a walk through an inode's blocks comes by.
#[derive(Debug)]
pub(super) enum Seen {
    /// Blocks of the file, inside the file system. Not `written`: allocated, and zeros to whoever reads.
    Run { run: Run, written: bool },
    /// A block that tells of others.
    Index(u64),
    /// Some of its blocks are not known, for this reason.
    Lost(String),
}

/// Reads one inode's blocks.
struct Walk<'w> {
    view: &'w View<'w>,
    superblock: &'w Superblock,
    inode: &'w Inode,
    see: &'w mut dyn FnMut(Seen) -> Result<(), Doubt>,
}

/// The blocks of the journal, inode `number`, which lies in the inode table at block `table`.
///
/// # Errors
/// A doubt unless all blocks of the file are there, inside the file system.
pub(super) fn journal_blocks(
    view: &View<'_>,
    superblock: &Superblock,
    number: u64,
    table: u64,
) -> Result<Blocks, Doubt> {
    let bytes = inode_bytes(view, superblock, number, table)?;
    let inode = Inode::decode(&bytes, superblock, number)?;
    let size = inode.size;
    ensure(inode.kind() == KIND_FILE && size > 0, || {
        format!("its journal, inode {number}, is no file; run e2fsck")
    })?;
    let wanted = size / superblock.block;
    ensure(wanted <= superblock.blocks, || {
        format!("its journal claims to be {size} bytes long; run e2fsck")
    })?;
    let mut blocks = Blocks::default();
    inode.walk(view, superblock, &mut |seen| {
        if blocks.len() >= wanted {
            return Ok(());
        }
        match seen {
            Seen::Run { run, written } => {
                ensure(
                    run.first == blocks.len(),
                    || "the blocks of its journal leave a gap; run e2fsck",
                )?;
                ensure(
                    written,
                    || "its journal has blocks that were never written; run e2fsck",
                )?;
                blocks.push(run.at, run.len, superblock.blocks)
            }
            Seen::Index(at) => {
                ensure(blocks.index.len() < MAX_RUNS, || {
                    format!("its journal cannot have an index in block {at}; run e2fsck")
                })?;
                blocks.index.push(at);
                Ok(())
            }
            Seen::Lost(why) => Err(Doubt::new(why)),
        }
    })?;
    let found = blocks.len();
    ensure(found >= wanted, || {
        format!("only {found} of {wanted} blocks of its journal are there; run e2fsck")
    })?;
    Ok(blocks)
}

/// The bytes of inode `number`, which lies in the inode table at block `table`.
pub(super) fn inode_bytes(
    view: &View<'_>,
    superblock: &Superblock,
    number: u64,
    table: u64,
) -> Result<Vec<u8>, Doubt> {
    let index = number.saturating_sub(1) % superblock.inodes_per_group * superblock.inode;
    let block = view.read(table.saturating_add(index / superblock.block), 1)?;
    let from = to_usize(index % superblock.block);
    let bytes = Raw::new(&block, "inode table").slice(from, to_usize(superblock.inode))?;
    Ok(bytes.to_vec())
}

fn seed(raw: &Raw<'_>, superblock: &Superblock, number: u64) -> Result<u32, Doubt> {
    let number = u32::try_from(number)
        .map_err(|_| Doubt::new(format!("it cannot have an inode {number}")))?;
    let seed = checksum::crc32c_raw(superblock.seed, &number.to_le_bytes());
    Ok(checksum::crc32c_raw(seed, raw.slice(0x64, 4)?))
}

/// Doubts unless the inode has the checksum that it should have.
fn check(raw: &Raw<'_>, superblock: &Superblock, number: u64, seed: u32) -> Result<(), Doubt> {
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
    ensure(checksum::matches(computed, stored), || {
        format!("the checksum of its inode {number} is wrong; run e2fsck")
    })
}

/// A node of an extent tree: how many levels are below it, and its entries.
struct Node {
    depth: u16,
    entries: Vec<Entry>,
}

/// An entry of a node: an extent in a leaf, a node below in others.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// First block, in the file.
    first: u64,
    /// Of an extent only.
    len: u16,
    at: u64,
}

impl Node {
    fn decode(bytes: &[u8], depth: Option<u16>) -> Result<Node, Doubt> {
        let raw = Raw::new(bytes, "extent tree");
        let (entries, room, own) = (raw.le16(2)?, raw.le16(4)?, raw.le16(6)?);
        let sound = raw.le16(0)? == EXTENTS_MAGIC
            && entries <= room
            && depth.map_or(own <= MAX_DEPTH, |depth| own == depth);
        ensure(sound, || "an extent tree is damaged; run e2fsck")?;
        let entries = (0..usize::from(entries)).map(|number| {
            let entry = raw.from(12 + 12 * number)?;
            let first = entry.le32(0)?.into();
            Ok(if own == 0 {
                Entry {
                    first,
                    len: entry.le16(4)?,
                    at: u64::from(entry.le16(6)?) << 32 | u64::from(entry.le32(8)?),
                }
            } else {
                let at = u64::from(entry.le16(8)?) << 32 | u64::from(entry.le32(4)?);
                Entry { first, len: 0, at }
            })
        });
        Ok(Node {
            depth: own,
            entries: entries.collect::<Result<_, Doubt>>()?,
        })
    }
}

impl Walk<'_> {
    /// Tells of what `result` has, or why it is lost.
    fn found<T>(&mut self, result: Result<T, Doubt>) -> Result<Option<T>, Doubt> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(Doubt::Unsure(why)) => {
                (self.see)(Seen::Lost(why))?;
                Ok(None)
            }
            Err(stopped) => Err(stopped),
        }
    }

    fn run(&mut self, run: Run, written: bool) -> Result<(), Doubt> {
        let Run { at, len, .. } = run;
        let limit = self.superblock.blocks;
        let inside = at > 0 && len > 0 && at.checked_add(len).is_some_and(|end| end <= limit);
        (self.see)(if inside {
            Seen::Run { run, written }
        } else {
            let number = self.inode.number;
            let why = format!("its inode {number} claims {len} blocks at block {at}; run e2fsck");
            Seen::Lost(why)
        })
    }

    /// A node of an extent tree; `depth` is what the node above leads to expect.
    fn node(&self, bytes: &[u8], depth: Option<u16>) -> Result<Node, Doubt> {
        if depth.is_some() && self.superblock.has_metadata_csum() {
            let raw = Raw::new(bytes, "extent tree");
            let end = 12 + 12 * usize::from(raw.le16(4)?);
            let computed = checksum::crc32c_raw(self.inode.seed, raw.slice(0, end)?);
            ensure(
                checksum::matches(computed, raw.le32(end)?),
                || "a checksum in an extent tree is wrong; run e2fsck",
            )?;
        }
        Node::decode(bytes, depth)
    }

    fn extents(&mut self, node: Result<Node, Doubt>) -> Result<(), Doubt> {
        let Some(node) = self.found(node)? else {
            return Ok(());
        };
        for Entry { first, len, at } in node.entries {
            if node.depth == 0 {
                let written = len <= MAX_WRITTEN;
                let len = u64::from(if written { len } else { len - MAX_WRITTEN });
                self.run(Run { first, at, len }, written)?;
            } else {
                let child = self.index_block(at)?;
                if let Some(child) = child {
                    let child = self.node(&child, Some(node.depth - 1));
                    self.extents(child)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a block that tells of others.
    fn index_block(&mut self, at: u64) -> Result<Option<Vec<u8>>, Doubt> {
        if at == 0 || at >= self.superblock.blocks {
            let number = self.inode.number;
            let why = format!("its inode {number} cannot have an index in block {at}; run e2fsck");
            (self.see)(Seen::Lost(why))?;
            return Ok(None);
        }
        (self.see)(Seen::Index(at))?;
        let block = self.view.read(at, 1);
        self.found(block)
    }

    /// Twelve blocks, then one, two and three levels of lists; 0 is a hole.
    fn lists(&mut self) -> Result<(), Doubt> {
        let tree = self.inode.tree;
        let raw = Raw::new(&tree, "block list");
        let mut first = 0;
        for number in 0..15 {
            let at = raw.le32(4 * number)?;
            self.list(&mut first, at.into(), number.saturating_sub(11))?;
        }
        Ok(())
    }

    /// What lies below `at`, `level` lists deep, from block `first` of the file on; moves that on.
    fn list(&mut self, first: &mut u64, at: u64, level: usize) -> Result<(), Doubt> {
        let per_list = self.superblock.block / 4;
        let blocks = (0..level).fold(1, |blocks, _| blocks * per_list);
        let next = *first + blocks;
        if at == 0 {
            *first = next;
            return Ok(());
        }
        if level == 0 {
            let run = Run {
                first: *first,
                at,
                len: 1,
            };
            *first = next;
            return self.run(run, true);
        }
        if let Some(list) = self.index_block(at)? {
            let raw = Raw::new(&list, "block list");
            for number in 0..list.len() / 4 {
                self.list(first, raw.le32(4 * number)?.into(), level - 1)?;
            }
        }
        *first = next;
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
