//! Room on a file system.

use std::io;
use std::path::Path;

/// Sizes of the file system that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this user may still write.
    pub available: u64,
    /// The whole file system.
    pub total: u64,
}

/// Asks the file system that holds `path`.
///
/// # Errors
/// As statvfs(3).
pub fn free_space(path: &Path) -> io::Result<Space> {
    Ok(space_of(&nix::sys::statvfs::statvfs(path)?))
}

pub(super) fn space_of(stat: &nix::sys::statvfs::Statvfs) -> Space {
    let unit = stat.fragment_size();
    Space {
        available: stat.blocks_available().saturating_mul(unit),
        total: stat.blocks().saturating_mul(unit),
    }
}

/// The longest file that FAT takes: 4 GiB less a byte, since a directory entry has 32 bits for it
/// (Microsoft, FAT32 File System Specification, `DIR_FileSize`).
const LONGEST_ON_FAT: u64 = u32::MAX as u64;

/// The longest file that the file system of `path`, or of the folder above that is there, takes, where it is
/// one that is known to take short ones only.
pub fn longest_file(path: &Path) -> Option<u64> {
    use nix::sys::statfs::{MSDOS_SUPER_MAGIC, statfs};
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|p| p.exists())?;
    let kind = statfs(there).ok()?.filesystem_type();
    if kind == MSDOS_SUPER_MAGIC {
        return Some(LONGEST_ON_FAT);
    }
    // A program may serve it; what it serves is told by its name only.
    let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
    let real = there.canonicalize().ok()?;
    is_fat_by_name(&String::from_utf8_lossy(&mounts), &real).then_some(LONGEST_ON_FAT)
}

/// Whether the last mount above `path` in a mountinfo (proc(5)) is of a program that serves FAT.
fn is_fat_by_name(mounts: &str, path: &Path) -> bool {
    let mut nearest = (0, false);
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let point = left
            .split(' ')
            .nth(4)
            .unwrap_or_default()
            .replace("\\040", " ");
        let kind = right.split(' ').next().unwrap_or_default();
        let depth = Path::new(&point).components().count();
        if path.starts_with(&point) && depth >= nearest.0 {
            let fat = kind.starts_with("fuse") && kind.contains("fat") && !kind.contains("exfat");
            nearest = (depth, fat);
        }
    }
    nearest.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fat_behind_a_program_is_known_by_its_name() {
        let mounts = "\
            22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /mnt/my\\040stick rw shared:1 - fuse.fusefat /dev/sdb1 rw\n\
            31 22 0:41 / /mnt/big rw - fuse.exfat /dev/sdc1 rw\n\
            32 30 0:42 / /mnt/my\\040stick/inner rw - ext4 /dev/sdd1 rw\n";
        for (path, fat) in [
            ("/mnt/my stick", true),
            ("/mnt/my stick/store", true),
            ("/mnt/my stick/inner/store", false),
            ("/mnt/big", false),
            ("/mnt", false),
        ] {
            assert_eq!(is_fat_by_name(mounts, Path::new(path)), fat, "{path}");
        }
        assert_eq!(
            longest_file(&std::env::temp_dir().join("no/such/folder")),
            None
        );
    }
}
