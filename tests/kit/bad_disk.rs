//! A disk that fails as it is told to, and tells what is written to it: a file of a FUSE mount, and a loop device over
//! it. What the program reads goes past every cache, so that each read of it is one here.

use super::fuse_attr::attr;
use super::privileged::{Loop, available};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";

/// What a spot does to reads that touch it.
#[derive(Debug, Clone)]
struct Spot {
    bytes: Range<u64>,
    /// So many reads fail, then it is good.
    failures: u64,
}

/// What reached the disk.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    /// All that was written before it outlives a power cut.
    Flush,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    spots: Vec<Spot>,
    /// Where was read, in order, and whether that failed.
    reads: Vec<(Range<u64>, bool)>,
    /// So many reads are good, then it is gone: every read fails.
    left: Option<u64>,
    /// Since somebody asked for them.
    changes: Option<Vec<Change>>,
}

/// The disk, until this is dropped.
pub(crate) struct BadDisk {
    state: Arc<Mutex<State>>,
    // In this order: the device goes before the mount, and that before its folder.
    device: Loop,
    _session: BackgroundSession,
    _dir: TempDir,
}

impl BadDisk {
    /// One that holds `bytes`. `None` where there can be none, which is said.
    pub(crate) fn new(bytes: Vec<u8>, what: &str) -> Option<BadDisk> {
        let usable = nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists();
        if !available("root and FUSE", what, usable) {
            return None;
        }
        let state = Arc::new(Mutex::new(State {
            bytes,
            ..State::default()
        }));
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("strata-test".to_owned())];
        let session = fuser::spawn_mount(Server(Arc::clone(&state)), dir.path(), &config);
        let session = session.unwrap();
        let device = Loop::new(&dir.path().join(NAME));
        Some(BadDisk {
            state,
            device,
            _session: session,
            _dir: dir,
        })
    }

    /// The device.
    pub(crate) fn path(&self) -> &Path {
        self.device.path()
    }

    /// Reads that touch `bytes` fail from now on.
    pub(crate) fn spoil(&self, bytes: Range<u64>) {
        self.spoil_for(bytes, u64::MAX);
    }

    /// The first `failures` reads that touch `bytes` fail.
    pub(crate) fn spoil_for(&self, bytes: Range<u64>, failures: u64) {
        self.state().spots.push(Spot { bytes, failures });
    }

    /// All of it can be read again.
    pub(crate) fn heal(&self) {
        self.state().spots.clear();
    }

    /// Nothing of it can be read any more once `reads` more were.
    pub(crate) fn vanish_after(&self, reads: u64) {
        self.state().left = Some(reads);
    }

    /// It is there again.
    pub(crate) fn come_back(&self) {
        self.state().left = None;
    }

    /// The reads since this was asked last, in order, and whether they failed.
    pub(crate) fn take_reads(&self) -> Vec<(Range<u64>, bool)> {
        std::mem::take(&mut self.state().reads)
    }

    /// What the disk holds; from now on its changes are kept.
    pub(crate) fn record(&self) -> Vec<u8> {
        let mut state = self.state();
        state.changes = Some(Vec::new());
        state.bytes.clone()
    }

    /// How many changes were kept so far.
    pub(crate) fn changed(&self) -> usize {
        self.state().changes.as_ref().map_or(0, Vec::len)
    }

    /// The changes since [`BadDisk::record`], in order.
    pub(crate) fn take_changes(&self) -> Vec<Change> {
        self.state().changes.take().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Server(Arc<Mutex<State>>);

impl Server {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let size = locked(&self.0).bytes.len() as u64;
        FileAttr {
            blksize: 512,
            ..attr(ino, size)
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&Duration::from_secs(60), &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::from_secs(60), &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = locked(&self.0);
        let end = (offset + u64::from(size)).min(state.bytes.len() as u64);
        let wanted = offset.min(end)..end;
        let mut failed = state.left == Some(0);
        state.left = state.left.map(|left| left.saturating_sub(1));
        for spot in &mut state.spots {
            let touched = spot.bytes.start < wanted.end && wanted.start < spot.bytes.end;
            if touched && spot.failures > 0 {
                spot.failures -= 1;
                failed = true;
            }
        }
        state.reads.push((wanted.clone(), failed));
        if failed {
            reply.error(Errno::EIO);
            return;
        }
        let at = |n: u64| usize::try_from(n).unwrap();
        reply.data(&state.bytes[at(wanted.start)..at(wanted.end)]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let at = usize::try_from(offset).unwrap();
        let mut state = locked(&self.0);
        state.bytes[at..at + data.len()].copy_from_slice(data);
        if let Some(changes) = &mut state.changes {
            let bytes = data.to_vec();
            changes.push(Change::Write { at, bytes });
        }
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(changes) = &mut locked(&self.0).changes {
            changes.push(Change::Flush);
        }
        reply.ok();
    }
}
