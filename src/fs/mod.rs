//! Which blocks of a partition are in use, and which files hold given bytes of it?
//!
//! Promises: over-report, never under-report; whoever is unsure answers [`Certainty::Unknown`] and
//! the whole partition is taken. Decoders take bytes; nothing is ever written to a source. Must not
//! know: where a partition lies on its disk, images, change detection.
//!
//! Each format is a folder: `disk.rs` decodes bytes, `walk.rs` builds the map, `files.rs` finds files,
//! `mod.rs` is its `Reader`. `probe` decides which reader is asked. Everything is in use until a reader has
//! proven it free (`map::MapBuilder`); whatever a reader does not understand it answers with a
//! `doubt::Doubt`, and then everything is taken.

mod bitlocker;
mod btrfs;
mod checksum;
mod doubt;
mod exfat;
mod ext;
mod f2fs;
mod fat;
mod files;
mod layer;
mod luks;
mod lvm;
mod map;
mod md;
mod named;
mod ntfs;
mod pages;
mod probe;
mod raw;
mod readonly;
mod report;
mod swap;
mod volume;
mod xfs;

pub use files::{FileHit, Hit, MAX_LISTED, files_hit};
pub use report::{Certainty, Content, ContentKind, Inside, UsedReport};

use crate::base::{Cancel, Result};
use crate::block::BlockSource;
use doubt::Doubt;
use files::Search;
use map::MapBuilder;
use volume::Volume;

/// What a reader recognises a volume as.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// The name that people know it by, as exactly as the signature tells: "ext4", "LUKS2".
    kind: String,
    /// Its label, if it has one.
    label: Option<String>,
}

/// What a reader says is in use.
#[derive(Debug)]
struct Used {
    /// What is free; all else is in use.
    map: MapBuilder,
    /// For people, what the map rests on, when that is more than its allocation metadata: "encrypted:
    /// all of it is in use", "its journal was replayed in memory".
    basis: Option<String>,
    /// What a person should know although the map is certain.
    notes: Vec<String>,
    /// Content that a person may want to leave out.
    contents: Vec<Content>,
    /// Volumes inside, each with its own answer.
    inside: Vec<Inside>,
}

impl Used {
    /// The plain answer: a map from allocation metadata.
    fn mapped(map: MapBuilder) -> Used {
        Used {
            map,
            basis: None,
            notes: Vec::new(),
            contents: Vec::new(),
            inside: Vec::new(),
        }
    }

    /// All of `volume` is in use by the nature of what it holds, for the reason `basis`.
    fn whole(volume: &Volume<'_>, basis: impl Into<String>) -> Used {
        Used {
            basis: Some(basis.into()),
            ..Used::mapped(MapBuilder::new(volume.len(), volume.len()))
        }
    }
}

/// Reads one format.
///
/// # Contract
/// - `probe` looks at primary signatures and at whether the structure behind them is plausible; it
///   reads at most a few hundred KiB.
/// - `used` never leaves out a byte in use. Anything it does not understand (an unknown feature, a
///   count that does not add up, a journal to replay) is a [`Doubt::Unsure`] whose text ends the
///   sentence "all blocks are taken: …".
/// - `files` tells of everything that it finds on a volume that may be damaged or partly unreadable,
///   and what it cannot see it gives as a reason, to `search` or as a doubt.
/// - None ever panics, loops without bound or holds more than about 32 MiB beside the map,
///   whatever bytes the volume holds.
trait Reader: Sync {
    /// What the volume is, if this reader knows it.
    ///
    /// # Errors
    /// A doubt when the place of the signature cannot be read.
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt>;

    /// What is in use. Only called after `probe` has recognised the volume.
    ///
    /// # Errors
    /// A doubt: all of it is taken.
    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt>;

    /// Who holds the bytes that `search` looks for. Only called after `probe` has recognised the volume.
    ///
    /// # Errors
    /// A doubt that ends the walk: what was not claimed before is unknown.
    fn files(&self, _volume: &Volume<'_>, _search: &mut Search) -> Result<(), Doubt> {
        Err(Doubt::new(
            "the files in it cannot be named: its directories are not read",
        ))
    }

    /// Whether what `probe` recognised holds another format whose signature may show at the
    /// volume's start, such as an array with its superblock at the end.
    fn shows_inner_signature(&self) -> bool {
        false
    }
}

/// Every format, containers first.
const READERS: &[&dyn Reader] = &[
    &md::AtEnd,
    &md::AtStart,
    &named::Drbd,
    &luks::Luks,
    &bitlocker::BitLocker,
    &lvm::Lvm2,
    &btrfs::Btrfs,
    &exfat::Exfat,
    &ext::Ext,
    &f2fs::F2fs,
    &fat::Fat,
    &named::Named,
    &ntfs::Ntfs,
    &readonly::Erofs,
    &readonly::Iso9660,
    &readonly::Squashfs,
    &swap::Swap,
    &xfs::Xfs,
];

/// What is in use in `partition`.
///
/// # Errors
/// `Interrupted` or `Terminated` when cancelled. A medium that fails under metadata is no error:
/// then everything counts as used, and the report says why.
pub fn used(partition: &dyn BlockSource, cancel: &Cancel) -> Result<UsedReport> {
    probe::look_into(&Volume::new(partition, cancel), READERS)
}

/// What `partition` is, without a used map: everything counts as used.
///
/// # Errors
/// `Interrupted` or `Terminated` when cancelled.
pub fn recognise(partition: &dyn BlockSource, cancel: &Cancel) -> Result<UsedReport> {
    probe::recognise_only(&Volume::new(partition, cancel), READERS)
}
