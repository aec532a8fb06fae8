//! Disks that are dying: good areas first, bad sectors again at the end, a map that the next run goes on from.
//!
//! | row of the plan | test |
//! |---|---|
//! | exactly the bad sectors are lost, for few reads | `scattered_sectors` |
//! | a bad region is left behind, and all that is good comes first | `a_region` |
//! | sectors that heal | `sectors_that_heal` |
//! | a map in and out, and only what is missing read again | `a_map_goes_on`, `the_map_of_another_program` |
//! | metadata of partition tables and file systems | `metadata` |
//! | free space is not read | `free_space` |
//! | the disk goes away | `a_disk_that_is_pulled_out` |

use crate::kit::bad_disk::BadDisk;
use crate::kit::bytes::{self, Stream, assert_same_range};
use crate::kit::disk::{Content, Disk, Layout};
use crate::kit::run::{Outcome, text};
use crate::kit::store::Store;
use crate::kit::{KIB, MIB, scratch, tools};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;

/// Ranges of a report's member.
fn ranges(report: &Outcome, value: &Value) -> Vec<Range<u64>> {
    let list = value.as_array().unwrap_or_else(|| panic!("{report}"));
    let number = |r: &Value, name: &str| r[name].as_u64().unwrap_or_else(|| panic!("{report}"));
    let range = |r: &Value| number(r, "start")..number(r, "start") + number(r, "length");
    list.iter().map(range).collect()
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|r| r.end - r.start).sum()
}

/// Restores the newest image of `store`, which lacks `lost`, and compares the rest with `truth`.
#[track_caller]
fn all_but(store: &Store, truth: &[u8], lost: &[Range<u64>], dir: &Path) {
    let (file, target) = (dir.join("truth.img"), dir.join("target.img"));
    std::fs::write(&file, truth).unwrap();
    bytes::create_filled(&target, truth.len() as u64);
    let restored = store.restore("latest", &target).arg("--json").run();
    let restored = restored.expect(if lost.is_empty() { 0 } else { 3 });
    assert_eq!(
        ranges(&restored, &restored.json()["unreadable"]),
        lost,
        "{restored}"
    );
    let mut at = 0;
    for range in lost {
        assert_same_range(&file, at, &target, at, range.start - at);
        let hole = bytes::read(&target, range.start, range.end - range.start);
        let phase = usize::try_from(range.start % 16).unwrap();
        let pattern = b"strata:unreadabl".iter().cycle().skip(phase);
        assert!(hole.iter().zip(pattern).all(|(a, b)| a == b), "{range:?}");
        at = range.end;
    }
    assert_same_range(&file, at, &target, at, truth.len() as u64 - at);
}

/// So many sectors of 512 bytes that are not neighbours, ascending.
fn scattered(count: usize, len: u64, seed: u64) -> Vec<Range<u64>> {
    let mut stream = Stream::new(seed);
    let mut sectors = std::collections::BTreeSet::new();
    while sectors.len() < count {
        let sector = stream.below(len / 512);
        let near = [sector.saturating_sub(1), sector + 1];
        // The first and the last MiB are left to the tests of partition tables.
        let inside = (2048..len / 512 - 2048).contains(&sector);
        if inside && !near.iter().any(|n| sectors.contains(n)) {
            sectors.insert(sector);
        }
    }
    sectors
        .into_iter()
        .map(|s| s * 512..s * 512 + 512)
        .collect()
}

#[test]
fn scattered_sectors() {
    let truth = Stream::new(201).bytes(32 * MIB);
    let Some(disk) = BadDisk::new(truth.clone(), "bad sectors all over a disk") else {
        return;
    };
    let dir = scratch();
    let bad = scattered(40, 32 * MIB, 202);
    bad.iter().for_each(|range| disk.spoil(range.clone()));
    let store = Store::new(dir.path(), "store");
    let map = dir.path().join("disk.map");
    disk.take_reads();
    let report = store
        .backup(disk.path())
        .args(["--json", "--rescue-map", text(&map)])
        .run();
    let report = report.expect(3);
    assert_eq!(
        ranges(&report, &report.json()["unreadable"]),
        bad,
        "{report}"
    );
    assert_eq!(
        report.json()["untried"],
        Value::Array(Vec::new()),
        "{report}"
    );
    assert_eq!(report.json()["rescue"][0]["recovered_bytes"], 0, "{report}");
    let reads = disk.take_reads();
    let good = reads.iter().filter(|(_, failed)| !failed);
    let good = length(&good.map(|(range, _)| range.clone()).collect::<Vec<_>>());
    let failed = reads.iter().filter(|(_, failed)| *failed).count();
    // The device may give parts of a read that fails as a whole.
    let most = 33 * MIB + 128 * KIB * bad.len() as u64;
    assert!(good <= most, "{good} bytes were read");
    assert!(failed <= 64 * bad.len(), "{failed} reads failed");
    // What ddrescue's own tool says of the map.
    let listed = tools::run("ddrescuelog", &["-b512", "--list-blocks=-", text(&map)]);
    let sectors: Vec<u64> = listed
        .lines()
        .map(|line| line.trim().parse().unwrap())
        .collect();
    assert_eq!(
        sectors,
        bad.iter().map(|r| r.start / 512).collect::<Vec<_>>()
    );
    let done = tools::run("ddrescuelog", &["-b512", "--list-blocks=+", text(&map)]);
    assert_eq!(done.lines().count() as u64, 32 * MIB / 512 - 40);

    let shown = store
        .verb("show")
        .args(["latest", "--json"])
        .run()
        .expect(0);
    assert_eq!(ranges(&shown, &shown.json()["unreadable"]), bad, "{shown}");
    store.verify(&["--deep"]).expect(0);
    assert_eq!(store.list().len(), 1);
    all_but(&store, &truth, &bad, dir.path());
}

#[test]
fn a_region() {
    let truth = Stream::new(203).bytes(96 * MIB);
    let Some(disk) = BadDisk::new(truth.clone(), "a bad region of a disk") else {
        return;
    };
    let dir = scratch();
    let region = 10 * MIB + 512..40 * MIB + 1024;
    disk.spoil(region.clone());
    let store = Store::new(dir.path(), "store");
    disk.take_reads();
    let report = store
        .backup(disk.path())
        .args(["--json", "--retries", "0"])
        .run()
        .expect(3);
    assert_eq!(
        ranges(&report, &report.json()["unreadable"]),
        std::slice::from_ref(&region),
        "{report}"
    );
    // Everything behind what was passed over came before the region was read to its end.
    let reads = disk.take_reads();
    let in_region = |r: &Range<u64>| r.start < region.end && region.start < r.end;
    let near_end = |r: &Range<u64>| r.start > 90 * MIB && r.end < 95 * MIB;
    let last_good = reads.iter().rposition(|(r, _)| near_end(r)).unwrap();
    let before = reads[..last_good]
        .iter()
        .filter(|(r, _)| in_region(r))
        .count();
    assert!(
        before < 400,
        "{before} reads of the region came before the good end of the disk"
    );
    let pass = &report.json()["rescue"][0];
    assert!(pass["recovered_bytes"].as_u64() > Some(0), "{report}");
    assert_eq!(report.json()["image"]["sequence"], 2, "{report}");
    let images = store.list();
    assert_eq!(images.len(), 2);
    store.verify(&["--deep"]).expect(0);
    all_but(&store, &truth, &[region], dir.path());
    let said = store.verb("show").arg("latest").run().expect(0);
    assert!(
        said.all_text()
            .contains("reads again what number 1 could not"),
        "{said}"
    );
}

#[test]
fn sectors_that_heal() {
    let truth = Stream::new(204).bytes(8 * MIB);
    let Some(disk) = BadDisk::new(truth.clone(), "sectors that heal") else {
        return;
    };
    let dir = scratch();
    let sector = 3 * MIB + 512..3 * MIB + 1024;
    // How many reads fail until nobody tries any more?
    disk.spoil(sector.clone());
    disk.take_reads();
    let first = Store::new(dir.path(), "first");
    let report = first
        .backup(disk.path())
        .args(["--json", "--retries", "0"])
        .run()
        .expect(3);
    assert_eq!(
        ranges(&report, &report.json()["unreadable"]),
        std::slice::from_ref(&sector)
    );
    let failed = disk
        .take_reads()
        .iter()
        .filter(|(_, failed)| *failed)
        .count() as u64;
    assert!(failed > 1);

    let again = |name: &str, retries: &str, code| {
        disk.heal();
        disk.spoil_for(sector.clone(), failed + 3);
        let store = Store::new(dir.path(), name);
        let report = store
            .backup(disk.path())
            .args(["--json", "--retries", retries])
            .run();
        (store, report.expect(code))
    };
    let (_, report) = again("few", "3", 3);
    assert_eq!(report.json()["rescue"][0]["recovered_bytes"], 0, "{report}");
    let (store, report) = again("enough", "4", 0);
    assert_eq!(
        report.json()["rescue"][0]["recovered_bytes"],
        512,
        "{report}"
    );
    assert_eq!(
        report.json()["unreadable"],
        Value::Array(Vec::new()),
        "{report}"
    );
    assert_eq!(store.list().len(), 2);
    all_but(&store, &truth, &[], dir.path());
    // Into a pipe they are tried at once.
    disk.heal();
    disk.spoil_for(sector.clone(), failed + 3);
    let piped = crate::kit::run::strata("backup").arg(disk.path());
    let piped = piped
        .args(["--store", "-", "--no-encrypt", "--retries", "4"])
        .run()
        .expect(0);
    assert!(!piped.stdout.is_empty());
}

#[test]
fn a_map_goes_on() {
    let truth = Stream::new(205).bytes(32 * MIB);
    let Some(disk) = BadDisk::new(truth.clone(), "a map of what is missing") else {
        return;
    };
    let dir = scratch();
    let mut bad = scattered(12, 32 * MIB, 206);
    bad.push(31 * MIB..31 * MIB + 8 * KIB);
    bad.sort_by_key(|r| r.start);
    bad.iter().for_each(|range| disk.spoil(range.clone()));
    let store = Store::new(dir.path(), "store");
    let map = dir.path().join("disk.map");
    let backup = || {
        store
            .backup(disk.path())
            .args(["--json", "--rescue-map", text(&map)])
    };
    backup().run().expect(3);
    // Some of it heals.
    disk.heal();
    let still: Vec<Range<u64>> = bad.iter().step_by(2).cloned().collect();
    still.iter().for_each(|range| disk.spoil(range.clone()));
    let planned = backup().arg("--dry-run").run().expect(0);
    assert_eq!(
        planned.json()["plan"]["take_bytes"],
        length(&bad),
        "{planned}"
    );
    disk.take_reads();
    let report = backup().run().expect(3);
    assert_eq!(
        ranges(&report, &report.json()["unreadable"]),
        still,
        "{report}"
    );
    assert_eq!(report.json()["image"]["sequence"], 2, "{report}");
    let tables = |r: &Range<u64>| r.end <= MIB || r.start >= 31 * MIB;
    let reads: Vec<Range<u64>> = disk.take_reads().into_iter().map(|(r, _)| r).collect();
    let wanted = |r: &Range<u64>| bad.iter().any(|b| b.start <= r.start && r.end <= b.end);
    for read in &reads {
        assert!(
            tables(read) || wanted(read),
            "{read:?} was read, which was not missing"
        );
    }
    all_but(&store, &truth, &still, dir.path());
    // All of it heals: the map says so, and what comes next is an ordinary backup.
    disk.heal();
    let report = backup().run().expect(0);
    assert_eq!(report.json()["image"]["sequence"], 3, "{report}");
    all_but(&store, &truth, &[], dir.path());
    let status = std::fs::read_to_string(&map).unwrap();
    let parts: Vec<&str> = status
        .lines()
        .filter(|l| !l.starts_with('#'))
        .skip(1)
        .collect();
    assert_eq!(parts, ["0x00000000  0x02000000  +"]);
    let report = backup().run().expect(0);
    assert_eq!(report.json()["image"]["sequence"], 4, "{report}");
    assert!(
        report.json()["read_bytes"].as_u64() >= Some(32 * MIB),
        "{report}"
    );
    store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_map_that_says_less_than_the_image_hides_nothing() {
    let truth = Stream::new(212).bytes(8 * MIB);
    let Some(disk) = BadDisk::new(truth.clone(), "a map that says too little") else {
        return;
    };
    let dir = scratch();
    let bad = [3 * MIB..3 * MIB + 512, 5 * MIB..5 * MIB + 1024];
    bad.iter().for_each(|range| disk.spoil(range.clone()));
    let store = Store::new(dir.path(), "store");
    let map = dir.path().join("disk.map");
    let backup = || {
        store
            .backup(disk.path())
            .args(["--json", "--rescue-map", text(&map)])
    };
    backup().run().expect(3);
    let edited = std::fs::read_to_string(&map)
        .unwrap()
        .replace("  -\n", "  +\n");
    std::fs::write(&map, edited).unwrap();
    disk.heal();
    disk.spoil(bad[0].clone());
    let report = backup().run().expect(3);
    assert_eq!(
        ranges(&report, &report.json()["unreadable"]),
        bad[..1],
        "{report}"
    );
    all_but(&store, &truth, &bad[..1], dir.path());
}

#[test]
fn a_map_of_an_older_image_is_refused() {
    let truth = Stream::new(207).bytes(8 * MIB);
    let Some(disk) = BadDisk::new(truth, "a map of an older image") else {
        return;
    };
    let dir = scratch();
    disk.spoil(4 * MIB..4 * MIB + 512);
    let store = Store::new(dir.path(), "store");
    let map = dir.path().join("disk.map");
    let backup = || store.backup(disk.path()).args(["--rescue-map", text(&map)]);
    backup().run().expect(3);
    let kept = std::fs::read(&map).unwrap();
    store.backup(disk.path()).run().expect(3);
    let refused = backup().run().expect(2);
    assert!(refused.all_text().contains("is newer"), "{refused}");
    let other = Store::new(dir.path(), "other");
    let refused = other
        .backup(disk.path())
        .args(["--rescue-map", text(&map)])
        .run()
        .expect(10);
    assert!(
        refused.all_text().contains("the rescue map is"),
        "{refused}"
    );
    std::fs::write(&map, "hello\n").unwrap();
    let refused = backup().run().expect(2);
    assert!(refused.all_text().contains("line 1"), "{refused}");
    assert_ne!(std::fs::read(&map).unwrap(), kept);
    assert_eq!(std::fs::read(&map).unwrap(), b"hello\n");
    assert_eq!(store.list().len(), 2);
}

#[test]
fn the_map_of_another_program() {
    let truth = Stream::new(208).bytes(32 * MIB);
    let Some(disk) = BadDisk::new(truth.clone(), "the map of another program") else {
        return;
    };
    let dir = scratch();
    let (bad, suspect) = (5 * MIB..5 * MIB + 1024, 4 * MIB..6 * MIB);
    disk.spoil(bad.clone());
    let map = dir.path().join("disk.map");
    let theirs = "# Mapfile. Created by GNU ddrescue version 1.27\n\
        0x00000000     ?               1\n\
        0x00000000  0x00400000  +\n0x00400000  0x00200000  *\n0x00600000  0x01A00000  ?\n";
    std::fs::write(&map, theirs).unwrap();
    let store = Store::new(dir.path(), "store");
    disk.take_reads();
    let report = store
        .backup(disk.path())
        .args(["--json", "--rescue-map", text(&map)])
        .run();
    let report = report.expect(3);
    assert_eq!(
        ranges(&report, &report.json()["unreadable"]),
        std::slice::from_ref(&bad),
        "{report}"
    );
    let reads = disk.take_reads();
    let first = reads
        .iter()
        .position(|(r, _)| r.start < suspect.end && suspect.start < r.end);
    let good = reads
        .iter()
        .position(|(r, _)| r.start >= 29 * MIB && r.end <= 31 * MIB);
    assert!(good.unwrap() < first.unwrap(), "what is suspect comes last");
    let kept = std::fs::read_to_string(dir.path().join("disk.map.bak")).unwrap();
    assert_eq!(kept, theirs);
    tools::run("ddrescuelog", &["--show-status", text(&map)]);
    all_but(&store, &truth, &[bad], dir.path());
}

/// A disk with a partition table and file systems, in memory.
fn system(dir: &Path) -> (Disk, Vec<u8>) {
    let disk = Disk::build(Layout::Gpt512, dir, "source.img", 209);
    let bytes = std::fs::read(&disk.path).unwrap();
    (disk, bytes)
}

#[test]
fn metadata() {
    let dir = scratch();
    let (layout, truth) = system(dir.path());
    let Some(disk) = BadDisk::new(truth.clone(), "bad sectors in metadata") else {
        return;
    };
    let of = |content| layout.parts.iter().find(|p| p.content == content).unwrap();
    let (ext4, fat) = (of(Content::Ext4), of(Content::Fat));
    let sector = |at: u64| at..at + 512;
    let cases = [
        ("the primary GPT", sector(512), None),
        ("the backup GPT", sector(truth.len() as u64 - 512), None),
        (
            "the superblock of the ext4",
            sector(ext4.start + 1024),
            Some(ext4.number),
        ),
        (
            "its group descriptors",
            sector(ext4.start + 4096),
            Some(ext4.number),
        ),
        (
            "the boot sector of the FAT",
            sector(fat.start),
            Some(fat.number),
        ),
        (
            "its first table",
            sector(fat.start + 32 * 512),
            Some(fat.number),
        ),
    ];
    for (n, (what, bad, partition)) in cases.into_iter().enumerate() {
        disk.heal();
        disk.spoil(bad.clone());
        let store = Store::new(dir.path(), &format!("store-{n}"));
        let report = store.backup(disk.path()).args(["--json"]).run().expect(3);
        assert_eq!(
            ranges(&report, &report.json()["unreadable"]),
            std::slice::from_ref(&bad),
            "{what}: {report}"
        );
        assert!(
            !report.json()["warnings"].as_array().unwrap().is_empty(),
            "{what}: {report}"
        );
        let shown = store
            .verb("show")
            .args(["latest", "--json"])
            .run()
            .expect(0);
        let hit = &shown.json()["hits"][0];
        assert_eq!(hit["partition"].as_u64(), partition, "{what}: {shown}");
        if partition == Some(ext4.number) {
            let told = hit["metadata_bytes"].as_u64() > Some(0) || hit["incomplete"].is_string();
            assert!(told, "{what}: {shown}");
        }
        let restored = store
            .restore("latest", &dir.path().join("again.img"))
            .arg("--json");
        let restored = restored.run().expect(3);
        assert_eq!(restored.json()["hits"], shown.json()["hits"], "{what}");
        all_but(&store, &truth, &[bad], dir.path());
    }
}

#[test]
fn free_space() {
    let dir = scratch();
    let (layout, truth) = system(dir.path());
    let Some(disk) = BadDisk::new(truth, "bad sectors in free space") else {
        return;
    };
    let ext4 = layout
        .parts
        .iter()
        .find(|p| p.content == Content::Ext4)
        .unwrap();
    let alone = dir.path().join("ext4.img");
    std::fs::write(&alone, bytes::read(&layout.path, ext4.start, ext4.len)).unwrap();
    let told = tools::run("dumpe2fs", &[text(&alone)]);
    let size = told
        .lines()
        .find_map(|l| l.strip_prefix("Block size:"))
        .unwrap();
    let size: u64 = size.trim().parse().unwrap();
    let runs = told
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Free blocks: "));
    let runs = runs.flat_map(|l| l.split(", ")).filter_map(|run| {
        let (from, to) = run.split_once('-')?;
        Some(from.parse::<u64>().ok()?..to.parse::<u64>().ok()? + 1)
    });
    let runs: Vec<Range<u64>> = runs.collect();
    let longest = runs.iter().max_by_key(|r| r.end - r.start).unwrap();
    let first = ext4.start + longest.start * size;
    let last = ext4.start + longest.end * size;
    assert!(last - first > 4 * MIB, "{longest:?}");
    let bad = first + 64 * KIB..(first + 3 * MIB).min(last - 64 * KIB);
    disk.spoil(bad.clone());
    let store = Store::new(dir.path(), "store");
    disk.take_reads();
    store.backup(disk.path()).run().expect(0);
    let touched = disk.take_reads();
    let touched = touched
        .iter()
        .filter(|(r, _)| r.start < bad.end && bad.start < r.end);
    assert_eq!(touched.count(), 0, "free space was read");
    // Taken with everything, it is missed.
    let report = store
        .backup(disk.path())
        .args(["--json", "--all-blocks"])
        .run()
        .expect(3);
    assert_eq!(ranges(&report, &report.json()["unreadable"]), [bad]);
}

#[test]
fn a_disk_that_is_pulled_out() {
    let truth = Stream::new(211).bytes(48 * MIB);
    let Some(disk) = BadDisk::new(truth.clone(), "a disk that is pulled out") else {
        return;
    };
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    store.backup(disk.path()).run().expect(0);
    let before = store.files();
    for nth in [1, 2, 5, 20, 40] {
        disk.vanish_after(nth);
        let failed = store.backup(disk.path()).arg("--full").run().expect(5);
        assert!(!failed.stderr.is_empty(), "{failed}");
        disk.come_back();
        assert_eq!(store.files(), before, "after {nth} reads: {failed}");
    }
    all_but(&store, &truth, &[], dir.path());
}
