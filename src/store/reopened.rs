//! A folder on a medium that may be taken out: nothing is kept open between two calls.

use super::{Entry, FileName, LocalStore, LockMode, Space, Store, StoreLock, Upload};
use crate::base::{RangeRead, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The store in a folder that is looked for anew with each call. Files that it has opened, and its locks,
/// keep the medium in use as long as they live.
#[derive(Debug, Clone)]
pub struct ReopenedStore {
    path: PathBuf,
    name: String,
    reread: Arc<AtomicU64>,
}

impl ReopenedStore {
    /// The store in the folder at `path`, wherever that is when it is used.
    pub fn new(path: PathBuf) -> ReopenedStore {
        let name = path.display().to_string();
        let reread = Arc::default();
        ReopenedStore { path, name, reread }
    }

    fn now(&self) -> Result<LocalStore> {
        let store = LocalStore::open(&self.path)?;
        Ok(store.counting(Arc::clone(&self.reread)))
    }
}

impl Store for ReopenedStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn list(&self) -> Result<Vec<Entry>> {
        self.now()?.list()
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        self.now()?.open(name)
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        self.now()?.create(name)
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        self.now()?.overwrite(name, offset, bytes)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.now()?.remove(name)
    }

    fn space(&self) -> Result<Option<Space>> {
        self.now()?.space()
    }

    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
        self.now()?.lock(mode, holder)
    }

    fn clean_up(&self) -> Result<Vec<String>> {
        self.now()?.clean_up()
    }

    fn will_reread(&self, most: u64) {
        self.reread.store(most, Ordering::Relaxed);
    }

    fn paths_of(&self, names: &[&FileName]) -> Vec<PathBuf> {
        self.now()
            .map(|store| store.paths_of(names))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;

    #[test]
    fn it_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let store = || ReopenedStore::new(dir.path().to_owned());
        contract::check_store(&store(), &store());
    }

    #[test]
    fn the_folder_may_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let (here, away) = (dir.path().join("here"), dir.path().join("away"));
        std::fs::create_dir(&here).unwrap();
        std::fs::write(here.join("a"), b"content").unwrap();
        let store = ReopenedStore::new(here.clone());
        assert_eq!(store.list().unwrap().len(), 1);
        std::fs::rename(&here, &away).unwrap();
        let error = store.list().unwrap_err();
        assert_eq!(error.kind(), crate::base::ErrorKind::NotFound);
        std::fs::rename(&away, &here).unwrap();
        assert_eq!(store.open(&FileName::new("a").unwrap()).unwrap().len(), 7);
    }
}
