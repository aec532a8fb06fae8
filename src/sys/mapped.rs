//! Bytes of a file where the page cache has them.
//!
//! What is mapped may not be there when it is touched: the file was cut short, or a page had left the cache and its
//! disk fails. The kernel says so by SIGBUS, which would end the program. So a handler puts zeros in the place of what
//! is looked at just then, and the look is reported as failed; `src/basic/sigbus.c` of systemd has the same idea. A
//! SIGBUS anywhere else goes to whoever handled it before.

use nix::libc::{self, c_int, c_void, siginfo_t};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};

/// What is looked at now: one place for each thread that may do so at once.
static LOOKS: [Look; 64] = [const { Look::nothing() }; 64];

/// Who handled SIGBUS before; `None` when it could not be handled. Set before the first look.
static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

struct Look {
    /// The thread that looks, see [`this_thread`]; 0 for nobody. Only that one reads the rest.
    owner: AtomicUsize,
    /// Address and length in bytes.
    start: AtomicUsize,
    len: AtomicUsize,
    /// Whether some of it was not there.
    lost: AtomicBool,
}

impl Look {
    const fn nothing() -> Look {
        Look {
            owner: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    /// Whether this thread looks at `address` by it.
    fn holds(&self, address: usize) -> bool {
        self.owner.load(Ordering::Relaxed) == this_thread()
            && address.wrapping_sub(self.start.load(Ordering::Relaxed))
                < self.len.load(Ordering::Relaxed)
    }
}

/// A number that no other living thread has, and that a signal handler may ask for.
fn this_thread() -> usize {
    // SAFETY: every thread has an errno; only its address is used.
    unsafe { libc::__errno_location() as usize }
}

/// A place in [`LOOKS`] and the mapping that it tells of, given back when dropped.
struct Mapped<'a> {
    look: &'a Look,
    at: *mut c_void,
    len: usize,
}

impl Mapped<'_> {
    fn new(file: &File, offset: u64, len: usize) -> io::Result<Mapped<'static>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let offset = libc::off_t::try_from(offset).map_err(|_| invalid())?;
        let me = this_thread();
        let free = |look: &&Look| {
            let taken = look
                .owner
                .compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        };
        let look = LOOKS.iter().find(free).ok_or(io::ErrorKind::WouldBlock)?;
        // Without MAP_POPULATE: at a page that cannot be read, the kernel goes on trying for ever
        // (`populate_vma_page_range` of `mm/gup.c` does not count a fault that is to be tried again).
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that exists.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            look.owner.store(0, Ordering::Release);
            return Err(error);
        }
        look.lost.store(false, Ordering::Relaxed);
        look.start.store(at as usize, Ordering::Relaxed);
        look.len.store(len, Ordering::Relaxed);
        Ok(Mapped { look, at, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `len` bytes long and lives as long as `self`; what is not there reads as
        // zeros by the handler. Others may write to the file meanwhile: the bytes are only ever loaded, and any of
        // them is a valid u8.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        self.look.len.store(0, Ordering::Relaxed);
        self.look.owner.store(0, Ordering::Release);
        // SAFETY: this is the mapping that `new` made, or the zeros in its place; nobody has a reference into it.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

/// Shows `look` the `len` bytes of `file` from `offset`, a multiple of the page size, without copying them. Others may
/// change them meanwhile. Meant for what is in the page cache.
///
/// # Errors
/// EIO when some of it was not there, after `look` saw zeros instead. `WouldBlock` when too many look at once,
/// otherwise as mmap(2); `look` was not called then.
pub fn look_at_cached<R>(
    file: &File,
    offset: u64,
    len: usize,
    look: impl FnOnce(&[u8]) -> R,
) -> io::Result<R> {
    if BEFORE.get_or_init(handle).is_none() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mapped = Mapped::new(file, offset, len)?;
    // The handler runs in this thread, amid the look: what it reads is stored before, what it stores is read after.
    compiler_fence(Ordering::SeqCst);
    let seen = look(mapped.bytes());
    compiler_fence(Ordering::SeqCst);
    match mapped.look.lost.load(Ordering::Relaxed) {
        true => Err(io::Error::from_raw_os_error(libc::EIO)),
        false => Ok(seen),
    }
}

/// Makes [`on_sigbus`] the handler; who was it before.
fn handle() -> Option<libc::sigaction> {
    // SAFETY: all fields of the structure are numbers and optional functions, for which zeros are valid.
    let (mut before, mut now) = unsafe { std::mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    now.sa_sigaction = on_sigbus as *const () as usize;
    now.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: both structures outlive the call. The handler does only what a handler may: atomics, mmap and signal.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const now, &raw mut before) };
    (set == 0).then_some(before)
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a valid structure to a handler with SA_SIGINFO, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some(look) = LOOKS.iter().find(|look| look.holds(address)) {
        let start = look.start.load(Ordering::Relaxed) as *mut c_void;
        // SAFETY: only this thread looks at this mapping, is interrupted in doing so, and goes on with zeros in its
        // place, which are of the same length.
        let zeros = unsafe {
            libc::mmap(
                start,
                look.len.load(Ordering::Relaxed),
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if zeros != libc::MAP_FAILED {
            look.lost.store(true, Ordering::Relaxed);
            return;
        }
    }
    match BEFORE.get().and_then(Option::as_ref) {
        Some(before) if !matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) => {
            // SAFETY: it was registered as a handler with or without SA_SIGINFO; one that takes one argument passes
            // over the others by the calling conventions of all targets of Linux.
            unsafe {
                let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    std::mem::transmute(before.sa_sigaction);
                handler(signal, info, context);
            }
        }
        // The access is tried again, and ends the program.
        _ => {
            // SAFETY: the default action is valid for every signal.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn bytes_are_seen_where_they_are() {
        let bytes: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[1]).collect();
        let file = file(&bytes);
        let seen = look_at_cached(&file, 4096, 15_904, <[u8]>::to_vec).unwrap();
        assert!(seen == bytes[4096..]);
    }

    #[test]
    fn what_is_cut_off_while_it_is_looked_at_is_an_error() {
        let file = file(&[7; 40_000]);
        for _ in 0..3 {
            file.set_len(40_000).unwrap();
            let result = look_at_cached(&file, 0, 40_000, |bytes| {
                file.set_len(8192).unwrap();
                bytes.iter().map(|b| u64::from(*b)).sum::<u64>()
            });
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
        }
        assert!(look_at_cached(&file, 0, 8192, |bytes| bytes[0] == 7).unwrap());
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        let file = file(&[1; 9000]);
        for (offset, len) in [(1, 100), (0, 0), (u64::MAX, 10)] {
            assert!(look_at_cached(&file, offset, len, |_| ()).is_err());
        }
    }

    #[test]
    fn many_threads_look_at_once() {
        let file = file(&[9; 65_536]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for n in 0..500 {
                        let at = n % 16 * 4096;
                        let sum = |b: &[u8]| b.iter().map(|b| u64::from(*b)).sum::<u64>();
                        assert_eq!(look_at_cached(&file, at, 4096, sum).unwrap(), 9 * 4096);
                    }
                });
            }
        });
        assert!(
            LOOKS
                .iter()
                .all(|look| look.owner.load(Ordering::Relaxed) == 0)
        );
    }
}
