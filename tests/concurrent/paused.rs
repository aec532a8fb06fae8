//! A store whose caller is stopped before a call until it is let go on, or dies there.

use diskstrata::base::{Error, ErrorKind, RangeRead, Result};
use diskstrata::store::{Entry, FileName, LockMode, MemoryStore, Store, StoreLock, Upload};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Nothing here takes nearly as long: what does waits for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// What happens at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Nothing; calls are only counted.
    Never,
    /// The caller waits before the so many-th call, from 1.
    Pause(u64),
    /// This call and all behind it do nothing and fail: the caller is dead.
    Death(u64),
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    waits: bool,
    let_go: bool,
    ended: bool,
    held: Vec<(u64, LockMode)>,
}

/// Where the caller is stopped. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    at: At,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Gate {
    pub(crate) fn new(at: At) -> Gate {
        Gate {
            at,
            shared: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.1.notify_all();
    }

    fn wait_until(&self, is_so: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waiting = self
            .shared
            .1
            .wait_timeout_while(self.state(), PATIENCE, |state| !is_so(state));
        let (state, timeout) = waiting.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "somebody waits for ever");
        state
    }

    /// Comes before every call.
    fn pass(&self) -> Result<()> {
        let calls = {
            let mut state = self.state();
            state.calls += 1;
            state.calls
        };
        match self.at {
            At::Pause(nth) if calls >= nth => {
                self.change(|state| state.waits = true);
                drop(self.wait_until(|state| state.let_go));
                Ok(())
            }
            At::Death(nth) if calls >= nth => {
                Err(Error::new(ErrorKind::Destination, "call", "a store").because("dead"))
            }
            At::Never | At::Pause(_) | At::Death(_) => Ok(()),
        }
    }

    fn is_dead(&self) -> bool {
        matches!(self.at, At::Death(nth) if self.state().calls >= nth)
    }

    /// Waits until the caller waits or has ended. Returns the locks that it holds then; `None` when it has
    /// ended.
    pub(crate) fn stopped(&self) -> Option<Vec<LockMode>> {
        let state = self.wait_until(|state| state.waits || state.ended);
        let held = state.held.iter().map(|(_, mode)| *mode).collect();
        (!state.ended).then_some(held)
    }

    pub(crate) fn let_go(&self) {
        self.change(|state| state.let_go = true);
    }

    /// The caller says that it has ended.
    pub(crate) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }
}

/// A store behind a gate.
pub(crate) struct PausedStore {
    inner: MemoryStore,
    gate: Gate,
}

impl PausedStore {
    pub(crate) fn new(inner: MemoryStore, gate: Gate) -> PausedStore {
        PausedStore { inner, gate }
    }
}

impl Store for PausedStore {
    diskstrata::pass_on!(inner: name, space);

    fn list(&self) -> Result<Vec<Entry>> {
        self.gate.pass()?;
        self.inner.list()
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        self.gate.pass()?;
        Ok(Arc::new(PausedFile {
            inner: self.inner.open(name)?,
            gate: self.gate.clone(),
        }))
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        self.gate.pass()?;
        Ok(Box::new(PausedUpload {
            inner: Some(self.inner.create(name)?),
            name: name.clone(),
            store: self.inner.clone(),
            gate: self.gate.clone(),
        }))
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        self.gate.pass()?;
        self.inner.overwrite(name, offset, bytes)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.gate.pass()?;
        self.inner.remove(name)
    }

    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
        self.gate.pass()?;
        let lock = self.inner.lock(mode, holder)?;
        let gate = self.gate.clone();
        let id = gate.calls();
        gate.change(|state| state.held.push((id, mode)));
        Ok(StoreLock::new(HeldLock {
            _lock: lock,
            gate,
            id,
        }))
    }

    fn clean_up(&self) -> Result<Vec<String>> {
        self.gate.pass()?;
        self.inner.clean_up()
    }
}

/// Tells the gate when it is given back.
struct HeldLock {
    _lock: StoreLock,
    gate: Gate,
    id: u64,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.gate
            .change(|state| state.held.retain(|(id, _)| *id != self.id));
    }
}

struct PausedFile {
    inner: Arc<dyn RangeRead>,
    gate: Gate,
}

impl RangeRead for PausedFile {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.gate.pass()?;
        self.inner.read_at(offset, buf)
    }
}

struct PausedUpload {
    /// `None` when it was published.
    inner: Option<Box<dyn Upload>>,
    name: FileName,
    store: MemoryStore,
    gate: Gate,
}

impl Drop for PausedUpload {
    fn drop(&mut self) {
        if self.inner.is_some() && self.gate.is_dead() {
            self.store.strand(&self.name);
        }
    }
}

impl io::Write for PausedUpload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.gate.pass().map_err(io::Error::other)?;
        match &mut self.inner {
            Some(inner) => inner.write(buf),
            None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for PausedUpload {
    fn written(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.written())
    }

    fn publish(mut self: Box<Self>) -> Result<()> {
        self.gate.pass()?;
        self.inner.take().map_or(Ok(()), |inner| inner.publish())
    }

    fn abandon(self: Box<Self>) {}
}
