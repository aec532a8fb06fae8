//! Holes of files that are none.
//!
//! A file system that calls data a hole (OpenZFS has, for what was just written) would have an image hold zeros
//! instead of it, and nobody would know. So some of every hole is read before it is believed, and a file system
//! that was wrong once is not asked again.

use crate::base::{Extent, Result, to_usize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How much is read at each place, in bytes: what a file system keeps together at least.
const SAMPLE: u64 = 4096;
/// One place for so many bytes of a hole, besides its two ends, and never more than so many.
const STEP: u64 = 64 << 20;
const MOST: u64 = 4096;

/// So many holes are remembered, in some 3 MiB of memory; beyond that all are forgotten.
const REMEMBERED: usize = 1 << 16;

/// What is known of the holes of one file.
#[derive(Debug, Default)]
pub(super) struct Holes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// First byte and end of those that were looked at: callers ask again and again on their way through one, and
    /// go through the whole file more than once.
    believed: BTreeMap<u64, u64>,
    lied: bool,
}

impl Known {
    fn holds(&self, hole: Extent) -> bool {
        let before = self.believed.range(..=hole.start.0).next_back();
        before.is_some_and(|(_, end)| hole.end().0 <= *end)
    }

    fn remember(&mut self, hole: Extent) {
        if self.believed.len() >= REMEMBERED {
            self.believed.clear();
        }
        self.believed.insert(hole.start.0, hole.end().0);
    }
}

impl Holes {
    /// Whether `hole` reads as zeros wherever it was looked at, by `read`, as all before it did. What cannot be
    /// read is not believed.
    pub(super) fn are_believed(
        &self,
        hole: Extent,
        read: &dyn Fn(u64, &mut [u8]) -> Result<()>,
    ) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.lied {
            return false;
        }
        if !known.holds(hole) {
            let mut sample = vec![0; to_usize(SAMPLE.min(hole.len.0))];
            let mut is_zero = |at| read(at, &mut sample).is_ok() && sample.iter().all(|b| *b == 0);
            if !places(hole).all(&mut is_zero) {
                known.lied = true;
                return false;
            }
            known.remember(hole);
        }
        true
    }
}

/// Where a hole is looked at: at both ends, and within each of its stretches at another place.
fn places(hole: Extent) -> impl Iterator<Item = u64> {
    let (start, len) = (hole.start.0, hole.len.0);
    let room = len.saturating_sub(SAMPLE);
    let count = len.div_ceil(STEP).clamp(1, MOST);
    let stretch = room / count;
    let within = move |n: u64| {
        // Spread as by chance, and the same in every run (Knuth's multiplier for 64 bits).
        let mixed = (start ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        start + n * stretch + mixed.checked_rem(stretch).unwrap_or(0)
    };
    [start, start + room]
        .into_iter()
        .chain((0..count).map(within))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ByteLen, ByteOffset, to_u64};
    use std::cell::Cell;

    const GIB: u64 = 1 << 30;

    fn hole(start: u64, len: u64) -> Extent {
        Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        }
    }

    #[test]
    fn places_lie_inside() {
        for extent in [
            hole(0, 1),
            hole(7, 4096),
            hole(5, 4097),
            hole(3 * GIB, 5 * GIB),
            hole(9, 1 << 45),
        ] {
            let all: Vec<u64> = places(extent).collect();
            let fits =
                |at: &u64| *at >= extent.start.0 && at + SAMPLE.min(extent.len.0) <= extent.end().0;
            assert!(all.iter().all(fits), "{extent}: {all:?}");
            assert!(all.len() >= 3 && all.len() <= 2 + to_usize(MOST));
        }
    }

    #[test]
    fn a_hole_is_looked_at_once() {
        let reads = Cell::new(0);
        let zeros = |_: u64, buf: &mut [u8]| {
            reads.set(reads.get() + 1);
            buf.fill(0);
            Ok(())
        };
        let holes = Holes::default();
        assert!(holes.are_believed(hole(0, GIB), &zeros));
        let once = reads.get();
        assert_eq!(once, 18);
        for start in (0..GIB).step_by(1 << 20) {
            assert!(holes.are_believed(hole(start, GIB - start), &zeros));
        }
        assert_eq!(reads.get(), once);
        assert!(holes.are_believed(hole(2 * GIB, 5), &zeros));
        assert_eq!(reads.get(), once + 3);
        assert!(holes.are_believed(hole(GIB / 2, 10), &zeros));
        assert_eq!(reads.get(), once + 3, "whatever was asked in between");
        // What is longer than before is another hole.
        assert!(holes.are_believed(hole(2 * GIB, 6), &zeros));
        assert_eq!(reads.get(), once + 6);
    }

    #[test]
    fn no_more_holes_are_remembered_than_there_is_room_for() {
        let zeros = |_: u64, buf: &mut [u8]| {
            buf.fill(0);
            Ok(())
        };
        let holes = Holes::default();
        for n in 0..3 * to_u64(REMEMBERED) {
            assert!(holes.are_believed(hole(n * 10, 5), &zeros));
            assert!(holes.0.lock().unwrap().believed.len() <= REMEMBERED);
        }
    }

    #[test]
    fn who_lied_once_is_not_believed_again() {
        let holes = Holes::default();
        let zeros = |_: u64, buf: &mut [u8]| {
            buf.fill(0);
            Ok(())
        };
        // Data at the very end.
        let data = |at: u64, buf: &mut [u8]| {
            buf.fill(0);
            if at + 4096 == GIB {
                buf[4095] = 1;
            }
            Ok(())
        };
        assert!(!holes.are_believed(hole(0, GIB), &data));
        assert!(!holes.are_believed(hole(0, GIB), &zeros));
    }
}
