//! What lost bytes of a disk belong to: partitions.

use crate::base::{ByteLen, ByteOffset, Extent, subtract};
use crate::image::{ByteRange, PartitionInfo};
use serde::Serialize;

/// What is lost of one partition, or of what lies outside all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Its number, 0 for a disk without any; absent for what lies outside: partition tables, gaps.
    pub partition: Option<u32>,
    /// What it holds.
    pub filesystem: String,
    /// Its label.
    pub label: Option<String>,
    /// Bytes that are lost.
    pub bytes: u64,
}

/// What the bytes `lost`, which are ascending and apart, belong to, in the order of the disk; what lies
/// outside of all partitions comes last.
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
            });
        }
    }
    let bytes = sum(left.into_iter());
    if bytes > 0 {
        found.push(Hit {
            partition: None,
            filesystem: String::new(),
            label: None,
            bytes,
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
