//! Writing a file that nobody sees until it is whole and durable.

use super::held::Held;
use super::{LocalStore, fail, publish};
use crate::base::{ByteLen, Error, ErrorKind, Result, to_u64};
use crate::store::{FileName, Upload, as_io_error, name_taken, spoiled};
use crate::sys::{self, persist};
use std::io::{self, Write};

/// Bytes after which the kernel is told to begin writing, so that the last sync finds little left.
const WINDOW: u64 = 4 << 20;

/// How far behind the write-back pages are dropped from the cache: they are clean by then.
const BEHIND: u64 = 4 * WINDOW;

/// An upload into a folder: a held file under a name with a dot.
pub(super) struct LocalUpload {
    store: LocalStore,
    held: Held,
    name: FileName,
    written: u64,
    /// Up to here the kernel was told to begin writing.
    started: u64,
    /// Set by the first failure and for ever.
    spoiled: bool,
}

impl LocalUpload {
    pub(super) fn new(store: LocalStore, held: Held, name: FileName) -> LocalUpload {
        LocalUpload {
            store,
            held,
            name,
            written: 0,
            started: 0,
            spoiled: false,
        }
    }

    /// Goes on with `held`, of which the first `at` bytes are there and nothing else.
    pub(super) fn at(store: LocalStore, held: Held, name: FileName, at: u64) -> LocalUpload {
        LocalUpload {
            written: at,
            started: at,
            ..LocalUpload::new(store, held, name)
        }
    }

    fn path_text(&self) -> String {
        self.store.path_text(&self.name)
    }

    fn write_behind(&mut self) {
        let file = self.held.file();
        sys::start_write_back(file, self.started, self.written - self.started);
        self.started = self.written;
        // From the start each time: pages that were still being written the last time are clean now.
        sys::drop_cached(file, 0, self.started.saturating_sub(BEHIND));
    }

    /// The error of `what`, which was to make `more` bytes of the file last, or to finish it with none; where there
    /// is no room, with how much is missing.
    fn failed(&self, what: &str, more: usize, e: io::Error) -> Error {
        let error = fail(what, &self.path_text(), e);
        if !error.is_full() {
            return error;
        }
        let free = match self.store.folder.space() {
            Ok(space) => format!("{} are free there now", ByteLen(space.available)),
            Err(_) => "how much is free there cannot be told".to_owned(),
        };
        let written = ByteLen(self.written);
        let missing = match more {
            0 => format!("{written} and a name found no room"),
            more => format!(
                "after {written} the next {} found no room",
                ByteLen(to_u64(more))
            ),
        };
        error.hint(format!(
            "{missing}, {free}; free some space in the store (the unfinished file is removed) or choose another \
             store"
        ))
    }

    /// Gives the file its name and makes that durable, or takes it back.
    fn make_visible(&self) -> Result<()> {
        let folder = &self.store.folder;
        let published = publish::publish(
            folder,
            self.held.name(),
            self.name.as_ref(),
            self.held.file(),
        );
        match published {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(name_taken("publish", &self.store.name, &self.name));
            }
            Err(e) => return Err(self.failed("publish", 0, e)),
        }
        self.store.sync_names().map_err(|e| {
            // A name that may vanish with the next power cut must not become anybody's parent.
            let withdrawn = folder.remove(self.name.as_ref()).is_ok();
            let error = self.failed("sync the folder of", 0, e);
            if withdrawn {
                return error;
            }
            error.hint("the file could not be removed again; verify it before you rely on it")
        })
    }
}

impl Write for LocalUpload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.spoiled {
            return Err(as_io_error(spoiled("write", &self.path_text())));
        }
        let _pending = sys::pending("writing to", &self.store.name);
        let count = match persist(|| self.held.file().write(buf)) {
            Ok(0) if !buf.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        };
        match count {
            Ok(count) => {
                self.written += to_u64(count);
                if self.written - self.started >= WINDOW {
                    self.write_behind();
                }
                Ok(count)
            }
            Err(e) => {
                self.spoiled = true;
                Err(as_io_error(self.failed("write", buf.len(), e)))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for LocalUpload {
    fn written(&self) -> u64 {
        self.written
    }

    fn publish(self: Box<Self>) -> Result<()> {
        if self.spoiled {
            return Err(spoiled("publish", &self.path_text()));
        }
        let _pending = sys::pending("syncing", &self.path_text());
        let file = self.held.file();
        sys::sync(file).map_err(|e| self.failed("sync", 0, e))?;
        sys::drop_cached(file, 0, self.written);
        let gone = || {
            Error::new(ErrorKind::Destination, "publish", self.path_text())
                .because("its unfinished file was removed by somebody else")
        };
        match self.held.is_in_place() {
            Ok(true) => self.make_visible(),
            Ok(false) => Err(gone()),
            Err(e) => Err(fail("publish", &self.path_text(), e)),
        }
    }

    /// Dropping does it.
    fn abandon(self: Box<Self>) {}

    fn leave(mut self: Box<Self>) -> bool {
        self.held.stay(!self.spoiled);
        !self.spoiled
    }
}
