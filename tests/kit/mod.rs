//! What every end-to-end test needs: disks with known content, a runner for the command, stores,
//! comparisons, and loop devices and mounts that go away with their guards.
//!
//! Nothing here calls the library: the tests see the tool from outside, and what they compare with
//! comes from the tools of the file systems and partition tables themselves.

// Each test binary uses its own part of the kit.
#![allow(dead_code)]

pub(crate) mod bad_disk;
pub(crate) mod bytes;
pub(crate) mod disk;
pub(crate) mod fuse_attr;
pub(crate) mod gpt;
pub(crate) mod power;
pub(crate) mod privileged;
pub(crate) mod recorded;
pub(crate) mod records;
pub(crate) mod run;
pub(crate) mod store;
pub(crate) mod told;
pub(crate) mod tools;
pub(crate) mod vm;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// Whether the long campaigns are wanted.
pub(crate) fn long() -> bool {
    std::env::var_os("STRATA_LONG").is_some_and(|v| v == "1")
}

/// A number that is known to fit, as a length in memory.
pub(crate) fn size(n: u64) -> usize {
    usize::try_from(n).expect("a length that fits into memory")
}

const PREFIX: &str = "strata-test-";

/// A folder that vanishes with the test, on a file system that keeps holes.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir()
        .expect("a temporary folder")
}

/// The same in memory where the system has such a place: nobody waits for a disk.
pub(crate) fn scratch_in_memory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(memory)
            .expect("a temporary folder"),
        false => scratch(),
    }
}
