//! Reading every block device out of sysfs (Documentation/ABI/stable/sysfs-block).

use super::hardware::{self, Hardware};
use super::node::{
    Content, DevNum, Device, DeviceKind, FileId, LoopFile, Mapping, PartitionFacts, Transport,
};
use super::text::{as_path, clean, clean_bytes};
use super::tree::Tree;
use super::udev::Udev;
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Result, SectorSize};
use crate::sys;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// More disks, partitions of one disk, or links than this are no machine but an attack or a fault.
pub(super) const MAX_DEVICES: usize = 65_536;

/// The unit of `size` and `start`, whatever the disk's own sector is (include/linux/blk_types.h,
/// `SECTOR_SIZE`).
const SYSFS_SECTOR: u64 = 512;

/// What an optical drive without a medium calls its size, in sysfs sectors (drivers/scsi/sr.c).
const EMPTY_DRIVE: u64 = 0x1f_ffff;

/// Names below `/dev/disk/by-id` for each kernel name.
type Links = BTreeMap<String, Vec<String>>;

/// All devices but hidden ones (the paths below an NVMe multipath disk), disks before their
/// partitions.
///
/// # Errors
/// `Source` when `/sys/block` cannot be listed.
pub(super) fn read(tree: &Tree) -> Result<Vec<Device>> {
    let fail = |e: io::Error| {
        Error::new(ErrorKind::Source, "list", "/sys/block")
            .caused_by(e)
            .hint("the kernel's list of disks is needed; mount sysfs at /sys")
    };
    if !tree.has("/sys/block") {
        return Err(fail(io::Error::from(io::ErrorKind::NotFound)));
    }
    let links = by_id(tree);
    let mut devices = Vec::new();
    for name in tree.names("/sys/block", MAX_DEVICES).map_err(fail)? {
        // A device that goes away while it is read is as good as gone.
        let Some(dir) = tree.canonical(Path::new("/sys/block").join(&name)) else {
            continue;
        };
        let Some(disk) = whole_disk(tree, &dir, &links) else {
            continue;
        };
        let mut partitions = Vec::new();
        for name in tree.names(&dir, MAX_DEVICES).map_err(fail)? {
            partitions.extend(partition(tree, &disk, &dir.join(name), &links));
        }
        partitions.sort_by_key(|p: &Device| p.partition.as_ref().map(|facts| facts.number));
        devices.push(disk);
        devices.append(&mut partitions);
    }
    devices.sort_by_key(|d| natural_order(&d.name));
    Ok(devices)
}

/// `sda2` before `sda10`: digits count as numbers.
fn natural_order(name: &str) -> Vec<(String, Option<u64>)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (text, tail) = rest.split_at(letters);
        let digits = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        // Too long a number sorts last, no number first.
        let number = (!number.is_empty()).then(|| number.parse().unwrap_or(u64::MAX));
        parts.push((text.to_owned(), number));
        rest = tail;
    }
    parts
}

fn by_id(tree: &Tree) -> Links {
    let mut links = Links::new();
    let dir = Path::new("/dev/disk/by-id");
    // Links are a convenience: a folder that cannot be listed leaves the other names.
    for name in tree.names(dir, MAX_DEVICES).unwrap_or_default() {
        if let Some(device) = tree.link_name(dir.join(&name)) {
            let name = clean(&name.to_string_lossy());
            links.entry(device).or_default().push(name);
        }
    }
    links
}

fn whole_disk(tree: &Tree, dir: &Path, links: &Links) -> Option<Device> {
    let (mut device, udev) = bare(tree, dir, links)?;
    device.kind = DeviceKind::of_name(&device.name);
    device.transport = hardware::transport(&device.name, device.kind, dir);
    device.mapping = mapping(tree, dir);
    let Hardware {
        vendor,
        model,
        serials,
        wwn,
    } = hardware::read(tree, dir, &udev, device.mapping.as_ref());
    let mut serials = serials.into_iter();
    device.serial = serials.next();
    device.other_serials = serials.collect();
    (device.vendor, device.model, device.wwn) = (vendor, model, wwn);
    device.logical_sector = sector(tree, dir, "queue/logical_block_size");
    device.physical_sector = sector(tree, dir, "queue/physical_block_size");
    device.rotational = tree.flag(dir.join("queue/rotational"));
    device.removable = tree.flag(dir.join("removable")).unwrap_or(false);
    device.diskseq = tree.number(dir.join("diskseq"));
    device.raid_level = tree.text(dir.join("md/level"));
    device.loop_file = loop_file(tree, dir, &device.path);
    let says_empty = tree.number(dir.join("size")) == Some(EMPTY_DRIVE);
    if device.kind == DeviceKind::Optical && says_empty && udev.text("ID_CDROM_MEDIA").is_none() {
        device.len = ByteLen(0);
    }
    Some(device)
}

fn partition(tree: &Tree, disk: &Device, dir: &Path, links: &Links) -> Option<Device> {
    let number = tree.number(dir.join("partition"))?;
    let start = tree.number(dir.join("start"))?.checked_mul(SYSFS_SECTOR)?;
    let (mut device, udev) = bare(tree, dir, links)?;
    // Kernels tell name and id of a partition without udev too (PARTNAME, PARTUUID).
    let uevent = tree.bytes(dir.join("uevent")).unwrap_or_default();
    let told = |key: &[u8]| {
        let mut lines = uevent.split(|b| *b == b'\n');
        clean_bytes(lines.find_map(|line| line.strip_prefix(key))?)
    };
    device.partition = Some(PartitionFacts {
        number: u32::try_from(number).ok()?,
        start: ByteOffset(start),
        disk: disk.dev,
        id: udev
            .text("ID_PART_ENTRY_UUID")
            .or_else(|| told(b"PARTUUID=")),
        label: udev
            .encoded("ID_PART_ENTRY_NAME")
            .or_else(|| told(b"PARTNAME=")),
        type_id: udev.text("ID_PART_ENTRY_TYPE"),
    });
    device.kind = DeviceKind::Partition;
    device.transport = disk.transport;
    device.logical_sector = disk.logical_sector;
    device.physical_sector = disk.physical_sector;
    device.removable = disk.removable;
    device.rotational = disk.rotational;
    device.diskseq = disk.diskseq;
    device.read_only |= disk.read_only;
    Some(device)
}

/// What disks and partitions have in common, the rest as empty as can be; and udev's record.
fn bare(tree: &Tree, dir: &Path, links: &Links) -> Option<(Device, Udev)> {
    let name = clean(dir.file_name()?.to_str()?);
    // Hidden disks have no number (block/genhd.c, GENHD_FL_HIDDEN).
    let dev = DevNum::parse(&tree.text(dir.join("dev"))?)?;
    let sectors = tree.number(dir.join("size"))?;
    let udev = Udev::read(tree, dev);
    let mut by_id: Vec<String> = links.get(&name).cloned().unwrap_or_default();
    by_id.extend(udev.by_id().map(str::to_owned));
    by_id.sort();
    by_id.dedup();
    let device = Device {
        // The kernel writes '!' for a '/' in a name (Documentation/ABI, "cciss!c0d0").
        path: PathBuf::from(format!("/dev/{}", name.replace('!', "/"))),
        dev,
        kind: DeviceKind::Disk,
        transport: Transport::Unknown,
        len: ByteLen(sectors.checked_mul(SYSFS_SECTOR)?),
        logical_sector: SectorSize::S512,
        physical_sector: SectorSize::S512,
        vendor: None,
        model: None,
        serial: None,
        other_serials: Vec::new(),
        wwn: None,
        by_id,
        read_only: tree.flag(dir.join("ro")).unwrap_or(false),
        removable: false,
        rotational: None,
        diskseq: None,
        partition: None,
        content: content(&udev),
        holders: linked(tree, &dir.join("holders")),
        slaves: linked(tree, &dir.join("slaves")),
        bcache_member: tree.has(dir.join("bcache")) && !name.starts_with("bcache"),
        mapping: None,
        raid_level: None,
        loop_file: None,
        name,
    };
    Some((device, udev))
}

fn content(udev: &Udev) -> Content {
    Content {
        table: udev.text("ID_PART_TABLE_TYPE"),
        table_id: udev.text("ID_PART_TABLE_UUID"),
        file_system: udev.text("ID_FS_TYPE"),
        label: udev
            .encoded("ID_FS_LABEL_ENC")
            .or_else(|| udev.text("ID_FS_LABEL")),
        uuid: udev.text("ID_FS_UUID"),
    }
}

fn linked(tree: &Tree, dir: &Path) -> Vec<String> {
    let names = tree.names(dir, MAX_DEVICES).unwrap_or_default();
    names.iter().map(|n| clean(&n.to_string_lossy())).collect()
}

fn mapping(tree: &Tree, dir: &Path) -> Option<Mapping> {
    Some(Mapping {
        name: tree.text(dir.join("dm/name"))?,
        uuid: tree.text(dir.join("dm/uuid")).unwrap_or_default(),
    })
}

fn sector(tree: &Tree, dir: &Path, attribute: &str) -> SectorSize {
    tree.number(dir.join(attribute))
        .and_then(|bytes| SectorSize::new(u32::try_from(bytes).ok()?))
        .unwrap_or(SectorSize::S512)
}

fn loop_file(tree: &Tree, dir: &Path, node: &Path) -> Option<LoopFile> {
    let text = tree.bytes(dir.join("loop/backing_file"))?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let path = as_path(text.strip_suffix(b" (deleted)").unwrap_or(text)).to_owned();
    if path.as_os_str().is_empty() {
        return None;
    }
    // The kernel knows the inode itself; the path may have been given to another file, or belong
    // to another mount namespace.
    let asked = tree.is_live().then(|| {
        let file = sys::open_disk(node, sys::Access::Read)?;
        sys::loop_backing(&file)
    });
    let (id, device) = match asked {
        Some(Ok(sys::LoopBacking { dev, inode, rdev })) => {
            let device = (rdev != 0).then(|| DevNum::from_raw(rdev));
            (Some(FileId { dev, inode }), device)
        }
        _ => (tree.metadata(&path).ok().map(|m| FileId::of(&m)), None),
    };
    Some(LoopFile { path, id, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = [
            "sda10",
            "sda2",
            "nvme0n1p1",
            "sda",
            "nvme0n1",
            "sdb",
            "loop10",
            "loop9",
        ];
        names.sort_by_key(|n| natural_order(n));
        assert_eq!(
            names,
            [
                "loop9",
                "loop10",
                "nvme0n1",
                "nvme0n1p1",
                "sda",
                "sda2",
                "sda10",
                "sdb"
            ]
        );
    }
}
