//! With which keys a new image is encrypted.

use super::backup::BackupRequest;
use super::copy::CopyRequest;
use super::secrets::KeyOptions;
use super::{Context, random};
use crate::base::{Error, ErrorKind, Result};
use crate::chain::{Catalog, Image};
use crate::crypt::{Identity, KeyEntry, KeyKind, KeySet, Passphrase, Recipient, protect_identity};
use crate::store::Store;
use crate::sys::Folder;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The keys that a person wants for a new history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewKeys {
    /// A password.
    pub password: bool,
    /// Public keys, or files that hold some, one a line.
    pub recipients: Vec<String>,
    /// A new file for a private key that is made for a safe.
    pub recovery: Option<PathBuf>,
}

impl NewKeys {
    /// Whether none was asked for.
    pub fn is_empty(&self) -> bool {
        *self == NewKeys::default()
    }
}

impl NewKeys {
    /// Whether `keys`, which were opened with what is at hand, are these, and were made by somebody who knew more than
    /// public keys.
    fn are_those_of(&self, options: &KeyOptions, keys: &KeySet) -> Result<bool> {
        let of_kind = |kinds: &[KeyKind]| -> BTreeSet<String> {
            let keys = keys.keys().iter().filter(|k| kinds.contains(&k.kind));
            keys.map(|k| k.recipient.clone()).collect()
        };
        let public: BTreeSet<String> = recipients(&self.recipients)?
            .iter()
            .map(ToString::to_string)
            .collect();
        // A recovery key that exists was made for the run before.
        let recovery = self.recovery.as_deref().map(public_of_recovery_key);
        let recovery: BTreeSet<String> = match recovery {
            Some(Some(public)) => [public].into(),
            Some(None) => return Ok(false),
            None => BTreeSet::new(),
        };
        let passwords = of_kind(&[KeyKind::Password]).len();
        Ok(of_kind(&[KeyKind::Age, KeyKind::Ssh]) == public
            && of_kind(&[KeyKind::Recovery]) == recovery
            && passwords == usize::from(self.password)
            && (self.password || !recovery.is_empty())
            && (!self.password || options.opens_with_new_password()?))
    }
}

/// No file with a recovery key is as long, in bytes.
const MAX_KEY_FILE: u64 = 64 << 10;

/// The public half of the private key in the file `path`; `None` when there is none to be read.
fn public_of_recovery_key(path: &Path) -> Option<String> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_KEY_FILE).read_to_string(&mut text).ok()?;
    let mut lines = text.lines().map(str::trim);
    let public = lines.find_map(Identity::public_of)?;
    Some(public.to_string())
}

/// A key as it is shown: nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// What people call it.
    pub name: String,
    /// `password`, `age`, `ssh` or `recovery`.
    pub kind: &'static str,
    /// Its public half.
    pub recipient: String,
}

impl KeyRecord {
    pub(super) fn of(key: &KeyEntry) -> KeyRecord {
        KeyRecord {
            name: key.name.clone(),
            kind: key.kind.name(),
            recipient: key.recipient.clone(),
        }
    }
}

/// How a new image is protected.
pub(super) enum Protection {
    /// Anybody can read it.
    None,
    /// Like the images before it.
    Kept(Arc<KeySet>),
    /// Like the images before it, which cannot be read here.
    Blind(Arc<KeySet>),
    /// By keys that are made when it is begun.
    New(NewKeys),
}

impl Protection {
    /// Settles that for the next image behind `images`, the newest of which is the last.
    ///
    /// # Errors
    /// `WrongKey` when there are images that no key at hand opens, and nobody said how this one is to be
    /// protected; `Usage` when the images before it are protected in another way; `Refused`.
    pub(super) fn settle(
        context: &Context<'_>,
        request: &BackupRequest,
        catalog: Option<&Catalog>,
        images: &[Image],
        store: Option<&Arc<dyn Store>>,
    ) -> Result<Protection> {
        if let Some(catalog) = catalog {
            // Of all sets: what was planted may hide which is this disk's.
            catalog.check_keys()?;
        }
        let mut asked = request.encrypt.clone();
        let is_new = images.is_empty() || store.is_none();
        if is_new && asked.is_empty() && !request.no_encrypt {
            // Who names a password expects it to be used.
            asked.password = context.key_options.names_password()?;
            if !asked.password && context.key_options.names_identity() {
                return Err(Error::new(ErrorKind::Usage, "begin", "a new set")
                    .because("a private key is named, and not how the set is to be encrypted")
                    .hint("add --recipient with its public half, or --no-encrypt"));
            }
        }
        let asked = &asked;
        let (Some(newest), Some(store)) = (images.last(), store) else {
            return match catalog.and_then(Catalog::locked) {
                // Whoever forgets the password must not get an image that anybody can read.
                Some(locked) if asked.is_empty() && !request.no_encrypt => Err(locked.clone()),
                _ if asked.is_empty() => Ok(Protection::None),
                _ => Ok(Protection::New(asked.clone())),
            };
        };
        let set = format!("the set {}", newest.info.set);
        let keys = store.form_of(&newest.file)?.keys;
        match keys {
            Some(_) if request.no_encrypt => Err(Error::new(ErrorKind::Usage, "not encrypt", set)
                .because("its images are encrypted")
                .hint("name another set with --set")),
            Some(keys) => {
                check_recipients(asked, &keys, &set)?;
                Ok(Protection::Kept(keys))
            }
            None if asked.is_empty() => Ok(Protection::None),
            None => Err(Error::new(ErrorKind::Usage, "encrypt", set)
                .because("its images are not encrypted so far")
                .hint(
                    "begin another set with --set NAME, or encrypt these images with `strata copy \
                     --encrypt`",
                )),
        }
    }

    /// The keys themselves; new ones are made, and a recovery key is written into its file.
    ///
    /// # Errors
    /// As [`make`].
    pub(super) fn keys(self, context: &Context<'_>) -> Result<Option<Arc<KeySet>>> {
        match self {
            Protection::None => Ok(None),
            Protection::Kept(keys) | Protection::Blind(keys) => Ok(Some(keys)),
            Protection::New(wanted) => Ok(Some(Arc::new(make(&context.key_options, &wanted)?))),
        }
    }

    /// Whether the image may be what was begun with the keys `begun`, which were opened here. Keys that were made for it
    /// have to be the ones that are asked for now, and it has to be sure who made them: whoever knows nothing but
    /// public keys can begin an image too.
    ///
    /// # Errors
    /// `Usage` when the recipients or the password that were named cannot be read.
    pub(super) fn goes_on_with(
        &self,
        context: &Context<'_>,
        begun: Option<&KeySet>,
    ) -> Result<bool> {
        Ok(match (self, begun) {
            (Protection::None, None) => true,
            (Protection::Kept(keys), Some(begun)) => keys.as_ref() == begun,
            (Protection::New(wanted), Some(begun)) => {
                wanted.are_those_of(&context.key_options, begun)?
            }
            (Protection::None | Protection::Kept(_) | Protection::Blind(_), _) => false,
            (Protection::New(_), None) => false,
        })
    }

    /// Whether the image will be encrypted.
    pub(super) fn is_some(&self) -> bool {
        !matches!(self, Protection::None)
    }

    /// Whether this machine will not be able to read the image, so that the next one needs other help.
    pub(super) fn is_blind(&self, context: &Context<'_>) -> bool {
        match self {
            Protection::None | Protection::Kept(_) => false,
            Protection::Blind(_) => true,
            Protection::New(wanted) => !wanted.password && !context.key_options.names_identity(),
        }
    }

    /// For a plan: the keys, as far as they are known.
    pub(super) fn records(&self) -> Option<Vec<KeyRecord>> {
        match self {
            Protection::None => None,
            Protection::Kept(keys) | Protection::Blind(keys) => {
                Some(keys.keys().iter().map(KeyRecord::of).collect())
            }
            Protection::New(_) => Some(Vec::new()),
        }
    }
}

/// How the copy of an image is protected.
#[derive(Debug, Clone)]
pub(super) enum CopyKeys {
    /// Anybody can read it.
    None,
    /// With these keys: those of the image, or of the set in the other store.
    Of(Arc<KeySet>),
    /// With keys that are made for the copies.
    New,
}

impl CopyKeys {
    /// Settles that for a copy of `image`, which is in the store `from`. `there` is the other store and what it
    /// holds, if there is one already.
    ///
    /// # Errors
    /// `Usage` when the set is there already and protected in another way; as [`Store::form_of`].
    pub(super) fn settle(
        request: &CopyRequest,
        from: &Arc<dyn Store>,
        image: &Image,
        there: Option<(&Arc<dyn Store>, &Catalog)>,
    ) -> Result<CopyKeys> {
        let (asked, set) = (&request.encrypt, &image.info.set);
        if let Some((store, catalog)) = there {
            catalog.check_keys_of(set)?;
            if let Some(newest) = catalog.set(set).last() {
                let keys = store.form_of(&newest.file)?.keys;
                let to = format!("the set {set} in {}", store.name());
                return match keys {
                    Some(_) if request.no_encrypt => {
                        Err(Error::new(ErrorKind::Usage, "not encrypt", to)
                            .because("its images there are encrypted")
                            .hint("use another store"))
                    }
                    Some(keys) => {
                        check_recipients(asked, &keys, &to)?;
                        Ok(CopyKeys::Of(keys))
                    }
                    None if asked.is_empty() && (image.key_set.is_none() || request.no_encrypt) => {
                        Ok(CopyKeys::None)
                    }
                    None => Err(Error::new(ErrorKind::Usage, "encrypt", to)
                        .because("its images there are not encrypted")
                        .hint("use another store, or say --no-encrypt")),
                };
            }
        }
        if !asked.is_empty() {
            return Ok(CopyKeys::New);
        }
        let own = match (image.key_set, request.no_encrypt) {
            (Some(_), false) => from.form_of(&image.file)?.keys,
            _ => None,
        };
        Ok(own.map_or(CopyKeys::None, CopyKeys::Of))
    }

    /// Whether the copy is encrypted.
    pub(super) fn is_some(&self) -> bool {
        !matches!(self, CopyKeys::None)
    }
}

/// The keys that are made for the copies of one run, when the first one needs them.
pub(super) struct NewKeySet<'a> {
    options: &'a KeyOptions,
    wanted: &'a NewKeys,
    made: Option<Arc<KeySet>>,
}

impl<'a> NewKeySet<'a> {
    /// The `wanted` ones.
    pub(super) fn new(context: &'a Context<'_>, wanted: &'a NewKeys) -> NewKeySet<'a> {
        NewKeySet {
            options: &context.key_options,
            wanted,
            made: None,
        }
    }

    /// The keys that `keys` are.
    ///
    /// # Errors
    /// As [`make`].
    pub(super) fn of(&mut self, keys: &CopyKeys) -> Result<Option<Arc<KeySet>>> {
        match keys {
            CopyKeys::None => Ok(None),
            CopyKeys::Of(keys) => Ok(Some(Arc::clone(keys))),
            CopyKeys::New => {
                let made = match self.made.take() {
                    Some(made) => made,
                    None => Arc::new(make_beside(self.options, self.wanted)?),
                };
                self.made = Some(Arc::clone(&made));
                Ok(Some(made))
            }
        }
    }
}

/// Recipients that are named beside an existing set must be among its keys: silently leaving them out
/// would lock somebody out.
pub(super) fn check_recipients(asked: &NewKeys, keys: &KeySet, set: &str) -> Result<()> {
    let bad = |why: String| {
        Err(Error::new(ErrorKind::Usage, "change the keys of", set)
            .because(why)
            .hint("`strata key add` adds keys to a set that exists"))
    };
    for recipient in recipients(&asked.recipients)? {
        let text = recipient.to_string();
        if !keys.keys().iter().any(|k| k.recipient == text) {
            return bad(format!("{text} is not one of them"));
        }
    }
    if asked.recovery.is_some() {
        return bad("a recovery key can only be made for a new set this way".to_owned());
    }
    Ok(())
}

/// A new key set with `wanted` keys.
///
/// # Errors
/// `Usage` when there are none or one cannot be used; `Destination` when the recovery key cannot be
/// written.
fn make(options: &KeyOptions, wanted: &NewKeys) -> Result<KeySet> {
    made_with(wanted, || options.new_password())
}

/// [`make`], where the named password opens other images.
fn make_beside(options: &KeyOptions, wanted: &NewKeys) -> Result<KeySet> {
    made_with(wanted, || options.another_password())
}

fn made_with(wanted: &NewKeys, password: impl FnOnce() -> Result<Passphrase>) -> Result<KeySet> {
    super::secrets::guard_memory();
    let mut keys: Vec<KeyEntry> = Vec::new();
    if wanted.password {
        keys.push(password_key("password", &password()?)?);
    }
    for recipient in recipients(&wanted.recipients)? {
        keys.push(recipient_key(None, &recipient, &keys)?);
    }
    if let Some(file) = &wanted.recovery {
        keys.push(recovery_key("recovery", file)?);
    }
    KeySet::new(keys, random)
}

/// A key that `password` opens.
///
/// # Errors
/// `Usage` for a bad name.
pub(super) fn password_key(name: &str, password: &Passphrase) -> Result<KeyEntry> {
    let (identity, public) = Identity::generate();
    let protected = protect_identity(&identity, password)?;
    let key = KeyEntry::new(name, KeyKind::Password, &public)?;
    Ok(key.protected_by_password(protected))
}

/// A key for `recipient`, called `name`, or `age-1` or `ssh-1` with a number that none of `others` has.
///
/// # Errors
/// `Usage` for a bad name.
pub(super) fn recipient_key(
    name: Option<&str>,
    recipient: &Recipient,
    others: &[KeyEntry],
) -> Result<KeyEntry> {
    let kind = recipient.kind();
    let numbered = (1u32..).map(|n| format!("{}-{n}", kind.name()));
    let mut free = numbered.filter(|name| !others.iter().any(|k| k.name == *name));
    let name = name.map(str::to_owned).or_else(|| free.next());
    KeyEntry::new(&name.unwrap_or_default(), kind, recipient)
}

/// A key whose private half is written into the new file `path`, which only its owner can read.
///
/// # Errors
/// `Destination`, also when the file exists.
pub(super) fn recovery_key(name: &str, path: &Path) -> Result<KeyEntry> {
    use age::secrecy::ExposeSecret;
    let (identity, public) = Identity::generate();
    let failed = |e| {
        Error::new(
            ErrorKind::Destination,
            "write the recovery key",
            path.display().to_string(),
        )
        .caused_by(e)
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let text = zeroize::Zeroizing::new(format!(
        "# Recovery key of strata images: keep it in a safe, not beside them.\n\
         # Use it with --identity FILE. Public half: {public}\n{}\n",
        identity.expose_secret()
    ));
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    // The image may be the first thing that needs it: the name must last as long as the content.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = Folder::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync().map_err(failed)?;
    KeyEntry::new(name, KeyKind::Recovery, &public)
}

/// The public keys that `named` are, or that stand in the files it names.
///
/// # Errors
/// `Usage` when one is neither.
pub(super) fn recipients(named: &[String]) -> Result<Vec<Recipient>> {
    let mut all = Vec::new();
    for text in named {
        let path = Path::new(text);
        if !path.is_file() {
            all.push(Recipient::parse(text)?);
            continue;
        }
        let bad = |e| Error::new(ErrorKind::Usage, "read the recipients in", text).caused_by(e);
        let content = std::fs::read_to_string(path).map_err(bad)?;
        let lines = content.lines().map(str::trim);
        for line in lines.filter(|l| !l.is_empty() && !l.starts_with('#')) {
            all.push(Recipient::parse(line)?);
        }
    }
    Ok(all)
}
