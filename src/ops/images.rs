//! Finding images in a store or by path, and describing them.

use super::mended::Mended;
use super::piped::PIPE;
use super::{Context, stores};
use crate::base::{Cancel, Error, ErrorKind, Result};
use crate::chain::{Catalog, ChainView, Image, Lineage};
use crate::image::{Header, ImageReader, Info};
use crate::store::{FileName, LockMode, Store, StoreLock};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where images are looked for: a store, if one was named.
pub struct Library<'a> {
    context: &'a Context<'a>,
    store: Option<Arc<dyn Store>>,
    /// The stores whose damaged images are opened all the same, where that is wanted.
    mended: Option<Mutex<Vec<Arc<Mended>>>>,
}

/// An image that was found and opened.
pub struct Found {
    /// What it says of itself.
    pub image: Image,
    /// The disk that it stands for, read from its file and those it builds on.
    pub view: ChainView,
    /// Where these files are.
    pub store: Arc<dyn Store>,
    /// Where these files lie, when that is on this machine.
    pub paths: Vec<PathBuf>,
    /// Keeps whoever removes images away.
    lock: Option<StoreLock>,
}

impl Found {
    /// Fails when a part of what the image builds on is missing.
    ///
    /// # Errors
    /// `Damaged`, naming the link.
    pub fn check_lineage(&self) -> Result<()> {
        self.view.lineage().check()
    }

    /// Where its files lie now: parts may have been brought since it was opened.
    pub(super) fn paths_now(&self) -> Vec<PathBuf> {
        paths_of(&self.store, self.view.lineage())
    }

    /// Whether it was named by its path and needs no other image: nothing else in its folder matters.
    pub(super) fn is_alone(&self) -> bool {
        self.lock.is_none()
    }
}

/// What `list` and others say of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageRecord {
    /// Its id.
    pub id: String,
    /// Its parent's id; none for a full image.
    pub parent: Option<String>,
    /// `full`, `incremental` or `differential`.
    pub kind: &'static str,
    /// Name of its history.
    pub set: String,
    /// Place in it, from 1.
    pub sequence: u32,
    /// When it was begun, RFC 3339 in UTC.
    pub time: String,
    /// Length of its file; 0 while that is not known.
    pub bytes: u64,
    /// Length of the imaged disk.
    pub disk_bytes: u64,
    /// Unit of block states in bytes.
    pub block_size: u64,
    /// Root digest; empty while that is not known.
    pub root: String,
    /// Name of its file.
    pub file: String,
    /// Id of the key set that it is encrypted with; absent when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_set: Option<String>,
}

impl ImageRecord {
    pub(super) fn of(image: &Image) -> ImageRecord {
        ImageRecord {
            bytes: image.len,
            root: image.root.to_string(),
            file: image.file.to_string(),
            key_set: image.key_set.map(|id| id.to_string()),
            ..ImageRecord::begun(&image.header, &image.info)
        }
    }

    /// Of an image whose end has not come out of a pipe yet: length and root digest are not known.
    pub(super) fn begun(header: &Header, info: &Info) -> ImageRecord {
        ImageRecord {
            id: header.id.to_string(),
            parent: header.parent.map(|p| p.id.to_string()),
            kind: header.kind.name(),
            set: info.set.clone(),
            sequence: header.sequence,
            time: super::time_text(info.created),
            bytes: 0,
            disk_bytes: header.disk_len.0,
            block_size: header.block_size.bytes(),
            root: String::new(),
            file: PIPE.to_owned(),
            key_set: None,
        }
    }
}

impl<'a> Library<'a> {
    /// The images of the store at `path`; without one, only images named by path are found.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder.
    pub fn open(context: &'a Context<'a>, path: Option<&Path>) -> Result<Library<'a>> {
        let store = path.map(|path| stores::open_to_read(context, path));
        Ok(Library {
            context,
            store: store.transpose()?,
            mended: None,
        })
    }

    /// The images of `store`.
    pub fn of(context: &'a Context<'a>, store: Arc<dyn Store>) -> Library<'a> {
        Library {
            context,
            store: Some(store),
            mended: None,
        }
    }

    /// The same; images are opened also where their end, their sections or their upper table pages are damaged.
    #[must_use]
    pub(super) fn mending(mut self) -> Library<'a> {
        self.mended = Some(Mutex::default());
        self.store = self.store.take().map(|store| self.mend(store));
        self
    }

    fn mend(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        let Some(all) = &self.mended else {
            return store;
        };
        let mended = Arc::new(Mended::new(store));
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&mended));
        mended
    }

    fn will_restore(&self, file: &FileName) {
        if let Some(all) = &self.mended {
            let all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().for_each(|mended| mended.restore(file));
        }
    }

    /// What a person should know of images that could not be opened as they are.
    pub(super) fn notes(&self) -> Vec<String> {
        let Some(all) = &self.mended else {
            return Vec::new();
        };
        let all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().flat_map(|mended| mended.notes()).collect()
    }

    /// Everything in the store.
    ///
    /// # Errors
    /// `Usage` when no store was named; what listing it fails with.
    pub fn catalog(&self) -> Result<Catalog> {
        Catalog::load(self.store()?.as_ref())
    }

    /// What stops whoever reads from it.
    pub(super) fn cancel(&self) -> &Cancel {
        self.context.cancel
    }

    /// The store.
    ///
    /// # Errors
    /// `Usage` when none was named.
    pub(super) fn store(&self) -> Result<&Arc<dyn Store>> {
        self.store.as_ref().ok_or_else(without_store)
    }

    /// The image that a person means.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Locked`, or `Usage` when a store is needed and none was named.
    pub fn find(&self, wanted: &str) -> Result<Found> {
        if is_path(wanted, self.store.is_some()) {
            let (store, _, file) = place_of(self.context, Path::new(wanted))?;
            let store = self.mend(store);
            self.will_restore(&file);
            return open_file(&store, file);
        }
        let lock = lock_to_read(self.store()?.as_ref(), "reading")?;
        let mut catalog = self.catalog()?;
        let image = catalog.find(wanted, &super::time_zone())?.clone();
        if self.mended.is_some() {
            self.will_restore(&image.file);
            catalog = self.catalog()?;
        }
        let again = catalog
            .by_id(image.header.id)
            .filter(|i| i.file == image.file);
        let lineage = catalog.lineage(again.unwrap_or(&image));
        open(self.store()?, lineage, Some(lock))
    }
}

/// Whether a person means a file by `wanted`, and not an image of the store, if there `is_store`.
fn is_path(wanted: &str, is_store: bool) -> bool {
    wanted.contains('/') || (!is_store && stores::is_file(Path::new(wanted)))
}

/// The one store that images lie in which are named together.
pub(super) struct Origin {
    /// The store.
    pub(super) store: Arc<dyn Store>,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// What they are called there: for those that were named by path, their ids.
    pub(super) names: Vec<String>,
}

impl Origin {
    /// Where the images `wanted` are: in the store at `path`, or, when they are named by path, there.
    ///
    /// # Errors
    /// `Usage` without a store, or when they are not in one folder; `NotFound`; `Damaged` when a file is no
    /// image.
    pub(super) fn of(
        context: &Context<'_>,
        path: Option<&Path>,
        wanted: &[String],
    ) -> Result<Origin> {
        let mut origin: Option<Origin> = None;
        for name in wanted {
            let (store, folder, name) = match is_path(name, path.is_some()) {
                true => {
                    let (store, folder, file) = place_of(context, Path::new(name))?;
                    let id = ImageReader::open(store.open(&file)?)?.header().id;
                    (store, folder, id.to_string())
                }
                false => named_store(context, path).map(|(s, f)| (s, f, name.clone()))?,
            };
            match &mut origin {
                None => {
                    origin = Some(Origin {
                        store,
                        folder,
                        names: vec![name],
                    });
                }
                Some(origin) if origin.store.name() == store.name() => origin.names.push(name),
                Some(_) => {
                    return Err(Error::new(ErrorKind::Usage, "find image", name)
                        .because("images of two folders are not taken in one run")
                        .hint("name those of one folder first, then the others"));
                }
            }
        }
        match origin {
            Some(origin) => Ok(origin),
            None => named_store(context, path).map(|(store, folder)| Origin {
                store,
                folder,
                names: Vec::new(),
            }),
        }
    }
}

/// The store at `path`, and its folder.
fn named_store(context: &Context<'_>, path: Option<&Path>) -> Result<(Arc<dyn Store>, PathBuf)> {
    let path = path.ok_or_else(without_store)?;
    Ok((stores::open_to_read(context, path)?, path.to_owned()))
}

fn without_store() -> Error {
    Error::new(ErrorKind::Usage, "look for images", "without a store")
        .hint("say where the images are with --store FOLDER or STRATA_STORE")
}

/// Locks `store`; `what` says what for, for those who come in vain.
///
/// # Errors
/// `Locked`, `Destination`.
pub(super) fn lock(store: &dyn Store, mode: LockMode, what: &str) -> Result<StoreLock> {
    let holder = format!(
        "{}, process {}, {what}",
        crate::sys::hostname(),
        std::process::id()
    );
    store.lock(mode, &holder)
}

/// Keeps whoever removes images away as long as the lock lives.
///
/// # Errors
/// `Locked`, `Destination`.
pub(super) fn lock_to_read(store: &dyn Store, what: &str) -> Result<StoreLock> {
    lock(store, LockMode::Shared, what)
}

fn paths_of(store: &Arc<dyn Store>, lineage: &Lineage) -> Vec<PathBuf> {
    let files: Vec<&FileName> = lineage.images.iter().map(|i| &i.file).collect();
    store.paths_of(&files)
}

fn open(store: &Arc<dyn Store>, lineage: Lineage, lock: Option<StoreLock>) -> Result<Found> {
    let Some(image) = lineage.point().cloned() else {
        return Err(Error::new(ErrorKind::Internal, "open", "an empty chain"));
    };
    let paths = paths_of(store, &lineage);
    Ok(Found {
        view: ChainView::open(Arc::clone(store), lineage)?,
        image,
        store: Arc::clone(store),
        paths,
        lock,
    })
}

/// The store that the folder of the file at `path` is, that folder, and what the file is called there.
fn place_of(context: &Context<'_>, path: &Path) -> Result<(Arc<dyn Store>, PathBuf, FileName)> {
    let not_a_file = || {
        Error::new(
            ErrorKind::NotFound,
            "open image",
            path.display().to_string(),
        )
        .because("it is not the path of a file")
    };
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .ok_or_else(not_a_file)?;
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let store = stores::open_to_read(context, folder)?;
    let file = store.file_of(&FileName::new(name)?);
    Ok((store, folder.to_owned(), file))
}

/// Opens the image in `file`; what it builds on is looked for beside it.
fn open_file(store: &Arc<dyn Store>, file: FileName) -> Result<Found> {
    let reader = ImageReader::open(store.open(&file)?)?;
    let image = Image::of(file, &reader);
    let alone = image.header.parent.is_none();
    let (lineage, lock) = if alone {
        let alone = Lineage {
            images: vec![image],
            broken: None,
        };
        (alone, None)
    } else {
        let lock = lock_to_read(store.as_ref(), "reading")?;
        (Catalog::load(store.as_ref())?.lineage(&image), Some(lock))
    };
    open(store, lineage, lock)
}
