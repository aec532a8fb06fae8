//! Where the parts of a file system lie that its superblock alone decides: superblock copies and
//! group descriptors. Facts: `fs/ext4/super.c`, `fs/ext4/balloc.c`.

use super::disk::{SUPERBLOCK_AT, Superblock};
use super::features::{compat, ro_compat};
use std::ops::Range;

impl Superblock {
    /// The block that holds the superblock.
    pub(super) fn own_block(&self) -> u64 {
        SUPERBLOCK_AT / self.block
    }

    /// The blocks of `group`, which is one of the groups.
    pub(super) fn group_blocks(&self, group: u64) -> Range<u64> {
        let start = self.first_block + group * self.blocks_per_group;
        start..start.saturating_add(self.blocks_per_group).min(self.blocks)
    }

    /// The clusters of `group`, counted from the first of group 0.
    pub(super) fn group_clusters(&self, group: u64) -> Range<u64> {
        let start = group * self.clusters_per_group();
        start
            ..start
                .saturating_add(self.clusters_per_group())
                .min(self.clusters())
    }

    /// Where `cluster` (counted from the first of group 0) begins, in bytes.
    pub(super) fn cluster_at(&self, cluster: u64) -> u64 {
        let block = self
            .first_block
            .saturating_add(cluster.saturating_mul(self.ratio));
        block.min(self.blocks) * self.block
    }

    /// The block that holds descriptor block `index`.
    pub(super) fn descriptor_block(&self, index: u64) -> u64 {
        if !self.has_meta_bg() || index < self.first_meta_bg {
            return self.own_block() + 1 + index;
        }
        let group = index * self.descriptors_per_block();
        let start = if group == 0 {
            // Blocks of 1 KiB have a boot block first, even when group 0 begins with it.
            self.own_block()
        } else {
            self.group_blocks(group).start
        };
        start + u64::from(self.has_copy(group))
    }

    /// The block with the nearest copy of descriptor block `index`, if there is one.
    pub(super) fn descriptor_copy(&self, index: u64) -> Option<u64> {
        let old = !self.has_meta_bg() || index < self.first_meta_bg;
        let there = old && self.groups() > 1 && self.has_copy(1);
        there.then(|| self.group_blocks(1).start + 1 + index)
    }

    /// Whether `group` begins with the superblock or a copy of it.
    fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.compat(compat::SPARSE_SUPER2) {
            return self.backup_groups.contains(&group);
        }
        let sparse = self.features.ro_compat(ro_compat::SPARSE_SUPER);
        !sparse || group == 1 || [3, 5, 7].into_iter().any(|base| is_power(group, base))
    }

    /// The blocks of superblock copies and descriptors (also copies, and what is reserved for more)
    /// in `group`. Two ranges, either of which may be empty; cut to the group.
    pub(super) fn base_blocks(&self, group: u64) -> [Range<u64>; 2] {
        let blocks = self.group_blocks(group);
        let copy = self.has_copy(group);
        let start = if group == 0 { 0 } else { blocks.start };
        let first = blocks
            .start
            .max(if group == 0 { self.own_block() } else { 0 });
        let behind_copy = first + u64::from(copy);
        let old = if self.has_meta_bg() {
            self.first_meta_bg
        } else {
            self.descriptor_blocks() + self.reserved_descriptor_blocks
        };
        let end = if copy { behind_copy + old } else { start };
        let meta = group / self.descriptors_per_block();
        let place = group % self.descriptors_per_block();
        let holds = place <= 1 || place == self.descriptors_per_block() - 1;
        let own = if self.has_meta_bg() && meta >= self.first_meta_bg && holds {
            behind_copy..behind_copy + 1
        } else {
            start..start
        };
        let cut = |range: Range<u64>| range.start..range.end.min(blocks.end);
        [cut(start..end), cut(own)]
    }
}

/// Whether `number` is `base` to the power of 1 or more.
fn is_power(number: u64, base: u64) -> bool {
    let mut power = base;
    while power < number {
        power = power.saturating_mul(base);
    }
    power == number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers() {
        let powers: Vec<u64> = (1..400).filter(|n| is_power(*n, 7)).collect();
        assert_eq!(powers, [7, 49, 343]);
        assert!(is_power(3, 3) && !is_power(1, 3) && !is_power(0, 3));
    }
}
