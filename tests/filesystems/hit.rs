//! What byte ranges hit, on real file systems: `fs::files_hit` against what the file system's own tools
//! say of the same blocks. Each of the format's tests brings the truth, and [`Truth::compare`] asks in
//! many ways that together look for every block more than once.

use crate::kit::bytes::{self, Stream};
use crate::kit::tools;
use diskstrata::base::{ByteLen, ByteOffset, Cancel, Extent, normalize};
use diskstrata::block::{CachePolicy, FileSource};
use diskstrata::fs::{FileHit, Hit, files_hit};
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

mod btrfs;
mod exfat;
mod ext;
mod fat;
mod lost;
mod marks;
mod ntfs;
mod xfs;

/// A file and where it lies.
#[derive(Debug, Default, Clone)]
pub(crate) struct Owner {
    /// From the root, sorted.
    pub(crate) paths: Vec<String>,
    pub(crate) directory: bool,
    /// In bytes of the partition.
    pub(crate) content: Vec<Range<u64>>,
}

impl Owner {
    fn bytes_in(&self, ranges: &[Range<u64>]) -> u64 {
        let common =
            |a: &Range<u64>, b: &Range<u64>| a.end.min(b.end).saturating_sub(a.start.max(b.start));
        let all = self.content.iter().flat_map(|own| {
            let first = ranges.partition_point(|r| r.end <= own.start);
            let rest = ranges[first..].iter().take_while(|r| r.start < own.end);
            rest.map(move |range| common(own, range))
        });
        all.sum()
    }
}

/// What holds what, as the file system's tools say.
pub(crate) struct Truth {
    pub(crate) kind: &'static str,
    /// Bytes of the unit that is given to files.
    pub(crate) unit: u64,
    pub(crate) owners: BTreeMap<u64, Owner>,
    /// What is free.
    pub(crate) free: Vec<Range<u64>>,
    /// How many bytes of that the file system has set aside for its own structures.
    pub(crate) set_aside: u64,
}

/// What `ranges` of `image` hit.
pub(crate) fn ask(image: &Path, ranges: &[Range<u64>]) -> Hit {
    let source = FileSource::open(image, "image", CachePolicy::Cached).unwrap();
    let extents: Vec<Extent> = ranges.iter().map(extent).collect();
    files_hit(&source, &extents, &Cancel::new()).unwrap()
}

fn extent(range: &Range<u64>) -> Extent {
    Extent {
        start: ByteOffset(range.start),
        len: ByteLen(range.end - range.start),
    }
}

fn total(extents: &[Extent]) -> u64 {
    extents.iter().map(|e| e.len.0).sum()
}

impl Truth {
    /// Asks for everything at once, for every block in one of 16 sets, for hundreds of runs together, and
    /// for single blocks of files.
    #[track_caller]
    pub(crate) fn compare(&self, image: &Path) {
        let len = bytes::length(image);
        let all = self.asked(image, std::slice::from_ref(&(0..len)));
        assert!(
            all.incomplete.is_none() && all.unknown.is_empty(),
            "{:?}",
            all.incomplete
        );
        self.compare_free(&all);
        let mut stream = Stream::new(0xF11E);
        let units = len / self.unit;
        let set: Vec<u64> = (0..units).map(|_| stream.below(16)).collect();
        for wanted in 0..16 {
            let of_set = (0..units).filter(|n| set[usize::try_from(*n).unwrap()] == wanted);
            let ranges: Vec<_> = of_set.map(|n| n * self.unit..(n + 1) * self.unit).collect();
            self.asked(image, &ranges);
        }
        for _ in 0..8 {
            let mut ranges: Vec<_> = (0..200)
                .map(|_| {
                    // Sectors, wherever they begin and end.
                    let start = stream.below(len / 512) * 512;
                    start..(start + 512 * (1 + stream.below(40))).min(len)
                })
                .collect();
            ranges.sort_by_key(|r| r.start);
            ranges.dedup_by(|b, a| b.start < a.end + 512);
            self.asked(image, &ranges);
        }
        let runs: Vec<_> = self.owners.values().flat_map(|o| &o.content).collect();
        for _ in 0..60 {
            let run = runs[usize::try_from(stream.below(runs.len() as u64)).unwrap()];
            let at = run.start + stream.below((run.end - run.start) / 512) * 512;
            self.asked(image, std::slice::from_ref(&(at..at + 512)));
        }
    }

    /// Everything that is free is, and nothing else that is not.
    #[track_caller]
    fn compare_free(&self, all: &Hit) {
        let said = total(&all.free);
        let free: u64 = self.free.iter().map(|r| r.end - r.start).sum();
        let said_ranges: Vec<_> = all.free.iter().map(|e| e.start.0..e.end().0).collect();
        let listed = Owner {
            content: self.free.clone(),
            ..Owner::default()
        };
        let common = listed.bytes_in(&said_ranges);
        let free = free - self.set_aside;
        assert_eq!(common, free, "free blocks are given to files or metadata");
        // What no file has and is not free: the ends of clusters, padding between structures.
        assert!(
            said - common <= free / 20 + (1 << 20),
            "{said} is too much free space, not {free}"
        );
    }

    /// Asks, and compares the answer.
    #[track_caller]
    pub(crate) fn asked(&self, image: &Path, ranges: &[Range<u64>]) -> Hit {
        let hit = ask(image, ranges);
        assert_eq!(hit.kind, self.kind);
        assert_eq!(hit.incomplete, None);
        let expected: BTreeMap<u64, u64> = self
            .owners
            .iter()
            .map(|(number, owner)| (*number, owner.bytes_in(ranges)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        let found: BTreeMap<u64, &FileHit> = hit.files.iter().map(|f| (f.number, f)).collect();
        assert_eq!(found.len(), hit.files.len(), "one file is listed twice");
        if hit.more == 0 {
            for (number, bytes) in &expected {
                let paths = &self.owners[number].paths;
                let file = found.get(number);
                let file = file.unwrap_or_else(|| panic!("{paths:?} is not said to be hit"));
                assert_eq!(file.bytes, *bytes, "{paths:?}");
            }
        } else {
            let all = hit.files.len() as u64 + hit.more;
            assert!(
                all >= expected.len() as u64,
                "{all} files, not {}",
                expected.len()
            );
        }
        for (number, file) in found {
            // What the file system keeps for itself in a folder of its own.
            if file.path.starts_with("/$Extend/") {
                continue;
            }
            let owner = self.owners.get(&number);
            let owner = owner.unwrap_or_else(|| panic!("{file:?} does not exist"));
            let mut paths = vec![file.path.clone()];
            paths.extend(file.others.clone());
            assert_eq!(paths, owner.paths, "{file:?}");
            assert_eq!(file.directory, owner.directory, "{file:?}");
            let bytes = expected.get(&number).copied().unwrap_or_default();
            assert_eq!(file.bytes, bytes, "{file:?}");
            assert!(bytes > 0 || file.own_metadata, "{file:?}");
        }
        self.compare_parts(&hit, ranges);
        hit
    }

    /// Every byte is somebody's, and only of the ranges.
    #[track_caller]
    fn compare_parts(&self, hit: &Hit, ranges: &[Range<u64>]) {
        let asked: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        let mut content: Vec<Extent> = Vec::new();
        content.extend(self.owners.values().flat_map(|o| &o.content).map(extent));
        let content: Vec<_> = normalize(content)
            .iter()
            .map(|e| e.start.0..e.end().0)
            .collect();
        let files = Owner {
            content,
            ..Owner::default()
        }
        .bytes_in(ranges);
        for part in [&hit.metadata, &hit.free, &hit.unknown] {
            // Neighbours are one range.
            let asked = normalize(ranges.iter().map(extent).collect());
            let inside = |e: &Extent| {
                let first = asked.partition_point(|range| range.end() <= e.start);
                asked.get(first).is_some_and(|range| range.contains(*e))
            };
            assert!(part.iter().all(inside), "more than was asked for");
            assert!(part.windows(2).all(|two| two[0].end() < two[1].start));
        }
        let parts = total(&hit.metadata) + total(&hit.free) + total(&hit.unknown);
        assert_eq!(parts + files, asked, "not every byte is accounted for once");
    }
}

/// All files below `root`, by inode number.
pub(crate) fn owners(root: &Path) -> BTreeMap<u64, Owner> {
    let mut owners: BTreeMap<u64, Owner> = BTreeMap::new();
    let mut pending: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let below = path.strip_prefix(root).unwrap().to_str().unwrap();
        let owner = owners.entry(metadata.ino()).or_default();
        owner.paths.push(format!("/{below}"));
        owner.paths.sort();
        owner.directory = metadata.is_dir();
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    owners
}

/// Fills in where the files below `root` lie, as the kernel says (`FIEMAP`). Directories too if it tells.
pub(crate) fn ask_kernel(root: &Path, owners: &mut BTreeMap<u64, Owner>, directories: bool) {
    let wanted = |o: &Owner| directories || !o.directory;
    let mut of_path = BTreeMap::new();
    for (number, owner) in owners.iter().filter(|(_, owner)| wanted(owner)) {
        let path = root.join(owner.paths[0].trim_start_matches('/'));
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_file() || kind.is_dir() {
            of_path.insert(path.to_str().unwrap().to_owned(), *number);
        }
    }
    let paths: Vec<&String> = of_path.keys().collect();
    for some in paths.chunks(200) {
        let mut args = vec!["-v", "-b512"];
        args.extend(some.iter().map(|p| p.as_str()));
        let said = tools::run("filefrag", &args);
        let mut number = None;
        for line in said.lines() {
            if let Some(rest) = line.strip_prefix("File size of ") {
                let (path, _) = rest.rsplit_once(" is ").unwrap();
                number = Some(of_path[path]);
                continue;
            }
            let fields: Vec<&str> = line.split(':').map(str::trim).collect();
            let [extent, _, place, _, rest @ ..] = fields.as_slice() else {
                continue;
            };
            let inside = rest
                .iter()
                .any(|r| r.contains("inline") || r.contains("unknown"));
            if extent.parse::<u64>().is_err() || inside {
                continue;
            }
            let (first, last) = place.split_once("..").unwrap();
            let sector = |text: &str| text.trim().parse::<u64>().unwrap() * 512;
            let owner = owners.get_mut(&number.unwrap()).unwrap();
            owner.content.push(sector(first)..sector(last) + 512);
        }
    }
    for owner in owners.values_mut() {
        owner.content.sort_by_key(|r| r.start);
    }
}
