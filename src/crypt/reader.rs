//! What comes out of a pipe, decrypted if it is encrypted.

use super::chunk::{ChunkKeys, TAG_LEN};
use super::head::{Head, is_encrypted};
use super::ring::KeyRing;
use crate::base::{Error, ErrorKind, KeySetId, to_u64};
use std::io::{self, ErrorKind as IoKind, Read};

/// Enough to tell an encrypted stream from any other.
const START: usize = 8;

/// A stream that hands out a chunk only when it is authentic. Errors that this program explains are
/// inside the [`io::Error`]s.
pub struct DecryptReader<R> {
    input: R,
    name: String,
    state: State,
}

enum State {
    /// These bytes were looked at and are still to be handed out; everything behind them as it comes.
    Plain(Vec<u8>, usize),
    Encrypted(Box<Chunks>),
}

struct Chunks {
    keys: ChunkKeys,
    key_set: KeySetId,
    index: u64,
    /// Where in the stream the next chunk begins.
    at: u64,
    /// What was read: a chunk, and the byte behind it, which says that it is not the last.
    stored: Vec<u8>,
    /// What of `stored` is decrypted and not handed out yet.
    plain: std::ops::Range<usize>,
    ended: bool,
}

impl<R: Read> DecryptReader<R> {
    /// Reads the head of `input`, if it has one; `name` is what the stream is called in messages.
    ///
    /// # Errors
    /// As [`KeyRing`] and `input`.
    pub fn new(mut input: R, name: &str, keys: &KeyRing) -> io::Result<DecryptReader<R>> {
        let mut start = vec![0; START];
        let len = fill(&mut input, &mut start)?;
        start.truncate(len);
        let state = if is_encrypted(&start) {
            let head = Head::read_stream(&start, &mut input, name)?;
            let opened = keys.open(&head, name).map_err(io::Error::other)?;
            let keys = ChunkKeys::new(&opened.file_key, &opened.earlier, head.chunk_log2);
            State::Encrypted(Box::new(Chunks {
                keys: keys.map_err(io::Error::other)?,
                key_set: head.key_set(),
                index: 0,
                at: to_u64(head.len()),
                stored: Vec::new(),
                plain: 0..0,
                ended: false,
            }))
        } else {
            keys.accept_plain(name).map_err(io::Error::other)?;
            State::Plain(start, 0)
        };
        Ok(DecryptReader {
            input,
            name: name.to_owned(),
            state,
        })
    }
}

impl<R> DecryptReader<R> {
    /// The key set that the stream is encrypted with.
    pub fn key_set(&self) -> Option<KeySetId> {
        match &self.state {
            State::Plain(..) => None,
            State::Encrypted(chunks) => Some(chunks.key_set),
        }
    }
}

impl Chunks {
    /// Reads and decrypts the next chunk.
    fn next(&mut self, input: &mut impl Read, name: &str) -> io::Result<()> {
        let whole = self.keys.stored_len();
        let kept = match self.stored.len() > whole {
            true => Some(self.stored[whole]),
            false => None,
        };
        self.stored.resize(whole + 1, 0);
        let start = usize::from(kept.is_some());
        if let Some(byte) = kept {
            self.stored[0] = byte;
        }
        let len = start + fill(input, &mut self.stored[start..])?;
        let last = len <= whole;
        let stored = len.min(whole);
        let opened = self.keys.open(self.index, last, &mut self.stored[..stored]);
        if opened.is_none() {
            let (why, hint) = match last {
                true => (
                    "it ends there, too early, or what stands there is not authentic",
                    "what writes into the pipe has failed or was stopped",
                ),
                false => (
                    "it was damaged, or put there by somebody without the key",
                    "send it again",
                ),
            };
            let subject = format!("{name} at byte {}", self.at);
            let error = Error::new(ErrorKind::Damaged, "decrypt", subject);
            return Err(io::Error::other(error.because(why).hint(hint)));
        }
        self.plain = 0..stored - TAG_LEN;
        self.index += 1;
        self.at += to_u64(stored);
        self.ended = last;
        if last {
            self.stored.truncate(stored);
        }
        Ok(())
    }
}

/// Reads until `buf` is full or nothing more comes; how much that was.
fn fill(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match input.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(e) if e.kind() == IoKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

impl<R: Read> Read for DecryptReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Plain(start, at) if *at < start.len() => {
                let count = buf.len().min(start.len() - *at);
                buf[..count].copy_from_slice(&start[*at..*at + count]);
                *at += count;
                Ok(count)
            }
            State::Plain(..) => self.input.read(buf),
            State::Encrypted(chunks) => {
                while chunks.plain.is_empty() && !chunks.ended {
                    chunks.next(&mut self.input, &self.name)?;
                }
                let count = buf.len().min(chunks.plain.len());
                let from = chunks.plain.start;
                buf[..count].copy_from_slice(&chunks.stored[from..from + count]);
                chunks.plain.start += count;
                Ok(count)
            }
        }
    }
}
