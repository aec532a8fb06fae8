//! diskstrata images disks and partitions on Linux and writes them back.
//!
//! The rooms, lowest first; a room uses only rooms above it in this list (`tests/layers.rs` holds
//! the exact table). Start reading at [`ops`]: one file for each thing a person can do.

pub mod base;
#[allow(unsafe_code)]
pub mod sys;

pub mod block;

pub mod crypt;
pub mod device;
pub mod fs;
pub mod image;
pub mod layout;
pub mod store;

pub mod chain;
pub mod pipeline;
pub mod restore;

pub mod ops;

pub mod cli;
