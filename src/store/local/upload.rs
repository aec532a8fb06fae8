//! Writing a file that nobody sees until it is whole and durable.

use super::direct::{Direct, Gathered};
use super::held::Held;
use super::{LocalStore, fail, publish};
use crate::base::{AlignedBuf, ByteLen, Error, ErrorKind, Result, to_u64, to_usize};
use crate::store::{FileName, Upload, as_io_error, name_taken, spoiled};
use crate::sys::{self, persist};
use std::io::{self, Seek, SeekFrom, Write};

/// Bytes after which the kernel is told to begin writing, so that the last sync finds little left.
const WINDOW: u64 = 4 << 20;

/// How far behind the write-back pages are dropped from the cache: they are clean by then.
const BEHIND: u64 = 4 * WINDOW;

/// The beginning of every file goes through the page cache, and so do short files as a whole.
const LEAST_DIRECT: u64 = WINDOW;

/// How bytes come into the file.
enum Way {
    /// Through the page cache, until it is worth asking whether they can go past it.
    Short,
    /// Through the page cache, to the end.
    Cached,
    /// Past it.
    Direct(Direct),
}

/// An upload into a folder: a held file under a name with a dot.
pub(super) struct LocalUpload {
    store: LocalStore,
    held: Held,
    name: FileName,
    way: Way,
    /// Bytes taken, of which the last ones may still be gathered.
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
            way: Way::Short,
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

    /// Bytes that are in the file; what was taken behind them is gathered.
    fn in_file(&self) -> u64 {
        match &self.way {
            Way::Direct(direct) => direct.rest().0,
            Way::Short | Way::Cached => self.written,
        }
    }

    /// How many of `buf` are to be written at once, the way that is right for them.
    fn choose_way(&mut self, buf: &[u8]) -> usize {
        if !matches!(self.way, Way::Short) || self.written < LEAST_DIRECT {
            return buf.len();
        }
        let page = to_u64(AlignedBuf::ALIGNMENT);
        let to_page = self.written.next_multiple_of(page) - self.written;
        if to_page > 0 {
            return buf.len().min(to_usize(to_page));
        }
        let direct = Direct::new(self.held.file(), self.written);
        self.way = direct.map_or(Way::Cached, Way::Direct);
        buf.len()
    }

    /// Writes some of `bytes`: how many.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Way::Direct(direct) = &mut self.way else {
            return persist(|| self.held.file().write(bytes));
        };
        let count = direct.take(bytes);
        if let Gathered::Refused = direct.write_full()? {
            self.write_gathered()?;
            self.way = Way::Cached;
        }
        Ok(count)
    }

    /// Writes what is gathered through the page cache, for it is short.
    fn write_gathered(&mut self) -> io::Result<()> {
        let Way::Direct(direct) = &self.way else {
            return Ok(());
        };
        let mut file = self.held.file();
        let (at, rest) = direct.rest();
        sys::write_all_at(file, rest, at)?;
        let end = at + to_u64(rest.len());
        persist(|| file.seek(SeekFrom::Start(end)))?;
        self.started = end;
        self.way = Way::Short;
        Ok(())
    }

    /// Leaves nothing gathered.
    fn settle(&mut self) -> Result<()> {
        let more = to_usize(self.written - self.in_file());
        self.write_gathered().map_err(|e| {
            self.spoiled = true;
            self.failed("write", more, e)
        })
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
        let written = ByteLen(self.in_file());
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
        let now = self.choose_way(buf);
        let count = match self.write_some(&buf[..now]) {
            Ok(0) if !buf.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        };
        match count {
            Ok(count) => {
                self.written += to_u64(count);
                let is_cached = !matches!(self.way, Way::Direct(_));
                if is_cached && self.written - self.started >= WINDOW {
                    self.write_behind();
                }
                Ok(count)
            }
            Err(e) => {
                self.spoiled = true;
                let more = match &self.way {
                    Way::Direct(direct) => direct.rest().1.len(),
                    Way::Short | Way::Cached => buf.len(),
                };
                Err(as_io_error(self.failed("write", more, e)))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.spoiled {
            return Err(as_io_error(spoiled("write", &self.path_text())));
        }
        let _pending = sys::pending("writing to", &self.store.name);
        self.settle().map_err(as_io_error)
    }
}

impl Upload for LocalUpload {
    fn written(&self) -> u64 {
        self.written
    }

    fn publish(mut self: Box<Self>) -> Result<()> {
        if self.spoiled {
            return Err(spoiled("publish", &self.path_text()));
        }
        let _pending = sys::pending("syncing", &self.path_text());
        self.settle()?;
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
        let whole = !self.spoiled && self.settle().is_ok();
        self.held.stay(whole);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::contract::pattern;
    use crate::store::{Store, write_error};
    use std::fs::{self, File};
    use tempfile::TempDir;

    fn upload() -> (TempDir, LocalStore, LocalUpload) {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path()).unwrap();
        let held = Held::create(&store.folder, super::super::UNFINISHED, "x").unwrap();
        let upload = LocalUpload::new(store.clone(), held, FileName::new("a").unwrap());
        (dir, store, upload)
    }

    fn published(dir: &TempDir, upload: LocalUpload) -> Vec<u8> {
        Upload::publish(Box::new(upload)).unwrap();
        fs::read(dir.path().join("a")).unwrap()
    }

    #[test]
    fn a_long_file_goes_past_the_page_cache() {
        let (dir, _store, mut upload) = upload();
        if Direct::new(upload.held.file(), 0).is_none() {
            eprintln!(
                "SKIPPED: the file system of the temporary directory does not say that it has O_DIRECT"
            );
            return;
        }
        let bytes = pattern(to_usize(4 * WINDOW) + 321);
        let mut sizes = [777, 1 << 20, 3, 200_000].iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            upload.write_all(now).unwrap();
            rest = later;
        }
        assert!(matches!(upload.way, Way::Direct(_)));
        assert_eq!(upload.written(), to_u64(bytes.len()));
        // The page at which the ways part went through it.
        let from = LEAST_DIRECT + (2 << 20);
        assert!(upload.in_file() >= 2 * WINDOW && upload.in_file() < upload.written());
        for at in (from..upload.in_file()).step_by(4096) {
            let cached = sys::is_cached(upload.held.file(), at, 4096);
            assert_ne!(cached, Some(true), "{at}");
        }
        assert!(published(&dir, upload) == bytes);
    }

    #[test]
    fn what_is_refused_on_the_way_goes_through_the_page_cache() {
        let (dir, _store, mut upload) = upload();
        let Some(file) = sys::open_for_direct_writes(upload.held.file(), 4096) else {
            eprintln!(
                "SKIPPED: the file system of the temporary directory does not say that it has O_DIRECT"
            );
            return;
        };
        let bytes = pattern(to_usize(3 * WINDOW) + 321);
        upload.write_all(&bytes[..100]).unwrap();
        // Nobody takes that off the pages.
        upload.way = Way::Direct(Direct::into(file, 100));
        upload.write_all(&bytes[100..]).unwrap();
        assert!(matches!(upload.way, Way::Cached));
        assert!(published(&dir, upload) == bytes);
    }

    #[test]
    fn no_room_for_what_was_gathered_says_how_much_was_written() {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let gathering = || {
            let (dir, store, mut upload) = upload();
            upload.write_all(&[7; 8192]).unwrap();
            upload.way = Way::Direct(Direct::into(full(), 8192));
            (dir, store, upload)
        };
        let (_dir, store, mut late) = gathering();
        let error = late.write_all(&pattern(5 << 20)).unwrap_err();
        let error = write_error("a", error);
        assert_eq!(error.os_error(), Some(28));
        let hint = error.next_step().unwrap();
        assert!(hint.contains("after 8 KiB the next 4 MiB found"), "{hint}");
        assert!(late.write(b"more").is_err());
        assert!(!Upload::leave(Box::new(late)));
        assert_eq!(store.leftovers().unwrap().len(), 0);
    }

    #[test]
    fn what_is_gathered_is_in_the_file_when_it_is_left() {
        let (dir, store, mut upload) = upload();
        upload.write_all(&[7; 8192]).unwrap();
        let file = upload.held.file().try_clone().unwrap();
        upload.way = Way::Direct(Direct::into(file, 8192));
        upload.write_all(&[8; 1000]).unwrap();
        assert_eq!((upload.in_file(), upload.written()), (8192, 9192));
        assert!(Upload::leave(Box::new(upload)));
        let left = store.leftovers().unwrap().remove(0);
        assert_eq!(left.bytes().len(), 9192);
        let name = fs::read_dir(dir.path()).unwrap();
        let name = name.map(|e| e.unwrap().path());
        let path = name
            .into_iter()
            .find(|p| p.to_string_lossy().contains(".unfinished-"));
        let expected = [vec![7; 8192], vec![8; 1000]].concat();
        assert!(fs::read(path.unwrap()).unwrap() == expected);
    }
}
