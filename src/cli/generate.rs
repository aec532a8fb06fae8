//! Completions and manual pages, made from the same definitions as the help.

use super::args::Cli;
use crate::base::{Error, ErrorKind, Result};
use clap::CommandFactory;
use std::io::Write;
use std::path::Path;

fn failed(subject: &str, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Destination, "write", subject).caused_by(e)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "strata", &mut text);
    super::render::bytes(&text)
}

/// The main page to standard output, or all pages into `dir`.
pub(super) fn manual(dir: Option<&Path>) -> Result<u8> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut text)
            .map_err(|e| failed("the page", e))?;
        return super::render::bytes(&text);
    };
    std::fs::create_dir_all(dir).map_err(|e| failed(&dir.display().to_string(), e))?;
    let mut command = Cli::command();
    command.build();
    page(dir, "strata.1", command.clone())?;
    for verb in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let name = format!("strata-{}", verb.get_name());
        page(dir, &format!("{name}.1"), verb.clone().name(name))?;
    }
    Ok(0)
}

fn page(dir: &Path, file: &str, command: clap::Command) -> Result<()> {
    let path = dir.join(file);
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut text);
    rendered
        .and_then(|()| std::fs::File::create(&path)?.write_all(&text))
        .map_err(|e| failed(&path.display().to_string(), e))
}
