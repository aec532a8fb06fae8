//! Every bit of an image is flipped, one by one: a look at the file finds it.

use crate::deeds::resources;
use crate::disk::{Disk, Edit, block_size};
use crate::kit::bytes::Stream;
use crate::long;
use crate::world::{SET, odd_len};
use diskstrata::base::{
    BlockIndex, ByteLen, ByteOffset, Cancel, Error, ErrorKind, RangeRead, Result,
};
use diskstrata::base::{to_u64, to_usize};
use diskstrata::image::{
    Child, Compression, Header, ImageReader, ImageWriter, Info, Kind, Leaf, OlderFiles, Summary,
};
use diskstrata::pipeline::{Depth, Input, Sample, verify_file, write_blocks};
use std::ops::Range;
use std::sync::Arc;
use uuid::Uuid;

/// How long the image is: 64 KiB, 524,288 bits.
const LEN: usize = 64 << 10;

/// A full image of a disk with text, noise, zeros, free blocks and an unreadable sector, of two levels, with
/// raw and compressed frames. `tables` bytes of noise stand for partition tables.
fn image(tables: usize) -> Vec<u8> {
    let mut disk = Disk::new(odd_len(699));
    disk.edit(&Edit::Free { at: 30, count: 660 });
    disk.edit(&Edit::Write {
        at: 0,
        count: 25,
        seed: 0,
    });
    disk.edit(&Edit::Allocate { at: 300, count: 12 });
    disk.edit(&Edit::Write {
        at: 301,
        count: 9,
        seed: 300,
    });
    disk.edit(&Edit::Write {
        at: 697,
        count: 3,
        seed: 600,
    });
    disk.edit(&Edit::Spoil {
        sector: 8 * 7,
        count: 1,
    });
    let header = Header {
        id: Uuid::from_u128(0xF11B << 96),
        set: Uuid::from_u128(9),
        sequence: 1,
        parent: None,
        kind: Kind::Full,
        disk_len: ByteLen(disk.len),
        block_size: block_size(),
        window_log2: 3,
    };
    let info = Info {
        set: SET.to_owned(),
        created: 1_700_000_000,
        comment: Some("a comment".to_owned()),
        ..Info::default()
    };
    let noise = Stream::new(5).bytes(to_u64(tables));
    let tables = [(ByteOffset(0), noise)];
    let mut writer = ImageWriter::start(Vec::new(), "image", header, &info, &tables).unwrap();
    let cancel = Cancel::new();
    let (source, selection) = (disk.source(false), disk.selection());
    let totals = write_blocks(
        &Input::new(&source, &selection),
        None,
        Compression::Zstd(1),
        &mut writer,
        resources(&cancel),
    );
    let unreadable = totals.unwrap().missing.all();
    let summary = Summary {
        unreadable: unreadable.into_iter().map(Into::into).collect(),
        ..Summary::default()
    };
    writer.finish(summary).unwrap().0
}

/// The image with one bit that is not what it was.
#[derive(Debug)]
struct Flipped {
    good: Arc<Vec<u8>>,
    at: usize,
    bit: u32,
}

impl RangeRead for Flipped {
    fn name(&self) -> &str {
        "flipped"
    }

    fn len(&self) -> u64 {
        to_u64(self.good.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.good.read_at(offset, buf)?;
        let at = self.at.checked_sub(to_usize(offset));
        if let Some(byte) = at.and_then(|at| buf.get_mut(at)) {
            *byte ^= 1 << self.bit;
        }
        Ok(())
    }
}

/// A full image has nothing in older files.
struct Nothing;

impl OlderFiles for Nothing {
    fn has_page(&self, _: u8, _: u64, _: &Child) -> Result<()> {
        Err(Error::new(ErrorKind::Damaged, "read", "an older page"))
    }

    fn missing(&self, leaf: &Leaf) -> Vec<(BlockIndex, Error)> {
        assert!(leaf.blocks.iter().all(|b| b.since == 1));
        Vec::new()
    }
}

fn is_whole(good: &Arc<Vec<u8>>) -> bool {
    let image = Arc::new(ImageReader::open(Arc::clone(good) as _).unwrap());
    let cancel = Cancel::new();
    let seen = verify_file(
        &image,
        &Nothing,
        Depth::Deep,
        Sample::ALL,
        resources(&cancel),
    );
    seen.unwrap().is_empty()
}

/// How a flip was noticed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Found {
    /// It cannot be opened.
    opening: usize,
    /// A quick look finds it.
    quick: usize,
    /// Only a deep one does.
    deep: usize,
    /// Nobody did.
    unnoticed: usize,
}

impl Found {
    fn total(self) -> usize {
        self.opening + self.quick + self.deep + self.unnoticed
    }
}

fn look(good: &Arc<Vec<u8>>, at: usize, bit: u32, found: &mut Found) {
    let good = Arc::clone(good);
    let Ok(image) = ImageReader::open(Arc::new(Flipped { good, at, bit })).map(Arc::new) else {
        found.opening += 1;
        return;
    };
    let cancel = Cancel::new();
    let sees = |depth| {
        let seen = verify_file(&image, &Nothing, depth, Sample::ALL, resources(&cancel));
        !seen.unwrap().is_empty()
    };
    match () {
        () if sees(Depth::Quick) => found.quick += 1,
        () if sees(Depth::Deep) => found.deep += 1,
        () => {
            eprintln!("bit {bit} of byte {at}");
            found.unnoticed += 1;
        }
    }
}

fn look_at(good: &Arc<Vec<u8>>, bytes: Range<usize>, bits: impl Fn(usize) -> Range<u32>) -> Found {
    let mut found = Found::default();
    for at in bytes {
        bits(at).for_each(|bit| look(good, at, bit, &mut found));
    }
    found
}

/// There is no byte that means nothing: reserved ones are zero or refused, and all are below a checksum. So no
/// flip is harmless, and a quick look is enough for each.
#[test]
fn every_flipped_bit_is_found() {
    let tables = 600;
    let tables = tables + LEN - image(tables).len();
    let good = Arc::new(image(tables));
    assert_eq!(good.len() * 8, 524_288);
    assert!(
        is_whole(&good),
        "what is flipped is found, not what was there before"
    );
    // The usual run takes one bit of each byte, another one in the next.
    let bits = |at: usize| match long() {
        true => 0..8,
        false => u32::try_from(at % 8).map(|bit| bit..bit + 1).unwrap(),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = LEN.div_ceil(workers);
    let found = std::thread::scope(|scope| {
        let good = &good;
        let work = |n: usize| {
            scope.spawn(move || look_at(good, n * share..LEN.min((n + 1) * share), bits))
        };
        let all: Vec<_> = (0..workers).map(work).collect();
        all.into_iter()
            .map(|w| w.join().unwrap())
            .fold(Found::default(), |a, b| Found {
                opening: a.opening + b.opening,
                quick: a.quick + b.quick,
                deep: a.deep + b.deep,
                unnoticed: a.unnoticed + b.unnoticed,
            })
    });
    eprintln!("{} flipped bits: {found:?}", found.total());
    assert_eq!(found.total(), if long() { LEN * 8 } else { LEN });
    assert_eq!((found.deep, found.unnoticed), (0, 0));
    assert!(
        found.opening > 1000 && found.quick > found.total() / 2,
        "{found:?}"
    );
}
