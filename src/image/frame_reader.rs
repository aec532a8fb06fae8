//! Reading frames with reused buffers: one reader for each thread.

use super::codec::Decoder;
use super::leaf::FrameRef;
use super::reader::ImageReader;
use super::record::{Place, RECORD_HEADER_LEN, RecordHeader};
use super::trailer::RecordRef;
use super::window::EncodedFrame;
use crate::base::Result;

/// Buffers and a decoder for reading one frame after the other.
#[derive(Debug)]
pub struct FrameReader {
    decoder: Decoder,
    stored: Vec<u8>,
    blocks: Vec<u8>,
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
            blocks: Vec::new(),
        })
    }

    /// Checks record header and checksum of `frame` without decoding it.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the file.
    pub fn check(&mut self, image: &ImageReader, frame: &FrameRef) -> Result<()> {
        self.fetch(image, frame).map(drop)
    }

    /// Reads and decodes `frame`; its blocks are in [`FrameReader::blocks`] then, not yet compared with
    /// their digests.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the file, when the frame is lost as a whole.
    pub fn read(&mut self, image: &ImageReader, frame: &FrameRef) -> Result<()> {
        let record = self.fetch(image, frame)?;
        self.decode(&record).ok_or_else(|| {
            image.damaged_at("decode", frame.offset, "its compressed data is malformed")
        })
    }

    /// Reads `frame` as it is stored, for another image.
    ///
    /// # Errors
    /// `Damaged`, naming the position in the file, when its checksum is wrong.
    pub fn copy(&mut self, image: &ImageReader, frame: &FrameRef) -> Result<EncodedFrame> {
        let record = self.fetch(image, frame)?;
        Ok(EncodedFrame {
            mask: frame.mask,
            codec: record.codec,
            raw_len: record.raw_len,
            payload: self
                .stored
                .get(RECORD_HEADER_LEN..)
                .unwrap_or_default()
                .to_vec(),
            crc: record.payload_crc,
        })
    }

    /// The blocks of the frame read last, back to back.
    pub fn blocks(&self) -> &[u8] {
        &self.blocks
    }

    /// The blocks of the frame read last, in exchange for a buffer to fill next time.
    pub fn exchange(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.blocks, buffer)
    }

    fn fetch(&mut self, image: &ImageReader, frame: &FrameRef) -> Result<RecordHeader> {
        let place = Place::Frame {
            first: frame.first.0,
            mask: frame.mask,
        };
        let at = RecordRef {
            offset: frame.offset,
            stored_len: frame.stored_len,
        };
        image.read_record(place, at, &mut self.stored)
    }

    /// Decodes the record that `fetch` has read.
    pub(super) fn decode(&mut self, record: &RecordHeader) -> Option<()> {
        let payload = self.stored.get(RECORD_HEADER_LEN..)?;
        self.decoder
            .decode(record.codec, payload, record.raw_len, &mut self.blocks)
    }
}
