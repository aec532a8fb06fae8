//! Block device ioctls. Numbers and argument types from the kernel's `include/uapi/linux/fs.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod raw {
    #![allow(missing_docs)]
    // BLKGETSIZE64 is declared with size_t but always fills a u64 (block/ioctl.c).
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(
        blksszget,
        nix::request_code_none!(0x12, 104),
        nix::libc::c_int
    );
    nix::ioctl_read_bad!(
        blkpbszget,
        nix::request_code_none!(0x12, 123),
        nix::libc::c_uint
    );
    nix::ioctl_none_bad!(blkflsbuf, nix::request_code_none!(0x12, 97));
    nix::ioctl_none_bad!(blkrrpart, nix::request_code_none!(0x12, 95));
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(0x12, 127), [u64; 2]);
}

/// Length of a block device in bytes.
///
/// # Errors
/// As ioctl(2).
pub fn block_device_len(file: &File) -> io::Result<u64> {
    let mut len = 0u64;
    // SAFETY: the descriptor is open and the kernel writes one u64 to a live u64.
    unsafe { raw::blkgetsize64(file.as_raw_fd(), &raw mut len) }?;
    Ok(len)
}

/// Logical sector size of a block device in bytes.
///
/// # Errors
/// As ioctl(2); `InvalidData` for a negative size.
pub fn logical_sector(file: &File) -> io::Result<u32> {
    let mut size: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open and the kernel writes one int to a live int.
    unsafe { raw::blksszget(file.as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Physical sector size of a block device in bytes.
///
/// # Errors
/// As ioctl(2).
pub fn physical_sector(file: &File) -> io::Result<u32> {
    let mut size: nix::libc::c_uint = 0;
    // SAFETY: the descriptor is open and the kernel writes one unsigned int to a live one.
    unsafe { raw::blkpbszget(file.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// Writes the device's dirty pages and drops its page cache, so that the next read asks the medium.
///
/// # Errors
/// As ioctl(2); `EACCES` without `CAP_SYS_ADMIN`.
pub fn flush_buffers(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; this request takes no argument.
    unsafe { raw::blkflsbuf(file.as_raw_fd()) }?;
    Ok(())
}

/// Makes the kernel read the partition table again.
///
/// # Errors
/// As ioctl(2); `EINVAL` where the device has no partitions, `EBUSY` while one is in use.
pub fn reread_partitions(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; this request takes no argument.
    unsafe { raw::blkrrpart(file.as_raw_fd()) }?;
    Ok(())
}

/// Tells the device that `len` bytes at `start` are free. Both are multiples of the logical sector.
///
/// # Errors
/// As ioctl(2); `EOPNOTSUPP` where the device does not know discards.
pub fn discard(file: &File, start: u64, len: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open and the kernel reads two u64 from a live array.
    unsafe { raw::blkdiscard(file.as_raw_fd(), &raw const *&[start, len]) }?;
    Ok(())
}

/// Makes `len` bytes at `start` read as zeros, offloaded where the device can. Both are multiples
/// of the logical sector.
///
/// # Errors
/// As ioctl(2).
pub fn zero_out(file: &File, start: u64, len: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open and the kernel reads two u64 from a live array.
    unsafe { raw::blkzeroout(file.as_raw_fd(), &raw const *&[start, len]) }?;
    Ok(())
}
