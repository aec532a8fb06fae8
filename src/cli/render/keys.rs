//! Keys of a history.

use super::{clean, lines_of, table};
use crate::ops::keys::KeyReport;
use comfy_table::Cell;

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
    let mut out = table(&["KEY", "KIND", "PUBLIC HALF"]);
    for key in &report.keys {
        out.add_row([
            Cell::new(clean(&key.name)),
            Cell::new(key.kind),
            Cell::new(clean(&key.recipient)),
        ]);
    }
    text.push_str(&lines_of(&out));
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
