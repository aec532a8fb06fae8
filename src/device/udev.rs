//! What udev has found out about a device: `/run/udev/data/b<major>:<minor>`. The format is
//! systemd's own and undocumented (`device_update_db` of sd-device); every fact from here is a
//! convenience that may be missing, as it is on rescue systems without udev.

use super::node::DevNum;
use super::text::{clean, clean_bytes, unescape_hex};
use super::tree::Tree;
use std::collections::BTreeMap;

/// Longest record that is read, in bytes. Honest ones have a few KiB.
const MAX_RECORD: u64 = 256 * 1024;

/// udev's record of one device.
#[derive(Debug, Default)]
pub(super) struct Udev {
    properties: BTreeMap<String, Vec<u8>>,
    links: Vec<String>,
}

impl Udev {
    /// The record of device `dev`; empty when udev has none.
    pub(super) fn read(tree: &Tree, dev: DevNum) -> Udev {
        tree.whole(format!("/run/udev/data/b{dev}"), MAX_RECORD)
            .map(|record| Udev::parse(&record))
            .unwrap_or_default()
    }

    fn parse(record: &[u8]) -> Udev {
        let mut udev = Udev::default();
        for line in record.split(|b| *b == b'\n') {
            if let Some(link) = line.strip_prefix(b"S:") {
                udev.links.push(clean(&String::from_utf8_lossy(link)));
            } else if let Some(property) = line.strip_prefix(b"E:")
                && let Some(at) = property.iter().position(|b| *b == b'=')
            {
                let (name, value) = property.split_at(at);
                let name = String::from_utf8_lossy(name).into_owned();
                udev.properties
                    .insert(name, value.get(1..).unwrap_or_default().to_owned());
            }
        }
        udev
    }

    /// A property as clean text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        clean_bytes(self.properties.get(name)?)
    }

    /// A property whose odd characters are written `\x20`.
    pub(super) fn encoded(&self, name: &str) -> Option<String> {
        clean_bytes(&unescape_hex(self.properties.get(name)?))
    }

    /// The names below `/dev/disk/by-id` that udev gave the device.
    pub(super) fn by_id(&self) -> impl Iterator<Item = &str> {
        self.links
            .iter()
            .filter_map(|link| link.strip_prefix("disk/by-id/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record() {
        let udev = Udev::parse(
            b"S:disk/by-id/ata-X_1\nS:disk/by-uuid/77\nI:123\nE:ID_FS_LABEL_ENC=My\\x20Disk\n\
              E:ID_SERIAL_SHORT=S1\x1b\nE:bad\nG:systemd\nV:1\n",
        );
        assert_eq!(udev.by_id().collect::<Vec<_>>(), ["ata-X_1"]);
        assert_eq!(udev.encoded("ID_FS_LABEL_ENC").as_deref(), Some("My Disk"));
        assert_eq!(udev.text("ID_SERIAL_SHORT").as_deref(), Some("S1?"));
        assert_eq!(udev.text("bad"), None);
    }
}
