//! Directories as bytes: those within an inode, and blocks of data. Facts: `xfs_da_format.h` of Linux
//! (`xfs_dir2_sf_hdr`, `xfs_dir2_data_entry`, `xfs_dir3_data_hdr`).

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::disk::{Superblock, checksum_holds};
use crate::base::to_usize;

/// Where directories have the index of their names, in bytes of their content; entries lie before it.
pub(super) const INDEX_AT: u64 = 1 << 35;
/// What begins a piece of a block that is not in use.
const UNUSED: u16 = 0xFFFF;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) inode: u64,
    pub(super) name: &'a [u8],
}

/// The entries of the directory that an inode keeps in `fork`, with `..`.
///
/// # Errors
/// A doubt when it is cut off.
pub(super) fn of_inode<'a>(
    fork: &'a [u8],
    superblock: &Superblock,
) -> Result<Vec<Entry<'a>>, Doubt> {
    let raw = Raw::new(fork, "directory");
    let (count, wide) = (raw.u8(0)?, raw.u8(1)? > 0);
    let number = |at: usize| {
        if wide {
            raw.be64(at)
        } else {
            raw.be32(at).map(u64::from)
        }
    };
    let width = if wide { 8 } else { 4 };
    let mut entries = vec![Entry {
        inode: number(2)?,
        name: b"..",
    }];
    let mut at = 2 + width;
    for _ in 0..count {
        let len = usize::from(raw.u8(at)?);
        let name = raw.slice(at + 3, len)?;
        at += 3 + len + usize::from(superblock.file_types());
        let inode = number(at)?;
        entries.push(Entry { inode, name });
        at += width;
    }
    Ok(entries)
}

/// The entries of a block of data of directory `owner`.
///
/// # Errors
/// A doubt when it is no such block, or damaged.
pub(super) fn of_block<'a>(
    block: &'a [u8],
    superblock: &Superblock,
    owner: u64,
) -> Result<Vec<Entry<'a>>, Doubt> {
    let raw = Raw::new(block, "directory");
    let v5 = superblock.v5();
    let alone = match (raw.slice(0, 4)?, v5) {
        (b"XD2B", false) | (b"XDB3", true) => true,
        (b"XD2D", false) | (b"XDD3", true) => false,
        _ => return Err(Doubt::new("a block of a directory does not begin as one")),
    };
    if v5 {
        let sound = checksum_holds(block, 4)? && raw.be64(40)? == owner;
        ensure(sound, || "a block of a directory is damaged")?;
    }
    let mut end = block.len();
    if alone {
        // The index of the only block lies at its end: entries of 8 bytes, then their number.
        let tail = end.saturating_sub(8);
        let index = to_usize(u64::from(raw.be32(tail)?) * 8);
        end = tail.checked_sub(index).ok_or_else(damaged)?;
    }
    let mut entries = Vec::new();
    let mut at = if v5 { 64 } else { 16 };
    while at < end {
        if raw.be16(at)? == UNUSED {
            let len = usize::from(raw.be16(at + 2)?);
            ensure(
                len >= 8 && len.is_multiple_of(8),
                || "a directory is damaged",
            )?;
            at += len;
            continue;
        }
        let len = usize::from(raw.u8(at + 8)?);
        let name = raw.slice(at + 9, len)?;
        let inode = raw.be64(at)?;
        entries.push(Entry { inode, name });
        let types = usize::from(superblock.file_types());
        at += (8 + 1 + len + types + 2).next_multiple_of(8);
    }
    Ok(entries)
}

fn damaged() -> Doubt {
    Doubt::new("a directory is damaged")
}
