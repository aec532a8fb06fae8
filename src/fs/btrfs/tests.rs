//! Real file systems, kept as capsules, as they are and changed in one place.

use super::super::UsedReport;
use super::super::{Certainty, probe};
use super::*;
use crate::base::{ByteLen, Cancel};
use crate::block::{BlockSource, Capsule};

const DEFAULT: &[u8] = include_bytes!("../../../fixtures/fs/btrfs-default.capsule");
const LOG: &[u8] = include_bytes!("../../../fixtures/fs/btrfs-log.capsule");
const TREE: &[u8] = include_bytes!("../../../fixtures/fs/btrfs-block-group-tree.capsule");

fn look(capsule: &Capsule) -> UsedReport {
    let cancel = Cancel::new();
    probe::look_into(&Volume::new(capsule, &cancel), &[&Btrfs]).unwrap()
}

/// The bytes of `capsule` from `at` to the end of what is kept there.
fn bytes_at(capsule: &mut Capsule, at: u64) -> &mut [u8] {
    let pieces = capsule.pieces();
    let index = pieces.partition_point(|(start, _)| *start <= at) - 1;
    let inside = usize::try_from(at - pieces[index].0).unwrap();
    &mut capsule.pieces_mut().nth(index).unwrap()[inside..]
}

/// The capsule with `bytes` at `field` of the superblock at `at`, its checksum made right.
fn changed(stored: &[u8], at: u64, field: usize, bytes: &[u8]) -> Capsule {
    let mut capsule = Capsule::decode(stored).unwrap();
    let superblock = &mut bytes_at(&mut capsule, at)[..4096];
    superblock[field..field + bytes.len()].copy_from_slice(bytes);
    let sum = crc32c::crc32c(&superblock[32..]);
    superblock[..4].copy_from_slice(&sum.to_le_bytes());
    capsule
}

#[track_caller]
fn assert_doubt(capsule: &Capsule, part: &str) {
    let report = look(capsule);
    match &report.certainty {
        Certainty::Unknown(why) => assert!(why.contains(part), "{why}"),
        Certainty::Certain => panic!("no doubt that {part}"),
    }
    assert_eq!(report.used_bytes(capsule.len()), capsule.len());
}

#[test]
fn they_are_certain_as_they_are() {
    for stored in [DEFAULT, LOG, TREE] {
        let capsule = Capsule::decode(stored).unwrap();
        let report = look(&capsule);
        assert_eq!(report.certainty, Certainty::Certain);
        assert!(report.used_bytes(capsule.len()) < ByteLen(capsule.len().0 / 2));
        assert_eq!(report.notes, [""; 0]);
        assert_eq!(report.basis.contains("log"), stored == LOG);
    }
    assert_eq!(
        look(&Capsule::decode(DEFAULT).unwrap()).label,
        Some("default".to_owned())
    );
}

#[test]
fn features_and_states_that_are_not_known_are_doubts() {
    let at = SUPERBLOCK_AT;
    let cases: [(usize, &[u8], &str); 9] = [
        (0xBC + 1, &[0x10], "zoned storage"),
        (0xBC + 2, &[0x02], "remap tree"),
        (0xBC + 7, &[0x80], "0x8000000000000000"),
        (0xB4, &[0x13], "0x10"),
        (0x38 + 4, &[1], "seed"),
        (0x38 + 7, &[1], "unknown flags"),
        (0x88, &[2], "one of 2 devices"),
        (0x90, &[0, 0x30], "blocks of 12288"),
        (0x94 + 2, &[0xFF], "tree blocks of"),
    ];
    for (field, bytes, part) in cases {
        assert_doubt(&changed(DEFAULT, at, field, bytes), part);
    }
}

#[test]
fn sums_that_do_not_agree_are_doubts() {
    let at = SUPERBLOCK_AT;
    assert_doubt(&changed(DEFAULT, at, 0x79, &[0xFF]), "claims");
    assert_doubt(&changed(DEFAULT, at, 0x48, &[0xFE, 0xFE]), "generation");
    assert_doubt(&changed(DEFAULT, at, 0x30, &[0, 0, 2]), "lies at byte");
    assert_doubt(&changed(DEFAULT, at, 0xC6, &[7]), "level");
    assert_doubt(&changed(DEFAULT, at, 0xC6, &[8]), "claims 8 levels");
    assert_doubt(&changed(DEFAULT, at, 0xA0, &[0xFF, 0xFF]), "system chunks");
    // Pretending that there is no tree of block groups leaves chunks without any.
    assert_doubt(&changed(TREE, at, 0xB4, &[3]), "no block group");
    let short = Capsule::decode(DEFAULT)
        .unwrap()
        .with_len(ByteLen(100 << 20));
    assert_doubt(&short, "the partition is 104857600 bytes long");
}

#[test]
fn a_wrong_checksum_is_a_doubt() {
    let mut capsule = Capsule::decode(DEFAULT).unwrap();
    bytes_at(&mut capsule, SUPERBLOCK_AT)[0x700] ^= 1;
    assert_doubt(&capsule, "checksum of its superblock");
}

/// Only the first copy of each tree block is in a capsule; the second reads as zeros.
#[test]
fn a_tree_block_without_a_good_copy_is_a_doubt() {
    for stored in [DEFAULT, LOG, TREE] {
        let whole = Capsule::decode(stored).unwrap();
        let superblocks = [SUPERBLOCK_AT, MIRRORS_AT[0]];
        let trees = whole.pieces().iter().map(|(at, _)| *at);
        let mut met = 0;
        for at in trees.filter(|at| !superblocks.contains(at)) {
            let mut capsule = whole.clone();
            bytes_at(&mut capsule, at)[300] ^= 1;
            assert_doubt(&capsule, "no good copy");
            met += 1;
        }
        assert!(met > 3);
    }
}

#[test]
fn copies_of_the_superblock_are_compared() {
    let newer = changed(DEFAULT, MIRRORS_AT[0], 0x48, &[0xFF, 0xFF]);
    assert_doubt(&newer, "is newer");
    let certain = look(&Capsule::decode(DEFAULT).unwrap());
    let other = look(&changed(DEFAULT, MIRRORS_AT[0], 0x20, &[0; 16]));
    assert!(other.notes[0].contains("of another file system"));
    let mut capsule = Capsule::decode(DEFAULT).unwrap();
    bytes_at(&mut capsule, MIRRORS_AT[0])[0x700] ^= 1;
    let damaged = look(&capsule);
    assert!(damaged.notes[0].contains("is damaged"));
    assert_eq!([&damaged.used, &other.used], [&certain.used; 2]);
}

/// Without its log the file system of the capsule has less in use.
#[test]
fn the_log_is_in_use() {
    let with = look(&Capsule::decode(LOG).unwrap());
    let without = look(&changed(LOG, SUPERBLOCK_AT, 0x60, &[0; 8]));
    assert_eq!(without.certainty, Certainty::Certain);
    let mut more = with.used.clone();
    more.subtract(&without.used);
    // Eight files of 9000 to 72000 bytes, in blocks of 4 KiB, and blocks of the log.
    let data: u64 = (1..=8u64).map(|n| (n * 9000).div_ceil(4096)).sum();
    assert!(more.count() > data, "{} {data}", more.count());
    assert!(without.used.count() + more.count() == with.used.count());
    assert_doubt(&changed(LOG, SUPERBLOCK_AT, 0x60, &[0, 0x10]), "block");
}
