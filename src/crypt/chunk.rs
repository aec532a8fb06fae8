//! The ciphertext of a file: chunks that are encrypted by themselves, in AES-256-GCM (NIST SP 800-38D).
//!
//! A chunk's nonce is its number and whether it is the last one. So a chunk that was moved, left out,
//! added or taken from another file is not authentic, and neither is a file that ends too early.

use super::earlier::Earlier;
use super::secret::Secret;
use crate::base::{Error, ErrorKind, Result, to_u64, to_usize};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::ops::Range;

/// Length of the tag behind every chunk, in bytes.
pub(super) const TAG_LEN: usize = 16;

/// What the chunks that one run writes are encrypted with.
pub(super) struct ChunkKey {
    key: LessSafeKey,
    /// Tells keys apart, for the tests' eye on nonces.
    #[cfg(test)]
    id: blake3::Hash,
    /// Plaintext bytes of every chunk but the last, which has as many or fewer.
    pub(super) len: usize,
}

/// A key for `secret`.
///
/// # Errors
/// `Internal`: never, as long as a secret has 32 bytes.
pub(super) fn aes(secret: &Secret) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, secret.bytes())
        .map(LessSafeKey::new)
        .map_err(|_| Error::new(ErrorKind::Internal, "make", "an AES key"))
}

/// The nonce of chunk `index`: the number in 8 bytes, little-endian, then 1 for the last chunk, else 0,
/// then zeros.
fn nonce(index: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    bytes[8] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

impl ChunkKey {
    /// The key of the file whose own key is `file_key`, for chunks of 2^`chunk_log2` bytes.
    ///
    /// # Errors
    /// As [`aes`].
    pub(super) fn new(file_key: &Secret, chunk_log2: u8) -> Result<ChunkKey> {
        let secret = Secret::derive("diskstrata encrypted data 1", &[file_key.bytes()]);
        Ok(ChunkKey {
            #[cfg(test)]
            id: blake3::hash(secret.bytes()),
            key: aes(&secret)?,
            len: 1 << chunk_log2,
        })
    }

    /// Bytes of a whole chunk in the file.
    pub(super) fn stored_len(&self) -> usize {
        self.len + TAG_LEN
    }

    /// Encrypts chunk `index`, which stands in `buf` from `start` to its end, and puts the tag behind it.
    ///
    /// # Errors
    /// `Internal`: never with chunks of the lengths that a head allows.
    pub(super) fn seal(
        &self,
        index: u64,
        last: bool,
        buf: &mut Vec<u8>,
        start: usize,
    ) -> Result<()> {
        #[cfg(test)]
        super::testing::check_nonce(self.id, index, last, &buf[start..]);
        let nonce = nonce(index, last);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut buf[start..])
            .map_err(|_| Error::new(ErrorKind::Internal, "encrypt", format!("chunk {index}")))?;
        buf.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts chunk `index` in place; `stored` ends with its tag. `None` when it is not authentic.
    pub(super) fn open<'a>(
        &self,
        index: u64,
        last: bool,
        stored: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let opened = self
            .key
            .open_in_place(nonce(index, last), Aad::empty(), stored);
        opened.ok().map(|plain| &*plain)
    }
}

/// What all chunks of a file are encrypted with.
pub(super) struct ChunkKeys {
    last: ChunkKey,
    /// Of runs before the last one, the oldest first: whichever has a chunk first counts.
    earlier: Vec<(Range<u64>, ChunkKey)>,
}

impl ChunkKeys {
    /// The keys of the file that was written with `file_key`, and with those of `earlier` runs.
    ///
    /// # Errors
    /// As [`aes`].
    pub(super) fn new(file_key: &Secret, earlier: &[Earlier], chunk_log2: u8) -> Result<ChunkKeys> {
        let key = |e: &Earlier| Ok((e.chunks.clone(), ChunkKey::new(&e.file_key, chunk_log2)?));
        Ok(ChunkKeys {
            last: ChunkKey::new(file_key, chunk_log2)?,
            earlier: earlier.iter().map(key).collect::<Result<_>>()?,
        })
    }

    /// Plaintext bytes of every chunk but the last.
    pub(super) fn chunk_len(&self) -> usize {
        self.last.len
    }

    /// Bytes of a whole chunk in the file.
    pub(super) fn stored_len(&self) -> usize {
        self.last.stored_len()
    }

    /// As [`ChunkKey::open`], with the key that chunk `index` has.
    pub(super) fn open<'a>(
        &self,
        index: u64,
        last: bool,
        stored: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let earlier = self.earlier.iter().find(|(c, _)| c.contains(&index));
        let key = earlier.map_or(&self.last, |(_, key)| key);
        key.open(index, last, stored)
    }
}

/// How the chunks of a file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Plaintext bytes of every chunk but the last.
    chunk: u64,
    /// Number of the last chunk.
    pub(super) last: u64,
    /// Plaintext bytes of all chunks.
    pub(super) plain: u64,
}

impl Shape {
    /// The shape of `stored` bytes of chunks with `chunk` bytes each; `None` when they cannot be that: even
    /// an empty file has one chunk.
    pub(super) fn of(stored: u64, chunk: usize) -> Option<Shape> {
        let (chunk, tag) = (to_u64(chunk), to_u64(TAG_LEN));
        let whole = chunk + tag;
        let chunks = stored.div_ceil(whole);
        let last_len = stored.checked_sub(chunks.checked_sub(1)? * whole)?;
        // Only an empty file has an empty chunk: everything has one form.
        let least = if chunks == 1 { tag } else { tag + 1 };
        (last_len >= least).then(|| Shape {
            chunk,
            last: chunks - 1,
            plain: stored - chunks * tag,
        })
    }

    /// The shape of the whole chunks of `chunk` bytes each in `stored` bytes; `None` without any.
    pub(super) fn of_whole(stored: u64, chunk: usize) -> Option<Shape> {
        let whole = to_u64(chunk + TAG_LEN);
        Shape::of(stored / whole * whole, chunk)
    }

    /// Where chunk `index` stands behind the head, and how many bytes it has there.
    pub(super) fn stored(&self, index: u64) -> (u64, usize) {
        let tag = to_u64(TAG_LEN);
        let plain = self.chunk.min(self.plain - index * self.chunk);
        (index * (self.chunk + tag), to_usize(plain + tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_one_shape() {
        for plain in 0..200u64 {
            let chunks = plain.div_ceil(16).max(1);
            let shape = Shape::of(plain + chunks * 16, 16).unwrap();
            assert_eq!((shape.plain, shape.last), (plain, chunks - 1));
            let (at, len) = shape.stored(shape.last);
            assert_eq!(at + to_u64(len), plain + chunks * 16, "{plain}");
        }
        assert_eq!(Shape::of(15, 16), None, "no room for a tag");
        assert_eq!(
            Shape::of(32 + 16, 16),
            None,
            "an empty chunk behind another"
        );
        assert_eq!(Shape::of(32 + 3, 16), None);
    }

    #[test]
    fn a_chunk_knows_its_place() {
        let secret = Secret::from_slice(&[7; 32]).unwrap();
        let key = ChunkKey::new(&secret, 12).unwrap();
        let mut stored = b"head".to_vec();
        stored.extend_from_slice(b"some bytes");
        key.seal(3, false, &mut stored, 4).unwrap();
        assert_eq!(stored.len(), 4 + 10 + TAG_LEN);
        let open = |index, last| {
            key.open(index, last, &mut stored.clone()[4..])
                .map(<[u8]>::to_vec)
        };
        assert_eq!(open(3, false).as_deref(), Some(b"some bytes".as_slice()));
        assert_eq!(open(4, false), None);
        assert_eq!(open(3, true), None, "it is not the last");
        let other = ChunkKey::new(&Secret::from_slice(&[8; 32]).unwrap(), 12).unwrap();
        assert_eq!(other.open(3, false, &mut stored[4..]), None);
    }
}
