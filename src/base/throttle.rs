//! Moving no more bytes a second than a person allows.

use super::{Result, to_u64};
use std::sync::Arc;

/// Lets bytes pass at a limited rate. Shared by all who move them.
pub trait Throttle: Send + Sync {
    /// Waits until `bytes` more may be moved.
    ///
    /// # Errors
    /// `Interrupted` or `Terminated` when the run is stopped meanwhile.
    fn pass(&self, bytes: u64) -> Result<()>;
}

/// At which rates bytes move; any where none is said.
#[derive(Clone, Default)]
pub struct Rates {
    /// Of reads.
    pub reads: Option<Arc<dyn Throttle>>,
    /// Of writes.
    pub writes: Option<Arc<dyn Throttle>>,
}

impl Rates {
    /// Whether nothing waits for anything.
    pub fn is_unlimited(&self) -> bool {
        self.reads.is_none() && self.writes.is_none()
    }

    /// Waits until `bytes` more may be read.
    ///
    /// # Errors
    /// As [`Throttle::pass`].
    pub fn read(&self, bytes: usize) -> Result<()> {
        pass(self.reads.as_ref(), bytes)
    }

    /// Waits until `bytes` more may be written.
    ///
    /// # Errors
    /// As [`Throttle::pass`].
    pub fn write(&self, bytes: usize) -> Result<()> {
        pass(self.writes.as_ref(), bytes)
    }
}

fn pass(throttle: Option<&Arc<dyn Throttle>>, bytes: usize) -> Result<()> {
    throttle.map_or(Ok(()), |throttle| throttle.pass(to_u64(bytes)))
}
