//! What a person can do: one file each. Read this first.
//!
//! | file | answers |
//! |---|---|
//! | [`disks`] | what is on this machine? |
//! | [`backup`] | a disk into an image |
//! | [`take`] | of which partition is how much taken, and why? |
//! | [`list`], [`show`] | which images are there, and what is in one? |
//! | [`verify`] | is an image whole, and is it what a disk holds? |
//! | [`restore`] | an image onto a disk |
//! | [`export`] | an image as a raw disk |
//!
//! Promises: every operation that changes something has a plan that changes nothing; clock,
//! randomness and environment are asked here and nowhere below. Must not know: how results are shown.

pub mod backup;
mod backup_plan;
mod describe;
pub mod disks;
pub mod export;
mod images;
pub mod list;
mod partitions;
mod place;
pub mod restore;
pub mod show;
pub mod take;
pub mod verify;

pub use crate::fs::ContentKind;
pub use crate::image::{ByteRange, Compression};
pub use crate::pipeline::Depth;
pub use images::{Found, ImageRecord, Library};

use crate::base::{Cancel, Observer};
use crate::pipeline::Resources;
use std::path::PathBuf;

/// What every operation needs.
pub struct Context<'a> {
    /// Where `sys`, `proc` and `dev` are looked for.
    pub root: PathBuf,
    /// Asked often; stops the run.
    pub cancel: &'a Cancel,
    /// Told of progress.
    pub observer: &'a dyn Observer,
    /// Worker threads.
    pub threads: usize,
    /// Bytes for all buffers together.
    pub memory: u64,
}

/// The budget for buffers unless a person says otherwise.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

impl<'a> Context<'a> {
    /// A context for this machine: all cores, the usual budget.
    pub fn new(cancel: &'a Cancel, observer: &'a dyn Observer) -> Context<'a> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Context {
            root: PathBuf::from("/"),
            cancel,
            observer,
            threads,
            memory: DEFAULT_MEMORY,
        }
    }

    fn resources(&self) -> Resources<'_> {
        Resources {
            threads: self.threads,
            memory: self.memory,
            cancel: self.cancel,
            observer: self.observer,
        }
    }
}

/// What a process does once, before the first operation.
pub fn prepare_process() {
    crate::sys::survive_file_size_limit();
}

/// Seconds since 1970 UTC by this machine's clock.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A time as RFC 3339 in UTC; one that no calendar has, as the plain number.
pub fn time_text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}
