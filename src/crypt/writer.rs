//! A sink that encrypts what goes into it.

use super::chunk::{ChunkKey, TAG_LEN};
use super::head::{CHUNK_LOG2, Head};
use super::key_set::KeySet;
use super::ring::KeyRing;
use super::secret::{Random, Secret};
use crate::base::{Error, Result};
use std::io::{self, Write};

/// So many encrypted bytes are written in one go.
const BATCH: usize = 1 << 20;

/// Writes an encrypted file into `sink`, front to back. The head goes in at once; the last chunk, without
/// which nobody takes the file for whole, only in [`EncryptWriter::finish`].
pub struct EncryptWriter<W> {
    sink: W,
    key: ChunkKey,
    /// Encrypted chunks, and behind them the plain beginning of the next one.
    buffer: Vec<u8>,
    /// Where in `buffer` that begins.
    open: usize,
    index: u64,
    failed: bool,
}

impl<W: Write> EncryptWriter<W> {
    /// Begins a file that the keys of `key_set` open, with a key of its own, which `keys` remembers.
    ///
    /// # Errors
    /// As [`Head`] and `sink`.
    pub fn new(
        mut sink: W,
        key_set: &KeySet,
        keys: &KeyRing,
        random: Random,
    ) -> Result<io::Result<EncryptWriter<W>>> {
        let file_key = Secret::random(random)?;
        let (head, bytes) = Head::create(&file_key, key_set, random)?;
        keys.remember(&head, &file_key, key_set);
        let key = ChunkKey::new(&file_key, CHUNK_LOG2)?;
        let begun = sink.write_all(&bytes);
        Ok(begun.map(|()| EncryptWriter::at(sink, key, 0)))
    }

    /// Goes on behind the chunks before `index`, which are in `sink`, with a `key` that has encrypted no other chunk
    /// from there on.
    pub(super) fn at(sink: W, key: ChunkKey, index: u64) -> EncryptWriter<W> {
        EncryptWriter {
            sink,
            buffer: Vec::with_capacity(BATCH + 2 * key.stored_len()),
            key,
            open: 0,
            index,
            failed: false,
        }
    }

    /// Encrypts the open chunk.
    fn seal(&mut self, last: bool) -> Result<(), Error> {
        self.key
            .seal(self.index, last, &mut self.buffer, self.open)?;
        self.index += 1;
        self.open = self.buffer.len();
        Ok(())
    }

    /// Hands all encrypted chunks on.
    fn drain(&mut self) -> io::Result<()> {
        let written = self.sink.write_all(&self.buffer[..self.open]);
        if let Err(e) = written {
            // How much went in is not known: going on would leave a hole.
            self.failed = true;
            return Err(e);
        }
        self.buffer.drain(..self.open);
        self.open = 0;
        Ok(())
    }

    /// Encrypts and writes the last chunk, and hands the sink back.
    ///
    /// # Errors
    /// As `sink`.
    pub fn finish(mut self) -> io::Result<W> {
        self.check()?;
        self.seal(true).map_err(io::Error::other)?;
        self.drain()?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    /// Ends without the last chunk.
    pub fn into_inner(self) -> W {
        self.sink
    }

    fn check(&self) -> io::Result<()> {
        match self.failed {
            true => Err(io::Error::other("an earlier write to it failed")),
            false => Ok(()),
        }
    }
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.check()?;
        if buf.is_empty() {
            return Ok(0);
        }
        // A full chunk is encrypted when something follows it: the last one is another.
        if self.buffer.len() - self.open == self.key.len {
            self.seal(false).map_err(io::Error::other)?;
            if self.open >= BATCH - self.key.len - TAG_LEN {
                self.drain()?;
            }
        }
        let room = self.key.len - (self.buffer.len() - self.open);
        let count = buf.len().min(room);
        self.buffer.extend_from_slice(&buf[..count]);
        Ok(count)
    }

    /// Hands on what is encrypted; the open chunk waits for more.
    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        self.drain()?;
        self.sink.flush()
    }
}
