//! Real volumes with one bit wrong: the map is the right one, or everything is taken.

use crate::base::{Cancel, to_u64, to_usize};
use crate::block::Capsule;
use crate::fs::{Certainty, UsedReport, used};

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
