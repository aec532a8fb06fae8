//! BitLocker: recognised, and all of it in use, because what is encrypted shows no free space.
//!
//! The boot sector has its own name of the maker, `-FVE-FS-`; BitLocker To Go has one that looks like
//! FAT32 and holds the identifier of BitLocker. Both as in libbde's `documentation/BitLocker Drive
//! Encryption (BDE) format.asciidoc`.

use super::doubt::Doubt;
use super::files::Search;
use super::raw::Raw;
use super::volume::Volume;
use super::{Found, Reader, Used};

/// 4967D63B-2E29-4AD8-8399-F6A339E3D001, as it lies on the disk.
const TO_GO: [u8; 16] = [
    0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01,
];

/// Recognises volumes that BitLocker encrypts.
pub(super) struct BitLocker;

impl Reader for BitLocker {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        if volume.len() < 512 {
            return Ok(None);
        }
        let sector = volume.read(0, 512)?;
        Ok(
            is_bitlocker(&Raw::new(&sector, "boot sector"))?.then(|| Found {
                kind: "BitLocker".to_owned(),
                label: None,
            }),
        )
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        Ok(Used::whole(
            volume,
            "encrypted by BitLocker: all of it is in use",
        ))
    }

    fn files(&self, _: &Volume<'_>, _: &mut Search) -> Result<(), Doubt> {
        Err(Doubt::new("it is encrypted: what lies in it is not known"))
    }
}

fn is_bitlocker(sector: &Raw<'_>) -> Result<bool, Doubt> {
    // Boot code begins with a short jump in all versions.
    let bootable = sector.u8(0)? == 0xEB && sector.slice(510, 2)? == [0x55, 0xAA];
    let named = match sector.slice(3, 8)? {
        b"-FVE-FS-" => true,
        b"MSWIN4.1" => sector.slice(424, 16)? == TO_GO,
        _ => false,
    };
    Ok(bootable && named)
}

#[cfg(test)]
mod tests {
    use super::super::{Certainty, UsedReport, probe};
    use super::*;
    use crate::base::{ByteLen, Cancel};
    use crate::block::MemorySource;

    fn sector(head: &[u8; 11]) -> Vec<u8> {
        let mut sector = vec![0; 4096];
        sector[..11].copy_from_slice(head);
        sector[510..512].copy_from_slice(&[0x55, 0xAA]);
        sector
    }

    fn look(bytes: Vec<u8>) -> UsedReport {
        let (source, cancel) = (MemorySource::new("m", bytes), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        probe::look_into(&volume, &[&BitLocker as &dyn Reader]).unwrap()
    }

    #[track_caller]
    fn assert_all_of_it(report: &UsedReport) {
        assert_eq!(report.kind, "BitLocker");
        assert_eq!(report.certainty, Certainty::Certain);
        assert_eq!(report.used_bytes(ByteLen(4096)), ByteLen(4096));
        assert!(report.basis.contains("BitLocker"), "{}", report.basis);
    }

    #[test]
    fn both_boot_sectors_are_recognised() {
        assert_all_of_it(&look(sector(b"\xEB\x52\x90-FVE-FS-")));
        assert_all_of_it(&look(sector(b"\xEB\x58\x90-FVE-FS-")));
        let mut to_go = sector(b"\xEB\x58\x90MSWIN4.1");
        to_go[424..440].copy_from_slice(&TO_GO);
        assert_all_of_it(&look(to_go));
    }

    #[test]
    fn others_are_not() {
        let mut no_boot_sector = sector(b"\xEB\x58\x90-FVE-FS-");
        no_boot_sector[510] = 0;
        let others = [
            sector(b"\xEB\x58\x90MSWIN4.1"),
            sector(b"\xEB\x52\x90NTFS    "),
            no_boot_sector,
            vec![0xEB; 100],
        ];
        for other in others {
            assert_eq!(look(other).kind, "unknown");
        }
    }
}
