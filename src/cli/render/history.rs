//! Histories: what differs, what goes, what stays.

use super::{clean, lines_of, most_ranges, right, table};
use crate::base::ByteLen;
use crate::cli::args::OutputArgs;
use crate::ops::ImageRecord;
use crate::ops::diff::DiffReport;
use crate::ops::merge::MergeReport;
use crate::ops::protect::Protected;
use crate::ops::prune::{PrunePlan, PruneReport};
use comfy_table::Cell;

/// An image in a sentence.
pub(super) fn named(image: &ImageRecord) -> String {
    format!(
        "{} number {} ({})",
        clean(&image.set),
        image.sequence,
        short(&image.id)
    )
}

pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

pub(in crate::cli) fn diff(report: &DiffReport, output: OutputArgs) -> String {
    let (old, new) = (named(&report.old), named(&report.new));
    if report.blocks == 0 {
        return format!("{old} and {new} hold the same.\n");
    }
    let mut text = format!(
        "From {old} to {new}: {} blocks differ, {} ({} with content).\n",
        report.blocks,
        ByteLen(report.bytes),
        ByteLen(report.content_bytes),
    );
    for part in &report.partitions {
        let name = match part.number {
            0 => "outside of partitions".to_owned(),
            n => format!("partition {n} {}", clean(&part.name)),
        };
        text.push_str(&format!(
            "  {:>10}  {name}\n",
            ByteLen(part.bytes).to_string()
        ));
    }
    let most = most_ranges(output);
    for found in report.ranges.iter().take(most) {
        let end = found.range.start.saturating_add(found.range.length);
        text.push_str(&format!(
            "  bytes {}..{end}: {} -> {}\n",
            found.range.start, found.old, found.new
        ));
    }
    if report.ranges.len() > most {
        let more = report.ranges.len() - most;
        text.push_str(&format!("  and {more} more ranges (-v lists all)\n"));
    }
    text
}

pub(in crate::cli) fn prune_plan(plan: &PrunePlan) -> String {
    let mut text = planned(plan);
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    let goes = plan.images.iter().filter(|i| !i.keep).count();
    text.push_str(&format!(
        "Would keep {} images and let {goes} go.\n",
        plan.images.len() - goes
    ));
    text
}

fn planned(plan: &PrunePlan) -> String {
    let mut out = table(&[
        "ID",
        "SET",
        "NO",
        "TIME (UTC)",
        "KIND",
        "STORED",
        "ACTION",
        "WHY",
    ]);
    for planned in &plan.images {
        let image = &planned.image;
        let action = match &planned.into {
            Some(into) => format!("merge into {}", short(into)),
            None => planned.action.to_owned(),
        };
        let why = match planned.keep {
            true => planned.reasons.join(", "),
            false => "no rule keeps it".to_owned(),
        };
        out.add_row(vec![
            Cell::new(short(&image.id)),
            Cell::new(clean(&image.set)),
            right(image.sequence),
            Cell::new(super::time(&image.time)),
            Cell::new(image.kind),
            right(ByteLen(image.bytes)),
            Cell::new(action),
            Cell::new(clean(&why)),
        ]);
    }
    lines_of(&out)
}

pub(in crate::cli) fn pruned(report: &PruneReport, output: OutputArgs) -> String {
    let mut text = String::new();
    if output.verbose {
        text.push_str(&planned(&report.plan));
    }
    let kept = report.plan.images.iter().filter(|i| i.keep).count();
    text.push_str(&format!(
        "Kept {kept} images; {} files removed, {} written anew",
        report.removed.len(),
        report.rewritten.len()
    ));
    match report
        .freed_bytes
        .map(|bytes| (bytes, bytes.unsigned_abs()))
    {
        Some((0.., bytes)) => text.push_str(&format!("; {} freed.\n", ByteLen(bytes))),
        Some((_, bytes)) => text.push_str(&format!("; {} more in use.\n", ByteLen(bytes))),
        None => text.push_str(".\n"),
    }
    for failure in &report.failures {
        text.push_str(&format!("FAILED: {}\n", clean(failure)));
    }
    text
}

pub(in crate::cli) fn merged(report: &MergeReport) -> String {
    let mut text = String::new();
    let verb = match &report.result {
        None => "Would merge",
        Some(_) => "Merged",
    };
    let stored: u64 = report.absorbs.iter().map(|i| i.bytes).sum();
    text.push_str(&format!(
        "{verb} {} images ({}) into {} ({}).\n",
        report.absorbs.len(),
        ByteLen(stored),
        named(&report.into),
        ByteLen(report.into.bytes),
    ));
    for image in &report.absorbs {
        text.push_str(&format!("  {}\n", clean(&image.file)));
    }
    if let Some(result) = &report.result {
        text.push_str(&format!(
            "It is {} now: {}, {}; {} frames copied, {} put together anew.\n",
            result.kind,
            clean(&result.file),
            ByteLen(result.bytes),
            report.copied_frames,
            report.encoded_frames,
        ));
    }
    text
}

pub(in crate::cli) fn protected(done: &Protected) -> String {
    let image = named(&done.image);
    match (done.protected, done.changed) {
        (true, true) => format!("{image} is protected: no prune and no merge removes it.\n"),
        (true, false) => format!("{image} was protected already.\n"),
        (false, true) => format!("{image} is no longer protected.\n"),
        (false, false) => format!("{image} was not protected.\n"),
    }
}
