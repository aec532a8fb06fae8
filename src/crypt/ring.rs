//! The keys that a run has, and what it has learned with them.

use super::earlier::{self, Earlier};
use super::head::Head;
use super::key_set::KeySet;
use super::recipient::{Identity, unprotect, unwrap};
use super::secret::{Passphrase, Secret};
use crate::base::{Error, ErrorKind, KeySetId, Result};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where keys come from: asked when the first file needs one, and never before.
pub trait KeySource: Send + Sync {
    /// The private keys that were named.
    ///
    /// # Errors
    /// `Usage` when one of them cannot be read.
    fn identities(&self) -> Result<Vec<Identity>>;

    /// The `attempt`th password, from 1, for `what`. `None` when there is no other one to be had.
    ///
    /// # Errors
    /// `Usage` when it cannot be read, `Interrupted`.
    fn password(&self, attempt: u32, what: &str) -> Result<Option<Passphrase>>;

    /// The key sets whose files may be opened; empty for any, and for files that are not encrypted too.
    fn accepted(&self) -> Vec<KeySetId> {
        Vec::new()
    }
}

/// No key at all.
pub struct NoKeys;

impl KeySource for NoKeys {
    fn identities(&self) -> Result<Vec<Identity>> {
        Ok(Vec::new())
    }

    fn password(&self, _: u32, _: &str) -> Result<Option<Passphrase>> {
        Ok(None)
    }
}

/// A file's own key, those of earlier runs, and the key set that it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) file_key: Secret,
    pub(super) earlier: Vec<Earlier>,
    pub(super) key_set: KeySet,
}

/// All keys of a run. Passwords are asked for once, however many files they open, by whichever thread
/// needs one first.
pub struct KeyRing {
    source: Box<dyn KeySource>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Whether the source was asked for identities.
    asked: bool,
    identities: Vec<Identity>,
    passwords: Vec<Passphrase>,
    attempts: u32,
    /// Protected halves that none of the passwords opened, and no other password is to be had.
    refused: HashSet<blake3::Hash>,
    /// Protected halves whose identity is among `identities`.
    opened: HashSet<blake3::Hash>,
    /// What this run has wrapped itself, by what that became.
    made: HashMap<blake3::Hash, (Secret, Secret)>,
}

impl KeyRing {
    /// The keys that `source` gives.
    pub fn new(source: impl KeySource + 'static) -> KeyRing {
        KeyRing {
            source: Box::new(source),
            known: Mutex::default(),
        }
    }

    /// Fails when only files of certain key sets may be opened: `name` is not encrypted.
    ///
    /// # Errors
    /// `Refused`.
    pub fn accept_plain(&self, name: &str) -> Result<()> {
        match self.source.accepted().as_slice() {
            [] => Ok(()),
            wanted => Err(refused(name, "it is not encrypted", wanted)),
        }
    }

    /// Remembers the keys of a file that this run makes: it can be read back, whoever else can read it.
    pub(super) fn remember(&self, head: &Head, file_key: &Secret, key_set: &KeySet) {
        let both = (file_key.clone(), key_set.secret().clone());
        let made = blake3::hash(&head.slot.wrapped);
        self.known().made.insert(made, both);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file with `head`, called `name` in messages.
    ///
    /// # Errors
    /// `WrongKey` when no key opens it, `Damaged` when its head was forged or damaged, `Refused` when it is
    /// of another key set than may be opened; as the source.
    pub(super) fn open(&self, head: &Head, name: &str) -> Result<Opened> {
        let accepted = self.source.accepted();
        if !accepted.is_empty() && !accepted.contains(&head.key_set()) {
            let why = format!("it is of the key set {}", head.key_set());
            return Err(refused(name, &why, &accepted));
        }
        let mut known = self.known();
        if !known.asked {
            known.identities.extend(self.source.identities()?);
            known.asked = true;
        }
        let (file_key, secret) = self.unwrap(&mut known, head, name)?;
        let damaged = || {
            Error::new(ErrorKind::Damaged, "open", name)
                .because(
                    "what says who may open it was changed by somebody who must not, or is damaged",
                )
                .hint("do not trust this file; bring it back from a copy")
        };
        if !head.is_authentic(&secret, &file_key) {
            return Err(damaged());
        }
        let slot = &head.slot;
        let earlier = earlier::decrypt(&slot.earlier, &file_key, &slot.salt).ok_or_else(damaged)?;
        let key_set =
            KeySet::decrypt_list(secret, &file_key, &slot.salt, &slot.list, &slot.protected)
                .ok_or_else(damaged)?;
        Ok(Opened {
            file_key,
            earlier,
            key_set,
        })
    }

    fn unwrap(&self, known: &mut Known, head: &Head, name: &str) -> Result<(Secret, Secret)> {
        let wrapped = &head.slot.wrapped;
        if let Some(both) = known.made.get(&blake3::hash(wrapped)) {
            return Ok(both.clone());
        }
        if let Some(both) = unwrap(wrapped, known.identities.iter()) {
            return Ok(both);
        }
        // A set may have several passwords, and other sets others: each is tried on each, once.
        let protected: Vec<(blake3::Hash, &Vec<u8>)> = head
            .slot
            .protected
            .iter()
            .map(|p| (blake3::hash(p), p))
            .filter(|(hash, _)| !known.opened.contains(hash) && !known.refused.contains(hash))
            .collect();
        for password in known.passwords.clone() {
            if known.try_password(&password, &protected)
                && let Some(both) = unwrap(wrapped, known.identities.iter())
            {
                return Ok(both);
            }
        }
        while !protected.is_empty() {
            let Some(password) = self.source.password(known.attempts + 1, name)? else {
                break;
            };
            known.attempts += 1;
            let right = known.try_password(&password, &protected);
            known.passwords.push(password);
            if right && let Some(both) = unwrap(wrapped, known.identities.iter()) {
                return Ok(both);
            }
        }
        known
            .refused
            .extend(protected.iter().map(|(hash, _)| *hash));
        Err(known.wrong_key(name))
    }
}

impl Known {
    /// Whether `password` opens one of `protected`, whose identity is known from now on.
    fn try_password(
        &mut self,
        password: &Passphrase,
        protected: &[(blake3::Hash, &Vec<u8>)],
    ) -> bool {
        for (hash, protected) in protected {
            if let Some(identity) = unprotect(protected, password) {
                self.identities.push(identity);
                self.opened.insert(*hash);
                return true;
            }
        }
        false
    }

    fn wrong_key(&self, name: &str) -> Error {
        let error = Error::new(ErrorKind::WrongKey, "open", name);
        if self.passwords.is_empty() && self.identities.is_empty() {
            return error
                .because("it is encrypted and no key was given")
                .hint(
                    "give the password (STRATA_PASSWORD, STRATA_PASSWORD_FILE, STRATA_PASSWORD_COMMAND, or \
                     at the terminal) or a private key with --identity FILE",
                );
        }
        error
            .because("it is encrypted and none of the given keys opens it")
            .hint("check the password, or name the right private key with --identity FILE")
    }
}

fn refused(name: &str, why: &str, wanted: &[KeySetId]) -> Error {
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    Error::new(ErrorKind::Refused, "open", name)
        .because(format!(
            "{why}, and only {} may be opened",
            wanted.join(", ")
        ))
        .hint("somebody may have put it there; without --key-set it would be opened")
}
