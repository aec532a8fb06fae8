//! On which image a new one builds. Pure.

use super::catalog::{Catalog, Image};
use super::lineage::Lineage;
use crate::base::{BlockSize, ByteLen};
use crate::image::{HealedInfo, Kind, SourceInfo};
use uuid::Uuid;

/// What a person asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// Incremental where that is possible, else full.
    #[default]
    Auto,
    /// A full image.
    Full,
    /// Against the newest image of the set.
    Incremental,
    /// Against the last full one.
    Differential,
}

/// The disk that is to be imaged.
pub struct Disk<'a> {
    /// Its length.
    pub len: ByteLen,
    /// The unit of block states that was asked for.
    pub block_size: Option<BlockSize>,
    /// Exponent of the number of blocks in a frame window, for a block size.
    pub window_log2: &'a dyn Fn(BlockSize) -> u8,
    /// Why the disk that an image is of is another one; `None` when it is the same.
    pub differs: &'a dyn Fn(&SourceInfo) -> Option<String>,
    /// When the last verification found an image damaged, in seconds since 1970 UTC.
    pub damaged: &'a dyn Fn(Uuid) -> Option<i64>,
}

/// What will be made, and why.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Full, incremental or differential.
    pub kind: Kind,
    /// The image to build on and all that it needs.
    pub parent: Option<Lineage>,
    /// Why, in plain words.
    pub reason: String,
    /// Whether that is something else than what was asked for.
    pub unexpected: bool,
    /// What was found damaged of the parent and what it needs, and that no image of it has stored again: the
    /// new one has to.
    pub damaged: Vec<HealedInfo>,
}

/// Decides what the next image of a history, `set` from oldest to newest, will be.
pub fn choose(catalog: &Catalog, set: &[Image], wish: Wish, disk: &Disk<'_>) -> Choice {
    let full = |reason: String, unexpected: bool| Choice {
        kind: Kind::Full,
        parent: None,
        reason,
        unexpected,
        damaged: Vec::new(),
    };
    if wish == Wish::Full {
        return full("asked for".to_owned(), false);
    }
    let Some(newest) = set.last() else {
        return full("the set has no image yet".to_owned(), false);
    };
    match parent_of(catalog, newest, wish, disk) {
        Ok((kind, parent)) => {
            let damaged = damaged_of(&parent, disk);
            let name = parent.point().map_or(0, |i| i.header.sequence);
            let mut reason = match kind {
                Kind::Differential => format!("against number {name}, the last full image"),
                Kind::Incremental | Kind::Full => {
                    format!("against number {name}, the newest image of the set")
                }
            };
            if !damaged.is_empty() {
                reason.push_str("; what is damaged of it is stored again");
            }
            Choice {
                kind,
                parent: Some(parent),
                reason,
                unexpected: false,
                damaged,
            }
        }
        Err(why) => full(why, true),
    }
}

/// The parent, or why there is none.
fn parent_of(
    catalog: &Catalog,
    newest: &Image,
    wish: Wish,
    disk: &Disk<'_>,
) -> Result<(Kind, Lineage), String> {
    let header = &newest.header;
    if let Some(why) = (disk.differs)(&newest.info.source) {
        return Err(format!("it is another disk than before: {why}"));
    }
    if header.disk_len != disk.len {
        return Err(format!(
            "the disk has {} bytes now and had {}",
            disk.len.0, header.disk_len.0
        ));
    }
    let block_size = disk.block_size.unwrap_or(header.block_size);
    if block_size != header.block_size {
        return Err(format!(
            "blocks of {} bytes were asked for, and the set has {}",
            block_size.bytes(),
            header.block_size.bytes()
        ));
    }
    if (disk.window_log2)(block_size) != header.window_log2 {
        return Err("the set was made with frames of another size".to_owned());
    }
    let mut lineage = catalog.lineage(newest);
    if let Some(broken) = &lineage.broken {
        return Err(format!(
            "the newest image ({}) cannot be built on: {}",
            newest.file,
            broken.words()
        ));
    }
    let kind = match wish {
        Wish::Differential => {
            lineage.images.truncate(1);
            Kind::Differential
        }
        Wish::Auto | Wish::Full | Wish::Incremental => Kind::Incremental,
    };
    let sequence = lineage.point().map_or(0, |i| i.header.sequence);
    if lineage.images.len() >= crate::image::limits::MAX_CHAIN || sequence == u32::MAX {
        return Err("the chain has reached its greatest length".to_owned());
    }
    Ok((kind, lineage))
}

/// The damage in `lineage` that none of its images has stored again since it was found.
fn damaged_of(lineage: &Lineage, disk: &Disk<'_>) -> Vec<HealedInfo> {
    let found = lineage.images.iter().filter_map(|image| {
        let image = image.header.id;
        (disk.damaged)(image).map(|found| HealedInfo { image, found })
    });
    let healed = |damage: &HealedInfo| {
        let infos = lineage.images.iter().flat_map(|i| &i.info.healed);
        let mut same = infos.filter(|h| h.image == damage.image);
        same.any(|h| h.found >= damage.found)
    };
    found.filter(|damage| !healed(damage)).collect()
}
