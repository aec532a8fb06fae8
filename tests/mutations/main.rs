//! Readers of file systems on damaged disks: every capsule of `fixtures/fs`, damaged in many ways
//! that seeds decide, and with every read failing in turn.
//!
//! No run may panic, hang, read or allocate more than it may ([`watch`]). Where a format's checksums
//! cover what says which blocks are in use, no damage may yield a certain map that leaves out a byte
//! that was in use. Where they do not, nobody can tell a cleared bit from a free block: how often
//! such a map came out is counted and printed, and nothing is asserted about it.
//!
//! [`mod@reference`] compares with what another reader makes of the same damaged disk.
//!
//! By default some hundred damages a capsule; `STRATA_LONG=1` makes 10,000 a decoder. A failure
//! names the capsule and the number of the damage, which decides everything; the damaged capsule is
//! kept in `target/tmp/mutations`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fs_kit/mod.rs"]
mod fs_kit;
#[path = "../kit/mod.rs"]
mod kit;

mod campaign;
mod reference;
mod unreadable;

use fs_kit::capsules::{self, Fixture};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A test each for damage and for failing reads of every decoder.
macro_rules! decoders {
    ($($name:ident)*) => {
        const DECODERS: &[&str] = &[$(stringify!($name)),*];
        $(mod $name {
            #[test]
            fn damaged() {
                crate::campaign::run(stringify!($name));
            }

            #[test]
            fn unreadable() {
                crate::unreadable::run(stringify!($name));
            }
        })*
    };
}

decoders! {
    bitlocker btrfs exfat ext f2fs fat luks lvm md named ntfs readonly swap xfs
}

/// A test each for decoders whose file systems have another reader that says what is used.
macro_rules! readers {
    ($($name:ident)*) => {
        mod beside_another_reader {
            $(#[test]
            fn $name() {
                crate::reference::run(stringify!($name));
            })*
        }
    };
}

readers! {
    btrfs exfat ext f2fs fat ntfs xfs
}

#[test]
fn every_capsule_is_of_a_decoder() {
    let fixtures = capsules::beginning_with("");
    assert!(!fixtures.is_empty());
    for fixture in fixtures {
        assert!(DECODERS.contains(&fixture.decoder()), "{}", fixture.name);
    }
}

/// The fixtures of a decoder, of which there must be some.
fn fixtures(decoder: &str) -> Vec<Fixture> {
    let fixtures = capsules::of_decoder(decoder);
    assert!(
        !fixtures.is_empty(),
        "no capsule {decoder}-* in {:?}",
        capsules::folder()
    );
    fixtures
}

/// Memory is counted for the whole process: campaigns that share one take turns.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
