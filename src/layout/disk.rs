//! Reading small structures from a disk that may be damaged.

use crate::base::{
    ByteLen, ByteOffset, Error, ErrorKind, Result, SectorSize, is_unprintable, printable, to_usize,
};
use crate::block::BlockSource;

/// The most bytes that one structure may have: an entry array at its limit.
pub(super) const MAX_STRUCTURE: u64 = 1 << 20;

/// What came of a read.
pub(super) enum Got {
    /// The bytes.
    Bytes(Vec<u8>),
    /// The medium failed there.
    Unreadable(Error),
    /// The disk ends before the structure does.
    Outside,
}

impl Got {
    /// The bytes, where there are any.
    pub(super) fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Got::Bytes(bytes) => Some(bytes),
            Got::Unreadable(_) | Got::Outside => None,
        }
    }
}

/// A source whose bad spots are answers and not errors.
#[derive(Clone, Copy)]
pub(super) struct Disk<'a> {
    source: &'a dyn BlockSource,
    /// Length in bytes.
    pub(super) len: u64,
}

impl<'a> Disk<'a> {
    pub(super) fn new(source: &'a dyn BlockSource) -> Disk<'a> {
        Disk {
            source,
            len: source.len().0,
        }
    }

    /// The last whole sector, or `None` when not even one fits.
    pub(super) fn last_lba(self, sector: SectorSize) -> Option<u64> {
        sector.count(ByteLen(self.len)).checked_sub(1)
    }

    /// `len` bytes from `offset`.
    ///
    /// # Errors
    /// Whatever is not the medium's failure (kind `Source`), such as an interrupt.
    pub(super) fn read(self, offset: u64, len: u64) -> Result<Got> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if !inside || len > MAX_STRUCTURE {
            return Ok(Got::Outside);
        }
        let mut bytes = vec![0; to_usize(len)];
        match self.source.read_at(ByteOffset(offset), &mut bytes) {
            Ok(()) => Ok(Got::Bytes(bytes)),
            Err(error) if error.kind() == ErrorKind::Source => Ok(Got::Unreadable(error)),
            Err(error) => Err(error),
        }
    }

    /// `count` sectors from `lba`.
    ///
    /// # Errors
    /// As [`Disk::read`].
    pub(super) fn read_sectors(self, sector: SectorSize, lba: u64, count: u64) -> Result<Got> {
        let len = count.checked_mul(u64::from(sector.bytes()));
        match (sector.offset_of(lba), len) {
            (Some(offset), Some(len)) => self.read(offset.0, len),
            _ => Ok(Got::Outside),
        }
    }
}

/// The `N` bytes at `at`, or zeros where `bytes` is shorter; decoders check the length first.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = at.checked_add(N).and_then(|end| bytes.get(at..end));
    found
        .and_then(|part| <[u8; N]>::try_from(part).ok())
        .unwrap_or([0; N])
}

/// A little-endian `u32` at `at`.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// A little-endian `u64` at `at`.
pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// A little-endian `u16` at `at`.
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

/// The most findings a layout carries: enough for every rule here, and an image file cannot use
/// them to fill memory.
pub(super) const MAX_FINDINGS: usize = 64;
/// The longest finding or reason, in characters: some words and an error that quotes a path.
pub(super) const MAX_TEXT_CHARS: usize = 2000;

/// Adds a finding unless there are already too many to read.
pub(super) fn note(findings: &mut Vec<String>, text: impl AsRef<str>) {
    if findings.len() < MAX_FINDINGS {
        findings.push(clean(text.as_ref()));
    }
}

/// `text` fit to be shown and stored: of bounded length and without characters that drive a terminal
/// (a path that an error quotes may hold them).
pub(super) fn clean(text: &str) -> String {
    printable(text).chars().take(MAX_TEXT_CHARS).collect()
}

/// Whether `text` is what [`clean`] makes.
pub(super) fn is_clean(text: &str) -> bool {
    text.chars().nth(MAX_TEXT_CHARS).is_none() && !text.chars().any(is_unprintable)
}
