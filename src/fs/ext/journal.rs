//! What a journal holds that is not yet in place, found by reading it as a mount would.
//!
//! The walk makes the decisions of `fs/jbd2/recovery.c`: the log ends where a block has no header
//! or that of another transaction, and a transaction counts once its commit block is there. What the
//! kernel would skip or stop at because it is damaged is a doubt here.

use super::super::doubt::{Doubt, ensure};
use super::inode::Blocks;
use super::log::{Entry, LogSuperblock, Tag};
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
            None => return Ok(false),
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
