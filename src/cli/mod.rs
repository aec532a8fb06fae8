//! The command line: parses, calls `ops`, shows results. No rules of any kind live here.

mod args;
mod bring;
mod confirm;
mod copy;
mod generate;
mod history;
mod keys;
mod new_file;
mod pipe;
mod progress;
mod render;
mod values;
mod waiting;

use crate::base::{Cancel, Error, ErrorKind, Result};
use crate::ops::{self, Context, Depth};
use args::{BackupArgs, Cli, ExportArgs, MapArgs, OutputArgs, RestoreArgs, Verb, VerifyArgs};
use bring::Person;
use clap::Parser;
use progress::Progress;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// Exit code of a run that is done but could not read or write everything.
const INCOMPLETE: u8 = 3;

/// Parses the command line, runs it and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to standard output and are no error; clap knows.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let (output, aside) = (cli.output, cli.verb.writes_data());
    crate::ops::prepare_process();
    let cancel = Cancel::new();
    let progress = Arc::new(Progress::new(output));
    let person = Person::of(&cli, &cancel, &progress);
    let mut context = Context::new(&cancel, progress.as_ref());
    context.bringer = person.clone().map(|person| person as _);
    let result = listen_for_signals(&cancel).and_then(|()| {
        waiting::attend(&progress, &cancel, || run(cli, context, &cancel, &progress))
    });
    progress.finish();
    // A run that a person gave up ended as an interrupted one; why, the person's words say.
    let given_up = person.and_then(|person| person.given_up());
    match given_up.map_or(result, Err) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            render::error(&e, output, aside);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

/// SIGINT, SIGTERM and a lost terminal stop the run in good order.
fn listen_for_signals(cancel: &Cancel) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for (signal, meaning) in [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 15)] {
        signal_hook::flag::register_usize(signal, cancel.signal_slot(), meaning)
            .map_err(|e| Error::new(ErrorKind::Internal, "listen for", "signals").caused_by(e))?;
    }
    Ok(())
}

fn run(cli: Cli, context: Context<'_>, cancel: &Cancel, progress: &Arc<Progress>) -> Result<u8> {
    let limits = cli.verb.limits().map(values::limits).transpose()?;
    // Before any thread is started, which then has the priority of this one.
    let context = context.within(&limits.unwrap_or_default())?;
    let mut context = context.with_keys(keys::options(cli.keys, cancel, progress))?;
    let output = cli.output;
    match cli.verb {
        Verb::Disks(args) => {
            context.root = args.root;
            let disks = ops::disks::disks(&context, !args.no_contents)?;
            render::show(output, &disks, || render::disks(&disks))
        }
        Verb::Backup(args) => backup(&context, args, output, progress),
        Verb::List(store) => {
            let listing = ops::list::list(&context, store.store.as_deref())?;
            render::show(output, &listing, || render::listing(&listing, output))
        }
        Verb::Show(args) => {
            let shown = match pipe::is_pipe(&args.image) {
                true => pipe::show(&context, &args)?,
                false => ops::show::show(
                    &context,
                    args.store.store.as_deref(),
                    &args.image,
                    args.changed,
                )?,
            };
            render::show(output, &shown, || render::shown(&shown, output))
        }
        Verb::Map(args) => map(&context, &args, output),
        Verb::Verify(args) => verify(&context, args, output, progress),
        Verb::Diff(args) => history::diff(&context, &args, output),
        Verb::Prune(args) => history::prune(&context, args, output, progress),
        Verb::Merge(args) => history::merge(&context, args, output, progress),
        Verb::Key(args) => keys::key(&context, args, output),
        Verb::Copy(args) => copy::copy(&context, args, output, progress),
        Verb::Protect(args) => history::protect(&context, args, output),
        Verb::Restore(args) => restore(&context, args, output, progress),
        Verb::Export(args) => export(&context, args, output, progress),
        Verb::Completions(args) => generate::completions(args.shell),
        Verb::Man(args) => generate::manual(args.dir.as_deref()),
    }
}

fn need_store(store: Option<std::path::PathBuf>, what: &str) -> Result<std::path::PathBuf> {
    store.ok_or_else(|| {
        Error::new(ErrorKind::Usage, what, "without a store")
            .hint("say which folder holds the images with --store FOLDER or STRATA_STORE")
    })
}

fn backup(
    context: &Context<'_>,
    args: BackupArgs,
    output: OutputArgs,
    progress: &Progress,
) -> Result<u8> {
    let request = ops::backup::BackupRequest {
        source: args.source,
        store: need_store(args.store.store, "make an image")?,
        set: args.set,
        wish: match (args.full, args.incremental, args.differential) {
            (true, ..) => ops::backup::Wish::Full,
            (_, true, _) => ops::backup::Wish::Incremental,
            (.., true) => ops::backup::Wish::Differential,
            _ => ops::backup::Wish::Auto,
        },
        block_size: args
            .block_size
            .as_deref()
            .map(values::block_size)
            .transpose()?,
        compression: values::compression(&args.compression)?,
        comment: args.comment,
        take: ops::take::TakeOptions {
            all_blocks: args.all_blocks,
            partitions: args.partition,
            exclude: ops::take::parse_exclude(&args.exclude)?,
        },
        strict: args.strict,
        split: args.split.as_deref().map(values::split).transpose()?,
        no_encrypt: args.encrypt.no_encrypt,
        encrypt: args.encrypt.into(),
        rescue: ops::backup::RescueOptions {
            retries: args.retries,
            map: args.rescue_map,
        },
        heal: args.heal,
        paranoid: args.paranoid,
    };
    if args.dry_run {
        let plan = ops::backup::plan(context, &request)?;
        return render::show(output, &render::Plan { plan: &plan }, || {
            render::backup_plan(&plan)
        });
    }
    let into_pipe = request.into_pipe();
    let report = match into_pipe {
        true => pipe::backup(context, &request)?,
        false => ops::backup::run(context, &request)?,
    };
    progress.finish();
    progress.warn_rest(&report.warnings);
    if into_pipe {
        render::done_aside(output, &report, || render::backup(&report, output))?;
    } else {
        render::done(output, &report, || render::backup(&report, output))?;
    }
    Ok(if report.unreadable.is_empty() {
        0
    } else {
        INCOMPLETE
    })
}

fn map(context: &Context<'_>, args: &MapArgs, output: OutputArgs) -> Result<u8> {
    let screen = render::Screen::stdout();
    if let Some(file) = &args.svg {
        new_file::check(file)?;
    }
    // A picture is the same wherever it is made, and so is what a program reads.
    let cells = if args.svg.is_some() || output.json {
        render::SVG_CELLS
    } else {
        render::cells_for(screen.width)
    };
    let map = ops::map::map(context, args.store.store.as_deref(), &args.image, cells)?;
    let Some(file) = &args.svg else {
        return render::show(output, &map, || render::map(&map, screen));
    };
    new_file::write(file, render::map_svg(&map).as_bytes())?;
    render::done(output, &map, || render::drawn(file))
}

fn verify(
    context: &Context<'_>,
    args: VerifyArgs,
    output: OutputArgs,
    progress: &Progress,
) -> Result<u8> {
    let request = ops::verify::VerifyRequest {
        images: args.images,
        store: args.store.store,
        depth: if args.deep { Depth::Deep } else { Depth::Quick },
        sample: args.sample.as_deref().map(values::share).transpose()?,
        older_than: args
            .older_than
            .as_deref()
            .map(ops::age_in_seconds)
            .transpose()?,
        against: args.against,
    };
    let report = match request.images.iter().any(|i| pipe::is_pipe(i)) {
        true => pipe::verify(context, &request)?,
        false => ops::verify::verify(context, &request)?,
    };
    progress.finish();
    render::done(output, &report, || render::verified(&report, output))?;
    Ok(if report.is_damaged() {
        ErrorKind::Damaged.exit_code()
    } else if report.differs() {
        ErrorKind::Differs.exit_code()
    } else {
        0
    })
}

fn restore(
    context: &Context<'_>,
    args: RestoreArgs,
    output: OutputArgs,
    progress: &Progress,
) -> Result<u8> {
    let partition = args
        .partition
        .as_deref()
        .map(ops::restore::parse_partition)
        .transpose()?;
    let request = ops::restore::RestoreRequest {
        image: args.image,
        store: args.store.store,
        target: args.target,
        partition,
        only_changed: args.only_changed,
        salvage: args.salvage,
        holds: args.holds,
        read_back: !args.no_read_back,
    };
    let prepared = match pipe::is_pipe(&request.image) {
        true => ops::restore::prepare_piped(context, &request, pipe::input(context)?)?,
        false => ops::restore::prepare(context, &request)?,
    };
    let preview = &prepared.preview;
    if args.dry_run {
        render::show(output, &render::Plan { plan: preview }, || {
            render::restore_plan(preview, output)
        })?;
        let refused = !preview.refusals.is_empty();
        return Ok(if refused {
            ErrorKind::Refused.exit_code()
        } else {
            0
        });
    }
    // A target that will be refused anyway is not worth a question.
    if preview.refusals.is_empty() && !args.yes {
        confirm::overwrite(preview)?;
    }
    let report = prepared.run(context)?;
    progress.finish();
    progress.warn_rest(&report.warnings);
    render::done(output, &report, || render::restored(&report, output))?;
    Ok(if report.unreadable.is_empty() && report.lost.is_empty() {
        0
    } else {
        INCOMPLETE
    })
}

fn export(
    context: &Context<'_>,
    args: ExportArgs,
    output: OutputArgs,
    progress: &Progress,
) -> Result<u8> {
    let request = ops::export::ExportRequest {
        image: args.image,
        store: args.store.store,
        partition: args.partition,
    };
    if args.file != "-" {
        let report = ops::export::to_file(context, &request, args.file)?;
        progress.finish();
        progress.warn_rest(&report.warnings);
        return render::done(output, &report, || render::exported(&report));
    }
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        return Err(
            Error::new(ErrorKind::Usage, "write a disk to", "a terminal")
                .hint("send standard output to a file or a pipe, or name a file"),
        );
    }
    let mut out = std::io::BufWriter::with_capacity(1 << 20, stdout.lock());
    ops::export::to_stream(context, &request, &mut out)?;
    out.flush()
        .map(|()| 0)
        .map_err(|e| Error::new(ErrorKind::Destination, "write to", "standard output").caused_by(e))
}
