//! A source of which some ranges are known to be lost.

use crate::base::{
    ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, to_u64, to_usize,
};
use crate::block::{BlockSource, Mapping, UNREADABLE_PATTERN};
use std::sync::OnceLock;

/// The pattern repeats from the start of the disk on, and partitions begin at sectors.
const PERIOD: usize = UNREADABLE_PATTERN.len();

/// Fails where one of the ranges holds the pattern that stands for what could not be read, as it does
/// where reading fails: nothing may take the pattern for a number.
pub(super) struct Lost<'a> {
    inner: &'a dyn BlockSource,
    /// Ascending and apart.
    ranges: &'a [Extent],
    /// For each of them, once it was needed: whether it begins with the pattern.
    begins: Vec<OnceLock<bool>>,
}

impl<'a> Lost<'a> {
    pub(super) fn new(inner: &'a dyn BlockSource, ranges: &'a [Extent]) -> Lost<'a> {
        Lost {
            inner,
            ranges,
            begins: ranges.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Whether `bytes`, which are those from `at` on in range `number`, are the pattern.
    fn is_pattern(&self, number: usize, at: u64, bytes: &[u8]) -> Result<bool> {
        if bytes.len() >= PERIOD || !same(at, bytes) {
            return Ok(same(at, bytes));
        }
        // So few bytes may be like it by chance: look at how the range begins.
        let (Some(range), Some(known)) = (self.ranges.get(number), self.begins.get(number)) else {
            return Ok(true);
        };
        if let Some(known) = known.get() {
            return Ok(*known);
        }
        let mut head = [0; PERIOD];
        let head = head.get_mut(..PERIOD.min(to_usize(range.len.0)));
        let head = head.unwrap_or_default();
        self.inner.read_at(range.start, head)?;
        Ok(*known.get_or_init(|| same(range.start.0, head)))
    }
}

fn same(at: u64, bytes: &[u8]) -> bool {
    let from = to_usize(at % to_u64(PERIOD));
    let pattern = UNREADABLE_PATTERN.iter().cycle().skip(from);
    bytes.iter().zip(pattern).all(|(byte, other)| byte == other)
}

impl BlockSource for Lost<'_> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)?;
        let Some(read) = Extent::new(offset, ByteLen(to_u64(buf.len()))) else {
            return Ok(());
        };
        let first = self.ranges.partition_point(|range| range.end() <= offset);
        let rest = (0..).zip(self.ranges).skip(first);
        let inside = rest.map_while(|(n, range)| Some((n, range.intersect(read)?)));
        for (number, lost) in inside {
            let from = to_usize(lost.start.0 - offset.0);
            let bytes = buf.get(from..from + to_usize(lost.len.0));
            if self.is_pattern(number, lost.start.0, bytes.unwrap_or_default())? {
                let why = format!("the {lost} of {}, which are lost", self.name());
                return Err(Error::new(ErrorKind::Source, "read", why));
            }
        }
        Ok(())
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.inner.mapping(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{MemorySource, fill_unreadable};

    #[test]
    fn the_pattern_is_an_error_inside_the_ranges_only() {
        let mut bytes = vec![7; 8192];
        fill_unreadable(&mut bytes[1024..1536], ByteOffset(1024));
        fill_unreadable(&mut bytes[4096..4608], ByteOffset(4096));
        let inner = MemorySource::new("m", bytes);
        let extent = |start, len| Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        };
        let ranges = [extent(1024, 512), extent(2048, 512)];
        let source = Lost::new(&inner, &ranges);
        let reads = |at, len| source.read_at(ByteOffset(at), &mut vec![0; len]).is_ok();
        assert!(!reads(0, 8192) && !reads(1024, 512) && !reads(1027, 3));
        assert!(!reads(1535, 1) && reads(1536, 512));
        // What was asked for and is there.
        assert!(reads(2048, 512) && reads(2050, 2));
        // The pattern is what somebody has written.
        assert!(reads(4096, 512));
    }
}
