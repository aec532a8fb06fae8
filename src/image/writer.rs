//! Writing an image front to back into any sink.

use super::codec::{Compression, Encoder};
use super::header::Header;
use super::info::{BlockCounts, ByteRange, Info, RawTable, Summary, encode_tables, has_at_most};
use super::leaf::FrameRef;
use super::limits::{MAX_INFO_VALUES, MAX_LISTED_RANGES, MAX_SECTION_LEN};
use super::node::Child;
use super::record::{Codec, Place, RECORD_HEADER_LEN, RecordHeader, Section};
use super::state::{Block, BlockState};
use super::table::{FinishedPage, TableBuilder};
use super::trailer::{RecordRef, Trailer};
use super::window::{EncodedFrame, EncodedWindow};
use crate::base::{BlockIndex, Digest, Error, ErrorKind, Result, to_u64, to_usize};
use std::io::Write;

/// Sections are small and read often: a moderate level always pays.
pub(super) const SECTIONS: Compression = Compression::Zstd(3);

/// An image being written. Blocks are given in order, each exactly once; nothing is ever seeked.
pub struct ImageWriter<W: Write> {
    out: Appender<W>,
    header: Header,
    table: TableBuilder,
    info: (RecordRef, Digest),
    tables: (RecordRef, Digest),
    frames: u64,
    listener: Option<Listener>,
    keeper: Option<Keeper>,
}

/// Blocks that an image being written is told of.
#[derive(Debug)]
pub enum Told<'a> {
    /// So many without content: their state, and who recorded it.
    Run(BlockState, u32, u64),
    /// These.
    Blocks(&'a [Block]),
}

/// Is told of every block, in order.
type Listener = Box<dyn FnMut(Told<'_>) + Send>;
/// Says whether so many bytes from a position on need not be written, because the sink has them.
type Keeper = Box<dyn FnMut(u64, u64) -> bool + Send>;

/// What a finished image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// The root digest.
    pub root: Digest,
    /// Length of the file in bytes.
    pub len: u64,
    /// Blocks by state. Of a rewritten image, only those that were written.
    pub blocks: BlockCounts,
}

/// The sections of an image as they are stored: what a rewritten image takes over byte for byte, so
/// that its root digest stays what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections {
    pub(super) info: Vec<u8>,
    pub(super) tables: Vec<u8>,
    pub(super) summary: Vec<u8>,
}

impl<W: Write> ImageWriter<W> {
    /// Begins an image in `sink`, which is called `name` in messages.
    ///
    /// # Errors
    /// `Destination` when the sink fails, `Internal` when a section is too long to be read again.
    pub fn start(
        sink: W,
        name: impl Into<String>,
        header: Header,
        info: &Info,
        tables: &[RawTable],
    ) -> Result<ImageWriter<W>> {
        let info = info_to_json(info)?;
        ImageWriter::start_with(sink, name, header, &info, &encode_tables(tables))
    }

    /// Begins an image whose first frame stands at byte `front`, as in a file that has its frames already.
    /// `keeper` is asked of each frame that was taken from there whether it stands where it has to. `None`
    /// when what stands in front of the first frame is longer.
    ///
    /// # Errors
    /// As [`ImageWriter::start`].
    pub fn start_over(
        sink: W,
        name: impl Into<String>,
        header: Header,
        (info, tables): (&Info, &[RawTable]),
        front: u64,
        keeper: impl FnMut(u64, u64) -> bool + Send + 'static,
    ) -> Result<Option<ImageWriter<W>>> {
        let (mut info, tables) = (info_to_json(info)?, encode_tables(tables));
        let mut counted = Appender::new(std::io::sink(), String::new(), &header);
        counted.front(&header, &info, &tables)?;
        let Some(padding) = front.checked_sub(counted.at) else {
            return Ok(None);
        };
        if padding > u64::from(MAX_SECTION_LEN) {
            return Ok(None);
        }
        // White space behind a JSON text is a part of it that says nothing.
        info.resize(info.len() + to_usize(padding), b' ');
        if info.len() > to_usize(u64::from(MAX_SECTION_LEN)) {
            return Ok(None);
        }
        let mut writer = ImageWriter::start_with(sink, name, header, &info, &tables)?;
        writer.keeper = Some(Box::new(keeper));
        Ok(Some(writer))
    }

    /// Begins an image that says the same of itself as the one that `sections` are of.
    ///
    /// # Errors
    /// As [`ImageWriter::start`].
    pub fn start_rewrite(
        sink: W,
        name: impl Into<String>,
        header: Header,
        sections: &Sections,
    ) -> Result<ImageWriter<W>> {
        ImageWriter::start_with(sink, name, header, &sections.info, &sections.tables)
    }

    fn start_with(
        sink: W,
        name: impl Into<String>,
        header: Header,
        info: &[u8],
        tables: &[u8],
    ) -> Result<ImageWriter<W>> {
        let mut out = Appender::new(sink, name.into(), &header);
        let (info, tables) = out.front(&header, info, tables)?;
        let table = TableBuilder::new(&header);
        Ok(ImageWriter {
            out,
            header,
            table,
            info,
            tables,
            frames: 0,
            listener: None,
            keeper: None,
        })
    }

    /// Tells `listener` of every block from now on. Subtrees that are taken over are not told of.
    pub fn tell(&mut self, listener: impl FnMut(Told<'_>) + Send + 'static) {
        self.listener = Some(Box::new(listener));
    }

    /// Identity and geometry.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next block that is expected.
    pub fn next(&self) -> BlockIndex {
        self.table.next()
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.out.at
    }

    /// The next `count` blocks have no content: `Zero` or `Unused`, as image `since` recorded.
    ///
    /// # Errors
    /// `Destination` when the sink fails, `Internal` when the blocks do not fit.
    pub fn push_run(&mut self, state: BlockState, since: u32, count: u64) -> Result<()> {
        if let Some(listener) = &mut self.listener {
            listener(Told::Run(state, since, count));
        }
        let out = &mut self.out;
        self.table
            .push_run(state, since, count, &mut |page| out.page(page))
    }

    /// The next blocks are all those below `child`, whose page would be of `level` and does not lie in
    /// this file.
    ///
    /// # Errors
    /// `Destination` when the sink fails, `Internal` when it does not fit.
    pub fn push_subtree(&mut self, level: u8, child: Child) -> Result<()> {
        let out = &mut self.out;
        self.table
            .push_subtree(level, child, &mut |page| out.page(page))
    }

    /// The next blocks are those of `window`.
    ///
    /// # Errors
    /// `Destination` when the sink fails, `Internal` when the window is not the next one.
    pub fn push_window(&mut self, window: &EncodedWindow) -> Result<()> {
        if window.first != self.table.next() {
            let subject = format!("the image at block {}", self.table.next().0);
            return Err(Error::new(ErrorKind::Internal, "extend", subject)
                .because(format!("block {} came instead", window.first.0)));
        }
        let frame = match &window.frame {
            None => None,
            Some(frame) => {
                self.frames += 1;
                let frame = match self.kept(window.first, frame) {
                    Some(there) => there,
                    None => self.out.frame(window.first, frame)?,
                };
                Some(frame)
            }
        };
        if let Some(listener) = &mut self.listener {
            listener(Told::Blocks(&window.blocks));
        }
        let out = &mut self.out;
        self.table
            .push_window(&window.blocks, frame, &mut |page| out.page(page))
    }

    /// The place of `frame`, when the sink has it where it has to be.
    fn kept(&mut self, first: BlockIndex, frame: &EncodedFrame) -> Option<FrameRef> {
        let at = frame.at.filter(|at| *at == self.out.at)?;
        let stored_len = len32(&frame.payload);
        let len = to_u64(RECORD_HEADER_LEN) + u64::from(stored_len);
        self.keeper.as_mut()?(at, len).then_some(())?;
        self.out.at += len;
        Some(FrameRef {
            first,
            mask: frame.mask,
            offset: at,
            stored_len,
        })
    }

    /// The sink, of an image that will not be finished.
    pub fn into_sink(self) -> W {
        self.out.sink
    }

    /// Blocks by state so far.
    pub fn counts(&self) -> BlockCounts {
        self.table.counts()
    }

    /// Ends the image and hands the sink back; whoever owns it makes the bytes durable.
    ///
    /// # Errors
    /// `Destination` when the sink fails, `Internal` when blocks are missing.
    pub fn finish(self, mut summary: Summary) -> Result<(W, Finished)> {
        for ranges in [&mut summary.unreadable, &mut summary.untried] {
            *ranges = ByteRange::at_most(MAX_LISTED_RANGES, std::mem::take(ranges));
        }
        summary.blocks = self.table.counts();
        summary.changed = self.table.changed();
        let summary = to_json(&summary)?;
        self.finish_with(&summary)
    }

    /// Ends an image begun with [`ImageWriter::start_rewrite`].
    ///
    /// # Errors
    /// As [`ImageWriter::finish`].
    pub fn finish_rewrite(self, sections: &Sections) -> Result<(W, Finished)> {
        self.finish_with(&sections.summary)
    }

    fn finish_with(mut self, summary: &[u8]) -> Result<(W, Finished)> {
        let blocks = self.table.counts();
        let top = self.table.finish()?;
        let summary = self.out.section(Section::Summary, SECTIONS, summary)?;
        let digests = [top.digest, self.info.1, self.tables.1, summary.1];
        let root = root_digest(&self.header, digests);
        let trailer = Trailer {
            offset: self.out.at,
            header: self.header,
            top: top.place,
            top_digest: top.digest,
            root,
            info: self.info.0,
            tables: self.tables.0,
            summary: summary.0,
            frames: self.frames,
        };
        self.out.append(&trailer.encode())?;
        self.out.sink.flush().map_err(|e| self.out.fail(e))?;
        Ok((
            self.out.sink,
            Finished {
                root,
                len: self.out.at,
                blocks,
            },
        ))
    }
}

/// Section 9 of `docs/format.md`; `digests` are those of top page, info, tables and summary.
pub(super) fn root_digest(header: &Header, digests: [Digest; 4]) -> Digest {
    let [top, info, tables, summary] = digests;
    Digest::derive(
        "diskstrata root 1",
        &[
            header.id.as_bytes(),
            header.set.as_bytes(),
            &header.sequence.to_le_bytes(),
            &header.disk_len.0.to_le_bytes(),
            &[header.block_size.log2()],
            &top.0,
            &info.0,
            &tables.0,
            &summary.0,
        ],
    )
}

fn info_to_json(info: &Info) -> Result<Vec<u8>> {
    let info = to_json(info)?;
    if has_at_most(MAX_INFO_VALUES, &info) {
        return Ok(info);
    }
    Err(Error::new(ErrorKind::Internal, "write", "info section")
        .because("it holds more values than a reader accepts"))
}

pub(super) fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::new(ErrorKind::Internal, "encode", "a section").caused_by(e))
}

/// A payload's length; every caller keeps it far below 4 GiB.
fn len32(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).unwrap_or(u32::MAX)
}

/// The sink with a position.
pub(super) struct Appender<W> {
    pub(super) sink: W,
    name: String,
    pub(super) at: u64,
    tag: [u8; 8],
}

impl<W: Write> Appender<W> {
    pub(super) fn new(sink: W, name: String, header: &Header) -> Appender<W> {
        Appender {
            sink,
            name,
            at: 0,
            tag: header.tag(),
        }
    }

    /// What stands in front of the first frame. The info section is not compressed, so that its length does not
    /// depend on the digits of a time: whoever goes on with an unfinished image writes it anew in its place.
    fn front(
        &mut self,
        header: &Header,
        info: &[u8],
        tables: &[u8],
    ) -> Result<((RecordRef, Digest), (RecordRef, Digest))> {
        self.append(&header.encode())?;
        let info = self.section(Section::Info, Compression::None, info)?;
        let tables = self.section(Section::Tables, SECTIONS, tables)?;
        Ok((info, tables))
    }

    fn fail(&self, e: std::io::Error) -> Error {
        // A store explains its failures itself.
        match e.downcast::<Error>() {
            Ok(error) => error,
            Err(e) => {
                let subject = format!("{} at byte {}", self.name, self.at);
                Error::new(ErrorKind::Destination, "write", subject).caused_by(e)
            }
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|e| self.fail(e))?;
        self.at += to_u64(bytes.len());
        Ok(())
    }

    fn record(&mut self, record: &RecordHeader, payload: &[u8]) -> Result<RecordRef> {
        let place = RecordRef {
            offset: self.at,
            stored_len: record.stored_len,
        };
        self.append(&record.encode(self.tag))?;
        self.append(payload)?;
        Ok(place)
    }

    /// The frame of the window at block `first`.
    pub(super) fn frame(&mut self, first: BlockIndex, frame: &EncodedFrame) -> Result<FrameRef> {
        let record = RecordHeader {
            place: Place::Frame {
                first: first.0,
                mask: frame.mask,
            },
            codec: frame.codec,
            stored_len: len32(&frame.payload),
            raw_len: frame.raw_len,
            payload_crc: frame.crc,
        };
        let place = self.record(&record, &frame.payload)?;
        Ok(FrameRef {
            first,
            mask: frame.mask,
            offset: place.offset,
            stored_len: place.stored_len,
        })
    }

    pub(super) fn page(&mut self, page: &FinishedPage) -> Result<RecordRef> {
        let place = Place::Page {
            level: page.level,
            index: page.index,
        };
        // Digests do not compress, and the rest of a page is small.
        self.record(&raw_record(place, &page.payload), &page.payload)
    }

    pub(super) fn section(
        &mut self,
        section: Section,
        compression: Compression,
        raw: &[u8],
    ) -> Result<(RecordRef, Digest)> {
        if len32(raw) > MAX_SECTION_LEN {
            return Err(
                Error::new(ErrorKind::Internal, "write", section.name()).because(format!(
                    "it is {} bytes long, more than a reader accepts",
                    raw.len()
                )),
            );
        }
        let digest = Digest::of(raw);
        let mut encoder = Encoder::new(compression)?;
        let place = Place::Section(section.code());
        let (codec, stored) = encoder.encode(raw)?;
        let record = RecordHeader {
            place,
            codec,
            stored_len: len32(&stored),
            raw_len: len32(raw),
            payload_crc: crc32fast::hash(&stored),
        };
        let place = self.record(&record, &stored)?;
        Ok((place, digest))
    }
}

fn raw_record(place: Place, payload: &[u8]) -> RecordHeader {
    RecordHeader {
        place,
        codec: Codec::Raw,
        stored_len: len32(payload),
        raw_len: len32(payload),
        payload_crc: crc32fast::hash(payload),
    }
}
