//! What is on this machine, and what would a backup take of it?

use super::Context;
use super::take::{TakeOptions, Taken, take};
use crate::base::{BlockSize, Extent, Result};
use crate::block::{BlockSource, CachePolicy, FileSource};
use crate::device::{Consistency, Device, DiskEntry, Inventory, PartitionEntry, Resolved};
pub use crate::image::PartitionInfo;
use crate::layout;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// The usual block: what is taken depends on it a little.
const BLOCK_SIZE: BlockSize = BlockSize::DEFAULT;

/// Every disk worth showing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disks {
    /// In the order of their names.
    pub disks: Vec<Disk>,
}

/// A disk and what a backup of it would take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disk {
    /// What the system knows.
    #[serde(flatten)]
    pub entry: DiskEntry,
    /// Bytes that a backup would look at.
    pub take_bytes: u64,
    /// What each partition holds, and how much of it is in use and would be taken; number 0 is a disk
    /// without any. Empty where the disk could not be read.
    pub contents: Vec<PartitionInfo>,
    /// What a person should know of its partition table.
    pub findings: Vec<String>,
}

impl Disk {
    /// What partition `number` holds.
    pub fn content(&self, number: u32) -> Option<&PartitionInfo> {
        self.contents.iter().find(|c| c.number == number)
    }
}

/// Lists the disks of the machine whose `sys` and `proc` lie below the context's root. With `look`,
/// each is opened and its file systems are read.
///
/// # Errors
/// `Source` when they cannot be listed, `Interrupted` or `Terminated`.
pub fn disks(context: &Context<'_>, look: bool) -> Result<Disks> {
    let inventory = Inventory::read(&context.root)?;
    let live = look && context.root == Path::new("/");
    let mut disks = Vec::new();
    for entry in inventory.entries() {
        let mut disk = Disk {
            take_bytes: entry.bytes,
            entry,
            contents: Vec::new(),
            findings: Vec::new(),
        };
        if live {
            look_into(context, &inventory, &mut disk)?;
        }
        disks.push(disk);
    }
    Ok(Disks { disks })
}

/// Adds what only the disk itself can tell, when it is there and may be read.
fn look_into(context: &Context<'_>, inventory: &Inventory, disk: &mut Disk) -> Result<()> {
    let path = Path::new(&disk.entry.path);
    let opened = FileSource::open(path, disk.entry.path.as_str(), CachePolicy::Auto);
    let Some(source) = opened.ok().filter(|source| !source.is_empty()) else {
        return Ok(());
    };
    let source: Arc<dyn BlockSource> = Arc::new(source);
    let Ok(layout) = layout::read(source.as_ref()) else {
        return Ok(());
    };
    let entry = &mut disk.entry;
    entry.table = Some(layout.table.name().to_owned()).filter(|name| name != "none");
    if entry.partitions.is_empty() {
        // The kernel shows none: a loop device, or a table written since it looked.
        entry.partitions = layout
            .shown()
            .into_iter()
            .map(|p| from_table(entry, p))
            .collect();
    }
    let known = inventory.disks().find(|d| d.name == entry.name);
    let in_flux = |part: Extent| Ok(known.and_then(|d| written_to(inventory, d, part)));
    let Taken {
        selection,
        partitions,
        ..
    } = take(
        &source,
        &layout,
        BLOCK_SIZE,
        &TakeOptions::default(),
        &in_flux,
        context.cancel,
    )?;
    disk.take_bytes = selection.taken_in(Extent::whole(source.len()), BLOCK_SIZE);
    disk.contents = partitions;
    disk.findings = layout.findings;
    Ok(())
}

/// Whether a part of a disk is mounted for writing or otherwise changes; a backup would take all
/// of it.
fn written_to(inventory: &Inventory, disk: &Device, part: Extent) -> Option<String> {
    let resolved = Resolved::Device {
        device: Box::new(disk.clone()),
        asked: None,
    };
    match inventory.part_consistency(&resolved, part) {
        Ok(Consistency::Live(uses)) => Some(uses.join("; ")),
        _ => None,
    }
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
