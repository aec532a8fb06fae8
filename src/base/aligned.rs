//! Memory that transfers past the page cache (`O_DIRECT`, open(2)) accept.

use std::ops::{Deref, DerefMut};

/// Bytes whose first one lies on a page boundary.
#[derive(Debug, Default)]
pub struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// On a multiple of how many bytes it begins: a page, which is enough for every device in use.
    pub const ALIGNMENT: usize = 4096;

    /// `len` zeros.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let bytes = vec![0; len + Self::ALIGNMENT];
        let start = bytes.as_ptr().align_offset(Self::ALIGNMENT);
        AlignedBuf { bytes, start, len }
    }

    /// Makes it `len` bytes long. They are zeros, or what stood there at some time.
    pub fn set_len(&mut self, len: usize) {
        match self.start + len <= self.bytes.len() {
            true => self.len = len,
            false => *self = AlignedBuf::zeroed(len),
        }
    }
}

impl Clone for AlignedBuf {
    fn clone(&self) -> AlignedBuf {
        let mut copy = AlignedBuf::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_are_used_again() {
        let is_aligned = |buf: &AlignedBuf| {
            (buf.as_ptr() as usize).is_multiple_of(AlignedBuf::ALIGNMENT) || buf.is_empty()
        };
        let mut buf = AlignedBuf::default();
        for len in [0, 1, 4096, 1 << 20, 100, 1 << 20] {
            buf.set_len(len);
            assert_eq!(buf.len(), len);
            assert!(is_aligned(&buf) && is_aligned(&AlignedBuf::zeroed(len)));
        }
        let place = buf.as_ptr();
        buf[0] = 7;
        buf.set_len(9);
        assert_eq!(
            (buf.as_ptr(), &*buf.clone()),
            (place, &[7, 0, 0, 0, 0, 0, 0, 0, 0][..])
        );
        assert!(is_aligned(&buf.clone()));
    }
}
