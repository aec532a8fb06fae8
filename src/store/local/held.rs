//! Files that say by a lock that their maker is alive.

use crate::sys::{self, Folder, Lock};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

/// So many leftovers of one kind and label are passed over before giving up.
const MAX_TRIES: u32 = 10_000;

/// The part of a label that goes into the name; with prefix and number it stays below the 143
/// bytes that encrypted folders allow.
const MAX_LABEL: usize = 100;

/// A lock held for a moment, by a clean-up, by a look at the holders, or by a run that has not said yet who it
/// is, is waited for this long.
pub(super) const LOCK_TRIES: u32 = 100;
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A file with a dot in front of its name, locked by this process and removed when dropped.
#[derive(Debug)]
pub(super) struct Held {
    folder: Arc<Folder>,
    name: OsString,
    file: File,
    /// `None` where the file system has no locks. Nobody can then tell the living from the dead,
    /// and [`remove_dead`] leaves all of them.
    _lock: Option<Lock>,
    /// Whether it stays when this is dropped.
    stays: bool,
}

impl Held {
    /// Makes an empty file named `prefix`, a number, and some of `label`.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn create(folder: &Arc<Folder>, prefix: &str, label: &str) -> io::Result<Held> {
        let label = shortened(label, MAX_LABEL);
        for number in 0..MAX_TRIES {
            let name = OsString::from(format!("{prefix}{number}-{label}"));
            let file = match folder.create_new(&name) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            };
            let lock = match lock_soon(&file) {
                Ok(Some(lock)) => Some(lock),
                // Whoever held it that long may do with it what they want; it is empty.
                Ok(None) => continue,
                Err(e) if sys::cannot_lock(&e) => None,
                Err(e) => {
                    let _ = folder.remove(&name);
                    return Err(e);
                }
            };
            let folder = folder.clone();
            let held = Held {
                folder,
                name,
                file,
                _lock: lock,
                stays: false,
            };
            // A clean-up that came between making and locking took it for dead.
            if held.is_in_place()? {
                return Ok(held);
            }
        }
        let text = format!("{MAX_TRIES} files named {prefix}… stand in the way");
        Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
    }

    /// Takes over the files that begin with `prefix` and that nobody holds. They stay when they are dropped. What
    /// cannot be locked is left: its maker may live. So is what has a second name: what is written to it would be
    /// written to a file that somebody wants to keep.
    ///
    /// # Errors
    /// As getdents(2).
    pub(super) fn take_over(folder: &Arc<Folder>, prefix: &str) -> io::Result<Vec<Held>> {
        let names = names_with(folder, &[prefix])?;
        let taken = names.into_iter().filter_map(|name| {
            let file = open_plain(folder, &name).ok()??;
            // Some file systems do not count.
            let is_alone = sys::facts_of(&file).ok()?.nlink() <= 1;
            is_alone.then_some(())?;
            let lock = file.try_clone().and_then(sys::lock_exclusive).ok()??;
            let held = Held {
                folder: folder.clone(),
                name: name.into(),
                file,
                _lock: Some(lock),
                stays: true,
            };
            // Published since it was opened?
            held.is_in_place().unwrap_or(false).then_some(held)
        });
        Ok(taken.collect())
    }

    /// Whether the file stays, for another run, when this is dropped.
    pub(super) fn stay(&mut self, stays: bool) {
        self.stays = stays;
    }

    /// The same with another file open, to have it fail.
    #[cfg(test)]
    pub(super) fn with_file(mut self, file: File) -> Held {
        self.file = file;
        self
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn name(&self) -> &OsString {
        &self.name
    }

    /// Whether the file still stands under its name.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        self.folder.is_file(&self.name, &self.file)
    }
}

impl Drop for Held {
    /// Removes the name while it is this file's. Once published it is not: then nothing happens.
    fn drop(&mut self) {
        if !self.stays && self.is_in_place().unwrap_or(false) {
            let _ = self.folder.remove(&self.name);
        }
    }
}

/// Locks `file` alone, waiting a second at most for who holds it. `None` when they go on.
///
/// # Errors
/// As flock(2).
pub(super) fn lock_soon(file: &File) -> io::Result<Option<Lock>> {
    for _ in 1..LOCK_TRIES {
        if let Some(lock) = sys::lock_exclusive(file.try_clone()?)? {
            return Ok(Some(lock));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    sys::lock_exclusive(file.try_clone()?)
}

/// The names in `folder` that begin with one of `prefixes` and are fit to be shown.
fn names_with(folder: &Folder, prefixes: &[&str]) -> io::Result<Vec<String>> {
    let names = folder.names(super::MAX_FILES)?.into_iter();
    let mut names: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !name.chars().any(crate::base::is_unprintable))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The file called `name`, if there is one and it is plain.
fn open_plain(folder: &Folder, name: &str) -> io::Result<Option<File>> {
    // Opening for writing is what network file systems want before an exclusive lock.
    let file = match folder.open_to_write(name.as_ref()) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(sys::facts_of(&file)?.is_file().then_some(file))
}

/// What a holder has written into its file.
pub(super) struct Said {
    pub(super) name: String,
    pub(super) text: String,
    /// Whether this machine's kernel knows the holder as living.
    pub(super) alive: bool,
}

impl Said {
    /// Its first line, made printable: who it is.
    pub(super) fn who(&self) -> String {
        let line = self.text.lines().next().unwrap_or_default();
        crate::base::printable(line.trim())
    }
}

/// What stands in the files that begin with `prefix`: at most `limit` bytes of each. Files that cannot be
/// read tell nothing.
///
/// # Errors
/// As getdents(2).
pub(super) fn said(folder: &Folder, prefix: &str, limit: usize) -> io::Result<Vec<Said>> {
    let mut all = Vec::new();
    for name in names_with(folder, &[prefix])? {
        if let Ok(Some(file)) = open_plain(folder, &name) {
            all.push(look_at(name, &file, limit));
        }
    }
    Ok(all)
}

fn look_at(name: String, file: &File, limit: usize) -> Said {
    let lock = file.try_clone().and_then(sys::lock_exclusive);
    let mut bytes = vec![0; limit];
    let read = std::os::unix::fs::FileExt::read_at(file, &mut bytes, 0);
    bytes.truncate(read.unwrap_or(0));
    Said {
        name,
        text: String::from_utf8_lossy(&bytes).into_owned(),
        alive: lock.is_ok_and(|lock| lock.is_none()),
    }
}

/// The beginning of `text`, at most `max` bytes, ending between two characters.
pub(super) fn shortened(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Removes the plain files that begin with one of `prefixes` and that nobody holds, but for those that `spare`
/// knows by their content; returns their names. What cannot be locked is left: its maker may live.
///
/// # Errors
/// As getdents(2), unlink(2).
pub(super) fn remove_dead(
    folder: &Folder,
    prefixes: &[&str],
    spare: &dyn Fn(&File) -> bool,
) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in names_with(folder, prefixes)? {
        let Ok(Some(file)) = open_plain(folder, &name) else {
            continue;
        };
        if spare(&file) {
            continue;
        }
        let Ok(Some(_lock)) = file.try_clone().and_then(sys::lock_exclusive) else {
            continue;
        };
        // Published or replaced by a living file since it was opened? From here on nobody else
        // can be its maker: the lock is held and the name is taken.
        if !folder.is_file(name.as_ref(), &file)? {
            continue;
        }
        match folder.remove(name.as_ref()) {
            Ok(()) => removed.push(name),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(removed)
}
