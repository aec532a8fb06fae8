//! From an image to all that it needs: its parents, link by link.

use super::catalog::{Catalog, Image};
use crate::base::{Error, ErrorKind, Result};
use crate::image::Parent;
use crate::image::limits::MAX_CHAIN;
use std::collections::HashMap;
use uuid::Uuid;

/// An image and those it builds on.
#[derive(Debug, Clone)]
pub struct Lineage {
    /// Oldest first; the last one is the image itself.
    pub images: Vec<Image>,
    /// The first link that does not hold; without one, the oldest image is a full one.
    pub broken: Option<BrokenLink>,
}

/// An image that is needed and is not there, or not the one that is meant.
#[derive(Debug, Clone)]
pub struct BrokenLink {
    /// What the younger image says of it.
    pub parent: Parent,
    /// Why it cannot be used.
    pub why: String,
}

impl Lineage {
    /// The image itself.
    pub fn point(&self) -> Option<&Image> {
        self.images.last()
    }

    /// Fails when a link is broken.
    ///
    /// # Errors
    /// `Damaged`, naming the link.
    pub fn check(&self) -> Result<()> {
        let Some(broken) = &self.broken else {
            return Ok(());
        };
        let name = self.point().map_or("an image", |i| i.file.as_str());
        Err(Error::new(ErrorKind::Damaged, "resolve", name)
            .because(broken.words())
            .hint("`strata verify` lists which images and which parts of them are lost"))
    }
}

impl BrokenLink {
    /// In words.
    pub fn words(&self) -> String {
        let Parent { id, sequence, .. } = self.parent;
        format!(
            "it builds on image {id} (number {sequence}), and {}",
            self.why
        )
    }
}

impl Catalog {
    /// `image` and all that it builds on, every link checked: id, root digest, place in the history,
    /// geometry.
    pub fn lineage(&self, image: &Image) -> Lineage {
        let mut images = vec![image.clone()];
        let mut youngest = image;
        let mut broken = None;
        while let Some(parent) = youngest.header.parent {
            let found = self.parent_of(youngest, parent);
            let found = found.and_then(|found| {
                if images.len() >= MAX_CHAIN {
                    return Err(format!("the chain has more than {MAX_CHAIN} images"));
                }
                Ok(found)
            });
            match found {
                Ok(found) => {
                    images.push(found.clone());
                    youngest = found;
                }
                Err(why) => {
                    broken = Some(BrokenLink { parent, why });
                    break;
                }
            }
        }
        images.reverse();
        Lineage { images, broken }
    }

    /// The images that cannot be read as a whole because a link is broken, and why.
    pub fn incomplete(&self) -> HashMap<Uuid, String> {
        let mut incomplete = HashMap::new();
        let mut images: Vec<&Image> = self.images.iter().collect();
        // Parents before children.
        images.sort_by_key(|i| i.header.sequence);
        for image in images {
            let Some(parent) = image.header.parent else {
                continue;
            };
            let why = match self.parent_of(image, parent) {
                Err(why) => Some(BrokenLink { parent, why }.words()),
                Ok(found) => incomplete
                    .contains_key(&found.header.id)
                    .then(|| format!("it builds on {}, which is incomplete", found.file)),
            };
            if let Some(why) = why {
                incomplete.insert(image.header.id, why);
            }
        }
        incomplete
    }

    /// The image that `child` calls its parent, or why it is none.
    fn parent_of(&self, child: &Image, parent: Parent) -> Result<&Image, String> {
        let Some(first) = self.by_id(parent.id) else {
            return Err(match self.broken.len() {
                0 => "the store does not hold it".to_owned(),
                _ => {
                    let files: Vec<&str> = self.broken.iter().map(|b| b.file.as_str()).collect();
                    format!(
                        "the store does not hold it, unless it is one of the files that cannot be \
                         opened: {}",
                        files.join(", ")
                    )
                }
            });
        };
        // Another file with the same id may lie beside it: the root digest says which one is meant.
        let meant = |image: &&Image| image.header.id == parent.id && image.root == parent.root;
        let found = match first.root == parent.root {
            true => first,
            false => self.images.iter().find(meant).unwrap_or(first),
        };
        let (old, new) = (&found.header, &child.header);
        let same_shape = old.disk_len == new.disk_len
            && old.block_size == new.block_size
            && old.window_log2 == new.window_log2;
        if found.root != parent.root {
            Err(format!("{} has that id, but another content", found.file))
        } else if old.set != new.set || old.sequence != parent.sequence {
            Err(format!(
                "{} has that id, but another place in another history",
                found.file
            ))
        } else if !same_shape {
            Err(format!("{} is of another size", found.file))
        } else {
            Ok(found)
        }
    }
}
