//! A source of which only the bytes in use can be seen: all others read as zeros.

use super::Selection;
use crate::base::{ByteLen, ByteOffset, Extent, Geometry, Result, outside, to_u64, to_usize};
use crate::block::{BlockSource, Mapping};

/// Reads between their ends are cut on multiples of this, as unbuffered reads like it.
const ALIGNMENT: u64 = 4096;
/// A gap of this length is not read: it takes a disk longer than starting anew behind it.
pub(super) const WIDE_GAP: u64 = 64 << 10;

/// `source` as `selection` takes it: what stands in the image, and so what is compared with it.
/// Old content of free space neither leaks into an image nor changes a digest.
pub struct Masked<'a> {
    source: &'a dyn BlockSource,
    selection: &'a Selection,
}

impl<'a> Masked<'a> {
    /// The bytes of `source` that `selection` takes.
    pub fn new(source: &'a dyn BlockSource, selection: &'a Selection) -> Masked<'a> {
        Masked { source, selection }
    }
}

impl BlockSource for Masked<'_> {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn geometry(&self) -> Geometry {
        self.source.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let whole = Extent {
            start: offset,
            len: ByteLen(to_u64(buf.len())),
        };
        let unused = self.selection.unused_in(whole);
        if unused.is_empty() {
            return self.source.read_at(offset, buf);
        }
        let place = |extent: Extent| {
            let from = to_usize(extent.start.0 - offset.0);
            from..from + to_usize(extent.len.0)
        };
        let used = outside(whole, &unused);
        for near in used.chunk_by(|a, b| b.start.0 - a.end().0 < WIDE_GAP) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else {
                continue;
            };
            // One read over small gaps is faster than many; a gap that cannot be read is nobody's loss.
            let start = (first.start.0 / ALIGNMENT * ALIGNMENT).max(whole.start.0);
            let end = last.end().0.next_multiple_of(ALIGNMENT).min(whole.end().0);
            let span = Extent {
                start: ByteOffset(start),
                len: ByteLen(end - start),
            };
            let read = |extent: Extent, buf: &mut [u8]| {
                self.source.read_at(extent.start, &mut buf[place(extent)])
            };
            if read(span, buf).is_err() {
                for extent in near {
                    read(*extent, buf)?;
                }
            }
        }
        unused.iter().for_each(|gap| buf[place(*gap)].fill(0));
        Ok(())
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.source.mapping(offset)
    }

    fn is_cached(&self, extent: Extent) -> bool {
        self.source.is_cached(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Used, select};
    use super::*;
    use crate::base::{BlockMap, BlockSize, to_u64};
    use crate::block::{Fault, FaultSource, Faults, MemorySource, contract};
    use std::sync::Arc;

    fn selection(len: usize) -> Selection {
        let mut map = BlockMap::empty(100);
        map.insert_range(3..5);
        map.insert_range(9..10);
        map.insert_range(30..80);
        let used = Used {
            extent: Extent {
                start: ByteOffset(100),
                len: ByteLen(19_000),
            },
            unit: ByteLen(200),
            map,
        };
        let size = BlockSize::new(4096).unwrap();
        select(ByteLen(to_u64(len)), size, vec![used], vec![])
    }

    fn masked(bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for unit in (0..95).filter(|u| !((3..5).contains(u) || *u == 9 || (30..80).contains(u))) {
            out[100 + unit * 200..100 + unit * 200 + 200].fill(0);
        }
        out
    }

    #[test]
    fn only_what_is_in_use_is_seen() {
        let bytes = contract::pattern(20_001);
        let source = MemorySource::new("m", bytes.clone());
        let selection = selection(20_001);
        contract::check_source(&Masked::new(&source, &selection), &masked(&bytes));
    }

    #[test]
    fn a_bad_spot_in_free_space_is_nobodys_loss() {
        let bytes = contract::pattern(20_001);
        let free = Extent {
            start: ByteOffset(1200),
            len: ByteLen(300),
        };
        let inner = Arc::new(MemorySource::new("m", bytes.clone()));
        let source = FaultSource::new(inner, Faults::new(vec![Fault::read_in(free, 5)]));
        let selection = selection(20_001);
        let view = Masked::new(&source, &selection);
        let mut buf = vec![1; 20_001];
        view.read_at(ByteOffset(0), &mut buf).unwrap();
        assert_eq!(buf, masked(&bytes));
        let used = Extent {
            start: ByteOffset(900),
            len: ByteLen(1),
        };
        let inner = Arc::new(MemorySource::new("m", bytes));
        let source = FaultSource::new(inner, Faults::new(vec![Fault::read_in(used, 5)]));
        let view = Masked::new(&source, &selection);
        assert!(view.read_at(ByteOffset(0), &mut buf).is_err());
    }
}
