//! The index of a folder as bytes: which files are in it, and their names. Offsets as in ntfs-3g's
//! `include/ntfs-3g/layout.h` (`INDEX_ROOT`, `INDEX_BLOCK`, `INDEX_ENTRY`).

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::disk::{NUMBER, fix_up};
use crate::base::to_usize;

/// The name of the index of names.
pub(super) const NAMES: &str = "$I30";
/// Where the header of the entries begins in the root and in a block.
const IN_ROOT: usize = 0x10;
const IN_BLOCK: usize = 0x18;
/// An entry's flag: it ends the entries, and is none.
const LAST: u16 = 2;
/// Blocks of an index are 512 bytes to 64 KiB long.
const BLOCKS: std::ops::RangeInclusive<u64> = 512..=64 << 10;

/// Hands the files in `root` and their names (`FILE_NAME` values) to `each`; the length of the index's
/// blocks.
pub(super) fn root(root: &[u8], each: &mut dyn FnMut(u64, &[u8])) -> Result<u64, Doubt> {
    let raw = Raw::new(root, "index");
    let block = u64::from(raw.le32(8)?);
    ensure(BLOCKS.contains(&block) && block.is_power_of_two(), || {
        format!("its index claims to have blocks of {block} bytes")
    })?;
    entries(&raw.from(IN_ROOT)?, each)?;
    Ok(block)
}

/// Hands the files in `block` and their names to `each`. A block that was never written has none.
pub(super) fn block(block: &mut [u8], each: &mut dyn FnMut(u64, &[u8])) -> Result<(), Doubt> {
    if !block.starts_with(b"INDX") {
        return Ok(());
    }
    fix_up(block)?;
    entries(&Raw::new(block, "index").from(IN_BLOCK)?, each)
}

/// The entries behind a header.
fn entries(header: &Raw<'_>, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), Doubt> {
    let first = to_usize(u64::from(header.le32(0)?));
    let end = to_usize(u64::from(header.le32(4)?));
    let all = Raw::new(header.slice(0, end)?, "index");
    let mut at = first;
    while at < end {
        let entry = all.from(at)?;
        let (len, key) = (usize::from(entry.le16(8)?), usize::from(entry.le16(10)?));
        if entry.le16(12)? & LAST != 0 {
            break;
        }
        ensure(len >= 0x10 + key, || "an entry of its index makes no sense")?;
        each(entry.le64(0)? & NUMBER, entry.slice(0x10, key)?);
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_to_the_last() {
        let mut bytes = vec![0; 0x60];
        bytes[8..12].copy_from_slice(&4096u32.to_le_bytes());
        bytes[0x10..0x18].copy_from_slice(&[0x10, 0, 0, 0, 0x50, 0, 0, 0]);
        bytes[0x20..0x2C].copy_from_slice(&[70, 0, 0, 0, 0, 0, 9, 0, 0x18, 0, 4, 0]);
        bytes[0x30..0x34].copy_from_slice(b"name");
        bytes[0x38 + 8] = 0x10;
        bytes[0x38 + 12] = 2;
        let read = |bytes: &[u8]| {
            let mut found = Vec::new();
            let block = root(bytes, &mut |file, key| found.push((file, key.to_vec())));
            (found, block.ok())
        };
        assert_eq!(read(&bytes), (vec![(70, b"name".to_vec())], Some(4096)));
        // An entry shorter than its key, one that leads nowhere, blocks of no length.
        for (at, byte) in [(0x28, 0x11), (0x28, 0), (9, 0)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert_eq!(read(&bytes).1, None, "{at:#x}");
        }
    }
}
