//! A wrapper that fails on purpose, for tests of everything that uses a store.

use super::{
    Entry, FileName, LockMode, Store, StoreLock, Upload, as_io_error, spoiled, write_error,
};
use crate::base::{Error, ErrorKind, RangeRead, Result, to_u64};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Store::list`].
    List,
    /// [`Store::open`].
    Open,
    /// A read of an opened file.
    Read,
    /// [`Store::create`].
    Create,
    /// A write to an upload.
    Write,
    /// The sync at the start of [`Upload::publish`].
    Sync,
    /// The rest of [`Upload::publish`].
    Publish,
    /// [`Store::overwrite`].
    Overwrite,
    /// [`Store::remove`].
    Remove,
    /// [`Store::lock`].
    Lock,
    /// [`Store::clean_up`].
    CleanUp,
}

impl Call {
    fn words(self) -> (ErrorKind, &'static str) {
        match self {
            Call::List => (ErrorKind::Destination, "list"),
            Call::Open => (ErrorKind::Damaged, "open"),
            Call::Read => (ErrorKind::Damaged, "read"),
            Call::Create => (ErrorKind::Destination, "create"),
            Call::Write => (ErrorKind::Destination, "write"),
            Call::Sync => (ErrorKind::Destination, "sync"),
            Call::Publish => (ErrorKind::Destination, "publish"),
            Call::Overwrite => (ErrorKind::Destination, "overwrite"),
            Call::Remove => (ErrorKind::Destination, "remove"),
            Call::Lock => (ErrorKind::Destination, "lock"),
            Call::CleanUp => (ErrorKind::Destination, "clean up"),
        }
    }
}

/// One planned failure.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// `None`: any call counts.
    call: Option<Call>,
    errno: i32,
    /// Which matching calls fail, counted from 1. When `by_bytes`, which written bytes.
    from: u64,
    until: u64,
    by_bytes: bool,
}

impl Fault {
    /// The `nth` call of this kind (from 1) fails with `errno`; later ones too when `lasting`.
    pub fn nth(call: Call, nth: u64, errno: i32, lasting: bool) -> Fault {
        let until = if lasting { u64::MAX } else { nth };
        Fault {
            call: Some(call),
            errno,
            from: nth,
            until,
            by_bytes: false,
        }
    }

    /// The `nth` call of whatever kind (from 1) fails with `errno`; later ones too when `lasting`.
    /// Counting `nth` up until [`Faults::fired`] stays false tries every place there is.
    pub fn nth_of_all(nth: u64, errno: i32, lasting: bool) -> Fault {
        Fault {
            call: None,
            ..Fault::nth(Call::List, nth, errno, lasting)
        }
    }

    /// Every write that would bring the bytes written to all uploads above `capacity` fails with
    /// `errno`: a full disk.
    pub fn full_after(capacity: u64, errno: i32) -> Fault {
        let from = capacity.saturating_add(1);
        Fault {
            by_bytes: true,
            ..Fault::nth(Call::Write, from, errno, true)
        }
    }
}

/// Planned failures and the count of calls so far; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    planned: Vec<(Fault, AtomicU64)>,
    fired: AtomicU64,
}

impl Faults {
    /// These failures and no others.
    pub fn new(faults: Vec<Fault>) -> Faults {
        let planned = faults.into_iter().map(|f| (f, AtomicU64::new(0))).collect();
        Faults(Arc::new(Inner {
            planned,
            fired: AtomicU64::new(0),
        }))
    }

    /// Whether any planned failure has happened.
    pub fn fired(&self) -> bool {
        self.0.fired.load(Ordering::Relaxed) > 0
    }

    /// Fails when a failure is planned for this call, which moves `bytes` bytes.
    fn check(&self, call: Call, bytes: usize, subject: &str) -> Result<()> {
        for (fault, seen) in &self.0.planned {
            if fault.call.is_some_and(|c| c != call) {
                continue;
            }
            let step = if fault.by_bytes { to_u64(bytes) } else { 1 };
            let now = seen.fetch_add(step, Ordering::Relaxed).saturating_add(step);
            if (fault.from..=fault.until).contains(&now) {
                self.0.fired.fetch_add(1, Ordering::Relaxed);
                let (kind, what) = call.words();
                return Err(Error::new(kind, what, subject)
                    .caused_by(io::Error::from_raw_os_error(fault.errno)));
            }
        }
        Ok(())
    }
}

/// A store some of whose calls fail.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    faults: Faults,
}

impl FaultStore {
    /// `inner` with `faults`.
    pub fn new(inner: Arc<dyn Store>, faults: Faults) -> FaultStore {
        FaultStore { inner, faults }
    }

    fn check(&self, call: Call, name: Option<&FileName>) -> Result<()> {
        let store = self.inner.name();
        match name {
            Some(name) => self.faults.check(call, 0, &format!("{store}/{name}")),
            None => self.faults.check(call, 0, store),
        }
    }
}

impl Store for FaultStore {
    crate::pass_on!(inner: name, space, paths_of);

    fn list(&self) -> Result<Vec<Entry>> {
        self.check(Call::List, None)?;
        self.inner.list()
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        self.check(Call::Open, Some(name))?;
        let (inner, faults) = (self.inner.open(name)?, self.faults.clone());
        Ok(Arc::new(FaultFile { inner, faults }))
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        self.check(Call::Create, Some(name))?;
        Ok(Box::new(FaultUpload {
            inner: self.inner.create(name)?,
            faults: self.faults.clone(),
            name: format!("{}/{name}", self.inner.name()),
            spoiled: false,
        }))
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(Call::Overwrite, Some(name))?;
        self.inner.overwrite(name, offset, bytes)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.check(Call::Remove, Some(name))?;
        self.inner.remove(name)
    }

    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
        self.check(Call::Lock, None)?;
        self.inner.lock(mode, holder)
    }

    fn clean_up(&self) -> Result<Vec<String>> {
        self.check(Call::CleanUp, None)?;
        self.inner.clean_up()
    }
}

struct FaultFile {
    inner: Arc<dyn RangeRead>,
    faults: Faults,
}

impl RangeRead for FaultFile {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let subject = format!("{} at byte {offset}", self.inner.name());
        self.faults.check(Call::Read, buf.len(), &subject)?;
        self.inner.read_at(offset, buf)
    }
}

struct FaultUpload {
    inner: Box<dyn Upload>,
    faults: Faults,
    name: String,
    spoiled: bool,
}

impl io::Write for FaultUpload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.spoiled {
            return Err(as_io_error(spoiled("write", &self.name)));
        }
        if let Err(error) = self.faults.check(Call::Write, buf.len(), &self.name) {
            let error = as_io_error(error);
            self.spoiled = error.kind() != io::ErrorKind::Interrupted;
            return Err(error);
        }
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Upload for FaultUpload {
    fn written(&self) -> u64 {
        self.inner.written()
    }

    fn publish(mut self: Box<Self>) -> Result<()> {
        if self.spoiled {
            return Err(spoiled("publish", &self.name));
        }
        io::Write::flush(&mut self.inner).map_err(|e| write_error(&self.name, e))?;
        self.faults.check(Call::Sync, 0, &self.name)?;
        self.faults.check(Call::Publish, 0, &self.name)?;
        self.inner.publish()
    }

    fn abandon(self: Box<Self>) {
        self.inner.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, contract};
    use std::io::Write;

    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    const EINTR: i32 = 4;

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    fn faulty(fault: Fault) -> (FaultStore, MemoryStore, Faults) {
        let memory = MemoryStore::new("m");
        let faults = Faults::new(vec![fault]);
        (
            FaultStore::new(Arc::new(memory.clone()), faults.clone()),
            memory,
            faults,
        )
    }

    /// A small run that touches every call, as far as it gets.
    fn run(store: &dyn Store) -> Result<()> {
        let _lock = store.lock(LockMode::Shared, "test")?;
        store.clean_up()?;
        let mut upload = store.create(&name("a"))?;
        for _ in 0..3 {
            upload
                .write_all(b"0123456789")
                .map_err(|e| write_error("a", e))?;
        }
        upload.publish()?;
        store.open(&name("a"))?.read_at(3, &mut [0; 4])?;
        store.overwrite(&name("a"), 5, b"x")?;
        store.list()?;
        store.remove(&name("a"))
    }

    #[test]
    fn without_faults_the_contract_holds() {
        let memory = Arc::new(MemoryStore::new("m"));
        let store = |m: &Arc<MemoryStore>| FaultStore::new(m.clone(), Faults::default());
        contract::check_store(&store(&memory), &store(&memory));
    }

    #[test]
    fn each_call_can_fail_once_or_for_good() {
        for lasting in [false, true] {
            let mut nth = 1;
            loop {
                let (store, memory, faults) = faulty(Fault::nth_of_all(nth, EIO, lasting));
                let outcome = run(&store);
                if !faults.fired() {
                    outcome.expect("no fault, no failure");
                    break;
                }
                assert_eq!(
                    outcome.expect_err("a fault").os_error(),
                    Some(EIO),
                    "call {nth}"
                );
                // Everything before the publication leaves nothing: eight calls, with two syncs.
                let published = memory.list().unwrap().len();
                assert_eq!(published, usize::from(nth > 8), "call {nth}");
                nth += 1;
            }
            assert_eq!(nth, 14, "thirteen calls were made to fail");
        }
    }

    #[test]
    fn a_failed_write_spoils_the_upload_and_an_interrupted_one_does_not() {
        let (store, memory, _) = faulty(Fault::nth(Call::Write, 2, EIO, false));
        let mut upload = store.create(&name("a")).unwrap();
        upload.write_all(b"one").unwrap();
        assert!(upload.write_all(b"two").is_err());
        assert!(
            upload.write_all(b"three").is_err(),
            "no later write succeeds"
        );
        assert_eq!(upload.publish().unwrap_err().kind(), ErrorKind::Destination);
        assert_eq!(memory.list().unwrap(), []);

        let (store, memory, _) = faulty(Fault::nth(Call::Write, 1, EINTR, false));
        run(&store).expect("interruptions are survived");
        assert_eq!(memory.list().unwrap(), []);
    }

    #[test]
    fn a_full_disk_takes_its_capacity_and_no_more() {
        let (store, memory, _) = faulty(Fault::full_after(20, ENOSPC));
        let error = run(&store).expect_err("30 bytes do not fit");
        assert_eq!(
            (error.os_error(), error.operation()),
            (Some(ENOSPC), "write")
        );
        assert_eq!(memory.list().unwrap(), []);
        let (store, ..) = faulty(Fault::full_after(30, ENOSPC));
        run(&store).expect("30 bytes fit");
    }
}
