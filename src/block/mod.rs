//! Where are bytes read from and written to? Disks, partitions, files and memory as one thing.
//!
//! Promises: a source has no method that writes; reads and writes are whole or fail; lengths are
//! asked once and in one place. Must not know: partition tables, file systems, images, policy about
//! what may be overwritten (`device::guard` decides that; a target here is simply writable).
//!
//! Every implementation and wrapper passes the suite in `contract.rs`.

mod capsule;
#[cfg(test)]
pub(crate) mod contract;
mod fault;
mod file;
mod holes;
mod mapfile;
mod memory;
mod record;
mod rescue;
mod slice;
mod throttle;

pub use capsule::Capsule;
pub use fault::{Fault, FaultSource, FaultTarget, Faults};
pub use file::{CachePolicy, FileSource, FileTarget, TargetOptions};
pub use mapfile::{MAX_MAP_LEN, RescueMap};
pub use memory::{MemorySource, MemoryTarget};
pub use record::{Op, RecordSource, RecordTarget, Recorded};
pub use rescue::{Clock, Effort, Missing, Rescue, UNREADABLE_PATTERN, fill_unreadable};
pub use slice::{SliceSource, SliceTarget};
pub use throttle::{ThrottledSource, ThrottledTarget};

use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result};

/// The answer to "what lies here, and for how long?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Bytes that must be read to be known, at least this many.
    Data(ByteLen),
    /// Bytes that are surely zero without being read, at least this many.
    Zero(ByteLen),
}

impl Mapping {
    /// The same answer, for no more than `len` bytes.
    #[must_use]
    pub fn at_most(self, len: ByteLen) -> Mapping {
        match self {
            Mapping::Data(own) => Mapping::Data(own.min(len)),
            Mapping::Zero(own) => Mapping::Zero(own.min(len)),
        }
    }
}

/// A disk, partition or file that can be read.
///
/// # Contract
/// - `geometry` never changes while the value lives.
/// - `read_at` fills the whole buffer from any offset, aligned or not, or fails; a range past the
///   end is an error of kind `Internal` (the caller knows the length). Failures of the medium are
///   of kind `Source` and name source and offset. There are no short reads.
/// - Reads come from any number of threads at once.
/// - `mapping` may call zeros data, never data zeros. The length is at least 1 and never passes
///   the end. Asking at or past the end is an error.
pub trait BlockSource: Send + Sync {
    /// What to call it in messages: a path, a model and serial.
    fn name(&self) -> &str;

    /// Size and sectors.
    fn geometry(&self) -> Geometry;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// See the contract.
    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()>;

    /// What lies at `offset`. By default data up to the end.
    ///
    /// # Errors
    /// When `offset` is not inside, or the medium fails.
    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let len = rest_of(self.name(), self.geometry().len, offset)?;
        Ok(Mapping::Data(len))
    }

    /// Whether reading `extent` only copies memory, as far as that can be told cheaply. By default not.
    fn is_cached(&self, _extent: Extent) -> bool {
        false
    }

    /// Shows `look` the bytes of `extent` where they are in memory, without copying them; others may change them
    /// meanwhile. `false` where that cannot be, and then what `look` may have seen counts for nothing. By default so.
    fn look_at_cached(&self, _extent: Extent, _look: &mut dyn FnMut(&[u8])) -> bool {
        false
    }

    /// Length in bytes.
    fn len(&self) -> ByteLen {
        self.geometry().len
    }

    /// Whether there is not a single byte.
    fn is_empty(&self) -> bool {
        self.len().0 == 0
    }
}

/// Whoever has borrowed a source has one.
impl<S: BlockSource + ?Sized> BlockSource for &S {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        (**self).mapping(offset)
    }

    fn is_cached(&self, extent: Extent) -> bool {
        (**self).is_cached(extent)
    }

    fn look_at_cached(&self, extent: Extent, look: &mut dyn FnMut(&[u8])) -> bool {
        (**self).look_at_cached(extent, look)
    }
}

/// How a target makes a range read as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroing {
    /// The medium was told to (hole punched, BLKZEROOUT).
    Native,
    /// Zeros were written.
    Emulated,
}

/// A disk, partition or file that may be written. Whoever holds one has been through the guard.
///
/// # Contract
/// - `write_at` writes the whole buffer at any offset or fails; past the end is `Internal`.
///   Failures of the medium are of kind `Destination` and name target and offset.
/// - After `write_zeros` the range reads as zeros.
/// - `discard` tells the medium that nobody needs the content; what is read there afterwards is
///   undefined. `false` when the medium cannot; that is no error.
/// - Nothing is durable before `flush` has returned `Ok`. A failed `flush` is final: what was
///   written since the last good one is lost or not, and flushing again proves nothing.
/// - `read_back` returns what a reader after a power cut would see, as far as the system can tell:
///   after `flush` it comes from the medium, not from the page cache.
/// - Calls come from any number of threads, never on overlapping ranges at once.
pub trait BlockTarget: Send + Sync {
    /// What to call it in messages.
    fn name(&self) -> &str;

    /// Size and sectors.
    fn geometry(&self) -> Geometry;

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// See the contract.
    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()>;

    /// Makes `extent` read as zeros.
    ///
    /// # Errors
    /// `Destination` when the medium fails, `Internal` past the end.
    fn write_zeros(&self, extent: Extent) -> Result<Zeroing>;

    /// Tells the medium that `extent` is free. `false`: the medium does not know discards.
    ///
    /// # Errors
    /// `Destination` when the medium fails, `Internal` past the end.
    fn discard(&self, extent: Extent) -> Result<bool>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// `Destination`; final, see the contract.
    fn flush(&self) -> Result<()>;

    /// Fills `buf` from the medium.
    ///
    /// # Errors
    /// `Destination` when the medium fails, `Internal` past the end.
    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()>;

    /// What lies at `offset`, with the promises of [`BlockSource::mapping`]; true of what was
    /// written before the last `flush`. By default data up to the end.
    ///
    /// # Errors
    /// When `offset` is not inside, or the medium fails.
    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let len = rest_of(self.name(), self.geometry().len, offset)?;
        Ok(Mapping::Data(len))
    }

    /// Whether every byte not yet written is known to be zero (a file just created).
    fn starts_zeroed(&self) -> bool {
        false
    }

    /// Whether several writes at once take less time than one after the other.
    fn is_parallel(&self) -> bool {
        false
    }

    /// Starts writing `extent` to the medium early, so that the last flush is short.
    fn write_back(&self, _extent: Extent) {}
}

/// The bytes from `offset` to the end of something `len` long.
fn rest_of(name: &str, len: ByteLen, offset: ByteOffset) -> Result<ByteLen> {
    let rest = ByteOffset(len.0)
        .checked_since(offset)
        .filter(|rest| rest.0 > 0);
    rest.ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            "look at",
            format!("{name} at byte {offset}"),
        )
        .because(format!("it is only {} bytes long", len.0))
    })
}

/// Fails unless `[offset, offset + count)` lies inside something `len` long.
fn check_range(
    name: &str,
    what: &str,
    len: ByteLen,
    offset: ByteOffset,
    count: usize,
) -> Result<()> {
    let end = offset.checked_add(ByteLen(crate::base::to_u64(count)));
    match end {
        Some(end) if end.0 <= len.0 => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Internal,
            what,
            format!("{name} at byte {offset}"),
        )
        .because(format!("{count} bytes there pass its end at {}", len.0))),
    }
}

/// [`check_range`] for an extent.
fn check_extent(name: &str, what: &str, len: ByteLen, extent: Extent) -> Result<()> {
    let whole = Extent {
        start: ByteOffset(0),
        len,
    };
    if whole.contains(extent) {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Internal, what, format!("{name}, {extent}"))
            .because(format!("that passes its end at {}", len.0)),
    )
}
