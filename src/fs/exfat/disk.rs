//! The boot region and the directory entries of exFAT as values.

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::files::shown_utf16;
use super::super::raw::{Raw, unknown_bits};
use crate::base::to_usize;

/// The part of a boot sector that is looked at.
pub(super) const BOOT_LEN: u64 = 512;
/// Sectors of the boot region: eleven with a checksum, and that.
const REGION_SECTORS: u64 = 12;
/// Bytes of the first sector that change while the volume is in use and have no part in checksum
/// and copy: flags and fill level.
const CHANGING: [usize; 3] = [106, 107, 112];
/// The layout, in the first sector.
const LAYOUT: std::ops::Range<usize> = 64..112;
/// The most clusters that 32 bits number.
const MOST_CLUSTERS: u32 = 0xFFFF_FFF5;
/// log2 of the largest cluster: 32 MiB.
const LARGEST_CLUSTER: u8 = 25;
const DIRTY: u16 = 2;
const MEDIUM_FAILS: u16 = 4;
const CLEAR_TO_ZERO: u16 = 8;

/// Where everything lies. Offsets and lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) sector: u64,
    pub(super) cluster: u64,
    pub(super) len: u64,
    pub(super) table_at: u64,
    pub(super) table_len: u64,
    /// Cluster 2.
    pub(super) heap_at: u64,
    pub(super) clusters: u32,
    pub(super) root_cluster: u32,
    flags: u16,
    tables: u8,
    revision: u16,
}

/// Whether `boot` is the boot sector of an exFAT volume.
pub(super) fn is_exfat(boot: &Raw<'_>) -> Result<bool, Doubt> {
    Ok(boot.slice(3, 8)? == b"EXFAT   ")
}

impl Boot {
    /// Decodes the first 512 bytes of a volume.
    pub(super) fn decode(boot: &Raw<'_>) -> Result<Boot, Doubt> {
        let (sector, per_cluster) = (boot.u8(108)?, boot.u8(109)?);
        ensure((9..=12).contains(&sector), || {
            format!("its boot sector names sectors of 2^{sector} bytes")
        })?;
        ensure(per_cluster <= LARGEST_CLUSTER - sector, || {
            format!("its boot sector names clusters of 2^{per_cluster} sectors")
        })?;
        let sector = 1u64 << sector;
        let sectors = boot.le64(72)?;
        let len = sectors.checked_mul(sector).ok_or_else(|| {
            Doubt::new(format!(
                "its boot sector names a length of {sectors} sectors"
            ))
        })?;
        Ok(Boot {
            sector,
            cluster: sector << per_cluster,
            len,
            table_at: u64::from(boot.le32(80)?) * sector,
            table_len: u64::from(boot.le32(84)?) * sector,
            heap_at: u64::from(boot.le32(88)?) * sector,
            clusters: boot.le32(92)?,
            root_cluster: boot.le32(96)?,
            flags: boot.le16(106)?,
            tables: boot.u8(110)?,
            revision: boot.le16(104)?,
        })
    }

    /// Bytes of the boot region, whose copy follows it.
    pub(super) fn region_len(&self) -> u64 {
        self.sector * REGION_SECTORS
    }

    /// The first byte of a cluster; the clusters are numbered from 2.
    pub(super) fn cluster_at(&self, cluster: u32) -> u64 {
        self.heap_at + u64::from(cluster.saturating_sub(2)) * self.cluster
    }

    /// Whether the `count` clusters from `first` are the volume's.
    pub(super) fn has(&self, first: u32, count: u64) -> bool {
        let end = u64::from(first).saturating_add(count);
        first >= 2 && end <= u64::from(self.clusters) + 2
    }

    /// Whether the volume was put away properly, in a form that is known.
    pub(super) fn check_state(&self) -> Result<(), Doubt> {
        let flags = self.flags;
        ensure(flags & DIRTY == 0, || {
            "it is marked as in use, as systems do while it is mounted: unmount it, or run fsck.exfat \
             if it was not put away properly"
        })?;
        ensure(
            flags & MEDIUM_FAILS == 0,
            || "it is marked as on a medium that fails: run fsck.exfat or chkdsk",
        )?;
        ensure(
            flags & CLEAR_TO_ZERO == 0,
            || "it is marked as not put away by its last writer (flag 8): run fsck.exfat or chkdsk",
        )?;
        ensure(self.tables == 1, || {
            format!(
                "it has {} file allocation tables, as TexFAT has, which is not understood",
                self.tables
            )
        })?;
        if let Some(bits) = unknown_bits(u64::from(flags), 0) {
            return Err(Doubt::new(format!("it has the unknown flags {bits}")));
        }
        ensure(self.revision == 0x0100, || {
            format!("it is exFAT of the unknown revision {:#06x}", self.revision)
        })
    }

    /// Whether all parts lie behind each other, inside the volume.
    pub(super) fn check_layout(&self) -> Result<(), Doubt> {
        let needed = (u64::from(self.clusters) + 2) * 4;
        let heap_len = u64::from(self.clusters) * self.cluster;
        let fits = (1..=MOST_CLUSTERS).contains(&self.clusters)
            && self.table_at >= 2 * self.region_len()
            && self.table_len >= needed
            && self.table_at + self.table_len <= self.heap_at
            && self
                .heap_at
                .checked_add(heap_len)
                .is_some_and(|end| end <= self.len)
            && self.has(self.root_cluster, 1);
        ensure(fits, || {
            format!(
                "its parts do not fit into its {} bytes: a table of {} bytes at {}, {} clusters of {} \
                 bytes from {}, the root directory in cluster {}",
                self.len,
                self.table_len,
                self.table_at,
                self.clusters,
                self.cluster,
                self.heap_at,
                self.root_cluster
            )
        })
    }
}

/// Whether the boot region `region` has its signature and its checksum, and `copy`, the region
/// behind it, has the same layout.
pub(super) fn check_regions(boot: &Boot, region: &[u8], copy: &[u8]) -> Result<(), Doubt> {
    let (region, copy) = (
        Raw::new(region, "boot region"),
        Raw::new(copy, "boot region's copy"),
    );
    ensure(
        region.slice(510, 2)? == [0x55, 0xAA],
        || "its boot sector does not end in 55 AA",
    )?;
    ensure(
        region.slice(11, 53)?.iter().all(|b| *b == 0),
        || "the bytes 11 to 63 of its boot sector are not zero",
    )?;
    let sector = to_usize(boot.sector);
    let summed = region.slice(0, sector * 11)?;
    let sum = boot_checksum(summed);
    let stored = Raw::new(region.slice(sector * 11, sector)?, "boot checksum");
    for at in (0..sector).step_by(4) {
        ensure(checksum::matches(sum, stored.le32(at)?), || {
            format!("the checksum of its boot region, {sum:#010x}, is wrong: run fsck.exfat")
        })?;
    }
    let differs = |at: &usize| region.u8(*at).ok() != copy.u8(*at).ok();
    let mut compared = LAYOUT.filter(|at| !CHANGING.contains(at));
    ensure(
        !compared.any(|at| differs(&at)),
        || "its boot region and the copy behind it say different things: run fsck.exfat",
    )
}

/// The checksum over the first eleven sectors.
fn boot_checksum(bytes: &[u8]) -> u32 {
    let counted = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !CHANGING.contains(at));
    counted.fold(0, |sum, (_, byte)| turn(sum, *byte))
}

/// One step of the checksums of boot region and up-case table.
fn turn(sum: u32, byte: u8) -> u32 {
    sum.rotate_right(1).wrapping_add(u32::from(byte))
}

/// The checksum of the up-case table, or of its start, with `sum` of what came before.
pub(super) fn table_checksum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| turn(sum, *byte))
}

/// The checksum of a set of directory entries, without the two bytes that store it.
fn set_checksum(set: &[u8]) -> u16 {
    let counted = set
        .iter()
        .enumerate()
        .filter(|(at, _)| !(2..4).contains(at));
    counted.fold(0u16, |sum, (_, byte)| {
        sum.rotate_right(1).wrapping_add(u16::from(*byte))
    })
}

/// Content of a file, a directory or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    /// 0 for none.
    pub(super) first: u32,
    /// Bytes.
    pub(super) len: u64,
    /// In one piece; the file allocation table has no chain of it.
    pub(super) in_one_piece: bool,
}

/// Bytes of a directory entry.
pub(super) const ENTRY: usize = 32;
/// The type of an entry that is not in use.
pub(super) const UNUSED: u8 = 1;

/// What the first entry of a set is, or an entry by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    EndOfDirectory,
    /// Deleted, or never used.
    Unused,
    Bitmap {
        second: bool,
        stream: Stream,
    },
    UpCase {
        sum: u32,
        stream: Stream,
    },
    Label,
    VolumeId,
    /// A file or directory, and how many entries of its set follow.
    File {
        more: u8,
    },
    Unknown(u8),
}

/// What `entry` is.
pub(super) fn kind(entry: &Raw<'_>) -> Result<Kind, Doubt> {
    let stream = || -> Result<Stream, Doubt> {
        Ok(Stream {
            first: entry.le32(20)?,
            len: entry.le64(24)?,
            in_one_piece: false,
        })
    };
    Ok(match entry.u8(0)? {
        0 => Kind::EndOfDirectory,
        UNUSED..=0x7F => Kind::Unused,
        0x81 => Kind::Bitmap {
            second: entry.u8(1)? & 1 != 0,
            stream: stream()?,
        },
        0x82 => Kind::UpCase {
            sum: entry.le32(4)?,
            stream: stream()?,
        },
        0x83 => Kind::Label,
        0x85 => Kind::File { more: entry.u8(1)? },
        0xA0 => Kind::VolumeId,
        other => Kind::Unknown(other),
    })
}

/// The text of a label entry.
pub(super) fn label(entry: &Raw<'_>) -> Result<Option<String>, Doubt> {
    let len = usize::from(entry.u8(1)?).min(11);
    let units = (0..len).map(|n| entry.le16(2 + n * 2));
    let text = String::from_utf16_lossy(&units.collect::<Result<Vec<u16>, Doubt>>()?);
    Ok(Some(text).filter(|t| !t.is_empty()))
}

/// A file or directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) is_directory: bool,
    /// Escaped.
    pub(super) name: String,
    /// Its content, then what vendors keep with it.
    pub(super) streams: Vec<Stream>,
}

/// Decodes a whole set of entries.
pub(super) fn file(set: &[u8]) -> Result<File, Doubt> {
    const DIRECTORY: u16 = 0x10;
    const STREAM: u8 = 0xC0;
    const NAME: u8 = 0xC1;
    let raw = Raw::new(set, "directory");
    let (sum, stored) = (set_checksum(set), raw.le16(2)?);
    ensure(checksum::matches(sum, stored), || {
        format!("a file's directory entries have the checksum {sum:#06x} and say {stored:#06x}")
    })?;
    let (mut streams, mut name, mut name_len) = (Vec::new(), Vec::new(), 0);
    for (number, entry) in set.chunks_exact(ENTRY).enumerate().skip(1) {
        let entry = Raw::new(entry, "directory");
        let (kind, flags) = (entry.u8(0)?, entry.u8(1)?);
        ensure(kind >= STREAM && (kind == STREAM) == (number == 1), || {
            format!("a file's directory entry {number} is of the type {kind:#04x}")
        })?;
        if kind == NAME {
            name.extend_from_slice(entry.slice(2, 30)?);
        } else if kind == STREAM {
            name_len = 2 * usize::from(entry.u8(3)?);
        }
        if kind == STREAM || (kind != NAME && flags & 1 != 0) {
            streams.push(Stream {
                first: entry.le32(20)?,
                len: entry.le64(24)?,
                in_one_piece: flags & 2 != 0,
            });
        }
    }
    ensure(
        !streams.is_empty(),
        || "a file's directory entry stands alone",
    )?;
    name.truncate(name_len);
    Ok(File {
        is_directory: raw.le16(4)? & DIRECTORY != 0,
        name: shown_utf16(&name),
        streams,
    })
}
