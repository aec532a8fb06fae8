//! Which files hold given bytes: a pass over all inode tables, then one over all directories for the
//! names of the inodes that are hit.
//!
//! What a person loses decides what a byte counts as: blocks of files and directories are theirs, also
//! behind a file's end or allocated and never written; the blocks that say where those lie and extended
//! attributes are metadata, and the file is told of. Inodes without a name (journal, quota, resizing,
//! attributes of others) are metadata with all that they have.

use super::super::doubt::{Doubt, ensure};
use super::super::files::{Climber, Found, Hits, Search, shown};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::bits;
use super::descriptor::Descriptor;
use super::disk::Superblock;
use super::entries::{self, Entry};
use super::inode::{self, FLAG_ATTRIBUTE, FLAG_INLINE, Inode, KIND_DIRECTORY, Seen};
use super::state::{self, Settled};
use super::walk;
use crate::base::to_usize;
use std::ops::Range;

/// The root directory.
const ROOT: u64 = 2;
/// Inode tables and directories are read in runs of at most so many bytes.
const RUN: u64 = 1 << 20;

/// Tells `search` who holds what in the file system on `volume`.
pub(super) fn files(volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
    let (settled, is_settled) = match search.tolerate(state::settle(volume))? {
        Some(settled) => (settled, true),
        None => (state::as_it_lies(volume)?, false),
    };
    let tables = Tables {
        volume,
        settled: &settled,
    };
    let mut hits = Hits::default();
    let inodes = tables.find(search, &mut hits);
    search.tolerate(inodes)?;
    if is_settled && search.is_unsure() {
        let free = tables.free(search);
        search.tolerate(free)?;
    }
    if hits.is_empty() {
        return Ok(());
    }
    let named = tables.name(search, &mut hits);
    search.tolerate(named)?;
    let mut climber = Climber::new(ROOT, "inode");
    hits.list(search, &mut climber, ROOT, &mut |directory| {
        tables.step(directory)
    })
}

/// What the inode table has in one place.
enum Slot<'b> {
    /// An inode in use.
    Inode(Inode, &'b [u8]),
    /// One whose bytes are lost or damaged, and which is in use for all that is known.
    Lost,
}

/// All inode tables.
struct Tables<'a, 'v> {
    volume: &'v Volume<'v>,
    settled: &'a Settled<'v>,
}

/// A group and what its descriptor says, if that can be known.
struct Group {
    number: u64,
    descriptor: Descriptor,
    /// Whether the descriptor is a copy, whose flags may be out of date.
    is_copy: bool,
}

/// Is told of an inode: its number, its place in bytes, and what stands there.
type EachInode<'a> = dyn FnMut(&mut Search, u64, Range<u64>, Slot<'_>) -> Result<(), Doubt> + 'a;

impl Tables<'_, '_> {
    fn superblock(&self) -> &Superblock {
        &self.settled.superblock
    }

    fn bytes(&self, blocks: Range<u64>) -> Range<u64> {
        let block = self.superblock().block;
        blocks.start.saturating_mul(block)..blocks.end.saturating_mul(block)
    }

    /// The first pass: what is metadata, and which inodes are hit.
    fn find(&self, search: &mut Search, hits: &mut Hits) -> Result<(), Doubt> {
        let superblock = self.superblock();
        search.metadata(0..super::disk::SUPERBLOCK_AT + super::disk::SUPERBLOCK_LEN);
        if superblock.features.incompat(super::features::incompat::MMP) {
            search
                .metadata(self.bytes(superblock.mmp_block..superblock.mmp_block.saturating_add(1)));
        }
        self.each_group(search, &mut |search, group| {
            for range in superblock.base_blocks(group.number) {
                search.metadata(self.bytes(range));
            }
            let Descriptor {
                block_bitmap,
                inode_bitmap,
                ..
            } = group.descriptor;
            for bitmap in [block_bitmap, inode_bitmap] {
                search.metadata(self.bytes(bitmap..bitmap.saturating_add(1)));
            }
            let table = group.descriptor.inode_table;
            let end = table.saturating_add(superblock.inode_table_blocks());
            search.metadata(self.bytes(table..end));
            self.each_inode(search, group, &mut |search, number, place, slot| {
                let hit = search.touches(&place);
                match slot {
                    Slot::Inode(inode, _) => self.inode(search, hits, &inode, hit),
                    Slot::Lost => {
                        self.lost(search, hits, number, hit);
                        Ok(())
                    }
                }
            })
        })
    }

    /// An inode that cannot be read.
    fn lost(&self, search: &mut Search, hits: &mut Hits, number: u64, hit: bool) {
        if number != ROOT && self.superblock().is_own_inode(number) {
            return;
        }
        search.lacks("inodes cannot be read: what else their files hold is not known");
        let found = Found {
            own_metadata: hit,
            ..Found::default()
        };
        hits.add(number, &found);
    }

    /// What an inode in use holds. `hit`: its own bytes are.
    fn inode(
        &self,
        search: &mut Search,
        hits: &mut Hits,
        inode: &Inode,
        hit: bool,
    ) -> Result<(), Doubt> {
        let own = inode.number != ROOT && self.superblock().is_own_inode(inode.number);
        let own = own || inode.flags & FLAG_ATTRIBUTE != 0;
        let mut found = Found {
            bytes: 0,
            own_metadata: hit,
            directory: inode.kind() == KIND_DIRECTORY,
            certain: true,
        };
        if inode.attributes != 0 {
            let block = self.bytes(inode.attributes..inode.attributes.saturating_add(1));
            found.own_metadata |= search.metadata(block);
        }
        if inode.has_blocks() || own {
            let (view, superblock) = (&self.settled.view, self.superblock());
            inode.walk(view, superblock, &mut |seen| {
                match seen {
                    Seen::Run { run, .. } => {
                        let bytes = self.bytes(run.at..run.at.saturating_add(run.len));
                        if own {
                            search.metadata(bytes);
                        } else {
                            found.bytes += search.content(bytes);
                        }
                    }
                    Seen::Index(at) => {
                        found.own_metadata |= search.metadata(self.bytes(at..at.saturating_add(1)));
                    }
                    Seen::Lost(why) => {
                        self.volume.must_go_on()?;
                        search.lacks(why);
                    }
                }
                Ok(())
            })?;
        }
        if !own {
            hits.add(inode.number, &found);
        }
        Ok(())
    }

    /// Tells what the bitmaps call free: a file that was not found may have the rest.
    fn free(&self, search: &mut Search) -> Result<(), Doubt> {
        let mut known = 0;
        self.each_group(search, &mut |_, group| {
            known += u64::from(!group.is_copy);
            Ok(())
        })?;
        // In a group without a bitmap may lie the tables of another whose descriptor is lost.
        let all_known = known == self.superblock().groups();
        self.each_group(search, &mut |search, group| {
            if !group.is_copy && (all_known || !group.descriptor.uninitialised) {
                let free = self.free_of(search, group);
                self.known(free)?;
            }
            Ok(())
        })
    }

    /// Tells what is free of `group`, whose descriptor is no copy.
    fn free_of(&self, search: &mut Search, group: &Group) -> Result<(), Doubt> {
        let (
            superblock,
            Group {
                number, descriptor, ..
            },
        ) = (self.superblock(), group);
        let clusters = superblock.group_clusters(*number);
        let bytes = |run: Range<u64>| {
            let at = |n| superblock.cluster_at(clusters.start + n);
            at(run.start)..at(run.end)
        };
        let count = clusters.end - clusters.start;
        if !search.touches(&bytes(0..count)) {
            return Ok(());
        }
        if descriptor.uninitialised {
            // What metadata takes of it is told as such.
            search.free(bytes(0..count));
            return Ok(());
        }
        let at = descriptor.block_bitmap;
        walk::check_inside(superblock, "block bitmap", *number, at, 1)?;
        let block = self.settled.view.read(at, 1)?;
        let len = to_usize(superblock.clusters_per_group() / 8);
        let bitmap = Raw::new(&block, "block bitmap").slice(0, len)?;
        descriptor.check_bitmap(bitmap, superblock, *number)?;
        for run in bits::clear_runs(bitmap, count) {
            search.free(bytes(run));
        }
        Ok(())
    }

    /// All groups whose descriptor can be read, or a copy of it.
    fn each_group(
        &self,
        search: &mut Search,
        each: &mut dyn FnMut(&mut Search, &Group) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let superblock = self.superblock();
        let per_block = superblock.descriptors_per_block();
        for index in 0..superblock.descriptor_blocks() {
            let block = self
                .settled
                .view
                .read(superblock.descriptor_block(index), 1);
            let block = self.known(block)?;
            let first = index * per_block;
            let mut copy = None;
            for number in first..first.saturating_add(per_block).min(superblock.groups()) {
                let decoded = block
                    .as_ref()
                    .map(|block| walk::descriptor(block, superblock, number));
                let decoded = decoded.transpose();
                let mut found = self.known(decoded)?.flatten();
                let is_copy = found.is_none();
                if is_copy {
                    search.lacks("group descriptors cannot be read");
                    let bytes = match &copy {
                        Some(bytes) => bytes,
                        None => copy.insert(self.descriptor_copy(index)?),
                    };
                    let decoded = bytes
                        .as_ref()
                        .map(|bytes| walk::descriptor(bytes, superblock, number));
                    found = self.known(decoded.transpose())?.flatten();
                }
                if let Some(descriptor) = found {
                    let group = Group {
                        number,
                        descriptor,
                        is_copy,
                    };
                    each(search, &group)?;
                }
            }
        }
        Ok(())
    }

    /// The copy of descriptor block `index` in group 1, where there is one.
    fn descriptor_copy(&self, index: u64) -> Result<Option<Vec<u8>>, Doubt> {
        match self.superblock().descriptor_copy(index) {
            Some(block) => self.known(self.settled.view.read(block, 1)),
            None => Ok(None),
        }
    }

    /// What `result` has, if it is no doubt.
    fn known<T>(&self, result: Result<T, Doubt>) -> Result<Option<T>, Doubt> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Doubt::Unsure(_)) => {
                self.volume.must_go_on()?;
                Ok(None)
            }
            Err(stopped) => Err(stopped),
        }
    }

    /// All inodes in use of `group`, with their places in bytes.
    fn each_inode(
        &self,
        search: &mut Search,
        group: &Group,
        each: &mut EachInode<'_>,
    ) -> Result<(), Doubt> {
        let superblock = self.superblock();
        let (inode, block) = (superblock.inode, superblock.block);
        let table = group.descriptor.inode_table;
        let sound = walk::check_inside(
            superblock,
            "inode table",
            group.number,
            table,
            superblock.inode_table_blocks(),
        );
        if search.tolerate(sound)?.is_none() {
            return Ok(());
        }
        let wanted = match group.is_copy {
            true => superblock.inodes_per_group,
            false => group.descriptor.inodes(superblock.inodes_per_group),
        };
        if wanted == 0 {
            return Ok(());
        }
        let bitmap = self.settled.view.read(group.descriptor.inode_bitmap, 1);
        let bitmap = self.known(bitmap)?;
        let per_block = block / inode;
        let in_use = |index: u64| {
            let byte = bitmap.as_ref().map(|b| b.get(to_usize(index / 8)));
            byte.is_none_or(|byte| byte.is_some_and(|byte| byte >> (index % 8) & 1 != 0))
        };
        let blocks = wanted.div_ceil(per_block);
        let at_once = (RUN / block).max(1);
        for first in (0..blocks).step_by(to_usize(at_once)) {
            let count = at_once.min(blocks - first);
            let indexes = first * per_block..((first + count) * per_block).min(wanted);
            if !indexes.into_iter().any(in_use) {
                continue;
            }
            let read = |n, count| self.settled.view.read(table + first + n, count);
            self.volume
                .read_around(block, count, &read, &mut |n, bytes| {
                    for slot in 0..per_block {
                        let index = (first + n) * per_block + slot;
                        if index >= wanted || !in_use(index) {
                            continue;
                        }
                        let number = group.number * superblock.inodes_per_group + index + 1;
                        let at = (table + first + n) * block + slot * inode;
                        let bytes = bytes.and_then(|bytes| {
                            let at = to_usize(slot * inode);
                            bytes.get(at..at + to_usize(inode))
                        });
                        let slot = match bytes {
                            Some(bytes) => self.slot(bytes, number)?,
                            None => Some(Slot::Lost),
                        };
                        if let Some(slot) = slot {
                            each(search, number, at..at + inode, slot)?;
                        }
                    }
                    Ok(())
                })?;
        }
        Ok(())
    }

    /// What `bytes`, those of inode `number`, are; `None` for one that has no name and no content.
    fn slot<'b>(&self, bytes: &'b [u8], number: u64) -> Result<Option<Slot<'b>>, Doubt> {
        let raw = Raw::new(bytes, "inode");
        let own = self.superblock().is_own_inode(number);
        if !own && (raw.le16(0)? == 0 || raw.le16(0x1A)? == 0) {
            return Ok(None);
        }
        let Some(inode) = self.known(Inode::decode(bytes, self.superblock(), number))? else {
            return Ok(Some(Slot::Lost));
        };
        Ok(Some(Slot::Inode(inode, bytes)))
    }

    /// The second pass: names of what is hit.
    fn name(&self, search: &mut Search, hits: &mut Hits) -> Result<(), Doubt> {
        self.each_group(search, &mut |search, group| {
            self.each_inode(search, group, &mut |search, number, _, slot| {
                let Slot::Inode(inode, bytes) = slot else {
                    return Ok(());
                };
                if inode.kind() != KIND_DIRECTORY {
                    return Ok(());
                }
                let whole = self.each_entry(&inode, bytes, &mut |entry| {
                    let dots = matches!(entry.name, b"." | b"..");
                    if !dots && hits.wants(entry.inode) {
                        hits.name(entry.inode, number, shown(entry.name));
                    }
                    Ok(())
                })?;
                if !whole {
                    search.lacks("directories are damaged or cannot be read: names are missing");
                }
                Ok(())
            })
        })
    }

    /// The entries of a directory, with `.` and `..`. Whether all of it could be read.
    fn each_entry(
        &self,
        directory: &Inode,
        bytes: &[u8],
        each: &mut dyn FnMut(Entry<'_>) -> Result<(), Doubt>,
    ) -> Result<bool, Doubt> {
        if directory.flags & FLAG_INLINE != 0 {
            let mut failed = None;
            let parent = entries::of_inode(bytes, &mut |entry| {
                let result = each(entry);
                let stop = result.is_err();
                failed = result.err();
                ensure(!stop, || "")
            });
            return match (failed, self.known(parent)?) {
                (Some(doubt), _) => Err(doubt),
                (None, Some(inode)) => {
                    let name = b"..";
                    each(Entry { inode, name }).map(|()| true)
                }
                (None, None) => Ok(false),
            };
        }
        let (view, superblock) = (&self.settled.view, self.superblock());
        let mut whole = true;
        directory.walk(view, superblock, &mut |seen| {
            match seen {
                Seen::Run { run, written: true } => {
                    let at_once = (RUN / superblock.block).max(1);
                    for first in (0..run.len).step_by(to_usize(at_once)) {
                        let count = at_once.min(run.len - first);
                        let read = |n, count| view.read(run.at + first + n, count);
                        let block = superblock.block;
                        self.volume
                            .read_around(block, count, &read, &mut |_, bytes| {
                                whole &= self.block_entries(bytes, each)?;
                                Ok(())
                            })?;
                    }
                }
                Seen::Run { .. } | Seen::Index(_) => {}
                Seen::Lost(_) => {
                    self.volume.must_go_on()?;
                    whole = false;
                }
            }
            Ok(())
        })?;
        Ok(whole)
    }

    /// The entries of one block of a directory; whether it is sound.
    fn block_entries(
        &self,
        block: Option<&[u8]>,
        each: &mut dyn FnMut(Entry<'_>) -> Result<(), Doubt>,
    ) -> Result<bool, Doubt> {
        let Some(block) = block else {
            return Ok(false);
        };
        let mut found = Vec::new();
        let sound = entries::of_block(block, &mut |entry| {
            found.push(entry);
            Ok(())
        });
        found.into_iter().try_for_each(each)?;
        Ok(self.known(sound)?.is_some())
    }

    /// The directory that holds directory `number`, and its name there.
    fn step(&self, number: u64) -> Result<Option<(u64, String)>, Doubt> {
        let mut parent = None;
        let Some((directory, bytes)) = self.directory(number)? else {
            return Ok(None);
        };
        self.each_entry(&directory, &bytes, &mut |entry| {
            if entry.name == b".." {
                parent = Some(entry.inode);
            }
            Ok(())
        })?;
        let Some(parent) = parent else {
            return Ok(None);
        };
        let Some((above, bytes)) = self.directory(parent)? else {
            return Ok(None);
        };
        let mut name = None;
        self.each_entry(&above, &bytes, &mut |entry| {
            if entry.inode == number && !matches!(entry.name, b"." | b"..") {
                name.get_or_insert_with(|| shown(entry.name));
            }
            Ok(())
        })?;
        Ok(name.map(|name| (parent, name)))
    }

    /// Inode `number`, if it can be read and is a directory.
    fn directory(&self, number: u64) -> Result<Option<(Inode, Vec<u8>)>, Doubt> {
        let superblock = self.superblock();
        let group = number.saturating_sub(1) / superblock.inodes_per_group;
        if number == 0 || group >= superblock.groups() {
            return Ok(None);
        }
        let per_block = superblock.descriptors_per_block();
        let at = superblock.descriptor_block(group / per_block);
        let read = self.settled.view.read(at, 1);
        let read = read.and_then(|block| walk::descriptor(&block, superblock, group));
        let mut descriptor = self.known(read)?;
        if descriptor.is_none()
            && let Some(block) = self.descriptor_copy(group / per_block)?
        {
            descriptor = self.known(walk::descriptor(&block, superblock, group))?;
        }
        let Some(descriptor) = descriptor else {
            return Ok(None);
        };
        let view = &self.settled.view;
        let bytes = inode::inode_bytes(view, superblock, number, descriptor.inode_table);
        let Some(bytes) = self.known(bytes)? else {
            return Ok(None);
        };
        let found = self.known(Inode::decode(&bytes, superblock, number))?;
        let found = found.filter(|inode| inode.kind() == KIND_DIRECTORY && inode.links > 0);
        Ok(found.map(|inode| (inode, bytes)))
    }
}
