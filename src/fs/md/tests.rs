//! Superblocks made by hand; `mdadm` reads such in `tests/filesystems/md.rs`.

use super::super::doubt::Doubt;
use super::super::layer::testing::{HalfFree, MAGIC};
use super::super::volume::Volume;
use super::super::{Certainty, Used};
use super::walk::{AT_END, AT_START, Format, find, map};
use crate::base::{Cancel, to_u64, to_usize};
use crate::block::MemorySource;

const LEN: usize = 1 << 20;
const DATA: u64 = 131_072;

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The sum that both versions use, over `bytes` whose own field is zero.
fn sum(bytes: &[u8]) -> u32 {
    let word = |w: &[u8]| u64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let sum: u64 = bytes.chunks(4).map(word).sum();
    u32::try_from((sum & 0xFFFF_FFFF) + (sum >> 32)).unwrap()
}

/// A member of version 1 with its superblock at `place` and half a MiB of data from `data` on.
fn version_1(place: usize, data: u64, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut disk = vec![0x33; LEN];
    let sb = &mut disk[place..place + 4096];
    sb.fill(0);
    put(sb, 0, &0xA92B_4EFC_u32.to_le_bytes());
    sb[4] = 1;
    put(sb, 32, b"box:mirror");
    sb[72] = 1;
    put(sb, 80, &1024u64.to_le_bytes());
    sb[92] = 2;
    put(sb, 128, &(data / 512).to_le_bytes());
    put(sb, 136, &1400u64.to_le_bytes());
    put(sb, 144, &to_u64(place / 512).to_le_bytes());
    put(sb, 208, &u64::MAX.to_le_bytes());
    sb[220] = 128;
    put(sb, 258, &[1, 0, 0xFF, 0xFF]);
    change(sb);
    sb[216..220].fill(0);
    let csum = sum(&sb[..256 + 256]);
    put(sb, 216, &csum.to_le_bytes());
    put(&mut disk, to_usize(data), MAGIC);
    disk
}

fn version_0(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut disk = vec![0x33; LEN];
    let sb = &mut disk[LEN - 65_536..LEN - 65_536 + 4096];
    sb.fill(0);
    put(sb, 0, &0xA92B_4EFC_u32.to_le_bytes());
    sb[8] = 90;
    sb[28] = 1;
    put(sb, 32, &512u32.to_le_bytes());
    sb[40] = 2;
    sb[132] = 1;
    put(sb, 3968 + 12, &[1, 0, 0, 0, 6]);
    change(sb);
    sb[152..156].fill(0);
    let csum = sum(sb);
    put(sb, 152, &csum.to_le_bytes());
    put(&mut disk, 0, MAGIC);
    disk
}

fn look(disk: Vec<u8>, formats: &[Format]) -> (String, Result<Used, String>) {
    let (source, cancel) = (MemorySource::new("m", disk), Cancel::new());
    let volume = Volume::new(&source, &cancel);
    let found = find(&volume, formats).unwrap().unwrap().found;
    let used = map(&volume, formats, &[&HalfFree]);
    let used = used.map_err(|doubt| match doubt {
        Doubt::Unsure(why) => why,
        Doubt::Stopped(error) => panic!("{error}"),
    });
    (found.kind, used)
}

#[track_caller]
fn assert_mapped(used: Used, name: &str, data: u64) {
    let inside = &used.inside[0];
    assert_eq!((inside.name.as_str(), inside.kind.as_str()), (name, "half"));
    assert_eq!((inside.bytes.0, inside.used.0), (1 << 19, 1 << 18));
    assert_eq!(inside.certainty, Certainty::Certain);
    assert!(used.notes.iter().any(|n| n.contains("mismatches")));
    let (unit, map) = used.map.finish();
    let free: Vec<_> = map
        .gaps()
        .map(|g| g.start * unit.0..g.end * unit.0)
        .collect();
    let half = data + (1 << 18)..data + (1 << 19);
    assert_eq!((free.len(), &free[0]), (1, &half));
}

#[test]
fn mirrors_of_every_version_are_looked_into() {
    for (version, place, data, formats) in [
        ("1.0", LEN - 8192, 0, AT_END.as_slice()),
        ("1.1", 0, DATA, &AT_START),
        ("1.2", 4096, DATA, &AT_START),
    ] {
        let (kind, used) = look(version_1(place, data, |_| ()), formats);
        assert_eq!(kind, format!("md RAID1 member {version}"));
        assert_mapped(used.unwrap(), "box:mirror", data);
    }
    let (kind, used) = look(version_0(|_| ()), &AT_END);
    assert_eq!(kind, "md RAID1 member 0.90");
    assert_mapped(used.unwrap(), "array", 0);
}

#[test]
fn members_that_tell_nothing_alone_are_doubts() {
    let why = |change: fn(&mut [u8])| {
        let (_, used) = look(version_1(4096, DATA, change), &AT_START);
        used.unwrap_err()
    };
    assert!(why(|sb| sb[72] = 5).contains("a RAID5 array of 2 disks"));
    assert!(why(|sb| sb[72..76].fill(0xFF)).contains("a linear array"));
    assert!(why(|sb| sb[8] = 2).contains("0x2"));
    assert!(why(|sb| sb[8] = 8).contains("bad blocks"));
    assert!(why(|sb| sb[208..216].fill(0)).contains("cleanly"));
    assert!(why(|sb| sb[257] = 0xFF).contains("spare"));
    assert!(why(|sb| sb[160] = 200).contains("spare"));
    assert!(why(|sb| sb[81] = 6).contains("more of it"));
    assert!(why(|sb| sb[128..136].fill(0xFF)).contains("sector"));
    assert!(why(|sb| put(sb, 128, &1200u64.to_le_bytes())).contains("pass its end"));
    assert!(why(|sb| put(sb, 128, &8u64.to_le_bytes())).contains("overlaps"));
    assert!(why(|sb| (sb[8], sb[97]) = (1, 1)).contains("bitmap"));
    assert!(why(|sb| sb[144] = 9).contains("elsewhere"));
    assert!(why(|sb| sb[222] = 1).contains("room for"));
}

#[test]
fn members_of_version_0_90_that_tell_nothing_alone_are_doubts() {
    let why = |change: fn(&mut [u8])| look(version_0(change), &AT_END).1.unwrap_err();
    assert!(why(|sb| sb[28] = 6).contains("a RAID6 array"));
    assert!(why(|sb| sb[8] = 91).contains("reshaped"));
    assert!(why(|sb| sb[132] = 0).contains("cleanly"));
    assert!(why(|sb| sb[132] = 3).contains("0x3"));
    assert!(why(|sb| sb[3984] = 0).contains("spare"));
    assert!(why(|sb| sb[3984] = 7).contains("failed"));
    assert!(why(|sb| sb[3980] = 2).contains("spare"));
    assert!(why(|sb| put(sb, 32, &1000u32.to_le_bytes())).contains("overlaps"));
    let mut other = version_0(|_| ());
    other[LEN - 65_536..LEN - 65_532].reverse();
    assert!(look(other, &AT_END).1.unwrap_err().contains("byte order"));
}

#[test]
fn damaged_superblocks_are_doubts() {
    let mut disk = version_1(4096, DATA, |_| ());
    disk[4096 + 300] ^= 1;
    assert!(look(disk, &AT_START).1.unwrap_err().contains("checksum"));
    let mut disk = version_0(|_| ());
    disk[LEN - 65_536 + 2000] ^= 1;
    assert!(look(disk, &AT_END).1.unwrap_err().contains("checksum"));
}

#[test]
fn raids_of_firmware_are_named_and_taken_whole() {
    let mut disk = vec![0; LEN];
    put(&mut disk, LEN - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00");
    let (kind, used) = look(disk, &AT_END);
    assert_eq!(kind, "IMSM RAID member");
    assert!(used.unwrap_err().contains("firmware"));
    let mut disk = vec![0; LEN];
    put(&mut disk, LEN - 512, &[0xDE, 0x11, 0xDE, 0x11]);
    assert_eq!(look(disk, &AT_END).0, "DDF RAID member");
}

#[test]
fn tiny_volumes_are_no_members() {
    for len in [0, 1, 511, 512, 4095, 4096, 5000, 8192] {
        let (source, cancel) = (MemorySource::new("m", vec![0; len]), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        for formats in [AT_END.as_slice(), &AT_START] {
            assert!(find(&volume, formats).unwrap().is_none(), "{len}");
        }
    }
}
