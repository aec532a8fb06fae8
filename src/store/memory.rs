//! A store in memory, for tests.

use super::{
    Entry, FileName, LockMode, Space, Store, StoreLock, Upload, held_by, name_taken, not_found,
    past_end_of,
};
use crate::base::{RangeRead, Result, past_end, to_u64, to_usize};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files in memory. Clones are further handles on the same files.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    name: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileName, Arc<Vec<u8>>>,
    /// What dead runs left behind.
    leftovers: Vec<String>,
    holders: BTreeMap<u64, (LockMode, String)>,
    next_holder: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(name: impl Into<String>) -> MemoryStore {
        MemoryStore {
            name: name.into(),
            state: Arc::default(),
        }
    }

    /// Sets the content of a published file, also of one that exists: what damage does.
    pub fn put(&self, name: &FileName, bytes: Vec<u8>) {
        self.state().files.insert(name.clone(), Arc::new(bytes));
    }

    /// The content of a published file.
    pub fn get(&self, name: &FileName) -> Option<Vec<u8>> {
        self.state().files.get(name).map(|bytes| bytes.to_vec())
    }

    /// Leaves an unpublished upload as a run does that is killed.
    pub fn strand(&self, name: &FileName) {
        self.state().leftovers.push(format!(".unfinished-{name}"));
    }

    /// A poisoned lock only means that another test thread panicked; the state is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn list(&self) -> Result<Vec<Entry>> {
        let state = self.state();
        let entries = state.files.keys().map(|name| Entry {
            name: name.clone(),
            parts: None,
        });
        Ok(entries.collect())
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        match self.state().files.get(name) {
            Some(bytes) => Ok(Arc::new(MemoryFile {
                name: format!("{}/{name}", self.name),
                bytes: bytes.clone(),
            })),
            None => Err(not_found("open", &self.name, name)),
        }
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        if self.state().files.contains_key(name) {
            return Err(name_taken("create", &self.name, name));
        }
        Ok(Box::new(MemoryUpload {
            store: self.clone(),
            name: name.clone(),
            bytes: Vec::new(),
        }))
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        let Some(file) = state.files.get_mut(name) else {
            return Err(not_found("overwrite", &self.name, name));
        };
        if let Some(error) = past_end_of(&self.name, name, offset, bytes, to_u64(file.len())) {
            return Err(error);
        }
        let at = to_usize(offset);
        // Whoever has the file open goes on seeing it as it was.
        Arc::make_mut(file)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        match self.state().files.remove(name) {
            Some(_) => Ok(()),
            None => Err(not_found("remove", &self.name, name)),
        }
    }

    fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
        let mut state = self.state();
        let others = state.holders.values();
        let against: Vec<String> = others
            .filter(|(theirs, _)| !mode.admits(*theirs))
            .map(|(_, who)| who.clone())
            .collect();
        if !against.is_empty() {
            return Err(held_by(&self.name, &against));
        }
        let id = state.next_holder;
        state.next_holder += 1;
        state.holders.insert(id, (mode, holder.to_owned()));
        Ok(StoreLock::new(Holder {
            store: self.clone(),
            id,
        }))
    }

    fn clean_up(&self) -> Result<Vec<String>> {
        Ok(std::mem::take(&mut self.state().leftovers))
    }
}

struct Holder {
    store: MemoryStore,
    id: u64,
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.store.state().holders.remove(&self.id);
    }
}

struct MemoryFile {
    name: String,
    bytes: Arc<Vec<u8>>,
}

impl RangeRead for MemoryFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        to_u64(self.bytes.len())
    }

    fn is_cached(&self, _offset: u64, _len: u64) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.bytes
            .read_at(offset, buf)
            .map_err(|_| past_end(&self.name, offset, buf.len(), self.len()))
    }
}

struct MemoryUpload {
    store: MemoryStore,
    name: FileName,
    bytes: Vec<u8>,
}

impl io::Write for MemoryUpload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for MemoryUpload {
    fn written(&self) -> u64 {
        to_u64(self.bytes.len())
    }

    fn publish(self: Box<Self>) -> Result<()> {
        let MemoryUpload { store, name, bytes } = *self;
        let mut state = store.state();
        if state.files.contains_key(&name) {
            return Err(name_taken("publish", &store.name, &name));
        }
        state.files.insert(name, Arc::new(bytes));
        Ok(())
    }

    fn abandon(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;

    #[test]
    fn memory_keeps_the_contract() {
        let store = MemoryStore::new("m");
        contract::check_store(&store, &store.clone());
    }

    #[test]
    fn what_a_killed_run_leaves_is_cleaned_up_once() {
        let store = MemoryStore::new("m");
        store.strand(&FileName::new("a").unwrap());
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(store.clean_up().unwrap().len(), 1);
        assert_eq!(store.clean_up().unwrap().len(), 0);
    }
}
