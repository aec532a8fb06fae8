//! Stopping in good order.

use super::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A flag that a signal handler or a failing thread sets and every loop looks at.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    signal: Arc<AtomicUsize>,
}

/// SIGINT on Linux.
const SIGINT: usize = 2;
/// SIGTERM on Linux.
const SIGTERM: usize = 15;

impl Cancel {
    /// A token nobody has cancelled.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// The number that a signal handler stores its signal in; zero means "go on".
    pub fn signal_slot(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.signal)
    }

    /// Asks everyone to stop, as SIGINT would.
    pub fn cancel(&self) {
        self.signal.store(SIGINT, Ordering::Relaxed);
    }

    /// Whether someone asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }

    /// Goes on, or says why not.
    ///
    /// # Errors
    /// `Terminated` after SIGTERM, `Interrupted` after anything else.
    pub fn check(&self) -> Result<()> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            SIGTERM => Err(Error::new(
                ErrorKind::Terminated,
                "go on",
                "terminated by SIGTERM",
            )),
            _ => Err(Error::new(ErrorKind::Interrupted, "go on", "interrupted")),
        }
    }
}
