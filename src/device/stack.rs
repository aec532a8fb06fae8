//! What lies on what: partitions, mapped devices, RAIDs and loop devices as layers.

use super::inventory::Inventory;
use super::node::{DevNum, Device};
use std::collections::BTreeSet;

impl Inventory {
    /// `dev` and everything that lies on it, however many layers up: its partitions, what is made
    /// of them, loop devices whose file lies on a file system there. Writing to `dev` overwrites
    /// all of it.
    pub fn above(&self, dev: DevNum) -> BTreeSet<DevNum> {
        let on = |dev: &DevNum| -> Vec<DevNum> {
            let lies_on = self.below.iter().filter(|(_, below)| below.contains(dev));
            lies_on.map(|(upper, _)| *upper).collect()
        };
        closure(BTreeSet::from([dev]), on)
    }

    /// `dev` and everything that it lies on, down to the disks.
    pub fn beneath(&self, dev: DevNum) -> BTreeSet<DevNum> {
        let under = |dev: &DevNum| -> Vec<DevNum> {
            let below = self.below.get(dev).into_iter().flatten();
            below.copied().collect()
        };
        closure(BTreeSet::from([dev]), under)
    }

    /// Other names of the very same disk or partition: the other ways to a multipath disk, and the
    /// same partition seen through them. A world-wide name and a length must agree; serial numbers
    /// do not count, since cheap sticks share them.
    pub(super) fn twins(&self, device: &Device) -> Vec<&Device> {
        let Some(disk) = self.device(device.whole()) else {
            return Vec::new();
        };
        // A multipath map bears the name of the paths that it lies on; they are no second disk.
        let beneath = self.beneath(disk.dev);
        let same_disk = |other: &&Device| {
            !beneath.contains(&other.dev) && other.wwn == disk.wwn && other.len == disk.len
        };
        let disks = self
            .devices()
            .iter()
            .filter(|_| disk.wwn.is_some())
            .filter(same_disk);
        let Some(part) = &device.partition else {
            return disks.collect();
        };
        let same_part = |other: &&Device| {
            other.len == device.len && other.partition.as_ref().map(|p| p.start) == Some(part.start)
        };
        disks
            .flat_map(|disk| self.partitions_of(disk.dev).filter(same_part))
            .collect()
    }

    /// Everything that writing to `device` overwrites: what lies above it and above its twins.
    pub(super) fn overwritten_by(&self, device: &Device) -> BTreeSet<DevNum> {
        let twins = self.twins(device);
        let all = twins.iter().map(|twin| twin.dev).chain([device.dev]);
        all.flat_map(|dev| self.above(dev)).collect()
    }
}

/// Everything reachable from `start`. Each device is visited once, so circles end.
fn closure(start: BTreeSet<DevNum>, next: impl Fn(&DevNum) -> Vec<DevNum>) -> BTreeSet<DevNum> {
    let mut open: Vec<DevNum> = start.iter().copied().collect();
    let mut seen = start;
    while let Some(dev) = open.pop() {
        for found in next(&dev) {
            if seen.insert(found) {
                open.push(found);
            }
        }
    }
    seen
}
