//! Bytes of a disk as numbers. Nothing here trusts a length: what is cut off is a [`Doubt`].

use super::doubt::Doubt;
use byteorder::{BE, ByteOrder, LE};

/// A structure's bytes and what to call it when they do not suffice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Raw<'a> {
    /// `bytes`, called `what` ("superblock") in messages.
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Raw<'a> {
        Raw { bytes, what }
    }

    /// `len` bytes from `at`.
    pub(super) fn slice(&self, at: usize, len: usize) -> Result<&'a [u8], Doubt> {
        let end = at.checked_add(len);
        end.and_then(|end| self.bytes.get(at..end)).ok_or_else(|| {
            Doubt::new(format!(
                "its {} is cut off: {len} bytes at {at} of {}",
                self.what,
                self.bytes.len()
            ))
        })
    }

    /// The bytes from `at` on, as a structure of their own.
    pub(super) fn from(&self, at: usize) -> Result<Raw<'a>, Doubt> {
        let rest = self.slice(at, self.bytes.len().saturating_sub(at))?;
        Ok(Raw::new(rest, self.what))
    }

    /// All of them.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The byte at `at`.
    pub(super) fn u8(&self, at: usize) -> Result<u8, Doubt> {
        Ok(self.slice(at, 1)?[0])
    }

    /// Little-endian, 16 bits.
    pub(super) fn le16(&self, at: usize) -> Result<u16, Doubt> {
        self.slice(at, 2).map(LE::read_u16)
    }

    /// Little-endian, 32 bits.
    pub(super) fn le32(&self, at: usize) -> Result<u32, Doubt> {
        self.slice(at, 4).map(LE::read_u32)
    }

    /// Little-endian, 64 bits.
    pub(super) fn le64(&self, at: usize) -> Result<u64, Doubt> {
        self.slice(at, 8).map(LE::read_u64)
    }

    /// Big-endian, 16 bits.
    pub(super) fn be16(&self, at: usize) -> Result<u16, Doubt> {
        self.slice(at, 2).map(BE::read_u16)
    }

    /// Big-endian, 32 bits.
    pub(super) fn be32(&self, at: usize) -> Result<u32, Doubt> {
        self.slice(at, 4).map(BE::read_u32)
    }

    /// Big-endian, 64 bits.
    pub(super) fn be64(&self, at: usize) -> Result<u64, Doubt> {
        self.slice(at, 8).map(BE::read_u64)
    }
}

/// A label of fixed length: up to its first NUL, without blanks at the end; `None` when empty.
pub(super) fn label(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    Some(text.trim_end().to_owned()).filter(|t| !t.is_empty())
}

/// The names of the bits set in `found` that `known` does not list, for a sentence.
pub(super) fn unknown_bits(found: u64, known: u64) -> Option<String> {
    let unknown = found & !known;
    (unknown != 0).then(|| format!("{unknown:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_a_doubt() {
        let raw = Raw::new(&[1, 2, 3, 4], "thing");
        assert_eq!(raw.le16(1).unwrap(), 0x0302);
        assert_eq!(raw.be32(0).unwrap(), 0x0102_0304);
        assert!(raw.le32(1).is_err());
        assert!(raw.le64(usize::MAX).is_err());
        assert_eq!(raw.from(4).unwrap().bytes().len(), 0);
        assert!(raw.from(5).is_err());
    }

    #[test]
    fn labels_end_at_the_first_nul() {
        assert_eq!(label(b"root\0x"), Some("root".to_owned()));
        assert_eq!(label(b"A B  "), Some("A B".to_owned()));
        assert_eq!(label(b"\0\0"), None);
    }
}
