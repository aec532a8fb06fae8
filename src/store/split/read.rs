//! One file out of its parts.

use super::Parts;
use super::ends::{Ends, Shape, Unfit};
use super::part::{MAX_PARTS, name_of_part};
use crate::base::{Error, ErrorKind, RangeRead, Result};
use crate::store::{FileName, Store};
use std::sync::{Arc, Mutex, PoisonError};

/// A file in parts, of which one is open at a time: a chain of images may have thousands.
pub(super) struct SplitFile {
    store: Arc<dyn Store>,
    file: FileName,
    name: String,
    shape: Shape,
    open: Mutex<Option<(u32, Arc<dyn RangeRead>)>>,
}

/// What is wrong with part `number` of `file`.
fn bad_part(store: &str, file: &FileName, number: u32, why: &str) -> Error {
    bad_parts(
        store,
        file,
        &format!("part {number}, {}, {why}", text(file, number)),
    )
}

fn bad_parts(store: &str, file: &FileName, why: &str) -> Error {
    Error::new(ErrorKind::Damaged, "open", format!("{store}/{file}"))
        .because(why)
        .hint("bring all parts of the file into one folder, from the media that they lie on")
}

/// What part `number` of `file` is called.
fn text(file: &FileName, number: u32) -> String {
    name_of_part(file, number).map_or_else(|_| file.to_string(), |name| name.to_string())
}

impl SplitFile {
    /// Opens `file` by the names of its parts: looks at both ends of each, and that none follows the last.
    ///
    /// # Errors
    /// `Damaged`, naming the first part that is missing, of another file or of another length than it was.
    pub(super) fn open(store: &Arc<dyn Store>, file: &FileName) -> Result<SplitFile> {
        let bad = |number: u32, unfit: Unfit| match unfit {
            Unfit::Failed(error) => error,
            Unfit::Is(why) => bad_part(store.name(), file, number, &why),
        };
        let opened = |number: u32| match store.open(&name_of_part(file, number)?) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        let look = |number: u32, first: Option<&Ends>| {
            let Some(part) = opened(number)? else {
                let why = Unfit::is("is missing, and perhaps more behind it");
                return Err(bad(number, why));
            };
            let part = Ends::of(part.as_ref(), number, first.map(|f| f.head.id));
            let part = part.map_err(|unfit| bad(number, unfit))?;
            let part_len = first.unwrap_or(&part).head.part_len;
            part.check_place(part_len)
                .map_err(|unfit| bad(number, unfit))?;
            Ok(part)
        };
        let first = look(1, None)?;
        let mut number = 1;
        let mut last = None;
        while !last.as_ref().unwrap_or(&first).is_last() {
            number += 1;
            last = Some(look(number, Some(&first))?);
        }
        if number < MAX_PARTS && opened(number + 1)?.is_some() {
            return Err(bad(number + 1, Unfit::is("follows the last part")));
        }
        let shape = Shape::of(&first.head, last.as_ref().unwrap_or(&first));
        Ok(SplitFile {
            store: Arc::clone(store),
            file: file.clone(),
            name: format!("{}/{file}", store.name()),
            shape: shape.map_err(|unfit| bad(number, unfit))?,
            open: Mutex::default(),
        })
    }

    /// Writes `bytes` over those from `offset` on.
    ///
    /// # Errors
    /// As [`Store::overwrite`].
    pub(super) fn overwrite(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let len = bytes.len();
        self.shape
            .each_piece(&self.name, offset, len, |number, within, piece| {
                let part = name_of_part(&self.file, number)?;
                self.store.overwrite(&part, within, &bytes[piece])
            })
    }

    fn part(&self, number: u32) -> Result<Arc<dyn RangeRead>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, part)) = open.as_ref().filter(|(which, _)| *which == number) {
            return Ok(Arc::clone(part));
        }
        let part = self.store.open(&name_of_part(&self.file, number)?)?;
        *open = Some((number, Arc::clone(&part)));
        Ok(part)
    }

    /// Calls `each` for every part that holds some of the `len` bytes from `offset`, as far as the file goes, and
    /// where in it they are: with the part, if that is the one that is open.
    fn each_open(
        &self,
        offset: u64,
        len: u64,
        mut each: impl FnMut(Option<&dyn RangeRead>, u64, u64),
    ) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.clone();
        self.shape.each_within(offset, len, |number, within, len| {
            let part = open.as_ref().filter(|(which, _)| *which == number);
            each(part.map(|(_, part)| part.as_ref()), within, len);
        });
    }
}

impl RangeRead for SplitFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.shape.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len();
        self.shape
            .each_piece(&self.name, offset, len, |number, within, piece| {
                self.part(number)?.read_at(within, &mut buf[piece])
            })
    }

    /// Only of the part that is open: another one would be opened and closed in turns with it.
    fn will_need(&self, offset: u64, len: u64) {
        self.each_open(offset, len, |part, within, len| {
            if let Some(part) = part {
                part.will_need(within, len);
            }
        });
    }

    fn is_cached(&self, offset: u64, len: u64) -> bool {
        let mut all = true;
        self.each_open(offset, len, |part, within, len| {
            all &= part.is_some_and(|part| part.is_cached(within, len));
        });
        all
    }
}

/// Fails when parts of `file` are not there although ones with higher numbers are.
///
/// # Errors
/// `Damaged`, naming all of them.
pub(super) fn check_no_gap(store: &dyn Store, file: &FileName, parts: &Parts) -> Result<()> {
    let Some((highest, name)) = parts.last_key_value() else {
        return Ok(());
    };
    let missing: Vec<u32> = (1..*highest).filter(|n| !parts.contains_key(n)).collect();
    let last = store
        .open(name)
        .map(|p| Ends::of(p.as_ref(), *highest, None));
    let is_last = matches!(last, Ok(Ok(part)) if part.is_last());
    let behind = match is_last {
        true => String::new(),
        // How many there are, only the last one knows.
        false => format!(", and those behind {}", text(file, *highest)),
    };
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(bad_part(
            store.name(),
            file,
            *one,
            &format!("is missing{behind}"),
        )),
        some => {
            let (count, names) = (some.len(), runs(file, some));
            let why = match is_last {
                true => format!("{count} of its {highest} parts are missing: {names}"),
                false => format!("parts are missing: {names}{behind}"),
            };
            Err(bad_parts(store.name(), file, &why))
        }
    }
}

/// The names of parts, ascending, longer runs by their ends.
fn runs(file: &FileName, numbers: &[u32]) -> String {
    let words = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, _, .., last] => format!("{} to {}", text(file, *first), text(file, *last)),
        few => {
            let names: Vec<String> = few.iter().map(|n| text(file, *n)).collect();
            names.join(", ")
        }
    });
    words.collect::<Vec<String>>().join(", ")
}
