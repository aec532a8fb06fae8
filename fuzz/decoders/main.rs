//! Feeds decoders that are no file systems with damaged files and disks.
//!
//! `STRATA_FUZZ` names the target, a module of this folder. An input is:
//!
//! - a byte below 0xC0, which chooses the seed, and records of 16 bytes, each of which decides one
//!   damage (`tests/fs_kit/damage.rs`), or
//! - a byte from 0xC0 on, and bytes that stand for themselves.
//!
//! `cfg(fuzzing)` makes every checksum right (`src/base/checksum.rs`), but no digest of a block and no
//! tag of ciphertext.

#![no_main]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod encrypted;
mod image;
mod layout;
mod mapfile;
mod notes;
mod seeds;
mod stream;
mod table_copy;
mod watch;

/// Damage that records decide.
#[path = "../../tests/fs_kit/damage.rs"]
mod damage;

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

/// A target: what it makes once, and a run.
struct Target {
    name: &'static str,
    prepare: fn(),
    run: fn(&[u8]),
}

const TARGETS: [Target; 7] = [
    image::TARGET,
    stream::TARGET,
    encrypted::TARGET,
    layout::TARGET,
    mapfile::TARGET,
    notes::TARGET,
    table_copy::TARGET,
];

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    CHOSEN.get_or_init(|| {
        let name = std::env::var("STRATA_FUZZ").expect("STRATA_FUZZ names a target");
        let target = TARGETS.iter().find(|target| target.name == name);
        target.unwrap_or_else(|| panic!("no target {name}"))
    })
}

fuzz_target!(init: { (chosen().prepare)() }, |input: &[u8]| {
    (chosen().run)(input);
});
