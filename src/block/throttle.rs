//! Disks that are read and written no faster than a person allows.

use super::{BlockSource, BlockTarget, Mapping, Zeroing};
use crate::base::{ByteOffset, Extent, Geometry, Rates, Result};
use std::sync::Arc;

/// A source whose reads wait for their turn.
pub struct ThrottledSource {
    inner: Arc<dyn BlockSource>,
    rates: Rates,
}

impl ThrottledSource {
    /// `inner` at `rates`.
    pub fn new(inner: Arc<dyn BlockSource>, rates: Rates) -> ThrottledSource {
        ThrottledSource { inner, rates }
    }
}

impl BlockSource for ThrottledSource {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.rates.read(buf.len())?;
        self.inner.read_at(offset, buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.inner.mapping(offset)
    }

    fn is_cached(&self, extent: Extent) -> bool {
        self.inner.is_cached(extent)
    }
}

/// A target whose writes, and reads of what was written, wait for their turn. Zeroing and discarding move no
/// bytes.
pub struct ThrottledTarget {
    inner: Arc<dyn BlockTarget>,
    rates: Rates,
}

impl ThrottledTarget {
    /// `inner` at `rates`.
    pub fn new(inner: Arc<dyn BlockTarget>, rates: Rates) -> ThrottledTarget {
        ThrottledTarget { inner, rates }
    }
}

impl BlockTarget for ThrottledTarget {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        self.rates.write(data.len())?;
        self.inner.write_at(offset, data)
    }

    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        self.inner.write_zeros(extent)
    }

    fn discard(&self, extent: Extent) -> Result<bool> {
        self.inner.discard(extent)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.rates.read(buf.len())?;
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
    use super::super::{MemorySource, MemoryTarget, contract};
    use super::*;
    use crate::base::{Error, ErrorKind, Throttle};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts what passes, up to a limit.
    struct Counted(AtomicU64, u64);

    impl Throttle for Counted {
        fn pass(&self, bytes: u64) -> Result<()> {
            let before = self.0.fetch_add(bytes, Ordering::Relaxed);
            if before + bytes > self.1 {
                return Err(Error::new(ErrorKind::Interrupted, "go on", "a test"));
            }
            Ok(())
        }
    }

    fn counted(reads: u64, writes: u64) -> (Rates, [Arc<Counted>; 2]) {
        let counted = [reads, writes].map(|most| Arc::new(Counted(AtomicU64::new(0), most)));
        let [reads, writes] = counted.clone().map(|c| Some(c as Arc<dyn Throttle>));
        (Rates { reads, writes }, counted)
    }

    #[test]
    fn throttled_disks_keep_the_contract() {
        let (rates, _) = counted(u64::MAX, u64::MAX);
        let bytes = contract::pattern(20_001);
        let source = Arc::new(MemorySource::new("m", bytes.clone()));
        contract::check_source(&ThrottledSource::new(source, rates.clone()), &bytes);
        let target = Arc::new(MemoryTarget::new("m", bytes.clone()));
        contract::check_target(&ThrottledTarget::new(target, rates), &bytes);
    }

    #[test]
    fn every_byte_is_counted_before_it_moves() {
        let source = Arc::new(MemorySource::new("m", vec![1; 100]));
        let (rates, [reads, _]) = counted(150, 0);
        let throttled = ThrottledSource::new(source, rates);
        throttled.read_at(ByteOffset(0), &mut [0; 100]).unwrap();
        let error = throttled.read_at(ByteOffset(0), &mut [0; 51]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert_eq!(reads.0.load(Ordering::Relaxed), 151);

        let memory = Arc::new(MemoryTarget::new("m", vec![0; 100]));
        let target = ThrottledTarget::new(memory, counted(10, 20).0);
        target.write_at(ByteOffset(0), &[7; 20]).unwrap();
        target.write_at(ByteOffset(20), &[8; 1]).unwrap_err();
        let mut back = [0; 10];
        target.read_back(ByteOffset(15), &mut back).unwrap();
        assert_eq!(back, [7, 7, 7, 7, 7, 0, 0, 0, 0, 0]);
        target.read_back(ByteOffset(0), &mut [0; 1]).unwrap_err();
    }
}
