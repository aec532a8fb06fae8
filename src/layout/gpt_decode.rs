//! The bytes of a GPT: header and entries. UEFI specification, chapter "GUID Partition Table (GPT)
//! Disk Layout"; the checks are those of the kernel, `block/partitions/efi.c` (`is_gpt_valid`).

use super::disk::{MAX_STRUCTURE, field, le32, le64};
use crate::base::{checksum_matches, to_u64, to_usize};
use std::ops::Range;
use uuid::Uuid;

/// The most slots. The specification has no limit and the kernel allows 32768, but Linux gives
/// numbers to the first 255 only, and 4096 is sixteen times what anybody was seen to use.
pub(super) const MAX_ENTRIES: u32 = 4096;
/// The largest slot. The specification allows any 128·2^n; all known tables have 128.
pub(super) const MAX_ENTRY_SIZE: u32 = 4096;
/// The smallest slot, and the smallest header: the fields that every revision has.
const MIN_ENTRY_SIZE: u32 = 128;
const MIN_HEADER_SIZE: u32 = 92;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const AT_HEADER_SIZE: usize = 12;
const AT_HEADER_CRC: usize = 16;
const AT_MY_LBA: usize = 24;
const AT_ALTERNATE_LBA: usize = 32;
const AT_FIRST_USABLE: usize = 40;
const AT_LAST_USABLE: usize = 48;
const AT_DISK_GUID: usize = 56;
const AT_ENTRIES_LBA: usize = 72;
const AT_ENTRY_COUNT: usize = 80;
const AT_ENTRY_SIZE: usize = 84;
const AT_ENTRIES_CRC: usize = 88;

/// A header whose checksum and fields are in order. All LBAs lie on the disk except `alternate_lba`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) my_lba: u64,
    pub(super) alternate_lba: u64,
    pub(super) first_usable: u64,
    pub(super) last_usable: u64,
    pub(super) disk_guid: Uuid,
    pub(super) entries_lba: u64,
    pub(super) entry_count: u32,
    pub(super) entry_size: u32,
    pub(super) entries_crc: u32,
}

/// Why a sector is no usable header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// It does not begin with `EFI PART`.
    NoSignature,
    /// It does, but this is wrong.
    Damaged(String),
}

impl Header {
    /// Reads the header in `sector`, the whole sector `lba` of a disk whose last sector is `last_lba`.
    pub(super) fn decode(sector: &[u8], lba: u64, last_lba: u64) -> Result<Header, HeaderFault> {
        if !sector.starts_with(SIGNATURE) {
            return Err(HeaderFault::NoSignature);
        }
        let bad = |what: &str| HeaderFault::Damaged(what.to_owned());
        let covered = covered(sector).ok_or_else(|| bad("its length is impossible"))?;
        if !checksum_matches(checksum(covered), le32(sector, AT_HEADER_CRC)) {
            return Err(bad("checksum"));
        }
        let header = Header {
            my_lba: le64(sector, AT_MY_LBA),
            alternate_lba: le64(sector, AT_ALTERNATE_LBA),
            first_usable: le64(sector, AT_FIRST_USABLE),
            last_usable: le64(sector, AT_LAST_USABLE),
            disk_guid: Uuid::from_bytes_le(field(sector, AT_DISK_GUID)),
            entries_lba: le64(sector, AT_ENTRIES_LBA),
            entry_count: le32(sector, AT_ENTRY_COUNT),
            entry_size: le32(sector, AT_ENTRY_SIZE),
            entries_crc: le32(sector, AT_ENTRIES_CRC),
        };
        let fault = header.fault(lba, last_lba, to_u64(sector.len()));
        fault.map_or(Ok(header), |why| Err(HeaderFault::Damaged(why)))
    }

    /// What is wrong with the fields, if anything.
    fn fault(&self, lba: u64, last_lba: u64, sector_bytes: u64) -> Option<String> {
        if self.my_lba != lba {
            return Some(format!("it says that it belongs at LBA {}", self.my_lba));
        }
        if self.first_usable < 2 || self.first_usable > self.last_usable {
            return Some("its usable range is empty or covers the header".to_owned());
        }
        if self.last_usable > last_lba {
            let last = self.last_usable;
            return Some(format!(
                "it counts on LBA {last}, but the disk ends with LBA {last_lba}"
            ));
        }
        if !(1..=MAX_ENTRIES).contains(&self.entry_count) {
            let count = self.entry_count;
            return Some(format!("{count} slots; 1 to {MAX_ENTRIES} are supported"));
        }
        let sizes = MIN_ENTRY_SIZE..=MAX_ENTRY_SIZE;
        if !sizes.contains(&self.entry_size) || !self.entry_size.is_multiple_of(8) {
            return Some(format!("slots of {} bytes", self.entry_size));
        }
        if self.array_bytes() > MAX_STRUCTURE {
            return Some(format!("an entry array of {} bytes", self.array_bytes()));
        }
        let array = self.array_lbas(sector_bytes);
        if array.start < 2 || array.end > last_lba.saturating_add(1) || array.contains(&lba) {
            return Some(format!("its entry array at LBA {}", self.entries_lba));
        }
        None
    }

    /// Length of the entry array in bytes.
    pub(super) fn array_bytes(&self) -> u64 {
        u64::from(self.entry_count).saturating_mul(u64::from(self.entry_size))
    }

    /// Length of the entry array in whole sectors.
    pub(super) fn array_sectors(&self, sector_bytes: u64) -> u64 {
        self.array_bytes().div_ceil(sector_bytes)
    }

    /// The sectors of the entry array.
    fn array_lbas(&self, sector_bytes: u64) -> Range<u64> {
        let end = self
            .entries_lba
            .saturating_add(self.array_sectors(sector_bytes));
        self.entries_lba..end
    }

    /// Whether two headers describe the same table, wherever their copies lie.
    pub(super) fn same_table(&self, other: &Header) -> bool {
        self.disk_guid == other.disk_guid
            && (self.first_usable, self.last_usable) == (other.first_usable, other.last_usable)
            && (self.entry_count, self.entry_size) == (other.entry_count, other.entry_size)
            && self.entries_crc == other.entries_crc
    }
}

/// The part of the header's sector that its checksum covers, with the checksum itself as zeros
/// left to [`checksum`]. `None` when the stated length is less than the fields or more than the sector.
fn covered(sector: &[u8]) -> Option<&[u8]> {
    let size = le32(sector, AT_HEADER_SIZE);
    if size < MIN_HEADER_SIZE {
        return None;
    }
    sector.get(..to_usize(u64::from(size)))
}

/// CRC-32 of a header, taken with its own checksum field as zeros.
fn checksum(covered: &[u8]) -> u32 {
    let (head, rest) = covered.split_at(AT_HEADER_CRC.min(covered.len()));
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(&[0; 4]);
    crc.update(rest.get(4..).unwrap_or_default());
    crc.finalize()
}

/// Where a rewritten header lies and what it points at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub(super) my_lba: u64,
    pub(super) alternate_lba: u64,
    pub(super) last_usable: u64,
    pub(super) entries_lba: u64,
}

/// `sector` (a decoded header's) with new places and checksum; everything else stays, fields of
/// later revisions and reserved bytes included.
pub(super) fn relocate(sector: &[u8], place: Placement) -> Option<Vec<u8>> {
    let mut out = sector.to_vec();
    put(&mut out, AT_MY_LBA, &place.my_lba.to_le_bytes())?;
    put(
        &mut out,
        AT_ALTERNATE_LBA,
        &place.alternate_lba.to_le_bytes(),
    )?;
    put(&mut out, AT_LAST_USABLE, &place.last_usable.to_le_bytes())?;
    put(&mut out, AT_ENTRIES_LBA, &place.entries_lba.to_le_bytes())?;
    let crc = checksum(covered(&out)?);
    put(&mut out, AT_HEADER_CRC, &crc.to_le_bytes())?;
    Some(out)
}

/// Overwrites bytes at `at`; `None` when they do not fit.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    let end = at.checked_add(value.len())?;
    bytes.get_mut(at..end)?.copy_from_slice(value);
    Some(())
}

/// One slot in use, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Counted from 1.
    pub(super) number: u32,
    pub(super) type_guid: Uuid,
    pub(super) unique_guid: Uuid,
    pub(super) first_lba: u64,
    /// Inclusive.
    pub(super) last_lba: u64,
    pub(super) attributes: u64,
    pub(super) name: String,
}

/// The slots in use of an array whose slots have `entry_size` bytes (at least 128). A slot is free
/// when its type GUID is zero.
pub(super) fn entries(array: &[u8], entry_size: u32) -> Vec<Entry> {
    let size = to_usize(u64::from(entry_size.max(MIN_ENTRY_SIZE)));
    let slots = (1u32..).zip(array.chunks_exact(size));
    slots.filter_map(|(n, slot)| entry(n, slot)).collect()
}

fn entry(number: u32, slot: &[u8]) -> Option<Entry> {
    let type_guid = Uuid::from_bytes_le(field(slot, 0));
    (!type_guid.is_nil()).then(|| Entry {
        number,
        type_guid,
        unique_guid: Uuid::from_bytes_le(field(slot, 16)),
        first_lba: le64(slot, 32),
        last_lba: le64(slot, 40),
        attributes: le64(slot, 48),
        name: name(&field::<72>(slot, 56)),
    })
}

/// The name: at most 36 UTF-16LE units, ended by a zero; what is no UTF-16 becomes U+FFFD.
fn name(bytes: &[u8; 72]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| {
        let [low, high] = field::<2>(pair, 0);
        u16::from_le_bytes([low, high])
    });
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as `sgdisk` writes it for a disk of 2048 sectors.
    fn sample() -> Vec<u8> {
        let mut sector = vec![0u8; 512];
        sector[..8].copy_from_slice(SIGNATURE);
        for (at, value) in [(8, 0x0001_0000u32), (12, 92), (80, 128), (84, 128)] {
            put(&mut sector, at, &value.to_le_bytes()).unwrap();
        }
        put(&mut sector, AT_FIRST_USABLE, &34u64.to_le_bytes()).unwrap();
        let place = Placement {
            my_lba: 1,
            alternate_lba: 2047,
            last_usable: 2014,
            entries_lba: 2,
        };
        relocate(&sector, place).unwrap()
    }

    #[test]
    fn a_good_header_decodes() {
        let header = Header::decode(&sample(), 1, 2047).unwrap();
        assert_eq!((header.alternate_lba, header.last_usable), (2047, 2014));
        assert_eq!(header.array_lbas(512), 2..34);
    }

    #[test]
    fn any_flipped_bit_under_the_checksum_is_noticed() {
        for bit in 0..92 * 8 {
            let mut sector = sample();
            sector[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&sector, 1, 2047).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn wrong_fields_are_named_even_under_a_right_checksum() {
        let cases: [(usize, &[u8], &str); 8] = [
            (AT_MY_LBA, &[9], "LBA 9"),
            (AT_FIRST_USABLE, &[1], "usable range"),
            (AT_FIRST_USABLE, &[0xff; 8], "usable range"),
            (AT_LAST_USABLE, &[0, 8], "ends with LBA 2047"),
            (AT_ENTRY_COUNT, &[0xff; 4], "slots"),
            (AT_ENTRY_COUNT, &[0; 4], "slots"),
            (AT_ENTRY_SIZE, &[0x84], "132 bytes"),
            (AT_ENTRIES_LBA, &[0xff; 8], "entry array"),
        ];
        for (at, bytes, word) in cases {
            let mut sector = sample();
            put(&mut sector, at, bytes).unwrap();
            let crc = checksum(covered(&sector).unwrap());
            put(&mut sector, AT_HEADER_CRC, &crc.to_le_bytes()).unwrap();
            match Header::decode(&sector, 1, 2047) {
                Err(HeaderFault::Damaged(why)) => assert!(why.contains(word), "{why}"),
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_end_at_zero_and_survive_broken_utf16() {
        let mut slot = vec![0xffu8; 128];
        slot[56..64].copy_from_slice(&[b'a', 0, 0x00, 0xd8, b'b', 0, 0, 0]);
        let found = entries(&slot, 128);
        assert_eq!(found[0].name, "a\u{fffd}b");
        assert!(entries(&[0; 1024], 128).is_empty());
        assert!(entries(&[1; 127], 0).is_empty());
    }
}
