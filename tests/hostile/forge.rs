//! Image files made by hand, by docs/format.md and nothing else. Whatever they claim, every checksum and every
//! digest over it is right.

use crate::kit::records::{HEADER, RECORD, TRAILER, number};

pub(crate) const BLOCK: usize = 4096;
pub(crate) const LEAF: usize = 256;

/// What is done to some bytes before they are sealed.
pub(crate) type Edit = Box<dyn Fn(&mut Vec<u8>)>;
/// The same, and it is told where the record begins.
pub(crate) type EditAt = Box<dyn Fn(&mut Vec<u8>, usize)>;

pub(crate) fn keep() -> Edit {
    Box::new(|_| {})
}

/// Puts `bytes` at `at`.
pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An edit that puts `bytes` at `at`.
pub(crate) fn putting(at: usize, bytes: impl AsRef<[u8]>) -> Edit {
    let bytes = bytes.as_ref().to_vec();
    Box::new(move |out| put(out, at, &bytes))
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    *hasher.finalize().as_bytes()
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

pub(crate) fn len32(n: usize) -> [u8; 4] {
    u32::try_from(n).expect("a short length").to_le_bytes()
}

fn len64(n: usize) -> [u8; 8] {
    u64::try_from(n).expect("lengths fit").to_le_bytes()
}

/// A payload as it is stored, and what it decodes to for those who believe it.
#[derive(Clone)]
pub(crate) struct Payload {
    pub(crate) codec: u8,
    pub(crate) stored: Vec<u8>,
    pub(crate) raw_len: u32,
    pub(crate) decoded: Vec<u8>,
}

impl Payload {
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Payload {
        let decoded = bytes.into();
        Payload {
            codec: 0,
            stored: decoded.clone(),
            raw_len: u32::try_from(decoded.len()).expect("a short payload"),
            decoded,
        }
    }

    /// `stored`, which says that it is `decoded`.
    pub(crate) fn zstd(stored: Vec<u8>, decoded: Vec<u8>) -> Payload {
        Payload {
            codec: 1,
            stored,
            raw_len: u32::try_from(decoded.len()).expect("a short payload"),
            decoded,
        }
    }

    /// Compressed as it should be.
    pub(crate) fn packed(decoded: Vec<u8>) -> Payload {
        let stored = zstd::bulk::compress(&decoded, 3).expect("zstd");
        Payload::zstd(stored, decoded)
    }
}

/// A frame: number of its first block, its mask, the content.
pub(crate) struct Frame {
    pub(crate) first: u64,
    pub(crate) mask: u64,
    pub(crate) payload: Payload,
    /// Of its record header.
    pub(crate) edit: Edit,
}

/// A leaf page and the frames before it.
pub(crate) struct Leaf {
    pub(crate) index: u64,
    /// State of each block: 1 Data, 2 Zero, 3 Unused, and its content.
    pub(crate) blocks: Vec<(u8, Vec<u8>)>,
    pub(crate) frames: Vec<Frame>,
    /// Of its payload up to the digests, which the page digest commits to.
    pub(crate) committed: Edit,
    /// Of its payload behind that: since runs, frames.
    pub(crate) located: Edit,
    /// Of its record header.
    pub(crate) edit: Edit,
}

/// Where the node says that leaf `i` is, beside what is true.
pub(crate) struct Node {
    /// Of the part that the page digest commits to.
    pub(crate) committed: Edit,
    /// Of the rest.
    pub(crate) located: EditAt,
}

/// An image that says what it is told to say.
pub(crate) struct Forge {
    pub(crate) header: Vec<u8>,
    /// The header in the trailer, where it is another one.
    pub(crate) header_again: Option<Vec<u8>>,
    pub(crate) info: Payload,
    pub(crate) tables: Payload,
    pub(crate) summary: Payload,
    pub(crate) info_record: Edit,
    pub(crate) leaves: Vec<Leaf>,
    /// Over the leaves, where there are several.
    pub(crate) node: Option<Node>,
    /// Of the trailer before the root digest is computed, and behind that.
    pub(crate) trailer: Edit,
    pub(crate) trailer_sealed: Edit,
}

/// Content of block `n`: text that compresses.
pub(crate) fn content(n: usize) -> Vec<u8> {
    let line = format!("block {n} ");
    line.bytes().cycle().take(BLOCK).collect()
}

impl Forge {
    /// A whole image of eight blocks in two windows, of which the sixth and the last are zero. One leaf.
    pub(crate) fn small() -> Forge {
        Forge {
            header: header(8, 2),
            header_again: None,
            info: Payload::raw(*br#"{"set":"hostile","created":1700000000}"#),
            tables: Payload::raw([0; 4]),
            summary: Payload::raw(*b"{}"),
            info_record: keep(),
            leaves: vec![leaf(0, 8)],
            node: None,
            trailer: keep(),
            trailer_sealed: keep(),
        }
    }

    /// A whole image of three leaves, of which the second is nowhere.
    pub(crate) fn wide() -> Forge {
        Forge {
            header: header(3 * LEAF, 2),
            leaves: vec![leaf(0, LEAF), leaf(2, LEAF)],
            node: Some(Node {
                committed: keep(),
                located: Box::new(|_, _| {}),
            }),
            ..Forge::small()
        }
    }

    /// The disk that it should be an image of; of one that is said to be long, as much as has content.
    pub(crate) fn disk(&self) -> Vec<u8> {
        let mut disk = Vec::new();
        for leaf in &self.leaves {
            let start = usize::try_from(leaf.index).expect("few leaves") * LEAF * BLOCK;
            disk.resize(start + leaf.blocks.len() * BLOCK, 0);
            for (n, (_, bytes)) in leaf.blocks.iter().enumerate() {
                put(&mut disk, start + n * BLOCK, bytes);
            }
        }
        let len = usize::try_from(number(&self.header[112..120]));
        disk.truncate(len.unwrap_or(usize::MAX));
        disk
    }

    pub(crate) fn tag(&self) -> [u8; 8] {
        self.header[32..40].try_into().expect("eight bytes")
    }

    /// The file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out = sealed(self.header.clone());
        let none = keep();
        let info = self.record(&mut out, 3, 1, 0, &self.info, &self.info_record);
        let tables = self.record(&mut out, 3, 2, 0, &self.tables, &none);
        let leaves: Vec<_> = self
            .leaves
            .iter()
            .map(|leaf| self.leaf(&mut out, leaf))
            .collect();
        let (top, digest) = match &self.node {
            None => leaves[0],
            Some(node) => self.node(&mut out, node, &leaves),
        };
        let summary = self.record(&mut out, 3, 3, 0, &self.summary, &none);
        let header = self.header_again.as_ref().unwrap_or(&self.header);
        let mut trailer = b"\x89STREND\n".to_vec();
        trailer.extend(len64(out.len()));
        trailer.extend(sealed(header.clone()));
        trailer.extend(place(top));
        trailer.extend([0; 4]);
        trailer.extend(digest);
        trailer.extend([0; 32]);
        [info, tables, summary]
            .iter()
            .for_each(|p| trailer.extend(place(*p)));
        let frames: usize = self.leaves.iter().map(|leaf| leaf.frames.len()).sum();
        trailer.extend(len64(frames));
        trailer.resize(TRAILER - 4, 0);
        (self.trailer)(&mut trailer);
        let digests = [&self.info, &self.tables, &self.summary].map(|p| hash(&p.decoded));
        let root = derive(
            "diskstrata root 1",
            &[
                &header[32..48],
                &header[48..64],
                &header[12..16],
                &header[112..120],
                &header[120..121],
                &trailer[160..192],
                &digests[0],
                &digests[1],
                &digests[2],
            ],
        );
        put(&mut trailer, 192, &root);
        (self.trailer_sealed)(&mut trailer);
        out.extend(sealed(trailer));
        out
    }

    /// The root digest that it will have.
    pub(crate) fn root(&self) -> Vec<u8> {
        let file = self.build();
        let trailer = file.len() - TRAILER;
        file[trailer + 192..trailer + 224].to_vec()
    }

    fn record(
        &self,
        out: &mut Vec<u8>,
        kind: u8,
        position: u64,
        mask: u64,
        payload: &Payload,
        edit: &Edit,
    ) -> (usize, usize) {
        let at = out.len();
        let mut header = b"sRec".to_vec();
        header.extend([kind, payload.codec, 0, 0]);
        header.extend(self.tag());
        header.extend(position.to_le_bytes());
        header.extend(mask.to_le_bytes());
        header.extend(len32(payload.stored.len()));
        header.extend(payload.raw_len.to_le_bytes());
        header.extend(crc32fast::hash(&payload.stored).to_le_bytes());
        assert_eq!(header.len(), RECORD - 4);
        edit(&mut header);
        out.extend(sealed(header));
        out.extend(&payload.stored);
        (at, payload.stored.len())
    }

    fn leaf(&self, out: &mut Vec<u8>, leaf: &Leaf) -> ((usize, usize), [u8; 32]) {
        let from = out.len();
        for frame in &leaf.frames {
            self.record(out, 1, frame.first, frame.mask, &frame.payload, &frame.edit);
        }
        let mut payload = states(leaf);
        (leaf.committed)(&mut payload);
        let context = "diskstrata table leaf 1";
        let digest = derive(context, &[&leaf.index.to_le_bytes(), &payload]);
        let mut rest = located(leaf, &self.header[12..16], from);
        (leaf.located)(&mut rest);
        payload.extend(rest);
        let place = self.record(out, 2, leaf.index, 0, &Payload::raw(payload), &leaf.edit);
        (place, digest)
    }

    fn node(
        &self,
        out: &mut Vec<u8>,
        node: &Node,
        leaves: &[((usize, usize), [u8; 32])],
    ) -> ((usize, usize), [u8; 32]) {
        let count = 3;
        let found = |i: u64| {
            let mut all = self.leaves.iter().zip(leaves);
            all.find(|(leaf, _)| leaf.index == i)
                .map(|(_, found)| found)
        };
        let (mut payload, mut rest) = (len32(count)[..2].to_vec(), Vec::new());
        payload.extend([0; 2]);
        for i in 0..3 {
            let since = &self.header[12..16];
            match found(i) {
                Some((at, digest)) => {
                    payload.extend([1, 0, 0, 0]);
                    payload.extend(digest);
                    rest.extend([1, 0, 0, 0]);
                    rest.extend(since);
                    rest.extend(place(*at));
                }
                None => {
                    payload.extend([2, 3, 0, 0]);
                    payload.extend([0; 32]);
                    rest.extend([3, 0, 0, 0]);
                    rest.extend(since);
                    rest.extend([0; 12]);
                }
            }
        }
        (node.committed)(&mut payload);
        let digest = derive("diskstrata table node 1", &[&[1], &[0; 8], &payload]);
        (node.located)(&mut rest, out.len());
        payload.extend(rest);
        let place = self.record(out, 2, 1 << 56, 0, &Payload::raw(payload), &keep());
        (place, digest)
    }
}

/// Where a record is, as 12 bytes.
fn place((at, len): (usize, usize)) -> Vec<u8> {
    [&len64(at)[..], &len32(len)].concat()
}

/// State runs and digests.
fn states(leaf: &Leaf) -> Vec<u8> {
    let runs: Vec<_> = leaf.blocks.chunk_by(|a, b| a.0 == b.0).collect();
    let with_content = leaf.blocks.iter().filter(|(state, _)| *state == 1);
    let digests: Vec<u8> = with_content.flat_map(|(_, bytes)| hash(bytes)).collect();
    let mut out = [&len32(runs.len())[..2], &[0, 0], &len32(digests.len() / 32)].concat();
    for run in runs {
        out.extend([run[0].0, 0]);
        out.extend(&len32(run.len())[..2]);
    }
    out.extend(digests);
    out
}

/// Since runs and frames, of which the first one stands at `from`.
fn located(leaf: &Leaf, since: &[u8], from: usize) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0];
    out.extend(since);
    out.extend(&len32(leaf.blocks.len())[..2]);
    out.extend([0; 2]);
    out.extend(len64(if leaf.frames.is_empty() { 0 } else { from }));
    out.extend(len32(leaf.frames.len()));
    let start = leaf.index * 256;
    for frame in &leaf.frames {
        out.extend(
            (frame.first.wrapping_sub(start))
                .to_le_bytes()
                .split_at(2)
                .0,
        );
        out.extend(len32(frame.payload.stored.len()));
        out.extend(frame.mask.to_le_bytes());
    }
    out
}

/// A leaf of `count` blocks: the first window has content, of the second the first and the third block, and
/// the rest is zero.
fn leaf(index: u64, count: usize) -> Leaf {
    let start = usize::try_from(index).expect("few leaves") * LEAF;
    let block = |n: usize| match n {
        0..=4 | 6 => (1, content(start + n)),
        _ => (2, Vec::new()),
    };
    let blocks: Vec<_> = (0..count).map(block).collect();
    let first = index * 256;
    let held = |range: std::ops::Range<usize>| -> Vec<u8> {
        let bytes = blocks[range].iter().flat_map(|(_, bytes)| bytes.clone());
        bytes.collect()
    };
    let frame = |first, mask, payload| Frame {
        first,
        mask,
        payload,
        edit: keep(),
    };
    let frames = vec![
        frame(first, 0b1111, Payload::raw(held(0..4))),
        frame(first + 4, 0b101, Payload::packed(held(4..8))),
    ];
    Leaf {
        index,
        blocks,
        frames,
        committed: keep(),
        located: keep(),
        edit: keep(),
    }
}

/// The header of a full image of so many blocks, without its checksum.
pub(crate) fn header(blocks: usize, window_log2: u8) -> Vec<u8> {
    let mut out = b"\x89STRATA\n".to_vec();
    out.extend([1, 0, 128, 0]);
    out.extend(1u32.to_le_bytes());
    out.extend([0; 16]);
    out.extend([0x1D; 16]);
    out.extend([0x5E; 16]);
    out.extend([0; 16 + 32]);
    out.extend(len64(blocks * BLOCK));
    out.extend([12, window_log2, 1, 0]);
    assert_eq!(out.len(), HEADER - 4);
    out
}

/// A file cut into parts of the format of section 13, each with this id.
pub(crate) fn parts(file: &[u8], part_len: usize, id: [u8; 16]) -> Vec<Vec<u8>> {
    let room = part_len - 64 - 32;
    let pieces: Vec<&[u8]> = file.chunks(room).collect();
    let part = |(n, piece): (usize, &&[u8])| {
        let mut head = b"\x89STPART\n".to_vec();
        head.extend(1u32.to_le_bytes());
        head.extend(len32(n + 1));
        head.extend(id);
        head.extend(len64(n * room));
        head.extend(len64(part_len));
        head.extend([0; 12]);
        let mut end = b"\x89STPEND\n".to_vec();
        end.extend(len32(if n + 1 == pieces.len() {
            pieces.len()
        } else {
            0
        }));
        end.extend(id);
        [sealed(head), piece.to_vec(), sealed(end)].concat()
    };
    pieces.iter().enumerate().map(part).collect()
}

/// Puts `bytes` at `at` of a part's head, and makes its checksum right.
pub(crate) fn part_with(part: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut head = part[..60].to_vec();
    put(&mut head, at, bytes);
    [&sealed(head)[..], &part[64..]].concat()
}

/// The prelude of an encrypted file with `bytes` at `at`, its checksum right, and slots of zeros behind it.
pub(crate) fn prelude_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = b"\x89STCRYP\n".to_vec();
    out.extend([1, 0, 0, 0]);
    out.extend(len32(4096));
    out.extend([0; 8]);
    out.push(14);
    out.resize(60, 0);
    put(&mut out, at, bytes);
    let mut file = sealed(out);
    file.resize(64 + 2 * 4096 + 1000, 0);
    file
}
