//! The keys of a history: who may open its images, and the secret by which they know each other.

use super::chunk::{TAG_LEN, aes};
use super::recipient::Recipient;
use super::secret::{Random, Secret};
use crate::base::{Digest, Error, ErrorKind, KeySetId, Result};
use ring::aead::{Aad, Nonce};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// The most keys of a set.
pub(super) const MAX_KEYS: usize = 32;
/// The longest name of a key, in characters.
const MAX_NAME: usize = 64;

/// The id that follows from `secret`: nobody without that can make a head that is taken for one of this
/// set.
pub(super) fn id_of(secret: &Secret) -> KeySetId {
    let all = Secret::derive("diskstrata key set 1", &[secret.bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&all.bytes()[..16]);
    KeySetId(id)
}

/// What opens an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// A password that somebody knows.
    Password,
    /// An age identity (X25519).
    Age,
    /// A private SSH key.
    Ssh,
    /// An age identity that was made to lie in a safe.
    Recovery,
}

impl KeyKind {
    /// The word for people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            KeyKind::Password => "password",
            KeyKind::Age => "age",
            KeyKind::Ssh => "ssh",
            KeyKind::Recovery => "recovery",
        }
    }
}

/// One key of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// What people call it.
    pub name: String,
    /// What it is.
    pub kind: KeyKind,
    /// Its public half, as age and SSH write it.
    pub recipient: String,
    /// Of a password: the private half, as an age file that the password opens. It lies in the plain
    /// part of a head.
    #[serde(skip)]
    pub(super) protected: Option<Vec<u8>>,
}

impl KeyEntry {
    /// A key called `name`.
    ///
    /// # Errors
    /// `Usage` when the name is empty, too long, or not fit to be shown.
    pub fn new(name: &str, kind: KeyKind, recipient: &Recipient) -> Result<KeyEntry> {
        let printable = !name.chars().any(crate::base::is_unprintable);
        if !(1..=MAX_NAME).contains(&name.chars().count()) || !printable {
            return Err(
                Error::new(ErrorKind::Usage, "call a key", format!("{name:?}")).because(format!(
                    "the name of a key has 1 to {MAX_NAME} printable characters"
                )),
            );
        }
        Ok(KeyEntry {
            name: name.to_owned(),
            kind,
            recipient: recipient.to_string(),
            protected: None,
        })
    }

    /// With the private half that a password opens.
    #[must_use]
    pub fn protected_by_password(mut self, protected: Vec<u8>) -> KeyEntry {
        self.protected = Some(protected);
        self
    }
}

/// The keys that open the images of a history, and the secret that all of them share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    secret: Secret,
    /// Grows with every change of the keys: the highest one is what counts.
    pub(super) version: u64,
    /// One or more.
    keys: Vec<KeyEntry>,
    /// What only somebody who knew the secret before this one could have written here.
    successor: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
struct ExportedSet {
    secret: String,
    version: u64,
    keys: Vec<Exported>,
    successor: Option<String>,
}

impl Drop for ExportedSet {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
struct Exported {
    #[serde(flatten)]
    entry: KeyEntry,
    protected: Option<String>,
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        let plain = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u8::from_str_radix(pair, 16).ok())?
    });
    pairs.collect()
}

/// The list of keys as it stands in a head.
#[derive(Serialize, Deserialize)]
struct List {
    version: u64,
    keys: Vec<KeyEntry>,
    /// In hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor: Option<String>,
}

impl KeySet {
    /// A new set with a secret of its own.
    ///
    /// # Errors
    /// As [`KeySet::with_keys`].
    pub fn new(keys: Vec<KeyEntry>, random: Random) -> Result<KeySet> {
        let fresh = KeySet {
            secret: Secret::random(random)?,
            version: 0,
            keys: Vec::new(),
            successor: None,
        };
        fresh.with_keys(keys)
    }

    /// The same set with other keys.
    ///
    /// # Errors
    /// `Usage` when there is none, when there are too many, or two are called alike.
    pub fn with_keys(&self, keys: Vec<KeyEntry>) -> Result<KeySet> {
        let bad = |why: String| Err(Error::new(ErrorKind::Usage, "use", "these keys").because(why));
        if keys.is_empty() {
            return bad("nobody could open the images".to_owned());
        }
        if keys.len() > MAX_KEYS {
            return bad(format!("{} are more than {MAX_KEYS}", keys.len()));
        }
        for (i, key) in keys.iter().enumerate() {
            if keys[..i].iter().any(|k| k.name == key.name) {
                return bad(format!("two of them are called {:?}", key.name));
            }
        }
        Ok(KeySet {
            secret: self.secret.clone(),
            version: self.version.saturating_add(1),
            keys,
            successor: self.successor,
        })
    }

    /// The same keys with a new secret: whoever knew the old one can make no head of this set.
    ///
    /// # Errors
    /// As `random`.
    pub fn rotated(&self, random: Random) -> Result<KeySet> {
        let secret = Secret::random(random)?;
        Ok(KeySet {
            version: self.version.saturating_add(1),
            keys: self.keys.clone(),
            successor: Some(self.names_successor(id_of(&secret))),
            secret,
        })
    }

    /// What only somebody who knows this set's secret can say of the set that takes its place.
    fn names_successor(&self, next: KeySetId) -> Digest {
        let context = "diskstrata successor of a key set 1";
        Digest::derive(context, &[self.secret.bytes(), &next.0])
    }

    /// Whether it took the place of `old`: somebody who knew the secret of that made it.
    pub fn succeeds(&self, old: &KeySet) -> bool {
        self.successor == Some(old.names_successor(self.id()))
    }

    /// What it is called.
    pub fn id(&self) -> KeySetId {
        id_of(&self.secret)
    }

    /// Grows with every change; of two lists of one history, the higher one counts.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Its keys.
    pub fn keys(&self) -> &[KeyEntry] {
        &self.keys
    }

    /// All of it as text, the secret included: for a machine that makes images it cannot read.
    pub fn export(&self) -> Zeroizing<String> {
        let keys = self.keys.iter().map(|key| Exported {
            entry: key.clone(),
            protected: key.protected.as_deref().map(to_hex),
        });
        let all = ExportedSet {
            secret: to_hex(self.secret.bytes()),
            version: self.version,
            keys: keys.collect(),
            successor: self.successor.map(|d| d.to_string()),
        };
        Zeroizing::new(serde_json::to_string(&all).unwrap_or_default())
    }

    /// What [`KeySet::export`] made; `None` when that is malformed.
    pub fn import(text: &str) -> Option<KeySet> {
        let all: ExportedSet = serde_json::from_str(text).ok()?;
        let key = |key: &Exported| {
            let mut entry = key.entry.clone();
            entry.protected = match &key.protected {
                Some(hex) => Some(from_hex(hex)?),
                None => None,
            };
            ((entry.kind == KeyKind::Password) == entry.protected.is_some()).then_some(entry)
        };
        let keys = all.keys.iter().map(key).collect::<Option<Vec<_>>>()?;
        let successor = match &all.successor {
            Some(text) => Some(Digest::parse(text)?),
            None => None,
        };
        (1..=MAX_KEYS).contains(&keys.len()).then_some(())?;
        Some(KeySet {
            secret: Secret::from_slice(&Zeroizing::new(from_hex(&all.secret)?))?,
            version: all.version,
            keys,
            successor,
        })
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The private halves that passwords open, in the order of their keys.
    pub(super) fn protected(&self) -> Vec<Vec<u8>> {
        self.keys
            .iter()
            .filter_map(|k| k.protected.clone())
            .collect()
    }

    /// The list for the head of the file with `file_key`.
    ///
    /// # Errors
    /// `Internal`.
    pub(super) fn encrypt_list(&self, file_key: &Secret, salt: &[u8; 16]) -> Result<Vec<u8>> {
        let failed = || Error::new(ErrorKind::Internal, "encrypt", "a list of keys");
        let list = List {
            version: self.version,
            keys: self.keys.clone(),
            successor: self.successor.map(|d| d.to_string()),
        };
        let mut bytes = serde_json::to_vec(&list).map_err(|e| failed().caused_by(e))?;
        let key = aes(&list_key(file_key, salt))?;
        key.seal_in_place_append_tag(only_nonce(), Aad::empty(), &mut bytes)
            .map_err(|_| failed())?;
        Ok(bytes)
    }

    /// The set with `secret` whose list stands in a head, beside the `protected` halves; `None` when it is
    /// not authentic or malformed.
    pub(super) fn decrypt_list(
        secret: Secret,
        file_key: &Secret,
        salt: &[u8; 16],
        list: &[u8],
        protected: &[Vec<u8>],
    ) -> Option<KeySet> {
        let key = aes(&list_key(file_key, salt)).ok()?;
        let mut bytes = list.to_vec();
        (bytes.len() >= TAG_LEN).then_some(())?;
        let plain = key
            .open_in_place(only_nonce(), Aad::empty(), &mut bytes)
            .ok()?;
        let list: List = serde_json::from_slice(plain).ok()?;
        let List {
            version,
            mut keys,
            successor,
        } = list;
        let successor = match successor {
            Some(text) => Some(Digest::parse(&text)?),
            None => None,
        };
        let mut halves = protected.iter();
        for key in keys.iter_mut().filter(|k| k.kind == KeyKind::Password) {
            key.protected = Some(halves.next()?.clone());
        }
        let all = halves.next().is_none() && (1..=MAX_KEYS).contains(&keys.len());
        all.then_some(KeySet {
            secret,
            version,
            keys,
            successor,
        })
    }
}

/// The key of a list. The salt is drawn anew for every list, so that a key encrypts one list alone.
fn list_key(file_key: &Secret, salt: &[u8; 16]) -> Secret {
    Secret::derive("diskstrata list of keys 1", &[file_key.bytes(), salt])
}

/// A key that is used once needs no other nonce.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
