//! What a copy would do and did.

use super::clean;
use super::history::named;
use crate::base::ByteLen;
use crate::ops::copy::{CopyPlan, CopyReport, PlannedCopy};

pub(in crate::cli) fn copy_plan(plan: &CopyPlan) -> String {
    let is_in_place = plan.to == plan.from;
    let mut text = match is_in_place {
        true => format!("In {}:\n", clean(&plan.from)),
        false => format!("From {} into {}:\n", clean(&plan.from), clean(&plan.to)),
    };
    for planned in &plan.images {
        text.push_str(&format!("  {}\n", line(planned)));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {}\n", clean(warning)));
    }
    let writes = plan.images.iter().filter(|i| i.file.is_some()).count();
    let goes = plan.images.iter().filter(|i| i.removes).count();
    text.push_str(&format!(
        "Would write {writes} images, verify them, and remove {goes} old files.\n"
    ));
    text
}

/// What happens to one image.
fn line(planned: &PlannedCopy) -> String {
    let image = &planned.image;
    let (name, len) = (named(image), ByteLen(image.bytes));
    let reason = planned.reason.as_deref().map(clean).unwrap_or_default();
    let mut text = match &planned.file {
        None => format!("skip {name}: {reason}"),
        Some(file) => format!(
            "{} {name}, {len}, as {}{}",
            planned.action,
            match reason.is_empty() {
                true => format!("{} image ", planned.kind),
                false => format!("{} image ({reason}) ", planned.kind),
            },
            clean(file),
        ),
    };
    if let Some(how) = &planned.compression {
        text.push_str(&format!(", compressed anew as {how}"));
    }
    if let (Some(len), Some(_)) = (planned.part_bytes, &planned.file) {
        text.push_str(&format!(", in numbered files of {}", ByteLen(len)));
    }
    match (&planned.stays, planned.removes) {
        (Some(why), _) => text.push_str(&format!("; the old file stays: {}", clean(why))),
        (None, true) => text.push_str("; then the old file goes"),
        (None, false) => {}
    }
    text
}

pub(in crate::cli) fn copied(report: &CopyReport) -> String {
    let mut text = String::new();
    let (written, skipped): (Vec<&PlannedCopy>, Vec<_>) =
        report.plan.images.iter().partition(|i| i.file.is_some());
    for planned in skipped {
        text.push_str(&format!("{}\n", line(planned)));
    }
    for (image, planned) in report.images.iter().zip(written) {
        let reason = planned.reason.as_deref().map(clean);
        text.push_str(&format!(
            "{}: {} image{}, {}, {}\n",
            named(image),
            image.kind,
            reason.map(|why| format!(" ({why})")).unwrap_or_default(),
            ByteLen(image.bytes),
            clean(&image.file),
        ));
    }
    let checked = match report.plan.to.as_str() {
        "-" => "",
        _ => ", read back and right",
    };
    text.push_str(&format!(
        "Wrote {} images into {}{checked}: {} frames copied, {} put together anew; {} old files removed.\n",
        report.images.len(),
        clean(&report.plan.to),
        report.copied_frames,
        report.encoded_frames,
        report.removed.len(),
    ));
    let stay = report.plan.images.iter();
    for (image, why) in stay.filter_map(|i| Some((&i.image, i.stays.as_ref()?))) {
        text.push_str(&format!("  {} stays: {}\n", clean(&image.file), clean(why)));
    }
    text
}
