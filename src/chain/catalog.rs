//! What a store holds.

use crate::base::{Error, Result};
use crate::image::ImageReader;
use crate::store::{FileName, Store};
use std::sync::Arc;

/// What the names of image files end with.
pub const SUFFIX: &str = ".strata";

/// One image that can be opened.
#[derive(Clone)]
pub struct Image {
    /// Its file.
    pub file: FileName,
    /// The image, open.
    pub reader: Arc<ImageReader>,
}

/// A file that is called like an image and cannot be opened as one.
#[derive(Debug)]
pub struct Broken {
    /// The file.
    pub file: FileName,
    /// Why.
    pub error: Error,
}

/// Every image of a store.
pub struct Catalog {
    /// Those that can be opened, by set, then by their place in it.
    pub images: Vec<Image>,
    /// The others.
    pub broken: Vec<Broken>,
}

impl Catalog {
    /// Opens every image of `store`.
    ///
    /// # Errors
    /// When the store cannot be listed. A file that cannot be opened is no error.
    pub fn load(store: &dyn Store) -> Result<Catalog> {
        let mut catalog = Catalog {
            images: Vec::new(),
            broken: Vec::new(),
        };
        for entry in store.list()? {
            let file = entry.name;
            if !file.as_str().ends_with(SUFFIX) {
                continue;
            }
            match store.open(&file).and_then(ImageReader::open) {
                Ok(reader) => catalog.images.push(Image {
                    file,
                    reader: Arc::new(reader),
                }),
                Err(error) => catalog.broken.push(Broken { file, error }),
            }
        }
        catalog.images.sort_by(|a, b| a.key().cmp(&b.key()));
        Ok(catalog)
    }

    /// The images of the set called `name`, oldest first.
    pub fn set<'a>(&'a self, name: &str) -> std::slice::Iter<'a, Image> {
        let set_of = |image: &Image| image.reader.info().set.as_str().cmp(name);
        let start = self.images.partition_point(|i| set_of(i).is_lt());
        let end = self.images.partition_point(|i| set_of(i).is_le());
        self.images.get(start..end).unwrap_or_default().iter()
    }
}

impl Image {
    /// Sets by name, images by their place in the set. A clock decides only between images that
    /// claim the same place.
    fn key(&self) -> (&str, u64, i64, &FileName) {
        let info = self.reader.info();
        (&info.set, info.sequence, info.created, &self.file)
    }
}
