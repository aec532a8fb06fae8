//! The files of a machine, below `/` or below the folder of a recorded one.

use super::text::{clean, clean_bytes};
use crate::sys;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest sysfs attribute; the kernel's own limit is one page (Documentation/filesystems/sysfs.rst).
const MAX_ATTRIBUTE: u64 = 4096;

/// A machine's `/sys`, `/proc`, `/run` and `/dev`. Paths given to it are absolute paths of that
/// machine.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The machine whose `/` is `root`.
    ///
    /// # Errors
    /// As realpath(3).
    pub(super) fn new(root: &Path) -> io::Result<Tree> {
        Ok(Tree {
            root: root.canonicalize()?,
        })
    }

    /// Whether this is the running machine and no recording: only then are inodes and device
    /// numbers of files those of the machine.
    pub(super) fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path` lies on this machine. On the running one a relative path stays relative to the
    /// working directory.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if self.is_live() {
            return path.to_owned();
        }
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// `path` without symbolic links, as a path of the machine. `None` when it is not there or
    /// leads out of a recording.
    pub(super) fn canonical(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = self.at(path);
        let _pending = looking_at(&path);
        let real = path.canonicalize().ok()?;
        let inside = real.strip_prefix(&self.root).ok()?;
        Some(Path::new("/").join(inside))
    }

    /// What stat(2) says, links followed.
    ///
    /// # Errors
    /// As stat(2).
    pub(super) fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        let path = self.at(path);
        let _pending = looking_at(&path);
        fs::metadata(path)
    }

    /// Whether there is anything at `path`.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    /// The first `limit` bytes of a file and whether there are more.
    ///
    /// # Errors
    /// As open(2) and read(2).
    fn start_of(&self, path: &Path, limit: u64) -> io::Result<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        let file = File::open(self.at(path))?;
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = bytes.len() > limit;
        bytes.truncate(limit);
        Ok((bytes, more))
    }

    /// A whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// As open(2) and read(2); `InvalidData` when it is longer.
    pub(super) fn whole(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        match self.start_of(path.as_ref(), limit)? {
            (bytes, false) => Ok(bytes),
            (_, true) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("longer than {limit} bytes"),
            )),
        }
    }

    /// An attribute's bytes; `None` when it is absent, empty or unreadable. sysfs makes some
    /// attributes fail for devices that lack the fact, so a failure means no more than absence.
    pub(super) fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let (bytes, _) = self.start_of(path.as_ref(), MAX_ATTRIBUTE).ok()?;
        (!bytes.is_empty()).then_some(bytes)
    }

    /// An attribute as clean text.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        clean_bytes(&self.bytes(path)?)
    }

    /// An attribute that is a decimal number.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// An attribute that is 0 or 1.
    pub(super) fn flag(&self, path: impl AsRef<Path>) -> Option<bool> {
        self.number(path).map(|n| n != 0)
    }

    /// The names in a folder, sorted; none when it is absent.
    ///
    /// # Errors
    /// As readdir(3), except absence; `InvalidData` for more than `limit` names.
    pub(super) fn names(&self, dir: impl AsRef<Path>, limit: usize) -> io::Result<Vec<OsString>> {
        let entries = match fs::read_dir(self.at(dir)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            if names.len() == limit {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("more than {limit} entries"),
                ));
            }
            names.push(entry?.file_name());
        }
        names.sort();
        Ok(names)
    }

    /// The text of a symbolic link.
    pub(super) fn link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        fs::read_link(self.at(path)).ok()
    }

    /// The last name that a symbolic link points to.
    pub(super) fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        let link = self.link(path)?;
        Some(clean(&link.file_name()?.to_string_lossy()))
    }
}

/// A share that is gone holds even a look.
fn looking_at(path: &Path) -> sys::Pending {
    sys::pending("looking at", &path.display().to_string())
}
