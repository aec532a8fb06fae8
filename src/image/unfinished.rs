//! The beginning of an image whose end was never written, for the run that writes the same image again.
//!
//! Nothing in it is believed because it is there: records by their checksums, and frames only where a leaf page
//! behind them says of their blocks what was found on the disk anew.

use super::codec::decode_once;
use super::header::{HEADER_LEN, Header};
use super::info::{Info, decode_info};
use super::leaf::{FrameRef, Leaf};
use super::limits::LEAF_BLOCKS;
use super::record::{Place, RECORD_HEADER_LEN, RecordHeader, Section};
use super::state::Block;
use super::window::EncodedFrame;
use crate::base::{BlockIndex, RangeRead, checksum_matches, to_u64, to_usize};
use std::sync::{Arc, Mutex, PoisonError};

/// An image that was begun.
pub struct Unfinished {
    file: Arc<dyn RangeRead>,
    header: Header,
    info: Info,
    front: u64,
    cursor: Mutex<Cursor>,
}

/// How far its records are known.
struct Cursor {
    /// Where the next record stands; `None` where one was not as it should be.
    at: Option<u64>,
    /// The leaf that was found last.
    leaf: Option<Arc<KeptLeaf>>,
}

/// A leaf page that an unfinished image has, and its frames.
pub struct KeptLeaf {
    file: Arc<dyn RangeRead>,
    leaf: Leaf,
    /// As many as the leaf has frames.
    records: Vec<RecordHeader>,
}

impl std::fmt::Debug for KeptLeaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptLeaf({})", self.leaf.index())
    }
}

impl Unfinished {
    /// The image that begins in `file`; `None` when its header and its first two sections are not all there.
    pub fn open(file: Arc<dyn RangeRead>) -> Option<Unfinished> {
        let mut head = [0; HEADER_LEN];
        file.read_at(0, &mut head).ok()?;
        let header = Header::decode(&head, file.name()).ok()?;
        let mut at = to_u64(HEADER_LEN);
        let mut section = |section: Section| {
            let record = record_at(file.as_ref(), &header, at)?;
            (record.place == Place::Section(section.code())).then_some(())?;
            let stored = payload_at(file.as_ref(), at, &record)?;
            at = end_of(at, &record);
            decode_once(record.codec, &stored, record.raw_len).ok()?
        };
        let info = decode_info(&section(Section::Info)?)?;
        section(Section::Tables)?;
        let cursor = Mutex::new(Cursor {
            at: Some(at),
            leaf: None,
        });
        Some(Unfinished {
            file,
            header,
            info,
            front: at,
            cursor,
        })
    }

    /// Identity and geometry.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it says of itself.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Bytes in front of the first frame.
    pub fn front(&self) -> u64 {
        self.front
    }

    /// The leaf page with `block`, when the file has it and all before it is whole. To be asked in ascending
    /// order: what lies before an earlier answer is forgotten.
    pub fn leaf(&self, block: BlockIndex) -> Option<Arc<KeptLeaf>> {
        let wanted = block.0 / LEAF_BLOCKS;
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &cursor.leaf {
                Some(found) if found.leaf.index() == wanted => return cursor.leaf.clone(),
                Some(found) if found.leaf.index() > wanted => return None,
                _ => {}
            }
            let (leaf, end) = self.next_leaf(cursor.at.take()?)?;
            *cursor = Cursor {
                at: Some(end),
                leaf: Some(Arc::new(leaf)),
            };
        }
    }

    /// The first leaf behind byte `at`, and where it ends. `None` where anything before its end is not as the
    /// format demands.
    fn next_leaf(&self, mut at: u64) -> Option<(KeptLeaf, u64)> {
        let (mut frames, mut records) = (Vec::new(), Vec::new());
        loop {
            let record = record_at(self.file.as_ref(), &self.header, at)?;
            let end = end_of(at, &record);
            match record.place {
                Place::Frame { first, mask } => {
                    frames.push(FrameRef {
                        first: BlockIndex(first),
                        mask,
                        offset: at,
                        stored_len: record.stored_len,
                    });
                    // A window has one frame at most, and no leaf more windows than blocks.
                    (to_u64(records.len()) < LEAF_BLOCKS).then_some(())?;
                    records.push(record);
                }
                Place::Page { level: 0, index } => {
                    let payload = payload_at(self.file.as_ref(), at, &record)?;
                    let (leaf, ..) = Leaf::decode(&payload, &self.header, index)?;
                    (leaf.frames == frames).then_some(())?;
                    let file = Arc::clone(&self.file);
                    let leaf = KeptLeaf {
                        file,
                        leaf,
                        records,
                    };
                    return Some((leaf, end));
                }
                Place::Page { .. } => {
                    frames.is_empty().then_some(())?;
                    payload_at(self.file.as_ref(), at, &record)?;
                }
                Place::Section(_) => return None,
            }
            at = end;
        }
    }
}

impl KeptLeaf {
    /// The frame of the window at block `first` that holds the blocks in `mask`, when the leaf says of the window
    /// just what `blocks` do, and the frame is whole.
    pub(super) fn frame(
        &self,
        first: BlockIndex,
        mask: u64,
        blocks: &[Block],
    ) -> Option<EncodedFrame> {
        let from = to_usize(first.0.checked_sub(self.leaf.first.0)?);
        let known = self
            .leaf
            .blocks
            .get(from..from.checked_add(blocks.len())?)?;
        (known == blocks).then_some(())?;
        let nth = self.leaf.frames.iter().position(|f| f.first == first)?;
        let (frame, record) = (self.leaf.frames.get(nth)?, self.records.get(nth)?);
        (frame.mask == mask).then_some(())?;
        Some(EncodedFrame {
            mask,
            codec: record.codec,
            raw_len: record.raw_len,
            payload: payload_at(self.file.as_ref(), frame.offset, record)?,
            crc: record.payload_crc,
            at: Some(frame.offset),
        })
    }
}

/// The record header at byte `at`, of a record that does not pass the end of the file.
fn record_at(file: &dyn RangeRead, header: &Header, at: u64) -> Option<RecordHeader> {
    let mut bytes = [0; RECORD_HEADER_LEN];
    at.checked_add(to_u64(RECORD_HEADER_LEN))?;
    file.read_at(at, &mut bytes).ok()?;
    let record = RecordHeader::decode(&bytes, header)?;
    (end_of(at, &record) <= file.len()).then_some(record)
}

/// Saturates: the position comes from the file.
fn end_of(at: u64, record: &RecordHeader) -> u64 {
    at.saturating_add(to_u64(RECORD_HEADER_LEN))
        .saturating_add(u64::from(record.stored_len))
}

/// The payload of the record at byte `at`, as it is stored, when its checksum is right.
fn payload_at(file: &dyn RangeRead, at: u64, record: &RecordHeader) -> Option<Vec<u8>> {
    // The length is within the limits of its kind, and within the file.
    let mut payload = vec![0; to_usize(u64::from(record.stored_len))];
    let from = at.checked_add(to_u64(RECORD_HEADER_LEN))?;
    file.read_at(from, &mut payload).ok()?;
    checksum_matches(crc32fast::hash(&payload), record.payload_crc).then_some(payload)
}
