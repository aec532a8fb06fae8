//! Reading a file by range, wherever it lives: what an image reader needs and a store provides.

use super::{KeySetId, Result};

/// Bytes of known length that can be read at any position from any thread.
///
/// # Contract
/// - `len` never changes while the value lives.
/// - `read_at` fills `buf` whole or fails; a range past `len` is an error of kind `Damaged`
///   (the file is shorter than its own numbers say), never a short read.
/// - Failures of the medium are of kind `Damaged` too when they concern an image: the bytes are
///   not to be had. The message names file and offset.
pub trait RangeRead: Send + Sync {
    /// What to call it in messages: a path or a name.
    fn name(&self) -> &str;

    /// Number of bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key set that its content is encrypted and authenticated with; `None` when anybody could have
    /// written it.
    fn key_set(&self) -> Option<KeySetId> {
        None
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// See the contract.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Says that `len` bytes from `offset` on will be read soon, so that a medium far away can begin to bring
    /// them. A hint: nothing fails, and a range past the end does not matter.
    fn will_need(&self, _offset: u64, _len: u64) {}

    /// Whether `len` bytes from `offset` on are in memory, so that to read them ahead, several ranges at once, has no
    /// use. `false` where nobody knows; a range past the end may be anything.
    fn is_cached(&self, _offset: u64, _len: u64) -> bool {
        false
    }
}

/// Bytes in memory.
impl RangeRead for Vec<u8> {
    fn name(&self) -> &str {
        "memory"
    }

    fn len(&self) -> u64 {
        super::to_u64(Vec::len(self))
    }

    fn is_cached(&self, _offset: u64, _len: u64) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?));
        match bytes {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(past_end(
                RangeRead::name(self),
                offset,
                buf.len(),
                RangeRead::len(self),
            )),
        }
    }
}

/// The error for a range that passes the end of a file of `len` bytes.
pub fn past_end(name: &str, offset: u64, wanted: usize, len: u64) -> super::Error {
    super::Error::new(
        super::ErrorKind::Damaged,
        "read",
        format!("{name} at byte {offset}"),
    )
    .because(format!(
        "{wanted} bytes are expected there, but the file has only {len}"
    ))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{RangeRead, Result};
    use std::ops::Range;
    use std::sync::{Mutex, PoisonError};

    /// Bytes that remember what they were told of before it was read.
    #[derive(Default)]
    pub(crate) struct Announced {
        bytes: Vec<u8>,
        log: Mutex<Log>,
    }

    #[derive(Default)]
    struct Log {
        announced: Vec<Range<u64>>,
        /// What was read, and whether it had been announced as a whole.
        read: Vec<(Range<u64>, bool)>,
    }

    impl Announced {
        pub(crate) fn new(bytes: Vec<u8>) -> Announced {
            Announced {
                bytes,
                log: Mutex::default(),
            }
        }

        /// What was read since the last time, and whether it had been announced; announcements are forgotten.
        pub(crate) fn take(&self) -> Vec<(Range<u64>, bool)> {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *log).read
        }
    }

    fn range(offset: u64, len: u64) -> Range<u64> {
        offset..offset.saturating_add(len)
    }

    impl RangeRead for Announced {
        fn name(&self) -> &str {
            "announced"
        }

        fn len(&self) -> u64 {
            RangeRead::len(&self.bytes)
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            let read = range(offset, crate::base::to_u64(buf.len()));
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let mut before = log.announced.iter();
            let known = before.any(|a| a.start <= read.start && read.end <= a.end);
            log.read.push((read, known));
            drop(log);
            self.bytes.read_at(offset, buf)
        }

        fn will_need(&self, offset: u64, len: u64) {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.announced.push(range(offset, len));
        }
    }
}
