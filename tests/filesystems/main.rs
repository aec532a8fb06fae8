//! Used maps on real file systems: made by their own mkfs, aged, imaged, restored onto random bytes,
//! checked by their own fsck, and compared file by file. `docs/testing.md` has the table.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod aged;
mod btrfs;
mod cycle;
mod exclude;
mod exfat;
mod ext;
mod f2fs;
mod fat;
mod foreign;
mod hit;
mod luks;
mod lvm;
mod manifest;
mod md;
mod named;
mod ntfs;
mod probing;
mod readonly;
mod swap;
mod system_disk;
mod xfs;
