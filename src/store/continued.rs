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
        let from = self.at.max(self.front);
        self.at += len;
        self.kept += self.at.saturating_sub(from);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::contract::pattern;
    use crate::store::{LocalStore, MIN_PART_LEN, SplitStore, Store};
    use std::path::Path;

    fn name() -> FileName {
        FileName::new("a").unwrap()
    }

    /// The same numbers each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % limit
        }
    }

    fn in_parts(part_len: Option<u64>) -> Form {
        Form {
            part_len,
            keys: None,
        }
    }

    fn at(dir: &Path) -> SplitStore {
        SplitStore::new(Arc::new(LocalStore::open(dir).unwrap()), uuid::Uuid::new_v4)
    }

    /// Leaves `bytes` as an unfinished file, and takes hold of it as the next run does.
    fn left(store: &dyn Store, bytes: &[u8], part_len: Option<u64>) -> Box<dyn Leftover> {
        let mut upload = store.create_in_parts(&name(), part_len).unwrap();
        upload.write_all(bytes).unwrap();
        assert!(upload.leave());
        let mut left = store.leftovers().unwrap();
        assert_eq!(left.len(), 1);
        let left = left.remove(0);
        // Whoever cleans up meanwhile does not touch it.
        assert_eq!(store.clean_up().unwrap(), Vec::<String>::new());
        assert_eq!(left.bytes().len(), to_u64(bytes.len()));
        assert_eq!(left.form(), in_parts(part_len));
        left
    }

    fn content(store: &dyn Store) -> Vec<u8> {
        let file = store.open(&name()).unwrap();
        let mut bytes = vec![0; to_usize(file.len())];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Writes `new` over a leftover of `old`, in pieces of any length; how much was kept.
    fn written(
        old: &[u8],
        new: &[u8],
        front: u64,
        part_len: Option<u64>,
        random: &mut Random,
    ) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let store = at(dir.path());
        let mut upload = Continued::new(
            left(&store, old, part_len),
            name(),
            in_parts(part_len),
            front,
        );
        let mut done = 0;
        while done < new.len() {
            let most = 1 << random.below(18);
            let len = to_usize(random.below(most)).clamp(1, new.len() - done);
            let (at, piece) = (to_u64(done), &new[done..done + len]);
            let there = old.get(done..done + len) == Some(piece) && at >= front;
            if !(there && random.below(2) == 0 && upload.keep(at, to_u64(len))) {
                upload.write_all(piece).unwrap();
            }
            done += len;
            assert_eq!(upload.written(), to_u64(done));
        }
        let kept = upload.kept();
        Box::new(upload).publish().unwrap();
        assert!(content(&store) == new);
        assert!(store.leftovers().unwrap().is_empty());
        assert_eq!(store.clean_up().unwrap(), Vec::<String>::new());
        let files = std::fs::read_dir(dir.path()).unwrap();
        let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|n| !n.starts_with('.')).collect();
        names.sort();
        let parts = part_len.map_or(1, |len| new.len().div_ceil(to_usize(len) - 96).max(1));
        assert_eq!(names.len(), parts, "{names:?}");
        kept
    }

    #[test]
    fn it_is_what_was_written_and_keeps_what_was_there() {
        let random = &mut Random(7);
        let room = to_usize(MIN_PART_LEN) - 96;
        for round in 0..60 {
            let part_len = (round % 2 == 0).then_some(MIN_PART_LEN);
            let len = match round % 6 {
                0 => 3 * room,
                1 => 5000,
                _ => to_usize(random.below(4 << 20)),
            };
            let old = pattern(len);
            let mut new = pattern(to_usize(random.below(4 << 20)));
            let front = random.below(2000).min(to_u64(len.min(new.len())));
            new[..to_usize(front)]
                .iter_mut()
                .step_by(3)
                .for_each(|b| *b ^= 1);
            let other = to_usize(front + random.below(to_u64(new.len()) - front + 1));
            new.iter_mut()
                .skip(other)
                .step_by(1000)
                .for_each(|b| *b ^= 7);
            let kept = written(&old, &new, front, part_len, random);
            let pairs = old.iter().zip(&new).skip(to_usize(front));
            let alike = front + to_u64(pairs.take_while(|(a, b)| a == b).count());
            assert_eq!(
                kept,
                alike - front,
                "round {round}: {len} bytes, front {front}"
            );
        }
    }

    /// A file that was abandoned is gone, one that was left is there, however far it was compared.
    #[test]
    fn it_is_left_or_taken_away() {
        for (part_len, far) in [(None, 10), (None, 5000), (Some(MIN_PART_LEN), 10)] {
            for leave in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let store = at(dir.path());
                let old = pattern(4000);
                let mut upload =
                    Continued::new(left(&store, &old, part_len), name(), in_parts(part_len), 0);
                let new = pattern(5000);
                upload.write_all(&new[..far]).unwrap();
                let upload: Box<dyn Upload> = Box::new(upload);
                if leave {
                    assert!(upload.leave());
                } else {
                    upload.abandon();
                }
                let there = store.leftovers().unwrap();
                let lens: Vec<u64> = there.iter().map(|l| l.bytes().len()).collect();
                let expected = leave.then_some(to_u64(far.max(4000)));
                assert_eq!(lens, expected.into_iter().collect::<Vec<_>>());
                drop(there);
                assert_eq!(store.clean_up().unwrap().is_empty(), !leave);
                assert_eq!(store.list().unwrap(), []);
            }
        }
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = at(dir.path());
        let mut upload =
            Continued::new(left(&store, &pattern(100), None), name(), in_parts(None), 0);
        std::fs::write(dir.path().join("a"), b"somebody else's").unwrap();
        upload.write_all(&pattern(100)).unwrap();
        let error = Box::new(upload).publish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Destination);
        assert_eq!(content(&store), b"somebody else's");
    }
}
