//! A partition table as a value.

use super::{Partition, PartitionKind};
use crate::base::{ByteLen, ByteOffset, Extent, SectorSize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What lies where on a disk.
///
/// Made by [`read`](super::read), or taken out of an image file; then nothing may be believed
/// before [`Layout::validate`] has passed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// Which table, and where its structures lie.
    pub table: Table,
    /// Length of the disk in bytes.
    pub disk_len: u64,
    /// The sector in which the table counts.
    #[serde(with = "sector_bytes")]
    pub sector: SectorSize,
    /// The logical sector that the disk itself reported. Differs from `sector` for a file that holds
    /// the image of a 4Kn disk, and for a disk moved between enclosures that disagree.
    #[serde(with = "sector_bytes")]
    pub disk_sector: SectorSize,
    /// What `lsblk -o PTUUID` prints: the GPT disk GUID, or the MBR signature as 8 hex digits.
    /// `None` where there is neither.
    pub disk_id: Option<String>,
    /// The partitions that hold data, by ascending start. They lie inside the disk and never overlap.
    pub partitions: Vec<Partition>,
    /// The extended partition of an MBR, for showing. Its data are the logical ones.
    pub extended: Option<Partition>,
    /// Whether the table may be taken as the whole truth: all its copies agree and nothing speaks
    /// of another table. When not, space between partitions may hold data of partitions that
    /// this reading does not show, and has to be imaged whole.
    pub certain: bool,
    /// What a person should know of this table, in plain words.
    pub findings: Vec<String>,
}

/// Which partition table a disk has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Table {
    /// A GUID partition table (UEFI specification, chapter "GUID Partition Table (GPT) Disk Layout").
    Gpt(GptPlaces),
    /// A master boot record, possibly with an EBR chain.
    Mbr(MbrPlaces),
    /// No table: empty, or a file system or another format on the whole disk.
    None {
        /// Why no table is seen.
        reason: String,
    },
    /// A table that cannot be trusted or understood. The disk has to be taken whole, and nothing that
    /// looks like a file system on the whole disk may be believed.
    Opaque {
        /// Why.
        reason: String,
    },
}

/// Where the structures of a GPT lie. LBAs count in [`Layout::sector`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GptPlaces {
    /// First LBA that partitions may use.
    pub first_usable: u64,
    /// Last LBA that partitions may use, inclusive.
    pub last_usable: u64,
    /// Number of slots in the entry array.
    pub entry_count: u32,
    /// Bytes of one slot.
    pub entry_size: u32,
    /// The copy at LBA 1.
    pub primary: GptCopy,
    /// The copy that belongs at the end.
    pub backup: GptCopy,
}

/// One of the two copies of a GPT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GptCopy {
    /// Whether it can be used.
    pub state: CopyState,
    /// Where its header surely is: the signature is there.
    pub header_lba: Option<u64>,
    /// Where its entry array surely is: an intact header says so, or its checksum fits there.
    pub entries_lba: Option<u64>,
}

/// The state of one copy of a GPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyState {
    /// Both checksums fit.
    Good,
    /// There, but a checksum or a field is wrong.
    Damaged,
    /// The medium does not give it.
    Unreadable,
    /// Nothing like it is where it belongs.
    Missing,
}

/// Where the structures of an MBR lie besides LBA 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MbrPlaces {
    /// The LBA of every EBR in chain order.
    pub ebrs: Vec<u64>,
}

impl GptPlaces {
    /// Length of one entry array in whole sectors; zero only when a number from outside is absurd.
    pub fn array_sectors(&self, sector: SectorSize) -> u64 {
        let bytes = u64::from(self.entry_count).saturating_mul(u64::from(self.entry_size));
        bytes.div_ceil(u64::from(sector.bytes()))
    }

    /// The copy that was read: the primary one unless it is no good.
    pub fn in_use(&self) -> &GptCopy {
        if self.primary.state == CopyState::Good {
            &self.primary
        } else {
            &self.backup
        }
    }
}

impl Table {
    /// The stable name used in JSON output: what `lsblk -o PTTYPE` says, or `none`, `opaque`.
    pub fn name(&self) -> &'static str {
        match self {
            Table::Gpt(_) => "gpt",
            Table::Mbr(_) => "dos",
            Table::None { .. } => "none",
            Table::Opaque { .. } => "opaque",
        }
    }
}

impl Layout {
    /// The length of the disk.
    pub fn disk_len(&self) -> ByteLen {
        ByteLen(self.disk_len)
    }

    /// The partition that Linux numbers `number`, if it holds data.
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.number == number)
    }

    /// Everything to show, the extended container included, by ascending start, a container before
    /// what it holds.
    pub fn shown(&self) -> Vec<&Partition> {
        let mut all: Vec<&Partition> = self.partitions.iter().chain(&self.extended).collect();
        all.sort_by_key(|p| (p.start, p.kind != PartitionKind::Extended));
        all
    }

    /// The bytes that partitions may use: what the GPT says, or what 32-bit sector numbers reach
    /// behind an MBR. `None` without a table.
    pub fn usable(&self) -> Option<Extent> {
        let (first, end) = match &self.table {
            Table::Gpt(gpt) => (gpt.first_usable, gpt.last_usable.checked_add(1)?),
            Table::Mbr(_) => {
                let sectors = self.sector.count(self.disk_len());
                (1, sectors.min(1 << 32))
            }
            Table::None { .. } | Table::Opaque { .. } => return None,
        };
        let start: ByteOffset = self.sector.offset_of(first)?;
        Extent::between(start, self.sector.offset_of(end)?)
    }
}

/// A sector size as a plain number of bytes.
mod sector_bytes {
    use super::{Deserialize, Deserializer, SectorSize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &SectorSize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(value.bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SectorSize, D::Error> {
        let bytes = u32::deserialize(deserializer)?;
        SectorSize::new(bytes)
            .ok_or_else(|| serde::de::Error::custom(format!("{bytes} bytes are no sector size")))
    }
}
