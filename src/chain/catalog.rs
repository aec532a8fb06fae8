//! What a store holds.

use super::replacing::replacements_in;
use crate::base::{Digest, Error, ErrorKind, KeySetId, Result};
use crate::image::{Header, ImageReader, Info};
use crate::store::{FileName, Store, files_kept_open};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// What the names of image files end with.
pub const SUFFIX: &str = ".strata";

/// One image that can be opened, and what it says of itself. Holds no open file: a store may have
/// more images than a process may have files.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its file.
    pub file: FileName,
    /// Length of the file in bytes.
    pub len: u64,
    /// Identity and geometry.
    pub header: Header,
    /// The root digest.
    pub root: Digest,
    /// The key set that its file is encrypted with.
    pub key_set: Option<KeySetId>,
    /// What was known when it was begun.
    pub info: Arc<Info>,
}

impl Image {
    /// What `reader`, an image in the file called `file`, says of itself.
    pub fn of(file: FileName, reader: &ImageReader) -> Image {
        Image {
            file,
            len: reader.file_len(),
            header: reader.header().clone(),
            root: reader.root(),
            key_set: reader.key_set(),
            info: reader.shared_info(),
        }
    }

    /// Whether `other` is the same image in another file, and this file needs fewer images beside it:
    /// a merge made it to take the other one's place.
    pub fn replaces(&self, other: &Image) -> bool {
        let (new, old) = (&self.header, &other.header);
        new.id == old.id && self.root == other.root && new.parent_sequence() < old.parent_sequence()
    }
}

/// A file that is called like an image and cannot be opened as one.
#[derive(Debug)]
pub struct Broken {
    /// The file.
    pub file: FileName,
    /// Why.
    pub error: Error,
}

impl Broken {
    /// Whether only a key is missing.
    pub fn is_locked(&self) -> bool {
        self.error.kind() == ErrorKind::WrongKey
    }
}

/// Files opened at a time, and how many one thread opens by itself: each takes a few small reads, one
/// after the other, for which a server far away takes its time. Most openers only wait.
const OPENERS: usize = 32;
const SHARE: usize = 16;

/// How often a store is listed when files go while they are opened.
const ROUNDS: u32 = 10;

/// Opens `files`, in their order.
fn open_all(store: &dyn Store, files: Vec<FileName>) -> Vec<(FileName, Result<Image>)> {
    let open = |file: FileName| {
        let reader = store.open(&file).and_then(ImageReader::open);
        let image = reader.map(|r| Image::of(file.clone(), &r));
        (file, image)
    };
    let share = files
        .len()
        .div_ceil(OPENERS.min(files_kept_open()))
        .max(SHARE);
    let mut rest = files;
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        while rest.len() > share {
            let part = rest.split_off(rest.len() - share);
            let opened = scope.spawn(move || part.into_iter().map(open).collect::<Vec<_>>());
            others.push(opened);
        }
        let mut all: Vec<_> = rest.into_iter().map(open).collect();
        for part in others.into_iter().rev() {
            match part.join() {
                Ok(opened) => all.extend(opened),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

/// Every image of a store.
pub struct Catalog {
    /// Those that can be opened, by set, then by their place in it.
    pub images: Vec<Image>,
    /// Those that are there in another file too, which counts: a merge was interrupted before it removed
    /// them, or a copy before it was sure of them.
    pub replaced: Vec<Image>,
    /// Those that cannot be opened.
    pub broken: Vec<Broken>,
    /// Those that must not be opened: they are of other key sets than a person asked for.
    pub refused: Vec<Broken>,
    /// Where in `images` which id is.
    ids: HashMap<Uuid, usize>,
}

impl Catalog {
    /// Opens every image of `store`.
    ///
    /// # Errors
    /// When the store cannot be listed, keys cannot be had at all, or somebody stopped the run. A file that
    /// cannot be opened is no error.
    pub fn load(store: &dyn Store) -> Result<Catalog> {
        let mut catalog = Catalog::load_once(store)?;
        for _ in 1..ROUNDS {
            if catalog.unopened().next().is_none() {
                break;
            }
            // A file that has gone since the store was listed is not broken: another run has removed it, and may
            // have put something else in its place.
            let there: HashSet<FileName> = store.list()?.into_iter().map(|e| e.name).collect();
            if catalog.unopened().all(|b| there.contains(&b.file)) {
                break;
            }
            catalog = Catalog::load_once(store)?;
        }
        Ok(catalog)
    }

    fn load_once(store: &dyn Store) -> Result<Catalog> {
        let mut files: Vec<FileName> = store.list()?.into_iter().map(|e| e.name).collect();
        let begun = replacements_in(store, &files);
        files.retain(|name| name.as_str().ends_with(SUFFIX));
        let (mut images, mut broken, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (file, opened) in open_all(store, files) {
            match opened {
                Ok(image) => images.push(image),
                // Nothing is wrong with the file.
                Err(error)
                    if error.is_stop()
                        || error.is_out_of_files()
                        || error.kind() == ErrorKind::Usage =>
                {
                    return Err(error);
                }
                Err(error) if error.kind() == ErrorKind::Refused => {
                    refused.push(Broken { file, error });
                }
                Err(error) => broken.push(Broken { file, error }),
            }
        }
        // A file that is written to replace another counts when that one is gone, and not before.
        let is_early = |i: &Image| begun.iter().any(|b| b.is_under_way(i, &images));
        let early: Vec<FileName> = images
            .iter()
            .filter(|i| is_early(i))
            .map(|i| i.file.clone())
            .collect();
        let (early, images) = images.into_iter().partition(|i| early.contains(&i.file));
        let mut catalog = Catalog::of(images, broken);
        catalog.refused = refused;
        catalog.replaced.extend::<Vec<Image>>(early);
        Ok(catalog)
    }

    /// A catalog of `images` in any order.
    pub fn of(mut images: Vec<Image>, broken: Vec<Broken>) -> Catalog {
        images.sort_by(|a, b| a.key().cmp(&b.key()));
        // Copies of one image stand side by side; the one that needs least comes first.
        let mut replaced = Vec::new();
        let mut kept: Vec<Image> = Vec::new();
        for image in images {
            match kept.last() {
                Some(last) if last.replaces(&image) => replaced.push(image),
                _ => kept.push(image),
            }
        }
        let mut ids = HashMap::new();
        for (i, image) in kept.iter().enumerate() {
            ids.entry(image.header.id).or_insert(i);
        }
        Catalog {
            images: kept,
            replaced,
            broken,
            refused: Vec::new(),
            ids,
        }
    }

    /// This catalog with `image`, in place of the file that it had for it until now, if any.
    pub fn with(self, image: Image) -> Catalog {
        let mut images = self.images;
        images.retain(|i| i.header.id != image.header.id);
        images.push(image);
        let replaced = self.replaced;
        Catalog {
            replaced,
            ..Catalog::of(images, self.broken)
        }
    }

    /// The files that cannot or must not be opened.
    pub(super) fn unopened(&self) -> impl Iterator<Item = &Broken> {
        self.broken.iter().chain(&self.refused)
    }

    /// The files of all images, whether they can be opened or not.
    pub fn files(&self) -> impl Iterator<Item = &FileName> {
        let opened = self.images.iter().chain(&self.replaced).map(|i| &i.file);
        opened.chain(self.unopened().map(|b| &b.file))
    }

    /// The image with this id.
    pub fn by_id(&self, id: Uuid) -> Option<&Image> {
        self.images.get(*self.ids.get(&id)?)
    }

    /// The images whose parent is `id`.
    pub fn children(&self, id: Uuid) -> impl Iterator<Item = &Image> {
        let is_child = move |image: &&Image| image.header.parent.is_some_and(|p| p.id == id);
        self.images.iter().filter(is_child)
    }

    /// The images of the set called `name`, oldest first.
    pub fn set(&self, name: &str) -> &[Image] {
        let set_of = |image: &Image| image.info.set.as_str().cmp(name);
        let start = self.images.partition_point(|i| set_of(i).is_lt());
        let end = self.images.partition_point(|i| set_of(i).is_le());
        self.images.get(start..end).unwrap_or_default()
    }

    /// The newest image of each set.
    pub fn newest_of_sets(&self) -> Vec<&Image> {
        let sets = self.images.chunk_by(|a, b| a.info.set == b.info.set);
        sets.filter_map(|set| set.last()).collect()
    }
}

impl Image {
    /// Sets by name, images by their place in the set; of copies, the one with the oldest parent first.
    /// A clock decides only between images that claim the same place.
    fn key(&self) -> (&str, Uuid, u32, i64, Uuid, u32, &FileName) {
        let (header, info) = (&self.header, &self.info);
        (
            &info.set,
            header.set,
            header.sequence,
            info.created,
            header.id,
            header.parent_sequence(),
            &self.file,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{id, point};
    use super::*;

    #[test]
    fn an_image_that_is_put_in_takes_the_place_of_its_old_file() {
        let catalog = Catalog::of(vec![point(1, 0), point(2, 1)], Vec::new());
        let moved = Image {
            file: FileName::new("moved.strata").unwrap(),
            ..point(1, 0)
        };
        let catalog = catalog.with(moved).with(point(3, 2));
        let files: Vec<&str> = catalog.images.iter().map(|i| i.file.as_str()).collect();
        assert_eq!(files, ["moved.strata", "2.strata", "3.strata"]);
        let found = catalog.by_id(id(1)).map(|i| i.file.as_str());
        assert_eq!(found, Some("moved.strata"));
    }
}
