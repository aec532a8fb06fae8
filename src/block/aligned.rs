//! Memory that `O_DIRECT` accepts.

/// The alignment of every [`AlignedBuf`]: a page, which is enough for every device in use.
const ALIGNMENT: usize = 4096;

/// Bytes whose first one lies on a page boundary.
#[derive(Debug)]
pub struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let bytes = vec![0; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        AlignedBuf { bytes, start, len }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Whether a direct transfer of `buf` at `offset` is allowed on a medium with `sector` bytes.
pub(super) fn is_aligned(buf: &[u8], offset: u64, sector: u64) -> bool {
    (buf.as_ptr() as usize).is_multiple_of(ALIGNMENT)
        && offset.is_multiple_of(sector)
        && crate::base::to_u64(buf.len()).is_multiple_of(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        for len in [0, 1, 4096, 1 << 20] {
            let buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.len(), len);
            assert!(is_aligned(&buf[..len / 512 * 512], 0, 512));
        }
    }
}
