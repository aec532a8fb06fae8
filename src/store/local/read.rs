//! Reading a published file.

use crate::base::{AlignedBuf, Error, ErrorKind, RangeRead, Result, past_end, to_u64};
use crate::sys;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Shorter reads are tables and headers, which are read again; longer ones are content that passes
/// once and must not push everything else out of the page cache.
const PASSING: usize = 64 << 10;

/// A plain file, its length as it was when opened.
#[derive(Debug)]
pub(super) struct LocalFile {
    name: String,
    file: File,
    /// The same past the page cache, once that was asked for; `None` where its file system does not take that.
    direct: OnceLock<Option<File>>,
    len: u64,
    /// Whether parts of it are in the page cache for this reader alone, who drops them behind itself.
    brought: AtomicBool,
    /// How many bytes of what is read may stay in the page cache, of all files of the store together.
    reread: Arc<AtomicU64>,
}

impl LocalFile {
    /// Wraps an open file called `name` in messages.
    ///
    /// # Errors
    /// `NotFound` when it is no plain file, `Damaged` when its length cannot be told.
    pub(super) fn new(name: String, file: File, reread: Arc<AtomicU64>) -> Result<LocalFile> {
        match sys::facts_of(&file) {
            Ok(facts) if facts.is_file() => Ok(LocalFile {
                name,
                file,
                direct: OnceLock::new(),
                len: facts.len(),
                brought: AtomicBool::new(false),
                reread,
            }),
            Ok(_) => {
                Err(Error::new(ErrorKind::NotFound, "open", name).because("it is no plain file"))
            }
            Err(e) => Err(Error::new(ErrorKind::Damaged, "open", name).caused_by(e)),
        }
    }

    /// Whether `len` bytes more may stay in the page cache; they are counted.
    fn may_stay(&self, len: usize) -> bool {
        let take = |left: u64| left.checked_sub(to_u64(len));
        let order = Ordering::Relaxed;
        self.reread.fetch_update(order, order, take).is_ok()
    }

    /// The handle past the page cache, where there can be one.
    fn direct(&self) -> Option<&File> {
        let open = || {
            let direct = sys::open_for_direct_reads(&self.file, AlignedBuf::ALIGNMENT)?;
            // What lies behind a page of a table would be brought, and not read from there.
            sys::do_not_read_ahead(&self.file);
            Some(direct)
        };
        self.direct.get_or_init(open).as_ref()
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if buf.len() < PASSING {
            return sys::read_full(buf, offset, |buf, at| self.file.read_at(buf, at));
        }
        if self.may_stay(buf.len()) {
            self.brought.store(true, Ordering::Relaxed);
            return sys::read_full(buf, offset, |buf, at| self.file.read_at(buf, at));
        }
        let len = to_u64(buf.len());
        let mut drop = self.brought.load(Ordering::Relaxed);
        self.read_passing(buf, offset, &mut drop)?;
        if drop {
            sys::drop_cached(&self.file, offset, len);
        }
        Ok(())
    }

    /// Reads what is not to stay in the page cache: past it what is not in there. Sets `drop` where it stayed.
    fn read_passing(&self, buf: &mut [u8], offset: u64, drop: &mut bool) -> io::Result<()> {
        let is_cached = sys::is_cached(&self.file, offset, to_u64(buf.len()));
        if let (Some(false), Some(direct)) = (is_cached, self.direct()) {
            let unit = to_u64(AlignedBuf::ALIGNMENT);
            // A medium that fails may give the bytes when it is asked again, and a file system may take larger units
            // only than it said: what counts is what comes through the page cache.
            if sys::read_direct(direct, buf, offset, unit, self.len).is_ok() {
                return Ok(());
            }
        }
        sys::read_full(buf, offset, |buf, at| {
            let (count, stays) = sys::read_uncached(&self.file, buf, at)?;
            *drop |= stays;
            Ok(count)
        })
    }
}

impl RangeRead for LocalFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(to_u64(buf.len()));
        if end.is_none_or(|end| end > self.len) {
            return Err(past_end(&self.name, offset, buf.len(), self.len));
        }
        let _pending = sys::pending("reading", &self.name);
        self.read(buf, offset).map_err(|e| {
            let place = format!("{} at byte {offset}", self.name);
            let error = Error::new(ErrorKind::Damaged, "read", place);
            match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    error.because("the file has become shorter since it was opened")
                }
                _ => error.caused_by(e),
            }
        })
    }

    fn will_need(&self, offset: u64, len: u64) {
        let passes = || self.reread.load(Ordering::Relaxed) == 0;
        match sys::is_cached(&self.file, offset, len) {
            // What somebody else has in the cache stays there.
            Some(true) => return,
            // What is not to stay there is read past it where that can be.
            Some(false) if passes() && self.direct().is_some() => return,
            Some(false) | None => {}
        }
        let _pending = sys::pending("reading ahead in", &self.name);
        self.brought.store(true, Ordering::Relaxed);
        sys::begin_reading(&self.file, offset, len);
    }

    /// Where the kernel does not tell (before Linux 6.5), what is announced comes by itself.
    fn is_cached(&self, offset: u64, len: u64) -> bool {
        sys::is_cached(&self.file, offset, len) != Some(false)
    }
}
