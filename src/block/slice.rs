//! A part of a disk as a disk of its own: a partition, seen through its whole device.

use super::{BlockSource, BlockTarget, Mapping, Zeroing, check_extent, check_range, rest_of};
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, to_u64};
use std::sync::Arc;

/// `extent` of `inner` as a source.
pub struct SliceSource<'a> {
    name: String,
    inner: Arc<dyn BlockSource + 'a>,
    extent: Extent,
}

impl<'a> SliceSource<'a> {
    /// The part `extent` of `inner`, called `name` in messages.
    ///
    /// # Errors
    /// `Damaged` when the extent passes the end of `inner`: it came from a partition table that lies.
    pub fn new(
        name: impl Into<String>,
        inner: Arc<dyn BlockSource + 'a>,
        extent: Extent,
    ) -> Result<Self> {
        let name = name.into();
        check_inside(&name, inner.geometry().len, extent)?;
        Ok(SliceSource {
            name,
            inner,
            extent,
        })
    }

    fn outer(&self, offset: ByteOffset) -> ByteOffset {
        ByteOffset(self.extent.start.0.saturating_add(offset.0))
    }
}

impl BlockSource for SliceSource<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            len: self.extent.len,
            ..self.inner.geometry()
        }
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        check_range(&self.name, "read", self.extent.len, offset, buf.len())?;
        self.inner.read_at(self.outer(offset), buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let rest = rest_of(&self.name, self.extent.len, offset)?;
        Ok(self.inner.mapping(self.outer(offset))?.at_most(rest))
    }

    fn is_cached(&self, extent: Extent) -> bool {
        let start = self.outer(extent.start);
        self.inner.is_cached(Extent { start, ..extent })
    }

    fn look_at_cached(&self, extent: Extent, look: &mut dyn FnMut(&[u8])) -> bool {
        let is_inside = extent.end().0 <= self.extent.len.0;
        let start = self.outer(extent.start);
        is_inside && self.inner.look_at_cached(Extent { start, ..extent }, look)
    }
}

/// `extent` of `inner` as a target.
pub struct SliceTarget {
    name: String,
    inner: Arc<dyn BlockTarget>,
    extent: Extent,
}

impl SliceTarget {
    /// The part `extent` of `inner`, called `name` in messages.
    ///
    /// # Errors
    /// `Damaged` when the extent passes the end of `inner`.
    pub fn new(
        name: impl Into<String>,
        inner: Arc<dyn BlockTarget>,
        extent: Extent,
    ) -> Result<Self> {
        let name = name.into();
        check_inside(&name, inner.geometry().len, extent)?;
        Ok(SliceTarget {
            name,
            inner,
            extent,
        })
    }

    fn outer(&self, what: &str, extent: Extent) -> Result<Extent> {
        check_extent(&self.name, what, self.extent.len, extent)?;
        let start = ByteOffset(self.extent.start.0.saturating_add(extent.start.0));
        Ok(Extent {
            start,
            len: extent.len,
        })
    }

    fn outer_offset(&self, what: &str, offset: ByteOffset, count: usize) -> Result<ByteOffset> {
        check_range(&self.name, what, self.extent.len, offset, count)?;
        Ok(self
            .outer(
                what,
                Extent {
                    start: offset,
                    len: ByteLen(to_u64(count)),
                },
            )?
            .start)
    }
}

impl BlockTarget for SliceTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            len: self.extent.len,
            ..self.inner.geometry()
        }
    }

    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        self.inner
            .write_at(self.outer_offset("write", offset, data.len())?, data)
    }

    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        self.inner.write_zeros(self.outer("zero", extent)?)
    }

    fn discard(&self, extent: Extent) -> Result<bool> {
        self.inner.discard(self.outer("discard", extent)?)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.inner
            .read_back(self.outer_offset("read back", offset, buf.len())?, buf)
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let rest = rest_of(&self.name, self.extent.len, offset)?;
        let outer = ByteOffset(self.extent.start.0.saturating_add(offset.0));
        Ok(self.inner.mapping(outer)?.at_most(rest))
    }

    fn starts_zeroed(&self) -> bool {
        self.inner.starts_zeroed()
    }

    fn is_parallel(&self) -> bool {
        self.inner.is_parallel()
    }

    fn write_back(&self, extent: Extent) {
        if let Ok(extent) = self.outer("write back", extent) {
            self.inner.write_back(extent);
        }
    }
}

fn check_inside(name: &str, len: ByteLen, extent: Extent) -> Result<()> {
    if (Extent {
        start: ByteOffset(0),
        len,
    })
    .contains(extent)
    {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Damaged, "open", name)
        .because(format!(
            "it covers {extent}, past the end of its disk at {}",
            len.0
        ))
        .hint("the partition table and the disk disagree; image the whole disk instead"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{MemorySource, MemoryTarget, contract};

    fn middle() -> Extent {
        Extent {
            start: ByteOffset(777),
            len: ByteLen(12_345),
        }
    }

    #[test]
    fn slices_keep_the_contract() {
        let bytes = contract::pattern(20_001);
        let part = &bytes[777..777 + 12_345];
        let inner = Arc::new(MemorySource::new("m", bytes.clone()));
        contract::check_source(&SliceSource::new("s", inner, middle()).unwrap(), part);
        let inner = Arc::new(MemoryTarget::new("m", bytes.clone()));
        contract::check_target(
            &SliceTarget::new("s", inner.clone(), middle()).unwrap(),
            part,
        );
        let after = inner.snapshot();
        assert_eq!(
            after[..777],
            bytes[..777],
            "nothing before the slice was touched"
        );
        assert_eq!(
            after[777 + 12_345..],
            bytes[777 + 12_345..],
            "nothing behind it was touched"
        );
    }

    #[test]
    fn a_slice_past_the_end_is_refused() {
        let inner = Arc::new(MemorySource::new("m", vec![0; 1000]));
        let long = Extent {
            start: ByteOffset(500),
            len: ByteLen(501),
        };
        let error = SliceSource::new("s", inner, long).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
}
