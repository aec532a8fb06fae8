//! What is on this machine?

use super::Context;
use crate::base::Result;
use crate::block::{BlockSource, CachePolicy, FileSource};
use crate::device::{DiskEntry, Inventory, PartitionEntry};
use crate::layout::{self, Layout};
use serde::Serialize;
use std::path::Path;

/// Every disk worth showing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disks {
    /// In the order of their names.
    pub disks: Vec<Disk>,
}

/// A disk and what a backup of it would take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// What the system knows.
    #[serde(flatten)]
    pub entry: DiskEntry,
    /// Bytes that a backup would look at.
    pub take_bytes: u64,
    /// What a person should know of its partition table.
    pub findings: Vec<String>,
}

/// Lists the disks of the machine whose `sys` and `proc` lie below the context's root.
///
/// # Errors
/// `Source` when they cannot be read.
pub fn disks(context: &Context<'_>) -> Result<Disks> {
    let inventory = Inventory::read(&context.root)?;
    let live = context.root == Path::new("/");
    let entries = inventory.entries().into_iter();
    Ok(Disks {
        disks: entries.map(|entry| describe(entry, live)).collect(),
    })
}

/// Adds what only the disk itself can tell, when it is there and may be read.
fn describe(mut entry: DiskEntry, live: bool) -> Disk {
    let take_bytes = entry.bytes;
    let layout = live.then(|| read_layout(&entry)).flatten();
    let mut findings = Vec::new();
    if let Some(layout) = layout {
        entry.table = Some(layout.table.name().to_owned()).filter(|name| name != "none");
        if entry.partitions.is_empty() {
            // The kernel shows none: a loop device, or a table written since it looked.
            entry.partitions = layout
                .shown()
                .into_iter()
                .map(|p| from_table(&entry, p))
                .collect();
        }
        findings = layout.findings;
    }
    Disk {
        entry,
        take_bytes,
        findings,
    }
}

fn read_layout(entry: &DiskEntry) -> Option<Layout> {
    let source = FileSource::open(
        Path::new(&entry.path),
        entry.path.as_str(),
        CachePolicy::Auto,
    )
    .ok()?;
    (!source.is_empty())
        .then(|| layout::read(&source).ok())
        .flatten()
}

fn from_table(disk: &DiskEntry, partition: &layout::Partition) -> PartitionEntry {
    PartitionEntry {
        name: format!("{} #{}", disk.name, partition.number),
        path: String::new(),
        number: partition.number,
        start: partition.start,
        bytes: partition.len,
        type_id: Some(partition.type_id.clone()),
        label: Some(partition.display_name()).filter(|n| !n.is_empty()),
        filesystem: None,
        uses: Vec::new(),
    }
}
