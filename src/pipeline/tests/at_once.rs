//! How many windows are read at once.

use super::{BLOCK, image_of, open, restored};
use crate::base::{BlockMap, ByteOffset, Error, ErrorKind, Geometry, Result, to_u64, to_usize};
use crate::block::{BlockSource, MemorySource};
use crate::image::Compression;
use crate::sys::errno::EIO;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

const WINDOW: u64 = 4 * 4096;
const WINDOWS: u64 = 60;

/// A disk that is not cached. What is read at once does not depend on which thread is faster: a read waits for
/// another to be under way too, that of a bad window for that of the next one, and one behind them until what is bad
/// was tried to its end.
struct Meeting {
    inner: MemorySource,
    /// What cannot be read: two windows, or none.
    bad: std::ops::Range<u64>,
    reads: Mutex<Reads>,
    another: Condvar,
}

#[derive(Default)]
struct Reads {
    now: usize,
    most: usize,
    /// Where reads of what is bad began.
    bad: Vec<u64>,
    /// Others that were under way with a read far behind what is bad.
    beside_later: usize,
}

impl BlockSource for Meeting {
    fn name(&self) -> &str {
        "meeting"
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let end = offset.0 + to_u64(buf.len());
        let is_bad = offset.0 < self.bad.end && self.bad.start < end;
        let mut reads = self.reads.lock().unwrap();
        reads.now += 1;
        reads.most = reads.most.max(reads.now);
        if is_bad {
            reads.bad.push(offset.0);
        }
        if !self.bad.is_empty() && offset.0 >= self.bad.end + 8 * WINDOW {
            reads.beside_later += reads.now - 1;
        }
        self.another.notify_all();
        let too_early = |reads: &mut Reads| match offset.0 {
            _ if reads.most < 2 => true,
            _ if is_bad => reads.bad.len() < 2,
            at if self.bad.is_empty() || at < self.bad.start => false,
            _ => !reads.bad.contains(&(self.bad.end - 512)),
        };
        let patience = Duration::from_secs(60);
        let waited = self.another.wait_timeout_while(reads, patience, too_early);
        drop(waited.unwrap());
        let result = match is_bad {
            true => Err(Error::new(ErrorKind::Source, "read", "meeting")
                .caused_by(std::io::Error::from_raw_os_error(EIO))),
            false => self.inner.read_at(offset, buf),
        };
        self.reads.lock().unwrap().now -= 1;
        result
    }
}

fn meeting(bad: std::ops::Range<u64>) -> (Meeting, Vec<u8>) {
    let bytes: Vec<u8> = (0..WINDOW * WINDOWS)
        .map(|i| (i / 4096 % 251) as u8 + 1)
        .collect();
    let source = Meeting {
        inner: MemorySource::new("disk", bytes.clone()),
        bad,
        reads: Mutex::default(),
        another: Condvar::new(),
    };
    (source, bytes)
}

#[test]
fn a_medium_has_several_reads_at_once() {
    let (source, bytes) = meeting(0..0);
    let take = BlockMap::full(WINDOW * WINDOWS / to_u64(BLOCK));
    let (image, totals, _) = image_of(&source, take, Compression::Zstd(1));
    assert!(restored(&open(&image).unwrap()).0 == bytes);
    assert!(totals.missing.is_empty());
    let most = source.reads.lock().unwrap().most;
    assert!((2..=4).contains(&most), "{most}");
}

/// Two windows are bad from end to end.
#[test]
fn behind_a_bad_spot_they_come_one_by_one_and_in_order() {
    let bad = 20 * WINDOW..22 * WINDOW;
    let (source, bytes) = meeting(bad.clone());
    let take = BlockMap::full(WINDOW * WINDOWS / to_u64(BLOCK));
    let (image, totals, _) = image_of(&source, take, Compression::Zstd(1));
    let extent = totals.missing.all();
    assert_eq!(extent.len(), 1);
    assert_eq!((extent[0].start.0, extent[0].end().0), (bad.start, bad.end));
    let disk = restored(&open(&image).unwrap()).0;
    for (block, (now, then)) in (0..).zip(disk.chunks(BLOCK).zip(bytes.chunks(BLOCK))) {
        let is_bad = bad.contains(&(block * to_u64(BLOCK)));
        assert_eq!(now == then, !is_bad, "block {block}");
    }
    let reads = source.reads.lock().unwrap();
    assert_eq!(reads.beside_later, 0);
    // Each window was tried once as a whole beside others; then it is cut up from its beginning to its end.
    let sectors = to_usize((bad.end - bad.start) / 512);
    let tried = reads.bad.len();
    assert!(
        (2 * sectors - 2..=2 * sectors + 2).contains(&tried),
        "{tried}"
    );
    let cut: Vec<u64> = reads.bad.iter().copied().skip(2).collect();
    assert!(cut.is_sorted(), "{cut:?}");
}
