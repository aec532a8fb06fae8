//! Encrypting a file while it comes.

use crate::base::{Result, to_u64};
use crate::crypt::EncryptWriter;
use crate::store::{Upload, as_io_error, spoiled, write_error};
use std::io::{self, Write};

/// A file that is encrypted on its way.
pub(super) struct EncryptedUpload {
    writer: EncryptWriter<Box<dyn Upload>>,
    name: String,
    written: u64,
    failed: bool,
}

impl EncryptedUpload {
    /// What `writer` takes, as the file called `name` in messages, of whose content `written` bytes are there.
    pub(super) fn new(
        writer: EncryptWriter<Box<dyn Upload>>,
        name: String,
        written: u64,
    ) -> EncryptedUpload {
        EncryptedUpload {
            writer,
            name,
            written,
            failed: false,
        }
    }
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

    /// What is encrypted goes along; the bytes behind the last whole chunk do not.
    fn leave(mut self: Box<Self>) -> bool {
        let flushed = !self.failed && self.writer.flush().is_ok();
        let upload = self.writer.into_inner();
        if flushed {
            return upload.leave();
        }
        upload.abandon();
        false
    }
}
