//! Which features and states leave the meaning of the allocation metadata as it is known here
//! (`include/uapi/linux/btrfs.h`). Whatever is not listed is a doubt.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::unknown_bits;
use super::disk::Superblock;

/// Tree blocks carry another identity than the file system.
pub(super) const METADATA_UUID: u64 = 0x400;
/// Block group items have a tree of their own.
pub(super) const BLOCK_GROUP_TREE: u64 = 0x8;

/// Mixed back references, default subvolume, mixed groups, LZO, Zstandard, large metadata, extended
/// inode references, RAID5/6 (its chunks are refused by themselves), small metadata items, no holes,
/// the other identity, RAID1C3/4 (as RAID5/6), simple quotas.
const KNOWN_INCOMPAT: u64 = 0x1_0FFF;
/// Names of those that are not known here, by bit.
const NAMED_INCOMPAT: [(u64, &str); 4] = [
    (0x1000, "zoned storage"),
    (0x2000, "extent tree v2"),
    (0x4000, "RAID stripe tree"),
    (0x2_0000, "remap tree"),
];
/// Free-space tree, its validity, verity, block-group tree.
const KNOWN_COMPAT_RO: u64 = 0xF;
/// Written, and relocated: what any tree block may say of itself.
const KNOWN_FLAGS: u64 = 0x3;
const NAMED_FLAGS: [(u64, &str); 9] = [
    (1 << 2, "the kernel has marked it as damaged"),
    (1 << 32, "it is a seed for other file systems"),
    (1 << 33, "it is a copy of metadata alone"),
    (1 << 34, "it is a copy of metadata alone"),
    (1 << 35, "its identity was being changed"),
    (1 << 36, "its identity was being changed"),
    (1 << 38, "its block-group tree was being converted"),
    (1 << 39, "its checksums were being changed"),
    (1 << 40, "its checksums were being changed"),
];

/// Doubts unless all features and states are known.
///
/// # Errors
/// A doubt that names the features or states.
pub(super) fn check(superblock: &Superblock) -> Result<(), Doubt> {
    let words = [
        (superblock.incompat, KNOWN_INCOMPAT, &NAMED_INCOMPAT[..]),
        (superblock.compat_ro, KNOWN_COMPAT_RO, &[]),
    ];
    for ((found, known, named), word) in words.into_iter().zip(["incompatible", "read-only"]) {
        if let Some(bits) = unknown_bits(found, known) {
            let names = names(found, named);
            let names = if names.is_empty() { bits } else { names };
            return Err(Doubt::new(format!(
                "it has {word} features that are not known here: {names}"
            )));
        }
    }
    if let Some(bits) = unknown_bits(superblock.flags, KNOWN_FLAGS) {
        let names = names(superblock.flags, &NAMED_FLAGS);
        let unknown = || format!("its superblock has unknown flags {bits}");
        return Err(Doubt::new(if names.is_empty() { unknown() } else { names }));
    }
    let devices = superblock.num_devices;
    ensure(devices == 1, || {
        format!(
            "it is one of {devices} devices of one file system, and one alone does not tell what is in use on it"
        )
    })
}

fn names(found: u64, named: &[(u64, &'static str)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (bit, name) in named {
        if found & bit != 0 && !names.contains(name) {
            names.push(name);
        }
    }
    names.join(", ")
}
