//! Superblock, checkpoint and segment information as F2FS has them on disk ("include/linux/f2fs_fs.h").

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::{Raw, unknown_bits};
use crate::base::{to_u64, to_usize};
use std::ops::Range;

/// The block that is known, in bytes. Kernels with larger pages can make larger ones.
pub(super) const BLOCK: u64 = 4096;
/// Blocks in a segment.
pub(super) const SEGMENT: u64 = 512;
/// Where the superblock lies in each of the first two blocks, and its length.
pub(super) const SUPERBLOCK: u64 = 1024;
pub(super) const SUPERBLOCK_LEN: u64 = 3072;
/// The superblock's magic number, and what every checksum begins with.
pub(super) const MAGIC: u32 = 0xF2F5_2010;
/// Entries of segment information in a block, and the length of one.
pub(super) const SIT_PER_BLOCK: u64 = 55;
const SIT_ENTRY: usize = 74;
/// Length of a journal in a summary block, and the most entries it has room for.
const JOURNAL: usize = 507;
const MAX_JOURNAL: u16 = 6;
/// Where a summary block has its journal.
const SUMMARY_JOURNAL: usize = 3584;
/// Where a checkpoint has its version bitmaps.
const VERSION_BITMAPS: usize = 192;
/// More blocks of version bitmap than this are no checkpoint: a pack fits into a segment.
const MAX_PAYLOAD: u32 = 500;

/// Features that do not change where allocation is recorded: encryption, extra attributes, project
/// quota, inode checksums, flexible inline attributes, quota files, creation times, lost+found,
/// verity, superblock checksum, case folding, compression.
const KNOWN_FEATURES: u32 = 0x3FF9;
const FEATURE_ZONED: u32 = 0x2;
const FEATURE_FLEXIBLE_XATTR: u32 = 0x40;
const FEATURE_SB_CHECKSUM: u32 = 0x800;
const FEATURE_READ_ONLY: u32 = 0x4000;

/// CRC-32 as F2FS computes it.
fn crc(seed: u32, bytes: &[u8]) -> u32 {
    checksum::crc32_raw(seed, bytes)
}

/// A superblock, checked in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Length of the file system in blocks.
    pub(super) blocks: u64,
    /// First block of the checkpoints, and of the segment information.
    pub(super) checkpoints: u64,
    pub(super) sit: u64,
    /// First block of the main area.
    pub(super) main: u64,
    /// Segments of segment information (both copies), of node addresses, and of the main area.
    pub(super) sit_segments: u64,
    pub(super) nat_segments: u64,
    pub(super) main_segments: u64,
    /// Blocks of version bitmap behind the first block of a checkpoint.
    pub(super) payload: u64,
    /// First block of the node addresses.
    pub(super) nat: u64,
    /// Whether inodes say how much room their attributes take.
    pub(super) flexible: bool,
    /// Errors that the kernel has met.
    errors: [u8; 16],
    uuid: [u8; 16],
}

impl Superblock {
    /// From the [`SUPERBLOCK_LEN`] bytes at [`SUPERBLOCK`] of one of the first two blocks.
    pub(super) fn decode(bytes: &[u8]) -> Result<Superblock, Doubt> {
        let raw = Raw::new(bytes, "superblock");
        ensure(raw.le32(0)? == MAGIC, || "the magic number is wrong")?;
        let features = raw.le32(2180)?;
        if features & FEATURE_SB_CHECKSUM != 0 {
            let at = raw.le32(32)?;
            ensure(at == 3068, || {
                format!("its checksum is said to lie at {at}")
            })?;
            let computed = crc(MAGIC, raw.slice(0, 3068)?);
            ensure(
                checksum::matches(computed, raw.le32(3068)?),
                || "its checksum is wrong",
            )?;
        }
        features_are_known(features)?;
        ensure(
            raw.u8(2201)? == 0,
            || "the file system lies on more than one device, and this is only one of them",
        )?;
        for (at, expected, what) in [
            (16, 12, "a block size"),
            (20, 9, "a number of blocks in a segment"),
        ] {
            let found = raw.le32(at)?;
            ensure(found == expected, || {
                format!("it has {what} of 2^{found}, and only 2^{expected} is known")
            })?;
        }
        let copy = |at| -> Result<[u8; 16], Doubt> {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(raw.slice(at, 16)?);
            Ok(bytes)
        };
        let number = |at| raw.le32(at).map(u64::from);
        let superblock = Superblock {
            blocks: raw.le64(36)?,
            checkpoints: number(76)?,
            sit: number(80)?,
            main: number(92)?,
            sit_segments: number(56)?,
            nat_segments: number(60)?,
            main_segments: number(68)?,
            payload: number(1664)?,
            nat: number(84)?,
            flexible: features & FEATURE_FLEXIBLE_XATTR != 0,
            errors: copy(2794)?,
            uuid: copy(108)?,
        };
        superblock.areas_follow_each_other(&raw)?;
        Ok(superblock)
    }

    fn areas_follow_each_other(&self, raw: &Raw<'_>) -> Result<(), Doubt> {
        let number = |at| raw.le32(at).map(u64::from);
        let mut expected = number(72)?;
        for (what, start, segments) in [
            ("checkpoints", 76, 52),
            ("segment information", 80, 56),
            ("node addresses", 84, 60),
            ("segment summaries", 88, 64),
            ("main area", 92, 68),
        ] {
            let at = number(start)?;
            ensure(at == expected, || {
                format!("its {what} are said to begin at block {at}, not {expected}")
            })?;
            expected += number(segments)? * SEGMENT;
        }
        let all = number(72)? + number(48)? * SEGMENT;
        ensure(
            expected <= all && all <= self.blocks && number(72)? >= 2,
            || {
                format!(
                    "its areas end at block {expected}, its segments at {all}, and it has {} blocks",
                    self.blocks
                )
            },
        )?;
        ensure(number(52)? == 2, || "its checkpoints have not two segments")?;
        let (room, needed) = (
            self.sit_segments / 2 * SEGMENT * SIT_PER_BLOCK,
            self.main_segments,
        );
        ensure(needed > 0 && needed <= room, || {
            format!("it has {needed} segments, and information on {room}")
        })?;
        ensure(self.payload <= u64::from(MAX_PAYLOAD), || {
            format!(
                "its checkpoints are said to be {} blocks long",
                self.payload
            )
        })
    }

    /// Whether the kernel has met errors that no check has cleared.
    pub(super) fn has_errors(&self) -> bool {
        self.errors.iter().any(|b| *b != 0)
    }

    /// First block of segment `number` of the main area.
    pub(super) fn segment(&self, number: u64) -> u64 {
        self.main + number * SEGMENT
    }

    /// Number of blocks of segment information in use.
    pub(super) fn sit_blocks(&self) -> u64 {
        self.main_segments.div_ceil(SIT_PER_BLOCK)
    }

    /// Blocks of one copy of the segment information.
    pub(super) fn sit_copy(&self) -> u64 {
        self.sit_segments / 2 * SEGMENT
    }
}

fn features_are_known(features: u32) -> Result<(), Doubt> {
    ensure(
        features & FEATURE_ZONED == 0,
        || "it is made for zoned devices, where blocks can be in use beyond its maps",
    )?;
    ensure(
        features & FEATURE_READ_ONLY == 0,
        || "it is made to be read only, with its blocks packed",
    )?;
    match unknown_bits(features.into(), KNOWN_FEATURES.into()) {
        None => Ok(()),
        Some(bits) => Err(Doubt::new(format!("it has unknown features: {bits}"))),
    }
}

/// The label: UTF-16, up to its first NUL.
pub(super) fn label(superblock: &[u8]) -> Option<String> {
    let name = superblock.get(124..1148)?;
    let units = name
        .chunks_exact(2)
        .map(|c| u16::from_le_bytes([c[0], c[1]]));
    let units: Vec<u16> = units.take_while(|u| *u != 0).collect();
    let text = String::from_utf16_lossy(&units).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The flags of a checkpoint that are more than a hint.
pub(super) mod flag {
    pub(in super::super) const UMOUNT: u32 = 0x1;
    pub(in super::super) const COMPACT_SUM: u32 = 0x4;
    pub(in super::super) const FASTBOOT: u32 = 0x20;
    pub(in super::super) const CRC_RECOVERY: u32 = 0x40;
    pub(in super::super) const NOCRC_RECOVERY: u32 = 0x200;
    pub(in super::super) const LARGE_NAT_BITMAP: u32 = 0x400;
    /// Each with what it says.
    pub(in super::super) const TROUBLE: [(u32, &str); 5] = [
        (0x8, "the kernel stopped writing it after an error"),
        (0x10, "it is marked for a check"),
        (0x800, "its quotas are marked for a check"),
        (0x1000 | 0x2000, "its checkpoints are switched off"),
        (0x4000, "it was being resized"),
    ];
    /// With orphans (0x2), node address bits (0x80) and discards (0x100), which change nothing here.
    pub(in super::super) const KNOWN: u32 = 0x7FFF;
}

/// The first block of a checkpoint pack. The last one is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) version: u64,
    /// Blocks in use in the main area.
    pub(super) valid_blocks: u64,
    /// Segments that are written to: three of nodes, then three of data.
    pub(super) current: [u64; 6],
    /// Where the next node of files goes: its segment and block in it.
    pub(super) next_node: (u64, u64),
    pub(super) flags: u32,
    /// Blocks of the pack, and where its summaries begin.
    pub(super) pack_blocks: u64,
    pub(super) summaries: u64,
    /// Length of the version bitmaps in bytes.
    pub(super) sit_bitmap: u32,
    pub(super) nat_bitmap: u32,
    /// The stored checksum, which is part of what nodes call this checkpoint.
    pub(super) checksum: u32,
}

impl Checkpoint {
    /// From a block that should be one end of a pack; `None` unless its checksum is right.
    pub(super) fn decode(block: &[u8]) -> Result<Option<Checkpoint>, Doubt> {
        let raw = Raw::new(block, "checkpoint");
        let at = to_usize(raw.le32(164)?.into());
        if !(VERSION_BITMAPS..=to_usize(BLOCK) - 4).contains(&at) {
            return Ok(None);
        }
        let stored = raw.le32(at)?;
        let mut computed = crc(MAGIC, raw.slice(0, at)?);
        if at + 4 < to_usize(BLOCK) {
            computed = crc(computed, raw.from(at + 4)?.bytes());
        }
        if !checksum::matches(computed, stored) {
            return Ok(None);
        }
        let number = |at| raw.le32(at).map(u64::from);
        let mut current = [0; 6];
        for (n, at) in [36, 40, 44, 84, 88, 92].into_iter().enumerate() {
            current[n] = number(at)?;
        }
        Ok(Some(Checkpoint {
            version: raw.le64(0)?,
            valid_blocks: raw.le64(16)?,
            current,
            next_node: (number(40)?, raw.le16(70)?.into()),
            flags: raw.le32(132)?,
            pack_blocks: number(136)?,
            summaries: number(140)?,
            sit_bitmap: raw.le32(156)?,
            nat_bitmap: raw.le32(160)?,
            checksum: stored,
        }))
    }

    /// Whether any of `flags` is set.
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    /// Where the version bitmap of the segment information lies, in bytes from the pack's start.
    pub(super) fn sit_bitmap_at(&self, payload: u64) -> Range<u64> {
        let start = if self.has(flag::LARGE_NAT_BITMAP) {
            // The checksum stands before both bitmaps.
            to_u64(VERSION_BITMAPS) + 4 + u64::from(self.nat_bitmap)
        } else if payload > 0 {
            BLOCK
        } else {
            to_u64(VERSION_BITMAPS)
        };
        start..start + u64::from(self.sit_bitmap)
    }

    /// Where the version bitmap of the node addresses lies, in bytes from the pack's start.
    pub(super) fn nat_bitmap_at(&self, payload: u64) -> Range<u64> {
        let before = if self.has(flag::LARGE_NAT_BITMAP) {
            4
        } else if payload > 0 {
            0
        } else {
            u64::from(self.sit_bitmap)
        };
        let start = to_u64(VERSION_BITMAPS) + before;
        start..start + u64::from(self.nat_bitmap)
    }

    /// Where the journal of the segment information lies: block of the pack, and byte in it.
    pub(super) fn sit_journal_at(&self) -> Option<(u64, usize)> {
        // Of the summaries of data, that of cold data has it. Compact ones follow each other.
        self.journal_at(2, JOURNAL)
    }

    /// Where the journal of the node addresses lies.
    pub(super) fn nat_journal_at(&self) -> Option<(u64, usize)> {
        self.journal_at(0, 0)
    }

    fn journal_at(&self, summary: u64, compact: usize) -> Option<(u64, usize)> {
        if self.has(flag::COMPACT_SUM) {
            return Some((self.summaries, compact));
        }
        // All summaries are there, or those of data only; the last block ends the pack.
        let kinds = if self.has(flag::UMOUNT | flag::FASTBOOT) {
            6
        } else {
            3
        };
        let block = self.pack_blocks.checked_sub(kinds + 1)? + summary;
        Some((block, SUMMARY_JOURNAL))
    }
}

/// Whether the block `node` was written after `checkpoint` and before the next one, so that a mount
/// would look at it ("fs/f2fs/node.h", `is_recoverable_dnode`).
pub(super) fn follows(checkpoint: &Checkpoint, node: &[u8]) -> Result<bool, Doubt> {
    // The footer's checkpoint: the last 24 bytes are node, inode, flag, checkpoint and next block.
    let stored = Raw::new(node, "node").le64(to_usize(BLOCK) - 12)?;
    if checkpoint.has(flag::NOCRC_RECOVERY) {
        return Ok(stored << 32 == checkpoint.version << 32);
    }
    let mut version = checkpoint.version;
    if checkpoint.has(flag::CRC_RECOVERY) {
        version |= u64::from(checkpoint.checksum) << 32;
    }
    Ok(stored == version)
}

/// Which blocks of a segment are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    map: [u8; 64],
}

impl Segment {
    /// Entry `index` of a block of segment information, or the bytes of one (with `index` 0).
    ///
    /// # Errors
    /// A doubt when its count is not that of its map; `number` is its segment.
    pub(super) fn decode(bytes: &[u8], index: usize, number: u64) -> Result<Segment, Doubt> {
        let raw = Raw::new(bytes, "segment information").from(index * SIT_ENTRY)?;
        let said = u32::from(raw.le16(0)? & 0x3FF);
        let mut map = [0; 64];
        map.copy_from_slice(raw.slice(2, 64)?);
        let segment = Segment { map };
        let counted = segment.count();
        ensure(said == counted, || {
            format!(
                "segment {number} is said to have {said} blocks in use, and its map has {counted}"
            )
        })?;
        Ok(segment)
    }

    /// Number of blocks in use.
    pub(super) fn count(&self) -> u32 {
        self.map.iter().map(|b| b.count_ones()).sum()
    }

    /// Runs of blocks that are not in use.
    pub(super) fn gaps(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = (at..SEGMENT).find(|b| !bit(&self.map, *b))?;
            let end = (start..SEGMENT).find(|b| bit(&self.map, *b));
            at = end.unwrap_or(SEGMENT);
            Some(start..at)
        })
    }
}

/// Bit `n` of a bitmap, the highest of a byte first, as all of F2FS' are.
pub(super) fn bit(map: &[u8], n: u64) -> bool {
    let byte = map.get(to_usize(n / 8)).copied().unwrap_or_default();
    byte & (0x80 >> (n % 8)) != 0
}

/// The entries of the journal at `at` of a summary block, each with its segment.
pub(super) fn journal(block: &[u8], at: usize) -> Result<Vec<(u64, Segment)>, Doubt> {
    let raw = Raw::new(block, "journal of segment information").from(at)?;
    let count = raw.le16(0)?;
    ensure(count <= MAX_JOURNAL, || {
        format!("its journal of segment information is said to have {count} entries")
    })?;
    (0..usize::from(count))
        .map(|n| {
            let at = 2 + n * (4 + SIT_ENTRY);
            let number = u64::from(raw.le32(at)?);
            let entry = raw.slice(at + 4, SIT_ENTRY)?;
            Ok((number, Segment::decode(entry, 0, number)?))
        })
        .collect()
}
