//! What an image says about itself in words: the info and summary sections and the raw tables.
//!
//! All of it comes from outside when read. Numbers are for people and plans, and whoever acts on
//! one checks it first; texts are shown only after control characters have been taken out.

use super::bytes::Fields;
use super::limits::{MAX_INFO_VALUES, MAX_RAW_REGIONS, MAX_SUMMARY_VALUES};
use super::state::BlockState;
use crate::base::{ByteLen, ByteOffset, Extent, Geometry, SectorSize, to_u64, to_usize};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The info section: what was known when the image was begun.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Program and version that wrote the image.
    pub tool: String,
    /// When the image was begun, in seconds since 1970 UTC.
    pub created: i64,
    /// Name of the history.
    pub set: String,
    /// What was imaged.
    pub source: SourceInfo,
    /// Where it was imaged.
    pub host: HostInfo,
    /// How the source was kept still: `unmounted`, `mounted read-only`, `live`.
    pub consistency: String,
    /// Why it was made as a full, incremental or differential image.
    pub reason: String,
    /// How its frames were compressed: `none` or `zstd:LEVEL`.
    pub compression: String,
    /// The person's own words.
    pub comment: Option<String>,
    /// The decoded partition tables, in the form of `layout::Layout`.
    pub layout: serde_json::Value,
    /// What a person asked to be taken and left out.
    pub take: TakeInfo,
    /// What each partition holds and how much of it was taken.
    pub partitions: Vec<PartitionInfo>,
    /// Damage in older images: what of it this image's disk needs, it has stored again.
    pub healed: Vec<HealedInfo>,
}

/// Damage of an image that a younger one makes up for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealedInfo {
    /// The damaged image.
    #[serde(with = "uuid::serde::simple")]
    pub image: Uuid,
    /// When the damage was found, in seconds since 1970 UTC.
    pub found: i64,
}

/// What a person asked to be taken and left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TakeInfo {
    /// Whether free space was taken too.
    pub all_blocks: bool,
    /// The only partitions that were taken; empty when all were.
    pub partitions: Vec<u32>,
    /// Content that was left out and reads as zeros: `swap`, `pagefile`, `hibernation`.
    pub exclude: Vec<String>,
}

/// The imaged disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceInfo {
    /// How the person named it.
    pub name: String,
    /// Where it was found: a device or a file, from the root on.
    pub path: String,
    /// Number of the partition, where only that was imaged.
    pub partition: Option<u32>,
    /// Length in bytes.
    pub bytes: u64,
    /// The unit its partition tables count in, in bytes.
    pub logical_sector: u32,
    /// The unit its medium writes, in bytes.
    pub physical_sector: u32,
    /// Maker's name for it.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// GPT disk GUID or MBR signature.
    pub table_id: Option<String>,
}

impl SourceInfo {
    /// The geometry of a disk of `len` bytes with the sectors that stand here. What cannot be a sector, for
    /// this comes from text, is taken for the usual one.
    pub fn geometry(&self, len: ByteLen) -> Geometry {
        let sector = |bytes| SectorSize::new(bytes).unwrap_or(SectorSize::S512);
        Geometry {
            len,
            logical_sector: sector(self.logical_sector),
            physical_sector: sector(self.physical_sector),
        }
    }
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostInfo {
    /// Its name.
    pub name: String,
    /// Its kernel release.
    pub kernel: String,
    /// Its distribution, as `/etc/os-release` names it.
    pub os: String,
    /// `uefi` or `bios`.
    pub boot: String,
}

/// One partition at the time of the backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionInfo {
    /// Its number, as Linux counts.
    pub number: u32,
    /// Position on the disk in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// What was found in it.
    pub filesystem: String,
    /// Its label.
    pub label: Option<String>,
    /// How many of its bytes are in use, as exactly as what is in it tells.
    pub used: u64,
    /// How many of its bytes lie in blocks that were taken.
    pub taken: u64,
    /// How many of its bytes in use were left out on request.
    pub excluded: u64,
    /// Whether it was not asked for: nothing of it was taken.
    pub left_out: bool,
    /// Why that many were taken.
    pub reason: String,
    /// Volumes inside: logical volumes, the data of an array.
    pub inside: Vec<InsideInfo>,
}

/// A volume inside a partition at the time of the backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InsideInfo {
    /// Its name.
    pub name: String,
    /// What was found in it.
    pub filesystem: String,
    /// Its length on this partition in bytes.
    pub length: u64,
    /// How many of these bytes are in use.
    pub used: u64,
    /// Why that many.
    pub reason: String,
}

/// The summary section: what was known when the image was complete.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// When, in seconds since 1970 UTC.
    pub finished: i64,
    /// How many blocks of the disk have which state.
    pub blocks: BlockCounts,
    /// Of these, those that differed from the parent when the image was made; all of a full one.
    pub changed: BlockCounts,
    /// Bytes of the disk that could not be read.
    pub unreadable: Vec<ByteRange>,
    /// Of these, what was passed over among bad spots and not tried sector by sector.
    pub untried: Vec<ByteRange>,
    /// What a person was told.
    pub warnings: Vec<String>,
}

/// Blocks by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockCounts {
    /// With content.
    pub data: u64,
    /// Zero.
    pub zero: u64,
    /// Not in use.
    pub unused: u64,
    /// With unreadable parts.
    pub unreadable: u64,
}

impl BlockCounts {
    /// Counts `count` blocks of `state`.
    pub fn add(&mut self, state: BlockState, count: u64) {
        let slot = match state {
            BlockState::Data => &mut self.data,
            BlockState::Zero => &mut self.zero,
            BlockState::Unused => &mut self.unused,
            BlockState::Unreadable => &mut self.unreadable,
        };
        *slot += count;
    }

    /// Blocks of every state.
    pub fn total(&self) -> u64 {
        [self.data, self.zero, self.unused, self.unreadable]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// A run of bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Number of bytes.
    pub length: u64,
}

impl ByteRange {
    /// `ranges`, ascending and apart, as no more than `most` of them: what lies between close ones is
    /// counted in.
    pub fn at_most(most: usize, mut ranges: Vec<ByteRange>) -> Vec<ByteRange> {
        let mut gap = 4096u64;
        while ranges.len() > most.max(1) {
            let mut joined: Vec<ByteRange> = Vec::new();
            for range in ranges {
                match joined.last_mut() {
                    Some(last) if range.start.saturating_sub(last.end()) <= gap => {
                        last.length = range.end().saturating_sub(last.start);
                    }
                    _ => joined.push(range),
                }
            }
            ranges = joined;
            gap = gap.saturating_mul(4);
        }
        ranges
    }

    /// The first byte behind it.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

impl From<Extent> for ByteRange {
    fn from(e: Extent) -> ByteRange {
        ByteRange {
            start: e.start.0,
            length: e.len.0,
        }
    }
}

/// One piece of a raw partition table: where on the disk, and its bytes.
pub type RawTable = (ByteOffset, Vec<u8>);

/// The payload of the tables section.
pub(super) fn encode_tables(tables: &[RawTable]) -> Vec<u8> {
    let count = u32::try_from(tables.len()).unwrap_or(u32::MAX);
    let mut out = count.to_le_bytes().to_vec();
    for (offset, bytes) in tables {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&offset.0.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// Reads the payload of the tables section; `None` when it does not add up.
pub(super) fn decode_tables(bytes: &[u8]) -> Option<Vec<RawTable>> {
    let mut f = Fields(bytes);
    let count = f.u32().filter(|c| *c <= MAX_RAW_REGIONS)?;
    let mut out = Vec::new();
    for _ in 0..count {
        let offset = ByteOffset(f.u64()?);
        let len = f.u32()?;
        let bytes = f.bytes(to_usize(u64::from(len)))?;
        offset.0.checked_add(to_u64(bytes.len()))?;
        out.push((offset, bytes.to_vec()));
    }
    f.is_empty().then_some(out)
}

/// Reads the payload of the info section; `None` when it is malformed or holds too many values.
pub(super) fn decode_info(bytes: &[u8]) -> Option<Info> {
    has_at_most(MAX_INFO_VALUES, bytes).then_some(())?;
    serde_json::from_slice(bytes).ok()
}

/// Reads the payload of the summary section; `None` when it is malformed or holds too many values.
pub(super) fn decode_summary(bytes: &[u8]) -> Option<Summary> {
    has_at_most(MAX_SUMMARY_VALUES, bytes).then_some(())?;
    serde_json::from_slice(bytes).ok()
}

/// Whether `json` holds no more than `most` values. Commas in texts count too, which is too many at worst.
pub(super) fn has_at_most(most: usize, json: &[u8]) -> bool {
    let begins = |byte: &&u8| matches!(byte, b',' | b'[' | b'{');
    json.iter().filter(begins).count() <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_does_not_fill_memory() {
        let zeros = |count: usize| vec!["0"; count].join(",");
        let info = |count| format!("{{\"layout\":[{}]}}", zeros(count)).into_bytes();
        assert!(decode_info(&info(1000)).is_some());
        assert_eq!(decode_info(&info(MAX_INFO_VALUES)), None);
        let texts = vec!["\"\""; MAX_SUMMARY_VALUES].join(",");
        let summary = format!("{{\"warnings\":[{texts}]}}");
        assert_eq!(decode_summary(summary.as_bytes()), None);
    }

    #[test]
    fn the_most_partitions_and_ranges_fit() {
        let partition = PartitionInfo {
            label: Some("a, b, c".into()),
            reason: "one, two, three".into(),
            ..PartitionInfo::default()
        };
        let partitions = vec![partition; 4096];
        let layout = serde_json::to_value(&partitions).unwrap();
        let info = Info {
            layout,
            partitions,
            ..Info::default()
        };
        let bytes = serde_json::to_vec(&info).unwrap();
        assert_eq!(decode_info(&bytes), Some(info));
        let range = ByteRange {
            start: 0,
            length: 0,
        };
        let shortest = serde_json::to_vec(&vec![range; 1000]).unwrap().len() / 1000;
        assert!((16 << 20) / shortest * 3 < MAX_SUMMARY_VALUES);
    }

    #[test]
    fn many_ranges_become_fewer_and_cover_the_same() {
        let range = |start, length| ByteRange { start, length };
        let ranges = vec![
            range(0, 512),
            range(1024, 512),
            range(1 << 20, 1),
            range(1 << 30, 7),
        ];
        assert_eq!(ByteRange::at_most(4, ranges.clone()), ranges);
        let three = vec![range(0, 1536), range(1 << 20, 1), range(1 << 30, 7)];
        assert_eq!(ByteRange::at_most(3, ranges.clone()), three);
        assert_eq!(ByteRange::at_most(0, ranges), [range(0, (1 << 30) + 7)]);
    }

    #[test]
    fn tables_round_trip() {
        let tables = vec![(ByteOffset(0), vec![1; 512]), (ByteOffset(1 << 40), vec![])];
        let bytes = encode_tables(&tables);
        assert_eq!(decode_tables(&bytes), Some(tables));
        assert_eq!(decode_tables(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode_tables(&u32::MAX.to_le_bytes()), None);
    }

    #[test]
    fn unknown_members_are_ignored_and_missing_ones_empty() {
        let info: Info = serde_json::from_str(r#"{"set":"a","later":[1]}"#).unwrap();
        assert_eq!(info.set, "a");
        assert_eq!(info.created, 0);
    }
}
