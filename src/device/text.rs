//! Text from the kernel, udev and disks: every byte of it may have been chosen by a stranger.

use crate::base::is_unprintable;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest text that is kept of one attribute, in characters. The longest honest ones (NQNs of NVMe
/// over Fabrics) have 223.
const MAX_CHARS: usize = 256;

/// `text` without surrounding blanks, fit for a terminal: control characters and marks that turn
/// the direction of writing become `?`, and it ends after [`MAX_CHARS`] characters.
pub(super) fn clean(text: &str) -> String {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .chars()
        .take(MAX_CHARS)
        .map(|c| if is_unprintable(c) { '?' } else { c })
        .collect()
}

/// [`clean`] for bytes; `None` when nothing is left.
pub(super) fn clean_bytes(bytes: &[u8]) -> Option<String> {
    let text = clean(&String::from_utf8_lossy(bytes));
    (!text.is_empty()).then_some(text)
}

/// A path for messages. Longer than [`MAX_CHARS`] it may be: people need the whole of it.
pub(super) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars()
        .map(|c| if is_unprintable(c) { '?' } else { c })
        .collect()
}

/// Undoes the escapes of `/proc` tables: a backslash and three octal digits stand for a byte
/// (`mangle_path` of the kernel's fs/seq_file.c). Anything else is kept as it is.
pub(super) fn unescape_octal(field: &[u8]) -> Vec<u8> {
    unescape(field, |rest| {
        let digits = rest.strip_prefix(b"\\")?.get(..3)?;
        let value = digits.iter().try_fold(0u32, |value, digit| {
            (b'0'..=b'7')
                .contains(digit)
                .then(|| value * 8 + u32::from(digit - b'0'))
        })?;
        Some((u8::try_from(value).ok()?, 4))
    })
}

/// Undoes the escapes of udev's `*_ENC` values: `\x20` (systemd's `encode_devnode_name`).
pub(super) fn unescape_hex(value: &[u8]) -> Vec<u8> {
    unescape(value, |rest| {
        let digits = rest.strip_prefix(b"\\x")?.get(..2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        // `from_str_radix` would take a sign.
        digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then_some(())?;
        Some((u8::from_str_radix(digits, 16).ok()?, 4))
    })
}

/// Replaces what `decode` knows at each position: it answers a byte and how many it stands for.
fn unescape(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<(u8, usize)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        if let Some((byte, used)) = decode(rest) {
            out.push(byte);
            rest = rest.get(used..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// Bytes as a path.
pub(super) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terminals_see_no_controls() {
        assert_eq!(clean("  Samsung SSD\n"), "Samsung SSD");
        assert_eq!(clean("a\u{1b}[31mb\u{202e}c\u{9b}"), "a?[31mb?c?");
        assert_eq!(clean(&"x".repeat(10_000)).len(), MAX_CHARS);
        assert_eq!(clean_bytes(b" \0 \n"), None);
        assert_eq!(clean_bytes(b"\xff\xfe"), Some("\u{fffd}\u{fffd}".into()));
        assert_eq!(shown(Path::new("/mnt/a\u{1b}]0;b")), "/mnt/a?]0;b");
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(
            unescape_octal(br"/mnt/My\040Disk\134x\012"),
            b"/mnt/My Disk\\x\n"
        );
        assert_eq!(unescape_octal(br"\04 \999 \777 \"), br"\04 \999 \777 \");
        assert_eq!(unescape_hex(br"EFI\x20System\x2f"), b"EFI System/");
        assert_eq!(unescape_hex(br"\x+1\xg0\x"), br"\x+1\xg0\x");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            prop_assert!(unescape_octal(&bytes).len() <= bytes.len());
            prop_assert!(unescape_hex(&bytes).len() <= bytes.len());
            if let Some(text) = clean_bytes(&bytes) {
                prop_assert!(!text.chars().any(char::is_control));
            }
        }
    }
}
