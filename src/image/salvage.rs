//! Rebuilding an image whose end, table or records are damaged, by walking its records.

use super::codec::{Compression, Decoder, Encoder};
use super::header::{HEADER_LEN, Header};
use super::info::{ByteRange, Info, RawTable, Summary, decode_tables};
use super::leaf::Leaf;
use super::limits::LEAF_BLOCKS;
use super::node::{Child, Node};
use super::record::{MAGIC, Place, RECORD_HEADER_LEN, RecordHeader, Section};
use super::state::BlockState;
use super::trailer::{TRAILER_LEN, Trailer};
use super::tree::leaf_len;
use super::window::encode_window;
use super::writer::{Finished, ImageWriter};
use crate::base::{
    BlockIndex, ByteLen, ByteOffset, Digest, Extent, RangeRead, Result, normalize, to_u64, to_usize,
};
use std::io::Write;
use std::ops::Range;
use uuid::Uuid;

/// Looking for the next record header goes in steps of this many bytes.
const SEARCH_STEP: usize = 1 << 20;

/// What a salvage made.
#[derive(Debug, Clone)]
pub struct Salvaged {
    /// The new image.
    pub finished: Finished,
    /// Bytes of the disk whose content is lost, ascending.
    pub lost: Vec<Extent>,
}

/// Writes into `sink` a whole image, with `new_id`, of everything that can still be read from the
/// damaged image `input`. Lost blocks become `Unreadable` where their neighbours are known, `Unused`
/// where nothing at all is; both are listed, in the result and in the new image.
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
        uniform: &found.uniform,
        writer,
        encoder: Encoder::new(compression)?,
        decoder: Decoder::new()?,
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

fn find_header(input: &dyn RangeRead) -> Result<Header> {
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
    input.read_at(at, &mut tail)?;
    Trailer::decode(&tail, at, input.name())
        .map(|trailer| trailer.header)
        .map_err(|_| error)
}

/// A record that was found, with its place in the file.
struct FoundRecord {
    offset: u64,
    record: RecordHeader,
}

impl FoundRecord {
    fn end(&self) -> u64 {
        self.offset + to_u64(RECORD_HEADER_LEN) + u64::from(self.record.stored_len)
    }

    /// First block and mask, when it is a frame.
    fn frame(&self) -> Option<(u64, u64)> {
        match self.record.place {
            Place::Frame { first, mask } => Some((first, mask)),
            _ => None,
        }
    }

    /// The decoded payload, or `None` when its checksum or its form is wrong.
    fn payload(&self, input: &dyn RangeRead, decoder: &mut Decoder) -> Option<Vec<u8>> {
        let mut stored = vec![0; to_usize(u64::from(self.record.stored_len))];
        input
            .read_at(self.offset + to_u64(RECORD_HEADER_LEN), &mut stored)
            .ok()?;
        (crc32fast::hash(&stored) == self.record.payload_crc).then_some(())?;
        let mut out = Vec::new();
        decoder.decode(self.record.codec, &stored, self.record.raw_len, &mut out)?;
        Some(out)
    }
}

/// The first record whose header stands at `from` or behind it.
fn next_record(input: &dyn RangeRead, header: &Header, from: u64) -> Result<Option<FoundRecord>> {
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
        input.read_at(at, &mut chunk)?;
        for start in chunk
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, w)| *w == MAGIC)
            .map(|(i, _)| i)
        {
            if let Some(record) = RecordHeader::decode(&chunk[start..], header) {
                return Ok(Some(FoundRecord {
                    offset: at + to_u64(start),
                    record,
                }));
            }
        }
        at += if at == from { 1 } else { to_u64(SEARCH_STEP) };
    }
    Ok(None)
}

/// What stands outside leaves: sections, and the runs that nodes call uniform.
struct Found {
    info: Info,
    tables: Vec<RawTable>,
    summary: Summary,
    /// Ascending, disjoint.
    uniform: Vec<(Range<u64>, BlockState)>,
}

impl Found {
    fn collect(input: &dyn RangeRead, header: &Header) -> Result<Found> {
        let mut decoder = Decoder::new()?;
        let mut found = Found {
            info: Info {
                set: "salvaged".into(),
                ..Info::default()
            },
            tables: Vec::new(),
            summary: Summary::default(),
            uniform: Vec::new(),
        };
        let mut at = to_u64(HEADER_LEN);
        while let Some(record) = next_record(input, header, at)? {
            at = record.end();
            let is_frame = record.frame().is_some();
            let payload = if is_frame {
                None
            } else {
                record.payload(input, &mut decoder)
            };
            if let Some(payload) = payload {
                found.take(header, record.record.place, &payload);
            }
        }
        found.uniform.sort_by_key(|(range, _)| range.start);
        // Damaged or forged nodes may contradict each other: the first word counts.
        let mut end = 0;
        found.uniform.retain(|(range, _)| {
            let keep = range.start >= end;
            end = end.max(range.end);
            keep
        });
        Ok(found)
    }

    fn take(&mut self, header: &Header, place: Place, payload: &[u8]) {
        match place {
            Place::Section(code) if code == Section::Info.code() => {
                self.info = serde_json::from_slice(payload).unwrap_or_default();
            }
            Place::Section(code) if code == Section::Tables.code() => {
                self.tables = decode_tables(payload).unwrap_or_default();
            }
            Place::Section(code) if code == Section::Summary.code() => {
                self.summary = serde_json::from_slice(payload).unwrap_or_default();
            }
            Place::Page { level, index } if level > 0 => {
                if let Some((node, _)) = Node::decode(payload, header, level, index) {
                    self.take_node(header, &node);
                }
            }
            _ => {}
        }
    }

    fn take_node(&mut self, header: &Header, node: &Node) {
        for (i, child) in node.children.iter().enumerate() {
            let Child::Uniform(state) = child else {
                continue;
            };
            let range = node.child_range(header, i);
            match self.uniform.last_mut() {
                Some((last, same)) if same == state && last.end == range.start => {
                    last.end = range.end;
                }
                _ => self.uniform.push((range, *state)),
            }
        }
    }
}

/// The new image being written, leaf by leaf.
struct Rebuild<'a, W: Write> {
    input: &'a dyn RangeRead,
    header: &'a Header,
    uniform: &'a [(Range<u64>, BlockState)],
    writer: ImageWriter<W>,
    encoder: Encoder,
    decoder: Decoder,
    fill: &'a dyn Fn(&mut [u8], ByteOffset),
    scratch: Vec<u8>,
    /// Frames found since the last leaf was written.
    frames: Vec<FoundRecord>,
    lost: Vec<Extent>,
}

impl<W: Write> Rebuild<'_, W> {
    fn run(&mut self) -> Result<()> {
        let mut at = to_u64(HEADER_LEN);
        while let Some(found) = next_record(self.input, self.header, at)? {
            at = found.end();
            match found.record.place {
                Place::Frame { first, .. } => {
                    self.close_leaf_before(first / LEAF_BLOCKS)?;
                    self.frames.push(found);
                }
                Place::Page { level: 0, index } => {
                    let payload = found.payload(self.input, &mut self.decoder);
                    let leaf = payload.and_then(|p| Leaf::decode(&p, self.header, index));
                    self.close_leaf_before(index)?;
                    self.write_leaf(index, leaf.as_ref().map(|(leaf, _)| leaf))?;
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
            let next = self.uniform.iter().find(|(range, _)| range.end > at);
            match next {
                Some((range, state)) if range.start <= at => {
                    self.writer.push_run(*state, range.end.min(end) - at)?;
                }
                other => {
                    let until = other.map_or(end, |(range, _)| range.start.min(end));
                    self.writer.push_run(BlockState::Unused, until - at)?;
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
        blocks: Range<u64>,
        page: Option<&Leaf>,
        frame: Option<&FoundRecord>,
    ) -> Result<()> {
        let size = self.header.block_size.as_usize();
        let held =
            frame.and_then(|f| Some((f.frame()?.1, f.payload(self.input, &mut self.decoder)?)));
        let (mask, payload) = held.unwrap_or_default();
        let mut pieces = payload.chunks(size);
        let mut data = Vec::with_capacity(self.header.window_len());
        let mut known = Vec::new();
        for (i, block) in blocks.clone().enumerate() {
            let extent = self
                .header
                .block_size
                .extent_of(BlockIndex(block), self.header.disk_len);
            let piece = (mask >> i & 1 == 1).then(|| pieces.next()).flatten();
            let state = page.and_then(|p| p.states.get(to_usize(block - p.first.0)).copied());
            let digest = page.and_then(|p| p.digest_of(BlockIndex(block)));
            let start = data.len();
            data.resize(start + to_usize(extent.len.0), 0);
            known.push(match (state, piece) {
                (Some(state), _) if !state.is_stored() => Some(state),
                (_, Some(piece)) if digest.is_none_or(|d| d == Digest::of(piece)) => {
                    data[start..].copy_from_slice(piece);
                    state
                }
                _ => {
                    (self.fill)(&mut data[start..], extent.start);
                    self.lost.push(extent);
                    Some(BlockState::Unreadable)
                }
            });
        }
        let first = BlockIndex(blocks.start);
        let (encoder, scratch) = (&mut self.encoder, &mut self.scratch);
        let window = encode_window(self.header, first, &data, &known, encoder, scratch)?;
        self.writer.push_window(&window)
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
