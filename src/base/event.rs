//! What a run tells its observer while it works. Lower rooms never print: they send events.

use super::Extent;

/// One stage of an operation, in the words a person sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Looking at the source: tables, file systems.
    Scan,
    /// Source to image.
    Backup,
    /// Bad spots of the source once more.
    Retry,
    /// Checking an image.
    Verify,
    /// Comparing an image with a disk.
    Compare,
    /// Image to target.
    Restore,
    /// Reading the target back.
    ReadBack,
    /// Image to a raw file or stream.
    Export,
    /// Images into one.
    Merge,
    /// An image into another file.
    Copy,
    /// Waiting for the medium to hold what was written.
    Sync,
}

impl Phase {
    /// The word shown and used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Scan => "scan",
            Phase::Backup => "backup",
            Phase::Retry => "retry",
            Phase::Verify => "verify",
            Phase::Compare => "compare",
            Phase::Restore => "restore",
            Phase::ReadBack => "read back",
            Phase::Export => "export",
            Phase::Merge => "merge",
            Phase::Copy => "copy",
            Phase::Sync => "sync",
        }
    }
}

/// Something that happened during a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A phase begins; `bytes` is its whole work where that is known.
    PhaseStarted {
        /// Which phase.
        phase: Phase,
        /// Bytes to do.
        bytes: Option<u64>,
    },
    /// `bytes` more of the current phase are done.
    Advanced {
        /// Bytes since the last such event.
        bytes: u64,
    },
    /// The current phase is over.
    PhaseFinished {
        /// Which phase.
        phase: Phase,
    },
    /// Nothing failed, but a person should know.
    Warning(String),
    /// Bytes of the source that could not be read.
    Unreadable(Extent),
}

/// Receives events from any thread. Must not block for long and must not fail.
pub trait Observer: Send + Sync {
    /// Takes notice of `event`.
    fn event(&self, event: Event);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: Event) {}
}
