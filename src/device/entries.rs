//! What `disks --json` prints (docs/cli.md), as values.

use super::inventory::Inventory;
use super::node::{Device, DeviceKind, Transport};
use serde::Serialize;

/// A disk with its partitions. Sizes and offsets in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct DiskEntry {
    pub name: String,
    pub path: String,
    pub kind: DeviceKind,
    pub transport: Transport,
    pub bytes: u64,
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    pub logical_sector: u32,
    pub physical_sector: u32,
    pub read_only: bool,
    pub removable: bool,
    /// `gpt`, `dos`; `None` without a table, or where no udev has looked.
    pub table: Option<String>,
    pub filesystem: Option<String>,
    pub label: Option<String>,
    /// In words: mounts, swap, holders, of the disk as a whole.
    pub uses: Vec<String>,
    pub partitions: Vec<PartitionEntry>,
}

/// A partition. Sizes and offsets in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct PartitionEntry {
    pub name: String,
    pub path: String,
    pub number: u32,
    pub start: u64,
    pub bytes: u64,
    /// A GUID, or `0x83` in an MBR.
    #[serde(rename = "type")]
    pub type_id: Option<String>,
    /// The name in the table, or else the file system's label.
    pub label: Option<String>,
    pub filesystem: Option<String>,
    /// In words: mounts, swap, holders.
    pub uses: Vec<String>,
}

impl Inventory {
    /// Every disk worth showing, with its partitions.
    pub fn entries(&self) -> Vec<DiskEntry> {
        self.disks().map(|disk| self.disk_entry(disk)).collect()
    }

    fn disk_entry(&self, disk: &Device) -> DiskEntry {
        let partitions = self.partitions_of(disk.dev);
        DiskEntry {
            name: disk.name.clone(),
            path: disk.path.display().to_string(),
            kind: disk.kind,
            transport: disk.transport,
            bytes: disk.len.0,
            vendor: disk.vendor.clone(),
            model: disk.model.clone(),
            serial: disk.serial.clone(),
            wwn: disk.wwn.clone(),
            logical_sector: disk.logical_sector.bytes(),
            physical_sector: disk.physical_sector.bytes(),
            read_only: disk.read_only,
            removable: disk.removable,
            table: disk.content.table.clone(),
            filesystem: disk.content.file_system.clone(),
            label: disk.content.label.clone(),
            uses: self.uses_in_words(disk),
            partitions: partitions.filter_map(|p| self.partition_entry(p)).collect(),
        }
    }

    fn partition_entry(&self, device: &Device) -> Option<PartitionEntry> {
        let facts = device.partition.as_ref()?;
        let label = facts.label.as_ref().or(device.content.label.as_ref());
        Some(PartitionEntry {
            name: device.name.clone(),
            path: device.path.display().to_string(),
            number: facts.number,
            start: facts.start.0,
            bytes: device.len.0,
            type_id: facts.type_id.clone(),
            label: label.cloned(),
            filesystem: device.content.file_system.clone(),
            uses: self.uses_in_words(device),
        })
    }

    fn uses_in_words(&self, device: &Device) -> Vec<String> {
        let uses = self.direct_uses(device);
        uses.iter().map(ToString::to_string).collect()
    }
}
