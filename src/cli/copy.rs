//! The verb that writes images into other files.

use super::args::{CopyArgs, OutputArgs};
use super::progress::Progress;
use super::{pipe, render, values};
use crate::base::Result;
use crate::ops::Context;
use crate::ops::copy::{self, CopyRequest};

pub(super) fn copy(
    context: &Context<'_>,
    args: CopyArgs,
    output: OutputArgs,
    progress: &Progress,
) -> Result<u8> {
    let request = CopyRequest {
        images: args.images,
        all: args.all,
        set: args.set,
        store: args.store.store,
        to: args.to,
        recompress: args
            .recompress
            .as_deref()
            .map(values::compression)
            .transpose()?,
        split: args.split.as_deref().map(values::split).transpose()?,
        no_encrypt: args.encrypt.no_encrypt,
        encrypt: args.encrypt.into(),
        full: args.full,
        remove_old: args.remove_old,
    };
    if args.dry_run {
        let plan = copy::plan(context, &request)?;
        return render::show(output, &render::Plan { plan: &plan }, || {
            render::copy_plan(&plan)
        });
    }
    if request.into_pipe() {
        let report = pipe::into_output(|out| copy::run_into_pipe(context, &request, out))?;
        progress.finish();
        progress.warn_rest(&report.warnings);
        return render::done_aside(output, &report, || render::copied(&report)).map(|()| 0);
    }
    let report = copy::run(context, &request)?;
    progress.finish();
    progress.warn_rest(&report.warnings);
    render::done(output, &report, || render::copied(&report))
}
