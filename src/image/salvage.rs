//! Rebuilding an image whose end, table or records are damaged, by walking its records.

use super::codec::{Compression, Encoder, decode_once};
use super::header::{HEADER_LEN, Header};
use super::info::{ByteRange, Info, RawTable, Summary, decode_info, decode_summary, decode_tables};
use super::leaf::Leaf;
use super::limits::LEAF_BLOCKS;
use super::node::{Child, Node, PagePlace};
use super::page::Content;
use super::record::{MAGIC, Place, RECORD_HEADER_LEN, RecordHeader, Section};
use super::state::{Block, BlockState};
use super::trailer::{RecordRef, TRAILER_LEN, Trailer};
use super::tree::leaf_len;
use super::window::{EncodedWindow, encode_frame};
use super::writer::{Finished, ImageWriter};
use crate::base::{
    BlockIndex, ByteLen, ByteOffset, Digest, Extent, RangeRead, Result, checksum_matches,
    normalize, to_u64, to_usize,
};
use std::io::Write;
use std::ops::Range;
use uuid::Uuid;

/// Looking for the next record header goes in steps of this many bytes.
const SEARCH_STEP: usize = 1 << 20;
/// Where something cannot be read, it is tried in steps of this many bytes.
const READ_STEP: usize = 4096;

/// What a salvage made.
#[derive(Debug, Clone)]
pub struct Salvaged {
    /// The new image.
    pub finished: Finished,
    /// Bytes of the disk whose content is lost, ascending.
    pub lost: Vec<Extent>,
}

/// Writes into `sink` a whole image, with `new_id`, of everything that can still be read from the
/// damaged image `input`; what that has in older images stays there. Lost blocks become `Unreadable`
/// where their neighbours are known, `Unused` where nothing at all is; both are listed, in the result
/// and in the new image.
/// `fill` writes the content of unreadable bytes that lie at a disk offset.
///
/// # Errors
/// `Damaged` when neither header nor trailer tells the geometry, or the image needs a newer version;
/// `Destination` when the sink fails.
pub fn salvage<W: Write>(
    input: &dyn RangeRead,
    sink: W,
    name: &str,
    new_id: Uuid,
    compression: Compression,
    fill: &dyn Fn(&mut [u8], ByteOffset),
) -> Result<(W, Salvaged)> {
    let header = find_header(input)?;
    let found = Found::collect(input, &header)?;
    let new_header = Header {
        id: new_id,
        ..header.clone()
    };
    let writer = ImageWriter::start(sink, name, new_header, &found.info, &found.tables)?;
    let mut rebuild = Rebuild {
        input,
        header: &header,
        known: &found.known,
        writer,
        encoder: Encoder::new(compression)?,
        fill,
        scratch: Vec::new(),
        frames: Vec::new(),
        lost: Vec::new(),
    };
    rebuild.run()?;
    let lost = normalize(rebuild.lost);
    let mut unreadable: Vec<ByteRange> = found.summary.unreadable;
    unreadable.extend(lost.iter().copied().map(ByteRange::from));
    let mut warnings = found.summary.warnings;
    warnings.push(format!(
        "salvaged from {}; {} ranges are lost",
        input.name(),
        lost.len()
    ));
    let summary = Summary {
        unreadable,
        warnings,
        ..found.summary
    };
    let (sink, finished) = rebuild.writer.finish(summary)?;
    Ok((sink, Salvaged { finished, lost }))
}

pub(super) fn find_header(input: &dyn RangeRead) -> Result<Header> {
    let mut head = vec![0; HEADER_LEN];
    let at_start = input
        .read_at(0, &mut head)
        .and_then(|()| Header::decode(&head, input.name()));
    let Err(error) = at_start else {
        return at_start;
    };
    let mut tail = vec![0; TRAILER_LEN];
    let Some(at) = input.len().checked_sub(to_u64(TRAILER_LEN)) else {
        return Err(error);
    };
    let tail = input.read_at(at, &mut tail).map(|()| tail);
    tail.and_then(|tail| Trailer::decode(&tail, at, input.name()))
        .map(|trailer| trailer.header)
        .map_err(|_| error)
}

/// A record that was found, with its place in the file.
pub(super) struct FoundRecord {
    offset: u64,
    pub(super) record: RecordHeader,
}

impl FoundRecord {
    /// Where it lies.
    pub(super) fn place(&self) -> RecordRef {
        RecordRef {
            offset: self.offset,
            stored_len: self.record.stored_len,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + to_u64(RECORD_HEADER_LEN) + u64::from(self.record.stored_len)
    }

    /// First block and mask, when it is a frame.
    pub(super) fn frame(&self) -> Option<(u64, u64)> {
        match self.record.place {
            Place::Frame { first, mask } => Some((first, mask)),
            _ => None,
        }
    }

    /// The decoded payload, or `None` when it cannot be read or its checksum or form is wrong.
    ///
    /// # Errors
    /// `Internal` when it could not be decoded for want of memory.
    pub(super) fn payload(&self, input: &dyn RangeRead) -> Result<Option<Vec<u8>>> {
        let mut stored = vec![0; to_usize(u64::from(self.record.stored_len))];
        let read = input.read_at(self.offset + to_u64(RECORD_HEADER_LEN), &mut stored);
        if read.is_err() || !checksum_matches(crc32fast::hash(&stored), self.record.payload_crc) {
            return Ok(None);
        }
        decode_once(self.record.codec, &stored, self.record.raw_len)
    }
}

/// Fills `buf` from `offset`; what cannot be read becomes zeros, in which no record begins.
fn read_what_can(input: &dyn RangeRead, offset: u64, buf: &mut [u8]) {
    if input.read_at(offset, buf).is_ok() {
        return;
    }
    let mut at = offset;
    for piece in buf.chunks_mut(READ_STEP) {
        if input.read_at(at, piece).is_err() {
            piece.fill(0);
        }
        at += to_u64(piece.len());
    }
}

/// The first record whose header stands at `from` or behind it.
pub(super) fn next_record(
    input: &dyn RangeRead,
    header: &Header,
    from: u64,
) -> Option<FoundRecord> {
    let mut at = from;
    let mut chunk = Vec::new();
    while at < input.len() {
        // Steps overlap by a header, so that none is cut in two.
        let len = (input.len() - at).min(to_u64(SEARCH_STEP + RECORD_HEADER_LEN));
        // At the right place, as it nearly always is, one header is enough.
        let len = if at == from {
            len.min(to_u64(RECORD_HEADER_LEN))
        } else {
            len
        };
        chunk.resize(to_usize(len), 0);
        read_what_can(input, at, &mut chunk);
        for start in chunk
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, w)| *w == MAGIC)
            .map(|(i, _)| i)
        {
            if let Some(record) = RecordHeader::decode(&chunk[start..], header) {
                return Some(FoundRecord {
                    offset: at + to_u64(start),
                    record,
                });
            }
        }
        at += if at == from { 1 } else { to_u64(SEARCH_STEP) };
    }
    None
}

/// What an image says of itself where nothing is known of that.
pub(super) fn unknown_info() -> Info {
    Info {
        set: "salvaged".into(),
        ..Info::default()
    }
}

/// What stands outside leaves: sections, and what nodes say of blocks that have no page here.
struct Found {
    info: Info,
    tables: Vec<RawTable>,
    summary: Summary,
    /// Ascending, disjoint.
    known: Vec<(Range<u64>, Known)>,
}

/// What a node says of blocks below it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    Uniform(BlockState, u32),
    /// A page of this level that lies in an older file.
    Older(u8, Child),
}

impl Found {
    fn collect(input: &dyn RangeRead, header: &Header) -> Result<Found> {
        let mut found = Found {
            info: unknown_info(),
            tables: Vec::new(),
            summary: Summary::default(),
            known: Vec::new(),
        };
        let mut at = to_u64(HEADER_LEN);
        while let Some(record) = next_record(input, header, at) {
            at = record.end();
            let is_frame = record.frame().is_some();
            let payload = if is_frame {
                None
            } else {
                record.payload(input)?
            };
            if let Some(payload) = payload {
                found.take(header, record.record.place, &payload);
            }
        }
        found.known.sort_by_key(|(range, _)| range.start);
        // Damaged or forged nodes may contradict each other: the first word counts.
        let mut end = 0;
        found.known.retain(|(range, _)| {
            let keep = range.start >= end;
            end = end.max(range.end);
            keep
        });
        Ok(found)
    }

    fn take(&mut self, header: &Header, place: Place, payload: &[u8]) {
        match place {
            Place::Section(code) if code == Section::Info.code() => {
                self.info = decode_info(payload).unwrap_or_default();
            }
            Place::Section(code) if code == Section::Tables.code() => {
                self.tables = decode_tables(payload).unwrap_or_default();
            }
            Place::Section(code) if code == Section::Summary.code() => {
                self.summary = decode_summary(payload).unwrap_or_default();
            }
            Place::Page { level, index } if level > 0 => {
                if let Some((node, ..)) = Node::decode(payload, header, level, index) {
                    self.take_node(header, &node);
                }
            }
            _ => {}
        }
    }

    fn take_node(&mut self, header: &Header, node: &Node) {
        for (i, child) in node.children.iter().enumerate() {
            let range = node.child_range(header, i);
            let known = match (child.place, child.content) {
                (PagePlace::Nowhere, Content::Uniform(state)) => Known::Uniform(state, child.since),
                (PagePlace::Older, _) => Known::Older(node.level - 1, *child),
                _ => continue,
            };
            match self.known.last_mut() {
                Some((last, same))
                    if *same == known
                        && last.end == range.start
                        && matches!(known, Known::Uniform(..)) =>
                {
                    last.end = range.end;
                }
                _ => self.known.push((range, known)),
            }
        }
    }
}

/// The new image being written, leaf by leaf.
struct Rebuild<'a, W: Write> {
    input: &'a dyn RangeRead,
    header: &'a Header,
    known: &'a [(Range<u64>, Known)],
    writer: ImageWriter<W>,
    encoder: Encoder,
    fill: &'a dyn Fn(&mut [u8], ByteOffset),
    scratch: Vec<u8>,
    /// Frames found since the last leaf was written.
    frames: Vec<FoundRecord>,
    lost: Vec<Extent>,
}

impl<W: Write> Rebuild<'_, W> {
    fn run(&mut self) -> Result<()> {
        let mut at = to_u64(HEADER_LEN);
        while let Some(found) = next_record(self.input, self.header, at) {
            at = found.end();
            match found.record.place {
                Place::Frame { first, .. } => {
                    self.close_leaf_before(first / LEAF_BLOCKS)?;
                    self.frames.push(found);
                }
                Place::Page { level: 0, index } => {
                    let payload = found.payload(self.input)?;
                    let leaf = payload.and_then(|p| Leaf::decode(&p, self.header, index));
                    self.close_leaf_before(index)?;
                    self.write_leaf(index, leaf.as_ref().map(|(leaf, ..)| leaf))?;
                }
                _ => {}
            }
        }
        self.close_leaf_before(u64::MAX)?;
        self.write_gap(self.header.blocks())
    }

    /// Writes the leaf whose frames are waiting, without its page, when leaf `index` begins.
    fn close_leaf_before(&mut self, index: u64) -> Result<()> {
        let open = self
            .frames
            .first()
            .and_then(FoundRecord::frame)
            .map(|(first, _)| first / LEAF_BLOCKS);
        match open {
            Some(open) if open != index => self.write_leaf(open, None),
            _ => Ok(()),
        }
    }

    /// Writes what nodes say of the blocks up to `end`; the rest of them is lost.
    fn write_gap(&mut self, end: u64) -> Result<()> {
        while self.writer.next().0 < end {
            let at = self.writer.next().0;
            let next = self.known.partition_point(|(range, _)| range.end <= at);
            let next = self.known.get(next);
            match next {
                Some((range, Known::Uniform(state, since))) if range.start <= at => {
                    let count = range.end.min(end) - at;
                    self.writer.push_run(*state, *since, count)?;
                }
                Some((range, Known::Older(level, child)))
                    if range.start == at && range.end <= end =>
                {
                    self.writer.push_subtree(*level, *child)?;
                }
                other => {
                    let until = match other {
                        Some((range, _)) if range.start > at => range.start.min(end),
                        Some((range, _)) => range.end.min(end),
                        None => end,
                    };
                    let since = self.header.sequence;
                    self.writer
                        .push_run(BlockState::Unused, since, until - at)?;
                    self.lose(at..until);
                }
            }
        }
        Ok(())
    }

    /// Writes leaf `index` from the frames found for it and, if it survived, its page.
    fn write_leaf(&mut self, index: u64, page: Option<&Leaf>) -> Result<()> {
        let frames = std::mem::take(&mut self.frames);
        let first = index.saturating_mul(LEAF_BLOCKS);
        let count = leaf_len(self.header, index);
        // Leaves come in order; one that does not is a forgery or a duplicate.
        if first < self.writer.next().0 || count == 0 {
            return Ok(());
        }
        self.write_gap(first)?;
        let windows = self.header.window_blocks();
        for window in (first..first + count).step_by(to_usize(windows)) {
            let frame = frames
                .iter()
                .find(|f| f.frame().is_some_and(|(first, _)| first == window));
            let blocks = windows.min(first + count - window);
            self.write_window(window..window + blocks, page, frame)?;
        }
        Ok(())
    }

    fn write_window(
        &mut self,
        range: Range<u64>,
        page: Option<&Leaf>,
        frame: Option<&FoundRecord>,
    ) -> Result<()> {
        let size = self.header.block_size;
        let payload = frame.map(|f| f.payload(self.input)).transpose()?.flatten();
        let mask_of = |f: &FoundRecord| payload.as_ref().and(f.frame()).map(|(_, mask)| mask);
        let held_mask = frame.and_then(mask_of).unwrap_or(0);
        let payload = payload.as_deref().unwrap_or_default();
        let mut pieces = payload.chunks(size.as_usize());
        self.scratch.clear();
        let mut blocks = Vec::new();
        let mut mask = 0u64;
        for (i, index) in range.clone().enumerate() {
            let extent = size.extent_of(BlockIndex(index), self.header.disk_len);
            let piece = (held_mask >> i & 1 == 1).then(|| pieces.next()).flatten();
            let said = page.and_then(|p| p.block(BlockIndex(index))).copied();
            let elsewhere =
                said.filter(|b| !b.state.has_content() || b.since <= self.header.parent_sequence());
            if let Some(block) = elsewhere {
                blocks.push(block);
                continue;
            }
            let start = self.scratch.len();
            let right = |bytes: &&[u8]| said.is_none_or(|b| b.digest == Digest::of(bytes));
            let mut block = said.unwrap_or(Block::empty(BlockState::Data, self.header.sequence));
            match piece.filter(right) {
                Some(bytes) => self.scratch.extend_from_slice(bytes),
                None => {
                    self.scratch.resize(start + to_usize(extent.len.0), 0);
                    (self.fill)(&mut self.scratch[start..], extent.start);
                    self.lost.push(extent);
                    block = Block::empty(BlockState::Unreadable, self.header.sequence);
                }
            }
            block.digest = Digest::of(&self.scratch[start..]);
            mask |= 1 << i;
            blocks.push(block);
        }
        let frame = match mask {
            0 => None,
            _ => Some(encode_frame(&self.scratch, mask, &mut self.encoder)?),
        };
        let first = BlockIndex(range.start);
        self.writer
            .push_window(&EncodedWindow::with_frame(first, blocks, frame))
    }

    fn lose(&mut self, blocks: Range<u64>) {
        let size = self.header.block_size;
        let start = size
            .extent_of(BlockIndex(blocks.start), self.header.disk_len)
            .start;
        let end = size
            .extent_of(BlockIndex(blocks.end), self.header.disk_len)
            .start;
        self.lost.push(Extent {
            start,
            len: ByteLen(end.0 - start.0),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::super::limits::MAX_DISK_LEN;
    use super::*;

    /// A damaged header may say anything of the disk.
    #[test]
    fn a_long_disk_of_which_nothing_is_known_is_no_work() {
        let header = sample(MAX_DISK_LEN);
        let fill = |_: &mut [u8], _| unreachable!("nothing has content");
        let id = Uuid::from_u128(3);
        let none = Compression::None;
        let made = salvage(&header.encode(), Vec::new(), "new", id, none, &fill);
        let (file, salvaged) = made.unwrap();
        assert_eq!(salvaged.lost, [Extent::whole(header.disk_len)]);
        assert!(file.len() < 4096);
    }
}
