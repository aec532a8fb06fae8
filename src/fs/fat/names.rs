//! Names of files: long ones lie in entries before the one that they belong to. Facts: Microsoft's "FAT
//! File System Specification" 1.03; the bits for small letters in short names: `fs/fat/namei_vfat.c`.

use super::super::doubt::Doubt;
use super::super::files::{shown, shown_utf16};
use super::super::raw::Raw;
use super::directory::{DELETED, DIRECTORY, LABEL, first_cluster};
use super::disk::Width;

/// Attributes of an entry that is a part of a long name, of those that count.
const LONG: u8 = 0x0F;
const COUNTED: u8 = 0x3F;
/// The part with the end of a name, which comes first.
const LAST_PART: u8 = 0x40;
/// Bytes of a part: 13 characters.
const PART: usize = 26;
/// Where an entry has them.
const PLACES: [std::ops::Range<usize>; 3] = [1..11, 14..26, 28..32];
/// A name has 255 characters.
const MOST_PARTS: u8 = 20;
/// Small letters before and behind the dot.
const SMALL_NAME: u8 = 0x08;
const SMALL_ENDING: u8 = 0x10;

/// A file or a directory, but for `.` and `..`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Escaped.
    pub(super) name: String,
    pub(super) is_directory: bool,
    /// 0 for an empty file.
    pub(super) cluster: u32,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    EndOfDirectory,
    /// Deleted, a label, or a part of a name.
    Nothing,
    File(File),
}

/// Takes entries in their order.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The long name so far, in UTF-16; empty when there is none.
    long: Vec<u8>,
    /// The number of the part that has come last.
    part: u8,
    /// The checksum of the short name that it belongs to.
    sum: u8,
}

impl Names {
    /// The next entry of a directory.
    pub(super) fn take(&mut self, entry: &[u8], width: Width) -> Result<Found, Doubt> {
        let raw = Raw::new(entry, "directory");
        let (first, attributes) = (raw.u8(0)?, raw.u8(11)?);
        if first == 0 {
            return Ok(Found::EndOfDirectory);
        }
        if first != DELETED && attributes & COUNTED == LONG {
            self.part(&raw)?;
            return Ok(Found::Nothing);
        }
        let long = std::mem::take(self);
        if first == DELETED || first == b'.' || attributes & LABEL != 0 {
            return Ok(Found::Nothing);
        }
        let short = raw.slice(0, 11)?;
        let name = match long.name(short) {
            Some(name) => name,
            None => short_name(short, raw.u8(12)?),
        };
        Ok(Found::File(File {
            name,
            is_directory: attributes & DIRECTORY != 0,
            cluster: first_cluster(&raw, width)?,
        }))
    }

    fn part(&mut self, raw: &Raw<'_>) -> Result<(), Doubt> {
        let (order, sum) = (raw.u8(0)?, raw.u8(13)?);
        let number = order & !LAST_PART;
        if order & LAST_PART != 0 && (1..=MOST_PARTS).contains(&number) {
            self.long = vec![0; usize::from(number) * PART];
            self.sum = sum;
        } else if self.part != number + 1 || self.sum != sum || number == 0 {
            *self = Names::default();
            return Ok(());
        }
        self.part = number;
        let mut at = usize::from(number - 1) * PART;
        for place in PLACES {
            let bytes = raw.slice(place.start, place.len())?;
            if let Some(part) = self.long.get_mut(at..at + bytes.len()) {
                part.copy_from_slice(bytes);
            }
            at += bytes.len();
        }
        Ok(())
    }

    /// The long name, when it is complete and belongs to `short`.
    fn name(&self, short: &[u8]) -> Option<String> {
        let sum = short
            .iter()
            .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.part != 1 || self.sum != sum {
            return None;
        }
        let end = self.long.chunks(2).position(|unit| unit == [0, 0]);
        let len = end.map_or(self.long.len(), |end| end * 2);
        self.long
            .get(..len)
            .map(shown_utf16)
            .filter(|name| !name.is_empty())
    }
}

/// The text of a short name; what is no ASCII depends on the system that wrote it, and is escaped.
fn short_name(short: &[u8], small: u8) -> String {
    let (name, ending) = short.split_at_checked(8).unwrap_or((short, &[]));
    let text = |bytes: &[u8], is_small: bool| {
        let mut bytes = bytes.trim_ascii_end().to_vec();
        if is_small {
            bytes.make_ascii_lowercase();
        }
        bytes
    };
    let mut whole = text(name, small & SMALL_NAME != 0);
    // The mark of a deleted file stands for itself in this form.
    if let Some(first @ 5) = whole.first_mut() {
        *first = DELETED;
    }
    let ending = text(ending, small & SMALL_ENDING != 0);
    if !ending.is_empty() {
        whole.push(b'.');
        whole.extend(ending);
    }
    shown(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &[u8; 11], attributes: u8) -> Vec<u8> {
        let mut entry = vec![0; 32];
        entry[..11].copy_from_slice(name);
        entry[11] = attributes;
        entry[26] = 9;
        entry
    }

    fn long(order: u8, text: &str, sum: u8) -> Vec<u8> {
        let mut entry = vec![0xFF; 32];
        (entry[0], entry[11], entry[12], entry[13]) = (order, LONG, 0, sum);
        let mut bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        if bytes.len() < PART {
            bytes.extend([0, 0]);
        }
        bytes.resize(PART, 0xFF);
        let mut at = 0;
        for place in PLACES {
            let len = place.len();
            entry[place].copy_from_slice(&bytes[at..at + len]);
            at += len;
        }
        entry
    }

    fn names(entries: &[Vec<u8>]) -> Vec<String> {
        let mut names = Names::default();
        let found = entries
            .iter()
            .map(|e| names.take(e, Width::Sixteen).unwrap());
        let files = found.filter_map(|f| match f {
            Found::File(file) => Some(file.name),
            _ => None,
        });
        files.collect()
    }

    #[test]
    fn long_names_belong_to_the_short_one_behind_them() {
        let sum = b"LONGFI~1TXT"
            .iter()
            .fold(0u8, |s, b| s.rotate_right(1).wrapping_add(*b));
        let file = || short(b"LONGFI~1TXT", 0x20);
        let parts = || vec![long(0x42, "Größe", sum), long(1, "a long name, ", sum)];
        let with = |parts: Vec<Vec<u8>>| names(&[parts, vec![file()]].concat());
        assert_eq!(with(parts()), ["a long name, Größe"]);
        // A part is missing, belongs to another file, or comes in another order.
        assert_eq!(with(parts().split_off(1)), ["LONGFI~1.TXT"]);
        let other = vec![long(0x42, "x", sum), long(1, "y", !sum)];
        assert_eq!(with(other), ["LONGFI~1.TXT"]);
        let mut swapped = parts();
        swapped.swap(0, 1);
        assert_eq!(with(swapped), ["LONGFI~1.TXT"]);
        let mut gone = parts();
        gone.push(short(b"\xE5ELETED    ", 0x20));
        assert_eq!(with(gone), ["LONGFI~1.TXT"]);
        assert_eq!(
            with(vec![long(0x40, "x", sum), long(0x7F, "x", sum)]),
            ["LONGFI~1.TXT"]
        );
    }

    #[test]
    fn short_names() {
        let mut small = short(b"READ ME TXT", 0x20);
        small[12] = SMALL_NAME;
        let entries = [
            small,
            short(b"\x05\x80      \x1b  ", 0x10),
            short(b"LABEL      ", 0x08),
            short(b"..         ", 0x10),
            vec![0; 32],
        ];
        assert_eq!(names(&entries), ["read me.TXT", r"\xe5\x80.\u{1b}"]);
    }
}
