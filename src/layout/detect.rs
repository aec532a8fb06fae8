//! Which table a disk has: the order in which the possibilities are believed.

use super::disk::{Disk, Got, clean, note};
use super::foreign::{self, BootSector};
use super::gpt_read::{self, PRIMARY_LBA};
use super::mbr_decode::{BootRecord, RECORD_BYTES, TYPE_PROTECTIVE};
use super::mbr_read;
use super::model::{Layout, Table};
use crate::base::{Error, Extent, Result, SectorSize};
use crate::block::BlockSource;

/// Reads the partition table of `source`, a whole disk or a file holding one.
///
/// A GPT is looked for with the source's logical sector and, unless one is found, with the other
/// common one (512 or 4096), because a file does not know the sector of the disk it was made from.
/// An MBR says nothing of its sector, so the source's is taken.
///
/// # Errors
/// Bad sectors are findings, and make the disk [`Table::Opaque`] at worst. An error of kind `Source`
/// means that neither the first, the middle nor the last sector could be read. Other kinds (an
/// interrupt) are passed on.
pub fn read(source: &dyn BlockSource) -> Result<Layout> {
    let disk = Disk::new(source);
    let probe = Probe {
        disk,
        own: source.geometry().logical_sector,
    };
    let boot = match disk.read(0, RECORD_BYTES)? {
        Got::Bytes(bytes) => bytes,
        Got::Unreadable(error) => return probe.without_first_sector(error),
        Got::Outside => return Ok(probe.none("smaller than one sector")),
    };
    match BootRecord::decode(&boot) {
        None => probe.without_record(&boot),
        Some(record) if record.is_protective() => probe.protective(&boot, &record),
        Some(record) => probe.record(&boot, &record),
    }
}

/// The disk and the sector that it reports.
struct Probe<'a> {
    disk: Disk<'a>,
    own: SectorSize,
}

impl Probe<'_> {
    fn tableless(&self, table: Table) -> Layout {
        Layout {
            certain: matches!(table, Table::None { .. }),
            table,
            disk_len: self.disk.len,
            sector: self.own,
            disk_sector: self.own,
            disk_id: None,
            partitions: Vec::new(),
            extended: None,
            findings: Vec::new(),
        }
    }

    fn none(&self, reason: impl AsRef<str>) -> Layout {
        self.tableless(Table::None {
            reason: clean(reason.as_ref()),
        })
    }

    fn opaque(&self, reason: impl AsRef<str>) -> Layout {
        let reason = clean(reason.as_ref());
        let mut layout = self.tableless(Table::Opaque {
            reason: reason.clone(),
        });
        note(
            &mut layout.findings,
            format!("the whole disk is taken as one piece: {reason}"),
        );
        layout
    }

    /// The sectors with which a GPT is tried, the disk's own first.
    fn sectors(&self) -> Vec<SectorSize> {
        let others = [SectorSize::S512, SectorSize::S4096];
        let others = others.into_iter().filter(|s| *s != self.own);
        std::iter::once(self.own).chain(others).collect()
    }

    /// LBA 0 cannot be read, so nobody knows which table counts.
    fn without_first_sector(&self, error: Error) -> Result<Layout> {
        let sector = u64::from(self.own.bytes());
        let elsewhere = [self.disk.len / 2, self.disk.len.saturating_sub(sector)];
        for offset in elsewhere {
            if let Got::Bytes(_) = self.disk.read(offset, RECORD_BYTES)? {
                let why = format!("its first sector cannot be read ({error})");
                return Ok(self.opaque(why));
            }
        }
        Err(error)
    }

    /// LBA 0 does not end in 55 AA.
    fn without_record(&self, boot: &[u8]) -> Result<Layout> {
        if let Some(what) = foreign::other_table(self.disk, boot)? {
            return Ok(self.opaque(format!("{what}, which is not read")));
        }
        for sector in self.sectors() {
            let primary = gpt_read::read_copy(self.disk, sector, PRIMARY_LBA)?;
            if primary.header.is_some() {
                return Ok(self.opaque(
                    "there is a GPT, but no protective MBR: Linux does not show its partitions",
                ));
            }
        }
        let mut layout = self.none("no partition table");
        self.note_stale_gpt(&mut layout)?;
        Ok(layout)
    }

    /// LBA 0 says that there is a GPT.
    fn protective(&self, boot: &[u8], record: &BootRecord) -> Result<Layout> {
        let mut faults = Vec::new();
        for sector in self.sectors() {
            match gpt_read::read(self.disk, sector, self.own)? {
                gpt_read::Outcome::Layout(layout) => return self.gpt(*layout, boot, record),
                gpt_read::Outcome::Opaque(reason) => return Ok(self.opaque(reason)),
                gpt_read::Outcome::NoGoodCopy(why) if sector == self.own => faults.push(why),
                gpt_read::Outcome::NoGoodCopy(_) => {}
            }
        }
        if let BootSector::Yes(name) = foreign::boot_sector(self.disk, boot)? {
            return Ok(self.none(format!("{name} on the whole disk")));
        }
        Ok(self.opaque(format!(
            "a protective MBR announces a GPT, but no copy of it is good ({})",
            faults.join("; ")
        )))
    }

    /// Completes a GPT with what the MBR before it says.
    fn gpt(&self, mut layout: Layout, boot: &[u8], record: &BootRecord) -> Result<Layout> {
        if layout.sector != self.own {
            let (table, own) = (layout.sector.bytes(), self.own.bytes());
            let text = format!(
                "the GPT counts in sectors of {table} bytes, this disk or file in {own}: Linux shows \
                 its partitions only where both agree"
            );
            note(&mut layout.findings, text);
        }
        let mut protecting = record.entries.iter().filter(|e| e.kind == TYPE_PROTECTIVE);
        if protecting.all(|e| u64::from(e.start) != PRIMARY_LBA) || !record.status_bytes_fit() {
            let text = "the protective MBR is out of order: Linux may not see the GPT";
            note(&mut layout.findings, text);
        }
        if let Some(reason) = self.note_hybrid(&mut layout, record) {
            return Ok(self.opaque(reason));
        }
        if let BootSector::Yes(name) = foreign::boot_sector(self.disk, boot)? {
            note(
                &mut layout.findings,
                format!("the first sector looks like that of a {name} too; the GPT was believed"),
            );
            layout.certain = false;
        }
        self.unless_iso(layout)
    }

    /// Describes a hybrid MBR. One that names data outside of the GPT's partitions makes the disk
    /// opaque, because a reader of the GPT would not see that data.
    fn note_hybrid(&self, layout: &mut Layout, record: &BootRecord) -> Option<String> {
        let bytes = u64::from(layout.sector.bytes());
        let mut count = 0;
        for (number, entry) in record.hybrid_entries() {
            let start = crate::base::ByteOffset(u64::from(entry.start).saturating_mul(bytes));
            let len = crate::base::ByteLen(u64::from(entry.count).saturating_mul(bytes));
            let extent = Extent { start, len };
            if !layout
                .partitions
                .iter()
                .any(|p| p.extent().contains(extent))
            {
                return Some(format!(
                    "entry {number} of its hybrid MBR ({extent}) is no partition of the GPT"
                ));
            }
            count += 1;
        }
        if count > 0 {
            let text = format!(
                "a hybrid MBR: {count} of the GPT's partitions are in the MBR too; the GPT was used"
            );
            note(&mut layout.findings, text);
        }
        None
    }

    /// LBA 0 ends in 55 AA and names no GPT: an MBR, or the boot sector of a file system.
    fn record(&self, boot: &[u8], record: &BootRecord) -> Result<Layout> {
        let boot_sector = foreign::boot_sector(self.disk, boot)?;
        let table = if !record.status_bytes_fit() || record.is_empty() {
            None
        } else {
            Some(mbr_read::read(self.disk, self.own, self.own, record)?)
        };
        let layout = match (boot_sector, table) {
            (BootSector::Yes(name), Some(Ok(_))) => self.opaque(format!(
                "its first sector is that of a {name} and an MBR with partitions at once"
            )),
            (BootSector::Yes(name), _) => self.none(format!("{name} on the whole disk")),
            (BootSector::No, Some(Ok(layout))) => *layout,
            (BootSector::No, Some(Err(reason))) => self.opaque(format!("MBR: {reason}")),
            (BootSector::No, None) if record.is_empty() => {
                self.none("a boot record without partitions")
            }
            (BootSector::No, None) => self.none("a boot record that is no partition table"),
        };
        let mut layout = self.unless_iso(layout)?;
        self.note_stale_gpt(&mut layout)?;
        Ok(layout)
    }

    /// Says so when a GPT is there that does not count, because no protective MBR stands before it
    /// (kernel `block/partitions/efi.c`, `is_pmbr_valid`).
    fn note_stale_gpt(&self, layout: &mut Layout) -> Result<()> {
        for sector in self.sectors() {
            let last = self.disk.last_lba(sector).filter(|lba| *lba > PRIMARY_LBA);
            for lba in std::iter::once(PRIMARY_LBA).chain(last) {
                let copy = gpt_read::read_copy(self.disk, sector, lba)?;
                if copy.header.is_some() {
                    let at = sector.offset_of(lba).unwrap_or_default();
                    let text = format!(
                        "an old GPT at byte {at} does not count, because the first sector does not \
                         announce it"
                    );
                    note(&mut layout.findings, text);
                    // Without partitions the disk is taken whole or as one file system anyway.
                    layout.certain &= !matches!(layout.table, Table::Mbr(_));
                }
            }
        }
        Ok(())
    }

    /// `layout`, or opaque when the disk is the image of an optical disc that no partition holds:
    /// its partitions then cover only parts of what is there.
    fn unless_iso(&self, layout: Layout) -> Result<Layout> {
        if !matches!(layout.table, Table::Gpt(_) | Table::Mbr(_)) {
            return Ok(layout);
        }
        let Some(descriptor) = foreign::iso9660(self.disk)? else {
            return Ok(layout);
        };
        let mut partitions = layout.partitions.iter();
        if partitions.any(|p| p.extent().contains(descriptor)) {
            return Ok(layout);
        }
        Ok(self.opaque("an ISO 9660 image with a partition table inside"))
    }
}
