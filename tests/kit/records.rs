//! What stands where in an image file, by docs/format.md and nothing else.

use std::collections::BTreeSet;
use std::ops::Range;

pub(crate) const HEADER: usize = 128;
pub(crate) const RECORD: usize = 48;
pub(crate) const TRAILER: usize = 512;
const LEAF_BLOCKS: u64 = 256;
const NODE_CHILDREN: u64 = 128;

/// A little-endian number.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn size(n: u64) -> usize {
    usize::try_from(n).expect("a length that fits into memory")
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Frame { first: u64, mask: u64 },
    Page { level: u32, index: u64 },
    Section(u64),
}

/// A record of a whole image.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) what: What,
    /// Its bytes in the file, header and payload.
    pub(crate) bytes: Range<usize>,
}

impl Record {
    pub(crate) fn payload(&self) -> Range<usize> {
        self.bytes.start + RECORD..self.bytes.end
    }

    /// The blocks that a frame holds.
    pub(crate) fn blocks(&self) -> BTreeSet<u64> {
        match self.what {
            What::Frame { first, mask } => {
                let bits = (0..64).filter(|bit| mask >> bit & 1 == 1);
                bits.map(|bit| first + bit).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    pub(crate) fn is_frame(&self) -> bool {
        matches!(self.what, What::Frame { .. })
    }
}

/// The records of a whole image, in their order.
pub(crate) fn records(image: &[u8]) -> Vec<Record> {
    let mut all = Vec::new();
    let mut at = HEADER;
    while at < image.len() - TRAILER {
        let header = &image[at..at + RECORD];
        assert_eq!(&header[..4], b"sRec", "a record at byte {at}");
        let position = number(&header[16..24]);
        let what = match header[4] {
            1 => What::Frame {
                first: position,
                mask: number(&header[24..32]),
            },
            2 => What::Page {
                level: u32::try_from(position >> 56).expect("8 bits"),
                index: position & ((1 << 56) - 1),
            },
            3 => What::Section(position),
            kind => panic!("a record of kind {kind}"),
        };
        let end = at + RECORD + size(number(&header[32..36]));
        all.push(Record {
            what,
            bytes: at..end,
        });
        at = end;
    }
    assert_eq!(at, image.len() - TRAILER, "records up to the trailer");
    all
}

/// How many blocks the disk has, and how long each is.
pub(crate) fn geometry(image: &[u8]) -> (u64, u64) {
    let (len, block) = (number(&image[112..120]), 1u64 << image[120]);
    (len.div_ceil(block), block)
}

/// The blocks below page (`level`, `index`) of a disk of so many.
pub(crate) fn below(level: u32, index: u64, blocks: u64) -> Range<u64> {
    let span = LEAF_BLOCKS * NODE_CHILDREN.pow(level);
    (index * span).min(blocks)..((index + 1) * span).min(blocks)
}

/// Of the pages that a node names: the blocks below those that lie elsewhere, or nowhere.
pub(crate) fn named_only_by(image: &[u8], node: &Record) -> Vec<Range<u64>> {
    let What::Page { level, index } = node.what else {
        panic!("no page: {node:?}");
    };
    let (blocks, _) = geometry(image);
    let payload = &image[node.payload()];
    let count = size(number(&payload[..2]));
    let places = payload[4 + 36 * count..].chunks(20);
    let children = (index * NODE_CHILDREN..).zip(places);
    let elsewhere = children.filter(|(_, place)| place[0] != 1);
    elsewhere
        .map(|(child, _)| below(level - 1, child, blocks))
        .collect()
}
