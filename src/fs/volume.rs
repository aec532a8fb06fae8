//! What a reader sees of a partition: bytes to read, within limits.

use super::doubt::{Doubt, ensure};
use crate::base::{ByteOffset, Cancel, to_u64, to_usize};
use crate::block::BlockSource;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// The most that one read may ask for: 16 MiB.
pub(super) const MAX_READ: u64 = 16 << 20;
/// Metadata that may be read of any partition, however small.
const LEAST_BUDGET: u64 = 256 << 20;
/// What a read costs beside its bytes, so that many tiny ones come to an end too.
const READ_COST: u64 = 512;
/// How many layers may lie in one another (a file system in a logical volume in an array).
const MAX_DEPTH: u8 = 4;

const USED_UP: &str = "its metadata is larger than it can sensibly be, or leads in circles";

/// Is told of a unit: its number, and its bytes where they can be read.
pub(super) type EachUnit<'a> = dyn FnMut(u64, Option<&[u8]>) -> Result<(), Doubt> + 'a;

/// A run of a volume and where it lies in the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte, in the volume.
    pub(super) start: u64,
    /// Number of bytes.
    pub(super) len: u64,
    /// First byte, in the volume below.
    pub(super) at: u64,
}

/// A partition, or a part of one that a container (a logical volume, an array) makes a disk of its
/// own. All offsets are bytes from its start.
pub(super) struct Volume<'a> {
    source: &'a dyn BlockSource,
    cancel: &'a Cancel,
    /// Ascending and gapless in the volume; places in the source.
    pieces: Vec<Piece>,
    len: u64,
    budget: Rc<Cell<u64>>,
    depth: u8,
}

impl<'a> Volume<'a> {
    /// All of `source`. Metadata up to an eighth of its length plus 256 MiB may be read.
    pub(super) fn new(source: &'a dyn BlockSource, cancel: &'a Cancel) -> Volume<'a> {
        let len = source.len().0;
        let whole = Piece {
            start: 0,
            len,
            at: 0,
        };
        Volume {
            source,
            cancel,
            pieces: vec![whole],
            len,
            budget: Rc::new(Cell::new((len / 8).saturating_add(LEAST_BUDGET))),
            depth: 0,
        }
    }

    /// The volume that `pieces` of this one make up, in their order.
    ///
    /// # Errors
    /// A doubt when the pieces are not gapless from 0, pass the end, or lie too deep.
    pub(super) fn window(&self, pieces: &[Piece]) -> Result<Volume<'a>, Doubt> {
        ensure(self.depth < MAX_DEPTH, || {
            format!("more than {MAX_DEPTH} layers lie in one another")
        })?;
        let mut mapped = Vec::new();
        let mut len = 0u64;
        for piece in pieces {
            ensure(
                piece.start == len && piece.len > 0,
                || "the parts of a volume leave gaps",
            )?;
            self.check(piece.at, piece.len)?;
            self.each_piece(piece.at..piece.at + piece.len, |part| {
                mapped.push(Piece {
                    start: len,
                    len: part.len,
                    at: part.at,
                });
                len += part.len;
                Ok(())
            })?;
        }
        Ok(Volume {
            source: self.source,
            cancel: self.cancel,
            pieces: mapped,
            len,
            budget: Rc::clone(&self.budget),
            depth: self.depth + 1,
        })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The disk's logical sector in bytes.
    pub(super) fn sector(&self) -> u64 {
        u64::from(self.source.geometry().logical_sector.bytes())
    }

    /// Doubts when no more can be read of it because the budget for metadata is used up: every read
    /// fails then, and who reads around failures has to end.
    pub(super) fn must_go_on(&self) -> Result<(), Doubt> {
        self.cancel.check()?;
        ensure(self.budget.get() > READ_COST, || USED_UP)
    }

    /// Reads `count` units of `unit` bytes with `read` (first unit, number) for `each`, which is told their
    /// numbers from 0 on: all at once or, where that fails, one by one; `None` is one that cannot be read.
    ///
    /// # Errors
    /// What `each` returns, and a doubt when the budget is used up.
    pub(super) fn read_around(
        &self,
        unit: u64,
        count: u64,
        read: &dyn Fn(u64, u64) -> Result<Vec<u8>, Doubt>,
        each: &mut EachUnit<'_>,
    ) -> Result<(), Doubt> {
        match read(0, count) {
            Ok(bytes) => {
                let units = bytes.chunks_exact(to_usize(unit));
                (0..)
                    .zip(units)
                    .try_for_each(|(n, bytes)| each(n, Some(bytes)))
            }
            Err(stopped @ Doubt::Stopped(_)) => Err(stopped),
            Err(Doubt::Unsure(_)) => (0..count).try_for_each(|n| {
                self.must_go_on()?;
                match read(n, 1) {
                    Ok(bytes) => each(n, Some(&bytes)),
                    Err(stopped @ Doubt::Stopped(_)) => Err(stopped),
                    Err(Doubt::Unsure(_)) => each(n, None),
                }
            }),
        }
    }

    /// Doubts unless a file system of `len` bytes in sectors of `sector` bytes can lie here.
    pub(super) fn must_hold(&self, len: u64, sector: u64) -> Result<(), Doubt> {
        ensure(len <= self.len, || {
            format!(
                "it is {len} bytes long, and its partition only {}",
                self.len
            )
        })?;
        ensure(sector >= self.sector(), || {
            format!(
                "its sectors of {sector} bytes are smaller than the disk's of {}",
                self.sector()
            )
        })
    }

    /// `len` bytes from `at`.
    ///
    /// # Errors
    /// A doubt when the range passes the end, is longer than [`MAX_READ`], cannot be read, or the
    /// budget for metadata is used up.
    pub(super) fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, Doubt> {
        ensure(len <= MAX_READ, || {
            format!("a structure at byte {at} claims to be {len} bytes long")
        })?;
        let mut buf = vec![0; to_usize(len)];
        self.read_into(at, &mut buf)?;
        Ok(buf)
    }

    /// Fills `buf` from `at`.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub(super) fn read_into(&self, at: u64, buf: &mut [u8]) -> Result<(), Doubt> {
        self.cancel.check()?;
        let len = to_u64(buf.len());
        self.check(at, len)?;
        let left = self.budget.get().checked_sub(len + READ_COST);
        self.budget.set(left.unwrap_or(0));
        ensure(left.is_some(), || USED_UP)?;
        let mut rest = buf;
        self.each_piece(at..at + len, |part| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(to_usize(part.len));
            rest = tail;
            self.source.read_at(ByteOffset(part.at), head)?;
            Ok(())
        })
    }

    fn check(&self, at: u64, len: u64) -> Result<(), Doubt> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        ensure(inside, || {
            format!(
                "{len} bytes at byte {at} are asked for, past its end at {}",
                self.len
            )
        })
    }

    /// Hands the pieces of `range`, which is inside, to `each`, cut to it.
    fn each_piece(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(Piece) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let first = self
            .pieces
            .partition_point(|p| p.start + p.len <= range.start);
        for piece in self.pieces.iter().skip(first) {
            let start = piece.start.max(range.start);
            let end = (piece.start + piece.len).min(range.end);
            if start >= end {
                break;
            }
            each(Piece {
                start,
                len: end - start,
                at: piece.at + (start - piece.start),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemorySource;

    fn piece(start: u64, len: u64, at: u64) -> Piece {
        Piece { start, len, at }
    }

    #[test]
    fn windows_read_through_their_pieces() {
        let bytes: Vec<u8> = (0..200).collect();
        let (source, cancel) = (MemorySource::new("m", bytes), Cancel::new());
        let whole = Volume::new(&source, &cancel);
        let outer = whole
            .window(&[piece(0, 10, 100), piece(10, 10, 50)])
            .unwrap();
        let inner = outer.window(&[piece(0, 4, 8)]).unwrap();
        assert_eq!(outer.read(8, 4).unwrap(), [108, 109, 50, 51]);
        assert_eq!(inner.read(0, 4).unwrap(), [108, 109, 50, 51]);
        assert_eq!(inner.len(), 4);
        assert!(inner.read(1, 4).is_err());
        assert!(whole.window(&[piece(0, 10, 195)]).is_err());
        assert!(whole.window(&[piece(1, 10, 0)]).is_err());
    }

    #[test]
    fn reading_in_circles_ends() {
        let (source, cancel) = (MemorySource::new("m", vec![0; 4096]), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        let reads = (0..1 << 20).take_while(|_| volume.read(0, 4096).is_ok());
        assert!(reads.count() < 1 << 17);
    }

    #[test]
    fn a_cancelled_run_is_no_doubt() {
        let (source, cancel) = (MemorySource::new("m", vec![0; 4096]), Cancel::new());
        cancel.cancel();
        let found = Volume::new(&source, &cancel).read(0, 1);
        assert!(matches!(found, Err(Doubt::Stopped(_))));
    }
}
