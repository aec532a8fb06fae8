//! Asking whether a disk is claimed, and opening one handle a second time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether a mount, swap, LVM, md, dm or another program has claimed the block device at `path`
/// for itself.
///
/// Opens it for reading with `O_EXCL` for a moment. A handle for writing would do as well, but
/// closing one makes udev read the device again.
///
/// # Errors
/// As open(2), except that `EBUSY` is the answer and no error.
pub fn is_claimed(path: &Path) -> io::Result<bool> {
    let flags = nix::libc::O_EXCL | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(_) => Ok(false),
        Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => Ok(true),
        Err(e) => Err(e),
    }
}

/// Opens the very disk or file behind `file` again, past the page cache (`O_DIRECT`), for reading
/// and writing.
///
/// Goes through `/proc/self/fd`, so that no name is looked up a second time, and without `O_EXCL`:
/// the kernel grants a block device's claim to one handle only, and `file` keeps it.
///
/// # Errors
/// `PermissionDenied` when `file` itself is not open for writing; otherwise as open(2), `EINVAL`
/// where the file system has no direct transfers.
pub fn reopen_direct(file: &File) -> io::Result<File> {
    let flags = nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_GETFL)?;
    if flags & nix::libc::O_ACCMODE != nix::libc::O_RDWR {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    reopen(file, OpenOptions::new().read(true).write(true))
}

fn reopen(file: &File, options: &mut OpenOptions) -> io::Result<File> {
    options
        .custom_flags(nix::libc::O_DIRECT | nix::libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens the file behind `file` again for writes past the page cache, if its file system says that such writes need
/// no more than lie on multiples of `alignment` bytes, in memory and in the file: `STATX_DIOALIGN` of statx(2),
/// Linux 6.1. One that takes them and hands them on to the page cache, and waits, does not say so.
pub fn open_for_direct_writes(file: &File, alignment: usize) -> Option<File> {
    takes_direct(file, alignment).then(|| reopen_direct(file).ok())?
}

/// The same for reads; the handle cannot write.
pub fn open_for_direct_reads(file: &File, alignment: usize) -> Option<File> {
    takes_direct(file, alignment).then(|| reopen(file, OpenOptions::new().read(true)).ok())?
}

fn takes_direct(file: &File, alignment: usize) -> bool {
    let fits = |unit: u32| {
        let unit = usize::try_from(unit).unwrap_or(usize::MAX);
        unit != 0 && alignment.is_multiple_of(unit)
    };
    direct_alignment(file).is_some_and(|(memory, offset)| fits(memory) && fits(offset))
}

/// What addresses in memory, and offsets in `file`, of direct transfers have to be multiples of; 0 where there are
/// none. `None` when the kernel or the file system does not say.
fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    let mut found = std::mem::MaybeUninit::<nix::libc::statx>::zeroed();
    // SAFETY: the descriptor is open, the path is an empty string with its zero, and the kernel fills the structure,
    // which outlives the call.
    let result = unsafe {
        nix::libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            nix::libc::AT_EMPTY_PATH,
            nix::libc::STATX_DIOALIGN,
            found.as_mut_ptr(),
        )
    };
    // SAFETY: all of it was zeroed, and zeros are a value of a structure of numbers.
    let found = unsafe { found.assume_init() };
    let says = result == 0 && found.stx_mask & nix::libc::STATX_DIOALIGN != 0;
    says.then_some((found.stx_dio_mem_align, found.stx_dio_offset_align))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn direct_transfers_are_for_files_that_say_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = direct_alignment(file.as_file());
        let fits = |(memory, offset): (u32, u32)| {
            let divides = |unit| unit != 0 && 4096 % unit == 0;
            divides(memory) && divides(offset)
        };
        let writer = open_for_direct_writes(file.as_file(), 4096);
        assert_eq!(writer.is_some(), said.is_some_and(fits), "{said:?}");
        let reader = open_for_direct_reads(file.as_file(), 4096);
        assert_eq!(reader.is_some(), said.is_some_and(fits), "{said:?}");
        if let Some(reader) = reader {
            assert!(reader.write_at(b"x", 0).is_err());
        }
        assert!(open_for_direct_writes(file.as_file(), 1).is_none());
        assert!(open_for_direct_reads(file.as_file(), 1).is_none());
        let (_reader, pipe) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
        assert!(open_for_direct_writes(&pipe, 4096).is_none());
    }

    #[test]
    fn a_reader_cannot_become_a_writer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = File::open(file.path()).unwrap();
        let error = reopen_direct(&reader).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
