//! Disks as a table.

use super::{clean, lines_of, right, table};
use crate::base::ByteLen;
use crate::ops::disks::{Disk, Disks};
use comfy_table::Cell;

pub(in crate::cli) fn disks(disks: &Disks) -> String {
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
