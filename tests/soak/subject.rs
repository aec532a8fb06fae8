//! A disk with one file system on it: made, mounted, checked by its own tools.

use crate::kit::bytes;
use crate::kit::privileged::{Loop, Mount};
use crate::kit::run::text;
use crate::kit::{MIB, tools};
use crate::manifest::Manifest;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Ntfs,
}

/// A disk with a GPT whose one partition holds the file system.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) disk: PathBuf,
    len: u64,
}

/// Where the partition begins, and how much is left behind it for the other copy of the table.
const START: u64 = MIB;
const BEHIND: u64 = MIB;

impl Subject {
    /// Makes the disk, with an empty file system.
    pub(crate) fn made(kind: Kind, disk: &Path, len: u64) -> Subject {
        bytes::create_sparse(disk, len);
        let subject = Subject {
            kind,
            disk: disk.to_owned(),
            len,
        };
        let code = match kind {
            Kind::Ext4 => "8300",
            Kind::Ntfs => "0700",
        };
        let part = format!("-n1:{}:{}", START / 512, (len - BEHIND) / 512 - 1);
        let code = format!("-t1:{code}");
        tools::run("sgdisk", &["-a2048", &part, &code, text(disk)]);
        let device = subject.partition(disk);
        let device = text(device.path());
        match kind {
            // What the kernel would do later, in the background, is done at once.
            Kind::Ext4 => {
                let now = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
                tools::run("mke2fs", &["-q", "-F", "-t", "ext4", "-E", now, device])
            }
            Kind::Ntfs => tools::run("mkntfs", &["--quick", "--quiet", "--force", device]),
        };
        subject
    }

    /// The partition on `disk`, which is this one or a restored one.
    fn partition(&self, disk: &Path) -> Loop {
        Loop::of_range(disk, START, self.len - START - BEHIND)
    }

    fn partition_read_only(&self, disk: &Path) -> Loop {
        Loop::of_range_read_only(disk, START, self.len - START - BEHIND)
    }

    /// Mounts the file system, lets `change` change it, and says what it holds then.
    pub(crate) fn used(&self, dir: &Path, change: impl FnOnce(&Path)) -> Manifest {
        let device = self.partition(&self.disk);
        let at = dir.join("mount");
        let manifest = {
            let mount = match self.kind {
                Kind::Ext4 => Mount::new(device.path(), &at),
                Kind::Ntfs => Mount::ntfs(device.path(), &at),
            };
            change(mount.path());
            tools::run("sync", &["--file-system", text(mount.path())]);
            Manifest::of(mount.path())
        };
        std::fs::remove_dir(&at).unwrap();
        manifest
    }

    /// Fails unless the restored disk `disk` is whole for the tools of its formats; what it holds.
    #[track_caller]
    pub(crate) fn checked(&self, disk: &Path, dir: &Path) -> Manifest {
        tools::assert_gpt_sound(disk);
        let device = self.partition_read_only(disk);
        let node = text(device.path());
        match self.kind {
            Kind::Ext4 => {
                tools::run("e2fsck", &["-fn", node]);
            }
            Kind::Ntfs => {
                tools::run("ntfsfix", &["--no-action", node]);
                tools::run("ntfsresize", &["--check", node]);
                tools::run("ntfsresize", &["--info", "--force", node]);
            }
        }
        let at = dir.join("restored");
        let manifest = Manifest::of(Mount::read_only(device.path(), &at).path());
        std::fs::remove_dir(&at).unwrap();
        manifest
    }
}
