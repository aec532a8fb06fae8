//! A folder in memory that is mounted: every change that a program makes in it is written down, in the
//! order in which the kernel hands them on.

use super::privileged::available;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Nothing is cached: the program is to see what is there.
const NOW: Duration = Duration::ZERO;
const BLOCK: u32 = 4096;
/// As large as the file system says that it is.
const BLOCKS: u64 = 1 << 20;

/// What a program did to the folder. Files have numbers that are never used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Create { file: u64, name: OsString },
    Write { file: u64, at: u64, bytes: Vec<u8> },
    SetLen { file: u64, len: u64 },
    Link { file: u64, name: OsString },
    Rename { from: OsString, to: OsString },
    Remove { name: OsString },
    Sync { file: u64 },
    SyncFolder,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<OsString, u64>,
    /// Also files without a name, which somebody may have open.
    files: BTreeMap<u64, Vec<u8>>,
    log: Vec<Change>,
}

/// The files of a folder by name: number and content.
pub(crate) type Files = BTreeMap<OsString, (u64, Vec<u8>)>;

/// The folder, mounted until this is dropped.
pub(crate) struct RecordedFolder {
    state: Arc<Mutex<State>>,
    // In this order: the mount goes before the folder that it covers.
    _session: BackgroundSession,
    dir: TempDir,
}

impl RecordedFolder {
    /// An empty one. `None` where nothing can be mounted, which is said.
    pub(crate) fn mount(what: &str) -> Option<RecordedFolder> {
        let usable = nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists();
        if !available("root and FUSE", what, usable) {
            return None;
        }
        let state = Arc::new(Mutex::new(State::default()));
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("strata-test".to_owned())];
        let session = fuser::spawn_mount(Recorder(Arc::clone(&state)), dir.path(), &config);
        Some(RecordedFolder {
            state,
            _session: session.unwrap(),
            dir,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What is in it now.
    pub(crate) fn files(&self) -> Files {
        let state = locked(&self.state);
        let file = |(name, id): (&OsString, &u64)| (name.clone(), (*id, state.files[id].clone()));
        state.names.iter().map(file).collect()
    }

    /// The changes since the last call.
    pub(crate) fn take_log(&self) -> Vec<Change> {
        std::mem::take(&mut locked(&self.state).log)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Recorder(Arc<Mutex<State>>);

type Answer<T> = Result<T, Errno>;

impl State {
    fn id(&self, name: &OsStr) -> Answer<u64> {
        self.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn file(&mut self, ino: INodeNo) -> Answer<&mut Vec<u8>> {
        self.files.get_mut(&ino.0).ok_or(Errno::ENOENT)
    }

    fn attr(&self, ino: INodeNo) -> Answer<FileAttr> {
        let folder = ino == INodeNo::ROOT;
        let len = match self.files.get(&ino.0) {
            Some(bytes) => bytes.len(),
            None if folder => 0,
            None => return Err(Errno::ENOENT),
        };
        let size = u64::try_from(len).unwrap();
        let links = self.names.values().filter(|id| **id == ino.0).count();
        Ok(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if folder {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if folder { 0o700 } else { 0o600 },
            nlink: if folder {
                2
            } else {
                u32::try_from(links).unwrap()
            },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }

    fn create(&mut self, name: &OsStr) -> Answer<FileAttr> {
        if self.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        // 1 is the folder.
        let file = self.files.keys().next_back().map_or(2, |id| id + 1);
        self.files.insert(file, Vec::new());
        self.names.insert(name.to_owned(), file);
        let name = name.to_owned();
        self.log.push(Change::Create { file, name });
        self.attr(INodeNo(file))
    }

    fn write(&mut self, ino: INodeNo, at: u64, bytes: &[u8]) -> Answer<u32> {
        let start = usize::try_from(at).unwrap();
        let file = self.file(ino)?;
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        self.log.push(Change::Write {
            file: ino.0,
            at,
            bytes: bytes.to_vec(),
        });
        Ok(u32::try_from(bytes.len()).unwrap())
    }

    fn set_len(&mut self, ino: INodeNo, len: u64) -> Answer<()> {
        self.file(ino)?.resize(usize::try_from(len).unwrap(), 0);
        self.log.push(Change::SetLen { file: ino.0, len });
        Ok(())
    }

    fn rename(&mut self, from: &OsStr, to: &OsStr, flags: RenameFlags) -> Answer<()> {
        let file = self.id(from)?;
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && self.names.contains_key(to) {
            return Err(Errno::EEXIST);
        }
        self.names.remove(from);
        self.names.insert(to.to_owned(), file);
        let (from, to) = (from.to_owned(), to.to_owned());
        self.log.push(Change::Rename { from, to });
        Ok(())
    }

    fn link(&mut self, ino: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        self.file(ino)?;
        if self.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.names.insert(name.to_owned(), ino.0);
        let name = name.to_owned();
        self.log.push(Change::Link { file: ino.0, name });
        self.attr(ino)
    }

    fn remove(&mut self, name: &OsStr) -> Answer<()> {
        self.id(name)?;
        self.names.remove(name);
        let name = name.to_owned();
        self.log.push(Change::Remove { name });
        Ok(())
    }
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }
}

fn answer(reply: ReplyEmpty, done: Answer<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

fn entry(reply: ReplyEntry, found: Answer<FileAttr>) {
    match found {
        Ok(attr) => reply.entry(&NOW, &attr, Generation(0)),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Recorder {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        entry(reply, state.id(name).and_then(|id| state.attr(INodeNo(id))));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attr(ino) {
            Ok(attr) => reply.attr(&NOW, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let done = size.map_or(Ok(()), |len| state.set_len(ino, len));
        match done.and_then(|()| state.attr(ino)) {
            Ok(attr) => reply.attr(&NOW, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.state().create(name) {
            Ok(attr) => {
                reply.created(
                    &NOW,
                    &attr,
                    Generation(0),
                    FileHandle(0),
                    FopenFlags::empty(),
                );
            }
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
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
        match self.state().file(ino) {
            Ok(bytes) => {
                let start = usize::try_from(offset).unwrap().min(bytes.len());
                let end = bytes.len().min(start + usize::try_from(size).unwrap());
                reply.data(&bytes[start..end]);
            }
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.state().write(ino, offset, data) {
            Ok(count) => reply.written(count),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.state().log.push(Change::Sync { file: ino.0 });
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.state().log.push(Change::SyncFolder);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.state();
        let skipped = usize::try_from(offset).unwrap();
        for (next, (name, id)) in (1..).zip(&state.names).skip(skipped) {
            if reply.add(INodeNo(*id), next, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.state().rename(name, newname, flags));
    }

    fn link(&self, _: &Request, ino: INodeNo, _: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        entry(reply, self.state().link(ino, newname));
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.state().remove(name));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK, 255, BLOCK);
    }
}
