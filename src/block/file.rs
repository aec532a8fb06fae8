//! Block devices and regular files that hold a disk.

use super::{Mapping, rest_of};
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Geometry, Result, SectorSize};
use crate::sys::{self, Segment, errno};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;

mod source;
mod target;

pub use source::{CachePolicy, FileSource};
pub use target::{FileTarget, TargetOptions};

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

    /// Fills `buf` past the page cache.
    fn read_direct(&self, direct: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        sys::read_direct(direct, buf, offset, self.alignment, self.geometry.len.0)
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

/// Longer than a transfer that goes through the page cache.
#[cfg(test)]
const MIB: usize = 1 << 20;

#[cfg(test)]
fn temp_with(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file
}
