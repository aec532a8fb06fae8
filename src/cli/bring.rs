//! Asking for the medium that has a part of an image.

use super::args::Cli;
use super::progress::Progress;
use super::render::clean;
use crate::base::{Cancel, Error, ErrorKind, Result};
use crate::ops::piped::PipeInput;
use crate::ops::{Brought, PartBringer, WantedPart};
use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A terminal takes no longer lines, and the kernel no longer paths (PATH_MAX).
const LONGEST: usize = 4096;

/// What is typed to give up.
const GIVE_UP: &[u8] = b"q";

/// A person at a terminal who changes media.
pub(super) struct Person {
    cancel: Cancel,
    progress: Arc<Progress>,
    given_up: Mutex<Option<Error>>,
}

impl Person {
    /// Whoever can be asked while `cli` runs: somebody at a terminal who wants to be, for a verb that reads
    /// images.
    pub(super) fn of(cli: &Cli, cancel: &Cancel, progress: &Arc<Progress>) -> Option<Arc<Person>> {
        let (output, stdin, stderr) = (cli.output, std::io::stdin(), std::io::stderr());
        let there = stdin.is_terminal() && stderr.is_terminal();
        let wants = cli.verb.may_ask() && !output.json && !output.quiet;
        (there && wants).then(|| {
            Arc::new(Person {
                cancel: cancel.clone(),
                progress: Arc::clone(progress),
                given_up: Mutex::default(),
            })
        })
    }

    /// Why the run ended, if the person gave up.
    pub(super) fn given_up(&self) -> Option<Error> {
        let given_up = self.given_up.lock();
        given_up.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The line that is typed next; `None` when nothing comes any more.
    fn line(&self) -> Result<Option<Vec<u8>>> {
        let Ok(owned) = std::io::stdin().as_fd().try_clone_to_owned() else {
            return Ok(None);
        };
        // Not through the buffer of the standard library: whoever waits must be able to stop waiting. A
        // terminal hands out one line at a time.
        let mut line = vec![0; LONGEST];
        match PipeInput::new(File::from(owned), &self.cancel).read(&mut line) {
            Ok(len @ 1..) => {
                line.truncate(len);
                Ok(Some(line))
            }
            Ok(0) | Err(_) => {
                self.cancel.check()?;
                Ok(None)
            }
        }
    }

    fn give_up(&self, wanted: &WantedPart) -> Result<Brought> {
        let error = Error::new(ErrorKind::Damaged, "open", wanted.file.clone())
            .because(format!("{}, and nobody brought it", missing(wanted)))
            .hint("start again when all media are at hand, or bring all parts into one folder");
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        *given_up = Some(error);
        // No thread may take what it cannot read for damage.
        self.cancel.cancel();
        self.cancel.check().map(|()| Brought::There)
    }
}

impl PartBringer for Person {
    fn bring(&self, wanted: &WantedPart) -> Result<Brought> {
        // The one before may have given up.
        self.cancel.check()?;
        let _hidden = self.progress.hide();
        let mut text = String::new();
        for wrong in &wanted.wrong {
            text.push_str(&format!("strata: {}\n", clean(wrong)));
        }
        let missing = clean(&missing(wanted));
        text.push_str(&format!(
            "{missing}. Insert the medium that has it and press Enter, or type the folder where it is \
             (q: give up): "
        ));
        let mut err = std::io::stderr();
        let asked = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        let line = match asked {
            Ok(()) => self.line()?,
            Err(_) => None,
        };
        match line.as_deref().map(<[u8]>::trim_ascii) {
            None | Some(GIVE_UP) => self.give_up(wanted),
            Some([]) => Ok(Brought::There),
            Some(typed) => Ok(Brought::In(folder(typed))),
        }
    }
}

/// The folder that was typed, or the one of the file that was.
fn folder(typed: &[u8]) -> PathBuf {
    let path = PathBuf::from(OsString::from_vec(typed.to_vec()));
    match path.parent() {
        Some(parent) if path.is_file() && parent != Path::new("") => parent.to_owned(),
        Some(_) if path.is_file() => PathBuf::from("."),
        _ => path,
    }
}

/// What is missing, in words.
fn missing(wanted: &WantedPart) -> String {
    let part = match &wanted.part {
        Some(part) => part.clone(),
        None => format!("The last part of {}, with the highest number,", wanted.file),
    };
    match wanted.folders.split_last() {
        Some((last, [])) => format!("{part} is not in {last}"),
        Some((last, others)) => format!("{part} is not in {} or {last}", others.join(", ")),
        None => format!("{part} is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_in_words() {
        let wanted = |part: Option<&str>, folders: &[&str]| {
            missing(&WantedPart {
                file: "x.strata".to_owned(),
                part: part.map(str::to_owned),
                folders: folders.iter().map(ToString::to_string).collect(),
                wrong: Vec::new(),
            })
        };
        assert_eq!(
            wanted(Some("x.strata.003"), &["/a", "/b", "/c"]),
            "x.strata.003 is not in /a, /b or /c"
        );
        assert_eq!(
            wanted(None, &["/a"]),
            "The last part of x.strata, with the highest number, is not in /a"
        );
    }

    #[test]
    fn the_folder_of_a_file_is_meant_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.strata.003");
        std::fs::write(&file, b"").unwrap();
        for path in [&file, dir.path()] {
            let typed = path.to_str().unwrap().as_bytes();
            assert_eq!(folder(typed), dir.path());
        }
        assert_eq!(folder(b"/no/such"), Path::new("/no/such"));
    }
}
