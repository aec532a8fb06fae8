//! A folder that is far away: mounted read-only, every answer takes its time, and so many bytes come in a
//! second.

use super::{Any, fuse_attr};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, ReplyStatfs, Request,
};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the kernel does not ask again what a name stands for, as with the usual shares.
const KNOWN: Duration = Duration::from_secs(1);

/// How far away a folder is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distance {
    /// Until the first byte of an answer.
    pub(crate) delay: Duration,
    /// Bytes a second, of all answers together.
    pub(crate) rate: u64,
}

/// The folder, mounted until this is dropped.
pub(crate) struct FarFolder {
    // In this order: the mount goes before the folder that it covers.
    _session: BackgroundSession,
    dir: TempDir,
}

impl FarFolder {
    /// The files that are in `folder` now.
    pub(crate) fn mount(folder: &Path, distance: Distance) -> Any<FarFolder> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push((entry.file_name(), File::open(entry.path())?));
            }
        }
        let dir = tempfile::tempdir()?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("far".to_owned())];
        let server = Server {
            files: Arc::new(files),
            delay: distance.delay,
            line: Arc::new(Line {
                rate: distance.rate,
                free: Mutex::new(Instant::now()),
            }),
        };
        Ok(FarFolder {
            _session: fuser::spawn_mount(server, dir.path(), &config)?,
            dir,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// What all answers go over.
struct Line {
    rate: u64,
    /// When it has nothing more to carry.
    free: Mutex<Instant>,
}

impl Line {
    /// Waits until `bytes` have come over it.
    fn carry(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.rate.max(1));
        let arrived = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = Instant::now().max(*free) + takes;
            *free
        };
        std::thread::sleep(arrived.saturating_duration_since(Instant::now()));
    }
}

struct Server {
    files: Arc<Vec<(OsString, File)>>,
    delay: Duration,
    line: Arc<Line>,
}

impl Server {
    /// Gives the answer when its time has come; others are answered meanwhile.
    fn later(&self, answer: impl FnOnce() + Send + 'static) {
        let delay = self.delay;
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            answer();
        });
    }

    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let size = match ino {
            INodeNo::ROOT => 0,
            _ => self.file(ino)?.1.metadata().ok()?.len(),
        };
        Some(fuse_attr::attr(ino, size))
    }

    /// Files have the numbers behind that of the folder.
    fn file(&self, ino: INodeNo) -> Option<&(OsString, File)> {
        let index = ino.0.checked_sub(INodeNo::ROOT.0 + 1)?;
        self.files.get(usize::try_from(index).ok()?)
    }

    fn number(index: usize) -> INodeNo {
        INodeNo(INodeNo::ROOT.0 + 1 + u64::try_from(index).unwrap_or(u64::MAX / 2))
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Questions about one folder come together, as they do to a share. An old kernel cannot.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = self.files.iter().position(|(file, _)| file == name);
        let attr = index.and_then(|index| self.attr(Server::number(index)));
        self.later(move || match attr {
            Some(attr) => reply.entry(&KNOWN, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = self.attr(ino);
        self.later(move || match attr {
            Some(attr) => reply.attr(&KNOWN, &attr),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.later(move || reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (files, line) = (Arc::clone(&self.files), Arc::clone(&self.line));
        let index = ino.0.checked_sub(INodeNo::ROOT.0 + 1);
        self.later(move || {
            let index = index.and_then(|index| usize::try_from(index).ok());
            let Some((_, file)) = index.and_then(|index| files.get(index)) else {
                return reply.error(Errno::EIO);
            };
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            match file.read_at(&mut bytes, offset) {
                Ok(count) => {
                    line.carry(count);
                    reply.data(&bytes[..count]);
                }
                Err(_) => reply.error(Errno::EIO),
            }
        });
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let files = Arc::clone(&self.files);
        self.later(move || {
            let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
            for (index, (name, _)) in files.iter().enumerate().skip(skipped) {
                let next = u64::try_from(index).unwrap_or(u64::MAX - 1) + 1;
                if reply.add(Server::number(index), next, FileType::RegularFile, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.later(move || reply.statfs(1 << 30, 0, 0, 0, 0, 4096, 255, 4096));
    }
}
