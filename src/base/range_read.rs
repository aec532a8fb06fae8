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
}

/// Bytes in memory.
impl RangeRead for Vec<u8> {
    fn name(&self) -> &str {
        "memory"
    }

    fn len(&self) -> u64 {
        super::to_u64(Vec::len(self))
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
