//! Cutting a file into parts while it comes.

use super::part::{AROUND, HEAD_LEN, Head, MAX_PARTS, Tail, mark_of, name_of_part};
use super::set_mark;
use crate::base::{Error, ErrorKind, Result, to_u64, to_usize};
use crate::store::{FileName, Store, Upload, as_io_error, name_taken, write_error};
use std::io::{self, Write};
use std::sync::Arc;
use uuid::Uuid;

/// A file on its way into parts. Every part but the first is published when it is full; the first, when
/// all others are.
pub(super) struct SplitUpload {
    inner: Arc<dyn Store>,
    file: FileName,
    id: Uuid,
    /// How long a part is at most.
    part_len: u64,
    /// Bytes of the file in each part.
    room: u64,
    /// The first part; gone when it is published or abandoned.
    first: Option<Box<dyn Upload>>,
    /// The part that is being filled, unless that is the first.
    current: Option<Box<dyn Upload>>,
    /// Its number.
    number: u32,
    /// Bytes of the file in it.
    filled: u64,
    written: u64,
    published: Vec<FileName>,
    /// A write has failed: the rest cannot be trusted.
    failed: bool,
    /// It is published.
    done: bool,
}

/// What is there of an upload that goes on.
pub(super) struct Begun {
    pub(super) first: Option<Box<dyn Upload>>,
    pub(super) current: Option<Box<dyn Upload>>,
    pub(super) number: u32,
    pub(super) filled: u64,
    pub(super) written: u64,
    pub(super) published: Vec<FileName>,
}

impl SplitUpload {
    /// Goes on with an upload whose mark stands.
    pub(super) fn resume(
        inner: Arc<dyn Store>,
        file: FileName,
        id: Uuid,
        part_len: u64,
        begun: Begun,
    ) -> SplitUpload {
        SplitUpload {
            inner,
            file,
            id,
            part_len,
            room: part_len.saturating_sub(AROUND).max(1),
            first: begun.first,
            current: begun.current,
            number: begun.number,
            filled: begun.filled,
            written: begun.written,
            published: begun.published,
            failed: false,
            done: false,
        }
    }

    pub(super) fn begin(
        inner: Arc<dyn Store>,
        file: FileName,
        id: Uuid,
        part_len: u64,
    ) -> Result<SplitUpload> {
        set_mark(inner.as_ref(), &file, id)?;
        let nothing = Begun {
            first: None,
            current: None,
            number: 1,
            filled: 0,
            written: 0,
            published: Vec::new(),
        };
        let mut upload = SplitUpload::resume(inner, file, id, part_len, nothing);
        upload.first = Some(upload.part(1, 0)?);
        Ok(upload)
    }

    fn part(&self, number: u32, offset: u64) -> Result<Box<dyn Upload>> {
        let mut part = self.inner.create(&name_of_part(&self.file, number)?)?;
        let head = Head {
            id: self.id,
            number,
            offset,
            part_len: self.part_len,
        };
        part.write_all(&head.encode())
            .map_err(|e| write_error(self.file.as_str(), e))?;
        Ok(part)
    }

    fn filling(&mut self) -> Option<&mut Box<dyn Upload>> {
        self.current.as_mut().or(self.first.as_mut())
    }

    fn end_part(&mut self, parts: u32) -> Result<()> {
        let tail = Tail { id: self.id, parts };
        let file = self.file.to_string();
        if let Some(part) = self.filling() {
            part.write_all(&tail.encode())
                .and_then(|()| part.flush())
                .map_err(|e| write_error(&file, e))?;
        }
        if let Some(part) = self.current.take() {
            part.publish()?;
            self.published.push(name_of_part(&self.file, self.number)?);
        }
        Ok(())
    }

    /// Ends the full part and begins the next.
    fn next_part(&mut self) -> Result<()> {
        if self.number == MAX_PARTS {
            return Err(
                Error::new(ErrorKind::Destination, "split", self.file.to_string())
                    .because(format!("it has more than {MAX_PARTS} parts"))
                    .hint("choose larger parts with --split"),
            );
        }
        self.end_part(0)?;
        self.number += 1;
        self.filled = 0;
        self.current = Some(self.part(self.number, self.written)?);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.filled == self.room {
            self.next_part()?;
        }
        let left = to_usize(self.room - self.filled);
        let now = bytes.get(..left.min(bytes.len())).unwrap_or_default();
        let file = self.file.to_string();
        if let Some(part) = self.filling() {
            part.write_all(now).map_err(|e| write_error(&file, e))?;
        }
        self.filled += to_u64(now.len());
        self.written += to_u64(now.len());
        Ok(now.len())
    }

    fn finish(&mut self) -> Result<()> {
        self.end_part(self.number)?;
        // Somebody may have been faster with a plain file of that name.
        if self.inner.list()?.iter().any(|e| e.name == self.file) {
            return Err(name_taken("publish", self.inner.name(), &self.file));
        }
        if let Some(first) = self.first.take() {
            first.publish()?;
        }
        self.done = true;
        // Beside a first part a mark does no harm, and the next clean-up takes it away.
        let _ = self.inner.remove(&mark_of(&self.file)?);
        Ok(())
    }

    /// Takes back all that is there, as far as the store still obeys.
    fn undo(&mut self) {
        if self.done {
            return;
        }
        let parts = [self.current.take(), self.first.take()];
        parts.into_iter().flatten().for_each(|part| part.abandon());
        let gone = self
            .published
            .drain(..)
            .map(|name| self.inner.remove(&name));
        // The mark stays while a part does: the next clean-up finds them by it.
        if gone.filter(Result::is_err).count() == 0
            && let Ok(mark) = mark_of(&self.file)
        {
            let _ = self.inner.remove(&mark);
        }
    }
}

impl Write for SplitUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(as_io_error(
                Error::new(ErrorKind::Destination, "write", self.file.to_string())
                    .because("a write before has failed"),
            ));
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        self.take(bytes).map_err(|e| {
            self.failed = true;
            as_io_error(e)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.filling() {
            Some(part) => part.flush(),
            None => Ok(()),
        }
    }
}

impl Upload for SplitUpload {
    fn written(&self) -> u64 {
        self.written
    }

    fn publish(mut self: Box<Self>) -> Result<()> {
        if self.failed {
            return Err(
                Error::new(ErrorKind::Destination, "publish", self.file.to_string())
                    .because("a write before has failed"),
            );
        }
        self.finish()
    }

    fn abandon(self: Box<Self>) {}

    fn leave(mut self: Box<Self>) -> bool {
        if self.failed {
            return false;
        }
        // The mark stays, and so does every part, or what is left of them is nothing to go on with.
        let parts = [self.first.take(), self.current.take()];
        let left = parts.into_iter().flatten().map(|part| part.leave());
        let left: Vec<bool> = left.collect();
        self.done = left.iter().all(|left| *left);
        self.done
    }
}

impl Drop for SplitUpload {
    fn drop(&mut self) {
        self.undo();
    }
}

/// A part holds at least its two ends and a byte.
const _: () = assert!(super::MIN_PART_LEN > HEAD_LEN as u64 * 4);
