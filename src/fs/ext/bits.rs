//! Bitmaps whose bit 0 is the lowest of the first byte.

use std::ops::Range;

const WORD: usize = 8;

/// The runs of clear bits among the first `bits` of `bitmap`, ascending. What `bitmap` does not have
/// counts as set.
pub(super) fn clear_runs(bitmap: &[u8], bits: u64) -> impl Iterator<Item = Range<u64>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = find(bitmap, at, bits, false);
        let end = find(bitmap, start, bits, true);
        at = end;
        (start < end).then_some(start..end)
    })
}

/// The first bit from `from` on that is `set`, or `bits`.
fn find(bitmap: &[u8], from: u64, bits: u64, set: bool) -> u64 {
    let mut at = from;
    while at < bits {
        let word = word(bitmap, at);
        let word = if set { word } else { !word };
        let skipped = at % 64;
        let left = word >> skipped;
        if left != 0 {
            return (at + u64::from(left.trailing_zeros())).min(bits);
        }
        at += 64 - skipped;
    }
    bits
}

/// The 64 bits that hold bit `at`.
fn word(bitmap: &[u8], at: u64) -> u64 {
    let from = usize::try_from(at / 64)
        .unwrap_or(usize::MAX)
        .saturating_mul(WORD);
    let mut bytes = [0xFF; WORD];
    let there = bitmap.get(from..).unwrap_or_default();
    for (byte, found) in bytes.iter_mut().zip(there) {
        *byte = *found;
    }
    u64::from_le_bytes(bytes)
}

/// The bits that are set in either bitmap; as long as `one`.
pub(super) fn union(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(a, b)| a | b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::to_u64;

    #[test]
    fn runs_of_clear_bits() {
        let mut bitmap = [0xFF; 20];
        bitmap[0] = 0b1111_0011;
        bitmap[7] = 0x7F;
        bitmap[8] = 0;
        bitmap[19] = 0;
        let runs: Vec<_> = clear_runs(&bitmap, 158).collect();
        assert_eq!(runs, [2..4, 63..72, 152..158]);
        // Bits past the bytes are set.
        assert_eq!(clear_runs(&bitmap, 500).last(), Some(152..160));
        assert_eq!(clear_runs(&[], 64).count(), 0);
        assert_eq!(union(&[1, 2], &[4, 2]), [5, 2]);
    }

    #[test]
    fn as_bit_by_bit() {
        let bitmap: Vec<u8> = (0..97u8).map(|n| n.wrapping_mul(151) & n).collect();
        let bits = to_u64(bitmap.len()) * 8 - 3;
        let clear = |bit: u64| bitmap[usize::try_from(bit / 8).unwrap()] >> (bit % 8) & 1 == 0;
        let expected: Vec<u64> = (0..bits).filter(|bit| clear(*bit)).collect();
        let found: Vec<u64> = clear_runs(&bitmap, bits).flatten().collect();
        assert_eq!(found, expected);
    }
}
