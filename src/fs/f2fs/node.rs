//! Node addresses and nodes as F2FS has them on disk ("include/linux/f2fs_fs.h", "fs/f2fs/node.h").

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use crate::base::to_usize;
use std::ops::Range;

/// Entries of node addresses in a block, the length of one, and the most that a journal has.
pub(super) const NAT_PER_BLOCK: u64 = 455;
const NAT_ENTRY: usize = 9;
const MAX_JOURNAL: u16 = 38;
/// Nodes below are those of the file system itself, and lie nowhere.
pub(super) const FIRST_NODE: u64 = 3;

/// Addresses that are none: a hole, reserved for later, the head of compressed blocks.
const NOWHERE: [u32; 3] = [0, u32::MAX, u32::MAX - 1];
/// Addresses, and numbers of nodes, in a node.
const PER_NODE: usize = 1018;
/// Where an inode has its addresses, and how many.
const INODE_ADDRESSES: usize = 360;
const PER_INODE: usize = 923;
/// Addresses whose room an inode gives to attributes.
const INLINE_ATTRIBUTES: usize = 50;
const INLINE_XATTR: u8 = 0x1;
const INLINE_DATA: u8 = 0x2;
const INLINE_DENTRY: u8 = 0x4;
const EXTRA_ATTR: u8 = 0x20;

/// Entry `index` of a block of node addresses: the block where the node lies, 0 for none.
pub(super) fn address(block: &[u8], index: usize) -> Result<u32, Doubt> {
    let at = index * NAT_ENTRY + 5;
    let found = Raw::new(block, "table of node addresses").le32(at)?;
    Ok(if NOWHERE.contains(&found) { 0 } else { found })
}

/// The entries of the journal at `at` of a summary block: node and block.
pub(super) fn journal(block: &[u8], at: usize) -> Result<Vec<(u64, u32)>, Doubt> {
    let raw = Raw::new(block, "journal of node addresses").from(at)?;
    let count = raw.le16(0)?;
    ensure(count <= MAX_JOURNAL, || {
        format!("its journal of node addresses is said to have {count} entries")
    })?;
    (0..usize::from(count))
        .map(|n| {
            let at = 2 + n * (4 + NAT_ENTRY);
            let entry = raw.slice(at + 4, NAT_ENTRY)?;
            Ok((u64::from(raw.le32(at)?), address(entry, 0)?))
        })
        .collect()
}

/// How many blocks of data the node `block` points to; all must lie in `main`.
///
/// # Errors
/// A doubt when one does not; `at` is where the node lies.
pub(super) fn data_blocks(
    block: &[u8],
    flexible: bool,
    main: &Range<u64>,
    at: u64,
) -> Result<u64, Doubt> {
    let raw = Raw::new(block, "node");
    let mut count = 0;
    for slot in addresses(&raw, flexible)? {
        let found = raw.le32(slot * 4)?;
        if NOWHERE.contains(&found) {
            continue;
        }
        ensure(main.contains(&u64::from(found)), || {
            format!("the node in block {at} points to block {found}, where no files are")
        })?;
        count += 1;
    }
    Ok(count)
}

/// The words of a node that are addresses of data.
fn addresses(raw: &Raw<'_>, flexible: bool) -> Result<Range<usize>, Doubt> {
    let (node, inode) = (raw.le32(4072)?, raw.le32(4076)?);
    if node == inode {
        return inode_addresses(raw, flexible);
    }
    let place = to_usize(u64::from(raw.le32(4080)? >> 3));
    Ok(if points_to_data(place) {
        0..PER_NODE
    } else {
        0..0
    })
}

/// Whether the node at `place` in the tree of a file points to data, not to nodes or nowhere.
fn points_to_data(place: usize) -> bool {
    // An attribute block; the two nodes of nodes, and the one of nodes of nodes.
    const ATTRIBUTES: usize = 0x1FFF_FFFF;
    if [ATTRIBUTES, 3, 4 + PER_NODE, 5 + 2 * PER_NODE].contains(&place) {
        return false;
    }
    match place.checked_sub(6 + 2 * PER_NODE) {
        Some(below) => below % (PER_NODE + 1) != 0,
        None => true,
    }
}

fn inode_addresses(raw: &Raw<'_>, flexible: bool) -> Result<Range<usize>, Doubt> {
    let (kind, inline) = (raw.le16(0)? & 0xF000, raw.u8(3)?);
    // Only files, folders and links have data; devices keep their number in that place.
    let has_data = [0x8000, 0x4000, 0xA000].contains(&kind);
    if !has_data || inline & (INLINE_DATA | INLINE_DENTRY) != 0 {
        return Ok(0..0);
    }
    let mut first = 0;
    if inline & EXTRA_ATTR != 0 {
        first = usize::from(raw.le16(INODE_ADDRESSES)?) / 4;
    }
    let attributes = if flexible && inline & EXTRA_ATTR != 0 {
        usize::from(raw.le16(INODE_ADDRESSES + 2)?)
    } else if inline & INLINE_XATTR != 0 {
        INLINE_ATTRIBUTES
    } else {
        0
    };
    ensure(first + attributes <= PER_INODE, || {
        format!("an inode has no room for {first} and {attributes} words of attributes")
    })?;
    let start = INODE_ADDRESSES / 4;
    Ok(start + first..start + PER_INODE - attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_tree_of_a_file() {
        // As numbered in "fs/f2fs/node.h": an inode, two direct nodes, two indirect ones with 1018
        // direct nodes each, a double indirect one.
        for place in [1, 2, 4, 4 + 1017, 5 + 1018, 4 + 2 * 1018, 7 + 2 * 1018] {
            assert!(points_to_data(place), "{place}");
        }
        for place in [
            3,
            4 + 1018,
            5 + 2 * 1018,
            6 + 2 * 1018,
            7 + 3 * 1018,
            0x1FFF_FFFF,
        ] {
            assert!(!points_to_data(place), "{place}");
        }
    }

    /// An inode with 923 addresses of the main area.
    fn inode(kind: u16, inline: u8) -> Vec<u8> {
        let mut block = vec![0; 4096];
        block[0..2].copy_from_slice(&kind.to_le_bytes());
        block[3] = inline;
        for slot in 0..PER_INODE {
            let at = INODE_ADDRESSES + slot * 4;
            block[at..at + 4].copy_from_slice(&1000u32.to_le_bytes());
        }
        block
    }

    #[test]
    fn what_an_inode_points_to() {
        let count = |block: &[u8], flexible| data_blocks(block, flexible, &(512..2000), 7).unwrap();
        assert_eq!(count(&inode(0x8000, 0), false), 923);
        assert_eq!(count(&inode(0x4000, INLINE_XATTR), false), 873);
        assert_eq!(count(&inode(0x8000, INLINE_DATA), false), 0);
        assert_eq!(count(&inode(0x4000, INLINE_DENTRY), false), 0);
        assert_eq!(count(&inode(0x2000, 0), false), 0);
        let mut block = inode(0x8000, EXTRA_ATTR | INLINE_XATTR);
        block[360..364].copy_from_slice(&[36, 0, 20, 0]);
        assert_eq!(count(&block, false), 923 - 9 - 50);
        assert_eq!(count(&block, true), 923 - 9 - 20);
        for (slot, value) in [(20, 0), (21, u32::MAX), (22, u32::MAX - 1)] {
            let at = INODE_ADDRESSES + slot * 4;
            block[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        assert_eq!(count(&block, true), 923 - 9 - 20 - 3);
        assert!(data_blocks(&block, true, &(512..1000), 7).is_err());
        block[360] = 255;
        block[361] = 255;
        assert!(data_blocks(&block, true, &(512..2000), 7).is_err());
    }
}
