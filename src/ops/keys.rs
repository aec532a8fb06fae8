//! Who may open the images of a history: shown, added, removed, checked, made anew.
//!
//! Every image carries its keys. A change writes the head of one file after the other; interrupted, some
//! images have the old list and some the new one, which has a higher version and counts from then on:
//! the next change finishes what was begun.

use super::encryption::{
    KeyRecord, NewKeys, password_key, recipient_key, recipients, recovery_key,
};
use super::images::lock;
use super::{Context, random, stores};
use crate::base::{Error, ErrorKind, Event, Result};
use crate::chain::{Catalog, Image};
use crate::crypt::{KeyEntry, KeySet};
use crate::store::{EncryptedStore, LockMode};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Which history.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// The store's folder.
    pub store: PathBuf,
    /// Its name; may be left out where there is only one that is encrypted.
    pub set: Option<String>,
}

/// What is done to the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// These come.
    Add {
        /// What they are.
        keys: NewKeys,
        /// What it is called, when it is one; made up when absent.
        name: Option<String>,
    },
    /// The one of this name goes.
    Remove(String),
    /// The keys stay, the secret that they share is made anew.
    Rotate,
}

/// The keys of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    /// Name of the history.
    pub set: String,
    /// Id of its key set.
    pub key_set: String,
    /// Its keys.
    pub keys: Vec<KeyRecord>,
    /// How many images it has.
    pub images: usize,
    /// Files that carry an older list: a change of keys was interrupted.
    pub stale: Vec<String>,
    /// Files whose heads were written.
    pub changed: Vec<String>,
}

/// An image with its keys.
struct Keyed {
    image: Image,
    keys: Arc<KeySet>,
}

/// The images of one history and the list of keys that counts.
struct History {
    set: String,
    images: Vec<Keyed>,
    newest: Arc<KeySet>,
}

impl History {
    fn find(store: &EncryptedStore, request: &KeyRequest) -> Result<History> {
        let catalog = Catalog::load(store)?;
        if let Some(locked) = catalog.locked() {
            return Err(locked.clone());
        }
        let set = set_of(&catalog, request)?;
        let mut images = Vec::new();
        // Also files whose place another one has taken: they can be opened as well.
        let replaced = catalog.replaced.iter().filter(|i| i.info.set == set);
        for image in catalog.set(&set).iter().chain(replaced) {
            let Some(keys) = store.keys_of(&image.file)? else {
                let why = format!("{} is not encrypted", image.file);
                return Err(Error::new(ErrorKind::Refused, "handle the keys of", set).because(why));
            };
            images.push(Keyed {
                image: image.clone(),
                keys,
            });
        }
        let newest = images.iter().max_by_key(|i| i.keys.version());
        let Some(newest) = newest.map(|i| Arc::clone(&i.keys)) else {
            return Err(Error::new(ErrorKind::NotFound, "find set", set));
        };
        // A set that somebody planted must not be taken for the one that counts.
        let trusted = |k: &&Keyed| k.keys.id() == newest.id() || newest.succeeds(&k.keys);
        if let Some(other) = images.iter().find(|k| !trusted(k)) {
            let why = format!(
                "{} is of the key set {}, which does not belong to {}",
                other.image.file,
                other.keys.id(),
                newest.id()
            );
            return Err(Error::new(ErrorKind::Refused, "handle the keys of", set)
                .because(why)
                .hint("somebody may have put images there: name the key set that is yours with --key-set ID"));
        }
        Ok(History {
            set,
            images,
            newest,
        })
    }

    /// Whether every image has such a key.
    fn is_everywhere(&self, wanted: impl Fn(&KeyEntry) -> bool) -> bool {
        self.images
            .iter()
            .all(|i| i.keys.keys().iter().any(&wanted))
    }

    /// Whether an image has such a key.
    fn is_anywhere(&self, wanted: impl Fn(&KeyEntry) -> bool) -> bool {
        self.images
            .iter()
            .any(|i| i.keys.keys().iter().any(&wanted))
    }

    fn report(&self, changed: Vec<String>) -> KeyReport {
        let stale =
            |k: &&Keyed| *k.keys != *self.newest && !changed.contains(&k.image.file.to_string());
        KeyReport {
            set: self.set.clone(),
            key_set: self.newest.id().to_string(),
            keys: self.newest.keys().iter().map(KeyRecord::of).collect(),
            images: self.images.len(),
            stale: self
                .images
                .iter()
                .filter(stale)
                .map(|k| k.image.file.to_string())
                .collect(),
            changed,
        }
    }
}

/// The one encrypted history, or the one that was named.
fn set_of(catalog: &Catalog, request: &KeyRequest) -> Result<String> {
    if let Some(set) = &request.set {
        return match catalog.set(set) {
            [] => Err(Error::new(ErrorKind::NotFound, "find set", set)
                .because("the store has no such set")
                .hint("`strata list` shows the images of a store")),
            _ => Ok(set.clone()),
        };
    }
    let newest = catalog.newest_of_sets();
    let encrypted: Vec<&str> = newest
        .iter()
        .filter(|i| i.key_set.is_some())
        .map(|i| i.info.set.as_str())
        .collect();
    let what = "find the encrypted images of";
    let store = request.store.display().to_string();
    match encrypted.as_slice() {
        [set] => Ok((*set).to_owned()),
        [] => Err(Error::new(ErrorKind::NotFound, what, store)
            .because("it has none")
            .hint("`strata backup --encrypt` makes them")),
        many => Err(Error::new(ErrorKind::Usage, what, store)
            .because(format!("it has several sets: {}", many.join(", ")))
            .hint("say which with --set")),
    }
}

/// The keys of a history. Every image is opened: a key that is reported opens all of them.
///
/// # Errors
/// `WrongKey`, `NotFound`, `Usage`, `Damaged`.
pub fn list(context: &Context<'_>, request: &KeyRequest) -> Result<KeyReport> {
    list_in(&stores::open_encrypted(context, &request.store)?, request)
}

/// [`list`], in a store that is open.
///
/// # Errors
/// As [`list`].
pub fn list_in(store: &EncryptedStore, request: &KeyRequest) -> Result<KeyReport> {
    Ok(History::find(store, request)?.report(Vec::new()))
}

/// Changes the keys of a history. Only the heads of its files are written.
///
/// # Errors
/// As [`list`]; `Locked`, `Destination`, `Interrupted`, `Terminated`: some files may have been changed then,
/// and doing it again finishes it.
pub fn change(
    context: &Context<'_>,
    request: &KeyRequest,
    change: &KeyChange,
) -> Result<KeyReport> {
    let store = stores::open_encrypted(context, &request.store)?;
    change_in(context, &store, request, change)
}

/// [`change`], in a store that is open.
///
/// # Errors
/// As [`change`].
pub fn change_in(
    context: &Context<'_>,
    store: &EncryptedStore,
    request: &KeyRequest,
    change: &KeyChange,
) -> Result<KeyReport> {
    let _lock = lock(store, LockMode::Exclusive, "changing keys")?;
    let history = History::find(store, request)?;
    let give_all = |keys: &KeySet| {
        history.images.iter().try_for_each(|keyed| {
            context.cancel.check()?;
            store.change_keys(&keyed.image.file, keys)
        })
    };
    // What was begun is finished first, also when what is wanted now turns out to be done already.
    give_all(&history.newest)?;
    let wanted = match change {
        // The half-done rotation is the one that is wanted.
        KeyChange::Rotate if is_half_rotated(&history) => KeySet::clone(&history.newest),
        KeyChange::Rotate => history.newest.rotated(random)?,
        KeyChange::Add { keys, name } => added(context, &history, keys, name.as_deref())?,
        KeyChange::Remove(name) => removed(&history, name)?,
    };
    give_all(&wanted)?;
    let files = history.images.iter().map(|k| k.image.file.to_string());
    let changed = files.collect();
    if let KeyChange::Remove(name) = change {
        context.observer.event(Event::Warning(format!(
            "whoever had {name} and a copy of these images can still read that copy; only images made from \
             now on are out of reach. `strata key rotate` keeps them from adding images, too"
        )));
    }
    Ok(History::find(store, request)?.report(changed))
}

/// Whether some images have the newest secret and some another.
fn is_half_rotated(history: &History) -> bool {
    let newest = history.newest.id();
    history.images.iter().any(|k| k.keys.id() != newest)
}

/// The newest list with the keys that are wanted. One that is in it already and not yet on every image is
/// what an interrupted run added.
fn added(
    context: &Context<'_>,
    history: &History,
    wanted: &NewKeys,
    name: Option<&str>,
) -> Result<KeySet> {
    let keys = &history.newest;
    let mut unfinished = false;
    let mut all: Vec<KeyEntry> = keys.keys().to_vec();
    let before = all.len();
    if wanted.password {
        let password = context.key_options.another_password()?;
        let numbered = (2u32..).map(|n| format!("password-{n}"));
        let mut names = std::iter::once("password".to_owned()).chain(numbered);
        let free = names.find(|n| !all.iter().any(|k| k.name == *n));
        let name = name.map(str::to_owned).or(free);
        all.push(password_key(&name.unwrap_or_default(), &password)?);
    }
    for recipient in recipients(&wanted.recipients)? {
        let text = recipient.to_string();
        if let Some(same) = all.iter().find(|k| k.recipient == text) {
            if !history.is_everywhere(|k| k.recipient == text) {
                unfinished = true;
                continue;
            }
            return Err(Error::new(ErrorKind::Usage, "add", text)
                .because(format!("it is the key {:?} already", same.name)));
        }
        all.push(recipient_key(name, &recipient, &all)?);
    }
    if let Some(file) = &wanted.recovery {
        all.push(recovery_key(name.unwrap_or("recovery"), file)?);
    }
    if all.len() == before {
        if unfinished {
            return Ok(KeySet::clone(keys));
        }
        return Err(Error::new(ErrorKind::Usage, "add", "no key")
            .hint("say which: --password, --recipient KEY or --recovery-key FILE"));
    }
    keys.with_keys(all)
}

/// The newest list without the key `name`. One that is not in it, but still on some image, is what an
/// interrupted run removed.
fn removed(history: &History, name: &str) -> Result<KeySet> {
    let keys = &history.newest;
    let rest: Vec<KeyEntry> = keys
        .keys()
        .iter()
        .filter(|k| k.name != name)
        .cloned()
        .collect();
    if rest.len() == keys.keys().len() {
        if history.is_anywhere(|k| k.name == name) {
            return Ok(KeySet::clone(keys));
        }
        let names: Vec<&str> = keys.keys().iter().map(|k| k.name.as_str()).collect();
        return Err(
            Error::new(ErrorKind::NotFound, "find the key", format!("{name:?}"))
                .because(format!("there are: {}", names.join(", "))),
        );
    }
    keys.with_keys(rest)
}
