//! Where do images live, and how do they get there whole or not at all?
//!
//! Promises: a file is seen under its name only when every byte of it is durable; nothing that
//! exists is ever replaced; an upload that ends in any other way leaves nothing, and what a killed
//! run leaves is recognisable and removed by the next. Locks die with their holder.
//! Must not know: what is inside the files, which of them belong together, who may be deleted.
//!
//! Every implementation and wrapper passes the suite in `contract.rs`.

mod continued;
#[cfg(test)]
pub(crate) mod contract;
mod encrypted;
mod fault;
mod local;
mod memory;
mod name;
mod pass_on;
mod record;
mod reopened;
mod split;
mod throttle;

pub use crate::sys::Space;
pub use continued::Continued;
pub use encrypted::EncryptedStore;
pub use fault::{Call, Fault, FaultStore, Faults};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use name::FileName;
pub use record::{Op, RecordStore, Recorded, replay};
pub use reopened::ReopenedStore;
pub use split::{Brought, MIN_PART_LEN, PartBringer, SplitStore, WantedPart};
pub use throttle::ThrottledStore;

use crate::base::{Digest, Error, ErrorKind, RangeRead, Result, to_usize};
use crate::crypt::KeySet;
use crate::sys;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, unique in the store.
    pub name: FileName,
    /// In how many numbered files it lies, of those that are there; `None` when it is not cut.
    pub parts: Option<u32>,
}

/// How a file is stored, whatever is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// Bytes of each part, its own headers included; as one file without it.
    pub part_len: Option<u64>,
    /// The keys that open it; not encrypted without any.
    pub keys: Option<Arc<KeySet>>,
}

/// Fails unless what `leftover` is of is stored in `form`.
///
/// # Errors
/// `Internal`.
fn check_form(leftover: &dyn Leftover, form: &Form) -> Result<()> {
    if *form == leftover.form() {
        return Ok(());
    }
    let bytes = leftover.bytes();
    Err(Error::new(ErrorKind::Internal, "go on with", bytes.name())
        .because("it is stored in another form"))
}

/// With whom a store can be shared while it is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// With nobody: for whoever removes.
    Exclusive,
    /// With readers, and with no other who adds.
    Adding,
    /// With other readers, and with one who adds.
    Shared,
}

impl LockMode {
    /// Whether two holders may have the lock in these modes at once.
    fn admits(self, other: LockMode) -> bool {
        use LockMode::{Adding, Shared};
        matches!(
            (self, other),
            (Shared, Shared) | (Shared, Adding) | (Adding, Shared)
        )
    }
}

/// A held lock of a store; given back when dropped.
pub struct StoreLock {
    _guard: Box<dyn Send>,
}

impl StoreLock {
    /// A lock that is held as long as `guard` lives. For implementations of [`Store`].
    pub fn new(guard: impl Send + 'static) -> StoreLock {
        StoreLock {
            _guard: Box::new(guard),
        }
    }
}

/// A flat set of named files that are written once, read by range and removed.
///
/// # Contract
/// - Calls come from any number of threads, and other processes work on the same store meanwhile.
/// - Failures of the store itself are of kind `Destination`, except when the bytes of a published
///   file are not to be had: that is `Damaged`, as [`RangeRead`] says. A file that is not there,
///   or that is no plain file, is `NotFound`.
/// - Only published files are listed, opened and removed.
pub trait Store: Send + Sync {
    /// What to call it in messages: a path, an address.
    fn name(&self) -> &str;

    /// The published files, in ascending order of their names' bytes. Only names are looked at, so that a store
    /// far away is not asked about each file.
    ///
    /// # Errors
    /// `Destination`.
    fn list(&self) -> Result<Vec<Entry>>;

    /// Opens a published file. It stays readable when it is removed meanwhile, where the store can
    /// do that (local and in memory: yes).
    ///
    /// # Errors
    /// `NotFound`, `Damaged`.
    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>>;

    /// Begins a file that will be called `name`.
    ///
    /// # Errors
    /// `Destination`; at once when `name` exists, so that nobody finds out after hours.
    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>>;

    /// As [`Store::create`], in parts of `part_len` bytes each, their own headers included, where the store
    /// can do that; as one file without it.
    ///
    /// # Errors
    /// As [`Store::create`]; `Usage` for parts that are too short.
    fn create_in_parts(&self, name: &FileName, _part_len: Option<u64>) -> Result<Box<dyn Upload>> {
        self.create(name)
    }

    /// How long parts of a published file are at most, in bytes; `None` when it was not to be cut.
    ///
    /// # Errors
    /// `Destination`, `Damaged`.
    fn part_len(&self, _name: &FileName) -> Result<Option<u64>> {
        Ok(None)
    }

    /// As [`Store::create`], in the form asked for.
    ///
    /// # Errors
    /// As [`Store::create_in_parts`]; `Internal` where the store cannot encrypt: nothing is ever stored for
    /// all to read that should not be.
    fn create_as(&self, name: &FileName, form: &Form) -> Result<Box<dyn Upload>> {
        match form.keys {
            None => self.create_in_parts(name, form.part_len),
            Some(_) => Err(Error::new(ErrorKind::Internal, "encrypt", name.as_str())
                .because("this store stores files as they come")),
        }
    }

    /// The form of a published file.
    ///
    /// # Errors
    /// As [`Store::part_len`] and [`Store::open`].
    fn form_of(&self, name: &FileName) -> Result<Form> {
        Ok(Form {
            part_len: self.part_len(name)?,
            keys: None,
        })
    }

    /// What tells a published file from every other, whoever can read it: the same as long as only its keys
    /// change.
    ///
    /// # Errors
    /// As [`Store::open`].
    fn print_of(&self, name: &FileName) -> Result<Digest> {
        print_from(self.open(name)?.as_ref(), 0)
    }

    /// Writes `bytes` over those of a published file from `offset` on; its length stays. Durable once `Ok` is
    /// returned. After a crash or a failure, each of these bytes is the old or the new one, and no other
    /// has changed.
    ///
    /// Images are never changed; this is for what stands in front of an encrypted one and says who may open
    /// it.
    ///
    /// # Errors
    /// `NotFound`, `Destination`; `Damaged` when the range passes the end.
    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()>;

    /// In how many numbered files a published file lies; `None` when it is not cut.
    ///
    /// # Errors
    /// `Destination`.
    fn part_count(&self, _name: &FileName) -> Result<Option<u32>> {
        Ok(None)
    }

    /// The file that what is called `name` is a part of: itself, unless the store keeps files in parts.
    fn file_of(&self, name: &FileName) -> FileName {
        name.clone()
    }

    /// Removes a published file, durably once `Ok` is returned.
    ///
    /// # Errors
    /// `NotFound`, `Destination`.
    fn remove(&self, name: &FileName) -> Result<()>;

    /// Room for more, in bytes; `None` when the store has no notion of it.
    ///
    /// # Errors
    /// `Destination`.
    fn space(&self) -> Result<Option<Space>>;

    /// Locks the whole store without waiting. `holder` tells others who holds it: host, process id
    /// and what is being done. It is shown to whoever comes in vain. A lock ends when it is
    /// dropped or its process dies; it never ends by age.
    ///
    /// # Errors
    /// `Locked`, naming the holders; `Destination`.
    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock>;

    /// Removes what dead runs left: unpublished uploads that no living process holds. Returns
    /// what was removed, for a message. To be called under an exclusive lock: on a network share
    /// whose file locks are not shared between machines, only that keeps apart the living and the
    /// dead.
    ///
    /// # Errors
    /// `Destination`.
    fn clean_up(&self) -> Result<Vec<String>>;

    /// What dead runs left of files that were never published, each held against [`Store::clean_up`] as long as
    /// it lives. None where the store cannot go on with a file. To be called under an exclusive lock, as that.
    ///
    /// # Errors
    /// `Destination`.
    fn leftovers(&self) -> Result<Vec<Box<dyn Leftover>>> {
        Ok(Vec::new())
    }

    /// Says that what is read from now on is read once more soon, so that a store may keep up to `most` bytes of it
    /// at hand until then; with 0, that it is not. A hint.
    fn will_reread(&self, _most: u64) {}

    /// What a person should know of how safe files are here, as far as it has shown so far.
    fn caveats(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where published files lie on this machine, all parts of them, for stores that are folders.
    fn paths_of(&self, _names: &[&FileName]) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// A file on its way into a store: written front to back, invisible until published.
///
/// # Contract
/// - `write` fails with an [`io::Error`] that carries an [`Error`]; [`write_error`] takes it out.
///   `Interrupted` is no failure. Any other one is final: the rest cannot be trusted to be whole,
///   so that no later write succeeds and `publish` fails.
/// - `flush` promises nothing; only `publish` makes durable.
/// - Dropping without publishing abandons.
pub trait Upload: io::Write + Send {
    /// Bytes taken so far.
    fn written(&self) -> u64;

    /// Makes the content durable, then visible under its name, then the name durable. An existing
    /// file is never replaced. `Ok` means that a power cut cannot take it away any more.
    ///
    /// A failure means that nothing was published and nothing is left, as far as the store still
    /// obeys. A failed sync is never tried again: it says that data is gone from the cache.
    ///
    /// # Errors
    /// `Destination`, also when the name was taken meanwhile.
    fn publish(self: Box<Self>) -> Result<()>;

    /// Removes what was written. Nothing is left, as far as the store still obeys.
    fn abandon(self: Box<Self>);

    /// Leaves what was written for a later run, which finds it among the [`Store::leftovers`]; where the store
    /// cannot go on with a file, or a write has failed, as [`Upload::abandon`], and `false`.
    fn leave(self: Box<Self>) -> bool {
        self.abandon();
        false
    }
}

/// What a dead run left of a file. Dropped, it stays as it is.
pub trait Leftover: Send {
    /// What is there. It may be torn and hold anything: the run did not end well.
    fn bytes(&self) -> Arc<dyn RangeRead>;

    /// The name that the file has to have, where that is settled.
    fn file(&self) -> Option<FileName> {
        None
    }

    /// How it is stored.
    fn form(&self) -> Form {
        Form::default()
    }

    /// Writes `bytes` over those from `offset` on, all of them there already. Durable when [`Leftover::resume`] returns,
    /// and before anything that is written then; of an encrypted file it changes nothing earlier either.
    ///
    /// # Errors
    /// `Destination`; `Damaged` when the range passes the end.
    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Goes on with it as an upload in `form` that will be called `name` and that consists of its first `at` bytes so
    /// far. A crash leaves what can be gone on with again, or what nobody takes for the file.
    ///
    /// # Errors
    /// `Destination`, also when `name` exists or the leftover is gone; `Internal` when it cannot have that form;
    /// `Damaged` when what is to be kept cannot be read any more.
    fn resume(self: Box<Self>, name: &FileName, form: &Form, at: u64) -> Result<Box<dyn Upload>>;

    /// Removes it, as far as the store still obeys.
    fn remove(self: Box<Self>);
}

/// How many files may be kept open until they are used again, or twice as many for a while. The rest of what this
/// process may have open is for what is read at the moment, and for everything else.
pub fn files_kept_open() -> usize {
    // A year of daily images fits, so that none is opened twice; each may be open past the page cache as well.
    to_usize((sys::most_open_files() / 8).clamp(1, 250))
}

/// The [`Error`] inside what [`Upload`]'s `write` returned, or one of kind `Destination` around it.
/// `name` is what was written to.
pub fn write_error(name: &str, e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(error) => error,
        Err(e) => Error::new(ErrorKind::Destination, "write", name).caused_by(e),
    }
}

/// The way back: `error` as [`Upload`]'s `write` returns it.
fn as_io_error(error: Error) -> io::Error {
    let kind = error.os_error().map_or(io::ErrorKind::Other, |code| {
        io::Error::from_raw_os_error(code).kind()
    });
    io::Error::new(kind, error)
}

/// The error of a store that has no published file `name`.
fn not_found(what: &str, store: &str, name: &FileName) -> Error {
    Error::new(ErrorKind::NotFound, what, format!("{store}/{name}"))
        .because("there is no such image file")
        .hint("`strata list` shows the images of a store")
}

/// The error of a `name` that is taken.
fn name_taken(what: &str, store: &str, name: &FileName) -> Error {
    Error::new(ErrorKind::Destination, what, format!("{store}/{name}"))
        .because("a file of that name exists already")
        .hint("nothing was replaced; choose another name or remove that file first")
}

/// The print of a file whose content begins at byte `from`: its length, and its first kilobytes, which no two
/// images share.
fn print_from(file: &dyn RangeRead, from: u64) -> Result<Digest> {
    let len = file.len().saturating_sub(from);
    let mut start = vec![0; to_usize(len.min(PRINTED))];
    file.read_at(from, &mut start)?;
    let context = "diskstrata print of a file 1";
    Ok(Digest::derive(context, &[&len.to_le_bytes(), &start]))
}

/// How much of a file its print is made of, in bytes.
const PRINTED: u64 = 16 << 10;

/// The error of a range that passes the end of `name`.
fn past_end_of(store: &str, name: &FileName, offset: u64, bytes: &[u8], len: u64) -> Option<Error> {
    let end = offset.checked_add(crate::base::to_u64(bytes.len()));
    let name = format!("{store}/{name}");
    end.is_none_or(|end| end > len)
        .then(|| crate::base::past_end(&name, offset, bytes.len(), len))
}

/// The error of an upload whose write failed before.
fn spoiled(what: &str, name: &str) -> Error {
    Error::new(ErrorKind::Destination, what, name).because("an earlier write to it failed")
}

/// The error of a lock that others hold. `holders` is what they said of themselves.
fn held_by(store: &str, holders: &[String]) -> Error {
    let who = match holders {
        [] => "another run holds it and has not said who it is".to_owned(),
        some => format!("held by {}", some.join("; ")),
    };
    Error::new(ErrorKind::Locked, "lock", store)
        .because(who)
        .hint("wait until that run has ended, then try again")
}
