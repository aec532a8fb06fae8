//! File systems that are written once: squashfs, erofs and ISO 9660.
//!
//! They have no free space. What lies behind their stated length is kept too: hash trees, error
//! correction, overlays and appended sessions live there. So all of it is in use, and zeros behind
//! the end cost nothing in an image.
//!
//! Sources: `fs/squashfs/squashfs_fs.h`, `fs/erofs/erofs_fs.h`, ECMA-119.

use super::checksum::{crc32c_raw, matches};
use super::doubt::{Doubt, ensure};
use super::raw::{Raw, label};
use super::volume::Volume;
use super::{Found, Reader, Used};
use crate::base::to_usize;

/// Reads squashfs.
pub(super) struct Squashfs;
/// Reads erofs.
pub(super) struct Erofs;
/// Reads ISO 9660.
pub(super) struct Iso9660;

/// Where erofs has its superblock.
const EROFS_AT: u64 = 1024;
const EROFS_MAGIC: u32 = 0xE0F5_E1E2;
/// The part of the superblock that is looked at.
const EROFS_LEN: u64 = 128;
/// Of `feature_compat`: the superblock has a checksum.
const EROFS_CHECKSUM: u32 = 1;
/// Of `feature_incompat`: the number of blocks has more than 32 bits.
const EROFS_48_BIT: u32 = 0x80;
/// Where ISO 9660 has its primary volume descriptor: sector 16.
const ISO_AT: u64 = 32_768;
/// A descriptor is one sector.
const ISO_LEN: u64 = 2048;

/// `len` bytes from `at`, or what there is of them.
fn read(volume: &Volume<'_>, at: u64, len: u64) -> Result<Vec<u8>, Doubt> {
    volume.read(
        at.min(volume.len()),
        len.min(volume.len().saturating_sub(at)),
    )
}

fn found(kind: &str, label: Option<String>) -> Found {
    Found {
        kind: kind.to_owned(),
        label,
    }
}

/// All of `volume`, of which `stated` bytes are the file system's own.
fn whole(volume: &Volume<'_>, kind: &str, stated: u64) -> Result<Used, Doubt> {
    ensure(stated <= volume.len(), || {
        format!(
            "it states that it is {stated} bytes long, and only {} are there",
            volume.len()
        )
    })?;
    Ok(Used::whole(
        volume,
        format!("{kind} is written once: its {stated} bytes and all behind them are in use"),
    ))
}

impl Reader for Squashfs {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let start = read(volume, 0, 4)?;
        let there = start == b"hsqs" || start == b"sqsh";
        Ok(there.then(|| found("squashfs", None)))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let start = read(volume, 0, 96)?;
        let raw = Raw::new(&start, "superblock");
        let version = (raw.le16(28)?, raw.le16(30)?);
        ensure(
            raw.slice(0, 4)? == b"hsqs" && version == (4, 0),
            || "it is of another version than 4.0",
        )?;
        let (size, log) = (raw.le32(12)?, raw.le16(22)?);
        let right = (12..=20).contains(&log) && size == 1 << log;
        ensure(right, || format!("it states blocks of {size} bytes"))?;
        whole(volume, "squashfs", raw.le64(40)?)
    }
}

impl Reader for Erofs {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let start = read(volume, EROFS_AT, EROFS_LEN)?;
        let raw = Raw::new(&start, "superblock");
        if raw.le32(0).ok() != Some(EROFS_MAGIC) {
            return Ok(None);
        }
        let name = raw.slice(64, 16).ok().and_then(label);
        Ok(Some(found("erofs", name)))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let start = read(volume, EROFS_AT, EROFS_LEN)?;
        let raw = Raw::new(&start, "superblock");
        let log = raw.u8(12)?;
        ensure((9..=16).contains(&log), || {
            format!("it states blocks of 2^{log} bytes")
        })?;
        if raw.le32(8)? & EROFS_CHECKSUM != 0 {
            check_erofs(volume, log, raw.le32(4)?)?;
        }
        let mut blocks = u64::from(raw.le32(36)?);
        if raw.le32(80)? & EROFS_48_BIT != 0 {
            blocks |= u64::from(raw.le16(14)?) << 32;
        }
        whole(volume, "erofs", blocks << log)
    }
}

/// The checksum is that of the superblock's block from the superblock on, its own field zero.
fn check_erofs(volume: &Volume<'_>, log: u8, stored: u32) -> Result<(), Doubt> {
    let block = 1u64 << log;
    let len = if block > EROFS_AT {
        block - EROFS_AT
    } else {
        block
    };
    let mut bytes = volume.read(EROFS_AT, len)?;
    if let Some(field) = bytes.get_mut(4..8) {
        field.fill(0);
    }
    ensure(
        matches(crc32c_raw(!0, &bytes), stored),
        || "the checksum of its superblock is wrong",
    )
}

impl Reader for Iso9660 {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let descriptor = read(volume, ISO_AT, ISO_LEN)?;
        if descriptor.get(1..6) != Some(b"CD001".as_slice()) {
            return Ok(None);
        }
        let name = descriptor.get(40..72).and_then(label);
        Ok(Some(found("ISO9660", name.map(|n| n.trim().to_owned()))))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let descriptor = read(volume, ISO_AT, ISO_LEN)?;
        let raw = Raw::new(&descriptor, "volume descriptor");
        raw.slice(0, to_usize(ISO_LEN))?;
        ensure(
            raw.u8(0)? == 1 && raw.u8(6)? == 1,
            || "its first volume descriptor is not a primary one",
        )?;
        let blocks = raw.le32(80)?;
        let size = raw.le16(128)?;
        ensure(
            blocks == raw.be32(84)? && size == raw.be16(130)?,
            || "it states its size in two byte orders that differ",
        )?;
        ensure([512, 1024, 2048].contains(&size), || {
            format!("it states blocks of {size} bytes")
        })?;
        whole(volume, "ISO9660", u64::from(blocks) * u64::from(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Cancel;
    use crate::block::MemorySource;

    fn look(reader: &dyn Reader, disk: Vec<u8>) -> (Option<Found>, Result<Used, String>) {
        let (source, cancel) = (MemorySource::new("m", disk), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        let used = reader.used(&volume).map_err(|doubt| match doubt {
            Doubt::Unsure(why) => why,
            Doubt::Stopped(error) => panic!("{error}"),
        });
        (reader.probe(&volume).unwrap(), used)
    }

    fn squashfs(stated: u64) -> Vec<u8> {
        let mut disk = vec![0; 65_536];
        disk[..4].copy_from_slice(b"hsqs");
        disk[12..16].copy_from_slice(&131_072u32.to_le_bytes());
        disk[22] = 17;
        disk[28] = 4;
        disk[40..48].copy_from_slice(&stated.to_le_bytes());
        disk
    }

    #[test]
    fn what_follows_the_stated_length_is_in_use() {
        let (found, used) = look(&Squashfs, squashfs(1000));
        assert_eq!(found.unwrap().kind, "squashfs");
        let used = used.unwrap();
        assert!(used.basis.unwrap().contains("its 1000 bytes"));
        assert_eq!(used.map.finish().1.gaps().count(), 0);
    }

    #[test]
    fn squashfs_that_does_not_fit_is_a_doubt() {
        let why = |disk| look(&Squashfs, disk).1.unwrap_err();
        assert!(why(squashfs(65_537)).contains("only 65536 are there"));
        let mut other = squashfs(1000);
        other[28] = 3;
        assert!(why(other).contains("another version"));
        let mut other = squashfs(1000);
        other[22] = 18;
        assert!(why(other).contains("131072 bytes"));
    }

    #[test]
    fn erofs_counts_blocks_with_up_to_48_bits() {
        let mut disk = vec![0; 65_536];
        disk[1024..1028].copy_from_slice(&EROFS_MAGIC.to_le_bytes());
        disk[1036] = 12;
        disk[1060] = 16;
        disk[1088..1091].copy_from_slice(b"rom");
        let (found, used) = look(&Erofs, disk.clone());
        assert_eq!(found.unwrap().label.as_deref(), Some("rom"));
        assert!(used.unwrap().basis.unwrap().contains("65536 bytes"));
        disk[1038] = 1;
        disk[1104] = 0x80;
        assert!(
            look(&Erofs, disk.clone())
                .1
                .unwrap_err()
                .contains("17592186109952")
        );
        disk[1032] = 1;
        assert!(look(&Erofs, disk).1.unwrap_err().contains("checksum"));
    }

    #[test]
    fn iso_9660_states_its_size_twice() {
        let mut disk = vec![0; 65_536];
        disk[32_768] = 1;
        disk[32_769..32_774].copy_from_slice(b"CD001");
        disk[32_774] = 1;
        disk[32_808..32_840].copy_from_slice(b"DEBIAN 13                       ");
        disk[32_848] = 32;
        disk[32_855] = 32;
        disk[32_896..32_900].copy_from_slice(&[0, 8, 8, 0]);
        let (found, used) = look(&Iso9660, disk.clone());
        assert_eq!(found.unwrap().label.as_deref(), Some("DEBIAN 13"));
        assert!(used.unwrap().basis.unwrap().contains("65536 bytes"));
        disk[32_855] = 31;
        assert!(look(&Iso9660, disk).1.unwrap_err().contains("differ"));
    }

    #[test]
    fn short_volumes_are_none_of_them() {
        for reader in [&Squashfs as &dyn Reader, &Erofs, &Iso9660] {
            let (found, used) = look(reader, vec![1; 600]);
            assert!(found.is_none() && used.is_err());
        }
    }
}
