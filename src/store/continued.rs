//! An upload whose beginning may be there already, from a run that did not end.

use super::{FileName, Form, Leftover, Upload, as_io_error};
use crate::base::{Error, ErrorKind, RangeRead, Result, to_u64, to_usize};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So much is compared at once: what is written in one call is mostly a page or less.
const COMPARED: usize = 64 << 10;

/// Takes what is written as an [`Upload`] does. As long as that is what a leftover holds at that place, nothing is
/// written; from the first other byte on, the leftover is cut off there and goes on as an upload. Clones
/// are the same upload.
#[derive(Clone)]
pub struct Continued(Arc<Mutex<State>>);

struct State {
    stage: Stage,
    name: FileName,
    form: Form,
    /// Bytes taken.
    at: u64,
    /// Bytes in front that may differ and are written over then.
    front: u64,
    /// Bytes behind these that were there already.
    kept: u64,
}

enum Stage {
    /// All so far is in the leftover.
    Comparing(Box<dyn Leftover>, Arc<dyn RangeRead>),
    Writing(Box<dyn Upload>),
    /// It has ended, or going on failed.
    Over,
}

impl Continued {
    /// Goes on with `leftover` as a file in `form` that will be called `name`. Its first `front` bytes, all of them
    /// there, are written over where they differ.
    pub fn new(leftover: Box<dyn Leftover>, name: FileName, form: Form, front: u64) -> Continued {
        let bytes = leftover.bytes();
        Continued(Arc::new(Mutex::new(State {
            stage: Stage::Comparing(leftover, bytes),
            name,
            form,
            at: 0,
            front,
            kept: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `len` bytes for written that stand in the leftover at `at`, as whoever calls has seen. `false` when
    /// that is not where the file goes on, or it is not a leftover any more: they have to be written.
    pub fn keep(&self, at: u64, len: u64) -> bool {
        let mut state = self.state();
        let end = at.checked_add(len);
        let is_there = match &state.stage {
            Stage::Comparing(_, bytes) => state.at == at && end.is_some_and(|e| e <= bytes.len()),
            _ => false,
        };
        if is_there {
            state.take(len);
        }
        is_there
    }

    /// Bytes behind the front that were there already and did not have to be written.
    pub fn kept(&self) -> u64 {
        self.state().kept
    }
}

impl State {
    fn take(&mut self, len: u64) {
        if self.at >= self.front {
            self.kept += len;
        }
        self.at += len;
    }

    fn over(&self) -> Error {
        Error::new(ErrorKind::Destination, "write", self.name.as_str())
            .because("an earlier write to it failed")
    }

    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        let count = match &mut self.stage {
            Stage::Over => return Err(self.over()),
            Stage::Writing(upload) => {
                let count = upload.write(buf);
                let count = count.map_err(|e| super::write_error(self.name.as_str(), e))?;
                self.at += to_u64(count);
                return Ok(count);
            }
            Stage::Comparing(leftover, bytes) => {
                let left = bytes.len().saturating_sub(self.at);
                let most = buf.len().min(COMPARED).min(to_usize(left));
                let mut there = vec![0; most];
                let read = bytes.read_at(self.at, &mut there).is_ok();
                let alike = there.iter().zip(buf).take_while(|(a, b)| a == b).count();
                let alike = if read { alike } else { 0 };
                let in_front = to_usize(self.front.saturating_sub(self.at)).min(most);
                if alike < in_front {
                    let new = buf.get(..in_front).unwrap_or_default();
                    leftover.overwrite(self.at, new)?;
                    in_front
                } else {
                    alike
                }
            }
        };
        if count > 0 {
            self.take(to_u64(count));
            return Ok(count);
        }
        self.go_on()?;
        self.write(buf)
    }

    /// Cuts the leftover off and makes it an upload.
    fn go_on(&mut self) -> Result<()> {
        self.stage = match self.end() {
            Stage::Comparing(leftover, _) => {
                Stage::Writing(leftover.resume(&self.name, &self.form, self.at)?)
            }
            stage => stage,
        };
        Ok(())
    }

    fn end(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Over)
    }
}

impl Write for Continued {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.state().write(buf).map_err(as_io_error)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.state().stage {
            Stage::Writing(upload) => upload.flush(),
            Stage::Comparing(..) | Stage::Over => Ok(()),
        }
    }
}

impl Upload for Continued {
    fn written(&self) -> u64 {
        self.state().at
    }

    fn publish(self: Box<Self>) -> Result<()> {
        let mut state = self.state();
        state.go_on()?;
        match state.end() {
            Stage::Writing(upload) => upload.publish(),
            Stage::Comparing(..) | Stage::Over => Err(state.over()),
        }
    }

    fn abandon(self: Box<Self>) {
        match self.state().end() {
            Stage::Writing(upload) => upload.abandon(),
            Stage::Comparing(leftover, _) => leftover.remove(),
            Stage::Over => {}
        }
    }

    /// A leftover stays as long as it was, however much of it was compared.
    fn leave(self: Box<Self>) -> bool {
        match self.state().end() {
            Stage::Writing(upload) => upload.leave(),
            Stage::Comparing(..) => true,
            Stage::Over => false,
        }
    }
}
