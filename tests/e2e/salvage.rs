//! Damaged images restored as far as they are whole: everything else is right, and what is lost is listed
//! exactly, down to the files.

use crate::kit::bytes::{self, assert_same_range};
use crate::kit::disk::{Content, Disk, Layout};
use crate::kit::run::{Outcome, text};
use crate::kit::store::Store;
use crate::kit::{MIB, scratch, tools};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;

fn ranges(report: &Outcome, value: &Value) -> Vec<Range<u64>> {
    let list = value.as_array().unwrap_or_else(|| panic!("{report}"));
    let number = |r: &Value, name: &str| r[name].as_u64().unwrap_or_else(|| panic!("{report}"));
    let range = |r: &Value| number(r, "start")..number(r, "start") + number(r, "length");
    list.iter().map(range).collect()
}

fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// Restores what is left of the newest image and compares it with `disk`; returns the report.
#[track_caller]
fn salvaged(store: &Store, disk: &Disk, dir: &Path) -> Outcome {
    let target = dir.join("target.img");
    bytes::create_filled(&target, disk.len);
    store.restore("latest", &target).run().expect(7);
    assert_eq!(
        bytes::read(&target, 0, 512),
        vec![bytes::FILLER; 512],
        "nothing was written"
    );
    let restored = store
        .restore("latest", &target)
        .args(["--salvage", "--json"])
        .run()
        .expect(3);
    let lost = ranges(&restored, &restored.json()["lost"]);
    assert!(!lost.is_empty(), "{restored}");
    let mut at = 0;
    for range in &lost {
        assert_same_range(&disk.path, at, &target, at, range.start - at);
        let hole = bytes::read(&target, range.start, range.end - range.start);
        let phase = usize::try_from(range.start % 16).unwrap();
        let pattern = b"strata:unreadabl".iter().cycle().skip(phase);
        assert!(hole.iter().zip(pattern).all(|(a, b)| a == b), "{range:?}");
        at = range.end;
    }
    assert_same_range(&disk.path, at, &target, at, disk.len - at);
    assert_eq!(restored.json()["read_back"], true, "{restored}");
    restored
}

#[test]
fn lost_frames_and_nothing_else() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "source.img", 401);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    bytes::write_random(&disk.path, 3 * MIB, 2 * MIB, 402);
    store.backed_up(&disk.path);
    let files: Vec<_> = store
        .list()
        .iter()
        .map(|image| store.file_of(image))
        .collect();
    // Two frames of the full image and one of the other.
    for (file, share) in [(&files[0], 3), (&files[0], 2), (&files[1], 2)] {
        bytes::flip(file, bytes::length(file) / share);
    }
    let restored = salvaged(&store, &disk, dir.path());
    let lost = ranges(&restored, &restored.json()["lost"]);
    // What verify says of each file, as far as the newest disk needs it.
    let verified = store.verify(&["--deep", "--json"]).expect(7);
    let all: Vec<Range<u64>> = verified.json()["images"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|image| ranges(&verified, &image["damage"]))
        .collect();
    assert_eq!(lost, joined(all), "{restored}\n{verified}");
    let said = store
        .restore("latest", &dir.path().join("other.img"))
        .arg("--salvage")
        .run();
    let said = said.expect(3);
    assert!(said.all_text().contains("lost by the image"), "{said}");
}

#[test]
fn a_missing_image_of_the_chain() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "source.img", 403);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let kept = 5 * MIB..7 * MIB;
    bytes::write_random(&disk.path, kept.start, 2 * MIB, 404);
    store.backed_up(&disk.path);
    std::fs::remove_file(store.file_of(&store.list()[0])).unwrap();
    let restored = salvaged(&store, &disk, dir.path());
    // Tables at the ends of the disk come from the image's copy, where it has any; what it recorded is there.
    for lost in ranges(&restored, &restored.json()["lost"]) {
        assert!(
            lost.end <= kept.start || lost.start >= kept.end,
            "{lost:?}: {restored}"
        );
    }
}

#[test]
fn the_files_that_are_lost_are_named() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 405);
    let ext4 = disk
        .parts
        .iter()
        .find(|p| p.content == Content::Ext4)
        .unwrap();
    let alone = dir.path().join("ext4.img");
    std::fs::write(&alone, bytes::read(&disk.path, ext4.start, ext4.len)).unwrap();
    // The largest file, and a block in its middle.
    let listing = tools::run("debugfs", &["-R", "ls -l /", text(&alone)]);
    let file = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (mode, size) = (*words.get(1)?, words.get(5)?.parse::<u64>().ok()?);
        mode.starts_with("100")
            .then(|| (size, words.last().unwrap().to_string()))
    };
    let (_, name) = listing.lines().filter_map(file).max().unwrap();
    let blocks = tools::run("debugfs", &["-R", &format!("blocks /{name}"), text(&alone)]);
    let blocks: Vec<u64> = blocks
        .split_whitespace()
        .filter_map(|b| b.parse().ok())
        .collect();
    let told = tools::run("dumpe2fs", &["-h", text(&alone)]);
    let size = told
        .lines()
        .find_map(|l| l.strip_prefix("Block size:"))
        .unwrap();
    let at = ext4.start + blocks[blocks.len() / 2] * size.trim().parse::<u64>().unwrap();

    let store = Store::new(dir.path(), "store");
    // Stored as it is, a byte of the disk is a byte of the file.
    let report = store
        .backup(&disk.path)
        .args(["--compression", "none", "--json"])
        .run()
        .expect(0);
    let path = store.file_of(&report.json()["image"]);
    let wanted = bytes::read(&disk.path, at, 512);
    let stored = std::fs::read(&path).unwrap();
    let place = stored
        .windows(512)
        .position(|window| window == wanted)
        .unwrap();
    bytes::flip(&path, place as u64);
    let verified = store.verify(&["--json"]).expect(7);
    let named = |outcome: &Outcome, hits: &Value| {
        let hit = hits
            .as_array()
            .unwrap()
            .iter()
            .find(|h| h["partition"] == ext4.number);
        let hit = hit.unwrap_or_else(|| panic!("{outcome}"));
        let files = hit["files"]
            .as_array()
            .unwrap_or_else(|| panic!("{outcome}"));
        let wanted = format!("/{name}");
        assert!(
            files.iter().any(|f| f["path"] == wanted),
            "{wanted}: {outcome}"
        );
    };
    named(&verified, &verified.json()["images"][0]["hits"]);
    let restored = salvaged(&store, &disk, dir.path());
    named(&restored, &restored.json()["hits"]);
}

#[test]
fn what_is_salvaged_must_be_a_file_and_is_written_whole() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "source.img", 406);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let target = dir.path().join("target.img");
    // Of a whole image nothing is lost.
    let restored = store
        .restore("latest", &target)
        .args(["--salvage", "--json"])
        .run()
        .expect(0);
    assert_eq!(restored.json()["lost"], Value::Array(Vec::new()));
    assert_same_range(&disk.path, 0, &target, 0, disk.len);
    for other in [&["--only-changed"][..], &["--holds", "latest"]] {
        store
            .restore("latest", &target)
            .arg("--salvage")
            .args(other)
            .run()
            .expect(2);
    }
}
