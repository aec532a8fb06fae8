//! One partition as a value.

use super::type_names;
use crate::base::{ByteLen, ByteOffset, Extent, printable};
use serde::{Deserialize, Serialize};

/// What a partition is to its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionKind {
    /// Has its own slot in the table (every GPT partition is one).
    Primary,
    /// Hangs in the EBR chain inside the extended partition.
    Logical,
    /// The MBR container of the logical ones. Holds no data of its own.
    Extended,
}

/// One partition.
///
/// A value that came out of an image file may hold anything until
/// [`Layout::validate`](super::Layout::validate) has passed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The number Linux gives it: the GPT slot, 1 to 4 in an MBR, logical ones from 5 in chain order.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes, not zero.
    pub len: u64,
    /// Primary, logical or the extended container.
    pub kind: PartitionKind,
    /// The type as `lsblk -o PARTTYPE` prints it: a lower-case GUID, or `0x83` for an MBR type byte.
    pub type_id: String,
    /// The GPT name as stored; [`Partition::display_name`] is safe to show. Empty in an MBR.
    pub name: String,
    /// What `/dev/disk/by-partuuid` calls it: the unique GUID, or `signature-number` in an MBR.
    /// `None` where an MBR has no signature.
    pub unique_id: Option<String>,
    /// The MBR active flag, or GPT attribute bit 2 ("legacy BIOS bootable").
    pub bootable: bool,
    /// The 64 GPT attribute bits (UEFI specification, table "Defined GPT Partition Entry -
    /// Attributes"; bits 48 to 63 belong to the type). Zero in an MBR.
    pub attributes: u64,
}

/// GPT attribute bits that people know: the general ones of the UEFI specification, then those that
/// Microsoft and the Discoverable Partitions Specification define.
const ATTRIBUTE_NAMES: [(u32, &str); 6] = [
    (0, "required"),
    (1, "no block I/O"),
    (2, "legacy boot"),
    (60, "read-only"),
    (62, "hidden"),
    (63, "no automount"),
];

impl Partition {
    /// Where it lies, in bytes.
    pub fn extent(&self) -> Extent {
        Extent {
            start: ByteOffset(self.start),
            len: ByteLen(self.len),
        }
    }

    /// What the type is called, or `None` for one that is not well known.
    pub fn type_name(&self) -> Option<&'static str> {
        type_names::name_of(&self.type_id)
    }

    /// What the type is called when it is one that never holds a file system: boot code, reserved
    /// space.
    pub fn bare_type(&self) -> Option<&'static str> {
        type_names::bare_name_of(&self.type_id)
    }

    /// The name without characters that move a cursor or turn the writing direction.
    pub fn display_name(&self) -> String {
        printable(&self.name)
    }

    /// The attribute bits that have a well-known name.
    pub fn attribute_names(&self) -> Vec<&'static str> {
        let set = |bit: &u32| (self.attributes >> bit) & 1 == 1;
        let names = ATTRIBUTE_NAMES.iter().filter(|(bit, _)| set(bit));
        names.map(|(_, name)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_names_cannot_drive_a_terminal() {
        let partition = Partition {
            number: 1,
            start: 0,
            len: 1,
            kind: PartitionKind::Primary,
            type_id: "0x83".to_owned(),
            name: "a\x1b[2J\u{202e}ä\n".to_owned(),
            unique_id: None,
            bootable: false,
            attributes: 1 << 63 | 1,
        };
        assert_eq!(partition.display_name(), "a\u{fffd}[2J\u{fffd}ä\u{fffd}");
        assert_eq!(partition.attribute_names(), ["required", "no automount"]);
        assert_eq!(partition.type_name(), Some("Linux"));
    }
}
