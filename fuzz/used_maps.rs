//! Feeds readers of file systems with damaged disks.
//!
//! `STRATA_FUZZ` names the decoder whose capsules of `fixtures/fs` are damaged. An input is:
//!
//! - a byte below 0xC0, which chooses the capsule, and records of 16 bytes, each of which decides one
//!   damage (`tests/fs_kit/damage.rs`), or
//! - a byte from 0xC0, one for the length of the disk as a power of two, and the disk's first bytes.
//!
//! `cfg(fuzzing)` makes every checksum right (`src/fs/checksum.rs`). Whatever comes out has to keep
//! what `tests/fs_kit/watch.rs` asks of every run.

#![no_main]
#![allow(clippy::expect_used)]

#[path = "../tests/fs_kit/mod.rs"]
mod fs_kit;

use diskstrata::base::{ByteLen, ByteOffset, Extent, Result};
use diskstrata::block::{BlockSource, Capsule, MemorySource};
use fs_kit::damage::Record;
use fs_kit::{capsules, damage, watch};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

/// First bytes from here on stand for a disk of their own.
const RAW: u8 = 0xC0;
/// The longest of those, as a power of two: 1 EiB.
const LONGEST: u8 = 60;
/// More damage than this makes no better disk.
const MOST_RECORDS: usize = 64;

static BASES: OnceLock<Vec<Capsule>> = OnceLock::new();

fuzz_target!(init: { let _ = bases(); }, |input: &[u8]| {
    if let Some(disk) = disk(input) {
        let run = watch::run(&disk);
        if let Err(why) = run.check() {
            panic!("{why}");
        }
        let ranges = watch::ranges(disk.len().0);
        if let Err(why) = watch::run_hit(&disk, &ranges).check_hit(&ranges) {
            panic!("files_hit: {why}");
        }
    }
});

fn bases() -> &'static [Capsule] {
    BASES.get_or_init(|| {
        let decoder = std::env::var("STRATA_FUZZ").expect("STRATA_FUZZ names a decoder");
        let fixtures = capsules::of_decoder(&decoder);
        assert!(!fixtures.is_empty(), "no capsule {decoder}-*");
        fixtures
            .into_iter()
            .map(|fixture| fixture.capsule)
            .collect()
    })
}

fn disk(input: &[u8]) -> Option<Capsule> {
    let (first, rest) = input.split_first()?;
    if *first >= RAW {
        let (power, bytes) = rest.split_first()?;
        return raw(bytes, ByteLen(1 << (power % (LONGEST + 1)))).ok();
    }
    let bases = bases();
    let base = bases.get(usize::from(*first) % bases.len())?;
    let records = rest.chunks_exact(size_of::<Record>());
    let records = records.filter_map(|record| Record::try_from(record).ok());
    let records: Vec<Record> = records.take(MOST_RECORDS).collect();
    Some(damage::damaged(base, &records).0)
}

fn raw(bytes: &[u8], len: ByteLen) -> Result<Capsule> {
    let extent = Extent {
        start: ByteOffset(0),
        len: ByteLen(u64::try_from(bytes.len()).unwrap_or_default()),
    };
    let source = MemorySource::new("raw", bytes.to_vec());
    Ok(Capsule::record(&source, vec![extent])?.with_len(len))
}
