//! The files of a chain, a few of them open at a time.

use super::catalog::Image;
use super::lineage::Lineage;
use super::recent::Recent;
use crate::base::{Error, ErrorKind, RangeRead, Result};
use crate::image::ImageReader;
use crate::store::{FileName, Store, files_kept_open};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where too many files are open, so often and so long it is waited until others have read theirs: 3 s, and once only,
/// for whoever needs all files meets the same at each of them.
const TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(10);

/// The files of one lineage.
pub(super) struct Files {
    /// Absent for an image that stands alone.
    store: Option<Arc<dyn Store>>,
    lineage: Lineage,
    /// Places of the images in the history, ascending.
    sequences: Vec<u32>,
    open: Mutex<Recent<usize, Arc<ImageReader>>>,
    /// Whether it was waited in vain.
    gave_up: AtomicBool,
}

impl Files {
    /// Opens the youngest file of `lineage`; the others when they are needed.
    pub(super) fn open(
        store: Arc<dyn Store>,
        lineage: Lineage,
    ) -> Result<(Files, Arc<ImageReader>)> {
        let files = Files::with(Some(store), lineage);
        let image = files.reader(files.point())?;
        Ok((files, image))
    }

    /// One image that needs no other.
    pub(super) fn of(image: Arc<ImageReader>) -> Result<Files> {
        let alone = Lineage {
            images: vec![Image::of(FileName::new("image")?, &image)],
            broken: None,
        };
        let files = Files::with(None, alone);
        files.kept().put(0, image);
        Ok(files)
    }

    fn with(store: Option<Arc<dyn Store>>, lineage: Lineage) -> Files {
        Files {
            store,
            sequences: lineage.images.iter().map(|i| i.header.sequence).collect(),
            lineage,
            open: Mutex::new(Recent::new(files_kept_open())),
            gave_up: AtomicBool::new(false),
        }
    }

    pub(super) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Which file is that of the image itself.
    pub(super) fn point(&self) -> usize {
        self.lineage.images.len().saturating_sub(1)
    }

    /// The file that has what image number `since` recorded: its own, or that of the next image that is
    /// left, into which it was merged.
    pub(super) fn holder(&self, since: u32) -> Result<usize> {
        let oldest = self.lineage.images.first();
        let missing = oldest.is_some_and(|i| since <= i.header.parent_sequence());
        match (&self.lineage.broken, missing) {
            (Some(broken), true) => {
                let name = self.lineage.point().map_or("", |i| i.file.as_str());
                Err(Error::new(ErrorKind::Damaged, "read", name).because(broken.words()))
            }
            _ => Ok(self.sequences.partition_point(|s| *s < since)),
        }
    }

    /// The open file of image `link`.
    pub(super) fn reader(&self, link: usize) -> Result<Arc<ImageReader>> {
        let opened = self.kept().get(&link);
        if let Some(reader) = opened {
            return Ok(reader);
        }
        let (Some(store), Some(image)) = (&self.store, self.lineage.images.get(link)) else {
            return Err(Error::new(ErrorKind::Damaged, "read", "an image")
                .because("it refers to an image that its chain does not have"));
        };
        let file = self.opened(store.as_ref(), &image.file)?;
        let reader = Arc::new(ImageReader::open(file)?);
        if reader.root() != image.root || *reader.header() != image.header {
            return Err(Error::new(ErrorKind::Damaged, "read", reader.name())
                .because("it is another image than a moment ago")
                .hint("somebody changes the store; try again when that has ended"));
        }
        self.kept().put(link, Arc::clone(&reader));
        Ok(reader)
    }

    fn kept(&self) -> MutexGuard<'_, Recent<usize, Arc<ImageReader>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file `name`, opened; where too many are open, when others are closed.
    fn opened(&self, store: &dyn Store, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        for _ in 0..TRIES {
            match store.open(name) {
                Err(e) if e.is_out_of_files() => {
                    // Those that are being read stay open until then.
                    *self.kept() = Recent::new(files_kept_open());
                    if self.gave_up.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
        self.gave_up.store(true, Ordering::Relaxed);
        let next = "allow more open files (`ulimit -n 1024`) and try again; the image may be whole";
        store.open(name).map_err(|e| match e.is_out_of_files() {
            true => e.hint(next),
            false => e,
        })
    }

    /// The error for a page that is not where another one says it is.
    pub(super) fn misfit(&self, link: usize, level: u8, index: u64) -> Error {
        let image = self.lineage.images.get(link);
        let name = image.map_or("an image", |i| i.file.as_str());
        let page = format!("page {index} of level {level} in {name}");
        Error::new(ErrorKind::Damaged, "read", page)
            .because("it does not hold what a younger image says that it does")
    }
}
