//! From the name that a person gives to the one disk or file that it means, or to no answer.

use super::hardware::normal_wwn;
use super::inventory::Inventory;
use super::node::{Device, DeviceKind};
use super::refusal::{Refusal, Unfit, refused};
use super::text::{clean, shown};
use crate::base::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Most names that an error lists.
const MAX_LISTED: usize = 40;

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// A block device.
    Device {
        /// The device.
        device: Box<Device>,
        /// The path that the person gave, when it was one: it is asked again before writing.
        asked: Option<PathBuf>,
    },
    /// A regular file that holds a disk, or will.
    File {
        /// Its path, without symbolic links.
        path: PathBuf,
        /// Whether it is there.
        exists: bool,
    },
}

impl Resolved {
    /// What to call it in messages.
    pub fn title(&self) -> String {
        match self {
            Resolved::Device { device, .. } => device.title(),
            Resolved::File { path, .. } => shown(path),
        }
    }
}

/// Finds what `name` means: a path; or, without a slash, a name below `/dev/disk/by-id`, a kernel
/// name, a name below `/dev/mapper`, a serial number or a world-wide name; or a plain file.
///
/// A file that does not exist is an answer too, since a target may be created. A name without a
/// slash is taken for one only when it looks like a file's (`disk.img`), so that a mistyped serial
/// number does not become a file.
///
/// # Errors
/// `NotFound`, listing the names there are; `Refused` when several disks bear the name or when it
/// is neither a disk nor a file.
pub fn resolve(inventory: &Inventory, name: &str) -> Result<Resolved> {
    if name.contains('/') {
        return resolve_path(inventory, Path::new(name));
    }
    let found = candidates(inventory, name);
    let file = Path::new(name);
    let is_file = !name.is_empty() && inventory.tree.metadata(file).is_ok();
    match (found.as_slice(), is_file) {
        ([], true) => resolve_path(inventory, file),
        ([], false) if looks_like_file(name) => resolve_path(inventory, file),
        ([], false) => Err(absent(inventory, name)),
        ([device], false) => fit(name, device, None),
        (several, _) => {
            let mut candidates: Vec<String> = several.iter().map(|d| described(d)).collect();
            candidates.extend(is_file.then(|| format!("the file ./{name}")));
            Err(refused(
                "choose",
                &clean(name),
                &[Refusal::Ambiguous { candidates }],
            ))
        }
    }
}

/// The devices that a name without a slash means. Several ways to one multipath disk are the map
/// above them.
fn candidates<'a>(inventory: &'a Inventory, name: &str) -> Vec<&'a Device> {
    let wwn = normal_wwn(name);
    let has_name = |device: &&Device| {
        let serials = device.serial.iter().chain(&device.other_serials);
        device.name == name
            || device.by_id.iter().any(|link| link == name)
            || device.mapping.as_ref().is_some_and(|m| m.name == name)
            || (!name.is_empty() && serials.into_iter().any(|serial| serial == name))
            || (wwn.is_some() && device.wwn == wwn)
    };
    // The boot areas of an eMMC bear the serial number of the main area.
    let is_boot_area =
        |d: &Device| matches!(d.kind, DeviceKind::MmcBoot | DeviceKind::MmcRpmb) && d.name != name;
    let found: Vec<&Device> = inventory
        .devices()
        .iter()
        .filter(has_name)
        .filter(|d| !is_boot_area(d))
        .collect();
    let map = found.iter().find(|map| {
        let beneath = inventory.beneath(map.dev);
        map.is_multipath() && found.iter().all(|d| beneath.contains(&d.dev))
    });
    map.map_or_else(|| found.clone(), |map| vec![*map])
}

fn resolve_path(inventory: &Inventory, path: &Path) -> Result<Resolved> {
    if let Some(device) = inventory.device_at(path) {
        return fit(&shown(path), device, Some(path.to_owned()));
    }
    let metadata = match inventory.tree.metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return new_file(inventory, path),
        Err(e) => {
            return Err(Error::new(ErrorKind::NotFound, "look at", shown(path)).caused_by(e));
        }
    };
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => {
            let path = inventory.tree.canonical(path);
            let path = path.ok_or_else(|| absent(inventory, "this file"))?;
            return Ok(Resolved::File { path, exists: true });
        }
        () if kind.is_dir() => Unfit::Folder,
        () if kind.is_char_device() => Unfit::CharacterDevice,
        () if kind.is_fifo() => Unfit::Fifo,
        () if kind.is_socket() => Unfit::Socket,
        () => Unfit::UnknownDevice,
    };
    Err(refused("use", &shown(path), &[Refusal::Unfit(what)]))
}

/// A path where nothing is yet. Below `/dev` that is always a mistake: a file there would fill the
/// memory and vanish with the next boot.
fn new_file(inventory: &Inventory, path: &Path) -> Result<Resolved> {
    let name = path.file_name();
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = inventory.tree.canonical(parent);
    let (Some(name), Some(folder)) = (name, folder) else {
        return Err(absent(inventory, &shown(path)));
    };
    if folder.starts_with("/dev") && !folder.starts_with("/dev/shm") {
        return Err(absent(inventory, &shown(path)));
    }
    // A symbolic link whose end is missing would be written through.
    if inventory.tree.link(path).is_some() {
        return Err(Error::new(ErrorKind::NotFound, "find", shown(path))
            .because("it is a symbolic link that leads nowhere"));
    }
    Ok(Resolved::File {
        path: folder.join(name),
        exists: false,
    })
}

fn fit(name: &str, device: &Device, asked: Option<PathBuf>) -> Result<Resolved> {
    let unfit = match device.kind {
        DeviceKind::MmcRpmb => Some(Unfit::ProtectedArea),
        _ if device.len.0 == 0 => Some(Unfit::Empty),
        _ => None,
    };
    match unfit {
        Some(what) => Err(refused("use", &clean(name), &[Refusal::Unfit(what)])),
        None => Ok(Resolved::Device {
            device: Box::new(device.clone()),
            asked,
        }),
    }
}

/// Whether a name without a slash has an extension as files have, and no prefix of a disk's name.
fn looks_like_file(name: &str) -> bool {
    const OF_DISKS: [&str; 5] = ["eui.", "naa.", "nvme", "t10.", "uuid."];
    const BUSES: [&str; 8] = [
        "ata-", "wwn-", "usb-", "scsi-", "mmc-", "virtio-", "dm-", "md-",
    ];
    let lower = name.to_ascii_lowercase();
    let of_disk = OF_DISKS.iter().chain(&BUSES).any(|p| lower.starts_with(p));
    let extension = Path::new(name).extension().and_then(|e| e.to_str());
    !of_disk
        && extension.is_some_and(|e| e.len() <= 8 && e.chars().all(|c| c.is_ascii_alphanumeric()))
}

fn described(device: &Device) -> String {
    let facts = [device.model.clone(), device.serial.clone()];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    format!(
        "{} ({}, {})",
        device.path.display(),
        device.len,
        facts.join(", ")
    )
    .replace(", )", ")")
}

fn absent(inventory: &Inventory, name: &str) -> Error {
    let mut names = BTreeMap::new();
    for (order, device) in inventory.disks().enumerate() {
        let serial = device.serial.as_ref().map(|s| format!(" (serial {s})"));
        let name = device.path.display();
        names.insert(order, format!("{name}{}", serial.unwrap_or_default()));
    }
    let total = names.len();
    let mut listed: Vec<String> = names.into_values().take(MAX_LISTED).collect();
    if total > MAX_LISTED {
        listed.push(format!("{} more", total - MAX_LISTED));
    }
    let there = if listed.is_empty() {
        "this machine shows no disks".to_owned()
    } else {
        format!("the disks here are {}", listed.join(", "))
    };
    Error::new(ErrorKind::NotFound, "find", clean(name))
        .because(format!("no disk, partition or file has this name; {there}"))
        .hint("give a device path, a name below /dev/disk/by-id or a serial number; a new file's name needs a folder before it, as in ./disk.img")
}
