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
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_DIRECT | nix::libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_cannot_become_a_writer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = File::open(file.path()).unwrap();
        let error = reopen_direct(&reader).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
