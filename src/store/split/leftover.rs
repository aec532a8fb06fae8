//! What a dead run had written of a file in parts.

use super::part::{AROUND, HEAD_LEN, Head, MAX_PARTS, TAIL_LEN, Tail, mark_of, name_of_part};
use super::upload::{Begun, SplitUpload};
use super::{Contents, SplitStore};
use crate::base::{Error, ErrorKind, RangeRead, Result, past_end, to_u64, to_usize};
use crate::store::{FileName, Form, Leftover, Store, Upload, check_form, write_error};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// The ids of unfinished files that somebody holds.
pub(super) type HeldIds = Arc<Mutex<BTreeSet<Uuid>>>;

/// A part of an unfinished file.
enum Part {
    /// It was full and is published.
    Published(FileName),
    /// It is not.
    Begun(Box<dyn Leftover>),
}

/// A file in parts whose first part was never published.
pub(super) struct SplitLeftover {
    inner: Arc<dyn Store>,
    file: FileName,
    id: Uuid,
    part_len: u64,
    /// From the first on; only the last one may not be full.
    parts: Vec<Part>,
    /// Published ones behind a part that is not full, as a power cut may leave it: they go once it is gone on with.
    cut_off: Vec<Part>,
    bytes: Arc<Joined>,
    held: HeldIds,
}

impl SplitStore {
    /// The unfinished files of the inner store, those in parts put together.
    pub(super) fn unfinished(&self) -> Result<Vec<Box<dyn Leftover>>> {
        let (mut found, mut begun) = (Vec::new(), BTreeMap::new());
        for leftover in self.inner.leftovers()? {
            match head_of(leftover.bytes().as_ref()) {
                Some(head) => {
                    begun.insert((head.id, head.number), (head, leftover));
                }
                None => found.push(leftover),
            }
        }
        let contents = self.contents()?;
        for file in &contents.marks {
            let id = self.id_in_mark(&mark_of(file)?);
            let first = id.and_then(|id| begun.remove(&(id, 1)));
            let Some((head, first)) = first else {
                continue;
            };
            let behind = |number| begun.remove(&(head.id, number)).map(|(_, part)| part);
            if let Some(left) = self.put_together(file, head, first, behind, &contents) {
                found.push(Box::new(left));
            }
        }
        Ok(found)
    }

    /// The unfinished file whose first part is `first` and begins with `head`; `begun` gives its other parts that
    /// are not published.
    fn put_together(
        &self,
        file: &FileName,
        head: Head,
        first: Box<dyn Leftover>,
        mut begun: impl FnMut(u32) -> Option<Box<dyn Leftover>>,
        contents: &Contents,
    ) -> Option<SplitLeftover> {
        let published = contents.parts.get(file);
        if published.is_some_and(|parts| !contents.in_motion(file, parts)) {
            return None;
        }
        let room = head.part_len.checked_sub(AROUND)?;
        let mut joined = Joined {
            name: format!("the unfinished {}/{file}", self.inner.name()),
            room,
            len: 0,
            parts: Vec::new(),
        };
        joined.add(first.bytes(), &head)?;
        let mut parts = vec![Part::Begun(first)];
        for number in 2..=MAX_PARTS {
            if joined.len < room * to_u64(parts.len()) {
                break;
            }
            let there = published.and_then(|p| p.get(&number));
            let (part, bytes) = match there {
                Some(name) => {
                    let bytes = self.inner.open(name).ok()?;
                    (Part::Published(name.clone()), bytes)
                }
                None => match begun(number) {
                    Some(part) => {
                        let bytes = part.bytes();
                        (Part::Begun(part), bytes)
                    }
                    None => break,
                },
            };
            let expected = Head {
                number,
                offset: joined.len,
                ..head
            };
            if head_of(bytes.as_ref()) != Some(expected) {
                break;
            }
            joined.add(bytes, &expected)?;
            parts.push(part);
        }
        let next = u32::try_from(parts.len() + 1).unwrap_or(MAX_PARTS);
        let behind = published.into_iter().flat_map(|p| p.range(next..));
        let is_own = |name| {
            let head_there = self.inner.open(name).ok().and_then(|p| head_of(p.as_ref()));
            head_there.is_some_and(|there| there.id == head.id)
        };
        let cut_off = behind.map(|(_, name)| name).filter(|name| is_own(name));
        let cut_off = cut_off.cloned().map(Part::Published).collect();
        ids(&self.held).insert(head.id);
        Some(SplitLeftover {
            inner: Arc::clone(&self.inner),
            file: file.clone(),
            id: head.id,
            part_len: head.part_len,
            parts,
            cut_off,
            bytes: Arc::new(joined),
            held: Arc::clone(&self.held),
        })
    }

    /// Whether the unfinished file `id` is held for somebody who goes on with it.
    pub(super) fn is_held(&self, id: Uuid) -> bool {
        ids(&self.held).contains(&id)
    }
}

fn ids(held: &HeldIds) -> std::sync::MutexGuard<'_, BTreeSet<Uuid>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn head_of(part: &dyn RangeRead) -> Option<Head> {
    let mut head = [0; HEAD_LEN];
    part.read_at(0, &mut head).ok()?;
    Head::decode(&head)
}

/// Whether `part`, which begins with `head`, ends as a part of that file does.
fn is_ended(part: &dyn RangeRead, head: &Head) -> bool {
    let mut tail = [0; TAIL_LEN];
    let Some(at) = part.len().checked_sub(to_u64(TAIL_LEN)) else {
        return false;
    };
    let read = part.read_at(at, &mut tail);
    read.is_ok() && Tail::decode(&tail).is_some_and(|tail| tail.id == head.id)
}

impl SplitLeftover {
    /// Makes `part` one that is being filled, of which the first `filled` bytes of the file are there.
    fn reopen(&self, part: Part, head: &Head, filled: u64) -> Result<Box<dyn Upload>> {
        let name = name_of_part(&self.file, head.number)?;
        let end = to_u64(HEAD_LEN) + filled;
        match part {
            Part::Begun(part) => part.resume(&name, &Form::default(), end),
            // What is published is not changed: its beginning is written anew.
            Part::Published(old) => {
                let bytes = self.inner.open(&old)?;
                self.inner.remove(&old)?;
                let mut upload = self.inner.create(&name)?;
                let mut at = 0;
                while at < end {
                    let mut piece = vec![0; to_usize((end - at).min(COPIED))];
                    bytes.read_at(at, &mut piece)?;
                    upload
                        .write_all(&piece)
                        .map_err(|e| write_error(name.as_str(), e))?;
                    at += to_u64(piece.len());
                }
                Ok(upload)
            }
        }
    }

    fn give_up(&self, part: Part) -> Result<()> {
        match part {
            Part::Begun(part) => part.remove(),
            Part::Published(name) => self.inner.remove(&name)?,
        }
        Ok(())
    }
}

/// So much of a part is copied at once.
const COPIED: u64 = 1 << 20;

impl Leftover for SplitLeftover {
    fn bytes(&self) -> Arc<dyn RangeRead> {
        Arc::clone(&self.bytes) as Arc<dyn RangeRead>
    }

    fn file(&self) -> Option<FileName> {
        Some(self.file.clone())
    }

    fn form(&self) -> Form {
        Form {
            part_len: Some(self.part_len),
            keys: None,
        }
    }

    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        for (nth, within, piece) in self.bytes.pieces(offset, bytes.len())? {
            let (at, new) = (to_u64(HEAD_LEN) + within, &bytes[piece]);
            match self.parts.get_mut(nth) {
                Some(Part::Begun(part)) => part.overwrite(at, new)?,
                Some(Part::Published(name)) => self.inner.overwrite(name, at, new)?,
                None => {}
            }
        }
        Ok(())
    }

    fn resume(
        mut self: Box<Self>,
        name: &FileName,
        form: &Form,
        at: u64,
    ) -> Result<Box<dyn Upload>> {
        check_form(self.as_ref(), form)?;
        if *name != self.file || at > self.bytes.len {
            return Err(
                Error::new(ErrorKind::Internal, "go on with", &self.bytes.name)
                    .because(format!("asked for {name}, {at} bytes")),
            );
        }
        let room = self.bytes.room;
        let behind = |nth: usize| room * to_u64(nth);
        // The part that is being filled, and how many bytes of the file are in it.
        let last = to_usize(at.saturating_sub(1) / room);
        let mut parts = std::mem::take(&mut self.parts);
        let cut_off = std::mem::take(&mut self.cut_off);
        for part in parts.drain(last + 1..).chain(cut_off).rev() {
            self.give_up(part)?;
        }
        let (mut first, mut current, mut published) = (None, None, Vec::new());
        for (nth, part) in parts.into_iter().enumerate() {
            let number = u32::try_from(nth + 1).unwrap_or(MAX_PARTS);
            let head = Head {
                id: self.id,
                number,
                offset: behind(nth),
                part_len: self.part_len,
            };
            match part {
                Part::Published(name) if nth < last => published.push(name),
                part => {
                    let mut upload = self.reopen(part, &head, room.min(at - behind(nth)))?;
                    if nth < last {
                        let tail = Tail {
                            id: self.id,
                            parts: 0,
                        };
                        upload
                            .write_all(&tail.encode())
                            .map_err(|e| write_error(self.file.as_str(), e))?;
                    }
                    match nth {
                        0 => first = Some(upload),
                        _ if nth < last => {
                            upload.publish()?;
                            published.push(name_of_part(&self.file, number)?);
                        }
                        _ => current = Some(upload),
                    }
                }
            }
        }
        Ok(Box::new(SplitUpload::resume(
            Arc::clone(&self.inner),
            self.file.clone(),
            self.id,
            self.part_len,
            Begun {
                first,
                current,
                number: u32::try_from(last + 1).unwrap_or(MAX_PARTS),
                filled: at - behind(last),
                written: at,
                published,
            },
        )))
    }

    fn remove(mut self: Box<Self>) {
        // Where a part stays, so does the mark: the next clean-up finds it by that.
        let parts = std::mem::take(&mut self.parts).into_iter();
        let parts = parts.chain(std::mem::take(&mut self.cut_off));
        let gone: Result<Vec<()>> = parts.map(|part| self.give_up(part)).collect();
        if gone.is_ok()
            && let Ok(mark) = mark_of(&self.file)
        {
            let _ = self.inner.remove(&mark);
        }
    }
}

impl Drop for SplitLeftover {
    fn drop(&mut self) {
        ids(&self.held).remove(&self.id);
    }
}

/// The bytes of the file in the parts that are there.
struct Joined {
    name: String,
    /// Bytes of the file in a full part.
    room: u64,
    len: u64,
    parts: Vec<Arc<dyn RangeRead>>,
}

impl Joined {
    /// Adds the bytes of the next part, which begins with `head`. `None` when it is not as long as its head.
    fn add(&mut self, part: Arc<dyn RangeRead>, head: &Head) -> Option<()> {
        (head.offset == self.len).then_some(())?;
        let tail = to_u64(if is_ended(part.as_ref(), head) {
            TAIL_LEN
        } else {
            0
        });
        let content = part.len().checked_sub(to_u64(HEAD_LEN) + tail)?;
        self.len += content.min(self.room);
        self.parts.push(part);
        Some(())
    }

    /// The parts that `len` bytes from `offset` on lie in: which, where in its bytes, and which of the bytes.
    fn pieces(&self, offset: u64, len: usize) -> Result<Vec<(usize, u64, Range<usize>)>> {
        let end = offset.checked_add(to_u64(len));
        if end.is_none_or(|end| end > self.len) {
            return Err(past_end(&self.name, offset, len, self.len));
        }
        let (mut pieces, mut done) = (Vec::new(), 0);
        while done < len {
            let at = offset + to_u64(done);
            let (nth, within) = (at / self.room, at % self.room);
            let now = to_usize(self.room - within).min(len - done);
            pieces.push((to_usize(nth), within, done..done + now));
            done += now;
        }
        Ok(pieces)
    }
}

impl RangeRead for Joined {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        for (nth, within, piece) in self.pieces(offset, buf.len())? {
            if let Some(part) = self.parts.get(nth) {
                part.read_at(to_u64(HEAD_LEN) + within, &mut buf[piece])?;
            }
        }
        Ok(())
    }
}
