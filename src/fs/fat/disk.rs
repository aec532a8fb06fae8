//! The boot sector of a FAT volume as values.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::{self, Raw};

/// The part of the boot sector that is looked at.
pub(super) const BOOT_LEN: u64 = 512;
/// The part of a boot sector that says where everything lies and that its copy repeats, but for the
/// geometry and the hidden sectors, which tools set in the first only.
const LAYOUT: [(usize, usize); 2] = [(11, 13), (32, 20)];
/// FAT12 has fewer clusters.
const FAT16_FROM: u64 = 4085;
/// Windows takes volumes below this for FAT12, Linux and the specification those below 4085.
const FAT16_FROM_ON_WINDOWS: u64 = 4087;
/// The most clusters that 16 bits number.
const FAT16_MOST: u64 = 65_524;
/// The most clusters that 28 bits number.
const FAT32_MOST: u64 = 0x0FFF_FFF5;
/// Copies of the table: two in practice, one on some.
const MOST_COPIES: u8 = 4;
/// What Microsoft's BitLocker To Go has at byte 424 of a boot sector that else is that of FAT32.
const BITLOCKER_TO_GO: [u8; 16] = [
    0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01,
];
/// Names at byte 3 of boot sectors that are not FAT's.
const OTHER_NAMES: [&[u8; 8]; 5] = [
    b"NTFS    ",
    b"EXFAT   ",
    b"-FVE-FS-",
    b"ReFS\0\0\0\0",
    b"HPFS    ",
];
/// Types at byte 54 of boot sectors that are not FAT's although they have its fields.
const OTHER_TYPES: [&[u8; 8]; 2] = [b"JFS     ", b"HPFS    "];

/// Bits of an entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Twelve,
    Sixteen,
    /// Of which the upper four mean nothing.
    ThirtyTwo,
}

impl Width {
    pub(super) fn bits(self) -> u64 {
        match self {
            Width::Twelve => 12,
            Width::Sixteen => 16,
            Width::ThirtyTwo => 32,
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Width::Twelve => "FAT12",
            Width::Sixteen => "FAT16",
            Width::ThirtyTwo => "FAT32",
        }
    }

    /// Every bit that means something: the largest value of an entry.
    pub(super) fn mask(self) -> u32 {
        match self {
            Width::Twelve => 0xFFF,
            Width::Sixteen => 0xFFFF,
            Width::ThirtyTwo => 0x0FFF_FFFF,
        }
    }

    /// Bytes that hold `entries` entries.
    pub(super) fn bytes(self, entries: u64) -> u64 {
        (entries * self.bits()).div_ceil(8)
    }

    /// Entry `index` of the table that begins with `table`; `None` where that ends before.
    pub(super) fn entry(self, table: &[u8], index: usize) -> Option<u32> {
        match self {
            Width::Twelve => {
                let at = index + index / 2;
                let pair = u32::from(*table.get(at)?) | u32::from(*table.get(at + 1)?) << 8;
                Some(
                    if index.is_multiple_of(2) {
                        pair
                    } else {
                        pair >> 4
                    } & 0xFFF,
                )
            }
            Width::Sixteen => {
                let bytes = table.get(index * 2..index * 2 + 2)?;
                Some(u32::from(bytes[0]) | u32::from(bytes[1]) << 8)
            }
            Width::ThirtyTwo => {
                let bytes = table.get(index * 4..index * 4 + 4)?;
                let entry = bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
                Some(entry & 0x0FFF_FFFF)
            }
        }
    }
}

/// Where everything lies. Offsets and lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) width: Width,
    /// Of the whole volume.
    pub(super) len: u64,
    pub(super) sector: u64,
    pub(super) cluster: u64,
    /// The first table.
    pub(super) table_at: u64,
    pub(super) table_len: u64,
    pub(super) copies: u8,
    /// The copy that is valid when the others are not kept up to date.
    pub(super) only_copy: Option<u8>,
    /// The fixed root directory of FAT12 and FAT16, which may be empty.
    pub(super) root_at: u64,
    pub(super) root_len: u64,
    /// FAT32 has its root directory in clusters.
    pub(super) root_cluster: u32,
    /// Cluster 2.
    pub(super) data_at: u64,
    pub(super) clusters: u64,
    pub(super) media: u8,
    /// Of FAT32, of which there is one.
    version: u16,
    /// A copy of the boot sector.
    pub(super) backup_at: Option<u64>,
    /// Offset and value of the byte that systems mark while they use the volume.
    pub(super) state: (usize, u8),
    /// The type that the boot sector claims; it decides nothing.
    pub(super) claims: Option<&'static str>,
}

/// Whether `boot` is the boot sector of another format, or a partition table.
pub(super) fn is_another(boot: &Raw<'_>) -> Result<bool, Doubt> {
    let name = boot.slice(3, 8)?;
    let kind = boot.slice(54, 8)?;
    Ok(OTHER_NAMES.iter().any(|n| n.as_slice() == name)
        || OTHER_TYPES.iter().any(|n| n.as_slice() == kind)
        || boot.slice(424, 16)? == BITLOCKER_TO_GO
        || (claimed(boot)?.is_none() && has_partitions(boot)?))
}

/// Whether the four entries of a partition table are there, and one in use.
fn has_partitions(boot: &Raw<'_>) -> Result<bool, Doubt> {
    let mut used = false;
    for at in (446..510).step_by(16) {
        if !matches!(boot.u8(at)?, 0 | 0x80) {
            return Ok(false);
        }
        used |= boot.u8(at + 4)? != 0 && boot.le32(at + 8)? != 0 && boot.le32(at + 12)? != 0;
    }
    Ok(used)
}

/// The type string of the boot sector.
pub(super) fn claimed(boot: &Raw<'_>) -> Result<Option<&'static str>, Doubt> {
    Ok(match (boot.slice(54, 8)?, boot.slice(82, 8)?) {
        (b"FAT12   ", _) => Some("FAT12"),
        (b"FAT16   ", _) => Some("FAT16"),
        (_, b"FAT32   ") => Some("FAT32"),
        _ => None,
    })
}

/// Whether it ends as boot sectors do.
pub(super) fn is_signed(boot: &Raw<'_>) -> Result<bool, Doubt> {
    Ok(boot.slice(510, 2)? == [0x55, 0xAA])
}

/// The label of the boot sector.
pub(super) fn label(boot: &Raw<'_>, is_32: bool) -> Result<Option<String>, Doubt> {
    let (signature, at) = if is_32 { (66, 71) } else { (38, 43) };
    if boot.u8(signature)? != 0x29 {
        return Ok(None);
    }
    Ok(raw::label(boot.slice(at, 11)?).filter(|l| l != "NO NAME"))
}

/// The bytes of a boot sector that its copy repeats.
pub(super) fn layout<'a>(boot: &Raw<'a>) -> Result<[&'a [u8]; 2], Doubt> {
    let [(a, a_len), (b, b_len)] = LAYOUT;
    Ok([boot.slice(a, a_len)?, boot.slice(b, b_len)?])
}

impl Boot {
    /// Decodes the first 512 bytes of a volume.
    pub(super) fn decode(boot: &Raw<'_>) -> Result<Boot, Doubt> {
        let sector = u64::from(boot.le16(11)?);
        ensure(
            sector.is_power_of_two() && (512..=4096).contains(&sector),
            || format!("its boot sector names sectors of {sector} bytes"),
        )?;
        let per_cluster = boot.u8(13)?;
        ensure(per_cluster.is_power_of_two(), || {
            format!("its boot sector names clusters of {per_cluster} sectors")
        })?;
        let reserved = u64::from(boot.le16(14)?);
        ensure(reserved > 0, || "its boot sector leaves no room for itself")?;
        let copies = boot.u8(16)?;
        ensure((1..=MOST_COPIES).contains(&copies), || {
            format!("its boot sector names {copies} file allocation tables")
        })?;
        let media = boot.u8(21)?;
        ensure(media == 0xF0 || media >= 0xF8, || {
            format!("its boot sector names the unknown medium {media:#04x}")
        })?;
        let cluster = sector * u64::from(per_cluster);
        let table_at = reserved * sector;
        let root_len = u64::from(boot.le16(17)?) * 32;
        let table_16 = boot.le16(22)?;
        let table_len = match table_16 {
            0 => u64::from(boot.le32(36)?) * sector,
            n => u64::from(n) * sector,
        };
        let root_at = table_at + u64::from(copies) * table_len;
        let data_at = root_at + root_len.next_multiple_of(sector);
        let len = total(boot)? * sector;
        ensure(table_len > 0 && data_at + cluster <= len, || {
            format!(
                "its {copies} file allocation tables of {table_len} bytes leave no room for files \
                 in {len} bytes"
            )
        })?;
        let clusters = (len - data_at) / cluster;
        let mut this = Boot {
            width: Width::ThirtyTwo,
            len,
            sector,
            cluster,
            table_at,
            table_len,
            copies,
            only_copy: None,
            root_at,
            root_len,
            root_cluster: 0,
            data_at,
            clusters,
            media,
            backup_at: None,
            version: 0,
            state: (65, boot.u8(65)?),
            claims: claimed(boot)?,
        };
        if table_16 == 0 {
            this.decode_32(boot)?;
        } else {
            let small = clusters < FAT16_FROM;
            this.width = if small { Width::Twelve } else { Width::Sixteen };
            this.state = (37, boot.u8(37)?);
        }
        Ok(this)
    }

    fn decode_32(&mut self, boot: &Raw<'_>) -> Result<(), Doubt> {
        self.version = boot.le16(42)?;
        let flags = boot.u8(40)?;
        self.only_copy = Some(flags & 0x0F).filter(|_| flags & 0x80 != 0);
        self.root_cluster = boot.le32(44)?;
        let backup = u64::from(boot.le16(50)?) * self.sector;
        self.backup_at = Some(backup).filter(|at| (1..=self.table_at - self.sector).contains(at));
        Ok(())
    }

    fn check_32(&self) -> Result<(), Doubt> {
        ensure(self.version == 0, || {
            format!("it is FAT32 of the unknown version {:#06x}", self.version)
        })?;
        ensure(
            self.root_len == 0,
            || "it is FAT32 with a root directory as FAT16 has it",
        )?;
        let only = self.only_copy.unwrap_or(0);
        ensure(only < self.copies, || {
            format!(
                "only its file allocation table {only} is valid, and there are {}",
                self.copies
            )
        })
    }

    /// What must hold for the table to be read in one way only.
    pub(super) fn check(&self) -> Result<(), Doubt> {
        let (clusters, kind) = (self.clusters, self.width.kind());
        ensure(self.root_len.is_multiple_of(self.sector), || {
            format!(
                "its root directory of {} bytes ends within a sector, and systems do not agree where \
                 its files begin then",
                self.root_len
            )
        })?;
        if self.width == Width::ThirtyTwo {
            self.check_32()?;
        } else {
            ensure(self.root_len > 0, || {
                format!("it is {kind} without room for a root directory")
            })?;
        }
        ensure(
            self.width == Width::ThirtyTwo
                || !(FAT16_FROM..FAT16_FROM_ON_WINDOWS).contains(&clusters),
            || {
                format!(
                    "with {clusters} clusters it is FAT12 to Windows and FAT16 to other systems"
                )
            },
        )?;
        ensure(self.claims.is_none_or(|claimed| claimed == kind), || {
            let claimed = self.claims.unwrap_or_default();
            format!("with {clusters} clusters it is {kind}, and its boot sector says {claimed}")
        })?;
        let most = match self.width {
            Width::Twelve | Width::Sixteen => FAT16_MOST,
            Width::ThirtyTwo => FAT32_MOST,
        };
        ensure(clusters <= most, || {
            format!("its {clusters} clusters are more than {kind} can number")
        })?;
        self.check_table_len()
    }

    /// A table that is far too long or too short for the clusters shows that the boot sector is
    /// damaged. Formatters round up, to whole clusters at the most.
    fn check_table_len(&self) -> Result<(), Doubt> {
        let needed = self.width.bytes(self.clusters + 2);
        let most = needed + needed / 2 + 2 * self.cluster + 8 * self.sector;
        ensure((needed..=most).contains(&self.table_len), || {
            format!(
                "its file allocation table of {} bytes does not fit its {} clusters, which need {needed}",
                self.table_len, self.clusters
            )
        })
    }

    /// The first byte of a cluster; the clusters are numbered from 2.
    pub(super) fn cluster_at(&self, cluster: u64) -> u64 {
        self.data_at + cluster.saturating_sub(2) * self.cluster
    }

    /// Whether `cluster` is one.
    pub(super) fn has(&self, cluster: u32) -> bool {
        (2..self.clusters + 2).contains(&u64::from(cluster))
    }
}

/// Sectors of the volume: 16 bits of it, or 32 where those do not suffice.
fn total(boot: &Raw<'_>) -> Result<u64, Doubt> {
    Ok(match boot.le16(19)? {
        0 => u64::from(boot.le32(32)?),
        short => u64::from(short),
    })
}
