//! Where do the partitions of a disk lie, and what must be changed when it is restored to another size?
//!
//! Promises: a partition is never reported outside its disk or over another one; what cannot be
//! understood is opaque, with the reason in words, so that it is imaged whole; no byte from a disk
//! or an image file makes this room panic, loop or hold more than a few MiB. Everything here reads
//! or computes, nothing writes: [`adapt()`] returns the bytes that somebody else may write.
//!
//! Must not know: file systems, images, devices and what may be overwritten.
//!
//! `docs/layout.md` is the page for people, with the rules and where the crates `gpt` and `mbrman`
//! are used.

mod adapt;
mod detect;
mod disk;
mod foreign;
mod gpt_decode;
mod gpt_read;
mod mbr_decode;
mod mbr_read;
mod model;
mod partition;
mod places;
mod type_names;
mod validate;

#[cfg(test)]
mod tests;

pub use adapt::{Adapted, Patch, adapt};
pub use detect::read;
pub use model::{CopyState, GptCopy, GptPlaces, Layout, MbrPlaces, Table};
pub use partition::{Partition, PartitionKind};
pub use places::{
    MAX_RAW_BYTES, RawRegion, critical_extents, free_tail, min_disk_len, raw_regions, table_extents,
};
