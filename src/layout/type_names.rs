//! What partition types are called.

use ::gpt::partition_types as known;
use uuid::Uuid;

/// The name of a type as [`Partition::type_id`](super::Partition::type_id) spells it.
pub(super) fn name_of(type_id: &str) -> Option<&'static str> {
    match type_id.strip_prefix("0x") {
        Some(hex) => mbr_name(u8::from_str_radix(hex, 16).ok()?),
        None => gpt_name(Uuid::try_parse(type_id).ok()?),
    }
}

/// The name of a type that holds boot code or reserved space and never a file system.
pub(super) fn bare_name_of(type_id: &str) -> Option<&'static str> {
    const BARE: [&str; 4] = [
        "BIOS boot",
        "Microsoft reserved",
        "PowerPC PReP boot",
        "ChromeOS kernel",
    ];
    name_of(type_id).filter(|name| BARE.contains(name))
}

/// GUIDs come from the table of the crate `gpt` where it has them. Those it lacks are from the
/// Discoverable Partitions Specification (BOOT), the kernel's `block/partitions/efi.h` and the
/// ChromiumOS and Open Firmware (PReP) assignments.
fn gpt_name(guid: Uuid) -> Option<&'static str> {
    const BIOS_BOOT: Uuid = Uuid::from_u128(0x21686148_6449_6e6f_744e_656564454649);
    const XBOOTLDR: Uuid = Uuid::from_u128(0xbc13c2ff_59e6_4262_a352_b275fd6f7172);
    const PREP: Uuid = Uuid::from_u128(0x9e1a2d38_c612_4316_aa26_8b49521e5a8b);
    const CHROME_KERNEL: Uuid = Uuid::from_u128(0xfe3a2a5d_4f32_41a7_b725_accc3285a309);
    const APPLE_HFS: Uuid = Uuid::from_u128(0x48465300_0000_11aa_aa11_00306543ecac);
    const APPLE_APFS: Uuid = Uuid::from_u128(0x7c3457ef_0000_11aa_aa11_00306543ecac);
    const LINUX_VAR: Uuid = Uuid::from_u128(0x4d21b016_b534_45c2_a9fb_5c16e091fd2d);
    const ZFS: Uuid = Uuid::from_u128(0x6a898cc3_1dd2_11b2_99a6_080020736631);
    let names = [
        (known::EFI.guid, "EFI System"),
        (BIOS_BOOT, "BIOS boot"),
        (known::MICROSOFT_RESERVED.guid, "Microsoft reserved"),
        (known::BASIC.guid, "Microsoft basic data"),
        (LDM_METADATA, "Windows LDM metadata"),
        (LDM_DATA, "Windows LDM data"),
        (known::WINDOWS_RECOVERY.guid, "Windows recovery"),
        (
            known::WINDOWS_STORAGESPACES.guid,
            "Microsoft Storage Spaces",
        ),
        (known::LINUX_FS.guid, "Linux filesystem"),
        (known::LINUX_RAID.guid, "Linux RAID"),
        (known::LINUX_ROOT_X86.guid, "Linux root (x86)"),
        (known::LINUX_ROOT_X64.guid, "Linux root (x86-64)"),
        (known::LINUX_ROOT_ARM_32.guid, "Linux root (ARM)"),
        (known::LINUX_ROOT_ARM_64.guid, "Linux root (ARM-64)"),
        (known::LINUX_SWAP.guid, "Linux swap"),
        (known::LINUX_LVM.guid, "Linux LVM"),
        (known::LINUX_HOME.guid, "Linux home"),
        (known::LINUX_SRV.guid, "Linux server data"),
        (LINUX_VAR, "Linux variable data"),
        (known::LINUX_DMCRYPT.guid, "Linux dm-crypt"),
        (known::LINUX_LUKS.guid, "Linux LUKS"),
        (known::LINUX_RESERVED.guid, "Linux reserved"),
        (XBOOTLDR, "Linux extended boot"),
        (PREP, "PowerPC PReP boot"),
        (CHROME_KERNEL, "ChromeOS kernel"),
        (APPLE_HFS, "Apple HFS+"),
        (APPLE_APFS, "Apple APFS"),
        (ZFS, "Solaris /usr and Apple ZFS"),
    ];
    names.iter().find(|(id, _)| *id == guid).map(|(_, n)| *n)
}

/// Windows dynamic disk, the database (kernel `block/partitions/efi.h` has the neighbours).
const LDM_METADATA: Uuid = Uuid::from_u128(0x5808c8aa_7e8f_42e0_85d2_e1e90434cfb3);
/// Windows dynamic disk, the volumes.
const LDM_DATA: Uuid = Uuid::from_u128(0xaf9b60a0_1431_4f62_bc68_3311714a69ad);

/// Whether a GPT partition of this type belongs to a Windows dynamic disk, whose volumes the
/// partition table does not describe.
pub(super) fn is_ldm(guid: Uuid) -> bool {
    guid == LDM_METADATA || guid == LDM_DATA
}

/// The MBR type of a Windows dynamic disk (kernel `block/partitions/ldm.h`, `LDM_PARTITION`).
pub(super) const MBR_LDM: u8 = 0x42;

/// MBR types as `fdisk` names them (util-linux `include/pt-mbr-partnames.h`).
fn mbr_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0x00 => "Empty",
        0x01 => "FAT12",
        0x04 | 0x06 | 0x0e => "FAT16",
        0x05 => "Extended",
        0x07 => "HPFS/NTFS/exFAT",
        0x0b | 0x0c => "FAT32",
        0x0f => "Extended (LBA)",
        0x11 | 0x14 | 0x16 | 0x1b | 0x1c | 0x1e => "Hidden FAT",
        0x12 => "Vendor diagnostics",
        0x17 => "Hidden HPFS/NTFS",
        0x27 => "Windows recovery",
        0x41 => "PowerPC PReP boot",
        MBR_LDM => "Windows LDM",
        0x82 => "Linux swap or Solaris",
        0x83 => "Linux",
        0x84 => "Hibernation",
        0x85 => "Linux extended",
        0x8e => "Linux LVM",
        0xa5 => "FreeBSD",
        0xa6 => "OpenBSD",
        0xa8 => "Apple UFS",
        0xa9 => "NetBSD",
        0xaf => "Apple HFS",
        0xbf => "Solaris",
        0xda => "Non-FS data",
        0xe8 => "Linux LUKS",
        0xea => "Linux extended boot",
        0xee => "GPT protective",
        0xef => "EFI System",
        0xfb => "VMware VMFS",
        0xfd => "Linux RAID",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_types_have_names() {
        let name = |id: &str| name_of(id);
        assert_eq!(
            name("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            Some("EFI System")
        );
        assert_eq!(
            name("21686148-6449-6e6f-744e-656564454649"),
            Some("BIOS boot")
        );
        assert_eq!(name("0x8e"), Some("Linux LVM"));
        assert_eq!(name("0xzz"), None);
        assert_eq!(name("ä"), None);
    }

    #[test]
    fn the_dynamic_disk_types_are_those_of_the_crate() {
        assert!(is_ldm(known::WINDOWS_METADATA.guid));
        assert!(is_ldm(known::WINDOWS_DATA.guid));
        assert!(!is_ldm(known::BASIC.guid));
    }
}
