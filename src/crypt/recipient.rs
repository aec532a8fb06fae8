//! Public and private keys as people have them, and what the age format does with them: version 1 of
//! <https://age-encryption.org/v1>, X25519 recipients, SSH keys, and scrypt for passwords.

use super::key_set::{KeyKind, KeySet};
use super::secret::{Passphrase, Secret};
use crate::base::{Error, ErrorKind, Result};
use age::secrecy::ExposeSecret;
use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;
use zeroize::Zeroizing;

/// Work of scrypt for a new password: 2^17 rounds with 128 MiB, about half a second, and what a rescue
/// system with little memory can do too.
const WORK_LOG2: u8 = 17;
/// The most work that a file may ask for: 1 GiB.
const MAX_WORK_LOG2: u8 = 20;
/// The longest identity that is read, in bytes: an RSA key of 16384 bits has less.
const MAX_IDENTITY: usize = 64 << 10;

/// A public key: who is named so can open what is written for it.
pub struct Recipient {
    inner: Inner,
    text: String,
}

enum Inner {
    Age(age::x25519::Recipient),
    Ssh(age::ssh::Recipient),
}

impl Recipient {
    /// From `age1…`, or a line of `authorized_keys` with an `ssh-ed25519` or `ssh-rsa` key.
    ///
    /// # Errors
    /// `Usage` when it is neither.
    pub fn parse(text: &str) -> Result<Recipient> {
        let text = text.trim();
        if let Ok(recipient) = age::x25519::Recipient::from_str(text) {
            return Ok(Recipient {
                text: recipient.to_string(),
                inner: Inner::Age(recipient),
            });
        }
        // What stands behind the key is the owner's own words.
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        let key = words.join(" ");
        match age::ssh::Recipient::from_str(&key) {
            Ok(recipient) => Ok(Recipient {
                inner: Inner::Ssh(recipient),
                text: key,
            }),
            Err(_) => Err(Error::new(
                ErrorKind::Usage,
                "use the recipient",
                format!("{:?}", shortened(text)),
            )
            .because("it is no public key of age (age1…) or SSH (ssh-ed25519, ssh-rsa)")
            .hint("`age-keygen -y FILE` prints that of an age identity; that of an SSH key stands in its .pub file")),
        }
    }

    /// What a key with this public half is.
    pub fn kind(&self) -> KeyKind {
        match self.inner {
            Inner::Age(_) => KeyKind::Age,
            Inner::Ssh(_) => KeyKind::Ssh,
        }
    }

    fn as_age(&self) -> &dyn age::Recipient {
        match &self.inner {
            Inner::Age(recipient) => recipient,
            Inner::Ssh(recipient) => recipient,
        }
    }
}

/// Private keys typed where public ones belong must not be shown whole.
fn shortened(text: &str) -> String {
    let start: String = text.chars().take(8).collect();
    format!("{start}…")
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A private key.
pub struct Identity(Box<dyn age::Identity + Send + Sync>);

impl Identity {
    /// A new age identity: its text, which is the secret, and its public half.
    pub fn generate() -> (Passphrase, Recipient) {
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public();
        let public = Recipient {
            text: recipient.to_string(),
            inner: Inner::Age(recipient),
        };
        (identity.to_string(), public)
    }

    /// The public half of the age identity `text`; `None` when it is none.
    pub fn public_of(text: &str) -> Option<Recipient> {
        let recipient = age::x25519::Identity::from_str(text).ok()?.to_public();
        Some(Recipient {
            text: recipient.to_string(),
            inner: Inner::Age(recipient),
        })
    }

    /// Those in `text`: a file of age identities, or a private SSH key. One that is protected by a password
    /// asks for it through `password`, once it is needed.
    ///
    /// # Errors
    /// `Usage` when there is none, or one that this program cannot use; `name` is what it is called.
    pub fn parse(
        text: &str,
        name: &str,
        password: impl Fn(&str) -> Option<Passphrase> + Clone + Send + Sync + 'static,
    ) -> Result<Vec<Identity>> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Usage, "use the identity", name)
                .because(why)
                .hint("an identity is a file made by `age-keygen` or a private SSH key (ed25519, RSA)")
        };
        if text.len() > MAX_IDENTITY {
            return Err(bad("it is too long"));
        }
        if text.trim_start().starts_with("-----BEGIN") {
            let key = age::ssh::Identity::from_buffer(text.as_bytes(), Some(name.to_owned()))
                .map_err(|_| bad("it is no private SSH key"))?;
            return match key {
                age::ssh::Identity::Unsupported(_) => {
                    Err(bad("SSH keys of this kind cannot decrypt"))
                }
                key => {
                    let key = key.with_callbacks(Asking(password));
                    Ok(vec![Identity(Box::new(key))])
                }
            };
        }
        let lines = text.lines().map(str::trim);
        let secrets: Vec<&str> = lines
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
            .collect();
        if secrets.is_empty() {
            return Err(bad("it holds no key"));
        }
        let parsed = secrets.into_iter().map(Identity::from_line);
        parsed
            .collect::<Option<_>>()
            .ok_or_else(|| bad("it has a line that is no age identity (AGE-SECRET-KEY-1…)"))
    }

    fn from_line(line: &str) -> Option<Identity> {
        let identity = age::x25519::Identity::from_str(line).ok()?;
        Some(Identity(Box::new(identity)))
    }

    fn as_age(&self) -> &dyn age::Identity {
        self.0.as_ref()
    }
}

/// Asks for the password of an SSH key.
#[derive(Clone)]
struct Asking<F>(F);

impl<F: Fn(&str) -> Option<Passphrase> + Clone + Send + Sync + 'static> age::Callbacks
    for Asking<F>
{
    fn display_message(&self, _: &str) {}

    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }

    fn request_public_string(&self, _: &str) -> Option<String> {
        None
    }

    fn request_passphrase(&self, description: &str) -> Option<Passphrase> {
        (self.0)(description)
    }
}

/// `identity` as an age file that `password` opens.
///
/// # Errors
/// `Internal`.
pub fn protect_identity(identity: &Passphrase, password: &Passphrase) -> Result<Vec<u8>> {
    protect_with(identity, password, WORK_LOG2)
}

/// [`protect_identity`] with other work than is good.
///
/// # Errors
/// `Internal`.
pub(super) fn protect_with(
    identity: &Passphrase,
    password: &Passphrase,
    work_log2: u8,
) -> Result<Vec<u8>> {
    let mut recipient = age::scrypt::Recipient::new(password.clone());
    recipient.set_work_factor(work_log2);
    encrypt(&[&recipient], identity.expose_secret().as_bytes())
}

/// The identity that `password` opens; `None` when it is another password's, or the file is damaged.
pub(super) fn unprotect(protected: &[u8], password: &Passphrase) -> Option<Identity> {
    let mut identity = age::scrypt::Identity::new(password.clone());
    identity.set_max_work_factor(MAX_WORK_LOG2);
    let text = decrypt(protected, &[&identity])?;
    Identity::from_line(std::str::from_utf8(&text).ok()?)
}

/// The key of a file and the secret of its key set, for every key of the set.
///
/// # Errors
/// `Usage` when one of the recipients cannot be used.
pub(super) fn wrap(key_set: &KeySet, file_key: &Secret) -> Result<Vec<u8>> {
    let keys = key_set.keys().iter();
    let recipients: Vec<Recipient> = keys
        .map(|key| Recipient::parse(&key.recipient))
        .collect::<Result<_>>()?;
    let recipients: Vec<&dyn age::Recipient> = recipients.iter().map(Recipient::as_age).collect();
    let mut both = Zeroizing::new(file_key.bytes().to_vec());
    both.extend_from_slice(key_set.secret().bytes());
    encrypt(&recipients, &both)
}

/// What [`wrap`] wrapped: the key of the file and the secret of the key set; `None` when none of
/// `identities` opens it.
pub(super) fn unwrap<'a>(
    wrapped: &[u8],
    identities: impl Iterator<Item = &'a Identity>,
) -> Option<(Secret, Secret)> {
    let identities: Vec<&dyn age::Identity> = identities.map(Identity::as_age).collect();
    let both = decrypt(wrapped, &identities)?;
    let (file_key, key_set) = both.split_at_checked(Secret::LEN)?;
    Some((Secret::from_slice(file_key)?, Secret::from_slice(key_set)?))
}

fn encrypt(recipients: &[&dyn age::Recipient], plain: &[u8]) -> Result<Vec<u8>> {
    let failed = || Error::new(ErrorKind::Internal, "encrypt", "a key");
    let encryptor = age::Encryptor::with_recipients(recipients.iter().copied())
        .map_err(|e| failed().because(e.to_string()))?;
    let mut out = Vec::new();
    let mut writer = encryptor
        .wrap_output(&mut out)
        .map_err(|e| failed().caused_by(e))?;
    let written = writer.write_all(plain).and_then(|()| writer.finish());
    written.map_err(|e| failed().caused_by(e))?;
    Ok(out)
}

fn decrypt(file: &[u8], identities: &[&dyn age::Identity]) -> Option<Zeroizing<Vec<u8>>> {
    let decryptor = age::Decryptor::new_buffered(file).ok()?;
    let reader = decryptor.decrypt(identities.iter().copied()).ok()?;
    // What is wrapped is short; a file that says otherwise is not ours. Nothing grows, so that no copy is
    // left where it was too short.
    let mut plain = Zeroizing::new(Vec::with_capacity(MAX_PLAIN));
    let limit = u64::try_from(MAX_PLAIN).unwrap_or(0);
    reader.take(limit).read_to_end(&mut plain).ok()?;
    Some(plain)
}

/// The most that is decrypted out of an age file, in bytes: two secrets, or an identity of 74 letters.
const MAX_PLAIN: usize = 256;
