//! Files in numbered parts: what does not fit a file system, a medium or a patience is cut, and everyone
//! above sees one file.
//!
//! `NAME` lies as `NAME.001`, `NAME.002` and so on. A file that came and goes in several steps is told
//! from one of which somebody lost a part by a mark, `NAME.unfinished`: while it stands and there is no
//! first part, there is no file, and what there is of it is cleaned up. The first part comes last and
//! goes first.

mod ends;
mod leftover;
mod media;
#[cfg(test)]
mod media_tests;
mod part;
mod read;
#[cfg(test)]
mod tests;
mod upload;

use super::{Entry, FileName, Leftover, Store, Upload, name_taken, not_found, write_error};
use crate::base::{Error, ErrorKind, RangeRead, Result, to_u64};
use ends::Shape;
use leftover::HeldIds;
use media::Media;
use part::{HEAD_LEN, Head, mark_of, marked_by, part_of};
use read::{SplitFile, check_no_gap};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use upload::SplitUpload;
use uuid::Uuid;

pub use media::{Brought, PartBringer, WantedPart};

/// The shortest part, in bytes.
pub const MIN_PART_LEN: u64 = 1 << 20;

/// A store whose files may lie in parts. Files are plain ones unless they are created with
/// [`Store::create_in_parts`].
///
/// While an upload in parts is under way, [`Store::clean_up`] must not run: whoever uploads holds a lock.
#[derive(Clone)]
pub struct SplitStore {
    inner: Arc<dyn Store>,
    new_id: fn() -> Uuid,
    /// Who brings parts that are not there, if anybody does.
    media: Option<Arc<Media>>,
    /// Unfinished files that are held for somebody who goes on with them.
    held: HeldIds,
}

/// What the inner store has, sorted by what it belongs to.
#[derive(Default)]
struct Contents {
    /// Files in one piece.
    plain: BTreeSet<FileName>,
    /// The parts of each file.
    parts: BTreeMap<FileName, Parts>,
    marks: BTreeSet<FileName>,
}

/// Parts of one file by their numbers.
type Parts = BTreeMap<u32, FileName>;

impl Contents {
    /// Whether the parts of `file` are on their way, in or out.
    fn in_motion(&self, file: &FileName, parts: &Parts) -> bool {
        !parts.contains_key(&1) && self.marks.contains(file)
    }

    /// Whether `parts` are what `file` consists of.
    fn is_in_parts(&self, file: &FileName, parts: &Parts) -> bool {
        !self.plain.contains(file) && !self.in_motion(file, parts)
    }
}

impl SplitStore {
    /// Files in parts, in `inner`. Each has an id of its own, by which its parts know each other, made by
    /// `new_id`.
    pub fn new(inner: Arc<dyn Store>, new_id: fn() -> Uuid) -> SplitStore {
        SplitStore {
            inner,
            new_id,
            media: None,
            held: HeldIds::default(),
        }
    }

    /// The same, with somebody who brings parts that are not there. A part is looked for when it is read, not
    /// before, but for the first and the last one of a file.
    #[must_use]
    pub fn with_bringer(self, bringer: Arc<dyn PartBringer>) -> SplitStore {
        let media = Media::new(Arc::clone(&self.inner), bringer);
        SplitStore {
            media: Some(Arc::new(media)),
            ..self
        }
    }

    /// What is known of a file whose parts somebody brings.
    fn shape_of(&self, name: &FileName) -> Option<Shape> {
        self.media.as_ref()?.shape(name)
    }

    fn contents(&self) -> Result<Contents> {
        let mut contents = Contents::default();
        for entry in self.inner.list()? {
            if let Some((file, number)) = part_of(&entry.name) {
                let parts = contents.parts.entry(file).or_default();
                parts.insert(number, entry.name);
            } else if let Some(file) = marked_by(&entry.name) {
                contents.marks.insert(file);
            } else {
                contents.plain.insert(entry.name);
            }
        }
        Ok(contents)
    }

    /// The parts of `file`, by number; none when it does not lie in parts.
    fn parts_of(&self, file: &FileName) -> Result<Parts> {
        let mut contents = self.contents()?;
        let parts = contents.parts.remove(file).unwrap_or_default();
        Ok(match contents.is_in_parts(file, &parts) {
            true => parts,
            false => Parts::new(),
        })
    }

    /// `file`, which is no plain one, out of its parts. The store is listed only when that fails: a chain may
    /// have thousands of files.
    ///
    /// # Errors
    /// `NotFound`, and those of [`SplitFile::open`].
    fn open_parts(&self, what: &str, file: &FileName) -> Result<SplitFile> {
        SplitFile::open(&self.inner, file).or_else(|error| {
            let parts = self.parts_of(file)?;
            if parts.is_empty() {
                return Err(not_found(what, self.name(), file));
            }
            check_no_gap(self.inner.as_ref(), file, &parts)?;
            Err(error)
        })
    }

    /// The file that a part belongs to, by its id; `None` when it is no part.
    ///
    /// # Errors
    /// When it cannot be read.
    fn id_of(&self, part: &FileName) -> Result<Option<Uuid>> {
        let (part, mut head) = (self.inner.open(part)?, [0; HEAD_LEN]);
        if part.len() < to_u64(head.len()) {
            return Ok(None);
        }
        part.read_at(0, &mut head)?;
        Ok(Head::decode(&head).map(|head| head.id))
    }

    /// Each of `parts`, and the file that it belongs to.
    ///
    /// # Errors
    /// When one of them cannot be read: it may be any file's.
    fn owners_of<'a>(&self, parts: &'a Parts) -> Result<Vec<(&'a FileName, Option<Uuid>)>> {
        let owner = |part| Ok((part, self.id_of(part)?));
        parts.values().map(owner).collect()
    }

    /// Removes those of `parts` that belong to the file `id`, the first one first: without it there is no
    /// file. A part of another file may be the only one of its kind. Returns how many went.
    fn remove_own(&self, parts: &[(&FileName, Option<Uuid>)], id: Uuid) -> Result<usize> {
        let own = parts.iter().filter(|(_, owner)| *owner == Some(id));
        let removed = own.map(|(part, _)| self.inner.remove(part));
        removed.collect::<Result<Vec<()>>>().map(|all| all.len())
    }

    /// The file that a mark stands for, by its id; `None` when it is no mark.
    fn id_in_mark(&self, mark: &FileName) -> Option<Uuid> {
        let (mark, mut id) = (self.inner.open(mark).ok()?, [0; 16]);
        (mark.len() == to_u64(id.len())).then_some(())?;
        mark.read_at(0, &mut id).ok()?;
        Some(Uuid::from_bytes(id))
    }
}

fn count(parts: &Parts) -> u32 {
    u32::try_from(parts.len()).unwrap_or(u32::MAX)
}

/// Says that parts of the file `id`, called `file`, come or go.
fn set_mark(inner: &dyn Store, file: &FileName, id: Uuid) -> Result<()> {
    let mut mark = inner.create(&mark_of(file)?)?;
    mark.write_all(id.as_bytes())
        .map_err(|e| write_error(file.as_str(), e))?;
    mark.publish()
}

impl Store for SplitStore {
    crate::pass_on!(inner: caveats, will_reread, name, space, lock);

    fn list(&self) -> Result<Vec<Entry>> {
        let contents = self.contents()?;
        let plain = contents.plain.iter().map(|name| (name, None));
        let all = contents.parts.iter();
        let in_parts = all.filter(|(file, parts)| contents.is_in_parts(file, parts));
        let in_parts = in_parts.map(|(file, parts)| (file, Some(count(parts))));
        let entry = |(name, parts): (&FileName, _)| Entry {
            name: name.clone(),
            parts,
        };
        let mut entries: Vec<Entry> = plain.chain(in_parts).map(entry).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        if let Some(media) = self.media.as_ref().filter(|m| m.shape(name).is_some()) {
            return Ok(Arc::new(media.open(name, None)?));
        }
        match self.inner.open(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        let Some(media) = &self.media else {
            return Ok(Arc::new(self.open_parts("open", name)?));
        };
        let parts = self.parts_of(name)?;
        if parts.is_empty() {
            return Err(not_found("open", self.name(), name));
        }
        let id = parts.values().find_map(|part| self.id_of(part).ok()?);
        Ok(Arc::new(media.open(name, id)?))
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        self.create_in_parts(name, None)
    }

    fn create_in_parts(&self, name: &FileName, part_len: Option<u64>) -> Result<Box<dyn Upload>> {
        let reserved = part_of(name).is_some() || marked_by(name).is_some();
        if reserved {
            return Err(Error::new(
                ErrorKind::Destination,
                "create",
                format!("{}/{name}", self.name()),
            )
            .because("parts of other files are called so"));
        }
        if !self.parts_of(name)?.is_empty() {
            return Err(name_taken("create", self.name(), name));
        }
        let Some(part_len) = part_len else {
            return self.inner.create(name);
        };
        if part_len < MIN_PART_LEN {
            let why = format!("a part has at least {MIN_PART_LEN} bytes, not {part_len}");
            return Err(Error::new(ErrorKind::Usage, "split", name.to_string()).because(why));
        }
        if self.list()?.iter().any(|e| e.name == *name) {
            return Err(name_taken("create", self.name(), name));
        }
        let upload = SplitUpload::begin(
            Arc::clone(&self.inner),
            name.clone(),
            (self.new_id)(),
            part_len,
        )?;
        Ok(Box::new(upload))
    }

    fn part_len(&self, name: &FileName) -> Result<Option<u64>> {
        if let Some(shape) = self.shape_of(name) {
            return Ok(Some(shape.part_len));
        }
        let parts = self.parts_of(name)?;
        let Some(first) = parts.get(&1) else {
            return Ok(None);
        };
        // The part may be shorter, when it is the only one.
        let (first, mut head) = (self.inner.open(first)?, [0; HEAD_LEN]);
        first.read_at(0, &mut head)?;
        Ok(Head::decode(&head).map(|head| head.part_len))
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.inner.overwrite(name, offset, bytes) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.open_parts("overwrite", name)?.overwrite(offset, bytes)
            }
            done => done,
        }
    }

    fn part_count(&self, name: &FileName) -> Result<Option<u32>> {
        if let Some(shape) = self.shape_of(name) {
            return Ok(Some(shape.parts));
        }
        let parts = self.parts_of(name)?;
        Ok((!parts.is_empty()).then(|| count(&parts)))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        let missing = match self.inner.remove(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => e,
            done => return done,
        };
        let parts = self.parts_of(name)?;
        if parts.is_empty() {
            return Err(missing);
        }
        let subject = format!("{}/{name}", self.name());
        // Before anything goes: what stayed because it could not be read for a moment would be an image that
        // was said to be gone, and what it builds on goes next.
        let parts = match self.owners_of(&parts) {
            Err(e) if !e.is_stop() => {
                return Err(Error::new(ErrorKind::Destination, "remove", subject)
                    .because(format!("which file its parts belong to is not known: {e}"))
                    .hint("try again; nothing of it is gone"));
            }
            owners => owners?,
        };
        let Some(id) = parts.iter().find_map(|(_, owner)| *owner) else {
            return Err(Error::new(ErrorKind::Damaged, "remove", subject)
                .because("none of its parts begins as one")
                .hint("move them out of the folder by hand"));
        };
        // A store without room for a mark must not keep anything from going. Without one, what a crash
        // leaves is shown as a file whose first part is missing.
        let _ = set_mark(self.inner.as_ref(), name, id);
        self.remove_own(&parts, id)?;
        match self.inner.remove(&mark_of(name)?) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    fn clean_up(&self) -> Result<Vec<String>> {
        let mut removed = self.inner.clean_up()?;
        let contents = self.contents()?;
        for file in &contents.marks {
            let mark = mark_of(file)?;
            let id = self.id_in_mark(&mark).filter(|id| !self.is_held(*id));
            let Some(id) = id else {
                continue;
            };
            let parts = contents.parts.get(file);
            if let Some(parts) = parts.filter(|parts| contents.in_motion(file, parts)) {
                // Without the mark, a part that stays would be a file of which somebody lost the first part.
                let Ok(parts) = self.owners_of(parts) else {
                    continue;
                };
                let gone = self.remove_own(&parts, id)?;
                removed.push(format!("{gone} unfinished parts of {file}"));
            }
            self.inner.remove(&mark)?;
        }
        Ok(removed)
    }

    fn leftovers(&self) -> Result<Vec<Box<dyn Leftover>>> {
        self.unfinished()
    }

    fn paths_of(&self, names: &[&FileName]) -> Vec<PathBuf> {
        let contents = self.contents().unwrap_or_default();
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for name in names {
            match contents.parts.get(*name) {
                Some(parts) if contents.is_in_parts(name, parts) => {
                    here.extend(parts.values());
                    elsewhere.extend(self.media.iter().flat_map(|media| media.elsewhere(name)));
                }
                _ => here.push(*name),
            }
        }
        let mut paths = self.inner.paths_of(&here);
        paths.extend(elsewhere);
        paths
    }

    fn file_of(&self, name: &FileName) -> FileName {
        part_of(name).map_or_else(|| name.clone(), |(file, _)| file)
    }
}
