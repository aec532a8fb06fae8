//! The golden images of every version of the format open, verify and restore for ever.

#![allow(clippy::unwrap_used)]

use diskstrata::base::{ByteOffset, Cancel, Silent};
use diskstrata::block::BlockSource;
use diskstrata::chain::{Catalog, ChainView};
use diskstrata::image::{BlockCounts, ByteRange, ImageReader};
use diskstrata::pipeline::{Depth, Resources, Sample, verify_file};
use diskstrata::store::LocalStore;
use jiff::tz::TimeZone;
use std::sync::Arc;

/// What `examples/make_golden.rs` printed when the images were made.
const DISK: &str = "d04e9ef276e87ab2d0190ef5868766085db98b9790da10324cd781e643a0187f";
const NEXT_DAY: &str = "e07c920ed02d8a7333d320fb9aaa4348212506a2d794b077b6b002fec86277a3";
const DISK_LEN: u64 = 4096 * 2055 - 123;

fn bytes(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/image/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn resources(cancel: &Cancel) -> Resources<'_> {
    Resources {
        threads: 2,
        memory: 1 << 20,
        cancel,
        observer: &Silent,
    }
}

fn check(name: &str, id: &str, root: &str) {
    let image = Arc::new(ImageReader::open(Arc::new(bytes(name))).unwrap());
    assert_eq!(image.header().sequence, 1);
    assert_eq!(image.header().id.to_string(), id);
    assert_eq!(image.root().to_string(), root);
    assert_eq!(image.header().disk_len.0, DISK_LEN);
    assert_eq!(image.info().set, "golden");
    assert_eq!(image.info().created, 1_700_000_000);
    assert_eq!(image.info().comment.as_deref(), Some("kept for ever"));
    assert_eq!(image.tables().len(), 1);
    assert_eq!(image.tables()[0].1.len(), 512);
    let counts = BlockCounts {
        data: 5,
        zero: 2048,
        unused: 1,
        unreadable: 1,
    };
    assert_eq!(image.summary().blocks, counts);
    assert_eq!(image.summary().changed, counts);
    assert_eq!(
        image.summary().unreadable,
        [ByteRange {
            start: 3 * 4096,
            length: 512
        }]
    );
    let cancel = Cancel::new();
    let view = ChainView::of(Arc::clone(&image)).unwrap();
    let damage = verify_file(&image, &view, Depth::Deep, Sample::ALL, resources(&cancel));
    assert_eq!(damage.unwrap(), []);
    let mut disk = vec![0xEE; usize::try_from(DISK_LEN).unwrap()];
    view.read_at(ByteOffset(0), &mut disk).unwrap();
    assert_eq!(blake3::hash(&disk).to_hex().as_str(), DISK);
}

#[test]
fn version_1_raw() {
    check(
        "v1-raw.strata",
        "00000000-0000-0000-0000-0000901d0001",
        "22865995f154a37269ddaf905dc4af431cec6b1e77d804cfd494bf4c24002be6",
    );
}

#[test]
fn version_1_zstd() {
    check(
        "v1-zstd.strata",
        "00000000-0000-0000-0000-0000901d0002",
        "19c91f79a71b0ef1790e8dc666654edfee565a8301ca222a5ac1952bc0f754e5",
    );
}

#[test]
fn version_1_incremental() {
    let folder = format!("{}/fixtures/image", env!("CARGO_MANIFEST_DIR"));
    let store = Arc::new(LocalStore::open(folder.as_ref()).unwrap());
    let catalog = Catalog::load(store.as_ref()).unwrap();
    let image = catalog.find("000000000000000000000000901d0003", &TimeZone::UTC);
    let image = image.unwrap();
    let parent = image.header.parent.unwrap();
    assert_eq!((parent.sequence, image.header.sequence), (1, 2));
    assert_eq!(
        image.root.to_string(),
        "edc2412c5b50530d22cebe9c6d8b53dc4a66ed6484355958a9b3871a49dc7497"
    );
    let view = ChainView::open(store, catalog.lineage(image)).unwrap();
    view.lineage().check().unwrap();
    let changed = BlockCounts {
        data: 3,
        zero: 1,
        unused: 1,
        unreadable: 0,
    };
    assert_eq!(view.image().summary().changed, changed);
    let (cancel, depth) = (Cancel::new(), Depth::Deep);
    let damage = verify_file(view.image(), &view, depth, Sample::ALL, resources(&cancel));
    assert_eq!(damage.unwrap(), []);
    let mut disk = vec![0xEE; usize::try_from(DISK_LEN).unwrap()];
    view.read_at(ByteOffset(0), &mut disk).unwrap();
    assert_eq!(blake3::hash(&disk).to_hex().as_str(), NEXT_DAY);
}

fn le(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len]
        .iter()
        .rev()
        .fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The numbers here are those of docs/format.md, not of the code: a reader written from the page
/// alone finds everything where the page says.
#[test]
fn the_page_describes_the_bytes() {
    let file = bytes("v1-raw.strata");
    let crc_of = |from: usize, to: usize| u64::from(crc32fast::hash(&file[from..to]));
    // Header.
    assert_eq!(file[..8], [0x89, 0x53, 0x54, 0x52, 0x41, 0x54, 0x41, 0x0A]);
    assert_eq!((le(&file, 8, 2), le(&file, 10, 2)), (1, 128));
    assert_eq!(le(&file, 12, 4), 1, "its place in the history");
    assert_eq!(file[16..32], [0; 16], "no features, no parent");
    assert_eq!(file[32..48], *0x901d_0001_u128.to_be_bytes().as_slice());
    assert_eq!(file[64..112], [0; 48]);
    assert_eq!(le(&file, 112, 8), DISK_LEN);
    assert_eq!(file[120..124], [12, 2, 1, 0]);
    assert_eq!(le(&file, 124, 4), crc_of(0, 124));
    // Trailer.
    let end = file.len() - 512;
    assert_eq!(
        file[end..end + 8],
        [0x89, 0x53, 0x54, 0x52, 0x45, 0x4E, 0x44, 0x0A]
    );
    assert_eq!(le(&file, end + 8, 8), u64::try_from(end).unwrap());
    assert_eq!(file[end + 16..end + 144], file[..128]);
    assert_eq!(le(&file, end + 508, 4), crc_of(end, end + 508));
    assert_eq!(le(&file, end + 260, 8), 3, "three windows hold data");
    // Records fill the space between, each with the tag of the image and two checksums.
    let mut at = 128;
    let mut kinds = Vec::new();
    while at < end {
        assert_eq!(file[at..at + 4], [0x73, 0x52, 0x65, 0x63]);
        assert_eq!(file[at + 8..at + 16], file[32..40]);
        let stored = usize::try_from(le(&file, at + 32, 4)).unwrap();
        assert_eq!(le(&file, at + 44, 4), crc_of(at, at + 44));
        assert_eq!(le(&file, at + 40, 4), crc_of(at + 48, at + 48 + stored));
        kinds.push((file[at + 4], le(&file, at + 16, 8)));
        at += 48 + stored;
    }
    assert_eq!(at, end);
    let node = 1 << 56;
    let expected = [
        (3, 1),
        (3, 2),
        (1, 0),
        (2, 0),
        (1, 2048),
        (1, 2052),
        (2, 8),
        (2, node),
        (3, 3),
    ];
    assert_eq!(
        kinds, expected,
        "sections, frames before their leaf, the node last"
    );
}
