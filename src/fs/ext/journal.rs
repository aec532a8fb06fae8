//! What a journal holds that is not yet in place, found by reading it as a mount would.
//!
//! The walk makes the decisions of `fs/jbd2/recovery.c`: the log ends where a block has no header
//! or that of another transaction, and a transaction counts once its commit block is there. What the
//! kernel would skip or stop at because it is damaged is a doubt here.

use super::super::doubt::{Doubt, ensure};
use super::inode::Blocks;
use super::log::{self, Entry, LogSuperblock, Tag};
use super::view::{Newer, Overlay, View};
use std::collections::BTreeMap;

/// Blocks that a log may hold copies of, or revoke: what bounds memory to some 20 MiB.
const MAX_CHANGED: usize = 1 << 18;

/// The transaction being read.
#[derive(Default)]
struct Transaction {
    copies: Vec<(Tag, u64)>,
    revoked: Vec<u64>,
}

/// Reads a log.
struct Replay<'r> {
    view: &'r View<'r>,
    log: &'r LogSuperblock,
    blocks: &'r Blocks,
    /// First block that the file system cannot have.
    limit: u64,
    /// Block of the journal to read next.
    at: u64,
    /// Blocks of the log that may still be read.
    left: u64,
    sequence: u32,
    open: Transaction,
    /// The newest copy of each block and the transaction that it is from.
    copies: BTreeMap<u64, (u32, Newer)>,
    /// The newest transaction that revokes each block.
    revoked: BTreeMap<u64, u32>,
}

/// The blocks that a replay of the log in `blocks` would write, all below block `limit`.
///
/// # Errors
/// A doubt when anything in the log is damaged or has a form that is not known here.
pub(super) fn replay(
    view: &View<'_>,
    log: &LogSuperblock,
    blocks: &Blocks,
    limit: u64,
) -> Result<Overlay, Doubt> {
    log.check_form()?;
    if log.start == 0 {
        return Ok(Overlay::new());
    }
    let mut replay = Replay {
        view,
        log,
        blocks,
        limit,
        at: log.start,
        left: log.blocks - log.first,
        sequence: log.sequence,
        open: Transaction::default(),
        copies: BTreeMap::new(),
        revoked: BTreeMap::new(),
    };
    while replay.step()? {}
    Ok(replay.overlay())
}

impl Replay<'_> {
    /// Reads one block of the log and the copies that it announces; `false` at the end.
    fn step(&mut self) -> Result<bool, Doubt> {
        let at = self.next_block()?;
        let bytes = self.view.read_old(at, 1)?;
        match self.log.form.entry(&bytes, self.sequence)? {
            None => {
                self.check_end(&bytes)?;
                return Ok(false);
            }
            Some(Entry::Descriptor(tags)) => {
                for tag in tags {
                    let inside = tag.block < self.limit;
                    ensure(inside, || {
                        format!(
                            "its journal has a copy of block {}, which it has not",
                            tag.block
                        )
                    })?;
                    let at = self.next_block()?;
                    self.open.copies.push((tag, at));
                }
            }
            Some(Entry::Revoke(blocks)) => self.open.revoked.extend(blocks),
            Some(Entry::Commit) => self.commit()?,
        }
        let most = self.open.copies.len().max(self.open.revoked.len());
        self.check_size(most)?;
        Ok(true)
    }

    /// Doubts unless the log really ends with `block`, and not at a block that was damaged: nothing
    /// behind it may belong to the expected transaction or a later one, and no transaction may have
    /// begun. What a mount would give up here may hold files that were safe before the damage.
    fn check_end(&mut self, block: &[u8]) -> Result<(), Doubt> {
        let begun = !self.open.copies.is_empty() || !self.open.revoked.is_empty();
        let mut goes_on = begun || self.is_newer(block);
        while self.left > 0 && !goes_on {
            let at = self.next_block()?;
            goes_on = self.is_newer(&self.view.read_old(at, 1)?);
        }
        ensure(!goes_on, || {
            format!(
                "its journal breaks off in transaction {}, as when it is being written or is \
                 damaged: mount it once and unmount it cleanly",
                self.sequence
            )
        })
    }

    /// Whether a block of the log has the header of the expected transaction or of a later one.
    fn is_newer(&self, block: &[u8]) -> bool {
        let found = log::sequence_of(block);
        // Sequence numbers begin again after the last: half of them are later than any.
        found.is_some_and(|found| found.wrapping_sub(self.sequence) < 1 << 31)
    }

    /// Where the next block of the log lies.
    fn next_block(&mut self) -> Result<u64, Doubt> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| Doubt::new("its journal holds more than fits into it"))?;
        let at = self.blocks.at(self.at)?;
        self.at = self.log.next(self.at);
        Ok(at)
    }

    /// The open transaction is whole: takes over what it holds.
    fn commit(&mut self) -> Result<(), Doubt> {
        let done = std::mem::take(&mut self.open);
        for (tag, at) in done.copies {
            if self.log.form.checks_copies() {
                let copy = self.view.read_old(at, 1)?;
                self.log.form.check_copy(&copy, &tag, self.sequence)?;
            }
            let newer = Newer {
                at,
                escaped: tag.escaped,
            };
            self.copies.insert(tag.block, (self.sequence, newer));
        }
        for block in done.revoked {
            self.revoked.insert(block, self.sequence);
        }
        self.check_size(self.copies.len().max(self.revoked.len()))?;
        // Sequence numbers begin again after the last.
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    fn check_size(&self, changed: usize) -> Result<(), Doubt> {
        ensure(
            changed <= MAX_CHANGED,
            || "its journal holds more changes than are replayed here; mount it once and unmount it cleanly",
        )
    }

    /// The newest copies that no later or the same transaction revokes.
    fn overlay(self) -> Overlay {
        let start = self.log.sequence;
        // Transactions since the first, whatever number that has.
        let age = |sequence: u32| sequence.wrapping_sub(start);
        let mut overlay = Overlay::new();
        for (block, (sequence, newer)) in self.copies {
            let revoked = self.revoked.get(&block);
            if revoked.is_none_or(|revoke| age(*revoke) < age(sequence)) {
                overlay.insert(block, newer);
            }
        }
        overlay
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::volume::Volume;
    use super::super::inode::Run;
    use super::super::log::tests::Writer;
    use super::*;
    use crate::base::{Cancel, to_usize};
    use crate::block::MemorySource;

    /// Blocks of the disk; the journal has those from 8 on.
    const BLOCKS: u64 = 64;
    const JOURNAL_AT: u64 = 8;

    /// Every form of a journal that this reads: checksums (0, 2, 3), 64 bits.
    fn forms() -> impl Iterator<Item = Writer> {
        let forms = [0, 2, 3]
            .into_iter()
            .flat_map(|sums| [(sums, false), (sums, true)]);
        forms.map(|(sums, wide)| Writer::new(sums, wide))
    }

    /// Replays the journal `blocks`, whose first is its superblock.
    fn replayed(blocks: &[Vec<u8>]) -> Result<Vec<(u64, Vec<u8>)>, Doubt> {
        let mut disk = vec![0; to_usize(BLOCKS) * Writer::BLOCK];
        for (number, block) in blocks.iter().enumerate() {
            let at = (to_usize(JOURNAL_AT) + number) * Writer::BLOCK;
            disk[at..at + Writer::BLOCK].copy_from_slice(block);
        }
        let (source, cancel) = (MemorySource::new("m", disk), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        let view = View::new(&volume, 1024, Overlay::new());
        let log = LogSuperblock::decode(&blocks[0])?;
        let len = log.blocks;
        let blocks = Blocks {
            runs: vec![Run {
                first: 0,
                at: JOURNAL_AT,
                len,
            }],
            index: Vec::new(),
        };
        let overlay = replay(&view, &log, &blocks, BLOCKS)?;
        let numbers: Vec<u64> = overlay.keys().copied().collect();
        let view = View::new(&volume, 1024, overlay);
        let read = |number: u64| Ok((number, view.read(number, 1)?));
        numbers.into_iter().map(read).collect()
    }

    fn content(byte: u8) -> Vec<u8> {
        vec![byte; Writer::BLOCK]
    }

    #[test]
    fn what_is_committed_is_replayed_in_every_form() {
        for writer in forms() {
            let mut magic = content(7);
            magic[..4].copy_from_slice(&super::super::log::MAGIC.to_be_bytes());
            let mut log = vec![writer.superblock(40, 1, 1, 0xFFFF_FFFF)];
            // The sequence begins again at 0 after the first transaction.
            log.extend(writer.copies(
                u32::MAX,
                &[(1, content(1)), (2, content(2)), (3, content(3))],
            ));
            log.push(writer.commit(u32::MAX));
            log.push(writer.revoke(0, &[2, 3]));
            log.extend(writer.copies(0, &[(4, magic.clone()), (5, content(5))]));
            log.push(writer.commit(0));
            // Newer than its revoke; and what an older turn of the log has left.
            log.extend(writer.copies(1, &[(3, content(33))]));
            log.push(writer.commit(1));
            log.extend(writer.copies(u32::MAX - 9, &[(6, content(6))]));
            log.resize(40, content(0));
            let expected = [
                (1, content(1)),
                (3, content(33)),
                (4, magic),
                (5, content(5)),
            ];
            assert_eq!(replayed(&log).unwrap(), expected, "{writer:?}");
        }
    }

    #[test]
    fn the_log_wraps_around() {
        for writer in forms() {
            // Blocks 1 to 9, beginning in 8: descriptor, copy, then 1: copy, commit.
            let whole = writer.copies(5, &[(1, content(1)), (2, content(2))]);
            let mut log = vec![content(0); 10];
            log[0] = writer.superblock(10, 1, 8, 5);
            log[8] = whole[0].clone();
            log[9] = whole[1].clone();
            log[1] = whole[2].clone();
            log[2] = writer.commit(5);
            let expected = [(1, content(1)), (2, content(2))];
            assert_eq!(replayed(&log).unwrap(), expected, "{writer:?}");
        }
    }

    #[test]
    fn a_log_that_breaks_off_is_a_doubt() {
        for writer in forms() {
            let mut log = vec![writer.superblock(20, 1, 1, 9)];
            log.extend(writer.copies(9, &[(1, content(1))]));
            log.push(writer.commit(9));
            let whole = log.len();
            log.extend(writer.copies(10, &[(2, content(2))]));
            let begun = log.len();
            log.push(writer.commit(10));
            log.resize(20, content(0));
            assert_eq!(replayed(&log).unwrap().len(), 2);
            // A transaction that was never finished; one whose beginning is gone; a gap before one.
            for gone in [begun..begun + 1, whole..whole + 1, 1..2, whole - 1..whole] {
                let mut log = log.clone();
                log[gone.clone()].fill(content(0));
                let doubt = format!("{:?}", replayed(&log).unwrap_err());
                assert!(doubt.contains("breaks off"), "{writer:?} {gone:?}: {doubt}");
            }
        }
    }

    #[test]
    fn every_damaged_byte_under_a_checksum_is_a_doubt() {
        for writer in forms().filter(|w| w.sums > 0) {
            let mut log = vec![writer.superblock(10, 1, 1, 9)];
            log.push(writer.revoke(9, &[7]));
            log.extend(writer.copies(9, &[(1, content(1))]));
            log.push(writer.commit(9));
            log.resize(10, content(0));
            assert_eq!(replayed(&log).unwrap().len(), 1);
            for number in 1..5 {
                for at in [0, 5, 11, 13, 20, 500, 1023] {
                    let mut damaged = log.clone();
                    damaged[number][at] ^= 0x10;
                    assert!(replayed(&damaged).is_err(), "{writer:?} {number} {at}");
                }
            }
        }
    }

    #[test]
    fn forms_that_are_not_known_are_doubts() {
        for bit in [0x4, 0x20, 0x40, 0x8000_0000] {
            let mut writer = Writer::new(0, false);
            writer.more = bit;
            let mut log = vec![writer.superblock(10, 1, 1, 9)];
            log.resize(10, content(0));
            let doubt = replayed(&log).unwrap_err();
            assert!(format!("{doubt:?}").contains("holds changes"), "{doubt:?}");
        }
    }

    #[test]
    fn a_log_of_nothing_but_itself_ends() {
        // Descriptors whose copies are descriptors, all the way round.
        let writer = Writer::new(0, false);
        let mut log = vec![writer.superblock(10, 1, 1, 9)];
        let block = writer.copies(9, &[(1, content(1))])[0].clone();
        log.resize(10, block);
        assert!(replayed(&log).is_err());
        // A copy for a block that the disk has not.
        let mut log = vec![writer.superblock(10, 1, 1, 9)];
        log.extend(writer.copies(9, &[(BLOCKS, content(1))]));
        log.resize(10, content(0));
        assert!(replayed(&log).is_err());
    }
}
