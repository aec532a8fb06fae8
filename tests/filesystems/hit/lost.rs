//! Structures that are lost, one block after another, as an image of a failing disk has it: the block is
//! asked for, and holds the pattern of what could not be read. Whatever it was, nothing panics, no file
//! is given a wrong name or too many bytes, nothing of a file is called free, and what is not known any
//! more has a reason.

use super::marks::{self, FILES, Marks};
use super::{Owner, ask, extent};
use crate::kit::bytes;
use crate::kit::privileged::{Loop, Mount, privileged, privileged_with_fs};
use crate::kit::{KIB, MIB, long, scratch, tools};
use crate::{exfat, fat, lvm, md, ntfs};
use diskstrata::base::{ByteOffset, Extent, normalize, outside};
use diskstrata::block::fill_unreadable;
use diskstrata::fs::Hit;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// An image, and the files that are in it.
pub(crate) struct Image<'a> {
    pub(crate) path: &'a Path,
    pub(crate) content: BTreeMap<String, Owner>,
    /// The volume inside it that has them.
    pub(crate) volume: Option<&'a str>,
    /// Bytes that are lost at once.
    pub(crate) unit: u64,
}

/// What came of many losses.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    cases: usize,
    /// How often not all was known.
    incomplete: usize,
    /// How many files were named with all their bytes.
    right: usize,
    reasons: BTreeSet<String>,
}

impl Image<'_> {
    /// Loses blocks of structures and of directories, and judges each answer.
    #[track_caller]
    pub(crate) fn lose_many(&self, needed: &[&str]) {
        let len = bytes::length(self.path);
        let whole = ask(self.path, std::slice::from_ref(&(0..len)));
        assert_eq!((&whole.incomplete, whole.more), (&None, 0));
        let known: BTreeSet<&str> = whole.files.iter().map(|f| f.path.as_str()).collect();
        let mut counts = Counts::default();
        for unit in self.structures(&whole, len) {
            self.lose(unit, &known, &mut counts);
        }
        println!("{counts:#?}");
        assert!(counts.cases > 12 && counts.incomplete > 2, "{counts:?}");
        // The others stay right; of the smallest file systems one block may hold the names of all.
        assert!(counts.right * 2 >= counts.cases * FILES, "{counts:?}");
        for text in needed {
            let told = counts.reasons.iter().any(|reason| reason.contains(text));
            assert!(told, "nothing says {text:?}: {counts:?}");
        }
    }

    fn marked(&self) -> Vec<Extent> {
        let all = self.content.values().flat_map(|owner| &owner.content);
        normalize(all.map(extent).collect())
    }

    /// Blocks that are neither free nor content of the marked files, and hold something; some of them.
    fn structures(&self, whole: &Hit, len: u64) -> Vec<Range<u64>> {
        let others = normalize([self.marked(), whole.free.clone()].concat());
        let structures = outside(extent(&(0..len)), &others);
        let mut units = Vec::new();
        for part in structures {
            let end = part.end().0;
            let starts = (part.start.0..end).step_by(usize::try_from(self.unit).unwrap());
            units.extend(starts.map(|at| at..end.min(at + self.unit)));
        }
        units.retain(|unit| {
            let bytes = bytes::read(self.path, unit.start, unit.end - unit.start);
            bytes.iter().any(|byte| *byte != bytes[0])
        });
        let most = if long() { units.len() } else { 100 };
        let step = units.len().div_ceil(most).max(1);
        // The first ones are what all the others hang on; what is no metadata is of directories.
        let is_metadata = |unit: &Range<u64>| {
            let mut all = whole.metadata.iter();
            all.any(|part| part.intersect(extent(unit)).is_some())
        };
        let some = units.into_iter().enumerate();
        let some = some.filter(|(n, unit)| *n < 8 || n % step == 0 || !is_metadata(unit));
        some.map(|(_, unit)| unit).collect()
    }

    /// Loses `unit` for one question.
    #[track_caller]
    fn lose(&self, unit: Range<u64>, known: &BTreeSet<&str>, counts: &mut Counts) {
        let kept = bytes::read(self.path, unit.start, unit.end - unit.start);
        let mut lost = kept.clone();
        fill_unreadable(&mut lost, ByteOffset(unit.start));
        bytes::write(self.path, unit.start, &lost);
        // What is lost is a range of its own.
        let around = extent(&(unit.start.saturating_sub(512)..unit.end + 512));
        let marked = self.marked();
        let apart = marked.iter().flat_map(|part| outside(*part, &[around]));
        let asked = normalize(apart.chain([extent(&unit)]).collect());
        let asked: Vec<_> = asked.iter().map(|e| e.start.0..e.end().0).collect();
        let hit = ask(self.path, &asked);
        bytes::write(self.path, unit.start, &kept);
        let mut right = 0;
        for file in &hit.files {
            let Some(owner) = self.content.get(&file.path) else {
                // FAT has a second, short name where the long one is lost.
                let part = file.path.contains(['<', '~']) && hit.incomplete.is_some();
                let known = known.contains(file.path.as_str()) || part;
                assert!(known, "{unit:?}: {file:?} does not exist");
                continue;
            };
            assert_eq!(file.volume.as_deref(), self.volume);
            let all = owner.bytes_in(&asked);
            assert!(file.bytes <= all && !file.directory, "{unit:?}: {file:?}");
            right += usize::from(file.bytes == all);
        }
        let free = |e: &Extent| hit.free.iter().any(|free| free.intersect(*e).is_some());
        assert!(
            !asked.iter().map(extent).any(|e| free(&e)),
            "{unit:?}: {hit:?}"
        );
        match &hit.incomplete {
            None => assert_eq!(right, FILES, "{unit:?}: {hit:?}"),
            Some(why) => {
                counts.incomplete += 1;
                counts.reasons.insert(why.clone());
            }
        }
        counts.cases += 1;
        counts.right += right;
    }
}

/// Makes a file system on `device` with `mkfs`, mounts it, and fills it.
fn filled(device: &Loop, mkfs: &str, options: &str) -> Marks {
    let mut args: Vec<&str> = options.split_whitespace().collect();
    args.push(device.path().to_str().unwrap());
    tools::run(mkfs, &args);
    let dir = scratch();
    let mount = Mount::new(device.path(), &dir.path().join("mounted"));
    marks::fill(mount.path(), "Größe 磁盘")
}

fn linux(name: &str, len: u64, mkfs: &str, options: &str, unit: u64, needed: &[&str]) {
    if privileged_with_fs(name, "structures that are lost") {
        let dir = scratch();
        let path = dir.path().join("image");
        bytes::create_sparse(&path, len);
        let marks = filled(&Loop::new(&path), mkfs, options);
        let image = Image {
            content: marks.find(&path),
            path: &path,
            volume: None,
            unit,
        };
        image.lose_many(needed);
    }
}

#[test]
fn lost_of_ext4() {
    let needed = [
        "inodes cannot be read",
        "names are missing",
        "group descriptors",
    ];
    linux("ext4", 32 * MIB, "mkfs.ext4", "-q -b 1024", KIB, &needed);
}

#[test]
fn lost_of_ext2() {
    let needed = ["inodes cannot be read", "names are missing"];
    linux(
        "ext4",
        16 * MIB,
        "mkfs.ext2",
        "-q -b 1024 -I 128",
        KIB,
        &needed,
    );
}

#[test]
fn lost_of_xfs() {
    let needed = ["inodes cannot be read", "names are missing"];
    linux("xfs", 320 * MIB, "mkfs.xfs", "-q", 4096, &needed);
}

#[test]
fn lost_of_btrfs() {
    linux(
        "btrfs",
        128 * MIB,
        "mkfs.btrfs",
        "-q -m single",
        4096,
        &["has no good copy"],
    );
}

#[test]
fn lost_of_ntfs() {
    if privileged_with_fs("fuse", "structures of NTFS that are lost") {
        let dir = scratch();
        let path = ntfs::volume(dir.path(), 32 * MIB, 512, &["-c", "4096"]);
        let marks = ntfs::mounted(&path, |root| marks::fill(root, "Größe 磁盘"));
        let image = Image {
            content: marks.find(&path),
            path: &path,
            volume: None,
            unit: KIB,
        };
        image.lose_many(&["records of its $MFT"]);
    }
}

#[test]
fn lost_of_exfat() {
    if privileged("structures of exFAT that are lost") {
        let dir = scratch();
        let case = exfat::case(32 * MIB, 512, 0, "-c 512");
        let path = exfat::make(case, dir.path(), "image");
        let marks = {
            let mounted = exfat::Mounted::new(&path, &dir.path().join("mounted"), case.sector);
            marks::fill(mounted.path(), "Größe 磁盘")
        };
        let image = Image {
            content: marks.find(&path),
            path: &path,
            volume: None,
            unit: 512,
        };
        image.lose_many(&["directories cannot be read", "chains of files are broken"]);
    }
}

#[test]
fn lost_of_fat() {
    for (kind, len, options, needed) in [
        (
            "FAT16",
            20 * MIB,
            "-F 16 -f 1",
            "chains of files are broken",
        ),
        (
            "FAT32",
            64 * MIB,
            "-F 32 -s 1",
            "directories cannot be read",
        ),
    ] {
        let dir = scratch();
        let path = fat::make(fat::case(kind, len, options), dir.path(), "image");
        let content = dir.path().join("content");
        std::fs::create_dir(&content).unwrap();
        let marks = marks::fill(&content, "two");
        for name in std::fs::read_dir(&content).unwrap() {
            let from = name.unwrap().path();
            let image = path.to_str().unwrap();
            tools::run("mcopy", &["-i", image, "-s", from.to_str().unwrap(), "::/"]);
        }
        let image = Image {
            content: marks.find(&path),
            path: &path,
            volume: None,
            unit: 512,
        };
        image.lose_many(&[needed]);
    }
}

#[test]
fn lost_in_a_logical_volume() {
    if privileged_with_fs(
        "ext4",
        "lost structures in a logical volume of two segments",
    ) {
        let dir = scratch();
        let (path, inner) = (dir.path().join("pv"), dir.path().join("inner"));
        bytes::create_sparse(&path, 60 * MIB);
        let disk = lvm::Disk::new(&path);
        disk.make_group(&[]);
        disk.make_volume("root", 3);
        disk.make_volume("raw", 2);
        disk.lvm("lvextend", &["-l", "+3", "vg0/root"]);
        let places = disk.places("root");
        assert_eq!(places.len(), 2);
        disk.lvm("lvremove", &["-y", "vg0/raw"]);
        bytes::create_sparse(&inner, places.iter().map(|(_, len)| len).sum());
        let marks = filled(&Loop::new(&inner), "mkfs.ext4", "-q -b 1024");
        disk.copy_in(&inner, &places);
        drop(disk);
        let image = Image {
            content: marks.find(&path),
            path: &path,
            volume: Some("vg0/root"),
            unit: KIB,
        };
        image.lose_many(&["vg0/root: inodes cannot be read"]);
    }
}

#[test]
fn lost_in_a_mirror() {
    if privileged_with_fs("ext4", "lost structures in a member of a mirror") {
        let dir = scratch();
        let path = md::member(&dir.path().join("member"), 1, 4096, md::DATA);
        let device = Loop::of_range(&path, md::DATA, md::SIZE);
        let marks = filled(&device, "mkfs.ext4", "-q -b 1024");
        drop(device);
        let image = Image {
            content: marks.find(&path),
            path: &path,
            volume: Some("box:mirror"),
            unit: KIB,
        };
        image.lose_many(&["box:mirror: inodes cannot be read"]);
    }
}
