//! An encrypted file as its plain content, read by range.

use super::chunk::{ChunkKeys, Shape};
use super::head::Head;
use super::key_set::KeySet;
use super::ring::{KeyRing, Opened};
use crate::base::{Error, ErrorKind, KeySetId, RangeRead, Result, past_end, to_u64, to_usize};
use std::cell::RefCell;
use std::sync::Arc;

/// Chunks that are read and decrypted at a time.
const BATCH: u64 = 8;

thread_local! {
    /// Ciphertext on its way: one buffer for each thread that reads.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The plain content of an encrypted file.
pub struct EncryptedFile {
    inner: Arc<dyn RangeRead>,
    keys: ChunkKeys,
    key_set: Arc<KeySet>,
    head_len: u64,
    shape: Shape,
    /// The number of the chunk with which the file ends; `None` when that was never written.
    ends_with: Option<u64>,
}

impl EncryptedFile {
    /// Opens `inner`, which begins with `head`. Whether it is whole shows when its end is read.
    ///
    /// # Errors
    /// `WrongKey`, `Damaged`, `Refused`, as [`KeyRing`] says.
    pub fn open(inner: Arc<dyn RangeRead>, head: &Head, keys: &KeyRing) -> Result<EncryptedFile> {
        let opened = keys.open(head, inner.name())?;
        let stored = inner.len().checked_sub(to_u64(head.len()));
        let shape = stored.and_then(|stored| Shape::of(stored, 1 << head.chunk_log2));
        let Some(shape) = shape else {
            return Err(cut_off(inner.name()));
        };
        EncryptedFile::with_shape(inner, head, &opened, shape)
    }

    /// Opens `inner`, which begins with `head`, for which `opened` are the keys, and whose end may never have been
    /// written. It is as long as whole chunks reach, or up to its end, if it has one.
    ///
    /// # Errors
    /// `Damaged` when not even one chunk is there.
    pub(super) fn open_unfinished(
        inner: Arc<dyn RangeRead>,
        head: &Head,
        opened: &Opened,
    ) -> Result<EncryptedFile> {
        let stored = inner.len().saturating_sub(to_u64(head.len()));
        let chunk = 1 << head.chunk_log2;
        if let Some(shape) = Shape::of(stored, chunk) {
            let whole = EncryptedFile::with_shape(Arc::clone(&inner), head, opened, shape)?;
            if whole.chunks(shape.last, shape.last, |_, _| ()).is_ok() {
                return Ok(whole);
            }
        }
        let Some(shape) = Shape::of_whole(stored, chunk) else {
            return Err(cut_off(inner.name()));
        };
        let mut file = EncryptedFile::with_shape(inner, head, opened, shape)?;
        let ends = file.chunks(shape.last, shape.last, |_, _| ()).is_ok();
        file.ends_with = ends.then_some(shape.last);
        Ok(file)
    }

    fn with_shape(
        inner: Arc<dyn RangeRead>,
        head: &Head,
        opened: &Opened,
        shape: Shape,
    ) -> Result<EncryptedFile> {
        Ok(EncryptedFile {
            inner,
            keys: ChunkKeys::new(&opened.file_key, &opened.earlier, head.chunk_log2)?,
            key_set: Arc::new(opened.key_set.clone()),
            head_len: to_u64(head.len()),
            shape,
            ends_with: Some(shape.last),
        })
    }

    /// The keys that open it.
    pub fn key_set(&self) -> &Arc<KeySet> {
        &self.key_set
    }

    /// Decrypts chunks `first` to `last` and gives each, with its number, to `take`.
    fn chunks(&self, first: u64, last: u64, mut take: impl FnMut(u64, &[u8])) -> Result<()> {
        let (start, _) = self.shape.stored(first);
        let (end, len) = self.shape.stored(last);
        STORED.with_borrow_mut(|stored| {
            let total = to_usize(end - start) + len;
            if stored.len() < total {
                stored.resize(total, 0);
            }
            let stored = &mut stored[..total];
            self.inner.read_at(self.head_len + start, stored)?;
            let whole = self.keys.stored_len();
            for (index, chunk) in (first..).zip(stored.chunks_mut(whole)) {
                let is_last = Some(index) == self.ends_with;
                match self.keys.open(index, is_last, chunk) {
                    Some(plain) => take(index, plain),
                    None => return Err(self.not_authentic(index)),
                }
            }
            Ok(())
        })
    }

    /// Where in the file that it is stored in the chunks with `len` bytes from `offset` on begin, and their length;
    /// as far as the content goes.
    fn stored(&self, offset: u64, len: u64) -> Option<(u64, u64)> {
        let end = offset.saturating_add(len).min(self.len());
        let last = end.checked_sub(1).filter(|last| offset <= *last)?;
        let chunk = to_u64(self.keys.chunk_len());
        let (start, _) = self.shape.stored(offset / chunk);
        let (last, last_len) = self.shape.stored(last / chunk);
        Some((self.head_len + start, last + to_u64(last_len) - start))
    }

    fn not_authentic(&self, index: u64) -> Error {
        let at = self.head_len + self.shape.stored(index).0;
        let subject = format!("{} at byte {at}", self.inner.name());
        Error::new(ErrorKind::Damaged, "decrypt", subject)
            .because("it was damaged, moved there or put there by somebody without the key")
    }
}

impl RangeRead for EncryptedFile {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn key_set(&self) -> Option<KeySetId> {
        Some(self.key_set.id())
    }

    fn len(&self) -> u64 {
        self.shape.plain
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(to_u64(buf.len()));
        let Some(end) = end.filter(|end| *end <= self.len()) else {
            return Err(past_end(self.name(), offset, buf.len(), self.len()));
        };
        if buf.is_empty() {
            return Ok(());
        }
        let chunk = to_u64(self.keys.chunk_len());
        let (mut first, last) = (offset / chunk, (end - 1) / chunk);
        while first <= last {
            let until = last.min(first + BATCH - 1);
            self.chunks(first, until, |index, plain| {
                let at = index * chunk;
                let from = to_usize(offset.saturating_sub(at));
                let to = plain.len().min(to_usize(end - at));
                let place = to_usize(at.max(offset) - offset);
                buf[place..place + to - from].copy_from_slice(&plain[from..to]);
            })?;
            first = until + 1;
        }
        Ok(())
    }

    fn will_need(&self, offset: u64, len: u64) {
        if let Some((start, len)) = self.stored(offset, len) {
            self.inner.will_need(start, len);
        }
    }

    fn is_cached(&self, offset: u64, len: u64) -> bool {
        let stored = self.stored(offset, len);
        stored.is_some_and(|(start, len)| self.inner.is_cached(start, len))
    }
}

fn cut_off(name: &str) -> Error {
    Error::new(ErrorKind::Damaged, "open", name)
        .because("it was cut off")
        .hint("copy it again if another copy exists")
}
