//! What else may stand at the start of a disk: a file system's boot sector, another system's table,
//! the image of an optical disc.

use super::disk::{Disk, Got, field, le16, le32};
use crate::base::{ByteLen, ByteOffset, Extent, Result};

/// How sure a boot sector is to be a file system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BootSector {
    /// No file system's.
    No,
    /// This file system's.
    Yes(&'static str),
}

/// Whether the disk starts with a file system that ends its boot sector in 55 AA like an MBR.
///
/// # Errors
/// As [`Disk::read`].
pub(super) fn boot_sector(disk: Disk<'_>, sector: &[u8]) -> Result<BootSector> {
    let oem: [u8; 8] = field(sector, 3);
    let name = match &oem {
        // exFAT specification 3.1.3: the bytes where a FAT has its BPB are zero.
        b"EXFAT   " if field(sector, 11) == [0u8; 53] => "exFAT",
        b"NTFS    " if is_ntfs(sector) => "NTFS",
        b"-FVE-FS-" => "BitLocker",
        _ if fat_is_there(disk, sector)? => "FAT",
        _ => return Ok(BootSector::No),
    };
    Ok(BootSector::Yes(name))
}

/// The fields that NTFS keeps zero, and a sector size that exists (kernel `fs/ntfs3/super.c`,
/// `ntfs_init_from_boot`).
fn is_ntfs(sector: &[u8]) -> bool {
    sector_size(sector).is_some() && field(sector, 14) == [0u8; 7] && le16(sector, 22) == 0
}

/// Bytes per sector as FAT and NTFS store them.
fn sector_size(sector: &[u8]) -> Option<u64> {
    let bytes = u64::from(le16(sector, 11));
    (bytes.is_power_of_two() && (512..=4096).contains(&bytes)).then_some(bytes)
}

/// Whether the BIOS parameter block is that of a FAT (kernel `fs/fat/inode.c`,
/// `fat_read_bios_bpb`) and the allocation table that it points at is there. The second half
/// matters: `grub-install` keeps an old parameter block in the boot code of a real MBR. A bad
/// sector in that place counts as "there", because then the disk is taken whole.
fn fat_is_there(disk: Disk<'_>, sector: &[u8]) -> Result<bool> {
    let Some(bytes_per_sector) = sector_size(sector) else {
        return Ok(false);
    };
    let [sectors_per_cluster] = field::<1>(sector, 13);
    let reserved = u64::from(le16(sector, 14));
    let [fats] = field::<1>(sector, 16);
    let total = u32::from(le16(sector, 19)) | le32(sector, 32);
    let [media] = field::<1>(sector, 21);
    let fits = sectors_per_cluster.is_power_of_two()
        && reserved > 0
        && fats > 0
        && total > 0
        && (media == 0xf0 || media >= 0xf8);
    if !fits {
        return Ok(false);
    }
    // The first entry repeats the media byte and is filled up with ones, whatever its width.
    Ok(match disk.read(reserved * bytes_per_sector, 2)? {
        Got::Bytes(bytes) => bytes == [media, 0xff],
        Got::Unreadable(_) => true,
        Got::Outside => false,
    })
}

/// The table of another system at the start of the disk, if there is one that a signature gives
/// away. Signatures from the kernel's `block/partitions/{mac,sun,sgi,aix,amiga}.c` and `ldm.c`.
///
/// # Errors
/// As [`Disk::read`].
pub(super) fn other_table(disk: Disk<'_>, sector: &[u8]) -> Result<Option<&'static str>> {
    let head: [u8; 4] = field(sector, 0);
    let known = match &head {
        [b'E', b'R', _, _] if disk_has(disk, 512, b"PM")? => Some("an Apple partition map"),
        [0x0b, 0xe5, 0xa9, 0x41] => Some("an SGI disk label"),
        [0xc9, 0xc2, 0xd4, 0xc1] => Some("an AIX disk label"),
        b"RDSK" => Some("an Amiga rigid disk block"),
        _ if field(sector, 508) == [0xda, 0xbe] => Some("a Sun disk label"),
        _ if disk_has(disk, 512, &[0x57, 0x45, 0x56, 0x82])? => Some("a BSD disk label"),
        _ if disk_has(disk, 6 * 512, b"PRIVHEAD")? => Some("a Windows dynamic disk"),
        _ => None,
    };
    Ok(known)
}

fn disk_has(disk: Disk<'_>, offset: u64, magic: &[u8]) -> Result<bool> {
    let found = disk.read(offset, crate::base::to_u64(magic.len()))?.bytes();
    Ok(found.is_some_and(|bytes| bytes == magic))
}

/// Where the primary volume descriptor of an ISO 9660 image lies (ECMA-119, 6.2.1 and 8.4): sector
/// 16 of 2048 bytes.
const ISO_DESCRIPTOR: Extent = Extent {
    start: ByteOffset(16 * 2048),
    len: ByteLen(2048),
};

/// The place of an ISO 9660 volume descriptor of the whole disk, when there is one.
///
/// # Errors
/// As [`Disk::read`].
pub(super) fn iso9660(disk: Disk<'_>) -> Result<Option<Extent>> {
    let found = disk_has(disk, ISO_DESCRIPTOR.start.0 + 1, b"CD001")?;
    Ok(found.then_some(ISO_DESCRIPTOR))
}
