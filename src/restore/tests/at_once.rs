//! How many writes are under way at once.

use super::*;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// A medium on which a write waits, once, for another to be under way too.
struct Meeting {
    inner: MemoryTarget,
    is_parallel: bool,
    /// Writes under way, and the most that there were.
    writes: Mutex<(usize, usize)>,
    another: Condvar,
}

impl Meeting {
    fn new(is_parallel: bool) -> Meeting {
        Meeting {
            inner: MemoryTarget::new("meeting", vec![0xA5; 8 * MIB]),
            is_parallel,
            writes: Mutex::new((0, 0)),
            another: Condvar::new(),
        }
    }

    fn most(&self) -> usize {
        self.writes.lock().unwrap().1
    }
}

impl BlockTarget for Meeting {
    fn name(&self) -> &str {
        "meeting"
    }
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }
    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        let mut writes = self.writes.lock().unwrap();
        writes.0 += 1;
        writes.1 = writes.1.max(writes.0);
        self.another.notify_all();
        if self.is_parallel {
            let patience = Duration::from_secs(60);
            let alone = |writes: &mut (usize, usize)| writes.1 < 2;
            writes = self
                .another
                .wait_timeout_while(writes, patience, alone)
                .unwrap()
                .0;
        }
        drop(writes);
        let result = self.inner.write_at(offset, data);
        self.writes.lock().unwrap().0 -= 1;
        result
    }
    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        self.inner.write_zeros(extent)
    }
    fn discard(&self, extent: Extent) -> Result<bool> {
        self.inner.discard(extent)
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.inner.read_back(offset, buf)
    }
    fn is_parallel(&self) -> bool {
        self.is_parallel
    }
}

#[test]
fn media_that_take_several_writes_have_them_at_once_and_others_one_by_one() {
    let disk = gpt_disk(8 * MIB, 7);
    let plan = plan_for(&view_of(&disk), 8 * MIB).unwrap();
    for way in WAYS {
        for is_parallel in [true, false] {
            let target = Meeting::new(is_parallel);
            let done = way(&disk, &plan, &target).unwrap();
            assert!(target.inner.snapshot() == disk);
            assert_eq!(done.written + done.zeroed, to_u64(8 * MIB));
            assert_eq!(target.most() > 1, is_parallel, "{}", target.most());
        }
    }
}
