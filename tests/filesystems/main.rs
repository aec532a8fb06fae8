//! Used maps on real file systems: made by their own mkfs, aged, imaged, restored onto random bytes,
//! checked by their own fsck, and compared file by file. `docs/testing.md` has the table.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod aged;
mod cycle;
mod foreign;
mod manifest;
