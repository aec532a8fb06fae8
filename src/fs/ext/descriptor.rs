//! Group descriptors and block bitmaps as values, and their checksums. Facts: `fs/ext4/ext4.h` and
//! `fs/ext4/super.c` of the Linux kernel.

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::disk::{Superblock, wide};

/// A group descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    /// Free clusters.
    pub(super) free: u64,
    /// The block bitmap was never written: what is there means nothing.
    pub(super) uninitialised: bool,
    /// The inode bitmap and table were never written.
    pub(super) inodes_uninitialised: bool,
    /// Inodes at the end of the table that were never written.
    pub(super) unused_inodes: u64,
    /// CRC-32C of the block bitmap, the lower half only in short descriptors.
    bitmap_sum: u32,
}

impl Descriptor {
    /// The descriptor in `bytes`, of `group`.
    ///
    /// # Errors
    /// A doubt when its checksum is wrong.
    pub(super) fn decode(
        bytes: &[u8],
        superblock: &Superblock,
        group: u64,
    ) -> Result<Descriptor, Doubt> {
        let raw = Raw::new(bytes, "group descriptor");
        if superblock.has_descriptor_sums() {
            let computed = descriptor_sum(&raw, superblock, group)?;
            ensure(checksum::matches(computed, raw.le16(0x1E)?), || {
                format!("the checksum of its group descriptor {group} is wrong; run e2fsck")
            })?;
        }
        let long = superblock.descriptor >= 64;
        let high32 = |at| if long { raw.le32(at) } else { Ok(0) };
        let high16 = |at| if long { raw.le16(at) } else { Ok(0) };
        let pair = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
        let flags = raw.le16(0x12)?;
        Ok(Descriptor {
            block_bitmap: wide(raw.le32(0x00)?, high32(0x20)?),
            inode_bitmap: wide(raw.le32(0x04)?, high32(0x24)?),
            inode_table: wide(raw.le32(0x08)?, high32(0x28)?),
            free: pair(raw.le16(0x0C)?, high16(0x2C)?).into(),
            uninitialised: superblock.has_descriptor_sums() && flags & 2 != 0,
            inodes_uninitialised: superblock.has_descriptor_sums() && flags & 1 != 0,
            unused_inodes: if superblock.has_descriptor_sums() {
                pair(raw.le16(0x1C)?, high16(0x32)?).into()
            } else {
                0
            },
            bitmap_sum: pair(raw.le16(0x18)?, high16(0x38)?),
        })
    }

    /// How many of the group's `all` inodes have ever been written: those at the start of its table.
    pub(super) fn inodes(&self, all: u64) -> u64 {
        if self.inodes_uninitialised {
            0
        } else {
            all.saturating_sub(self.unused_inodes)
        }
    }

    /// Doubts unless `bitmap`, the bytes with a bit for each cluster of `group`, has the checksum
    /// that it should have.
    pub(super) fn check_bitmap(
        &self,
        bitmap: &[u8],
        superblock: &Superblock,
        group: u64,
    ) -> Result<(), Doubt> {
        if !superblock.has_metadata_csum() {
            return Ok(());
        }
        let computed = checksum::crc32c_raw(superblock.seed, bitmap);
        let mask = if superblock.descriptor >= 64 {
            !0
        } else {
            0xFFFF
        };
        ensure(checksum::matches(computed & mask, self.bitmap_sum), || {
            format!(
                "the checksum of the block bitmap of its group {group} (block {}) is wrong; run e2fsck",
                self.block_bitmap
            )
        })
    }
}

/// The checksum that descriptor `raw` should have.
fn descriptor_sum(raw: &Raw<'_>, superblock: &Superblock, group: u64) -> Result<u16, Doubt> {
    let group = u32::try_from(group)
        .map_err(|_| Doubt::new(format!("it cannot have a group {group}")))?
        .to_le_bytes();
    let (head, tail) = (raw.slice(0, 0x1E)?, raw.from(0x20)?.bytes());
    if !superblock.has_metadata_csum() {
        let parts: [&[u8]; 4] = [&superblock.uuid, &group, head, tail];
        return Ok(parts.into_iter().fold(!0, crc16));
    }
    let parts: [&[u8]; 4] = [&group, head, &[0, 0], tail];
    let sum = parts
        .into_iter()
        .fold(superblock.seed, checksum::crc32c_raw);
    let [low, high, ..] = sum.to_le_bytes();
    Ok(u16::from_le_bytes([low, high]))
}

/// CRC-16 with the reflected polynomial 0xA001, beginning with `seed`.
fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0xA001 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_has_its_known_answer() {
        // CRC-16/MODBUS as the catalogues list it.
        assert_eq!(crc16(!0, b"123456789"), 0x4B37);
        assert_eq!(crc16(crc16(!0, b"1234"), b"56789"), 0x4B37);
    }
}
