//! Calls that failed for no lasting reason.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// With [`PAUSE`] between them this bounds the wait to about a second.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Repeats `call` while it is interrupted (`EINTR`) or told to come again (`EAGAIN`), for a second
/// at most.
///
/// # Errors
/// What the last try said.
pub fn persist<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    call()
}

/// What the kernel says of an open file.
///
/// # Errors
/// As fstat(2).
pub fn facts_of(file: &File) -> io::Result<Metadata> {
    persist(|| file.metadata())
}

/// Makes all of a file durable. An interruption is no failure of a write and is not remembered by the kernel as
/// one, so asking again asks the same; every other failure is final. Network file systems may tell of a failure no
/// earlier than when a file is closed, so a second handle of it is.
///
/// # Errors
/// As fsync(2) and close(2).
pub fn sync(file: &File) -> io::Result<()> {
    persist(|| file.sync_all())?;
    match nix::unistd::close(file.try_clone()?) {
        // It is closed all the same, and the kernel has nothing more to tell of it (close(2)).
        Ok(()) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
/// As pwrite(2).
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let (mut rest, mut at) = (bytes, offset);
    while !rest.is_empty() {
        match persist(|| file.write_at(rest, at))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                rest = rest.get(count..).unwrap_or_default();
                at = at.saturating_add(crate::base::to_u64(count));
            }
        }
    }
    Ok(())
}

/// Fills `buf` from `offset` by calls of `read`, which returns how many bytes it has read.
///
/// # Errors
/// As `read`; `UnexpectedEof` when that has nothing more.
pub fn read_full(
    mut buf: &mut [u8],
    mut offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !buf.is_empty() {
        match persist(|| read(buf, offset))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                buf = buf.get_mut(count..).unwrap_or_default();
                offset = offset.saturating_add(crate::base::to_u64(count));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_failures_are_survived_and_others_are_not() {
        let mut left = vec![
            Ok(7),
            Err(io::ErrorKind::WouldBlock),
            Err(io::ErrorKind::Interrupted),
        ];
        let value = persist(|| left.pop().unwrap().map_err(io::Error::from));
        assert_eq!(value.unwrap(), 7);
        let mut calls = 0;
        let failed: io::Result<()> = persist(|| {
            calls += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(
            (failed.unwrap_err().kind(), calls),
            (io::ErrorKind::PermissionDenied, 1)
        );
        let mut calls = 0;
        let failed: io::Result<()> = persist(|| {
            calls += 1;
            Err(io::ErrorKind::Interrupted.into())
        });
        assert_eq!(
            (failed.unwrap_err().kind(), calls),
            (io::ErrorKind::Interrupted, TRIES)
        );
    }
}
