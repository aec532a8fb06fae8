//! A disk in memory.

use super::{BlockSource, BlockTarget, Zeroing, check_extent, check_range};
use crate::base::{ByteLen, ByteOffset, Extent, Geometry, Result, to_u64, to_usize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Fixed bytes as a source.
#[derive(Debug, Clone)]
pub struct MemorySource {
    name: String,
    bytes: Arc<Vec<u8>>,
    geometry: Geometry,
}

impl MemorySource {
    /// A source of `bytes` with 512-byte sectors.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> MemorySource {
        let geometry = Geometry::of_len(ByteLen(to_u64(bytes.len())));
        MemorySource {
            name: name.into(),
            bytes: Arc::new(bytes),
            geometry,
        }
    }

    /// The same bytes with other sectors.
    #[must_use]
    pub fn with_geometry(mut self, geometry: Geometry) -> MemorySource {
        self.geometry = Geometry {
            len: self.geometry.len,
            ..geometry
        };
        self
    }
}

impl BlockSource for MemorySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        check_range(&self.name, "read", self.geometry.len, offset, buf.len())?;
        let start = to_usize(offset.0);
        buf.copy_from_slice(&self.bytes[start..start + buf.len()]);
        Ok(())
    }

    fn is_cached(&self, _extent: Extent) -> bool {
        true
    }

    fn look_at_cached(&self, extent: Extent, look: &mut dyn FnMut(&[u8])) -> bool {
        let range = to_usize(extent.start.0)..to_usize(extent.end().0);
        self.bytes.get(range).is_some_and(|bytes| {
            look(bytes);
            true
        })
    }
}

/// Bytes in memory as a target.
#[derive(Debug, Clone)]
pub struct MemoryTarget {
    name: String,
    bytes: Arc<Mutex<Vec<u8>>>,
    geometry: Geometry,
}

impl MemoryTarget {
    /// A target that holds `bytes` now.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> MemoryTarget {
        let geometry = Geometry::of_len(ByteLen(to_u64(bytes.len())));
        MemoryTarget {
            name: name.into(),
            bytes: Arc::new(Mutex::new(bytes)),
            geometry,
        }
    }

    /// A copy of what it holds.
    pub fn snapshot(&self) -> Vec<u8> {
        self.lock().clone()
    }

    /// A poisoned lock only means that another test thread panicked; the bytes are still bytes.
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockTarget for MemoryTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        check_range(&self.name, "write", self.geometry.len, offset, data.len())?;
        let start = to_usize(offset.0);
        self.lock()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        check_extent(&self.name, "zero", self.geometry.len, extent)?;
        self.lock()[to_usize(extent.start.0)..to_usize(extent.end().0)].fill(0);
        Ok(Zeroing::Native)
    }

    fn discard(&self, extent: Extent) -> Result<bool> {
        check_extent(&self.name, "discard", self.geometry.len, extent)?;
        Ok(false)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        check_range(
            &self.name,
            "read back",
            self.geometry.len,
            offset,
            buf.len(),
        )?;
        let start = to_usize(offset.0);
        buf.copy_from_slice(&self.lock()[start..start + buf.len()]);
        Ok(())
    }

    fn is_parallel(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::contract;

    #[test]
    fn memory_keeps_the_contract() {
        let bytes = contract::pattern(20_001);
        contract::check_source(&MemorySource::new("m", bytes.clone()), &bytes);
        contract::check_target(&MemoryTarget::new("m", bytes.clone()), &bytes);
    }
}
