//! The lock of a whole folder.
//!
//! It is a file lock on `.lock`, which is empty and never removed; whoever adds shares it with readers and
//! keeps others who add away with a second one on `.adding`. Who holds it is said in files
//! of their own, one for each holder, so that several shared holders do not overwrite one another
//! and none is named that has gone.

use super::fail;
use super::held::{self, Held};
use crate::base::Result;
use crate::store::{LockMode, StoreLock, held_by};
use crate::sys::{self, Folder, Lock};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// In front of the names of files in which lock holders say who they are.
pub(super) const HOLDER: &str = ".holder-";

const LOCK_FILE: &str = ".lock";
/// Locked by whoever adds, beside its share of [`LOCK_FILE`].
const ADDING_FILE: &str = ".adding";

/// The most bytes a holder says of itself.
const MAX_TEXT: usize = 400;

/// How often the lock file may be removed under our hands before that is an error.
const MAX_REPLACED: u32 = 10;

/// What a [`StoreLock`] of a folder keeps. Fields drop in this order: a holder that still says its
/// name has the lock.
struct Guard {
    _text: Option<Held>,
    _adding: Option<Lock>,
    _lock: Option<Lock>,
}

/// What asking for the lock came to.
enum Asked {
    Got(Lock),
    HeldByOthers,
    /// There is nothing to lock, and nobody from here can make it.
    Needless,
}

pub(super) fn lock(
    folder: &Arc<Folder>,
    store: &str,
    mode: LockMode,
    holder: &str,
) -> Result<StoreLock> {
    match ask_all(folder, mode) {
        Ok(Some((None, None))) => Ok(StoreLock::new(())),
        Ok(Some((lock, adding))) => {
            // Last and only if possible: a store that is full must still be locked to be pruned.
            let text = say(folder, holder).ok();
            Ok(StoreLock::new(Guard {
                _text: text,
                _adding: adding,
                _lock: lock,
            }))
        }
        Ok(None) => {
            let holders = held::living(folder, HOLDER, MAX_TEXT).unwrap_or_default();
            Err(held_by(store, &holders))
        }
        Err(e) if sys::cannot_lock(&e) => {
            Err(fail("lock", store, e)
                .hint("its file system has no file locks; mount it with locking"))
        }
        Err(e) => Err(fail("lock", store, e)),
    }
}

/// The locks that `mode` takes: on the store, and on adding to it; `None` when others hold one.
fn ask_all(folder: &Folder, mode: LockMode) -> io::Result<Option<(Option<Lock>, Option<Lock>)>> {
    let share = match mode {
        LockMode::Adding => LockMode::Shared,
        other => other,
    };
    let lock = match ask(folder, LOCK_FILE, share)? {
        Asked::Got(lock) => Some(lock),
        Asked::Needless => None,
        Asked::HeldByOthers => return Ok(None),
    };
    if mode != LockMode::Adding {
        return Ok(Some((lock, None)));
    }
    match ask(folder, ADDING_FILE, LockMode::Exclusive)? {
        Asked::Got(adding) => Ok(Some((lock, Some(adding)))),
        Asked::Needless => Ok(Some((lock, None))),
        Asked::HeldByOthers => Ok(None),
    }
}

fn ask(folder: &Folder, name: &str, mode: LockMode) -> io::Result<Asked> {
    let (text, name) = (name, OsStr::new(name));
    for _ in 0..MAX_REPLACED {
        let Some(file) = open(folder, name, mode)? else {
            return Ok(Asked::Needless);
        };
        if !sys::facts_of(&file)?.is_file() {
            let text = format!("{text} is no plain file");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let lock = match mode {
            LockMode::Exclusive | LockMode::Adding => sys::lock_exclusive(file.try_clone()?),
            LockMode::Shared => sys::lock_shared(file.try_clone()?),
        };
        match lock {
            Ok(Some(lock)) if folder.is_file(name, &file)? => return Ok(Asked::Got(lock)),
            // Somebody removed the file: a lock on it would keep nobody out.
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Asked::HeldByOthers),
            // Without locks there are no exclusive ones either, so that readers have nothing to fear.
            Err(e) if mode == LockMode::Shared && sys::cannot_lock(&e) => {
                return Ok(Asked::Needless);
            }
            Err(e) => return Err(e),
        }
    }
    let text = format!("{text} is removed again and again");
    Err(io::Error::other(text))
}

/// The lock file. `None` when it is missing and this process may only read: on a medium that is
/// read-only nobody changes what is read, and elsewhere a reader without rights cannot do better.
fn open(folder: &Folder, name: &OsStr, mode: LockMode) -> io::Result<Option<File>> {
    match folder.open_or_create(name) {
        Ok(file) => Ok(Some(file)),
        Err(e) if mode == LockMode::Shared && cannot_write(&e) => match folder.open_to_read(name) {
            Ok(file) => Ok(Some(file)),
            Err(e) if cannot_write(&e) || e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        },
        Err(e) => Err(e),
    }
}

fn cannot_write(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

/// Writes down who holds the lock, for those who come in vain. Synced, because other machines on
/// a share see nothing that is still in this one's cache.
fn say(folder: &Arc<Folder>, holder: &str) -> io::Result<Held> {
    // Readers that were killed have left theirs, and nobody else may come by for long.
    let _ = held::remove_dead(folder, &[HOLDER]);
    let text = crate::base::printable(holder);
    let held = Held::create(folder, HOLDER, "run")?;
    let bytes = held::shortened(&text, MAX_TEXT).as_bytes();
    sys::write_all_at(held.file(), bytes, 0)?;
    sys::sync(held.file())?;
    Ok(held)
}
