//! Images as history: which ones a store holds, which one a person means, what the next one builds on,
//! which may go and how, and any of them as a disk.
//!
//! Promises: the files are the only truth; order comes from parents, never from clocks; what is broken
//! is listed, never hidden, and never keeps whole images from being used. Must not know: devices,
//! targets, how images are written.

mod catalog;
mod changed;
mod clock;
mod diff;
mod files;
mod lineage;
mod merging;
mod parent;
mod recent;
mod records;
mod removal;
mod replacing;
pub mod retention;
mod select;
#[cfg(test)]
pub(crate) mod testing;
mod trust;
mod view;

pub use catalog::{Broken, Catalog, Image, SUFFIX};
pub use changed::changed;
pub use clock::{Doubt, doubts};
pub use diff::{Difference, diff};
pub use lineage::{BrokenLink, Lineage};
pub use merging::{BegunMerge, begin_merge, begun_merges, end_merge};
pub use parent::{Choice, Disk, Wish, choose};
pub use records::{How, Protection, Records, VerifiedRecord, protect, record_verified, unprotect};
pub use removal::{Merge, Removal, plan_removal};
pub use replacing::{BegunReplacement, begin_replacing, begun_replacements, end_replacing};
pub use view::ChainView;
