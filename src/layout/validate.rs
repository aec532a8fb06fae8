//! Whether a layout can be true. Used on everything that was read from a disk, and on layouts that
//! come out of image files, which may have been made by anybody.

use super::disk::{MAX_FINDINGS, MAX_STRUCTURE, is_clean};
use super::gpt_decode::{MAX_ENTRIES, MAX_ENTRY_SIZE};
use super::mbr_read::MAX_EBRS;
use super::model::{CopyState, GptCopy, GptPlaces, Layout, Table};
use super::partition::{Partition, PartitionKind};
use super::places::structures;
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result, normalize, to_u64};
use std::collections::HashSet;

/// A GPT name has 36 UTF-16 units; none becomes more than one character.
const MAX_NAME_CHARS: usize = 36;
/// A GUID as text.
const MAX_ID: usize = 36;

impl Layout {
    /// Whether this layout can be that of a disk of `disk_len` bytes: every partition inside it,
    /// none over another or over the table, all numbers within the limits of [`read`](super::read).
    ///
    /// # Errors
    /// `Damaged` with the first contradiction. After `Ok` no function of this room can be misled
    /// into naming bytes outside the disk.
    pub fn validate(&self, disk_len: ByteLen) -> Result<()> {
        let fault = if self.disk_len == disk_len.0 {
            self.fault()
        } else {
            Some(format!(
                "it is that of a disk of {} bytes, not {}",
                self.disk_len, disk_len.0
            ))
        };
        match fault {
            None => Ok(()),
            Some(why) => {
                Err(Error::new(ErrorKind::Damaged, "use", "partition layout").because(why))
            }
        }
    }

    fn fault(&self) -> Option<String> {
        text_fault(self)
            .or_else(|| table_fault(self))
            .or_else(|| places_fault(self))
    }
}

/// Texts that cannot be from here.
fn text_fault(layout: &Layout) -> Option<String> {
    let reason = match &layout.table {
        Table::None { reason } | Table::Opaque { reason } => reason.as_str(),
        Table::Gpt(_) | Table::Mbr(_) => "",
    };
    let texts_fit = is_clean(reason) && layout.findings.iter().all(|f| is_clean(f));
    if !texts_fit || layout.findings.len() > MAX_FINDINGS {
        return Some("its findings are too long or unfit to be shown".to_owned());
    }
    let bad_id = |id: &Option<String>| id.as_ref().is_some_and(|id| !is_id(id));
    let mut all = layout.partitions.iter().chain(&layout.extended);
    let wrong = all.any(|p| {
        p.name.chars().count() > MAX_NAME_CHARS || !is_id(&p.type_id) || bad_id(&p.unique_id)
    });
    (wrong || bad_id(&layout.disk_id)).then(|| "a name or id in it is impossible".to_owned())
}

/// Ids are hexadecimal digits, dashes and the `x` of `0x`.
fn is_id(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_hexdigit() || b == b'-' || b == b'x';
    text.len() <= MAX_ID && text.bytes().all(fits)
}

/// Numbers of the table itself that no reading yields.
fn table_fault(layout: &Layout) -> Option<String> {
    match &layout.table {
        Table::None { .. } | Table::Opaque { .. } => {
            let empty = layout.partitions.is_empty() && layout.extended.is_none();
            (!empty).then(|| "it has partitions but no table".to_owned())
        }
        Table::Mbr(mbr) => mbr_fault(layout, &mbr.ebrs),
        Table::Gpt(gpt) => gpt_fault(layout, gpt),
    }
}

fn mbr_fault(layout: &Layout, ebrs: &[u64]) -> Option<String> {
    let distinct: HashSet<&u64> = ebrs.iter().collect();
    if ebrs.len() > MAX_EBRS || distinct.len() != ebrs.len() {
        return Some("its chain of logical partitions is too long or a loop".to_owned());
    }
    let kinds_fit = layout.partitions.iter().all(|p| match p.kind {
        PartitionKind::Primary => (1..=4).contains(&p.number),
        PartitionKind::Logical => (5..=255).contains(&p.number),
        PartitionKind::Extended => false,
    });
    let container = layout.extended.as_ref();
    let container_fits =
        container.is_none_or(|p| p.kind == PartitionKind::Extended && (1..=4).contains(&p.number));
    (!kinds_fit || !container_fits).then(|| "a number in it does not fit its kind".to_owned())
}

fn gpt_fault(layout: &Layout, gpt: &GptPlaces) -> Option<String> {
    let array = u64::from(gpt.entry_count).saturating_mul(u64::from(gpt.entry_size));
    let sizes_fit = (1..=MAX_ENTRIES).contains(&gpt.entry_count)
        && (128..=MAX_ENTRY_SIZE).contains(&gpt.entry_size)
        && gpt.entry_size.is_multiple_of(8)
        && array <= MAX_STRUCTURE;
    let sectors = layout.sector.count(layout.disk_len());
    let usable_fits =
        gpt.first_usable >= 2 && gpt.first_usable <= gpt.last_usable && gpt.last_usable < sectors;
    if !sizes_fit || !usable_fits {
        return Some("the sizes of its GPT are impossible".to_owned());
    }
    let known = |copy: &GptCopy| {
        copy.state != CopyState::Good || (copy.header_lba.is_some() && copy.entries_lba.is_some())
    };
    let one_good = [&gpt.primary, &gpt.backup]
        .iter()
        .any(|c| c.state == CopyState::Good);
    if !one_good || !known(&gpt.primary) || !known(&gpt.backup) {
        return Some("no copy of its GPT is good".to_owned());
    }
    let kinds_fit = layout
        .partitions
        .iter()
        .all(|p| p.kind == PartitionKind::Primary && (1..=gpt.entry_count).contains(&p.number));
    (!kinds_fit || layout.extended.is_some()).then(|| "a partition in it is no GPT slot".to_owned())
}

/// Whether partitions and table structures lie inside the disk and clear of each other. The text
/// serves as the reason why a disk is opaque.
pub(super) fn places_fault(layout: &Layout) -> Option<String> {
    numbers_fault(layout)
        .or_else(|| bounds_fault(layout))
        .or_else(|| overlap_fault(layout))
        .or_else(|| container_fault(layout))
}

fn numbers_fault(layout: &Layout) -> Option<String> {
    let limit = to_u64(MAX_EBRS) + u64::from(MAX_ENTRIES);
    if to_u64(layout.partitions.len()) > limit {
        return Some("more partitions than a table can hold".to_owned());
    }
    let mut seen = HashSet::new();
    let mut all = layout.partitions.iter().chain(&layout.extended);
    let twice = all.find(|p| !seen.insert(p.number));
    twice.map(|p| format!("two partitions have the number {}", p.number))
}

fn bounds_fault(layout: &Layout) -> Option<String> {
    let sector = u64::from(layout.sector.bytes());
    let disk = Extent {
        start: ByteOffset(0),
        len: layout.disk_len(),
    };
    for p in layout.partitions.iter().chain(&layout.extended) {
        let end = p.start.checked_add(p.len);
        if p.start == 0 || p.len == 0 || end.is_none_or(|end| end > layout.disk_len) {
            return Some(format!(
                "partition {} does not lie inside the disk",
                p.number
            ));
        }
        if !p.start.is_multiple_of(sector) || !p.len.is_multiple_of(sector) {
            return Some(format!("partition {} does not lie on sectors", p.number));
        }
    }
    let outside = structures(layout).into_iter().find(|s| !disk.contains(*s));
    outside.map(|s| format!("a table structure ({s}) does not lie inside the disk"))
}

fn overlap_fault(layout: &Layout) -> Option<String> {
    for pair in layout.partitions.windows(2) {
        if let [a, b] = pair {
            if a.start > b.start {
                return Some("its partitions are not in order".to_owned());
            }
            if a.extent().intersect(b.extent()).is_some() {
                return Some(format!("partitions {} and {} overlap", a.number, b.number));
            }
        }
    }
    // Both lists are sorted and free of overlaps, so one walk over both finds every clash.
    let tables = normalize(structures(layout));
    let mut rest = tables.as_slice();
    for p in &layout.partitions {
        while let [first, tail @ ..] = rest {
            if first.end() > p.extent().start {
                break;
            }
            rest = tail;
        }
        let clash = rest.first().and_then(|t| t.intersect(p.extent()));
        if let Some(clash) = clash {
            return Some(format!(
                "partition {} covers the table at {clash}",
                p.number
            ));
        }
    }
    None
}

/// Logical partitions and EBRs lie in the container, primary partitions outside.
fn container_fault(layout: &Layout) -> Option<String> {
    let Table::Mbr(mbr) = &layout.table else {
        return None;
    };
    let Some(container) = layout.extended.as_ref().map(Partition::extent) else {
        let orphan = layout
            .partitions
            .iter()
            .any(|p| p.kind == PartitionKind::Logical);
        let orphan = orphan || !mbr.ebrs.is_empty();
        return orphan.then(|| "logical partitions without an extended one".to_owned());
    };
    let misplaced = layout.partitions.iter().find(|p| match p.kind {
        PartitionKind::Logical => !container.contains(p.extent()),
        PartitionKind::Primary | PartitionKind::Extended => {
            container.intersect(p.extent()).is_some()
        }
    });
    if let Some(p) = misplaced {
        return Some(format!(
            "partition {} crosses the extended partition",
            p.number
        ));
    }
    let stray = mbr.ebrs.iter().any(|lba| {
        let at = layout.sector.offset_of(*lba);
        at.is_none_or(|at| at < container.start || at >= container.end())
    });
    stray.then(|| "a link of its chain lies outside the extended partition".to_owned())
}
