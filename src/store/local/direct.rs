//! Writing past the page cache, in long pieces that lie on pages.

use crate::base::{AlignedBuf, to_u64};
use crate::sys::{self, errno};
use std::fs::File;
use std::io;

/// What is written at once. Long, because nothing else is under way on the medium meanwhile.
const STEP: usize = 4 << 20;

/// Gathers what comes in until it is [`STEP`] bytes long.
pub(super) struct Direct {
    file: File,
    /// Where in the file the gathered bytes belong: on a page.
    at: u64,
    gathered: AlignedBuf,
    len: usize,
}

/// What became of gathered bytes.
pub(super) enum Gathered {
    /// They are in the file, or there is room for more.
    Fine,
    /// The file system does not take them that way after all.
    Refused,
}

impl Direct {
    /// For the bytes from `at` on of the file that is open as `cached`. `None` where that is not on a page, or where the
    /// file system does not say that it takes them.
    pub(super) fn new(cached: &File, at: u64) -> Option<Direct> {
        at.is_multiple_of(to_u64(AlignedBuf::ALIGNMENT))
            .then_some(())?;
        let file = sys::open_for_direct_writes(cached, AlignedBuf::ALIGNMENT)?;
        Some(Direct::into(file, at))
    }

    /// For the bytes from `at` on of `file`, wherever that is and whatever the file takes.
    pub(super) fn into(file: File, at: u64) -> Direct {
        let mut gathered = AlignedBuf::zeroed(STEP);
        sys::prefer_huge_pages(&mut gathered);
        Direct {
            file,
            at,
            gathered,
            len: 0,
        }
    }

    /// Takes some of `bytes`: how many. None when it is full.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let room = self.gathered.get_mut(self.len..).unwrap_or_default();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.len += count;
        count
    }

    /// Writes what was gathered once that is as long as it gets.
    ///
    /// # Errors
    /// As pwrite(2); what was gathered is still there.
    pub(super) fn write_full(&mut self) -> io::Result<Gathered> {
        if self.len < self.gathered.len() {
            return Ok(Gathered::Fine);
        }
        match sys::write_all_at(&self.file, &self.gathered, self.at) {
            Ok(()) => {
                self.at += to_u64(self.len);
                self.len = 0;
                Ok(Gathered::Fine)
            }
            Err(e) if e.raw_os_error() == Some(errno::EINVAL) => Ok(Gathered::Refused),
            Err(e) => Err(e),
        }
    }

    /// What was gathered and not written, and where it belongs.
    pub(super) fn rest(&self) -> (u64, &[u8]) {
        (self.at, self.gathered.get(..self.len).unwrap_or_default())
    }
}
