//! An MBR and its chain of EBRs as a layout.
//!
//! The chain is followed as the kernel does (`block/partitions/msdos.c`, `parse_extended`), so
//! that numbers agree with `/dev/sda5` and so on. Where the kernel silently stops or takes what it
//! got, the disk is opaque here: what lies behind a broken link would otherwise not be imaged.

use super::disk::{Disk, Got};
use super::mbr_decode::{BootRecord, Entry, RECORD_BYTES};
use super::model::{Layout, MbrPlaces, Table};
use super::partition::{Partition, PartitionKind};
use super::type_names::MBR_LDM;
use super::validate;
use crate::base::{Result, SectorSize};
use std::collections::HashSet;

/// Linux numbers partitions up to 255 (kernel `DISK_MAX_PARTS`), so logical ones end there.
const MAX_NUMBER: u32 = 255;
/// The first number of a logical partition.
const FIRST_LOGICAL: u32 = 5;
/// The longest chain that is followed: one EBR for each logical partition that Linux can number,
/// and as many empty links again.
pub(super) const MAX_EBRS: usize = 502;

/// A layout, or why the disk must be taken whole.
pub(super) type Outcome = std::result::Result<Box<Layout>, String>;

/// A run of sectors from an entry. Sums of two 32-bit numbers, so 64 bits never overflow.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    count: u64,
}

impl Span {
    fn of(entry: Entry, base: u64) -> Span {
        Span {
            start: base.saturating_add(u64::from(entry.start)),
            count: u64::from(entry.count),
        }
    }

    fn end(self) -> u64 {
        self.start.saturating_add(self.count)
    }

    fn contains(self, inner: Span) -> bool {
        inner.start >= self.start && inner.end() <= self.end()
    }
}

/// What makes partitions out of entries.
struct Reader<'a> {
    disk: Disk<'a>,
    sector: SectorSize,
    signature: u32,
}

/// Reads the table of `record`, whose status bytes fit and which has something in use.
///
/// # Errors
/// As [`Disk::read`].
pub(super) fn read(
    disk: Disk<'_>,
    sector: SectorSize,
    disk_sector: SectorSize,
    record: &BootRecord,
) -> Result<Outcome> {
    let reader = Reader {
        disk,
        sector,
        signature: record.signature,
    };
    let Primaries {
        mut partitions,
        container,
    } = match reader.primaries(record) {
        Ok(found) => found,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut ebrs = Vec::new();
    let mut extended = None;
    if let Some((number, entry)) = container {
        let chain = match reader.chain(Span::of(entry, 0))? {
            Ok(chain) => chain,
            Err(reason) => return Ok(Err(reason)),
        };
        partitions.extend(chain.logicals);
        ebrs = chain.ebrs;
        extended =
            Some(reader.partition(number, entry, Span::of(entry, 0), PartitionKind::Extended));
    }
    partitions.sort_by_key(|p| (p.start, p.number));
    let layout = Layout {
        table: Table::Mbr(MbrPlaces { ebrs }),
        disk_len: disk.len,
        sector,
        disk_sector,
        disk_id: (record.signature != 0).then(|| format!("{:08x}", record.signature)),
        partitions,
        extended,
        certain: true,
        findings: Vec::new(),
    };
    Ok(match validate::places_fault(&layout) {
        Some(reason) => Err(reason),
        None => Ok(Box::new(layout)),
    })
}

/// What the four entries of an MBR hold: partitions with data, and the container with its number.
#[derive(Default)]
struct Primaries {
    partitions: Vec<Partition>,
    container: Option<(u32, Entry)>,
}

/// The partitions of an EBR chain.
struct Chain {
    logicals: Vec<Partition>,
    ebrs: Vec<u64>,
}

impl Reader<'_> {
    /// Checks the entries of the MBR one by one.
    fn primaries(&self, record: &BootRecord) -> std::result::Result<Primaries, String> {
        let last = self.disk.last_lba(self.sector).unwrap_or(0);
        let mut found = Primaries::default();
        for (number, entry) in (1..).zip(record.entries).filter(|(_, e)| e.is_used()) {
            let span = Span::of(entry, 0);
            if span.start == 0 {
                return Err(format!("partition {number} starts at sector 0"));
            }
            if span.end() > last.saturating_add(1) {
                return Err(format!("partition {number} ends past the end of the disk"));
            }
            if entry.kind == MBR_LDM {
                return Err("a Windows dynamic disk: the table does not show its volumes".into());
            }
            if !entry.is_extended() {
                let partition = self.partition(number, entry, span, PartitionKind::Primary);
                found.partitions.push(partition);
            } else if found.container.replace((number, entry)).is_some() {
                return Err("more than one extended partition".to_owned());
            }
        }
        Ok(found)
    }

    fn partition(&self, number: u32, entry: Entry, span: Span, kind: PartitionKind) -> Partition {
        let bytes = u64::from(self.sector.bytes());
        let id = (self.signature != 0).then(|| format!("{:08x}-{number:02x}", self.signature));
        Partition {
            number,
            start: span.start.saturating_mul(bytes),
            len: span.count.saturating_mul(bytes),
            kind,
            type_id: format!("0x{:02x}", entry.kind),
            name: String::new(),
            unique_id: id,
            bootable: entry.status == 0x80,
            attributes: 0,
        }
    }

    /// Follows the chain through `container`.
    fn chain(&self, container: Span) -> Result<std::result::Result<Chain, String>> {
        let mut chain = Chain {
            logicals: Vec::new(),
            ebrs: Vec::new(),
        };
        let mut seen = HashSet::new();
        let mut here = container;
        loop {
            if !seen.insert(here.start) {
                return Ok(Err("the chain of logical partitions is a loop".to_owned()));
            }
            if here.start < container.start || here.start >= container.end() {
                let why = "the chain of logical partitions leaves the extended partition";
                return Ok(Err(why.to_owned()));
            }
            if chain.ebrs.len() >= MAX_EBRS {
                let why = format!("more than {MAX_EBRS} links in the chain of logical partitions");
                return Ok(Err(why));
            }
            let record = match self.record(here.start)? {
                Ok(record) => record,
                Err(reason) => return Ok(Err(reason)),
            };
            chain.ebrs.push(here.start);
            if let Err(reason) = self.logicals(&record, here, container, &mut chain.logicals) {
                return Ok(Err(reason));
            }
            // As in the kernel: the first extended entry is the link, whichever slot it has, and
            // counts from the container, not from this EBR.
            let link = record
                .entries
                .iter()
                .find(|e| e.is_used() && e.is_extended());
            match link {
                Some(link) => here = Span::of(*link, container.start),
                None => return Ok(Ok(chain)),
            }
        }
    }

    /// The EBR at `lba`.
    fn record(&self, lba: u64) -> Result<std::result::Result<BootRecord, String>> {
        let at = self.sector.offset_of(lba).unwrap_or_default();
        let link = format!("the link at byte {at} of the chain of logical partitions");
        Ok(match self.disk.read(at.0, RECORD_BYTES)? {
            Got::Bytes(bytes) => {
                BootRecord::decode(&bytes).ok_or_else(|| format!("{link} is no boot record"))
            }
            Got::Unreadable(error) => Err(format!("{link} cannot be read: {error}")),
            Got::Outside => Err(format!("{link} lies past the end of the disk")),
        })
    }

    /// The logical partitions of one EBR, which lies at the start of `here`.
    fn logicals(
        &self,
        record: &BootRecord,
        here: Span,
        container: Span,
        out: &mut Vec<Partition>,
    ) -> std::result::Result<(), String> {
        for (slot, entry) in (0..).zip(record.entries) {
            if !entry.is_used() || entry.is_extended() {
                continue;
            }
            let span = Span::of(entry, here.start);
            // The third and fourth entry "sometimes contain random garbage" (kernel): there,
            // what does not fit is no partition.
            if slot >= 2 && !(here.contains(span) && container.contains(span)) {
                continue;
            }
            let logicals = u32::try_from(out.len()).unwrap_or(u32::MAX);
            let number = FIRST_LOGICAL.saturating_add(logicals);
            if number > MAX_NUMBER {
                return Err(format!(
                    "more logical partitions than Linux numbers ({MAX_NUMBER})"
                ));
            }
            if entry.start == 0 || !container.contains(span) {
                return Err(format!(
                    "logical partition {number} covers its own link or leaves the extended partition"
                ));
            }
            out.push(self.partition(number, entry, span, PartitionKind::Logical));
        }
        Ok(())
    }
}
