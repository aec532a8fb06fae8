//! What a set of keys is called.

use std::fmt;

/// The id of a key set, 16 bytes. It follows from a secret that the set's keys share, so it says who could
/// have made what carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeySetId(pub [u8; 16]);

impl KeySetId {
    /// From its 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<KeySetId> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = digits
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()?;
        Some(KeySetId(number.to_be_bytes()))
    }
}

impl fmt::Display for KeySetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = KeySetId([0xAB; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(KeySetId::parse(&id.to_string()), Some(id));
        for bad in ["", "ab", &"g".repeat(32), &"+".repeat(32), &"a".repeat(33)] {
            assert_eq!(KeySetId::parse(bad), None, "{bad}");
        }
    }
}
