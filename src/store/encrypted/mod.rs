//! A store some of whose files are encrypted: everyone above sees their content.

use super::{
    Entry, FileName, Form, Leftover, LockMode, Space, Store, StoreLock, Upload, as_io_error,
    print_from, spoiled, write_error,
};
use crate::base::{Digest, RangeRead, Result, to_u64};
use crate::crypt::{EncryptWriter, EncryptedFile, Head, KeyRing, KeySet, Random, rewrap};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

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
}

impl Store for EncryptedStore {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn list(&self) -> Result<Vec<Entry>> {
        self.inner.list()
    }

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

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        self.inner.create(name)
    }

    fn create_in_parts(&self, name: &FileName, part_len: Option<u64>) -> Result<Box<dyn Upload>> {
        self.inner.create_in_parts(name, part_len)
    }

    fn part_len(&self, name: &FileName) -> Result<Option<u64>> {
        self.inner.part_len(name)
    }

    fn part_count(&self, name: &FileName) -> Result<Option<u32>> {
        self.inner.part_count(name)
    }

    fn create_as(&self, name: &FileName, form: &Form) -> Result<Box<dyn Upload>> {
        let inner = self.inner.create_in_parts(name, form.part_len)?;
        let Some(keys) = &form.keys else {
            return Ok(inner);
        };
        let text = format!("{}/{name}", self.name());
        let writer = EncryptWriter::new(inner, keys, &self.keys, self.random)?;
        Ok(Box::new(EncryptedUpload {
            writer: writer.map_err(|e| write_error(&text, e))?,
            name: text,
            written: 0,
            failed: false,
        }))
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

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        self.inner.overwrite(name, offset, bytes)
    }

    fn file_of(&self, name: &FileName) -> FileName {
        self.inner.file_of(name)
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

    /// Those of encrypted files are no image for whoever looks: no other nonce is ever used with their keys.
    fn leftovers(&self) -> Result<Vec<Box<dyn Leftover>>> {
        self.inner.leftovers()
    }

    fn paths_of(&self, name: &FileName) -> Vec<PathBuf> {
        self.inner.paths_of(name)
    }
}

/// A file that is encrypted on its way.
struct EncryptedUpload {
    writer: EncryptWriter<Box<dyn Upload>>,
    name: String,
    written: u64,
    failed: bool,
}

impl Write for EncryptedUpload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(as_io_error(spoiled("write", &self.name)));
        }
        let written = self.writer.write(buf);
        self.failed = written.is_err();
        self.written += to_u64(*written.as_ref().unwrap_or(&0));
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.writer.flush();
        self.failed |= flushed.is_err();
        flushed
    }
}

impl Upload for EncryptedUpload {
    fn written(&self) -> u64 {
        self.written
    }

    fn publish(self: Box<Self>) -> Result<()> {
        if self.failed {
            return Err(spoiled("publish", &self.name));
        }
        let EncryptedUpload { writer, name, .. } = *self;
        let upload = writer.finish().map_err(|e| write_error(&name, e))?;
        upload.publish()
    }

    fn abandon(self: Box<Self>) {
        self.writer.into_inner().abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;
    use crate::crypt::testing::{key_set, random, with_identity};
    use crate::crypt::{KeyRing, NoKeys};
    use crate::store::{Call, Fault, FaultStore, Faults, MemoryStore, contract};

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    /// A store whose every file is encrypted, to hold it to the contract.
    struct All(EncryptedStore, Arc<KeySet>);

    impl Store for All {
        fn name(&self) -> &str {
            self.0.name()
        }
        /// Lengths are those of the content.
        fn list(&self) -> Result<Vec<Entry>> {
            let mut entries = self.0.list()?;
            for entry in &mut entries {
                entry.len = self.0.open(&entry.name)?.len();
            }
            Ok(entries)
        }
        fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
            self.0.open(name)
        }
        fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
            let keys = Some(Arc::clone(&self.1));
            self.0.create_as(
                name,
                &Form {
                    part_len: None,
                    keys,
                },
            )
        }
        /// Of the content, which only the contract wants: read, changed, and written anew.
        fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
            let file = self.0.open(name)?;
            if let Some(error) = super::super::past_end_of("m", name, offset, bytes, file.len()) {
                return Err(error);
            }
            let mut content = vec![0; usize::try_from(file.len()).unwrap()];
            file.read_at(0, &mut content)?;
            let at = usize::try_from(offset).unwrap();
            content[at..at + bytes.len()].copy_from_slice(bytes);
            self.0.remove(name)?;
            let mut upload = self.create(name)?;
            upload.write_all(&content).unwrap();
            upload.publish()
        }
        fn remove(&self, name: &FileName) -> Result<()> {
            self.0.remove(name)
        }
        fn space(&self) -> Result<Option<Space>> {
            self.0.space()
        }
        fn lock(&self, mode: LockMode, holder: &str) -> Result<StoreLock> {
            self.0.lock(mode, holder)
        }
        fn clean_up(&self) -> Result<Vec<String>> {
            self.0.clean_up()
        }
    }

    #[test]
    fn encrypted_files_keep_the_contract() {
        let memory = Arc::new(MemoryStore::new("m"));
        let (keys, secret) = key_set();
        let keys = Arc::new(keys);
        let ring = Arc::new(with_identity(&secret));
        let store = || {
            let store = EncryptedStore::new(memory.clone(), Arc::clone(&ring), random);
            All(store, Arc::clone(&keys))
        };
        contract::check_store(&store(), &store());
    }

    #[test]
    fn plain_files_keep_the_contract() {
        let memory = Arc::new(MemoryStore::new("m"));
        let ring = Arc::new(KeyRing::new(NoKeys));
        let store = || EncryptedStore::new(memory.clone(), Arc::clone(&ring), random);
        contract::check_store(&store(), &store());
    }

    #[test]
    fn a_store_that_cannot_encrypt_stores_nothing() {
        let memory = MemoryStore::new("m");
        let form = Form {
            keys: Some(Arc::new(key_set().0)),
            ..Form::default()
        };
        assert!(memory.create_as(&name("a"), &form).is_err());
        assert_eq!(memory.list().unwrap(), []);
    }

    #[test]
    fn a_new_file_takes_the_form_of_an_old_one() {
        let memory = Arc::new(MemoryStore::new("m"));
        let (keys, secret) = key_set();
        let store = EncryptedStore::new(memory.clone(), Arc::new(with_identity(&secret)), random);
        let form = Form {
            part_len: None,
            keys: Some(Arc::new(keys)),
        };
        store
            .create_as(&name("a"), &form)
            .unwrap()
            .publish()
            .unwrap();
        assert_eq!(store.form_of(&name("a")).unwrap(), form);
        store.create(&name("b")).unwrap().publish().unwrap();
        assert_eq!(store.form_of(&name("b")).unwrap(), Form::default());
    }

    #[test]
    fn a_print_survives_other_keys_and_no_other_content() {
        let (keys, secret) = key_set();
        let (other, other_secret) = key_set();
        let ring = Arc::new(with_identity(&format!("{secret}\n{other_secret}")));
        let store = EncryptedStore::new(Arc::new(MemoryStore::new("m")), ring, random);
        let form = Form {
            keys: Some(Arc::new(keys.clone())),
            ..Form::default()
        };
        for file in ["a", "b"] {
            let mut upload = store.create_as(&name(file), &form).unwrap();
            upload.write_all(b"the same content").unwrap();
            upload.publish().unwrap();
        }
        let print = |file: &str| store.print_of(&name(file)).unwrap();
        assert_ne!(print("a"), print("b"), "each file has a key of its own");
        let before = print("a");
        let changed = keys.with_keys(other.keys().to_vec()).unwrap();
        store.change_keys(&name("a"), &changed).unwrap();
        assert_eq!(print("a"), before);
    }

    /// Whatever fails while keys are changed, the file is opened by the old or the new ones, and doing it
    /// again finishes it.
    #[test]
    fn keys_are_changed_or_not_whatever_fails() {
        let (keys, secret) = key_set();
        let (other, other_secret) = key_set();
        let changed = keys.with_keys(other.keys().to_vec()).unwrap();
        for nth in 1.. {
            let memory = Arc::new(MemoryStore::new("m"));
            let plain =
                EncryptedStore::new(memory.clone(), Arc::new(with_identity(&secret)), random);
            let form = Form {
                keys: Some(Arc::new(keys.clone())),
                ..Form::default()
            };
            let mut upload = plain.create_as(&name("a"), &form).unwrap();
            upload.write_all(b"content").unwrap();
            upload.publish().unwrap();
            let faults = Faults::new(vec![Fault::nth(Call::Overwrite, nth, 5, true)]);
            let faulty = Arc::new(FaultStore::new(memory.clone(), faults.clone()));
            let both = format!("{secret}\n{other_secret}");
            let ring = Arc::new(with_identity(&both));
            let outcome = EncryptedStore::new(faulty, Arc::clone(&ring), random)
                .change_keys(&name("a"), &changed);
            let open = |secret: &str| {
                let store =
                    EncryptedStore::new(memory.clone(), Arc::new(with_identity(secret)), random);
                store.open(&name("a")).map(|f| f.len())
            };
            assert_eq!(open(&both).unwrap(), 7);
            assert_eq!(outcome.is_err(), faults.fired());
            let store = EncryptedStore::new(memory.clone(), ring, random);
            store.change_keys(&name("a"), &changed).unwrap();
            assert_eq!(open(&secret).unwrap_err().kind(), ErrorKind::WrongKey);
            assert_eq!(open(&other_secret).unwrap(), 7);
            if !faults.fired() {
                assert_eq!(nth, 3, "two writes were made to fail");
                break;
            }
        }
    }
}
