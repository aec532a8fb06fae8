//! Giving a finished file its name without ever taking that name from another file.

use super::held::lock_soon;
use crate::sys::Folder;
use std::ffi::OsStr;
use std::fs::File;
use std::io;

/// How a name is given. File systems differ in what they can; the order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A rename that the kernel refuses when the name is taken.
    Rename,
    /// A second link, which cannot replace anything, then the first is removed (NFS).
    Link,
    /// A look whether the name is free and a plain rename, both under a lock that every run takes
    /// for it (FUSE file systems without links).
    Look,
}

const WAYS: [Way; 3] = [Way::Rename, Way::Link, Way::Look];

/// The empty file that is locked for [`Way::Look`].
const PUBLISHING: &str = ".publishing";

/// Makes the file that stands under `from`, and is open as `file`, stand under `to`.
///
/// # Errors
/// `AlreadyExists` when `to` is taken; else as rename(2), link(2) or flock(2).
pub(super) fn publish(folder: &Folder, from: &OsStr, to: &OsStr, file: &File) -> io::Result<()> {
    let mut failure = None;
    for way in WAYS {
        match try_way(way, folder, from, to) {
            Ok(()) => return Ok(()),
            // A network file system may have done the step and lost the answer.
            Err(_) if folder.is_file(to, file).unwrap_or(false) => return Ok(()),
            Err(e) if is_final(&e) => return Err(e),
            Err(e) => failure = Some(e),
        }
    }
    Err(failure.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

fn try_way(way: Way, folder: &Folder, from: &OsStr, to: &OsStr) -> io::Result<()> {
    match way {
        Way::Rename => folder.rename_exclusive(from, to),
        Way::Link => {
            folder.link(from, to)?;
            // The file is published. What remains is a second name that a clean-up finds.
            let _ = folder.remove(from);
            Ok(())
        }
        Way::Look => {
            let lock = lock_soon(&folder.open_or_create(PUBLISHING.as_ref())?)?;
            if lock.is_none() {
                let text = "another run does not finish publishing";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            match folder.facts(to) {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => folder.rename(from, to),
                Err(e) => Err(e),
            }
        }
    }
}

/// Whether another way would fail as well. Refusals come under several names: `EINVAL`, `ENOSYS`,
/// `EOPNOTSUPP` for the rename, `EPERM` for the link.
fn is_final(e: &io::Error) -> bool {
    !matches!(
        e.kind(),
        io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TooManyLinks
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_way_gives_a_free_name_and_refuses_a_taken_one() {
        for way in WAYS {
            let dir = tempfile::tempdir().unwrap();
            let folder = Folder::open(dir.path()).unwrap();
            let at = |name: &str| dir.path().join(name);
            let step = |to: &str| try_way(way, &folder, ".from".as_ref(), to.as_ref());
            std::fs::write(at(".from"), "new").unwrap();
            std::fs::write(at("taken"), "old").unwrap();
            std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
            std::fs::create_dir(at("folder")).unwrap();
            for name in ["taken", "dangling", "folder"] {
                let error = step(name).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{way:?} {name}");
            }
            let text = |path: &Path| std::fs::read_to_string(path).unwrap();
            assert_eq!(text(&at("taken")), "old", "{way:?}");
            assert_eq!(text(&at(".from")), "new", "{way:?}");
            step("free").unwrap();
            assert_eq!(text(&at("free")), "new", "{way:?}");
            assert!(!at(".from").exists(), "{way:?}");
        }
    }

    #[test]
    fn a_lost_answer_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let file = folder.create_new("done".as_ref()).unwrap();
        publish(&folder, ".gone".as_ref(), "done".as_ref(), &file).unwrap();
    }
}
