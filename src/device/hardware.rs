//! Who a disk is: transport, model, serial number and world-wide name, from sysfs first (it is
//! there on every rescue system) and udev second.

use super::node::{DeviceKind, Mapping, Transport};
use super::text::{clean, clean_bytes};
use super::tree::Tree;
use super::udev::Udev;
use std::path::Path;

/// How many folders above a disk's own are searched for its USB device.
const MAX_ANCESTORS: usize = 24;

/// What is known of the hardware.
#[derive(Debug, Default)]
pub(super) struct Hardware {
    pub vendor: Option<String>,
    pub model: Option<String>,
    /// Serial numbers, the one nearest to the medium first.
    pub serials: Vec<String>,
    pub wwn: Option<String>,
}

/// Reads the facts of the whole disk whose sysfs folder is `dir` (without links).
pub(super) fn read(tree: &Tree, dir: &Path, udev: &Udev, mapping: Option<&Mapping>) -> Hardware {
    let text = |name: &str| tree.text(dir.join(name));
    let model = text("device/model")
        .or_else(|| text("device/name"))
        .or_else(|| udev.encoded("ID_MODEL_ENC"))
        .or_else(|| udev.text("ID_MODEL"));
    // A PCI or virtio device says a number, libata says "ATA" for everyone.
    let vendor = text("device/vendor")
        .or_else(|| udev.text("ID_VENDOR"))
        .filter(|vendor| !vendor.starts_with("0x") && vendor != "ATA");
    let wwn = [
        text("wwid"),
        text("device/wwid"),
        udev.text("ID_WWN_WITH_EXTENSION"),
        udev.text("ID_WWN"),
        mapping.and_then(|m| multipath_wwn(&m.uuid)),
    ];
    Hardware {
        vendor,
        model,
        serials: serials(tree, dir, udev),
        wwn: wwn.into_iter().flatten().find_map(|w| normal_wwn(&w)),
    }
}

fn serials(tree: &Tree, dir: &Path, udev: &Udev) -> Vec<String> {
    let found = [
        // virtio-blk.
        tree.text(dir.join("serial")),
        // NVMe, MMC.
        tree.text(dir.join("device/serial")),
        unit_serial(tree, dir),
        usb_serial(tree, dir),
        udev.text("ID_SERIAL_SHORT"),
        udev.text("ID_SCSI_SERIAL"),
    ];
    let mut serials: Vec<String> = Vec::new();
    for serial in found.into_iter().flatten() {
        if is_meaningful(&serial) && !serials.contains(&serial) {
            serials.push(serial);
        }
    }
    serials
}

/// Cheap bridges answer zeros or blanks.
fn is_meaningful(serial: &str) -> bool {
    let digits = serial.strip_prefix("0x").unwrap_or(serial);
    digits
        .chars()
        .any(|c| !matches!(c, '0' | ' ' | '-' | '?' | '.'))
}

/// The unit serial number page of SCSI (SPC-5, 7.7.19): four bytes of header, of which the last two
/// are the length of the text, big-endian.
fn unit_serial(tree: &Tree, dir: &Path) -> Option<String> {
    let page = tree.bytes(dir.join("device/vpd_pg80"))?;
    let header = page.get(..4)?;
    let len = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
    let end = len.checked_add(4)?.min(page.len());
    (*header.get(1)? == 0x80)
        .then(|| clean_bytes(page.get(4..end)?))
        .flatten()
}

/// The serial number of the USB device that the disk hangs on: the nearest folder above with a
/// USB vendor id (Documentation/ABI/stable/sysfs-bus-usb).
fn usb_serial(tree: &Tree, dir: &Path) -> Option<String> {
    dir.ancestors()
        .take(MAX_ANCESTORS)
        .find(|folder| tree.has(folder.join("idVendor")))
        .and_then(|folder| tree.text(folder.join("serial")))
}

/// A multipath map bears the id that scsi_id prints: a 3 for "NAA" before the hex digits.
fn multipath_wwn(uuid: &str) -> Option<String> {
    let id = uuid.strip_prefix("mpath-")?;
    match id.strip_prefix('3') {
        Some(naa) => Some(format!("naa.{naa}")),
        None => Some(id.to_owned()),
    }
}

/// One spelling for the names that sysfs (`naa.5002…`), udev (`0x5002…`), `/dev/disk/by-id`
/// (`wwn-0x5002…`) and people (`5002…`) write. `None` for an empty or T10 name, which is no
/// world-wide one.
pub(super) fn normal_wwn(text: &str) -> Option<String> {
    let text = clean(text).to_ascii_lowercase();
    let text = text.strip_prefix("wwn-").unwrap_or(&text);
    let hex = |digits: &str| {
        let fits = matches!(digits.len(), 16 | 32);
        (fits && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| format!("0x{digits}"))
    };
    if let Some(digits) = text
        .strip_prefix("naa.")
        .or_else(|| text.strip_prefix("0x"))
    {
        return hex(digits);
    }
    let other = ["eui.", "nvme.", "uuid."];
    if other.iter().any(|prefix| text.starts_with(prefix)) {
        let id = text.split_once('.').map_or("", |(_, id)| id);
        return is_meaningful(id).then(|| text.to_owned());
    }
    hex(text)
}

/// How the disk is attached, by its name and by the buses on its way through sysfs.
pub(super) fn transport(name: &str, kind: DeviceKind, dir: &Path) -> Transport {
    match kind {
        DeviceKind::Loop
        | DeviceKind::Mapper
        | DeviceKind::Raid
        | DeviceKind::Bcache
        | DeviceKind::Memory => return Transport::Virtual,
        DeviceKind::MmcBoot | DeviceKind::MmcRpmb => return Transport::Mmc,
        _ => {}
    }
    if name.starts_with("nvme") {
        return Transport::Nvme;
    }
    if name.starts_with("mmcblk") {
        return Transport::Mmc;
    }
    let buses = [
        ("usb", Transport::Usb),
        ("ata", Transport::Sata),
        ("end_device-", Transport::Sas),
        ("rport-", Transport::Fc),
        ("session", Transport::Iscsi),
        ("virtio", Transport::Virtio),
    ];
    let on_the_way = |bus: &str| {
        dir.iter().filter_map(|part| part.to_str()).any(|part| {
            part.strip_prefix(bus)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    buses
        .into_iter()
        .find_map(|(bus, transport)| on_the_way(bus).then_some(transport))
        .unwrap_or(Transport::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_disk_become_one() {
        let wwn = Some("0x5002538e40a1b2c3".to_owned());
        for text in [
            "naa.5002538e40a1b2c3\n",
            "0x5002538E40A1B2C3",
            "wwn-0x5002538e40a1b2c3",
            "5002538e40a1b2c3",
        ] {
            assert_eq!(normal_wwn(text), wwn, "{text}");
        }
        assert_eq!(
            normal_wwn("eui.0025385B71B01234").as_deref(),
            Some("eui.0025385b71b01234")
        );
        for text in [
            "",
            "t10.ATA     Samsung",
            "eui.0000000000000000",
            "naa.",
            "0xzz",
            "S4EVNX0M",
        ] {
            assert_eq!(normal_wwn(text), None, "{text}");
        }
        assert_eq!(
            multipath_wwn("mpath-3600508b400105e210000900000490000").as_deref(),
            Some("naa.600508b400105e210000900000490000")
        );
    }

    #[test]
    fn zeros_are_no_serial() {
        assert!(!is_meaningful("0x00000000"));
        assert!(!is_meaningful("000000000000"));
        assert!(is_meaningful("0x1a2b3c4d"));
    }

    #[test]
    fn the_way_through_sysfs_tells_the_bus() {
        let way = |dir: &str| transport("sda", DeviceKind::Disk, Path::new(dir));
        let pci = "/sys/devices/pci0000:00/0000:00:17.0";
        assert_eq!(
            way(&format!("{pci}/ata3/host2/target2:0:0/2:0:0:0/block/sda")),
            Transport::Sata
        );
        assert_eq!(
            way(&format!("{pci}/usb2/2-1/2-1:1.0/host6/block/sda")),
            Transport::Usb
        );
        assert_eq!(
            way(&format!("{pci}/virtio2/host0/block/sda")),
            Transport::Virtio
        );
        assert_eq!(
            way("/sys/devices/platform/host1/session1/block/sda"),
            Transport::Iscsi
        );
        assert_eq!(way("/sys/devices/atari/block/sda"), Transport::Unknown);
    }
}
