//! Moving blocks: a producer finds work, workers on all cores do it, a consumer takes the results in
//! order, and one budget bounds what is in between.
//!
//! Promises: results come in the order of the disk; memory follows the budget, never the disk; the
//! first failure or a cancel ends every thread. Must not know: stores, devices, how a person asked.

mod adapt;
mod backup;
mod compare;
mod crew;
mod extract;
mod fetching;
mod in_place;
mod mask;
mod ordered;
mod parent;
mod pool;
mod reading;
mod rewrite;
mod select;
mod stream;
#[cfg(test)]
mod tests;
mod verify;
mod without;

pub use backup::{BackupTotals, Input, write_blocks};
pub use compare::{Compared, Read, ReadBlocks, compare};
pub use extract::{Extracted, extract, untouched};
pub use mask::Masked;
pub use rewrite::{Frames, Rewriting, Rewritten, rewrite};
pub use select::{Selection, Used, select};
pub use stream::extract_stream;
pub use verify::{Damage, Depth, Sample, verify_disk, verify_file, verify_stream};
pub use without::Without;

use crate::base::{Cancel, Observer, to_u64, to_usize};

/// What a run may use.
#[derive(Clone, Copy)]
pub struct Resources<'a> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Bytes for all buffers together.
    pub memory: u64,
    /// Asked often; stops the run.
    pub cancel: &'a Cancel,
    /// Told of progress.
    pub observer: &'a dyn Observer,
}

impl std::fmt::Debug for Resources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resources")
            .field("threads", &self.threads)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Resources<'_> {
    /// How many windows of `window_len` bytes may be under way at once.
    fn tickets(&self, window_len: usize) -> usize {
        // More than this much work ahead of each thread buys nothing.
        self.windows(window_len, 8)
    }

    /// How many windows of `window_len` bytes may be under way at once: no more than `ahead` for each thread. Each
    /// has its content, its encoded form and a share of the workers' scratch memory, so it counts three times.
    fn windows(&self, window_len: usize, ahead: usize) -> usize {
        let each = to_u64(window_len.max(1)) * 3;
        let most = to_usize(self.memory / each);
        most.clamp(2, self.threads.max(1) * ahead)
    }
}
