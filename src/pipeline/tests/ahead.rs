//! How far readers are ahead of the one who writes.

use super::{BLOCK, Holey, header, taking};
use crate::base::{BlockMap, ByteLen, ByteOffset, Cancel, Extent, Silent, to_u64, to_usize};
use crate::block::{BlockSource, MemorySource, Op, RecordSource, Recorded};
use crate::image::{Compression, ImageWriter, Info, Summary};
use crate::pipeline::{Input, Resources, write_blocks};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const THREADS: usize = 2;
/// Long enough for the writer to hand on what it gathers before the next.
const WINDOW: usize = 1 << 18;
const WINDOWS: usize = 200;

/// Takes nothing, once reading has begun, before so many windows were read, or half a minute has passed once.
struct Slow {
    reads: Recorded,
    until: usize,
    /// How many were, when it took something for the first time.
    seen: Option<usize>,
}

impl Slow {
    /// How many were read.
    fn windows(&self) -> usize {
        let len = |op: Op| match op {
            Op::Read(extent) => to_usize(extent.len.0),
            _ => 0,
        };
        self.reads.ops().into_iter().map(len).sum::<usize>() / WINDOW
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let begun = Instant::now();
        while self.seen.is_none() && self.windows() > 0 {
            let windows = self.windows();
            if windows >= self.until || begun.elapsed() > Duration::from_secs(30) {
                self.seen = Some(windows);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_is_not_cached_is_read_as_far_ahead_as_one_that_is() {
    let disk = vec![7; WINDOW * WINDOWS];
    let reads = Recorded::default();
    let no_hole = Extent {
        start: ByteOffset(0),
        len: ByteLen(0),
    };
    // Which does not say that it is in memory.
    let source = Holey(MemorySource::new("disk", disk), no_hole);
    let source = RecordSource::new(Arc::new(source), reads.clone());
    let until = 32 * THREADS;
    let sink = Slow {
        reads,
        until,
        seen: None,
    };
    let info = Info::default();
    let mut head = header(WINDOW * WINDOWS);
    head.window_log2 = u8::try_from((WINDOW / BLOCK).ilog2()).unwrap();
    let mut writer = ImageWriter::start(sink, "memory", head, &info, &[]).unwrap();
    let selection = taking(
        source.len(),
        BlockMap::full(to_u64(WINDOW * WINDOWS / BLOCK)),
    );
    let cancel = Cancel::new();
    let resources = Resources {
        threads: THREADS,
        memory: 64 << 20,
        cancel: &cancel,
        observer: &Silent,
    };
    let input = Input::new(&source, &selection);
    let totals = write_blocks(&input, None, Compression::None, &mut writer, resources).unwrap();
    assert_eq!(totals.read, to_u64(WINDOW * WINDOWS));
    let (sink, _) = writer.finish(Summary::default()).unwrap();
    let seen = sink.seen.unwrap();
    assert!((until..WINDOWS).contains(&seen), "{seen} windows were read");
}
