//! Being a good neighbour of the page cache.

use nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
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

/// Drops clean pages of the range from the page cache. A hint: failure does not matter.
pub fn drop_cached(file: &File, start: u64, len: u64) {
    if let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(len)) {
        let _ = nix::fcntl::posix_fadvise(file, start, len, POSIX_FADV_DONTNEED);
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
