//! Block devices and regular files that hold a disk.

use super::holes::Holes;
use super::{BlockSource, BlockTarget, Mapping, Zeroing, check_extent, check_range, rest_of};
use crate::base::{
    AlignedBuf, ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, SectorSize,
    to_u64, to_usize,
};
use crate::sys::{self, Segment, errno};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// Unaligned direct transfers go through a buffer of this size.
const BOUNCE: usize = 1 << 20;

/// Shorter writes are left to the page cache, which makes long ones of them.
const LEAST_DIRECT: usize = 256 << 10;

/// What regular files are read in when no device says otherwise; every device sector divides it.
const FILE_ALIGNMENT: u64 = 4096;

/// Whether reads go through the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    /// Past it on block devices, through it (leaving nothing behind) on regular files.
    Auto,
    /// Always through it.
    Cached,
}

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

/// A block device or regular file, opened for reading only.
#[derive(Debug)]
pub struct FileSource {
    disk: Disk,
    holes: Holes,
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
        let direct = (is_device && policy == CachePolicy::Auto)
            .then(|| sys::open_direct(path, sys::Access::Read).ok())
            .flatten();
        Ok(FileSource {
            disk: Disk::new(name, cached, direct, ErrorKind::Source)?,
            holes: Holes::default(),
        })
    }

    /// Whether it is a block device (and not a regular file).
    pub fn is_device(&self) -> bool {
        self.disk.is_device
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
        let result = match &disk.direct {
            Some(direct) => disk.read_direct(direct, offset.0, buf),
            None => read_full(buf, offset.0, |b, o| {
                let (n, left_behind) = sys::read_uncached(&disk.cached, b, o)?;
                if left_behind {
                    sys::drop_cached(&disk.cached, o, to_u64(n));
                }
                Ok(n)
            }),
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
        let past_the_cache = self.disk.direct.is_some();
        !past_the_cache && sys::is_cached(&self.disk.cached, extent.start.0, extent.len.0)
    }
}

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
        let zeros = AlignedBuf::zeroed(to_usize(extent.len.0.min(to_u64(BOUNCE))));
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
            worth_it && is_aligned(data, offset.0, disk.alignment)
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
        read_full(buf, offset.0, |b, o| disk.cached.read_at(b, o))
            .map_err(|e| self.fail("read back", offset.0, e))
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.disk.mapping(offset)
    }

    fn starts_zeroed(&self) -> bool {
        self.created
    }

    fn write_back(&self, extent: Extent) {
        sys::start_write_back(&self.disk.cached, extent.start.0, extent.len.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::contract;
    use std::io::Write;

    fn temp_with(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

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
    fn files_keep_the_contract() {
        for len in [20_001, 65_536] {
            let bytes = contract::pattern(len);
            let file = temp_with(&bytes);
            for policy in [CachePolicy::Auto, CachePolicy::Cached] {
                contract::check_source(
                    &FileSource::open(file.path(), "f", policy).unwrap(),
                    &bytes,
                );
            }
            contract::check_target(&target(&file, false), &bytes);
            let file = temp_with(&bytes);
            contract::check_target(&target(&file, true), &bytes);
        }
    }

    #[test]
    fn long_writes_go_past_the_page_cache() {
        let len = 3 * BOUNCE + 777;
        let file = temp_with(&vec![7; len]);
        let mut target = target(&file, true);
        let Some(direct) = &target.disk.direct else {
            eprintln!("SKIPPED: the file system of the temporary directory has no O_DIRECT");
            return;
        };
        let mut data = AlignedBuf::zeroed(BOUNCE);
        data.copy_from_slice(&contract::pattern(BOUNCE));
        let is_cached = || sys::is_cached(&target.disk.cached, 0, to_u64(BOUNCE));
        // File systems in memory keep all they have in the cache.
        sys::drop_cached(&target.disk.cached, 0, to_u64(len));
        sys::write_all_at(direct, &data, 0).unwrap();
        let in_memory = is_cached();
        target.write_at(ByteOffset(0), &data).unwrap();
        assert_eq!(is_cached(), in_memory);
        // Off the pages, of an odd length, and where the file system says that it cannot after all.
        target.write_at(ByteOffset(1 << 20), &data[1..]).unwrap();
        target.disk.alignment = 1;
        let odd = to_u64(2 * BOUNCE - 1);
        target.write_at(ByteOffset(odd), &data).unwrap();
        target.flush().unwrap();
        let mut expected = vec![7; len];
        expected[..BOUNCE].copy_from_slice(&data);
        expected[BOUNCE..2 * BOUNCE - 1].copy_from_slice(&data[1..]);
        expected[2 * BOUNCE - 1..3 * BOUNCE - 1].copy_from_slice(&data);
        assert!(std::fs::read(file.path()).unwrap() == expected);
    }

    #[test]
    fn direct_reads_of_a_file_reach_an_odd_end() {
        let bytes = contract::pattern(3 * BOUNCE + 777);
        let file = temp_with(&bytes);
        let Ok(direct) = sys::open_direct(file.path(), sys::Access::Read) else {
            eprintln!("SKIPPED: the file system of the temporary directory has no O_DIRECT");
            return;
        };
        let cached = File::open(file.path()).unwrap();
        let disk = Disk::new("f".into(), cached, Some(direct), ErrorKind::Source).unwrap();
        let holes = Holes::default();
        contract::check_source(&FileSource { disk, holes }, &bytes);
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
