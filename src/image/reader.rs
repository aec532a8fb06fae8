//! Opening an image from its end and reading it by range.

use super::codec::decode_once;
use super::ends::Ends;
use super::header::{HEADER_LEN, Header};
use super::info::{Info, RawTable, Summary, decode_info, decode_summary, decode_tables};
use super::leaf::{FrameRef, Leaf};
use super::limits::{MAX_PAGE_LEN, MAX_SECTION_LEN, MAX_STORED_EXCESS};
use super::page::{Content, Page};
use super::record::{Place, RECORD_HEADER_LEN, RecordHeader, Section, frame_len};
use super::trailer::{RecordRef, TRAILER_LEN, Trailer};
use super::tree::top_level;
use super::writer::{Sections, root_digest};
use crate::base::{
    Digest, Error, ErrorKind, KeySetId, RangeRead, Result, checksum_matches, to_u64, to_usize,
};
use std::sync::Arc;

/// One image file, open. Any number of threads may read it.
pub struct ImageReader {
    pub(super) input: Arc<dyn RangeRead>,
    pub(super) trailer: Trailer,
    info: Arc<Info>,
    tables: Vec<RawTable>,
    summary: Summary,
    findings: Vec<String>,
}

impl ImageReader {
    /// Opens an image and checks everything but its table and frames: header, trailer, sections and
    /// the root digest over them.
    ///
    /// # Errors
    /// `Damaged` when it is no image, cut off, altered, or of a newer version; the kinds of the
    /// input when that fails.
    pub fn open(input: Arc<dyn RangeRead>) -> Result<ImageReader> {
        let ends = Ends::of(Arc::clone(&input));
        let mut reader = ImageReader::open_ends(Arc::new(ends))?;
        reader.input = input;
        Ok(reader)
    }

    fn open_ends(input: Arc<dyn RangeRead>) -> Result<ImageReader> {
        let name = input.name().to_owned();
        let mut head = [0; HEADER_LEN];
        let smallest = to_u64(HEADER_LEN + TRAILER_LEN);
        if input.len() < smallest {
            return Err(
                Error::new(ErrorKind::Damaged, "open", name).because(format!(
                    "it has {} bytes, too few for an image",
                    input.len()
                )),
            );
        }
        input.read_at(0, &mut head)?;
        let header = Header::decode(&head, &name);
        let at = input.len() - to_u64(TRAILER_LEN);
        let mut tail = vec![0; TRAILER_LEN];
        input.read_at(at, &mut tail)?;
        let mut findings = Vec::new();
        let trailer = match (Trailer::decode(&tail, at, &name), header) {
            (Ok(trailer), Ok(header)) if header == trailer.header => trailer,
            (Ok(_), Ok(_)) => {
                return Err(Error::new(ErrorKind::Damaged, "open", name)
                    .because("its beginning and its end belong to different images"));
            }
            (Ok(trailer), Err(e)) => {
                findings.push(format!("{e}; its copy at the end of the file is used"));
                trailer
            }
            // What is no image at all should be told so, not that its end is missing.
            (Err(_), Err(e)) | (Err(e), Ok(_)) => return Err(e),
        };
        let mut reader = ImageReader {
            input,
            trailer,
            info: Arc::default(),
            tables: Vec::new(),
            summary: Summary::default(),
            findings,
        };
        reader.load_sections()?;
        Ok(reader)
    }

    fn load_sections(&mut self) -> Result<()> {
        let trailer = &self.trailer;
        let info = self.section(Section::Info, trailer.info)?;
        let tables = self.section(Section::Tables, trailer.tables)?;
        let summary = self.section(Section::Summary, trailer.summary)?;
        let digests = [
            trailer.top_digest,
            Digest::of(&info),
            Digest::of(&tables),
            Digest::of(&summary),
        ];
        if !checksum_matches(root_digest(&trailer.header, digests), trailer.root) {
            return Err(self.damaged("open", "its parts do not match its root digest"));
        }
        let broken = |section: Section| {
            self.damaged(
                &format!("decode the {} of", section.name()),
                "it is malformed",
            )
        };
        let info = decode_info(&info).ok_or_else(|| broken(Section::Info))?;
        let tables = decode_tables(&tables).ok_or_else(|| broken(Section::Tables))?;
        let summary = decode_summary(&summary).ok_or_else(|| broken(Section::Summary))?;
        (self.info, self.tables, self.summary) = (Arc::new(info), tables, summary);
        Ok(())
    }

    /// What to call it in messages.
    pub fn name(&self) -> &str {
        self.input.name()
    }

    /// Identity and geometry.
    pub fn header(&self) -> &Header {
        &self.trailer.header
    }

    /// The root digest, which commits to everything.
    pub fn root(&self) -> Digest {
        self.trailer.root
    }

    /// The key set that the file is encrypted with.
    pub fn key_set(&self) -> Option<KeySetId> {
        self.input.key_set()
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.input.len()
    }

    /// What was known when the image was begun.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The same, to be kept longer than the image is open.
    pub fn shared_info(&self) -> Arc<Info> {
        Arc::clone(&self.info)
    }

    /// The raw partition tables.
    pub fn tables(&self) -> &[RawTable] {
        &self.tables
    }

    /// What was known when it was complete.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Damage that did not keep the image from being opened.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Reads a whole section.
    fn section(&self, section: Section, place: RecordRef) -> Result<Vec<u8>> {
        self.read_decoded(Place::Section(section.code()), place)
    }

    /// The sections as they are stored.
    ///
    /// # Errors
    /// `Damaged` when they cannot be read any more.
    pub fn sections(&self) -> Result<Sections> {
        let trailer = &self.trailer;
        Ok(Sections {
            info: self.section(Section::Info, trailer.info)?,
            tables: self.section(Section::Tables, trailer.tables)?,
            summary: self.section(Section::Summary, trailer.summary)?,
        })
    }

    /// The level of the top page.
    pub fn top_level(&self) -> u8 {
        top_level(self.header().blocks())
    }

    /// The top page.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn top(&self) -> Result<Page> {
        let at = self.trailer.top;
        let page = self.decoded_page(self.top_level(), 0, at)?;
        if checksum_matches(page.digest, self.trailer.top_digest) {
            return Ok(page);
        }
        Err(self.damaged_at("read", at.offset, "its digest is wrong"))
    }

    /// Page (`level`, `index`), which lies in this file at `at` and stands for `content`.
    ///
    /// # Errors
    /// `Damaged`, also when it stands for something else.
    pub fn page(&self, level: u8, index: u64, at: RecordRef, content: Content) -> Result<Page> {
        let page = self.decoded_page(level, index, at)?;
        if page.content.matches(content) {
            return Ok(page);
        }
        Err(self.damaged_at("read", at.offset, "its digest is wrong"))
    }

    /// The frames of leaf `index`, which lies in this file at `at`. Faster than the page: its digest is
    /// not computed, for it says nothing of frames. A block that is read by them is compared with its own.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn frames(&self, index: u64, at: RecordRef) -> Result<Vec<FrameRef>> {
        let payload = self.read_decoded(Place::Page { level: 0, index }, at)?;
        Leaf::decode_frames(&payload, self.header(), index).ok_or_else(|| self.malformed_page(at))
    }

    fn malformed_page(&self, at: RecordRef) -> Error {
        self.damaged_at("read", at.offset, "the table page there is malformed")
    }

    fn decoded_page(&self, level: u8, index: u64, at: RecordRef) -> Result<Page> {
        let payload = self.read_decoded(Place::Page { level, index }, at)?;
        Page::decode(&payload, self.header(), level, index).ok_or_else(|| self.malformed_page(at))
    }

    fn read_decoded(&self, place: Place, at: RecordRef) -> Result<Vec<u8>> {
        let mut stored = Vec::new();
        let record = self.read_record(place, at, &mut stored)?;
        let decoded = decode_once(record.codec, record.payload(&stored), record.raw_len)?;
        decoded.ok_or_else(|| self.damaged_at("decode", at.offset, "its data is malformed"))
    }

    /// Reads header and payload of a record in one go to the beginning of `stored`, which only grows,
    /// and checks that it is the expected one.
    pub(super) fn read_record(
        &self,
        place: Place,
        at: RecordRef,
        stored: &mut Vec<u8>,
    ) -> Result<RecordHeader> {
        let bad = |why: &str| self.damaged_at("read", at.offset, why);
        let len = to_u64(RECORD_HEADER_LEN) + u64::from(at.stored_len);
        // Checked before memory is taken: the length comes from the file.
        if at
            .offset
            .checked_add(len)
            .is_none_or(|end| end > self.trailer.offset)
        {
            return Err(bad("a record is said to pass the end of the file"));
        }
        if at.stored_len > self.longest(place) {
            return Err(bad(match place {
                Place::Frame { .. } => "a frame is longer than its blocks",
                Place::Page { .. } => "a table page is longer than any may be",
                Place::Section(_) => "a section is longer than any may be",
            }));
        }
        let len = to_usize(len);
        if stored.len() < len {
            stored.resize(len, 0);
        }
        self.input.read_at(at.offset, &mut stored[..len])?;
        let record = RecordHeader::decode(stored, self.header())
            .ok_or_else(|| bad("the record header there is damaged"))?;
        if record.place != place || record.stored_len != at.stored_len {
            return Err(bad("another record stands there than the table says"));
        }
        if !checksum_matches(crc32fast::hash(record.payload(stored)), record.payload_crc) {
            return Err(bad("the checksum is wrong"));
        }
        Ok(record)
    }

    /// How long the payload of a record may be at most, as it is stored.
    pub(super) fn longest(&self, place: Place) -> u32 {
        let decoded = match place {
            Place::Frame { first, mask } => frame_len(self.header(), first, mask).unwrap_or(0),
            Place::Page { .. } => MAX_PAGE_LEN,
            Place::Section(_) => MAX_SECTION_LEN,
        };
        decoded.saturating_add(MAX_STORED_EXCESS)
    }

    pub(super) fn damaged(&self, operation: &str, why: &str) -> Error {
        Error::new(ErrorKind::Damaged, operation, self.name()).because(why)
    }

    pub(super) fn damaged_at(&self, operation: &str, offset: u64, why: &str) -> Error {
        let subject = format!("{} at byte {offset}", self.name());
        Error::new(ErrorKind::Damaged, operation, subject).because(why)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame_reader::FrameSource;
    use super::super::testing::{image_of, open};
    use super::*;
    use crate::base::{Announced, BlockIndex};

    /// What is announced is brought: a length that no frame may have would bring anything.
    #[test]
    fn a_frame_that_is_too_long_is_not_announced() {
        let bytes = Arc::new(Announced::new(image_of(&[7; 4096])));
        let image = ImageReader::open(Arc::clone(&bytes) as _).unwrap();
        let fits = 4096 + MAX_STORED_EXCESS;
        for (mask, stored_len, announced) in [
            (1, 1, true),
            (1, fits, true),
            (1, fits + 1, false),
            (1, u32::MAX, false),
            (0, u32::MAX, false),
        ] {
            bytes.take();
            image.will_need(&FrameRef {
                first: BlockIndex(0),
                mask,
                offset: 128,
                stored_len,
            });
            bytes.read_at(128, &mut [0]).unwrap();
            assert_eq!(bytes.take(), [(128..129, announced)], "{stored_len}");
        }
    }

    #[test]
    fn a_record_is_no_longer_than_its_kind_may_be() {
        let noise: Vec<u8> = (0..4096u32 * 40)
            .flat_map(|i| i.wrapping_mul(0x9E37_79B9).to_le_bytes())
            .collect();
        let image = open(image_of(&noise));
        let at = RecordRef {
            offset: 128,
            stored_len: MAX_PAGE_LEN + MAX_STORED_EXCESS + 1,
        };
        let content = Content::Mixed(Digest::default());
        let error = image.page(0, 0, at, content).unwrap_err().to_string();
        assert!(error.contains("longer than any may be"), "{error}");
    }
}
