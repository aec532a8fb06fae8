//! What must not be overwritten is not, whatever was typed: exit code 4, not one byte changed.
//!
//! | what stands against it | tests here | tests of the guard (`tests/guard.rs`, `tests/guard_open.rs`) |
//! |---|---|---|
//! | W1 mounted: also read-only, by a bind, in another namespace, below an overlay | `a_mounted_device`, `mounted_in_other_ways` | `mounted`, `mounted_read_only`, `mounted_elsewhere_after_the_first_mount_is_gone`, `mounted_in_another_namespace`, `lower_folder_of_an_overlay` |
//! | W2 swap | `swap_in_use` | `swap`, `swap_file` |
//! | W3 held by a layer above, a file behind a loop device | `a_device_under_another_device`, `a_file_under_a_mounted_loop_device` | `a_file_behind_a_loop_device`; recorded machines with LVM, md, LUKS, multipath, bcache: `src/device/tests/in_use.rs` |
//! | W4 holds the store, an image, its parent, the running root | `the_device_that_holds_the_store`, `an_image_of_the_store`, `an_older_image_that_is_needed` | `holds_the_store`, `is_an_image_or_lies_in_the_store`, `a_loop_device_that_shows_an_image`, `the_running_root` |
//! | W5 too small by a sector, by the second table | `a_device_that_is_too_small`, `a_file_that_is_too_small`, `too_small_for_the_second_table` | `too_small_by_a_sector`; `tests/e2e/resize.rs` |
//! | W6 read-only | `a_read_only_device` | `read_only_device` |
//! | W7 another disk since the plan | | `another_disk_since_the_plan`, `another_disk_since_the_permit`, `a_partition_moved_since_the_permit`; `src/device/tests/refusals.rs` |
//! | W8 a link that was moved | | `a_link_moved_since_the_permit`, `a_file_replaced_since_the_permit` |
//! | W9 a partition of the source, W10 the source under another name | | `the_source_under_other_names`; `sources_are_no_targets` in `src/device/tests/refusals.rs` |
//! | W11 not confirmed | `a_target_that_nobody_confirmed`, `a_device_that_nobody_confirmed` | `tests/e2e/confirm.rs` |
//! | W12 folder, pipe, `/dev/null`, a device of no bytes | `what_is_neither_device_nor_file`, `a_device_without_a_byte` | `no_disks_at_all`, `a_loop_device_without_a_file` |
//! | W13 claimed by another process | `a_device_that_another_process_has_claimed` | `claimed_by_another_process`, `locked_by_another_program`, `open_for_writing_in_another_process` |
//! | a source is never written | `a_source_is_only_read` | `a_source_is_never_written` |

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
        // Confirmed or not: the reasons come first.
        let unconfirmed = self.store.verb("restore").arg("latest").arg(target);
        unconfirmed.run().expect(4).expect_says(why);
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

#[test]
fn mounted_in_other_ways() {
    if !privileged("a device that is mounted in other ways is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.ext4_file("target.img");
    let device = Loop::new(&file);
    let mount = Mount::new(device.path(), &setting.path("mnt"));
    std::fs::create_dir(mount.path().join("lower")).unwrap();
    let (from, to) = (mount.path().join("lower"), setting.path("bound"));
    std::fs::create_dir(&to).unwrap();
    tools::run("mount", &["--bind", text(&from), text(&to)]);
    let bound = Unmount(to);
    // Only the bind is left, through which nothing is written any more.
    drop(mount);
    tools::run("mount", &["-o", "remount,ro", text(&bound.0)]);
    setting.refused(device.path(), &file, text(&bound.0));
}

/// Takes a mount away on every way out.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        tools::try_run("umount", &[&self.0]);
    }
}

#[test]
fn an_older_image_that_is_needed() {
    let setting = setting();
    let full = setting.store.file_of(&setting.store.list()[0]);
    bytes::flip(&setting.disk.path, 100_000);
    let younger = setting.store.backed_up(&setting.disk.path);
    assert_eq!(younger["kind"], "incremental");
    let before = fingerprint(&full);
    // Named by its path, so that the store is not named at all.
    let image = setting.store.file_of(&younger);
    let restore = crate::kit::run::strata("restore").arg(&image).arg(&full);
    restore.arg("--yes").run().expect(4);
    expect_unchanged(&full, &before);
    setting.store.verify(&["--deep"]).expect(0);
}

#[test]
fn too_small_for_the_second_table() {
    if !privileged("a device without room for the second table is refused as target") {
        return;
    }
    let mut setting = setting();
    let disk = Disk::build(Layout::Gpt512, setting.dir.path(), "gpt.img", 44);
    setting.store = Store::new(setting.dir.path(), "gpt");
    setting.store.backed_up(&disk.path);
    let last = disk.parts.last().unwrap();
    let file = setting.path("target.img");
    // All partitions fit, and the table at the end (33 sectors) does not, by one sector.
    bytes::create_filled(&file, last.start + last.len + 32 * 512);
    let device = Loop::new(&file);
    let before = fingerprint(&file);
    setting
        .store
        .restore("latest", device.path())
        .run()
        .expect(4);
    expect_unchanged(&file, &before);
}

#[test]
fn a_device_without_a_byte() {
    if !privileged("a device without a byte is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_sparse(&file, 0);
    let device = Loop::new(&file);
    let outcome = setting.store.restore("latest", device.path()).run();
    assert!(matches!(outcome.code(), Some(4 | 10)), "{outcome}");
    assert_eq!(bytes::length(&file), 0);
}

#[test]
fn a_device_that_another_process_has_claimed() {
    use std::os::unix::fs::OpenOptionsExt;
    if !privileged("a device that another process has claimed is refused as target") {
        return;
    }
    let setting = setting();
    let file = setting.path("target.img");
    bytes::create_filled(&file, 96 * MIB);
    let device = Loop::new(&file);
    let mut options = std::fs::OpenOptions::new();
    let claim = options.read(true).custom_flags(nix::libc::O_EXCL);
    let claim = claim.open(device.path()).unwrap();
    setting.refused(device.path(), &file, "another program has claimed it");
    drop(claim);
}

/// Whatever reads a disk opens it for reading alone, and not one byte of it changes.
#[test]
fn a_source_is_only_read() {
    if !privileged("how a source is opened") {
        return;
    }
    let setting = setting();
    // A file system that was mounted last and whose journal somebody might want to replay.
    let file = setting.ext4_file("source-ext4.img");
    let device = Loop::new(&file);
    tools::run::<&str>("sync", &[]);
    let before = fingerprint(&file);
    let log = setting.path("calls");
    for source in [device.path(), file.as_path()] {
        let runs = [
            setting.store.backup(source).args(["--set", "traced"]),
            setting
                .store
                .verb("verify")
                .args(["traced@latest", "--against"])
                .arg(source),
        ];
        for run in runs {
            let prefix = [
                "strace",
                "-f",
                "-e",
                "trace=open,openat,openat2,creat",
                "-o",
                text(&log),
            ];
            run.start_below(&prefix).wait().expect(0);
            let calls = std::fs::read_to_string(&log).unwrap();
            let name = format!("\"{}\"", text(source));
            let opens: Vec<&str> = calls.lines().filter(|l| l.contains(&name)).collect();
            assert!(!opens.is_empty(), "{calls}");
            for call in opens {
                let reads = call.contains("O_RDONLY") || call.contains("O_PATH");
                assert!(reads && !call.contains("O_RDWR"), "{call}");
            }
            expect_unchanged(&file, &before);
        }
    }
}
