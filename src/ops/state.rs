//! What a machine keeps that makes increments of images which it cannot read.
//!
//! Beside the public keys it needs to know what its last image held, and the secret by which the images of
//! a set know each other. Both lie in a folder of this machine: `ID.key`, with the secret and a private key
//! that opens nothing but the other file; `ID-NUMBER.state`, encrypted with that key, the table of the
//! newest image. Neither holds any content. Without the key file, the state tells nothing; whoever has both
//! can find out whether a block had a content that he knows already, and can add images, but read none.

use super::place::{differs, label, label_and_number};
use super::random;
use crate::base::{Digest, Error, ErrorKind, Result, to_usize};
use crate::crypt::{Identity, KeyEntry, KeyKind, KeyRing, KeySet, KeySource, Passphrase};
use crate::device::DiskIdentity;
use crate::image::{Header, SourceInfo, TableCopy, TableCopyWriter, Told};
use crate::store::{EncryptedStore, FileName, Form, LocalStore, Store, Upload, write_error};
use crate::sys;
use age::secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;
use zeroize::Zeroizing;

const KEY_SUFFIX: &str = ".key";
const STATE_SUFFIX: &str = ".state";
/// The longest key file that is read, in bytes.
const MAX_KEY_FILE: u64 = 1 << 20;

/// The folder for state: `STRATA_STATE`, else where the system keeps such things.
pub(super) fn folder() -> Option<PathBuf> {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    if let Some(folder) = set("STRATA_STATE") {
        return Some(folder);
    }
    if sys::effective_uid() == 0 {
        return Some(PathBuf::from("/var/lib/diskstrata"));
    }
    let home = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(home.join("diskstrata"))
}

/// The folder for state, which is made if need be.
///
/// # Errors
/// `Destination`.
pub(super) fn made_folder() -> Result<LocalStore> {
    let folder = folder().ok_or_else(|| {
        Error::new(ErrorKind::Destination, "find", "a folder for state")
            .hint("name one with STRATA_STATE")
    })?;
    let parent = folder.parent().map(std::fs::create_dir_all).transpose();
    parent.map_err(|e| {
        Error::new(ErrorKind::Destination, "make", folder.display().to_string()).caused_by(e)
    })?;
    LocalStore::create(&folder)
}

/// A key file.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    set: String,
    set_id: Uuid,
    source: SourceInfo,
    /// The key set of the images, secret included.
    keys: String,
    /// The private key of the state.
    identity: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.keys.zeroize();
        self.identity.zeroize();
    }
}

/// What was kept of a history whose images cannot be read here.
pub(super) struct Kept {
    /// Its name.
    pub(super) set: String,
    /// Its id.
    pub(super) set_id: Uuid,
    /// The keys of its images.
    pub(super) keys: Arc<KeySet>,
    /// The table of its newest image, unless that is lost, or why.
    pub(super) table: std::result::Result<TableCopy, String>,
    /// The place of the next image.
    pub(super) sequence: u32,
}

/// The private key of a state.
struct Own(Zeroizing<String>);

impl KeySource for Own {
    fn identities(&self) -> Result<Vec<Identity>> {
        Identity::parse(&self.0, "the key of the state", |_| None)
    }

    fn password(&self, _: u32, _: &str) -> Result<Option<Passphrase>> {
        Ok(None)
    }
}

/// The state folder as a store whose files `identity` opens.
fn opened(local: LocalStore, identity: &str) -> EncryptedStore {
    let ring = KeyRing::new(Own(Zeroizing::new(identity.to_owned())));
    EncryptedStore::new(Arc::new(local), Arc::new(ring), random)
}

fn key_name(set_id: Uuid) -> Result<FileName> {
    FileName::new(format!("{}{KEY_SUFFIX}", set_id.simple()))
}

fn state_name(set_id: Uuid, sequence: u32) -> Result<FileName> {
    FileName::new(format!("{}-{sequence:010}{STATE_SUFFIX}", set_id.simple()))
}

/// What was kept of the history called `set`, or else of the one of `disk`, whose images lie in `store`.
///
/// # Errors
/// `Damaged`, `Destination` when the folder for state cannot be read.
pub(super) fn find(
    set: Option<&str>,
    disk: &DiskIdentity,
    store: &dyn Store,
) -> Result<Option<Kept>> {
    let Some(local) = folder().filter(|f| f.is_dir()) else {
        return Ok(None);
    };
    let local = LocalStore::open(&local)?;
    for entry in local.list()? {
        if !entry.name.as_str().ends_with(KEY_SUFFIX) {
            continue;
        }
        let file = read_key_file(&local, &entry.name)?;
        let meant = match set {
            Some(set) => file.set == set,
            None => differs(&file.source, disk, false).is_none(),
        };
        if !meant {
            continue;
        }
        // The same disk may have histories in other stores.
        if let Some(newest) = newest_in(store, &file.set, file.set_id)? {
            return kept(&file, local, store, &newest).map(Some);
        }
    }
    Ok(None)
}

fn read_key_file(local: &LocalStore, name: &FileName) -> Result<KeyFile> {
    super::secrets::guard_memory();
    let file = local.open(name)?;
    let bad = || Error::new(ErrorKind::Damaged, "read", file.name()).because("it is no key file");
    if file.len() > MAX_KEY_FILE {
        return Err(bad());
    }
    let mut bytes = Zeroizing::new(vec![0; to_usize(file.len())]);
    file.read_at(0, &mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|_| bad())
}

fn kept(
    file: &KeyFile,
    local: LocalStore,
    store: &dyn Store,
    (in_store, newest): &(u32, FileName),
) -> Result<Kept> {
    let bad =
        || Error::new(ErrorKind::Damaged, "use", "the kept keys").because("they are malformed");
    let keys = KeySet::import(&file.keys).ok_or_else(bad)?;
    let own = format!("{}-", file.set_id.simple());
    let newest_state = local
        .list()?
        .into_iter()
        .map(|e| e.name)
        .rfind(|n| n.as_str().starts_with(&own) && n.as_str().ends_with(STATE_SUFFIX));
    let table = newest_state
        .ok_or_else(|| "nothing is known of its newest image here".to_owned())
        .and_then(|name| {
            let state = opened(local, &file.identity);
            let input = state.open(&name).and_then(TableCopy::open);
            input.map_err(|e| format!("what is known of its newest image is damaged: {e}"))
        })
        .and_then(|table| match table.of().sequence {
            known if known == *in_store => Ok(table),
            known => Err(format!(
                "its newest image is number {known} here, and number {in_store} in the store"
            )),
        })
        .and_then(|table| match store.print_of(newest) {
            Ok(print) if print == table.file() => Ok(table),
            // It may be the same image, merged, or another one of that number: nobody here can tell.
            Ok(_) => Err(format!("{newest} is another file than the one made here")),
            Err(e) => Err(e.to_string()),
        });
    let known = table.as_ref().map_or(0, |t| t.of().sequence);
    Ok(Kept {
        set: file.set.clone(),
        set_id: file.set_id,
        keys: Arc::new(keys),
        table,
        sequence: known.max(*in_store).saturating_add(1),
    })
}

/// The file with the highest number in its name, and that number: the images of the history cannot be read.
fn newest_in(store: &dyn Store, set: &str, set_id: Uuid) -> Result<Option<(u32, FileName)>> {
    let own = label(set, set_id, true);
    let number = |name: &FileName| {
        let (label, number) = label_and_number(name.as_str())?;
        (label == own).then_some(number)
    };
    let names = store.list()?.into_iter().map(|e| e.name);
    let numbered = names.filter_map(|name| Some((number(&name)?, name)));
    Ok(numbered.max())
}

/// Writes down what the next image has to know of the one that is being made.
pub(super) struct Keeper {
    folder: LocalStore,
    file: KeyFile,
    copy: Arc<Mutex<Copying>>,
}

enum Copying {
    Open(Box<TableCopyWriter<Box<dyn Upload>>>),
    Failed(Error),
    Done,
}

impl Keeper {
    /// Begins that for the image with `header`, of the set called `set`, whose keys are `keys`.
    ///
    /// # Errors
    /// `Destination` when there is no folder for it, or it cannot be written.
    pub(super) fn begin(
        header: &Header,
        set: &str,
        source: &SourceInfo,
        keys: &KeySet,
    ) -> Result<Keeper> {
        let folder = made_folder()?;
        let local = folder.clone();
        let name = key_name(header.set)?;
        let exists = local.list()?.iter().any(|e| e.name == name);
        let file = if exists {
            read_key_file(&local, &name)?
        } else {
            let (identity, _) = Identity::generate();
            let file = KeyFile {
                set: set.to_owned(),
                set_id: header.set,
                source: source.clone(),
                keys: keys.export().to_string(),
                identity: identity.expose_secret().to_owned(),
            };
            write_key_file(&local, &name, &file)?;
            file
        };
        let store = opened(local, &file.identity);
        let form = Form {
            part_len: None,
            keys: Some(Arc::new(own_keys(&file.identity)?)),
        };
        let name = state_name(header.set, header.sequence)?;
        // Left by a run whose image was never published.
        match store.remove(&name) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let upload = store.create_as(&name, &form)?;
        let copy =
            TableCopyWriter::start(upload, header).map_err(|e| write_error(name.as_str(), e))?;
        Ok(Keeper {
            folder,
            file,
            copy: Arc::new(Mutex::new(Copying::Open(Box::new(copy)))),
        })
    }

    /// Is told of every block that is written.
    pub(super) fn listener(&self) -> impl FnMut(Told<'_>) + Send + 'static {
        let copy = Arc::clone(&self.copy);
        move |told| {
            let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
            let Copying::Open(writer) = &mut *copy else {
                return;
            };
            let written = match told {
                Told::Run(state, since, count) => writer.push_run(state, since, count),
                Told::Blocks(blocks) => writer.push_blocks(blocks),
            };
            if let Err(e) = written {
                *copy = Copying::Failed(write_error("the state", e));
            }
        }
    }

    /// Keeps it, now that the image is published as `name` in `store` with the root digest `root`, and forgets
    /// what older ones held.
    ///
    /// # Errors
    /// `Destination`, `Damaged`: the next image will be a full one.
    pub(super) fn keep(
        self,
        header: &Header,
        root: Digest,
        store: &dyn Store,
        name: &FileName,
    ) -> Result<()> {
        let copy = {
            let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *copy, Copying::Done)
        };
        match copy {
            Copying::Open(writer) => {
                let upload = writer
                    .finish(root, store.print_of(name)?)
                    .map_err(|e| write_error("the state", e))?;
                upload.publish()?;
            }
            Copying::Failed(error) => return Err(error),
            Copying::Done => {}
        }
        let local = &self.folder;
        let own = format!("{}-", self.file.set_id.simple());
        let newest = state_name(header.set, header.sequence)?;
        for entry in local.list()? {
            let name = entry.name.as_str();
            if name.starts_with(&own) && name.ends_with(STATE_SUFFIX) && entry.name < newest {
                local.remove(&entry.name)?;
            }
        }
        Ok(())
    }
}

fn write_key_file(local: &LocalStore, name: &FileName, file: &KeyFile) -> Result<()> {
    let bytes = serde_json::to_vec(file).map(Zeroizing::new);
    let bytes =
        bytes.map_err(|e| Error::new(ErrorKind::Internal, "encode", "a key file").caused_by(e))?;
    let mut upload = local.create(name)?;
    upload
        .write_all(&bytes)
        .map_err(|e| write_error(name.as_str(), e))?;
    upload.publish()
}

/// The key set of a state: its own private key alone.
fn own_keys(identity: &str) -> Result<KeySet> {
    let public = Identity::public_of(identity).ok_or_else(|| {
        Error::new(ErrorKind::Damaged, "use", "the kept keys").because("they are malformed")
    })?;
    KeySet::new(vec![KeyEntry::new("state", KeyKind::Age, &public)?], random)
}
