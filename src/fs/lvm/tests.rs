//! Physical volumes made by hand: what LVM2's own tools make is in `tests/filesystems/lvm.rs`.

use super::super::checksum::crc32_raw;
use super::super::doubt::Doubt;
use super::super::layer::testing::{HalfFree, MAGIC};
use super::super::volume::Volume;
use super::super::{Certainty, Used};
use super::walk;
use crate::base::{Cancel, to_u64};
use crate::block::MemorySource;
use std::ops::Range;

const CRC_SEED: u32 = 0xF597_A6CF;
const UUID: &str = "abcdefABCDEFabcdefABCDEFabcdefAB";
const AREA: usize = 4096;
const AREA_LEN: usize = 61_440;
const START: usize = 65_536;
const EXTENT: usize = 8192;
const EXTENTS: usize = 16;

/// A logical volume's section with `states` and one segment for each of `segments`.
fn logical(name: &str, states: &str, segments: &[&str]) -> String {
    let mut text = format!(
        "{name} {{ id = \"x\" status = [{states}] flags = [] segment_count = {}\n",
        segments.len()
    );
    for (number, segment) in segments.iter().enumerate() {
        text += &format!("segment{} {{ {segment} }}\n", number + 1);
    }
    text + "}\n"
}

const PLAIN: &str = "\"READ\", \"WRITE\", \"VISIBLE\"";

fn linear(start: u64, count: u64, first: u64) -> String {
    format!(
        "start_extent = {start} extent_count = {count} type = \"striped\" stripe_count = 1 # linear\n\
         stripes = [\"pv0\", {first}]"
    )
}

fn group(logical_volumes: &str) -> String {
    format!(
        "vg0 {{ id = \"g\" seqno = 2 format = \"lvm2\" status = [\"RESIZEABLE\", \"READ\"] flags = []\n\
         extent_size = {} max_lv = 0\n\
         physical_volumes {{ pv0 {{ id = \"abcdef-ABCD-EFab-cdef-ABCD-EFab-cdefAB\" status = \
         [\"ALLOCATABLE\"] pe_start = {} pe_count = {EXTENTS} }}\n\
         pv1 {{ id = \"other\" pe_start = 2048 pe_count = 10 }} }}\n\
         logical_volumes {{ {logical_volumes} }} }}\n\
         contents = \"Text Format Volume Group\" version = 1 description = \"\"\0",
        EXTENT / 512,
        START / 512
    )
}

/// A physical volume whose only metadata area holds `text`, one sector before its end at the least.
fn physical(text: &str) -> Vec<u8> {
    let mut disk = vec![0x55; START + EXTENTS * EXTENT + 5000];
    disk[..AREA + AREA_LEN].fill(0);
    let label = &mut disk[512..1024];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(UUID.as_bytes());
    for (at, value) in [(72, START), (104, AREA), (112, AREA_LEN)] {
        label[at..at + 8].copy_from_slice(&to_u64(value).to_le_bytes());
    }
    label[136] = 2;
    label[140] = 1;
    let crc = crc32_raw(CRC_SEED, &label[20..]);
    label[16..20].copy_from_slice(&crc.to_le_bytes());
    // So far back that the text wraps around.
    let offset = AREA_LEN - 512;
    for (number, byte) in text.bytes().enumerate() {
        let place = if number < 512 {
            AREA + offset + number
        } else {
            AREA + number
        };
        disk[place] = byte;
    }
    let area = &mut disk[AREA..AREA + 512];
    area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    area[20] = 1;
    for (at, value) in [(24, AREA), (32, AREA_LEN), (40, offset), (48, text.len())] {
        area[at..at + 8].copy_from_slice(&to_u64(value).to_le_bytes());
    }
    area[56..60].copy_from_slice(&crc32_raw(CRC_SEED, text.as_bytes()).to_le_bytes());
    let crc = crc32_raw(CRC_SEED, &area[4..]);
    area[..4].copy_from_slice(&crc.to_le_bytes());
    disk
}

fn look(disk: Vec<u8>) -> Result<Used, String> {
    let (source, cancel) = (MemorySource::new("m", disk), Cancel::new());
    let volume = Volume::new(&source, &cancel);
    walk::map(&volume, &[&HalfFree]).map_err(|doubt| match doubt {
        Doubt::Unsure(why) => why,
        Doubt::Stopped(error) => panic!("{error}"),
    })
}

fn look_at(volumes: &str) -> Result<Used, String> {
    look(physical(&group(volumes)))
}

#[track_caller]
fn doubts(volumes: &str, why: &str) {
    let found = look_at(volumes).unwrap_err();
    assert!(found.contains(why), "{found}");
}

/// Free extents in halves: the unit is as large.
fn free(used: Used) -> Vec<Range<u64>> {
    let (unit, map) = used.map.finish();
    assert_eq!(unit.0, 4096);
    let first = to_u64(START) / unit.0;
    assert!(map.gaps().all(|g| g.start >= first));
    map.gaps().map(|g| g.start - first..g.end - first).collect()
}

fn why(used: &Used, name: &str) -> String {
    let inside = used.inside.iter().find(|i| i.name == name).unwrap();
    assert_eq!(inside.bytes, inside.used);
    match &inside.certainty {
        Certainty::Unknown(why) => why.clone(),
        Certainty::Certain => panic!("{name} is certain"),
    }
}

#[test]
fn extents_of_no_volume_are_free_and_the_rest_is_kept() {
    let used = look_at(&logical("a", PLAIN, &[&linear(0, 2, 3)])).unwrap();
    assert_eq!(used.inside[0].name, "vg0/a");
    assert_eq!(used.inside[0].kind, "unknown");
    assert!(
        used.notes[0].contains("2 physical volumes"),
        "{:?}",
        used.notes
    );
    assert_eq!(free(used), [0..6, 10..32]);
}

#[test]
fn a_file_system_over_two_segments_is_looked_into() {
    let volumes = logical("a", PLAIN, &[&linear(0, 2, 9), &linear(2, 2, 4)]);
    let mut disk = physical(&group(&volumes));
    let at = START + 9 * EXTENT;
    disk[at..at + 8].copy_from_slice(MAGIC);
    let used = look(disk).unwrap();
    let inside = &used.inside[0];
    assert_eq!((inside.bytes.0, inside.used.0), (32_768, 16_384));
    assert_eq!(inside.certainty, Certainty::Certain);
    // Its second quarter is swap: the second extent of the first segment.
    let swap = used.contents[0].extents[0];
    assert_eq!(swap.start.0, to_u64(START + 10 * EXTENT));
    assert_eq!(free(used), [0..18, 22..32]);
}

#[test]
fn stripes_on_one_disk_are_looked_into() {
    let striped = "start_extent = 0 extent_count = 4 type = \"striped\" stripe_count = 2 \
                   stripe_size = 8 stripes = [\"pv0\", 0, \"pv0\", 8]";
    let mut disk = physical(&group(&logical("a", PLAIN, &[striped])));
    disk[START..START + 8].copy_from_slice(MAGIC);
    let used = look(disk).unwrap();
    // Of four stripes of 4 KiB in each area, the second two are free.
    assert_eq!(free(used), [2..16, 18..32]);
}

#[test]
fn what_other_volumes_are_built_on_is_not_looked_into() {
    let volumes = [
        logical("origin", PLAIN, &[&linear(0, 1, 0)]),
        logical("cow", PLAIN, &[&linear(0, 1, 1)]),
        logical(
            "snapshot0",
            PLAIN,
            &[
                "start_extent = 0 extent_count = 1 type = \"snapshot\" chunk_size = 8 \
               origin = \"origin\" cow_store = \"cow\"",
            ],
        ),
        logical("pool_tdata", "\"READ\", \"WRITE\"", &[&linear(0, 1, 2)]),
        logical(
            "mirrored",
            PLAIN,
            &[
                "start_extent = 0 extent_count = 1 type = \"mirror\" mirror_count = 2 \
               mirrors = [\"pv0\", 3, \"pv1\", 0]",
            ],
        ),
        logical(
            "moving",
            "\"READ\", \"VISIBLE\", \"LOCKED\"",
            &[&linear(0, 1, 4)],
        ),
        logical(
            "wide",
            PLAIN,
            &[
                "start_extent = 0 extent_count = 2 type = \"striped\" stripe_count = 2 \
               stripe_size = 8 stripes = [\"pv0\", 5, \"pv1\", 5]",
            ],
        ),
    ];
    let used = look_at(&volumes.concat()).unwrap();
    for (name, reason) in [
        (
            "origin",
            "the volume snapshot0 (of type snapshot) is built on it",
        ),
        ("cow", "snapshot0"),
        ("pool_tdata", "hidden"),
        ("mirrored", "type mirror"),
        ("moving", "LOCKED"),
        ("wide", "other physical volumes"),
    ] {
        let found = why(&used, &format!("vg0/{name}"));
        assert!(found.contains(reason), "{name}: {found}");
    }
    // Nothing of the snapshot itself is on a disk.
    assert_eq!(used.inside.len(), 6);
    assert_eq!(free(used).first(), Some(&(12..32)));
}

#[test]
fn extents_that_do_not_add_up_are_doubts() {
    let one = |segment: &str| logical("a", PLAIN, &[segment]);
    doubts(&one(&linear(1, 1, 0)), "do not add up");
    doubts(&one(&linear(0, 17, 0)), "behind the last");
    doubts(&one(&linear(0, 1, u64::MAX)), "behind the last");
    doubts(&one(&linear(0, u64::MAX, 0)), "behind the last");
    let both = one(&linear(0, 4, 0)) + &logical("b", PLAIN, &[&linear(0, 4, 3)]);
    doubts(&both, "volumes a and b both have extent 3");
    let unknown = "start_extent = 0 extent_count = 1 type = \"woven\" threads = [\"pv0\", 0]";
    doubts(&one(unknown), "type woven");
    let uneven = "start_extent = 0 extent_count = 3 type = \"striped\" stripe_count = 2 \
                  stripe_size = 8 stripes = [\"pv0\", 0, \"pv0\", 8]";
    doubts(&one(uneven), "stripes");
    let short = one(&linear(0, 1, 0)).replace("segment_count = 1", "segment_count = 2");
    doubts(&short, "2 segments");
}

#[test]
fn a_description_that_is_not_this_disks_is_a_doubt() {
    let text = group("");
    let doubts = |from: &str, to: &str, why: &str| {
        let found = look(physical(&text.replace(from, to))).unwrap_err();
        assert!(found.contains(why), "{found}");
    };
    doubts("pe_count = 16", "pe_count = 17", "pass its end");
    doubts("cdef-ABCD", "cdef-ABCE", "does not list it once");
    doubts("ALLOCATABLE", "MISSING", "as missing");
    doubts("RESIZEABLE", "UPSIDE_DOWN", "UPSIDE_DOWN");
    doubts("extent_size = 16", "extent_size = 0", "no length");
    doubts("version = 1", "version = 2", "unknown version");
    doubts("logical_volumes", "magical_volumes", "magical_volumes");
}

#[test]
fn damage_to_any_checksummed_byte_is_a_doubt() {
    let disk = physical(&group(&logical("a", PLAIN, &[&linear(0, 2, 3)])));
    assert!(look(disk.clone()).is_ok());
    for at in [
        512 + 20,
        512 + 70,
        AREA + 30,
        AREA + 300,
        AREA + 520,
        AREA + AREA_LEN - 5,
    ] {
        let mut damaged = disk.clone();
        damaged[at] ^= 1;
        assert!(look(damaged).is_err(), "byte {at}");
    }
}
