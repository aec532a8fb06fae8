//! Histories of images: whatever is backed up, merged, pruned and protected in whatever order,
//! killed or damaged wherever, every image that is left gives back the disk as it was.
//!
//! | file | what |
//! |---|---|
//! | `disk` | a disk in memory, and what an image of it must say of each block |
//! | `world` | a store and what it must hold: one action after the other |
//! | `deeds` | what is done to it |
//! | `check` | is it so? |
//! | `random` | random actions |
//! | `disturbed` | random actions that are disturbed: calls fail, somebody stops them, the power fails, bits rot |
//! | `crash`, `rehearsed` | every operation on a store fails once, and the power fails behind each |
//! | `power` | the power fails behind every call of the file system, and what was not synced is lost or torn |
//! | `compound` | the power fails, or the file system is full, while what a power cut left is cleared up |
//! | `calls` | every call of the file system fails, and it is full at every step |
//! | `shaped` | a store that cuts or encrypts its images |
//! | `copies` | images copied into another store and written anew, disturbed likewise |
//! | `damage` | flipped bytes and missing files |
//! | `flips` | every bit of an image flipped, one by one |
//! | `damages` | all kinds of damage to chains that lie plain, encrypted and in parts |
//! | `cuts` | files that end too early, or too late |
//! | `salvage` | what is lost by damage is told exactly, and all else is found |
//! | `keys` | keys that are changed, with the power cut in the middle of a write |
//! | `nonces` | no key and nonce encrypt twice, whatever is done |
//! | `choice` | on which image a new one builds |
//! | `twice` | the same id twice in one store |
//! | `room` | the oldest go until enough is free |
//!
//! `PROPTEST_CASES` says how many random histories are tried; `STRATA_LONG=1` makes all of it longer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod calls;
mod check;
mod choice;
mod compound;
mod copies;
mod crash;
mod cuts;
mod damage;
mod damages;
mod deeds;
mod disk;
mod disturbed;
mod flips;
mod keys;
mod nonces;
mod power;
mod random;
mod rehearsed;
mod room;
mod salvage;
mod shaped;
mod twice;
mod world;

/// Whether the long campaigns are wanted.
fn long() -> bool {
    std::env::var_os("STRATA_LONG").is_some_and(|v| v == "1")
}
