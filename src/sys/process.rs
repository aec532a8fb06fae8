//! Facts about this process and this machine.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

/// Has the kernel put as much of `bytes` as it can into huge pages (madvise(2), `MADV_HUGEPAGE`): a transfer past the
/// page cache then has to find a few places in memory instead of one for every page, and goes to the disk in fewer
/// requests. To be called before they are touched. Where the kernel does not do that, nothing is different.
pub fn prefer_huge_pages(bytes: &mut [u8]) {
    use nix::sys::mman::{MmapAdvise, madvise};
    let page = 4096;
    let skip = bytes.as_ptr().align_offset(page);
    let Some(pages) = bytes.get_mut(skip..) else {
        return;
    };
    let len = pages.len() / page * page;
    if let Some(start) = std::ptr::NonNull::new(pages.as_mut_ptr()) {
        // SAFETY: the pages are those of a slice that is borrowed for itself alone; this advice keeps their content.
        let _ = unsafe { madvise(start.cast(), len, MmapAdvise::MADV_HUGEPAGE) };
    }
}

/// Makes a write past a limit on file sizes fail (`EFBIG`) instead of killing the process, which
/// could then not clean up (setrlimit(2), `RLIMIT_FSIZE`).
pub fn survive_file_size_limit() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // Where it cannot be ignored the limit ends the process, as it would have.
    // SAFETY: ignoring a signal installs no handler, so nothing can run at an unsafe moment.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// Lets this process have as many open files as it may have at most (setrlimit(2), `RLIMIT_NOFILE`): the lower limit
/// that is usual is there for programs that call select(2).
pub fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Has threads share what they allocate from, so that there is no more than `most` of that: glibc reserves 64 MiB of
/// addresses for each, up to eight for every core, which a limit on addresses (setrlimit(2), `RLIMIT_AS`) does not leave
/// to many threads (mallopt(3), `M_ARENA_MAX`). To be called before there are threads. With another C library, nothing
/// is different.
pub fn share_arenas(most: usize) {
    #[cfg(target_env = "gnu")]
    if let Ok(most) = i32::try_from(most) {
        // SAFETY: it takes plain numbers, and sets what later allocations go by.
        let _ = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, most) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = most;
}

/// How many files this process may have open (getrlimit(2), `RLIMIT_NOFILE`).
pub fn most_open_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Keeps what is in memory out of core dumps, out of reach of other programs of the same user, and out of
/// swap space, each as far as this process may.
pub fn keep_memory_private() {
    use nix::sys::mman::{MlockAllFlags, mlockall};
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    // One byte: no dump fits in it, and programs that take dumps through a pipe are not called for it
    // either (core(5)).
    let _ = setrlimit(Resource::RLIMIT_CORE, 1, 1);
    if effective_uid() == 0 {
        // For others, the files below /proc/self would belong to root.
        let _ = nix::sys::prctl::set_dumpable(false);
    }
    // With a limit on locked memory, a later allocation would fail: rather have none locked.
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        // Only what is touched: buffers that nobody fills take no room.
        let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
        let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault);
    }
}

/// What of the processor a thread that stands back gets beside others: a tenth (nice 10, setpriority(2)).
const NICE: i32 = 10;
/// `IOPRIO_WHO_PROCESS` of `include/uapi/linux/ioprio.h`.
const IOPRIO_WHO_PROCESS: i32 = 1;
/// `IOPRIO_CLASS_BE` with the lowest of its eight priorities: the idle class could wait for ever on a busy disk.
const IOPRIO_LOWEST: i32 = (2 << 13) | 7;

/// Makes this thread, and those that it starts from now on, stand back behind other programs, on the processor and
/// on disks whose scheduler knows priorities. Where it stands back further already, it stays there.
///
/// # Errors
/// As setpriority(2) and ioprio_set(2).
pub fn stand_back() -> io::Result<()> {
    use nix::libc::{PRIO_PROCESS, SYS_ioprio_set, getpriority, setpriority, syscall};
    // SAFETY: the calls take plain numbers, and 0 is the calling thread. -1 is a priority too: a failure that it
    // stands for would come again from the next call.
    let result = unsafe {
        let now = getpriority(PRIO_PROCESS, 0);
        setpriority(PRIO_PROCESS, 0, now.max(NICE))
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    match unsafe { syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_LOWEST) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes everything that waits in this machine's caches to its disks (sync(2)).
pub fn sync_all() {
    nix::unistd::sync();
}

/// The user whose rights count.
pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// This machine's name, empty when it cannot be told.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The running kernel's release ("6.1.0-18-amd64"), empty when it cannot be told.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|n| n.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Whether a read of `file` would not wait, found out within `timeout_ms` milliseconds (poll(2)). An
/// interruption by a signal counts as not.
///
/// # Errors
/// As poll(2).
pub fn is_readable(file: &File, timeout_ms: u16) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, poll};
    let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    match poll(&mut asked, timeout_ms) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether `file` is a terminal.
pub fn is_terminal_device(file: &File) -> bool {
    file.is_terminal()
}

/// Memory that programs could still have without anything being swapped out, in bytes (`MemAvailable` of
/// proc_meminfo(5)); `None` when it cannot be told.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let rest = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The largest resident size this process has had, in bytes; `None` when it cannot be told.
pub fn peak_memory() -> Option<u64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    // Linux counts in KiB (getrusage(2)).
    u64::try_from(usage.max_rss()).ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of the mapping with the byte at `place` (`VmFlags` of proc_pid_smaps(5)).
    fn flags_of(place: usize) -> Option<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_it = false;
        for line in smaps.lines() {
            let first = line.split(' ').next().unwrap_or_default();
            let range = first.split_once('-').map(|(from, to)| {
                [from, to].map(|hex| usize::from_str_radix(hex, 16).unwrap_or(0))
            });
            match range {
                Some([from, to]) => is_it = (from..to).contains(&place),
                None if is_it && first == "VmFlags:" => return Some(line.to_owned()),
                None => {}
            }
        }
        None
    }

    #[test]
    fn huge_pages_are_asked_for_and_the_content_stays() {
        let mut bytes: Vec<u8> = (0..=u8::MAX).cycle().take(5 << 20).collect();
        prefer_huge_pages(&mut bytes[100..]);
        prefer_huge_pages(&mut bytes[..50]);
        prefer_huge_pages(&mut []);
        assert!(
            bytes
                .iter()
                .zip((0..=u8::MAX).cycle())
                .all(|(a, b)| *a == b)
        );
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            eprintln!("SKIPPED: this kernel has no transparent huge pages");
            return;
        }
        let flags = flags_of(bytes.as_ptr() as usize + (2 << 20)).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
    }
}
