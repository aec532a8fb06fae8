//! FAT, filled with mtools, since not every kernel can mount it.

use crate::cycle::{Cycle, Part};
use crate::kit::bytes::{self, Stream};
use crate::kit::store::Store;
use crate::kit::{KIB, MIB, long, scratch, tools};
use crate::manifest::Manifest;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A volume and what `mkfs.fat` is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) kind: &'static str,
    pub(crate) len: u64,
    options: &'static str,
}

pub(crate) const fn case(kind: &'static str, len: u64, options: &'static str) -> Case {
    Case { kind, len, options }
}

/// Widths, sectors, clusters, one table and two, odd lengths and reserved sectors.
const CASES: [Case; 8] = [
    case("FAT12", 1440 * KIB, "-F 12"),
    case("FAT12", 8 * MIB, "-F 12 -s 8 -n LABEL"),
    case("FAT12", 7777 * KIB, "-F 12 -f 1 -R 7"),
    case("FAT16", 20 * MIB, "-F 16"),
    case("FAT16", 60 * MIB, "-F 16 -S 4096 -s 1 -f 1"),
    case("FAT32", 64 * MIB, "-F 32 -s 1"),
    case("FAT32", 300 * MIB, "-F 32 -S 4096 -f 1"),
    case(
        "FAT32",
        100 * MIB + 7 * KIB,
        "-F 32 -s 2 -a -b 12 -R 40 -M 0xF0",
    ),
];
/// More of the same.
const MORE_CASES: [Case; 6] = [
    case("FAT12", 360 * KIB, "-F 12 -r 112 -s 2"),
    case("FAT16", 33 * MIB + 512, "-F 16 -a -R 5 -r 208"),
    case("FAT16", 130 * MIB, "-F 16 -s 64"),
    case("FAT16", 60 * MIB, "-F 16 -S 2048 -s 2"),
    case("FAT32", 300 * MIB, "-F 32 -s 8"),
    case("FAT32", 260 * MIB, "-F 32 -S 1024 -s 1 -f 2 -b 3"),
];

pub(crate) fn make(case: Case, dir: &Path, name: &str) -> PathBuf {
    let image = dir.join(name);
    bytes::create_sparse(&image, case.len);
    let mut args = vec!["--invariant"];
    args.extend(case.options.split(' '));
    args.push(image.to_str().unwrap());
    tools::run("mkfs.fat", &args);
    image
}

/// Fills the volume to about a third: files in directories, every third deleted again, and one that
/// lands in the holes.
pub(crate) fn fill(image: &Path, dir: &Path, len: u64) {
    let mut stream = Stream::new(len);
    let content = dir.join("content");
    let mut left = (len / 4).min(3 * MIB);
    let mut names = Vec::new();
    while left > 0 && names.len() < 90 {
        let folder = format!("folder {}", names.len() % 3);
        fs::create_dir_all(content.join(&folder)).unwrap();
        let name = format!("{folder}/a file with a long name {}", names.len());
        let len = ((512 << stream.below(9)) + stream.below(4096)).min(left);
        fs::write(content.join(&name), stream.bytes(len)).unwrap();
        names.push(name);
        left -= len;
    }
    fs::write(content.join("fragmented"), stream.bytes(len / 32)).unwrap();
    let image = image.to_str().unwrap();
    for number in 0..3 {
        let folder = content.join(format!("folder {number}"));
        tools::run(
            "mcopy",
            &["-i", image, "-s", folder.to_str().unwrap(), "::/"],
        );
    }
    let gone: Vec<String> = names.iter().step_by(3).map(|n| format!("::/{n}")).collect();
    let mut args = vec!["-i", image];
    args.extend(gone.iter().map(String::as_str));
    tools::run("mdel", &args);
    let fragmented = content.join("fragmented");
    tools::run("mcopy", &["-i", image, fragmented.to_str().unwrap(), "::/"]);
    tools::run("mmd", &["-i", image, "::/empty"]);
}

/// All files of the volume, read with mtools.
fn files(image: &Path, to: &Path) -> Manifest {
    fs::create_dir(to).unwrap();
    let (image, to_text) = (image.to_str().unwrap(), to.to_str().unwrap());
    tools::run("mcopy", &["-i", image, "-s", "-n", "::/", to_text]);
    Manifest::of(to)
}

/// What `fsck.fat` counts: clusters in use, all clusters, bytes of one.
fn counted(image: &Path) -> (u64, u64, u64) {
    let args = ["-n", "-v", image.to_str().unwrap()];
    let output = tools::try_run("fsck.fat", &args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let per_cluster = said
        .lines()
        .find_map(|line| number(line.strip_suffix(" bytes per cluster")?));
    let counts = said.lines().last().and_then(|line| {
        let (used, all) = line
            .strip_suffix(" clusters")?
            .rsplit(' ')
            .next()?
            .split_once('/')?;
        Some((number(used)?, number(all)?))
    });
    let (used, all) = counts.unwrap_or_else(|| panic!("{said}"));
    (used, all, per_cluster.unwrap_or_else(|| panic!("{said}")))
}

#[track_caller]
fn assert_sound(image: &Path) {
    tools::run("fsck.fat", &["-n", image.to_str().unwrap()]);
}

/// What a backup would take.
fn plan(image: &Path, dir: &Path) -> Value {
    let name = image.file_name().unwrap().to_str().unwrap();
    let store = Store::new(dir, &format!("plan-of-{name}"));
    let backup = store.backup(image).args(["--json", "--dry-run"]);
    backup.run().expect(0).json()["plan"]["partitions"][0].clone()
}

fn round_trip(case: Case) {
    let dir = scratch();
    let image = make(case, dir.path(), "volume");
    fill(&image, dir.path(), case.len);
    let before = files(&image, &dir.path().join("before"));
    // Few fit on a floppy disk.
    assert!(before.len() > 5, "{case:?}: {} files", before.len());

    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped(case.kind);
    let (used, all, per_cluster) = counted(&image);
    assert_eq!(cycle.only().free(), (all - used) * per_cluster, "{case:?}");
    assert!(used > 0 && used < all, "{case:?}: {used} of {all}");

    assert_sound(&cycle.restored);
    before.assert_same(&files(&cycle.restored, &dir.path().join("after")));
}

#[test]
fn every_file_comes_back() {
    CASES.into_iter().for_each(round_trip);
}

#[test]
fn every_file_comes_back_from_rarer_volumes() {
    if long() {
        MORE_CASES.into_iter().for_each(round_trip);
    }
}

/// mtools takes FAT32 with few clusters for FAT16; Linux and Windows do not.
#[test]
fn fat32_with_few_clusters_is_fat32() {
    let dir = scratch();
    for (options, len) in [
        ("-F 32 -s 8", 20 * MIB),
        ("-F 32 -s 128 -b 7 -R 40", 300 * MIB),
    ] {
        let image = make(case("FAT32", len, options), dir.path(), &len.to_string());
        let cycle = Cycle::of(&image, dir.path());
        cycle.only().assert_mapped("FAT32");
        let (used, all, per_cluster) = counted(&image);
        assert!(used == 1 && all < 65_525, "{options}: {used} of {all}");
        assert_eq!(cycle.only().free(), (all - used) * per_cluster, "{options}");
        assert_sound(&cycle.restored);
    }
}

/// A filled FAT32 volume, where its tables are, and what is planned for it after `damage`.
struct Sample {
    dir: tempfile::TempDir,
    image: PathBuf,
    tables: [u64; 2],
}

impl Sample {
    fn new() -> Sample {
        let dir = scratch();
        let len = 64 * MIB;
        let image = make(case("FAT32", len, "-F 32 -s 1"), dir.path(), "sample");
        fill(&image, dir.path(), len);
        let boot = bytes::read(&image, 0, 512);
        let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
        let table = u32::from_le_bytes([boot[36], boot[37], boot[38], boot[39]]);
        let first = reserved * 512;
        let tables = [first, first + u64::from(table) * 512];
        Sample { dir, image, tables }
    }

    /// The plan for a copy to which `patches` were applied.
    fn planned(&self, name: &str, patches: &[(u64, &[u8])]) -> Value {
        let copy = self.dir.path().join(name);
        fs::copy(&self.image, &copy).unwrap();
        for (at, patch) in patches {
            bytes::write(&copy, *at, patch);
        }
        plan(&copy, self.dir.path())
    }

    fn entry(&self, table: usize, cluster: u64) -> u64 {
        self.tables[table] + cluster * 4
    }
}

#[test]
fn a_volume_that_is_in_use_or_torn_is_taken_whole() {
    let sample = Sample::new();
    let whole = |name: &str, patches: &[(u64, &[u8])], why: &str| {
        Part(&sample.planned(name, patches)).assert_whole("FAT32", why);
    };
    whole("mounted", &[(65, &[1])], "marked as in use");
    let not_clean = 0x07FF_FFFFu32.to_le_bytes();
    let patches = [0, 1].map(|n| (sample.entry(n, 1), not_clean.as_slice()));
    whole("not-clean", &patches, "marked as in use");
    let failed = 0x0BFF_FFFFu32.to_le_bytes();
    let patches = [0, 1].map(|n| (sample.entry(n, 1), failed.as_slice()));
    whole("failed", &patches, "has failed before");
    let end = [0xFF; 40 * 4];
    let patches = [(sample.entry(1, 100_000), end.as_slice())];
    whole("tables-differ", &patches, "differ in more than 8 entries");
    let astray = 0x0123_4567u32.to_le_bytes();
    let patches = [0, 1].map(|n| (sample.entry(n, 100_000), astray.as_slice()));
    whole("astray", &patches, "which does not exist");
}

#[test]
fn what_is_only_a_hint_changes_nothing_and_bad_clusters_are_kept() {
    let sample = Sample::new();
    let free = |plan: &Value| {
        Part(plan).assert_mapped("FAT32");
        Part(plan).free()
    };
    let plain = free(&sample.planned("plain", &[]));
    let wrong = [(512 + 488, [123, 0, 0, 0, 9, 9, 0, 0].as_slice())];
    assert_eq!(free(&sample.planned("hint", &wrong)), plain);
    let bad = [0xF7, 0xFF, 0xFF, 0x0F].repeat(3);
    let patches = [0, 1].map(|n| (sample.entry(n, 100_000), bad.as_slice()));
    assert_eq!(free(&sample.planned("bad", &patches)), plain - 3 * 512);
    let end = [0xFF; 2 * 4];
    let patches = [(sample.entry(1, 100_000), end.as_slice())];
    assert_eq!(
        free(&sample.planned("few-differ", &patches)),
        plain - 2 * 512
    );
}
