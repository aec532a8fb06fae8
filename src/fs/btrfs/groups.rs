//! Block groups: how much of each chunk is in use, as its item says and as its extents add up.

use super::super::doubt::{Doubt, ensure};
use super::chunks::Chunks;
use super::disk::{BlockGroup, Key, Superblock};

/// The block groups of all chunks, in their order.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Clone, Default)]
struct Group {
    /// What its item says, once that was met.
    said: Option<u64>,
    counted: u64,
}

impl Groups {
    /// One for each chunk; none of them was met yet.
    pub(super) fn of(chunks: &Chunks) -> Groups {
        Groups {
            groups: vec![Group::default(); chunks.places().len()],
        }
    }

    /// Notes a block group item.
    ///
    /// # Errors
    /// A doubt when there is no such chunk, or it is of another kind.
    pub(super) fn met(&mut self, chunks: &Chunks, key: Key, item: BlockGroup) -> Result<(), Doubt> {
        let (start, len) = (key.objectid, key.offset);
        let index = chunks.places().partition_point(|p| p.start < start);
        let place = chunks.places().get(index);
        let this = place.is_some_and(|p| p.start == start && p.len == len && p.kind == item.kind);
        let group = self
            .groups
            .get_mut(index)
            .filter(|g| this && g.said.is_none());
        let group = group.ok_or_else(|| {
            Doubt::new(format!(
                "its block group at {start}, {len} bytes of type {:#x}, is no chunk or is there twice",
                item.kind
            ))
        })?;
        group.said = Some(item.used);
        Ok(())
    }

    /// Adds an extent in the chunk with this index.
    pub(super) fn count(&mut self, index: usize, len: u64) {
        if let Some(group) = self.groups.get_mut(index) {
            group.counted = group.counted.saturating_add(len);
        }
    }

    /// Doubts unless what was counted is what block groups and superblock say.
    pub(super) fn check(&self, chunks: &Chunks, superblock: &Superblock) -> Result<(), Doubt> {
        let mut sum = 0u64;
        for (group, place) in self.groups.iter().zip(chunks.places()) {
            let (start, counted) = (place.start, group.counted);
            let said = group
                .said
                .ok_or_else(|| Doubt::new(format!("its chunk at {start} has no block group")))?;
            ensure(said == counted, || {
                format!(
                    "its block group at {start} claims {said} bytes in use, and its extents are {counted} bytes (`btrfs check` may tell more)"
                )
            })?;
            sum = sum.saturating_add(said);
        }
        ensure(sum == superblock.bytes_used, || {
            format!(
                "its superblock claims {} bytes in use, and its block groups {sum} (`btrfs check` may tell more)",
                superblock.bytes_used
            )
        })
    }
}
