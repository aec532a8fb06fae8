//! Words laid out in lines of a given width, in colour where that is wanted.

use super::screen::Screen;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How something is shown. Nothing is told by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Faint,
    Alarm,
    Changed,
    Data,
}

impl Style {
    /// `text` between the escape sequences of this style.
    ///
    /// The hues are ones that can be told apart on a dark and on a light ground, and by people who
    /// see no red or no green; a console with 16 colours picks its nearest.
    pub(super) fn paint(self, text: &str, screen: Screen) -> String {
        let code = match self {
            Style::Plain => "",
            Style::Strong => "1",
            Style::Faint => "38;5;245",
            Style::Alarm => "1;38;5;231;48;5;160",
            Style::Changed => "38;5;208",
            Style::Data => "38;5;33",
        };
        if screen.color && !code.is_empty() && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Something that is not broken between lines.
pub(super) struct Word {
    text: String,
    style: Style,
}

impl Word {
    /// `text` is safe to show.
    pub(super) fn new(text: String, style: Style) -> Word {
        Word { text, style }
    }

    pub(super) fn plain(text: String) -> Word {
        Word::new(text, Style::Plain)
    }
}

/// The words with commas between them; further lines are indented. A word that is too long for a
/// line is cut.
pub(super) fn lines(words: &[Word], screen: Screen) -> String {
    const INDENT: &str = "    ";
    let mut out = String::new();
    let mut used = 0;
    for (index, word) in words.iter().enumerate() {
        // Room for the comma behind it.
        let room = screen.width.saturating_sub(INDENT.len() + 1);
        let text = cut(&word.text, room, screen.unicode);
        let columns = text.width();
        if index > 0 {
            out.push(',');
            if used + 2 + columns < screen.width {
                out.push(' ');
                used += 2;
            } else {
                out.push('\n');
                out.push_str(INDENT);
                used = INDENT.len();
            }
        }
        out.push_str(&word.style.paint(&text, screen));
        used += columns;
    }
    out.push('\n');
    out
}

/// A sentence broken between its words into lines of at most `width` columns, were no word longer.
pub(super) fn paragraph(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let columns = word.width();
        if used > 0 && used + 1 + columns > width {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += columns;
    }
    out.push('\n');
    out
}

/// `text` if it fits into `columns`, or else as much of it as fits with a sign that there is more.
pub(super) fn cut(text: &str, columns: usize, unicode: bool) -> String {
    let fits = |text: &str| text.len() <= columns || text.width() <= columns;
    // Marks that combine take no columns; without a bound on characters they would have no end.
    let most = columns.saturating_mul(2);
    if text.chars().count() <= most && fits(text) {
        return text.to_owned();
    }
    let sign = if unicode { "…" } else { "~" };
    let mut left = columns.saturating_sub(1);
    let mut out = String::new();
    for c in text.chars().take(most) {
        // A character may be wider with its neighbour than alone, never by more than one column.
        let width = c.width().unwrap_or(0);
        let Some(rest) = left.checked_sub(width) else {
            break;
        };
        left = rest;
        out.push(c);
    }
    while out.width() >= columns && out.pop().is_some() {}
    out.push_str(sign);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Screen = Screen {
        width: 40,
        color: false,
        unicode: true,
    };

    #[test]
    fn words_are_wrapped_and_kept_whole() {
        let words = ["image 9f3a2c71", "set laptop", "number 12", "incremental"];
        let words: Vec<Word> = words.map(|w| Word::plain(w.to_owned())).into();
        assert_eq!(
            lines(&words, PLAIN),
            "image 9f3a2c71, set laptop, number 12,\n    incremental\n"
        );
        let wide = Screen { width: 80, ..PLAIN };
        assert_eq!(
            lines(&words, wide),
            "image 9f3a2c71, set laptop, number 12, incremental\n"
        );
        let long = Word::new("x".repeat(100), Style::Strong);
        assert_eq!(lines(&[long], PLAIN), format!("{}…\n", "x".repeat(34)));
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        let color = Screen {
            color: true,
            ..PLAIN
        };
        assert_eq!(Style::Strong.paint("a", color), "\x1b[1ma\x1b[0m");
        assert_eq!(Style::Plain.paint("a", color), "a");
        assert_eq!(Style::Alarm.paint("a", PLAIN), "a");
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(cut("磁盘磁盘", 8, true), "磁盘磁盘");
        assert_eq!(cut("磁盘磁盘", 7, true), "磁盘磁…");
        assert_eq!(cut("磁盘磁盘", 6, false), "磁盘~");
        assert_eq!(cut(&"e\u{301}".repeat(500), 4, true).width(), 4);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_it_may_be(text in ".{0,60}", columns in 1usize..50) {
            let text = super::super::clean(&text);
            prop_assert!(cut(&text, columns, true).width() <= columns);
        }

        #[test]
        fn a_paragraph_keeps_its_words(text in "[a-z]{1,9}( [a-z]{1,9}){0,30}") {
            let out = paragraph(&text, 40);
            prop_assert!(out.lines().all(|line| line.width() <= 40));
            prop_assert_eq!(out.trim_end().replace('\n', " "), text);
        }
    }
}
