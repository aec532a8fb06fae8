//! The bytes of a boot record: an MBR or one EBR.
//!
//! Layout and rules as in the kernel, `block/partitions/msdos.c`; the disk signature at 0x1B8 is
//! what Windows NT and Linux (`PARTUUID`) read there.

use super::disk::{field, le32};

/// Bytes of a boot record that matter, whatever the sector size.
pub(super) const RECORD_BYTES: u64 = 512;
/// Where the entries start.
pub(super) const AT_ENTRIES: usize = 0x1be;
/// Bytes of one entry.
pub(super) const ENTRY_BYTES: usize = 16;
const AT_DISK_SIGNATURE: usize = 0x1b8;
const AT_BOOT_SIGNATURE: usize = 0x1fe;

/// The type that marks the entry which protects a GPT.
pub(super) const TYPE_PROTECTIVE: u8 = 0xee;
/// The types of an extended partition (`is_extended_partition`): DOS, Windows 98 LBA, Linux.
const TYPES_EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// One of the four entries, as stored. Numbers count sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) status: u8,
    pub(super) kind: u8,
    pub(super) start: u32,
    pub(super) count: u32,
}

impl Entry {
    /// Whether it points at EBRs.
    pub(super) fn is_extended(self) -> bool {
        TYPES_EXTENDED.contains(&self.kind)
    }

    /// Whether the kernel makes a partition of it: only the length decides, not the type.
    pub(super) fn is_used(self) -> bool {
        self.count > 0
    }

    fn decode(bytes: &[u8]) -> Entry {
        let [status] = field::<1>(bytes, 0);
        let [kind] = field::<1>(bytes, 4);
        Entry {
            status,
            kind,
            start: le32(bytes, 8),
            count: le32(bytes, 12),
        }
    }
}

/// A sector that ends in 55 AA: an MBR, an EBR, or the boot sector of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootRecord {
    pub(super) signature: u32,
    pub(super) entries: [Entry; 4],
}

impl BootRecord {
    /// Reads the first 512 bytes of a sector; `None` without 55 AA.
    pub(super) fn decode(sector: &[u8]) -> Option<BootRecord> {
        if field(sector, AT_BOOT_SIGNATURE) != [0x55, 0xaa] {
            return None;
        }
        let entry = |slot: usize| {
            let bytes: [u8; ENTRY_BYTES] = field(sector, AT_ENTRIES + slot * ENTRY_BYTES);
            Entry::decode(&bytes)
        };
        Some(BootRecord {
            signature: le32(sector, AT_DISK_SIGNATURE),
            entries: [entry(0), entry(1), entry(2), entry(3)],
        })
    }

    /// Whether every status byte is 00 or 80, without which the kernel sees no table.
    pub(super) fn status_bytes_fit(&self) -> bool {
        self.entries.iter().all(|e| matches!(e.status, 0 | 0x80))
    }

    /// Whether an entry protects a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|e| e.kind == TYPE_PROTECTIVE)
    }

    /// Whether nothing is in use.
    pub(super) fn is_empty(&self) -> bool {
        !self.entries.iter().any(|e| e.is_used())
    }

    /// The entries of a hybrid MBR that name partitions besides protecting the GPT. The kernel's
    /// test (`is_pmbr_valid`) is the type alone; an entry without sectors names nothing either.
    pub(super) fn hybrid_entries(&self) -> impl Iterator<Item = (u32, Entry)> {
        let numbered = (1..).zip(self.entries);
        numbered.filter(|(_, e)| e.is_used() && e.kind != 0 && e.kind != TYPE_PROTECTIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_from_their_places() {
        let mut sector = vec![0u8; 512];
        sector[0x1b8..0x1bc].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        sector[0x1ce..0x1de]
            .copy_from_slice(&[0x80, 1, 2, 3, 0x83, 4, 5, 6, 0, 8, 0, 0, 0, 16, 0, 0]);
        assert!(BootRecord::decode(&sector).is_none());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let record = BootRecord::decode(&sector).unwrap();
        assert_eq!(record.signature, 0x1234_5678);
        let expected = Entry {
            status: 0x80,
            kind: 0x83,
            start: 2048,
            count: 4096,
        };
        assert_eq!(record.entries[1], expected);
        assert!(record.status_bytes_fit() && !record.is_empty() && !record.is_protective());
        assert!(BootRecord::decode(&sector[..511]).is_none());
    }
}
