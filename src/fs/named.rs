//! Formats that are recognised by name and taken whole, because their used maps are not read.
//!
//! A name in the report tells a person what was taken, and a signature here keeps a stale one of
//! another format from deciding alone. Only primary places count: copies elsewhere outlive a format.
//! For ZFS that is the first of its four labels, which every formatting tool overwrites; the two at
//! the end of a disk often stay for years.
//!
//! Magic numbers of 16 bits occur by chance, so fields around them are looked at too.
//!
//! Sources: the kernel's headers of each format (`include/uapi/linux/magic.h` for most), util-linux'
//! `libblkid/src/superblocks`.

use super::doubt::Doubt;
use super::raw::Raw;
use super::volume::Volume;
use super::{Found, Reader, Used};
use crate::base::{to_u64, to_usize};

/// Formats that have their signature at the start.
pub(super) struct Named;
/// DRBD, whose metadata is at the end, behind what lies on it.
pub(super) struct Drbd;

/// So much of a structure is looked at.
const LOOK: u64 = 1536;
/// DRBD's metadata is this far from the end, counted in whole units of that.
const DRBD_FROM_END: u64 = 4096;
/// Without its last byte, which tells the version: 8.3, 8.4 or 9.
const DRBD_MAGIC: &[u8] = &[0x83, 0x74, 0x02];
const DRBD_VERSIONS: std::ops::RangeInclusive<u8> = 0x6B..=0x6D;

/// A structure and what it has to hold.
struct Signature {
    kind: &'static str,
    /// First byte of the structure.
    start: u64,
    /// Where in it the magic number is.
    at: usize,
    magic: &'static [u8],
    /// What else must hold: given the structure and the volume's length.
    also: fn(&Raw<'_>, u64) -> Result<bool, Doubt>,
}

const fn row(kind: &'static str, start: u64, at: usize, magic: &'static [u8]) -> Signature {
    Signature {
        kind,
        start,
        at,
        magic,
        also: |_, _| Ok(true),
    }
}

impl Signature {
    const fn and(self, also: fn(&Raw<'_>, u64) -> Result<bool, Doubt>) -> Signature {
        Signature { also, ..self }
    }

    /// Whether it is there; a structure that is cut off is none.
    fn matches(&self, volume: &Volume<'_>) -> Result<bool, Doubt> {
        let len = volume.len().saturating_sub(self.start).min(LOOK);
        if len == 0 {
            return Ok(false);
        }
        let bytes = volume.read(self.start, len)?;
        let raw = Raw::new(&bytes, "signature");
        let there = raw.slice(self.at, self.magic.len()).ok() == Some(self.magic);
        Ok(there && (self.also)(&raw, volume.len()).unwrap_or(false))
    }
}

/// Every format, containers first.
const SIGNATURES: &[Signature] = &[
    row("LVM1", 0, 0, b"HM").and(lvm1),
    row("VDO", 0, 0, b"dmvdo001"),
    row("dm-integrity", 0, 0, b"integrt\0"),
    row("dm-verity", 0, 0, b"verity\0\0"),
    row("Stratis", 512, 4, b"!Stra0tis"),
    row(
        "bcache",
        4096,
        24,
        b"\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81",
    ),
    row("Oracle ASM", 0, 32, b"ORCLDISK"),
    row("Ceph BlueStore", 0, 0, b"bluestore block device"),
    row("APFS", 0, 32, b"NXSB").and(apfs),
    row(
        "bcachefs",
        4096,
        24,
        b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF",
    ),
    row("cramfs", 0, 0, b"\x45\x3D\xCD\x28").and(cramfs),
    row("cramfs", 0, 0, b"\x28\xCD\x3D\x45").and(cramfs),
    row("GFS2", 65_536, 0, b"\x01\x16\x19\x70").and(|raw, _| Ok(raw.be32(4)? == 1)),
    row("HFS", 1024, 0, b"BD").and(hfs),
    row("HFS+", 1024, 0, b"H+\0\x04").and(hfs_plus),
    row("HFSX", 1024, 0, b"HX\0\x05").and(hfs_plus),
    row("JFS", 32_768, 0, b"JFS1").and(|raw, _| Ok((1..=2).contains(&raw.le32(4)?))),
    row("minix", 1024, 16, b"\x7F\x13").and(minix),
    row("minix", 1024, 16, b"\x8F\x13").and(minix),
    row("minix", 1024, 16, b"\x68\x24").and(minix),
    row("minix", 1024, 16, b"\x78\x24").and(minix),
    row("minix", 1024, 24, b"\x5A\x4D").and(minix_3),
    row("NILFS2", 1024, 6, b"\x34\x34").and(nilfs),
    row("OCFS2", 1024, 0, b"OCFSV2"),
    row("OCFS2", 2048, 0, b"OCFSV2"),
    row("OCFS2", 4096, 0, b"OCFSV2"),
    row("OCFS2", 8192, 0, b"OCFSV2"),
    row("ReFS", 0, 3, b"ReFS\0\0\0\0"),
    row("reiser4", 65_536, 0, b"ReIsEr4"),
    row("ReiserFS", 8192, 52, b"ReIsErFs").and(reiserfs),
    row("ReiserFS", 65_536, 52, b"ReIsErFs").and(reiserfs),
    row("ReiserFS", 65_536, 52, b"ReIsEr2Fs").and(reiserfs),
    row("ReiserFS", 65_536, 52, b"ReIsEr3Fs").and(reiserfs),
    row("romfs", 0, 0, b"-rom1fs-"),
    row("UDF", 32_768, 0, b"\0BEA01\x01"),
    row("UFS1", 8192, 1372, b"\x54\x19\x01\x00"),
    row("UFS1", 8192, 1372, b"\x00\x01\x19\x54"),
    row("UFS2", 65_536, 1372, b"\x19\x01\x54\x19"),
    row("UFS2", 65_536, 1372, b"\x19\x54\x01\x19"),
    row("VMFS", 1 << 20, 0, b"\x0D\xD0\x01\xC0"),
    row("VMFS", 2 << 20, 0, b"\x5E\xF1\xAB\x2F"),
    // The label's list of names and values, in the external form, with unique names; made on a
    // little-endian machine and on a big-endian one.
    row("ZFS", 16_384, 0, b"\x01\x01\0\0\0\0\0\0\0\0\0\x01").and(zfs),
    row("ZFS", 16_384, 0, b"\x01\x00\0\0\0\0\0\0\0\0\0\x01").and(zfs),
];

/// Formats that can lie on several disks.
const ON_SEVERAL: [&str; 8] = [
    "LVM1",
    "VDO",
    "Stratis",
    "bcache",
    "Oracle ASM",
    "bcachefs",
    "VMFS",
    "ZFS",
];

fn lvm1(raw: &Raw<'_>, _: u64) -> Result<bool, Doubt> {
    Ok((1..=2).contains(&raw.le16(2)?) && raw.le32(4)? == 0 && raw.le32(8)? == 1024)
}

fn apfs(raw: &Raw<'_>, _: u64) -> Result<bool, Doubt> {
    let block = raw.le32(36)?;
    Ok(block.is_power_of_two() && (4096..=65_536).contains(&block))
}

fn cramfs(raw: &Raw<'_>, _: u64) -> Result<bool, Doubt> {
    Ok(raw.slice(16, 16)? == b"Compressed ROMFS")
}

fn hfs(raw: &Raw<'_>, len: u64) -> Result<bool, Doubt> {
    let (blocks, size) = (u64::from(raw.be16(18)?), u64::from(raw.be32(20)?));
    Ok(blocks > 0 && size > 0 && size.is_multiple_of(512) && blocks * size <= len)
}

fn hfs_plus(raw: &Raw<'_>, len: u64) -> Result<bool, Doubt> {
    let (size, blocks) = (raw.be32(40)?, u64::from(raw.be32(44)?));
    Ok(size.is_power_of_two() && size >= 512 && blocks > 0 && blocks * u64::from(size) <= len)
}

/// Versions 1 and 2: blocks of 1 KiB; both bitmaps must suffice, and the inodes lie between them and
/// the first zone.
fn minix(raw: &Raw<'_>, len: u64) -> Result<bool, Doubt> {
    let field = |at| raw.le16(at).map(u64::from);
    let (inodes, inode_map, zone_map) = (field(0)?, field(4)?, field(6)?);
    let (first, log) = (field(8)?, field(10)?);
    Ok(inodes > 0
        && log == 0
        && zone_map > 0
        && inode_map == (inodes + 1).div_ceil(8192)
        && first > 2 + inode_map + zone_map
        && first * 1024 < len)
}

fn minix_3(raw: &Raw<'_>, len: u64) -> Result<bool, Doubt> {
    let size = u64::from(raw.le16(28)?);
    let first = u64::from(raw.le16(10)?);
    let maps = u64::from(raw.le16(6)?) + u64::from(raw.le16(8)?);
    Ok(size.is_power_of_two() && size >= 1024 && first > 2 + maps && first * size < len)
}

/// Revision 2, and the superblock's own length.
fn nilfs(raw: &Raw<'_>, _: u64) -> Result<bool, Doubt> {
    Ok(raw.le32(0)? == 2 && (256..=1024).contains(&raw.le16(8)?))
}

fn reiserfs(raw: &Raw<'_>, _: u64) -> Result<bool, Doubt> {
    let block = raw.le16(44)?;
    Ok(block.is_power_of_two() && block >= 512)
}

/// The names come with their values; that of the version is always there.
fn zfs(raw: &Raw<'_>, _: u64) -> Result<bool, Doubt> {
    Ok(raw.bytes().windows(7).any(|w| w == b"version"))
}

fn find(volume: &Volume<'_>) -> Result<Option<&'static str>, Doubt> {
    for signature in SIGNATURES {
        if signature.matches(volume)? {
            return Ok(Some(signature.kind));
        }
    }
    Ok(None)
}

impl Reader for Named {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        Ok(find(volume)?.map(|kind| Found {
            kind: kind.to_owned(),
            label: None,
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let kind = find(volume)?.unwrap_or("this format");
        let more = if ON_SEVERAL.contains(&kind) {
            "; if it lies on several disks, they belong together"
        } else {
            ""
        };
        Err(Doubt::new(format!(
            "used maps of {kind} are not read{more}"
        )))
    }
}

impl Reader for Drbd {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let whole = volume.len() & !(DRBD_FROM_END - 1);
        let Some(place) = whole.checked_sub(DRBD_FROM_END) else {
            return Ok(None);
        };
        let bytes = volume.read(place, 512)?;
        let at = to_usize(60);
        let magic = bytes.get(at..at + 4).unwrap_or_default();
        let there = magic.starts_with(DRBD_MAGIC)
            && magic.last().is_some_and(|v| DRBD_VERSIONS.contains(v))
            && to_u64(magic.len()) == 4;
        Ok(there.then(|| Found {
            kind: "DRBD".to_owned(),
            label: None,
        }))
    }

    fn used(&self, _: &Volume<'_>) -> Result<Used, Doubt> {
        Err(Doubt::new(
            "it is replicated by DRBD, and what lies on it may be newer on its peer",
        ))
    }

    fn shows_inner_signature(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Cancel;
    use crate::block::MemorySource;

    fn kind(disk: Vec<u8>) -> Option<(String, String)> {
        let (source, cancel) = (MemorySource::new("m", disk), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        let found = Named.probe(&volume).unwrap()?;
        match Named.used(&volume) {
            Err(Doubt::Unsure(why)) => Some((found.kind, why)),
            other => panic!("{other:?}"),
        }
    }

    fn disk(start: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut disk = vec![0; 3 << 20];
        for (at, bytes) in fields {
            disk[start + at..start + at + bytes.len()].copy_from_slice(bytes);
        }
        disk
    }

    #[track_caller]
    fn assert_kind(expected: &str, start: usize, fields: &[(usize, &[u8])]) {
        let (found, why) = kind(disk(start, fields)).unwrap();
        assert_eq!(found, expected);
        assert!(
            why.starts_with(&format!("used maps of {expected} are not read")),
            "{why}"
        );
    }

    #[test]
    fn magic_numbers_that_stand_alone() {
        for (expected, at, magic) in [
            ("VDO", 0, b"dmvdo001".as_slice()),
            ("dm-integrity", 0, b"integrt\0"),
            ("dm-verity", 0, b"verity\0\0"),
            ("Stratis", 0x204, b"!Stra0tis\x86\xFF\x02^\x41rh"),
            ("ReFS", 3, b"ReFS\0\0\0\0FSRS"),
            ("reiser4", 0x10000, b"ReIsEr4"),
            ("UDF", 0x8000, b"\0BEA01\x01"),
            ("OCFS2", 0x2000, b"OCFSV2"),
            ("VMFS", 0x10_0000, &0xC001_D00D_u32.to_le_bytes()),
            ("VMFS", 0x20_0000, &0x2FAB_F15E_u32.to_le_bytes()),
            ("UFS1", 8192 + 1372, &0x0001_1954_u32.to_le_bytes()),
            ("UFS2", 65_536 + 1372, &0x1954_0119_u32.to_be_bytes()),
            ("Ceph BlueStore", 0, b"bluestore block device"),
        ] {
            assert_kind(expected, at, &[(0, magic)]);
        }
    }

    #[test]
    fn magic_numbers_with_what_must_be_around_them() {
        assert_kind("APFS", 0, &[(32, b"NXSB"), (37, b"\x10")]);
        assert_kind(
            "HFS+",
            1024,
            &[(0, b"H+\0\x04"), (42, b"\x10"), (47, b"\x10")],
        );
        assert_kind(
            "HFSX",
            1024,
            &[(0, b"HX\0\x05"), (42, b"\x10"), (47, b"\x10")],
        );
        assert_kind("HFS", 1024, &[(0, b"BD"), (19, b"\x64"), (22, b"\x02")]);
        assert_kind("GFS2", 65_536, &[(0, b"\x01\x16\x19\x70\0\0\0\x01")]);
        assert_kind("LVM1", 0, &[(0, b"HM\x02\0\0\0\0\0\0\x04")]);
        assert_kind(
            "cramfs",
            0,
            &[(0, b"\x45\x3D\xCD\x28"), (16, b"Compressed ROMFS")],
        );
        let label = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\x24\0\0\0\x20\0\0\0\x07version";
        assert_kind("ZFS", 16_384, &[(0, label)]);
    }

    #[test]
    fn short_magic_numbers_alone_are_chance() {
        for (start, at, magic) in [
            (0, 0, b"HM".as_slice()),
            (1024, 0, b"BD"),
            (1024, 0, b"H+\0\x04"),
            (1024, 6, b"\x34\x34"),
            (1024, 16, b"\x7F\x13"),
            (1024, 24, b"\x5A\x4D"),
            (0, 32, b"NXSB"),
            (32_768, 0, b"JFS1"),
        ] {
            assert_eq!(kind(disk(start, &[(at, magic)])), None, "{magic:?}");
        }
    }

    #[test]
    fn nothing_is_found_in_short_volumes_and_zeros() {
        assert_eq!(kind(vec![0; 3 << 20]), None);
        for len in [0, 1, 511, 600, 1025, 1100] {
            assert_eq!(kind(vec![0; len]), None);
        }
    }

    #[test]
    fn drbd_is_found_at_the_end() {
        let mut disk = vec![0; 65_536 + 100];
        disk[61_440 + 60..61_440 + 64].copy_from_slice(&0x8374_026D_u32.to_be_bytes());
        let (source, cancel) = (MemorySource::new("m", disk), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        assert_eq!(Drbd.probe(&volume).unwrap().unwrap().kind, "DRBD");
        assert!(matches!(Drbd.used(&volume), Err(Doubt::Unsure(_))));
        let (source, cancel) = (MemorySource::new("m", vec![0; 65_536]), Cancel::new());
        assert!(
            Drbd.probe(&Volume::new(&source, &cancel))
                .unwrap()
                .is_none()
        );
    }
}
