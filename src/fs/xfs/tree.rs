//! A tree of free space, every block of it checked against its neighbours and its parent.

use super::super::doubt::{Doubt, ensure};
use super::super::volume::Volume;
use super::disk::{Extent, NULL_BLOCK, Place, Superblock, TreeBlock};
use crate::base::to_usize;

/// What the extents of a tree are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By their first block.
    Block,
    /// By their number of blocks, then by their first block.
    Size,
}

impl Order {
    /// How blocks begin in versions 4 and 5.
    fn magic(self) -> [&'static [u8; 4]; 2] {
        match self {
            Order::Block => [b"ABTB", b"AB3B"],
            Order::Size => [b"ABTC", b"AB3C"],
        }
    }

    /// What the tree sorts by, as one number.
    fn key(self, extent: Extent) -> u64 {
        match self {
            Order::Block => extent.start.into(),
            Order::Size => u64::from(extent.count) << 32 | u64::from(extent.start),
        }
    }
}

/// What a walk comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A block of the tree itself.
    Block(u32),
    /// Free blocks, inside the group and behind its headers.
    Free(Extent),
}

/// A walk through one tree.
pub(super) struct Walk<'a, 'v> {
    pub(super) volume: &'a Volume<'v>,
    pub(super) superblock: &'a Superblock,
    /// The group, which exists.
    pub(super) group: u64,
    /// Blocks of its headers.
    pub(super) headers: u64,
    pub(super) order: Order,
}

/// How far a walk has come.
struct Trail<'a> {
    seen: &'a mut dyn FnMut(Seen) -> Result<(), Doubt>,
    /// For each level the block last seen on it and what that one has for its right neighbour.
    edges: Vec<Option<(u32, u32)>>,
    /// The last extent.
    last: Option<Extent>,
}

impl Walk<'_, '_> {
    /// Hands everything in the tree of `levels` levels at `root` to `seen`, extents in order. The
    /// tree may be damaged in any way; then it ends with a doubt.
    pub(super) fn run(
        &self,
        (root, levels): (u32, u32),
        seen: &mut dyn FnMut(Seen) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let mut trail = Trail {
            seen,
            edges: vec![None; to_usize(levels.into())],
            last: None,
        };
        self.descend(root, levels.saturating_sub(1), None, &mut trail)?;
        let open = trail.edges.iter().flatten().find(|e| e.1 != NULL_BLOCK);
        match open {
            None => Ok(()),
            Some((block, right)) => {
                let what = format!("has a neighbour {right} that is not in the tree");
                Err(Doubt::new(self.text(*block, &what)))
            }
        }
    }

    /// Walks what is below `block`, whose first extent its parent says to be `first`. Ends: each
    /// step goes one level down, and no leaf but the root is without an extent behind the last.
    fn descend(
        &self,
        block: u32,
        level: u32,
        first: Option<Extent>,
        trail: &mut Trail<'_>,
    ) -> Result<(), Doubt> {
        let (superblock, group) = (self.superblock, self.group);
        let inside = u64::from(block) < superblock.blocks_of(group);
        ensure(inside && u64::from(block) >= self.headers, || {
            format!(
                "a tree of free space of allocation group {group} leads to block {block}, where \
                 none can be: run xfs_repair on it"
            )
        })?;
        let at = superblock.byte_of(group, block.into());
        let bytes = self.volume.read(at, superblock.block)?;
        let place = Place {
            group,
            block,
            level,
        };
        let found = TreeBlock::decode(&bytes, superblock, place, self.order.magic())?;
        drop(bytes);
        (trail.seen)(Seen::Block(block))?;
        self.check_neighbours(block, level, &found, trail)?;
        let key = |extent: Option<&Extent>| extent.map(|e| self.order.key(*e));
        let empty_root = first.is_none() && level == 0;
        ensure(!found.extents.is_empty() || empty_root, || {
            self.text(block, "is empty")
        })?;
        ensure(
            first.is_none() || key(first.as_ref()) == key(found.extents.first()),
            || self.text(block, "does not begin as its parent says"),
        )?;
        if level == 0 {
            for extent in found.extents {
                self.check_extent(block, extent, trail)?;
                (trail.seen)(Seen::Free(extent))?;
            }
            return Ok(());
        }
        for (child, extent) in found.children.into_iter().zip(found.extents) {
            self.descend(child, level - 1, Some(extent), trail)?;
        }
        Ok(())
    }

    fn check_neighbours(
        &self,
        block: u32,
        level: u32,
        found: &TreeBlock,
        trail: &mut Trail<'_>,
    ) -> Result<(), Doubt> {
        let edge = trail.edges.get_mut(to_usize(level.into()));
        let before = edge.and_then(|edge| edge.replace((block, found.right)));
        let (left, right) = before.unwrap_or((NULL_BLOCK, block));
        ensure(found.left == left && right == block, || {
            self.text(block, "does not have the neighbours that it should")
        })
    }

    fn check_extent(&self, block: u32, extent: Extent, trail: &mut Trail<'_>) -> Result<(), Doubt> {
        let Extent { start, count } = extent;
        let end = u64::from(start) + u64::from(count);
        let inside = u64::from(start) >= self.headers
            && count > 0
            && end <= self.superblock.blocks_of(self.group);
        let behind = trail.last.is_none_or(|last| match self.order {
            Order::Block => u64::from(start) >= u64::from(last.start) + u64::from(last.count),
            Order::Size => self.order.key(extent) > self.order.key(last),
        });
        trail.last = Some(extent);
        ensure(inside && behind, || {
            let what = format!("has {count} free blocks at {start}, where they cannot be");
            self.text(block, &what)
        })
    }

    fn text(&self, block: u32, what: &str) -> String {
        format!(
            "block {block} of allocation group {}, of a tree of free space, {what}: run \
             xfs_repair on it",
            self.group
        )
    }
}
