//! What a folder that is mounted by FUSE says of its files, for tests and benches.

use fuser::{FileAttr, FileType, INodeNo};
use std::time::UNIX_EPOCH;

/// Of the folder itself, or of a file of `size` bytes with one name, both for their owner alone.
pub(crate) fn attr(ino: INodeNo, size: u64) -> FileAttr {
    let (kind, perm) = match ino {
        INodeNo::ROOT => (FileType::Directory, 0o700),
        _ => (FileType::RegularFile, 0o600),
    };
    FileAttr {
        ino,
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
