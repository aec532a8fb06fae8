//! A folder of this machine, or of a share that is mounted on it, as a store.
//!
//! Published files stand under their names. What is not published has a name with a dot in front:
//! `.unfinished-…` for uploads, `.holder-…` for what lock holders say of themselves, both held by
//! file locks that die with their process; `.lock` and `.publishing` are empty and stay. Everything
//! else in the folder (subfolders, links, devices, odd names) is ignored.

mod direct;
mod held;
mod leftover;
mod lock;
mod publish;
mod read;
mod upload;

use super::{
    Entry, FileName, Leftover, LockMode, Space, Store, StoreLock, Upload, name_taken, not_found,
    past_end_of,
};
use crate::base::{Error, ErrorKind, RangeRead, Result};
use crate::sys::{self, Folder, errno};
use held::Held;
use leftover::LocalLeftover;
use read::LocalFile;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use upload::LocalUpload;

/// More files than any store has; a folder with more is not read into memory.
const MAX_FILES: usize = 1_000_000;

/// In front of the name of an upload that is not published.
const UNFINISHED: &str = ".unfinished-";

/// A store in a folder. Clones share the folder's handle.
#[derive(Debug, Clone)]
pub struct LocalStore {
    name: String,
    path: PathBuf,
    folder: Arc<Folder>,
    /// Set once the file system has said that it cannot make names durable.
    forgets_names: Arc<AtomicBool>,
    /// How many bytes of what is read may still stay in the page cache.
    reread: Arc<AtomicU64>,
}

impl LocalStore {
    /// Opens the store in the folder at `path`, also for reading only.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder, `Destination` for every other failure.
    pub fn open(path: &Path) -> Result<LocalStore> {
        LocalStore::new("open", path, Folder::open)
    }

    /// Makes the folder at `path` (mode 0700) and opens the store in it; a folder that exists is
    /// taken as it is. The folder above must exist: were it made too, a disk that is not mounted
    /// would go unnoticed.
    ///
    /// # Errors
    /// `NotFound` when the folder above is missing, `Destination` for every other failure.
    pub fn create(path: &Path) -> Result<LocalStore> {
        LocalStore::new("create", path, Folder::create)
    }

    fn new(what: &str, path: &Path, make: fn(&Path) -> io::Result<Folder>) -> Result<LocalStore> {
        let name = path.display().to_string();
        let _pending = sys::pending("opening", &name);
        match make(path) {
            Ok(folder) => {
                let (path, folder) = (path.to_owned(), Arc::new(folder));
                Ok(LocalStore {
                    name,
                    path,
                    folder,
                    forgets_names: Arc::default(),
                    reread: Arc::default(),
                })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(
                    Error::new(ErrorKind::NotFound, what, format!("the store {name}"))
                        .caused_by(e)
                        .hint("check the path, and whether the disk or share is mounted"),
                )
            }
            Err(e) => Err(fail(what, &format!("the store {name}"), e)),
        }
    }

    /// The same folder; what may stay in the page cache is counted in `reread`.
    #[must_use]
    pub(super) fn counting(self, reread: Arc<AtomicU64>) -> LocalStore {
        LocalStore { reread, ..self }
    }

    /// Makes the names of published files durable, where the file system can do that.
    fn sync_names(&self) -> io::Result<()> {
        if !self.folder.sync()? {
            self.forgets_names.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn path_text(&self, name: &FileName) -> String {
        self.path.join(name.as_str()).display().to_string()
    }

    /// Fails unless `name` is a plain file.
    fn check_plain(&self, what: &str, kind: ErrorKind, name: &FileName) -> Result<()> {
        match self.folder.facts(name.as_ref()) {
            Ok(facts) if facts.is_file() => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::NotFound, what, self.path_text(name))
                .because("it is no plain file, and links are not followed in a store")),
            Err(e) => Err(self.file_error(what, kind, name, e)),
        }
    }

    fn file_error(&self, what: &str, kind: ErrorKind, name: &FileName, e: io::Error) -> Error {
        if e.kind() == io::ErrorKind::NotFound {
            return not_found(what, &self.name, name);
        }
        Error::new(kind, what, self.path_text(name)).caused_by(e)
    }
}

impl Store for LocalStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn list(&self) -> Result<Vec<Entry>> {
        let _pending = sys::pending("listing", &self.name);
        let names = self
            .folder
            .plain_files(MAX_FILES)
            .map_err(|e| fail("list", &self.name, e))?;
        let fit = |name: OsString| FileName::new(name.into_string().ok()?).ok();
        let mut entries: Vec<Entry> = names
            .into_iter()
            .filter_map(fit)
            .map(|name| Entry { name, parts: None })
            .collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        let _pending = sys::pending("opening a file in", &self.name);
        self.check_plain("open", ErrorKind::Damaged, name)?;
        let file = self.folder.open_to_read(name.as_ref()).map_err(|e| {
            let kind = match e.raw_os_error() {
                // It says nothing about the file.
                Some(errno::EMFILE | errno::ENFILE) => ErrorKind::Destination,
                _ => ErrorKind::Damaged,
            };
            self.file_error("open", kind, name, e)
        })?;
        let (path, reread) = (self.path_text(name), Arc::clone(&self.reread));
        Ok(Arc::new(LocalFile::new(path, file, reread)?))
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        let _pending = sys::pending("creating a file in", &self.name);
        match self.folder.facts(name.as_ref()) {
            Ok(_) => return Err(name_taken("create", &self.name, name)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail("create", &self.path_text(name), e)),
        }
        let held = Held::create(&self.folder, UNFINISHED, name.as_str())
            .map_err(|e| fail("create", &self.path_text(name), e))?;
        Ok(Box::new(LocalUpload::new(self.clone(), held, name.clone())))
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        let _pending = sys::pending("writing to", &self.name);
        self.check_plain("overwrite", ErrorKind::Destination, name)?;
        let failed = |e| fail("overwrite", &self.path_text(name), e);
        let file = self.folder.open_to_write(name.as_ref());
        let file =
            file.map_err(|e| self.file_error("overwrite", ErrorKind::Destination, name, e))?;
        let len = sys::facts_of(&file).map_err(failed)?.len();
        if let Some(error) = past_end_of(&self.name, name, offset, bytes, len) {
            return Err(error);
        }
        sys::write_all_at(&file, bytes, offset).map_err(failed)?;
        sys::sync(&file).map_err(failed)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        let _pending = sys::pending("removing a file from", &self.name);
        self.check_plain("remove", ErrorKind::Destination, name)?;
        self.folder
            .remove(name.as_ref())
            .map_err(|e| self.file_error("remove", ErrorKind::Destination, name, e))?;
        self.sync_names().map_err(|e| fail("sync", &self.name, e))
    }

    fn space(&self) -> Result<Option<Space>> {
        let _pending = sys::pending("asking the free space of", &self.name);
        let space = self.folder.space();
        space
            .map(Some)
            .map_err(|e| fail("ask the free space of", &self.name, e))
    }

    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
        let _pending = sys::pending("locking", &self.name);
        lock::lock(&self.folder, &self.name, mode, holder)
    }

    fn clean_up(&self) -> Result<Vec<String>> {
        let _pending = sys::pending("cleaning up", &self.name);
        let failed = |e| fail("clean up", &self.name, e);
        let reach = lock::Reach::of(&self.folder);
        let spare = |file: &_| reach.spares(file);
        let holders = held::remove_dead(&self.folder, &[lock::HOLDER], &spare).map_err(failed)?;
        let uploads = held::remove_dead(&self.folder, &[UNFINISHED], &|_| false);
        Ok([holders, uploads.map_err(failed)?].concat())
    }

    fn leftovers(&self) -> Result<Vec<Box<dyn Leftover>>> {
        let _pending = sys::pending("looking for what is unfinished in", &self.name);
        let held = Held::take_over(&self.folder, UNFINISHED);
        let held = held.map_err(|e| fail("list", &self.name, e))?.into_iter();
        let readable = held.filter_map(|held| LocalLeftover::new(self.clone(), held).ok());
        Ok(readable
            .map(|left| Box::new(left) as Box<dyn Leftover>)
            .collect())
    }

    fn will_reread(&self, most: u64) {
        self.reread.store(most, Ordering::Relaxed);
    }

    fn caveats(&self) -> Vec<String> {
        let caveat = format!(
            "the file system of {} cannot be told to make the names of files durable: should power fail within the \
             next minute there, a new image may be gone",
            self.name
        );
        let is_so = self.forgets_names.load(Ordering::Relaxed);
        is_so.then_some(caveat).into_iter().collect()
    }

    fn paths_of(&self, names: &[&FileName]) -> Vec<PathBuf> {
        let paths = names.iter().map(|name| self.path.join(name.as_str()));
        paths.collect()
    }
}

fn fail(what: &str, subject: &str, e: io::Error) -> Error {
    let hint = match e.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the store lies on a file system mounted read-only")
        }
        io::ErrorKind::PermissionDenied => Some("run as the user who owns the store, or as root"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space in the store, or choose another store")
        }
        io::ErrorKind::FileTooLarge => Some(
            "files cannot be that long there (on FAT, 4 GiB less a byte): `strata backup --split auto`, \
             or --split with a length below the limit, makes numbered ones",
        ),
        io::ErrorKind::NotADirectory => Some("a store is a folder: name one"),
        _ => None,
    };
    let error = Error::new(ErrorKind::Destination, what, subject).caused_by(e);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests;
