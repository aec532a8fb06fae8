//! Reading frames with reused buffers: one reader for each thread.

use super::codec::Decoder;
use super::leaf::{FrameRef, Leaf};
use super::reader::ImageReader;
use super::record::{Codec, Place, RecordHeader};
use super::trailer::RecordRef;
use super::window::EncodedFrame;
use crate::base::{BlockIndex, BlockSize, Digest, Error, Result, to_usize};

/// What frames are read from: a file, or what came out of a pipe.
pub trait FrameSource: Send + Sync {
    /// Reads the record of `frame` to the beginning of `stored`, which only grows, and checks that it is
    /// that one and whole.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the image.
    fn record(&self, frame: &FrameRef, stored: &mut Vec<u8>) -> Result<RecordHeader>;

    /// Says that the record of `frame` will be read soon. A hint.
    fn will_need(&self, _frame: &FrameRef) {}

    /// Whether the record of `frame` is in memory, so that reading it waits for no medium.
    fn is_cached(&self, frame: &FrameRef) -> bool;

    /// The error for `frame` when its content is not what the table says, and `why`.
    fn damage(&self, frame: &FrameRef, why: &str) -> Error;
}

impl FrameSource for ImageReader {
    fn record(&self, frame: &FrameRef, stored: &mut Vec<u8>) -> Result<RecordHeader> {
        let place = place_of(frame);
        let at = RecordRef {
            offset: frame.offset,
            stored_len: frame.stored_len,
        };
        self.read_record(place, at, stored)
    }

    fn will_need(&self, frame: &FrameRef) {
        // The length comes from the file, and so much would be brought.
        if frame.stored_len <= self.longest(place_of(frame)) {
            self.input.will_need(frame.offset, frame.record_len());
        }
    }

    fn is_cached(&self, frame: &FrameRef) -> bool {
        self.input.is_cached(frame.offset, frame.record_len())
    }

    fn damage(&self, frame: &FrameRef, why: &str) -> Error {
        self.damaged_at("read", frame.offset, why)
    }
}

fn place_of(frame: &FrameRef) -> Place {
    Place::Frame {
        first: frame.first.0,
        mask: frame.mask,
    }
}

/// Buffers and a decoder for reading one frame after the other.
#[derive(Debug)]
pub struct FrameReader {
    decoder: Decoder,
    stored: Vec<u8>,
    decoded: Vec<u8>,
    last: Option<RecordHeader>,
}

impl FrameReader {
    /// A reader without memory yet; it grows to one window and its stored form.
    ///
    /// # Errors
    /// `Internal` when the decoder cannot be made.
    pub fn new() -> Result<FrameReader> {
        Ok(FrameReader {
            decoder: Decoder::new()?,
            stored: Vec::new(),
            decoded: Vec::new(),
            last: None,
        })
    }

    /// Checks record header and checksum of `frame` without decoding it.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the file.
    pub fn check(&mut self, source: &dyn FrameSource, frame: &FrameRef) -> Result<()> {
        self.fetch(source, frame).map(drop)
    }

    /// Reads and decodes `frame`; its blocks are in [`FrameReader::blocks`] then, not yet compared with
    /// their digests.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the file, when the frame is lost as a whole.
    pub fn read(&mut self, source: &dyn FrameSource, frame: &FrameRef) -> Result<()> {
        let record = self.fetch(source, frame)?;
        if record.codec != Codec::Raw {
            let len = to_usize(u64::from(record.raw_len));
            if self.decoded.len() < len {
                self.decoded.resize(len, 0);
            }
            let stored = record.payload(&self.stored);
            self.decoder
                .decode(record.codec, stored, &mut self.decoded[..len])
                .ok_or_else(|| malformed(source, frame))?;
        }
        self.last = Some(record);
        Ok(())
    }

    /// Reads and decodes `frame` to `out`, which is as long as its blocks together; not yet compared
    /// with their digests.
    ///
    /// # Errors
    /// As [`FrameReader::read`]; `out` may hold anything then.
    pub fn read_into(
        &mut self,
        source: &dyn FrameSource,
        frame: &FrameRef,
        out: &mut [u8],
    ) -> Result<()> {
        let record = self.fetch(source, frame)?;
        self.decoder
            .decode(record.codec, record.payload(&self.stored), out)
            .ok_or_else(|| malformed(source, frame))
    }

    /// Reads `frame` as it is stored, for another image.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the file, when its checksum is wrong.
    pub fn copy(&mut self, source: &dyn FrameSource, frame: &FrameRef) -> Result<EncodedFrame> {
        let record = self.fetch(source, frame)?;
        Ok(self.stored_form(frame, &record))
    }

    /// As [`FrameReader::copy`], and decodes it: each of its blocks, all of them in `leaf`, has to match
    /// its digest.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the file, when the frame or one of its blocks is not right.
    pub fn copy_checked(
        &mut self,
        source: &dyn FrameSource,
        frame: &FrameRef,
        leaf: &Leaf,
        block_size: BlockSize,
    ) -> Result<EncodedFrame> {
        self.read(source, frame)?;
        let wrong = self.wrong_blocks(frame, leaf, block_size).next();
        match (&self.last, wrong) {
            (Some(record), None) => Ok(self.stored_form(frame, record)),
            _ => Err(mismatch(source, frame)),
        }
    }

    /// The blocks of `frame`, which [`FrameReader::read`] read last, that do not match their digests in
    /// `leaf`.
    pub fn wrong_blocks<'a>(
        &'a self,
        frame: &FrameRef,
        leaf: &'a Leaf,
        block_size: BlockSize,
    ) -> impl Iterator<Item = BlockIndex> + use<'a> {
        let held = self.blocks().chunks(block_size.as_usize());
        let frame = *frame;
        frame.blocks().zip(held).filter_map(|(block, bytes)| {
            let digest = leaf.block(block).map(|b| b.digest);
            (digest != Some(Digest::of(bytes))).then_some(block)
        })
    }

    fn stored_form(&self, frame: &FrameRef, record: &RecordHeader) -> EncodedFrame {
        EncodedFrame {
            mask: frame.mask,
            codec: record.codec,
            raw_len: record.raw_len,
            payload: record.payload(&self.stored).to_vec(),
            crc: record.payload_crc,
            at: None,
        }
    }

    /// The blocks of the frame that [`FrameReader::read`] read last, back to back.
    pub fn blocks(&self) -> &[u8] {
        match &self.last {
            None => &[],
            Some(record) if record.codec == Codec::Raw => record.payload(&self.stored),
            Some(record) => {
                let len = to_usize(u64::from(record.raw_len));
                self.decoded.get(..len).unwrap_or_default()
            }
        }
    }

    fn fetch(&mut self, source: &dyn FrameSource, frame: &FrameRef) -> Result<RecordHeader> {
        self.last = None;
        source.record(frame, &mut self.stored)
    }
}

fn malformed(source: &dyn FrameSource, frame: &FrameRef) -> Error {
    source.damage(frame, "its compressed data is malformed")
}

/// The error for a frame with blocks that are not what the table says.
pub fn mismatch(source: &dyn FrameSource, frame: &FrameRef) -> Error {
    source.damage(frame, "blocks there do not match their digests")
}
