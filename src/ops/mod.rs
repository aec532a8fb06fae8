//! What a person can do: one file each. Read this first.
//!
//! | file | answers |
//! |---|---|
//! | [`disks`] | what is on this machine? |
//! | [`backup`] | a disk into an image |
//! | `rescue` | what of it could not be read, once more |
//! | [`take`] | of which partition is how much taken, and why? |
//! | [`list`], [`show`] | which images are there, and what is in one? |
//! | [`diff`], [`map`] | what differs between two images? what lies where in one? |
//! | [`verify`] | is an image whole, and is it what a disk holds? |
//! | [`restore`] | an image onto a disk |
//! | [`export`] | an image as a raw disk |
//! | [`prune`], [`protect`] | which images go, and which never do? |
//! | [`merge`] | several images of a history into one |
//! | [`keys`] | who may open the images of a history? |
//! | [`copy`] | an image into another file: elsewhere, or stored in another way |
//! | [`piped`] | an image out of a pipe |
//!
//! Promises: every operation that changes something has a plan that changes nothing; clock,
//! randomness and environment are asked here and nowhere below. Must not know: how results are shown.

mod against;
mod anew;
pub mod backup;
mod backup_plan;
mod backup_report;
mod brought_back;
pub mod copy;
mod copy_plan;
mod describe;
pub mod diff;
pub mod disks;
pub mod encryption;
pub mod export;
mod history;
mod hits;
mod images;
pub mod keys;
pub mod list;
pub mod map;
mod map_cells;
mod map_tally;
mod mended;
pub mod merge;
mod partitions;
pub mod piped;
mod place;
pub mod protect;
mod protections;
pub mod prune;
mod remembered;
mod removal;
mod rescue;
mod rescue_map;
pub mod restore;
mod restore_target;
mod resume;
pub mod secrets;
pub mod show;
mod state;
mod stores;
pub mod take;
mod throttle;
pub mod verify;

pub use crate::fs::ContentKind;
pub use crate::image::{BlockCounts, ByteRange, Compression, USUAL_LEVEL};
pub use crate::pipeline::Depth;
pub use crate::store::{Brought, PartBringer, WantedPart};
pub use crate::sys::{PendingCall, pending_calls};
pub use images::{Found, ImageRecord, Library};
pub use throttle::Limits;

use crate::base::{Cancel, Error, ErrorKind, Observer, Rates, Result};
use crate::crypt::{KeyRing, NoKeys};
use crate::pipeline::Resources;
use ring::rand::{SecureRandom, SystemRandom};
use secrets::KeyOptions;
use std::path::PathBuf;
use std::sync::Arc;
use throttle::stand_back;

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
    /// How fast bytes may move.
    pub rates: Rates,
    /// What opens encrypted images.
    pub keys: Arc<KeyRing>,
    /// Where keys for new ones come from.
    pub key_options: KeyOptions,
    /// Who brings parts of images that are not there, where anybody does.
    pub bringer: Option<Arc<dyn PartBringer>>,
}

/// The budget for buffers unless a person says otherwise.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

impl<'a> Context<'a> {
    /// A context for this machine: all cores, the usual budget.
    pub fn new(cancel: &'a Cancel, observer: &'a dyn Observer) -> Context<'a> {
        let threads = usual_threads();
        Context {
            root: PathBuf::from("/"),
            cancel,
            observer,
            threads,
            memory: DEFAULT_MEMORY,
            rates: Rates::default(),
            keys: Arc::new(KeyRing::new(NoKeys)),
            key_options: KeyOptions::default(),
            bringer: None,
        }
    }

    /// With the keys that `options` lead to.
    ///
    /// # Errors
    /// `Usage` when they make no sense.
    pub fn with_keys(mut self, options: KeyOptions) -> Result<Context<'a>> {
        self.keys = Arc::new(options.ring()?);
        self.key_options = options;
        Ok(self)
    }

    /// With what `limits` allow.
    ///
    /// # Errors
    /// `Usage` when they make no sense, `Internal` when this process cannot be made to stand back.
    pub fn within(mut self, limits: &Limits) -> Result<Context<'a>> {
        limits.check()?;
        self.threads = limits.threads.unwrap_or(self.threads);
        self.memory = limits.memory.unwrap_or(self.memory);
        self.rates = limits.rates(self.cancel);
        if limits.nice {
            stand_back()?;
        }
        Ok(self)
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

/// Worker threads unless a person says otherwise: one for each core.
fn usual_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What a process does once, before the first operation.
pub fn prepare_process() {
    // One for each core, for the one who plans and for the one who writes; those who wait for a medium share them.
    crate::sys::share_arenas(usual_threads() + 2);
    crate::sys::survive_file_size_limit();
    crate::sys::allow_many_files();
}

/// Seconds since 1970 UTC by this machine's clock.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Fills `out` with bytes that nobody can guess.
///
/// # Errors
/// `Internal` when the kernel has none.
fn random(out: &mut [u8]) -> Result<()> {
    SystemRandom::new()
        .fill(out)
        .map_err(|_| Error::new(ErrorKind::Internal, "draw", "random bytes"))
}

/// `count` numbers below `limit`, which is not 0, by chance.
fn chance(count: u64, limit: u64) -> impl Iterator<Item = u64> {
    let mut stream = blake3::Hasher::new()
        .update(uuid::Uuid::new_v4().as_bytes())
        .finalize_xof();
    (0..count).map(move |_| {
        let mut number = [0; 8];
        stream.fill(&mut number);
        u64::from_le_bytes(number) % limit
    })
}

/// The time zone in which a person means times.
fn time_zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::system()
}

/// A span such as `30d` or `1y6m`, in seconds before now.
///
/// # Errors
/// `Usage` when it is none.
pub fn age_in_seconds(text: &str) -> Result<i64> {
    let now = now();
    let since = crate::chain::retention::Within::parse(text)?.before(now, &time_zone());
    Ok(now.saturating_sub(since))
}

/// A time as RFC 3339 in UTC; one that no calendar has, as the plain number.
pub fn time_text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}
