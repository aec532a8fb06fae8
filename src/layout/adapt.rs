//! What has to be written so that a table fits a disk of another size.
//!
//! The rules are those of the UEFI specification (the backup header lies in the last LBA, its array
//! before it) and what `sgdisk -e` does, with two differences: nothing is written that is right
//! already, and everything that the specification leaves free (place and size of the primary
//! array, first usable LBA, reserved bytes) stays.

use super::disk::Disk;
use super::gpt_decode::{Placement, entries, relocate};
use super::gpt_read::{self, PRIMARY_LBA};
use super::mbr_decode::{AT_ENTRIES, BootRecord, ENTRY_BYTES, Entry, TYPE_PROTECTIVE};
use super::model::{CopyState, GptPlaces, Layout, Table};
use super::partition::Partition;
use super::places::{copy_structures, extent_of, sectors};
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result, SectorSize, normalize};
use crate::block::BlockSource;
use mbrman::CHS;

/// Bytes to write over what an image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// First byte on the new disk.
    pub offset: ByteOffset,
    /// What belongs there.
    pub bytes: Vec<u8>,
}

/// How to make a table fit. A value only: nothing has been written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapted {
    /// What to write behind the restored bytes; sorted, no two overlap.
    pub patches: Vec<Patch>,
    /// What to make zero: the old backup GPT, which is now in the middle of the disk. Never part of a
    /// partition or of a patch.
    pub zero: Vec<Extent>,
    /// What a person should know.
    pub findings: Vec<String>,
}

/// Plans how the table of an imaged disk fits one of `new_len` bytes with `new_sector`.
/// `imaged` is a view of the imaged disk; `layout` must have passed [`Layout::validate`].
///
/// - The same number of sectors: nothing, bit for bit, even where one copy of a GPT is damaged.
/// - A GPT on another size: its backup at the new end, the primary header with the new
///   places, the protective entry with the new length; a lost copy is made anew. A hybrid MBR stays,
///   except for a protective entry that reached to the old end.
/// - An MBR has nothing that depends on the size.
///
/// # Errors
/// `Refused` when a partition, or a disk without a table, does not fit, naming it; or when the
/// new disk has sectors in which neither the table nor the imaged disk counts. `Damaged` when the
/// imaged disk does not hold the table that `layout` describes.
pub fn adapt(
    layout: &Layout,
    imaged: &dyn BlockSource,
    new_len: ByteLen,
    new_sector: SectorSize,
) -> Result<Adapted> {
    check_sector(layout, new_sector)?;
    let mut adapted = Adapted::default();
    if layout.sector != new_sector && matches!(layout.table, Table::Gpt(_)) {
        adapted.findings.push(format!(
            "the GPT counts in sectors of {} bytes, the target in {}: Linux will not show its \
             partitions there",
            layout.sector.bytes(),
            new_sector.bytes()
        ));
    }
    if layout.sector.count(new_len) == layout.sector.count(layout.disk_len()) {
        if new_len < layout.disk_len() && !matches!(layout.table, Table::Gpt(_)) {
            check_whole(layout, new_len)?;
        }
        return Ok(adapted);
    }
    match &layout.table {
        Table::None { .. } | Table::Opaque { .. } => check_whole(layout, new_len)?,
        Table::Mbr(_) => check_fit(layout, new_len.0, new_len)?,
        Table::Gpt(gpt) => {
            let plan = GptPlan::new(layout, gpt, imaged, new_len)?;
            plan.fill(&mut adapted)?;
        }
    }
    Ok(adapted)
}

/// Refuses sectors that change the meaning of every number in the table.
fn check_sector(layout: &Layout, new: SectorSize) -> Result<()> {
    let tableless = matches!(layout.table, Table::None { .. });
    if tableless || new == layout.sector || new == layout.disk_sector {
        return Ok(());
    }
    let why = format!(
        "the imaged disk has sectors of {} bytes and the target {}; the partition table would have to \
         be rewritten and most file systems refuse the change",
        layout.disk_sector.bytes(),
        new.bytes()
    );
    Err(refused("use", "the target").because(why).hint(
        "choose a target with the same logical sector size, or restore partitions one by one",
    ))
}

/// Refuses a smaller disk for what is one piece.
fn check_whole(layout: &Layout, new_len: ByteLen) -> Result<()> {
    if new_len >= layout.disk_len() {
        return Ok(());
    }
    let why = format!(
        "the image is one piece of {} bytes without a partition table that could be followed; the \
         target has {}",
        layout.disk_len, new_len.0
    );
    Err(refused("fit", "the whole disk")
        .because(why)
        .hint("choose a target that is at least as large"))
}

/// Refuses the first partition (or container) that passes `limit`, the end of what partitions may use on
/// a disk of `new_len`.
fn check_fit(layout: &Layout, limit: u64, new_len: ByteLen) -> Result<()> {
    let mut all = layout.partitions.iter().chain(&layout.extended);
    match all.find(|p| p.extent().end().0 > limit) {
        None => Ok(()),
        Some(partition) => Err(too_long(partition, limit, new_len)),
    }
}

fn too_long(partition: &Partition, limit: u64, new_len: ByteLen) -> Error {
    let mut what = format!("partition {}", partition.number);
    if !partition.name.is_empty() {
        what = format!("{what} ({})", partition.display_name());
    }
    let end = partition.extent().end();
    let why = format!(
        "it ends at byte {end}, and a disk of {} bytes has room for partitions up to byte {limit}",
        new_len.0
    );
    refused("fit", &what)
        .because(why)
        .hint("shrink the partition on the source first, or use a larger target")
}

fn refused(operation: &str, subject: &str) -> Error {
    Error::new(ErrorKind::Refused, operation, subject)
}

/// Everything that a GPT on the new disk is made from.
struct GptPlan<'a> {
    layout: &'a Layout,
    gpt: &'a GptPlaces,
    imaged: Disk<'a>,
    /// The good copy: its header's sector and its array in whole sectors.
    header: Vec<u8>,
    array: Vec<u8>,
    primary_entries: u64,
    old_last: u64,
    new_last: u64,
    last_usable: u64,
}

impl<'a> GptPlan<'a> {
    fn new(
        layout: &'a Layout,
        gpt: &'a GptPlaces,
        imaged: &'a dyn BlockSource,
        new_len: ByteLen,
    ) -> Result<GptPlan<'a>> {
        let disk = Disk::new(imaged);
        let copy = good_copy(layout, gpt, disk, imaged.name())?;
        let array_sectors = gpt.array_sectors(layout.sector);
        let new_sectors = layout.sector.count(new_len);
        // One past the last usable LBA; a disk too small for anything has none.
        let usable_end = new_sectors.saturating_sub(array_sectors.saturating_add(1));
        let limit = usable_end.saturating_mul(u64::from(layout.sector.bytes()));
        check_fit(layout, limit, new_len)?;
        let primary_entries = primary_entries(layout, gpt, array_sectors)?;
        let primary_end = primary_entries.saturating_add(array_sectors);
        if gpt.first_usable >= usable_end || primary_end > usable_end {
            return Err(refused("fit", "the partition table")
                .because(format!("a disk of {} bytes is too small for it", new_len.0)));
        }
        let mut array = copy.array;
        array.resize(array.len().next_multiple_of(copy.sector.len().max(1)), 0);
        Ok(GptPlan {
            layout,
            gpt,
            imaged: disk,
            header: copy.sector,
            array,
            primary_entries,
            old_last: layout.sector.count(layout.disk_len()).saturating_sub(1),
            new_last: new_sectors.saturating_sub(1),
            last_usable: usable_end.saturating_sub(1),
        })
    }

    fn fill(&self, adapted: &mut Adapted) -> Result<()> {
        let backup_entries = self.last_usable.saturating_add(1);
        if let Some(bytes) = self.protective(&mut adapted.findings)? {
            self.patch(adapted, 0, bytes);
        }
        let primary = Placement {
            my_lba: PRIMARY_LBA,
            alternate_lba: self.new_last,
            last_usable: self.last_usable,
            entries_lba: self.primary_entries,
        };
        self.patch(adapted, PRIMARY_LBA, self.header(primary)?);
        if self.gpt.primary.state != CopyState::Good {
            self.patch(adapted, self.primary_entries, self.array.clone());
        }
        adapted.findings.extend(self.what_changes()?);
        let backup = Placement {
            my_lba: self.new_last,
            alternate_lba: PRIMARY_LBA,
            last_usable: self.last_usable,
            entries_lba: backup_entries,
        };
        self.patch(adapted, backup_entries, self.array.clone());
        self.patch(adapted, self.new_last, self.header(backup)?);
        adapted.patches.sort_by_key(|p| p.offset);
        adapted.zero = self.zero(&adapted.patches);
        Ok(())
    }

    /// What the target holds that the imaged disk did not, beyond the new places.
    fn what_changes(&self) -> Result<Option<String>> {
        let text = match (self.gpt.primary.state, self.gpt.backup.state) {
            (CopyState::Good, CopyState::Good) => {
                let lba = self.gpt.backup.header_lba.unwrap_or(self.old_last);
                let backup = gpt_read::read_copy(self.imaged, self.layout.sector, lba)?;
                let held = backup.good().map(|(_, array)| array);
                if held.is_some_and(|array| self.array.starts_with(array)) {
                    return Ok(None);
                }
                "the backup GPT differed from the primary; the target gets the primary in both places"
            }
            (CopyState::Good, _) => {
                "the backup GPT was not good on the imaged disk; the target gets a new one"
            }
            _ => "the primary GPT was not good on the imaged disk; the target gets a new one",
        };
        Ok(Some(text.to_owned()))
    }

    fn patch(&self, adapted: &mut Adapted, lba: u64, bytes: Vec<u8>) {
        let offset = ByteOffset(lba.saturating_mul(u64::from(self.layout.sector.bytes())));
        adapted.patches.push(Patch { offset, bytes });
    }

    fn header(&self, place: Placement) -> Result<Vec<u8>> {
        relocate(&self.header, place).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "rewrite", "a GPT header")
                .because("a header that decoded is too short")
        })
    }

    /// LBA 0 with a protective entry of the new length, or `None` when nothing in it changes.
    fn protective(&self, findings: &mut Vec<String>) -> Result<Option<Vec<u8>>> {
        let Some(old) = self.imaged.read_sectors(self.layout.sector, 0, 1)?.bytes() else {
            findings.push("the protective MBR cannot be read and stays as imaged".to_owned());
            return Ok(None);
        };
        let Some(record) = BootRecord::decode(&old) else {
            return Ok(None);
        };
        let hybrid = record.hybrid_entries().next().is_some();
        let mut new = old.clone();
        for (slot, entry) in (0usize..).zip(record.entries) {
            let moves = !hybrid || self.reached_end(entry);
            if entry.kind == TYPE_PROTECTIVE && moves {
                set_length(&mut new, slot, entry, self.new_last);
            }
        }
        if hybrid {
            findings.push(
                "the hybrid MBR stays as it is: its entries name the same sectors as before".into(),
            );
        }
        Ok((new != old).then_some(new))
    }

    /// Whether an entry covered the old disk up to its end, or as far as 32 bits go.
    fn reached_end(&self, entry: Entry) -> bool {
        let end = u64::from(entry.start).saturating_add(u64::from(entry.count));
        entry.count == u32::MAX || end > self.old_last
    }

    /// The old backup as far as it lies on the new disk and under no patch and no partition.
    fn zero(&self, patches: &[Patch]) -> Vec<Extent> {
        let disk = Extent {
            start: ByteOffset(0),
            len: ByteLen(
                self.new_last
                    .saturating_add(1)
                    .saturating_mul(u64::from(self.layout.sector.bytes())),
            ),
        };
        let mut keep: Vec<Extent> =
            copy_structures(self.layout, self.gpt, &self.gpt.primary).collect();
        keep.extend(self.layout.partitions.iter().map(Partition::extent));
        keep.extend(patches.iter().map(|p| extent_of(p.offset, &p.bytes)));
        let keep = normalize(keep);
        let old = copy_structures(self.layout, self.gpt, &self.gpt.backup);
        let old = normalize(old.filter_map(|e| e.intersect(disk)).collect());
        old.into_iter().flat_map(|e| without(e, &keep)).collect()
    }
}

/// The copy in use, if the disk `name` still holds the table that `layout` describes.
fn good_copy(
    layout: &Layout,
    gpt: &GptPlaces,
    disk: Disk<'_>,
    name: &str,
) -> Result<gpt_read::Copy> {
    let lost = || {
        Error::new(ErrorKind::Damaged, "find the GPT in", name)
            .because("it does not hold the table that its layout describes")
    };
    let lba = gpt.in_use().header_lba.ok_or_else(lost)?;
    let copy = gpt_read::read_copy(disk, layout.sector, lba)?;
    let (header, array) = copy.good().ok_or_else(lost)?;
    let same = (header.entry_count, header.entry_size, header.first_usable)
        == (gpt.entry_count, gpt.entry_size, gpt.first_usable);
    // What will be checked to fit is what the layout lists; what is written is what the disk holds.
    let slots = entries(array, header.entry_size);
    let last_lba = disk.last_lba(layout.sector).unwrap_or(0);
    let held = gpt_read::partitions(&slots, layout.sector, last_lba);
    if !same || held.as_ref() != Ok(&layout.partitions) {
        return Err(lost());
    }
    Ok(copy)
}

/// Where the primary array is, or belongs when it was lost: behind the header, if nothing may lie there and no
/// partition does (one outside of the range that the GPT calls usable).
fn primary_entries(layout: &Layout, gpt: &GptPlaces, array_sectors: u64) -> Result<u64> {
    if let Some(lba) = gpt.primary.entries_lba {
        return Ok(lba);
    }
    let expected = PRIMARY_LBA + 1;
    let place = sectors(layout, expected, array_sectors);
    let taken = layout
        .partitions
        .iter()
        .find(|p| p.extent().intersect(place).is_some());
    let why = match taken {
        Some(p) => format!(
            "its primary copy is lost, and partition {} lies where the entries of it belong",
            p.number
        ),
        None if expected.saturating_add(array_sectors) > gpt.first_usable => {
            "its primary copy is lost, and the backup does not say where the entries of it belong"
                .to_owned()
        }
        None => return Ok(expected),
    };
    Err(refused("adapt", "the GPT")
        .because(why)
        .hint("a target of the imaged disk's size needs no change of its table"))
}

/// The parts of `extent` that none of `holes` (sorted, apart) covers.
fn without(extent: Extent, holes: &[Extent]) -> Vec<Extent> {
    let mut out = Vec::new();
    let mut at = extent.start;
    for hole in holes.iter().filter_map(|hole| hole.intersect(extent)) {
        out.extend(Extent::between(at, hole.start));
        at = hole.end();
    }
    out.extend(Extent::between(at, extent.end()));
    out.retain(|e| !e.is_empty());
    out
}

/// Gives the protective entry in `slot` the length from its start to `last_lba`, at most what 32
/// bits hold, and the CHS of its last sector (UEFI specification, table "Protective MBR Partition
/// Record": FF FF FF where CHS does not reach).
fn set_length(sector: &mut [u8], slot: usize, entry: Entry, last_lba: u64) {
    let count = last_lba
        .saturating_sub(u64::from(entry.start))
        .saturating_add(1);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if count == entry.count {
        return;
    }
    let at = AT_ENTRIES + slot * ENTRY_BYTES;
    let last = u32::try_from(last_lba).unwrap_or(u32::MAX);
    for (at, value) in [
        (at + 5, &last_chs(last)[..]),
        (at + 12, &count.to_le_bytes()),
    ] {
        if let Some(place) = sector.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }
}

/// The packed CHS of `lba` with the translation that everything since the nineties uses: 255
/// heads, 63 sectors, 1024 cylinders.
fn last_chs(lba: u32) -> [u8; 3] {
    match CHS::from_lba_exact(lba, 1024, 255, 63) {
        Ok(chs) => {
            let [low, high] = chs.cylinder.to_le_bytes();
            [chs.head, (high << 6) | chs.sector, low]
        }
        Err(_) => [0xff; 3],
    }
}
