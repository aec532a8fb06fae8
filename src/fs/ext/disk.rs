//! The superblock of ext2, ext3 and ext4 as a value, with its checksum, and the block of multiple
//! mount protection. All little-endian. Facts: `fs/ext4/ext4.h` of the Linux kernel and
//! "Documentation/filesystems/ext4".

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::{self, Raw};
use super::features::{Features, compat, incompat, ro_compat};

/// Where the superblock begins, in bytes, whatever the block size.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
/// Its length in bytes.
pub(super) const SUPERBLOCK_LEN: u64 = 1024;
/// `s_magic`.
pub(super) const MAGIC: u16 = 0xEF53;
/// Blocks are 1 KiB to 64 KiB.
const MAX_LOG_BLOCK: u32 = 6;
/// Clusters are at most 512 MiB.
const MAX_LOG_CLUSTER: u32 = 19;
/// Descriptors are at most as long as the smallest block.
const MAX_DESCRIPTOR: u64 = 1024;
/// The kind of a journal that has a device of its own.
const JOURNAL: &str = "ext4 journal";
/// `s_state`: unmounted cleanly.
pub(super) const STATE_VALID: u16 = 1;
/// `s_state`: errors were detected.
pub(super) const STATE_ERROR: u16 = 2;

/// What a superblock says of which kind it is, readable even when the rest is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kind: &'static str,
    pub(super) label: Option<String>,
    log_block: u32,
}

impl Identity {
    /// Whether it is no file system but the journal of one.
    pub(super) fn is_journal(&self) -> bool {
        self.kind == JOURNAL
    }

    /// The identity in `bytes`, a superblock, if it is one that is plausible.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Identity>, Doubt> {
        let raw = Raw::new(bytes, "superblock");
        let log_block = raw.le32(0x18)?;
        let plausible = raw.le16(0x38)? == MAGIC
            && raw.le32(0x4C)? <= 1
            && log_block <= MAX_LOG_BLOCK
            && raw.le32(0x04)? > 0;
        if !plausible {
            return Ok(None);
        }
        let features = Features::decode(&raw)?;
        let beyond_ext3 =
            features.incompat(!incompat::EXT3) || features.ro_compat(!ro_compat::EXT3);
        let kind = if features.incompat(incompat::JOURNAL_DEV) {
            JOURNAL
        } else if beyond_ext3 {
            "ext4"
        } else if features.compat(compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        };
        Ok(Some(Identity {
            kind,
            label: raw::label(raw.slice(0x78, 16)?),
            log_block,
        }))
    }
}

/// A superblock whose values are within their limits and agree with one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) features: Features,
    /// Bytes in a block.
    pub(super) block: u64,
    /// Blocks in a cluster, 1 without BIGALLOC.
    pub(super) ratio: u64,
    /// Number of blocks, with those before the first group.
    pub(super) blocks: u64,
    /// Free blocks (not clusters).
    pub(super) free_blocks: u64,
    /// First block of group 0.
    pub(super) first_block: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inodes_per_group: u64,
    /// Bytes in an inode.
    pub(super) inode: u64,
    /// Bytes in a descriptor.
    pub(super) descriptor: u64,
    /// Blocks behind the descriptors that are reserved for more of them.
    pub(super) reserved_descriptor_blocks: u64,
    /// Descriptor blocks before this one lie behind the superblock, with META_BG.
    pub(super) first_meta_bg: u64,
    /// The groups that have a superblock copy with SPARSE_SUPER2.
    pub(super) backup_groups: [u64; 2],
    pub(super) state: u16,
    pub(super) error_count: u32,
    pub(super) journal_inode: u64,
    /// The first inode that is not set aside for the file system itself.
    pub(super) first_inode: u64,
    /// Inodes of the file system itself that lie behind that one: project quota, orphans; or 0.
    pub(super) more_own_inodes: [u64; 2],
    pub(super) mmp_block: u64,
    pub(super) uuid: [u8; 16],
    /// Seed of all CRC-32C.
    pub(super) seed: u32,
}

impl Superblock {
    /// The superblock in `bytes` of a volume that is `len` bytes long.
    ///
    /// # Errors
    /// A doubt that names the first value that cannot be.
    pub(super) fn decode(bytes: &[u8], len: u64) -> Result<Superblock, Doubt> {
        let raw = Raw::new(bytes, "superblock");
        let found = Identity::decode(bytes)?;
        let found = found.ok_or_else(|| Doubt::new("its superblock is damaged; run e2fsck"))?;
        let revision = raw.le32(0x4C)?;
        let features = Features::decode(&raw)?;
        features.check(revision)?;
        let uuid = uuid(&raw)?;
        let seed = if features.incompat(incompat::CSUM_SEED) {
            raw.le32(0x270)?
        } else {
            checksum::crc32c_raw(!0, &uuid)
        };
        check_sum(&raw, features)?;
        let high = |at| {
            let there = features.incompat(incompat::BITS_64);
            if there { raw.le32(at) } else { Ok(0) }
        };
        let superblock = Superblock {
            features,
            block: 1024 << found.log_block,
            ratio: ratio(&raw, features, found.log_block)?,
            blocks: wide(raw.le32(0x04)?, high(0x150)?),
            free_blocks: wide(raw.le32(0x0C)?, high(0x158)?),
            first_block: raw.le32(0x14)?.into(),
            blocks_per_group: raw.le32(0x20)?.into(),
            inodes_per_group: raw.le32(0x28)?.into(),
            inode: if revision == 0 {
                128
            } else {
                raw.le16(0x58)?.into()
            },
            descriptor: if features.incompat(incompat::BITS_64) {
                raw.le16(0xFE)?.into()
            } else {
                32
            },
            reserved_descriptor_blocks: raw.le16(0xCE)?.into(),
            first_meta_bg: raw.le32(0x104)?.into(),
            backup_groups: [raw.le32(0x24C)?.into(), raw.le32(0x250)?.into()],
            state: raw.le16(0x3A)?,
            error_count: raw.le32(0x194)?,
            journal_inode: raw.le32(0xE0)?.into(),
            first_inode: if revision == 0 {
                11
            } else {
                raw.le32(0x54)?.into()
            },
            more_own_inodes: [raw.le32(0x26C)?.into(), raw.le32(0x280)?.into()],
            mmp_block: raw.le64(0x168)?,
            uuid,
            seed,
        };
        superblock.check(len)?;
        let inodes: u64 = raw.le32(0x00)?.into();
        let expected = superblock.inodes_per_group.checked_mul(superblock.groups());
        ensure(expected == Some(inodes), || {
            format!(
                "its superblock counts {inodes} inodes, which is not {} in each of {} groups",
                superblock.inodes_per_group,
                superblock.groups()
            )
        })?;
        Ok(superblock)
    }

    fn check(&self, len: u64) -> Result<(), Doubt> {
        let fits = self.blocks.checked_mul(self.block);
        ensure(fits.is_some_and(|bytes| bytes <= len), || {
            format!(
                "it says that it has {} blocks of {} bytes, more than the partition's {len} bytes",
                self.blocks, self.block
            )
        })?;
        // Behind the boot block, where that is a block of its own (ext4_fill_super in fs/ext4/super.c).
        let first = u64::from(self.block == 1024 && self.ratio == 1);
        ensure(self.first_block == first && self.blocks > first, || {
            format!("its first group cannot begin at block {}", self.first_block)
        })?;
        let clusters = self.blocks_per_group / self.ratio;
        let sound = self.blocks_per_group.is_multiple_of(self.ratio)
            && clusters > 0
            && clusters.is_multiple_of(8)
            && clusters <= 8 * self.block;
        ensure(sound, || {
            format!("it cannot have {} blocks in a group", self.blocks_per_group)
        })?;
        let inodes = self.inodes_per_group;
        ensure(inodes > 0 && inodes <= 8 * self.block, || {
            format!("it cannot have {inodes} inodes in a group")
        })?;
        let inode = self.inode;
        let sound = inode.is_power_of_two() && inode >= 128 && inode <= self.block;
        ensure(sound, || format!("its inodes cannot be {inode} bytes long"))?;
        let least = if self.features.incompat(incompat::BITS_64) {
            64
        } else {
            32
        };
        let sound = self.descriptor.is_power_of_two()
            && (least..=MAX_DESCRIPTOR).contains(&self.descriptor);
        ensure(sound, || {
            format!(
                "its group descriptors cannot be {} bytes long",
                self.descriptor
            )
        })?;
        ensure(
            !self.has_meta_bg() || self.first_meta_bg <= self.descriptor_blocks(),
            || format!("its first meta group cannot be {}", self.first_meta_bg),
        )
    }

    /// Whether `later` can be this superblock after changes in a journal: the same file system,
    /// which only may have other groups at its end.
    pub(super) fn is_grown_to(&self, later: &Superblock) -> bool {
        self.uuid == later.uuid
            && self.seed == later.seed
            && self.block == later.block
            && self.ratio == later.ratio
            && self.first_block == later.first_block
            && self.blocks_per_group == later.blocks_per_group
            && self.inodes_per_group == later.inodes_per_group
            && self.inode == later.inode
            && self.descriptor == later.descriptor
    }

    /// Whether inode `number` is one of the file system itself. The root directory is.
    pub(super) fn is_own_inode(&self, number: u64) -> bool {
        number < self.first_inode
            || number == self.journal_inode
            || self.more_own_inodes.contains(&number)
    }

    /// Whether descriptor blocks lie in their groups.
    pub(super) fn has_meta_bg(&self) -> bool {
        self.features.incompat(incompat::META_BG)
    }

    /// Whether all metadata has a CRC-32C.
    pub(super) fn has_metadata_csum(&self) -> bool {
        self.features.ro_compat(ro_compat::METADATA_CSUM)
    }

    /// Whether descriptors have a checksum, and so flags.
    pub(super) fn has_descriptor_sums(&self) -> bool {
        self.has_metadata_csum() || self.features.ro_compat(ro_compat::GDT_CSUM)
    }

    /// Number of groups; the last may be short.
    pub(super) fn groups(&self) -> u64 {
        (self.blocks - self.first_block).div_ceil(self.blocks_per_group)
    }

    pub(super) fn descriptors_per_block(&self) -> u64 {
        self.block / self.descriptor
    }

    pub(super) fn descriptor_blocks(&self) -> u64 {
        self.groups().div_ceil(self.descriptors_per_block())
    }

    pub(super) fn clusters_per_group(&self) -> u64 {
        self.blocks_per_group / self.ratio
    }

    /// Clusters of all groups; the last may be short.
    pub(super) fn clusters(&self) -> u64 {
        (self.blocks - self.first_block).div_ceil(self.ratio)
    }

    /// Blocks of a group's inode table.
    pub(super) fn inode_table_blocks(&self) -> u64 {
        (self.inodes_per_group * self.inode).div_ceil(self.block)
    }
}

fn uuid(raw: &Raw<'_>) -> Result<[u8; 16], Doubt> {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(raw.slice(0x68, 16)?);
    Ok(uuid)
}

fn check_sum(raw: &Raw<'_>, features: Features) -> Result<(), Doubt> {
    if !features.ro_compat(ro_compat::METADATA_CSUM) {
        return Ok(());
    }
    let kind = raw.u8(0x175)?;
    ensure(kind == 1, || {
        format!("its checksums are of a kind that is not known here ({kind})")
    })?;
    let computed = checksum::crc32c_raw(!0, raw.slice(0, 0x3FC)?);
    ensure(
        checksum::matches(computed, raw.le32(0x3FC)?),
        || "the checksum of its superblock is wrong; run e2fsck",
    )
}

/// Blocks in a cluster.
fn ratio(raw: &Raw<'_>, features: Features, log_block: u32) -> Result<u64, Doubt> {
    let log_cluster = raw.le32(0x1C)?;
    let sound = if features.ro_compat(ro_compat::BIGALLOC) {
        (log_block..=MAX_LOG_CLUSTER).contains(&log_cluster)
    } else {
        log_cluster == log_block
    };
    ensure(sound, || {
        format!("its clusters cannot be 1024 << {log_cluster} bytes long")
    })?;
    let ratio = 1u64 << (log_cluster - log_block);
    let (blocks, clusters) = (u64::from(raw.le32(0x20)?), u64::from(raw.le32(0x24)?));
    let agree = !features.ro_compat(ro_compat::BIGALLOC) || blocks == clusters * ratio;
    ensure(agree, || {
        format!("a group cannot have {blocks} blocks and {clusters} clusters")
    })?;
    Ok(ratio)
}

/// The two halves of a number.
pub(super) fn wide(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// What the block of multiple mount protection says.
///
/// # Errors
/// A doubt unless it says that the file system is mounted nowhere.
pub(super) fn check_mmp(bytes: &[u8], superblock: &Superblock) -> Result<(), Doubt> {
    const FREE: u32 = 0xFF4D_4D50;
    const FSCK: u32 = 0xE24D_4D50;
    let raw = Raw::new(bytes, "block of multiple mount protection");
    ensure(
        raw.le32(0)? == 0x004D_4D50,
        || "its block of multiple mount protection is damaged; run e2fsck",
    )?;
    if superblock.has_metadata_csum() {
        let computed = checksum::crc32c_raw(superblock.seed, raw.slice(0, 0x3FC)?);
        ensure(
            checksum::matches(computed, raw.le32(0x3FC)?),
            || "the checksum of its block of multiple mount protection is wrong; run e2fsck",
        )?;
    }
    match raw.le32(4)? {
        FREE => Ok(()),
        FSCK => Err(Doubt::new(
            "e2fsck is running on it, or was stopped; run it to its end",
        )),
        _ => {
            let node = raw::label(raw.slice(0x10, 64)?).unwrap_or_else(|| "unknown".to_owned());
            Err(Doubt::new(format!(
                "it is mounted on a computer ({node}), or was when that stopped; unmount it there, or run e2fsck"
            )))
        }
    }
}
