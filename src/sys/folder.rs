//! Files of one folder, reached through a handle of that folder.
//!
//! Names given here are single components. Going through the handle means that nobody can swap the
//! folder, or a folder above it, for another one between two calls; and no call follows a symbolic
//! link that stands in a file's place. Interruptions are survived ([`persist`]).

use super::persist::{facts_of, persist, sync};
use super::space::{Space, space_of};
use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Every open: large files on 32-bit machines, nothing inherited by child processes, no terminal,
/// no hanging on a FIFO, no symbolic link.
const ALWAYS: OFlag = OFlag::O_LARGEFILE
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOFOLLOW);

/// What a folder says of a file.
#[derive(Debug, Clone, Copy)]
pub struct FileFacts(FileStat);

impl FileFacts {
    /// Whether it is a plain file.
    pub fn is_file(&self) -> bool {
        SFlag::from_bits_truncate(self.0.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
    }

    fn id(&self) -> (u64, u64) {
        (self.0.st_dev, self.0.st_ino)
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    handle: File,
}

impl Folder {
    /// Opens an existing folder. A symbolic link to one is followed: the person named it.
    ///
    /// # Errors
    /// As open(2); `ENOTDIR` when it is no folder.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_DIRECTORY)
            .open(path)?;
        Ok(Folder { handle })
    }

    /// Makes a folder that only its owner can enter (mode 0700) and makes it durable. One that
    /// exists is left as it is.
    ///
    /// # Errors
    /// As mkdir(2) and fsync(2); `ENOENT` when the folder above is missing.
    pub fn create(path: &Path) -> io::Result<Folder> {
        match persist(|| DirBuilder::new().mode(0o700).create(path)) {
            Ok(()) => {
                let above = match path.parent() {
                    Some(above) if above != Path::new("") => above,
                    _ => Path::new("."),
                };
                Folder::open(above)?.sync()?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        Folder::open(path)
    }

    /// Whether other machines may have mounted its file system, too.
    pub fn may_be_shared(&self) -> bool {
        super::may_be_shared(&self.handle)
    }

    /// The names of everything inside, in no order, without `.` and `..`.
    ///
    /// # Errors
    /// As getdents(2); `InvalidData` when there are more than `limit`.
    pub fn names(&self, limit: usize) -> io::Result<Vec<OsString>> {
        let entries = self.entries(limit)?.into_iter();
        Ok(entries.map(|(name, _)| name).collect())
    }

    /// The names of the plain files inside, in no order. Each file is asked for what it is only where the
    /// folder does not say that.
    ///
    /// # Errors
    /// As [`Folder::names`] and [`Folder::facts`].
    pub fn plain_files(&self, limit: usize) -> io::Result<Vec<OsString>> {
        let mut plain = Vec::new();
        for (name, kind) in self.entries(limit)? {
            let is_plain = match kind {
                Some(kind) => kind == Type::File,
                None => match self.facts(&name) {
                    Ok(facts) => facts.is_file(),
                    // Removed since the folder was read.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                    Err(e) => return Err(e),
                },
            };
            if is_plain {
                plain.push(name);
            }
        }
        Ok(plain)
    }

    fn entries(&self, limit: usize) -> io::Result<Vec<(OsString, Option<Type>)>> {
        persist(|| self.entries_now(limit))
    }

    fn entries_now(&self, limit: usize) -> io::Result<Vec<(OsString, Option<Type>)>> {
        // A handle of its own: the position in a folder belongs to the open file.
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = Dir::openat(&self.handle, ".", flags, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in dir {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if entries.len() == limit {
                let text = format!("there are more than {limit} files in the folder");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            entries.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
        Ok(entries)
    }

    /// What stands under `name`; of a symbolic link, the link itself.
    ///
    /// # Errors
    /// As fstatat(2).
    pub fn facts(&self, name: &OsStr) -> io::Result<FileFacts> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        persist(|| Ok(FileFacts(fstatat(&self.handle, name, flags)?)))
    }

    /// Whether `name` is the very file that is open as `file`.
    ///
    /// # Errors
    /// As [`Folder::facts`], except that a missing file is simply not it.
    pub fn is_file(&self, name: &OsStr, file: &File) -> io::Result<bool> {
        let mine = facts_of(file)?;
        match self.facts(name) {
            Ok(found) => Ok(found.id() == (mine.dev(), mine.ino())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As open(2); `ELOOP` for a symbolic link.
    pub fn open_to_read(&self, name: &OsStr) -> io::Result<File> {
        self.openat(name, OFlag::O_RDONLY, Mode::empty())
    }

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// As open(2); `ELOOP` for a symbolic link.
    pub fn open_to_write(&self, name: &OsStr) -> io::Result<File> {
        self.openat(name, OFlag::O_RDWR, Mode::empty())
    }

    /// Opens a file for reading and writing and makes it when it is missing (mode 0600).
    ///
    /// # Errors
    /// As open(2); `ELOOP` for a symbolic link.
    pub fn open_or_create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        self.openat(name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    /// Makes a file that does not exist yet (mode 0600), open for reading and writing.
    ///
    /// # Errors
    /// As open(2); `EEXIST` when anything stands under that name.
    pub fn create_new(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        self.openat(name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    /// Renames and never replaces (renameat2(2) with `RENAME_NOREPLACE`).
    ///
    /// # Errors
    /// As renameat2(2): `EEXIST` when `to` exists; `EINVAL` or `ENOSYS` where the file system or
    /// the kernel cannot.
    pub fn rename_exclusive(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let from = CString::new(from.as_bytes())?;
        let to = CString::new(to.as_bytes())?;
        let folder = self.handle.as_raw_fd();
        // The plain system call: musl's library of that name came late.
        persist(|| {
            // SAFETY: the descriptor is open and both names are NUL-terminated strings that live
            // through the call.
            let done = unsafe {
                nix::libc::syscall(
                    nix::libc::SYS_renameat2,
                    folder,
                    from.as_ptr(),
                    folder,
                    to.as_ptr(),
                    nix::libc::RENAME_NOREPLACE,
                )
            };
            if done == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        })
    }

    /// Renames; what stood under `to` is replaced.
    ///
    /// # Errors
    /// As renameat(2).
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        persist(|| Ok(renameat(&self.handle, from, &self.handle, to)?))
    }

    /// Gives a file a second name that does not exist yet.
    ///
    /// # Errors
    /// As linkat(2): `EEXIST` when `to` exists; `EPERM` or `EOPNOTSUPP` where the file system has
    /// no hard links.
    pub fn link(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let flags = AtFlags::empty();
        persist(|| Ok(linkat(&self.handle, from, &self.handle, to, flags)?))
    }

    /// Removes a name that is not a folder's.
    ///
    /// # Errors
    /// As unlinkat(2).
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        let flags = UnlinkatFlags::NoRemoveDir;
        persist(|| Ok(unlinkat(&self.handle, name, flags)?))
    }

    /// Makes all names of the folder durable. Some network file systems answer that folders cannot
    /// be synced (`EINVAL`, `EOPNOTSUPP`): `false`, there is no other way to ask them.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn sync(&self) -> io::Result<bool> {
        match sync(&self.handle) {
            Err(e) if is_refusal(&e) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The room on the file system that holds the folder.
    ///
    /// # Errors
    /// As fstatvfs(3).
    pub fn space(&self) -> io::Result<Space> {
        let stat = persist(|| Ok(nix::sys::statvfs::fstatvfs(&self.handle)?))?;
        Ok(space_of(&stat))
    }

    fn openat(&self, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<File> {
        persist(|| {
            Ok(File::from(openat(
                &self.handle,
                name,
                flags | ALWAYS,
                mode,
            )?))
        })
    }
}

/// Whether the call is one that this file system or kernel does not know.
fn is_refusal(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(nix::libc::EINVAL | nix::libc::EOPNOTSUPP | nix::libc::ENOSYS)
    )
}
