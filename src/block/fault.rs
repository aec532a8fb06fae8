//! Wrappers that fail on purpose, for tests of everything that reads or writes.

use super::{BlockSource, BlockTarget, Mapping, Zeroing};
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, to_u64};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Flush,
}

/// One planned failure.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    call: Call,
    errno: i32,
    place: Option<Extent>,
    /// Which matching calls fail, counted from 1.
    from: u64,
    until: u64,
}

impl Fault {
    /// Every read that touches `place` fails with `errno`.
    pub fn read_in(place: Extent, errno: i32) -> Fault {
        Fault {
            call: Call::Read,
            errno,
            place: Some(place),
            from: 1,
            until: u64::MAX,
        }
    }

    /// The `nth` read (from 1) fails with `errno`; later ones too when `lasting`.
    pub fn nth_read(nth: u64, errno: i32, lasting: bool) -> Fault {
        Fault::nth(Call::Read, nth, errno, lasting)
    }

    /// The `nth` write or zeroing (from 1) fails with `errno`; later ones too when `lasting`.
    pub fn nth_write(nth: u64, errno: i32, lasting: bool) -> Fault {
        Fault::nth(Call::Write, nth, errno, lasting)
    }

    /// The `nth` flush (from 1) fails with `errno`; later ones too when `lasting`.
    pub fn nth_flush(nth: u64, errno: i32, lasting: bool) -> Fault {
        Fault::nth(Call::Flush, nth, errno, lasting)
    }

    fn nth(call: Call, nth: u64, errno: i32, lasting: bool) -> Fault {
        let until = if lasting { u64::MAX } else { nth };
        Fault {
            call,
            errno,
            place: None,
            from: nth,
            until,
        }
    }
}

/// Planned failures and the count of calls so far; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Vec<(Fault, AtomicU64)>>);

impl Faults {
    /// These failures and no others.
    pub fn new(faults: Vec<Fault>) -> Faults {
        Faults(Arc::new(
            faults.into_iter().map(|f| (f, AtomicU64::new(0))).collect(),
        ))
    }

    fn check(
        &self,
        call: Call,
        place: Extent,
        kind: ErrorKind,
        what: &str,
        name: &str,
    ) -> Result<()> {
        for (fault, seen) in self.0.iter() {
            let here = fault.place.is_none_or(|p| p.intersect(place).is_some());
            if fault.call != call || !here {
                continue;
            }
            let nth = seen.fetch_add(1, Ordering::Relaxed) + 1;
            if (fault.from..=fault.until).contains(&nth) {
                return Err(
                    Error::new(kind, what, format!("{name} at byte {}", place.start))
                        .caused_by(std::io::Error::from_raw_os_error(fault.errno)),
                );
            }
        }
        Ok(())
    }
}

fn place(offset: ByteOffset, count: usize) -> Extent {
    Extent {
        start: offset,
        len: ByteLen(to_u64(count)),
    }
}

/// A source some of whose reads fail.
pub struct FaultSource {
    inner: Arc<dyn BlockSource>,
    faults: Faults,
}

impl FaultSource {
    /// `inner` with `faults`.
    pub fn new(inner: Arc<dyn BlockSource>, faults: Faults) -> FaultSource {
        FaultSource { inner, faults }
    }
}

impl BlockSource for FaultSource {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let place = place(offset, buf.len());
        self.faults
            .check(Call::Read, place, ErrorKind::Source, "read", self.name())?;
        self.inner.read_at(offset, buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.inner.mapping(offset)
    }

    fn is_cached(&self, extent: Extent) -> bool {
        self.inner.is_cached(extent)
    }
}

/// A target some of whose writes or flushes fail.
pub struct FaultTarget {
    inner: Arc<dyn BlockTarget>,
    faults: Faults,
}

impl FaultTarget {
    /// `inner` with `faults`.
    pub fn new(inner: Arc<dyn BlockTarget>, faults: Faults) -> FaultTarget {
        FaultTarget { inner, faults }
    }

    fn check(&self, call: Call, place: Extent, what: &str) -> Result<()> {
        self.faults
            .check(call, place, ErrorKind::Destination, what, self.inner.name())
    }
}

impl BlockTarget for FaultTarget {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        self.check(Call::Write, place(offset, data.len()), "write")?;
        self.inner.write_at(offset, data)
    }

    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        self.check(Call::Write, extent, "zero")?;
        self.inner.write_zeros(extent)
    }

    fn discard(&self, extent: Extent) -> Result<bool> {
        self.inner.discard(extent)
    }

    fn flush(&self) -> Result<()> {
        self.check(Call::Flush, Extent::default(), "flush")?;
        self.inner.flush()
    }

    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.check(Call::Read, place(offset, buf.len()), "read back")?;
        self.inner.read_back(offset, buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.inner.mapping(offset)
    }

    fn starts_zeroed(&self) -> bool {
        self.inner.starts_zeroed()
    }

    fn is_parallel(&self) -> bool {
        self.inner.is_parallel()
    }

    fn write_back(&self, extent: Extent) {
        self.inner.write_back(extent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{MemorySource, MemoryTarget, contract};
    use crate::sys::errno::EIO;

    #[test]
    fn without_faults_the_contract_holds() {
        let bytes = contract::pattern(20_001);
        let source = Arc::new(MemorySource::new("m", bytes.clone()));
        contract::check_source(&FaultSource::new(source, Faults::default()), &bytes);
        let target = Arc::new(MemoryTarget::new("m", bytes.clone()));
        contract::check_target(&FaultTarget::new(target, Faults::default()), &bytes);
    }

    #[test]
    fn the_nth_call_fails_once_or_for_good() {
        let target = Arc::new(MemoryTarget::new("m", vec![0; 100]));
        let write = |t: &FaultTarget| t.write_at(ByteOffset(0), &[1]).is_ok();
        let once = Faults::new(vec![Fault::nth_write(2, EIO, false)]);
        let once = FaultTarget::new(target.clone(), once);
        assert_eq!(
            [write(&once), write(&once), write(&once)],
            [true, false, true]
        );
        let lasting = Faults::new(vec![Fault::nth_write(2, EIO, true)]);
        let lasting = FaultTarget::new(target.clone(), lasting);
        assert_eq!(
            [write(&lasting), write(&lasting), write(&lasting)],
            [true, false, false]
        );
        let flush = Faults::new(vec![Fault::nth_flush(1, EIO, false)]);
        let error = FaultTarget::new(target, flush).flush().unwrap_err();
        assert_eq!(
            (error.kind(), error.os_error()),
            (ErrorKind::Destination, Some(EIO))
        );
    }
}
