//! Locks that die with their holder.

use std::fs::File;
use std::io;

/// A lock on an open file, released when dropped or when the process dies, however it dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Unlocks in so many words: a child process that is just being started has a copy of the
/// descriptor until it executes its program, and closing ours would leave the lock with it.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Locks `file` for this process alone. `None` when another holds it.
///
/// # Errors
/// As flock(2), except that a held lock is not an error.
pub fn lock_exclusive(file: File) -> io::Result<Option<Lock>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { file })),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

/// Locks `file` together with other readers. `None` when another holds it alone.
///
/// # Errors
/// As flock(2), except that a held lock is not an error.
pub fn lock_shared(file: File) -> io::Result<Option<Lock>> {
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(Lock { file })),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

/// Whether an error of the two calls above means that this file system has no locks at all.
pub fn cannot_lock(e: &io::Error) -> bool {
    use nix::libc::{EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP};
    matches!(
        e.raw_os_error(),
        Some(EINVAL | ENOLCK | ENOSYS | EOPNOTSUPP)
    )
}
