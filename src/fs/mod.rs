//! Which blocks of a partition are in use?
//!
//! Promises: over-report, never under-report; whoever is unsure answers [`Certainty::Unknown`] and
//! the whole partition is taken. Decoders take bytes; nothing is ever written to a source. Must not
//! know: where a partition lies on its disk, images, change detection.

mod unknown;

pub use unknown::Unknown;

use crate::base::{BlockMap, ByteLen, Result};
use crate::block::BlockSource;

/// How far a used map may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certainty {
    /// The file system's own metadata was read and agrees with itself.
    Certain,
    /// Nothing is known, so all is taken; the text says why, for people.
    Unknown(String),
}

/// Which units of a partition are in use.
#[derive(Debug, Clone, PartialEq)]
pub struct UsedReport {
    /// What was found ("ext4", "unknown").
    pub kind: String,
    /// Size of the units in `used`, in bytes.
    pub unit: ByteLen,
    /// The units in use. May hold too many, never too few. Covers the whole partition: what lies
    /// behind the end of the file system counts as used.
    pub used: BlockMap,
    /// How far `used` may be believed.
    pub certainty: Certainty,
}

/// Reads one kind of file system.
///
/// # Contract
/// - `probe` looks at signatures only and reads at most a few hundred KiB.
/// - `used` never leaves out a unit in use. Anything it does not understand (an unknown feature, a
///   count that does not add up, a journal to replay) makes it answer
///   [`Certainty::Unknown`] with every unit used; an error means that the medium failed.
/// - Both never panic, never loop without bound and never hold memory beyond a stated limit,
///   whatever bytes the partition holds.
pub trait FileSystem: Send + Sync {
    /// The name that people know it by.
    fn name(&self) -> &'static str;

    /// Whether the partition carries this file system's signature.
    ///
    /// # Errors
    /// When the medium fails.
    fn probe(&self, partition: &dyn BlockSource) -> Result<bool>;

    /// Which units are in use.
    ///
    /// # Errors
    /// When the medium fails.
    fn used(&self, partition: &dyn BlockSource) -> Result<UsedReport>;
}

/// The report on `partition`. No file system is read yet, so every partition is unknown and taken
/// whole.
///
/// # Errors
/// When the medium fails.
pub fn used(partition: &dyn BlockSource) -> Result<UsedReport> {
    Unknown.used(partition)
}
