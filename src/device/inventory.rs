//! The machine's block devices and what lies on them, read once as a value.

use super::mounts::{self, Mount};
use super::node::{DevNum, Device};
use super::swaps;
use super::sysfs::{self, MAX_DEVICES};
use super::tree::Tree;
use crate::base::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Largest table of mounts or swaps, in bytes. The kernel allows 100,000 mounts to a namespace
/// (fs.mount-max), at some 200 bytes each.
const MAX_TABLE: u64 = 64 << 20;

/// Most processes whose mounts are looked at: the kernel's largest `pid_max` (2^22).
const MAX_PROCESSES: usize = 1 << 22;

/// A process, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name, at most 15 bytes as the kernel keeps it.
    pub name: String,
}

/// The mounts that one process sees.
#[derive(Debug)]
pub(super) struct MountTable {
    /// `None` for this process.
    pub process: Option<Process>,
    pub mounts: Vec<Mount>,
}

/// Something in use as swap.
#[derive(Debug)]
pub(super) struct Swap {
    pub path: PathBuf,
    /// The devices that it lies on: one, or those below the file system of a file.
    pub devices: BTreeSet<DevNum>,
}

/// Every block device of a machine, what is made of what, and what is mounted.
///
/// A value of one moment: what happens afterwards is found by the checks that follow the opening
/// of a target ([`WritePermit::into_target`](super::WritePermit::into_target)).
#[derive(Debug)]
pub struct Inventory {
    pub(super) tree: Tree,
    devices: Vec<Device>,
    by_number: BTreeMap<DevNum, usize>,
    by_name: BTreeMap<String, usize>,
    /// This process's mounts first, then those of other namespaces.
    pub(super) tables: Vec<MountTable>,
    pub(super) swaps: Vec<Swap>,
    /// The members of each mounted btrfs, which may be several devices.
    pub(super) btrfs: Vec<(String, BTreeSet<DevNum>)>,
    /// What each device lies on directly: the disk of a partition, the parts of a mapped device or
    /// RAID, the devices below a loop device's file.
    pub(super) below: BTreeMap<DevNum, BTreeSet<DevNum>>,
}

impl Inventory {
    /// Reads `sys`, `proc`, `run/udev` and `dev` below `root`: `/`, or a recorded machine.
    ///
    /// What only helps people (udev, links, hardware names) may be missing; without the list of
    /// disks or of mounts there is no answer at all, since nobody could say what is in use.
    ///
    /// # Errors
    /// `Source` when the disks, the mounts or the swaps cannot be read.
    pub fn read(root: &Path) -> Result<Inventory> {
        let tree = Tree::new(root).map_err(|e| unreadable("/", e))?;
        let devices = sysfs::read(&tree)?;
        let index = |(at, device): (usize, &Device)| (device.dev, at);
        let by_number = devices.iter().enumerate().map(index).collect();
        let name = |(at, device): (usize, &Device)| (device.name.clone(), at);
        let by_name = devices.iter().enumerate().map(name).collect();
        let mut tables = vec![MountTable {
            process: None,
            mounts: own_mounts(&tree)?,
        }];
        tables.extend(other_mounts(&tree)?);
        let mut inventory = Inventory {
            tree,
            devices,
            by_number,
            by_name,
            tables,
            swaps: Vec::new(),
            btrfs: Vec::new(),
            below: BTreeMap::new(),
        };
        inventory.btrfs = inventory.read_btrfs();
        inventory.place_mounts();
        inventory.swaps = inventory.read_swaps()?;
        inventory.below = inventory.layers();
        Ok(inventory)
    }

    /// Every device, in the order of people: `sda2` before `sda10`, a disk before its partitions.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The whole devices that people keep data on: no partitions, no memory, nothing empty.
    pub fn disks(&self) -> impl Iterator<Item = &Device> {
        let whole = |d: &&Device| d.partition.is_none() && d.is_worth_showing();
        self.devices.iter().filter(whole)
    }

    /// The partitions of a disk, by number.
    pub fn partitions_of(&self, disk: DevNum) -> impl Iterator<Item = &Device> {
        let belongs = move |d: &&Device| d.partition.as_ref().is_some_and(|p| p.disk == disk);
        self.devices.iter().filter(belongs)
    }

    /// The device with a number.
    pub fn device(&self, dev: DevNum) -> Option<&Device> {
        self.by_number
            .get(&dev)
            .and_then(|at| self.devices.get(*at))
    }

    /// The device with a kernel name.
    pub fn named(&self, name: &str) -> Option<&Device> {
        self.by_name.get(name).and_then(|at| self.devices.get(*at))
    }

    /// The block device that `path` leads to, through whatever links.
    pub fn device_at(&self, path: &Path) -> Option<&Device> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        if self.tree.is_live() {
            // The number and not the name: a node may lie anywhere, and a plain file in /dev is none.
            let metadata = self.tree.metadata(path).ok()?;
            return metadata
                .file_type()
                .is_block_device()
                .then(|| self.device(DevNum::from_raw(metadata.rdev())))
                .flatten();
        }
        let path = self.tree.canonical(path)?;
        self.devices.iter().find(|device| device.path == path)
    }

    fn read_btrfs(&self) -> Vec<(String, BTreeSet<DevNum>)> {
        let dir = Path::new("/sys/fs/btrfs");
        let mut found = Vec::new();
        for id in self.tree.names(dir, MAX_DEVICES).unwrap_or_default() {
            let members = self.tree.names(dir.join(&id).join("devices"), MAX_DEVICES);
            let members: BTreeSet<DevNum> = members
                .unwrap_or_default()
                .iter()
                .filter_map(|name| Some(self.named(name.to_str()?)?.dev))
                .collect();
            if !members.is_empty() {
                found.push((id.to_string_lossy().into_owned(), members));
            }
        }
        found
    }

    fn read_swaps(&self) -> Result<Vec<Swap>> {
        let path = "/proc/swaps";
        let table = match self.tree.whole(path, MAX_TABLE) {
            Ok(table) => table,
            // A kernel without swap has no such file.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(unreadable(path, e)),
        };
        let swap = |path: PathBuf| Swap {
            devices: match self.device_at(&path) {
                Some(device) => BTreeSet::from([device.dev]),
                None => self.devices_of_path(&path),
            },
            path,
        };
        Ok(swaps::parse(&table).into_iter().map(swap).collect())
    }
}

fn own_mounts(tree: &Tree) -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let table = tree
        .whole(path, MAX_TABLE)
        .map_err(|e| unreadable(path, e))?;
    mounts::parse(&table).map_err(|line| {
        Error::new(ErrorKind::Source, "read", path)
            .because(format!("line {line} is not as the kernel writes it"))
    })
}

/// The mounts of other namespaces and of processes with another root folder (a chroot sees only
/// what lies below it), each kind once. What cannot be read (no right, the process has ended) is
/// left out: the kernel's own exclusive claim still stands behind this list.
fn other_mounts(tree: &Tree) -> Result<Vec<MountTable>> {
    let view = |dir: &Path| {
        let namespace = tree.link(dir.join("ns/mnt"))?;
        Some((namespace, tree.link(dir.join("root"))))
    };
    let mut seen: BTreeSet<_> = view(Path::new("/proc/self")).into_iter().collect();
    let mut tables = Vec::new();
    for pid in processes(tree)? {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let Some(view) = view(&dir) else { continue };
        if !seen.insert(view) {
            continue;
        }
        let table = tree.whole(dir.join("mountinfo"), MAX_TABLE);
        if let Some(mounts) = table.ok().and_then(|table| mounts::parse(&table).ok()) {
            tables.push(MountTable {
                process: Some(process(tree, pid)),
                mounts,
            });
        }
    }
    Ok(tables)
}

/// The numbers of all processes, in order.
pub(super) fn processes(tree: &Tree) -> Result<Vec<u32>> {
    let names = tree
        .names("/proc", MAX_PROCESSES)
        .map_err(|e| unreadable("/proc", e))?;
    let mut pids: Vec<u32> = names
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Process `pid` with its name.
pub(super) fn process(tree: &Tree, pid: u32) -> Process {
    Process {
        pid,
        name: tree
            .text(format!("/proc/{pid}/comm"))
            .unwrap_or_else(|| "unknown".to_owned()),
    }
}

fn unreadable(path: &str, e: io::Error) -> Error {
    Error::new(ErrorKind::Source, "read", path)
        .caused_by(e)
        .hint("what is in use can only be told with proc mounted at /proc and sysfs at /sys")
}
