//! Memory that transfers past the page cache (`O_DIRECT`, open(2)) accept.

use bytes::{Buf, BytesMut};
use std::ops::{Deref, DerefMut};

/// Bytes whose first one lies on a page boundary.
#[derive(Debug, Default)]
pub struct AlignedBuf {
    /// From the page boundary to the end of what there is room for.
    bytes: BytesMut,
    len: usize,
}

impl AlignedBuf {
    /// On a multiple of how many bytes it begins: a page, which is enough for every device in use.
    pub const ALIGNMENT: usize = 4096;

    /// The size of a huge page where pages have 4096 bytes, which is what x86-64 and most others have.
    pub const HUGE_PAGE: usize = 2 << 20;

    /// `len` zeros, which begin on a huge page if they are as long as one.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let alignment = match len >= Self::HUGE_PAGE {
            true => Self::HUGE_PAGE,
            false => Self::ALIGNMENT,
        };
        let mut bytes = BytesMut::zeroed(len + alignment);
        bytes.advance(bytes.as_ptr().align_offset(alignment));
        bytes.truncate(len);
        AlignedBuf { bytes, len }
    }

    /// Makes it `len` bytes long. They are zeros, or what stood there at some time.
    pub fn set_len(&mut self, len: usize) {
        match len <= self.bytes.len() {
            true => self.len = len,
            false => *self = AlignedBuf::zeroed(len),
        }
    }

    /// Buffers of `len` bytes, each with room for whole pages, that share its memory: as many as fit in, or itself.
    pub fn split(self, len: usize) -> Vec<AlignedBuf> {
        let room = len.next_multiple_of(Self::ALIGNMENT);
        if room == 0 || self.bytes.len() < room {
            return vec![self];
        }
        let mut rest = self.bytes;
        let count = rest.len() / room;
        let each = (0..count).map(|_| AlignedBuf {
            bytes: rest.split_to(room),
            len,
        });
        each.collect()
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
        &self.bytes[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
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

    #[test]
    fn parts_of_a_buffer_lie_apart_and_keep_their_room() {
        let whole = AlignedBuf::zeroed(AlignedBuf::HUGE_PAGE + 5);
        let start = whole.as_ptr() as usize;
        assert!(start.is_multiple_of(AlignedBuf::HUGE_PAGE));
        let len = AlignedBuf::HUGE_PAGE / 4 - 100;
        let mut parts = whole.split(len);
        let places = [0, 1, 2, 3].map(|i| start + i * AlignedBuf::HUGE_PAGE / 4);
        assert!(parts.iter().map(|p| p.as_ptr() as usize).eq(places));
        for (value, part) in (1..).zip(&mut parts) {
            part.fill(value);
            part.set_len(9);
        }
        for (value, part) in (1..).zip(&mut parts) {
            part.set_len(len);
            assert!(part.iter().all(|byte| *byte == value));
        }
        assert_eq!(AlignedBuf::zeroed(100).split(200)[0].len(), 100);
        assert_eq!(AlignedBuf::zeroed(100).split(0).len(), 1);
    }
}
