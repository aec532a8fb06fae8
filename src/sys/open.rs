//! Opening disks and files with the flags that an imaging tool needs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What an opened disk may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only. Nothing can ever be written through the handle.
    Read,
    /// Reading and writing, and the kernel refuses when a mount, swap, LVM, md or dm holds the
    /// device (`O_EXCL` on a block device, open(2)).
    WriteExclusive,
}

/// Opens an existing disk or file through the page cache.
///
/// # Errors
/// As open(2); `EBUSY` when exclusive access is refused.
pub fn open_disk(path: &Path, access: Access) -> io::Result<File> {
    options(access, 0).open(path)
}

/// Opens an existing disk or file past the page cache (`O_DIRECT`). Buffers, offsets and lengths
/// must then be aligned.
///
/// # Errors
/// As open(2); `EINVAL` where the file system cannot.
pub fn open_direct(path: &Path, access: Access) -> io::Result<File> {
    options(access, nix::libc::O_DIRECT).open(path)
}

/// Opens a regular file for reading and refuses to follow a symbolic link in its last component.
///
/// # Errors
/// As open(2); `ELOOP` for a link.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: a FIFO with an image's name must not hang the run.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn options(access: Access, extra: i32) -> OpenOptions {
    let mut options = OpenOptions::new();
    let exclusive = match access {
        Access::Read => 0,
        Access::WriteExclusive => nix::libc::O_EXCL,
    };
    options
        .read(true)
        .write(access == Access::WriteExclusive)
        .custom_flags(extra | exclusive | nix::libc::O_NOCTTY);
    options
}
