//! Real volumes with one bit wrong: the map is the right one, or everything is taken.

use crate::base::Cancel;
use crate::block::Capsule;
use crate::fs::{Certainty, UsedReport, used};

fn look(capsule: &Capsule) -> UsedReport {
    used(capsule, &Cancel::new()).unwrap()
}

/// Turns one bit in each of the bytes from `start` to `end` of the volume, one at a time.
fn damage(stored: &[u8], start: u64, end: u64, check: impl Fn(u64, UsedReport)) {
    let sound = Capsule::decode(stored).unwrap();
    for at in start..end {
        let mut damaged = sound.clone();
        let holds =
            |(first, bytes): &(u64, Vec<u8>)| (*first..*first + bytes.len() as u64).contains(&at);
        let piece = sound.pieces().iter().position(holds);
        let piece = piece.unwrap_or_else(|| panic!("byte {at} was not read"));
        let first = sound.pieces()[piece].0;
        let bytes = damaged.pieces_mut().nth(piece).unwrap();
        bytes[usize::try_from(at - first).unwrap()] ^= 1 << (at % 8);
        check(at, look(&damaged));
    }
}

#[test]
fn checksums_tell_of_every_bit_in_version_5() {
    let stored = include_bytes!("../../../../fixtures/fs/xfs-v5.capsule");
    // The superblock, the free-space header of the first group, and the roots of its two trees.
    for (start, end) in [(0, 512), (512, 1024), (4096, 4352), (8192, 8448)] {
        damage(stored, start, end, |at, report| {
            assert_ne!(report.certainty, Certainty::Certain, "byte {at}");
        });
    }
}

#[test]
fn two_trees_tell_of_bits_in_version_4() {
    let stored = include_bytes!("../../../../fixtures/fs/xfs-v4.capsule");
    let sound = look(&Capsule::decode(stored).unwrap());
    assert_eq!(sound.certainty, Certainty::Certain);
    for (start, end) in [(0, 512), (512, 1024), (4096, 4352), (8192, 8448)] {
        damage(stored, start, end, |at, report| match report.certainty {
            Certainty::Certain => assert_eq!(report.used, sound.used, "byte {at}"),
            Certainty::Unknown(_) => {}
        });
    }
    // The first entry of the tree by block.
    damage(stored, 4096 + 16, 4096 + 24, |at, report| {
        assert_ne!(report.certainty, Certainty::Certain, "byte {at}");
    });
}
