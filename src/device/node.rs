//! One block device as the kernel shows it: the values that the rest of the room speaks of.

use crate::base::{ByteLen, ByteOffset, SectorSize};
use crate::sys;
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;

/// The kernel's number of a block device, as `major:minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNum {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl DevNum {
    /// The number in a `dev_t` of stat(2).
    pub fn from_raw(dev: u64) -> DevNum {
        let (major, minor) = sys::split_device_number(dev);
        DevNum { major, minor }
    }

    /// Reads `8:1`; `None` when it is anything else.
    pub fn parse(text: &str) -> Option<DevNum> {
        let (major, minor) = text.split_once(':')?;
        Some(DevNum {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for DevNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Serialize for DevNum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What sort of block device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A disk, real or virtual.
    Disk,
    /// A partition of one.
    Partition,
    /// A loop device: a file as a disk.
    Loop,
    /// A device-mapper device: LVM, LUKS, multipath and others.
    Mapper,
    /// A Linux software RAID.
    Raid,
    /// A bcache device.
    Bcache,
    /// A CD, DVD or Blu-ray drive.
    Optical,
    /// A boot area of an eMMC: a small disk beside the main one.
    MmcBoot,
    /// The replay-protected area of an eMMC, which cannot be read or written as a disk.
    MmcRpmb,
    /// A disk in memory (`ram0`, `zram0`).
    Memory,
}

impl DeviceKind {
    /// What the kernel's name of a whole device says of it (Documentation/admin-guide/devices.txt).
    pub(super) fn of_name(name: &str) -> DeviceKind {
        let numbered = |prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        match name {
            _ if numbered("loop") => DeviceKind::Loop,
            _ if numbered("dm-") => DeviceKind::Mapper,
            _ if numbered("md") || name.starts_with("md_") => DeviceKind::Raid,
            _ if numbered("bcache") => DeviceKind::Bcache,
            _ if numbered("sr") => DeviceKind::Optical,
            _ if numbered("ram") || numbered("zram") => DeviceKind::Memory,
            _ if numbered("mmcblk") && name.ends_with("rpmb") => DeviceKind::MmcRpmb,
            _ if numbered("mmcblk") && name.contains("boot") => DeviceKind::MmcBoot,
            _ => DeviceKind::Disk,
        }
    }
}

/// How a disk is attached, as far as its name and its place in sysfs tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Transport {
    Nvme,
    Sata,
    Sas,
    Usb,
    Mmc,
    Virtio,
    Fc,
    Iscsi,
    /// A disk that an upper layer makes up: loop, device mapper, md, bcache, memory.
    Virtual,
    /// Nothing is known.
    Unknown,
}

/// Where a partition lies and what its table says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionFacts {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Where it begins on its disk, in bytes.
    pub start: ByteOffset,
    /// The disk that it is a part of.
    pub disk: DevNum,
    /// The table's unique id of it.
    pub id: Option<String>,
    /// Its name in a GPT.
    pub label: Option<String>,
    /// Its type: a GUID, or `0x83` in an MBR.
    pub type_id: Option<String>,
}

/// What udev has found on a device. All of it is absent where no udev runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Kind of partition table: `gpt`, `dos`.
    pub table: Option<String>,
    /// The table's own id.
    pub table_id: Option<String>,
    /// The file system, or what else claims the device: `ext4`, `crypto_LUKS`, `LVM2_member`.
    pub file_system: Option<String>,
    /// The file system's label.
    pub label: Option<String>,
    /// The file system's id.
    pub uuid: Option<String>,
}

/// What the device mapper calls a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The name below `/dev/mapper`.
    pub name: String,
    /// The id by which its owner knows it: `LVM-…`, `CRYPT-LUKS2-…`, `mpath-…`.
    pub uuid: String,
}

/// Which file it is, whatever it is called: device number and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// `st_dev` of stat(2).
    pub dev: u64,
    /// `st_ino` of stat(2).
    pub inode: u64,
}

impl FileId {
    /// The file that stat(2) was asked about.
    pub fn of(metadata: &std::fs::Metadata) -> FileId {
        use std::os::unix::fs::MetadataExt;
        FileId {
            dev: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// The file behind a loop device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopFile {
    /// Where it lay when it was attached, or lies now if it was moved since.
    pub path: PathBuf,
    /// Which file it is, where that can be told.
    pub id: Option<FileId>,
    /// The block device that the file is, when a loop device shows another device.
    pub device: Option<DevNum>,
}

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name: `sda`, `nvme0n1p1`, `dm-0`.
    pub name: String,
    /// Its node: `/dev/sda`.
    pub path: PathBuf,
    /// Its number.
    pub dev: DevNum,
    /// What sort it is.
    pub kind: DeviceKind,
    /// How it is attached; a partition says what its disk says.
    pub transport: Transport,
    /// Length in bytes; 0 without a medium.
    pub len: ByteLen,
    /// The unit in which partition tables count; 512 where the kernel does not say.
    pub logical_sector: SectorSize,
    /// The unit that the medium writes at once.
    pub physical_sector: SectorSize,
    /// The maker, where it is told apart from the model.
    pub vendor: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The serial number.
    pub serial: Option<String>,
    /// Other serial numbers by which it is known: a USB bridge has its own.
    pub other_serials: Vec<String>,
    /// The world-wide name, as `0x5002…` (NAA), `eui.…` or what an NVMe disk says instead.
    pub wwn: Option<String>,
    /// Names below `/dev/disk/by-id`.
    pub by_id: Vec<String>,
    /// Whether the kernel refuses to write.
    pub read_only: bool,
    /// Whether the medium can be taken out.
    pub removable: bool,
    /// Whether it turns; `None` where the kernel does not say. USB bridges and virtual machines lie.
    pub rotational: Option<bool>,
    /// The kernel's running number of the disk (Linux 5.15): another medium or backing file under
    /// the same name has another one.
    pub diskseq: Option<u64>,
    /// Set for a partition.
    pub partition: Option<PartitionFacts>,
    /// What lies on it.
    pub content: Content,
    /// Names of the devices made of this one: device mapper, md, bcache.
    pub holders: Vec<String>,
    /// Names of the devices that this one is made of.
    pub slaves: Vec<String>,
    /// Whether it belongs to bcache, as cache or as backing device.
    pub bcache_member: bool,
    /// Set for a device-mapper device.
    pub mapping: Option<Mapping>,
    /// Set for a RAID: `raid1`.
    pub raid_level: Option<String>,
    /// Set for a loop device with a file.
    pub loop_file: Option<LoopFile>,
}

impl Device {
    /// The disk that a partition is a part of; the device itself when it is none.
    pub fn whole(&self) -> DevNum {
        self.partition.as_ref().map_or(self.dev, |p| p.disk)
    }

    /// Whether it is something that people keep data on and image: not memory, not an empty drive,
    /// not a loop device without a file.
    pub fn is_worth_showing(&self) -> bool {
        self.len.0 > 0 && !matches!(self.kind, DeviceKind::Memory | DeviceKind::MmcRpmb)
    }

    /// What a person calls it: the path, and for a mapped device the name below `/dev/mapper`.
    pub fn title(&self) -> String {
        match &self.mapping {
            Some(mapping) => format!("{} ({})", self.path.display(), mapping.name),
            None => self.path.display().to_string(),
        }
    }

    /// What it is, for a sentence like "held by …": `LUKS /dev/dm-0 (cryptroot)`.
    pub fn role(&self) -> String {
        let what = match (&self.mapping, &self.raid_level) {
            (Some(mapping), _) => owner_of(&mapping.uuid).to_owned(),
            (None, Some(level)) => format!("software RAID ({level})"),
            (None, None) => match self.kind {
                DeviceKind::Raid => "software RAID".to_owned(),
                DeviceKind::Bcache => "bcache".to_owned(),
                DeviceKind::Loop => "loop device".to_owned(),
                DeviceKind::Partition => "partition".to_owned(),
                _ => "device".to_owned(),
            },
        };
        format!("{what} {}", self.title())
    }

    /// Whether it is a multipath map: one disk reached by several ways.
    pub(super) fn is_multipath(&self) -> bool {
        let mapping = self.mapping.as_ref();
        mapping.is_some_and(|m| m.uuid.starts_with("mpath-"))
    }
}

/// Who made a mapped device, by the prefix that each program gives its ids
/// (libdevmapper.h, "UUID prefix").
fn owner_of(uuid: &str) -> &'static str {
    // kpartx writes "part1-mpath-…".
    let is_part = uuid.starts_with("part") && uuid.contains('-');
    match uuid.split('-').next().unwrap_or_default() {
        "LVM" => "LVM",
        "CRYPT" if uuid.starts_with("CRYPT-LUKS") => "LUKS",
        "CRYPT" if uuid.starts_with("CRYPT-VERITY") => "dm-verity",
        "CRYPT" => "dm-crypt",
        "mpath" => "multipath",
        "DMRAID" => "dmraid",
        "stratis" => "Stratis",
        _ if is_part => "mapped partition",
        _ => "device mapper",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind() {
        let kind = DeviceKind::of_name;
        assert_eq!(kind("sda"), DeviceKind::Disk);
        assert_eq!(kind("nvme0n1"), DeviceKind::Disk);
        assert_eq!(kind("loop12"), DeviceKind::Loop);
        assert_eq!(kind("dm-0"), DeviceKind::Mapper);
        assert_eq!(kind("md127"), DeviceKind::Raid);
        assert_eq!(kind("md_d0"), DeviceKind::Raid);
        assert_eq!(kind("mmcblk0"), DeviceKind::Disk);
        assert_eq!(kind("mmcblk0boot1"), DeviceKind::MmcBoot);
        assert_eq!(kind("mmcblk0rpmb"), DeviceKind::MmcRpmb);
        assert_eq!(kind("zram0"), DeviceKind::Memory);
        assert_eq!(kind("sr0"), DeviceKind::Optical);
    }

    #[test]
    fn ids_tell_the_owner() {
        assert_eq!(owner_of("LVM-abc"), "LVM");
        assert_eq!(owner_of("CRYPT-LUKS2-1-x"), "LUKS");
        assert_eq!(owner_of("CRYPT-PLAIN-x"), "dm-crypt");
        assert_eq!(owner_of("part1-mpath-36"), "mapped partition");
        assert_eq!(owner_of(""), "device mapper");
    }

    #[test]
    fn device_numbers_are_read_strictly() {
        assert_eq!(DevNum::parse("259:3").unwrap().to_string(), "259:3");
        for bad in ["", "8", "8:", ":1", "8:1:2", "8:99999999999", " 8:1"] {
            assert_eq!(DevNum::parse(bad), None, "{bad:?}");
        }
    }
}
