//! Block devices and regular files that hold a disk.

use super::{Mapping, rest_of};
use crate::base::{
    AlignedBuf, ByteLen, ByteOffset, Error, ErrorKind, Geometry, Result, SectorSize, to_u64,
    to_usize,
};
use crate::sys::{self, Segment, errno};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};

mod source;
mod target;

pub use source::{CachePolicy, FileSource};
pub use target::{FileTarget, TargetOptions};

/// Unaligned direct transfers go through a buffer of this size.
const BOUNCE: usize = 1 << 20;

/// Shorter transfers are left to the page cache, which makes long ones of them.
const LEAST_DIRECT: usize = 256 << 10;

/// What regular files are read in when no device says otherwise; every device sector divides it.
const FILE_ALIGNMENT: u64 = 4096;

/// One disk opened twice: through the page cache and, where that works, past it.
#[derive(Debug)]
struct Disk {
    name: String,
    cached: File,
    direct: Option<File>,
    geometry: Geometry,
    is_device: bool,
    /// Offsets and lengths of direct transfers are multiples of this.
    alignment: u64,
}

impl Disk {
    fn new(name: String, cached: File, direct: Option<File>, kind: ErrorKind) -> Result<Disk> {
        let fail = |e: io::Error| Error::new(kind, "ask the size of", name.clone()).caused_by(e);
        let metadata = cached.metadata().map_err(fail)?;
        let is_device = metadata.file_type().is_block_device();
        let geometry = if is_device {
            device_geometry(&cached).map_err(fail)?
        } else if metadata.file_type().is_file() {
            Geometry::of_len(ByteLen(metadata.len()))
        } else {
            return Err(Error::new(kind, "open", name)
                .because("it is neither a block device nor a regular file"));
        };
        let alignment = if is_device {
            u64::from(geometry.logical_sector.bytes())
        } else {
            FILE_ALIGNMENT
        };
        Ok(Disk {
            name,
            cached,
            direct,
            geometry,
            is_device,
            alignment,
        })
    }

    fn fail(&self, kind: ErrorKind, what: &str, at: u64, e: io::Error) -> Error {
        let error = Error::new(kind, what, format!("{} at byte {at}", self.name)).caused_by(e);
        match (kind, error.os_error()) {
            (ErrorKind::Destination, Some(errno::ENOSPC)) => {
                error.hint("free some space where the target lies, or choose another target")
            }
            _ => error,
        }
    }

    /// What the file system says lies at `offset`; a block device does not say.
    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let _pending = sys::pending("looking for holes in", &self.name);
        let rest = rest_of(&self.name, self.geometry.len, offset)?;
        if self.is_device {
            return Ok(Mapping::Data(rest));
        }
        match sys::segment_at(&self.cached, offset.0, self.geometry.len.0) {
            Ok(Segment::DataUntil(end)) => Ok(Mapping::Data(ByteLen(end - offset.0))),
            Ok(Segment::HoleUntil(end)) => Ok(Mapping::Zero(ByteLen(end - offset.0))),
            // A file system that cannot tell.
            Err(_) => Ok(Mapping::Data(rest)),
        }
    }

    /// Fills `buf` past the page cache, bouncing what is not aligned.
    fn read_direct(&self, direct: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if is_aligned(buf, offset, self.alignment) {
            return read_full(buf, offset, |b, o| direct.read_at(b, o));
        }
        let mut bounce = AlignedBuf::zeroed(
            BOUNCE.min(round_up(buf.len(), self.alignment) + 2 * to_usize(self.alignment)),
        );
        let mut done = 0;
        while done < buf.len() {
            let at = offset + to_u64(done);
            let start = at - at % self.alignment;
            let skip = to_usize(at - start);
            let count = (bounce.len() - skip).min(buf.len() - done);
            // The kernel ends a direct read of a file at its end, aligned or not.
            let wanted = round_up(skip + count, self.alignment).min(bounce.len());
            let len = to_u64(wanted).min(self.geometry.len.0 - start);
            let whole = round_up(to_usize(len), self.alignment);
            read_at_least(&mut bounce[..whole], to_usize(len), start, direct)?;
            buf[done..done + count].copy_from_slice(&bounce[skip..skip + count]);
            done += count;
        }
        Ok(())
    }
}

fn device_geometry(file: &File) -> io::Result<Geometry> {
    let sector = |bytes| SectorSize::new(bytes).unwrap_or(SectorSize::S512);
    Ok(Geometry {
        len: ByteLen(sys::block_device_len(file)?),
        logical_sector: sector(sys::logical_sector(file)?),
        physical_sector: sector(sys::physical_sector(file)?),
    })
}

/// Whether a direct transfer of `buf` at `offset` is allowed on a medium with `sector` bytes.
fn is_aligned(buf: &[u8], offset: u64, sector: u64) -> bool {
    (buf.as_ptr() as usize).is_multiple_of(AlignedBuf::ALIGNMENT)
        && offset.is_multiple_of(sector)
        && to_u64(buf.len()).is_multiple_of(sector)
}

fn round_up(len: usize, to: u64) -> usize {
    len.next_multiple_of(to_usize(to))
}

/// Repeats a positioned read until `buf` is full; interruptions are survived.
fn read_full(
    mut buf: &mut [u8],
    mut offset: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !buf.is_empty() {
        match sys::persist(|| read(buf, offset)) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(n) => {
                buf = &mut buf[n..];
                offset += to_u64(n);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads at least `needed` bytes into an aligned `buf`.
fn read_at_least(buf: &mut [u8], needed: usize, offset: u64, file: &File) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        match sys::persist(|| file.read_at(&mut buf[done..], offset + to_u64(done))) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(n) => done += n,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
fn temp_with(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::contract;

    #[test]
    fn direct_reads_of_a_file_reach_an_odd_end() {
        let bytes = contract::pattern(3 * BOUNCE + 777);
        let file = temp_with(&bytes);
        let Ok(direct) = sys::open_direct(file.path(), sys::Access::Read) else {
            eprintln!("SKIPPED: the file system of the temporary directory has no O_DIRECT");
            return;
        };
        let cached = File::open(file.path()).unwrap();
        let disk = Disk::new("f".into(), cached, None, ErrorKind::Source).unwrap();
        let end = bytes.len();
        let ends = [
            0,
            1,
            511,
            4096,
            4097,
            BOUNCE - 1,
            2 * BOUNCE + 5,
            end - 512,
            end - 1,
            end,
        ];
        for (start, stop) in ends.iter().flat_map(|a| ends.map(|b| (*a, b))) {
            let mut buf = vec![0xEE; stop.saturating_sub(start)];
            disk.read_direct(&direct, to_u64(start), &mut buf).unwrap();
            assert!(buf == bytes[start..start.max(stop)], "{start} to {stop}");
        }
    }
}
