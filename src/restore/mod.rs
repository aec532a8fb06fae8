//! From an image back to a disk: decide everything first, then write.
//!
//! Promises: a plan has no side effects; what makes a disk recognisable is erased first and written
//! last, so that a restore that stopped half-way never looks done; what was written is read back
//! from the medium. Must not know: stores, how a target was permitted, how a person asked.

mod critical;
mod execute;
mod plan;
mod recent;
mod run;
#[cfg(test)]
mod tests;
mod writer;

pub use execute::{Restored, Scope, execute, execute_salvaging, execute_stream};
pub use plan::{RestorePlan, plan_disk, plan_partition};
