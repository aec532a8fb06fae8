//! Reading an image once, front to back, as it comes out of a pipe.

use super::codec::decode_once;
use super::frame_reader::FrameSource;
use super::header::{HEADER_LEN, Header};
use super::info::{Info, RawTable, Summary, decode_info, decode_summary, decode_tables};
use super::leaf::{FrameRef, Leaf};
use super::limits::{LEAF_BLOCKS, NODE_CHILDREN};
use super::node::{Node, PagePlace};
use super::page::{Body, Content, Page};
use super::record::{Place, RECORD_HEADER_LEN, RecordHeader, Section};
use super::resolved::Source;
use super::state::BlockState;
use super::trailer::{MAGIC as TRAILER_MAGIC, RecordRef, TRAILER_LEN, Trailer};
use super::tree::top_level;
use super::writer::root_digest;
use crate::base::{Digest, Error, ErrorKind, Result, checksum_matches, to_u64, to_usize};
use std::io::{ErrorKind as IoKind, Read};
use std::ops::Range;
use std::sync::Arc;

/// What an image says of itself at its beginning.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Identity and geometry.
    pub header: Header,
    /// What was known when it was begun.
    pub info: Info,
    /// The raw partition tables.
    pub tables: Vec<RawTable>,
}

/// What an image says of itself at its end.
#[derive(Debug, Clone)]
pub struct Ending {
    /// What was known when it was complete.
    pub summary: Summary,
    /// The root digest.
    pub root: Digest,
    /// Length of the image in bytes.
    pub len: u64,
}

/// A part of an image in the order in which it comes.
pub enum StreamPiece {
    /// A leaf with all its frames.
    Leaf(Arc<StreamLeaf>),
    /// Blocks of one state without content. They come behind the leaves around them.
    Run {
        /// Their numbers.
        blocks: Range<u64>,
        /// Their state.
        state: BlockState,
    },
    /// Nothing follows, and everything before it was what it should be.
    End(Box<Ending>),
}

/// A leaf page and the records of its frames.
pub struct StreamLeaf {
    /// The page.
    pub leaf: Arc<Leaf>,
    name: String,
    /// As many as the leaf has frames: header and stored payload.
    records: Vec<(RecordHeader, Vec<u8>)>,
}

impl StreamLeaf {
    /// The frames with content of the window `blocks`.
    pub fn sources(self: &Arc<StreamLeaf>, blocks: &Range<u64>) -> Vec<Source> {
        let frames = self.leaf.frames.iter();
        let of_window = frames.filter(|f| blocks.contains(&f.first.0));
        of_window
            .map(|frame| Source {
                wanted: frame.mask,
                frame: Ok((Arc::clone(self) as Arc<dyn FrameSource>, *frame)),
            })
            .collect()
    }
}

impl FrameSource for StreamLeaf {
    fn record(&self, frame: &FrameRef, stored: &mut Vec<u8>) -> Result<RecordHeader> {
        let at = self.leaf.frames.iter().position(|f| f == frame);
        let Some((record, payload)) = at.and_then(|at| self.records.get(at)) else {
            return Err(self.damage(frame, "it is not there"));
        };
        if !checksum_matches(crc32fast::hash(payload), record.payload_crc) {
            return Err(self.damage(frame, "the checksum is wrong"));
        }
        // Where a file has its header, nothing is looked at.
        stored.resize(RECORD_HEADER_LEN, 0);
        stored.extend_from_slice(payload);
        Ok(*record)
    }

    fn is_cached(&self, _frame: &FrameRef) -> bool {
        true
    }

    fn damage(&self, frame: &FrameRef, why: &str) -> Error {
        damaged(&self.name, "read", frame.offset, why)
    }
}

fn damaged(name: &str, operation: &str, at: u64, why: &str) -> Error {
    Error::new(
        ErrorKind::Damaged,
        operation,
        format!("{name} at byte {at}"),
    )
    .because(why)
}

/// A page that came and that no node has named yet.
struct Seen {
    level: u8,
    index: u64,
    at: RecordRef,
    content: Content,
    digest: Digest,
}

/// The bytes, with a position.
struct Raw<R> {
    input: R,
    name: String,
    at: u64,
}

impl<R: Read> Raw<R> {
    fn damaged(&self, operation: &str, at: u64, why: &str) -> Error {
        damaged(&self.name, operation, at, why)
    }

    /// What kept the pipe from being read; whoever feeds it may say so itself.
    fn unreadable(&self, e: std::io::Error) -> Error {
        e.downcast::<Error>().unwrap_or_else(|e| {
            self.damaged("read", self.at, "the pipe cannot be read")
                .caused_by(e)
        })
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.input.read_exact(buf).map_err(|e| match e.kind() {
            IoKind::UnexpectedEof => self
                .damaged("read", self.at, "it ends there: the image is incomplete")
                .hint("what writes into the pipe has failed or was stopped"),
            _ => self.unreadable(e),
        })?;
        self.at += to_u64(buf.len());
        Ok(())
    }

    /// Whether nothing follows.
    fn at_end(&mut self) -> Result<bool> {
        let mut one = [0];
        loop {
            match self.input.read(&mut one) {
                Ok(n) => return Ok(n == 0),
                Err(e) if e.kind() == IoKind::Interrupted => {}
                Err(e) => return Err(self.unreadable(e)),
            }
        }
    }

    /// The rest of a record whose header begins with `start`.
    fn record(&mut self, header: &Header, start: [u8; 8]) -> Result<(RecordRef, RecordHeader)> {
        let offset = self.at - to_u64(start.len());
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..start.len()].copy_from_slice(&start);
        self.fill(&mut bytes[start.len()..])?;
        let record = RecordHeader::decode(&bytes, header);
        let record = record
            .ok_or_else(|| self.damaged("read", offset, "the record header there is damaged"))?;
        let at = RecordRef {
            offset,
            stored_len: record.stored_len,
        };
        Ok((at, record))
    }

    /// The payload of a record; of a frame, its checksum is left to whoever decodes it.
    fn payload(&mut self, at: RecordRef, record: &RecordHeader) -> Result<Vec<u8>> {
        // The length is within the limits of its kind: decoding the header has seen to that.
        let mut payload = vec![0; to_usize(u64::from(record.stored_len))];
        self.fill(&mut payload)?;
        let is_frame = matches!(record.place, Place::Frame { .. });
        if !is_frame && !checksum_matches(crc32fast::hash(&payload), record.payload_crc) {
            return Err(self.damaged("read", at.offset, "the checksum is wrong"));
        }
        Ok(payload)
    }

    fn decoded(&mut self, at: RecordRef, record: &RecordHeader) -> Result<Vec<u8>> {
        let payload = self.payload(at, record)?;
        let decoded = decode_once(record.codec, &payload, record.raw_len)?;
        decoded.ok_or_else(|| self.damaged("decode", at.offset, "its data is malformed"))
    }

    fn section(&mut self, header: &Header, section: Section) -> Result<(RecordRef, Vec<u8>)> {
        let mut start = [0; 8];
        self.fill(&mut start)?;
        let (at, record) = self.record(header, start)?;
        if record.place != Place::Section(section.code()) {
            let why = format!("the {} should stand there", section.name());
            return Err(self.damaged("read", at.offset, &why));
        }
        Ok((at, self.decoded(at, &record)?))
    }
}

/// A full image that is read front to back. Memory: one leaf and its frames in their stored form, at
/// most 256 blocks and 64 KiB for each, and a node's pages for each level.
pub struct ImageStream<R> {
    raw: Raw<R>,
    beginning: Beginning,
    info: (RecordRef, Digest),
    tables: (RecordRef, Digest),
    frames: u64,
    /// Frames whose leaf has not come yet.
    held: Vec<(RecordHeader, Vec<u8>)>,
    /// Pages that no node has named yet.
    seen: Vec<Seen>,
    summary: Option<(RecordRef, Digest, Summary)>,
    /// What a node told of, last first.
    runs: Vec<(Range<u64>, BlockState)>,
}

impl<R: Read> ImageStream<R> {
    /// Reads the beginning of an image from `input`, which is called `name` in messages.
    ///
    /// # Errors
    /// `Damaged` when it is no image, its beginning is damaged, or it is not full: another image is
    /// needed beside it then.
    pub fn open(input: R, name: impl Into<String>) -> Result<ImageStream<R>> {
        let mut raw = Raw {
            input,
            name: name.into(),
            at: 0,
        };
        let mut head = [0; HEADER_LEN];
        raw.fill(&mut head)?;
        let header = Header::decode(&head, &raw.name)?;
        if header.parent.is_some() {
            return Err(Error::new(ErrorKind::Damaged, "read", &raw.name)
                .because("it builds on another image, which is needed too")
                .hint(
                    "only full images can be read from a pipe: put both into one folder and name \
                     it with --store",
                ));
        }
        let (info_at, info) = raw.section(&header, Section::Info)?;
        let (tables_at, tables) = raw.section(&header, Section::Tables)?;
        let digests = (Digest::of(&info), Digest::of(&tables));
        let malformed = |at: RecordRef, section: Section| {
            let why = format!("the {} there is malformed", section.name());
            raw.damaged("decode", at.offset, &why)
        };
        let info = decode_info(&info).ok_or_else(|| malformed(info_at, Section::Info))?;
        let tables = decode_tables(&tables);
        let tables = tables.ok_or_else(|| malformed(tables_at, Section::Tables))?;
        Ok(ImageStream {
            raw,
            beginning: Beginning {
                header,
                info,
                tables,
            },
            info: (info_at, digests.0),
            tables: (tables_at, digests.1),
            frames: 0,
            held: Vec::new(),
            seen: Vec::new(),
            summary: None,
            runs: Vec::new(),
        })
    }

    /// What to call it in messages.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// What it is read from.
    pub fn input(&self) -> &R {
        &self.raw.input
    }

    /// What it said at its beginning.
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// The next part. Behind the end, nothing may be asked for.
    ///
    /// # Errors
    /// `Damaged` when what comes is not what the format demands: nothing behind that can be trusted. A
    /// frame that is damaged is no such error; whoever reads it from its leaf finds that.
    pub fn next_piece(&mut self) -> Result<StreamPiece> {
        loop {
            if let Some((blocks, state)) = self.runs.pop() {
                return Ok(StreamPiece::Run { blocks, state });
            }
            let mut start = [0; 8];
            self.raw.fill(&mut start)?;
            if start == TRAILER_MAGIC {
                return Ok(StreamPiece::End(Box::new(self.end(start)?)));
            }
            let (at, record) = self.raw.record(&self.beginning.header, start)?;
            if self.summary.is_some() {
                return Err(self.misplaced(at, "the summary must be the last record"));
            }
            match record.place {
                Place::Frame { first, .. } => self.frame(at, record, first)?,
                Place::Page { level, index } => {
                    if let Some(leaf) = self.page(at, &record, level, index)? {
                        return Ok(StreamPiece::Leaf(leaf));
                    }
                }
                Place::Section(code) if code == Section::Summary.code() => {
                    self.take_summary(at, &record)?;
                }
                Place::Section(_) => return Err(self.misplaced(at, "a section does not belong")),
            }
        }
    }

    fn misplaced(&self, at: RecordRef, why: &str) -> Error {
        let why = format!("{why} there");
        self.raw.damaged("read", at.offset, &why)
    }

    fn frame(&mut self, at: RecordRef, record: RecordHeader, first: u64) -> Result<()> {
        let follows = match self.held.last().map(|(last, _)| last.place) {
            Some(Place::Frame { first: last, .. }) => {
                last < first && last / LEAF_BLOCKS == first / LEAF_BLOCKS
            }
            _ => true,
        };
        // Ascending and of one leaf: a leaf has no more than 256.
        if !follows {
            return Err(self.misplaced(at, "a frame does not belong"));
        }
        let payload = self.raw.payload(at, &record)?;
        self.held.push((record, payload));
        self.frames += 1;
        Ok(())
    }

    fn page(
        &mut self,
        at: RecordRef,
        record: &RecordHeader,
        level: u8,
        index: u64,
    ) -> Result<Option<Arc<StreamLeaf>>> {
        let payload = self.raw.decoded(at, record)?;
        let header = &self.beginning.header;
        let top = top_level(header.blocks());
        // What no node names piles up only in a forged image: each level has one open node.
        let most = to_usize(NODE_CHILDREN) * (usize::from(top) + 1);
        if level > top || self.seen.len() >= most {
            return Err(self.misplaced(at, "a table page does not belong"));
        }
        let page = Page::decode(&payload, header, level, index)
            .ok_or_else(|| self.misplaced(at, "a malformed table page stands"))?;
        let leaf = match &page.body {
            Body::Leaf(leaf) => Some(self.leaf(at, leaf)?),
            Body::Node(node) => {
                self.node(at, node)?;
                None
            }
        };
        self.seen.push(Seen {
            level,
            index,
            at,
            content: page.content,
            digest: page.digest,
        });
        Ok(leaf)
    }

    /// The leaf's frames are those that came before it, and no others.
    fn leaf(&mut self, at: RecordRef, leaf: &Arc<Leaf>) -> Result<Arc<StreamLeaf>> {
        let records = std::mem::take(&mut self.held);
        let mut offset = at.offset;
        let mut all = records.len() == leaf.frames.len();
        for ((record, _), frame) in records.iter().zip(&leaf.frames).rev() {
            offset = offset.saturating_sub(frame.record_len());
            let place = Place::Frame {
                first: frame.first.0,
                mask: frame.mask,
            };
            all &= record.place == place
                && record.stored_len == frame.stored_len
                && frame.offset == offset;
        }
        if !all {
            return Err(self.misplaced(
                at,
                "a leaf page that has other frames than came before stands",
            ));
        }
        Ok(Arc::new(StreamLeaf {
            leaf: Arc::clone(leaf),
            name: self.raw.name.clone(),
            records,
        }))
    }

    /// The node's children in this file are the pages that came before it, and no others.
    fn node(&mut self, at: RecordRef, node: &Node) -> Result<()> {
        let wrong = "a node page that has other children than came before stands";
        let below = node.level - 1;
        let first = self.seen.iter().rposition(|s| s.level != below);
        let from = first.map_or(0, |last| last + 1);
        let mut children = self.seen.split_off(from).into_iter();
        let mut runs = Vec::new();
        for (i, child) in node.children.iter().enumerate() {
            match (child.place, child.content) {
                (PagePlace::Here(place), content) => {
                    let same = children.next().is_some_and(|s| {
                        s.index == node.child_index(i)
                            && s.at == place
                            && s.content.matches(content)
                    });
                    if !same {
                        return Err(self.misplaced(at, wrong));
                    }
                }
                (PagePlace::Nowhere, Content::Uniform(state)) => {
                    runs.push((node.child_range(&self.beginning.header, i), state));
                }
                _ => return Err(self.misplaced(at, wrong)),
            }
        }
        if children.next().is_some() || !self.held.is_empty() {
            return Err(self.misplaced(at, wrong));
        }
        runs.reverse();
        self.runs = runs;
        Ok(())
    }

    fn take_summary(&mut self, at: RecordRef, record: &RecordHeader) -> Result<()> {
        let bytes = self.raw.decoded(at, record)?;
        let summary = decode_summary(&bytes)
            .ok_or_else(|| self.misplaced(at, "a malformed summary section stands"))?;
        self.summary = Some((at, Digest::of(&bytes), summary));
        Ok(())
    }

    fn end(&mut self, start: [u8; 8]) -> Result<Ending> {
        let offset = self.raw.at - to_u64(start.len());
        let mut bytes = [0; TRAILER_LEN];
        bytes[..start.len()].copy_from_slice(&start);
        self.raw.fill(&mut bytes[start.len()..])?;
        let trailer = Trailer::decode(&bytes, offset, &self.raw.name)?;
        let header = &self.beginning.header;
        let wrong = |why: &str| self.raw.damaged("read", offset, why);
        let Some((summary_at, summary_digest, summary)) = self.summary.take() else {
            return Err(wrong("the summary is missing before it"));
        };
        let top = match self.seen.as_slice() {
            [top] if top.level == top_level(header.blocks()) && self.held.is_empty() => top,
            _ => return Err(wrong("the table before it is incomplete")),
        };
        let same = trailer.header == *header
            && trailer.info == self.info.0
            && trailer.tables == self.tables.0
            && trailer.summary == summary_at
            && trailer.frames == self.frames
            && trailer.top == top.at
            && checksum_matches(top.digest, trailer.top_digest);
        if !same {
            return Err(wrong("the end does not fit what came before it"));
        }
        let digests = [top.digest, self.info.1, self.tables.1, summary_digest];
        if !checksum_matches(root_digest(header, digests), trailer.root) {
            return Err(wrong("its parts do not match its root digest"));
        }
        if !self.raw.at_end()? {
            return Err(self
                .raw
                .damaged("read", self.raw.at, "bytes follow its end"));
        }
        Ok(Ending {
            summary,
            root: trailer.root,
            len: self.raw.at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::super::info::encode_tables;
    use super::super::record::Codec;
    use super::super::state::Block;
    use super::*;
    use crate::base::BlockIndex;

    fn record(header: &Header, place: Place, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap();
        let record = RecordHeader {
            place,
            codec: Codec::Raw,
            stored_len: len,
            raw_len: len,
            payload_crc: crc32fast::hash(payload),
        };
        [record.encode(header.tag()), payload.to_vec()].concat()
    }

    #[test]
    fn pages_that_no_node_names_do_not_pile_up() {
        let header = sample(4096 * 600);
        let info = serde_json::to_vec(&Info::default()).unwrap();
        let mut bytes = header.encode();
        bytes.extend(record(&header, Place::Section(1), &info));
        bytes.extend(record(&header, Place::Section(2), &encode_tables(&[])));
        let mut blocks = vec![Block::empty(BlockState::Zero, 1); 256];
        blocks[7] = Block::empty(BlockState::Unused, 1);
        let leaf = Leaf {
            first: BlockIndex(0),
            blocks,
            frames: Vec::new(),
        };
        let page = record(
            &header,
            Place::Page { level: 0, index: 0 },
            &leaf.encode().0,
        );
        bytes.extend(page.repeat(1000));
        let mut stream = ImageStream::open(bytes.as_slice(), "pipe").unwrap();
        let pieces = std::iter::from_fn(|| stream.next_piece().ok()).count();
        assert_eq!(pieces, 2 * 128);
    }
}
