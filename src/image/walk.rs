//! Going through the table in the order of the blocks.

use super::leaf::Leaf;
use super::limits::NODE_CHILDREN;
use super::node::{Child, Node};
use super::reader::ImageReader;
use super::record::RECORD_HEADER_LEN;
use super::state::BlockState;
use super::trailer::RecordRef;
use super::tree::{span_of, top_level};
use crate::base::{BlockIndex, Digest, Error, Result, to_u64};
use std::ops::Range;
use std::sync::Arc;

/// What the table says about a run of blocks.
#[derive(Debug)]
pub enum Piece {
    /// All have this state, which has no content.
    Uniform {
        /// First block.
        first: BlockIndex,
        /// Number of blocks.
        count: u64,
        /// Their state.
        state: BlockState,
    },
    /// States, digests and frames.
    Leaf(Arc<Leaf>),
    /// A table page is damaged: nothing is known of these blocks.
    Lost {
        /// First block.
        first: BlockIndex,
        /// Number of blocks.
        count: u64,
        /// What is wrong.
        error: Error,
    },
    /// Records do not lie as the format demands; no block is lost by that alone.
    Misplaced(Error),
}

impl ImageReader {
    /// Calls `visit` for every piece that has blocks in `range`, in ascending order; pieces are not
    /// clipped to it. A visit of the whole disk also checks that the records fill the file without
    /// a gap. Memory: one page of each level.
    ///
    /// # Errors
    /// Only what `visit` returns; damage is a piece.
    pub fn walk(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        let blocks = self.header().blocks();
        let whole = range.start == 0 && range.end >= blocks;
        let after_tables = end_of(self.trailer.tables);
        let mut walk = Walk {
            image: self,
            range,
            visit,
            cursor: whole.then_some(after_tables),
        };
        if whole {
            walk.expect("the info section", 128, self.trailer.info.offset)?;
            walk.expect(
                "the tables section",
                end_of(self.trailer.info),
                self.trailer.tables.offset,
            )?;
        }
        walk.page(
            top_level(blocks),
            0,
            self.trailer.top,
            self.trailer.top_digest,
        )?;
        if let Some(at) = walk.cursor {
            walk.expect("the summary section", at, self.trailer.summary.offset)?;
            walk.expect(
                "the trailer",
                end_of(self.trailer.summary),
                self.trailer.offset,
            )?;
        }
        Ok(())
    }
}

/// The byte behind a record; saturates, since positions come from the file.
fn end_of(place: RecordRef) -> u64 {
    place
        .offset
        .saturating_add(to_u64(RECORD_HEADER_LEN))
        .saturating_add(u64::from(place.stored_len))
}

struct Walk<'a> {
    image: &'a ImageReader,
    range: Range<u64>,
    visit: &'a mut dyn FnMut(Piece) -> Result<()>,
    /// Where the next record must stand; `None` when that is not known or not asked.
    cursor: Option<u64>,
}

impl Walk<'_> {
    fn expect(&mut self, what: &str, expected: u64, found: u64) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let why = format!("{what} stands at byte {found}, not at {expected} where it belongs");
        (self.visit)(Piece::Misplaced(self.image.damaged("walk", &why)))
    }

    fn page(&mut self, level: u8, index: u64, place: RecordRef, digest: Digest) -> Result<()> {
        let span = span_of(level);
        let first = index.saturating_mul(span);
        let count = span.min(self.image.header().blocks().saturating_sub(first));
        if first >= self.range.end || first + count <= self.range.start {
            return Ok(());
        }
        let payload = match self.image.page(level, index, place) {
            Ok(payload) => payload,
            Err(error) => return self.lost(first, count, place, error),
        };
        let header = self.image.header();
        if level == 0 {
            match Leaf::decode(&payload, header, index) {
                Some((leaf, found)) if found == digest => self.leaf(leaf, place),
                other => self.malformed(first, count, place, other.is_some()),
            }
        } else {
            match Node::decode(&payload, header, level, index) {
                Some((node, found)) if found == digest => self.node(&node, place),
                other => self.malformed(first, count, place, other.is_some()),
            }
        }
    }

    fn leaf(&mut self, leaf: Leaf, place: RecordRef) -> Result<()> {
        if let (Some(at), Some(first)) = (self.cursor, leaf.frames.first()) {
            self.expect("a frame", at, first.offset)?;
            self.cursor = leaf
                .frames
                .last()
                .map(|f| f.offset.saturating_add(f.record_len()));
        }
        (self.visit)(Piece::Leaf(Arc::new(leaf)))?;
        self.pass("a table page", place)
    }

    fn node(&mut self, node: &Node, place: RecordRef) -> Result<()> {
        let level = node.level - 1;
        for (i, child) in node.children.iter().enumerate() {
            let index = node.index * NODE_CHILDREN + to_u64(i);
            match *child {
                Child::Stored {
                    digest,
                    offset,
                    stored_len,
                } => {
                    self.page(level, index, RecordRef { offset, stored_len }, digest)?;
                }
                Child::Uniform(state) => {
                    let blocks = node.child_range(self.image.header(), i);
                    if blocks.start < self.range.end && blocks.end > self.range.start {
                        let (first, count) = (BlockIndex(blocks.start), blocks.end - blocks.start);
                        (self.visit)(Piece::Uniform {
                            first,
                            count,
                            state,
                        })?;
                    }
                }
            }
        }
        self.pass("a table page", place)
    }

    /// Checks that a record stands where the cursor is, and moves behind it.
    fn pass(&mut self, what: &str, place: RecordRef) -> Result<()> {
        if let Some(at) = self.cursor {
            self.expect(what, at, place.offset)?;
            self.cursor = Some(end_of(place));
        }
        Ok(())
    }

    fn malformed(&mut self, first: u64, count: u64, place: RecordRef, decoded: bool) -> Result<()> {
        let why = if decoded {
            "its digest is wrong"
        } else {
            "the table page there is malformed"
        };
        let error = self.image.damaged_at("read", place.offset, why);
        self.lost(first, count, place, error)
    }

    /// Reports a lost page and continues behind it.
    fn lost(&mut self, first: u64, count: u64, place: RecordRef, error: Error) -> Result<()> {
        if self.cursor.is_some() {
            self.cursor = Some(end_of(place));
        }
        (self.visit)(Piece::Lost {
            first: BlockIndex(first),
            count,
            error,
        })
    }
}
