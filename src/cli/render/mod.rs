//! Results as text for people and as JSON for programs.

mod copies;
mod disks;
mod history;
mod hits;
mod images;
mod json;
mod keys;
mod map;
mod map_bands;
mod map_marks;
mod map_svg;
#[cfg(test)]
mod map_testing;
mod partitions;
mod runs;
mod screen;
mod words;

pub(super) use copies::{copied, copy_plan};
pub(super) use disks::disks;
pub(super) use history::{diff, merged, protected, prune_plan, pruned};
pub(super) use images::{listing, shown, verified};
pub(super) use keys::{keys, keys_changed};
pub(super) use map::{cells_for, drawn, map};
pub(super) use map_svg::{SVG_CELLS, map_svg};
pub(super) use runs::{backup, backup_plan, exported, restore_plan, restored};
pub(super) use screen::Screen;

use super::args::OutputArgs;
use crate::base::{Error, ErrorKind, Result};
use crate::ops::ByteRange;
use crate::ops::verify::total;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{ErrorKind as IoKind, Write};

/// Width where standard output is no terminal.
const WIDTH: u16 = 80;
/// Ranges that are listed before "and N more", unless more was asked for.
const MOST_RANGES: usize = 20;

fn most_ranges(output: OutputArgs) -> usize {
    if output.verbose {
        usize::MAX
    } else {
        MOST_RANGES
    }
}

/// A plan, as `--dry-run --json` prints it.
#[derive(Serialize)]
pub(super) struct Plan<'a, T> {
    pub(super) plan: &'a T,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    kind: &'static str,
    message: String,
    hint: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: ErrorBody<'a>,
}

/// Text that came from a disk or an image, without what could steer a terminal.
pub(super) fn clean(text: &str) -> String {
    crate::base::printable(text)
}

/// Prints a result in the form that was asked for. Returns exit code 0.
pub(super) fn show(
    output: OutputArgs,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<u8> {
    bytes(shown_as(output, value, text)?.as_bytes())
}

fn shown_as(
    output: OutputArgs,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<String> {
    let mut out = if output.json {
        json::json(value)
            .map_err(|e| Error::new(ErrorKind::Internal, "print", "the result").caused_by(e))?
    } else {
        text()
    };
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(out)
}

/// [`show`] for the report of a run: with `--quiet` its exit code says enough.
pub(super) fn done(
    output: OutputArgs,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<u8> {
    if output.quiet && !output.json {
        Ok(0)
    } else {
        show(output, value, text)
    }
}

/// [`done`] where standard output is for something else: on standard error.
pub(super) fn done_aside(
    output: OutputArgs,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<()> {
    if !output.quiet || output.json {
        let shown = shown_as(output, value, text)?;
        // Whoever does not listen has the exit code.
        let _ = std::io::stderr().write_all(shown.as_bytes());
    }
    Ok(())
}

/// Writes to standard output. A reader that has gone away is no error.
pub(super) fn bytes(bytes: &[u8]) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != IoKind::BrokenPipe => {
            Err(Error::new(ErrorKind::Destination, "write to", "standard output").caused_by(e))
        }
        _ => Ok(0),
    }
}

/// Prints an error: one line of what happened, one of what to do next. `aside` when standard output is for
/// something else.
pub(super) fn error(e: &Error, output: OutputArgs, aside: bool) {
    if output.json {
        let error = ErrorBody {
            kind: e.kind().name(),
            message: e.to_string(),
            hint: e.next_step(),
        };
        let text = json::json(&ErrorObject { error }).unwrap_or_default();
        let text = format!("{text}\n");
        let _ = match aside {
            true => std::io::stderr().write_all(text.as_bytes()),
            false => bytes(text.as_bytes())
                .map(drop)
                .map_err(std::io::Error::other),
        };
    }
    let mut text = format!("strata: {}\n", clean_lines(&e.to_string()));
    if let Some(hint) = e.next_step() {
        text.push_str(&format!("  next: {}\n", clean_lines(hint)));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// [`clean`] for each line: an error may list several reasons.
fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n  ")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    table.set_header(header.iter().map(Cell::new));
    table
}

/// A time as tables show it: to the minute, in UTC.
fn time(text: &str) -> String {
    let minute = text.get(..16).unwrap_or(text);
    clean(&minute.replace('T', " "))
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A table without the space that its last column is padded with.
fn lines_of(table: &Table) -> String {
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn ranges(title: &str, ranges: &[ByteRange], output: OutputArgs) -> String {
    let most = most_ranges(output);
    if ranges.is_empty() {
        return String::new();
    }
    let mut text = format!("{title}: {} in {} ranges\n", total(ranges), ranges.len());
    for range in ranges.iter().take(most) {
        let end = range.start.saturating_add(range.length);
        text.push_str(&format!("  bytes {}..{end}\n", range.start));
    }
    if ranges.len() > most {
        text.push_str(&format!(
            "  and {} more (-v lists all)\n",
            ranges.len() - most
        ));
    }
    text
}
