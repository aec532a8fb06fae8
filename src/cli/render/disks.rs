//! Disks as a table.

use super::{clean, lines_of, right, table};
use crate::base::ByteLen;
use crate::ops::disks::{Disks, PartitionInfo};
use comfy_table::Cell;

pub(in crate::cli) fn disks(disks: &Disks) -> String {
    if disks.disks.is_empty() {
        return "No disks.".to_owned();
    }
    let mut out = table(&[
        "NAME",
        "SIZE",
        "USED",
        "FREE",
        "TAKEN",
        "WHAT",
        "LABEL, MODEL",
        "IN USE AS",
    ]);
    let mut findings = String::new();
    for disk in &disks.disks {
        let entry = &disk.entry;
        let whole = disk.content(0);
        let mut what = vec![
            entry
                .table
                .clone()
                .or(recognised(whole))
                .or(entry.filesystem.clone())
                .unwrap_or_default(),
        ];
        what.extend(entry.read_only.then(|| "read-only".to_owned()));
        let title = [&entry.model, &entry.serial].map(|t| t.clone().unwrap_or_default());
        let mut row = vec![Cell::new(clean(&entry.path)), right(ByteLen(entry.bytes))];
        row.extend(shares(
            whole,
            Some(disk.take_bytes).filter(|_| !disk.contents.is_empty()),
        ));
        row.extend([
            Cell::new(clean(what.join(" ").trim())),
            Cell::new(clean(title.join(" ").trim())),
            Cell::new(clean(&entry.uses.join("; "))),
        ]);
        out.add_row(row);
        for part in &entry.partitions {
            let content = disk.content(part.number);
            let what = recognised(content)
                .or(part.filesystem.clone())
                .or(part.type_id.clone());
            let label = content.and_then(|c| c.label.clone()).or(part.label.clone());
            let mut row = vec![
                Cell::new(clean(&format!("  {}", part.name))),
                right(ByteLen(part.bytes)),
            ];
            row.extend(shares(content, content.map(|c| c.taken)));
            row.extend([
                Cell::new(clean(&what.unwrap_or_default())),
                Cell::new(clean(&label.unwrap_or_default())),
                Cell::new(clean(&part.uses.join("; "))),
            ]);
            out.add_row(row);
        }
        for volume in disk.contents.iter().flat_map(|c| &c.inside) {
            let mut row = vec![
                Cell::new(clean(&format!("    {}", volume.name))),
                right(ByteLen(volume.length)),
                right(ByteLen(volume.used)),
                right(ByteLen(volume.length.saturating_sub(volume.used))),
            ];
            row.extend([Cell::new(""), Cell::new(clean(&volume.filesystem))]);
            out.add_row(row);
        }
        let found = &disk.findings;
        for finding in found {
            findings.push_str(&format!("{}: {}\n", clean(&entry.path), clean(finding)));
        }
    }
    lines_of(&out) + &findings
}

/// What was found in a partition; nothing where nothing is known of it.
fn recognised(content: Option<&PartitionInfo>) -> Option<String> {
    content
        .map(|c| c.filesystem.clone())
        .filter(|kind| kind != "unknown")
}

/// In use, free, and taken by a backup.
fn shares(content: Option<&PartitionInfo>, taken: Option<u64>) -> [Cell; 3] {
    let cell = |bytes: Option<u64>| bytes.map_or_else(|| Cell::new(""), |b| right(ByteLen(b)));
    [
        cell(content.map(|c| c.used)),
        cell(content.map(|c| c.length.saturating_sub(c.used))),
        cell(taken),
    ]
}
