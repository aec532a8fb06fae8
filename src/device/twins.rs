//! Disks that bear the names of another one: clones that are attached beside what they were made of.

use super::identity::{DiskIdentity, Sameness};
use super::inventory::Inventory;
use super::node::{Device, DeviceKind};
use super::resolve::Resolved;
use crate::base::{Error, ErrorKind, Result};

/// Fails when another attached disk has the same identity, so that nobody can tell by it whose history is
/// meant.
///
/// # Errors
/// `Refused`, naming the others.
pub fn check_no_twin(inventory: &Inventory, resolved: &Resolved) -> Result<()> {
    let Resolved::Device { device, .. } = resolved else {
        return Ok(());
    };
    let disk = inventory.device(device.whole()).unwrap_or(device);
    let twins: Vec<String> = inventory
        .disks()
        .filter(|other| is_twin(inventory, disk, other))
        .map(Device::title)
        .collect();
    if twins.is_empty() {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Refused, "tell the history of", device.title())
            .because(format!(
                "it bears the same serial number or world-wide name as {}: one is a clone of the other, or both \
                 are ways to one disk",
                twins.join(", ")
            ))
            .hint("say which history is meant with --set NAME, or take the other one off"),
    )
}

fn is_twin(inventory: &Inventory, disk: &Device, other: &Device) -> bool {
    // The boot areas of an eMMC bear the serial number of the main area.
    let is_area = |d: &Device| matches!(d.kind, DeviceKind::MmcBoot | DeviceKind::MmcRpmb);
    if disk.dev == other.dev || is_area(disk) || is_area(other) {
        return false;
    }
    let (own, others) = (inventory.above(disk.dev), inventory.above(other.dev));
    let one_on_the_other = own.contains(&other.dev) || others.contains(&disk.dev);
    let ways_to_one = own.intersection(&others).any(|dev| {
        let upper = inventory.device(*dev);
        upper.is_some_and(Device::is_multipath)
    });
    if one_on_the_other || ways_to_one {
        return false;
    }
    let identity = |device| DiskIdentity {
        // A clone may lie on a larger disk.
        len: disk.len,
        ..DiskIdentity::of_device(inventory, device)
    };
    identity(disk).matches(&identity(other)) == Sameness::Same
}
