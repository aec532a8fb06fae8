//! The three feature words of a superblock, and which of their bits are known here. Facts:
//! `fs/ext4/ext4.h` of the Linux kernel.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::{self, Raw};

/// Bits of `s_feature_compat`.
pub(super) mod compat {
    /// There is a journal.
    pub(in super::super) const HAS_JOURNAL: u32 = 0x4;
    /// Two copies of the superblock at the most.
    pub(in super::super) const SPARSE_SUPER2: u32 = 0x200;
    /// All that have no effect on allocation, or are taken into account: directory preallocation,
    /// AFS inodes, journal, extended attributes, resize inode, indexed directories, two superblock
    /// copies, fast commits, stable inodes, orphan file.
    pub(in super::super) const KNOWN: u32 = 0x1E3F;
}

/// Bits of `s_feature_incompat`.
pub(super) mod incompat {
    /// The journal has to be replayed.
    pub(in super::super) const RECOVER: u32 = 0x4;
    /// No file system: a journal for others.
    pub(in super::super) const JOURNAL_DEV: u32 = 0x8;
    /// Descriptor blocks lie in the groups that they describe.
    pub(in super::super) const META_BG: u32 = 0x10;
    /// Block numbers of 64 bits, longer descriptors.
    pub(in super::super) const BITS_64: u32 = 0x80;
    /// A block tells that the file system is mounted somewhere.
    pub(in super::super) const MMP: u32 = 0x100;
    /// Bitmaps and inode tables may lie in other groups.
    pub(in super::super) const FLEX_BG: u32 = 0x200;
    /// The seed of checksums is stored and not made from the UUID.
    pub(in super::super) const CSUM_SEED: u32 = 0x2000;
    /// All that have no effect on allocation, or are taken into account: file types, recovery,
    /// META_BG, extents, 64 bits, MMP, FLEX_BG, values in inodes, seed, large directories, data in
    /// inodes, encryption, case folding.
    pub(in super::super) const KNOWN: u32 = 0x3_E7D6;
    /// What `blkid` lets pass as ext3: file types, recovery, META_BG.
    pub(in super::super) const EXT3: u32 = 0x16;
}

/// Bits of `s_feature_ro_compat`.
pub(super) mod ro_compat {
    /// Superblock copies only in groups 0, 1 and powers of 3, 5 and 7.
    pub(in super::super) const SPARSE_SUPER: u32 = 0x1;
    /// Descriptors have a CRC-16, groups may be uninitialised.
    pub(in super::super) const GDT_CSUM: u32 = 0x10;
    /// Allocation in clusters of blocks.
    pub(in super::super) const BIGALLOC: u32 = 0x200;
    /// All metadata has a CRC-32C, groups may be uninitialised.
    pub(in super::super) const METADATA_CSUM: u32 = 0x400;
    /// All that have no effect on allocation, or are taken into account: superblock copies, large
    /// and huge files, tree directories, descriptor checksums, many subdirectories, long inodes,
    /// quota, clusters, metadata checksums, read-only, projects, shared blocks, verity, orphans.
    pub(in super::super) const KNOWN: u32 = 0x1_F77F;
    /// What `blkid` lets pass as ext3: superblock copies, large files, tree directories.
    pub(in super::super) const EXT3: u32 = 0x7;
}

/// The three feature words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
}

impl Features {
    pub(super) fn decode(raw: &Raw<'_>) -> Result<Features, Doubt> {
        Ok(Features {
            compat: raw.le32(0x5C)?,
            incompat: raw.le32(0x60)?,
            ro_compat: raw.le32(0x64)?,
        })
    }

    pub(super) fn compat(self, bit: u32) -> bool {
        self.compat & bit != 0
    }

    pub(super) fn incompat(self, bit: u32) -> bool {
        self.incompat & bit != 0
    }

    pub(super) fn ro_compat(self, bit: u32) -> bool {
        self.ro_compat & bit != 0
    }

    /// Doubts when a word has a bit that may change what the allocation metadata means.
    pub(super) fn check(self, revision: u32) -> Result<(), Doubt> {
        let words = [
            ("compatible", self.compat, compat::KNOWN),
            ("incompatible", self.incompat, incompat::KNOWN),
            ("read-only compatible", self.ro_compat, ro_compat::KNOWN),
        ];
        for (word, found, known) in words {
            if let Some(bits) = raw::unknown_bits(found.into(), known.into()) {
                return Err(Doubt::new(format!(
                    "it has {word} features that are not known here ({bits})"
                )));
            }
            ensure(revision > 0 || found == 0, || {
                format!("its revision 0 has no features, yet {word} features {found:#x} are set")
            })?;
        }
        Ok(())
    }
}
