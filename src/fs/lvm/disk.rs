//! Bytes of a physical volume as values: label, header, and the areas that hold the description of
//! its volume group.
//!
//! Source: LVM2's `lib/label/label.h`, `lib/format_text/layout.h`. All numbers are little-endian.

use super::super::checksum::{crc32_raw, matches};
use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use crate::base::to_u64;
use std::ops::Range;

/// Sectors of LVM2, whatever those of the disk.
pub(super) const SECTOR: u64 = 512;
/// The label is in one of so many sectors at the start.
pub(super) const LABEL_SECTORS: u64 = 4;
/// What every checksum of LVM2 begins with.
const CRC_SEED: u32 = 0xF597_A6CF;
/// LVM2 makes at most two metadata areas and one data area.
const MAX_AREAS: usize = 8;
const AREA_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
/// Of an area: it is not kept up to date, others are.
const IGNORED: u32 = 1;
/// Of a physical volume: a volume group has it.
const USED: u32 = 1;

/// Where one of the two areas, or the data, lies: bytes from the start of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Area {
    pub(super) fn range(self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }
}

/// What the label leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 32 characters.
    pub(super) uuid: String,
    pub(super) metadata: Vec<Area>,
    pub(super) boot: Vec<Area>,
    /// Whether a volume group has it, as far as it says.
    pub(super) in_use: bool,
}

/// Whether `sector` is a label of LVM2.
pub(super) fn is_label(sector: &[u8]) -> bool {
    sector.starts_with(b"LABELONE") && sector.get(24..32) == Some(b"LVM2 001".as_slice())
}

impl Header {
    /// From the label in sector `number`.
    pub(super) fn parse(sector: &[u8], number: u64) -> Result<Header, Doubt> {
        let raw = Raw::new(sector, "LVM2 label");
        let computed = crc32_raw(CRC_SEED, raw.slice(20, sector.len().saturating_sub(20))?);
        ensure(
            matches(computed, raw.le32(16)?),
            || "the checksum of its LVM2 label is wrong",
        )?;
        ensure(
            raw.le64(8)? == number,
            || "its LVM2 label says that it belongs into another sector",
        )?;
        let start = crate::base::to_usize(u64::from(raw.le32(20)?));
        let mut at = start + 40;
        areas(&raw, &mut at)?;
        let metadata = areas(&raw, &mut at)?;
        let uuid = raw.slice(start, 32)?;
        let mut header = Header {
            uuid: String::from_utf8_lossy(uuid).into_owned(),
            metadata,
            boot: Vec::new(),
            in_use: false,
        };
        if raw.le32(at)? > 0 {
            header.in_use = raw.le32(at + 4)? & USED != 0;
            at += 8;
            header.boot = areas(&raw, &mut at)?;
        }
        Ok(header)
    }
}

/// A list of areas, ended by one of zeros; `at` is moved behind it.
fn areas(raw: &Raw<'_>, at: &mut usize) -> Result<Vec<Area>, Doubt> {
    let mut found = Vec::new();
    loop {
        let area = Area {
            offset: raw.le64(*at)?,
            size: raw.le64(*at + 8)?,
        };
        *at += 16;
        if area.offset == 0 {
            return Ok(found);
        }
        ensure(
            found.len() < MAX_AREAS,
            || "its LVM2 header lists more areas than there can be",
        )?;
        found.push(area);
    }
}

/// The description that a metadata area holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Committed {
    /// From the start of the area.
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) crc: u32,
}

/// What the header of a metadata area says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AreaState {
    /// No volume group has written to it.
    Empty,
    /// It is not kept up to date.
    Ignored,
    Holds(Committed),
}

impl AreaState {
    /// From the first sector of `area`.
    pub(super) fn parse(sector: &[u8], area: Area) -> Result<AreaState, Doubt> {
        let place = area.offset;
        let raw = Raw::new(sector, "metadata area");
        ensure(raw.slice(4, 16)? == AREA_MAGIC, || {
            format!("the LVM2 metadata area at byte {place} has no header")
        })?;
        let computed = crc32_raw(CRC_SEED, raw.slice(4, 508)?);
        ensure(matches(computed, raw.le32(0)?), || {
            format!("the checksum of the LVM2 metadata area at byte {place} is wrong")
        })?;
        let version = raw.le32(20)?;
        ensure(version == 1, || {
            format!("the LVM2 metadata area at byte {place} has the unknown version {version}")
        })?;
        ensure(
            raw.le64(24)? == area.offset && raw.le64(32)? == area.size,
            || format!("the LVM2 metadata area at byte {place} says that it lies elsewhere"),
        )?;
        let slot = Committed {
            offset: raw.le64(40)?,
            size: raw.le64(48)?,
            crc: raw.le32(56)?,
        };
        if raw.le32(60)? & IGNORED != 0 {
            return Ok(AreaState::Ignored);
        }
        ensure(raw.le64(64)? == 0, || {
            "a change to its volume group was begun and not finished; any LVM2 command that changes \
             the group finishes it"
        })?;
        if slot.offset == 0 {
            return Ok(AreaState::Empty);
        }
        let inside = slot.offset >= SECTOR && slot.offset < area.size;
        ensure(
            inside && slot.size <= area.size.saturating_sub(SECTOR),
            || format!("the LVM2 metadata area at byte {place} points outside itself"),
        )?;
        Ok(AreaState::Holds(slot))
    }
}

impl Committed {
    /// The pieces of the text, bytes from the start of the volume: the area is a ring behind its
    /// first sector.
    pub(super) fn places(&self, area: Area) -> [Range<u64>; 2] {
        let first = self.size.min(area.size.saturating_sub(self.offset));
        let start = area.offset.saturating_add(self.offset);
        let wrapped = area.offset.saturating_add(SECTOR);
        [
            start..start.saturating_add(first),
            wrapped..wrapped.saturating_add(self.size - first),
        ]
    }

    /// Fails unless `text` is what was written.
    pub(super) fn check(&self, text: &[u8]) -> Result<(), Doubt> {
        let right = to_u64(text.len()) == self.size && matches(crc32_raw(CRC_SEED, text), self.crc);
        ensure(
            right,
            || "the checksum of its volume group's description is wrong",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area {
        offset: 4096,
        size: 4096,
    };

    fn area_sector(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[4..20].copy_from_slice(AREA_MAGIC);
        sector[20] = 1;
        sector[24..32].copy_from_slice(&4096u64.to_le_bytes());
        sector[32..40].copy_from_slice(&4096u64.to_le_bytes());
        sector[40..48].copy_from_slice(&3000u64.to_le_bytes());
        sector[48..56].copy_from_slice(&2000u64.to_le_bytes());
        change(&mut sector);
        let crc = crc32_raw(CRC_SEED, &sector[4..]);
        sector[..4].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    fn why(found: Result<AreaState, Doubt>) -> String {
        match found {
            Err(Doubt::Unsure(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_wraps_to_the_second_sector_of_its_area() {
        let state = AreaState::parse(&area_sector(|_| ()), AREA).unwrap();
        let AreaState::Holds(text) = state else {
            panic!("{state:?}")
        };
        assert_eq!(text.places(AREA), [7096..8192, 4608..5512]);
    }

    #[test]
    fn areas_that_tell_nothing_now() {
        let ignored = area_sector(|s| s[60] = 1);
        assert_eq!(
            AreaState::parse(&ignored, AREA).unwrap(),
            AreaState::Ignored
        );
        let empty = area_sector(|s| s[40..64].fill(0));
        assert_eq!(AreaState::parse(&empty, AREA).unwrap(), AreaState::Empty);
    }

    #[test]
    fn areas_that_are_wrong_are_doubts() {
        let begun = area_sector(|s| s[65] = 8);
        assert!(why(AreaState::parse(&begun, AREA)).contains("not finished"));
        let outside = area_sector(|s| s[50] = 1);
        assert!(why(AreaState::parse(&outside, AREA)).contains("outside itself"));
        let elsewhere = area_sector(|s| s[25] = 1);
        assert!(why(AreaState::parse(&elsewhere, AREA)).contains("elsewhere"));
        let version = area_sector(|s| s[20] = 2);
        assert!(why(AreaState::parse(&version, AREA)).contains("version 2"));
        let mut damaged = area_sector(|_| ());
        damaged[500] = 1;
        assert!(why(AreaState::parse(&damaged, AREA)).contains("checksum"));
    }
}
