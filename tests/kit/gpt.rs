//! A GPT writer of our own, for sector sizes that the tools do not offer on plain files.

use super::{bytes, size};
use std::path::Path;

/// Entries a table has, and their size.
const ENTRIES: u64 = 128;
const ENTRY: u64 = 128;

/// One partition to be: sectors first and last, type and name.
pub(crate) struct Entry {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) kind: [u8; 16],
    pub(crate) name: &'static str,
}

/// EFI system partition, in the mixed byte order of the format.
pub(crate) const ESP: [u8; 16] = [
    0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B,
];
/// Linux file system.
pub(crate) const LINUX: [u8; 16] = [
    0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4,
];

/// Writes a protective MBR and both copies of a GPT over a disk of `len` bytes.
pub(crate) fn write(disk: &Path, len: u64, sector: u64, entries: &[Entry]) {
    let sectors = len / sector;
    let table_sectors = (ENTRIES * ENTRY).div_ceil(sector);
    let table = encode_entries(entries);
    let first_usable = 2 + table_sectors;
    let last_usable = sectors - 2 - table_sectors;
    let header = |own: u64, other: u64, table_at: u64| {
        let mut head = vec![0; size(sector)];
        head[..8].copy_from_slice(b"EFI PART");
        put(&mut head, 8, &0x0001_0000_u32.to_le_bytes());
        put(&mut head, 12, &92_u32.to_le_bytes());
        put(&mut head, 24, &own.to_le_bytes());
        put(&mut head, 32, &other.to_le_bytes());
        put(&mut head, 40, &first_usable.to_le_bytes());
        put(&mut head, 48, &last_usable.to_le_bytes());
        put(&mut head, 56, &[0xD1; 16]);
        put(&mut head, 72, &table_at.to_le_bytes());
        put(&mut head, 80, &128_u32.to_le_bytes());
        put(&mut head, 84, &128_u32.to_le_bytes());
        put(&mut head, 88, &crc32fast::hash(&table).to_le_bytes());
        let crc = crc32fast::hash(&head[..92]);
        put(&mut head, 16, &crc.to_le_bytes());
        head
    };
    bytes::write(disk, 0, &protective_mbr(sectors));
    bytes::write(disk, sector, &header(1, sectors - 1, 2));
    bytes::write(disk, 2 * sector, &table);
    let backup_table = sectors - 1 - table_sectors;
    bytes::write(disk, backup_table * sector, &table);
    let backup = header(sectors - 1, 1, backup_table);
    bytes::write(disk, (sectors - 1) * sector, &backup);
}

fn put(buf: &mut [u8], at: usize, bytes: &[u8]) {
    buf[at..at + bytes.len()].copy_from_slice(bytes);
}

fn protective_mbr(sectors: u64) -> Vec<u8> {
    let mut mbr = vec![0; 512];
    let count = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    put(
        &mut mbr,
        446,
        &[0x00, 0x00, 0x02, 0x00, 0xEE, 0xFF, 0xFF, 0xFF],
    );
    put(&mut mbr, 454, &1_u32.to_le_bytes());
    put(&mut mbr, 458, &count.to_le_bytes());
    put(&mut mbr, 510, &[0x55, 0xAA]);
    mbr
}

fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let mut table = vec![0; size(ENTRIES * ENTRY)];
    for (number, (slot, entry)) in table.chunks_mut(size(ENTRY)).zip(entries).enumerate() {
        put(slot, 0, &entry.kind);
        let id = [u8::try_from(number + 1).expect("few partitions"); 16];
        put(slot, 16, &id);
        put(slot, 32, &entry.first.to_le_bytes());
        put(slot, 40, &entry.last.to_le_bytes());
        for (at, unit) in entry.name.encode_utf16().enumerate() {
            put(slot, 56 + 2 * at, &unit.to_le_bytes());
        }
    }
    table
}
