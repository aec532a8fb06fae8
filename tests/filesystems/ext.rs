//! ext2, ext3 and ext4: every option of `mke2fs` that moves or adds metadata, `resize2fs`, journals
//! to replay, and what must not be believed. Free blocks are those that `dumpe2fs` lists.

use crate::aged::{self, POSIX};
use crate::cycle::{Cycle, Part};
use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::run::text;
use crate::kit::store::{Store, number};
use crate::kit::told::{self, Dump};
use crate::kit::{KIB, MIB, long, scratch, tools};
use crate::manifest::Manifest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file system to make, and what it is then called.
pub(crate) struct Make {
    pub(crate) kind: &'static str,
    pub(crate) len: u64,
    options: &'static str,
    /// What `tune2fs -o` is told.
    default_mode: Option<&'static str>,
}

impl Make {
    pub(crate) fn new(kind: &'static str, len: u64, options: &'static str) -> Make {
        Make {
            kind,
            len,
            options,
            default_mode: None,
        }
    }

    /// Makes it in the new file `image`, with the files of `content` if there are any.
    pub(crate) fn make(&self, image: &Path, content: Option<&Path>) {
        bytes::create_sparse(image, self.len);
        // What was there before mkfs is no zeros.
        bytes::write_random(image, 0, self.len, 0x0DD);
        let mut args = vec!["-q", "-F", "-E", "nodiscard"];
        args.extend(self.options.split_whitespace());
        if let Some(content) = content {
            args.extend(["-d", text(content)]);
        }
        args.push(text(image));
        tools::run("mke2fs", &args);
    }
}

pub(crate) fn dump(image: &Path) -> Dump {
    told::dumpe2fs(&tools::run("dumpe2fs", &[image])).unwrap()
}

impl Dump {
    fn free_in_ranges(&self) -> u64 {
        self.free_ranges.iter().map(|r| r.end - r.start).sum()
    }

    /// The bytes that are not free, to the end of a partition of `len` bytes.
    fn used(&self, len: u64) -> Vec<Range<u64>> {
        let mut used = Vec::new();
        let mut at = 0;
        for range in &self.free_ranges {
            used.push(at..range.start * self.block);
            at = range.end * self.block;
        }
        used.push(at..len);
        used.retain(|r| r.start < r.end);
        used
    }

    /// How many blocks are free here and not in `other`.
    fn freer_than(&self, other: &Dump) -> u64 {
        let free: std::collections::BTreeSet<u64> =
            other.free_ranges.iter().cloned().flatten().collect();
        let own = self.free_ranges.iter().cloned().flatten();
        own.filter(|block| !free.contains(block)).count() as u64
    }
}

#[track_caller]
fn assert_sound(image: &Path) {
    tools::run("e2fsck", &["-f", "-n", text(image)]);
}

/// Takes the clean `image` through an image of its own and checks everything but its files.
#[track_caller]
fn cycled(kind: &str, image: &Path, dir: &Path) -> Cycle {
    assert_sound(image);
    let dump = dump(image);
    assert_eq!(dump.free_in_ranges(), dump.free);
    let cycle = Cycle::of(image, dir);
    cycle.only().assert_mapped(kind);
    assert_eq!(cycle.only().free(), dump.free * dump.block);
    assert_kept(image, &cycle.restored, &dump);
    assert_sound(&cycle.restored);
    cycle
}

/// Fails unless all that `dump` does not call free is the same in both files.
#[track_caller]
fn assert_kept(image: &Path, restored: &Path, dump: &Dump) {
    for used in dump.used(bytes::length(image)) {
        let len = used.end - used.start;
        bytes::assert_same_range(image, used.start, restored, used.start, len);
    }
}

/// Calls `with` on the mounted file system.
pub(crate) fn mounted<T>(image: &Path, dir: &Path, with: impl FnOnce(&Path) -> T) -> T {
    let device = Loop::new(image);
    let at = dir.join("mounted");
    let mount = Mount::new(device.path(), &at);
    let made = with(mount.path());
    drop(mount);
    fs::remove_dir(&at).unwrap();
    made
}

/// The files of `image`, which is not changed.
fn manifest(image: &Path, dir: &Path) -> Manifest {
    let device = Loop::read_only(image);
    let at = dir.join("read");
    let mount = Mount::new(device.path(), &at);
    let manifest = Manifest::of(mount.path());
    drop(mount);
    fs::remove_dir(&at).unwrap();
    manifest
}

/// Makes, ages, images, restores, checks and compares.
#[track_caller]
fn survives(make: &Make) {
    let dir = scratch();
    let image = dir.path().join("image");
    make.make(&image, None);
    let before = mounted(&image, dir.path(), |root| {
        aged::age(root, make.len / 6, 7, POSIX);
        Manifest::of(root)
    });
    assert!(before.len() > 500);
    let cycle = cycled(make.kind, &image, dir.path());
    before.assert_same(&manifest(&cycle.restored, dir.path()));
}

/// As [`survives`], for what this kernel may not mount: `mke2fs` fills it.
#[track_caller]
fn survives_unmounted(make: &Make) {
    let dir = scratch();
    let (image, content) = (dir.path().join("image"), dir.path().join("content"));
    fs::create_dir(&content).unwrap();
    aged::age(&content, make.len / 8, 8, POSIX);
    make.make(&image, Some(&content));
    // mke2fs counts no quota for what it copies, and leaves holes in directories.
    tools::try_run("e2fsck", &["-f", "-y", text(&image)]);
    let dumped = |image: &Path, name: &str| {
        let out = dir.path().join(name);
        fs::create_dir(&out).unwrap();
        let request = format!("rdump / {}", text(&out));
        tools::run("debugfs", &["-R", &request, text(image)]);
        Manifest::of(&out)
    };
    let before = dumped(&image, "before");
    assert!(before.len() > 500);
    let cycle = cycled(make.kind, &image, dir.path());
    before.assert_same(&dumped(&cycle.restored, "after"));
}

/// One test for each line: name, kind, KiB, options.
macro_rules! survive {
    ($($how:ident $name:ident: $kind:literal, $kib:expr, $options:literal;)*) => {$(
        #[test]
        fn $name() {
            if privileged_with_fs("ext4", stringify!($name)) {
                $how(&Make::new($kind, $kib * KIB, $options));
            }
        }
    )*};
}

/// As [`survive`], for `./test --long`.
macro_rules! survive_long {
    ($($how:ident $name:ident: $kind:literal, $kib:expr, $options:literal;)*) => {$(
        #[test]
        fn $name() {
            if long() && privileged_with_fs("ext4", stringify!($name)) {
                $how(&Make::new($kind, $kib * KIB, $options));
            }
        }
    )*};
}

survive! {
    survives ext2_with_blocks_of_1_kib: "ext2", 40_001, "-t ext2 -b 1024";
    survives ext3: "ext3", 49_157, "-t ext3 -b 1024";
    survives ext4_with_blocks_of_4_kib: "ext4", 65_542, "-t ext4 -b 4096";
    survives ext4_with_blocks_of_1_kib: "ext4", 65_541, "-t ext4 -b 1024 -O orphan_file,metadata_csum_seed";
    survives uninitialised_groups_with_crc16: "ext4", 65_540, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg";
    survives meta_groups: "ext4", 65_539, "-t ext4 -b 1024 -O meta_bg,^resize_inode";
    survives clusters: "ext4", 81_927, "-t ext4 -b 1024 -C 8192 -O bigalloc";
    survives two_superblock_copies: "ext4", 49_153, "-t ext4 -b 1024 -O sparse_super2,^resize_inode -E num_backup_sb=2";
    survives groups_that_keep_their_metadata: "ext4", 49_153, "-t ext4 -b 1024 -O ^flex_bg,^64bit,inline_data,ea_inode -I 512";
    survives_unmounted blocks_of_64_kib: "ext4", 204_800, "-t ext4 -b 65536 -J size=65";
    survives_unmounted features_of_files: "ext4", 65_536,
        "-t ext4 -b 2048 -O encrypt,casefold,verity,quota,project,mmp,large_dir,stable_inodes,fast_commit,ea_inode";
}

survive_long! {
    survives ext2_of_revision_0: "ext2", 33_000, "-t ext2 -b 1024 -r 0 -O none";
    survives ext2_with_blocks_of_4_kib: "ext2", 65_542, "-t ext2 -b 4096";
    survives ext3_with_all_superblock_copies: "ext3", 49_158, "-t ext3 -b 1024 -O ^sparse_super,^resize_inode";
    survives ext4_with_blocks_of_2_kib: "ext4", 131_077, "-t ext4 -b 2048";
    survives no_checksums: "ext4", 65_543, "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg";
    survives short_descriptors: "ext4", 65_543, "-t ext4 -b 1024 -O ^64bit";
    survives meta_groups_of_short_descriptors: "ext4", 300_007, "-t ext4 -b 1024 -O meta_bg,^resize_inode,^64bit,^metadata_csum";
    survives clusters_of_64_blocks: "ext4", 163_843, "-t ext4 -b 1024 -C 65536 -O bigalloc";
    survives clusters_with_blocks_of_4_kib: "ext4", 262_144, "-t ext4 -b 4096 -O bigalloc";
    survives one_superblock_copy: "ext4", 49_153, "-t ext4 -b 1024 -O sparse_super2 -E num_backup_sb=1";
    survives no_superblock_copy: "ext4", 49_153, "-t ext4 -b 1024 -O sparse_super2 -E num_backup_sb=0";
    survives metadata_at_the_start: "ext4", 65_537, "-t ext4 -b 1024 -E packed_meta_blocks=1";
    survives tiny_groups: "ext4", 40_000, "-t ext4 -b 1024 -g 256 -N 8192";
    survives odd_groups: "ext4", 40_003, "-t ext4 -b 1024 -g 1000";
    survives long_inodes: "ext4", 65_537, "-t ext4 -b 4096 -I 2048 -G 4";
    survives no_journal: "ext4", 65_537, "-t ext4 -O ^has_journal";
    survives several_groups_of_4_kib_blocks: "ext4", 700_001, "-t ext4 -b 4096";
    survives_unmounted blocks_of_16_kib: "ext4", 204_816, "-t ext4 -b 16384";
}

#[test]
fn every_remainder_of_blocks() {
    if !privileged_with_fs("ext4", "ext remainders") {
        return;
    }
    // A last group of one to many blocks, and partial units behind the file system.
    for blocks in [16_400, 16_447, 16_449, 16_639, 24_000, 24_577, 24_639] {
        for options in ["-t ext4 -b 1024 -J size=1", "-t ext2 -b 1024"] {
            let dir = scratch();
            let image = dir.path().join("image");
            let kind = if options.contains("ext4") {
                "ext4"
            } else {
                "ext2"
            };
            let len = blocks * KIB + 512 * (blocks % 3);
            Make {
                kind,
                len,
                options,
                default_mode: None,
            }
            .make(&image, None);
            let dump = dump(&image);
            let plan = plan(&image, dir.path());
            let part = Part(&plan);
            part.assert_mapped(kind);
            assert_eq!(part.free(), dump.free * 1024, "{blocks} {options}");
        }
    }
}

#[test]
fn grown_and_shrunk() {
    if !privileged_with_fs("ext4", "resize2fs") {
        return;
    }
    let dir = scratch();
    let image = dir.path().join("image");
    Make::new("ext4", 96 * MIB, "-t ext4 -b 1024").make(&image, None);
    for (n, size) in ["40M", "77777K", "50001K", "96M"].into_iter().enumerate() {
        tools::run("e2fsck", &["-f", "-y", text(&image)]);
        resize(&image, size);
        let before = mounted(&image, dir.path(), |root| {
            let folder = root.join(size);
            fs::create_dir(&folder).unwrap();
            aged::age(&folder, 5 * MIB, 3, POSIX);
            Manifest::of(root)
        });
        let dir = dir.path().join(format!("resized-{n}"));
        fs::create_dir(&dir).unwrap();
        let cycle = cycled("ext4", &image, &dir);
        before.assert_same(&manifest(&cycle.restored, &dir));
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// Gives the file system in `image` another size, and leaves the file as long as it was.
fn resize(image: &Path, size: &str) {
    let len = bytes::length(image);
    tools::run("resize2fs", &[text(image), size]);
    bytes::open_rw(image).set_len(len).unwrap();
}

/// What a backup of `image` would take of it.
#[track_caller]
fn plan(image: &Path, dir: &Path) -> Value {
    let name = format!("plan-of-{}", text(Path::new(image.file_name().unwrap())));
    let store = Store::new(dir, &name);
    let plan = store.backup(image).args(["--dry-run", "--json"]).run();
    fs::remove_dir_all(&store.dir).unwrap();
    plan.expect(0).json()["plan"]["partitions"][0].clone()
}

/// A file system copied while it is mounted, and its files that were on the disk by then.
pub(crate) struct Crashed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) image: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

/// Makes a file system, works on it, and copies it in the middle of that.
pub(crate) fn crashed(make: &Make) -> Crashed {
    let dir = scratch();
    let (live, image) = (dir.path().join("live"), dir.path().join("image"));
    make.make(&live, None);
    if let Some(mode) = make.default_mode {
        tools::run("tune2fs", &["-o", mode, text(&live)]);
    }
    let files = mounted(&live, dir.path(), |root| {
        aged::age(root, make.len / 12, 5, POSIX);
        let files = load(root);
        copy_at_one_instant(&live, &image);
        files
    });
    fs::remove_file(&live).unwrap();
    Crashed { dir, image, files }
}

/// Copies a disk in use as it is at one instant: once more as long as something of it was written meanwhile.
fn copy_at_one_instant(live: &Path, image: &Path) {
    for _ in 0..100 {
        fs::copy(live, image).unwrap();
        if fs::read(live).unwrap() == fs::read(image).unwrap() {
            return;
        }
    }
    panic!("{} never rests", live.display());
}

/// Work that leaves revokes and escaped blocks in a journal, and rounds of it; the files that were
/// synced.
fn load(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut stream = Stream::new(11);
    let mut files = BTreeMap::new();
    for round in 0..3 {
        for n in 0..20 {
            let name = format!("synced-{round}-{n}");
            let mut content = stream.bytes(1000 + 40_000 * (n % 4));
            // What a journal must not take for its own.
            for block in content.chunks_mut(1024) {
                block[..4].copy_from_slice(&[0xC0, 0x3B, 0x39, 0x98]);
            }
            synced(&root.join(&name), &content);
            files.insert(name, content);
        }
        // Blocks of directories that become blocks of files: the journal revokes their copies.
        let dir = root.join(format!("short-lived-{round}"));
        fs::create_dir(&dir).unwrap();
        for n in 0..300 {
            fs::write(dir.join(format!("{n:0100}")), []).unwrap();
        }
        synced(&root.join("step"), b"one");
        fs::remove_dir_all(&dir).unwrap();
        let name = format!("in-place-of-{round}");
        let content = stream.bytes(400_000);
        synced(&root.join(&name), &content);
        files.insert(name, content);
        if round > 0 {
            fs::remove_file(root.join(format!("synced-{}-3", round - 1))).unwrap();
            files.remove(&format!("synced-{}-3", round - 1));
            synced(&root.join("step"), b"two");
        }
    }
    files
}

fn synced(path: &Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap())
        .unwrap()
        .sync_all()
        .unwrap();
}

impl Crashed {
    fn has_files(&self, root: &Path) {
        for (name, content) in &self.files {
            let found = fs::read(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(found == *content, "{name} differs");
        }
    }

    /// A copy whose journal `e2fsck` has replayed.
    pub(crate) fn replayed(&self) -> PathBuf {
        let copy = self.dir.path().join("replayed");
        fs::copy(&self.image, &copy).unwrap();
        // 1: it mended something, as a replay always is.
        let output = tools::try_run("e2fsck", &["-f", "-y", text(&copy)]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
        copy
    }
}

/// Copies a file system in use, images and restores the copy, replays its journal and checks it.
#[track_caller]
fn survives_crash(make: &Make) {
    let crashed = crashed(make);
    let dir = crashed.dir.path();
    let (raw, replayed) = (dump(&crashed.image), dump(&crashed.replayed()));
    // What the bitmaps on the disk do not know would be missed.
    assert!(raw.freer_than(&replayed) > 100);
    let cycle = Cycle::of(&crashed.image, dir);
    let part = cycle.only();
    part.assert_mapped(make.kind);
    assert!(part.reason().contains("journal"), "{}", part.reason());
    // In use by the old bitmaps, the new ones, or both.
    let both = raw.free_in_ranges() - raw.freer_than(&replayed);
    assert_eq!(part.free(), both * raw.block);
    assert_kept(&crashed.image, &cycle.restored, &replayed);
    assert_kept(&crashed.image, &cycle.restored, &raw);
    mounted(&cycle.restored, dir, |root| crashed.has_files(root));
    assert_sound(&cycle.restored);
}

macro_rules! survive_crash {
    ($($name:ident: $kind:literal, $mib:literal, $options:literal;)*) => {$(
        #[test]
        fn $name() {
            if privileged_with_fs("ext4", stringify!($name)) {
                survives_crash(&Make::new($kind, $mib * MIB, $options));
            }
        }
    )*};
}

survive_crash! {
    crash_of_ext3: "ext3", 64, "-t ext3 -b 1024 -J size=4";
    crash_of_ext4: "ext4", 64, "-t ext4 -b 4096 -J size=16";
    crash_of_ext4_without_checksums: "ext4", 64, "-t ext4 -b 1024 -J size=8 -O ^metadata_csum";
    crash_of_ext4_with_clusters: "ext4", 96, "-t ext4 -b 1024 -C 4096 -O bigalloc -J size=4";
}

#[test]
fn crash_of_ext4_with_data_in_the_journal() {
    if privileged_with_fs("ext4", "crash with data=journal") {
        survives_crash(&Make {
            default_mode: Some("journal_data"),
            ..Make::new("ext4", 64 * MIB, "-t ext4 -b 1024 -J size=24")
        });
    }
}

/// Fails unless all of a crashed file system is taken because of `why`.
#[track_caller]
fn crash_is_doubted(make: &Make, why: &str) {
    let crashed = crashed(make);
    Part(&plan(&crashed.image, crashed.dir.path())).assert_whole(make.kind, why);
}

#[test]
fn crashes_that_no_replay_here_mends() {
    if !privileged_with_fs("ext4", "ext crashes") {
        return;
    }
    crash_is_doubted(
        &Make::new("ext2", 48 * MIB, "-t ext2 -b 1024"),
        "not unmounted cleanly",
    );
    crash_is_doubted(
        &Make::new("ext4", 48 * MIB, "-t ext4 -O ^has_journal"),
        "not unmounted cleanly",
    );
    crash_is_doubted(
        &Make::new("ext4", 48 * MIB, "-t ext4 -O mmp"),
        "is mounted on a computer",
    );
    crash_is_doubted(
        &Make::new("ext4", 48 * MIB, "-t ext4 -O fast_commit"),
        "fast commits",
    );
}

#[test]
fn damage_is_doubted() {
    if !privileged_with_fs("ext4", "ext damage") {
        return;
    }
    let crashed = crashed(&Make::new("ext4", 64 * MIB, "-t ext4 -b 1024 -J size=4"));
    let dir = crashed.dir.path();
    let damaged = |of: &Path, how: &str, why: &str| {
        let image = dir.join("damaged");
        fs::copy(of, &image).unwrap();
        // Checksums of what only a replay makes whole are none of its business.
        tools::run("debugfs", &["-n", "-w", "-R", how, text(&image)]);
        Part(&plan(&image, dir)).assert_whole("ext4", why);
    };
    // Only the journal itself tells that it was not replayed.
    damaged(
        &crashed.image,
        "feature -needs_recovery",
        "although its superblock says",
    );
    let clean = crashed.replayed();
    damaged(&clean, "ssv state 3", "marked as having errors");
    damaged(
        &clean,
        "ssv first_data_block 0",
        "its first group cannot begin at block 0",
    );
    damaged(&clean, "ssv error_count 2", "recorded 2 errors");
    damaged(&clean, "ssv free_blocks_count 7", "counts 7 free blocks");
    let flipped = |at: u64, why: &str| {
        let image = dir.join("flipped");
        fs::copy(&clean, &image).unwrap();
        bytes::flip(&image, at);
        Part(&plan(&image, dir)).assert_whole("ext4", why);
    };
    let said = tools::run("dumpe2fs", &[&clean]);
    let bitmap = said
        .lines()
        .find_map(|l| l.split("Block bitmap at ").nth(1));
    let bitmap: u64 = bitmap.unwrap().split(' ').next().unwrap().parse().unwrap();
    flipped(1024 + 0x28C, "checksum of its superblock");
    flipped(2048 + 64 * 3 + 5, "checksum of its group descriptor 3");
    flipped(
        bitmap * 1024 + 900,
        "checksum of the block bitmap of its group 0",
    );
}

#[test]
fn a_journal_of_its_own_device() {
    if !privileged_with_fs("ext4", "ext with an external journal") {
        return;
    }
    let dir = scratch();
    let (log, image) = (dir.path().join("log"), dir.path().join("image"));
    bytes::create_sparse(&log, 8 * MIB);
    tools::run(
        "mke2fs",
        &["-q", "-F", "-b", "1024", "-O", "journal_dev", text(&log)],
    );
    let device = Loop::new(&log);
    bytes::create_sparse(&image, 48 * MIB);
    let journal = format!("device={}", text(device.path()));
    let args = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "1024",
        "-J",
        &journal,
        text(&image),
    ];
    tools::run("mke2fs", &args);
    let files = mounted(&image, dir.path(), |root| {
        aged::age(root, 6 * MIB, 2, POSIX);
        load(root);
        let copy = dir.path().join("crashed");
        fs::copy(&image, &copy).unwrap();
        Part(&plan(&copy, dir.path())).assert_whole("ext4", "on another disk");
        Manifest::of(root)
    });
    let free = dump(&image).free * 1024;
    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped("ext4");
    assert_eq!(cycle.only().free(), free);
    tools::run(
        "e2fsck",
        &["-f", "-n", "-j", text(device.path()), text(&cycle.restored)],
    );
    files.assert_same(&mounted(&cycle.restored, dir.path(), Manifest::of));
    let journal = plan(&log, dir.path());
    Part(&journal).assert_mapped("ext4 journal");
    assert_eq!(number(&journal, "used"), 8 * MIB);
}
