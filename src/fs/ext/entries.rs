//! Directories as bytes: blocks of entries, and the entries that small directories keep in their inode.
//! Facts: "Documentation/filesystems/ext4", "Directory Entries", "Inline Data", "Extended Attributes".

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use crate::base::to_usize;

/// The number of a directory's own entry's length and name.
const HEADER: usize = 8;
/// What begins extended attributes within an inode.
const ATTRIBUTES_MAGIC: u32 = 0xEA02_0000;
/// The kind of attributes whose names begin with "system.".
const SYSTEM: u8 = 7;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) inode: u64,
    pub(super) name: &'a [u8],
}

/// The entries in use in `block`, one block of a directory. Blocks of its index show one entry that is
/// not in use; that of its root hides the index behind `..`.
///
/// # Errors
/// A doubt when an entry does not fit; what stands before it is told all the same.
pub(super) fn of_block<'a>(
    block: &'a [u8],
    each: &mut dyn FnMut(Entry<'a>) -> Result<(), Doubt>,
) -> Result<(), Doubt> {
    let raw = Raw::new(block, "directory");
    let mut at = 0;
    while at + HEADER <= block.len() {
        let inode = u64::from(raw.le32(at)?);
        let len = match usize::from(raw.le16(at + 4)?) {
            // Blocks of 64 KiB: lengths are multiples of 4, and the lower bits continue the upper.
            0 | 0xFFFF if block.len() > 0xFFFF => block.len(),
            len if block.len() > 0xFFFF => len & !3 | (len & 3) << 16,
            len => len,
        };
        let name = usize::from(raw.u8(at + 6)?);
        let fits = len >= HEADER + name && len.is_multiple_of(4) && at + len <= block.len();
        ensure(fits, || "a directory is damaged; run e2fsck")?;
        if inode != 0 && name > 0 {
            let name = raw.slice(at + HEADER, name)?;
            each(Entry { inode, name })?;
        }
        at += len;
    }
    Ok(())
}

/// The parent of the directory that `inode` keeps within itself, and its entries.
///
/// # Errors
/// As [`of_block`].
pub(super) fn of_inode<'a>(
    inode: &'a [u8],
    each: &mut dyn FnMut(Entry<'a>) -> Result<(), Doubt>,
) -> Result<u64, Doubt> {
    let raw = Raw::new(inode, "inode");
    let tree = Raw::new(raw.slice(0x28, 60)?, "directory");
    of_block(tree.from(4)?.bytes(), each)?;
    if let Some(rest) = more(&raw)? {
        of_block(rest, each)?;
    }
    Ok(u64::from(tree.le32(0)?))
}

/// The value of "system.data", where content goes on that does not fit into the place for blocks.
fn more<'a>(inode: &Raw<'a>) -> Result<Option<&'a [u8]>, Doubt> {
    if inode.bytes().len() <= 0x84 {
        return Ok(None);
    }
    let start = 0x80 + usize::from(inode.le16(0x80)?);
    if inode.le32(start)? != ATTRIBUTES_MAGIC {
        return Ok(None);
    }
    let first = inode.from(start + 4)?;
    let mut at = 0;
    while first.le32(at)? != 0 {
        let name = usize::from(first.u8(at)?);
        if first.u8(at + 1)? == SYSTEM && first.slice(at + 16, name)? == b"data" {
            let len = to_usize(u64::from(first.le32(at + 8)?));
            let value = first.slice(usize::from(first.le16(at + 2)?), len)?;
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
        at += (16 + name).next_multiple_of(4);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, len: u16, name: &[u8]) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.push(name.len().try_into().unwrap());
        bytes.push(1);
        bytes.extend(name);
        bytes.resize(len.into(), 0);
        bytes
    }

    fn read(block: &[u8]) -> (Vec<(u64, Vec<u8>)>, bool) {
        let mut found = Vec::new();
        let sound = of_block(block, &mut |e| {
            found.push((e.inode, e.name.to_vec()));
            Ok(())
        });
        (found, sound.is_ok())
    }

    #[test]
    fn blocks_are_read_to_their_end() {
        let block = [
            entry(2, 12, b"."),
            entry(0, 16, b"gone"),
            entry(9, 36, b"file"),
        ]
        .concat();
        let expected = vec![(2, b".".to_vec()), (9, b"file".to_vec())];
        assert_eq!(read(&block), (expected.clone(), true));
        // A length that leads behind the end, and one that leads nowhere.
        for len in [40u8, 0, 10] {
            let mut torn = block.clone();
            torn[32] = len;
            assert_eq!(read(&torn), (expected[..1].to_vec(), false), "{len}");
        }
        let mut large = entry(5, 0, b"");
        large.resize(65_536, 0);
        assert_eq!(read(&large), (Vec::new(), true));
    }

    #[test]
    fn small_directories_go_on_in_an_attribute() {
        let mut inode = vec![0; 256];
        inode[0x28..0x2C].copy_from_slice(&2u32.to_le_bytes());
        inode[0x2C..0x64].copy_from_slice(&entry(12, 56, b"one"));
        inode[0x80] = 32;
        inode[0xA0..0xA4].copy_from_slice(&ATTRIBUTES_MAGIC.to_le_bytes());
        inode[0xA4..0xA8].copy_from_slice(&[4, SYSTEM, 72, 0]);
        inode[0xAC] = 20;
        inode[0xB4..0xB8].copy_from_slice(b"data");
        inode[0xEC..0x100].copy_from_slice(&entry(13, 20, b"two"));
        let mut found = Vec::new();
        let parent = of_inode(&inode, &mut |e| {
            found.push((e.inode, e.name));
            Ok(())
        });
        assert_eq!(parent.unwrap(), 2);
        assert_eq!(found, [(12, b"one".as_slice()), (13, b"two")]);
    }
}
