//! Why a reader does not vouch for a used map.

use crate::base::{Error, ErrorKind};

/// What ends the reading of a file system early.
#[derive(Debug)]
pub(super) enum Doubt {
    /// All blocks are taken; the text says why, for people: "its journal holds changes".
    Unsure(String),
    /// The run was stopped.
    Stopped(Error),
}

impl Doubt {
    /// A doubt with its reason.
    pub(super) fn new(why: impl Into<String>) -> Doubt {
        Doubt::Unsure(why.into())
    }
}

/// A medium that fails under metadata leaves the map unknown, and the data may still be readable;
/// a cancelled run is no doubt.
impl From<Error> for Doubt {
    fn from(error: Error) -> Doubt {
        match error.kind() {
            ErrorKind::Interrupted | ErrorKind::Terminated => Doubt::Stopped(error),
            _ => Doubt::Unsure(error.to_string()),
        }
    }
}

/// Goes on when `holds`, otherwise doubts with the reason that `why` makes.
pub(super) fn ensure<T: Into<String>>(holds: bool, why: impl FnOnce() -> T) -> Result<(), Doubt> {
    if holds {
        Ok(())
    } else {
        Err(Doubt::new(why()))
    }
}
