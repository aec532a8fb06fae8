//! Small results in files of their own.

use crate::base::{Error, ErrorKind, Result};
use std::fs::OpenOptions;
use std::io::{ErrorKind as IoKind, Write};
use std::path::Path;

/// Whether a file can be made at `path`, as far as that can be told without making it.
///
/// # Errors
/// `Refused` when something is there.
pub(super) fn check(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(exists(path)),
        Err(_) => Ok(()),
    }
}

/// Makes a file that holds `bytes`, on the medium when this returns. One that could not be written
/// whole is taken away again.
///
/// # Errors
/// `Refused` when something is at `path`, which stays as it is; `Destination`.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed =
        |e| Error::new(ErrorKind::Destination, "write", path.display().to_string()).caused_by(e);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|e| match e.kind() {
            IoKind::AlreadyExists => exists(path),
            _ => failed(e),
        })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|e| {
        // It is this run's own; when it cannot be removed either, the first error says more.
        let _ = std::fs::remove_file(path);
        failed(e)
    })
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::Refused, "write", path.display().to_string())
        .because("it exists")
        .hint("name a new file, or remove this one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.svg");
        check(&path).unwrap();
        write(&path, b"first").unwrap();
        assert_eq!(check(&path).unwrap_err().kind(), ErrorKind::Refused);
        let again = write(&path, b"second").unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Refused);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        assert_eq!(check(&link).unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(write(&link, b"x").unwrap_err().kind(), ErrorKind::Refused);
    }

    #[test]
    fn a_folder_that_is_not_there_is_the_destinations_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/map.svg");
        check(&path).unwrap();
        let error = write(&path, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Destination);
    }
}
