//! Text from outside, made safe to show.

/// Whether a character could steer a terminal, reorder the text around it or hide in it: control
/// characters, marks that turn the direction of writing (Unicode standard annex 9), separators of
/// lines and paragraphs, and characters without width.
pub fn is_unprintable(c: char) -> bool {
    let hidden = matches!(c,
        '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}');
    c.is_control() || hidden
}

/// `text` with every unprintable character replaced by U+FFFD.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if is_unprintable(c) { '\u{FFFD}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(
            printable("a\x1b[31mb\u{202E}c\n"),
            "a\u{FFFD}[31mb\u{FFFD}c\u{FFFD}"
        );
        assert_eq!(printable("Größe 磁盘"), "Größe 磁盘");
    }
}
