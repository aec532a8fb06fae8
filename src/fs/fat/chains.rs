//! Whether the chains of a table hold together, with one bit a cluster.

use super::super::doubt::{Doubt, ensure};
use super::disk::{Boot, Width};
use crate::base::to_usize;

/// What an entry of the table says of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Free,
    /// The file goes on in this cluster.
    Next(u32),
    /// Last of a file, or reserved by a system.
    End,
    /// The medium fails there.
    Bad,
}

impl Entry {
    /// What `value` says of cluster `cluster`.
    ///
    /// # Errors
    /// A doubt for a cluster that does not exist.
    pub(super) fn of(boot: &Boot, cluster: u64, value: u32) -> Result<Entry, Doubt> {
        let last = boot.width.mask();
        Ok(match value {
            0 => Entry::Free,
            next if boot.has(next) => Entry::Next(next),
            bad if bad == last - 8 => Entry::Bad,
            end if end >= last - 15 => Entry::End,
            wrong => {
                return Err(Doubt::new(format!(
                    "its file allocation table leads from cluster {cluster} to {wrong}, which does \
                     not exist: run fsck.fat"
                )));
            }
        })
    }
}

/// Which clusters are free or have something before them in their chain. Each cluster can be so
/// only once: two chains that meet, or one that leads into free clusters, show a damaged table.
pub(super) struct Chains {
    met: Vec<u64>,
}

impl Chains {
    /// For the clusters of `boot`, of which FAT has at the most 2^28.
    pub(super) fn new(boot: &Boot) -> Chains {
        let words = (boot.clusters + 2).div_ceil(64);
        Chains {
            met: vec![0; to_usize(words)],
        }
    }

    /// `cluster` is free.
    pub(super) fn free(&mut self, cluster: u64) -> Result<(), Doubt> {
        ensure(self.meet(cluster), || {
            format!(
                "a file goes on in cluster {cluster}, which its file allocation table calls free: \
                 run fsck.fat"
            )
        })
    }

    /// A chain leads from `from` to `cluster`.
    pub(super) fn next(&mut self, from: u64, cluster: u32) -> Result<(), Doubt> {
        ensure(self.meet(u64::from(cluster)), || {
            format!(
                "its file allocation table leads from cluster {from} to {cluster}, which is free or \
                 part of another file: run fsck.fat"
            )
        })
    }

    /// Whether this is the first time for a cluster, which is one of the volume's.
    fn meet(&mut self, cluster: u64) -> bool {
        let Some(word) = self.met.get_mut(to_usize(cluster / 64)) else {
            return false;
        };
        let bit = 1 << (cluster % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }
}

/// Whether the second entry of a table says that the volume was put away properly, and that no
/// access failed; FAT12 does not tell.
pub(super) fn put_away(width: Width, second: u32) -> (bool, bool) {
    match width {
        Width::Twelve => (true, true),
        Width::Sixteen => (second & 1 << 15 != 0, second & 1 << 14 != 0),
        Width::ThirtyTwo => (second & 1 << 27 != 0, second & 1 << 26 != 0),
    }
}
