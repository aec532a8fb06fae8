//! Reading a block device or a regular file.

use super::{Disk, FILE_ALIGNMENT, LEAST_DIRECT};
use crate::base::{ByteOffset, Error, ErrorKind, Extent, Geometry, Result, to_u64, to_usize};
use crate::block::holes::Holes;
use crate::block::{BlockSource, Mapping, check_range, rest_of};
use crate::sys::{self, errno};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Whether reads go through the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    /// Past it on block devices. On regular files past it for what it does not hold, where the file system takes
    /// that; otherwise through it, leaving nothing behind.
    Auto,
    /// Always through it.
    Cached,
}

/// A block device or regular file, opened for reading only.
#[derive(Debug)]
pub struct FileSource {
    disk: Disk,
    holes: Holes,
    /// Whether other machines may write to it.
    may_be_shared: bool,
}

impl FileSource {
    /// Opens `path`, called `name` in messages. A regular file is synced first, so that its holes
    /// may be believed, and some of each is read all the same.
    ///
    /// # Errors
    /// `NotFound` when there is nothing, `Source` for every other failure.
    pub fn open(path: &Path, name: impl Into<String>, policy: CachePolicy) -> Result<FileSource> {
        let name = name.into();
        let _pending = sys::pending("opening", &name);
        let cached = sys::open_disk(path, sys::Access::Read).map_err(|e| open_error(&name, e))?;
        let is_device = cached
            .metadata()
            .is_ok_and(|m| m.file_type().is_block_device());
        if !is_device {
            cached.sync_data().map_err(|e| open_error(&name, e))?;
        }
        let may_be_shared = !is_device && sys::may_be_shared(&cached);
        let direct = match policy {
            CachePolicy::Cached => None,
            CachePolicy::Auto if is_device => sys::open_direct(path, sys::Access::Read).ok(),
            // What is far away is read ahead by the kernel alone.
            CachePolicy::Auto if may_be_shared => None,
            CachePolicy::Auto => sys::open_for_direct_reads(&cached, to_usize(FILE_ALIGNMENT)),
        };
        Ok(FileSource {
            disk: Disk::new(name, cached, direct, ErrorKind::Source)?,
            holes: Holes::default(),
            may_be_shared,
        })
    }

    /// Whether it is a block device (and not a regular file).
    pub fn is_device(&self) -> bool {
        self.disk.is_device
    }

    /// The handle to read `buf` with past the page cache, where that is the better way. What a file has in memory is
    /// copied faster than read again; what of it is there and changed, the kernel writes out before a direct read.
    fn direct_for(&self, offset: u64, buf: &[u8]) -> Option<&File> {
        let disk = &self.disk;
        disk.direct.as_ref().filter(|_| {
            disk.is_device
                || buf.len() >= LEAST_DIRECT
                    && sys::is_aligned(buf, offset, disk.alignment)
                    && sys::is_cached(&disk.cached, offset, to_u64(buf.len())) == Some(false)
        })
    }

    fn read_cached(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let cached = &self.disk.cached;
        sys::read_full(buf, offset, |b, o| {
            let (n, left_behind) = sys::read_uncached(cached, b, o)?;
            if left_behind {
                sys::drop_cached(cached, o, to_u64(n));
            }
            Ok(n)
        })
    }
}

fn open_error(name: &str, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "open", name)
            .caused_by(e)
            .hint("`strata disks` shows the disks of this machine"),
        io::ErrorKind::PermissionDenied => Error::new(ErrorKind::Source, "open", name)
            .caused_by(e)
            .hint("reading a disk needs root: run the command with sudo"),
        _ => Error::new(ErrorKind::Source, "open", name).caused_by(e),
    }
}

impl BlockSource for FileSource {
    fn name(&self) -> &str {
        &self.disk.name
    }

    fn geometry(&self) -> Geometry {
        self.disk.geometry
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let disk = &self.disk;
        check_range(&disk.name, "read", disk.geometry.len, offset, buf.len())?;
        let _pending = sys::pending("reading", &disk.name);
        let result = match self.direct_for(offset.0, buf) {
            Some(direct) => match disk.read_direct(direct, offset.0, buf) {
                // A file system that takes such transfers only by larger units than it said.
                Err(e) if !disk.is_device && e.raw_os_error() == Some(errno::EINVAL) => {
                    self.read_cached(offset.0, buf)
                }
                other => other,
            },
            None => self.read_cached(offset.0, buf),
        };
        result.map_err(|e| disk.fail(ErrorKind::Source, "read", offset.0, e))
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let told = self.disk.mapping(offset)?;
        let Mapping::Zero(len) = told else {
            return Ok(told);
        };
        let hole = Extent { start: offset, len };
        let read = |at, buf: &mut [u8]| self.read_at(ByteOffset(at), buf);
        match self.holes.are_believed(hole, &read) {
            true => Ok(told),
            false => rest_of(self.name(), self.disk.geometry.len, offset).map(Mapping::Data),
        }
    }

    fn is_cached(&self, extent: Extent) -> bool {
        let past_the_cache = self.disk.is_device && self.disk.direct.is_some();
        let is_cached = || sys::is_cached(&self.disk.cached, extent.start.0, extent.len.0);
        !past_the_cache && is_cached() == Some(true)
    }

    fn look_at_cached(&self, extent: Extent, look: &mut dyn FnMut(&[u8])) -> bool {
        let disk = &self.disk;
        // What is far away may have changed there: a read asks, a mapping need not.
        let is_here = !disk.is_device && !self.may_be_shared;
        let is_inside = extent.end().0 <= disk.geometry.len.0;
        if !is_here || !is_inside || !self.is_cached(extent) {
            return false;
        }
        let _pending = sys::pending("reading", &disk.name);
        sys::look_at_cached(&disk.cached, extent.start.0, to_usize(extent.len.0), look).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MIB, temp_with};
    use super::*;
    use crate::base::{AlignedBuf, ByteLen};
    use crate::block::contract;
    use std::os::unix::fs::FileExt;

    fn opened(file: &tempfile::NamedTempFile, policy: CachePolicy) -> FileSource {
        FileSource::open(file.path(), "f", policy).unwrap()
    }

    #[test]
    fn sources_keep_the_contract() {
        for len in [20_001, 65_536, 2 * MIB + 777] {
            let bytes = contract::pattern(len);
            let file = temp_with(&bytes);
            for policy in [CachePolicy::Auto, CachePolicy::Cached] {
                contract::check_source(&opened(&file, policy), &bytes);
            }
        }
    }

    /// A file of 4 MiB and an odd end, none of it in the page cache, and its bytes; `None` where
    /// the file system has no direct reads.
    fn uncached() -> Option<(tempfile::NamedTempFile, FileSource, Vec<u8>)> {
        let bytes = contract::pattern(4 * MIB + 777);
        let file = temp_with(&bytes);
        let source = opened(&file, CachePolicy::Auto);
        sys::drop_cached(&source.disk.cached, 0, to_u64(bytes.len()));
        let cached = sys::is_cached(&source.disk.cached, 0, 1);
        if source.disk.direct.is_none() || cached.is_none() {
            eprintln!("SKIPPED: the file system of the temporary directory has no direct reads");
            return None;
        }
        Some((file, source, bytes))
    }

    #[test]
    fn what_is_not_cached_is_read_past_the_cache() {
        let Some((_file, source, bytes)) = uncached() else {
            return;
        };
        let mut buf = AlignedBuf::zeroed(MIB);
        assert!(source.direct_for(to_u64(MIB), &buf).is_some());
        source.read_at(ByteOffset(to_u64(MIB)), &mut buf).unwrap();
        assert!(buf[..] == bytes[MIB..2 * MIB]);
        let read = sys::is_cached(&source.disk.cached, to_u64(MIB), 1);
        assert_eq!(read, Some(false));
        // Short ones, those off the pages, and what is cached go through it.
        assert!(source.direct_for(0, &buf[..LEAST_DIRECT - 4096]).is_none());
        assert!(source.direct_for(512, &buf).is_none());
        assert!(source.direct_for(0, &buf[..MIB - 1]).is_none());
        source.disk.cached.read_exact_at(&mut buf, 0).unwrap();
        assert!(source.direct_for(0, &buf).is_none());
        assert!(source.is_cached(Extent {
            start: ByteOffset(0),
            len: ByteLen(to_u64(MIB)),
        }));
    }

    #[test]
    fn what_is_cached_and_not_written_yet_is_read_too() {
        let Some((file, source, mut bytes)) = uncached() else {
            return;
        };
        file.as_file().write_all_at(&[0xAB; 4096], 8192).unwrap();
        bytes[8192..12_288].fill(0xAB);
        let mut buf = AlignedBuf::zeroed(MIB);
        assert!(source.direct_for(0, &buf).is_some());
        source.read_at(ByteOffset(0), &mut buf).unwrap();
        assert!(buf[..] == bytes[..MIB]);
    }

    #[test]
    fn a_refused_direct_read_goes_through_the_cache() {
        let Some((_file, mut source, bytes)) = uncached() else {
            return;
        };
        source.disk.alignment = 1;
        let mut buf = AlignedBuf::zeroed(MIB);
        assert!(source.direct_for(777, &buf).is_some());
        source.read_at(ByteOffset(777), &mut buf).unwrap();
        assert!(buf[..] == bytes[777..777 + MIB]);
    }

    #[test]
    fn what_is_cached_is_shown_while_it_is_there() {
        let Some((file, source, bytes)) = uncached() else {
            return;
        };
        let whole = Extent::whole(source.len());
        let shown = || {
            let mut seen = Vec::new();
            let is_seen = source.look_at_cached(whole, &mut |bytes| seen = bytes.to_vec());
            is_seen.then_some(seen)
        };
        assert!(shown().is_none());
        let mut buf = vec![0; bytes.len()];
        source.disk.cached.read_exact_at(&mut buf, 0).unwrap();
        assert!(shown().is_some_and(|seen| seen == bytes));
        file.as_file().set_len(to_u64(MIB)).unwrap();
        assert!(shown().is_none());
        let mut end = Vec::new();
        let first = Extent {
            start: ByteOffset(0),
            len: ByteLen(to_u64(MIB)),
        };
        let is_seen = source.look_at_cached(first, &mut |bytes| {
            file.as_file().set_len(8192).unwrap();
            end = bytes[MIB - 4096..].to_vec();
        });
        assert!(!is_seen && end.iter().all(|b| *b == 0));
    }

    #[test]
    fn holes_are_told() {
        let file = temp_with(b"x");
        file.as_file().set_len(10 << 20).unwrap();
        let source = FileSource::open(file.path(), "f", CachePolicy::Auto).unwrap();
        let mut zero = 0;
        let mut at = 0;
        while at < 10 << 20 {
            match source.mapping(ByteOffset(at)).unwrap() {
                Mapping::Zero(len) => {
                    zero += len.0;
                    at += len.0;
                }
                Mapping::Data(len) => at += len.0,
            }
        }
        if zero == 0 {
            eprintln!("SKIPPED: the file system of the temporary directory does not tell holes");
            return;
        }
        assert!(
            zero >= 9 << 20,
            "most of the file is a hole, {zero} bytes were told"
        );
    }

    #[test]
    fn folders_and_pipes_are_no_disks() {
        let error =
            FileSource::open(Path::new("/dev/null"), "/dev/null", CachePolicy::Auto).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let gone =
            FileSource::open(Path::new("/nonexistent/x"), "x", CachePolicy::Auto).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}
