//! Holes in files.

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;

/// What a file system says lies at a position of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Data up to this offset.
    DataUntil(u64),
    /// A hole, which reads as zeros, up to this offset.
    HoleUntil(u64),
}

/// Asks what lies at `offset` of a file of `len` bytes (`SEEK_DATA`, `SEEK_HOLE` of lseek(2)).
///
/// Moves the file's position; the callers read and write by offset only. File systems have been
/// seen to call unwritten dirty pages holes, so the file must have been synced before.
///
/// # Errors
/// As lseek(2); `EINVAL` where the file system cannot tell.
pub fn segment_at(file: &File, offset: u64, len: u64) -> io::Result<Segment> {
    let at = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let data = match lseek(file, at, Whence::SeekData) {
        Ok(data) => u64::try_from(data).unwrap_or(len),
        // No data at or behind the offset.
        Err(nix::errno::Errno::ENXIO) => len,
        Err(e) => return Err(e.into()),
    };
    if data > offset {
        return Ok(Segment::HoleUntil(data.min(len)));
    }
    let hole = lseek(file, at, Whence::SeekHole)?;
    Ok(Segment::DataUntil(
        u64::try_from(hole).unwrap_or(len).clamp(offset + 1, len),
    ))
}

/// Frees `len` bytes at `start` of a regular file; they read as zeros afterwards.
///
/// # Errors
/// As fallocate(2); `EOPNOTSUPP` where the file system cannot.
pub fn punch_hole(file: &File, start: u64, len: u64) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let start = i64::try_from(start).map_err(out_of_range)?;
    let len = i64::try_from(len).map_err(out_of_range)?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, start, len)?;
    Ok(())
}
