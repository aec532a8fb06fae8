//! What a run takes: memory, and reads of a file.

use diskstrata::base::{KeySetId, RangeRead, Result};
use peak_alloc::PeakAlloc;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts what the whole process has allocated.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What a run may allocate at once, beside what it was given: 64 MiB.
const MOST_HEAP: usize = 64 << 20;

/// Does `what`, which may not take more memory at once than a run may.
pub(crate) fn within_memory<T>(name: &str, what: impl FnOnce() -> T) -> T {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let done = what();
    let most = HEAP.peak_usage().saturating_sub(before);
    assert!(most <= MOST_HEAP, "{name}: {most} bytes of memory");
    done
}

/// A file whose reads are counted.
#[derive(Debug)]
pub(crate) struct Metered {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl Metered {
    pub(crate) fn new(bytes: &[u8]) -> Metered {
        Metered {
            bytes: bytes.to_vec(),
            read: AtomicU64::new(0),
        }
    }

    /// Bytes read since it was asked last.
    pub(crate) fn take(&self) -> u64 {
        self.read.swap(0, Relaxed)
    }
}

impl RangeRead for Metered {
    fn name(&self) -> &str {
        "input"
    }

    fn len(&self) -> u64 {
        RangeRead::len(&self.bytes)
    }

    fn key_set(&self) -> Option<KeySetId> {
        None
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = u64::try_from(buf.len()).expect("lengths fit");
        self.read.fetch_add(len, Relaxed);
        self.bytes.read_at(offset, buf)
    }
}

/// A sink that is full after so many bytes; it keeps them, so they are not the run's memory's fault.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) kept: Vec<u8>,
    pub(crate) most: usize,
}

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.kept.len() + buf.len() > self.most {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.kept.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
