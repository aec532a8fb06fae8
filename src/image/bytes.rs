//! Taking little-endian fields from the front of a slice, and putting them at the end of a vector.

use crate::base::checksum_matches;

/// A slice being read. Every `take` answers `None` when the bytes run out.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes `count` bytes that must all be zero.
    pub(super) fn reserved(&mut self, count: usize) -> Option<()> {
        self.bytes(count)?.iter().all(|b| *b == 0).then_some(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Splits off the crc32 in the last four bytes and checks it over the rest.
pub(super) fn checked_body(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    checksum_matches(crc32fast::hash(body), u32::from_le_bytes(*crc)).then_some(body)
}

/// Appends the crc32 of all that is in `out`.
pub(super) fn put_crc(out: &mut Vec<u8>) {
    let crc = crc32fast::hash(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The low 16 bits of a number that the format keeps below 2^16.
pub(super) fn low16(value: u64) -> [u8; 2] {
    let b = value.to_le_bytes();
    [b[0], b[1]]
}

/// The low 32 bits of a number that the format keeps below 2^32.
pub(super) fn low32(value: u64) -> [u8; 4] {
    let b = value.to_le_bytes();
    [b[0], b[1], b[2], b[3]]
}
