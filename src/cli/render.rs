//! Results as text for people and as JSON for programs.

use super::args::OutputArgs;
use crate::base::{ByteLen, Error, ErrorKind, Result};
use crate::ops::ByteRange;
use crate::ops::backup::{BackupPlan, BackupReport};
use crate::ops::disks::{Disk, Disks};
use crate::ops::export::ExportReport;
use crate::ops::list::Listing;
use crate::ops::restore::{RestorePreview, RestoreReport};
use crate::ops::show::Shown;
use crate::ops::verify::{VerifyReport, total};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{ErrorKind as IoKind, Write};

/// Width where standard output is no terminal.
const WIDTH: u16 = 80;
/// Ranges that are listed before "and N more".
const MOST_RANGES: usize = 20;

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
    let mut out = if output.json {
        serde_json::to_string_pretty(value)
            .map_err(|e| Error::new(ErrorKind::Internal, "print", "the result").caused_by(e))?
    } else {
        text()
    };
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    bytes(out.as_bytes())
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

/// Prints an error: one line of what happened, one of what to do next.
pub(super) fn error(e: &Error, output: OutputArgs) {
    if output.json {
        let error = ErrorBody {
            kind: e.kind().name(),
            message: e.to_string(),
            hint: e.next_step(),
        };
        let text = serde_json::to_string_pretty(&ErrorObject { error }).unwrap_or_default();
        let _ = bytes(format!("{text}\n").as_bytes());
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

pub(super) fn disks(disks: &Disks) -> String {
    if disks.disks.is_empty() {
        return "No disks.".to_owned();
    }
    let mut out = table(&["NAME", "SIZE", "WHAT", "LABEL, MODEL", "USED AS"]);
    let mut findings = String::new();
    for Disk {
        entry,
        findings: found,
        ..
    } in &disks.disks
    {
        let mut what = vec![
            entry
                .table
                .clone()
                .or(entry.filesystem.clone())
                .unwrap_or_default(),
        ];
        what.extend(entry.read_only.then(|| "read-only".to_owned()));
        let title = [&entry.model, &entry.serial].map(|t| t.clone().unwrap_or_default());
        out.add_row(vec![
            Cell::new(clean(&entry.path)),
            right(ByteLen(entry.bytes)),
            Cell::new(clean(what.join(" ").trim())),
            Cell::new(clean(title.join(" ").trim())),
            Cell::new(clean(&entry.uses.join("; "))),
        ]);
        for part in &entry.partitions {
            let what = part.filesystem.as_ref().or(part.type_id.as_ref());
            out.add_row(vec![
                Cell::new(clean(&format!("  {}", part.name))),
                right(ByteLen(part.bytes)),
                Cell::new(clean(&what.cloned().unwrap_or_default())),
                Cell::new(clean(&part.label.clone().unwrap_or_default())),
                Cell::new(clean(&part.uses.join("; "))),
            ]);
        }
        for finding in found {
            findings.push_str(&format!("{}: {}\n", clean(&entry.path), clean(finding)));
        }
    }
    lines_of(&out) + &findings
}

pub(super) fn listing(listing: &Listing) -> String {
    let mut text = String::new();
    if listing.images.is_empty() && listing.broken.is_empty() {
        return "No images.".to_owned();
    }
    if !listing.images.is_empty() {
        let mut out = table(&["ID", "SET", "NO", "TIME (UTC)", "KIND", "DISK", "STORED"]);
        for image in &listing.images {
            out.add_row(vec![
                Cell::new(image.id.get(..8).unwrap_or(&image.id)),
                Cell::new(clean(&image.set)),
                right(image.sequence),
                Cell::new(clean(&image.time.replace('T', " ").replace('Z', ""))),
                Cell::new(image.kind),
                right(ByteLen(image.disk_bytes)),
                right(ByteLen(image.bytes)),
            ]);
        }
        text.push_str(&lines_of(&out));
    }
    for broken in &listing.broken {
        text.push_str(&format!(
            "broken: {}: {}\n",
            clean(&broken.file),
            clean(&broken.message)
        ));
    }
    text
}

fn ranges(title: &str, ranges: &[ByteRange]) -> String {
    if ranges.is_empty() {
        return String::new();
    }
    let mut text = format!("{title}: {} in {} ranges\n", total(ranges), ranges.len());
    for range in ranges.iter().take(MOST_RANGES) {
        let end = range.start.saturating_add(range.length);
        text.push_str(&format!("  bytes {}..{end}\n", range.start));
    }
    if ranges.len() > MOST_RANGES {
        text.push_str(&format!("  and {} more\n", ranges.len() - MOST_RANGES));
    }
    text
}

pub(super) fn shown(shown: &Shown) -> String {
    let image = &shown.image;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{name:12} {}\n", clean(&value)));
        }
    };
    line("image", image.id.clone());
    line("file", format!("{}, {}", image.file, ByteLen(image.bytes)));
    line(
        "set",
        format!("{}, number {}, {}", image.set, image.sequence, image.kind),
    );
    line("parent", image.parent.clone().unwrap_or_default());
    line(
        "time",
        format!("{}, complete {}", image.time, shown.finished),
    );
    line("comment", shown.comment.clone().unwrap_or_default());
    line(
        "source",
        format!(
            "{}, {} ({} bytes)",
            shown.source.name,
            ByteLen(image.disk_bytes),
            image.disk_bytes
        ),
    );
    let names = [&shown.source.model, &shown.source.serial, &shown.source.wwn];
    line(
        "",
        names
            .iter()
            .filter_map(|n| n.as_deref())
            .collect::<Vec<_>>()
            .join(", "),
    );
    line(
        "sectors",
        format!(
            "{} logical, {} physical",
            shown.source.logical_sector, shown.source.physical_sector
        ),
    );
    line("consistency", shown.consistency.clone());
    line(
        "host",
        [
            &shown.host.name,
            &shown.host.os,
            &shown.host.kernel,
            &shown.host.boot,
        ]
        .map(String::as_str)
        .join(", "),
    );
    line("written by", shown.tool.clone());
    line(
        "table",
        format!(
            "{} {}",
            shown.layout.table.name(),
            shown.layout.disk_id.clone().unwrap_or_default()
        ),
    );
    let blocks = &shown.blocks;
    line(
        "blocks",
        format!(
            "{} of {}: {} data, {} zero, {} unused, {} inherited, {} unreadable",
            blocks.data + blocks.zero + blocks.unused + blocks.inherit + blocks.unreadable,
            ByteLen(image.block_size),
            blocks.data,
            blocks.zero,
            blocks.unused,
            blocks.inherit,
            blocks.unreadable
        ),
    );
    line("root digest", image.root.clone());
    if !shown.partitions.is_empty() {
        let mut out = table(&["PART", "START", "SIZE", "TAKEN", "WHAT", "NAME"]);
        for part in &shown.partitions {
            let named = shown.layout.partition(part.number);
            let name = named.map(|p| p.display_name()).unwrap_or_default();
            let kind = named
                .and_then(|p| p.type_name())
                .unwrap_or(&part.filesystem);
            let number = if part.number == 0 {
                "disk".to_owned()
            } else {
                part.number.to_string()
            };
            out.add_row(vec![
                right(number),
                right(part.start),
                right(ByteLen(part.length)),
                right(ByteLen(part.taken)),
                Cell::new(clean(kind)),
                Cell::new(clean(&name)),
            ]);
        }
        text.push_str(&lines_of(&out));
    }
    text.push_str(&ranges("unreadable", &shown.unreadable));
    for warning in shown.warnings.iter().chain(&shown.damage) {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    text
}

pub(super) fn backup_plan(plan: &BackupPlan) -> String {
    let mut text = format!(
        "Would image {} ({}) as number {} of set {}, {}: {}.\n",
        clean(&plan.source.name),
        ByteLen(plan.source.bytes),
        plan.sequence,
        clean(&plan.set),
        plan.kind,
        plan.reason,
    );
    text.push_str(&format!(
        "into {}/{}\nblocks of {}, compression {}, source {}\n",
        clean(&plan.store),
        clean(&plan.file),
        ByteLen(plan.block_size),
        plan.compression,
        plan.consistency,
    ));
    text.push_str(&format!(
        "takes {}, of which {} are known to be zero\n",
        ByteLen(plan.take_bytes),
        ByteLen(plan.hole_bytes),
    ));
    let mut out = table(&["PART", "SIZE", "TAKEN", "WHAT", "WHY"]);
    for part in &plan.partitions {
        let number = if part.number == 0 {
            "disk".to_owned()
        } else {
            part.number.to_string()
        };
        out.add_row(vec![
            right(number),
            right(ByteLen(part.length)),
            right(ByteLen(part.taken)),
            Cell::new(clean(&part.filesystem)),
            Cell::new(clean(&part.reason)),
        ]);
    }
    text.push_str(&lines_of(&out));
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    text
}

pub(super) fn backup(report: &BackupReport) -> String {
    let mut text = format!(
        "Imaged {} ({}): read {}, stored {}.\nimage {}\nfile  {}\n",
        clean(&report.source.name),
        ByteLen(report.source.bytes),
        ByteLen(report.read_bytes),
        ByteLen(report.stored_bytes),
        report.image.id,
        clean(&report.image.file),
    );
    text.push_str(&ranges("unreadable", &report.unreadable));
    text
}

pub(super) fn verified(report: &VerifyReport) -> String {
    let mut text = String::new();
    for image in &report.images {
        let how = if image.deep {
            "every block"
        } else {
            "checksums"
        };
        let state = if image.ok {
            format!("ok ({how})")
        } else {
            "DAMAGED".to_owned()
        };
        text.push_str(&format!("{}: {state}\n", clean(&image.file)));
        if let Some(message) = &image.message {
            text.push_str(&format!("  {}\n", clean(message)));
        }
        for damage in image.damage.iter().take(MOST_RANGES) {
            let end = damage.start.saturating_add(damage.length);
            let lost = match damage.length {
                0 => "no block lost".to_owned(),
                _ => format!("bytes {}..{end} of the disk lost", damage.start),
            };
            text.push_str(&format!("  {lost}: {}\n", clean(&damage.what)));
        }
        if image.damage.len() > MOST_RANGES {
            text.push_str(&format!(
                "  and {} more\n",
                image.damage.len() - MOST_RANGES
            ));
        }
    }
    match &report.differences {
        None => {}
        Some(none) if none.is_empty() => text.push_str("the disk holds what the image holds\n"),
        Some(some) => text.push_str(&ranges("the disk differs", some)),
    }
    text
}

pub(super) fn restore_plan(preview: &RestorePreview) -> String {
    let target = &preview.target;
    let mut text = format!(
        "Would write image {} ({}) onto {}, {}{}.\n",
        clean(&preview.image.file),
        clean(&preview.image.time),
        clean(&target.name),
        ByteLen(target.bytes),
        if target.created { ", a new file" } else { "" },
    );
    if !target.holds.is_empty() {
        text.push_str(&format!(
            "it holds now: {}\n",
            clean(&target.holds.join(", "))
        ));
    }
    let source = &preview.source;
    text.push_str(&format!(
        "bytes {}..{} of the imaged disk, to byte {} of the target\n",
        source.start,
        source.start.saturating_add(source.length),
        preview.target_start,
    ));
    text.push_str(&ranges("erased first, written last", &preview.critical));
    text.push_str(&ranges(
        "partition table fitted to the target",
        &preview.table_patches,
    ));
    let after = if preview.read_back {
        "read back and compared"
    } else {
        "not read back"
    };
    text.push_str(&format!("what is written is {after}\n"));
    for warning in &preview.warnings {
        text.push_str(&format!("note: {}\n", clean(warning)));
    }
    for refusal in &preview.refusals {
        text.push_str(&format!("REFUSED: {}\n", clean(refusal)));
    }
    text
}

pub(super) fn restored(report: &RestoreReport) -> String {
    let mut text = format!(
        "Restored onto {}: {} written, {} zero",
        clean(&report.target),
        ByteLen(report.written_bytes),
        ByteLen(report.zeroed_bytes),
    );
    if report.discarded_bytes > 0 {
        text.push_str(&format!(", {} discarded", ByteLen(report.discarded_bytes)));
    }
    let checked = if report.read_back {
        "; read back and right"
    } else {
        "; not read back"
    };
    text.push_str(&format!("{checked}.\n"));
    text.push_str(&ranges("not in the image", &report.unreadable));
    text
}

pub(super) fn exported(report: &ExportReport) -> String {
    format!(
        "Exported {} to {}.\n",
        ByteLen(report.bytes),
        clean(&report.file)
    )
}
