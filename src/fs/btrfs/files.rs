//! Which files hold given bytes: a pass over the tree of every subvolume, whose items have names, places
//! and, of small files, content side by side. Several files, and snapshots, may hold the same bytes.
//!
//! Of an extent a file holds what it refers to, all of it when it is compressed, in every copy of its
//! chunk. Tree blocks are metadata; a file whose items lie in one that is hit in all its copies is told
//! of. What the extent tree has and no file refers to is free for whoever looks for files, but not when
//! files are missing.

use super::super::doubt::{Doubt, ensure};
use super::super::files::{Climber, Found, Hits, Search, shown};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::chunks::Chunks;
use super::disk::{
    EXTENT_OF_TREE, Key, MIRRORS_AT, Root, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock, extent_flags,
    file_part, references, tree,
};
use super::tree::Trees;
use super::walk::Extents;
use super::{features, walk};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

/// The root directory of every subvolume.
const ROOT: u64 = 256;
/// Numbers of inodes and of subvolumes that are not set aside.
const OWN_NUMBERS: Range<u64> = 256..u64::MAX - 255;
/// Subvolumes that are looked into.
const MAX_SUBVOLUMES: usize = 1 << 14;
/// Subvolumes in one another.
const MAX_LEVELS: usize = 64;
/// Names that are kept of an inode while its items go by.
const MAX_NAMES: usize = 8;

/// Tells `search` who holds what in the file system on `volume`.
pub(super) fn files(volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
    let superblock = Superblock::decode(&volume.read(SUPERBLOCK_AT, SUPERBLOCK_LEN)?)?;
    ensure(
        superblock.bytenr == SUPERBLOCK_AT,
        || "its superblock says that it lies elsewhere",
    )?;
    features::check(&superblock)?;
    walk::check_length(volume, &superblock)?;
    let system = Trees::new(volume, &superblock, Chunks::of_system(&superblock)?);
    let chunks = walk::chunks(&system, &superblock, walk::chunk_root(&superblock))?;
    search.metadata(0..walk::RESERVED);
    for at in MIRRORS_AT {
        search.metadata(at..at + SUPERBLOCK_LEN);
    }
    if superblock.log_root != 0 {
        search.lacks("it has a log of recent fsyncs, whose files are not looked for");
    }
    let files = Files {
        volume,
        trees: Trees::new(volume, &superblock, chunks),
        superblock: &superblock,
    };
    let own = files.own(search);
    search.tolerate(own)?;
    let subvolumes = files.subvolumes(search)?;
    for id in subvolumes.roots.keys() {
        let prefix = files.prefix(*id, &subvolumes)?;
        let Some(root) = subvolumes.roots.get(id) else {
            continue;
        };
        let walked = files.subvolume(search, *root, prefix);
        search.tolerate(walked)?;
        volume.must_go_on()?;
    }
    Ok(())
}

/// What the root tree says of subvolumes.
#[derive(Default)]
struct Subvolumes {
    roots: BTreeMap<u64, Root>,
    /// Where each is: the one that it is in, the directory there, its name.
    places: BTreeMap<u64, (u64, u64, String)>,
}

struct Files<'a, 'v> {
    volume: &'a Volume<'v>,
    trees: Trees<'a, 'v>,
    superblock: &'a Superblock,
}

/// An inode while its items go by.
#[derive(Default)]
struct Current {
    number: u64,
    links: Option<u32>,
    found: Found,
    names: Vec<(u64, String)>,
}

impl Current {
    /// All of its items have gone by.
    fn end(self, hits: &mut Hits) {
        let mut found = self.found;
        found.certain = self.links != Some(0);
        if OWN_NUMBERS.contains(&self.number) && found.certain {
            hits.add(self.number, &found);
            for (parent, name) in self.names {
                hits.name(self.number, parent, name);
            }
        }
    }
}

impl Files<'_, '_> {
    /// Where the logical bytes from `at` lie, each copy.
    fn places(&self, at: u64, len: u64) -> Result<impl Iterator<Item = Range<u64>> + use<>, Doubt> {
        let place = self.trees.chunks().find(at, len)?;
        Ok(place
            .copies_of(at)
            .map(move |at| at..at.saturating_add(len)))
    }

    /// Whether a tree block is hit in all its copies.
    fn is_hit(&self, search: &Search, at: u64) -> bool {
        let places = self.places(at, self.superblock.node());
        places.is_ok_and(|mut places| places.all(|place| search.touches(&place)))
    }

    fn metadata(&self, search: &mut Search, at: u64, len: u64) -> Result<(), Doubt> {
        for place in self.places(at, len)? {
            search.metadata(place);
        }
        Ok(())
    }

    /// What the extent tree says: tree blocks are metadata, and what it does not list is free, unless
    /// a log has blocks that it does not know yet.
    fn own(&self, search: &mut Search) -> Result<(), Doubt> {
        let (chunks, superblock) = (self.trees.chunks(), self.superblock);
        let on_device = chunks.on_device()?;
        walk::free_outside(superblock, &on_device, &mut |range| search.free(range));
        let root = walk::root_of(&self.trees, superblock, tree::EXTENT)?;
        let search = RefCell::new(search);
        let mut free = |range| {
            if superblock.log_root == 0 {
                search.borrow_mut().free(range);
            }
        };
        let extents = RefCell::new(Extents::new(chunks, superblock, &mut free));
        let mut meet = |_: u64| Ok(());
        let mut lost = |why| {
            extents.borrow_mut().skip();
            self.lost(&search, why)
        };
        self.trees
            .items_around(root, &mut meet, &mut lost, &mut |key, raw| {
                let len = match key.kind {
                    Key::METADATA_ITEM => superblock.node(),
                    Key::EXTENT_ITEM => key.offset,
                    _ => return Ok(()),
                };
                let flags = extent_flags(&raw)?;
                if flags & EXTENT_OF_TREE != 0 {
                    self.metadata(&mut search.borrow_mut(), key.objectid, len)?;
                }
                let next = extents.borrow_mut().next(key.objectid, len, flags);
                if search.borrow_mut().tolerate(next)?.is_none() {
                    extents.borrow_mut().skip();
                }
                Ok(())
            })?;
        extents.into_inner().finish();
        Ok(())
    }

    /// A tree block is lost.
    fn lost(&self, search: &RefCell<&mut Search>, why: String) -> Result<(), Doubt> {
        self.volume.must_go_on()?;
        search.borrow_mut().lacks(why);
        Ok(())
    }

    /// All subvolumes. Files of the root tree are caches, and metadata.
    fn subvolumes(&self, search: &mut Search) -> Result<Subvolumes, Doubt> {
        let mut found = Subvolumes::default();
        let search = RefCell::new(search);
        let (mut meet, mut lost) = (|_: u64| Ok(()), |why| self.lost(&search, why));
        let root = walk::top(self.superblock);
        self.trees
            .items_around(root, &mut meet, &mut lost, &mut |key, raw| {
                let is_subvolume =
                    key.objectid == tree::FILES || OWN_NUMBERS.contains(&key.objectid);
                match key.kind {
                    Key::ROOT_ITEM if is_subvolume && raw.le32(216)? > 0 => {
                        ensure(found.roots.len() < MAX_SUBVOLUMES, || {
                            format!("it has more than {MAX_SUBVOLUMES} subvolumes")
                        })?;
                        found
                            .roots
                            .insert(key.objectid, Root::decode(&raw, tree::SHARED)?);
                    }
                    Key::ROOT_BACKREF if is_subvolume && found.places.len() < MAX_SUBVOLUMES => {
                        let len = usize::from(raw.le16(16)?);
                        let name = shown(raw.slice(18, len)?);
                        let place = (key.offset, raw.le64(0)?, name);
                        found.places.insert(key.objectid, place);
                    }
                    Key::EXTENT_DATA => {
                        if let Some((at, len)) = file_part(&raw)? {
                            self.metadata(&mut search.borrow_mut(), at, len)?;
                        }
                    }
                    _ => {}
                }
                Ok(())
            })?;
        Ok(found)
    }

    /// The path of subvolume `id`, empty for the one at the top.
    fn prefix(&self, id: u64, all: &Subvolumes) -> Result<String, Doubt> {
        let (mut at, mut path) = (id, String::new());
        for _ in 0..MAX_LEVELS {
            let Some((parent, directory, name)) = all.places.get(&at) else {
                break;
            };
            let above = match all.roots.get(parent) {
                Some(root) => {
                    let mut climber = Climber::new(ROOT, "inode");
                    climber.path(*directory, name, &mut |number| self.step(*root, number))?
                }
                None => format!("<subvolume {parent}>/{name}"),
            };
            path.insert_str(0, &above);
            at = *parent;
        }
        if at != tree::FILES {
            path.insert_str(0, &format!("<subvolume {at}>"));
        }
        Ok(path)
    }

    /// The files of a subvolume, whose path is `prefix`.
    fn subvolume(&self, search: &mut Search, root: Root, prefix: String) -> Result<(), Doubt> {
        let mut hits = Hits::default();
        let mut current = Current::default();
        let is_hit = Cell::new(false);
        let shared = RefCell::new(&mut *search);
        let mut meet = |at| {
            is_hit.set(self.is_hit(&shared.borrow(), at));
            Ok(())
        };
        let mut lost = |why| self.lost(&shared, why);
        self.trees
            .items_around(root, &mut meet, &mut lost, &mut |key, raw| {
                if key.objectid != current.number {
                    let next = Current {
                        number: key.objectid,
                        ..Current::default()
                    };
                    std::mem::replace(&mut current, next).end(&mut hits);
                }
                current.found.own_metadata |= is_hit.get();
                self.item(&mut shared.borrow_mut(), &mut current, key, &raw)
            })?;
        current.end(&mut hits);
        let mut climber = Climber::below(prefix, ROOT, "inode");
        hits.list(search, &mut climber, ROOT, &mut |number| {
            self.step(root, number)
        })
    }

    /// An item of an inode.
    fn item(
        &self,
        search: &mut Search,
        current: &mut Current,
        key: Key,
        raw: &Raw<'_>,
    ) -> Result<(), Doubt> {
        const DIRECTORY: u32 = 0x4000;
        match key.kind {
            Key::INODE_ITEM => {
                current.links = Some(raw.le32(40)?);
                current.found.directory = raw.le32(52)? & 0xF000 == DIRECTORY;
            }
            Key::INODE_REF | Key::INODE_EXTREF => {
                for (parent, name) in references(key, raw)? {
                    if current.names.len() < MAX_NAMES {
                        current.names.push((parent, shown(name)));
                    }
                }
            }
            Key::EXTENT_DATA => {
                let Some((at, len)) = file_part(raw)? else {
                    return Ok(());
                };
                match search.tolerate(self.places(at, len))? {
                    Some(places) => {
                        let bytes: u64 = places.map(|place| search.content(place)).sum();
                        current.found.bytes = current.found.bytes.saturating_add(bytes);
                    }
                    None => current.found.own_metadata = true,
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The directory that holds directory `number` of the subvolume at `root`, and its name there.
    fn step(&self, root: Root, number: u64) -> Result<Option<(u64, String)>, Doubt> {
        let keys = Key::new(number, Key::INODE_REF, 0)..=Key::new(number, Key::INODE_REF, u64::MAX);
        let mut found = None;
        let read = self.trees.items(root, keys, &mut |key, raw| {
            if let (None, Some((parent, name))) = (&found, references(key, &raw)?.first()) {
                found = Some((*parent, shown(name)));
            }
            Ok(())
        });
        match read {
            Err(Doubt::Unsure(_)) => {
                self.volume.must_go_on()?;
                Ok(None)
            }
            other => other.map(|()| found),
        }
    }
}
