//! What standard output can show: how wide it is, whether in colour, and with which characters.

use super::WIDTH;
use comfy_table::Table;
use std::ffi::OsStr;
use std::io::IsTerminal;

/// Widths that a drawing is made for, in columns.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=400;

/// What a drawing may make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Screen {
    /// Columns, 40 to 400.
    pub(in crate::cli) width: usize,
    /// Whether colours are shown and wanted.
    pub(in crate::cli) color: bool,
    /// Whether more than ASCII is shown.
    pub(in crate::cli) unicode: bool,
}

impl Screen {
    /// Standard output, as this process's environment describes it.
    pub(in crate::cli) fn stdout() -> Screen {
        let env = |name: &str| std::env::var_os(name);
        let terminal = std::io::stdout().is_terminal();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(env);
        Screen {
            width: terminal_width(),
            color: terminal && color(env("NO_COLOR").as_deref(), env("TERM").as_deref()),
            unicode: unicode(locale.iter().flatten().map(|value| value.as_os_str())),
        }
    }
}

/// Columns to draw in: those of the terminal, unless `COLUMNS` says otherwise; 80 where standard
/// output is no terminal. Never less than 40 nor more than 400.
pub(super) fn terminal_width() -> usize {
    let columns = std::env::var_os("COLUMNS");
    // The one that asks for all other verbs: a map is as wide as their tables.
    width(columns.as_deref(), Table::new().width())
}

fn width(columns: Option<&OsStr>, terminal: Option<u16>) -> usize {
    let wanted = columns.and_then(|c| c.to_str()?.trim().parse::<usize>().ok());
    let columns = [wanted, terminal.map(usize::from)].into_iter().flatten();
    let columns = columns.into_iter().find(|c| *c > 0);
    columns
        .unwrap_or(usize::from(WIDTH))
        .clamp(*WIDTHS.start(), *WIDTHS.end())
}

/// Whether a terminal may be sent colours; <https://no-color.org>.
fn color(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// Whether the first variable that says anything of the locale says UTF-8.
fn unicode<'a>(mut locale: impl Iterator<Item = &'a OsStr>) -> bool {
    let first = locale.find(|value| !value.is_empty());
    first.is_some_and(|value| {
        let value = value.to_string_lossy().to_ascii_lowercase();
        value.ends_with("utf-8") || value.ends_with("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(text: &str) -> Option<&OsStr> {
        Some(OsStr::new(text))
    }

    #[test]
    fn the_width_is_asked_for_measured_or_usual() {
        assert_eq!(width(None, None), 80);
        assert_eq!(width(None, Some(132)), 132);
        assert_eq!(width(os("100"), Some(132)), 100);
        assert_eq!(width(os("many"), Some(132)), 132);
        assert_eq!(width(os("0"), Some(0)), 80);
        assert_eq!(width(os("3"), None), 40);
        assert_eq!(width(None, Some(u16::MAX)), 400);
    }

    #[test]
    fn colours_can_be_refused() {
        assert!(color(None, os("xterm")));
        assert!(color(os(""), None));
        assert!(!color(os("1"), os("xterm")));
        assert!(!color(None, os("dumb")));
    }

    #[test]
    fn characters_follow_the_locale() {
        let says = |values: &[&'static str]| unicode(values.iter().map(OsStr::new));
        assert!(says(&["", "", "C.UTF-8"]));
        assert!(says(&["de_DE.utf8", "C"]));
        assert!(!says(&["C", "", "en_US.UTF-8"]));
        assert!(!says(&[]));
    }
}
