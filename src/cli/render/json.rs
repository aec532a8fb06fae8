//! JSON that a terminal can be shown: whatever an image says of itself, nothing in it is obeyed.

use crate::base::is_unprintable;
use serde::Serialize;

/// `value` as JSON on several lines. What would steer a terminal or reorder the text stands there as `\uXXXX`,
/// which means the same: outside texts JSON has no such character but new lines.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_unprintable(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_means_the_same() {
        let odd = "a\u{9b}31m\u{7f}\u{202e}\u{feff}\x1b\n\"Größe\"";
        let text = json(&[odd]).unwrap();
        assert!(text.contains("\\u009b") && text.contains("Größe"), "{text}");
        let harmful = |c: char| c != '\n' && is_unprintable(c);
        assert!(!text.contains(harmful), "{text:?}");
        let back: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, [odd]);
    }
}
