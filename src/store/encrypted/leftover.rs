//! What a dead run had written of an encrypted file.

use super::upload::EncryptedUpload;
use crate::base::{Error, ErrorKind, RangeRead, Result, past_end, to_u64, to_usize};
use crate::crypt::{KeyRing, Random, UnfinishedFile};
use crate::store::{FileName, Form, Leftover, Upload, write_error};
use std::sync::Arc;

/// An unfinished encrypted file that the keys at hand open.
pub(super) struct EncryptedLeftover {
    inner: Box<dyn Leftover>,
    file: Arc<UnfinishedFile>,
    /// Content that takes the place of as many bytes at the beginning. Chunks are written again when the file goes on,
    /// and not before: only then is it known which of them a new key is for.
    front: Vec<u8>,
    keys: Arc<KeyRing>,
    random: Random,
}

impl EncryptedLeftover {
    /// `inner`, whose content is `file`.
    pub(super) fn new(
        inner: Box<dyn Leftover>,
        file: UnfinishedFile,
        keys: Arc<KeyRing>,
        random: Random,
    ) -> EncryptedLeftover {
        EncryptedLeftover {
            inner,
            file: Arc::new(file),
            front: Vec::new(),
            keys,
            random,
        }
    }
}

impl Leftover for EncryptedLeftover {
    fn bytes(&self) -> Arc<dyn RangeRead> {
        Arc::clone(&self.file) as Arc<dyn RangeRead>
    }

    fn file(&self) -> Option<FileName> {
        self.inner.file()
    }

    fn form(&self) -> Form {
        Form {
            keys: Some(Arc::clone(self.file.key_set())),
            ..self.inner.form()
        }
    }

    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(to_u64(bytes.len()));
        let Some(end) = end.filter(|end| *end <= self.file.len()) else {
            let (name, len) = (self.file.name(), self.file.len());
            return Err(past_end(name, offset, bytes.len(), len));
        };
        let (at, end, known) = (to_usize(offset), to_usize(end), self.front.len());
        if known < end {
            self.front.resize(end, 0);
            let behind = &mut self.front[known..];
            if let Err(e) = self.file.read_at(to_u64(known), behind) {
                self.front.truncate(known);
                return Err(e);
            }
        }
        self.front[at..end].copy_from_slice(bytes);
        Ok(())
    }

    fn resume(
        mut self: Box<Self>,
        name: &FileName,
        form: &Form,
        at: u64,
    ) -> Result<Box<dyn Upload>> {
        let Some(keys) = &form.keys else {
            return Err(
                Error::new(ErrorKind::Internal, "go on with", self.file.name())
                    .because("it is encrypted, and is not to be"),
            );
        };
        let going_on = self
            .file
            .go_on(at, &self.front, keys, &self.keys, self.random)?;
        self.inner.overwrite(0, &going_on.start)?;
        let plain = Form {
            keys: None,
            ..form.clone()
        };
        let upload = self.inner.resume(name, &plain, going_on.len)?;
        let writer = going_on.writer(upload);
        let writer = writer.map_err(|e| write_error(name.as_str(), e))?;
        Ok(Box::new(EncryptedUpload::new(writer, name.to_string(), at)))
    }

    fn remove(self: Box<Self>) {
        self.inner.remove();
    }
}
