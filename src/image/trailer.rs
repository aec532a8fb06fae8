//! The last 512 bytes of an image: the way in.

use super::bytes::{Fields, checked_body, put_crc};
use super::header::{HEADER_LEN, Header};
use crate::base::{Digest, Error, ErrorKind, Result};

/// Length of the trailer in bytes.
pub const TRAILER_LEN: usize = 512;

pub(super) const MAGIC: [u8; 8] = *b"\x89STREND\n";

/// Where a record lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordRef {
    /// Position of its header in the file.
    pub offset: u64,
    /// Length of its payload in the file.
    pub stored_len: u32,
}

/// Section 8 of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) offset: u64,
    pub(super) header: Header,
    pub(super) top: RecordRef,
    pub(super) top_digest: Digest,
    pub(super) root: Digest,
    pub(super) info: RecordRef,
    pub(super) tables: RecordRef,
    pub(super) summary: RecordRef,
    pub(super) frames: u64,
}

impl Trailer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.header.encode());
        put_ref(&mut out, self.top);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.top_digest.0);
        out.extend_from_slice(&self.root.0);
        [self.info, self.tables, self.summary]
            .into_iter()
            .for_each(|r| put_ref(&mut out, r));
        out.extend_from_slice(&self.frames.to_le_bytes());
        out.resize(TRAILER_LEN - 4, 0);
        put_crc(&mut out);
        out
    }

    /// Reads the trailer of `file`, which stands at `offset`.
    ///
    /// # Errors
    /// `Damaged` when it is no trailer or does not belong there.
    pub(super) fn decode(bytes: &[u8], offset: u64, file: &str) -> Result<Trailer> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Damaged, "read the end of", file)
                .because(why)
                .hint("the file was cut off or damaged; copy it again if another copy exists")
        };
        if bytes.get(..8) != Some(MAGIC.as_slice()) {
            return Err(bad(
                "an image's trailer is not there: the file is incomplete",
            ));
        }
        let body = checked_body(bytes).ok_or_else(|| bad("its checksum is wrong"))?;
        let mut f = Fields(body);
        f.bytes(8);
        if f.u64() != Some(offset) {
            return Err(bad("bytes are missing or were added"));
        }
        let header = Header::decode(f.bytes(HEADER_LEN).unwrap_or_default(), file)?;
        parse(&mut f, offset, header).ok_or_else(|| bad("a field is out of its range"))
    }
}

fn parse(f: &mut Fields<'_>, offset: u64, header: Header) -> Option<Trailer> {
    let top = take_ref(f)?;
    f.reserved(4)?;
    let top_digest = Digest(f.array()?);
    let root = Digest(f.array()?);
    let (info, tables, summary) = (take_ref(f)?, take_ref(f)?, take_ref(f)?);
    let frames = f.u64()?;
    f.reserved(240)?;
    f.is_empty().then_some(Trailer {
        offset,
        header,
        top,
        top_digest,
        root,
        info,
        tables,
        summary,
        frames,
    })
}

fn put_ref(out: &mut Vec<u8>, r: RecordRef) {
    out.extend_from_slice(&r.offset.to_le_bytes());
    out.extend_from_slice(&r.stored_len.to_le_bytes());
}

fn take_ref(f: &mut Fields<'_>) -> Option<RecordRef> {
    Some(RecordRef {
        offset: f.u64()?,
        stored_len: f.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::*;

    #[test]
    fn round_trip_and_length() {
        let r = |n: u32| RecordRef {
            offset: u64::from(n) * 100,
            stored_len: n,
        };
        let trailer = Trailer {
            offset: 9999,
            header: sample(5000),
            top: r(1),
            top_digest: Digest::of(b"top"),
            root: Digest::of(b"root"),
            info: r(2),
            tables: r(3),
            summary: r(4),
            frames: 17,
        };
        let bytes = trailer.encode();
        assert_eq!(bytes.len(), TRAILER_LEN);
        assert_eq!(Trailer::decode(&bytes, 9999, "x").unwrap(), trailer);
        assert!(
            Trailer::decode(&bytes, 9998, "x").is_err(),
            "it knows its place"
        );
    }
}
