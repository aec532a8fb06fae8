//! Where a restore writes to: a disk, one of its partitions, or a file.

use super::partitions::numbered;
use super::restore::RestoreRequest;
use crate::base::{ByteLen, Error, ErrorKind, Extent, Geometry, Result};
use crate::device::{self, Inventory, Resolved};
use crate::layout::{self, Layout, Table};
use serde::Serialize;

/// A target in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetInfo {
    /// What it is called.
    pub name: String,
    /// Its length; of a file to be created, the length it will have.
    pub bytes: u64,
    /// Whether it is a file that does not exist yet.
    pub created: bool,
    /// What is on it now, for the question before it is overwritten.
    pub holds: Vec<String>,
    /// What a person may type to confirm.
    #[serde(skip)]
    pub confirmations: Vec<String>,
}

/// Where the restored bytes go.
pub(super) struct Destination {
    pub(super) resolved: Resolved,
    pub(super) geometry: Geometry,
    /// The part of the target to write; all of it when absent.
    pub(super) slice: Option<Extent>,
    pub(super) created: bool,
}

/// Finds the target that `request` names, for `needed` bytes.
///
/// # Errors
/// `NotFound`; `Refused` when one partition would go over a disk that has some; `Destination` when the target
/// cannot be read.
pub(super) fn destination(
    inventory: &Inventory,
    request: &RestoreRequest,
    needed: ByteLen,
) -> Result<Destination> {
    // It is looked at as a source is, and is none.
    looked_at(inventory, request, needed).map_err(|e| match e.kind() {
        ErrorKind::Source => Error::new(
            ErrorKind::Destination,
            "look at the target",
            &request.target,
        )
        .caused_by(e),
        _ => e,
    })
}

fn looked_at(
    inventory: &Inventory,
    request: &RestoreRequest,
    needed: ByteLen,
) -> Result<Destination> {
    let resolved = device::resolve(inventory, &request.target)?;
    let (geometry, created) = match &resolved {
        Resolved::Device { device, .. } => {
            let geometry = Geometry {
                len: device.len,
                logical_sector: device.logical_sector,
                physical_sector: device.physical_sector,
            };
            (geometry, false)
        }
        Resolved::File { exists: false, .. } => (Geometry::of_len(needed), true),
        Resolved::File { .. } => {
            let claim = device::claim_read(inventory, &resolved)?;
            (claim.source().geometry(), false)
        }
    };
    let whole = Destination {
        resolved,
        geometry,
        slice: None,
        created,
    };
    match request.partition {
        Some((_, Some(number))) => into_partition(inventory, whole, number),
        Some((_, None)) if !whole.created => refuse_table(inventory, whole),
        _ => Ok(whole),
    }
}

/// The layout of what is on a target now.
fn layout_on(inventory: &Inventory, target: &Resolved) -> Result<Layout> {
    let claim = device::claim_read(inventory, target)?;
    layout::read(claim.source().as_ref())
}

/// Partition `number` of a target: the kernel's device for it where there is one, else that part of
/// the whole disk.
fn into_partition(inventory: &Inventory, whole: Destination, number: u32) -> Result<Destination> {
    let layout = layout_on(inventory, &whole.resolved)?;
    let extent = numbered(&layout, number, &whole.resolved.title())?.extent();
    if let Resolved::Device { device, .. } = &whole.resolved {
        let of_number = |d: &&device::Device| {
            d.partition
                .as_ref()
                .is_some_and(|p| p.number == number && p.start == extent.start)
                && d.len == extent.len
        };
        let found = inventory.partitions_of(device.dev).find(of_number);
        if let Some(partition) = found {
            let resolved = Resolved::Device {
                device: Box::new(partition.clone()),
                asked: None,
            };
            let geometry = Geometry {
                len: extent.len,
                ..whole.geometry
            };
            return Ok(Destination {
                resolved,
                geometry,
                slice: None,
                created: false,
            });
        }
    }
    let geometry = Geometry {
        len: extent.len,
        ..whole.geometry
    };
    Ok(Destination {
        geometry,
        slice: Some(extent),
        ..whole
    })
}

/// A single partition does not go over a whole disk that has partitions: that is never what was
/// meant.
fn refuse_table(inventory: &Inventory, whole: Destination) -> Result<Destination> {
    let layout = layout_on(inventory, &whole.resolved)?;
    if matches!(layout.table, Table::None { .. }) {
        return Ok(whole);
    }
    Err(Error::new(
        ErrorKind::Refused,
        "write one partition over",
        whole.resolved.title(),
    )
    .because("it is a whole disk with a partition table")
    .hint("say which of its partitions to overwrite: --partition N:M"))
}

/// The target as a person knows it.
pub(super) fn target_info(inventory: &Inventory, destination: &Destination) -> TargetInfo {
    let title = destination.resolved.title();
    let mut confirmations = vec![title.clone()];
    let mut holds = Vec::new();
    if let Resolved::Device { device, .. } = &destination.resolved {
        confirmations.extend([device.path.display().to_string(), device.name.clone()]);
        confirmations.extend(device.serial.clone());
        holds.extend(device.model.clone());
        holds.extend(device.serial.as_ref().map(|s| format!("serial {s}")));
    }
    if let Resolved::File { path, .. } = &destination.resolved {
        confirmations.push(path.display().to_string());
        confirmations.extend(path.file_name().map(|n| n.to_string_lossy().into_owned()));
    }
    let layout = (!destination.created).then(|| layout_on(inventory, &destination.resolved));
    if let Some(Ok(layout)) = layout {
        holds.push(format!(
            "{} partition table, {} partitions",
            layout.table.name(),
            layout.partitions.len()
        ));
    }
    TargetInfo {
        name: title,
        bytes: destination.geometry.len.0,
        created: destination.created,
        holds,
        confirmations,
    }
}
