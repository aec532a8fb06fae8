//! Source and machine in words, for an image to carry.

use crate::block::BlockSource;
use crate::device::{Consistency, ReadClaim};
use crate::image::{HostInfo, SourceInfo};
use crate::layout::Layout;
use crate::sys;
use std::path::Path;

/// The consistency in words, and what to warn of.
pub(super) fn consistency(consistency: &Consistency, name: &str) -> (String, Vec<String>) {
    match consistency {
        Consistency::Unmounted => ("unmounted".to_owned(), Vec::new()),
        Consistency::ReadOnlyMounted(_) => ("mounted read-only".to_owned(), Vec::new()),
        Consistency::Live(uses) => {
            let warning = format!(
                "{name} is in use ({}): what changes while it is read may not fit together; unmount \
                 it or work from a rescue system for a consistent image",
                uses.join("; ")
            );
            ("live".to_owned(), vec![warning])
        }
    }
}

/// The source for the image's info.
pub(super) fn source(claim: &ReadClaim, disk: &dyn BlockSource, layout: &Layout) -> SourceInfo {
    let identity = claim.identity();
    let geometry = disk.geometry();
    SourceInfo {
        name: disk.name().to_owned(),
        path: absolute(&identity.path),
        partition: identity.partition,
        bytes: geometry.len.0,
        logical_sector: geometry.logical_sector.bytes(),
        physical_sector: geometry.physical_sector.bytes(),
        model: identity.model.clone(),
        serial: identity.serial.clone(),
        wwn: identity.wwn.clone(),
        table_id: layout.disk_id.clone(),
    }
}

/// A path that means the same whatever folder one is in.
fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}

/// The machine for the image's info.
pub(super) fn host(root: &Path) -> HostInfo {
    let os_release = std::fs::read_to_string(root.join("etc/os-release")).unwrap_or_default();
    let pretty = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let uefi = root.join("sys/firmware/efi").exists();
    HostInfo {
        name: sys::hostname(),
        kernel: sys::kernel_release(),
        os: pretty.unwrap_or_default().trim_matches('"').to_owned(),
        boot: if uefi { "uefi" } else { "bios" }.to_owned(),
    }
}
