//! A store that is read and written no faster than a person allows.

use super::{FileName, Form, Leftover, Store, Upload, as_io_error, spoiled};
use crate::base::{KeySetId, RangeRead, Rates, Result};
use std::io::{self, Write};
use std::sync::Arc;

/// A store whose files are read and written at some [`Rates`].
pub struct ThrottledStore {
    inner: Arc<dyn Store>,
    rates: Rates,
}

impl ThrottledStore {
    /// `inner` at `rates`.
    pub fn new(inner: Arc<dyn Store>, rates: Rates) -> ThrottledStore {
        ThrottledStore { inner, rates }
    }

    fn upload(&self, inner: Box<dyn Upload>) -> Box<dyn Upload> {
        Box::new(ThrottledUpload::new(inner, self.rates.clone()))
    }
}

impl Store for ThrottledStore {
    crate::pass_on!(
        inner: caveats, will_reread, name, list, part_len, form_of, print_of, part_count, file_of, remove, space, lock, clean_up, paths_of
    );

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        let (inner, rates) = (self.inner.open(name)?, self.rates.clone());
        Ok(Arc::new(ThrottledFile { inner, rates }))
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        self.inner.create(name).map(|upload| self.upload(upload))
    }

    fn create_in_parts(&self, name: &FileName, part_len: Option<u64>) -> Result<Box<dyn Upload>> {
        let upload = self.inner.create_in_parts(name, part_len)?;
        Ok(self.upload(upload))
    }

    fn create_as(&self, name: &FileName, form: &Form) -> Result<Box<dyn Upload>> {
        let upload = self.inner.create_as(name, form)?;
        Ok(self.upload(upload))
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        self.rates.write(bytes.len())?;
        self.inner.overwrite(name, offset, bytes)
    }

    fn leftovers(&self) -> Result<Vec<Box<dyn Leftover>>> {
        let found = self.inner.leftovers()?.into_iter();
        let throttled = found.map(|inner| {
            let rates = self.rates.clone();
            Box::new(ThrottledLeftover { inner, rates }) as Box<dyn Leftover>
        });
        Ok(throttled.collect())
    }
}

struct ThrottledFile {
    inner: Arc<dyn RangeRead>,
    rates: Rates,
}

impl RangeRead for ThrottledFile {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn key_set(&self) -> Option<KeySetId> {
        self.inner.key_set()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.rates.read(buf.len())?;
        self.inner.read_at(offset, buf)
    }
}

struct ThrottledUpload {
    inner: Box<dyn Upload>,
    rates: Rates,
    /// Set when the run was stopped while a write waited: what comes behind it would leave a gap.
    spoiled: bool,
}

impl ThrottledUpload {
    fn new(inner: Box<dyn Upload>, rates: Rates) -> ThrottledUpload {
        ThrottledUpload {
            inner,
            rates,
            spoiled: false,
        }
    }

    fn check(&self, what: &str) -> Result<()> {
        match self.spoiled {
            true => Err(spoiled(what, "a file in a store")),
            false => Ok(()),
        }
    }
}

impl Write for ThrottledUpload {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.check("write").map_err(as_io_error)?;
        self.rates.write(buf.len()).map_err(|e| {
            self.spoiled = true;
            as_io_error(e)
        })?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Upload for ThrottledUpload {
    fn written(&self) -> u64 {
        self.inner.written()
    }

    fn publish(self: Box<Self>) -> Result<()> {
        self.check("publish")?;
        self.inner.publish()
    }

    fn abandon(self: Box<Self>) {
        self.inner.abandon();
    }

    fn leave(self: Box<Self>) -> bool {
        self.inner.leave()
    }
}

struct ThrottledLeftover {
    inner: Box<dyn Leftover>,
    rates: Rates,
}

impl Leftover for ThrottledLeftover {
    fn bytes(&self) -> Arc<dyn RangeRead> {
        let (inner, rates) = (self.inner.bytes(), self.rates.clone());
        Arc::new(ThrottledFile { inner, rates })
    }

    fn file(&self) -> Option<FileName> {
        self.inner.file()
    }

    fn form(&self) -> Form {
        self.inner.form()
    }

    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.rates.write(bytes.len())?;
        self.inner.overwrite(offset, bytes)
    }

    fn resume(self: Box<Self>, name: &FileName, form: &Form, at: u64) -> Result<Box<dyn Upload>> {
        let inner = self.inner.resume(name, form, at)?;
        Ok(Box::new(ThrottledUpload::new(inner, self.rates)))
    }

    fn remove(self: Box<Self>) {
        self.inner.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LocalStore, MemoryStore, contract};
    use super::*;
    use crate::base::{Error, ErrorKind, Throttle};
    use std::sync::Mutex;

    /// Lets so many bytes pass.
    struct Purse(Mutex<u64>);

    impl Throttle for Purse {
        fn pass(&self, bytes: u64) -> Result<()> {
            let mut left = self.0.lock().unwrap();
            match left.checked_sub(bytes) {
                Some(rest) => *left = rest,
                None => return Err(Error::new(ErrorKind::Interrupted, "go on", "a test")),
            }
            Ok(())
        }
    }

    fn purse(bytes: u64) -> Option<Arc<dyn Throttle>> {
        Some(Arc::new(Purse(Mutex::new(bytes))))
    }

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    #[test]
    fn it_keeps_the_contract() {
        let rates = Rates {
            reads: purse(u64::MAX),
            writes: purse(u64::MAX),
        };
        let memory = Arc::new(MemoryStore::new("memory"));
        let store = || ThrottledStore::new(Arc::clone(&memory) as _, rates.clone());
        contract::check_store(&store(), &store());
    }

    #[test]
    fn every_byte_waits_for_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let local = Arc::new(LocalStore::open(dir.path()).unwrap());
        let rates = Rates {
            reads: purse(30),
            writes: purse(30),
        };
        let store = ThrottledStore::new(local, rates);
        let mut upload = store.create(&name("a")).unwrap();
        upload.write_all(&[1; 20]).unwrap();
        upload.publish().unwrap();
        let mut upload = store.create(&name("b")).unwrap();
        let error = upload.write_all(&[1; 11]).unwrap_err();
        assert_eq!(
            super::super::write_error("b", error).kind(),
            ErrorKind::Interrupted
        );
        assert_eq!(upload.written(), 0);
        upload.write_all(&[1; 1]).unwrap_err();
        upload.publish().unwrap_err();
        assert_eq!(store.list().unwrap().len(), 1);

        let file = store.open(&name("a")).unwrap();
        file.read_at(0, &mut [0; 20]).unwrap();
        assert_eq!(
            file.read_at(0, &mut [0; 11]).unwrap_err().kind(),
            ErrorKind::Interrupted
        );
        file.read_at(0, &mut [0; 10]).unwrap();
    }

    #[test]
    fn what_is_unfinished_is_gone_on_with_at_the_same_rate() {
        let dir = tempfile::tempdir().unwrap();
        let local = Arc::new(LocalStore::open(dir.path()).unwrap());
        let rates = Rates {
            reads: purse(100),
            writes: purse(32),
        };
        let store = ThrottledStore::new(local, rates);
        let mut upload = store.create(&name("a")).unwrap();
        upload.write_all(&[1; 20]).unwrap();
        assert!(upload.leave());
        let mut left = store.leftovers().unwrap();
        assert_eq!(left.len(), 1);
        let mut left = left.remove(0);
        left.bytes().read_at(0, &mut [0; 20]).unwrap();
        left.overwrite(0, &[2; 2]).unwrap();
        let mut upload = left.resume(&name("a"), &Form::default(), 10).unwrap();
        upload.write_all(&[3; 10]).unwrap();
        upload.write_all(&[3; 1]).unwrap_err();
    }
}
