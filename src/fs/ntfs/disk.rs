//! NTFS structures as bytes. Offsets and flags as in ntfs-3g's `include/ntfs-3g/layout.h`; all
//! numbers are little-endian.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use crate::base::{to_u64, to_usize};

/// Attribute: where the attributes of a file with many of them lie.
pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
/// Attribute: a name of a file and its folder.
pub(super) const FILE_NAME: u32 = 0x30;
/// Attribute: the volume's label.
pub(super) const VOLUME_NAME: u32 = 0x60;
/// Attribute: the volume's version and flags.
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
/// Attribute: content.
pub(super) const DATA: u32 = 0x80;
/// Attribute: the start of an index.
pub(super) const INDEX_ROOT: u32 = 0x90;
/// Attribute: the rest of an index.
pub(super) const INDEX: u32 = 0xA0;
/// Attribute: a bitmap, of `$MFT` the one of its records.
pub(super) const BITMAP: u32 = 0xB0;

/// The type that ends a record's attributes.
const END: u32 = 0xFFFF_FFFF;
/// Update sequence numbers protect this much each, whatever the sector is.
const STRIDE: usize = 512;
/// Offset of the record's own number, where its header is long enough to hold it.
const OWN_NUMBER: usize = 0x2C;
/// A reference's low 48 bits are the record's number; the others count its uses.
pub(super) const NUMBER: u64 = (1 << 48) - 1;

/// Puts back the two bytes at the end of each 512 that an update sequence number stands in for.
/// The same for MFT records and for the journal's restart pages.
///
/// # Errors
/// A doubt when one of them does not hold the number: only a part was written.
pub(super) fn fix_up(bytes: &mut [u8]) -> Result<(), Doubt> {
    let raw = Raw::new(bytes, "record header");
    let at = usize::from(raw.le16(4)?);
    let count = usize::from(raw.le16(6)?);
    ensure(
        count == bytes.len() / STRIDE + 1 && at.is_multiple_of(2) && at + 2 * count < STRIDE,
        || format!("its update sequence of {count} numbers at byte {at} makes no sense"),
    )?;
    let sequence = raw.slice(at, 2 * count)?.to_vec();
    let (number, saved) = sequence.split_at(2);
    for (piece, saved) in bytes.chunks_exact_mut(STRIDE).zip(saved.chunks_exact(2)) {
        let (_, end) = piece.split_at_mut(STRIDE - 2);
        ensure(
            end == number,
            || "it is torn: only a part of it was written",
        )?;
        end.copy_from_slice(saved);
    }
    Ok(())
}

/// What the first bytes of an MFT record say, before anything is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A file, or a part of one.
    InUse,
    /// A record that was given back.
    Unused,
    /// A record that was found torn before (`BAAD`).
    Bad,
    /// No record.
    Nothing,
}

/// The state of a record's bytes.
pub(super) fn state(bytes: &[u8]) -> Result<State, Doubt> {
    let raw = Raw::new(bytes, "MFT record");
    Ok(match raw.slice(0, 4)? {
        b"FILE" if raw.le16(0x16)? & 1 != 0 => State::InUse,
        b"FILE" => State::Unused,
        b"BAAD" => State::Bad,
        _ => State::Nothing,
    })
}

/// An MFT record in use, its fix-ups done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    raw: Raw<'a>,
    /// The record that this one is a part of; its own number when it is a file's first.
    pub(super) base: u64,
    /// How many names the file has.
    pub(super) links: u16,
    /// Whether it is a folder.
    pub(super) folder: bool,
}

impl<'a> Record<'a> {
    /// Record `number`.
    pub(super) fn decode(bytes: &'a [u8], number: u64) -> Result<Record<'a>, Doubt> {
        let raw = Raw::new(bytes, "MFT record");
        let used = to_usize(u64::from(raw.le32(0x18)?));
        let allocated = to_usize(u64::from(raw.le32(0x1C)?));
        ensure(allocated == bytes.len() && used <= allocated, || {
            format!("it claims to use {used} of {allocated} bytes")
        })?;
        // The header of versions before 3.1 ends before its own number.
        if usize::from(raw.le16(4)?) >= OWN_NUMBER + 4 {
            let own = u64::from(raw.le32(OWN_NUMBER)?);
            ensure(own == number & 0xFFFF_FFFF, || {
                format!("it says that it is record {own}")
            })?;
        }
        // A part of file 0 differs from a file's first record in the count of uses alone.
        let base = match raw.le64(0x20)? {
            0 => number,
            base => base & NUMBER,
        };
        Ok(Record {
            raw: Raw::new(raw.slice(0, used)?, "MFT record"),
            base,
            links: raw.le16(0x12)?,
            folder: raw.le16(0x16)? & 2 != 0,
        })
    }

    /// Its attributes, ended by the first that makes no sense.
    pub(super) fn attributes(&self) -> Result<Attributes<'a>, Doubt> {
        Ok(Attributes {
            raw: self.raw,
            at: Some(usize::from(self.raw.le16(0x14)?)),
        })
    }
}

/// Goes through the attributes of a record.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    raw: Raw<'a>,
    at: Option<usize>,
}

impl<'a> Attributes<'a> {
    fn step(&mut self, at: usize) -> Result<Option<Attribute<'a>>, Doubt> {
        let kind = self.raw.le32(at)?;
        if kind == END {
            return Ok(None);
        }
        let len = to_usize(u64::from(self.raw.le32(at + 4)?));
        ensure(len >= 0x18 && len.is_multiple_of(8), || {
            format!("its attribute at byte {at} claims to be {len} bytes long")
        })?;
        let raw = Raw::new(self.raw.slice(at, len)?, "attribute");
        self.at = Some(at + len);
        Attribute::decode(&raw, kind).map(Some)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Doubt>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        self.step(at).transpose()
    }
}

/// One attribute, or the part of one that a record holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    /// Its type.
    pub(super) kind: u32,
    /// Its name in UTF-16.
    pub(super) name: &'a [u8],
    /// Where its value is.
    pub(super) value: Value<'a>,
}

/// Where the value of an attribute is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// In the record.
    Resident(&'a [u8]),
    /// In clusters.
    Clusters(Clusters<'a>),
}

/// A value in clusters, or a part of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clusters<'a> {
    /// First cluster of the value.
    pub(super) first: u64,
    /// One past the last.
    pub(super) end: u64,
    /// Length of the value that is valid on the disk, in the first part only.
    pub(super) initialised: u64,
    /// Length of the value, in the first part only.
    pub(super) size: u64,
    /// Whether it is compressed, encrypted or sparse, so that its bytes are not its value.
    pub(super) transformed: bool,
    runs: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn decode(raw: &Raw<'a>, kind: u32) -> Result<Attribute<'a>, Doubt> {
        let name_at = usize::from(raw.le16(10)?);
        let name = raw.slice(name_at, 2 * usize::from(raw.u8(9)?))?;
        let value = match raw.u8(8)? {
            0 => {
                let len = to_usize(u64::from(raw.le32(0x10)?));
                Value::Resident(raw.slice(usize::from(raw.le16(0x14)?), len)?)
            }
            1 => Value::Clusters(Clusters::decode(raw)?),
            other => {
                let why = format!("its attribute {kind:#x} has form {other}");
                return Err(Doubt::new(why));
            }
        };
        Ok(Attribute { kind, name, value })
    }

    /// Whether it is the one of this type and name, in ASCII.
    pub(super) fn is(&self, kind: u32, name: &str) -> bool {
        self.kind == kind && self.name.len() == 2 * name.len() && {
            let bytes = name.bytes().flat_map(|b| [b, 0]);
            bytes.eq(self.name.iter().copied())
        }
    }
}

impl<'a> Clusters<'a> {
    fn decode(raw: &Raw<'a>) -> Result<Clusters<'a>, Doubt> {
        let first = raw.le64(0x10)?;
        // The last cluster of an empty value is −1.
        let end = raw.le64(0x18)?.wrapping_add(1);
        ensure(first <= end && end <= 1 << 56, || {
            format!("its attribute claims clusters {first} to {end}")
        })?;
        Ok(Clusters {
            first,
            end,
            size: raw.le64(0x30)?,
            initialised: raw.le64(0x38)?,
            transformed: raw.le16(12)? & 0xC0FF != 0,
            runs: raw.from(usize::from(raw.le16(0x20)?))?.bytes(),
        })
    }

    /// Its runs. Together they are as long as the clusters that it claims.
    pub(super) fn runs(&self) -> Runs<'a> {
        Runs {
            raw: Raw::new(self.runs, "list of runs"),
            at: 0,
            place: 0,
            missing: self.end - self.first,
            ended: false,
        }
    }
}

/// A run of clusters of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First cluster of the volume; `None` for a hole.
    pub(super) at: Option<u64>,
    /// Number of clusters, at least one.
    pub(super) len: u64,
}

/// Goes through the runs of a value.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    raw: Raw<'a>,
    at: usize,
    /// Start of the last run that was no hole.
    place: i64,
    missing: u64,
    ended: bool,
}

impl Runs<'_> {
    fn step(&mut self) -> Result<Option<Run>, Doubt> {
        let head = self.raw.u8(self.at)?;
        if head == 0 {
            ensure(self.missing == 0, || {
                format!("a list of runs ends {} clusters early", self.missing)
            })?;
            return Ok(None);
        }
        let (len_bytes, at_bytes) = (usize::from(head & 15), usize::from(head >> 4));
        let len = self.raw.slice(self.at + 1, len_bytes)?;
        let at = self.raw.slice(self.at + 1 + len_bytes, at_bytes)?;
        self.at += 1 + len_bytes + at_bytes;
        let len = number(len).and_then(|n| u64::try_from(n).ok());
        let len = len.filter(|n| *n > 0 && *n <= self.missing);
        let len = len.ok_or_else(|| Doubt::new("a list of runs is longer than its value"))?;
        self.missing -= len;
        if at.is_empty() {
            return Ok(Some(Run { at: None, len }));
        }
        let place = number(at).and_then(|n| self.place.checked_add(n));
        self.place = place.unwrap_or(-1);
        let place = u64::try_from(self.place)
            .map_err(|_| Doubt::new("a run begins before the volume's start"))?;
        Ok(Some(Run {
            at: Some(place),
            len,
        }))
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Run, Doubt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let run = self.step().transpose();
        self.ended = !matches!(run, Some(Ok(_)));
        run
    }
}

/// A signed number of 1 to 8 bytes.
fn number(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last()? & 0x80 != 0;
    let mut wide = [if negative { 0xFF } else { 0 }; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

/// One entry of an attribute list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListEntry<'a> {
    /// The attribute's type.
    pub(super) kind: u32,
    /// Its name in UTF-16.
    pub(super) name: &'a [u8],
    /// First cluster of the value that this part holds.
    pub(super) first: u64,
    /// The record with the part.
    pub(super) record: u64,
}

/// The entries of an attribute list.
pub(super) fn list_entries(bytes: &[u8]) -> Result<Vec<ListEntry<'_>>, Doubt> {
    let mut entries = Vec::new();
    let mut rest = Raw::new(bytes, "attribute list");
    while !rest.bytes().is_empty() {
        let len = usize::from(rest.le16(4)?);
        ensure(len >= 0x1A, || "its attribute list makes no sense")?;
        let entry = Raw::new(rest.slice(0, len)?, "attribute list");
        entries.push(ListEntry {
            kind: entry.le32(0)?,
            name: entry.slice(usize::from(entry.u8(7)?), 2 * usize::from(entry.u8(6)?))?,
            first: entry.le64(8)?,
            record: entry.le64(0x10)? & NUMBER,
        });
        rest = rest.from(len)?;
    }
    Ok(entries)
}

/// The folder and the name that a `FILE_NAME` value holds, the name in UTF-16.
pub(super) fn file_name(value: &[u8]) -> Result<(u64, &[u8]), Doubt> {
    let raw = Raw::new(value, "file name");
    let name = raw.slice(0x42, 2 * usize::from(raw.u8(0x40)?))?;
    Ok((raw.le64(0)? & NUMBER, name))
}

/// Whether a `FILE_NAME` value is a short name that stands for a longer one.
pub(super) fn is_short_name(value: &[u8]) -> bool {
    value.get(0x41) == Some(&2)
}

/// Text from UTF-16.
pub(super) fn text(utf16: &[u8]) -> String {
    let units = utf16.chunks_exact(2).map(|b| match b {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// Adds which record a doubt is about.
pub(super) fn in_record(number: u64, doubt: Doubt) -> Doubt {
    match doubt {
        Doubt::Unsure(why) => Doubt::Unsure(format!("record {number} of its $MFT: {why}")),
        stopped @ Doubt::Stopped(_) => stopped,
    }
}

/// How many records of `record` bytes lie in `bytes`.
pub(super) fn whole_records(bytes: usize, record: u64) -> u64 {
    to_u64(bytes) / record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(list: &[u8], clusters: u64) -> Vec<Result<Run, Doubt>> {
        let clusters = Clusters {
            first: 0,
            end: clusters,
            initialised: 0,
            size: 0,
            transformed: false,
            runs: list,
        };
        clusters.runs().collect()
    }

    #[test]
    fn runs_are_relative_and_signed() {
        let list = [
            0x31, 0x10, 0, 0, 1, 0x01, 0x20, 0x11, 1, 0xFF, 0x22, 0x00, 1, 0, 0x80, 0,
        ];
        let found: Vec<Run> = runs(&list, 0x10 + 0x20 + 1 + 0x100)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let run = |at, len| Run { at, len };
        assert_eq!(
            found,
            [
                run(Some(0x1_0000), 0x10),
                run(None, 0x20),
                run(Some(0xFFFF), 1),
                run(Some(0x7FFF), 0x100),
            ]
        );
    }

    #[test]
    fn hostile_runs_are_doubts() {
        for (list, clusters) in [
            (&[0x11, 1, 0x80, 0][..], 1),
            (&[0x11, 2, 1, 0], 1),
            (&[0x11, 1, 1, 0], 2),
            (&[0x11, 1], 1),
            (&[0x11, 1, 1], 2),
            (&[0x11, 0, 1, 0], 1),
            (&[0x10, 1, 0], 1),
            (&[0xFF, 1, 1, 1], 1),
            (&[0x11, 0x80, 1, 0], 200),
        ] {
            let found = runs(list, clusters);
            assert!(matches!(found.last(), Some(Err(_))), "{list:02x?}");
        }
    }

    /// A record of 1024 bytes with one resident attribute.
    fn record() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(b"FILE\x30\0\x03\0");
        bytes[0x12] = 1;
        bytes[0x14] = 0x38;
        bytes[0x16] = 1;
        bytes[0x18..0x20].copy_from_slice(&[0x60, 0, 0, 0, 0, 4, 0, 0]);
        bytes[0x2C] = 9;
        bytes[0x30..0x36].copy_from_slice(&[5, 0, 0xAA, 0xBB, 0xCC, 0xDD]);
        bytes[0x38..0x40].copy_from_slice(&[0x80, 0, 0, 0, 0x20, 0, 0, 0]);
        bytes[0x48..0x4E].copy_from_slice(&[3, 0, 0, 0, 0x18, 0]);
        bytes[0x50..0x53].copy_from_slice(b"abc");
        bytes[0x58..0x5C].copy_from_slice(&[0xFF; 4]);
        for end in [510, 1022] {
            bytes[end] = 5;
        }
        bytes
    }

    #[test]
    fn records_are_put_together_and_taken_apart() {
        let mut bytes = record();
        assert_eq!(state(&bytes).unwrap(), State::InUse);
        fix_up(&mut bytes).unwrap();
        assert_eq!((bytes[510], bytes[1023]), (0xAA, 0xDD));
        let found = Record::decode(&bytes, 9).unwrap();
        assert_eq!((found.base, found.links, found.folder), (9, 1, false));
        let all: Vec<_> = found.attributes().unwrap().map(Result::unwrap).collect();
        let [attribute] = all[..] else {
            panic!("{all:?}")
        };
        assert!(attribute.is(DATA, "") && matches!(attribute.value, Value::Resident(b"abc")));
        assert!(Record::decode(&bytes, 10).is_err());
        // A part of file 0 is no file of its own.
        bytes[0x26] = 1;
        assert_eq!(Record::decode(&bytes, 9).unwrap().base, 0);
    }

    #[test]
    fn torn_and_endless_records_are_doubts() {
        let mut torn = record();
        torn[1022] = 6;
        assert!(fix_up(&mut torn).is_err());
        for (at, byte) in [(4, 0xFF), (6, 4), (6, 0)] {
            let mut bytes = record();
            bytes[at] = byte;
            assert!(fix_up(&mut bytes).is_err(), "{at}");
        }
        for (at, byte) in [
            (0x3C, 0),
            (0x3C, 0xF8),
            (0x14, 0xFF),
            (0x58, 0),
            (0x48, 0xFF),
        ] {
            let mut bytes = record();
            bytes[at] = byte;
            let found = Record::decode(&bytes, 9).unwrap();
            let all: Vec<_> = found.attributes().unwrap().collect();
            assert!(all.last().is_some_and(Result::is_err), "{at:#x}");
        }
    }
}
