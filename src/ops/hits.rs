//! What lost bytes of a disk belong to: partitions, and the files in them.

use crate::base::{ByteLen, ByteOffset, Cancel, Extent, Result, subtract};
use crate::block::{BlockSource, SliceSource};
use crate::chain::ChainView;
use crate::fs::{self, FileHit};
use crate::image::{ByteRange, PartitionInfo};
use serde::Serialize;
use std::sync::Arc;

/// What is lost of one partition, or of what lies outside all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Its number, 0 for a disk without any; absent for what lies outside: partition tables, gaps.
    pub partition: Option<u32>,
    /// What it holds.
    pub filesystem: String,
    /// Its label.
    pub label: Option<String>,
    /// Bytes that are lost.
    pub bytes: u64,
    /// The files that lose something by it.
    pub files: Vec<FileRecord>,
    /// How many more there are than are listed.
    pub more_files: u64,
    /// Lost bytes that hold structures of the file system.
    pub metadata_bytes: u64,
    /// Lost bytes that nothing uses.
    pub free_bytes: u64,
    /// Why not all files are known; absent when they are.
    pub incomplete: Option<String>,
}

/// A file that loses something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRecord {
    /// The volume inside the partition that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Its path from the volume's root.
    pub path: String,
    /// More of its names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes of its content that are lost.
    pub bytes: u64,
    /// Whether what says where its content lies is lost: then more may be.
    pub own_metadata: bool,
}

impl FileRecord {
    fn of(file: FileHit) -> FileRecord {
        FileRecord {
            volume: file.volume,
            path: file.path,
            others: file.others,
            directory: file.directory,
            bytes: file.bytes,
            own_metadata: file.own_metadata,
        }
    }
}

/// What the bytes `lost` of the disk of `view`, which are ascending and apart, belong to, in the order of the
/// disk; what lies outside of all partitions comes last.
///
/// # Errors
/// `Interrupted` or `Terminated`.
pub(super) fn hits_on(view: &ChainView, cancel: &Cancel, lost: &[ByteRange]) -> Result<Vec<Hit>> {
    let partitions = &view.image().info().partitions;
    let mut found = hits(partitions, lost);
    for (hit, part) in found.iter_mut().filter_map(|hit| {
        let number = hit.partition?;
        let part = partitions.iter().find(|p| p.number == number)?;
        Some((hit, part))
    }) {
        let Some(whole) = Extent::new(ByteOffset(part.start), ByteLen(part.length)) else {
            continue;
        };
        let source: Arc<dyn BlockSource + '_> = Arc::new(view);
        let name = format!("partition {}", part.number);
        // A partition that passes the end of its disk holds nothing that could be walked.
        let Ok(slice) = SliceSource::new(name, source, whole) else {
            continue;
        };
        let inside = |range: &ByteRange| {
            let part = Extent::new(ByteOffset(range.start), ByteLen(range.length))?;
            let part = part.intersect(whole)?;
            Some(Extent {
                start: ByteOffset(part.start.0 - whole.start.0),
                len: part.len,
            })
        };
        let ranges: Vec<Extent> = lost.iter().filter_map(inside).collect();
        let files = fs::files_hit(&slice, &ranges, cancel)?;
        hit.files = files.files.into_iter().map(FileRecord::of).collect();
        hit.more_files = files.more;
        hit.metadata_bytes = sum(files.metadata.into_iter());
        hit.free_bytes = sum(files.free.into_iter());
        hit.incomplete = files.incomplete;
    }
    Ok(found)
}

/// As [`hits_on`], without the files.
pub(super) fn hits(partitions: &[PartitionInfo], lost: &[ByteRange]) -> Vec<Hit> {
    let extents = lost
        .iter()
        .filter_map(|r| Extent::new(ByteOffset(r.start), ByteLen(r.length)));
    let mut left: Vec<Extent> = extents.collect();
    let mut found = Vec::new();
    for info in partitions {
        let whole = Extent::new(ByteOffset(info.start), ByteLen(info.length));
        let Some(whole) = whole else {
            continue;
        };
        let bytes = sum(left.iter().filter_map(|e| e.intersect(whole)));
        if bytes > 0 {
            left = subtract(&left, &[whole]);
            found.push(Hit {
                partition: Some(info.number),
                filesystem: info.filesystem.clone(),
                label: info.label.clone(),
                bytes,
                ..Hit::default()
            });
        }
    }
    let bytes = sum(left.into_iter());
    if bytes > 0 {
        found.push(Hit {
            bytes,
            ..Hit::default()
        });
    }
    found
}

fn sum(extents: impl Iterator<Item = Extent>) -> u64 {
    extents.map(|e| e.len.0).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_belongs_to_one() {
        let part = |number, start, length| PartitionInfo {
            number,
            start,
            length,
            filesystem: "ext4".to_owned(),
            ..PartitionInfo::default()
        };
        let range = |start, length| ByteRange { start, length };
        let lost = [
            range(0, 512),
            range(900, 300),
            range(1500, 10),
            range(1990, 100),
        ];
        let parts = [part(1, 1000, 500), part(2, 1500, 500)];
        let told: Vec<_> = hits(&parts, &lost)
            .iter()
            .map(|h| (h.partition, h.bytes))
            .collect();
        assert_eq!(
            told,
            [(Some(1), 200), (Some(2), 20), (None, 512 + 100 + 90)]
        );
        assert_eq!(hits(&parts, &[]), []);
    }
}
