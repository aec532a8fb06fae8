//! Going through the pages of one file in the order in which they stand.

use super::leaf::Leaf;
use super::limits::NODE_CHILDREN;
use super::node::{Child, Node, PagePlace};
use super::page::{Body, Content, Page};
use super::reader::ImageReader;
use super::record::RECORD_HEADER_LEN;
use super::trailer::RecordRef;
use super::tree::span_of;
use crate::base::{BlockIndex, Error, Result, to_u64};
use std::sync::Arc;

/// What a file holds, or refers to.
#[derive(Debug)]
pub enum FilePiece {
    /// A leaf page.
    Leaf(Arc<Leaf>),
    /// A page that lies in an older file.
    Older {
        /// Its level.
        level: u8,
        /// Its number in the level.
        index: u64,
        /// What this file says of it.
        child: Child,
    },
    /// A table page is damaged: this file says nothing of these blocks.
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
    /// Calls `visit` for every leaf page of this file and every page that it refers to, in ascending
    /// order, and checks that the records fill the file without a gap. Memory: one page of each level.
    ///
    /// # Errors
    /// Only what `visit` returns; damage is a piece.
    pub fn walk(&self, visit: &mut dyn FnMut(FilePiece) -> Result<()>) -> Result<()> {
        let mut walk = Walk {
            image: self,
            visit,
            cursor: end_of(self.trailer.tables),
            frames: Some(0),
        };
        walk.expect("the info section", 128, self.trailer.info.offset)?;
        walk.expect(
            "the tables section",
            end_of(self.trailer.info),
            self.trailer.tables.offset,
        )?;
        let (level, place) = (self.top_level(), self.trailer.top);
        match self.top() {
            Ok(page) => walk.page(&page, place)?,
            Err(error) => walk.lost(level, 0, place, error)?,
        }
        walk.count_frames()?;
        let at = walk.cursor;
        walk.expect("the summary section", at, self.trailer.summary.offset)?;
        walk.expect(
            "the trailer",
            end_of(self.trailer.summary),
            self.trailer.offset,
        )
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
    visit: &'a mut dyn FnMut(FilePiece) -> Result<()>,
    /// Where the next record must stand.
    cursor: u64,
    /// Frames so far; `None` behind a lost page, whose frames nobody knows.
    frames: Option<u64>,
}

impl Walk<'_> {
    fn expect(&mut self, what: &str, expected: u64, found: u64) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let why = format!("{what} stands at byte {found}, not at {expected} where it belongs");
        (self.visit)(FilePiece::Misplaced(self.image.damaged("walk", &why)))
    }

    /// The trailer says how many frames there are, and a pipe is refused when it is wrong.
    fn count_frames(&mut self) -> Result<()> {
        let said = self.image.trailer.frames;
        match self.frames {
            Some(found) if found != said => {
                let why = format!("it has {found} frames, and its end says {said}");
                (self.visit)(FilePiece::Misplaced(self.image.damaged("walk", &why)))
            }
            _ => Ok(()),
        }
    }

    fn page(&mut self, page: &Page, place: RecordRef) -> Result<()> {
        match &page.body {
            Body::Leaf(leaf) => self.leaf(leaf)?,
            Body::Node(node) => self.node(node)?,
        }
        self.expect("a table page", self.cursor, place.offset)?;
        self.cursor = end_of(place);
        Ok(())
    }

    fn leaf(&mut self, leaf: &Arc<Leaf>) -> Result<()> {
        if let (Some(first), Some(last)) = (leaf.frames.first(), leaf.frames.last()) {
            self.expect("a frame", self.cursor, first.offset)?;
            self.cursor = last.offset.saturating_add(last.record_len());
        }
        let count = to_u64(leaf.frames.len());
        self.frames = self.frames.map(|frames| frames.saturating_add(count));
        (self.visit)(FilePiece::Leaf(Arc::clone(leaf)))
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let level = node.level - 1;
        for (i, child) in node.children.iter().enumerate() {
            let index = node.index * NODE_CHILDREN + to_u64(i);
            match child.place {
                PagePlace::Nowhere => {}
                PagePlace::Older => (self.visit)(FilePiece::Older {
                    level,
                    index,
                    child: *child,
                })?,
                PagePlace::Here(place) => self.child(level, index, place, child.content)?,
            }
        }
        Ok(())
    }

    fn child(&mut self, level: u8, index: u64, place: RecordRef, content: Content) -> Result<()> {
        match self.image.page(level, index, place, content) {
            Ok(page) => self.page(&page, place),
            Err(error) => self.lost(level, index, place, error),
        }
    }

    /// Reports a lost page and continues behind it.
    fn lost(&mut self, level: u8, index: u64, place: RecordRef, error: Error) -> Result<()> {
        self.cursor = end_of(place);
        self.frames = None;
        let first = index.saturating_mul(span_of(level));
        let blocks = self.image.header().blocks();
        (self.visit)(FilePiece::Lost {
            first: BlockIndex(first),
            count: span_of(level).min(blocks.saturating_sub(first)),
            error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{image_of, open};
    use super::super::trailer::{TRAILER_LEN, Trailer};
    use super::*;

    #[test]
    fn the_end_says_how_many_frames_there_are() {
        let good = image_of(&[7; 4096 * 9]);
        let found = |bytes: Vec<u8>| {
            let mut found = Vec::new();
            let walked = open(bytes).walk(&mut |piece| {
                if let FilePiece::Misplaced(error) = piece {
                    found.push(error.to_string());
                }
                Ok(())
            });
            walked.map(|()| found).unwrap()
        };
        assert_eq!(found(good.clone()), Vec::<String>::new());
        let at = good.len() - TRAILER_LEN;
        let trailer = Trailer::decode(&good[at..], to_u64(at), "x").unwrap();
        let wrong = Trailer {
            frames: trailer.frames + 1,
            ..trailer
        };
        let mut bad = good;
        bad.splice(at.., wrong.encode());
        let found = found(bad);
        assert!(
            found.len() == 1 && found[0].contains("3 frames"),
            "{found:?}"
        );
    }
}
