//! Gathering what the policy of overwriting looks at. Reads and asks; decides nothing.

use super::guard::WriteRequest;
use super::identity::DiskIdentity;
use super::inventory::Inventory;
use super::node::{DevNum, Device, FileId};
use super::openers::{Opened, PASSING};
use super::refusal::{Overlap, TargetFacts, Unfit};
use super::resolve::Resolved;
use super::text::shown;
use crate::base::{ByteLen, Error, ErrorKind, Result};
use crate::sys;
use std::collections::BTreeSet;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

impl Inventory {
    /// What is known of `target` as the target of `request`.
    ///
    /// # Errors
    /// `NotFound` for a file whose folder is missing; `Source` when `/proc` cannot be listed.
    pub fn target_facts(&self, target: &Resolved, request: &WriteRequest) -> Result<TargetFacts> {
        let mut facts = match target {
            Resolved::Device { device, .. } => self.device_facts(device, request)?,
            Resolved::File { path, .. } => self.file_facts(path, request)?,
        };
        facts.needed = request.needed_len;
        let source = request.source.as_ref();
        facts.source =
            source.and_then(|source| Some((source.title(), self.overlap(target, source)?)));
        if let Some(expected) = &request.expected {
            facts.changes = match DiskIdentity::of(self, target) {
                Ok(now) => expected.changes(&now),
                Err(_) => vec!["it is gone".to_owned()],
            };
        }
        Ok(facts)
    }

    fn device_facts(&self, device: &Device, request: &WriteRequest) -> Result<TargetFacts> {
        let overwritten = self.overwritten_by(device);
        let lies_on_it = |path: &&PathBuf| !self.devices_of_path(path).is_disjoint(&overwritten);
        let mut open = overwritten.clone();
        open.insert(device.whole());
        Ok(TargetFacts {
            unfit: (device.len.0 == 0).then_some(Unfit::Empty),
            len: Some(device.len),
            read_only: device
                .read_only
                .then(|| "the kernel allows no writing to the device".to_owned()),
            uses: self.uses(device),
            holds: request
                .keep_away
                .iter()
                .filter(lies_on_it)
                .cloned()
                .collect(),
            is_kept: self.kept_behind(device, &request.keep_away),
            claimed: self.tree.is_live() && is_claimed(&device.path),
            writers: self.writers(&Opened::Devices(&open))?,
            ..TargetFacts::default()
        })
    }

    /// What must be kept and is shown as a disk by a loop device that `device` is or lies on.
    fn kept_behind(&self, device: &Device, keep_away: &[PathBuf]) -> Vec<PathBuf> {
        let beneath = self.beneath(device.dev);
        let files = beneath
            .iter()
            .filter_map(|dev| self.device(*dev)?.loop_file.as_ref());
        files
            .flat_map(|file| self.kept(&file.path, file.id, keep_away))
            .collect()
    }

    fn file_facts(&self, path: &Path, request: &WriteRequest) -> Result<TargetFacts> {
        let Ok(metadata) = self.tree.metadata(path) else {
            return self.new_file_facts(path);
        };
        let id = FileId::of(&metadata);
        let is_file = metadata.file_type().is_file();
        Ok(TargetFacts {
            unfit: unfit(metadata.file_type()),
            len: Some(ByteLen(metadata.len())),
            read_only: self.read_only_folder(path),
            loops: self.loops_of(id, path),
            is_swap_file: self.is_swap_file(id, path),
            mounted_file: self.mounted_file(path),
            is_kept: self.kept(path, Some(id), &request.keep_away),
            writers: match is_file {
                true => self.writers(&Opened::File(id, path))?,
                false => Vec::new(),
            },
            ..TargetFacts::default()
        })
    }

    fn new_file_facts(&self, path: &Path) -> Result<TargetFacts> {
        let folder = path.parent().filter(|folder| self.tree.has(folder));
        let Some(folder) = folder else {
            return Err(Error::new(ErrorKind::NotFound, "create", shown(path))
                .because("its folder does not exist")
                .hint("create the folder first, or choose another path"));
        };
        Ok(TargetFacts {
            read_only: self.read_only_folder(folder),
            ..TargetFacts::default()
        })
    }

    fn read_only_folder(&self, path: &Path) -> Option<String> {
        let mount = self.mount_of(path)?;
        (mount.read_only || mount.mount_read_only).then(|| {
            let point = shown(&mount.point);
            format!("the file system at {point} is mounted read-only")
        })
    }

    /// The loop devices that show a file as a disk. Without an inode the path must do.
    fn loops_of(&self, id: FileId, path: &Path) -> Vec<String> {
        let shows_it = |device: &&Device| {
            let file = device.loop_file.as_ref();
            file.is_some_and(|f| f.id.map_or(f.path == path, |other| other == id))
        };
        let loops = self.devices().iter().filter(shows_it);
        loops.map(Device::title).collect()
    }

    fn is_swap_file(&self, id: FileId, path: &Path) -> bool {
        self.swaps.iter().any(|swap| {
            let there = self.tree.metadata(&swap.path);
            swap.path == path || there.is_ok_and(|m| FileId::of(&m) == id)
        })
    }

    /// Where a file is bind-mounted: other mounts of its file system whose root is the file.
    fn mounted_file(&self, path: &Path) -> Vec<PathBuf> {
        let Some(own) = self.mount_of(path) else {
            return Vec::new();
        };
        // Seen through the bind mount itself, its point is the path.
        let within = path.strip_prefix(&own.point).unwrap_or(path);
        let in_fs = match within.as_os_str().is_empty() {
            true => own.root.clone(),
            false => own.root.join(within),
        };
        let of_file = |table: &super::inventory::MountTable| {
            let mounts = table.mounts.iter();
            let points = mounts.filter(|m| m.dev == own.dev && m.root == in_fs);
            points.map(|m| m.point.clone()).collect::<Vec<_>>()
        };
        let points: BTreeSet<PathBuf> = self.tables.iter().flat_map(of_file).collect();
        points.into_iter().filter(|p| self.is_plain(p)).collect()
    }

    /// Whether a mount point is no folder: the root of a whole file system is one.
    fn is_plain(&self, point: &Path) -> bool {
        !self.tree.metadata(point).is_ok_and(|m| m.is_dir())
    }

    /// Which of `keep_away` the file at `path` is or lies in.
    fn kept(&self, path: &Path, id: Option<FileId>, keep_away: &[PathBuf]) -> Vec<PathBuf> {
        let is_part = |keep: &&PathBuf| {
            let real = self.tree.canonical(keep);
            let there = self.tree.metadata(keep).ok();
            let same = there.is_some_and(|m| Some(FileId::of(&m)) == id);
            same || path.starts_with(real.as_deref().unwrap_or(keep))
        };
        keep_away.iter().filter(is_part).cloned().collect()
    }

    /// How target and source are one thing, if they are.
    pub(super) fn overlap(&self, target: &Resolved, source: &Resolved) -> Option<Overlap> {
        match (target, source) {
            (Resolved::Device { device: t, .. }, Resolved::Device { device: s, .. }) => {
                self.device_overlap(t, s)
            }
            (Resolved::Device { device, .. }, Resolved::File { path, .. }) => self
                .loop_overlap(device, path, Overlap::TargetOnSource)
                .or_else(|| {
                    let below = self.devices_of_path(path);
                    let hit = !below.is_disjoint(&self.overwritten_by(device));
                    hit.then_some(Overlap::SourceOnTarget)
                }),
            (Resolved::File { path, .. }, Resolved::Device { device, .. }) => {
                self.loop_overlap(device, path, Overlap::SourceOnTarget)
            }
            (Resolved::File { path: t, .. }, Resolved::File { path: s, .. }) => {
                let id = |path| self.tree.metadata(path).ok().map(|m| FileId::of(&m));
                (t == s || id(t).is_some() && id(t) == id(s)).then_some(Overlap::Same)
            }
        }
    }

    fn device_overlap(&self, target: &Device, source: &Device) -> Option<Overlap> {
        let is_twin = self.twins(source).iter().any(|twin| twin.dev == target.dev);
        match () {
            () if target.dev == source.dev || is_twin => Some(Overlap::Same),
            () if self.overwritten_by(source).contains(&target.dev) => {
                Some(Overlap::TargetOnSource)
            }
            () if self.overwritten_by(target).contains(&source.dev)
                || self.beneath(source.dev).contains(&target.dev) =>
            {
                Some(Overlap::SourceOnTarget)
            }
            () => None,
        }
    }

    /// `Same` when `device` is a loop device showing the file at `path`, `deeper` when it only lies
    /// on one.
    fn loop_overlap(&self, device: &Device, path: &Path, deeper: Overlap) -> Option<Overlap> {
        let id = FileId::of(&self.tree.metadata(path).ok()?);
        let shows_it = |dev: &DevNum| {
            let file = self.device(*dev).and_then(|d| d.loop_file.as_ref());
            file.is_some_and(|f| f.id == Some(id))
        };
        if shows_it(&device.dev) {
            return Some(Overlap::Same);
        }
        self.beneath(device.dev)
            .iter()
            .any(shows_it)
            .then_some(deeper)
    }
}

/// Whether somebody has claimed a device and keeps it. What cannot be asked will be found when the
/// target is opened.
fn is_claimed(path: &Path) -> bool {
    let asked = || sys::is_claimed(path).unwrap_or(false);
    asked() && {
        std::thread::sleep(PASSING);
        asked()
    }
}

fn unfit(kind: FileType) -> Option<Unfit> {
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some(Unfit::Folder),
        () if kind.is_char_device() => Some(Unfit::CharacterDevice),
        () if kind.is_fifo() => Some(Unfit::Fifo),
        () if kind.is_socket() => Some(Unfit::Socket),
        () => Some(Unfit::UnknownDevice),
    }
}
