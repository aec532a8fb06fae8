//! Images: listed, shown, verified.

use super::history::short;
use super::hits::hits;
use super::partitions::partitions;
use super::{clean, lines_of, most_ranges, ranges, right, table};
use crate::base::ByteLen;
use crate::cli::args::OutputArgs;
use crate::ops::BlockCounts;
use crate::ops::list::{How, Listed, Listing};
use crate::ops::show::{Shown, TakeInfo};
use crate::ops::verify::VerifyReport;
use comfy_table::Cell;

pub(in crate::cli) fn listing(listing: &Listing, output: OutputArgs) -> String {
    let mut text = String::new();
    if listing.images.is_empty() && listing.broken.is_empty() {
        return "No images.".to_owned();
    }
    if !listing.images.is_empty() {
        let mut header = vec![
            "ID",
            "SET",
            "NO",
            "TIME (UTC)",
            "KIND",
            "STORED",
            "VERIFIED",
        ];
        let in_parts = listing.images.iter().any(|i| i.parts.is_some());
        if in_parts {
            header.insert(6, "PARTS");
        }
        if output.verbose {
            header.extend(["DISK", "PARENT", "KEY SET"]);
        }
        let mut out = table(&header);
        for listed in &listing.images {
            let image = &listed.image;
            let id = if output.verbose {
                &image.id
            } else {
                short(&image.id)
            };
            let mut row = vec![
                Cell::new(id),
                Cell::new(clean(&image.set)),
                right(image.sequence),
                Cell::new(super::time(&image.time)),
                Cell::new(image.kind),
                right(ByteLen(image.bytes)),
                Cell::new(state_in_words(listed)),
            ];
            if in_parts {
                let parts = listed.parts.map(|n| n.to_string());
                row.insert(6, right(parts.unwrap_or_default()));
            }
            if output.verbose {
                row.push(right(ByteLen(image.disk_bytes)));
                row.push(Cell::new(image.parent.as_deref().unwrap_or_default()));
                row.push(Cell::new(
                    image.key_set.as_deref().unwrap_or("not encrypted"),
                ));
            }
            out.add_row(row);
        }
        text.push_str(&lines_of(&out));
        for listed in &listing.images {
            if let Some(why) = &listed.incomplete {
                let file = clean(&listed.image.file);
                text.push_str(&format!("incomplete: {file}: {}\n", clean(why)));
            }
        }
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

/// When it was verified last, and how; and whether it is protected.
fn state_in_words(listed: &Listed) -> String {
    let mut words = Vec::new();
    if let Some(last) = listed.verified.last() {
        let day = last.time.get(..10).unwrap_or(&last.time);
        let how = match last.how {
            How::Quick => "quick".to_owned(),
            How::Deep => "deep".to_owned(),
            How::Sample => format!("{} %", f64::from(last.share) / 10.0),
        };
        let state = if last.ok { "" } else { " DAMAGED" };
        words.push(format!("{} {how}{state}", clean(day)));
    }
    if listed.protected {
        words.push("protected".to_owned());
    }
    words.join(", ")
}

pub(in crate::cli) fn shown(shown: &Shown, output: OutputArgs) -> String {
    let image = &shown.image;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{name:12} {}\n", clean(&value)));
        }
    };
    line("image", image.id.clone());
    let parts = match (shown.parts, shown.part_bytes) {
        (Some(1), Some(len)) => {
            format!(", in 1 numbered file of {} at most", ByteLen(len).exactly())
        }
        (Some(n), Some(len)) => format!(
            ", in {n} numbered files of {} at most",
            ByteLen(len).exactly()
        ),
        _ => String::new(),
    };
    line(
        "file",
        format!("{}, {}{parts}", image.file, ByteLen(image.bytes)),
    );
    line(
        "set",
        format!(
            "{}, number {}, {} ({})",
            image.set, image.sequence, image.kind, shown.reason
        ),
    );
    let key_set = image.key_set.as_ref();
    line(
        "encrypted",
        key_set
            .map(|id| format!("key set {id}"))
            .unwrap_or_default(),
    );
    line("parent", image.parent.clone().unwrap_or_default());
    if !shown.needs.is_empty() {
        line("needs", format!("{} older images", shown.needs.len()));
    }
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
    line("blocks", counts_in_words(&shown.blocks, image.block_size));
    if image.parent.is_some() {
        line("changed", counts_in_words(&shown.changed, image.block_size));
    }
    line("taken", taken_in_words(&shown.take));
    line("root digest", image.root.clone());
    let name_of = |number| Some(shown.layout.partition(number)?.display_name());
    text.push_str(&partitions(&shown.partitions, &name_of));
    text.push_str(&ranges("unreadable", &shown.unreadable, output));
    text.push_str(&ranges(
        "of these, not tried one by one",
        &shown.untried,
        output,
    ));
    text.push_str(&hits(&shown.hits, output));
    for changed in shown.changed_ranges.iter().flatten() {
        let end = changed.range.start.saturating_add(changed.range.length);
        let start = changed.range.start;
        text.push_str(&format!(
            "changed: bytes {start}..{end}: {}\n",
            changed.state
        ));
    }
    for warning in shown.warnings.iter().chain(&shown.damage) {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    text
}

/// " (partitions 1, 2)", or nothing.
fn numbers_in_words(numbers: &[u32]) -> String {
    let words: Vec<String> = numbers.iter().map(u32::to_string).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => format!(" (partition {one})"),
        some => format!(" (partitions {})", some.join(", ")),
    }
}

/// Blocks by state in words.
pub(super) fn counts_in_words(blocks: &BlockCounts, block_size: u64) -> String {
    format!(
        "{} of {}: {} data, {} zero, {} unused, {} unreadable",
        blocks.total(),
        ByteLen(block_size),
        blocks.data,
        blocks.zero,
        blocks.unused,
        blocks.unreadable
    )
}

/// What a person asked for, where that was not the usual.
fn taken_in_words(take: &TakeInfo) -> String {
    let mut words = Vec::new();
    if take.all_blocks {
        words.push("all blocks, free ones too".to_owned());
    }
    if !take.partitions.is_empty() {
        let numbers: Vec<String> = take.partitions.iter().map(u32::to_string).collect();
        words.push(format!("only partitions {}", numbers.join(", ")));
    }
    if !take.exclude.is_empty() {
        words.push(format!("without {}", take.exclude.join(", ")));
    }
    words.join("; ")
}

pub(in crate::cli) fn verified(report: &VerifyReport, output: OutputArgs) -> String {
    let most = most_ranges(output);
    let mut text = String::new();
    for image in &report.images {
        let how = match (image.deep, image.share) {
            (true, 1000) => "every block".to_owned(),
            (false, 1000) => "checksums".to_owned(),
            (true, share) => format!("blocks of {} % of the frames", f64::from(share) / 10.0),
            (false, share) => format!("checksums of {} % of the frames", f64::from(share) / 10.0),
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
        for damage in image.damage.iter().take(most) {
            let end = damage.start.saturating_add(damage.length);
            let lost = match damage.length {
                0 => "no block lost".to_owned(),
                _ => format!("bytes {}..{end} of the disk lost", damage.start),
            };
            let parts = numbers_in_words(&damage.partitions);
            text.push_str(&format!("  {lost}{parts}: {}\n", clean(&damage.what)));
        }
        text.push_str(&hits(&image.hits, output));
        for affected in &image.affects {
            text.push_str(&format!(
                "  {} loses {} by it{}\n",
                clean(&affected.file),
                ByteLen(affected.bytes),
                numbers_in_words(&affected.partitions)
            ));
        }
        if image.damage.len() > most {
            let more = image.damage.len() - most;
            text.push_str(&format!(
                "  and {more} more (-v lists all)
"
            ));
        }
    }
    if !report.skipped.is_empty() {
        let count = report.skipped.len();
        text.push_str(&format!(
            "{count} images were verified lately and are left out\n"
        ));
    }
    match &report.differences {
        None => {}
        Some(none) if none.is_empty() => text.push_str("the disk holds what the image holds\n"),
        Some(some) => text.push_str(&ranges("the disk differs", some, output)),
    }
    text
}
