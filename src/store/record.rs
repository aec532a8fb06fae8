//! A wrapper that remembers what was asked of it, for tests about order and interruption.

use super::{Entry, FileName, LockMode, MemoryStore, Store, StoreLock, Upload};
use crate::base::{RangeRead, Result, to_u64};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One call that succeeded. Uploads are numbered in the order in which they began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The store was listed.
    List,
    /// A file was opened.
    Open(FileName),
    /// This many bytes at this offset of a file were read.
    Read(FileName, u64, u64),
    /// An upload began.
    Create(u64, FileName),
    /// These bytes went into an upload.
    Write(u64, Vec<u8>),
    /// An upload was published.
    Publish(u64),
    /// An upload ended without being published.
    Abandon(u64),
    /// These bytes were written over those at this offset of a file.
    Overwrite(FileName, u64, Vec<u8>),
    /// A file was removed.
    Remove(FileName),
    /// A lock was taken.
    Lock(LockMode),
    /// Leftovers were removed.
    CleanUp,
}

/// What a store that was empty holds when the power fails behind `ops`: all that was published
/// and not removed, and leftovers of the uploads that were under way.
pub fn replay(ops: &[Op]) -> MemoryStore {
    let store = MemoryStore::new("replayed");
    let mut uploads: BTreeMap<u64, (FileName, Vec<u8>)> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Create(id, name) => {
                uploads.insert(*id, (name.clone(), Vec::new()));
            }
            Op::Write(id, data) => {
                if let Some((_, bytes)) = uploads.get_mut(id) {
                    bytes.extend_from_slice(data);
                }
            }
            Op::Publish(id) => {
                if let Some((name, bytes)) = uploads.remove(id) {
                    store.put(&name, bytes);
                }
            }
            Op::Abandon(id) => {
                uploads.remove(id);
            }
            Op::Overwrite(name, offset, data) => {
                // As with a removal.
                let _ = store.overwrite(name, *offset, data);
            }
            Op::Remove(name) => {
                // Absent only when it was there before the recording began.
                let _ = store.remove(name);
            }
            Op::List | Op::Open(_) | Op::Read(..) | Op::Lock(_) | Op::CleanUp => {}
        }
    }
    for (name, _) in uploads.into_values() {
        store.strand(&name);
    }
    store
}

/// The calls so far; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Recorded(Arc<Log>);

#[derive(Debug, Default)]
struct Log {
    ops: Mutex<Vec<Op>>,
    uploads: AtomicU64,
}

impl Recorded {
    /// A copy of all calls, oldest first.
    pub fn ops(&self) -> Vec<Op> {
        let ops = self.0.ops.lock();
        ops.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, op: Op) {
        let ops = self.0.ops.lock();
        ops.unwrap_or_else(PoisonError::into_inner).push(op);
    }
}

/// A store that remembers what was done to it. An operation is logged when it has succeeded.
pub struct RecordStore {
    inner: Arc<dyn Store>,
    log: Recorded,
}

impl RecordStore {
    /// `inner`, recorded into `log`.
    pub fn new(inner: Arc<dyn Store>, log: Recorded) -> RecordStore {
        RecordStore { inner, log }
    }

    fn logged<T>(&self, op: Op, outcome: Result<T>) -> Result<T> {
        if outcome.is_ok() {
            self.log.push(op);
        }
        outcome
    }
}

impl Store for RecordStore {
    crate::pass_on!(inner: name, space, paths_of);

    fn list(&self) -> Result<Vec<Entry>> {
        self.logged(Op::List, self.inner.list())
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        let inner = self.logged(Op::Open(name.clone()), self.inner.open(name))?;
        Ok(Arc::new(RecordFile {
            inner,
            file: name.clone(),
            log: self.log.clone(),
        }))
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        let inner = self.inner.create(name)?;
        let id = self.log.0.uploads.fetch_add(1, Ordering::Relaxed);
        self.log.push(Op::Create(id, name.clone()));
        let ending = Ending {
            id,
            log: self.log.clone(),
            published: false,
        };
        Ok(Box::new(RecordUpload { inner, ending }))
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        let op = Op::Overwrite(name.clone(), offset, bytes.to_vec());
        self.logged(op, self.inner.overwrite(name, offset, bytes))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.logged(Op::Remove(name.clone()), self.inner.remove(name))
    }

    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
        self.logged(Op::Lock(mode), self.inner.lock(mode, holder))
    }

    fn clean_up(&self) -> Result<Vec<String>> {
        self.logged(Op::CleanUp, self.inner.clean_up())
    }
}

struct RecordFile {
    inner: Arc<dyn RangeRead>,
    file: FileName,
    log: Recorded,
}

impl RangeRead for RecordFile {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)?;
        self.log
            .push(Op::Read(self.file.clone(), offset, to_u64(buf.len())));
        Ok(())
    }
}

struct RecordUpload {
    inner: Box<dyn Upload>,
    ending: Ending,
}

/// Logs how an upload ended, whichever way that was.
struct Ending {
    id: u64,
    log: Recorded,
    published: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let op = if self.published {
            Op::Publish
        } else {
            Op::Abandon
        };
        self.log.push(op(self.id));
    }
}

impl io::Write for RecordUpload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buf)?;
        let op = Op::Write(self.ending.id, buf[..count].to_vec());
        self.ending.log.push(op);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Upload for RecordUpload {
    fn written(&self) -> u64 {
        self.inner.written()
    }

    fn publish(self: Box<Self>) -> Result<()> {
        let RecordUpload { inner, mut ending } = *self;
        let outcome = inner.publish();
        ending.published = outcome.is_ok();
        outcome
    }

    fn abandon(self: Box<Self>) {
        self.inner.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;
    use std::io::Write;

    #[test]
    fn recording_keeps_the_contract() {
        let memory = Arc::new(MemoryStore::new("m"));
        let store = |m: &Arc<MemoryStore>| RecordStore::new(m.clone(), Recorded::default());
        contract::check_store(&store(&memory), &store(&memory));
    }

    #[test]
    fn every_prefix_replays_to_what_a_power_cut_leaves() {
        let name = |text: &str| FileName::new(text).unwrap();
        let log = Recorded::default();
        let store = RecordStore::new(Arc::new(MemoryStore::new("m")), log.clone());
        let mut first = store.create(&name("a")).unwrap();
        first.write_all(b"one").unwrap();
        let mut second = store.create(&name("b")).unwrap();
        second.write_all(b"two").unwrap();
        first.publish().unwrap();
        drop(second);
        store.remove(&name("a")).unwrap();

        let ops = log.ops();
        let expected = [
            Op::Create(0, name("a")),
            Op::Write(0, b"one".to_vec()),
            Op::Create(1, name("b")),
            Op::Write(1, b"two".to_vec()),
            Op::Publish(0),
            Op::Abandon(1),
            Op::Remove(name("a")),
        ];
        assert_eq!(ops, expected);
        for cut in 0..=ops.len() {
            let store = replay(&ops[..cut]);
            let there = (5..7).contains(&cut).then(|| b"one".to_vec());
            assert_eq!(store.get(&name("a")), there, "behind {cut} operations");
            let leftovers = [0, 1, 1, 2, 2, 1, 0, 0][cut];
            assert_eq!(
                store.clean_up().unwrap().len(),
                leftovers,
                "behind {cut} operations"
            );
        }
    }
}
