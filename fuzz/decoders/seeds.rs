//! Files and disks to be damaged, and inputs as damage to them.

use crate::damage::{self, Record};
use diskstrata::base::{
    BlockSize, ByteLen, ByteOffset, Digest, Extent, Geometry, Result, SectorSize, to_u64, to_usize,
};
use diskstrata::block::{BlockSource, Capsule};
use diskstrata::image::{
    Base, BlockState, Compression, Encoder, Header, ImageWriter, Info, Kind, Parent, Summary,
    encode_window,
};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// First bytes from here on stand for bytes of their own.
pub(crate) const RAW: u8 = 0xC0;
/// More damage than this makes no better file.
const MOST_RECORDS: usize = 64;
/// Pieces of a file lie so far apart in its capsule.
const APART: u64 = 1 << 26;
/// A file grows by no more than this.
const MOST_GROWTH: u64 = 8192;

/// A file of `fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    above.expect("a folder").join("fixtures").join(name)
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = fixture(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A file as a capsule: its pieces far apart, so that damage finds their beginnings and stays in them.
pub(crate) struct Cut(Capsule);

impl Cut {
    /// `file`, cut where one of `marks` stands.
    pub(crate) fn at(file: &[u8], marks: &[&[u8]]) -> Cut {
        let starts = |at: &usize| marks.iter().any(|mark| file[*at..].starts_with(mark));
        let mut places: Vec<usize> = (1..file.len()).filter(starts).collect();
        places.insert(0, 0);
        places.push(file.len());
        let pieces = places.windows(2).map(|w| file[w[0]..w[1]].to_vec());
        Cut::of(pieces.filter(|piece| !piece.is_empty()).collect())
    }

    pub(crate) fn of(pieces: Vec<Vec<u8>>) -> Cut {
        let source = Laid(pieces);
        let extents = (0..).zip(&source.0).map(|(i, piece)| Extent {
            start: ByteOffset(i * APART),
            len: ByteLen(to_u64(piece.len())),
        });
        let extents = extents.collect();
        Cut(Capsule::record(&source, extents).expect("in memory"))
    }

    /// Its pieces with the damage that `records` decide.
    pub(crate) fn damaged(&self, records: &[u8]) -> Vec<Vec<u8>> {
        let (capsule, _) = damage::damaged(&self.0, &records_of(records));
        let grown = capsule
            .len()
            .0
            .saturating_sub(self.0.len().0)
            .min(MOST_GROWTH);
        let mut pieces: Vec<Vec<u8>> = capsule.pieces().iter().map(|(_, b)| b.clone()).collect();
        if let Some(last) = pieces.last_mut() {
            last.resize(last.len() + to_usize(grown), 0);
        }
        pieces
    }
}

/// The records that stand in an input.
pub(crate) fn records_of(bytes: &[u8]) -> Vec<Record> {
    let records = bytes.chunks_exact(size_of::<Record>());
    let records = records.filter_map(|record| Record::try_from(record).ok());
    records.take(MOST_RECORDS).collect()
}

/// The file that `input` stands for.
pub(crate) fn file(input: &[u8], seeds: &[Cut]) -> Option<Vec<u8>> {
    let (first, rest) = input.split_first()?;
    if *first >= RAW {
        return Some(rest.to_vec());
    }
    let seed = seeds.get(usize::from(*first) % seeds.len())?;
    Some(seed.damaged(rest).concat())
}

/// Pieces of a file, far apart.
struct Laid(Vec<Vec<u8>>);

impl BlockSource for Laid {
    fn name(&self) -> &str {
        "pieces"
    }

    fn geometry(&self) -> Geometry {
        let last = self.0.last().map_or(0, |piece| to_u64(piece.len()));
        let before = to_u64(self.0.len().saturating_sub(1));
        Geometry::of_len(ByteLen(before * APART + last))
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let piece = &self.0[to_usize(offset.0 / APART)];
        let from = to_usize(offset.0 % APART);
        buf.copy_from_slice(&piece[from..from + buf.len()]);
        Ok(())
    }
}

/// A disk of which only some bytes are not zero.
pub(crate) struct Sparse {
    pub(crate) geometry: Geometry,
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
}

impl BlockSource for Sparse {
    fn name(&self) -> &str {
        "sparse disk"
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        let end = offset.0 + to_u64(buf.len());
        for (at, bytes) in &self.pieces {
            let from = offset.0.max(*at);
            let to = end.min(at + to_u64(bytes.len()));
            if from < to {
                buf[to_usize(from - offset.0)..to_usize(to - offset.0)]
                    .copy_from_slice(&bytes[to_usize(from - at)..to_usize(to - at)]);
            }
        }
        Ok(())
    }
}

/// A part of an image that is made here.
pub(crate) enum Part {
    Run(BlockState, u32, u64),
    /// A window whose blocks begin with these bytes; 0 is a block of zeros.
    Window(Vec<u8>),
}

/// The header of an image that is made here.
pub(crate) fn header(blocks: u64, block: u64, window_log2: u8, parent: u32) -> Header {
    Header {
        id: Uuid::from_u128(0x1D),
        set: Uuid::from_u128(0x5E7),
        sequence: parent + 1,
        parent: (parent > 0).then(|| Parent {
            id: Uuid::from_u128(0x9A),
            sequence: parent,
            root: Digest::of(b"parent"),
        }),
        kind: if parent > 0 {
            Kind::Incremental
        } else {
            Kind::Full
        },
        disk_len: ByteLen(blocks * block - 100),
        block_size: BlockSize::new(block).expect("a block"),
        window_log2,
    }
}

/// An image of `parts`, with unused blocks up to its end. Small, and with most kinds of pages.
pub(crate) fn image(header: &Header, compression: Compression, parts: &[Part]) -> Vec<u8> {
    let tables = [(ByteOffset(0), b"table".to_vec())];
    let info = Info::default();
    let mut encoder = Encoder::new(compression).unwrap();
    let mut writer =
        ImageWriter::start(Vec::new(), "seed", header.clone(), &info, &tables).unwrap();
    for part in parts {
        match part {
            Part::Run(state, since, count) => writer.push_run(*state, *since, *count).unwrap(),
            Part::Window(blocks) => {
                let first = writer.next();
                let blocks = blocks.iter().enumerate().map(|(i, byte)| {
                    let index = diskstrata::base::BlockIndex(first.0 + to_u64(i));
                    let extent = header.block_size.extent_of(index, header.disk_len);
                    let mut block = vec![0; to_usize(extent.len.0)];
                    block[0] = *byte;
                    block
                });
                let data = blocks.collect::<Vec<_>>().concat();
                let window = encode_window(
                    header,
                    first,
                    &data,
                    &[],
                    &Base::None.into(),
                    &mut encoder,
                    &mut Vec::new(),
                );
                writer.push_window(&window.unwrap()).unwrap();
            }
        }
    }
    let left = header.blocks() - writer.next().0;
    writer
        .push_run(BlockState::Unused, header.sequence, left)
        .unwrap();
    writer.finish(Summary::default()).unwrap().0
}

/// Images: the golden ones, and small ones of every shape.
pub(crate) fn images() -> Vec<Vec<u8>> {
    use BlockState::{Unused, Zero};
    let none = Compression::None;
    let zstd = Compression::Zstd(1);
    let window = |bytes: &[u8]| Part::Window(bytes.to_vec());
    let golden = ["v1-raw", "v1-zstd", "v1-incremental"];
    let mut all: Vec<Vec<u8>> = golden
        .iter()
        .map(|name| read(&format!("image/{name}.strata")))
        .collect();
    // One leaf, which is the top.
    let one = header(7, 4096, 2, 0);
    all.push(image(
        &one,
        none,
        &[window(&[1, 0, 3, 4]), window(&[5, 6, 7])],
    ));
    all.push(image(
        &one,
        zstd,
        &[window(&[1, 2, 3, 4]), Part::Run(Zero, 1, 2)],
    ));
    // A node over leaves that are here and nowhere.
    let two = header(5 * 256 + 3, 4096, 1, 0);
    let parts = [
        window(&[1, 2]),
        Part::Run(Zero, 1, 254),
        Part::Run(Unused, 1, 2 * 256),
        window(&[0, 3]),
    ];
    all.push(image(&two, none, &parts));
    all.push(image(&two, zstd, &parts));
    // Three levels, windows of one block.
    let three = header(256 * 128 + 300, 4096, 0, 0);
    let parts = [
        Part::Run(Zero, 1, 256 * 128),
        window(&[1]),
        Part::Run(Unused, 1, 298),
        window(&[2]),
    ];
    all.push(image(&three, none, &parts));
    // The same with windows as long as they may be.
    let deep = header(256 * 128 + 300, 4096, 6, 0);
    all.push(image(&deep, zstd, &[window(&[7; 64])]));
    // One that builds on another: some blocks are as old.
    let child = header(5 * 256 + 3, 4096, 1, 3);
    let parts = [
        Part::Run(Zero, 2, 256),
        window(&[9, 0]),
        Part::Run(Unused, 1, 254),
        Part::Run(Zero, 4, 256),
    ];
    all.push(image(&child, none, &parts));
    all
}

/// What records and trailers begin with.
pub(crate) const MARKS: [&[u8]; 2] = [b"sRec", b"\x89STREND\n"];

pub(crate) fn cut_images() -> Vec<Cut> {
    images().iter().map(|file| Cut::at(file, &MARKS)).collect()
}

/// Sector sizes that a disk may have.
pub(crate) fn sector(bytes: u32) -> SectorSize {
    SectorSize::new(bytes).expect("a sector")
}
