//! Being a good neighbour of the page cache.

use nix::fcntl::PosixFadviseAdvice::{
    self, POSIX_FADV_DONTNEED, POSIX_FADV_RANDOM, POSIX_FADV_WILLNEED,
};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// `RWF_DONTCACHE` of `include/uapi/linux/fs.h` (Linux 6.14): use cached pages where they are,
/// leave no new ones behind.
const RWF_DONTCACHE: i32 = 0x80;

/// Cleared by the first refusal, so that an old kernel is asked once.
static DONTCACHE_WORKS: AtomicBool = AtomicBool::new(true);

/// Reads at `offset` without leaving pages in the cache where the kernel can do that. Returns how
/// many bytes were read and whether the caller should call [`drop_cached`] for them.
///
/// # Errors
/// As pread(2).
pub fn read_uncached(file: &File, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
    if DONTCACHE_WORKS.load(Ordering::Relaxed) {
        match read_dontcache(file, buf, offset) {
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(nix::libc::EOPNOTSUPP | nix::libc::EINVAL)
                ) =>
            {
                DONTCACHE_WORKS.store(false, Ordering::Relaxed);
            }
            other => return other.map(|n| (n, false)),
        }
    }
    file.read_at(buf, offset).map(|n| (n, true))
}

fn read_dontcache(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let iov = nix::libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: the descriptor is open and the one iovec describes `buf`, which is alive, writable
    // and not otherwise used during the call.
    let n =
        unsafe { nix::libc::preadv2(file.as_raw_fd(), &raw const iov, 1, offset, RWF_DONTCACHE) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// `struct cachestat_range` of `include/uapi/linux/mman.h`.
#[repr(C)]
struct CacheRange {
    offset: u64,
    len: u64,
}

/// `struct cachestat` of `include/uapi/linux/mman.h`.
#[repr(C)]
#[derive(Default)]
struct CacheState {
    cached: u64,
    dirty: u64,
    under_write_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// `__NR_cachestat` of `include/uapi/asm-generic/unistd.h` (Linux 6.5): the same on every architecture.
const CACHESTAT: nix::libc::c_long = 451;

/// Whether the page cache holds every page of the range; `None` where the kernel cannot tell.
pub fn is_cached(file: &File, offset: u64, len: u64) -> Option<bool> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    let (page, end) = (u64::try_from(page).ok()?, offset.checked_add(len)?);
    if page == 0 || len == 0 {
        return None;
    }
    let range = CacheRange { offset, len };
    let mut state = CacheState::default();
    // SAFETY: the descriptor is open; the kernel reads the one structure and fills the other, and both
    // have the layout that it expects and outlive the call.
    let result = unsafe {
        nix::libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut state,
            0u32,
        )
    };
    (result == 0).then(|| state.cached >= end.div_ceil(page) - offset / page)
}

/// Drops clean pages of the range from the page cache. A hint: failure does not matter.
pub fn drop_cached(file: &File, start: u64, len: u64) {
    advise(file, start, len, POSIX_FADV_DONTNEED);
}

/// The kernel brings no more at once than it reads ahead by itself, which is so much at least wherever it reads
/// ahead (`VM_READAHEAD_PAGES` of `include/linux/mm.h`); `force_page_cache_ra` of `mm/readahead.c` cuts the rest off.
const BROUGHT_AT_ONCE: u64 = 128 << 10;

/// Has the kernel begin to bring the range into the page cache, without waiting. A hint.
pub fn begin_reading(file: &File, start: u64, len: u64) {
    let end = start.saturating_add(len);
    let mut at = start;
    while at < end {
        let step = BROUGHT_AT_ONCE.min(end - at);
        advise(file, at, step, POSIX_FADV_WILLNEED);
        at += step;
    }
}

/// Has the kernel bring no more of the file into the page cache than what is read, through this handle. A hint.
pub fn do_not_read_ahead(file: &File) {
    advise(file, 0, 0, POSIX_FADV_RANDOM);
}

fn advise(file: &File, start: u64, len: u64, advice: PosixFadviseAdvice) {
    if let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(len)) {
        let _ = nix::fcntl::posix_fadvise(file, start, len, advice);
    }
}

/// Asks the kernel to begin writing the range's dirty pages, without waiting. A hint.
pub fn start_write_back(file: &File, start: u64, len: u64) {
    let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(len)) else {
        return;
    };
    // SAFETY: the descriptor is open; the call takes plain numbers only.
    unsafe {
        nix::libc::sync_file_range(
            file.as_raw_fd(),
            start,
            len,
            nix::libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_written_just_now_is_cached_and_a_hole_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        file.set_len(300_000).unwrap();
        let there = is_cached(&file, 0, 1);
        let gone = there.map(|there| !there);
        assert_ne!(there, Some(false));
        assert_eq!(is_cached(&file, 5000, 95_000), there);
        assert_eq!(is_cached(&file, 5000, 200_000), gone);
        assert_eq!(is_cached(&file, 200_000, 10), gone);
        assert_eq!(is_cached(&file, 0, 0), None);
        assert_eq!(is_cached(&file, u64::MAX, 10), None);
    }
}
