//! Writing a block device or a regular file.

use super::{Disk, LEAST_DIRECT};
use crate::base::{
    AlignedBuf, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, to_u64, to_usize,
};
use crate::block::{BlockTarget, Mapping, Zeroing, check_extent, check_range};
use crate::sys::{self, errno};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Zeros that have to be written are written so many at once.
const ZEROS: usize = 1 << 20;

/// How a target was opened.
#[derive(Debug)]
pub struct TargetOptions {
    /// The disk, open for reading and writing through the page cache.
    pub cached: File,
    /// The same past the page cache, where that works.
    pub direct: Option<File>,
    /// What keeps others from writing, as long as the target lives.
    pub lock: Option<sys::Lock>,
    /// Whether the file was created for this run and holds nothing but a hole.
    pub created: bool,
}

/// A block device or regular file that may be written. Takes open handles rather than a path:
/// `device::guard` alone opens for writing.
#[derive(Debug)]
pub struct FileTarget {
    disk: Disk,
    created: bool,
    /// Whether long transfers go past the page cache: the medium is not far away, where one that waits for its
    /// answer would be slow.
    writes_direct: bool,
    _lock: Option<sys::Lock>,
}

impl FileTarget {
    /// A target called `name` over open handles.
    ///
    /// # Errors
    /// `Destination` when its size cannot be told.
    pub fn new(name: impl Into<String>, options: TargetOptions) -> Result<FileTarget> {
        let TargetOptions {
            cached,
            direct,
            lock,
            created,
        } = options;
        let disk = Disk::new(name.into(), cached, direct, ErrorKind::Destination)?;
        Ok(FileTarget {
            writes_direct: disk.is_device || !sys::may_be_shared(&disk.cached),
            disk,
            created,
            _lock: lock,
        })
    }

    /// Makes the kernel read the partition table again. `false` for a regular file or when the
    /// kernel does not take it now.
    pub fn reread_partitions(&self) -> bool {
        self.disk.is_device && sys::reread_partitions(&self.disk.cached).is_ok()
    }

    fn fail(&self, what: &str, at: u64, e: io::Error) -> Error {
        self.disk.fail(ErrorKind::Destination, what, at, e)
    }

    fn write_zeros_emulated(&self, extent: Extent) -> Result<Zeroing> {
        let zeros = AlignedBuf::zeroed(to_usize(extent.len.0.min(to_u64(ZEROS))));
        let mut at = extent.start.0;
        while at < extent.end().0 {
            let count = to_usize((extent.end().0 - at).min(to_u64(zeros.len())));
            self.write_at(ByteOffset(at), &zeros[..count])?;
            at += to_u64(count);
        }
        Ok(Zeroing::Emulated)
    }
}

impl BlockTarget for FileTarget {
    fn name(&self) -> &str {
        &self.disk.name
    }

    fn geometry(&self) -> Geometry {
        self.disk.geometry
    }

    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        let disk = &self.disk;
        check_range(&disk.name, "write", disk.geometry.len, offset, data.len())?;
        let _pending = sys::pending("writing", &disk.name);
        let direct = disk.direct.as_ref().filter(|_| {
            let worth_it = self.writes_direct && data.len() >= LEAST_DIRECT;
            worth_it && sys::is_aligned(data, offset.0, disk.alignment)
        });
        if let Some(direct) = direct {
            match sys::write_all_at(direct, data, offset.0) {
                // A file system that takes such transfers only by larger units than this.
                Err(e) if e.raw_os_error() == Some(errno::EINVAL) => {}
                other => return other.map_err(|e| self.fail("write", offset.0, e)),
            }
        }
        sys::write_all_at(&disk.cached, data, offset.0).map_err(|e| self.fail("write", offset.0, e))
    }

    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        let disk = &self.disk;
        check_extent(&disk.name, "zero", disk.geometry.len, extent)?;
        if extent.is_empty() {
            return Ok(Zeroing::Native);
        }
        let _pending = sys::pending("zeroing", &disk.name);
        let (start, len) = (extent.start.0, extent.len.0);
        let aligned = start.is_multiple_of(disk.alignment) && len.is_multiple_of(disk.alignment);
        let native = if !disk.is_device {
            sys::punch_hole(&disk.cached, start, len)
        } else if aligned {
            sys::zero_out(&disk.cached, start, len)
        } else {
            return self.write_zeros_emulated(extent);
        };
        match native {
            Ok(()) => Ok(Zeroing::Native),
            Err(e) if errno::is_unsupported(&e) => self.write_zeros_emulated(extent),
            Err(e) => Err(self.fail("zero", start, e)),
        }
    }

    fn discard(&self, extent: Extent) -> Result<bool> {
        let disk = &self.disk;
        check_extent(&disk.name, "discard", disk.geometry.len, extent)?;
        // Only whole sectors can be discarded.
        let start = extent.start.0.next_multiple_of(disk.alignment);
        let end = extent.end().0 / disk.alignment * disk.alignment;
        if start >= end {
            return Ok(false);
        }
        let _pending = sys::pending("discarding on", &disk.name);
        let result = if disk.is_device {
            sys::discard(&disk.cached, start, end - start)
        } else {
            sys::punch_hole(&disk.cached, start, end - start)
        };
        match result {
            Ok(()) => Ok(true),
            Err(e) if errno::is_unsupported(&e) => Ok(false),
            Err(e) => Err(self.fail("discard", start, e)),
        }
    }

    fn flush(&self) -> Result<()> {
        let name = &self.disk.name;
        let _pending = sys::pending("syncing", name);
        sys::sync(&self.disk.cached).map_err(|e| {
            Error::new(ErrorKind::Destination, "flush", name.clone())
                .caused_by(e)
                .hint("what was written may be lost; check the medium and restore again")
        })
    }

    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let disk = &self.disk;
        check_range(
            &disk.name,
            "read back",
            disk.geometry.len,
            offset,
            buf.len(),
        )?;
        let _pending = sys::pending("reading back", &disk.name);
        if let Some(direct) = &disk.direct {
            match disk.read_direct(direct, offset.0, buf) {
                Err(e) if e.raw_os_error() == Some(errno::EINVAL) => {}
                other => return other.map_err(|e| self.fail("read back", offset.0, e)),
            }
        }
        sys::drop_cached(&disk.cached, offset.0, to_u64(buf.len()));
        sys::read_full(buf, offset.0, |b, o| disk.cached.read_at(b, o))
            .map_err(|e| self.fail("read back", offset.0, e))
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.disk.mapping(offset)
    }

    fn starts_zeroed(&self) -> bool {
        self.created
    }

    /// File systems let a write past the page cache into a hole wait for the one before.
    fn is_parallel(&self) -> bool {
        self.disk.is_device
    }

    fn write_back(&self, extent: Extent) {
        sys::start_write_back(&self.disk.cached, extent.start.0, extent.len.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MIB, temp_with};
    use super::*;
    use crate::block::contract;

    fn target(file: &tempfile::NamedTempFile, direct: bool) -> FileTarget {
        let cached = sys::open_disk(file.path(), sys::Access::WriteExclusive).unwrap();
        let direct = direct
            .then(|| sys::open_direct(file.path(), sys::Access::WriteExclusive).ok())
            .flatten();
        FileTarget::new(
            "f",
            TargetOptions {
                cached,
                direct,
                lock: None,
                created: false,
            },
        )
        .unwrap()
    }

    #[test]
    fn targets_keep_the_contract() {
        for (len, direct) in [
            (20_001, false),
            (65_536, false),
            (20_001, true),
            (65_536, true),
        ] {
            let bytes = contract::pattern(len);
            contract::check_target(&target(&temp_with(&bytes), direct), &bytes);
        }
    }

    #[test]
    fn long_writes_go_past_the_page_cache() {
        let len = 3 * MIB + 777;
        let file = temp_with(&vec![7; len]);
        let mut target = target(&file, true);
        let Some(direct) = &target.disk.direct else {
            eprintln!("SKIPPED: the file system of the temporary directory has no O_DIRECT");
            return;
        };
        let mut data = AlignedBuf::zeroed(MIB);
        data.copy_from_slice(&contract::pattern(MIB));
        let is_cached = || sys::is_cached(&target.disk.cached, 0, to_u64(MIB));
        // File systems in memory keep all they have in the cache.
        sys::drop_cached(&target.disk.cached, 0, to_u64(len));
        sys::write_all_at(direct, &data, 0).unwrap();
        let in_memory = is_cached();
        target.write_at(ByteOffset(0), &data).unwrap();
        assert_eq!(is_cached(), in_memory);
        // Off the pages, of an odd length, and where the file system says that it cannot after all.
        target.write_at(ByteOffset(1 << 20), &data[1..]).unwrap();
        target.disk.alignment = 1;
        let odd = to_u64(2 * MIB - 1);
        target.write_at(ByteOffset(odd), &data).unwrap();
        target.flush().unwrap();
        let mut expected = vec![7; len];
        expected[..MIB].copy_from_slice(&data);
        expected[MIB..2 * MIB - 1].copy_from_slice(&data[1..]);
        expected[2 * MIB - 1..3 * MIB - 1].copy_from_slice(&data);
        assert!(std::fs::read(file.path()).unwrap() == expected);
    }
}
