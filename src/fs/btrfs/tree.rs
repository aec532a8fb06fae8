//! Reading trees: every block is checked before it is believed, and a damaged copy is replaced by
//! the other one, if there is one (`fs/btrfs/disk-io.c`, `fs/btrfs/tree-checker.c`).

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::chunks::Chunks;
use super::disk::tree::SHARED;
use super::disk::{Key, Root, Superblock};
use crate::base::{BlockIndex, BlockMap, to_u64, to_usize};
use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;

const HEADER_LEN: usize = 101;
const ITEM_LEN: usize = 25;
const POINTER_LEN: usize = 33;
/// The deepest that a tree can be, `BTRFS_MAX_LEVEL`.
const LEVELS: u8 = 8;
/// What the addresses of tree blocks may take of memory.
const MAX_NODES_MEMORY: u64 = 16 << 20;
/// How often that is looked at, in blocks.
const LOOK_EVERY: u64 = 1 << 16;

/// What may be done with an item: its key and its bytes.
pub(super) type Visit<'f> = &'f mut dyn FnMut(Key, Raw<'_>) -> Result<(), Doubt>;

/// Told why a tree block and all below it are left out.
pub(super) type Lost<'f> = &'f mut dyn FnMut(String) -> Result<(), Doubt>;

/// The trees of a file system.
pub(super) struct Trees<'a, 'v> {
    volume: &'a Volume<'v>,
    superblock: &'a Superblock,
    chunks: Chunks,
    /// Tree blocks that were met and must be found in use, by their address in blocks.
    nodes: RefCell<BlockMap>,
    met: Cell<u64>,
    /// Copies that were damaged while the other one was good.
    damaged: Cell<u64>,
}

/// Which tree blocks a walk is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// All, down to the items.
    Items,
    /// The inner ones, which tell the addresses of all others.
    Addresses,
}

/// What a parent says of a child.
struct Expected {
    root: Root,
    first: Option<Key>,
}

/// A walk on its way.
struct Walk<'w> {
    range: RangeInclusive<Key>,
    depth: Depth,
    last: Option<Key>,
    /// Told the address of each tree block.
    meet: &'w mut dyn FnMut(u64) -> Result<(), Doubt>,
    /// Told why a block is left out; without it the walk ends there.
    lost: Option<Lost<'w>>,
}

impl<'a, 'v> Trees<'a, 'v> {
    pub(super) fn new(
        volume: &'a Volume<'v>,
        superblock: &'a Superblock,
        chunks: Chunks,
    ) -> Trees<'a, 'v> {
        Trees {
            volume,
            superblock,
            chunks,
            nodes: RefCell::new(BlockMap::empty(u64::MAX / superblock.block())),
            met: Cell::new(0),
            damaged: Cell::new(0),
        }
    }

    /// Where logical addresses lie.
    pub(super) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Damaged copies that were met.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged.get()
    }

    /// Visits the items of the tree at `root` whose keys are in `range`, in their order, and notes
    /// its blocks as in use.
    ///
    /// # Errors
    /// A doubt when a block has no good copy or does not fit to its parent, and whatever `visit`
    /// doubts.
    pub(super) fn items(
        &self,
        root: Root,
        range: RangeInclusive<Key>,
        visit: Visit<'_>,
    ) -> Result<(), Doubt> {
        let walk = Walk {
            range,
            depth: Depth::Items,
            last: None,
            meet: &mut |at| self.met(at),
            lost: None,
        };
        self.walk(root, walk, visit)
    }

    /// As [`Trees::items`] for all items, with a word for each tree block instead of a note.
    pub(super) fn items_telling(
        &self,
        root: Root,
        meet: &mut dyn FnMut(u64) -> Result<(), Doubt>,
        visit: Visit<'_>,
    ) -> Result<(), Doubt> {
        let walk = Walk {
            range: Key::FIRST..=Key::LAST,
            depth: Depth::Items,
            last: None,
            meet,
            lost: None,
        };
        self.walk(root, walk, visit)
    }

    /// As [`Trees::items_telling`], without the blocks that have no good copy: those are told to `lost`.
    pub(super) fn items_around(
        &self,
        root: Root,
        meet: &mut dyn FnMut(u64) -> Result<(), Doubt>,
        lost: Lost<'_>,
        visit: Visit<'_>,
    ) -> Result<(), Doubt> {
        let walk = Walk {
            range: Key::FIRST..=Key::LAST,
            depth: Depth::Items,
            last: None,
            meet,
            lost: Some(lost),
        };
        self.walk(root, walk, visit)
    }

    /// Notes all blocks of a tree as in use, without a look at its leaves.
    pub(super) fn addresses(&self, root: Root) -> Result<(), Doubt> {
        let mut nothing = |_: Key, _: Raw<'_>| Ok(());
        let walk = Walk {
            range: Key::FIRST..=Key::LAST,
            depth: Depth::Addresses,
            last: None,
            meet: &mut |at| self.met(at),
            lost: None,
        };
        self.walk(root, walk, &mut nothing)
    }

    fn walk(&self, root: Root, mut walk: Walk<'_>, visit: Visit<'_>) -> Result<(), Doubt> {
        ensure(root.level < LEVELS, || {
            format!("its tree {} claims {} levels", name(root.owner), root.level)
        })?;
        (walk.meet)(root.at)?;
        self.visit(&Expected { root, first: None }, &mut walk, visit)
    }

    /// One tree block and all below it. Levels fall, which bounds the recursion; keys ascend, so that
    /// no block is met twice.
    fn visit(
        &self,
        expected: &Expected,
        walk: &mut Walk<'_>,
        visit: Visit<'_>,
    ) -> Result<(), Doubt> {
        if expected.root.level == 0 && walk.depth == Depth::Addresses {
            return Ok(());
        }
        let bytes = match (self.read(expected), &mut walk.lost) {
            (Err(Doubt::Unsure(why)), Some(lost)) => return lost(why),
            (bytes, _) => bytes?,
        };
        let node = Raw::new(&bytes, "tree block");
        let count = to_usize(u64::from(node.le32(0x60)?));
        if expected.root.level == 0 {
            return self.leaf(&node, count, expected, walk, visit);
        }
        let at = |n: usize| HEADER_LEN + n * POINTER_LEN;
        for n in 0..count {
            let first = Key::decode(&node, at(n))?;
            // Keys between two pointers belong to the first of them.
            let next = if n + 1 < count {
                Some(Key::decode(&node, at(n + 1))?)
            } else {
                None
            };
            ensure(next.is_none_or(|next| first < next), || {
                format!("{} has pointers out of order", describe(&expected.root))
            })?;
            let before = next.is_some_and(|next| next <= *walk.range.start());
            if before || first > *walk.range.end() {
                continue;
            }
            let child = Root {
                at: node.le64(at(n) + 17)?,
                generation: node.le64(at(n) + 25)?,
                level: expected.root.level - 1,
                owner: expected.root.owner,
            };
            (walk.meet)(child.at)?;
            let child = Expected {
                root: child,
                first: Some(first),
            };
            self.visit(&child, walk, visit)?;
        }
        Ok(())
    }

    fn leaf(
        &self,
        node: &Raw<'_>,
        count: usize,
        expected: &Expected,
        walk: &mut Walk<'_>,
        visit: Visit<'_>,
    ) -> Result<(), Doubt> {
        let data = node.from(HEADER_LEN)?;
        let mut end = to_u64(data.bytes().len());
        for at in (0..count).map(|n| HEADER_LEN + n * ITEM_LEN) {
            let key = Key::decode(node, at)?;
            let (offset, len) = (
                u64::from(node.le32(at + 17)?),
                u64::from(node.le32(at + 21)?),
            );
            let ascends = walk.last.is_none_or(|last| last < key);
            // The bytes of items lie back to back, from the end of the block down to the keys.
            let fits = offset + len == end && to_usize(offset) >= count * ITEM_LEN;
            ensure(ascends && fits, || {
                format!(
                    "{} has items out of order at key {key}",
                    describe(&expected.root)
                )
            })?;
            end = offset;
            walk.last = Some(key);
            if walk.range.contains(&key) {
                let bytes = data.slice(to_usize(offset), to_usize(len))?;
                visit(key, Raw::new(bytes, "item of a tree"))?;
            }
        }
        Ok(())
    }

    /// A good copy of a tree block.
    fn read(&self, expected: &Expected) -> Result<Vec<u8>, Doubt> {
        let root = &expected.root;
        let len = self.superblock.node();
        ensure(root.at.is_multiple_of(self.superblock.block()), || {
            format!("{} lies in the middle of a block", describe(root))
        })?;
        let place = self.chunks.find(root.at, len)?;
        let (mut damaged, mut why) = (0, String::new());
        for at in place.copies_of(root.at) {
            let read = self.volume.read(at, len);
            let good = read.and_then(|bytes| {
                self.check(&bytes, expected)
                    .map_err(|what| Doubt::new(format!("{what} (byte {at})")))?;
                Ok(bytes)
            });
            match good {
                Ok(bytes) => {
                    self.damaged.set(self.damaged.get() + damaged);
                    return Ok(bytes);
                }
                // Told is what is wrong with the first.
                Err(Doubt::Unsure(what)) if why.is_empty() => why = what,
                Err(Doubt::Unsure(_)) => {}
                Err(stopped) => return Err(stopped),
            }
            damaged += 1;
        }
        Err(Doubt::new(format!(
            "{} has no good copy: {why}",
            describe(root)
        )))
    }

    /// Whether a block is the one that its parent means.
    fn check(&self, bytes: &[u8], expected: &Expected) -> Result<(), String> {
        let root = &expected.root;
        if !self.superblock.checksum.is_right(bytes) {
            return Err("its checksum is wrong".to_owned());
        }
        let raw = Raw::new(bytes, "tree block");
        let header = || -> Result<_, Doubt> {
            let count = raw.le32(0x60)?;
            let first = Key::decode(&raw, HEADER_LEN)?;
            Ok((
                (raw.slice(0x20, 16)?, raw.le64(0x30)?, raw.le64(0x50)?),
                (raw.le64(0x58)?, raw.u8(0x64)?, count, first),
            ))
        };
        let Ok(((uuid, at, generation), (owner, level, count, first))) = header() else {
            return Err("it is cut off".to_owned());
        };
        let facts = [
            ("address", at, root.at),
            ("generation", generation, root.generation),
            (
                "owner",
                if root.owner == SHARED { SHARED } else { owner },
                root.owner,
            ),
            ("level", u64::from(level), u64::from(root.level)),
        ];
        for (what, found, wanted) in facts {
            if found != wanted {
                return Err(format!("its {what} is {found} instead of {wanted}"));
            }
        }
        let entry = if level == 0 { ITEM_LEN } else { POINTER_LEN };
        let room = to_u64(bytes.len().saturating_sub(HEADER_LEN) / entry);
        let empty_root = count == 0 && level == 0 && expected.first.is_none();
        let sound = uuid == self.superblock.tree_uuid
            && u64::from(count) <= room
            && (count > 0 || empty_root)
            && expected.first.is_none_or(|wanted| wanted == first);
        if sound {
            Ok(())
        } else {
            Err("it belongs to another place or file system".to_owned())
        }
    }

    /// Notes that the tree block at `at` was met.
    fn met(&self, at: u64) -> Result<(), Doubt> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.insert(BlockIndex(at / self.superblock.block()));
        self.met.set(self.met.get() + 1);
        let look = self.met.get().is_multiple_of(LOOK_EVERY);
        ensure(
            !look || nodes.memory() <= MAX_NODES_MEMORY,
            || "its trees have more blocks than can be checked",
        )
    }

    /// Notes that the tree block at `at` was found in use.
    pub(super) fn found(&self, at: u64) {
        let block = at / self.superblock.block();
        self.nodes.borrow_mut().remove_range(block..block + 1);
    }

    /// A tree block that was met and not found in use.
    pub(super) fn lost(&self) -> Option<u64> {
        let nodes = self.nodes.borrow();
        let first = nodes.next_from(BlockIndex(0))?;
        Some(first.0.saturating_mul(self.superblock.block()))
    }
}

/// A tree's number; negative ones are how those at the end are known.
fn name(owner: u64) -> String {
    match owner {
        super::disk::tree::LOG => "of the log".to_owned(),
        other => other.to_string(),
    }
}

fn describe(root: &Root) -> String {
    format!(
        "the block at its address {} of tree {}",
        root.at,
        name(root.owner)
    )
}
