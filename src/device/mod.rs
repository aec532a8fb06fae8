//! What is on this machine, and may I touch it?
//!
//! [`Inventory`] reads the disks, their partitions, what is made of them and what is mounted, as one
//! value. [`resolve()`] finds the one disk that a name means, [`DiskIdentity`] says whether it is
//! still that disk. [`claim_read`] opens a source for reading only; [`permit_write`] looks for every
//! reason not to write and only then gives a [`WritePermit`], the one way to a writable target.
//!
//! Promises: a disk in use, or one that the running system or the store lives on, is never opened
//! for writing; every reason of a refusal is listed; there is no switch that waives them. What
//! cannot be told counts as in use. Must not know: partition tables, file systems, images.
//!
//! docs/device.md tells where each fact comes from and what is not seen.

mod entries;
mod guard;
mod guard_facts;
mod guard_read;
mod hardware;
mod identity;
mod inventory;
mod mounts;
mod node;
mod openers;
mod places;
mod refusal;
mod resolve;
mod stack;
mod swaps;
mod sysfs;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod twins;
mod udev;
mod uses;

pub use entries::{DiskEntry, PartitionEntry};
pub use guard::{WritePermit, WriteRequest, permit_write, write_refusals};
pub use guard_read::{Consistency, ReadClaim, claim_read};
pub use identity::{DiskIdentity, Sameness};
pub use inventory::{Inventory, Process};
pub use node::{
    Content, DevNum, Device, DeviceKind, FileId, LoopFile, Mapping, PartitionFacts, Transport,
};
pub use refusal::{Overlap, Refusal, TargetFacts, Unfit, refusals};
pub use resolve::{Resolved, resolve};
pub use twins::check_no_twin;
pub use uses::Use;
