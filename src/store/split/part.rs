//! What stands around the bytes of one part. Section 13 of `docs/format.md`.

use super::MIN_PART_LEN;
use crate::base::checksum_matches;
use crate::store::FileName;
use uuid::Uuid;

/// Length of what stands before a part's bytes.
pub(super) const HEAD_LEN: usize = 64;
/// Length of what stands behind them.
pub(super) const TAIL_LEN: usize = 32;
/// Both together, in bytes.
pub(super) const AROUND: u64 = (HEAD_LEN + TAIL_LEN) as u64;

/// The most parts of one file: four digits, and an end to looking for more.
pub(super) const MAX_PARTS: u32 = 9999;

const HEAD_MAGIC: [u8; 8] = *b"\x89STPART\n";
const TAIL_MAGIC: [u8; 8] = *b"\x89STPEND\n";
const VERSION: u32 = 1;

/// The beginning of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The same in all parts of a file, and in no other.
    pub(super) id: Uuid,
    /// From 1.
    pub(super) number: u32,
    /// Where in the file the first byte of the part stands.
    pub(super) offset: u64,
    /// How long parts of the file are at most, all of the part counted.
    pub(super) part_len: u64,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[..8].copy_from_slice(&HEAD_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..32].copy_from_slice(self.id.as_bytes());
        out[32..40].copy_from_slice(&self.offset.to_le_bytes());
        out[40..48].copy_from_slice(&self.part_len.to_le_bytes());
        seal(&mut out);
        out
    }

    /// `None` when it is none, damaged, or of a version that is not known.
    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Option<Head> {
        let known = is_sealed(bytes)
            && bytes[..8] == HEAD_MAGIC
            && bytes[8..12] == VERSION.to_le_bytes()
            && bytes[48..HEAD_LEN - 4].iter().all(|b| *b == 0);
        let head = Head {
            id: Uuid::from_bytes(bytes[16..32].try_into().ok()?),
            number: u32::from_le_bytes(bytes[12..16].try_into().ok()?),
            offset: u64::from_le_bytes(bytes[32..40].try_into().ok()?),
            part_len: u64::from_le_bytes(bytes[40..48].try_into().ok()?),
        };
        let sane = (1..=MAX_PARTS).contains(&head.number)
            && (head.number == 1) == (head.offset == 0)
            && head.part_len >= MIN_PART_LEN;
        (known && sane).then_some(head)
    }
}

/// The end of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// As in the beginning.
    pub(super) id: Uuid,
    /// How many parts there are; 0 where more follow.
    pub(super) parts: u32,
}

impl Tail {
    pub(super) fn encode(&self) -> [u8; TAIL_LEN] {
        let mut out = [0; TAIL_LEN];
        out[..8].copy_from_slice(&TAIL_MAGIC);
        out[8..12].copy_from_slice(&self.parts.to_le_bytes());
        out[12..28].copy_from_slice(self.id.as_bytes());
        seal(&mut out);
        out
    }

    /// `None` when it is none or damaged.
    pub(super) fn decode(bytes: &[u8; TAIL_LEN]) -> Option<Tail> {
        let known = is_sealed(bytes) && bytes[..8] == TAIL_MAGIC;
        let tail = Tail {
            parts: u32::from_le_bytes(bytes[8..12].try_into().ok()?),
            id: Uuid::from_bytes(bytes[12..28].try_into().ok()?),
        };
        (known && tail.parts <= MAX_PARTS).then_some(tail)
    }
}

/// Puts the crc32 of the rest into the last four bytes.
fn seal(bytes: &mut [u8]) {
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(body).to_le_bytes();
    }
}

fn is_sealed(bytes: &[u8]) -> bool {
    let parts = bytes.split_last_chunk::<4>();
    parts.is_some_and(|(body, crc)| checksum_matches(crc32fast::hash(body).to_le_bytes(), *crc))
}

/// The file and the number of the part that is called `name`, if that is how parts are called.
pub(super) fn part_of(name: &FileName) -> Option<(FileName, u32)> {
    let (stem, digits) = name.as_str().rsplit_once('.')?;
    let plain = (3..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits
        .parse()
        .ok()
        .filter(|n| (1..=MAX_PARTS).contains(n))?;
    let usual = plain && digits == number_text(number);
    usual.then(|| Some((FileName::new(stem).ok()?, number)))?
}

fn number_text(number: u32) -> String {
    format!("{number:03}")
}

/// What part `number` of `file` is called.
///
/// # Errors
/// `Usage` when that is too long for a file's name.
pub(super) fn name_of_part(file: &FileName, number: u32) -> crate::base::Result<FileName> {
    FileName::new(format!("{file}.{}", number_text(number)))
}

/// What the names of marks end with.
const MARK: &str = ".unfinished";

/// The mark that says that parts of `file` come or go.
///
/// # Errors
/// `Usage` when that is too long for a file's name.
pub(super) fn mark_of(file: &FileName) -> crate::base::Result<FileName> {
    FileName::new(format!("{file}{MARK}"))
}

/// The file whose mark is called `name`, if that is one.
pub(super) fn marked_by(name: &FileName) -> Option<FileName> {
    FileName::new(name.as_str().strip_suffix(MARK)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ends_round_trip_and_no_flipped_bit_passes(
            id: u128, number in 1..=MAX_PARTS, offset: u64, bit in 0..256usize,
        ) {
            let id = Uuid::from_u128(id);
            let offset = if number == 1 { 0 } else { offset.max(1) };
            let head = Head { id, number, offset, part_len: offset.max(MIN_PART_LEN) };
            let mut bytes = head.encode();
            prop_assert_eq!(Head::decode(&bytes), Some(head));
            bytes[bit / 4] ^= 1 << (bit % 8);
            prop_assert_eq!(Head::decode(&bytes), None);
            let tail = Tail { id, parts: number };
            let mut bytes = tail.encode();
            prop_assert_eq!(Tail::decode(&bytes), Some(tail));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Tail::decode(&bytes), None);
        }
    }

    #[test]
    fn names_of_parts() {
        let name = |text: &str| FileName::new(text).unwrap();
        for (text, number) in [
            ("a.strata.001", 1),
            ("a.strata.999", 999),
            ("a.strata.1000", 1000),
        ] {
            assert_eq!(part_of(&name(text)), Some((name("a.strata"), number)));
            assert_eq!(name_of_part(&name("a.strata"), number).unwrap(), name(text));
        }
        for text in [
            "a.strata", "a.000", "a.01", "a.0001", "a.00a", "a.10000", "a.+01", "001",
        ] {
            assert_eq!(part_of(&name(text)), None, "{text}");
        }
        assert_eq!(
            marked_by(&mark_of(&name("a.b")).unwrap()),
            Some(name("a.b"))
        );
        assert_eq!(marked_by(&name("a.b")), None);
    }
}
