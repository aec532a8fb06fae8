//! The 48 bytes before every payload.

use super::bytes::{Fields, checked_body, put_crc};
use super::header::Header;
use super::limits::{MAX_PAGE_LEN, MAX_SECTION_LEN, MAX_STORED_EXCESS};
use crate::base::to_usize;

/// Length of a record header in bytes.
pub const RECORD_HEADER_LEN: usize = 48;

/// What every record starts with.
pub(super) const MAGIC: [u8; 4] = *b"sRec";

/// Types of sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Info,
    Tables,
    Summary,
}

impl Section {
    pub(super) fn code(self) -> u64 {
        match self {
            Section::Info => 1,
            Section::Tables => 2,
            Section::Summary => 3,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Section::Info => "info section",
            Section::Tables => "tables section",
            Section::Summary => "summary section",
        }
    }
}

/// What a record holds and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Blocks `first + i` for every bit i of `mask`.
    Frame { first: u64, mask: u64 },
    /// Page `index` of `level`.
    Page { level: u8, index: u64 },
    /// A section by its type, known or not.
    Section(u64),
}

/// How a payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Raw,
    Zstd,
}

/// One record header. Section 3 of `docs/format.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub(super) place: Place,
    pub(super) codec: Codec,
    /// Length of the payload in the file.
    pub(super) stored_len: u32,
    /// Length of the payload when decoded.
    pub(super) raw_len: u32,
    /// crc32 of the payload in the file.
    pub(super) payload_crc: u32,
}

const INDEX_BITS: u32 = 56;

impl RecordHeader {
    pub(super) fn encode(&self, tag: [u8; 8]) -> Vec<u8> {
        let (kind, position, mask) = match self.place {
            Place::Frame { first, mask } => (1, first, mask),
            Place::Page { level, index } => (2, u64::from(level) << INDEX_BITS | index, 0),
            Place::Section(code) => (3, code, 0),
        };
        let codec = match self.codec {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        };
        let mut out = Vec::with_capacity(RECORD_HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[kind, codec, 0, 0]);
        out.extend_from_slice(&tag);
        out.extend_from_slice(&position.to_le_bytes());
        out.extend_from_slice(&mask.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        put_crc(&mut out);
        out
    }

    /// The payload of a record that stands in `stored` as a whole.
    pub(super) fn payload<'a>(&self, stored: &'a [u8]) -> &'a [u8] {
        let end = RECORD_HEADER_LEN + to_usize(u64::from(self.stored_len));
        stored.get(RECORD_HEADER_LEN..end).unwrap_or_default()
    }

    /// Reads a record header of the image `header`; `None` when it is none, belongs to another
    /// image, or states what cannot be.
    pub(super) fn decode(bytes: &[u8], header: &Header) -> Option<RecordHeader> {
        let body = bytes.get(..RECORD_HEADER_LEN).and_then(checked_body)?;
        let mut f = Fields(body);
        (f.array()? == MAGIC).then_some(())?;
        let kind = f.u8()?;
        let codec = match f.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return None,
        };
        f.reserved(2)?;
        (f.array()? == header.tag()).then_some(())?;
        let position = f.u64()?;
        let mask = f.u64()?;
        let place = match kind {
            1 => Place::Frame {
                first: position,
                mask,
            },
            2 => Place::Page {
                level: u8::try_from(position >> INDEX_BITS).ok()?,
                index: position & ((1 << INDEX_BITS) - 1),
            },
            3 => Place::Section(position),
            _ => return None,
        };
        let record = RecordHeader {
            place,
            codec,
            stored_len: f.u32()?,
            raw_len: f.u32()?,
            payload_crc: f.u32()?,
        };
        (kind == 1 || mask == 0).then_some(())?;
        record.is_within_limits(header).then_some(record)
    }

    fn is_within_limits(&self, header: &Header) -> bool {
        let limit = match self.place {
            Place::Frame { first, mask } => match frame_len(header, first, mask) {
                Some(len) if len == self.raw_len => len,
                _ => return false,
            },
            Place::Page { .. } => MAX_PAGE_LEN,
            Place::Section(_) => MAX_SECTION_LEN,
        };
        self.raw_len <= limit
            && self.stored_len <= self.raw_len.saturating_add(MAX_STORED_EXCESS)
            && (self.codec == Codec::Zstd || self.stored_len == self.raw_len)
    }
}

/// The decoded length of a frame, or `None` when its window or mask is impossible.
pub(super) fn frame_len(header: &Header, first: u64, mask: u64) -> Option<u32> {
    let blocks = header.blocks();
    let window = header.window_blocks();
    let highest = u64::from(63u32.checked_sub(mask.leading_zeros())?);
    if !first.is_multiple_of(window) || highest >= window || first.checked_add(highest)? >= blocks {
        return None;
    }
    let mut len = u64::from(mask.count_ones()) * header.block_size.bytes();
    if first + highest == blocks - 1 {
        len -= blocks * header.block_size.bytes() - header.disk_len.0;
    }
    u32::try_from(len).ok()
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::*;

    #[test]
    fn records_round_trip_and_know_their_image() {
        let header = sample(4096 * 10 - 96);
        for place in [
            Place::Frame {
                first: 8,
                mask: 0b11,
            },
            Place::Page {
                level: 3,
                index: (1 << 56) - 1,
            },
            Place::Section(2),
        ] {
            let raw_len = match place {
                Place::Frame { .. } => 4096 + 4000,
                _ => 100,
            };
            let record = RecordHeader {
                place,
                codec: Codec::Zstd,
                stored_len: 90,
                raw_len,
                payload_crc: 5,
            };
            let bytes = record.encode(header.tag());
            assert_eq!(bytes.len(), RECORD_HEADER_LEN);
            assert_eq!(RecordHeader::decode(&bytes, &header), Some(record));
            let mut other = header.clone();
            other.id = uuid::Uuid::from_u128(5);
            assert_eq!(RecordHeader::decode(&bytes, &other), None);
        }
    }

    #[test]
    fn impossible_frames_are_refused() {
        let header = sample(4096 * 10 - 96);
        assert_eq!(
            frame_len(&header, 8, 0b10),
            Some(4000),
            "the last block is short"
        );
        assert_eq!(frame_len(&header, 4, 0b1111), Some(4 * 4096));
        assert_eq!(frame_len(&header, 4, 0), None, "an empty mask");
        assert_eq!(frame_len(&header, 4, 0b1_0000), None, "past the window");
        assert_eq!(frame_len(&header, 8, 0b100), None, "past the disk");
        assert_eq!(frame_len(&header, 5, 1), None, "not a window's start");
        assert_eq!(frame_len(&header, u64::MAX - 3, 0b1000), None);
    }
}
