//! The first 128 bytes of an image.

use super::bytes::{Fields, checked_body, put_crc};
use super::limits::{MAX_DISK_LEN, MAX_FRAME_LOG2, MAX_WINDOW_LOG2};
use crate::base::{BlockIndex, BlockSize, ByteLen, Digest, Error, ErrorKind, Extent, Result};
use uuid::Uuid;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 128;

pub(super) const MAGIC: [u8; 8] = *b"\x89STRATA\n";
const MAJOR: u16 = 1;

/// How an image relates to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Stands alone.
    Full,
    /// Against the image before it.
    Incremental,
    /// Against the last full one.
    Differential,
}

impl Kind {
    /// The word for people, file names and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Incremental => "incremental",
            Kind::Differential => "differential",
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Kind::Full => 1,
            Kind::Incremental => 2,
            Kind::Differential => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Full, Kind::Incremental, Kind::Differential]
            .into_iter()
            .find(|k| k.to_byte() == byte)
    }
}

/// The image that this one builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its id.
    pub id: Uuid,
    /// Its place in the history.
    pub sequence: u32,
    /// Its root digest.
    pub root: Digest,
}

/// Identity and geometry of an image. Section 2 of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The image.
    pub id: Uuid,
    /// The history it belongs to.
    pub set: Uuid,
    /// Its place in the history, from 1. Greater than its parent's.
    pub sequence: u32,
    /// What it builds on; `None` exactly for a full image.
    pub parent: Option<Parent>,
    /// Full, incremental or differential.
    pub kind: Kind,
    /// Length of the imaged disk, 1 byte to 64 PiB.
    pub disk_len: ByteLen,
    /// Unit of block states.
    pub block_size: BlockSize,
    /// Exponent of the number of blocks in a frame window, 0 to 6.
    pub window_log2: u8,
}

impl Header {
    /// How many blocks the disk has.
    pub fn blocks(&self) -> u64 {
        self.block_size.count(self.disk_len)
    }

    /// Place of the parent in the history; 0 without one. What was recorded after it is in this file.
    pub fn parent_sequence(&self) -> u32 {
        self.parent.map_or(0, |parent| parent.sequence)
    }

    /// Blocks in a frame window, 1 to 64.
    pub fn window_blocks(&self) -> u64 {
        1 << self.window_log2
    }

    /// Bytes in a frame window, at most 4 MiB.
    pub fn window_len(&self) -> usize {
        1 << (self.window_log2 + self.block_size.log2())
    }

    /// The bytes of the disk that `blocks` cover.
    pub fn extent_of(&self, blocks: &std::ops::Range<u64>) -> Extent {
        let start = self
            .block_size
            .extent_of(BlockIndex(blocks.start), self.disk_len)
            .start;
        let end = self
            .block_size
            .extent_of(BlockIndex(blocks.end), self.disk_len)
            .start;
        Extent::between(start, end).unwrap_or_default()
    }

    /// What stands in every record of this image.
    pub(super) fn tag(&self) -> [u8; 8] {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.id.as_bytes()[..8]);
        tag
    }

    /// The 128 bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&128u16.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&[0; 4 + 4]);
        out.extend_from_slice(&self.parent_sequence().to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.set.as_bytes());
        let parent = self.parent.unwrap_or(Parent {
            id: Uuid::nil(),
            sequence: 0,
            root: Digest::default(),
        });
        out.extend_from_slice(parent.id.as_bytes());
        out.extend_from_slice(&parent.root.0);
        out.extend_from_slice(&self.disk_len.0.to_le_bytes());
        out.extend_from_slice(&[
            self.block_size.log2(),
            self.window_log2,
            self.kind.to_byte(),
            0,
        ]);
        put_crc(&mut out);
        out
    }

    /// Reads the 128 bytes of `file`.
    ///
    /// # Errors
    /// `Damaged` when it is no image, its checksum is wrong or a field is out of range; the same,
    /// naming the version or the bits, when a newer program wrote it.
    pub(super) fn decode(bytes: &[u8], file: &str) -> Result<Header> {
        let bad =
            |why: String| Error::new(ErrorKind::Damaged, "read the header of", file).because(why);
        let start = bytes.get(..8).unwrap_or_default();
        if start != MAGIC {
            return Err(bad("it does not start like a diskstrata image".into()));
        }
        let major = bytes
            .get(8..10)
            .map_or(0, |b| u16::from(b[0]) | u16::from(b[1]) << 8);
        let body = bytes.get(..HEADER_LEN).and_then(checked_body);
        let body = body.ok_or_else(|| bad("its checksum is wrong".into()))?;
        if major != MAJOR {
            return Err(bad(format!(
                "it has format version {major}, this program reads {MAJOR}"
            ))
            .hint("use a newer version of strata"));
        }
        let features = body
            .get(16..20)
            .map_or([0; 4], |b| b.try_into().unwrap_or([0xff; 4]));
        let unknown = u32::from_le_bytes(features);
        if unknown != 0 {
            return Err(bad(format!(
                "it needs features this program does not know: bits {unknown:#x}"
            ))
            .hint("use a newer version of strata"));
        }
        parse(body).ok_or_else(|| bad("a field is out of its range".into()))
    }
}

/// The fields behind magic, version and features, which the caller has checked.
fn parse(body: &[u8]) -> Option<Header> {
    let mut f = Fields(body);
    f.bytes(10)?;
    (f.u16()? == 128).then_some(())?;
    let sequence = f.u32()?;
    f.bytes(8)?;
    let parent_sequence = f.u32()?;
    f.reserved(4)?;
    let id = Uuid::from_bytes(f.array()?);
    let set = Uuid::from_bytes(f.array()?);
    let parent = Parent {
        id: Uuid::from_bytes(f.array()?),
        sequence: parent_sequence,
        root: Digest(f.array()?),
    };
    let disk_len = ByteLen(f.u64()?);
    let block_size = BlockSize::from_log2(f.u8()?)?;
    let window_log2 = f.u8()?;
    let kind = Kind::from_byte(f.u8()?)?;
    f.reserved(1)?;
    let full = parent.id.is_nil() && parent.root == Digest::default() && parent.sequence == 0;
    let sane = f.is_empty()
        && !id.is_nil()
        && !set.is_nil()
        && parent.sequence < sequence
        && full == (parent.sequence == 0)
        && (1..=MAX_DISK_LEN).contains(&disk_len.0)
        && window_log2 <= MAX_WINDOW_LOG2
        && block_size.log2() + window_log2 <= MAX_FRAME_LOG2
        && (kind == Kind::Full) == full
        && full == parent.id.is_nil()
        && parent.id != id;
    sane.then_some(Header {
        id,
        set,
        sequence,
        parent: (!full).then_some(parent),
        kind,
        disk_len,
        block_size,
        window_log2,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A full image's header for tests: 4 KiB blocks, windows of 4.
    pub(in crate::image) fn sample(disk_len: u64) -> Header {
        Header {
            id: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888),
            set: Uuid::from_u128(0x9999),
            sequence: 1,
            parent: None,
            kind: Kind::Full,
            disk_len: ByteLen(disk_len),
            block_size: BlockSize::new(4096).unwrap(),
            window_log2: 2,
        }
    }

    /// The header of an incremental image at place `sequence`, whose parent is at place `parent`.
    pub(in crate::image) fn child_of(full: &Header, parent: u32, sequence: u32) -> Header {
        Header {
            kind: Kind::Incremental,
            sequence,
            parent: Some(Parent {
                id: Uuid::from_u128(7),
                sequence: parent,
                root: Digest::of(b"x"),
            }),
            ..full.clone()
        }
    }

    #[test]
    fn round_trip_and_length() {
        let full = sample(12_345);
        let child = child_of(&full, 8, 9);
        for header in [full, child] {
            let bytes = header.encode();
            assert_eq!(bytes.len(), HEADER_LEN);
            assert_eq!(Header::decode(&bytes, "x").unwrap(), header);
        }
    }

    #[test]
    fn newer_versions_and_features_are_named() {
        let change = |at: usize, value: u8| {
            let mut bytes = sample(1).encode();
            bytes[at] = value;
            bytes.truncate(HEADER_LEN - 4);
            put_crc(&mut bytes);
            Header::decode(&bytes, "x").unwrap_err().to_string()
        };
        assert!(change(8, 2).contains("format version 2"));
        assert!(change(16, 4).contains("bits 0x4"));
        assert!(change(120, 40).contains("out of its range"));
        assert!(
            change(12, 0).contains("out of its range"),
            "no image has place 0"
        );
        assert!(
            change(24, 1).contains("out of its range"),
            "a place without a parent"
        );
        assert!(
            change(28, 1).contains("out of its range"),
            "reserved bytes are checked"
        );
    }

    #[test]
    fn unknown_compatible_features_are_ignored() {
        let mut bytes = sample(1).encode();
        bytes[20] = 1;
        bytes.truncate(HEADER_LEN - 4);
        put_crc(&mut bytes);
        assert_eq!(Header::decode(&bytes, "x").unwrap(), sample(1));
    }

    proptest! {
        #[test]
        fn any_field_value_is_refused_or_sane(at in 0usize..124, value: u8) {
            let mut bytes = sample(1 << 30).encode();
            bytes[at] = value;
            bytes.truncate(HEADER_LEN - 4);
            put_crc(&mut bytes);
            if let Ok(header) = Header::decode(&bytes, "x") {
                prop_assert!(header.window_len() <= 4 << 20);
                prop_assert!(header.blocks() >= 1);
            }
        }
    }
}
