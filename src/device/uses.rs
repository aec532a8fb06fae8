//! Who uses a device, as values and in words.

use super::inventory::{Inventory, Process};
use super::node::{DevNum, Device};
use super::text::shown;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// One use of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// A file system on it, or in a layer above it, is mounted.
    Mounted {
        /// The device that is mounted: `/dev/sda1`.
        device: String,
        /// Where.
        point: PathBuf,
        /// The file system's type.
        fs_type: String,
        /// Whether the file system is read-only.
        read_only: bool,
        /// Set when it is mounted in another mount namespace only.
        process: Option<Process>,
    },
    /// The kernel swaps to it or to a file on it.
    Swap {
        /// The partition or file.
        path: PathBuf,
    },
    /// Something above claims it: LVM, LUKS, multipath, RAID, bcache, btrfs.
    Held {
        /// What is held: `/dev/sda2`.
        device: String,
        /// By what: `LUKS /dev/dm-0 (cryptroot)`.
        by: String,
    },
    /// A loop device shows a file that lies on it as a disk.
    LoopFile {
        /// The loop device: `/dev/loop0`.
        device: String,
        /// The file.
        file: PathBuf,
    },
}

impl Use {
    /// Whether the content may change while it is read.
    pub fn may_write(&self) -> bool {
        match self {
            Use::Mounted { read_only, .. } => !read_only,
            Use::Swap { .. } | Use::Held { .. } => true,
            // Its file system is mounted, and that is a use of its own.
            Use::LoopFile { .. } => false,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted {
                device,
                point,
                fs_type,
                read_only,
                process,
            } => {
                let mode = if *read_only {
                    "read-only"
                } else {
                    "read-write"
                };
                write!(
                    f,
                    "{device} is mounted at {} ({fs_type}, {mode})",
                    shown(point)
                )?;
                match process {
                    None => Ok(()),
                    Some(p) => write!(
                        f,
                        " in another mount namespace, seen by process {} ({})",
                        p.pid, p.name
                    ),
                }
            }
            Use::Swap { path } => write!(f, "{} is in use as swap", shown(path)),
            Use::Held { device, by } => write!(f, "{device} is held by {by}"),
            Use::LoopFile { device, file } => {
                write!(f, "loop device {device} shows its file {}", shown(file))
            }
        }
    }
}

impl Inventory {
    /// Every use of `device` itself, of what lies above it and, for a partition, of its disk as a
    /// whole.
    pub fn uses(&self, device: &Device) -> Vec<Use> {
        let mut set = self.overwritten_by(device);
        set.insert(device.whole());
        self.uses_of(&set)
    }

    /// The uses of `device` itself only, without its partitions and upper layers: what a list of
    /// disks shows beside it.
    pub fn direct_uses(&self, device: &Device) -> Vec<Use> {
        self.uses_of(&BTreeSet::from([device.dev]))
    }

    pub(super) fn uses_of(&self, set: &BTreeSet<DevNum>) -> Vec<Use> {
        let mut uses = self.mounted(set);
        let swaps = self.swaps.iter().filter(|s| !s.devices.is_disjoint(set));
        uses.extend(swaps.map(|swap| Use::Swap {
            path: swap.path.clone(),
        }));
        uses.extend(self.held(set));
        uses.extend(self.loop_files(set));
        uses
    }

    fn mounted(&self, set: &BTreeSet<DevNum>) -> Vec<Use> {
        let mut uses: Vec<Use> = Vec::new();
        let mut seen = BTreeSet::new();
        for table in &self.tables {
            let touching = table
                .mounts
                .iter()
                .filter_map(|m| Some((m, *m.devices.intersection(set).next()?)));
            for (mount, dev) in touching {
                // Another namespace mostly repeats the mounts of the one it was copied from: only
                // a file system that is not mounted here is news.
                if !seen.insert(mount.dev) && table.process.is_some() {
                    continue;
                }
                uses.push(Use::Mounted {
                    device: self.title(dev),
                    point: mount.point.clone(),
                    fs_type: mount.fs_type.clone(),
                    read_only: mount.read_only,
                    process: table.process.clone(),
                });
            }
        }
        uses
    }

    fn held(&self, set: &BTreeSet<DevNum>) -> Vec<Use> {
        let mut uses = Vec::new();
        for device in set.iter().filter_map(|dev| self.device(*dev)) {
            let mut held = |by: String| {
                uses.push(Use::Held {
                    device: device.title(),
                    by,
                });
            };
            for holder in &device.holders {
                held(
                    self.named(holder)
                        .map_or_else(|| holder.clone(), Device::role),
                );
            }
            if device.bcache_member && device.holders.is_empty() {
                held("bcache".to_owned());
            }
            for (id, _) in self.btrfs.iter().filter(|(_, m)| m.contains(&device.dev)) {
                held(format!("the mounted btrfs {}", super::text::clean(id)));
            }
        }
        uses
    }

    fn loop_files(&self, set: &BTreeSet<DevNum>) -> Vec<Use> {
        let on_set = |device: &&Device| {
            let below = self.below.get(&device.dev);
            below.is_some_and(|below| !below.is_disjoint(set))
        };
        let file = |device: &Device| {
            Some(Use::LoopFile {
                device: device.title(),
                file: device.loop_file.as_ref()?.path.clone(),
            })
        };
        self.devices()
            .iter()
            .filter(on_set)
            .filter_map(file)
            .collect()
    }

    /// What a device is called, known or not.
    pub(super) fn title(&self, dev: DevNum) -> String {
        self.device(dev)
            .map_or_else(|| format!("device {dev}"), Device::title)
    }
}
