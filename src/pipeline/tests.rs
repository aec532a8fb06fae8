//! Disk to image and back, whole and damaged.

use super::{
    BackupTotals, Compared, Damage, Depth, Extracted, Frames, Input, ReadBlocks, Resources,
    Rewriting, Sample, Selection, Used, compare, extract, rewrite, select, untouched, verify_disk,
    verify_file, write_blocks,
};
use crate::base::{
    Announced, BlockMap, BlockSize, ByteLen, ByteOffset, Cancel, Error, ErrorKind, Extent, Phase,
    RangeRead, Result, Silent, normalize, to_u64, to_usize,
};
use crate::block::{
    BlockSource, Fault, FaultSource, Faults, Mapping, MemorySource, Op, RecordSource, Recorded,
    fill_unreadable,
};
use crate::chain::ChainView;
use crate::image::{
    Compression, FilePiece, Finished, Header, ImageReader, ImageWriter, Info, Kind, Summary,
};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

mod ahead;
mod at_once;
mod comparing;
mod in_place;
mod salvage;

const BLOCK: usize = 4096;

fn resources(cancel: &Cancel) -> Resources<'_> {
    Resources {
        threads: 2,
        memory: 1 << 20,
        cancel,
        observer: &Silent,
    }
}

fn header(disk_len: usize) -> Header {
    Header {
        id: Uuid::from_u128(0xA1),
        set: Uuid::from_u128(0xB2),
        sequence: 1,
        parent: None,
        kind: Kind::Full,
        disk_len: ByteLen(to_u64(disk_len)),
        block_size: BlockSize::new(to_u64(BLOCK)).unwrap(),
        window_log2: 2,
    }
}

/// Exactly the blocks `map`.
fn taking(len: ByteLen, map: BlockMap) -> Selection {
    let whole = Extent {
        start: ByteOffset(0),
        len,
    };
    let used = Used {
        extent: whole,
        unit: ByteLen(to_u64(BLOCK)),
        map,
    };
    select(
        len,
        BlockSize::new(to_u64(BLOCK)).unwrap(),
        vec![used],
        vec![],
    )
}

fn image_of(
    source: &dyn BlockSource,
    take: BlockMap,
    compression: Compression,
) -> (Vec<u8>, BackupTotals, Finished) {
    let header = header(to_usize(source.len().0));
    let info = Info {
        set: "test".into(),
        ..Info::default()
    };
    let tables = vec![(ByteOffset(0), vec![7; 33])];
    let mut writer = ImageWriter::start(Vec::new(), "memory", header, &info, &tables).unwrap();
    let cancel = Cancel::new();
    let selection = taking(source.len(), take);
    let totals = write_blocks(
        &Input::new(source, &selection),
        None,
        compression,
        &mut writer,
        resources(&cancel),
    )
    .unwrap();
    let unreadable = totals.missing.all().into_iter().map(Into::into).collect();
    let (bytes, finished) = writer
        .finish(Summary {
            unreadable,
            ..Summary::default()
        })
        .unwrap();
    assert_eq!(to_u64(bytes.len()), finished.len);
    (bytes, totals, finished)
}

fn image_of_bytes(disk: &[u8], compression: Compression) -> Vec<u8> {
    let source = MemorySource::new("disk", disk.to_vec());
    let take = BlockMap::full(to_u64(disk.len().div_ceil(BLOCK)));
    image_of(&source, take, compression).0
}

/// Bytes some of which are not in memory, so that not all who may read them are the same.
struct PartlyCached(Vec<u8>);

impl RangeRead for PartlyCached {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> u64 {
        RangeRead::len(&self.0)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }

    fn is_cached(&self, offset: u64, len: u64) -> bool {
        !(offset ^ len).is_multiple_of(3)
    }
}

fn open(bytes: &[u8]) -> Result<ChainView> {
    let bytes = Arc::new(PartlyCached(bytes.to_vec()));
    ChainView::of(Arc::new(ImageReader::open(bytes)?))
}

/// The disk an image stands for, and what of it is lost.
fn restored(view: &ChainView) -> (Vec<u8>, Vec<Extent>) {
    let image = view.image();
    let mut disk = vec![0xEE; to_usize(image.header().disk_len.0)];
    let mut lost = Vec::new();
    let mut next = 0;
    let mut put = |first: u64, count: u64, data: Option<&[u8]>| {
        assert_eq!(first, next, "blocks come in order");
        next = first + count;
        let extent = image.header().extent_of(&(first..first + count));
        let part = &mut disk[to_usize(extent.start.0)..to_usize(extent.end().0)];
        match data {
            Some(data) => part.copy_from_slice(data),
            None => part.fill(0),
        }
        extent
    };
    let cancel = Cancel::new();
    extract(
        view,
        0..image.header().blocks(),
        None,
        resources(&cancel),
        &untouched,
        |extracted, ()| {
            match extracted {
                Extracted::Unwanted { .. } => panic!("every block is wanted"),
                Extracted::Run { first, count, .. } => {
                    put(first.0, *count, None);
                }
                Extracted::Lost { first, count, .. } => lost.push(put(first.0, *count, None)),
                Extracted::Window(window) => {
                    put(
                        window.first.0,
                        to_u64(window.blocks.len()),
                        Some(&window.data),
                    );
                    lost.extend(
                        window
                            .lost
                            .iter()
                            .map(|b| image.header().extent_of(&(b.0..b.0 + 1))),
                    );
                }
            }
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(next, image.header().blocks(), "every block came");
    (disk, normalize(lost))
}

/// What is wrong with the file of a full image; what it costs is the same when only the disk is read.
fn damage(view: &ChainView, depth: Depth) -> Vec<Damage> {
    let cancel = Cancel::new();
    let image = view.image();
    let found = verify_file(image, view, depth, Sample::ALL, resources(&cancel)).unwrap();
    let blocks = 0..image.header().blocks();
    let of_disk = verify_disk(view, blocks, depth, resources(&cancel)).unwrap();
    let costs = |all: &[Damage]| normalize(all.iter().map(|d| d.extent).collect());
    assert_eq!(costs(&found), costs(&of_disk));
    found
}

/// A disk of text, noise, zeros and repeats, `blocks` blocks and 100 bytes long.
fn mixed_disk(blocks: usize) -> Vec<u8> {
    let mut disk = Vec::new();
    for i in 0..blocks {
        let seed = blake3::hash(&i.to_le_bytes());
        match i % 5 {
            0 => disk.extend(seed.as_bytes().iter().cycle().take(BLOCK)),
            1 | 4 => disk.extend(vec![0; BLOCK]),
            2 => {
                let mut noise = vec![0; BLOCK];
                blake3::Hasher::new()
                    .update(seed.as_bytes())
                    .finalize_xof()
                    .fill(&mut noise);
                disk.extend(noise);
            }
            _ => disk.extend(format!("line {i}\n").bytes().cycle().take(BLOCK)),
        }
    }
    disk.extend([9; 100]);
    disk
}

/// A store far away brings frames while those before them are decoded.
#[test]
fn frames_are_announced_before_they_are_read() {
    let bytes = Arc::new(Announced::new(image_of_bytes(
        &mixed_disk(500),
        Compression::Zstd(1),
    )));
    let image = Arc::new(ImageReader::open(Arc::clone(&bytes) as _).unwrap());
    let view = ChainView::of(Arc::clone(&image)).unwrap();
    let mut frames = std::collections::BTreeSet::new();
    image
        .walk(&mut |piece| {
            if let FilePiece::Leaf(leaf) = piece {
                let records = leaf.frames.iter().map(|f| (f.offset, f.record_len()));
                frames.extend(records.map(|(at, len)| (at, at + len)));
            }
            Ok(())
        })
        .unwrap();
    let cancel = Cancel::new();
    let blocks = 0..image.header().blocks();
    let all_announced = |what: &str, pass: &dyn Fn()| {
        bytes.take();
        pass();
        let read = bytes.take().into_iter();
        let of_frames = read.filter(|(range, _)| frames.contains(&(range.start, range.end)));
        let (known, unknown): (Vec<_>, Vec<_>) = of_frames.partition(|(_, known)| *known);
        assert_eq!(known.len(), frames.len(), "{what}");
        assert!(unknown.is_empty(), "{what}: {unknown:?}");
    };
    all_announced("restore", &|| {
        let sink = |_: &Extracted, ()| Ok(());
        let resources = resources(&cancel);
        extract(&view, blocks.clone(), None, resources, &untouched, sink).unwrap();
    });
    for depth in [Depth::Quick, Depth::Deep] {
        all_announced("verify a file", &|| {
            verify_file(&image, &view, depth, Sample::ALL, resources(&cancel)).unwrap();
        });
        all_announced("verify a disk", &|| {
            verify_disk(&view, blocks.clone(), depth, resources(&cancel)).unwrap();
        });
    }
    all_announced("rewrite", &|| {
        let info = Info::default();
        let header = header(to_usize(image.header().disk_len.0));
        let mut writer = ImageWriter::start(Vec::new(), "new", header, &info, &[]).unwrap();
        let form = Rewriting {
            frames: Frames::Copied,
            compression: Compression::Zstd(1),
            phase: Phase::Merge,
        };
        rewrite(&view, form, &mut writer, resources(&cancel)).unwrap();
    });
}

#[test]
fn a_disk_comes_back_bit_for_bit() {
    for compression in [
        Compression::None,
        Compression::Zstd(1),
        Compression::Zstd(9),
    ] {
        for blocks in [0, 1, 3, 4, 5, 254, 255, 256, 257, 2500] {
            let disk = mixed_disk(blocks);
            let image = open(&image_of_bytes(&disk, compression)).unwrap();
            assert!(damage(&image, Depth::Deep).is_empty());
            assert_eq!(restored(&image), (disk, vec![]), "{blocks} blocks");
        }
    }
}

#[test]
fn the_same_disk_gives_the_same_root_however_it_is_stored() {
    let disk = mixed_disk(300);
    let raw = open(&image_of_bytes(&disk, Compression::None)).unwrap();
    let small = open(&image_of_bytes(&disk, Compression::Zstd(9))).unwrap();
    assert!(small.image().file_len() < raw.image().file_len());
    assert_eq!(small.image().root(), raw.image().root());
    let mut other = disk;
    other[12_345] ^= 1;
    assert_ne!(
        open(&image_of_bytes(&other, Compression::None))
            .unwrap()
            .image()
            .root(),
        raw.image().root()
    );
}

#[test]
fn what_is_not_selected_is_not_read_and_comes_back_as_zeros() {
    let disk = vec![5u8; BLOCK * 3000];
    let log = Recorded::default();
    let source = MemorySource::new("disk", disk.clone());
    let source = RecordSource::new(Arc::new(source), log.clone());
    let mut take = BlockMap::empty(3000);
    take.insert_range(0..10);
    take.insert_range(2000..2001);
    let (bytes, totals, finished) = image_of(&source, take, Compression::Zstd(3));
    // Whole windows of four blocks are read.
    assert_eq!(totals.read, to_u64(BLOCK) * (12 + 4));
    for op in log.ops() {
        let Op::Read(extent) = op else { continue };
        let window = extent.start.0 / (4 * to_u64(BLOCK));
        assert!(window <= 2 || window == 500, "read at {}", extent.start);
    }
    assert_eq!((finished.blocks.data, finished.blocks.unused), (11, 2989));
    let (back, lost) = restored(&open(&bytes).unwrap());
    assert!(lost.is_empty());
    assert_eq!(back[..10 * BLOCK], disk[..10 * BLOCK]);
    assert!(back[10 * BLOCK..2000 * BLOCK].iter().all(|b| *b == 0));
    assert_eq!(back[2000 * BLOCK..2001 * BLOCK], disk[..BLOCK]);
}

#[test]
fn bad_sectors_are_listed_and_filled() {
    let mut disk = vec![3u8; BLOCK * 20];
    let bad = Extent {
        start: ByteOffset(to_u64(BLOCK) * 6 + 1024),
        len: ByteLen(512),
    };
    let faults = Faults::new(vec![Fault::read_in(bad, 5)]);
    let source = FaultSource::new(Arc::new(MemorySource::new("disk", disk.clone())), faults);
    let (bytes, totals, finished) = image_of(&source, BlockMap::full(20), Compression::Zstd(3));
    assert_eq!(totals.missing.all(), vec![bad]);
    assert_eq!(finished.blocks.unreadable, 1);
    let image = open(&bytes).unwrap();
    assert!(damage(&image, Depth::Deep).is_empty());
    let at = to_usize(bad.start.0);
    fill_unreadable(&mut disk[at..at + 512], bad.start);
    assert_eq!(restored(&image).0, disk);
}

/// A source whose middle is a hole that must not be read.
struct Holey(MemorySource, Extent);

impl BlockSource for Holey {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn geometry(&self) -> crate::base::Geometry {
        self.0.geometry()
    }
    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }
    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        let Extent { start, .. } = self.1;
        Ok(if offset < start {
            Mapping::Data(ByteLen(start.0 - offset.0))
        } else if offset < self.1.end() {
            Mapping::Zero(ByteLen(self.1.end().0 - offset.0))
        } else {
            Mapping::Data(ByteLen(self.0.len().0 - offset.0))
        })
    }
}

#[test]
fn holes_are_not_read() {
    let mut disk = vec![1u8; BLOCK * 4000];
    let hole = Extent {
        start: ByteOffset(50_001),
        len: ByteLen(to_u64(BLOCK) * 3500),
    };
    disk[to_usize(hole.start.0)..to_usize(hole.end().0)].fill(0);
    let source = Holey(MemorySource::new("disk", disk.clone()), hole);
    let (bytes, totals, finished) = image_of(&source, BlockMap::full(4000), Compression::Zstd(3));
    assert!(totals.read < to_u64(disk.len()) - hole.len.0 + 8 * 4 * to_u64(BLOCK));
    assert!(finished.blocks.zero >= 3495);
    assert_eq!(restored(&open(&bytes).unwrap()).0, disk);
}

#[test]
fn a_source_that_dies_and_a_cancel_end_the_backup() {
    let disk = MemorySource::new("disk", vec![1; BLOCK * 400]);
    let run = |source: &dyn BlockSource, cancel: &Cancel| {
        let mut writer =
            ImageWriter::start(Vec::new(), "m", header(BLOCK * 400), &Info::default(), &[])
                .unwrap();
        let selection = taking(source.len(), BlockMap::full(400));
        write_blocks(
            &Input::new(source, &selection),
            None,
            Compression::None,
            &mut writer,
            resources(cancel),
        )
        .unwrap_err()
        .kind()
    };
    use crate::sys::errno::ENODEV;
    let dying = Faults::new(vec![Fault::nth_read(30, ENODEV, true)]);
    let dying = FaultSource::new(Arc::new(disk.clone()), dying);
    assert_eq!(run(&dying, &Cancel::new()), ErrorKind::Source);
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(run(&disk, &cancel), ErrorKind::Interrupted);
}

/// A disk whose image is small and has every part: frames raw and compressed, uniform leaves, nodes.
fn small_image() -> (Vec<u8>, Vec<u8>) {
    let mut disk = vec![0u8; BLOCK * (3 * 1024 + 5)];
    let text = b"the quick brown fox ".repeat(300);
    disk[..6000].copy_from_slice(&text[..6000]);
    disk[BLOCK * 2048..BLOCK * 2048 + 300].fill(0x55);
    disk[BLOCK * 2049..BLOCK * 2049 + 300].fill(0x66);
    disk[BLOCK * 3076..BLOCK * 3077].fill(0x77);
    let image = image_of_bytes(&disk, Compression::Zstd(3));
    assert!(image.len() < 8192, "{} bytes", image.len());
    (disk, image)
}

#[test]
fn every_flipped_byte_is_noticed_and_costs_what_is_named() {
    let (disk, good) = small_image();
    let mut opened = 0;
    for at in 0..good.len() {
        for flip in [1u8 << (at % 8), 0xFF] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            let image = match open(&bad) {
                Ok(image) => image,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Damaged, "byte {at}: {e}");
                    continue;
                }
            };
            opened += 1;
            let quick = damage(&image, Depth::Quick);
            assert!(!quick.is_empty(), "byte {at} went unnoticed");
            let named = |d: &[Damage]| normalize(d.iter().map(|d| d.extent).collect());
            let deep = damage(&image, Depth::Deep);
            assert_eq!(named(&quick), named(&deep), "byte {at}");
            let (back, lost) = restored(&image);
            assert_eq!(
                lost,
                named(&deep),
                "byte {at}: what is lost is what was named"
            );
            assert_same_outside(&back, &disk, &lost, at);
        }
    }
    assert!(
        opened > good.len() / 2,
        "most flips leave the image openable: {opened}"
    );
}

fn assert_same_outside(back: &[u8], disk: &[u8], lost: &[Extent], at: usize) {
    let mut next = 0;
    for extent in lost {
        let start = to_usize(extent.start.0);
        assert!(
            back[next..start] == disk[next..start],
            "byte {at}: silent difference"
        );
        next = to_usize(extent.end().0);
    }
    assert!(back[next..] == disk[next..], "byte {at}: silent difference");
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let (_, good) = small_image();
    for len in 0..good.len() {
        let error = open(&good[..len]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{len} bytes");
    }
    for extra in [1, 511, 512, 513, 4096] {
        let mut long = good.clone();
        long.extend(vec![0; extra]);
        assert_eq!(open(&long).err().unwrap().kind(), ErrorKind::Damaged);
        long.truncate(good.len());
        let tail = good[good.len() - 512..].to_vec();
        long.extend(vec![0; extra]);
        long.extend(tail);
        assert_eq!(
            open(&long).err().unwrap().kind(),
            ErrorKind::Damaged,
            "a trailer knows its place"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_disk_comes_back(
        blocks in proptest::collection::vec((0u8..4, any::<u8>()), 1..200),
        tail in 0usize..BLOCK,
        taken in proptest::collection::vec(any::<bool>(), 200),
        level in 1i32..4,
    ) {
        let mut disk: Vec<u8> = blocks
            .iter()
            .flat_map(|(kind, byte)| if *kind == 0 { vec![0; BLOCK] } else { vec![*byte; BLOCK] })
            .collect();
        disk.extend(vec![1; tail]);
        let count = to_u64(disk.len().div_ceil(BLOCK));
        let mut take = BlockMap::empty(count);
        (0..count).filter(|b| taken[to_usize(*b) % 200]).for_each(|b| take.insert(crate::base::BlockIndex(b)));
        let source = MemorySource::new("disk", disk.clone());
        let (bytes, _, _) = image_of(&source, take.clone(), Compression::Zstd(level));
        let image = open(&bytes).unwrap();
        prop_assert!(damage(&image, Depth::Deep).is_empty());
        for free in take.complement().runs() {
            let extent = image.image().header().extent_of(&free);
            disk[to_usize(extent.start.0)..to_usize(extent.end().0)].fill(0);
        }
        prop_assert_eq!(restored(&image), (disk, vec![]));
    }
}
