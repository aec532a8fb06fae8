//! One part by its two ends, and the whole file by its first and its last part.

use super::part::{AROUND, HEAD_LEN, Head, TAIL_LEN, Tail};
use crate::base::{Error, RangeRead, Result, past_end, to_u64, to_usize};
use std::ops::Range;
use uuid::Uuid;

/// Why something is not the part that is wanted.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It cannot be read.
    Failed(Error),
    /// What is wrong with it, behind its name.
    Is(String),
}

impl Unfit {
    pub(super) fn is(why: impl Into<String>) -> Unfit {
        Unfit::Is(why.into())
    }

    /// In words, behind its name.
    pub(super) fn words(&self) -> String {
        match self {
            Unfit::Failed(error) => format!("cannot be read: {error}"),
            Unfit::Is(why) => why.clone(),
        }
    }
}

/// The two ends of a part.
pub(super) struct Ends {
    pub(super) head: Head,
    pub(super) tail: Tail,
    /// Bytes of the file in it.
    pub(super) len: u64,
}

impl Ends {
    /// Of `bytes`, which has the name of part `number` of the file `id`, where that is
    /// known.
    pub(super) fn of(bytes: &dyn RangeRead, number: u32, id: Option<Uuid>) -> Result<Ends, Unfit> {
        let Some(len) = bytes.len().checked_sub(AROUND) else {
            return Err(Unfit::is("is cut off"));
        };
        let (mut head, mut tail) = ([0; HEAD_LEN], [0; TAIL_LEN]);
        bytes.read_at(0, &mut head).map_err(Unfit::Failed)?;
        bytes
            .read_at(bytes.len() - to_u64(TAIL_LEN), &mut tail)
            .map_err(Unfit::Failed)?;
        let head = Head::decode(&head).ok_or_else(|| Unfit::is("does not begin as a part does"))?;
        let tail = Tail::decode(&tail)
            .ok_or_else(|| Unfit::is("does not end as a part does: it is cut off or damaged"))?;
        let other = id.is_some_and(|id| id != head.id) || tail.id != head.id;
        match (other, head.number) {
            (false, found) if found == number => {}
            (false, found) => return Err(Unfit::Is(format!("is part {found} of a file"))),
            (true, found) if found == number => {
                return Err(Unfit::is("belongs to another file than the first"));
            }
            (true, found) => return Err(Unfit::Is(format!("is part {found} of another file"))),
        }
        if tail.parts != 0 && tail.parts != number {
            let why = format!("says that there are {} parts", tail.parts);
            return Err(Unfit::Is(why));
        }
        Ok(Ends { head, tail, len })
    }

    /// Whether it is the last one.
    pub(super) fn is_last(&self) -> bool {
        self.tail.parts == self.head.number
    }

    /// Whether it stands where it belongs and holds as much as it has to, in a file whose parts are
    /// `part_len` bytes long at most.
    pub(super) fn check_place(&self, part_len: u64) -> Result<(), Unfit> {
        if Some(self.head.offset) != offset_of(self.head.number, part_len) {
            return Err(Unfit::is("does not begin where the one before it ends"));
        }
        let room = part_len.saturating_sub(AROUND);
        match self.len == room || (self.is_last() && self.len < room) {
            true => Ok(()),
            false => Err(Unfit::is("is not as long as it has to be")),
        }
    }
}

/// A file in parts: every part but the last is as long as parts are at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// The same in all its parts.
    pub(super) id: Uuid,
    /// How long parts are at most, all of a part counted.
    pub(super) part_len: u64,
    /// How many there are.
    pub(super) parts: u32,
    /// Bytes of the file.
    pub(super) len: u64,
}

/// Where part `number` begins in a file whose parts are `part_len` long at most.
fn offset_of(number: u32, part_len: u64) -> Option<u64> {
    let before = u64::from(number).checked_sub(1)?;
    before.checked_mul(part_len.checked_sub(AROUND)?)
}

impl Shape {
    /// Of the file whose first part begins with `first` and that ends with `last`.
    pub(super) fn of(first: &Head, last: &Ends) -> Result<Shape, Unfit> {
        let (parts, part_len) = (last.head.number, first.part_len);
        last.check_place(part_len)?;
        let Some(len) = last.head.offset.checked_add(last.len) else {
            return Err(Unfit::is("is longer than any file"));
        };
        Ok(Shape {
            id: first.id,
            part_len,
            parts,
            len,
        })
    }

    /// Whether `part` is one of this file, and what it has to be.
    pub(super) fn check(&self, part: &Ends) -> Result<(), Unfit> {
        part.check_place(self.part_len)?;
        match part.is_last() == (part.head.number == self.parts) {
            true => Ok(()),
            false => Err(Unfit::is("is not of as many parts as the others")),
        }
    }

    /// Calls `each` for every part that holds some of the `len` bytes from `offset`, as far as the file goes: the
    /// number of the part, where in it they begin, and how many they are.
    pub(super) fn each_within(&self, offset: u64, len: u64, mut each: impl FnMut(u32, u64, u64)) {
        let len = to_usize(self.len.saturating_sub(offset).min(len));
        let _ = self.each_piece("", offset, len, |number, within, piece| {
            each(number, within, to_u64(piece.len()));
            Ok(())
        });
    }

    /// Calls `each` for every part that holds some of the `len` bytes from `offset` of the file called `name`:
    /// the number of the part, where in it they begin, and which of these bytes.
    pub(super) fn each_piece(
        &self,
        name: &str,
        offset: u64,
        len: usize,
        mut each: impl FnMut(u32, u64, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let room = self.part_len.saturating_sub(AROUND).max(1);
        let past = || past_end(name, offset, len, self.len);
        let end = offset.checked_add(to_u64(len));
        if end.is_none_or(|end| end > self.len) {
            return Err(past());
        }
        let mut done = 0;
        while done < len {
            let at = offset + to_u64(done);
            let number = u32::try_from(at / room + 1).map_err(|_| past())?;
            let within = at % room;
            let count = to_usize((room - within).min(to_u64(len - done)));
            each(number, within + to_u64(HEAD_LEN), done..done + count)?;
            done += count;
        }
        Ok(())
    }
}
