//! Real volumes with one bit wrong: the map is the right one, or everything is taken.

use crate::base::{Cancel, to_u64, to_usize};
use crate::block::Capsule;
use crate::fs::{Certainty, UsedReport, used};
use byteorder::{BE, ByteOrder};

fn look(capsule: &Capsule) -> UsedReport {
    used(capsule, &Cancel::new()).unwrap()
}

/// Turns one bit in every `step`th byte from `start` to `end` of the volume, one at a time.
fn damage(stored: &[u8], (start, end, step): (u64, u64, usize), check: impl Fn(u64, UsedReport)) {
    let sound = Capsule::decode(stored).unwrap();
    for at in (start..end).step_by(step) {
        let mut damaged = sound.clone();
        let holds =
            |(first, bytes): &(u64, Vec<u8>)| (*first..*first + to_u64(bytes.len())).contains(&at);
        let piece = sound.pieces().iter().position(holds);
        let piece = piece.unwrap_or_else(|| panic!("byte {at} was not read"));
        let first = sound.pieces()[piece].0;
        let bytes = damaged.pieces_mut().nth(piece).unwrap();
        bytes[to_usize(at - first)] ^= 1 << (at % 8);
        check(at, look(&damaged));
    }
}

#[test]
fn checksums_tell_of_every_bit_in_version_5() {
    let stored = include_bytes!("../../../../fixtures/fs/xfs-v5.capsule");
    // The superblock, the free-space header of the first group, and the roots of its two trees.
    for range in [
        (0, 270, 5),
        (512, 740, 7),
        (4096, 4352, 9),
        (8192, 12288, 99),
    ] {
        damage(stored, range, |at, report| {
            assert_ne!(report.certainty, Certainty::Certain, "byte {at}");
        });
    }
}

#[test]
fn two_trees_tell_of_bits_in_version_4() {
    let stored = include_bytes!("../../../../fixtures/fs/xfs-v4.capsule");
    let sound = look(&Capsule::decode(stored).unwrap());
    assert_eq!(sound.certainty, Certainty::Certain);
    for range in [
        (0, 270, 5),
        (512, 740, 7),
        (4096, 4352, 9),
        (8192, 12288, 99),
    ] {
        damage(stored, range, |at, report| match report.certainty {
            Certainty::Certain => assert_eq!(report.used, sound.used, "byte {at}"),
            Certainty::Unknown(_) => {}
        });
    }
    // The first entry of the tree by block.
    damage(stored, (4096 + 16, 4096 + 24, 1), |at, report| {
        assert_ne!(report.certainty, Certainty::Certain, "byte {at}");
    });
}

/// Where the blocks of free-space trees begin that have something in them, and how many entries
/// they have, and whether they are leaves.
fn tree_blocks(capsule: &Capsule, size: usize) -> Vec<(u64, usize, bool)> {
    let mut found = Vec::new();
    for (first, bytes) in capsule.pieces() {
        let skip = to_usize(first.next_multiple_of(to_u64(size)) - first);
        let blocks = bytes.get(skip..).unwrap_or_default().chunks_exact(size);
        for (i, block) in blocks.enumerate() {
            let count = usize::from(BE::read_u16(&block[6..]));
            if (block.starts_with(b"AB3B") || block.starts_with(b"AB3C")) && count > 0 {
                let at = first + to_u64(skip + i * size);
                found.push((at, count, BE::read_u16(&block[4..]) == 0));
            }
        }
    }
    found
}

/// The capsule with one bit of a block turned and the block's checksum made right again.
fn with_bit(capsule: &Capsule, (block, size): (u64, usize), byte: usize) -> Capsule {
    let mut damaged = capsule.clone();
    let holds =
        |(first, bytes): &(u64, Vec<u8>)| (*first..*first + to_u64(bytes.len())).contains(&block);
    let piece = capsule.pieces().iter().position(holds).unwrap();
    let skip = to_usize(block - capsule.pieces()[piece].0);
    let bytes = damaged.pieces_mut().nth(piece).unwrap();
    let bytes = &mut bytes[skip..skip + size];
    bytes[byte] ^= 1 << (byte % 8);
    bytes[52..56].fill(0);
    let sum = crc32c::crc32c(bytes);
    bytes[52..56].copy_from_slice(&sum.to_le_bytes());
    damaged
}

#[test]
fn trees_are_checked_behind_their_checksums() {
    const SIZE: usize = 1024;
    const HEADER: usize = 56;
    let stored = include_bytes!("../../../../fixtures/fs/xfs-two-levels.capsule");
    let sound = Capsule::decode(stored).unwrap();
    assert_eq!(look(&sound).certainty, Certainty::Certain);
    let blocks = tree_blocks(&sound, SIZE);
    assert!(blocks.iter().any(|(_, _, leaf)| !leaf), "{blocks:?}");
    for (block, count, leaf) in blocks {
        // Level, count, neighbours, address, UUID, group; the last entry; the last pointer.
        let mut bytes = vec![0, 5, 7, 8, 15, 22, 40, 51];
        bytes.extend([HEADER + 8 * (count - 1) + 3, HEADER + 8 * (count - 1) + 6]);
        if !leaf {
            bytes.push(HEADER + 8 * ((SIZE - HEADER) / 12) + 4 * (count - 1) + 2);
        }
        for byte in bytes {
            let report = look(&with_bit(&sound, (block, SIZE), byte));
            // The length in a parent by block says nothing that its child does not.
            let ignored = !leaf && report.used == look(&sound).used;
            let unknown = report.certainty != Certainty::Certain;
            assert!(unknown || ignored, "byte {byte} of the block at {block}");
        }
    }
}
