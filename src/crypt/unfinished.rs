//! An encrypted file whose end was never written, and going on with it.

use super::chunk::ChunkKey;
use super::earlier::{MAX_EARLIER, kept_of};
use super::file::EncryptedFile;
use super::head::Head;
use super::key_set::KeySet;
use super::ring::{KeyRing, Opened};
use super::secret::{Random, Secret};
use super::writer::EncryptWriter;
use crate::base::{Error, ErrorKind, KeySetId, RangeRead, Result, past_end, to_u64, to_usize};
use std::io::{self, Write};
use std::sync::Arc;

/// The plain content of what is there of an encrypted file, as far as whole chunks reach. A chunk that is not
/// authentic, because it never came to the medium or because of an earlier run, cannot be read.
pub struct UnfinishedFile {
    file: EncryptedFile,
    head: Head,
    opened: Opened,
}

/// How a file goes on: what has to be written over, where it is cut, and what comes behind.
pub struct GoingOn {
    /// Bytes over which the file's first ones are written. They say how to read what is kept, so they have to be
    /// durable before the file is cut.
    pub start: Vec<u8>,
    /// Bytes of the file that stay, with those.
    pub len: u64,
    key: ChunkKey,
    index: u64,
    /// Content behind these that is to be written before anything else.
    again: Vec<u8>,
}

impl UnfinishedFile {
    /// Opens `inner`, which begins with `head`.
    ///
    /// # Errors
    /// As [`EncryptedFile::open`]; `Damaged` when no whole chunk is there.
    pub fn open(inner: Arc<dyn RangeRead>, head: Head, keys: &KeyRing) -> Result<UnfinishedFile> {
        let opened = keys.open(&head, inner.name())?;
        let file = EncryptedFile::open_unfinished(inner, &head, &opened)?;
        Ok(UnfinishedFile { file, head, opened })
    }

    /// The keys that open it.
    pub fn key_set(&self) -> &Arc<KeySet> {
        self.file.key_set()
    }

    /// Whether its head has room for one more run.
    pub fn can_go_on(&self) -> bool {
        self.opened.earlier.len() < MAX_EARLIER && self.head.has_room()
    }

    /// How the file goes on behind the first `at` bytes of its content, with `front` in place of as many bytes at the
    /// beginning, and `key_set` to open it. What this run writes gets a file key of its own, which `keys`
    /// remembers.
    ///
    /// # Errors
    /// `Damaged` when what is to be kept of a chunk cannot be read, or `at` or `front` pass the end; `Usage` when the
    /// head has no room.
    pub fn go_on(
        &self,
        at: u64,
        front: &[u8],
        key_set: &KeySet,
        keys: &KeyRing,
        random: Random,
    ) -> Result<GoingOn> {
        let log2 = self.head.chunk_log2;
        let chunk = 1 << log2;
        let (end, len) = (to_u64(front.len()), self.file.len());
        if end > at || at > len {
            return Err(past_end(self.name(), at, front.len(), len));
        }
        // The last chunk that stays is written again: if nothing comes behind, it is the one that ends the file.
        let (mut first, mut front_chunks) = (at.saturating_sub(1) / chunk, end.div_ceil(chunk));
        if front_chunks > first {
            // They meet: no chunk between them is kept.
            (first, front_chunks) = (0, 0);
        }
        let file_key = Secret::random(random)?;
        let kept = front_chunks..first;
        let earlier = kept_of(&self.opened.earlier, &self.opened.file_key, &kept);
        let Some(earlier) = earlier else {
            return Err(Error::new(ErrorKind::Usage, "go on with", self.name())
                .because("too many runs have gone on with it"));
        };
        let both = (&file_key, earlier.as_slice());
        let (head, mut start) = self.head.gone_on_with(both, key_set, random)?;
        let key = ChunkKey::new(&file_key, log2)?;
        for index in 0..front_chunks {
            let plain = self.with_front(index * chunk..(index + 1) * chunk, front)?;
            let from = start.len();
            start.extend_from_slice(&plain);
            key.seal(index, false, &mut start, from)?;
        }
        let again = self.with_front(first * chunk..at, front)?;
        keys.remember(&head, &file_key, key_set);
        Ok(GoingOn {
            start,
            len: to_u64(head.len()) + first * to_u64(key.stored_len()),
            key,
            index: first,
            again,
        })
    }

    /// A piece of the content, with `front` in place of its beginning.
    fn with_front(&self, range: std::ops::Range<u64>, front: &[u8]) -> Result<Vec<u8>> {
        let mut plain = vec![0; to_usize(range.end.saturating_sub(range.start))];
        self.file.read_at(range.start, &mut plain)?;
        let new = front.get(to_usize(range.start)..).unwrap_or_default();
        let count = new.len().min(plain.len());
        plain[..count].copy_from_slice(&new[..count]);
        Ok(plain)
    }
}

impl RangeRead for UnfinishedFile {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn key_set(&self) -> Option<KeySetId> {
        RangeRead::key_set(&self.file)
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buf)
    }
}

impl GoingOn {
    /// What takes the content behind what is kept. `sink` is the file, changed and cut as this says.
    ///
    /// # Errors
    /// As `sink`.
    pub fn writer<W: Write>(self, sink: W) -> io::Result<EncryptWriter<W>> {
        let mut writer = EncryptWriter::at(sink, self.key, self.index);
        writer.write_all(&self.again)?;
        Ok(writer)
    }
}
