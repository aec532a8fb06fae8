//! Finding images in a store or by path, and describing them.

use crate::base::{Error, ErrorKind, Result};
use crate::chain::{Catalog, Image};
use crate::image::ImageReader;
use crate::store::{FileName, LocalStore, Store};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where images are looked for: a store, if one was named.
pub struct Library {
    store: Option<LocalStore>,
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
    pub sequence: u64,
    /// When it was begun, RFC 3339 in UTC.
    pub time: String,
    /// Length of its file.
    pub bytes: u64,
    /// Length of the imaged disk.
    pub disk_bytes: u64,
    /// Unit of block states in bytes.
    pub block_size: u64,
    /// Root digest.
    pub root: String,
    /// Name of its file.
    pub file: String,
}

impl ImageRecord {
    pub(super) fn of(image: &Image) -> ImageRecord {
        let (header, info) = (image.reader.header(), image.reader.info());
        ImageRecord {
            id: header.id.to_string(),
            parent: header.parent.map(|p| p.id.to_string()),
            kind: header.kind.name(),
            set: info.set.clone(),
            sequence: info.sequence,
            time: super::time_text(info.created),
            bytes: image.reader.file_len(),
            disk_bytes: header.disk_len.0,
            block_size: header.block_size.bytes(),
            root: image.reader.root().to_string(),
            file: image.file.to_string(),
        }
    }
}

impl Library {
    /// The images of the store at `path`; without one, only images named by path are found.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder.
    pub fn open(path: Option<&Path>) -> Result<Library> {
        Ok(Library {
            store: path.map(LocalStore::open).transpose()?,
        })
    }

    /// Everything in the store.
    ///
    /// # Errors
    /// `Usage` when no store was named; what listing it fails with.
    pub fn catalog(&self) -> Result<Catalog> {
        Catalog::load(self.store()?)
    }

    fn store(&self) -> Result<&LocalStore> {
        self.store.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Usage, "look for images", "without a store")
                .hint("say where the images are with --store FOLDER or STRATA_STORE")
        })
    }

    /// The image that a person means, and where its file lies.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, or `Usage` when a store is needed and none was named.
    pub fn find(&self, wanted: &str) -> Result<(Image, Option<PathBuf>)> {
        let path = Path::new(wanted);
        if wanted.contains('/') || (self.store.is_none() && path.is_file()) {
            return open_path(path).map(|image| (image, Some(path.to_owned())));
        }
        let store = self.store()?;
        let catalog = Catalog::load(store)?;
        let image = catalog.find(wanted)?.clone();
        let path = store.path_of(&image.file);
        Ok((image, path))
    }
}

/// Opens the image file at `path`, wherever it lies.
fn open_path(path: &Path) -> Result<Image> {
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
    let file = FileName::new(name)?;
    let reader = ImageReader::open(LocalStore::open(folder)?.open(&file)?)?;
    Ok(Image {
        file,
        reader: Arc::new(reader),
    })
}
