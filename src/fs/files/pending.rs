//! Directories that are yet to be read, of formats that name a file only where its directory does.

use super::Search;
use super::names::LONGEST_PATH;

/// What paths of directories may take of memory.
const MAX_BYTES: usize = 8 << 20;
/// What one takes beside its path.
const OWN_BYTES: usize = 64;

/// Directories with their paths.
#[derive(Debug)]
pub(in crate::fs) struct Pending<T> {
    stack: Vec<(T, String)>,
    bytes: usize,
}

impl<T> Pending<T> {
    pub(in crate::fs) fn new() -> Pending<T> {
        Pending {
            stack: Vec::new(),
            bytes: 0,
        }
    }

    /// `directory` is to be read, unless there are too many; its path is empty for the root.
    pub(in crate::fs) fn push(&mut self, search: &mut Search, directory: T, path: String) {
        let bytes = self.bytes + path.len() + OWN_BYTES;
        if bytes > MAX_BYTES || path.len() > LONGEST_PATH {
            search.lacks("its directories are too many in one, or too deep in one another");
            return;
        }
        self.bytes = bytes;
        self.stack.push((directory, path));
    }

    /// The next one.
    pub(in crate::fs) fn pop(&mut self) -> Option<(T, String)> {
        let (directory, path) = self.stack.pop()?;
        self.bytes = self.bytes.saturating_sub(path.len() + OWN_BYTES);
        Some((directory, path))
    }
}
