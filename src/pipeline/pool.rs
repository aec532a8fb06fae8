//! Buffers that windows are read into, used again and again.

use crate::base::AlignedBuf;
use crate::sys;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers of one length between uses. How many there are is up to those who take them.
pub(super) struct Pool {
    free: Mutex<Vec<AlignedBuf>>,
    len: usize,
}

impl Pool {
    pub(super) fn of(len: usize) -> Pool {
        Pool {
            free: Mutex::default(),
            len,
        }
    }

    /// The one given back last: it may still be in a processor's cache. Made new they share huge pages, which a disk
    /// is read into, and written from, in fewer requests.
    pub(super) fn take(&self) -> AlignedBuf {
        if let Some(buf) = self.free().pop() {
            return buf;
        }
        let mut memory = AlignedBuf::zeroed(self.len.next_multiple_of(AlignedBuf::HUGE_PAGE));
        sys::prefer_huge_pages(&mut memory);
        let mut more = memory.split(self.len);
        let taken = more.pop();
        self.free().extend(more);
        taken.unwrap_or_default()
    }

    pub(super) fn give(&self, buf: AlignedBuf) {
        self.free().push(buf);
    }

    fn free(&self) -> MutexGuard<'_, Vec<AlignedBuf>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_share_huge_pages_and_the_last_given_back_is_the_next() {
        let len = AlignedBuf::HUGE_PAGE / 2;
        let pool = Pool::of(len);
        let page = |buf: &AlignedBuf| buf.as_ptr() as usize / AlignedBuf::HUGE_PAGE;
        let (one, other, third) = (pool.take(), pool.take(), pool.take());
        assert_eq!([one.len(), other.len(), third.len()], [len; 3]);
        assert!(page(&one) == page(&other) && page(&one) != page(&third));
        let place = other.as_ptr();
        pool.give(one);
        pool.give(other);
        assert_eq!(pool.take().as_ptr(), place);
        for odd in [5, 4096 + 512, 3 * AlignedBuf::HUGE_PAGE - 7] {
            assert_eq!(Pool::of(odd).take().len(), odd);
        }
    }
}
