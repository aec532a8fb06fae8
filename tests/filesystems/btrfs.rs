//! Btrfs: its kinds of block groups, checksums and features; logs of fsyncs; damage.
//!
//! What must be in use is counted by `btrfs inspect-internal dump-tree`: the "used" of each block
//! group, once for each stripe of its chunk, and beside that the first MiB, the copies of the
//! superblock, and what lies behind the end of the file system.

use crate::aged::{self, POSIX};
use crate::cycle::{Cycle, Part};
use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::store::Store;
use crate::kit::told::{self, Chunk};
use crate::kit::{GIB, KIB, MIB, long, scratch, tools};
use crate::manifest::Manifest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// Where copies of the superblock lie.
const MIRRORS: [u64; 2] = [64 * MIB, 256 * GIB];

/// A file system in a file.
struct Volume {
    image: PathBuf,
    dir: PathBuf,
}

impl Volume {
    /// Made by `mkfs.btrfs` with `options`, `len` bytes long.
    fn new(dir: &Path, name: &str, len: u64, options: &[&str]) -> Volume {
        let image = dir.join(name);
        bytes::create_sparse(&image, len);
        let path = image.to_str().unwrap();
        tools::run(
            "mkfs.btrfs",
            &[&["-q", "-L", name], options, &[path]].concat(),
        );
        Volume {
            image,
            dir: dir.to_owned(),
        }
    }

    /// Mounts it with `options` while `work` is done.
    fn mounted<T>(&self, options: &str, work: impl FnOnce(&Path) -> T) -> T {
        mounted(&self.image, &self.dir, options, work)
    }

    fn chunks(&self) -> Vec<Chunk> {
        chunks(&self.image)
    }

    /// Where each copy of a logical address lies.
    fn copies(&self, at: u64) -> Vec<u64> {
        let chunks = self.chunks();
        let chunk = chunks
            .iter()
            .find(|c| (c.start..c.start + c.len).contains(&at));
        let chunk = chunk.unwrap_or_else(|| panic!("no chunk for {at}"));
        chunk.stripes.iter().map(|s| s + at - chunk.start).collect()
    }

    /// A field of the superblock.
    fn superblock(&self, field: &str) -> u64 {
        superblock(&self.image, field)
    }

    /// What must be in use.
    fn used(&self) -> u64 {
        used(&self.image)
    }
}

/// Mounts `image` with `options` below `dir` while `work` is done.
fn mounted<T>(image: &Path, dir: &Path, options: &str, work: impl FnOnce(&Path) -> T) -> T {
    let device = Loop::new(image);
    let at = dir.join("mounted");
    let mount = Mount::with_options(device.path(), &at, options);
    let result = work(mount.path());
    drop(mount);
    fs::remove_dir(&at).unwrap();
    result
}

fn dump_tree(image: &Path, tree: &str) -> String {
    let path = image.to_str().unwrap();
    tools::run(
        "btrfs",
        &["inspect-internal", "dump-tree", "-t", tree, path],
    )
}

/// The number behind `word`.
fn after(line: &str, word: &str) -> u64 {
    told::after(line, word).unwrap_or_else(|| panic!("{word} in {line}"))
}

fn chunks(image: &Path) -> Vec<Chunk> {
    told::chunks(&dump_tree(image, "chunk")).unwrap()
}

/// What the block group of each chunk has in use, by its logical address.
fn used_in_groups(image: &Path) -> BTreeMap<u64, u64> {
    let extents = dump_tree(image, "extent");
    let mut lines = extents.lines().map(str::trim);
    let mut used = BTreeMap::new();
    while let Some(line) = lines.next() {
        if line.starts_with("item ") && line.contains("BLOCK_GROUP_ITEM") {
            used.insert(after(line, "key"), after(lines.next().unwrap(), "used"));
        }
    }
    used
}

fn superblock(image: &Path, field: &str) -> u64 {
    let path = image.to_str().unwrap();
    let said = tools::run("btrfs", &["inspect-internal", "dump-super", path]);
    let line = said
        .lines()
        .find(|l| l.split_whitespace().next() == Some(field));
    after(
        line.unwrap_or_else(|| panic!("no {field} in {said}")),
        field,
    )
}

fn used(image: &Path) -> u64 {
    let (chunks, groups) = (chunks(image), used_in_groups(image));
    assert_eq!(
        groups.values().sum::<u64>(),
        superblock(image, "bytes_used"),
        "what block groups use"
    );
    let is_known = |at: &u64| chunks.iter().any(|chunk| chunk.start == *at);
    assert!(groups.keys().all(is_known), "block groups without a chunk");
    // A chunk without a block group has nothing in use.
    let used = |c: &Chunk| groups.get(&c.start).copied().unwrap_or(0);
    let count = |c: &Chunk| used(c) * u64::try_from(c.stripes.len()).unwrap();
    let copies: u64 = chunks.iter().map(count).sum();
    let (len, end) = (bytes::length(image), superblock(image, "total_bytes"));
    let mirrors = MIRRORS.iter().filter(|at| **at + 4 * KIB <= len).count();
    copies + MIB + 4 * KIB * u64::try_from(mirrors).unwrap() + (len - end)
}

/// Fails unless `btrfs check` finds nothing, data included.
#[track_caller]
fn assert_sound(image: &Path) {
    let path = image.to_str().unwrap();
    let args = ["check", "--readonly", "--check-data-csum", path];
    let output = tools::try_run("btrfs", &args);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let clean = output.status.success() && said.contains("no error found");
    assert!(clean, "btrfs {args:?}: {}\n{said}", output.status);
}

/// Fails unless a scrub of all copies finds nothing.
#[track_caller]
fn scrub(root: &Path) {
    let path = root.to_str().unwrap();
    let said = tools::run("btrfs", &["scrub", "start", "-B", "-r", path]);
    assert!(said.contains("no errors found"), "{said}");
}

/// Takes `volume` through an image; the restored one must be sound and hold the same files.
#[track_caller]
fn assert_restores(volume: &Volume, options: &str, manifest: &Manifest) {
    let cycle = Cycle::of(&volume.image, &volume.dir);
    cycle.only().assert_mapped("Btrfs");
    assert_eq!(cycle.only().used(), volume.used(), "{}", cycle.plan);
    assert!(
        cycle.only().free() > cycle.only().length() / 3,
        "{}",
        cycle.plan
    );
    assert_sound(&cycle.restored);
    mounted(&cycle.restored, &volume.dir, options, |root| {
        scrub(root);
        manifest.assert_same(&Manifest::of(root));
    });
}

/// Makes a file system, ages it, does `more` to it, and takes it through an image.
fn survives(name: &str, len: u64, mkfs: &[&str], options: &str, more: impl FnOnce(&Path)) {
    if !privileged_with_fs("btrfs", name) {
        return;
    }
    let dir = scratch();
    let volume = Volume::new(dir.path(), name, len, mkfs);
    let manifest = volume.mounted(options, |root| {
        aged::age(root, 24 * MIB, 5, POSIX);
        more(root);
        aged::sync(root);
        Manifest::of(root)
    });
    assert!(manifest.len() > 1000);
    assert_restores(&volume, options, &manifest);
}

fn btrfs(args: &[&str], path: &Path) {
    tools::run("btrfs", &[args, &[path.to_str().unwrap()]].concat());
}

fn nothing(_: &Path) {}

#[test]
fn subvolumes_snapshots_and_reflinks_survive() {
    survives("default", 300 * MIB, &[], "defaults", |root| {
        btrfs(&["subvolume", "create"], &root.join("one"));
        let mut stream = Stream::new(3);
        fs::write(root.join("one/file"), stream.bytes(MIB)).unwrap();
        let (one, root) = (root.join("one"), root.to_owned());
        let one = one.to_str().unwrap();
        btrfs(&["subvolume", "snapshot", "-r", one], &root.join("two"));
        fs::write(root.join("one/file"), stream.bytes(100_000)).unwrap();
        btrfs(&["subvolume", "snapshot", one], &root.join("gone"));
        btrfs(&["subvolume", "delete", "-c"], &root.join("gone"));
        let (from, to) = (root.join("grown"), root.join("reflink"));
        tools::run(
            "cp",
            &[
                "--reflink=always",
                from.to_str().unwrap(),
                to.to_str().unwrap(),
            ],
        );
        bytes::write(&to, 8192, &stream.bytes(5000));
    });
}

#[test]
fn mixed_block_groups_survive() {
    let options = ["--mixed", "-n", "4096"];
    survives(
        "mixed",
        160 * MIB + 12_345,
        &options,
        "compress=lzo",
        nothing,
    );
}

#[test]
fn data_in_two_copies_and_small_tree_blocks_survive() {
    let options = [
        "-d", "dup", "-m", "single", "-n", "4096", "--csum", "xxhash",
    ];
    survives("dup", 300 * MIB, &options, "defaults", nothing);
}

#[test]
fn large_tree_blocks_survive() {
    let options = ["-m", "dup", "-n", "65536", "--csum", "sha256"];
    survives(
        "sha256",
        300 * MIB,
        &options,
        "compress-force=zstd",
        nothing,
    );
}

#[test]
fn old_features_and_the_first_space_cache_survive() {
    let options = [
        "-O",
        "^no-holes,^skinny-metadata,^extref",
        "-R",
        "^free-space-tree",
        "--csum",
        "blake2",
    ];
    survives("old", 300 * MIB, &options, "space_cache=v1", nothing);
}

#[test]
fn raid0_on_one_device_and_quotas_survive() {
    let options = ["-d", "raid0", "-m", "raid0", "-R", "quota"];
    survives("raid0", 300 * MIB, &options, "defaults", |root| {
        btrfs(&["qgroup", "limit", "1G"], root);
    });
}

/// A balance moves chunks, so that logical addresses go far beyond the device's length.
#[test]
fn balanced_file_systems_survive() {
    survives("balanced", 300 * MIB, &["-m", "dup"], "defaults", |root| {
        for _ in 0..3 {
            btrfs(&["balance", "start", "--full-balance"], root);
        }
    });
}

/// What the whole disk's plan says, without an image.
fn plan(image: &Path, dir: &Path) -> serde_json::Value {
    let name = image.file_name().unwrap().to_str().unwrap();
    let store = Store::new(dir, &format!("plan-of-{name}"));
    let planned = store.backup(image).args(["--dry-run", "--json"]);
    let planned = planned.run().expect(0).json();
    planned["plan"]["partitions"][0].clone()
}

/// Beyond 256 GiB there is a third superblock.
#[test]
fn the_third_superblock_is_in_use() {
    if !privileged_with_fs("btrfs", "third superblock") {
        return;
    }
    let dir = scratch();
    let volume = Volume::new(dir.path(), "large", 300 * GIB, &[]);
    volume.mounted("defaults", |root| aged::age(root, 8 * MIB, 5, POSIX));
    let planned = plan(&volume.image, dir.path());
    Part(&planned).assert_mapped("Btrfs");
    assert_eq!(Part(&planned).used(), volume.used());
}

#[test]
fn each_of_several_devices_is_taken_whole() {
    if !privileged_with_fs("btrfs", "several devices") {
        return;
    }
    let dir = scratch();
    let images = ["one", "two"].map(|name| dir.path().join(name));
    for image in &images {
        bytes::create_sparse(image, 128 * MIB);
    }
    let [one, two] = images.each_ref().map(|image| image.to_str().unwrap());
    tools::run(
        "mkfs.btrfs",
        &["-q", "-d", "single", "-m", "raid1", one, two],
    );
    for image in &images {
        let planned = plan(image, dir.path());
        Part(&planned).assert_whole("Btrfs", "one of 2 devices");
    }
}

/// A file system with files that were fsynced after its last commit, copied while it was mounted.
struct Crashed {
    volume: Volume,
    /// Names and content of what must be there.
    files: Vec<(String, Vec<u8>)>,
}

impl Crashed {
    fn new(dir: &Path, mkfs: &[&str]) -> Crashed {
        let volume = Volume::new(dir, "running", 256 * MIB, mkfs);
        let image = dir.join("crashed");
        let mut stream = Stream::new(11);
        let files = volume.mounted("commit=300", |root| {
            aged::age(root, 8 * MIB, 5, POSIX);
            btrfs(&["subvolume", "create"], &root.join("sub"));
            aged::sync(root);
            let mut files = Vec::new();
            for number in 0..30 {
                let dir = if number % 3 == 0 { "sub/" } else { "" };
                let name = format!("{dir}fsynced-{number}");
                let len = if number % 5 == 0 {
                    700
                } else {
                    stream.below(600 * KIB)
                };
                let content = stream.bytes(len);
                write_synced(&root.join(&name), &content);
                files.push((name, content));
            }
            fs::copy(&volume.image, &image).unwrap();
            files
        });
        assert_ne!(superblock(&image, "log_root"), 0, "there is no log");
        let dir = dir.to_owned();
        Crashed {
            volume: Volume { image, dir },
            files,
        }
    }
}

fn write_synced(path: &Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

/// Fails unless `image` mounts, which replays its log, holds all `files`, and is sound afterwards.
#[track_caller]
fn assert_recovers(image: &Path, dir: &Path, files: &[(String, Vec<u8>)]) {
    mounted(image, dir, "defaults", |root| {
        for (name, content) in files {
            let found = fs::read(root.join(name));
            let found = found.unwrap_or_else(|e| panic!("read {name}: {e}"));
            assert!(found == *content, "{name} has other bytes");
        }
        scrub(root);
    });
    assert_sound(image);
}

#[test]
fn what_was_fsynced_before_a_crash_survives() {
    if !privileged_with_fs("btrfs", "fsynced files") {
        return;
    }
    for mkfs in [&["-m", "dup"][..], &["--mixed", "-n", "4096"]] {
        let dir = scratch();
        let crashed = Crashed::new(dir.path(), mkfs);
        let image = &crashed.volume.image;
        let cycle = Cycle::of(image, dir.path());
        cycle.only().assert_mapped("Btrfs");
        let part = cycle.only();
        assert!(part.reason().contains("log of recent fsyncs"), "{}", part.0);
        assert_recovers(&cycle.restored, dir.path(), &crashed.files);

        // Without its log the same file system has less in use, at least by what was fsynced and
        // is too large for a tree block.
        let without = dir.path().join("without-log");
        fs::copy(image, &without).unwrap();
        tools::run("btrfs", &["rescue", "zero-log", without.to_str().unwrap()]);
        let planned = plan(&without, dir.path());
        Part(&planned).assert_mapped("Btrfs");
        assert_eq!(Part(&planned).used(), used(&without));
        let large = |len: &u64| *len > 4 * KIB;
        let lengths = crashed
            .files
            .iter()
            .map(|(_, c)| u64::try_from(c.len()).unwrap());
        let fsynced: u64 = lengths.filter(large).sum();
        let (with, without) = (cycle.only().used(), Part(&planned).used());
        assert!(
            fsynced > MIB && with - without > fsynced,
            "{with} {without} {fsynced}"
        );
    }
}

/// The moment of a crash in the middle of writes: the image lies on another Btrfs, whose reflinks
/// copy it at one instant while threads write and fsync.
#[test]
fn a_crash_under_load_survives() {
    if !privileged_with_fs("btrfs", "crash under load") {
        return;
    }
    let dir = scratch();
    let outer = Volume::new(dir.path(), "outer", 2 * GIB, &["-m", "single"]);
    let below = dir.path().join("below");
    let device = Loop::new(&outer.image);
    let mount = Mount::new(device.path(), &below);
    let volume = Volume::new(&below, "inner", 300 * MIB, &[]);
    let rounds = if long() { 12 } else { 2 };
    let snapshots = volume.mounted("commit=1", |root| {
        aged::age(root, 8 * MIB, 5, POSIX);
        snapshots_under_load(&volume, root, rounds)
    });
    for (image, files) in snapshots {
        let cycle = Cycle::of(&image, dir.path());
        cycle.only().assert_mapped("Btrfs");
        assert_recovers(&cycle.restored, dir.path(), &files);
        fs::remove_file(&cycle.restored).unwrap();
    }
    drop(mount);
}

type Files = Vec<(String, Vec<u8>)>;

/// Copies of the image at moments when three threads write below `root`, each with the files that
/// were fsynced by then.
fn snapshots_under_load(volume: &Volume, root: &Path, rounds: usize) -> Vec<(PathBuf, Files)> {
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, synced) = mpsc::channel();
        for thread in 0..3u64 {
            let done = done.clone();
            scope.spawn(move || {
                let mut stream = Stream::new(thread);
                for number in 0.. {
                    let content = stream.bytes(1 + Stream::new(number).below(400 * KIB));
                    let name = format!("load-{thread}-{number}");
                    write_synced(&root.join(&name), &content);
                    fs::write(root.join(format!("unsynced-{thread}")), &content).unwrap();
                    if stop.load(Ordering::Relaxed) || done.send((name, content)).is_err() {
                        break;
                    }
                }
            });
        }
        let (mut snapshots, mut files) = (Vec::new(), Files::new());
        for round in 0..rounds {
            files.extend(synced.iter().take(10));
            let copy = volume.dir.join(format!("snapshot-{round}"));
            let (from, to) = (volume.image.to_str().unwrap(), copy.to_str().unwrap());
            tools::run("cp", &["--reflink=always", from, to]);
            snapshots.push((copy, files.clone()));
        }
        stop.store(true, Ordering::Relaxed);
        snapshots
    })
}

/// One damaged copy of a tree block is made up for by the other; two leave nothing proven.
#[test]
fn damaged_tree_blocks_are_read_from_their_other_copy() {
    if !privileged_with_fs("btrfs", "damaged tree blocks") {
        return;
    }
    let dir = scratch();
    let volume = Volume::new(dir.path(), "damaged", 200 * MIB, &["-m", "dup"]);
    volume.mounted("defaults", |root| aged::age(root, 4 * MIB, 5, POSIX));
    let before = volume.used();
    for (field, name) in [("root", "root"), ("chunk_root", "chunk")] {
        let at = volume.superblock(field);
        let copies = volume.copies(at);
        assert_eq!(copies.len(), 2, "{name} tree");
        let image = dir.path().join(format!("damaged-{name}"));
        fs::copy(&volume.image, &image).unwrap();

        bytes::flip(&image, copies[0] + 200);
        let planned = plan(&image, dir.path());
        Part(&planned).assert_mapped("Btrfs");
        assert_eq!(Part(&planned).used(), before);

        bytes::flip(&image, copies[1] + 200);
        let again = dir.path().join(format!("twice-{name}"));
        fs::rename(&image, &again).unwrap();
        let planned = plan(&again, dir.path());
        Part(&planned).assert_whole("Btrfs", "no good copy");
    }
}
