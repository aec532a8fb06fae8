//! What was found in the partitions of a disk, and how much of it is taken, as a table with reasons below.

use super::{clean, lines_of, right, table};
use crate::base::ByteLen;
use crate::ops::backup::PartitionInfo;
use comfy_table::Cell;

/// The reason that needs no words.
const PLAIN: &str = "in use";

/// One row a partition and one for each volume inside, reasons included. `name_of` adds what the
/// partition table calls it.
pub(super) fn partitions(
    parts: &[PartitionInfo],
    name_of: &dyn Fn(u32) -> Option<String>,
) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let mut out = table(&[
        "PART",
        "SIZE",
        "USED",
        "FREE",
        "TAKEN",
        "WHAT",
        "LABEL, NAME",
        "WHY",
    ]);
    for part in parts {
        let number = match part.number {
            0 => "disk".to_owned(),
            number => number.to_string(),
        };
        let names = [part.label.clone(), name_of(part.number)];
        let names: Vec<String> = names
            .into_iter()
            .flatten()
            .filter(|n| !n.is_empty())
            .collect();
        let known = |bytes: u64| {
            if part.left_out {
                Cell::new("")
            } else {
                right(ByteLen(bytes))
            }
        };
        out.add_row(vec![
            right(number),
            right(ByteLen(part.length)),
            known(part.used),
            known(part.length.saturating_sub(part.used)),
            right(ByteLen(part.taken)),
            Cell::new(clean(&part.filesystem)),
            Cell::new(clean(&names.join(", "))),
        ]);
        for volume in &part.inside {
            out.add_row(vec![
                Cell::new(""),
                right(ByteLen(volume.length)),
                right(ByteLen(volume.used)),
                right(ByteLen(volume.length.saturating_sub(volume.used))),
                Cell::new(""),
                Cell::new(clean(&format!("  {}", volume.filesystem))),
                Cell::new(clean(&volume.name)),
            ]);
        }
    }
    let reasons = parts.iter().flat_map(reasons);
    let reasons = reasons.map(|line| format!("{}\n", clean(&line)));
    lines_of(&out) + &reasons.collect::<String>()
}

/// Why so much of a partition was taken, and of the volumes inside, where that does not go without
/// saying.
fn reasons(part: &PartitionInfo) -> Vec<String> {
    let number = match part.number {
        0 => "disk".to_owned(),
        number => number.to_string(),
    };
    let mut lines = Vec::new();
    let own = why(part);
    if own != PLAIN {
        lines.push(format!("{number}: {own}"));
    }
    let inside = part.inside.iter().filter(|v| v.reason != PLAIN);
    lines.extend(inside.map(|v| format!("{number}, {}: {}", v.name, v.reason)));
    lines
}

fn why(part: &PartitionInfo) -> String {
    if part.excluded == 0 {
        return part.reason.clone();
    }
    format!(
        "{}; {} left out as asked for",
        part.reason,
        ByteLen(part.excluded)
    )
}
