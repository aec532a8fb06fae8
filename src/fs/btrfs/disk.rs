//! What lies on disk, as in the kernel's `include/uapi/linux/btrfs_tree.h`: superblock, keys, chunk
//! and root items. All numbers are little-endian; "logical" addresses are the file system's own,
//! which chunks translate to places on the device.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::{Raw, label};
use super::checksum::Checksum;
use crate::base::{to_u64, to_usize};

/// Where the superblock lies, and its length.
pub(super) const SUPERBLOCK_AT: u64 = 64 << 10;
/// Bytes of a superblock.
pub(super) const SUPERBLOCK_LEN: u64 = 4096;
/// Where copies of the superblock lie, on devices that reach so far.
pub(super) const MIRRORS_AT: [u64; 2] = [64 << 20, 256 << 30];
const MAGIC: &[u8; 8] = b"_BHRfS_M";
const SYSTEM_CHUNKS_AT: usize = 0x32B;
const SYSTEM_CHUNKS_MAX: u32 = 2048;
const KEY_LEN: usize = 17;
/// Blocks and tree blocks are at least and at most so large.
const LEAST_BLOCK: u32 = 4096;
const LARGEST_BLOCK: u32 = 65_536;

/// A 16-byte identity.
pub(super) type Uuid = [u8; 16];

/// The superblock.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    /// Of the file system.
    pub(super) fsid: Uuid,
    /// What tree blocks carry: `fsid`, unless a feature says otherwise.
    pub(super) tree_uuid: Uuid,
    /// Where it says that it lies.
    pub(super) bytenr: u64,
    /// Its states.
    pub(super) flags: u64,
    /// The number of the commit that wrote it.
    pub(super) generation: u64,
    /// Root tree, logical.
    pub(super) root: u64,
    /// Chunk tree, logical.
    pub(super) chunk_root: u64,
    /// The tree of log trees, logical; 0 when there is none.
    pub(super) log_root: u64,
    /// Bytes of all devices.
    pub(super) total_bytes: u64,
    /// Bytes in extents, each counted once however many copies there are.
    pub(super) bytes_used: u64,
    /// How many devices make up the file system.
    pub(super) num_devices: u64,
    /// Block, in bytes: the unit of all allocation.
    pub(super) sectorsize: u32,
    /// Tree block, in bytes.
    pub(super) nodesize: u32,
    /// The commit that wrote the root of the chunk tree.
    pub(super) chunk_root_generation: u64,
    /// Features that forbid writing to who does not know them.
    pub(super) compat_ro: u64,
    /// Features that forbid reading to who does not know them.
    pub(super) incompat: u64,
    /// What tree blocks are protected with.
    pub(super) checksum: Checksum,
    /// Level of the root tree's root.
    pub(super) root_level: u8,
    /// Level of the chunk tree's root.
    pub(super) chunk_root_level: u8,
    /// Level of the root of the tree of log trees.
    pub(super) log_root_level: u8,
    /// This device.
    pub(super) device: Device,
    /// The chunks that the chunk tree lies in.
    pub(super) system_chunks: Vec<(u64, Chunk)>,
}

/// A device, as its superblock and the chunk tree describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) id: u64,
    /// Bytes that the file system uses of it.
    pub(super) total_bytes: u64,
    pub(super) uuid: Uuid,
    pub(super) fsid: Uuid,
}

/// Whether these bytes are marked as a superblock.
pub(super) fn is_superblock(bytes: &[u8]) -> bool {
    bytes.get(0x40..0x48) == Some(MAGIC.as_slice())
}

/// The label in a superblock.
pub(super) fn superblock_label(bytes: &[u8]) -> Option<String> {
    bytes.get(0x12B..0x22B).and_then(label)
}

impl Superblock {
    /// From its 4096 bytes.
    ///
    /// # Errors
    /// A doubt when it is no superblock, its checksum is wrong, or its sizes make no sense.
    pub(super) fn decode(bytes: &[u8]) -> Result<Superblock, Doubt> {
        let raw = Raw::new(bytes, "superblock");
        ensure(
            is_superblock(bytes),
            || "its superblock is not marked as one",
        )?;
        let checksum = Checksum::from_disk(raw.le16(0xC4)?)?;
        ensure(
            checksum.is_right(bytes),
            || "the checksum of its superblock is wrong (`btrfs rescue super-recover` can help)",
        )?;
        let (fsid, incompat) = (uuid(&raw, 0x20)?, raw.le64(0xBC)?);
        let tree_uuid = if incompat & super::features::METADATA_UUID != 0 {
            uuid(&raw, 0x23B)?
        } else {
            fsid
        };
        let superblock = Superblock {
            fsid,
            tree_uuid,
            bytenr: raw.le64(0x30)?,
            flags: raw.le64(0x38)?,
            generation: raw.le64(0x48)?,
            root: raw.le64(0x50)?,
            chunk_root: raw.le64(0x58)?,
            log_root: raw.le64(0x60)?,
            total_bytes: raw.le64(0x70)?,
            bytes_used: raw.le64(0x78)?,
            num_devices: raw.le64(0x88)?,
            sectorsize: raw.le32(0x90)?,
            nodesize: raw.le32(0x94)?,
            chunk_root_generation: raw.le64(0xA4)?,
            compat_ro: raw.le64(0xB4)?,
            incompat,
            checksum,
            root_level: raw.u8(0xC6)?,
            chunk_root_level: raw.u8(0xC7)?,
            log_root_level: raw.u8(0xC8)?,
            device: Device::decode(&raw.from(0xC9)?)?,
            system_chunks: system_chunks(&raw)?,
        };
        let (block, node) = (superblock.sectorsize, superblock.nodesize);
        let sizes = LEAST_BLOCK..=LARGEST_BLOCK;
        ensure(
            block.is_power_of_two() && node.is_power_of_two() && block <= node,
            || format!("its superblock claims blocks of {block} and tree blocks of {node} bytes"),
        )?;
        ensure(sizes.contains(&block) && sizes.contains(&node), || {
            format!("blocks of {block} and tree blocks of {node} bytes are not known")
        })?;
        Ok(superblock)
    }

    /// Block in bytes.
    pub(super) fn block(&self) -> u64 {
        u64::from(self.sectorsize)
    }

    /// Tree block in bytes.
    pub(super) fn node(&self) -> u64 {
        u64::from(self.nodesize)
    }
}

impl Device {
    /// From a device item (98 bytes).
    pub(super) fn decode(raw: &Raw<'_>) -> Result<Device, Doubt> {
        Ok(Device {
            id: raw.le64(0)?,
            total_bytes: raw.le64(8)?,
            uuid: uuid(raw, 66)?,
            fsid: uuid(raw, 82)?,
        })
    }
}

fn uuid(raw: &Raw<'_>, at: usize) -> Result<Uuid, Doubt> {
    let mut uuid = Uuid::default();
    uuid.copy_from_slice(raw.slice(at, 16)?);
    Ok(uuid)
}

/// The superblock's array of keys and chunks.
fn system_chunks(raw: &Raw<'_>) -> Result<Vec<(u64, Chunk)>, Doubt> {
    let len = raw.le32(0xA0)?;
    ensure(len <= SYSTEM_CHUNKS_MAX, || {
        format!("its superblock claims {len} bytes of system chunks")
    })?;
    let mut rest = Raw::new(
        raw.slice(SYSTEM_CHUNKS_AT, to_usize(u64::from(len)))?,
        "array of system chunks",
    );
    let mut chunks = Vec::new();
    while !rest.bytes().is_empty() {
        let key = Key::decode(&rest, 0)?;
        ensure(key.kind == Key::CHUNK_ITEM, || {
            format!(
                "its array of system chunks holds an item of type {}",
                key.kind
            )
        })?;
        let (chunk, len) = Chunk::decode(&rest.from(KEY_LEN)?)?;
        chunks.push((key.offset, chunk));
        rest = rest.from(KEY_LEN + len)?;
    }
    Ok(chunks)
}

/// What items are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) objectid: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) const INODE_ITEM: u8 = 1;
    pub(super) const INODE_REF: u8 = 12;
    pub(super) const INODE_EXTREF: u8 = 13;
    pub(super) const EXTENT_DATA: u8 = 108;
    pub(super) const ROOT_ITEM: u8 = 132;
    pub(super) const ROOT_BACKREF: u8 = 144;
    pub(super) const EXTENT_ITEM: u8 = 168;
    pub(super) const METADATA_ITEM: u8 = 169;
    /// Items that say who uses an extent; they change nothing in what is in use.
    pub(super) const REFERENCES: [u8; 5] = [172, 176, 178, 182, 184];
    pub(super) const BLOCK_GROUP_ITEM: u8 = 192;
    pub(super) const DEV_EXTENT: u8 = 204;
    pub(super) const DEV_ITEM: u8 = 216;
    pub(super) const CHUNK_ITEM: u8 = 228;
    /// State of a device replacement, in the device tree.
    pub(super) const DEV_REPLACE: u8 = 250;

    /// The smallest and the largest there are.
    pub(super) const FIRST: Key = Key::new(0, 0, 0);
    pub(super) const LAST: Key = Key::new(u64::MAX, u8::MAX, u64::MAX);

    pub(super) const fn new(objectid: u64, kind: u8, offset: u64) -> Key {
        Key {
            objectid,
            kind,
            offset,
        }
    }

    pub(super) fn decode(raw: &Raw<'_>, at: usize) -> Result<Key, Doubt> {
        let raw = Raw::new(raw.slice(at, KEY_LEN)?, "key");
        Ok(Key::new(raw.le64(0)?, raw.u8(8)?, raw.le64(9)?))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} {} {})", self.objectid, self.kind, self.offset)
    }
}

/// Tree numbers.
pub(super) mod tree {
    /// The owner of a tree whose blocks may be another's too: snapshots share them, and each carries
    /// the number of the subvolume that made it.
    pub(in super::super) const SHARED: u64 = 0;
    pub(in super::super) const ROOT: u64 = 1;
    pub(in super::super) const EXTENT: u64 = 2;
    pub(in super::super) const CHUNK: u64 = 3;
    pub(in super::super) const DEVICE: u64 = 4;
    /// The subvolume at the top.
    pub(in super::super) const FILES: u64 = 5;
    pub(in super::super) const BLOCK_GROUP: u64 = 11;
    /// The tree of log trees, and each of them: −6.
    pub(in super::super) const LOG: u64 = u64::MAX - 5;
}

/// A chunk item: where a run of logical addresses lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Bytes.
    pub(super) len: u64,
    /// What it holds and how it is spread.
    pub(super) kind: u64,
    /// Device and first byte on it, for each stripe.
    pub(super) stripes: Vec<Stripe>,
}

/// One stripe of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stripe {
    pub(super) device: u64,
    pub(super) at: u64,
    pub(super) uuid: Uuid,
}

impl Chunk {
    pub(super) const DATA: u64 = 1;
    pub(super) const SYSTEM: u64 = 2;
    pub(super) const METADATA: u64 = 4;

    /// The chunk at the start of `raw` and its length on disk.
    pub(super) fn decode(raw: &Raw<'_>) -> Result<(Chunk, usize), Doubt> {
        let count = usize::from(raw.le16(44)?);
        let mut stripes = Vec::new();
        for at in (0..count).map(|n| 48 + n * 32) {
            stripes.push(Stripe {
                device: raw.le64(at)?,
                at: raw.le64(at + 8)?,
                uuid: uuid(raw, at + 16)?,
            });
        }
        let chunk = Chunk {
            len: raw.le64(0)?,
            kind: raw.le64(24)?,
            stripes,
        };
        Ok((chunk, 48 + count * 32))
    }
}

/// Where a tree begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    /// Its number, which all its blocks carry.
    pub(super) owner: u64,
    /// Logical address of the root.
    pub(super) at: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
}

impl Root {
    /// From a root item; `owner` is what the blocks of the tree carry.
    pub(super) fn decode(raw: &Raw<'_>, owner: u64) -> Result<Root, Doubt> {
        Ok(Root {
            owner,
            generation: raw.le64(160)?,
            at: raw.le64(176)?,
            level: raw.u8(238)?,
        })
    }
}

/// A block group item.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockGroup {
    /// Bytes in extents.
    pub(super) used: u64,
    /// As the type of its chunk.
    pub(super) kind: u64,
}

impl BlockGroup {
    pub(super) fn decode(raw: &Raw<'_>) -> Result<BlockGroup, Doubt> {
        let len = to_u64(raw.bytes().len());
        ensure(len == 24, || {
            format!("a block group item is {len} bytes long")
        })?;
        Ok(BlockGroup {
            used: raw.le64(0)?,
            kind: raw.le64(16)?,
        })
    }
}

/// The flag in an extent item of file data.
pub(super) const EXTENT_OF_DATA: u64 = 1;
/// The flag in an extent item of a tree block.
pub(super) const EXTENT_OF_TREE: u64 = 2;

/// What an extent item says the extent holds: its flags.
pub(super) fn extent_flags(raw: &Raw<'_>) -> Result<u64, Doubt> {
    raw.le64(16)
}

/// Where a file's extent lies, logical start and length; `None` for data kept in the item and for
/// holes.
pub(super) fn file_extent(raw: &Raw<'_>) -> Result<Option<(u64, u64)>, Doubt> {
    const INLINE: u8 = 0;
    const LARGEST_KIND: u8 = 2;
    let kind = raw.u8(20)?;
    ensure(kind <= LARGEST_KIND, || {
        format!("a file extent of the unknown type {kind}")
    })?;
    if kind == INLINE {
        return Ok(None);
    }
    let (at, len) = (raw.le64(21)?, raw.le64(29)?);
    Ok((at != 0).then_some((at, len)))
}

/// What a file holds of its extent, logical start and length, as [`file_extent`]: the part that it refers
/// to, or all of it where it is compressed or encrypted.
pub(super) fn file_part(raw: &Raw<'_>) -> Result<Option<(u64, u64)>, Doubt> {
    let Some((at, len)) = file_extent(raw)? else {
        return Ok(None);
    };
    if raw.u8(16)? != 0 || raw.u8(17)? != 0 {
        return Ok(Some((at, len)));
    }
    let (offset, part) = (raw.le64(37)?, raw.le64(45)?);
    let inside = offset.checked_add(part).is_some_and(|end| end <= len);
    ensure(inside, || {
        format!("a file refers to more than its extent at {at} has")
    })?;
    Ok(Some((at.saturating_add(offset), part)))
}

/// The directories and names that an inode's item of references lists.
pub(super) fn references<'a>(key: Key, raw: &Raw<'a>) -> Result<Vec<(u64, &'a [u8])>, Doubt> {
    let mut found = Vec::new();
    let mut rest = *raw;
    while !rest.bytes().is_empty() {
        // The longer form does not have the directory in its key.
        let (parent, head) = if key.kind == Key::INODE_EXTREF {
            (rest.le64(0)?, 18)
        } else {
            (key.offset, 10)
        };
        let len = usize::from(rest.le16(head - 2)?);
        found.push((parent, rest.slice(head, len)?));
        rest = rest.from(head + len)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_object_type_and_offset() {
        let mut bytes = [0; 17];
        bytes[0] = 5;
        bytes[8] = 168;
        bytes[9] = 1;
        let key = Key::decode(&Raw::new(&bytes, "key"), 0).unwrap();
        assert_eq!(key, Key::new(5, 168, 1));
        assert!(key < Key::new(5, 169, 0) && key > Key::new(4, 255, 9));
        assert!(Key::decode(&Raw::new(&bytes, "key"), 1).is_err());
    }

    #[test]
    fn chunks_with_more_stripes_than_bytes_are_cut_off() {
        let mut bytes = vec![0; 48 + 32];
        bytes[44] = 1;
        let (chunk, len) = Chunk::decode(&Raw::new(&bytes, "chunk")).unwrap();
        assert_eq!((chunk.stripes.len(), len), (1, 80));
        bytes[44] = 2;
        assert!(Chunk::decode(&Raw::new(&bytes, "chunk")).is_err());
    }

    #[test]
    fn file_extents_inline_hole_and_regular() {
        let mut bytes = vec![0; 53];
        let of = |bytes: &[u8]| file_extent(&Raw::new(bytes, "file extent"));
        assert_eq!(of(&bytes[..21]).unwrap(), None);
        bytes[20] = 1;
        assert_eq!(of(&bytes).unwrap(), None);
        (bytes[22], bytes[30]) = (1, 2);
        assert_eq!(of(&bytes).unwrap(), Some((256, 512)));
        assert!(of(&bytes[..21]).is_err());
        bytes[20] = 3;
        assert!(of(&bytes).is_err());
    }

    #[test]
    fn files_hold_a_part_of_an_extent() {
        let mut bytes = vec![0; 53];
        (bytes[20], bytes[22], bytes[30], bytes[37], bytes[46]) = (1, 2, 2, 64, 1);
        let of = |bytes: &[u8]| file_part(&Raw::new(bytes, "file extent"));
        assert_eq!(of(&bytes).unwrap(), Some((512 + 64, 256)));
        bytes[16] = 1;
        assert_eq!(of(&bytes).unwrap(), Some((512, 512)));
        (bytes[16], bytes[38]) = (0, 1);
        assert!(of(&bytes).is_err());
    }

    #[test]
    fn references_are_names_in_directories() {
        let one = [&[7, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], b"a"].concat();
        let two = [&[9, 0, 0, 0, 0, 0, 0, 0, 2, 0][..], b"bc"].concat();
        let bytes = [one, two].concat();
        let of = |kind, bytes: &[u8]| {
            let raw = Raw::new(bytes, "item");
            let found = references(Key::new(300, kind, 256), &raw);
            found.map(|f| f.iter().map(|(p, n)| (*p, n.to_vec())).collect::<Vec<_>>())
        };
        let expected = vec![(256, b"a".to_vec()), (256, b"bc".to_vec())];
        assert_eq!(of(Key::INODE_REF, &bytes).unwrap(), expected);
        assert!(of(Key::INODE_REF, &bytes[..12]).is_err());
        let long = [&[5, 0, 0, 0, 0, 0, 0, 0][..], &bytes[..11]].concat();
        assert_eq!(of(Key::INODE_EXTREF, &long).unwrap(), [(5, b"a".to_vec())]);
    }
}
