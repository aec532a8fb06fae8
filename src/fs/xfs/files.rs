//! Which files hold given bytes: a pass over all inodes, which the trees of inodes list, then one over
//! all directories for the names of those that are hit. Several files may hold the same bytes (reflink).
//!
//! The fork of data is content, that of attributes is metadata of its file, as are the blocks of either
//! fork's tree. Of the rest, what the trees of free space list is free, and all else is the file system's
//! own: headers, trees, the log, inodes that have no names.

use super::super::doubt::{Doubt, ensure};
use super::super::files::{Climber, Found, Hits, Search, shown};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::disk::{self, GroupHeader, NULL_BLOCK, Superblock, checksum_holds};
use super::entries::{self, Entry};
use super::inode::{Fork, Inode, KIND_DIRECTORY, Seen};
use super::tree::{Order, Walk};
use super::{features, log};
use crate::base::to_usize;
use std::collections::BTreeMap;
use std::ops::Range;

/// Inodes of a chunk.
const CHUNK: u64 = 64;
/// The tree of inodes has no more levels.
const MAX_LEVELS: u32 = 9;
/// Runs of a directory that are followed: 2 MiB of memory.
const MAX_RUNS: usize = 1 << 16;

/// Tells `search` who holds what in the file system on `volume`.
pub(super) fn files(volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
    let start = volume.read(0, disk::SMALLEST)?;
    let sector = Superblock::sector_of(&start)?;
    let superblock = Superblock::decode(&volume.read(0, sector)?)?;
    let bytes = superblock.bytes().unwrap_or(u64::MAX);
    ensure(bytes <= volume.len(), || "it is longer than what holds it")?;
    superblock.check_inodes()?;
    search.tolerate(features::check(&superblock))?;
    let clean_log = search.tolerate(log::must_be_clean(volume, &superblock))?;
    match clean_log.clone() {
        Some(log) => {
            search.metadata(log);
        }
        None => {
            let log = superblock.place_of(superblock.log_start, superblock.log_blocks);
            let len = superblock.log_blocks.saturating_mul(superblock.block);
            if let Some(at) = log {
                search.metadata(at..at.saturating_add(len));
            }
        }
    }
    let inodes = Inodes {
        volume,
        superblock: &superblock,
    };
    let mut hits = Hits::default();
    let found = inodes.find(search, &mut hits);
    search.tolerate(found)?;
    // The log may hold extents of files that the trees still call free.
    if clean_log.is_some() {
        let free = inodes.free(search);
        search.tolerate(free)?;
    }
    // What lies behind the file system is nobody's.
    search.free(bytes..volume.len());
    search.rest_is_metadata();
    if hits.is_empty() {
        return Ok(());
    }
    let named = inodes.name(search, &mut hits);
    search.tolerate(named)?;
    let root = superblock.root_inode;
    let mut climber = Climber::new(root, "inode");
    hits.list(search, &mut climber, root, &mut |directory| {
        inodes.step(directory)
    })
}

/// What is where an inode should be.
enum Slot<'b> {
    Inode(Inode<'b>),
    /// Its bytes are lost or damaged.
    Lost,
}

struct Inodes<'a, 'v> {
    volume: &'v Volume<'v>,
    superblock: &'a Superblock,
}

/// Takes the groups' chunks of inodes: the first one's number within the group, and a bit for each that
/// is in use.
type EachChunk<'f> = &'f mut dyn FnMut(&mut Search, u64, u64) -> Result<(), Doubt>;
/// Takes inodes with their numbers and places.
type EachInode<'f> = &'f mut dyn FnMut(&mut Search, u64, Range<u64>, Slot<'_>) -> Result<(), Doubt>;

impl Inodes<'_, '_> {
    /// The first pass: which inodes are hit.
    fn find(&self, search: &mut Search, hits: &mut Hits) -> Result<(), Doubt> {
        self.each_inode(search, &mut |search, number, place, slot| {
            let hit = search.metadata(place);
            let own = self.superblock.own_inodes.contains(&number);
            match slot {
                Slot::Inode(inode) => self.inode(search, hits, &inode, own, hit),
                Slot::Lost if own => Ok(()),
                Slot::Lost => {
                    search.lacks("inodes cannot be read: what else their files hold is not known");
                    let found = Found {
                        own_metadata: hit,
                        ..Found::default()
                    };
                    hits.add(number, &found);
                    Ok(())
                }
            }
        })
    }

    fn inode(
        &self,
        search: &mut Search,
        hits: &mut Hits,
        inode: &Inode<'_>,
        own: bool,
        hit: bool,
    ) -> Result<(), Doubt> {
        let own = own || inode.own;
        if inode.links == 0 && !own {
            return Ok(());
        }
        let mut found = Found {
            bytes: 0,
            own_metadata: hit,
            directory: inode.kind == KIND_DIRECTORY,
            certain: true,
        };
        let block = self.superblock.block;
        for (fork, is_content) in [(inode.data, !own), (inode.attributes, false)] {
            fork.walk(self.volume, self.superblock, inode.number, &mut |seen| {
                match seen {
                    Seen::Run(run) => {
                        let bytes = run.at..run.at.saturating_add(run.len.saturating_mul(block));
                        if is_content {
                            found.bytes = found.bytes.saturating_add(search.content(bytes));
                        } else {
                            found.own_metadata |= search.metadata(bytes);
                        }
                    }
                    Seen::Tree(at) => {
                        found.own_metadata |= search.metadata(at..at.saturating_add(block));
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

    /// What the trees of free space list, of groups that are asked for.
    fn free(&self, search: &mut Search) -> Result<(), Doubt> {
        let superblock = self.superblock;
        for group in 0..superblock.groups {
            let start = superblock.byte_of(group, 0);
            let end = superblock.byte_of(group, superblock.blocks_of(group));
            if !search.touches(&(start..end)) {
                continue;
            }
            let free = self.free_of(search, group, start);
            search.tolerate(free)?;
            self.volume.must_go_on()?;
        }
        Ok(())
    }

    fn free_of(&self, search: &mut Search, group: u64, start: u64) -> Result<(), Doubt> {
        let superblock = self.superblock;
        let sector = superblock.sector;
        let bytes = self.volume.read(start.saturating_add(sector), sector)?;
        let header = GroupHeader::decode(&bytes, superblock, group)?;
        let walk = Walk {
            volume: self.volume,
            superblock,
            group,
            headers: (4 * sector).div_ceil(superblock.block),
            order: Order::Block,
        };
        walk.run(header.by_block, &mut |seen| {
            if let super::tree::Seen::Free(extent) = seen {
                let at = superblock.byte_of(group, extent.start.into());
                let len = u64::from(extent.count).saturating_mul(superblock.block);
                search.free(at..at.saturating_add(len));
            }
            Ok(())
        })
    }

    /// All inodes in use.
    fn each_inode(&self, search: &mut Search, each: EachInode<'_>) -> Result<(), Doubt> {
        for group in 0..self.superblock.groups {
            let done = self.each_chunk(search, group, &mut |search, first, in_use| {
                self.chunk(search, group, (first, in_use), each)
            });
            search.tolerate(done)?;
            self.volume.must_go_on()?;
        }
        Ok(())
    }

    /// The inodes of a chunk: its first one's number within the group and a bit for each in use.
    fn chunk(
        &self,
        search: &mut Search,
        group: u64,
        (first, in_use): (u64, u64),
        each: EachInode<'_>,
    ) -> Result<(), Doubt> {
        let superblock = self.superblock;
        let (inode, block) = (superblock.inode, superblock.block);
        let start = superblock
            .byte_of(group, first >> superblock.inode_bits)
            .saturating_add(first % (1 << superblock.inode_bits) * inode);
        // A block of inodes, or the chunk where blocks are larger than that.
        let unit = block.min(CHUNK * inode);
        let per_unit = unit / inode;
        for piece in 0..CHUNK / per_unit {
            let of_piece = |n: u64| in_use >> (piece * per_unit + n) & 1 != 0;
            if !(0..per_unit).any(of_piece) {
                continue;
            }
            let at = start.saturating_add(piece * unit);
            let bytes = self.known(self.volume.read(at, unit))?;
            for n in (0..per_unit).filter(|n| of_piece(*n)) {
                let number = first + piece * per_unit + n;
                let number = group << superblock.group_inode_bits() | number;
                let place = at + n * inode..at + (n + 1) * inode;
                let own = bytes.as_ref().and_then(|bytes| {
                    let at = to_usize(n * inode);
                    bytes.get(at..at + to_usize(inode))
                });
                let decoded = own.map(|own| Inode::decode(own, superblock, number));
                match self.known(decoded.transpose())?.flatten() {
                    Some(Some(inode)) => each(search, number, place, Slot::Inode(inode))?,
                    Some(None) => {
                        search.metadata(place);
                    }
                    None => each(search, number, place, Slot::Lost)?,
                }
            }
        }
        Ok(())
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

    /// The chunks that the tree of inodes of `group` lists.
    fn each_chunk(
        &self,
        search: &mut Search,
        group: u64,
        each: EachChunk<'_>,
    ) -> Result<(), Doubt> {
        let superblock = self.superblock;
        let at = superblock.byte_of(group, 0) + 2 * superblock.sector;
        let bytes = self.volume.read(at, superblock.sector)?;
        let raw = Raw::new(&bytes, "header of inodes");
        let mut sound = raw.slice(0, 4)? == b"XAGI" && u64::from(raw.be32(8)?) == group;
        if superblock.v5() {
            sound &= checksum_holds(&bytes, 312)? && raw.slice(296, 16)? == superblock.meta_uuid;
        }
        let (root, levels) = (raw.be32(20)?, raw.be32(24)?);
        ensure(sound && (1..=MAX_LEVELS).contains(&levels), || {
            format!(
                "the header of inodes of allocation group {group} is damaged: run xfs_repair on it"
            )
        })?;
        let mut next = 0;
        self.tree(search, group, (root, levels - 1), &mut next, each)
    }

    /// What lies below a block of the tree of inodes, numbers from `next` on; what cannot be read is
    /// left out.
    fn tree(
        &self,
        search: &mut Search,
        group: u64,
        (block, level): (u32, u32),
        next: &mut u64,
        each: EachChunk<'_>,
    ) -> Result<(), Doubt> {
        let read = self.tree_block(group, block, level);
        let Some(bytes) = self.known(read)? else {
            search.lacks(format!(
                "a tree of inodes of allocation group {group} is damaged or cannot be read"
            ));
            return Ok(());
        };
        let raw = Raw::new(&bytes, "tree block");
        let rest = raw.from(self.tree_header())?;
        let count = usize::from(raw.be16(6)?);
        if level > 0 {
            let most = rest.bytes().len() / 8;
            for number in 0..count {
                let child = rest.be32(4 * most + 4 * number)?;
                self.tree(search, group, (child, level - 1), next, each)?;
            }
            return Ok(());
        }
        for record in rest.slice(0, 16 * count)?.chunks_exact(16) {
            let record = Raw::new(record, "inode record");
            let first = u64::from(record.be32(0)?);
            let holes = if self.superblock.has_sparse_chunks() {
                record.be16(4)?
            } else {
                0
            };
            // A bit of the holes is four inodes.
            let absent = (0..64).fold(0u64, |bits, n| bits | u64::from(holes >> (n / 4) & 1) << n);
            let end = self.superblock.inodes_of(group);
            ensure(first >= *next && first + CHUNK <= end, || {
                format!("a tree of inodes of allocation group {group} is out of order")
            })?;
            *next = first + CHUNK;
            each(search, first, !record.be64(8)? & !absent)?;
        }
        Ok(())
    }

    fn tree_header(&self) -> usize {
        if self.superblock.v5() { 56 } else { 16 }
    }

    fn tree_block(&self, group: u64, block: u32, level: u32) -> Result<Vec<u8>, Doubt> {
        let superblock = self.superblock;
        let inside = block != NULL_BLOCK && u64::from(block) < superblock.blocks_of(group);
        ensure(inside, || "a tree of inodes leads to where none can be")?;
        let at = superblock.byte_of(group, block.into());
        let bytes = self.volume.read(at, superblock.block)?;
        let raw = Raw::new(&bytes, "tree block");
        let v5 = superblock.v5();
        let magic: &[u8] = if v5 { b"IAB3" } else { b"IABT" };
        let entry = if level == 0 { 16 } else { 8 };
        let most = bytes.len().saturating_sub(self.tree_header()) / entry;
        let mut sound = raw.slice(0, 4)? == magic
            && u32::from(raw.be16(4)?) == level
            && usize::from(raw.be16(6)?) <= most;
        if v5 {
            sound &= checksum_holds(&bytes, 52)? && u64::from(raw.be32(48)?) == group;
        }
        ensure(sound, || "a block of a tree of inodes is damaged")?;
        Ok(bytes)
    }

    /// The second pass: names of what is hit.
    fn name(&self, search: &mut Search, hits: &mut Hits) -> Result<(), Doubt> {
        self.each_inode(search, &mut |search, number, _, slot| {
            let Slot::Inode(inode) = slot else {
                return Ok(());
            };
            if inode.kind != KIND_DIRECTORY {
                return Ok(());
            }
            let whole = self.each_entry(&inode, &mut |entry| {
                let dots = matches!(entry.name, b"." | b"..");
                if !dots && hits.wants(entry.inode) {
                    hits.name(entry.inode, number, shown(entry.name));
                }
            })?;
            if !whole {
                search.lacks("directories are damaged or cannot be read: names are missing");
            }
            Ok(())
        })
    }

    /// The entries of a directory, with `..`. Whether all of it could be read.
    fn each_entry(
        &self,
        directory: &Inode<'_>,
        each: &mut dyn FnMut(Entry<'_>),
    ) -> Result<bool, Doubt> {
        let (superblock, number) = (self.superblock, directory.number);
        if let Fork::Local(fork) = directory.data {
            let entries = self.known(entries::of_inode(fork, superblock))?;
            let whole = entries.is_some();
            entries.into_iter().flatten().for_each(each);
            return Ok(whole);
        }
        // Blocks of directories are one or several of the file system's.
        let per_block = superblock.directory_block / superblock.block;
        let index = entries::INDEX_AT / superblock.block;
        let (mut runs, mut whole) = (BTreeMap::new(), true);
        directory
            .data
            .walk(self.volume, superblock, number, &mut |seen| {
                match seen {
                    Seen::Run(run) if run.first < index && runs.len() < MAX_RUNS => {
                        runs.insert(run.first, run);
                    }
                    Seen::Run(run) => whole &= run.first >= index,
                    Seen::Tree(_) => {}
                    Seen::Lost(_) => whole = false,
                }
                Ok(())
            })?;
        let place = |block: u64| {
            let (_, run) = runs.range(..=block).next_back()?;
            let within = block - run.first;
            (within < run.len).then(|| run.at + within * superblock.block)
        };
        for run in runs.values() {
            // A block that begins in an earlier run is read with that.
            for first in (run.first..run.first + run.len).filter(|n| n.is_multiple_of(per_block)) {
                let mut bytes = Vec::new();
                for n in first..first + per_block {
                    let Some(at) = place(n) else { break };
                    let read = self.known(self.volume.read(at, superblock.block))?;
                    bytes.extend(read.unwrap_or_default());
                }
                let entries = entries::of_block(&bytes, superblock, number);
                let entries = self.known(entries)?;
                whole &= entries.is_some();
                entries.into_iter().flatten().for_each(&mut *each);
            }
        }
        Ok(whole)
    }

    /// The directory that holds directory `number`, and its name there.
    fn step(&self, number: u64) -> Result<Option<(u64, String)>, Doubt> {
        let mut parent = None;
        self.directory(number, &mut |entry| {
            if entry.name == b".." {
                parent = Some(entry.inode);
            }
        })?;
        let Some(parent) = parent else {
            return Ok(None);
        };
        let mut name = None;
        self.directory(parent, &mut |entry| {
            if entry.inode == number && !matches!(entry.name, b"." | b"..") {
                name.get_or_insert_with(|| shown(entry.name));
            }
        })?;
        Ok(name.map(|name| (parent, name)))
    }

    /// Hands the entries of directory `number` to `each`, as far as it can be read.
    fn directory(&self, number: u64, each: &mut dyn FnMut(Entry<'_>)) -> Result<(), Doubt> {
        let superblock = self.superblock;
        let Some(at) = superblock.place_of_inode(number) else {
            return Ok(());
        };
        let Some(bytes) = self.known(self.volume.read(at, superblock.inode))? else {
            return Ok(());
        };
        let inode = self.known(Inode::decode(&bytes, superblock, number))?;
        if let Some(inode) = inode.flatten().filter(|inode| inode.kind == KIND_DIRECTORY) {
            self.each_entry(&inode, each)?;
        }
        Ok(())
    }
}
