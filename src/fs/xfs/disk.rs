//! Superblock, group headers and B-tree blocks: bytes to values.

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use std::ops::Range;

/// The superblock's first bytes.
pub(super) const MAGIC: &[u8] = b"XFSB";
/// Bytes of a superblock that are looked at: the smallest sector.
pub(super) const SMALLEST: u64 = 512;
/// Where the superblock has the label.
pub(super) const LABEL: Range<usize> = 0x6C..0x78;
/// Basic blocks, the units of disk addresses and of the log, have 512 bytes whatever the sector.
pub(super) const BASIC_BLOCK: u64 = 512;
/// No block: the end of a chain.
pub(super) const NULL_BLOCK: u32 = u32::MAX;
/// Allocation groups are at most 1 TiB.
const MAX_GROUP: u64 = 1 << 40;
/// Allocation groups have at least 64 blocks (`XFS_MIN_AG_BLOCKS`).
const MIN_GROUP_BLOCKS: u64 = 64;
/// No tree of free space has more levels: the fewest records a block of 512 bytes may hold, and
/// the most records that a group can have, come to 7.
const MAX_LEVELS: u32 = 9;

/// Whether the CRC-32C that `bytes` has at `at`, little-endian, is the one of all of them with
/// these four as zeros.
pub(super) fn checksum_holds(bytes: &[u8], at: usize) -> Result<bool, Doubt> {
    let stored = Raw::new(bytes, "checksum").le32(at)?;
    let (head, rest) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    let tail = rest.get(4..).unwrap_or_default();
    let sum = checksum::crc32c_raw(!0, head);
    let sum = checksum::crc32c_raw(sum, &[0; 4]);
    Ok(checksum::matches(!checksum::crc32c_raw(sum, tail), stored))
}

/// What the superblock says, as far as the map needs it. Sizes are within their limits, and
/// groups add up to the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Bytes of a block: 512 to 64 KiB, a power of two.
    pub(super) block: u64,
    /// Bytes of a sector: 512 to 32 KiB, a power of two, at most a block.
    pub(super) sector: u64,
    /// Blocks of the file system.
    pub(super) blocks: u64,
    /// Blocks of each group but the last.
    pub(super) group_blocks: u64,
    /// Number of groups.
    pub(super) groups: u64,
    /// Bits that a block's number within its group has in a block number of the file system.
    pub(super) group_bits: u32,
    /// The log's first block, as such a number; 0 when the log is on another device.
    pub(super) log_start: u64,
    /// Blocks of the log.
    pub(super) log_blocks: u64,
    /// Blocks of the realtime device.
    pub(super) realtime_blocks: u64,
    /// Free blocks.
    pub(super) free_blocks: u64,
    /// The UUID that people see, which log records carry.
    pub(super) uuid: [u8; 16],
    /// The UUID that structures of version 5 carry.
    pub(super) meta_uuid: [u8; 16],
    /// Version 4 or 5.
    pub(super) version: u8,
    /// Version and features of version 4.
    pub(super) version_bits: u16,
    /// More features of version 4.
    pub(super) features2: u32,
    /// Features of version 5 that do not keep anyone from writing.
    pub(super) ro_compatible: u32,
    /// Features of version 5 that everyone has to know.
    pub(super) incompatible: u32,
    /// Features of the log's content.
    pub(super) log_incompatible: u32,
    /// Whether making or growing it has not been finished.
    pub(super) in_progress: bool,
    /// Bytes of an inode.
    pub(super) inode: u64,
    /// Bits that an inode's number within its block has.
    pub(super) inode_bits: u32,
    /// Bytes of a block of a directory.
    pub(super) directory_block: u64,
    /// The inode of the root directory.
    pub(super) root_inode: u64,
    /// Inodes of the file system itself: realtime bitmap and summary, quota of users, groups, projects,
    /// the directory of metadata.
    pub(super) own_inodes: [u64; 6],
}

impl Superblock {
    /// From the first bytes of a volume: as many as [`Superblock::sector_of`] says.
    pub(super) fn decode(bytes: &[u8]) -> Result<Superblock, Doubt> {
        let raw = Raw::new(bytes, "superblock");
        let version_bits = raw.be16(0x64)?;
        let version = (version_bits & 0xF).to_le_bytes()[0];
        ensure(version == 4 || version == 5, || {
            format!("it is of version {version}, and only 4 and 5 are known")
        })?;
        let uuid = array(raw, 0x20)?;
        let v5 = version == 5;
        let incompatible = if v5 { raw.be32(0xD8)? } else { 0 };
        let own_meta_uuid = incompatible & super::features::META_UUID != 0;
        let found = Superblock {
            block: u64::from(raw.be32(4)?),
            sector: u64::from(raw.be16(0x66)?),
            blocks: raw.be64(8)?,
            group_blocks: u64::from(raw.be32(0x54)?),
            groups: u64::from(raw.be32(0x58)?),
            group_bits: u32::from(raw.u8(0x7C)?),
            log_start: raw.be64(0x30)?,
            log_blocks: u64::from(raw.be32(0x60)?),
            realtime_blocks: raw.be64(0x10)?,
            free_blocks: raw.be64(0x90)?,
            uuid,
            meta_uuid: if own_meta_uuid {
                array(raw, 0xF8)?
            } else {
                uuid
            },
            version,
            version_bits,
            // Some architectures once wrote them four bytes further on.
            features2: raw.be32(0xC8)? | raw.be32(0xCC)?,
            ro_compatible: if v5 { raw.be32(0xD4)? } else { 0 },
            incompatible,
            log_incompatible: if v5 { raw.be32(0xDC)? } else { 0 },
            in_progress: raw.u8(0x7E)? != 0,
            inode: u64::from(raw.be16(0x68)?),
            inode_bits: raw.u8(0x7B)?.into(),
            directory_block: u64::from(raw.be32(4)?)
                .checked_shl(raw.u8(0xC0)?.into())
                .unwrap_or(0),
            root_inode: raw.be64(0x38)?,
            own_inodes: [
                raw.be64(0x40)?,
                raw.be64(0x48)?,
                raw.be64(0xA0)?,
                raw.be64(0xA8)?,
                if v5 { raw.be64(0xE8)? } else { 0 },
                if incompatible & super::features::METADATA_DIRECTORY != 0 {
                    raw.be64(0x108)?
                } else {
                    0
                },
            ],
        };
        found.check_sizes(raw)?;
        if v5 {
            let sector = raw.slice(0, crate::base::to_usize(found.sector))?;
            ensure(
                checksum_holds(sector, 0xE0)?,
                || "the checksum of its superblock is wrong: run xfs_repair on it",
            )?;
        }
        Ok(found)
    }

    /// Bytes of a sector, from a superblock's first 512 bytes; within its limits.
    pub(super) fn sector_of(bytes: &[u8]) -> Result<u64, Doubt> {
        let sector = u64::from(Raw::new(bytes, "superblock").be16(0x66)?);
        ensure(
            sector.is_power_of_two() && (512..=32 << 10).contains(&sector),
            || format!("its superblock gives sectors of {sector} bytes"),
        )?;
        Ok(sector)
    }

    fn check_sizes(&self, raw: Raw<'_>) -> Result<(), Doubt> {
        let (block, sector) = (self.block, self.sector);
        let wrong = |what: String| format!("its superblock {what}: run xfs_repair on it");
        let shift_fits = |at: usize, size: u64| -> Result<bool, Doubt> {
            Ok(1u64.checked_shl(u32::from(raw.u8(at)?)) == Some(size))
        };
        ensure(
            (512..=64 << 10).contains(&block) && shift_fits(0x78, block)?,
            || wrong(format!("gives blocks of {block} bytes")),
        )?;
        ensure(
            (512..=32 << 10).contains(&sector) && sector <= block && shift_fits(0x79, sector)?,
            || wrong(format!("gives sectors of {sector} bytes")),
        )?;
        let group = self.group_blocks;
        ensure(
            group >= MIN_GROUP_BLOCKS && group.saturating_mul(block) <= MAX_GROUP,
            || wrong(format!("gives allocation groups of {group} blocks")),
        )?;
        let bits = group.next_power_of_two().trailing_zeros();
        ensure(self.group_bits == bits, || {
            let given = self.group_bits;
            wrong(format!(
                "counts blocks within a group of {group} with {given} bits"
            ))
        })?;
        ensure(
            self.groups > 0 && self.groups == self.blocks.div_ceil(group),
            || {
                let (groups, blocks) = (self.groups, self.blocks);
                wrong(format!(
                    "gives {groups} groups of {group} blocks to {blocks} blocks"
                ))
            },
        )?;
        ensure(self.bytes().is_some(), || {
            wrong(format!("gives {} blocks", self.blocks))
        })
    }

    /// Doubts unless inodes and directories have sizes that can be.
    pub(super) fn check_inodes(&self) -> Result<(), Doubt> {
        let (inode, block) = (self.inode, self.block);
        let sound = inode.is_power_of_two()
            && (256..=2048).contains(&inode)
            && inode <= block
            && 1u64.checked_shl(self.inode_bits) == Some(block / inode)
            && (block..=64 << 10).contains(&self.directory_block)
            && self.directory_block.is_power_of_two();
        ensure(sound, || {
            format!(
                "its superblock gives inodes of {inode} bytes and directories blocks of {}: run \
                 xfs_repair on it",
                self.directory_block
            )
        })
    }

    /// Bits that an inode's number within its group has.
    pub(super) fn group_inode_bits(&self) -> u32 {
        self.group_bits + self.inode_bits
    }

    /// One past the last number that an inode of `group`, which exists, can have within it.
    pub(super) fn inodes_of(&self, group: u64) -> u64 {
        self.blocks_of(group) << self.inode_bits
    }

    /// The first byte of inode `number`, if there can be one.
    pub(super) fn place_of_inode(&self, number: u64) -> Option<u64> {
        let block = self.place_of(number >> self.inode_bits, 1)?;
        let within = number % 1u64.checked_shl(self.inode_bits)?;
        block.checked_add(within * self.inode)
    }

    /// The first byte of the `len` blocks that begin with `block`, a block number of the file system, if
    /// they exist.
    pub(super) fn place_of(&self, block: u64, len: u64) -> Option<u64> {
        let group = block.checked_shr(self.group_bits)?;
        let within = block % 1u64.checked_shl(self.group_bits)?;
        let end = within.checked_add(len)?;
        let inside = len > 0 && group < self.groups && end <= self.blocks_of(group);
        inside.then(|| self.byte_of(group, within))
    }

    /// Whether directories say what kind of file an entry is.
    pub(super) fn file_types(&self) -> bool {
        super::features::has_file_types(self)
    }

    /// Whether a chunk of inodes may have holes.
    pub(super) fn has_sparse_chunks(&self) -> bool {
        super::features::has_sparse_chunks(self)
    }

    /// Bytes of the file system, unless there are too many to count.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.blocks.checked_mul(self.block)
    }

    /// Whether structures have checksums and say where they belong.
    pub(super) fn v5(&self) -> bool {
        self.version == 5
    }

    /// Blocks of group `group`, which exists.
    pub(super) fn blocks_of(&self, group: u64) -> u64 {
        let start = group.saturating_mul(self.group_blocks);
        self.group_blocks.min(self.blocks.saturating_sub(start))
    }

    /// The first byte of block `block` of group `group`, both of which exist.
    pub(super) fn byte_of(&self, group: u64, block: u64) -> u64 {
        let blocks = group.saturating_mul(self.group_blocks);
        blocks.saturating_add(block).saturating_mul(self.block)
    }
}

/// The header of a group's free space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupHeader {
    /// Root block of the free space by block, and its number of levels.
    pub(super) by_block: (u32, u32),
    /// Root block of the free space by size, and its number of levels.
    pub(super) by_size: (u32, u32),
    /// Blocks set aside for the trees.
    pub(super) reserve: u64,
    /// Blocks in the trees.
    pub(super) free: u64,
    /// Blocks of the largest free extent.
    pub(super) longest: u64,
    /// Blocks of the trees of free space and of the reverse map, without their roots.
    pub(super) tree_blocks: u64,
    /// Blocks of the tree of the reverse map, if there is one.
    pub(super) reverse_map_blocks: u64,
}

impl GroupHeader {
    /// From the sector of group `group`.
    pub(super) fn decode(
        bytes: &[u8],
        superblock: &Superblock,
        group: u64,
    ) -> Result<GroupHeader, Doubt> {
        let raw = Raw::new(bytes, "group header");
        let wrong = |what: &str| {
            format!(
                "the free-space header of allocation group {group} {what}: run xfs_repair on it"
            )
        };
        ensure(raw.slice(0, 4)? == b"XAGF" && raw.be32(4)? == 1, || {
            wrong("does not begin as one")
        })?;
        if superblock.v5() {
            ensure(checksum_holds(bytes, 0xD8)?, || {
                wrong("has a wrong checksum")
            })?;
            ensure(raw.slice(64, 16)? == superblock.meta_uuid, || {
                wrong("is one of another file system")
            })?;
        }
        ensure(u64::from(raw.be32(8)?) == group, || {
            wrong("is one of another group")
        })?;
        let blocks = superblock.blocks_of(group);
        ensure(u64::from(raw.be32(12)?) == blocks, || {
            wrong(&format!("does not give it its {blocks} blocks"))
        })?;
        let (by_block, by_size) = (
            (raw.be32(16)?, raw.be32(28)?),
            (raw.be32(20)?, raw.be32(32)?),
        );
        for (root, levels) in [by_block, by_size] {
            ensure(
                u64::from(root) < blocks && (1..=MAX_LEVELS).contains(&levels),
                || {
                    wrong(&format!(
                        "gives a tree of {levels} levels from block {root}"
                    ))
                },
            )?;
        }
        Ok(GroupHeader {
            by_block,
            by_size,
            reserve: u64::from(raw.be32(48)?),
            free: u64::from(raw.be32(52)?),
            longest: u64::from(raw.be32(56)?),
            tree_blocks: u64::from(raw.be32(60)?),
            reverse_map_blocks: u64::from(raw.be32(80)?),
        })
    }
}

/// Free blocks in a row within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// A block of a tree of free space.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TreeBlock {
    /// The block left of it on the same level, or [`NULL_BLOCK`].
    pub(super) left: u32,
    /// The block right of it on the same level, or [`NULL_BLOCK`].
    pub(super) right: u32,
    /// A leaf's extents, or the first extent below each child.
    pub(super) extents: Vec<Extent>,
    /// The children; none in a leaf.
    pub(super) children: Vec<u32>,
}

/// Where a tree block is expected, to tell it from another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) group: u64,
    pub(super) block: u32,
    /// 0 for leaves.
    pub(super) level: u32,
}

impl TreeBlock {
    /// From a block, with `magic` the pair of versions 4 and 5.
    pub(super) fn decode(
        bytes: &[u8],
        superblock: &Superblock,
        place: Place,
        magic: [&[u8; 4]; 2],
    ) -> Result<TreeBlock, Doubt> {
        let raw = Raw::new(bytes, "tree block");
        let Place {
            group,
            block,
            level,
        } = place;
        let wrong = |what: &str| {
            format!(
                "block {block} of allocation group {group}, of a tree of free space, {what}: run \
                 xfs_repair on it"
            )
        };
        let v5 = superblock.v5();
        let header = if v5 { 56 } else { 16 };
        ensure(raw.slice(0, 4)? == magic[usize::from(v5)], || {
            wrong("does not begin as one")
        })?;
        if v5 {
            ensure(checksum_holds(bytes, 52)?, || wrong("has a wrong checksum"))?;
            let address = superblock.byte_of(group, block.into()) / BASIC_BLOCK;
            let own = raw.be64(16)? == address && u64::from(raw.be32(48)?) == group;
            ensure(own, || wrong("is one of another place"))?;
            ensure(raw.slice(32, 16)? == superblock.meta_uuid, || {
                wrong("is one of another file system")
            })?;
        }
        ensure(u32::from(raw.be16(4)?) == level, || {
            wrong(&format!("is not on level {level}"))
        })?;
        let entry = if level == 0 { 8 } else { 12 };
        let most = bytes.len().saturating_sub(header) / entry;
        let count = usize::from(raw.be16(6)?);
        ensure(count <= most, || {
            wrong(&format!("has {count} entries, and {most} fit"))
        })?;
        let extents = (0..count).map(|i| {
            let at = header + 8 * i;
            Ok(Extent {
                start: raw.be32(at)?,
                count: raw.be32(at + 4)?,
            })
        });
        let extents = extents.collect::<Result<_, Doubt>>()?;
        let pointers = header + 8 * most;
        let children = (0..if level == 0 { 0 } else { count }).map(|i| raw.be32(pointers + 4 * i));
        Ok(TreeBlock {
            left: raw.be32(8)?,
            right: raw.be32(12)?,
            extents,
            children: children.collect::<Result<_, Doubt>>()?,
        })
    }
}

/// 16 bytes from `at`.
pub(super) fn array(raw: Raw<'_>, at: usize) -> Result<[u8; 16], Doubt> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(raw.slice(at, 16)?);
    Ok(bytes)
}
