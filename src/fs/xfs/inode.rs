//! Inodes, and where the content of their forks lies. Facts: `fs/xfs/libxfs/xfs_format.h` (`xfs_dinode`,
//! `xfs_bmbt_rec`, `xfs_bmdr_block`) and "XFS Algorithms & Data Structures". Big-endian but for checksums.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::disk::{Superblock, checksum_holds};
use crate::base::to_usize;

/// The tree of a fork has no more levels.
const MAX_LEVELS: u16 = 9;
/// Kinds of inodes, the upper bits of the mode.
pub(super) const KIND_DIRECTORY: u16 = 0x4000;
const KIND_FILE: u16 = 0x8000;
const KIND_LINK: u16 = 0xA000;
/// Forms of a fork.
const LOCAL: u8 = 1;
const EXTENTS: u8 = 2;
const TREE: u8 = 3;
/// The content lies on the realtime device.
const REALTIME: u16 = 1;
/// Flags of version 3: the numbers of extents are wide; it is the file system's own.
const WIDE_COUNTS: u64 = 1 << 4;
const METADATA: u64 = 1 << 5;

/// An inode in use.
#[derive(Debug)]
pub(super) struct Inode<'a> {
    pub(super) number: u64,
    /// The upper bits of its mode.
    pub(super) kind: u16,
    /// How many names it has.
    pub(super) links: u32,
    /// Whether it is the file system's own by its flags.
    pub(super) own: bool,
    /// Its content, unless that lies on another device.
    pub(super) data: Fork<'a>,
    /// Its extended attributes.
    pub(super) attributes: Fork<'a>,
}

/// Where the content of a fork is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fork<'a> {
    /// Nowhere, or something that takes no blocks.
    None,
    /// In the inode.
    Local(&'a [u8]),
    /// In extents that are in the inode.
    Extents(&'a [u8]),
    /// In extents below a root in the inode.
    Tree(&'a [u8]),
}

/// Blocks of a fork in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First block, in the fork.
    pub(super) first: u64,
    /// First byte, in the file system.
    pub(super) at: u64,
    /// Number of blocks.
    pub(super) len: u64,
}

/// What a walk through a fork comes by.
#[derive(Debug)]
pub(super) enum Seen {
    /// Blocks of the fork, inside the file system.
    Run(Run),
    /// A block of its tree, by its first byte.
    Tree(u64),
    /// Some of its blocks are not known, for this reason.
    Lost(String),
}

impl<'a> Inode<'a> {
    /// Inode `number` in `bytes`; `None` when it is not in use.
    ///
    /// # Errors
    /// A doubt when it is damaged.
    pub(super) fn decode(
        bytes: &'a [u8],
        superblock: &Superblock,
        number: u64,
    ) -> Result<Option<Inode<'a>>, Doubt> {
        let raw = Raw::new(bytes, "inode");
        let wrong = |what: &str| format!("inode {number} {what}: run xfs_repair on it");
        ensure(raw.slice(0, 2)? == b"IN", || wrong("does not begin as one"))?;
        let (mode, version) = (raw.be16(2)?, raw.u8(4)?);
        let v3 = version == 3;
        ensure(v3 == superblock.v5(), || wrong("is of a wrong version"))?;
        if v3 {
            ensure(checksum_holds(bytes, 100)?, || {
                wrong("has a wrong checksum")
            })?;
            ensure(raw.be64(152)? == number, || wrong("is another one"))?;
        }
        if mode == 0 {
            return Ok(None);
        }
        let flags2 = if v3 { raw.be64(120)? } else { 0 };
        let literal = raw.from(if v3 { 176 } else { 100 })?;
        let split = 8 * usize::from(raw.u8(82)?);
        let data_len = if split == 0 {
            literal.bytes().len()
        } else {
            split
        };
        let (extents, attribute_extents) = if flags2 & WIDE_COUNTS != 0 {
            (raw.be64(24)?, u64::from(raw.be32(76)?))
        } else {
            (u64::from(raw.be32(76)?), u64::from(raw.be16(80)?))
        };
        let kind = mode & 0xF000;
        let elsewhere = raw.be16(90)? & REALTIME != 0 && kind == KIND_FILE;
        let has_content = matches!(kind, KIND_FILE | KIND_DIRECTORY | KIND_LINK);
        let area = literal.slice(0, data_len)?;
        let data = if has_content && !elsewhere {
            Fork::decode(area, raw.u8(5)?, extents)?
        } else {
            Fork::None
        };
        let attributes = if split == 0 {
            Fork::None
        } else {
            Fork::decode(literal.from(split)?.bytes(), raw.u8(83)?, attribute_extents)?
        };
        Ok(Some(Inode {
            number,
            kind,
            links: if version == 1 {
                raw.be16(6)?.into()
            } else {
                raw.be32(16)?
            },
            own: flags2 & METADATA != 0,
            data,
            attributes,
        }))
    }
}

impl<'a> Fork<'a> {
    fn decode(area: &'a [u8], form: u8, extents: u64) -> Result<Fork<'a>, Doubt> {
        Ok(match form {
            LOCAL => Fork::Local(area),
            EXTENTS => {
                let len = to_usize(extents.saturating_mul(16));
                Fork::Extents(Raw::new(area, "inode's extents").slice(0, len)?)
            }
            TREE => Fork::Tree(area),
            _ => Fork::None,
        })
    }

    /// Tells `see` of all that the fork has in blocks, in its order; `owner` is the inode's number.
    ///
    /// # Errors
    /// What `see` returns, and when the run was stopped; damage goes to `see`.
    pub(super) fn walk(
        &self,
        volume: &Volume<'_>,
        superblock: &Superblock,
        owner: u64,
        see: &mut dyn FnMut(Seen) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let mut walk = Walk {
            volume,
            superblock,
            owner,
            see,
        };
        match self {
            Fork::None | Fork::Local(_) => Ok(()),
            Fork::Extents(records) => walk.records(records),
            Fork::Tree(root) => walk.root(&Raw::new(root, "inode's tree")),
        }
    }
}

struct Walk<'w> {
    volume: &'w Volume<'w>,
    superblock: &'w Superblock,
    owner: u64,
    see: &'w mut dyn FnMut(Seen) -> Result<(), Doubt>,
}

impl Walk<'_> {
    fn lost(&mut self, what: &str) -> Result<(), Doubt> {
        let owner = self.owner;
        (self.see)(Seen::Lost(format!(
            "inode {owner} {what}: run xfs_repair on it"
        )))
    }

    fn records(&mut self, records: &[u8]) -> Result<(), Doubt> {
        for record in records.chunks_exact(16) {
            let raw = Raw::new(record, "extent");
            let (high, low) = (raw.be64(0)?, raw.be64(8)?);
            let block = (high & 0x1FF) << 43 | low >> 21;
            let len = low & 0x1F_FFFF;
            match self.superblock.place_of(block, len) {
                Some(at) => (self.see)(Seen::Run(Run {
                    first: (high & !(1 << 63)) >> 9,
                    at,
                    len,
                }))?,
                None => self.lost("claims blocks that do not exist")?,
            }
        }
        Ok(())
    }

    /// The root of a tree, which is in the inode: as many keys as fit, then as many places.
    fn root(&mut self, raw: &Raw<'_>) -> Result<(), Doubt> {
        let most = raw.bytes().len().saturating_sub(4) / 16;
        let (level, count) = (raw.be16(0)?, usize::from(raw.be16(2)?));
        if level == 0 || level > MAX_LEVELS || count > most {
            return self.lost("has a damaged tree");
        }
        for number in 0..count {
            self.block(raw.be64(4 + 8 * most + 8 * number)?, level - 1)?;
        }
        Ok(())
    }

    fn block(&mut self, block: u64, level: u16) -> Result<(), Doubt> {
        let Some(at) = self.superblock.place_of(block, 1) else {
            return self.lost("has a tree that leads to where none can be");
        };
        (self.see)(Seen::Tree(at))?;
        let read = self.volume.read(at, self.superblock.block);
        let bytes = match read.and_then(|bytes| self.check(&bytes, level).map(|()| bytes)) {
            Ok(bytes) => bytes,
            Err(Doubt::Unsure(_)) => {
                self.volume.must_go_on()?;
                return self.lost("has a tree of which blocks cannot be read");
            }
            Err(stopped) => return Err(stopped),
        };
        let raw = Raw::new(&bytes, "tree block");
        let rest = raw.from(self.header())?;
        let (count, most) = (usize::from(raw.be16(6)?), rest.bytes().len() / 16);
        if level == 0 {
            return self.records(rest.slice(0, 16 * count)?);
        }
        for number in 0..count {
            self.block(rest.be64(8 * most + 8 * number)?, level - 1)?;
        }
        Ok(())
    }

    fn header(&self) -> usize {
        if self.superblock.v5() { 72 } else { 24 }
    }

    /// Doubts unless `bytes` are a block of this inode's tree on this level.
    fn check(&self, bytes: &[u8], level: u16) -> Result<(), Doubt> {
        let raw = Raw::new(bytes, "tree block");
        let v5 = self.superblock.v5();
        let magic: &[u8] = if v5 { b"BMA3" } else { b"BMAP" };
        let most = bytes.len().saturating_sub(self.header()) / 16;
        let mut sound =
            raw.slice(0, 4)? == magic && raw.be16(4)? == level && usize::from(raw.be16(6)?) <= most;
        if v5 {
            sound &= checksum_holds(bytes, 64)? && raw.be64(56)? == self.owner;
        }
        ensure(sound, || "a tree block is damaged")
    }
}
