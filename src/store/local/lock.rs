//! The lock of a whole folder.
//!
//! It is a file lock on `.lock`, which is empty and never removed; whoever adds shares it with readers and
//! keeps others who add away with a second one on `.adding`. Who holds it is said in files
//! of their own, one for each holder, so that several shared holders do not overwrite one another
//! and none is named that has gone.
//!
//! On a share, locks may not reach from one machine to another. There the files of holders on other machines
//! count as locks, too ([`elsewhere`]).

mod elsewhere;

use super::fail;
use super::held::{self, Held};
use crate::base::Result;
use crate::store::{LockMode, StoreLock, held_by};
use crate::sys::{self, Folder, Lock};
pub(super) use elsewhere::Reach;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// In front of the names of files in which lock holders say who they are.
pub(super) const HOLDER: &str = ".holder-";

const LOCK_FILE: &str = ".lock";
/// Locked by whoever adds, beside its share of [`LOCK_FILE`].
const ADDING_FILE: &str = ".adding";

/// The most bytes a holder says of itself for people, and in all.
const MAX_LINE: usize = 300;
const MAX_TEXT: usize = 600;

/// A message that names more holders than this helps nobody.
const MAX_NAMED: usize = 5;

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
    // Whoever has just taken the lock has not said yet who it is, or has gone already.
    for _ in 1..held::LOCK_TRIES {
        if let Some(lock) = try_lock(folder, store, mode, holder)? {
            return Ok(lock);
        }
        let holders = holders_against(folder, mode);
        if !holders.is_empty() {
            return Err(held_by(store, &holders));
        }
        std::thread::sleep(held::LOCK_PAUSE);
    }
    let lock = try_lock(folder, store, mode, holder)?;
    lock.ok_or_else(|| held_by(store, &holders_against(folder, mode)))
}

/// The lock; `None` when another process of this machine holds one that does not admit it.
fn try_lock(
    folder: &Arc<Folder>,
    store: &str,
    mode: LockMode,
    holder: &str,
) -> Result<Option<StoreLock>> {
    let reach = Reach::of(folder);
    match ask_all(folder, mode) {
        Ok(Some((lock, adding))) => {
            // Only if possible: a store that is full must still be locked to be pruned. And before others
            // are looked for: of two that come at once, one at least sees the other.
            let text = match (&lock, &adding) {
                (None, None) => None,
                _ => say(folder, mode, holder, &reach).ok(),
            };
            let own = text.as_ref().map(Held::name);
            reach.check(folder, store, mode, own)?;
            Ok(Some(StoreLock::new(Guard {
                _text: text,
                _adding: adding,
                _lock: lock,
            })))
        }
        Ok(None) => Ok(None),
        Err(e) if sys::cannot_lock(&e) => {
            Err(fail("lock", store, e)
                .hint("its file system has no file locks; mount it with locking"))
        }
        Err(e) => Err(fail("lock", store, e)),
    }
}

/// What the living whose locks do not admit `mode` say of themselves, of no more than [`MAX_NAMED`] of them.
fn holders_against(folder: &Folder, mode: LockMode) -> Vec<String> {
    let all = held::said(folder, HOLDER, MAX_TEXT).unwrap_or_default();
    let against = |said: &held::Said| {
        said.alive && elsewhere::mode_in(&said.text).is_none_or(|theirs| !mode.admits(theirs))
    };
    let texts = all.iter().filter(|said| against(said)).map(held::Said::who);
    texts
        .filter(|text| !text.is_empty())
        .take(MAX_NAMED)
        .collect()
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
fn say(folder: &Arc<Folder>, mode: LockMode, holder: &str, reach: &Reach) -> io::Result<Held> {
    // Readers that were killed have left theirs, and nobody else may come by for long.
    let _ = held::remove_dead(folder, &[HOLDER], &|file| reach.spares(file));
    let text = crate::base::printable(holder);
    let held = Held::create(folder, HOLDER, "run")?;
    let line = held::shortened(&text, MAX_LINE);
    let text = format!("{line}\n{}", reach.mark(mode));
    sys::write_all_at(held.file(), text.as_bytes(), 0)?;
    sys::sync(held.file())?;
    Ok(held)
}
