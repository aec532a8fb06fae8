//! A run of bytes.

use super::{ByteLen, ByteOffset};
use std::fmt;

/// The half-open byte range `[start, start + len)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Extent {
    /// First byte.
    pub start: ByteOffset,
    /// Number of bytes; zero is an empty extent.
    pub len: ByteLen,
}

impl Extent {
    /// All of something `len` bytes long.
    pub fn whole(len: ByteLen) -> Extent {
        Extent {
            start: ByteOffset(0),
            len,
        }
    }

    /// The extent of `len` bytes at `start`, or `None` when it would end past 2^64.
    pub fn new(start: ByteOffset, len: ByteLen) -> Option<Extent> {
        start.checked_add(len).map(|_| Extent { start, len })
    }

    /// The extent from `start` to `end`, or `None` when `end` lies before `start`.
    pub fn between(start: ByteOffset, end: ByteOffset) -> Option<Extent> {
        end.checked_since(start).map(|len| Extent { start, len })
    }

    /// One past the last byte. Saturates, though no checked constructor lets it.
    pub fn end(self) -> ByteOffset {
        ByteOffset(self.start.0.saturating_add(self.len.0))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(self) -> bool {
        self.len.0 == 0
    }

    /// Whether `inner` lies wholly inside; an empty extent does when its start is inside or at the end.
    pub fn contains(self, inner: Extent) -> bool {
        inner.start >= self.start && inner.end() <= self.end()
    }

    /// The bytes that both have, or `None`.
    pub fn intersect(self, other: Extent) -> Option<Extent> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        Extent::between(start, end).filter(|e| !e.is_empty())
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}..{}", self.start.0, self.end().0)
    }
}

/// Sorts and joins extents that touch or overlap; empty ones vanish.
pub fn normalize(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|e| !e.is_empty());
    extents.sort_unstable();
    let mut out: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match out.last_mut() {
            Some(last) if extent.start <= last.end() => {
                let end = last.end().max(extent.end());
                last.len = ByteLen(end.0 - last.start.0);
            }
            _ => out.push(extent),
        }
    }
    out
}

/// What of `whole` lies outside `holes`, which are ascending and apart.
pub fn outside(whole: Extent, holes: &[Extent]) -> Vec<Extent> {
    let mut at = whole.start;
    let mut out = Vec::new();
    let end = Extent {
        start: whole.end(),
        len: ByteLen(0),
    };
    let inside = holes.iter().filter_map(|hole| hole.intersect(whole));
    for hole in inside.chain(std::iter::once(end)) {
        out.extend(Extent::between(at, hole.start).filter(|e| !e.is_empty()));
        at = hole.end();
    }
    out
}

/// What of `extents` lies outside `holes`; both are ascending and apart, and so is the answer.
pub fn subtract(extents: &[Extent], holes: &[Extent]) -> Vec<Extent> {
    let mut out = Vec::new();
    for extent in extents {
        let first = holes.partition_point(|h| h.end() <= extent.start);
        let last = holes.partition_point(|h| h.start < extent.end());
        out.extend(outside(*extent, holes.get(first..last).unwrap_or_default()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset(start), ByteLen(len)).unwrap()
    }

    #[test]
    fn extents_do_not_wrap() {
        assert!(Extent::new(ByteOffset(u64::MAX), ByteLen(1)).is_none());
        assert!(Extent::new(ByteOffset(u64::MAX), ByteLen(0)).is_some());
        assert!(Extent::between(ByteOffset(5), ByteOffset(4)).is_none());
    }

    #[test]
    fn intersections_are_exact() {
        assert_eq!(extent(0, 10).intersect(extent(5, 10)), Some(extent(5, 5)));
        assert_eq!(extent(0, 10).intersect(extent(10, 10)), None);
    }

    #[test]
    fn normalize_joins_neighbours_and_overlaps() {
        let out = normalize(vec![
            extent(10, 5),
            extent(0, 4),
            extent(4, 0),
            extent(15, 5),
            extent(11, 1),
        ]);
        assert_eq!(out, vec![extent(0, 4), extent(10, 10)]);
    }

    #[test]
    fn outside_is_what_the_holes_leave() {
        let holes = [extent(0, 3), extent(5, 5), extent(18, 10)];
        let left = outside(extent(2, 18), &holes);
        assert_eq!(left, vec![extent(3, 2), extent(10, 8)]);
        assert_eq!(outside(extent(6, 2), &holes), vec![]);
        assert_eq!(outside(extent(12, 2), &holes), vec![extent(12, 2)]);
    }

    #[test]
    fn subtract_takes_away_every_hole() {
        let extents = [extent(0, 10), extent(20, 10), extent(40, 5)];
        let holes = [extent(5, 20), extent(28, 1), extent(40, 5), extent(90, 1)];
        let left = vec![extent(0, 5), extent(25, 3), extent(29, 1)];
        assert_eq!(subtract(&extents, &holes), left);
        assert_eq!(subtract(&extents, &[]), extents);
        assert_eq!(subtract(&[], &holes), []);
    }
}
