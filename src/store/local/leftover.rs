//! What a dead run had written of a file, for the run that goes on with it.

use super::held::Held;
use super::read::LocalFile;
use super::upload::LocalUpload;
use super::{LocalStore, fail, name_taken};
use crate::base::{Error, ErrorKind, RangeRead, Result, past_end, to_u64};
use crate::store::{FileName, Form, Leftover, Upload, check_form};
use crate::sys;
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;

/// An unpublished file of a dead run, held by this one.
pub(super) struct LocalLeftover {
    store: LocalStore,
    held: Held,
    bytes: Arc<LocalFile>,
    name: String,
}

impl LocalLeftover {
    /// `held`, with what of it is on the medium: bytes that the kernel could not write may still stand in its
    /// cache, and would be taken for written.
    ///
    /// # Errors
    /// `Destination` when it cannot be written or read.
    pub(super) fn new(store: LocalStore, held: Held) -> Result<LocalLeftover> {
        let name = store.path.join(held.name()).display().to_string();
        let failed = |e| fail("go on with", &name, e);
        sys::sync(held.file()).map_err(failed)?;
        let file = held.file().try_clone().map_err(failed)?;
        sys::drop_cached(&file, 0, sys::facts_of(&file).map_err(failed)?.len());
        let bytes = Arc::new(LocalFile::new(name.clone(), file, Arc::default())?);
        Ok(LocalLeftover {
            store,
            held,
            bytes,
            name,
        })
    }

    fn check_in_place(&self) -> Result<()> {
        match self.held.is_in_place() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(ErrorKind::Destination, "go on with", &self.name)
                .because("it was removed by somebody else")),
            Err(e) => Err(fail("go on with", &self.name, e)),
        }
    }
}

impl Leftover for LocalLeftover {
    fn bytes(&self) -> Arc<dyn RangeRead> {
        Arc::clone(&self.bytes) as Arc<dyn RangeRead>
    }

    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let _pending = sys::pending("writing to", &self.name);
        let end = offset.checked_add(to_u64(bytes.len()));
        if end.is_none_or(|end| end > self.bytes.len()) {
            let len = self.bytes.len();
            return Err(past_end(&self.name, offset, bytes.len(), len));
        }
        let file = self.held.file();
        let written = sys::write_all_at(file, bytes, offset).and_then(|()| sys::sync(file));
        written.map_err(|e| fail("write", &self.name, e))
    }

    fn resume(
        mut self: Box<Self>,
        name: &FileName,
        form: &Form,
        at: u64,
    ) -> Result<Box<dyn Upload>> {
        check_form(self.as_ref(), form)?;
        let _pending = sys::pending("going on with", &self.name);
        self.check_in_place()?;
        match self.store.folder.facts(name.as_ref()) {
            Ok(_) => return Err(name_taken("create", &self.store.name, name)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail("create", &self.store.path_text(name), e)),
        }
        let mut file = self.held.file();
        let cut = sys::persist(|| file.set_len(at));
        cut.and_then(|()| file.seek(SeekFrom::Start(at)))
            .map_err(|e| fail("go on with", &self.name, e))?;
        self.held.stay(false);
        let upload = LocalUpload::at(self.store, self.held, name.clone(), at);
        Ok(Box::new(upload))
    }

    /// Dropping does it, once it is not to stay.
    fn remove(mut self: Box<Self>) {
        self.held.stay(false);
    }
}
