//! What a backup, a restore or an export would do and did.

use super::hits::hits;
use super::partitions::partitions;
use super::{clean, ranges};
use crate::base::ByteLen;
use crate::cli::args::OutputArgs;
use crate::ops::backup::{BackupPlan, BackupReport, RescuePass};
use crate::ops::encryption::KeyRecord;
use crate::ops::export::ExportReport;
use crate::ops::restore::{RestorePreview, RestoreReport};

pub(in crate::cli) fn backup_plan(plan: &BackupPlan) -> String {
    let mut text = format!(
        "Would image {} ({}) as number {} of set {}, {}: {}.\n",
        clean(&plan.source.name),
        ByteLen(plan.source.bytes),
        plan.sequence,
        clean(&plan.set),
        plan.kind,
        clean(&plan.reason),
    );
    text.push_str(&format!(
        "into {}/{}\nblocks of {}, compression {}, source {}\n",
        clean(&plan.store),
        clean(&plan.file),
        ByteLen(plan.block_size),
        plan.compression,
        plan.consistency,
    ));
    if let Some(len) = plan.part_bytes {
        text.push_str(&format!(
            "in numbered files of {} at most\n",
            ByteLen(len).exactly()
        ));
    }
    if let Some(bytes) = plan.continues_bytes {
        text.push_str(&format!(
            "goes on with an interrupted backup, of which {} are stored\n",
            ByteLen(bytes)
        ));
    }
    text.push_str(&keys_of(plan.keys.as_deref()));
    text.push_str(&format!(
        "takes {}, of which {} are known to be zero\n",
        ByteLen(plan.take_bytes),
        ByteLen(plan.hole_bytes),
    ));
    text.push_str(&partitions(&plan.partitions, &|_| None));
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    text
}

/// Who can open it; nothing when anybody can.
fn keys_of(keys: Option<&[KeyRecord]>) -> String {
    let names = |keys: &[KeyRecord]| {
        let names: Vec<String> = keys.iter().map(|k| clean(&k.name)).collect();
        names.join(", ")
    };
    match keys {
        None => String::new(),
        Some([]) => "encrypted, with keys that are made when it begins\n".to_owned(),
        Some(keys) => format!("encrypted, keys: {}\n", names(keys)),
    }
}

pub(in crate::cli) fn backup(report: &BackupReport, output: OutputArgs) -> String {
    let mut text = format!(
        "Imaged {} ({}): read {}, stored {}.\nimage {}\nfile  {}\n",
        clean(&report.source.name),
        ByteLen(report.source.bytes),
        ByteLen(report.read_bytes),
        ByteLen(report.stored_bytes),
        report.image.id,
        clean(&report.image.file),
    );
    if let Some(len) = report.part_bytes {
        text.push_str(&format!(
            "      in numbered files of {} at most\n",
            ByteLen(len).exactly()
        ));
    }
    text.push_str(&keys_of(report.keys.as_deref()));
    text.push_str(&format!(
        "{} image, number {} of set {}: {}\n",
        report.image.kind,
        report.image.sequence,
        clean(&report.image.set),
        clean(&report.reason),
    ));
    if report.image.parent.is_some() {
        let changed = &report.changed;
        text.push_str(&format!(
            "{} of {} blocks changed: {} data, {} zero, {} unused, {} unreadable\n",
            changed.total(),
            report.blocks.total(),
            changed.data,
            changed.zero,
            changed.unused,
            changed.unreadable,
        ));
    }
    if report.continued_bytes > 0 {
        text.push_str(&format!(
            "went on with an interrupted backup: {} were stored and are still right\n",
            ByteLen(report.continued_bytes)
        ));
    }
    if report.healed_bytes > 0 {
        text.push_str(&format!(
            "stored again: {} that older images have lost\n",
            ByteLen(report.healed_bytes)
        ));
    }
    let parts = report.partitions.iter();
    let unused = parts
        .map(|p| p.length.saturating_sub(p.taken))
        .fold(0, u64::saturating_add);
    if unused > 0 {
        text.push_str(&format!("left out {} that nothing uses\n", ByteLen(unused)));
    }
    if output.verbose {
        text.push_str(&partitions(&report.partitions, &|_| None));
    }
    text.push_str(&rescue_in_words(report));
    text.push_str(&ranges("unreadable", &report.unreadable, output));
    text.push_str(&ranges(
        "of these, not tried one by one",
        &report.untried,
        output,
    ));
    text
}

/// What became of bad sectors that were tried again.
fn rescue_in_words(report: &BackupReport) -> String {
    let words = |pass: &RescuePass| {
        let (recovered, tried) = (ByteLen(pass.recovered_bytes), ByteLen(pass.tried_bytes));
        match &pass.image {
            Some(image) => format!(
                "tried again: {recovered} of {tried} read, in number {}, which builds on the one before it\n",
                image.sequence
            ),
            None => format!("tried again: nothing of {tried} could be read\n"),
        }
    };
    report.rescue.iter().map(words).collect()
}

pub(in crate::cli) fn restore_plan(preview: &RestorePreview, output: OutputArgs) -> String {
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
    text.push_str(&ranges(
        "erased first, written last",
        &preview.critical,
        output,
    ));
    text.push_str(&ranges(
        "partition table fitted to the target",
        &preview.table_patches,
        output,
    ));
    if let Some(holds) = &preview.holds {
        text.push_str(&format!(
            "only what differs from image {}, which the target is said to hold\n",
            clean(&holds.file)
        ));
    } else if preview.only_changed {
        text.push_str("only what the target does not hold already\n");
    }
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

pub(in crate::cli) fn restored(report: &RestoreReport, output: OutputArgs) -> String {
    let mut text = format!(
        "Restored onto {}: {} written, {} zero",
        clean(&report.target),
        ByteLen(report.written_bytes),
        ByteLen(report.zeroed_bytes),
    );
    if report.discarded_bytes > 0 {
        text.push_str(&format!(", {} discarded", ByteLen(report.discarded_bytes)));
    }
    if report.unchanged_bytes > 0 {
        text.push_str(&format!(
            ", {} there already",
            ByteLen(report.unchanged_bytes)
        ));
    }
    let checked = if report.read_back {
        "; read back and right"
    } else {
        "; not read back"
    };
    text.push_str(&format!("{checked}.\n"));
    text.push_str(&ranges("not in the image", &report.unreadable, output));
    text.push_str(&ranges("lost by the image", &report.lost, output));
    text.push_str(&hits(&report.hits, output));
    text
}

pub(in crate::cli) fn exported(report: &ExportReport) -> String {
    format!(
        "Exported {} to {}.\n",
        ByteLen(report.bytes),
        clean(&report.file)
    )
}
