//! Names and paths, as they are shown.

use crate::base::is_unprintable;
use crate::fs::doubt::Doubt;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Directories above a file that are followed; a damaged volume may lead in circles.
const MAX_LEVELS: usize = 512;
/// The longest path that is put together; above that the volume is damaged, or nobody reads it.
pub(super) const LONGEST_PATH: usize = 4096;
/// What the paths of directories that are kept may take of memory.
const MAX_KEPT: usize = 4 << 20;

/// A name of any bytes, escaped.
pub(in crate::fs) fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut text, c));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A name of UTF-16 in little-endian order, escaped.
pub(in crate::fs) fn shown_utf16(name: &[u8]) -> String {
    let mut text = String::new();
    let units = name
        .as_chunks::<2>()
        .0
        .iter()
        .map(|b| u16::from_le_bytes(*b));
    for unit in char::decode_utf16(units) {
        match unit {
            Ok(c) => push(&mut text, c),
            Err(lone) => {
                let _ = write!(text, "\\u{{{:x}}}", lone.unpaired_surrogate());
            }
        }
    }
    text
}

fn push(text: &mut String, c: char) {
    match c {
        '\\' => text.push_str("\\\\"),
        // No name has one, but for damage.
        '/' => text.push_str("\\x2f"),
        c if is_unprintable(c) => text.extend(c.escape_unicode()),
        c => text.push(c),
    }
}

/// Finds the directory that holds one, and its name there.
pub(in crate::fs) type Step<'a> = &'a mut dyn FnMut(u64) -> Result<Option<(u64, String)>, Doubt>;

/// Puts paths together from below. Keeps those of directories, which many files share.
pub(in crate::fs) struct Climber {
    /// The number of the root directory.
    root: u64,
    /// What a number is called where no name is known: "inode".
    word: &'static str,
    /// The path of the root directory; empty for the volume's own.
    prefix: String,
    kept: BTreeMap<u64, String>,
    kept_len: usize,
}

impl Climber {
    pub(in crate::fs) fn new(root: u64, word: &'static str) -> Climber {
        Climber::below(String::new(), root, word)
    }

    /// For what lies below a directory whose path is `prefix`.
    pub(in crate::fs) fn below(prefix: String, root: u64, word: &'static str) -> Climber {
        Climber {
            prefix,
            root,
            word,
            kept: BTreeMap::new(),
            kept_len: 0,
        }
    }

    /// The path of the root directory.
    pub(in crate::fs) fn root_path(&self) -> String {
        if self.prefix.is_empty() {
            "/".to_owned()
        } else {
            self.prefix.clone()
        }
    }

    /// What stands for number `number` where its name is not known.
    pub(in crate::fs) fn nameless(&self, number: u64) -> String {
        format!("<{} {number}>", self.word)
    }

    /// The path of `name`, which is escaped, in directory `parent`.
    pub(in crate::fs) fn path(
        &mut self,
        parent: u64,
        name: &str,
        step: Step<'_>,
    ) -> Result<String, Doubt> {
        let mut path = self.directory(parent, step)?;
        path.push('/');
        path.push_str(name);
        Ok(path)
    }

    /// The path of directory `number`, empty for the root.
    fn directory(&mut self, number: u64, step: Step<'_>) -> Result<String, Doubt> {
        let mut below: Vec<(u64, String)> = Vec::new();
        let (mut at, mut len) = (number, 0);
        let mut path = loop {
            if at == self.root {
                break self.prefix.clone();
            }
            if let Some(known) = self.kept.get(&at) {
                break known.clone();
            }
            let found = if below.len() < MAX_LEVELS && len < LONGEST_PATH {
                step(at)?
            } else {
                None
            };
            let Some((parent, name)) = found.filter(|(parent, _)| *parent != at) else {
                break self.nameless(at);
            };
            len += name.len();
            below.push((at, name));
            at = parent;
        };
        while let Some((number, name)) = below.pop() {
            path.push('/');
            path.push_str(&name);
            self.keep(number, &path);
        }
        Ok(path)
    }

    fn keep(&mut self, number: u64, path: &str) {
        if self.kept_len > MAX_KEPT {
            self.kept.clear();
            self.kept_len = 0;
        }
        self.kept_len += path.len();
        self.kept.insert(number, path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_where_they_have_to_be() {
        assert_eq!(shown("Größe 磁盘".as_bytes()), "Größe 磁盘");
        assert_eq!(shown(b"a\x1b[1m\n\\\xff/"), r"a\u{1b}[1m\u{a}\\\xff\x2f");
        let utf16 = [b'a', 0, 0, 0xD8, 0x2E, 0x20];
        assert_eq!(shown_utf16(&utf16), r"a\u{d800}\u{202e}");
    }

    #[test]
    fn paths_grow_from_below_and_end() {
        let mut climber = Climber::new(2, "inode");
        let mut steps = 0;
        let mut step = |number| {
            steps += 1;
            Ok(match number {
                12 => Some((11, "b".to_owned())),
                11 => Some((2, "a".to_owned())),
                // A circle.
                20 => Some((21, "x".to_owned())),
                21 => Some((20, "y".to_owned())),
                _ => None,
            })
        };
        assert_eq!(climber.path(12, "c", &mut step).unwrap(), "/a/b/c");
        assert_eq!(climber.path(12, "d", &mut step).unwrap(), "/a/b/d");
        assert_eq!(climber.path(2, "e", &mut step).unwrap(), "/e");
        assert_eq!(climber.path(30, "f", &mut step).unwrap(), "<inode 30>/f");
        let round = climber.path(20, "g", &mut step).unwrap();
        assert!(round.starts_with("<inode 2") && round.len() < 2 * LONGEST_PATH);
        assert!(steps <= 2 + 1 + MAX_LEVELS);
    }
}
