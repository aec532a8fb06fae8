//! Keys of a history.

use super::clean;
use crate::ops::encryption::KeyRecord;
use crate::ops::keys::KeyReport;
use unicode_width::UnicodeWidthStr;

/// All that is known of the keys; `checked`: whether that they open the images was the question.
pub(in crate::cli) fn keys(report: &KeyReport, checked: bool) -> String {
    let mut text = format!(
        "set     {}\nkey set {}\n",
        clean(&report.set),
        report.key_set
    );
    if checked {
        text.push_str(&format!(
            "The given key opens all {} image files.\n",
            report.images
        ));
    }
    // Not in a table, which would break the public halves at the end of the line: they are there to be copied.
    let width = |key: &KeyRecord| clean(&key.name).width();
    let widest = report.keys.iter().map(width).max().unwrap_or(0);
    for key in &report.keys {
        let pad = " ".repeat(widest - width(key));
        text.push_str(&format!(
            "{}{pad}  {:8}  {}\n",
            clean(&key.name),
            key.kind,
            clean(&key.recipient)
        ));
    }
    for file in &report.stale {
        text.push_str(&format!(
            "{} has other keys: a change was interrupted, do it again\n",
            clean(file)
        ));
    }
    text
}

pub(in crate::cli) fn keys_changed(report: &KeyReport) -> String {
    let head = format!("Wrote the heads of {} image files.\n", report.changed.len());
    head + &keys(report, false)
}
