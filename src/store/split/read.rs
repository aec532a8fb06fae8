//! One file out of its parts.

use super::part::{AROUND, HEAD_LEN, Head, TAIL_LEN, Tail, name_of_part};
use crate::base::{Error, ErrorKind, RangeRead, Result, past_end, to_u64, to_usize};
use crate::store::{Entry, FileName, Store};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A part of the file.
struct Part {
    name: FileName,
    /// Where in the file it begins, and how much of it it holds.
    offset: u64,
    len: u64,
}

/// A file in parts, of which one is open at a time: a chain of images may have thousands.
pub(super) struct SplitFile {
    inner: Arc<dyn Store>,
    name: String,
    parts: Vec<Part>,
    len: u64,
    open: Mutex<Option<(usize, Arc<dyn RangeRead>)>>,
}

/// What is wrong with part `number` of `file`.
fn bad_part(store: &str, file: &FileName, number: u32, why: &str) -> Error {
    let part = name_of_part(file, number).map_or_else(|_| file.to_string(), |n| n.to_string());
    Error::new(ErrorKind::Damaged, "open", format!("{store}/{file}"))
        .because(format!("part {number}, {part}, {why}"))
        .hint("bring all parts of the file into one folder, from the media that they lie on")
}

impl SplitFile {
    /// Opens `file`, whose `parts` are there, by number: looks at both ends of each.
    ///
    /// # Errors
    /// `Damaged`, naming the part that is missing, of another file, or of another length than it was.
    pub(super) fn open(
        inner: &Arc<dyn Store>,
        file: &FileName,
        parts: &BTreeMap<u32, Entry>,
    ) -> Result<SplitFile> {
        let store = inner.name().to_owned();
        let bad = |number: u32, why: &str| bad_part(&store, file, number, why);
        let mut split = SplitFile {
            name: format!("{store}/{file}"),
            inner: Arc::clone(inner),
            parts: Vec::new(),
            len: 0,
            open: Mutex::default(),
        };
        let mut id = None;
        let mut number = 1;
        loop {
            let Some(entry) = parts.get(&number) else {
                return Err(bad(number, "is missing"));
            };
            let part = inner.open(&entry.name)?;
            let Some(len) = part.len().checked_sub(AROUND) else {
                return Err(bad(number, "is cut off"));
            };
            let (mut head, mut tail) = ([0; HEAD_LEN], [0; TAIL_LEN]);
            part.read_at(0, &mut head)?;
            part.read_at(part.len() - to_u64(TAIL_LEN), &mut tail)?;
            let head =
                Head::decode(&head).ok_or_else(|| bad(number, "does not begin as a part does"))?;
            let tail = Tail::decode(&tail).ok_or_else(|| {
                bad(
                    number,
                    "does not end as a part does: it is cut off or damaged",
                )
            })?;
            if head.number != number {
                return Err(bad(number, &format!("is part {} of a file", head.number)));
            }
            if *id.get_or_insert(head.id) != head.id || tail.id != head.id {
                return Err(bad(number, "belongs to another file than the first"));
            }
            if head.offset != split.len {
                return Err(bad(number, "does not begin where the one before it ends"));
            }
            split.parts.push(Part {
                name: entry.name.clone(),
                offset: split.len,
                len,
            });
            let Some(end) = split.len.checked_add(len) else {
                return Err(bad(number, "is longer than any file"));
            };
            split.len = end;
            match tail.parts {
                0 => number += 1,
                last if last == number => break,
                last => return Err(bad(number, &format!("says that there are {last} parts"))),
            }
        }
        if let Some((number, _)) = parts.range(number + 1..).next() {
            return Err(bad(*number, "follows the last part"));
        }
        Ok(split)
    }

    /// Writes `bytes` over those from `offset` on.
    ///
    /// # Errors
    /// As [`Store::overwrite`].
    pub(super) fn overwrite(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.pieces(offset, bytes.len(), |at, within, piece| {
            let part = &self.parts[at].name;
            self.inner.overwrite(part, within, &bytes[piece])
        })
    }

    /// Calls `each` for every part that holds some of the `len` bytes from `offset` on: its place among the
    /// parts, where in its file, and which of these bytes.
    fn pieces(
        &self,
        offset: u64,
        len: usize,
        mut each: impl FnMut(usize, u64, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let end = offset.checked_add(to_u64(len));
        if end.is_none_or(|end| end > self.len) {
            return Err(past_end(&self.name, offset, len, self.len));
        }
        let mut done = 0;
        let mut at = self.parts.partition_point(|p| p.offset + p.len <= offset);
        while done < len {
            let Some(part) = self.parts.get(at) else {
                return Err(past_end(&self.name, offset, len, self.len));
            };
            let from = offset + to_u64(done) - part.offset;
            let count = to_usize((part.len - from).min(to_u64(len - done)));
            each(at, from + to_u64(HEAD_LEN), done..done + count)?;
            done += count;
            at += 1;
        }
        Ok(())
    }

    fn part(&self, at: usize) -> Result<Arc<dyn RangeRead>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, part)) = open.as_ref().filter(|(which, _)| *which == at) {
            return Ok(Arc::clone(part));
        }
        let gone = || Error::new(ErrorKind::Damaged, "read", &self.name).because("a part is gone");
        let part = self
            .inner
            .open(&self.parts.get(at).ok_or_else(gone)?.name)?;
        *open = Some((at, Arc::clone(&part)));
        Ok(part)
    }
}

impl RangeRead for SplitFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.pieces(offset, buf.len(), |at, within, piece| {
            self.part(at)?.read_at(within, &mut buf[piece])
        })
    }
}
