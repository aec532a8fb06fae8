//! From mounts and paths to the block devices below them. Where it cannot be told exactly, the
//! answer holds too many devices rather than too few.

use super::inventory::{Inventory, MountTable};
use super::mounts::Mount;
use super::node::{DevNum, Device};
use crate::sys;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How deep overlays are followed into each other; the kernel stacks file systems at most twice
/// (`FILESYSTEM_MAX_STACK_DEPTH`).
const MAX_OVERLAYS: usize = 4;

/// Options that name a further device of a file system: XFS' log and real-time device (xfs(5)),
/// ext4's external journal (ext4(5)).
const DEVICE_OPTIONS: [&str; 3] = ["logdev", "rtdev", "journal_path"];

impl Inventory {
    /// The block devices directly below the file system that holds `path`, or would hold it when
    /// it does not exist yet. Empty for network and memory file systems.
    pub fn devices_of_path(&self, path: &Path) -> BTreeSet<DevNum> {
        let mut devices = BTreeSet::new();
        let Some(own) = self.tables.first() else {
            return devices;
        };
        let path = self.nearest(path);
        if self.tree.is_live() {
            // What the kernel says of the path itself counts too: the longest mount point that
            // fits the path's name may be hidden below another mount.
            if let Ok(id) = sys::mount_id(&path) {
                let mounts = own.mounts.iter().filter(|m| m.id == id);
                devices.extend(mounts.flat_map(|m| &m.devices));
            }
            let dev = self.tree.metadata(&path).ok();
            let dev = dev.map(|m| DevNum::from_raw(m.dev()));
            devices.extend(dev.filter(|dev| self.device(*dev).is_some()));
        }
        devices.extend(holding(own, &path).iter().flat_map(|m| &m.devices));
        devices
    }

    /// The mount that holds `path`.
    pub(super) fn mount_of(&self, path: &Path) -> Option<&Mount> {
        holding(self.tables.first()?, &self.nearest(path))
    }

    /// `path` without links, as far as it exists: the nearest folder that can be asked for its
    /// mount. In a recording, where few folders exist, the rest of the name is kept.
    fn nearest(&self, path: &Path) -> PathBuf {
        let resolved = |start: &Path| {
            let here = start.as_os_str().is_empty();
            let real = self
                .tree
                .canonical(if here { Path::new(".") } else { start })?;
            let rest = path.strip_prefix(start).ok()?;
            let whole = self.tree.is_live() || rest.as_os_str().is_empty();
            Some(if whole { real } else { real.join(rest) })
        };
        path.ancestors()
            .find_map(resolved)
            .unwrap_or_else(|| path.to_owned())
    }

    /// Finds the devices below every mount of every table.
    pub(super) fn place_mounts(&mut self) {
        let found: Vec<Vec<BTreeSet<DevNum>>> = self
            .tables
            .iter()
            .map(|table| {
                let below = |mount| self.below_mount(table, mount, MAX_OVERLAYS);
                table.mounts.iter().map(below).collect()
            })
            .collect();
        for (table, found) in self.tables.iter_mut().zip(found) {
            for (mount, devices) in table.mounts.iter_mut().zip(found) {
                mount.devices = devices;
            }
        }
    }

    fn below_mount(&self, table: &MountTable, mount: &Mount, depth: usize) -> BTreeSet<DevNum> {
        let mut devices = self.named_by(mount);
        if self.device(mount.dev).is_some() {
            devices.insert(mount.dev);
        }
        match mount.fs_type.as_str() {
            "btrfs" => devices.extend(self.btrfs_members(&devices)),
            "overlay" => devices.extend(self.below_overlay(table, mount, depth)),
            _ => {}
        }
        devices
    }

    /// The devices that the mount's source and options name.
    fn named_by(&self, mount: &Mount) -> BTreeSet<DevNum> {
        let source = mount.source.as_os_str().as_bytes();
        // bcachefs names all its members, with colons between.
        let pieces = source.split(|b| *b == b':');
        let options = DEVICE_OPTIONS.iter().filter_map(|name| mount.option(name));
        pieces
            .chain([source])
            .chain(options)
            // Other sources are network shares and names without meaning; asking for them could hang.
            .filter(|name| name.starts_with(b"/dev/"))
            .filter_map(|name| self.device_at(super::text::as_path(name)))
            .map(|device| device.dev)
            .collect()
    }

    /// All members of the btrfs that one of `known` belongs to. When none does (the kernel calls
    /// the root it mounted itself `/dev/root`), the members of every mounted btrfs.
    fn btrfs_members(&self, known: &BTreeSet<DevNum>) -> BTreeSet<DevNum> {
        let ours = |members: &BTreeSet<DevNum>| known.is_empty() || !members.is_disjoint(known);
        let of_ours = self.btrfs.iter().filter(|(_, members)| ours(members));
        of_ours.flat_map(|(_, members)| members).copied().collect()
    }

    fn below_overlay(&self, table: &MountTable, mount: &Mount, depth: usize) -> BTreeSet<DevNum> {
        let mut devices = BTreeSet::new();
        let Some(depth) = depth.checked_sub(1) else {
            return self.live_system_candidates(table);
        };
        for folder in mount.overlay_folders() {
            let below = holding(table, &folder).filter(|below| below.id != mount.id);
            match below {
                Some(below) => devices.extend(self.below_mount(table, below, depth)),
                // The folder was named before the root was switched, as on live systems.
                None => devices.extend(self.live_system_candidates(table)),
            }
        }
        devices
    }

    /// What the folders of an overlay may lie on when their names lead nowhere: read-only images
    /// and loop devices.
    fn live_system_candidates(&self, table: &MountTable) -> BTreeSet<DevNum> {
        let is_image = |m: &&Mount| matches!(m.fs_type.as_str(), "squashfs" | "erofs" | "iso9660");
        let images = table.mounts.iter().filter(is_image).map(|m| m.dev);
        let loops = self.devices().iter().filter(|d| d.loop_file.is_some());
        images
            .filter(|dev| self.device(*dev).is_some())
            .chain(loops.map(|d| d.dev))
            .collect()
    }

    /// What every device lies on directly.
    pub(super) fn layers(&self) -> BTreeMap<DevNum, BTreeSet<DevNum>> {
        let mut below: BTreeMap<DevNum, BTreeSet<DevNum>> = BTreeMap::new();
        for device in self.devices() {
            let slaves = device.slaves.iter().filter_map(|name| self.named(name));
            let mut lower: BTreeSet<DevNum> = slaves.map(|d| d.dev).collect();
            lower.extend(device.partition.as_ref().map(|p| p.disk));
            lower.extend(self.below_loop(device));
            below.entry(device.dev).or_default().extend(lower);
            // The kernel shows each layer from both sides; one is enough.
            for holder in device.holders.iter().filter_map(|name| self.named(name)) {
                below.entry(holder.dev).or_default().insert(device.dev);
            }
        }
        below
    }

    /// The devices below the file of a loop device.
    fn below_loop(&self, device: &Device) -> BTreeSet<DevNum> {
        let Some(file) = &device.loop_file else {
            return BTreeSet::new();
        };
        let mut below = self.devices_of_path(&file.path);
        let dev = file.id.map(|id| DevNum::from_raw(id.dev));
        below.extend(dev.filter(|dev| self.device(*dev).is_some()));
        // A loop device over a device lies on that one, whatever holds the device's node.
        below.extend(file.device);
        below.extend(self.device_at(&file.path).map(|d| d.dev));
        below
    }
}

/// The mount whose point is the longest start of `path`; of several on one point the last, which
/// covers the others.
fn holding<'a>(table: &'a MountTable, path: &Path) -> Option<&'a Mount> {
    table
        .mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}
