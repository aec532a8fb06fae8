//! What the kernel alone knows about an open device or a path: numbers that a name cannot fake.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

mod raw {
    #![allow(missing_docs)]
    nix::ioctl_read!(blkgetdiskseq, 0x12, 128, u64);
    // `struct loop_info64` of include/uapi/linux/loop.h is 232 bytes: 29 words of 64 bits, of
    // which the first three are lo_device, lo_inode and lo_rdevice.
    nix::ioctl_read_bad!(loop_get_status64, 0x4C05, [u64; 29]);
}

/// The kernel's running number of the disk behind an open block device (Linux 5.15). It changes
/// whenever another medium or backing file takes the same name, and differs between boots.
///
/// # Errors
/// As ioctl(2); `ENOTTY` on older kernels.
pub fn disk_sequence(file: &File) -> io::Result<u64> {
    let mut sequence = 0u64;
    // SAFETY: the descriptor is open and the kernel writes one u64 to a live u64.
    unsafe { raw::blkgetdiskseq(file.as_raw_fd(), &raw mut sequence) }?;
    Ok(sequence)
}

/// What lies behind a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopBacking {
    /// Device number (as `st_dev` of stat(2)) of the file.
    pub dev: u64,
    /// Its inode number.
    pub inode: u64,
    /// The device that the file itself is (as `st_rdev`), when it is one; 0 for a regular file.
    pub rdev: u64,
}

/// The file behind an open loop device.
///
/// # Errors
/// As ioctl(2); `ENXIO` when no file is attached.
pub fn loop_backing(file: &File) -> io::Result<LoopBacking> {
    let mut info = [0u64; 29];
    // SAFETY: the descriptor is open and the kernel writes one loop_info64, 232 bytes without
    // padding, to a live array of that size; every bit pattern is a valid u64.
    unsafe { raw::loop_get_status64(file.as_raw_fd(), &raw mut info) }?;
    let [dev, inode, rdev, ..] = info;
    Ok(LoopBacking { dev, inode, rdev })
}

/// The id of the mount that holds `path`, as in the first field of `/proc/self/mountinfo`.
///
/// # Errors
/// As open(2) with `O_PATH`; `InvalidData` when the kernel does not say (before Linux 3.15).
pub fn mount_id(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_PATH)
        .open(path)?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Major and minor number of a `dev_t` as `st_dev` and `st_rdev` hold it.
pub fn split_device_number(dev: u64) -> (u32, u32) {
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (
        narrow(nix::sys::stat::major(dev)),
        narrow(nix::sys::stat::minor(dev)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_split_as_the_c_library_does() {
        assert_eq!(split_device_number(0x801), (8, 1));
        // NVMe partitions have minors past 8 bits.
        assert_eq!(split_device_number(0x1111_0370), (259, 70_000));
    }

    #[test]
    fn the_root_has_a_mount() {
        assert!(mount_id(Path::new("/")).is_ok());
    }
}
