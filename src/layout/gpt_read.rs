//! The two copies of a GPT: which one to use, and the layout it describes.

use super::disk::{Disk, Got, note};
use super::gpt_decode::{Entry, Header, HeaderFault, entries};
use super::model::{CopyState, GptCopy, GptPlaces, Layout, Table};
use super::partition::{Partition, PartitionKind};
use super::type_names::is_ldm;
use super::validate;
use crate::base::{Result, SectorSize, checksum_matches};
use std::collections::HashSet;

/// The LBA of the primary header: fixed by the specification.
pub(super) const PRIMARY_LBA: u64 = 1;
/// Linux names partitions by the slots 1 to 255 (kernel `DISK_MAX_PARTS`).
const LINUX_MAX_SLOT: u32 = 255;

/// What one place of a header holds.
pub(super) struct Copy {
    pub(super) state: CopyState,
    /// Where the header was looked for.
    pub(super) lba: u64,
    /// The whole header sector, wherever it could be read.
    pub(super) sector: Vec<u8>,
    /// An intact header, even when its array is not.
    pub(super) header: Option<Header>,
    /// The array of a good copy.
    pub(super) array: Vec<u8>,
    /// Why the copy is not good.
    why: String,
    signature: bool,
}

impl Copy {
    fn bad(state: CopyState, lba: u64, why: impl Into<String>) -> Copy {
        Copy {
            state,
            lba,
            sector: Vec::new(),
            header: None,
            array: Vec::new(),
            why: why.into(),
            signature: false,
        }
    }

    /// The header and array of a good copy.
    pub(super) fn good(&self) -> Option<(&Header, &[u8])> {
        let header = self.header.as_ref()?;
        (self.state == CopyState::Good).then_some((header, self.array.as_slice()))
    }
}

/// Reads the copy whose header lies at `lba`.
///
/// # Errors
/// As [`Disk::read`]; bad sectors are a state of the copy.
pub(super) fn read_copy(disk: Disk<'_>, sector: SectorSize, lba: u64) -> Result<Copy> {
    let bytes = match disk.read_sectors(sector, lba, 1)? {
        Got::Bytes(bytes) => bytes,
        Got::Unreadable(error) => {
            return Ok(Copy::bad(CopyState::Unreadable, lba, error.to_string()));
        }
        Got::Outside => return Ok(Copy::bad(CopyState::Missing, lba, "past the end")),
    };
    let last_lba = disk.last_lba(sector).unwrap_or(0);
    let mut copy = match Header::decode(&bytes, lba, last_lba) {
        Err(HeaderFault::NoSignature) => Copy::bad(CopyState::Missing, lba, "no signature"),
        Err(HeaderFault::Damaged(why)) => Copy {
            signature: true,
            ..Copy::bad(CopyState::Damaged, lba, why)
        },
        Ok(header) => read_array(disk, sector, header)?,
    };
    copy.sector = bytes;
    Ok(copy)
}

/// Completes an intact header with its entry array.
fn read_array(disk: Disk<'_>, sector: SectorSize, header: Header) -> Result<Copy> {
    let at = sector.offset_of(header.entries_lba);
    let got = match at {
        Some(at) => disk.read(at.0, header.array_bytes())?,
        None => Got::Outside,
    };
    let (state, array, why) = match got {
        Got::Bytes(array) if checksum_matches(crc32fast::hash(&array), header.entries_crc) => {
            (CopyState::Good, array, String::new())
        }
        Got::Bytes(_) => {
            let why = "checksum of the entries".to_owned();
            (CopyState::Damaged, Vec::new(), why)
        }
        Got::Unreadable(error) => (CopyState::Unreadable, Vec::new(), error.to_string()),
        Got::Outside => {
            let why = "its entries lie past the end".to_owned();
            (CopyState::Damaged, Vec::new(), why)
        }
    };
    Ok(Copy {
        state,
        lba: header.my_lba,
        sector: Vec::new(),
        header: Some(header),
        array,
        why,
        signature: true,
    })
}

/// The outcome of reading a disk as GPT.
pub(super) enum Outcome {
    /// A table that can be used.
    Layout(Box<Layout>),
    /// A table whose entries cannot be believed; the reason.
    Opaque(String),
    /// No copy is good; what is wrong with each.
    NoGoodCopy(String),
}

/// Reads the disk as GPT that counts in `sector`, without asking what LBA 0 says.
///
/// # Errors
/// As [`Disk::read`].
pub(super) fn read(disk: Disk<'_>, sector: SectorSize, disk_sector: SectorSize) -> Result<Outcome> {
    let Some(last_lba) = disk.last_lba(sector) else {
        return Ok(Outcome::NoGoodCopy("the disk is too small".to_owned()));
    };
    let primary = read_copy(disk, sector, PRIMARY_LBA)?;
    let backup = read_backup(disk, sector, last_lba, &primary)?;
    let Some((header, array)) = primary.good().or_else(|| backup.good()) else {
        return Ok(Outcome::NoGoodCopy(format!(
            "primary GPT: {}; backup GPT: {}",
            primary.why, backup.why
        )));
    };
    let mut findings = Vec::new();
    note_copies(&mut findings, sector, last_lba, &primary, &backup);
    let places = GptPlaces {
        first_usable: header.first_usable,
        last_usable: header.last_usable,
        entry_count: header.entry_count,
        entry_size: header.entry_size,
        primary: place(disk, sector, &primary, header)?,
        backup: place(disk, sector, &backup, header)?,
    };
    let slots = entries(array, header.entry_size);
    let partitions = match partitions(&slots, sector, last_lba) {
        Ok(partitions) => partitions,
        Err(reason) => return Ok(Outcome::Opaque(reason)),
    };
    note_entries(&mut findings, &slots, header);
    let layout = Layout {
        table: Table::Gpt(places),
        disk_len: disk.len,
        sector,
        disk_sector,
        disk_id: Some(header.disk_guid.to_string()),
        partitions,
        extended: None,
        certain: agree(&primary, &backup),
        findings,
    };
    Ok(match validate::places_fault(&layout) {
        Some(reason) => Outcome::Opaque(reason),
        None => Outcome::Layout(Box::new(layout)),
    })
}

/// The backup copy: where an intact primary header says, else in the last sector.
fn read_backup(disk: Disk<'_>, sector: SectorSize, last_lba: u64, primary: &Copy) -> Result<Copy> {
    let told = primary.header.as_ref().map(|h| h.alternate_lba);
    let told = told.filter(|lba| (PRIMARY_LBA + 1..=last_lba).contains(lba));
    let first = read_copy(disk, sector, told.unwrap_or(last_lba))?;
    if first.state == CopyState::Good || first.lba == last_lba {
        return Ok(own_backup(first, primary));
    }
    let last = read_copy(disk, sector, last_lba)?;
    let last = own_backup(last, primary);
    Ok(if last.state == CopyState::Good {
        last
    } else {
        own_backup(first, primary)
    })
}

/// `backup`, unless it is the leftover of another table: another disk GUID than the primary's.
fn own_backup(backup: Copy, primary: &Copy) -> Copy {
    let ids = (primary.header.as_ref(), backup.header.as_ref());
    match ids {
        (Some(a), Some(b)) if a.disk_guid != b.disk_guid && primary.state == CopyState::Good => {
            Copy::bad(
                CopyState::Missing,
                backup.lba,
                "what lies there belongs to another table",
            )
        }
        _ => backup,
    }
}

/// What is surely known of where a copy lies. For a copy whose header is lost, the array is where
/// it belongs only if the checksum of the `good` header fits there.
fn place(disk: Disk<'_>, sector: SectorSize, copy: &Copy, good: &Header) -> Result<GptCopy> {
    let header_lba = (copy.signature || copy.lba == PRIMARY_LBA).then_some(copy.lba);
    let entries_lba = match &copy.header {
        Some(header) => Some(header.entries_lba),
        None => lost_array(disk, sector, copy.lba, good)?,
    };
    Ok(GptCopy {
        state: copy.state,
        header_lba,
        entries_lba,
    })
}

/// Where the array of a copy without header belongs (behind the primary header, before the backup
/// one), if the `good` array stands there.
fn lost_array(
    disk: Disk<'_>,
    sector: SectorSize,
    header_lba: u64,
    good: &Header,
) -> Result<Option<u64>> {
    let expected = if header_lba == PRIMARY_LBA {
        Some(PRIMARY_LBA + 1)
    } else {
        header_lba.checked_sub(good.array_sectors(u64::from(sector.bytes())))
    };
    let Some(at) = expected.and_then(|lba| sector.offset_of(lba)) else {
        return Ok(None);
    };
    let array = disk.read(at.0, good.array_bytes())?.bytes();
    let fits =
        array.is_some_and(|bytes| checksum_matches(crc32fast::hash(&bytes), good.entries_crc));
    Ok(expected.filter(|_| fits))
}

/// Whether both copies are good and describe the same table.
fn agree(primary: &Copy, backup: &Copy) -> bool {
    match (primary.good(), backup.good()) {
        (Some((a, _)), Some((b, _))) => a.same_table(b),
        _ => false,
    }
}

fn note_copies(
    findings: &mut Vec<String>,
    sector: SectorSize,
    last_lba: u64,
    primary: &Copy,
    backup: &Copy,
) {
    let byte = |lba: u64| sector.offset_of(lba).unwrap_or_default().0;
    let at = byte(backup.lba);
    match (primary.good(), backup.good()) {
        (None, Some(_)) => note(
            findings,
            format!(
                "the primary GPT is {} ({}); the backup at byte {at} was used",
                adjective(primary),
                primary.why
            ),
        ),
        (Some(_), None) => note(
            findings,
            format!(
                "the backup GPT at byte {at} is {} ({}); the primary was used",
                adjective(backup),
                backup.why
            ),
        ),
        _ if !agree(primary, backup) => note(
            findings,
            "the primary and the backup GPT differ; the primary was used",
        ),
        _ => {}
    }
    let told = primary.header.as_ref().map(|h| h.alternate_lba);
    if told.is_some_and(|lba| lba > last_lba) {
        note(
            findings,
            "the primary GPT places the backup past the end of the disk: was the disk larger?",
        );
    } else if backup.state == CopyState::Good && backup.lba != last_lba {
        note(
            findings,
            format!(
                "the backup GPT lies at byte {at}, not at the end of the disk: was the disk smaller?"
            ),
        );
    }
}

fn adjective(copy: &Copy) -> &'static str {
    match copy.state {
        CopyState::Good => "good",
        CopyState::Damaged => "damaged",
        CopyState::Unreadable => "unreadable",
        CopyState::Missing => "missing",
    }
}

/// Turns slots into partitions sorted by start, or says why the disk must be taken whole.
pub(super) fn partitions(
    slots: &[Entry],
    sector: SectorSize,
    last_lba: u64,
) -> std::result::Result<Vec<Partition>, String> {
    let mut out = Vec::with_capacity(slots.len());
    for slot in slots {
        let number = slot.number;
        if slot.last_lba > last_lba {
            return Err(format!("partition {number} ends past the end of the disk"));
        }
        if slot.first_lba == 0 || slot.first_lba > slot.last_lba {
            return Err(format!("partition {number} starts at 0 or behind its end"));
        }
        if is_ldm(slot.type_guid) {
            return Err("a Windows dynamic disk: the table does not show its volumes".to_owned());
        }
        let bytes = u64::from(sector.bytes());
        // Both fit: they are at most the length of the disk, which is a number of bytes.
        let start = slot.first_lba.saturating_mul(bytes);
        let len = (slot.last_lba - slot.first_lba + 1).saturating_mul(bytes);
        out.push(Partition {
            number,
            start,
            len,
            kind: PartitionKind::Primary,
            type_id: slot.type_guid.to_string(),
            name: slot.name.clone(),
            unique_id: Some(slot.unique_guid.to_string()),
            bootable: (slot.attributes >> 2) & 1 == 1,
            attributes: slot.attributes,
        });
    }
    out.sort_by_key(|p| (p.start, p.number));
    Ok(out)
}

fn note_entries(findings: &mut Vec<String>, slots: &[Entry], header: &Header) {
    let mut seen = HashSet::new();
    for slot in slots {
        let number = slot.number;
        if !seen.insert(slot.unique_guid) {
            let id = slot.unique_guid;
            note(
                findings,
                format!("partition {number} shares its unique GUID {id} with another"),
            );
        }
        if slot.first_lba < header.first_usable || slot.last_lba > header.last_usable {
            note(
                findings,
                format!("partition {number} lies outside the range that the GPT calls usable"),
            );
        }
        if number > LINUX_MAX_SLOT {
            note(
                findings,
                format!("Linux shows no partition {number}: it counts to {LINUX_MAX_SLOT}"),
            );
        }
    }
}
