//! Writing the pieces of an image to their places on a target: on any thread, each piece by itself.

use super::plan::RestorePlan;
use crate::base::{
    BlockMap, ByteLen, ByteOffset, Cancel, Error, Extent, Result, outside, to_u64, to_usize,
};
use crate::block::{BlockTarget, fill_unreadable};
use crate::image::{Block, BlockState, Header, Window};
use crate::pipeline::{Extracted, Resources};

/// Longest range that is zeroed or discarded in one call: between two the run can be stopped.
const ZERO_STEP: u64 = 256 << 20;

/// As much of the pattern is made and written at once.
const PATTERN_STEP: u64 = 1 << 20;

/// What is written, and where.
pub(super) struct Writer<'a> {
    pub(super) header: &'a Header,
    pub(super) plan: &'a RestorePlan,
    pub(super) target: &'a dyn BlockTarget,
    pub(super) cancel: &'a Cancel,
    /// The only blocks to write, where the target holds others already.
    pub(super) only: Option<&'a BlockMap>,
    /// What is known to be lost of the image.
    pub(super) lost: &'a [Extent],
}

/// What was done with a piece, in bytes of the target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) written: u64,
    pub(super) zeroed: u64,
    pub(super) discarded: u64,
    pub(super) unchanged: u64,
    /// From the first byte that was written to the last one.
    pub(super) around: Extent,
}

impl Writer<'_> {
    /// What a pipeline may use whose workers run [`Writer::early`]: as many more workers as there are, because those
    /// that write wait for the target while others decode.
    pub(super) fn may_use<'r>(&self, resources: Resources<'r>) -> Resources<'r> {
        let each = if self.target.is_parallel() { 2 } else { 1 };
        Resources {
            threads: resources.threads.saturating_mul(each),
            ..resources
        }
    }

    /// Writes what was extracted if that may be done at any time, whatever else is written meanwhile: most media are
    /// idle from the end of a write to the beginning of the next when they have one at a time.
    ///
    /// # Errors
    /// As [`Writer::late`].
    pub(super) fn early(&self, extracted: &Extracted) -> Result<Option<Done>> {
        match self.target.is_parallel() {
            true => self.write(extracted).map(Some),
            false => Ok(None),
        }
    }

    /// Writes what was extracted unless that is done.
    ///
    /// # Errors
    /// `Destination` when the target fails; the error of a piece that is damaged and not known to be lost;
    /// `Interrupted` or `Terminated`.
    pub(super) fn late(&self, extracted: &Extracted, done: Option<Done>) -> Result<Done> {
        done.map_or_else(|| self.write(extracted), Ok)
    }
    fn write(&self, extracted: &Extracted) -> Result<Done> {
        let extent = self.header.extent_of(&extracted.blocks());
        let mut done = Done::default();
        match extracted {
            Extracted::Run { state, .. } => self.write_run(extent, *state, &mut done)?,
            Extracted::Unwanted { .. } => done.unchanged += extent.len.0,
            Extracted::Lost { error, .. } => self.write_lost(extent, error, &mut done)?,
            Extracted::Window(window) => self.write_window(window, &mut done)?,
        }
        Ok(done)
    }

    fn write_window(&self, window: &Window, done: &mut Done) -> Result<()> {
        match &window.error {
            Some(error) => self.write_damaged(window, error, done),
            None => self.write_whole(window, &window.data, done),
        }
    }

    /// Writes a window some of whose blocks are known to be lost: the pattern stands in their place.
    fn write_damaged(&self, window: &Window, error: &Error, done: &mut Done) -> Result<()> {
        let header = self.header;
        let start = header
            .extent_of(&(window.first.0..window.first.0 + 1))
            .start;
        let mut data = window.data.clone();
        for block in &window.lost {
            let extent = header.extent_of(&(block.0..block.0 + 1));
            self.check_lost(extent, error)?;
            let from = to_usize(extent.start.0 - start.0);
            if let Some(place) = data.get_mut(from..from + to_usize(extent.len.0)) {
                fill_unreadable(place, extent.start);
            }
        }
        self.write_whole(window, &data, done)
    }

    /// Writes the pattern where nothing is known of the image.
    fn write_lost(&self, imaged: Extent, error: &Error, done: &mut Done) -> Result<()> {
        self.check_lost(imaged, error)?;
        let mut data = vec![0; to_usize(PATTERN_STEP.min(imaged.len.0))];
        let mut at = imaged.start.0;
        while at < imaged.end().0 {
            self.cancel.check()?;
            let len = (imaged.end().0 - at).min(to_u64(data.len()));
            let extent = Extent {
                start: ByteOffset(at),
                len: ByteLen(len),
            };
            let part = &mut data[..to_usize(len)];
            fill_unreadable(part, extent.start);
            self.write_data(extent, part, done)?;
            at += len;
        }
        Ok(())
    }

    /// Fails with `error` unless `imaged` is known to be lost.
    fn check_lost(&self, imaged: Extent, error: &Error) -> Result<()> {
        match outside(imaged, self.lost).is_empty() {
            true => Ok(()),
            false => Err(error.clone()),
        }
    }

    /// Writes the blocks of `window`, whose content is `data`.
    fn write_whole(&self, window: &Window, data: &[u8], done: &mut Done) -> Result<()> {
        let header = self.header;
        let first = window.first.0;
        let whole = header.extent_of(&(first..first + to_u64(window.blocks.len())));
        let alike = |a: &Block, b: &Block| {
            a.state == b.state || a.state.has_content() && b.state.has_content()
        };
        let mut at = first;
        for run in window.blocks.chunk_by(alike) {
            let end = at + to_u64(run.len());
            let extent = header.extent_of(&(at..end));
            at = end;
            let Some(state) = run.first().map(|b| b.state) else {
                continue;
            };
            if state.has_content() {
                for wanted in self.wanted(extent, done) {
                    let from = to_usize(wanted.start.0 - whole.start.0);
                    let part = &data[from..from + to_usize(wanted.len.0)];
                    self.write_data(wanted, part, done)?;
                }
            } else {
                self.write_run(extent, state, done)?;
            }
        }
        Ok(())
    }

    /// The parts of an imaged range of whole blocks with content that the target does not hold yet.
    fn wanted(&self, imaged: Extent, done: &mut Done) -> Vec<Extent> {
        let Some(only) = self.only else {
            return vec![imaged];
        };
        let header = self.header;
        let wanted: Vec<Extent> = only
            .runs_in(self.blocks_of(imaged))
            .filter_map(|run| header.extent_of(&run).intersect(imaged))
            .collect();
        let bytes: u64 = wanted.iter().map(|e| e.len.0).sum();
        done.unchanged += imaged.len.0 - bytes;
        wanted
    }

    /// The blocks that hold a byte of `imaged`.
    fn blocks_of(&self, imaged: Extent) -> std::ops::Range<u64> {
        let size = self.header.block_size.bytes();
        imaged.start.0 / size..imaged.end().0.div_ceil(size)
    }

    /// The parts of an imaged range that are written now: on the target, outside critical ranges.
    fn parts(&self, imaged: Extent) -> Vec<Extent> {
        match self.plan.on_target(imaged) {
            Some(whole) => outside(whole, &self.plan.critical),
            None => Vec::new(),
        }
    }

    fn write_data(&self, imaged: Extent, data: &[u8], done: &mut Done) -> Result<()> {
        let Some(whole) = self.plan.on_target(imaged) else {
            return Ok(());
        };
        // The first bytes of a block may lie before the restored range.
        let skipped = self.plan.source.start.0.saturating_sub(imaged.start.0);
        for part in self.parts(imaged) {
            let from = to_usize(part.start.0 - whole.start.0 + skipped);
            self.target
                .write_at(part.start, &data[from..from + to_usize(part.len.0)])?;
            done.written += part.len.0;
            done.around = around(done.around, part);
        }
        Ok(())
    }

    fn write_run(&self, imaged: Extent, state: BlockState, done: &mut Done) -> Result<()> {
        for part in self.parts(imaged) {
            if state == BlockState::Unused {
                for inner in outside(part, &self.plan.edges) {
                    self.give_back(inner, done)?;
                }
                for edge in self.plan.edges.iter().filter_map(|e| e.intersect(part)) {
                    self.zero(edge, done)?;
                }
            } else {
                self.zero_unless_held(part, done)?;
            }
        }
        Ok(())
    }

    /// Zeros what is not known to be zero already.
    fn zero_unless_held(&self, extent: Extent, done: &mut Done) -> Result<()> {
        let (Some(only), Some(imaged)) = (self.only, self.plan.on_image(extent)) else {
            return self.zero(extent, done);
        };
        for run in only.runs_in(self.blocks_of(imaged)) {
            let place = self.plan.on_target(self.header.extent_of(&run));
            if let Some(part) = place.and_then(|place| place.intersect(extent)) {
                self.zero(part, done)?;
            }
        }
        Ok(())
    }

    /// Discards what nobody uses; zeros it where the medium cannot discard, unless what is there may
    /// stay.
    fn give_back(&self, extent: Extent, done: &mut Done) -> Result<()> {
        if self.target.starts_zeroed() {
            return Ok(());
        }
        for step in steps(extent) {
            self.cancel.check()?;
            if self.target.discard(step)? {
                done.discarded += step.len.0;
            } else if self.only.is_none() {
                self.zero(step, done)?;
            }
        }
        Ok(())
    }

    fn zero(&self, extent: Extent, done: &mut Done) -> Result<()> {
        done.zeroed += extent.len.0;
        if self.target.starts_zeroed() {
            return Ok(());
        }
        for step in steps(extent) {
            self.cancel.check()?;
            self.target.write_zeros(step)?;
        }
        Ok(())
    }
}

/// The range from the beginning of the first to the end of the last of both; an empty one does not count.
pub(super) fn around(a: Extent, b: Extent) -> Extent {
    if a.is_empty() || b.is_empty() {
        return if a.is_empty() { b } else { a };
    }
    let start = a.start.min(b.start);
    let end = a.end().max(b.end());
    Extent {
        start,
        len: ByteLen(end.0 - start.0),
    }
}

/// Cuts a long range into pieces between which a run can be stopped.
fn steps(extent: Extent) -> impl Iterator<Item = Extent> {
    let end = extent.end().0;
    let mut at = extent.start.0;
    std::iter::from_fn(move || {
        let len = (end - at).min(ZERO_STEP);
        let step = Extent {
            start: ByteOffset(at),
            len: ByteLen(len),
        };
        at += len;
        (len > 0).then_some(step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranges_lie_in_the_one_around_them() {
        let range = |start, len| Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        };
        let cases = [
            (range(0, 0), range(7, 3), range(7, 3)),
            (range(7, 3), range(0, 0), range(7, 3)),
            (range(7, 3), range(20, 1), range(7, 14)),
            (range(20, 1), range(7, 3), range(7, 14)),
            (range(7, 30), range(10, 2), range(7, 30)),
            (range(0, 0), range(0, 0), range(0, 0)),
        ];
        for (a, b, both) in cases {
            assert_eq!(around(a, b), both);
        }
    }
}
