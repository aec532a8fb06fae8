//! One partition of an image goes where it is asked to go, and nothing beside it changes.

use crate::kit::bytes::{self, assert_same_range, fingerprint};
use crate::kit::disk::{Disk, Layout, Part};
use crate::kit::privileged::{Loop, privileged};
use crate::kit::store::Store;
use crate::kit::{MIB, scratch, tools};
use std::path::Path;

struct Two {
    dir: tempfile::TempDir,
    source: Disk,
    other: Disk,
    /// What `other` was before anything happened to it.
    untouched: std::path::PathBuf,
    store: Store,
}

fn two_disks() -> Two {
    let dir = scratch();
    let source = Disk::build(Layout::Gpt512, dir.path(), "source.img", 21);
    let other = Disk::build(Layout::Gpt512, dir.path(), "other.img", 22);
    let untouched = dir.path().join("untouched.img");
    std::fs::copy(&other.path, &untouched).unwrap();
    let store = Store::new(dir.path(), "store");
    store.backed_up(&source.path);
    Two {
        dir,
        source,
        other,
        untouched,
        store,
    }
}

impl Two {
    /// Fails unless all of the other disk but `[start, start + len)` is as it was.
    #[track_caller]
    fn assert_rest_untouched(&self, start: u64, len: u64) {
        let (now, before) = (&self.other.path, &self.untouched);
        assert_same_range(before, 0, now, 0, start);
        let end = start + len;
        assert_same_range(before, end, now, end, self.other.len - end);
        assert_eq!(bytes::length(now), self.other.len);
    }

    #[track_caller]
    fn assert_holds(&self, part: Part, target: &Path, at: u64) {
        assert_same_range(&self.source.path, part.start, target, at, part.len);
    }
}

#[test]
fn into_the_same_place_of_another_disk() {
    let two = two_disks();
    for number in [2, 3] {
        let map = format!("{number}:{number}");
        let restore = two.store.restore("latest", &two.other.path);
        restore.args(["--partition", &map]).run().expect(0);
        let part = two.source.part(number);
        two.assert_holds(part, &two.other.path, part.start);
        two.assert_rest_untouched(part.start, part.len);
        std::fs::copy(&two.other.path, &two.untouched).unwrap();
    }
    tools::assert_gpt_sound(&two.other.path);
}

#[test]
fn into_a_larger_partition_with_another_number() {
    let two = two_disks();
    let restore = two.store.restore("latest", &two.other.path);
    restore.args(["--partition", "2:3"]).run().expect(0);
    let (from, to) = (two.source.part(2), two.other.part(3));
    two.assert_holds(from, &two.other.path, to.start);
    two.assert_rest_untouched(to.start, to.len);
    tools::assert_gpt_sound(&two.other.path);
}

#[test]
fn a_partition_that_is_too_small_is_refused() {
    let two = two_disks();
    let before = fingerprint(&two.other.path);
    let restore = two.store.restore("latest", &two.other.path);
    restore.args(["--partition", "3:4"]).run().expect(4);
    assert_eq!(fingerprint(&two.other.path), before);
}

#[test]
fn numbers_that_do_not_exist_are_said_to() {
    let two = two_disks();
    let before = fingerprint(&two.other.path);
    for map in ["9:3", "3:9"] {
        let restore = two.store.restore("latest", &two.other.path);
        restore
            .args(["--partition", map])
            .run()
            .expect(10)
            .expect_says("9");
    }
    for map in [
        "",
        "x",
        "0",
        "3:",
        ":3",
        "3:4:5",
        "-1",
        "99999999999999999999",
    ] {
        let restore = two.store.restore("latest", &two.other.path);
        restore
            .args([&format!("--partition={map}")])
            .run()
            .expect(2);
    }
    assert_eq!(fingerprint(&two.other.path), before);
}

#[test]
fn into_a_new_file() {
    let two = two_disks();
    for part in &two.source.parts {
        let new = two.dir.path().join(format!("part-{}.img", part.number));
        let number = part.number.to_string();
        let restore = two.store.restore("latest", &new);
        restore.args(["--partition", &number]).run().expect(0);
        assert_eq!(bytes::length(&new), part.len);
        two.assert_holds(*part, &new, 0);
    }
}

#[test]
fn a_logical_partition_of_an_mbr_disk() {
    let dir = scratch();
    let source = Disk::build(Layout::Mbr, dir.path(), "source.img", 23);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&source.path);
    let part = source.part(5);
    let new = dir.path().join("part.img");
    store
        .restore("latest", &new)
        .args(["--partition", "5"])
        .run()
        .expect(0);
    assert_same_range(&source.path, part.start, &new, 0, part.len);
    tools::run("e2fsck", &["-fn", new.to_str().unwrap()]);
    let raw = dir.path().join("part.raw");
    let export = store.verb("export").arg("latest").arg(&raw);
    export.args(["--partition", "5"]).run().expect(0);
    bytes::assert_same(&new, &raw);
}

#[test]
fn of_a_disk_with_4096_byte_sectors() {
    let dir = scratch();
    let source = Disk::build(Layout::Gpt4096, dir.path(), "source.img", 24);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&source.path);
    let part = source.part(2);
    let new = dir.path().join("part.img");
    store
        .restore("latest", &new)
        .args(["--partition", "2"])
        .run()
        .expect(0);
    assert_same_range(&source.path, part.start, &new, 0, part.len);
    tools::run("e2fsck", &["-fn", new.to_str().unwrap()]);
}

#[test]
fn into_the_device_of_a_partition() {
    if !privileged("one partition into a loop device over a partition's range") {
        return;
    }
    let two = two_disks();
    let part = two.other.part(3);
    {
        let device = Loop::of_range(&two.other.path, part.start, part.len);
        let restore = two.store.restore("latest", device.path());
        restore.args(["--partition", "3"]).run().expect(0);
        two.assert_holds(two.source.part(3), device.path(), 0);
    }
    two.assert_holds(two.source.part(3), &two.other.path, part.start);
    two.assert_rest_untouched(part.start, part.len);
}

#[test]
fn into_a_device_that_is_larger() {
    if !privileged("one partition into a larger loop device") {
        return;
    }
    let two = two_disks();
    let part = two.source.part(2);
    let backing = two.dir.path().join("larger.img");
    bytes::create_filled(&backing, part.len + 7 * MIB);
    let device = Loop::new(&backing);
    let restore = two.store.restore("latest", device.path());
    restore.args(["--partition", "2"]).run().expect(0);
    two.assert_holds(part, device.path(), 0);
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    if !privileged("one partition into a loop device that is too small") {
        return;
    }
    let two = two_disks();
    let part = two.source.part(3);
    let backing = two.dir.path().join("smaller.img");
    bytes::create_filled(&backing, part.len - 512);
    let device = Loop::new(&backing);
    let restore = two.store.restore("latest", device.path());
    restore.args(["--partition", "3"]).run().expect(4);
    drop(device);
    let filler = bytes::read(&backing, 0, part.len - 512);
    assert!(
        filler.iter().all(|b| *b == bytes::FILLER),
        "the target was written to"
    );
}
