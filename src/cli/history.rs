//! The verbs that look at histories and change them.

use super::args::{DiffArgs, MergeArgs, OutputArgs, ProtectArgs, PruneArgs};
use super::progress::Progress;
use super::{need_store, render, values};
use crate::base::{Error, ErrorKind, Result};
use crate::ops::prune::{Policy, PruneRequest, Within};
use crate::ops::{self, Context};

pub(super) fn diff(context: &Context<'_>, args: &DiffArgs, output: OutputArgs) -> Result<u8> {
    let store = args.store.store.as_deref();
    let report = ops::diff::diff(context, store, &args.old, &args.new)?;
    render::show(output, &report, || render::diff(&report, output))?;
    Ok(if args.exit_code && report.blocks > 0 {
        ErrorKind::Differs.exit_code()
    } else {
        0
    })
}

pub(super) fn prune(
    context: &Context<'_>,
    args: PruneArgs,
    output: OutputArgs,
    progress: &Progress,
) -> Result<u8> {
    let within = args.keep_within.as_deref().map(Within::parse).transpose()?;
    let request = PruneRequest {
        policy: Policy {
            last: count(args.keep_last.as_deref())?,
            hourly: count(args.keep_hourly.as_deref())?,
            daily: count(args.keep_daily.as_deref())?,
            weekly: count(args.keep_weekly.as_deref())?,
            monthly: count(args.keep_monthly.as_deref())?,
            yearly: count(args.keep_yearly.as_deref())?,
            within,
        },
        free_space: args
            .free_space
            .as_deref()
            .map(values::byte_count)
            .transpose()?,
        least: args.keep_least,
        trust_times: args.trust_times,
        set: args.set,
        store: need_store(args.store.store, "prune")?,
    };
    if args.dry_run {
        let plan = ops::prune::plan(context, &request)?;
        return render::show(output, &render::Plan { plan: &plan }, || {
            render::prune_plan(&plan)
        });
    }
    let report = ops::prune::run(context, &request)?;
    progress.finish();
    progress.warn_rest(&report.warnings);
    render::done(output, &report, || render::pruned(&report, output))?;
    Ok(if report.failures.is_empty() {
        0
    } else {
        ErrorKind::Damaged.exit_code()
    })
}

/// How many points a rule keeps: a number, or `all`.
fn count(text: Option<&str>) -> Result<u32> {
    match text {
        None => Ok(0),
        Some("all") => Ok(Policy::ALL),
        Some(text) => text.parse().map_err(|_| {
            Error::new(ErrorKind::Usage, "keep", format!("{text:?}"))
                .because("it is neither a number nor \"all\"")
        }),
    }
}

pub(super) fn merge(
    context: &Context<'_>,
    args: MergeArgs,
    output: OutputArgs,
    progress: &Progress,
) -> Result<u8> {
    let request = ops::merge::MergeRequest {
        store: need_store(args.store.store, "merge images")?,
        range: args.range,
    };
    if args.dry_run {
        let plan = ops::merge::plan(context, &request)?;
        return render::show(output, &render::Plan { plan: &plan }, || {
            render::merged(&plan)
        });
    }
    let report = ops::merge::run(context, &request)?;
    progress.finish();
    render::done(output, &report, || render::merged(&report))
}

pub(super) fn protect(context: &Context<'_>, args: ProtectArgs, output: OutputArgs) -> Result<u8> {
    let store = need_store(args.store.store, "protect an image")?;
    let note = args.note.as_deref();
    let done = ops::protect::protect(context, &store, &args.image, note, args.off)?;
    render::done(output, &done, || render::protected(&done))
}
