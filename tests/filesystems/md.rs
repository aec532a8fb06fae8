//! Members of arrays. Their superblocks are written here, as there is no driver to make arrays with,
//! and `mdadm` has to accept them.

use crate::aged;
use crate::cycle::Cycle;
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::{MIB, bytes, scratch, tools};
use crate::manifest::Manifest;
use std::path::{Path, PathBuf};

const LEN: u64 = 64 * MIB;
pub(crate) const DATA: u64 = 2 * MIB;
pub(crate) const SIZE: u64 = 60 * MIB;

/// A file of [`LEN`] with a superblock of version 1 at byte `place` and data from byte `data` on.
pub(crate) fn member(path: &Path, level: i32, place: u64, data: u64) -> PathBuf {
    let mut sb = vec![0u8; 4096];
    let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xA92B_4EFC_u32.to_le_bytes());
    put(4, &1u32.to_le_bytes());
    put(16, b"array's identity");
    put(32, b"box:mirror");
    put(64, &1_700_000_000u64.to_le_bytes());
    put(72, &level.to_le_bytes());
    put(80, &(SIZE / 512).to_le_bytes());
    put(92, &2u32.to_le_bytes());
    put(128, &(data / 512).to_le_bytes());
    put(136, &(SIZE / 512).to_le_bytes());
    put(144, &(place / 512).to_le_bytes());
    put(168, b"device, identity");
    put(192, &1_700_000_000u64.to_le_bytes());
    put(200, &17u64.to_le_bytes());
    put(208, &u64::MAX.to_le_bytes());
    put(220, &128u32.to_le_bytes());
    put(256, &[0xFF; 256]);
    put(256, &[0, 0, 1, 0]);
    let sum = checksum(&sb[..512]);
    sb[216..220].copy_from_slice(&sum.to_le_bytes());
    bytes::create_sparse(path, LEN);
    bytes::write(path, place, &sb);
    path.to_owned()
}

/// A file of [`LEN`] with a superblock of version 0.90 of a clean mirror, and data from byte 0 on.
fn old_member(path: &Path) -> PathBuf {
    let mut words = vec![0u32; 1024];
    let size = u32::try_from(SIZE / 1024).unwrap();
    for (at, value) in [
        (0, 0xA92B_4EFC),
        (2, 90),
        (5, 0x1234_5678),
        (6, 1_700_000_000),
        (7, 1),
        (8, size),
        (9, 2),
        (10, 2),
        (32, 1_700_000_000),
        (33, 1),
        (34, 2),
        (35, 2),
        (39, 17),
        (132, 6),
        (160, 1),
        (163, 1),
        (164, 6),
        (992 + 4, 6),
    ] {
        words[at] = value;
    }
    let bytes_of = |words: &[u32]| {
        words
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    words[38] = checksum(&bytes_of(&words));
    bytes::create_sparse(path, LEN);
    bytes::write(path, LEN - 65_536, &bytes_of(&words));
    path.to_owned()
}

/// What both versions sum up their superblocks by; the field for it must be zero.
fn checksum(superblock: &[u8]) -> u32 {
    let words = superblock.chunks(4);
    let sum: u64 = words
        .map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap())))
        .sum();
    let folded = (sum & 0xFFFF_FFFF) + (sum >> 32);
    u32::try_from(folded & 0xFFFF_FFFF).unwrap()
}

/// What `mdadm` finds in a file.
fn examined(path: &Path) -> String {
    tools::run("mdadm", &["--examine", path.to_str().unwrap()])
}

#[test]
fn a_clean_mirror_is_looked_into() {
    if !privileged_with_fs("ext4", "ext4 on members of a mirror") {
        return;
    }
    for (version, data) in [("0.90", 0), ("1.0", 0), ("1.2", DATA)] {
        let dir = scratch();
        let path = dir.path().join("member");
        let file = match version {
            "0.90" => old_member(&path),
            "1.0" => member(&path, 1, LEN - 8192, data),
            _ => member(&path, 1, 4096, data),
        };
        let found = examined(&file);
        for part in [
            &format!("Version : {version}"),
            "raid1",
            "clean",
            "- correct",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
        let inner = Loop::of_range(&file, data, SIZE);
        let device = inner.path().to_str().unwrap();
        tools::run("mkfs.ext4", &["-q", "-b", "4096", device]);
        let manifest = {
            let mount = Mount::new(inner.path(), &dir.path().join("mnt"));
            aged::age(mount.path(), 16 * MIB, 3, aged::POSIX);
            Manifest::of(mount.path())
        };
        let header = tools::run("dumpe2fs", &["-h", device]);
        let blocks = header.lines().find_map(|l| l.strip_prefix("Free blocks:"));
        let blocks: u64 = blocks.unwrap().trim().parse().unwrap();
        drop(inner);

        let cycle = Cycle::of(&file, dir.path());
        cycle
            .only()
            .assert_mapped(&format!("md RAID1 member {version}"));
        assert_eq!(cycle.only().free(), blocks * 4096);
        if version != "0.90" {
            assert_eq!(cycle.only().0["label"], "box:mirror");
        }
        let restored = examined(&cycle.restored);
        let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        assert_eq!(body(&found), body(&restored));
        let inner = Loop::of_range(&cycle.restored, data, SIZE);
        tools::run("e2fsck", &["-fn", inner.path().to_str().unwrap()]);
        let mount = Mount::new(inner.path(), &dir.path().join("restored"));
        manifest.assert_same(&Manifest::of(mount.path()));
    }
}

#[test]
fn members_of_other_levels_are_taken_whole() {
    let dir = scratch();
    let file = member(&dir.path().join("member"), 5, 4096, DATA);
    assert!(examined(&file).contains("raid5"));
    let cycle = Cycle::of(&file, dir.path());
    let part = cycle.only();
    part.assert_whole(
        "md RAID5 member 1.2",
        "a member of a RAID5 array of 2 disks",
    );
    bytes::assert_same(&file, &cycle.restored);
}
