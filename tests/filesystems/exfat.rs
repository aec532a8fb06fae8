//! exFAT, filled by a driver in user space, since not every kernel has one.

use crate::aged::{self, PLAIN};
use crate::cycle::{Cycle, Part};
use crate::kit::bytes;
use crate::kit::privileged::{Loop, privileged};
use crate::kit::store::Store;
use crate::kit::{MIB, long, scratch, tools};
use crate::manifest::Manifest;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A volume and what `mkfs.exfat` is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    len: u64,
    pub(crate) sector: u64,
    content: u64,
    options: &'static str,
}

pub(crate) const fn case(len: u64, sector: u64, content: u64, options: &'static str) -> Case {
    Case {
        len,
        sector,
        content,
        options,
    }
}

/// Clusters from a sector to 32 MiB, heaps that begin at no multiple of a cluster, odd lengths.
const CASES: [Case; 4] = [
    case(64 * MIB, 512, 6 * MIB, "-L Label"),
    case(48 * MIB, 512, 6 * MIB, "-c 512"),
    case(100 * MIB + 512, 512, 6 * MIB, "-c 64K -b 512"),
    case(77_777 << 10, 4096, 6 * MIB, "-c 4096 -b 1M"),
];
const MORE_CASES: [Case; 4] = [
    case(100 * MIB, 512, 8 * MIB, "-c 32K -b 16K --pack-bitmap"),
    case(300 * MIB, 4096, 12 * MIB, "-c 128K"),
    case(200 * MIB, 512, 8 * MIB, "-c 1M -b 4K"),
    case(33 * MIB, 512, 4 * MIB, "-c 1024 -b 1024"),
];

pub(crate) fn make(case: Case, dir: &Path, name: &str) -> PathBuf {
    let image = dir.join(name);
    bytes::create_sparse(&image, case.len);
    let device = Loop::with_sector(&image, case.sector);
    let mut args: Vec<&str> = case.options.split_whitespace().collect();
    args.push(device.path().to_str().unwrap());
    tools::run("mkfs.exfat", &args);
    image
}

/// A volume mounted by `mount.exfat-fuse`, which takes devices only; unmounted when dropped.
pub(crate) struct Mounted {
    at: PathBuf,
    _device: Loop,
}

impl Mounted {
    pub(crate) fn new(image: &Path, at: &Path, sector: u64) -> Mounted {
        let device = Loop::with_sector(image, sector);
        std::fs::create_dir(at).unwrap();
        let args = [device.path().as_os_str(), at.as_os_str()];
        tools::run("mount.exfat-fuse", &args);
        Mounted {
            at: at.to_owned(),
            _device: device,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let output = tools::try_run("umount", &[&self.at]);
        assert!(
            output.status.success() || std::thread::panicking(),
            "umount {}: {output:?}",
            self.at.display()
        );
    }
}

/// What `dump.exfat` counts: bytes of free clusters, and bytes of one.
fn counted(image: &Path) -> (u64, u64) {
    let said = tools::run("dump.exfat", &[image]);
    let value = |name: &str| {
        let line = said.lines().find_map(|l| l.strip_prefix(name));
        let number = line.and_then(|l| l.trim().parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("{name} in {said}"))
    };
    let cluster = value("Cluster size:");
    (value("Free Clusters:") * cluster, cluster)
}

#[track_caller]
fn assert_sound(image: &Path) {
    let said = tools::run("fsck.exfat", &["-n", image.to_str().unwrap()]);
    assert!(said.contains(": clean."), "{said}");
}

fn plan(image: &Path, dir: &Path) -> Value {
    let name = image.file_name().unwrap().to_str().unwrap();
    let store = Store::new(dir, &format!("plan-of-{name}"));
    let backup = store.backup(image).args(["--json", "--dry-run"]);
    backup.run().expect(0).json()["plan"]["partitions"][0].clone()
}

fn round_trip(case: Case) {
    let dir = scratch();
    let image = make(case, dir.path(), "volume");
    let mounted = Mounted::new(&image, &dir.path().join("before"), case.sector);
    aged::age(&mounted.at, case.content, case.len, PLAIN);
    let before = Manifest::of(&mounted.at);
    drop(mounted);
    assert!(before.len() > 100, "{case:?}: {} files", before.len());
    assert_sound(&image);

    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped("exFAT");
    assert_eq!(cycle.only().free(), counted(&image).0, "{case:?}");

    assert_sound(&cycle.restored);
    let mounted = Mounted::new(&cycle.restored, &dir.path().join("after"), case.sector);
    before.assert_same(&Manifest::of(&mounted.at));
}

#[test]
fn every_file_comes_back() {
    if privileged("files on exFAT") {
        CASES.into_iter().for_each(round_trip);
    }
}

#[test]
fn every_file_comes_back_from_rarer_volumes() {
    if long() && privileged("files on rarer exFAT volumes") {
        MORE_CASES.into_iter().for_each(round_trip);
    }
}

/// Only the map: a restore would fill a disk.
#[test]
fn clusters_of_32_mib_are_told_apart() {
    if !privileged("exFAT with clusters of 32 MiB") {
        return;
    }
    let dir = scratch();
    let image = make(case(2000 * MIB, 512, 0, "-c 32M"), dir.path(), "large");
    let plan = plan(&image, dir.path());
    Part(&plan).assert_mapped("exFAT");
    let (free, cluster) = counted(&image);
    assert_eq!((Part(&plan).free(), cluster), (free, 32 * MIB));
}

/// The checksum of a boot region, over its first eleven sectors of 512 bytes.
fn checksum(region: &[u8]) -> u32 {
    let counted = region.iter().enumerate();
    let counted = counted.filter(|(at, _)| ![106, 107, 112].contains(at));
    counted.fold(0u32, |sum, (_, byte)| {
        sum.rotate_right(1).wrapping_add(u32::from(*byte))
    })
}

/// A volume with a file, a directory and a file in pieces, and copies of it with damage.
struct Sample {
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Sample {
    fn new() -> Sample {
        let dir = scratch();
        let image = make(case(16 * MIB, 512, 0, ""), dir.path(), "sample");
        let mounted = Mounted::new(&image, &dir.path().join("mnt"), 512);
        aged::age(&mounted.at, MIB, 5, PLAIN);
        drop(mounted);
        Sample { dir, image }
    }

    /// The plan for a copy of which `damage` changed the bytes; with `sealed`, its boot regions
    /// have the right checksum again.
    fn planned(&self, name: &str, sealed: bool, damage: impl Fn(&mut [u8])) -> Value {
        let mut all = bytes::read(&self.image, 0, bytes::length(&self.image));
        damage(&mut all);
        if sealed {
            for region in [0, 12 * 512] {
                let sum = checksum(&all[region..region + 11 * 512]).to_le_bytes();
                all[region + 11 * 512..region + 12 * 512].copy_from_slice(&sum.repeat(128));
            }
        }
        let copy = self.dir.path().join(name);
        std::fs::write(&copy, all).unwrap();
        plan(&copy, self.dir.path())
    }
}

/// A number of the boot sector.
fn le32(all: &[u8], at: usize) -> usize {
    let bytes = all[at..at + 4].try_into().unwrap();
    u32::from_le_bytes(bytes).try_into().unwrap()
}

/// The first byte of a cluster.
fn cluster_at(all: &[u8], cluster: usize) -> usize {
    le32(all, 88) * 512 + ((cluster - 2) << all[109]) * 512
}

/// The first entry of a kind in the root directory.
fn root_entry(all: &[u8], kind: u8) -> usize {
    let root = cluster_at(all, le32(all, 96));
    let mut entries = (root..root + 4096).step_by(32);
    entries.find(|at| all[*at] == kind).unwrap()
}

#[test]
fn what_does_not_add_up_is_taken_whole() {
    if !privileged("damaged exFAT") {
        return;
    }
    let sample = Sample::new();
    Part(&sample.planned("plain", true, |_| ())).assert_mapped("exFAT");
    let whole = |name: &str, sealed: bool, why: &str, damage: &dyn Fn(&mut [u8])| {
        Part(&sample.planned(name, sealed, damage)).assert_whole("exFAT", why);
    };
    let flags = |flag: u8| move |all: &mut [u8]| all[106] = flag;
    whole("dirty", false, "marked as in use", &flags(2));
    whole("failing", false, "medium that fails", &flags(4));
    whole("not-put-away", false, "not put away", &flags(8));
    whole("unknown-flag", false, "unknown flags 0x10", &flags(16));
    whole("texfat", true, "2 file allocation tables", &|all| {
        for region in [0, 12 * 512] {
            all[region + 110] = 2;
        }
    });
    whole("copy", true, "the copy behind it", &|all| all[100] ^= 1);
    whole(
        "checksum",
        false,
        "the checksum of its boot region",
        &|all| {
            all[512] ^= 1;
        },
    );
    whole("up-case", false, "up-case table has the checksum", &|all| {
        let entry = root_entry(all, 0x82);
        let at = cluster_at(all, le32(all, entry + 20));
        all[at + 40] ^= 1;
    });
    whole(
        "set",
        false,
        "a file's directory entries have the checksum",
        &|all| {
            let entry = root_entry(all, 0x85);
            all[entry + 8] ^= 1;
        },
    );
    whole("lost", false, "which is part of", &|all| {
        // The last cluster in use is a file's.
        let bitmap = cluster_at(all, le32(all, root_entry(all, 0x81) + 20));
        let len = le32(all, 92) / 8;
        let last = (bitmap..bitmap + len)
            .rev()
            .find(|at| all[*at] != 0)
            .unwrap();
        all[last] = 0;
    });
    whole("chain", false, "file allocation table", &|all| {
        let root = le32(all, 96);
        let table = le32(all, 80) * 512;
        all[table + root * 4..table + root * 4 + 4].fill(0);
    });
}
