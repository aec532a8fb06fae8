//! Reading a published file.

use crate::base::{Error, ErrorKind, RangeRead, Result, past_end, to_u64};
use crate::sys::{self, persist};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shorter reads are tables and headers, which are read again; longer ones are content that passes
/// once and must not push everything else out of the page cache.
const PASSING: usize = 64 << 10;

/// A plain file, its length as it was when opened.
#[derive(Debug)]
pub(super) struct LocalFile {
    name: String,
    file: File,
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

    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if buf.len() < PASSING {
            return persist(|| std::os::unix::fs::FileExt::read_at(&self.file, buf, offset));
        }
        if self.may_stay(buf.len()) {
            self.brought.store(true, Ordering::Relaxed);
            return persist(|| std::os::unix::fs::FileExt::read_at(&self.file, buf, offset));
        }
        let (count, drop) = persist(|| sys::read_uncached(&self.file, buf, offset))?;
        if drop || self.brought.load(Ordering::Relaxed) {
            sys::drop_cached(&self.file, offset, to_u64(count));
        }
        Ok(count)
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
        let mut done = 0;
        while done < buf.len() {
            let at = offset + to_u64(done);
            let place = || format!("{} at byte {at}", self.name);
            match self.read_some(&mut buf[done..], at) {
                Ok(0) => {
                    return Err(Error::new(ErrorKind::Damaged, "read", place())
                        .because("the file has become shorter since it was opened"));
                }
                Ok(count) => done += count,
                Err(e) => return Err(Error::new(ErrorKind::Damaged, "read", place()).caused_by(e)),
            }
        }
        Ok(())
    }

    fn will_need(&self, offset: u64, len: u64) {
        // What somebody else has in the cache stays there.
        if sys::is_cached(&self.file, offset, len) != Some(true) {
            let _pending = sys::pending("reading ahead in", &self.name);
            self.brought.store(true, Ordering::Relaxed);
            sys::begin_reading(&self.file, offset, len);
        }
    }
}
