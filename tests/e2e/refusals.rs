//! What must not be overwritten is not, whatever was typed: exit code 4, not one byte changed.

use crate::kit::bytes::{self, Fingerprint, fingerprint};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Loop, Mount, Swap, privileged};
use crate::kit::run::text;
use crate::kit::store::Store;
use crate::kit::{MIB, scratch, tools};
use std::io::Read;
use std::path::{Path, PathBuf};

/// An image of a small disk, and a place for targets.
struct Setting {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
}

fn setting() -> Setting {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "source.img", 41);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    Setting { dir, disk, store }
}

impl Setting {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with an ext4 in which the image would have room.
    fn ext4_file(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        bytes::create_sparse(&path, 96 * MIB);
        tools::run("mke2fs", &["-q", "-F", "-t", "ext4", text(&path)]);
        path
    }

    /// Restores with `--yes`, which must be refused for a reason that names `why`; `watched` is
    /// what must not change.
    #[track_caller]
    fn refused(&self, target: &Path, watched: &Path, why: &str) {
        tools::run("sync", &["-f", text(watched)]);
        let before = fingerprint(watched);
        self.refused_while(target, why, &|| expect_unchanged(watched, &before));
    }

    /// The same, with a check of its own that nothing has changed.
    #[track_caller]
    fn refused_while(&self, target: &Path, why: &str, unchanged: &dyn Fn()) {
        let outcome = self.store.restore("latest", target).run().expect(4);
        outcome.expect_says(why);
        unchanged();
        let outcome = self
            .store
            .restore("latest", target)
            .arg("--json")
            .run()
            .expect(4);
        assert_eq!(outcome.json()["error"]["kind"], "refused", "{outcome}");
        unchanged();
        let planned = self.store.restore("latest", target).arg("--dry-run").run();
        assert_eq!(
            planned.code(),
            Some(4),
            "the plan must not promise what is refused: {planned}"
        );
        unchanged();
    }
}

#[track_caller]
fn expect_unchanged(watched: &Path, before: &Fingerprint) {
    assert_eq!(
        &fingerprint(watched),
        before,
        "{} was changed",
        watched.display()
    );
}

#[test]
fn a_mounted_device() {
    if !privileged("a mounted device is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.ext4_file("target.img");
    let device = Loop::new(&file);
    let mount = Mount::new(device.path(), &setting.path("mnt"));
    setting.refused(device.path(), &file, "mount");
    setting.refused(device.path(), &file, text(mount.path()));
}

#[test]
fn a_file_under_a_mounted_loop_device() {
    if !privileged("a file that backs a mounted loop device is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.ext4_file("target.img");
    let device = Loop::new(&file);
    let _mount = Mount::new(device.path(), &setting.path("mnt"));
    setting.refused(&file, &file, text(device.path()));
}

#[test]
fn a_device_under_another_device() {
    if !privileged("a device that another device stands on is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.ext4_file("target.img");
    let lower = Loop::new(&file);
    let upper = Loop::new(lower.path());
    let _mount = Mount::new(upper.path(), &setting.path("mnt"));
    setting.refused(lower.path(), &file, text(upper.path()));
}

#[test]
fn swap_in_use() {
    if !privileged("swap in use is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_filled(&file, 96 * MIB);
    let device = Loop::new(&file);
    let swap = Swap::on(device.path());
    // The kernel itself may write pages to it meanwhile; the header page is only mkswap's.
    let header = || {
        let mut page = [0; 4096];
        std::fs::File::open(device.path())
            .unwrap()
            .read_exact(&mut page)
            .unwrap();
        page
    };
    let before = header();
    setting.refused_while(device.path(), "swap", &|| assert!(header() == before));
    drop(swap);
}

#[test]
fn the_device_that_holds_the_store() {
    if !privileged("the device that holds the store is refused as target") {
        return;
    }
    let mut setting = setting();
    let file = setting.ext4_file("target.img");
    let device = Loop::new(&file);
    let mount = Mount::new(device.path(), &setting.path("mnt"));
    setting.store = Store::new(mount.path(), "store");
    setting.store.backed_up(&setting.disk.path);
    // Listing and locking may write to the store's file system: the target is what counts.
    let outcome = setting
        .store
        .restore("latest", device.path())
        .run()
        .expect(4);
    outcome.expect_says("store");
    tools::run("sync", &["-f", text(mount.path())]);
    setting.store.verify(&["--deep"]).expect(0);
    drop(mount);
    tools::run("e2fsck", &["-fn", text(device.path())]);
}

#[test]
fn a_read_only_device() {
    if !privileged("a read-only device is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_filled(&file, 96 * MIB);
    let device = Loop::read_only(&file);
    setting.refused(device.path(), &file, "read-only");
}

#[test]
fn a_device_that_is_too_small() {
    if !privileged("a device that is too small is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_filled(&file, setting.disk.len - 512);
    let device = Loop::new(&file);
    setting.refused(device.path(), &file, &(setting.disk.len - 512).to_string());
}

#[test]
fn a_file_that_is_too_small() {
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_filled(&file, setting.disk.len - 1);
    setting.refused(&file, &file, &(setting.disk.len - 1).to_string());
}

#[test]
fn an_image_of_the_store() {
    let setting = setting();
    let image = setting.store.file_of(&setting.store.list()[0]);
    setting.refused(&image, &image, "store");
    setting.store.verify(&["--deep"]).expect(0);
}

#[test]
fn what_is_neither_device_nor_file() {
    let setting = setting();
    let folder = setting.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let pipe = setting.path("pipe");
    tools::run("mkfifo", &[text(&pipe)]);
    for target in [
        folder.as_path(),
        &pipe,
        Path::new("/dev/null"),
        Path::new("/dev/zero"),
    ] {
        let outcome = setting.store.restore("latest", target).run().expect(4);
        assert!(outcome.stderr.contains(text(target)), "{outcome}");
    }
    assert!(std::fs::read_dir(&folder).unwrap().next().is_none());
    for source in [folder.as_path(), &pipe, Path::new("/dev/null")] {
        let outcome = setting.store.backup(source).run().expect(4);
        assert!(outcome.stderr.contains(text(source)), "{outcome}");
    }
    assert_eq!(setting.store.list().len(), 1);
}

#[test]
fn a_target_that_nobody_confirmed() {
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_filled(&file, setting.disk.len);
    let before = fingerprint(&file);
    for typed in ["", "y\n", "yes\n", &format!("{}\n", text(&file))] {
        let restore = setting.store.verb("restore").arg("latest").arg(&file);
        restore
            .input(typed.as_bytes())
            .run()
            .expect(4)
            .expect_says("--yes");
        expect_unchanged(&file, &before);
    }
}

#[test]
fn a_device_that_nobody_confirmed() {
    if !privileged("a device that nobody confirmed is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_filled(&file, setting.disk.len);
    let device = Loop::new(&file);
    let before = fingerprint(&file);
    let restore = setting
        .store
        .verb("restore")
        .arg("latest")
        .arg(device.path());
    restore.run().expect(4).expect_says("--yes");
    expect_unchanged(&file, &before);
}

#[test]
fn a_device_with_other_sectors() {
    if !privileged("a table of 512-byte sectors is not put onto 4096-byte sectors") {
        return;
    }
    for (layout, sector) in [
        (Layout::Gpt512, 4096),
        (Layout::Mbr, 4096),
        (Layout::Gpt4096, 512),
    ] {
        let mut setting = setting();
        let disk = Disk::build(layout, setting.dir.path(), "other.img", 42);
        setting.store = Store::new(setting.dir.path(), "other");
        let source = Loop::with_sector(&disk.path, disk.sector);
        setting.store.backed_up(source.path());
        drop(source);
        let file = setting.path("target.img");
        bytes::create_filled(&file, 256 * MIB);
        let device = Loop::with_sector(&file, sector);
        setting.refused(device.path(), &file, "sector");
    }
}

#[test]
fn one_partition_over_a_whole_disk_with_partitions() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 43);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let target = dir.path().join("target.img");
    std::fs::copy(&disk.path, &target).unwrap();
    let before = fingerprint(&target);
    let restore = store.restore("latest", &target).args(["--partition", "3"]);
    restore.run().expect(4).expect_says("N:M");
    expect_unchanged(&target, &before);
}
