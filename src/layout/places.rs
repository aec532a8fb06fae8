//! Which bytes of a disk are table and not data, which make it recognisable, and which nobody needs.

use super::disk::{Disk, Got};
use super::gpt_read::PRIMARY_LBA;
use super::model::{GptCopy, GptPlaces, Layout, Table};
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result, normalize, to_u64};
use crate::block::BlockSource;

/// The most bytes that [`raw_regions`] returns: two entry arrays and two headers at their limits
/// need little more than 2 MiB, the longest EBR chain with sectors of 4096 bytes as much.
pub const MAX_RAW_BYTES: u64 = 4 << 20;

/// The start of a disk that boot loaders and partitioning tools claim: MBR, GPT, and the gap up to
/// the first partition, which all of them have aligned to 1 MiB for many years.
const BOOT_AREA: u64 = 1 << 20;

/// Bytes of a table as they stand on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRegion {
    /// First byte on the disk.
    pub offset: ByteOffset,
    /// What stands there.
    pub bytes: Vec<u8>,
}

/// Every byte range occupied by structures of the table: LBA 0, both GPT headers and arrays as far
/// as their places are proven, every EBR. Sorted, joined, inside the disk for a layout that
/// [`Layout::validate`] accepts. Nothing for a disk without a table that is understood.
pub fn table_extents(layout: &Layout) -> Vec<Extent> {
    normalize(structures(layout))
}

/// [`table_extents`] structure by structure. A number too large for a disk saturates, so that it
/// lies outside of every disk.
pub(super) fn structures(layout: &Layout) -> Vec<Extent> {
    let mut out = Vec::new();
    match &layout.table {
        Table::None { .. } | Table::Opaque { .. } => return out,
        Table::Mbr(mbr) => {
            out.push(sectors(layout, 0, 1));
            out.extend(mbr.ebrs.iter().map(|lba| sectors(layout, *lba, 1)));
        }
        Table::Gpt(gpt) => {
            out.push(sectors(layout, 0, 1));
            out.extend(copy_structures(layout, gpt, &gpt.primary));
            out.extend(copy_structures(layout, gpt, &gpt.backup));
        }
    }
    out
}

/// The header and array of one copy, as far as their places are known.
pub(super) fn copy_structures(
    layout: &Layout,
    gpt: &GptPlaces,
    copy: &GptCopy,
) -> impl Iterator<Item = Extent> {
    let header = copy.header_lba.map(|lba| sectors(layout, lba, 1));
    let count = gpt.array_sectors(layout.sector);
    let array = copy.entries_lba.map(|lba| sectors(layout, lba, count));
    header.into_iter().chain(array)
}

/// `count` sectors of the table's size from `lba` on. A number too large for a disk saturates.
pub(super) fn sectors(layout: &Layout, lba: u64, count: u64) -> Extent {
    let bytes = u64::from(layout.sector.bytes());
    Extent {
        start: ByteOffset(lba.saturating_mul(bytes)),
        len: ByteLen(count.saturating_mul(bytes)),
    }
}

/// The table's structures byte for byte, to be kept beside an image: LBA 0 of every disk, and
/// [`table_extents`]; of a GPT with a lost primary array also the sectors where it should be.
/// In ascending order. A region that the medium does not give is left out. `source` is the disk
/// that `layout` describes.
///
/// # Errors
/// `Damaged` when the structures take more than [`MAX_RAW_BYTES`] (only a chain of hundreds of EBRs
/// with sectors of 16 KiB and more does); anything but bad spots of the medium.
pub fn raw_regions(source: &dyn BlockSource, layout: &Layout) -> Result<Vec<RawRegion>> {
    let disk = Disk::new(source);
    let mut wanted = vec![sectors(layout, 0, 1)];
    wanted.extend(structures(layout));
    wanted.extend(lost_primary_array(layout));
    let total: u64 = wanted.iter().fold(0, |sum, e| sum.saturating_add(e.len.0));
    if total > MAX_RAW_BYTES {
        let name = format!("the partition table of {}", source.name());
        return Err(Error::new(ErrorKind::Damaged, "keep", name)
            .because(format!("it takes {total} bytes, more than {MAX_RAW_BYTES}")));
    }
    let mut out = Vec::new();
    // Read structure by structure, not joined: a bad sector must not cost its neighbours.
    wanted.sort_unstable();
    wanted.dedup();
    for extent in wanted {
        let len = extent.len.0.min(disk.len.saturating_sub(extent.start.0));
        match disk.read(extent.start.0, len)? {
            Got::Bytes(bytes) if !bytes.is_empty() => out.push(RawRegion {
                offset: extent.start,
                bytes,
            }),
            Got::Bytes(_) | Got::Unreadable(_) | Got::Outside => {}
        }
    }
    Ok(out)
}

/// Where a primary array belongs that was not found, as far as no partition may lie there.
fn lost_primary_array(layout: &Layout) -> Option<Extent> {
    let Table::Gpt(gpt) = &layout.table else {
        return None;
    };
    if gpt.primary.entries_lba.is_some() {
        return None;
    }
    let start = PRIMARY_LBA + 1;
    let room = gpt.first_usable.checked_sub(start)?;
    let count = gpt.array_sectors(layout.sector).min(room);
    (count > 0).then(|| sectors(layout, start, count))
}

/// One past the last byte that must survive on a smaller disk, the backup GPT aside.
fn kept_end(layout: &Layout) -> u64 {
    let all = layout.partitions.iter().chain(&layout.extended);
    let partitions = all.map(|p| p.extent().end().0).max().unwrap_or(0);
    let table = match &layout.table {
        Table::None { .. } | Table::Opaque { .. } => return layout.disk_len,
        Table::Mbr(_) => sectors(layout, 0, 1).end().0,
        Table::Gpt(gpt) => {
            let usable = sectors(layout, gpt.first_usable, 0).start.0;
            let primary = copy_structures(layout, gpt, &gpt.primary);
            primary.map(|e| e.end().0).fold(usable, u64::max)
        }
    };
    partitions.max(table).min(layout.disk_len)
}

/// The extent behind everything that a smaller disk has to hold: behind the last partition, and
/// behind the primary GPT. Holds the backup GPT and space that no partition has. Empty, at the
/// end of the disk, without a table: then every byte belongs to something.
pub fn free_tail(layout: &Layout) -> Extent {
    let start = kept_end(layout);
    Extent {
        start: ByteOffset(start),
        len: ByteLen(layout.disk_len.saturating_sub(start)),
    }
}

/// The length of the smallest disk on which [`adapt`](super::adapt()) can place the partitions where
/// they are, in bytes.
pub fn min_disk_len(layout: &Layout) -> ByteLen {
    let end = kept_end(layout);
    let Table::Gpt(gpt) = &layout.table else {
        return ByteLen(end);
    };
    let bytes = u64::from(layout.sector.bytes());
    let backup = gpt.array_sectors(layout.sector).saturating_add(1);
    let sectors = end.div_ceil(bytes).saturating_add(backup);
    ByteLen(sectors.saturating_mul(bytes))
}

/// The ranges without which a disk of `disk_len` bytes is not recognised or does not boot: its first
/// MiB, and the copies of the GPT, both where they were and at the end of the new disk. A
/// restore writes them last, so that a target that is half done does not look whole. Sorted and
/// inside the disk.
pub fn critical_extents(layout: &Layout, disk_len: ByteLen) -> Vec<Extent> {
    let mut out = vec![Extent {
        start: ByteOffset(0),
        len: ByteLen(BOOT_AREA),
    }];
    if let Table::Gpt(gpt) = &layout.table {
        out.extend(copy_structures(layout, gpt, &gpt.primary));
        out.extend(copy_structures(layout, gpt, &gpt.backup));
        let count = gpt.array_sectors(layout.sector).saturating_add(1);
        let first = layout.sector.count(disk_len).saturating_sub(count);
        out.push(sectors(layout, first, count));
    }
    let disk = Extent {
        start: ByteOffset(0),
        len: disk_len,
    };
    normalize(out.into_iter().filter_map(|e| e.intersect(disk)).collect())
}

/// Length of `bytes` as an extent at `offset`.
pub(super) fn extent_of(offset: ByteOffset, bytes: &[u8]) -> Extent {
    Extent {
        start: offset,
        len: ByteLen(to_u64(bytes.len())),
    }
}
