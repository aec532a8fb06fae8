//! FAT: the truth is mtools' `mshowfat` for files and `mdir` for directories' names, and the table.

use super::{Owner, Truth};
use crate::fat::{Case, case, fill, make};
use crate::kit::bytes;
use crate::kit::{MIB, scratch, tools};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// Where clusters lie, from the boot sector.
struct Volume {
    cluster: u64,
    data: u64,
    clusters: u64,
    table: u64,
    bits: u64,
    /// The root directory of FAT12 and FAT16.
    root: Range<u64>,
    root_cluster: u64,
}

impl Volume {
    fn of(image: &Path, bits: u64) -> Volume {
        let boot = bytes::read(image, 0, 512);
        let le = |at: usize, len: usize| {
            boot[at..at + len]
                .iter()
                .rev()
                .fold(0u64, |n, b| n << 8 | u64::from(*b))
        };
        let sector = le(11, 2);
        let cluster = sector * le(13, 1);
        let table = le(14, 2) * sector;
        let short = le(22, 2);
        let len = if short == 0 { le(36, 4) } else { short } * sector;
        let root = table + le(16, 1) * len;
        let data = root + (le(17, 2) * 32).next_multiple_of(sector);
        let sectors = if le(19, 2) == 0 { le(32, 4) } else { le(19, 2) };
        Volume {
            cluster,
            data,
            clusters: (sectors * sector - data) / cluster,
            table,
            bits,
            root: root..data,
            root_cluster: le(44, 4),
        }
    }

    fn bytes(&self, clusters: Range<u64>) -> Range<u64> {
        let at = |n: u64| self.data + (n - 2) * self.cluster;
        at(clusters.start)..at(clusters.end)
    }

    /// What the table says of a cluster.
    fn entry(&self, image: &Path, cluster: u64) -> u64 {
        let bit = cluster * self.bits;
        let bytes = bytes::read(image, self.table + bit / 8, 4);
        let value = bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        (value >> (bit % 8)) & ((1 << self.bits.min(28)) - 1)
    }

    fn free(&self, image: &Path) -> Vec<Range<u64>> {
        let clusters = (2..self.clusters + 2).filter(|n| self.entry(image, *n) == 0);
        clusters.map(|n| self.bytes(n..n + 1)).collect()
    }

    /// The clusters of a file or a directory, with the first one's number, as `mshowfat` says.
    fn content(&self, image: &Path, path: &str) -> (u64, Vec<Range<u64>>) {
        let of = format!("::{path}");
        let said = tools::run("mshowfat", &["-i", image.to_str().unwrap(), &of]);
        let (mut first, mut content) = (0, Vec::new());
        let ranges = said
            .split('<')
            .skip(1)
            .filter_map(|part| part.split('>').next());
        for range in ranges {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
            if content.is_empty() {
                first = from;
            }
            content.push(self.bytes(from..to + 1));
        }
        content.sort_by_key(|r| r.start);
        (first, content)
    }
}

/// All that is in the volume, by first cluster, from a copy of it.
fn owners(image: &Path, volume: &Volume, copy: &Path) -> BTreeMap<u64, Owner> {
    fs::create_dir(copy).unwrap();
    let args = [
        "-i",
        image.to_str().unwrap(),
        "-s",
        "-n",
        "::/",
        copy.to_str().unwrap(),
    ];
    tools::run("mcopy", &args);
    let mut owners = BTreeMap::new();
    let mut root = Owner {
        paths: vec!["/".into()],
        directory: true,
        content: vec![volume.root.clone()],
    };
    if volume.bits == 32 {
        root.content = volume.content(image, "/").1;
        owners.insert(volume.root_cluster, root);
    } else {
        owners.insert(0, root);
    }
    for owner in super::owners(copy).into_values() {
        let path = owner.paths[0].clone();
        if path == "/" {
            continue;
        }
        let (first, content) = volume.content(image, &path);
        if !content.is_empty() {
            owners.insert(first, Owner { content, ..owner });
        }
    }
    owners
}

fn compares(case: Case, bits: u64) {
    let dir = scratch();
    let image = make(case, dir.path(), "image");
    fill(&image, dir.path(), case.len);
    let odd = dir.path().join("one with a ~ and {more}");
    fs::write(&odd, vec![3; 40_000]).unwrap();
    let args = [
        "-i",
        image.to_str().unwrap(),
        odd.to_str().unwrap(),
        "::/folder 0",
    ];
    tools::run("mcopy", &args);
    let volume = Volume::of(&image, bits);
    // Takes all the holes, but for some.
    let free = volume.free(&image).len() as u64;
    let rest = dir.path().join("rest");
    bytes::create_filled(&rest, (free - 20) * volume.cluster);
    let args = ["-i", image.to_str().unwrap(), rest.to_str().unwrap(), "::/"];
    tools::run("mcopy", &args);
    let owners = owners(&image, &volume, &dir.path().join("copy"));
    let pieces = owners.values().map(|o| o.content.len()).max();
    assert!(
        owners.len() > 20 && pieces > Some(1),
        "{} files, {pieces:?} pieces",
        owners.len()
    );
    let truth = Truth {
        set_aside: 0,
        kind: case.kind,
        unit: volume.cluster,
        free: volume.free(&image),
        owners,
    };
    truth.compare(&image);
}

#[test]
fn hit_fat12() {
    compares(case("FAT12", 8 * MIB, "-F 12 -s 8 -n LABEL"), 12);
}

#[test]
fn hit_fat16() {
    compares(case("FAT16", 20 * MIB, "-F 16"), 16);
}

#[test]
fn hit_fat32() {
    compares(case("FAT32", 64 * MIB, "-F 32 -s 1"), 32);
}
