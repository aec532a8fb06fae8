//! A way into an image whose end, sections or upper table pages are damaged or gone: what stands in them is put
//! together anew from what the rest of the file says, and read behind its end as if it stood there.

use super::codec::Encoder;
use super::header::{HEADER_LEN, Header};
use super::info::{Summary, decode_info, decode_summary, decode_tables, encode_tables};
use super::leaf::Leaf;
use super::limits::{LEAF_BLOCKS, NODE_CHILDREN};
use super::node::{Child, Node, PagePlace};
use super::page::{Body, Content, Page};
use super::record::{Place, Section};
use super::salvage::{FoundRecord, find_header, next_record, unknown_info};
use super::state::{Block, BlockState};
use super::table::FinishedPage;
use super::trailer::{RecordRef, Trailer};
use super::tree::{leaf_len, pages_at, top_level};
use super::window::encode_frame;
use super::writer::{Appender, SECTIONS, root_digest, to_json};
use crate::base::{BlockIndex, Digest, RangeRead, Result, past_end, to_u64, to_usize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a lost page is said to be: at the header of the file, where none can be.
const NOWHERE_TO_BE_READ: RecordRef = RecordRef {
    offset: 0,
    stored_len: 0,
};

/// Of leaves that lost their page, the first with so many bytes in all are put together anew: their frames stay in
/// memory. A leaf of blocks of 64 KiB has 16 MiB.
const MOST_FRAMES: u64 = 256 << 20;

/// The image in `input` with all that is needed to open it. Table pages that are there count. Where a leaf page is
/// missing, its frames say what their blocks are. Blocks of which nothing says anything are lost to
/// whoever reads them, as below a damaged page. Memory: a hundred bytes for each page that no whole one names, and
/// the frames of the first such leaves, up to 256 MiB.
///
/// # Errors
/// `Damaged` when neither header nor trailer tells what it is of.
pub fn rebuild(input: Arc<dyn RangeRead>) -> Result<Arc<dyn RangeRead>> {
    let header = find_header(input.as_ref())?;
    let mut found = Found::default();
    let mut at = to_u64(HEADER_LEN);
    while let Some(record) = next_record(input.as_ref(), &header, at) {
        at = record.end();
        match record.record.place {
            Place::Frame { first, .. } => {
                found.frames = found.frames.saturating_add(1);
                let leaf = found.orphans.entry(first / LEAF_BLOCKS).or_default();
                leaf.push(record);
            }
            place => {
                if let Some(payload) = record.payload(input.as_ref())? {
                    found.take(&header, place, record.place(), &payload);
                }
            }
        }
    }
    let mut behind = Appender::new(Vec::new(), input.name().to_owned(), &header);
    behind.at = input.len();
    let trailer = found.trailer(input.as_ref(), &header, &mut behind)?;
    behind.append(&trailer.encode())?;
    Ok(Arc::new(Rebuilt {
        input,
        behind: behind.sink,
    }))
}

/// What is there.
#[derive(Default)]
struct Found {
    info: Option<(RecordRef, Digest)>,
    tables: Option<(RecordRef, Digest)>,
    summary: Option<(RecordRef, Digest)>,
    /// Pages of which everything below is there as well, by level and number; of those, the ones that no other
    /// one names.
    pages: BTreeMap<(u8, u64), (Child, Digest)>,
    /// Nodes that name pages which are not there.
    torn: BTreeMap<(u8, u64), Arc<Node>>,
    /// Frames without a leaf page, by the number of the leaf.
    orphans: BTreeMap<u64, Vec<FoundRecord>>,
    /// Bytes of leaves that were put together.
    made: u64,
    frames: u64,
}

impl Found {
    fn take(&mut self, header: &Header, place: Place, at: RecordRef, payload: &[u8]) {
        let section = |is_whole: bool| is_whole.then(|| (at, Digest::of(payload)));
        match place {
            Place::Section(code) if code == Section::Info.code() => {
                self.info = self.info.or(section(decode_info(payload).is_some()));
            }
            Place::Section(code) if code == Section::Tables.code() => {
                self.tables = self.tables.or(section(decode_tables(payload).is_some()));
            }
            Place::Section(code) if code == Section::Summary.code() => {
                self.summary = self.summary.or(section(decode_summary(payload).is_some()));
            }
            Place::Page { level, index } => {
                if let Some(page) = Page::decode(payload, header, level, index) {
                    self.take_page((level, index), at, &page);
                }
            }
            Place::Section(_) | Place::Frame { .. } => {}
        }
    }

    fn take_page(&mut self, (level, index): (u8, u64), at: RecordRef, page: &Page) {
        let since = match &page.body {
            Body::Leaf(leaf) => {
                self.orphans.remove(&index);
                leaf.since()
            }
            Body::Node(node) => {
                if !self.is_whole(node) {
                    self.torn.insert((level, index), Arc::clone(node));
                    return;
                }
                for i in 0..node.children.len() {
                    self.pages.remove(&(level - 1, node.child_index(i)));
                }
                node.since()
            }
        };
        let child = Child {
            content: page.content,
            since,
            place: PagePlace::Here(at),
        };
        // Of two pages of one number, one is a forgery: the first counts.
        let page = (child, page.digest);
        self.pages.entry((level, index)).or_insert(page);
    }

    /// Whether all pages that `node` has in this file are there.
    fn is_whole(&self, node: &Node) -> bool {
        let is_there = |(i, child): (usize, &Child)| match child.place {
            PagePlace::Here(_) => {
                let page = self.pages.get(&(node.level - 1, node.child_index(i)));
                page.is_some_and(|(there, _)| there == child)
            }
            PagePlace::Older | PagePlace::Nowhere => true,
        };
        node.children.iter().enumerate().all(is_there)
    }

    /// Whether anything is known of what lies below page (`level`, `index`).
    fn knows(&self, level: u8, index: u64) -> bool {
        let mut span = (index, index.saturating_add(1));
        let orphans = |span: (u64, u64)| self.orphans.range(span.0..span.1).next().is_some();
        self.torn.contains_key(&(level, index))
            || (0..level).rev().any(|below| {
                span = (
                    span.0.saturating_mul(NODE_CHILDREN),
                    span.1.saturating_mul(NODE_CHILDREN),
                );
                let pages = (below, span.0)..(below, span.1);
                self.pages.range(pages.clone()).next().is_some()
                    || self.torn.range(pages).next().is_some()
                    || (below == 0 && orphans(span))
            })
    }

    /// Page (`level`, `index`), as it is there or as the pages below it say; `None` when none does.
    fn page(
        &mut self,
        input: &dyn RangeRead,
        header: &Header,
        (level, index): (u8, u64),
        behind: &mut Appender<Vec<u8>>,
    ) -> Result<Option<(Child, Digest)>> {
        if let Some(page) = self.pages.get(&(level, index)) {
            return Ok(Some(*page));
        }
        if level == 0 {
            return self.leaf(input, header, index, behind);
        }
        if !self.knows(level, index) {
            return Ok(None);
        }
        let said = self.torn.get(&(level, index)).cloned();
        let first = index.saturating_mul(NODE_CHILDREN);
        let end = pages_at(header.blocks(), level - 1).min(first.saturating_add(NODE_CHILDREN));
        let mut children = Vec::new();
        for (i, below) in (first..end).enumerate() {
            let said = said.as_ref().and_then(|node| node.children.get(i)).copied();
            let child = match said.map(|child| child.place) {
                Some(PagePlace::Older | PagePlace::Nowhere) => None,
                Some(PagePlace::Here(_)) | None => {
                    let page = self.page(input, header, (level - 1, below), behind)?;
                    page.map(|(child, _)| child)
                }
            };
            children.push(child.or(said).unwrap_or(lost(header)));
        }
        let node = Node {
            level,
            index,
            children,
        };
        let (payload, digest, content) = node.encode();
        let place = behind.page(&FinishedPage {
            level,
            index,
            payload,
            digest,
        })?;
        let child = Child {
            content,
            since: node.since(),
            place: PagePlace::Here(place),
        };
        Ok(Some((child, digest)))
    }

    /// Leaf `index`, whose page is missing, as its frames say. What they do not hold cannot be told from what
    /// should be there: such blocks have a digest that no content has.
    fn leaf(
        &mut self,
        input: &dyn RangeRead,
        header: &Header,
        index: u64,
        behind: &mut Appender<Vec<u8>>,
    ) -> Result<Option<(Child, Digest)>> {
        let size = header.block_size;
        let count = leaf_len(header, index);
        let made = self.made.saturating_add(count.saturating_mul(size.bytes()));
        if made > MOST_FRAMES || count == 0 {
            return Ok(None);
        }
        let Some(frames) = self.orphans.remove(&index) else {
            return Ok(None);
        };
        self.made = made;
        let first = index * LEAF_BLOCKS;
        let mut leaf = Leaf {
            first: BlockIndex(first),
            blocks: Vec::new(),
            frames: Vec::new(),
        };
        let mut encoder = Encoder::new(SECTIONS)?;
        for at in (first..first + count).step_by(to_usize(header.window_blocks())) {
            let window = at..(at + header.window_blocks()).min(first + count);
            let extent = header.extent_of(&window);
            let mut raw = vec![0; to_usize(extent.len.0)];
            let held = frames.iter().filter_map(|r| {
                r.frame()
                    .filter(|(first, _)| *first == at)
                    .map(|(_, mask)| (r, mask))
            });
            let mut known = 0;
            for (record, mask) in held.take(1) {
                let Some(payload) = record.payload(input)? else {
                    continue;
                };
                known = mask;
                let mut pieces = payload.chunks(size.as_usize());
                let places = raw.chunks_mut(size.as_usize()).enumerate();
                for (_, place) in places.filter(|(i, _)| mask >> i & 1 == 1) {
                    if let Some(piece) = pieces.next().filter(|p| p.len() == place.len()) {
                        place.copy_from_slice(piece);
                    }
                }
            }
            let mut all = 0;
            for (i, bytes) in raw.chunks(size.as_usize()).enumerate() {
                all |= 1 << i;
                let mut block = Block::empty(BlockState::Data, header.sequence);
                if known >> i & 1 == 1 {
                    block.digest = Digest::of(bytes);
                }
                leaf.blocks.push(block);
            }
            let frame = encode_frame(&raw, all, &mut encoder)?;
            leaf.frames.push(behind.frame(BlockIndex(at), &frame)?);
        }
        let since = leaf.since();
        let (payload, digest, content) = leaf.encode();
        let place = behind.page(&FinishedPage {
            level: 0,
            index,
            payload,
            digest,
        })?;
        let child = Child {
            content,
            since,
            place: PagePlace::Here(place),
        };
        Ok(Some((child, digest)))
    }

    /// The end of the image, all that it names written `behind` the file where it is not in it.
    fn trailer(
        &mut self,
        input: &dyn RangeRead,
        header: &Header,
        behind: &mut Appender<Vec<u8>>,
    ) -> Result<Trailer> {
        let top = self.page(input, header, (top_level(header.blocks()), 0), behind)?;
        let (top, top_digest) = match top {
            Some((child, digest)) => match child.place {
                PagePlace::Here(place) => (place, digest),
                PagePlace::Older | PagePlace::Nowhere => (NOWHERE_TO_BE_READ, digest),
            },
            None => (NOWHERE_TO_BE_READ, Digest::default()),
        };
        let mut put = |section: Section, bytes: &[u8]| behind.section(section, SECTIONS, bytes);
        let info = match self.info {
            Some(info) => info,
            None => put(Section::Info, &to_json(&unknown_info())?)?,
        };
        let tables = match self.tables {
            Some(tables) => tables,
            None => put(Section::Tables, &encode_tables(&[]))?,
        };
        let summary = match self.summary {
            Some(summary) => summary,
            None => put(Section::Summary, &to_json(&Summary::default())?)?,
        };
        Ok(Trailer {
            offset: behind.at,
            header: header.clone(),
            top,
            top_digest,
            root: root_digest(header, [top_digest, info.1, tables.1, summary.1]),
            info: info.0,
            tables: tables.0,
            summary: summary.0,
            frames: self.frames,
        })
    }
}

/// A page of which nothing is known.
fn lost(header: &Header) -> Child {
    Child {
        content: Content::Mixed(Digest::default()),
        since: header.sequence,
        place: PagePlace::Here(NOWHERE_TO_BE_READ),
    }
}

/// A file, and what was put together behind its end. Its header is that of the trailer behind it.
struct Rebuilt {
    input: Arc<dyn RangeRead>,
    behind: Vec<u8>,
}

impl RangeRead for Rebuilt {
    fn name(&self) -> &str {
        self.input.name()
    }

    fn len(&self) -> u64 {
        self.input.len().saturating_add(to_u64(self.behind.len()))
    }

    fn key_set(&self) -> Option<crate::base::KeySetId> {
        self.input.key_set()
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.input.will_need(offset, len);
    }

    fn is_cached(&self, offset: u64, len: u64) -> bool {
        self.input.is_cached(offset, len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (len, whole) = (buf.len(), self.len());
        let end = offset.checked_add(to_u64(len)).filter(|end| *end <= whole);
        if end.is_none() {
            return Err(past_end(self.name(), offset, len, whole));
        }
        let in_file = to_usize(self.input.len().saturating_sub(offset)).min(len);
        let (file, behind) = buf.split_at_mut(in_file);
        if !file.is_empty() {
            self.input.read_at(offset, file)?;
        }
        let from = to_usize(offset.saturating_sub(self.input.len()));
        if let Some(bytes) = self.behind.get(from..from + behind.len()) {
            behind.copy_from_slice(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::super::limits::MAX_DISK_LEN;
    use super::super::reader::ImageReader;
    use super::super::testing::image_of;
    use super::super::trailer::TRAILER_LEN;
    use super::super::walk::FilePiece;
    use super::*;

    /// A disk of three leaves, the middle one with nothing in it.
    fn image() -> Vec<u8> {
        let mut disk: Vec<u8> = (0u32..700 * 1024)
            .flat_map(|i| i.wrapping_mul(0x9E37_79B9).to_le_bytes())
            .collect();
        disk[256 * 4096..512 * 4096].fill(0);
        image_of(&disk)
    }

    fn opened(bytes: Vec<u8>) -> ImageReader {
        ImageReader::open(rebuild(Arc::new(bytes)).unwrap()).unwrap()
    }

    /// The first blocks of the leaves that are there, and the blocks of which nothing is known.
    fn found(image: &ImageReader) -> (Vec<u64>, u64) {
        let (mut leaves, mut lost) = (Vec::new(), 0);
        let walked = image.walk(&mut |piece| {
            match piece {
                FilePiece::Leaf(leaf) => leaves.push(leaf.first.0),
                FilePiece::Lost { count, .. } => lost += count,
                FilePiece::Older { .. } | FilePiece::Misplaced(_) => {}
            }
            Ok(())
        });
        walked.unwrap();
        (leaves, lost)
    }

    #[test]
    fn without_its_end_it_is_the_same_image() {
        let good = image();
        let whole = ImageReader::open(Arc::new(good.clone())).unwrap();
        for gone in [1, TRAILER_LEN / 2, TRAILER_LEN] {
            let mut bytes = good.clone();
            let from = bytes.len() - gone;
            bytes[from..].fill(0xFF);
            let image = opened(bytes);
            assert_eq!(image.root(), whole.root());
            assert_eq!(image.header(), whole.header());
            assert_eq!(image.summary(), whole.summary());
            assert_eq!(found(&image), (vec![0, 512], 0));
        }
        let header_gone = [vec![0; HEADER_LEN], good[HEADER_LEN..].to_vec()].concat();
        assert_eq!(opened(header_gone).root(), whole.root());
    }

    /// However much of it is there, what is there is found and the rest is lost, and nothing else.
    #[test]
    fn cut_anywhere_it_is_what_is_left() {
        let good = image();
        let places: Vec<u64> = {
            let whole = ImageReader::open(Arc::new(good.clone())).unwrap();
            let mut ends = Vec::new();
            let mut visit = |piece| {
                if let FilePiece::Leaf(leaf) = piece {
                    let last = leaf.frames.last().unwrap();
                    ends.push(last.offset + last.record_len());
                }
                Ok(())
            };
            whole.walk(&mut visit).unwrap();
            ends
        };
        let step = good.len() / 300;
        for cut in (HEADER_LEN..good.len())
            .step_by(step)
            .chain([good.len() - 1])
        {
            let (leaves, lost) = found(&opened(good[..cut].to_vec()));
            // A leaf page is about 8 KiB long.
            let behind = |end: &&u64| to_u64(cut) > **end + 9000;
            let least = places.iter().filter(behind).count();
            assert!(leaves.len() >= least, "cut at {cut}: {leaves:?}");
            let all_but: u64 = leaves.iter().map(|l| 256.min(700 - l)).sum();
            assert!(lost == 700 - all_but || lost == 0, "cut at {cut}: {lost}");
            assert!(lost > 0 || leaves.len() == 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_long_disk_of_which_nothing_is_known_is_no_work() {
        let header = sample(MAX_DISK_LEN);
        let image = opened(header.encode());
        assert_eq!(image.info().set, "salvaged");
        assert_eq!(found(&image), (vec![], header.blocks()));
        assert!(rebuild(Arc::new(vec![0; 4096])).is_err());
    }
}
