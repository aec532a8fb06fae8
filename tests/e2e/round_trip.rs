//! Every kind of disk goes into an image and comes back bit for bit, to every kind of target.

use crate::kit::bytes::{self, assert_same, fingerprint};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Loop, Mount, privileged};
use crate::kit::run::{strata, text};
use crate::kit::store::{self, Store};
use crate::kit::{scratch, tools};
use serde_json::json;
use std::path::Path;

/// One disk with its image, and room for targets.
struct Imaged {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
    image: serde_json::Value,
}

impl Imaged {
    #[track_caller]
    fn new(layout: Layout) -> Imaged {
        let dir = scratch();
        let disk = Disk::build(layout, dir.path(), "source.img", 11);
        let store = Store::new(dir.path(), "store");
        let image = store.backed_up(&disk.path);
        Imaged {
            dir,
            disk,
            store,
            image,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn id(&self) -> &str {
        store::text(&self.image, "id")
    }
}

/// Backup, list, show, verify in all its ways: each tells the same, none touches the source.
fn told_and_verified(layout: Layout) {
    let dir = scratch();
    let disk = Disk::build(layout, dir.path(), "source.img", 11);
    let store = Store::new(dir.path(), "store");
    let before = fingerprint(&disk.path);

    let report = store.backup(&disk.path).arg("--json").run().expect(0);
    let json = report.json();
    let image = &json["image"];
    assert_eq!(json["source"]["bytes"], disk.len, "{report}");
    assert_eq!(json["unreadable"], json!([]), "{report}");
    assert_eq!(image["kind"], "full", "{report}");
    assert_eq!(image["parent"], json!(null), "{report}");
    assert_eq!(image["disk_bytes"], disk.len, "{report}");
    let file = store.file_of(image);
    assert_eq!(image["bytes"], bytes::length(&file), "{report}");

    let listed = store.list();
    assert_eq!(listed.len(), 1, "{report}");
    for (member, value) in image.as_object().unwrap() {
        assert_eq!(&listed[0][member], value, "{member}: {report}");
    }
    let id = store::text(image, "id");
    store.verb("list").run().expect(0).expect_says(&id[..8]);

    let shown = store
        .verb("show")
        .args(["latest", "--json"])
        .run()
        .expect(0);
    let told = shown.json();
    assert_eq!(&told["image"], image, "{shown}");
    let found = told["partitions"]
        .as_array()
        .unwrap_or_else(|| panic!("{shown}"));
    let found: Vec<(u64, u64, u64)> = found
        .iter()
        .map(|p| {
            ["number", "start", "length"]
                .map(|key| store::number(p, key))
                .into()
        })
        .collect();
    let mut built: Vec<_> = disk
        .parts
        .iter()
        .map(|p| (p.number, p.start, p.len))
        .collect();
    if built.is_empty() {
        // The whole disk in place of partitions.
        built.push((0, 0, disk.len));
    }
    assert_eq!(found, built, "{shown}");
    let states = told["blocks"]
        .as_object()
        .unwrap_or_else(|| panic!("{shown}"));
    let blocks: u64 = states.values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(
        blocks,
        disk.len.div_ceil(store::number(image, "block_size")),
        "{shown}"
    );
    store
        .verb("show")
        .arg(&id[..8])
        .run()
        .expect(0)
        .expect_says(&id[..8]);

    for args in [
        &[][..],
        &["--deep"],
        &["latest"],
        &["latest", "--deep"],
        &[id],
    ] {
        let verified = store
            .verb("verify")
            .args(args)
            .arg("--json")
            .run()
            .expect(0);
        let json = verified.json();
        let images = json["images"]
            .as_array()
            .unwrap_or_else(|| panic!("{verified}"));
        assert_eq!(images.len(), 1, "{verified}");
        assert_eq!(images[0]["id"], id, "{verified}");
        assert_eq!(images[0]["ok"], true, "{verified}");
        assert_eq!(images[0]["deep"], args.contains(&"--deep"), "{verified}");
        assert_eq!(images[0]["damage"], json!([]), "{verified}");
    }
    let against = ["latest", "--against", text(&disk.path), "--json"];
    let verified = store.verb("verify").args(against).run().expect(0);
    assert_eq!(verified.json()["differences"], json!([]), "{verified}");

    assert_eq!(fingerprint(&disk.path), before, "the source");
    store.assert_no_clutter();
}

fn to_files(layout: Layout) {
    let imaged = Imaged::new(layout);
    let store = &imaged.store;

    let new = imaged.path("new.img");
    let report = store.restore("latest", &new).arg("--json").run().expect(0);
    assert_same(&imaged.disk.path, &new);
    assert_eq!(report.json()["unreadable"], json!([]), "{report}");
    assert_eq!(report.json()["read_back"], true, "{report}");

    let used = imaged.path("used.img");
    bytes::create_filled(&used, imaged.disk.len);
    store.restore(&imaged.id()[..8], &used).run().expect(0);
    assert_same(&imaged.disk.path, &used);

    let by_file = imaged.path("by-file.img");
    let file = store.file_of(&imaged.image);
    strata("restore")
        .arg(&file)
        .arg(&by_file)
        .arg("--yes")
        .run()
        .expect(0);
    assert_same(&imaged.disk.path, &by_file);
    store.assert_no_clutter();
}

fn exported(layout: Layout) {
    let imaged = Imaged::new(layout);
    let raw = imaged.path("export.raw");
    let report = imaged
        .store
        .verb("export")
        .arg("latest")
        .arg(&raw)
        .arg("--json")
        .run()
        .expect(0);
    assert_same(&imaged.disk.path, &raw);
    assert_eq!(report.json()["bytes"], imaged.disk.len, "{report}");

    let streamed = imaged
        .store
        .verb("export")
        .args(["latest", "-"])
        .run()
        .expect(0);
    assert_eq!(
        streamed.stdout.len() as u64,
        imaged.disk.len,
        "bytes on standard output"
    );
    let piped = imaged.path("stdout.raw");
    std::fs::write(&piped, &streamed.stdout).unwrap();
    assert_same(&imaged.disk.path, &piped);
}

fn to_loop_device(layout: Layout) {
    if !privileged(&format!("{layout:?} from and to loop devices")) {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(layout, dir.path(), "source.img", 11);
    let store = Store::new(dir.path(), "store");
    let (backing, len) = (dir.path().join("target.img"), whole_sectors(&disk));
    bytes::create_filled(&backing, len);
    let source = Loop::with_sector(&disk.path, disk.sector);
    let target = Loop::with_sector(&backing, disk.sector);
    // A device has whole sectors only: what a longer file holds behind them is not the disk's.
    let before = fingerprint(&disk.path);
    store.backed_up(source.path());
    store.restore("latest", target.path()).run().expect(0);
    assert_same_disk(source.path(), target.path());
    drop(target);
    bytes::assert_same_range(&disk.path, 0, &backing, 0, len);
    let against = ["latest", "--against", text(source.path())];
    store.verify(&against).expect(0);
    drop(source);
    assert_eq!(fingerprint(&disk.path), before, "the source");
    store.assert_no_clutter();
}

fn whole_sectors(disk: &Disk) -> u64 {
    disk.len - disk.len % disk.sector
}

#[track_caller]
fn assert_same_disk(a: &Path, b: &Path) {
    for device in [a, b] {
        tools::run("blockdev", &["--flushbufs", text(device)]);
    }
    assert_same(a, b);
}

macro_rules! layouts {
    ($($name:ident: $layout:expr;)*) => {$(
        mod $name {
            use crate::kit::disk::Layout;

            #[test]
            fn is_told_and_verified_and_its_source_untouched() {
                super::told_and_verified($layout);
            }

            #[test]
            fn comes_back_into_files() {
                super::to_files($layout);
            }

            #[test]
            fn is_exported_to_a_file_and_a_pipe() {
                super::exported($layout);
            }

            #[test]
            fn comes_back_onto_a_loop_device() {
                super::to_loop_device($layout);
            }
        }
    )*};
}

layouts! {
    gpt_512: Layout::Gpt512;
    gpt_4096: Layout::Gpt4096;
    mbr_with_logicals: Layout::Mbr;
    whole_disk_ext4: Layout::WholeExt4;
    random_without_a_table: Layout::Random;
    gpt_with_a_damaged_primary: Layout::GptDamagedPrimary;
    gpt_with_a_damaged_backup: Layout::GptDamagedBackup;
    all_zero: Layout::Zero;
    odd_length: Layout::Odd;
}

#[test]
fn every_block_size_and_compression_gives_the_same_disk() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 12);
    for (number, (block, compression)) in [
        ("4096", "none"),
        ("16KiB", "zstd"),
        ("64KiB", "zstd:1"),
        ("256KiB", "zstd:9"),
        ("1MiB", "none"),
    ]
    .into_iter()
    .enumerate()
    {
        let store = Store::new(dir.path(), &format!("store-{number}"));
        let options = ["--block-size", block, "--compression", compression];
        store.backup(&disk.path).args(options).run().expect(0);
        store.verify(&["--deep"]).expect(0);
        let target = dir.path().join(format!("target-{number}"));
        store.restore("latest", &target).run().expect(0);
        assert_same(&disk.path, &target);
    }
}

#[test]
fn a_second_image_of_a_changed_disk_leaves_the_first_as_it_was() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 13);
    let old = dir.path().join("old.img");
    std::fs::copy(&disk.path, &old).unwrap();
    let store = Store::new(dir.path(), "store");
    let first = store.backed_up(&disk.path);
    bytes::write_random(&disk.path, disk.part(3).start + 5_000_000, 3_000_000, 99);
    let second = store.backed_up(&disk.path);
    assert_ne!(first["id"], second["id"]);
    assert_eq!(store.list().len(), 2);
    for (image, truth) in [(&first, &old), (&second, &disk.path)] {
        let target = dir.path().join(store::text(image, "id"));
        store
            .restore(store::text(image, "id"), &target)
            .run()
            .expect(0);
        assert_same(truth, &target);
    }
    let latest = dir.path().join("latest");
    store.restore("latest", &latest).run().expect(0);
    assert_same(&disk.path, &latest);
}

#[test]
fn sets_are_kept_apart() {
    let dir = scratch();
    let one = Disk::build(Layout::Odd, dir.path(), "one.img", 14);
    let two = Disk::build(Layout::Random, dir.path(), "two.img", 15);
    let store = Store::new(dir.path(), "store");
    for (disk, set) in [(&one, "laptop"), (&two, "server")] {
        store
            .backup(&disk.path)
            .args(["--set", set])
            .run()
            .expect(0);
    }
    for (disk, set) in [(&one, "laptop"), (&two, "server")] {
        let target = dir.path().join(set);
        store
            .restore(&format!("{set}@latest"), &target)
            .run()
            .expect(0);
        assert_same(&disk.path, &target);
    }
}

#[test]
fn a_store_from_the_environment_is_the_same_store() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 16);
    let store = Store::new(dir.path(), "store");
    let in_environment = strata("backup")
        .arg(&disk.path)
        .env("STRATA_STORE", &store.dir);
    in_environment.run().expect(0);
    assert_eq!(store.list().len(), 1);
}

#[test]
fn the_smallest_disks() {
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    for len in [1, 511, 512, 513, 65_535, 65_536, 65_537] {
        let disk = dir.path().join(format!("disk-{len}"));
        bytes::create_sparse(&disk, len);
        bytes::write_random(&disk, len / 2, len - len / 2, len);
        let image = store.backed_up(&disk);
        let target = dir.path().join(format!("target-{len}"));
        store
            .restore(store::text(&image, "id"), &target)
            .run()
            .expect(0);
        assert_same(&disk, &target);
    }
    store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_mounted_disk_is_imaged_with_a_warning() {
    if !privileged("a mounted disk is imaged with a warning") {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(Layout::WholeExt4, dir.path(), "source.img", 17);
    let device = Loop::new(&disk.path);
    let mount = Mount::new(device.path(), &dir.path().join("mnt"));
    let store = Store::new(dir.path(), "store");
    for source in [device.path(), &disk.path] {
        let report = store.backup(source).arg("--json").run().expect(0);
        let warnings = report.json()["warnings"].to_string();
        assert!(warnings.contains(text(mount.path())), "{report}");
        let target = dir.path().join("target.img");
        store.restore("latest", &target).run().expect(0);
        // Nothing writes to it: what is restored is a file system that can be recovered.
        tools::run("e2fsck", &["-fp", text(&target)]);
    }
}

#[test]
fn a_link_leads_to_the_disk_behind_it() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 18);
    let target = dir.path().join("target.img");
    bytes::create_filled(&target, disk.len);
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::os::unix::fs::symlink(&disk.path, &from).unwrap();
    std::os::unix::fs::symlink(&target, &to).unwrap();
    let store = Store::new(dir.path(), "store");
    store.backed_up(&from);
    store.restore("latest", &to).run().expect(0);
    assert_same(&disk.path, &target);
    assert!(to.is_symlink());
}
