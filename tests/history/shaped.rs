//! A store whose new images take a form of its own choice: in parts, or encrypted.

use diskstrata::base::{Digest, RangeRead, Result};
use diskstrata::store::{Entry, FileName, Form, LockMode, Space, Store, StoreLock, Upload};
use std::sync::Arc;

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
