//! What was found in the partitions of a disk, and how much of it is taken, as a table.

use super::{clean, lines_of, right, table};
use crate::base::ByteLen;
use crate::ops::backup::PartitionInfo;
use comfy_table::Cell;

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
            Cell::new(clean(&why(part))),
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
                Cell::new(clean(&volume.reason)),
            ]);
        }
    }
    lines_of(&out)
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
