//! Damaged images restored as far as they are whole: everything else is right, and what is lost is listed
//! exactly, down to the files.

use crate::kit::bytes::{self, assert_same_range};
use crate::kit::disk::{Content, Disk, Layout};
use crate::kit::records::{TRAILER, What, records};
use crate::kit::run::{Outcome, strata, text};
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

/// Restores with `--salvage` by the path of the image's file, which nothing else opens; what is lost.
#[track_caller]
fn salvaged_by_path(file: &Path, disk: &Disk, dir: &Path, what: &str) -> Vec<Range<u64>> {
    let target = dir.join("target.img");
    let restore = || strata("restore").arg(file).arg(&target).arg("--yes");
    let _ = std::fs::remove_file(&target);
    let refused = restore().run().expect(7);
    assert!(refused.stderr.contains("--salvage"), "{what}: {refused}");
    let restored = restore().args(["--salvage", "--json"]).run();
    assert!(matches!(restored.code(), Some(0 | 3)), "{what}: {restored}");
    let lost = ranges(&restored, &restored.json()["lost"]);
    assert_eq!(lost.is_empty(), restored.code() == Some(0), "{what}");
    let mut at = 0;
    for range in &lost {
        assert_same_range(&disk.path, at, &target, at, range.start - at);
        at = range.end;
    }
    assert_same_range(&disk.path, at, &target, at, disk.len - at);
    lost
}

/// Without its end, a section, or the pages above its leaves, all content of an image is still there. Where no leaf
/// page is, only the pages above said that there is nothing: that is what is lost.
#[test]
fn an_image_without_end_sections_or_upper_pages_loses_no_content() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 407);
    let store = Store::new(dir.path(), "store");
    // Blocks so small that the table has several levels.
    let run = store.backup(&disk.path).args(["--block-size", "4K"]);
    let report = run.arg("--json").run().expect(0).json();
    let file = store.file_of(&report["image"]);
    let good = std::fs::read(&file).unwrap();
    let records = records(&good);
    let of = |wanted: fn(&What) -> bool| -> Vec<Range<usize>> {
        let records = records.iter().filter(|r| wanted(&r.what));
        records.map(|r| r.bytes.clone()).collect()
    };
    let mut ends = of(|what| matches!(what, What::Section(_)));
    ends.push(good.len() - TRAILER..good.len());
    let upper = of(|what| matches!(what, What::Page { level: 1.., .. }));
    assert_eq!((ends.len(), upper.len() > 1), (4, true), "{upper:?}");
    let all = [ends.clone(), upper].concat();
    let with = |places: &[Range<usize>], change: fn(&mut [u8])| {
        let mut bytes = good.clone();
        places
            .iter()
            .for_each(|place| change(&mut bytes[place.clone()]));
        std::fs::write(&file, &bytes).unwrap();
        let lost = salvaged_by_path(&file, &disk, dir.path(), &format!("{places:?}"));
        let bytes = |r: &Range<u64>| bytes::read(&disk.path, r.start, r.end - r.start);
        let content = lost.iter().flat_map(bytes);
        assert!(
            content.into_iter().all(|byte| byte == 0),
            "{places:?}: {lost:?}"
        );
        lost
    };
    for place in &all {
        let lost = with(std::slice::from_ref(place), |bytes| {
            bytes[bytes.len() / 2] ^= 4;
        });
        assert!(
            !ends.contains(place) || lost.is_empty(),
            "{place:?}: {lost:?}"
        );
    }
    with(&all, |bytes| bytes.fill(0));
}

/// A leaf page says what 256 blocks are; its frames say what they hold.
#[test]
fn a_lost_leaf_page_costs_no_content() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "source.img", 409);
    let store = Store::new(dir.path(), "store");
    let report = store.backed_up(&disk.path);
    let file = store.file_of(&report);
    let good = std::fs::read(&file).unwrap();
    let records = records(&good);
    let leaves = records
        .iter()
        .filter(|r| matches!(r.what, What::Page { level: 0, .. }));
    let mut seen = 0;
    for leaf in leaves {
        let mut bytes = good.clone();
        bytes[leaf.bytes.start + 200] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let lost = salvaged_by_path(&file, &disk, dir.path(), &format!("{:?}", leaf.bytes));
        let zero = |r: &Range<u64>| {
            let content = bytes::read(&disk.path, r.start, r.end - r.start);
            content.iter().all(|byte| *byte == 0)
        };
        assert!(lost.iter().all(zero), "{lost:?}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn of_an_image_that_was_cut_off_what_is_there_is_restored() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "source.img", 408);
    let store = Store::new(dir.path(), "store");
    let report = store
        .backup(&disk.path)
        .args(["--block-size", "4K", "--json"]);
    let report = report.run().expect(0).json();
    let file = store.file_of(&report["image"]);
    let good = std::fs::read(&file).unwrap();
    let mut before = 0;
    for tenth in (1..10).rev() {
        std::fs::write(&file, &good[..good.len() / 10 * tenth]).unwrap();
        let what = format!("{tenth} tenths");
        let lost = salvaged_by_path(&file, &disk, dir.path(), &what);
        let bytes: u64 = lost.iter().map(|r| r.end - r.start).sum();
        assert!(bytes > before, "{what}: {lost:?}");
        before = bytes;
    }
    assert!(before < disk.len, "nothing was left of a tenth");
    // What is no image at all stays that.
    std::fs::write(&file, vec![0; 100_000]).unwrap();
    let target = dir.path().join("target.img");
    let restore = strata("restore").arg(&file).arg(&target);
    restore.args(["--yes", "--salvage"]).run().expect(7);
}
