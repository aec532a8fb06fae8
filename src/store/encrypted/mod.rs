//! A store some of whose files are encrypted: everyone above sees their content.

#[cfg(test)]
mod continued_tests;
mod leftover;
#[cfg(test)]
mod tests;
mod upload;

use super::{FileName, Form, Leftover, Store, Upload, print_from, write_error};
use crate::base::{Digest, ErrorKind, RangeRead, Result, to_u64};
use crate::crypt::{
    EncryptWriter, EncryptedFile, Head, KeyRing, KeySet, Random, UnfinishedFile, rewrap,
};
use leftover::EncryptedLeftover;
use std::sync::Arc;
use upload::EncryptedUpload;

/// A store whose encrypted files are opened with the keys of a ring. Files are encrypted when they are
/// created with a [`Form`] that names keys.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    keys: Arc<KeyRing>,
    random: Random,
}

impl EncryptedStore {
    /// `inner`, opened with `keys`; what has to be random is drawn by `random`.
    pub fn new(inner: Arc<dyn Store>, keys: Arc<KeyRing>, random: Random) -> EncryptedStore {
        EncryptedStore {
            inner,
            keys,
            random,
        }
    }

    /// The keys that open a published file; `None` when it is not encrypted.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn keys_of(&self, name: &FileName) -> Result<Option<Arc<KeySet>>> {
        let inner = self.inner.open(name)?;
        let Some(head) = Head::read(inner.as_ref())? else {
            return Ok(None);
        };
        let file = EncryptedFile::open(inner, &head, &self.keys)?;
        Ok(Some(Arc::clone(file.key_set())))
    }

    /// Has a published file opened by the keys of `key_set`, and no others. Interrupted, it is opened by the
    /// old or the new ones; doing it again finishes that.
    ///
    /// # Errors
    /// As [`Store::open`]; `Destination`.
    pub fn change_keys(&self, name: &FileName, key_set: &KeySet) -> Result<()> {
        let inner = self.inner.open(name)?;
        let Some(head) = Head::read(inner.as_ref())? else {
            return Ok(());
        };
        let rewrite = rewrap(&head, inner.name(), &self.keys, key_set, self.random)?;
        for (offset, bytes) in rewrite.steps {
            self.inner.overwrite(name, offset, &bytes)?;
        }
        Ok(())
    }

    /// `leftover` as its content, when it is encrypted and can be gone on with here.
    ///
    /// # Errors
    /// Those of the ring that are not about this file.
    fn decrypted(&self, leftover: Box<dyn Leftover>) -> Result<Box<dyn Leftover>> {
        let Ok(Some(head)) = Head::read(leftover.bytes().as_ref()) else {
            return Ok(leftover);
        };
        match UnfinishedFile::open(leftover.bytes(), head, &self.keys) {
            Ok(file) if file.can_go_on() => {
                let keys = Arc::clone(&self.keys);
                let leftover = EncryptedLeftover::new(leftover, file, keys, self.random);
                Ok(Box::new(leftover))
            }
            Ok(_) => Ok(leftover),
            Err(e) => match e.kind() {
                ErrorKind::WrongKey | ErrorKind::Damaged | ErrorKind::Refused => Ok(leftover),
                _ => Err(e),
            },
        }
    }
}

impl Store for EncryptedStore {
    crate::pass_on!(inner: caveats, will_reread, name, list, create, create_in_parts, part_len, part_count, overwrite, file_of, remove, space, lock, clean_up, paths_of);

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        let inner = self.inner.open(name)?;
        match Head::read(inner.as_ref())? {
            Some(head) => Ok(Arc::new(EncryptedFile::open(inner, &head, &self.keys)?)),
            None => {
                self.keys.accept_plain(inner.name())?;
                Ok(inner)
            }
        }
    }

    fn create_as(&self, name: &FileName, form: &Form) -> Result<Box<dyn Upload>> {
        let inner = self.inner.create_in_parts(name, form.part_len)?;
        let Some(keys) = &form.keys else {
            return Ok(inner);
        };
        let text = format!("{}/{name}", self.name());
        let writer = EncryptWriter::new(inner, keys, &self.keys, self.random)?;
        let writer = writer.map_err(|e| write_error(&text, e))?;
        Ok(Box::new(EncryptedUpload::new(writer, text, 0)))
    }

    fn form_of(&self, name: &FileName) -> Result<Form> {
        Ok(Form {
            keys: self.keys_of(name)?,
            ..self.inner.form_of(name)?
        })
    }

    /// Of what lies behind the head.
    fn print_of(&self, name: &FileName) -> Result<Digest> {
        let inner = self.inner.open(name)?;
        let head = Head::read(inner.as_ref())?;
        print_from(inner.as_ref(), head.map_or(0, |head| to_u64(head.len())))
    }

    /// Those of encrypted files that no key opens are given as they are stored.
    fn leftovers(&self) -> Result<Vec<Box<dyn Leftover>>> {
        let found = self.inner.leftovers()?.into_iter();
        found.map(|leftover| self.decrypted(leftover)).collect()
    }
}
