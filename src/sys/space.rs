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
