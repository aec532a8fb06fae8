//! Wrappers that remember what was asked of them, for tests about order, count and power cuts.

use super::{BlockSource, BlockTarget, Mapping, Zeroing};
use crate::base::{ByteLen, ByteOffset, Extent, Geometry, Result, to_u64, to_usize};
use std::sync::{Arc, Mutex, PoisonError};

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A read of this range.
    Read(Extent),
    /// These bytes were written here.
    Write(ByteOffset, Vec<u8>),
    /// This range was zeroed.
    Zero(Extent),
    /// This range was discarded.
    Discard(Extent),
    /// A flush.
    Flush,
}

impl Op {
    /// Does to `disk` what the call did; a discard leaves the worst: the old bytes.
    pub fn apply(&self, disk: &mut [u8]) {
        match self {
            Op::Write(offset, data) => {
                let at = to_usize(offset.0);
                disk[at..at + data.len()].copy_from_slice(data);
            }
            Op::Zero(extent) => {
                disk[to_usize(extent.start.0)..to_usize(extent.end().0)].fill(0);
            }
            Op::Read(_) | Op::Discard(_) | Op::Flush => {}
        }
    }
}

/// The calls so far; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Recorded(Arc<Mutex<Vec<Op>>>);

impl Recorded {
    /// A copy of all calls, oldest first.
    pub fn ops(&self) -> Vec<Op> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn push(&self, op: Op) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(op);
    }
}

/// A source that remembers its reads.
pub struct RecordSource {
    inner: Arc<dyn BlockSource>,
    log: Recorded,
}

impl RecordSource {
    /// `inner`, recorded into `log`.
    pub fn new(inner: Arc<dyn BlockSource>, log: Recorded) -> RecordSource {
        RecordSource { inner, log }
    }
}

impl BlockSource for RecordSource {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.log.push(Op::Read(Extent {
            start: offset,
            len: ByteLen(to_u64(buf.len())),
        }));
        self.inner.read_at(offset, buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        self.inner.mapping(offset)
    }

    fn is_cached(&self, extent: Extent) -> bool {
        self.inner.is_cached(extent)
    }
}

/// A target that remembers what was done to it. An operation is logged when it has succeeded.
pub struct RecordTarget {
    inner: Arc<dyn BlockTarget>,
    log: Recorded,
}

impl RecordTarget {
    /// `inner`, recorded into `log`.
    pub fn new(inner: Arc<dyn BlockTarget>, log: Recorded) -> RecordTarget {
        RecordTarget { inner, log }
    }
}

impl BlockTarget for RecordTarget {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        self.inner.write_at(offset, data)?;
        self.log.push(Op::Write(offset, data.to_vec()));
        Ok(())
    }

    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        let how = self.inner.write_zeros(extent)?;
        self.log.push(Op::Zero(extent));
        Ok(how)
    }

    fn discard(&self, extent: Extent) -> Result<bool> {
        let done = self.inner.discard(extent)?;
        self.log.push(Op::Discard(extent));
        Ok(done)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()?;
        self.log.push(Op::Flush);
        Ok(())
    }

    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.inner.read_back(offset, buf)?;
        self.log.push(Op::Read(Extent {
            start: offset,
            len: ByteLen(to_u64(buf.len())),
        }));
        Ok(())
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

    #[test]
    fn recording_keeps_the_contract_and_replays() {
        let bytes = contract::pattern(20_001);
        let source = Arc::new(MemorySource::new("m", bytes.clone()));
        contract::check_source(&RecordSource::new(source, Recorded::default()), &bytes);
        let log = Recorded::default();
        let inner = Arc::new(MemoryTarget::new("m", bytes.clone()));
        contract::check_target(&RecordTarget::new(inner.clone(), log.clone()), &bytes);
        let mut replayed = bytes;
        for op in log.ops() {
            op.apply(&mut replayed);
        }
        assert_eq!(replayed, inner.snapshot());
    }
}
