//! An increment is the same whether a disk shows its bytes in memory, has them in memory, or is read from its medium.

use super::{BLOCK, header, open, resources};
use crate::base::{
    BlockMap, BlockSize, ByteLen, ByteOffset, Cancel, Extent, Geometry, Result, to_u64, to_usize,
};
use crate::block::{BlockSource, MemorySource};
use crate::chain::ChainView;
use crate::image::{Compression, Header, ImageWriter, Info, Kind, Parent, Summary};
use crate::pipeline::{Input, Selection, Used, select, write_blocks};
use std::sync::atomic::{AtomicU64, Ordering};

const WINDOW: usize = 4 * BLOCK;
const WINDOWS: usize = 40;
/// What a file system allocates: a quarter of a block.
const UNIT: usize = BLOCK / 4;

/// What a disk does when it is asked to show its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shows {
    Them,
    Nothing,
    /// Zeros, and says that they are not to be believed.
    Zeros,
    /// Nothing: it is not in memory.
    FromMedium,
}

struct Shown {
    inner: MemorySource,
    shows: Shows,
    read: AtomicU64,
}

impl BlockSource for Shown {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.read.fetch_add(to_u64(buf.len()), Ordering::Relaxed);
        self.inner.read_at(offset, buf)
    }

    fn is_cached(&self, _extent: Extent) -> bool {
        self.shows != Shows::FromMedium
    }

    fn look_at_cached(&self, extent: Extent, look: &mut dyn FnMut(&[u8])) -> bool {
        match self.shows {
            Shows::Them => self.inner.look_at_cached(extent, look),
            Shows::Nothing | Shows::FromMedium => false,
            Shows::Zeros => {
                look(&vec![0; to_usize(extent.len.0)]);
                false
            }
        }
    }
}

/// A unit here and there is free, in some blocks all of them; some windows are free as a whole.
fn selection(len: usize) -> Selection {
    let units = len.div_ceil(UNIT);
    let mut map = BlockMap::empty(to_u64(units));
    for unit in 0..units {
        let (window, block) = (unit * UNIT / WINDOW, unit * UNIT / BLOCK);
        if window % 11 != 5 && block % 7 != 3 && unit % 9 != 0 {
            map.insert_range(to_u64(unit)..to_u64(unit) + 1);
        }
    }
    let len = ByteLen(to_u64(len));
    let used = Used {
        extent: Extent {
            start: ByteOffset(0),
            len,
        },
        unit: ByteLen(to_u64(UNIT)),
        map,
    };
    select(len, block_size(), vec![used], vec![])
}

fn block_size() -> BlockSize {
    BlockSize::new(to_u64(BLOCK)).unwrap()
}

/// The image of `disk`, and how many bytes were read for it.
fn image(disk: &[u8], parent: Option<&ChainView>, shows: Shows) -> (Vec<u8>, u64) {
    let source = Shown {
        inner: MemorySource::new("disk", disk.to_vec()),
        shows,
        read: AtomicU64::new(0),
    };
    let header = match parent {
        None => header(disk.len()),
        Some(parent) => Header {
            id: uuid::Uuid::from_u128(0xC3),
            sequence: 2,
            parent: Some(Parent {
                id: parent.image().header().id,
                sequence: 1,
                root: parent.image().root(),
            }),
            kind: Kind::Incremental,
            ..header(disk.len())
        },
    };
    let mut writer =
        ImageWriter::start(Vec::new(), "memory", header, &Info::default(), &[]).unwrap();
    let cancel = Cancel::new();
    let selection = selection(disk.len());
    let parent = parent.map(|view| view as _);
    let input = Input::new(&source, &selection);
    let resources = resources(&cancel);
    let totals =
        write_blocks(&input, parent, Compression::Zstd(1), &mut writer, resources).unwrap();
    assert!(totals.missing.is_empty());
    let (bytes, _) = writer.finish(Summary::default()).unwrap();
    (bytes, source.read.into_inner())
}

#[test]
fn an_increment_does_not_depend_on_how_the_disk_is_looked_at() {
    // An odd end, a window of zeros, and free units that hold old content.
    let mut disk: Vec<u8> = (0..WINDOW * WINDOWS - 700)
        .map(|i| (i / 97 % 251).to_le_bytes()[0])
        .collect();
    disk[7 * WINDOW..8 * WINDOW].fill(0);
    let (full, _) = image(&disk, None, Shows::Them);
    let parent = open(&full).unwrap();

    for changed in [&[][..], &[2, 12, 13, 39], &[7]] {
        for window in changed {
            disk[window * WINDOW + 2 * UNIT] ^= 0x55;
        }
        // What is free may change as it likes.
        disk[9 * UNIT] ^= 0x55;
        disk[5 * WINDOW..6 * WINDOW].fill(changed.len().to_le_bytes()[0]);
        let (read, all) = image(&disk, Some(&parent), Shows::Nothing);
        for shows in [Shows::Them, Shows::Zeros, Shows::FromMedium] {
            let (shown, bytes) = image(&disk, Some(&parent), shows);
            assert!(shown == read, "{changed:?}, shows {shows:?}");
            match shows {
                Shows::Them => assert!(bytes <= to_u64(8 * WINDOW), "{changed:?}: {bytes} read"),
                _ => assert_eq!(bytes, all),
            }
        }
        if changed.is_empty() {
            assert!(all > to_u64(30 * WINDOW));
            assert_eq!(image(&disk, Some(&parent), Shows::Them).1, 0);
        }
    }
}
