//! Images through standard input and output.

use super::args::ShowArgs;
use crate::base::{Error, ErrorKind, Result};
use crate::ops::backup::{BackupReport, BackupRequest};
use crate::ops::piped::{self, PIPE, PipeInput};
use crate::ops::show::Shown;
use crate::ops::verify::{VerifyReport, VerifyRequest};
use crate::ops::{self, Context};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;

/// What is kept before it is written: a frame is written in one go.
const BUFFER: usize = 1 << 20;

pub(super) fn is_pipe(image: &str) -> bool {
    image == PIPE
}

/// Standard input, to read an image from.
///
/// # Errors
/// `Usage` when it is a terminal.
pub(super) fn input<'a>(context: &Context<'a>) -> Result<PipeInput<'a>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(
            Error::new(ErrorKind::Usage, "read an image from", "a terminal")
                .hint("send one to standard input, as in `ssh nas cat x.strata | strata verify -`"),
        );
    }
    // Not through the buffer of the standard library: whoever waits must be able to stop waiting.
    let owned = stdin
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::new(ErrorKind::Internal, "read from", "standard input").caused_by(e))?;
    Ok(PipeInput::new(File::from(owned), context.cancel))
}

fn output() -> Result<File> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(
            Error::new(ErrorKind::Usage, "write an image to", "a terminal").hint(
                "send standard output to a file or a pipe, as in `… --store - | ssh nas 'cat > x.strata'`",
            ),
        );
    }
    let owned = stdout.as_fd().try_clone_to_owned().map_err(failed)?;
    Ok(File::from(owned))
}

fn failed(e: io::Error) -> Error {
    Error::new(ErrorKind::Destination, "write to", "standard output").caused_by(e)
}

pub(super) fn backup(context: &Context<'_>, request: &BackupRequest) -> Result<BackupReport> {
    into_output(|out| ops::backup::run_into_pipe(context, request, out))
}

/// Lets `write` write an image to standard output.
///
/// # Errors
/// `Usage` when it is a terminal; `Destination`; what `write` fails with.
pub(super) fn into_output<T>(write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    let mut out = BufWriter::with_capacity(BUFFER, output()?);
    let report = write(&mut out)?;
    out.flush().map_err(failed)?;
    let file = out.get_ref();
    // Behind a pipe, durability is the business of whoever reads it.
    if file.metadata().is_ok_and(|m| m.is_file()) {
        file.sync_all().map_err(failed)?;
    }
    Ok(report)
}

pub(super) fn show(context: &Context<'_>, args: &ShowArgs) -> Result<Shown> {
    if args.changed {
        return Err(needs_a_file("--changed"));
    }
    piped::show(context, input(context)?)
}

pub(super) fn verify(context: &Context<'_>, request: &VerifyRequest) -> Result<VerifyReport> {
    let unfit = [
        (request.images.len() > 1, "other images beside -"),
        (request.against.is_some(), "--against"),
        (request.sample.is_some(), "--sample"),
        (request.older_than.is_some(), "--older-than"),
    ];
    if let Some((_, what)) = unfit.iter().find(|(asked, _)| *asked) {
        return Err(needs_a_file(what));
    }
    piped::verify(context, input(context)?)
}

fn needs_a_file(what: &str) -> Error {
    Error::new(ErrorKind::Usage, "combine a pipe with", what)
        .because("the image is read once, all of it and nothing else")
        .hint("store the image in a folder first")
}
