//! Damage to an image is found, named, and never written to a target as if it were data.

use crate::kit::bytes::{self, Stream, fingerprint, first_difference};
use crate::kit::disk::{Disk, Layout};
use crate::kit::records::{geometry, records};
use crate::kit::run::text;
use crate::kit::store::Store;
use crate::kit::{long, scratch};
use std::collections::BTreeSet;
use std::path::PathBuf;

struct Setting {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
    file: PathBuf,
    id: String,
}

fn setting(layout: Layout) -> Setting {
    let dir = scratch();
    let disk = Disk::build(layout, dir.path(), "source.img", 71);
    let store = Store::new(dir.path(), "store");
    let image = store.backed_up(&disk.path);
    let file = store.file_of(&image);
    let id = image["id"].as_str().unwrap().to_owned();
    Setting {
        dir,
        disk,
        store,
        file,
        id,
    }
}

#[test]
fn a_flipped_byte_is_found_and_its_place_is_named() {
    let setting = setting(Layout::Random);
    bytes::flip(&setting.file, bytes::length(&setting.file) / 2);
    for depth in [&[][..], &["--deep"]] {
        let verified = setting
            .store
            .verb("verify")
            .args(depth)
            .arg("--json")
            .run()
            .expect(7);
        let image = &verified.json()["images"][0];
        assert_eq!(image["ok"], false, "{verified}");
        let damage = image["damage"]
            .as_array()
            .unwrap_or_else(|| panic!("{verified}"));
        assert_eq!(damage.len(), 1, "{verified}");
        let (start, len) = (&damage[0]["start"], &damage[0]["length"]);
        let (start, len) = (start.as_u64().unwrap(), len.as_u64().unwrap());
        // One frame, in the middle of a disk of random bytes.
        let middle = setting.disk.len / 2;
        assert!(
            start < middle + (2 << 20) && start + len > middle - (2 << 20),
            "{verified}"
        );
        assert!(len > 0 && len <= 4 << 20, "{verified}");
        setting
            .store
            .verb("verify")
            .args(depth)
            .run()
            .expect(7)
            .expect_says(&start.to_string());
    }
}

/// Damages every 7th frame of a file; returns the blocks that these frames hold, and the length of a block.
fn damage_frames(file: &std::path::Path) -> (BTreeSet<u64>, u64) {
    let image = std::fs::read(file).unwrap();
    let frames: Vec<_> = records(&image)
        .into_iter()
        .filter(|r| r.is_frame())
        .collect();
    let damaged = frames.iter().skip(2).step_by(7);
    for frame in damaged.clone() {
        bytes::flip(file, u64::try_from(frame.payload().end - 1).unwrap());
    }
    assert!(damaged.len() >= 3, "{} frames", frames.len());
    (
        damaged.flat_map(|f| f.blocks()).collect(),
        geometry(&image).1,
    )
}

#[test]
fn what_damaged_frames_cost_is_listed_exactly() {
    let setting = setting(Layout::Random);
    // The second image has some of the blocks anew.
    let changed = [3_000_001, 9_000_000, 20_000_000];
    for at in changed {
        bytes::flip(&setting.disk.path, at);
    }
    setting.store.backed_up(&setting.disk.path);
    let (lost, block) = damage_frames(&setting.file);
    let anew: BTreeSet<u64> = changed.iter().map(|at| at / block).collect();
    for depth in [&[][..], &["--deep"]] {
        let verify = setting.store.verb("verify").args(depth);
        let verified = verify.arg("--json").run().expect(7);
        let json = verified.json();
        let images = json["images"].as_array().unwrap();
        assert_eq!(images.len(), 2, "{verified}");
        let first = images.iter().find(|i| i["id"] == setting.id.as_str());
        let first = first.unwrap_or_else(|| panic!("{verified}"));
        let named: BTreeSet<u64> = first["damage"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| (d["start"].as_u64().unwrap(), d["length"].as_u64().unwrap()))
            .flat_map(|(start, len)| start / block..(start + len).div_ceil(block))
            .collect();
        assert_eq!(named, lost, "{verified}");
        let affects = &first["affects"].as_array().unwrap()[..];
        let [affected] = affects else {
            panic!("{verified}");
        };
        let still_wanted = u64::try_from(lost.difference(&anew).count()).unwrap();
        assert_eq!(affected["bytes"], still_wanted * block, "{verified}");
    }
}

#[test]
fn a_restore_of_a_damaged_image_fails_before_the_first_write() {
    let setting = setting(Layout::Random);
    let target = setting.dir.path().join("target.img");
    bytes::create_filled(&target, setting.disk.len);
    let before = fingerprint(&target);
    let whole = bytes::length(&setting.file);
    let copy = setting.dir.path().join("copy");
    std::fs::copy(&setting.file, &copy).unwrap();
    let check = |what: &str| {
        setting
            .store
            .restore(text(&setting.file), &target)
            .run()
            .expect(7);
        // What cannot be opened has no id that could be found.
        let by_id = setting.store.restore(&setting.id, &target).run();
        assert!(matches!(by_id.code(), Some(7 | 10)), "{what}: {by_id}");
        assert_eq!(fingerprint(&target), before, "{what}");
        std::fs::copy(&copy, &setting.file).unwrap();
    };
    for at in [whole / 2, whole - 1] {
        bytes::flip(&setting.file, at);
        check(&format!("byte {at} flipped"));
    }
    for len in [whole - 1, whole / 2, 100] {
        bytes::open_rw(&setting.file).set_len(len).unwrap();
        check(&format!("cut to {len} bytes"));
    }
}

#[test]
fn a_damaged_header_has_a_copy() {
    let setting = setting(Layout::Random);
    bytes::flip(&setting.file, 5);
    setting.store.verify::<&str>(&[]).expect(7);
    let target = setting.dir.path().join("target.img");
    let restored = setting.store.restore(&setting.id, &target).run().expect(0);
    restored.expect_says("warning");
    bytes::assert_same(&setting.disk.path, &target);
}

#[test]
fn a_truncated_image_is_found_at_every_length() {
    let setting = setting(Layout::Odd);
    let whole = bytes::length(&setting.file);
    let mut stream = Stream::new(72);
    let mut lengths: Vec<u64> = (0..30).map(|_| stream.below(whole)).collect();
    lengths.extend([0, 1, 7, 8, 511, 512, 4096, whole - 1, whole - 8, whole - 64]);
    lengths.sort_unstable();
    for len in lengths.into_iter().rev() {
        bytes::open_rw(&setting.file).set_len(len).unwrap();
        let verified = setting.store.verify(&["--json"]);
        assert_eq!(
            verified.code(),
            Some(7),
            "{len} of {whole} bytes: {verified}"
        );
        // A listing still works and shows that something is wrong.
        let listed = setting.store.verb("list").arg("--json").run().expect(0);
        let json = listed.json();
        let known = json["images"].as_array().map_or(0, Vec::len);
        let broken = json["broken"].as_array().map_or(0, Vec::len);
        assert_eq!((known, broken), (0, 1), "{len} of {whole} bytes: {listed}");
    }
}

#[test]
fn garbage_behind_an_image_is_found() {
    let setting = setting(Layout::Odd);
    let whole = bytes::length(&setting.file);
    bytes::write_random(&setting.file, whole, 4096, 1);
    setting.store.verify::<&str>(&[]).expect(7);
}

/// Wherever one byte is changed: a deep look finds it, or the disk is still the same.
#[test]
fn no_flipped_byte_goes_unnoticed() {
    let setting = setting(Layout::Odd);
    let whole = bytes::length(&setting.file);
    let mut stream = Stream::new(73);
    let rounds = if long() { 2000 } else { 120 };
    let out = setting.dir.path().join("out.raw");
    let mut harmless = 0;
    for round in 0..rounds {
        // A third at the ends, where headers and tables are.
        let at = match round % 3 {
            0 => stream.below(4096.min(whole)),
            1 => whole - 1 - stream.below(8192.min(whole)),
            _ => stream.below(whole),
        };
        bytes::flip(&setting.file, at);
        let verified = setting.store.verify(&["--deep"]);
        if verified.code() == Some(0) {
            harmless += 1;
            let export = setting.store.verb("export").arg(&setting.id).arg(&out);
            export.run().expect(0);
            let differs = first_difference(&setting.disk.path, 0, &out, 0, setting.disk.len);
            assert_eq!(
                differs, None,
                "byte {at} of {whole} was changed and nobody noticed"
            );
            std::fs::remove_file(&out).unwrap();
        } else {
            assert_eq!(verified.code(), Some(7), "byte {at} of {whole}: {verified}");
        }
        bytes::flip(&setting.file, at);
    }
    assert!(
        harmless * 10 <= rounds,
        "{harmless} of {rounds} changed bytes were not noticed"
    );
    setting.store.verify(&["--deep"]).expect(0);
}

#[test]
fn one_damaged_image_does_not_hide_the_others() {
    let setting = setting(Layout::Odd);
    let full = setting.store.backup(&setting.disk.path);
    let second = full.args(["--full", "--json"]).run().expect(0).json()["image"].clone();
    bytes::flip(&setting.file, bytes::length(&setting.file) / 2);
    let verified = setting.store.verify(&["--json"]).expect(7);
    let json = verified.json();
    let images = json["images"].as_array().unwrap();
    let good: Vec<_> = images
        .iter()
        .filter(|i| i["ok"] == true)
        .map(|i| &i["id"])
        .collect();
    assert_eq!((images.len(), good), (2, vec![&second["id"]]), "{verified}");
    let target = setting.dir.path().join("target.img");
    setting.store.restore("latest", &target).run().expect(0);
    bytes::assert_same(&setting.disk.path, &target);
}

#[test]
fn a_changed_disk_differs_at_the_named_bytes() {
    let setting = setting(Layout::Random);
    let block = setting.store.list()[0]["block_size"].as_u64().unwrap();
    let changed = [3_000_001, 20_000_000];
    for at in changed {
        bytes::flip(&setting.disk.path, at);
    }
    let against = ["latest", "--against", text(&setting.disk.path)];
    let verified = setting
        .store
        .verb("verify")
        .args(against)
        .arg("--json")
        .run()
        .expect(11);
    let json = verified.json();
    let found = json["differences"]
        .as_array()
        .unwrap_or_else(|| panic!("{verified}"));
    assert_eq!(found.len(), changed.len(), "{verified}");
    for (range, at) in found.iter().zip(changed) {
        let (start, len) = (
            range["start"].as_u64().unwrap(),
            range["length"].as_u64().unwrap(),
        );
        assert!((start..start + len).contains(&at), "byte {at}: {verified}");
        assert!(len <= block, "more than the block that changed: {verified}");
    }
    let start = found[0]["start"].as_u64().unwrap().to_string();
    setting
        .store
        .verify(&against)
        .expect(11)
        .expect_says(&start);
}

#[test]
fn a_disk_of_another_length_differs() {
    let setting = setting(Layout::Odd);
    let disk = bytes::open_rw(&setting.disk.path);
    for len in [
        setting.disk.len - 1,
        setting.disk.len + 1,
        setting.disk.len + (3 << 20),
    ] {
        disk.set_len(len).unwrap();
        setting
            .store
            .verify(&["latest", "--against", text(&setting.disk.path)])
            .expect(11);
    }
}
