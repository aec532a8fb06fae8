//! Which disk is it? Answers for two questions: is it still the one that was looked at a moment
//! ago, and is it the one that was seen on another day.

use super::inventory::Inventory;
use super::node::{DevNum, Device, FileId};
use super::resolve::Resolved;
use crate::base::{ByteLen, Error, ErrorKind, Result};
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// What tells one disk, partition or file from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskIdentity {
    /// World-wide name of the disk, in the spelling of [`Device::wwn`].
    pub wwn: Option<String>,
    /// Serial number of the disk.
    pub serial: Option<String>,
    /// Model of the disk.
    pub model: Option<String>,
    /// Length in bytes of the disk, partition or file.
    #[serde(rename = "bytes", serialize_with = "len")]
    pub len: ByteLen,
    /// The kernel's running number of the disk; means nothing after a reboot.
    pub diskseq: Option<u64>,
    /// Id of the partition table. The inventory does not read disks: who has read the table
    /// fills it in.
    pub table_id: Option<String>,
    /// Number of the partition, when it is one.
    pub partition: Option<u32>,
    /// Where it was found.
    #[serde(serialize_with = "path")]
    pub path: PathBuf,
    /// The kernel's number; `None` for a file.
    pub dev: Option<DevNum>,
    /// Which file; `None` for a device.
    #[serde(skip)]
    pub file: Option<FileId>,
}

/// Whether two identities, perhaps of different days or machines, are of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sameness {
    /// A world-wide name, a serial number with the model or a file's inode says so, and nothing
    /// speaks against it.
    Same,
    /// It is another one; each text says what differs.
    Different(Vec<String>),
    /// Nothing differs, but nothing that is unique could be compared; the text says what is missing.
    Unsure(String),
}

impl DiskIdentity {
    /// The identity of what a name led to.
    ///
    /// # Errors
    /// `NotFound` for a file that does not exist.
    pub fn of(inventory: &Inventory, resolved: &Resolved) -> Result<DiskIdentity> {
        match resolved {
            Resolved::Device { device, .. } => Ok(DiskIdentity::of_device(inventory, device)),
            Resolved::File { path, .. } => {
                let metadata = inventory.tree.metadata(path).map_err(|e| {
                    let name = super::text::shown(path);
                    Error::new(ErrorKind::NotFound, "look at", name).caused_by(e)
                })?;
                Ok(DiskIdentity {
                    file: Some(FileId::of(&metadata)),
                    ..DiskIdentity::bare(path.clone(), ByteLen(metadata.len()))
                })
            }
        }
    }

    /// The identity of a device; a partition's is its disk's, with its own number and length.
    pub fn of_device(inventory: &Inventory, device: &Device) -> DiskIdentity {
        let disk = inventory.device(device.whole()).unwrap_or(device);
        DiskIdentity {
            wwn: disk.wwn.clone(),
            serial: disk.serial.clone(),
            model: disk.model.clone(),
            diskseq: device.diskseq,
            partition: device.partition.as_ref().map(|p| p.number),
            dev: Some(device.dev),
            ..DiskIdentity::bare(device.path.clone(), device.len)
        }
    }

    fn bare(path: PathBuf, len: ByteLen) -> DiskIdentity {
        DiskIdentity {
            wwn: None,
            serial: None,
            model: None,
            len,
            diskseq: None,
            table_id: None,
            partition: None,
            path,
            dev: None,
            file: None,
        }
    }

    /// What differs between this identity and one taken later on the same running machine; empty
    /// when it is still the very same disk. A fact that is known only once counts as a difference,
    /// except the table's id, which only some callers know.
    pub fn changes(&self, now: &DiskIdentity) -> Vec<String> {
        let mut changes = Vec::new();
        let mut strict = |what: &str, was: Option<String>, is: Option<String>| {
            if was != is {
                let text = |v: Option<String>| v.unwrap_or_else(|| "none".to_owned());
                changes.push(format!("its {what} was {}, is {}", text(was), text(is)));
            }
        };
        strict("world-wide name", self.wwn.clone(), now.wwn.clone());
        strict("serial number", self.serial.clone(), now.serial.clone());
        strict("model", self.model.clone(), now.model.clone());
        strict("length", Some(bytes(self.len)), Some(bytes(now.len)));
        strict(
            "disk sequence number",
            number(self.diskseq),
            number(now.diskseq),
        );
        strict("device number", number(self.dev), number(now.dev));
        strict(
            "partition number",
            number(self.partition),
            number(now.partition),
        );
        let inode = |file: Option<FileId>| file.map(|f| format!("{} on {}", f.inode, f.dev));
        strict("inode", inode(self.file), inode(now.file));
        if self.table_id.is_some() && now.table_id.is_some() {
            strict(
                "partition table",
                self.table_id.clone(),
                now.table_id.clone(),
            );
        }
        changes
    }

    /// Whether `other` is the same disk, perhaps on another day, under another name or with another
    /// content. What changes with a boot (path, device number, disk sequence) and with a restore
    /// (the table) does not count.
    pub fn matches(&self, other: &DiskIdentity) -> Sameness {
        let mut differs = Vec::new();
        let mut compare = |what: &str, a: Option<String>, b: Option<String>| match (a, b) {
            (Some(a), Some(b)) if a == b => true,
            (Some(a), Some(b)) => {
                differs.push(format!("the {what} is {a} here and {b} there"));
                false
            }
            _ => false,
        };
        let wwn = compare("world-wide name", self.wwn.clone(), other.wwn.clone());
        let model = compare("model", self.model.clone(), other.model.clone());
        // A bridge between disk and machine has a serial number and a model of its own; only the
        // world-wide name is the disk's for sure.
        let serial = compare("serial number", self.serial.clone(), other.serial.clone());
        let no_model = self.model.is_none() && other.model.is_none();
        let inode = |file: Option<FileId>| file.map(|f| format!("{} on {}", f.inode, f.dev));
        let file = compare("inode", inode(self.file), inode(other.file));
        if wwn {
            differs.clear();
        }
        let mut compare = |what: &str, a: Option<String>, b: Option<String>| {
            if a != b {
                let text = |v: Option<String>| v.unwrap_or_else(|| "none".to_owned());
                differs.push(format!(
                    "the {what} is {} here and {} there",
                    text(a),
                    text(b)
                ));
            }
        };
        compare("length", Some(bytes(self.len)), Some(bytes(other.len)));
        compare(
            "partition number",
            number(self.partition),
            number(other.partition),
        );
        match () {
            () if !differs.is_empty() => Sameness::Different(differs),
            () if wwn || file || serial && (model || no_model) => Sameness::Same,
            () => Sameness::Unsure(
                "neither a world-wide name nor a serial number with its model is known of both"
                    .to_owned(),
            ),
        }
    }
}

fn bytes(len: ByteLen) -> String {
    format!("{} bytes", len.0)
}

fn number(value: Option<impl ToString>) -> Option<String> {
    value.map(|v| v.to_string())
}

fn len<S: Serializer>(len: &ByteLen, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(len.0)
}

/// A path as text: JSON has no other, and a name need not be text.
fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&super::text::shown(path))
}
