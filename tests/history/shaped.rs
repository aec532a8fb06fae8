//! A store whose new images take a form of its own choice: in parts, or encrypted.

use crate::keys::{Pocket, RANDOM};
use age::secrecy::ExposeSecret;
use diskstrata::base::{Digest, RangeRead, Result};
use diskstrata::crypt::{Identity, KeyEntry, KeyKind, KeyRing, KeySet};
use diskstrata::store::{
    EncryptedStore, Entry, FileName, Form, LockMode, MIN_PART_LEN, Space, SplitStore, Store,
    StoreLock, Upload,
};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) struct Shaped {
    pub(crate) inner: Arc<dyn Store>,
    /// How the next image is to lie.
    pub(crate) form: Box<dyn Fn() -> Result<Form> + Send + Sync>,
}

impl Store for Shaped {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn list(&self) -> Result<Vec<Entry>> {
        self.inner.list()
    }
    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        self.inner.open(name)
    }
    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        match name.as_str().ends_with(".strata") {
            true => self.inner.create_as(name, &(self.form)()?),
            false => self.inner.create(name),
        }
    }
    fn create_as(&self, name: &FileName, form: &Form) -> Result<Box<dyn Upload>> {
        self.inner.create_as(name, form)
    }
    fn form_of(&self, name: &FileName) -> Result<Form> {
        self.inner.form_of(name)
    }
    fn print_of(&self, name: &FileName) -> Result<Digest> {
        self.inner.print_of(name)
    }
    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        self.inner.overwrite(name, offset, bytes)
    }
    fn remove(&self, name: &FileName) -> Result<()> {
        self.inner.remove(name)
    }
    fn space(&self) -> Result<Option<Space>> {
        self.inner.space()
    }
    fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
        self.inner.lock(mode, holder)
    }
    fn clean_up(&self) -> Result<Vec<String>> {
        self.inner.clean_up()
    }
}

/// A store below which all images lie in parts of the least length.
pub(crate) fn in_parts(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Shaped {
        inner: Arc::new(SplitStore::new(inner, Uuid::new_v4)),
        form: Box::new(|| {
            Ok(Form {
                part_len: Some(MIN_PART_LEN),
                keys: None,
            })
        }),
    })
}

/// A store whose images are all encrypted, for a key that it has at hand.
pub(crate) fn encrypted(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    let (private, public) = Identity::generate();
    let key = KeyEntry::new("mine", KeyKind::Age, &public).unwrap();
    let keys = Arc::new(KeySet::new(vec![key], RANDOM).unwrap());
    let pocket = Pocket(vec![private.expose_secret().to_owned()]);
    let ring = Arc::new(KeyRing::new(pocket));
    Arc::new(Shaped {
        inner: Arc::new(EncryptedStore::new(inner, ring, RANDOM)),
        form: Box::new(move || {
            Ok(Form {
                part_len: None,
                keys: Some(Arc::clone(&keys)),
            })
        }),
    })
}
