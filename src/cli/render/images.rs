//! Images: listed, shown, verified.

use super::partitions::partitions;
use super::{clean, lines_of, most_ranges, ranges, right, table};
use crate::base::ByteLen;
use crate::cli::args::OutputArgs;
use crate::ops::list::Listing;
use crate::ops::show::{Shown, TakeInfo};
use crate::ops::verify::VerifyReport;
use comfy_table::Cell;

pub(in crate::cli) fn listing(listing: &Listing, output: OutputArgs) -> String {
    let mut text = String::new();
    if listing.images.is_empty() && listing.broken.is_empty() {
        return "No images.".to_owned();
    }
    if !listing.images.is_empty() {
        let mut out = table(&["ID", "SET", "NO", "TIME (UTC)", "KIND", "DISK", "STORED"]);
        for image in &listing.images {
            out.add_row(vec![
                Cell::new(if output.verbose {
                    &image.id
                } else {
                    image.id.get(..8).unwrap_or(&image.id)
                }),
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

pub(in crate::cli) fn shown(shown: &Shown, output: OutputArgs) -> String {
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
    line("taken", taken_in_words(&shown.take));
    line("root digest", image.root.clone());
    let name_of = |number| Some(shown.layout.partition(number)?.display_name());
    text.push_str(&partitions(&shown.partitions, &name_of));
    text.push_str(&ranges("unreadable", &shown.unreadable, output));
    for warning in shown.warnings.iter().chain(&shown.damage) {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    text
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
        for damage in image.damage.iter().take(most) {
            let end = damage.start.saturating_add(damage.length);
            let lost = match damage.length {
                0 => "no block lost".to_owned(),
                _ => format!("bytes {}..{end} of the disk lost", damage.start),
            };
            text.push_str(&format!("  {lost}: {}\n", clean(&damage.what)));
        }
        if image.damage.len() > most {
            let more = image.damage.len() - most;
            text.push_str(&format!(
                "  and {more} more (-v lists all)
"
            ));
        }
    }
    match &report.differences {
        None => {}
        Some(none) if none.is_empty() => text.push_str("the disk holds what the image holds\n"),
        Some(some) => text.push_str(&ranges("the disk differs", some, output)),
    }
    text
}
