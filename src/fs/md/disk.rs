//! Superblocks of Linux' software RAID as values.
//!
//! Source: `include/uapi/linux/raid/md_p.h` and `drivers/md/md.c`. Version 1 is little-endian;
//! version 0.90 is as the machine was that made it.

use super::super::checksum::matches;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::{Raw, label, unknown_bits};
use crate::base::to_usize;

pub(super) const MAGIC: u32 = 0xA92B_4EFC;
/// Version 1: a superblock with the roles of the most disks there can be.
pub(super) const LEN: u64 = 4096;
/// More disks than an array can have (`MD_SB_DISKS` for version 0.90).
const MAX_DISKS: u32 = 1920;
/// `feature_map`: it has a bitmap of what is being written.
const BITMAP: u64 = 1;
/// Roles from here on are none: journal, faulty, spare.
const FIRST_SPECIAL_ROLE: u16 = 0xFFFD;
/// Version 0.90, `state`: no write was going on, and all copies are the same.
const CLEAN: u32 = 1;
/// Version 0.90, `state`: what a clean array may say beside that: it has a bitmap (256).
const KNOWN_STATES: u64 = 0x101;
/// Version 0.90, the state of a disk: active (2) and in step (4); it may be read last (512).
const IN_STEP: u32 = 6;
const KNOWN_DISK_STATES: u64 = 0x206;

/// What a superblock says of the array and of this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) level: i32,
    pub(super) name: Option<String>,
    pub(super) disks: u32,
    /// First byte of the data.
    pub(super) data: u64,
    /// Bytes of the data that the array uses of this member.
    pub(super) size: u64,
    /// First byte of the bitmap, if it has one.
    pub(super) bitmap: Option<u64>,
    /// Why this member alone does not tell the array's content, though its level would allow that.
    pub(super) unsteady: Option<String>,
}

/// Whether these are the first bytes of a superblock of version 1.
pub(super) fn is_version_1(bytes: &[u8]) -> bool {
    let raw = Raw::new(bytes, "superblock");
    raw.le32(0).ok() == Some(MAGIC) && raw.le32(4).ok() == Some(1)
}

/// Whether these are the first bytes of a superblock of version 0.90, in either byte order.
pub(super) fn is_version_0(bytes: &[u8]) -> bool {
    let raw = Raw::new(bytes, "superblock");
    let le = raw.le32(0).ok() == Some(MAGIC) && raw.le32(4).ok() == Some(0);
    let be = raw.be32(0).ok() == Some(MAGIC) && raw.be32(4).ok() == Some(0);
    le || be
}

/// The name of a RAID level, as in "a RAID5 array".
pub(super) fn level_name(level: i32) -> String {
    match level {
        -1 => "linear".to_owned(),
        -4 => "multipath".to_owned(),
        n => format!("RAID{n}"),
    }
}

/// The level in a superblock of version 1, whatever else is wrong with it.
pub(super) fn level_of_version_1(bytes: &[u8]) -> Result<i32, Doubt> {
    Ok(Raw::new(bytes, "superblock").le32(72)?.cast_signed())
}

/// The level in a superblock of version 0.90.
pub(super) fn level_of_version_0(bytes: &[u8]) -> Result<i32, Doubt> {
    let raw = Raw::new(bytes, "superblock");
    let level = if raw.le32(0)? == MAGIC {
        raw.le32(28)?
    } else {
        raw.be32(28)?
    };
    Ok(level.cast_signed())
}

/// The array's name in a superblock of version 1: "host:name".
pub(super) fn name_of_version_1(bytes: &[u8]) -> Option<String> {
    bytes.get(32..64).and_then(label)
}

impl Superblock {
    /// From the [`LEN`] bytes at byte `place` of a member.
    pub(super) fn version_1(bytes: &[u8], place: u64) -> Result<Superblock, Doubt> {
        let raw = Raw::new(bytes, "superblock");
        ensure(
            raw.le64(144)?.checked_mul(512) == Some(place),
            || "its superblock says that it belongs elsewhere; the partition may have been resized",
        )?;
        let max_disks = raw.le32(220)?;
        ensure(max_disks <= MAX_DISKS, || {
            format!("its superblock has room for {max_disks} disks")
        })?;
        let summed = raw.slice(0, to_usize(256 + 2 * u64::from(max_disks)))?;
        ensure(
            matches(sum(summed, 216), raw.le32(216)?),
            || "the checksum of its superblock is wrong",
        )?;
        let bytes_at = |at| sectors(raw.le64(at)?);
        let features = raw.le32(8)?;
        let bitmap_at = raw.le32(96)?.cast_signed();
        let bitmap = place.checked_add_signed(i64::from(bitmap_at) * 512);
        let bitmap = (u64::from(features) & BITMAP != 0).then_some(bitmap);
        let size = bytes_at(80)?;
        ensure(
            size <= bytes_at(136)?,
            || "its array uses more of it than its superblock gives it",
        )?;
        Ok(Superblock {
            level: level_of_version_1(bytes)?,
            name: name_of_version_1(bytes),
            disks: raw.le32(92)?,
            data: bytes_at(128)?,
            size,
            bitmap: bitmap.map(|at| at.unwrap_or(0)),
            unsteady: unsteady_version_1(&raw, max_disks)?,
        })
    }

    /// From the [`LEN`] bytes of a superblock of version 0.90.
    pub(super) fn version_0(bytes: &[u8]) -> Result<Superblock, Doubt> {
        let raw = Raw::new(bytes, "superblock");
        ensure(
            raw.le32(0)? == MAGIC,
            || "it was made on a machine of the other byte order",
        )?;
        ensure(
            matches(sum(raw.slice(0, 4096)?, 152), raw.le32(152)?),
            || "the checksum of its superblock is wrong",
        )?;
        Ok(Superblock {
            level: level_of_version_0(bytes)?,
            name: None,
            disks: raw.le32(40)?,
            data: 0,
            size: u64::from(raw.le32(32)?) * 1024,
            bitmap: None,
            unsteady: unsteady_version_0(&raw)?,
        })
    }
}

fn sectors(count: u64) -> Result<u64, Doubt> {
    let bytes = count.checked_mul(512);
    bytes.ok_or_else(|| Doubt::new(format!("its superblock speaks of sector {count}")))
}

/// The sum over all words but the one at `but`, folded once.
fn sum(bytes: &[u8], but: usize) -> u32 {
    let mut sum = 0u64;
    for (word, at) in bytes.chunks(4).zip((0..).step_by(4)) {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        if at != but {
            sum += u64::from(u32::from_le_bytes(padded));
        }
    }
    let folded = (sum & 0xFFFF_FFFF) + (sum >> 32);
    u32::try_from(folded & 0xFFFF_FFFF).unwrap_or(0)
}

fn unsteady_version_1(raw: &Raw<'_>, max_disks: u32) -> Result<Option<String>, Doubt> {
    let features = u64::from(raw.le32(8)?);
    if let Some(bits) = unknown_bits(features, BITMAP) {
        return Ok(Some(format!(
            "it is being rebuilt, reshaped or has bad blocks, or uses features that are not known \
             (feature bits {bits})"
        )));
    }
    if raw.le64(208)? != u64::MAX {
        return Ok(Some(
            "its array was not shut down cleanly, or its copies are not all the same yet"
                .to_owned(),
        ));
    }
    let number = raw.le32(160)?;
    let role = if number < max_disks {
        raw.le16(to_usize(256 + 2 * u64::from(number)))?
    } else {
        u16::MAX
    };
    let active = role < FIRST_SPECIAL_ROLE && u32::from(role) < raw.le32(92)?;
    Ok((!active).then(|| "it is a spare or failed disk of its array".to_owned()))
}

fn unsteady_version_0(raw: &Raw<'_>) -> Result<Option<String>, Doubt> {
    if raw.le32(8)? != 90 {
        return Ok(Some("its array is being reshaped".to_owned()));
    }
    let state = raw.le32(132)?;
    if state & CLEAN == 0 || unknown_bits(u64::from(state), KNOWN_STATES).is_some() {
        return Ok(Some(format!(
            "its array was not shut down cleanly, or its copies are not all the same yet (state \
             {state:#x})"
        )));
    }
    // This disk's own entry is the last of the superblock.
    let (role, disk) = (raw.le32(3980)?, raw.le32(3984)?);
    let active = disk & IN_STEP == IN_STEP
        && unknown_bits(u64::from(disk), KNOWN_DISK_STATES).is_none()
        && role < raw.le32(40)?;
    Ok((!active).then(|| "it is a spare or failed disk of its array".to_owned()))
}
