//! A folder in memory that is mounted: every change that a program makes in it is written down, in the
//! order in which the kernel hands them on, and calls can be made to fail, or not to be answered.

use super::fuse_attr::attr;
use super::privileged::available;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
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

/// A call that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Break {
    /// The so many-th from now, from 1, of those that may fail.
    pub(crate) nth: u64,
    pub(crate) errno: i32,
    /// Whether all that follow fail too.
    pub(crate) lasting: bool,
}

/// A read or a write that does less than it was asked for, as the kernel's rules allow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short {
    /// The so many-th from now, from 1, of those that are longer than this.
    pub(crate) nth: u64,
    /// So many bytes of it, 1 at least.
    pub(crate) len: usize,
    /// Whether all that follow are short too.
    pub(crate) lasting: bool,
}

/// What lseek(2) asks for.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// Who asks for this file is not answered, and neither is anybody behind them.
const HANG: &str = ".hang";

/// What a question that is not answered waits for.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    broken: Option<Break>,
    /// Calls since then.
    calls: u64,
    short: Option<Short>,
    /// Reads and writes since then that could be shorter.
    longer: u64,
    /// What syncing the folder answers.
    folder_sync: Option<i32>,
    /// What closing a file answers; that is not asked for at all where this is nothing at first.
    close: Option<i32>,
    /// Bytes that fit in; as many as one likes when absent.
    room: Option<u64>,
    /// Whether every file is said to be a hole.
    all_holes: bool,
    newest: u64,
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
    gate: Arc<Gate>,
    // In this order: the mount goes before the folder that it covers.
    _session: BackgroundSession,
    dir: TempDir,
}

/// A [`RecordedFolder`] in another place, until this is dropped.
pub(crate) struct OtherMount {
    _session: BackgroundSession,
    dir: TempDir,
}

impl OtherMount {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn spawn(state: &Arc<Mutex<State>>, gate: &Arc<Gate>, at: &Path) -> BackgroundSession {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("strata-test".to_owned())];
    let recorder = Recorder {
        state: Arc::clone(state),
        gate: Arc::clone(gate),
    };
    fuser::spawn_mount(recorder, at, &config).unwrap()
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
        let gate = Arc::new(Gate::default());
        Some(RecordedFolder {
            _session: spawn(&state, &gate, dir.path()),
            state,
            gate,
            dir,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The same folder mounted once more, as on another machine: the kernel's locks on its files do not reach
    /// from one mount to the other.
    pub(crate) fn mount_again(&self) -> OtherMount {
        let dir = tempfile::tempdir().unwrap();
        let session = spawn(&self.state, &self.gate, dir.path());
        OtherMount {
            _session: session,
            dir,
        }
    }

    /// What is in it now.
    pub(crate) fn files(&self) -> Files {
        let state = locked(&self.state);
        let file = |(name, id): (&OsString, &u64)| (name.clone(), (*id, state.files[id].clone()));
        state.names.iter().map(file).collect()
    }

    /// Has a call fail from now on, and no other.
    pub(crate) fn break_call(&self, broken: Break) {
        let mut state = locked(&self.state);
        (state.broken, state.calls) = (Some(broken), 0);
    }

    /// No call fails any more. Says whether one did.
    pub(crate) fn mend(&self) -> bool {
        let mut state = locked(&self.state);
        let broken = state.broken.take();
        broken.is_some_and(|broken| state.calls >= broken.nth)
    }

    /// Has a read or a write be short from now on, of files that are opened from now on.
    pub(crate) fn shorten(&self, short: Short) {
        let mut state = locked(&self.state);
        (state.short, state.longer) = (Some(short), 0);
    }

    /// None is short any more. Says whether one was.
    pub(crate) fn lengthen(&self) -> bool {
        let mut state = locked(&self.state);
        let short = state.short.take();
        short.is_some_and(|short| state.longer >= short.nth)
    }

    /// Has every sync of the folder fail from now on.
    pub(crate) fn break_folder_sync(&self, errno: i32) {
        locked(&self.state).folder_sync = Some(errno);
    }

    /// Has every close of a file fail from now on. The kernel asks no more once a close went well.
    pub(crate) fn break_close(&self, errno: i32) {
        locked(&self.state).close = Some(errno);
    }

    /// Puts a file there that the kernel has not seen yet.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = locked(&self.state);
        state.newest += 1;
        let file = state.newest + 1;
        state.files.insert(file, bytes);
        state.names.insert(name.into(), file);
    }

    /// Answers nothing from now on. The kernel keeps what is asked, and lets whoever asked be killed: what
    /// holds up the others is a question of the test's own.
    pub(crate) fn hang(&self) {
        *self.gate.closed.lock().unwrap() = true;
        let path = self.path().join(HANG);
        std::thread::spawn(move || std::fs::metadata(path));
    }

    /// Answers again.
    pub(crate) fn release(&self) {
        *self.gate.closed.lock().unwrap() = false;
        self.gate.changed.notify_all();
    }

    /// Whether there is a file whose name has `part` in it.
    pub(crate) fn has(&self, part: &str) -> bool {
        let state = locked(&self.state);
        state
            .names
            .keys()
            .any(|name| name.to_string_lossy().contains(part))
    }

    /// From now on so many bytes fit in, with what is there.
    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        locked(&self.state).room = bytes;
    }

    /// Says from now on that no file has any data, which is not so.
    pub(crate) fn call_all_a_hole(&self, all: bool) {
        locked(&self.state).all_holes = all;
    }

    /// Puts files in place of all that is there.
    pub(crate) fn reset(&self, files: &Files) {
        let mut state = locked(&self.state);
        state.names.clear();
        for (name, (id, bytes)) in files {
            state.names.insert(name.clone(), *id);
            state.files.insert(*id, bytes.clone());
        }
        let named: std::collections::BTreeSet<u64> = state.names.values().copied().collect();
        // Whoever has one of the others open is gone.
        state.files.retain(|id, _| named.contains(id));
        state.log.clear();
    }

    /// The changes since the last call.
    pub(crate) fn take_log(&self) -> Vec<Change> {
        std::mem::take(&mut locked(&self.state).log)
    }
}

impl Drop for RecordedFolder {
    fn drop(&mut self) {
        // A mount that does not answer cannot be taken away.
        self.release();
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Recorder {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
}

type Answer<T> = Result<T, Errno>;

impl State {
    /// Counts a call that may fail.
    fn call(&mut self) -> Answer<()> {
        self.calls += 1;
        match self.broken {
            Some(broken)
                if self.calls == broken.nth || broken.lasting && self.calls > broken.nth =>
            {
                Err(Errno::from_i32(broken.errno))
            }
            _ => Ok(()),
        }
    }

    /// How much is done of a read or a write of `len` bytes.
    fn done_of(&mut self, len: usize) -> usize {
        let Some(short) = self.short.filter(|short| short.len < len) else {
            return len;
        };
        self.longer += 1;
        let hit = self.longer == short.nth || short.lasting && self.longer > short.nth;
        if hit { short.len } else { len }
    }

    /// How files are opened: where the kernel kept pages of them, it would take a short read for their end.
    fn opened(&self) -> FopenFlags {
        match self.short {
            Some(_) => FopenFlags::FOPEN_DIRECT_IO,
            None => FopenFlags::empty(),
        }
    }

    /// Whether so many bytes more fit in.
    fn fits(&self, more: usize) -> Answer<()> {
        let used: usize = self.names.values().map(|id| self.files[id].len()).sum();
        let wanted = u64::try_from(used + more).unwrap();
        match self.room {
            Some(room) if wanted > room => Err(Errno::ENOSPC),
            _ => Ok(()),
        }
    }

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
        let nlink = if folder {
            2
        } else {
            u32::try_from(links).unwrap()
        };
        Ok(FileAttr {
            nlink,
            blksize: BLOCK,
            ..attr(ino, size)
        })
    }

    fn create(&mut self, name: &OsStr) -> Answer<FileAttr> {
        if self.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.call()?;
        self.fits(1)?;
        self.newest += 1;
        // 1 is the folder.
        let file = self.newest + 1;
        self.files.insert(file, Vec::new());
        self.names.insert(name.to_owned(), file);
        let name = name.to_owned();
        self.log.push(Change::Create { file, name });
        self.attr(INodeNo(file))
    }

    fn write(&mut self, ino: INodeNo, at: u64, bytes: &[u8]) -> Answer<u32> {
        self.call()?;
        let bytes = &bytes[..self.done_of(bytes.len())];
        let start = usize::try_from(at).unwrap();
        let end = start + bytes.len();
        let more = end.saturating_sub(self.file(ino)?.len());
        self.fits(more)?;
        let file = self.file(ino)?;
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
        self.call()?;
        self.file(ino)?.resize(usize::try_from(len).unwrap(), 0);
        self.log.push(Change::SetLen { file: ino.0, len });
        Ok(())
    }

    fn rename(&mut self, from: &OsStr, to: &OsStr, flags: RenameFlags) -> Answer<()> {
        self.call()?;
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
        self.call()?;
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
        self.call()?;
        self.id(name)?;
        self.names.remove(name);
        let name = name.to_owned();
        self.log.push(Change::Remove { name });
        Ok(())
    }
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
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
    /// Unless it is to fail, it is not there: the kernel then asks for it once and never again. It would not let a
    /// process go that has a file open where nobody answers.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let close = self.state().close;
        reply.error(close.map_or(Errno::ENOSYS, Errno::from_i32));
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == HANG {
            let closed = self.gate.closed.lock().unwrap();
            drop(
                self.gate
                    .changed
                    .wait_while(closed, |closed| *closed)
                    .unwrap(),
            );
        }
        let mut state = self.state();
        let found = state.call().and_then(|()| state.id(name));
        entry(reply, found.and_then(|id| state.attr(INodeNo(id))));
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let mut state = self.state();
        let all_holes = state.all_holes;
        let len = match state.file(ino) {
            Ok(bytes) => i64::try_from(bytes.len()).unwrap(),
            Err(e) => return reply.error(e),
        };
        match whence {
            SEEK_DATA if all_holes || offset >= len => reply.error(Errno::ENXIO),
            SEEK_HOLE if !all_holes => reply.offset(len),
            _ => reply.offset(offset),
        }
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
        let mut state = self.state();
        match state.create(name) {
            Ok(attr) => {
                let opened = state.opened();
                reply.created(&NOW, &attr, Generation(0), FileHandle(0), opened);
            }
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.state();
        match state.call() {
            Ok(()) => reply.opened(FileHandle(0), state.opened()),
            Err(e) => reply.error(e),
        }
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
        let mut state = self.state();
        let len = state.call().and_then(|()| Ok(state.file(ino)?.len()));
        match len {
            Ok(len) => {
                let start = usize::try_from(offset).unwrap().min(len);
                let wanted = usize::try_from(size).unwrap().min(len - start);
                let end = start + state.done_of(wanted);
                reply.data(&state.files[&ino.0][start..end]);
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

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        let done = state.call();
        if done.is_ok() {
            state.log.push(Change::Sync { file: ino.0 });
        }
        answer(reply, done);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        let done = match state.folder_sync {
            Some(errno) => Err(Errno::from_i32(errno)),
            None => state.call(),
        };
        if done.is_ok() {
            state.log.push(Change::SyncFolder);
        }
        answer(reply, done);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.state();
        if let Err(e) = state.call() {
            return reply.error(e);
        }
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
        let mut state = self.state();
        if let Err(e) = state.call() {
            return reply.error(e);
        }
        let used: usize = state.names.values().map(|id| state.files[id].len()).sum();
        let all = state.room.map_or(BLOCKS, |room| room / u64::from(BLOCK));
        let free = all.saturating_sub(u64::try_from(used).unwrap().div_ceil(u64::from(BLOCK)));
        reply.statfs(all, free, free, BLOCKS, BLOCKS, BLOCK, 255, BLOCK);
    }
}
