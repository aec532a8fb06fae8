//! Parts on media that hold some of them each, and of which perhaps one fits at a time: what is not there
//! is asked for when it is needed.

use super::ends::{Ends, Shape, Unfit};
use super::part::{name_of_part, part_of};
use crate::base::{Error, ErrorKind, RangeRead, Result};
use crate::store::{FileName, LocalStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Parts kept open at a time: threads work on neighbours.
const OPEN: usize = 4;

/// As long as parts are read within this time, others are still at what they can reach.
const PAUSE: Duration = Duration::from_millis(200);

/// A part that is needed and was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPart {
    /// The file that it is a part of.
    pub file: String,
    /// What it is called; `None` for the last part of the file, whose number nobody knows yet.
    pub part: Option<String>,
    /// Where it was looked for.
    pub folders: Vec<String>,
    /// What is called so and is not it, and why; each a sentence.
    pub wrong: Vec<String>,
}

/// What somebody did to bring a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought {
    /// It may be now where it was looked for.
    There,
    /// It is in this folder.
    In(PathBuf),
}

/// Whoever can bring a part that is not there: a person who changes media.
pub trait PartBringer: Send + Sync {
    /// Waits for `wanted`. Asked for one part at a time, and again as long as what comes is not it.
    ///
    /// # Errors
    /// When it will not come, which is the end of the run: no reader takes it for damage.
    fn bring(&self, wanted: &WantedPart) -> Result<Brought>;
}

/// Which part of a file.
#[derive(Clone, Copy)]
enum Which {
    Number(u32),
    /// The one that says that none follows.
    Last,
}

/// The media of a store.
pub(super) struct Media {
    bringer: Arc<dyn PartBringer>,
    /// Where parts are looked for first.
    home: Arc<dyn Store>,
    state: Mutex<State>,
    /// Held by the one who asks.
    asking: Mutex<()>,
    /// Reads that are done.
    reads: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Where parts were found that are not at home, the latest last.
    folders: Vec<PathBuf>,
    /// Parts that were found there.
    elsewhere: BTreeSet<(FileName, PathBuf)>,
    /// Files whose first and last part were seen.
    shapes: BTreeMap<FileName, Shape>,
    /// The latest last.
    open: Vec<(FileName, u32, Arc<dyn RangeRead>)>,
}

impl Media {
    pub(super) fn new(home: Arc<dyn Store>, bringer: Arc<dyn PartBringer>) -> Media {
        Media {
            bringer,
            home,
            state: Mutex::default(),
            asking: Mutex::default(),
            reads: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of `file`, if its ends were seen.
    pub(super) fn shape(&self, file: &FileName) -> Option<Shape> {
        self.state().shapes.get(file).copied()
    }

    /// The parts of `file` that were found elsewhere than at home.
    pub(super) fn elsewhere(&self, file: &FileName) -> Vec<PathBuf> {
        let state = self.state();
        let own = state.elsewhere.iter().filter(|(name, _)| name == file);
        own.map(|(_, path)| path.clone()).collect()
    }

    /// Opens `file` by its first and its last part; `id` is that of a part which is at home.
    ///
    /// # Errors
    /// What the bringer returns.
    pub(super) fn open(self: &Arc<Media>, file: &FileName, id: Option<Uuid>) -> Result<MediaFile> {
        let known = self.shape(file);
        let shape = match known {
            Some(shape) => shape,
            None => self.look_at_ends(file, id)?,
        };
        self.state().shapes.insert(file.clone(), shape);
        Ok(MediaFile {
            name: format!("{}/{file}", self.home.name()),
            media: Arc::clone(self),
            file: file.clone(),
            shape,
        })
    }

    fn look_at_ends(&self, file: &FileName, id: Option<Uuid>) -> Result<Shape> {
        // Only the ends are kept: its medium may have to make room for the one with the last.
        let fits = |part: &Ends| part.check_place(part.head.part_len);
        let first = self.obtain(file, Which::Number(1), id, &fits)?.ends;
        let last = match first.is_last() {
            true => None,
            false => {
                let fits = |part: &Ends| Shape::of(&first.head, part).map(drop);
                let id = Some(first.head.id);
                Some(self.obtain(file, Which::Last, id, &fits)?.ends)
            }
        };
        let shape = Shape::of(&first.head, last.as_ref().unwrap_or(&first));
        shape.map_err(|unfit| self.unusable(file, &unfit))
    }

    fn unusable(&self, file: &FileName, unfit: &Unfit) -> Error {
        let subject = format!("{}/{file}", self.home.name());
        Error::new(ErrorKind::Damaged, "open", subject).because(unfit.words())
    }

    /// A part from where it is, or from where somebody brings it to.
    fn obtain(
        &self,
        file: &FileName,
        which: Which,
        id: Option<Uuid>,
        fits: Fits,
    ) -> Result<FoundPart> {
        if let Ok(part) = self.look(file, which, id, fits) {
            return Ok(part);
        }
        let _one = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been brought to another while this one waited.
        let mut found = self.look(file, which, id, fits);
        loop {
            let wrong = match found {
                Ok(part) => return Ok(part),
                Err(wrong) => wrong,
            };
            self.let_go();
            found = match self.bringer.bring(&self.wanted(file, which, wrong)?)? {
                Brought::There => self.look(file, which, id, fits),
                Brought::In(folder) => self.look_in_folder(&folder, file, which, id, fits),
            };
        }
    }

    fn wanted(&self, file: &FileName, which: Which, wrong: Vec<String>) -> Result<WantedPart> {
        let part = match which {
            Which::Number(number) => Some(name_of_part(file, number)?.to_string()),
            Which::Last => None,
        };
        let state = self.state();
        let others = state.folders.iter().map(|f| f.display().to_string());
        Ok(WantedPart {
            file: file.to_string(),
            part,
            folders: std::iter::once(self.home.name().to_owned())
                .chain(others)
                .collect(),
            wrong,
        })
    }

    /// Closes all that would keep a medium from being taken out, when the other threads have done what they
    /// can do without the part that is asked for.
    pub(super) fn let_go(&self) {
        loop {
            let before = self.reads.load(Ordering::Relaxed);
            std::thread::sleep(PAUSE);
            if self.reads.load(Ordering::Relaxed) == before {
                break;
            }
        }
        self.state().open.clear();
    }

    /// Looks at home and wherever parts were found. What is called like the part and is not it, is told.
    fn look(
        &self,
        file: &FileName,
        which: Which,
        id: Option<Uuid>,
        fits: Fits,
    ) -> Result<FoundPart, Vec<String>> {
        let mut wrong = Vec::new();
        match look_in(self.home.as_ref(), file, which, id, fits) {
            Ok(part) => return Ok(part),
            Err(why) => wrong.extend(why),
        }
        let folders = self.state().folders.clone();
        for folder in folders.iter().rev() {
            let Ok(store) = LocalStore::open(folder) else {
                continue;
            };
            match look_in(&store, file, which, id, fits) {
                Ok(part) => {
                    self.found(folder, &store, file, &part.ends);
                    return Ok(part);
                }
                Err(why) => wrong.extend(why),
            }
        }
        Err(wrong)
    }

    /// Looks in a folder that somebody named, and keeps it in mind when the part is there.
    fn look_in_folder(
        &self,
        folder: &Path,
        file: &FileName,
        which: Which,
        id: Option<Uuid>,
        fits: Fits,
    ) -> Result<FoundPart, Vec<String>> {
        let store = LocalStore::open(folder).map_err(|e| vec![e.to_string()])?;
        let part = look_in(&store, file, which, id, fits).map_err(|why| {
            let what = match which {
                Which::Number(number) => format!("part {number} of {file}"),
                Which::Last => format!("the last part of {file}"),
            };
            let none = || format!("{what} is not in {}", store.name());
            vec![why.unwrap_or_else(none)]
        })?;
        self.found(folder, &store, file, &part.ends);
        Ok(part)
    }

    fn found(&self, folder: &Path, store: &LocalStore, file: &FileName, part: &Ends) {
        let mut state = self.state();
        state.folders.retain(|known| known != folder);
        state.folders.push(folder.to_owned());
        let paths = name_of_part(file, part.head.number).map(|name| store.paths_of(&[&name]));
        let paths = paths.into_iter().flatten();
        state
            .elsewhere
            .extend(paths.map(|path| (file.clone(), path)));
    }

    /// Part `number` of `file`, if it is open.
    fn open_part(&self, file: &FileName, number: u32) -> Option<Arc<dyn RangeRead>> {
        let state = self.state();
        let mut open = state.open.iter();
        let (.., part) = open.find(|(of, which, _)| of == file && *which == number)?;
        Some(Arc::clone(part))
    }

    /// Part `number` of `file`, open.
    fn part(&self, file: &FileName, shape: &Shape, number: u32) -> Result<Arc<dyn RangeRead>> {
        if let Some(part) = self.open_part(file, number) {
            return Ok(part);
        }
        let is_it = |open: &(FileName, u32, _)| open.0 == *file && open.1 == number;
        let which = Which::Number(number);
        let part = self.obtain(file, which, Some(shape.id), &|part| shape.check(part))?;
        let mut state = self.state();
        state.open.retain(|open| !is_it(open));
        if state.open.len() == OPEN {
            state.open.remove(0);
        }
        state
            .open
            .push((file.clone(), number, Arc::clone(&part.bytes)));
        Ok(part.bytes)
    }

    fn read(
        &self,
        file: &FileName,
        shape: &Shape,
        (number, at): (u32, u64),
        buf: &mut [u8],
    ) -> Result<()> {
        if self.part(file, shape, number)?.read_at(at, buf).is_err() {
            // Perhaps its medium has gone; if it is still there, it says once more what is wrong.
            let is_it = |open: &(FileName, u32, _)| open.0 == *file && open.1 == number;
            self.state().open.retain(|open| !is_it(open));
            self.part(file, shape, number)?.read_at(at, buf)?;
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A part where it is.
struct FoundPart {
    ends: Ends,
    bytes: Arc<dyn RangeRead>,
}

/// Whether a part is the one that is wanted.
type Fits<'a> = &'a dyn Fn(&Ends) -> Result<(), Unfit>;

/// Looks for a part of `file` in `store`. Without one, says what is called so and is not it, if anything is.
fn look_in(
    store: &dyn Store,
    file: &FileName,
    which: Which,
    id: Option<Uuid>,
    fits: Fits,
) -> Result<FoundPart, Option<String>> {
    let told = |e: Error| (e.kind() != ErrorKind::NotFound).then(|| e.to_string());
    let number = match which {
        Which::Number(number) => number,
        Which::Last => highest(store, file).map_err(told)?.ok_or(None)?,
    };
    let name = name_of_part(file, number).map_err(told)?;
    let bytes = store.open(&name).map_err(told)?;
    let ends = Ends::of(bytes.as_ref(), number, id);
    if matches!(which, Which::Last) && ends.as_ref().is_ok_and(|ends| !ends.is_last()) {
        // Another part, which is nobody's mistake.
        return Err(None);
    }
    let ends = ends.and_then(|ends| fits(&ends).map(|()| ends));
    match ends {
        Ok(ends) => Ok(FoundPart { ends, bytes }),
        Err(unfit) => Err(Some(format!(
            "{name} in {} {}",
            store.name(),
            unfit.words()
        ))),
    }
}

/// The highest number of a part of `file` in `store`.
fn highest(store: &dyn Store, file: &FileName) -> Result<Option<u32>> {
    let names = store.list()?.into_iter().filter_map(|e| part_of(&e.name));
    let numbers = names.filter(|(of, _)| of == file).map(|(_, number)| number);
    Ok(numbers.max())
}

/// A file whose parts are looked for when they are read.
pub(super) struct MediaFile {
    media: Arc<Media>,
    file: FileName,
    name: String,
    shape: Shape,
}

impl RangeRead for MediaFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.shape.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len();
        self.shape
            .each_piece(&self.name, offset, len, |number, at, piece| {
                let piece = &mut buf[piece];
                self.media
                    .read(&self.file, &self.shape, (number, at), piece)
            })
    }

    /// Only of parts that are open: nobody is asked for others before they are read.
    fn will_need(&self, offset: u64, len: u64) {
        self.shape.each_within(offset, len, |number, at, len| {
            if let Some(part) = self.media.open_part(&self.file, number) {
                part.will_need(at, len);
            }
        });
    }

    /// Parts that are not open count as if they were: reading them ahead, several at once, would ask for a medium
    /// while another one is read.
    fn is_cached(&self, offset: u64, len: u64) -> bool {
        let mut all = true;
        self.shape.each_within(offset, len, |number, at, len| {
            let part = self.media.open_part(&self.file, number);
            all &= part.is_none_or(|part| part.is_cached(at, len));
        });
        all
    }
}
