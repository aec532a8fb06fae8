//! A disk of which only some bytes are kept: what a reader of metadata looked at. The rest is zero.
//!
//! A disk of any size, recorded while it is read, becomes a file of a few KiB that answers the same
//! reads in the same way. Tests and fuzzers take such files for disks.

use super::{BlockSource, Mapping, check_range, rest_of};
use crate::base::{
    ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, SectorSize, normalize, to_u64,
    to_usize,
};

/// The file's first bytes.
const MAGIC: &[u8; 8] = b"capsule1";
/// More kept bytes than this are refused: 256 MiB.
const MAX_KEPT: u64 = 256 << 20;

/// Some bytes of a disk. The stored form is, in zstd: magic (8), length of the disk (8), logical
/// sector (4), number of pieces (4), then for each its offset (8), length (4) and bytes, all numbers
/// little-endian, the pieces ascending and apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capsule {
    name: String,
    geometry: Geometry,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Capsule {
    /// The bytes of `extents` of `source`.
    ///
    /// # Errors
    /// What reading them returns; `Usage` for more than 256 MiB.
    pub fn record(source: &dyn BlockSource, extents: Vec<Extent>) -> Result<Capsule> {
        let extents = normalize(extents);
        if extents.iter().map(|e| e.len.0).sum::<u64>() > MAX_KEPT {
            return Err(Error::new(ErrorKind::Usage, "keep", source.name())
                .because("more than 256 MiB of it were read"));
        }
        let mut pieces = Vec::new();
        for extent in extents {
            let mut bytes = vec![0; to_usize(extent.len.0)];
            source.read_at(extent.start, &mut bytes)?;
            pieces.push((extent.start.0, bytes));
        }
        Ok(Capsule {
            name: "capsule".to_owned(),
            geometry: source.geometry(),
            pieces,
        })
    }

    /// The stored form.
    ///
    /// # Errors
    /// `Internal` when zstd fails.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.geometry.len.0.to_le_bytes());
        out.extend_from_slice(&self.geometry.logical_sector.bytes().to_le_bytes());
        let count = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for (offset, bytes) in &self.pieces {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        zstd::bulk::compress(&out, 19)
            .map_err(|e| Error::new(ErrorKind::Internal, "compress", "a capsule").caused_by(e))
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Damaged` when it is not one.
    pub fn decode(stored: &[u8]) -> Result<Capsule> {
        let damaged = || Error::new(ErrorKind::Damaged, "read", "a capsule");
        let most = to_usize(MAX_KEPT + (MAX_KEPT >> 4));
        let plain = zstd::bulk::decompress(stored, most).map_err(|e| damaged().caused_by(e))?;
        parse(&plain).ok_or_else(|| damaged().because("its pieces do not add up"))
    }

    /// The pieces: offset and bytes, ascending and apart.
    pub fn pieces(&self) -> &[(u64, Vec<u8>)] {
        &self.pieces
    }

    /// The pieces, for damaging them.
    pub fn pieces_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.pieces
            .iter_mut()
            .map(|(_, bytes)| bytes.as_mut_slice())
    }

    /// The same bytes on a disk of another length; pieces past its end are cut.
    #[must_use]
    pub fn with_len(mut self, len: ByteLen) -> Capsule {
        self.geometry.len = len;
        for (offset, bytes) in &mut self.pieces {
            bytes.truncate(to_usize(len.0.saturating_sub(*offset)));
        }
        self.pieces.retain(|(_, bytes)| !bytes.is_empty());
        self
    }
}

fn parse(plain: &[u8]) -> Option<Capsule> {
    let mut rest = plain.strip_prefix(MAGIC.as_slice())?;
    let u64_field = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        *rest = tail;
        Some(u64::from_le_bytes(*head))
    };
    let u32_field = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(u32::from_le_bytes(*head))
    };
    let len = u64_field(&mut rest)?;
    let sector = SectorSize::new(u32_field(&mut rest)?)?;
    let count = u32_field(&mut rest)?;
    let mut pieces = Vec::new();
    let mut end = 0u64;
    for _ in 0..count {
        let offset = u64_field(&mut rest)?;
        let piece_len = to_usize(u64::from(u32_field(&mut rest)?));
        let (bytes, tail) = rest.split_at_checked(piece_len)?;
        rest = tail;
        let apart = pieces.is_empty() || offset > end;
        end = offset.checked_add(to_u64(piece_len))?;
        if !apart || bytes.is_empty() || end > len {
            return None;
        }
        pieces.push((offset, bytes.to_vec()));
    }
    let geometry = Geometry {
        len: ByteLen(len),
        logical_sector: sector,
        physical_sector: sector,
    };
    rest.is_empty().then(|| Capsule {
        name: "capsule".to_owned(),
        geometry,
        pieces,
    })
}

impl BlockSource for Capsule {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        check_range(&self.name, "read", self.geometry.len, offset, buf.len())?;
        buf.fill(0);
        let end = offset.0 + to_u64(buf.len());
        let first = self
            .pieces
            .partition_point(|(at, bytes)| at + to_u64(bytes.len()) <= offset.0);
        let near = self.pieces.iter().skip(first);
        for (at, bytes) in near.take_while(|(at, _)| *at < end) {
            let from = offset.0.max(*at);
            let to = end.min(at + to_u64(bytes.len()));
            buf[to_usize(from - offset.0)..to_usize(to - offset.0)]
                .copy_from_slice(&bytes[to_usize(from - at)..to_usize(to - at)]);
        }
        Ok(())
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let rest = rest_of(&self.name, self.geometry.len, offset)?;
        Ok(Mapping::Data(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{MemorySource, contract};

    fn extent(start: u64, len: u64) -> Extent {
        Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        }
    }

    #[test]
    fn a_whole_capsule_keeps_the_contract() {
        let bytes = contract::pattern(20_001);
        let source = MemorySource::new("m", bytes.clone());
        let capsule = Capsule::record(&source, vec![extent(0, 20_001)]).unwrap();
        contract::check_source(&capsule, &bytes);
    }

    #[test]
    fn what_is_not_kept_is_zero_and_the_stored_form_round_trips() {
        let bytes = contract::pattern(20_001);
        let source = MemorySource::new("m", bytes.clone());
        let kept = vec![extent(10_000, 10), extent(5, 20), extent(20, 100)];
        let capsule = Capsule::record(&source, kept).unwrap();
        let stored = capsule.encode().unwrap();
        assert_eq!(Capsule::decode(&stored).unwrap(), capsule);
        assert!(Capsule::decode(&stored[..stored.len() - 1]).is_err());
        let mut buf = vec![1; 20_001];
        capsule.read_at(ByteOffset(0), &mut buf).unwrap();
        let mut expected = vec![0; 20_001];
        for range in [5..120, 10_000..10_010] {
            expected[range.clone()].copy_from_slice(&bytes[range]);
        }
        assert_eq!(buf, expected);
        let short = capsule.with_len(ByteLen(50));
        assert_eq!(short.pieces(), [(5, bytes[5..50].to_vec())]);
    }
}
