//! The map file of GNU ddrescue: what of a disk was read, and what not.
//!
//! Format: GNU ddrescue manual, chapter "Mapfile structure". Lines of text; `#` begins a comment; the first
//! other line says where a run stands, each further one is a position, a length and a status. Numbers are
//! decimal, octal with a leading 0, or hexadecimal with a leading 0x.

use super::Missing;
use crate::base::{ByteLen, ByteOffset, Extent, normalize, outside};
use std::fmt::Write;

/// Longest map that is read, in bytes: more than a million ranges.
pub const MAX_MAP_LEN: u64 = 64 << 20;

/// What a map says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RescueMap {
    /// Its comments, without their signs and the spaces around them.
    pub comments: Vec<String>,
    /// What of the disk was not read. `untried` is also what was tried with large reads only.
    pub missing: Missing,
    /// Of this, where at least one read failed.
    pub failed: Vec<Extent>,
}

impl RescueMap {
    /// Reads the map of a disk of `len` bytes. What it does not speak of was not tried.
    ///
    /// # Errors
    /// The number of the line, from 1, that does not belong in a map, and why.
    pub fn decode(text: &str, len: ByteLen) -> Result<RescueMap, (usize, &'static str)> {
        let mut map = RescueMap::default();
        let disk = Extent::whole(len);
        let (mut has_status, mut known, mut end) = (false, Vec::new(), 0u64);
        for (number, line) in text
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line.trim()))
        {
            let fail = |why| (number, why);
            let (line, comment) = line.split_once('#').unwrap_or((line, ""));
            if line.is_empty() && !comment.is_empty() {
                map.comments.push(comment.trim().to_owned());
            }
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else {
                continue;
            };
            if !has_status {
                let state = words
                    .next()
                    .ok_or(fail("it should say where the run stands"))?;
                let known = matches!(state, "?" | "*" | "/" | "-" | "F" | "G" | "+");
                if self::number(first).is_none() || !known {
                    return Err(fail("it should say where the run stands"));
                }
                has_status = true;
                continue;
            }
            let start = self::number(first).ok_or(fail("its position is not a number"))?;
            let len = words.next().and_then(self::number);
            let len = len.ok_or(fail("its length is not a number"))?;
            let extent = Extent::new(ByteOffset(start), ByteLen(len));
            let extent = extent.ok_or(fail("its end is too large a number"))?;
            if start < end {
                return Err(fail("it begins before the one above it ends"));
            }
            end = extent.end().0;
            let part = extent.intersect(disk);
            match words.next() {
                Some("+") => known.extend(part),
                Some("-") => {
                    known.extend(part);
                    map.missing.bad.extend(part);
                    map.failed.extend(part);
                }
                Some("*" | "/") => map.failed.extend(part),
                Some("?") => {}
                _ => return Err(fail("its status is none of ? * / - +")),
            }
        }
        if !has_status {
            return Err((
                text.lines().count().max(1),
                "the map ends before it says anything",
            ));
        }
        map.missing.untried = outside(disk, &normalize(known));
        map.missing = map.missing.normalized();
        map.failed = normalize(map.failed);
        Ok(map)
    }

    /// The map as text, of a disk of `len` bytes. What is missing lies in the disk; what of it failed in large
    /// reads only is written as not tried.
    pub fn encode(&self, len: ByteLen) -> String {
        let mut text = String::new();
        for comment in &self.comments {
            line(&mut text, format_args!("# {comment}"));
        }
        let state = match (&self.missing.untried.first(), &self.missing.bad.first()) {
            (Some(_), _) => '?',
            (None, Some(_)) => '-',
            (None, None) => '+',
        };
        let first = [self.missing.untried.first(), self.missing.bad.first()];
        let first = first.into_iter().flatten().next();
        let at = first.map_or(len.0, |e| e.start.0);
        line(
            &mut text,
            format_args!("# current_pos  current_status  current_pass"),
        );
        line(
            &mut text,
            format_args!("0x{at:08X}     {state}               1"),
        );
        line(&mut text, format_args!("#      pos        size  status"));
        let read = outside(Extent::whole(len), &self.missing.all());
        let mut parts: Vec<(Extent, char)> = read.into_iter().map(|e| (e, '+')).collect();
        parts.extend(self.missing.bad.iter().map(|e| (*e, '-')));
        parts.extend(self.missing.untried.iter().map(|e| (*e, '?')));
        parts.sort_unstable();
        for (part, status) in parts {
            let (start, len) = (part.start.0, part.len.0);
            line(
                &mut text,
                format_args!("0x{start:08X}  0x{len:08X}  {status}"),
            );
        }
        text
    }
}

/// Adds a line. Writing into memory does not fail.
fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{words}");
}

/// A number as C programs write them.
fn number(word: &str) -> Option<u64> {
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
        return u64::from_str_radix(digits, 16).ok().filter(|_| plain);
    }
    let radix = if word.len() > 1 && word.starts_with('0') {
        8
    } else {
        10
    };
    let plain = word.bytes().all(|b| b.is_ascii_digit());
    u64::from_str_radix(word, radix).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset(start), ByteLen(len)).unwrap()
    }

    /// Written by GNU ddrescue 1.27, shortened.
    const THEIRS: &str = "\
# Mapfile. Created by GNU ddrescue version 1.27
# Command line: ddrescue -n /dev/sdb disk.img disk.map
# current_pos  current_status  current_pass
0x00610000     /               1
#      pos        size  status
0x00000000  0x00600000  +
0x00600000  0x00010000  /
0x00610000  0x00000200  -
6357504  0x00000E00  *   # decimal
0x00611000  01000  +
";

    #[test]
    fn a_map_of_ddrescue_is_read() {
        let map = RescueMap::decode(THEIRS, ByteLen(0x0061_2000)).unwrap();
        assert_eq!(
            map.comments[0],
            "Mapfile. Created by GNU ddrescue version 1.27"
        );
        assert_eq!(map.missing.bad, [extent(0x0061_0000, 0x200)]);
        // Not finished, or not spoken of.
        let untried = [
            extent(0x0060_0000, 0x1_0000),
            extent(0x0061_0200, 0xE00),
            extent(0x0061_1200, 0xE00),
        ];
        assert_eq!(map.missing.untried, untried);
        let failed = [extent(0x0060_0000, 0x1_1000)];
        assert_eq!(map.failed, failed);
        let short = RescueMap::decode(THEIRS, ByteLen(0x0060_8000)).unwrap();
        assert_eq!(short.missing.all(), [extent(0x0060_0000, 0x8000)]);
    }

    #[test]
    fn what_is_no_map_is_told_with_its_line() {
        let tell = |text: &str| RescueMap::decode(text, ByteLen(1 << 20)).unwrap_err().0;
        assert_eq!(tell(""), 1);
        assert_eq!(tell("# nothing\n"), 1);
        assert_eq!(tell("hello world\n"), 1);
        assert_eq!(tell("0 ?\n0 0x200 +\n0x100 0x200 +\n"), 3);
        assert_eq!(tell("0 ?\n0 0x200 x\n"), 2);
        assert_eq!(tell("0 ?\n+5 0x200 +\n"), 2);
        assert_eq!(tell("0 ?\n0xFFFFFFFFFFFFFFFF 1 +\n"), 2);
        assert_eq!(tell("0 ?\n0 0x20000000000000000 +\n"), 2);
    }

    proptest! {
        #[test]
        fn maps_round_trip(cuts in proptest::collection::vec((1u64..5000, 0u8..3), 0..40)) {
            let (mut at, mut missing) = (0, Missing::default());
            for (len, status) in cuts {
                match status {
                    0 => missing.bad.push(extent(at, len)),
                    1 => missing.untried.push(extent(at, len)),
                    _ => {}
                }
                at += len;
            }
            let map = RescueMap {
                comments: vec!["diskstrata image 00".to_owned()],
                missing: missing.normalized(),
                failed: Vec::new(),
            };
            let text = map.encode(ByteLen(at + 7));
            let back = RescueMap::decode(&text, ByteLen(at + 7)).unwrap();
            prop_assert_eq!(&back.missing, &map.missing);
            prop_assert!(back.comments.contains(&map.comments[0]));
        }
    }
}
