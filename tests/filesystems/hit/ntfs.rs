//! NTFS: the truth is `ntfscluster`, `ntfscat` and a mount by ntfs-3g.

use super::{Owner, Truth, owners};
use crate::aged;
use crate::kit::bytes;
use crate::kit::privileged::privileged_with_fs;
use crate::kit::{MIB, scratch, tools};
use crate::ntfs::{NTFS, info, mounted, volume};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Clusters that `ntfscluster` gives to content of a record: streams and indexes.
fn content(image: &Path, number: u64, cluster: u64) -> Vec<Range<u64>> {
    let number = number.to_string();
    let args = ["--force", "--inode", &number, image.to_str().unwrap()];
    let said = tools::run("ntfscluster", &args);
    let (mut found, mut wanted) = (Vec::new(), false);
    for line in said.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [kind, "-", ..] => wanted = matches!(*kind, "0x80" | "0xa0"),
            [_, lcn, len] if wanted => {
                if let (Ok(lcn), Ok(len)) = (lcn.parse::<u64>(), len.parse::<u64>()) {
                    found.push(lcn * cluster..(lcn + len) * cluster);
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|r| r.start);
    found
}

/// The clear bits of `$Bitmap`.
fn free(image: &Path, clusters: u64, cluster: u64) -> Vec<Range<u64>> {
    let args = ["--force", "--inode", "6", image.to_str().unwrap()];
    let bitmap = tools::try_run("ntfscat", &args).stdout;
    let clear = |n: &u64| bitmap[usize::try_from(n / 8).unwrap()] >> (n % 8) & 1 == 0;
    let clear = (0..clusters).filter(clear);
    clear.map(|n| n * cluster..(n + 1) * cluster).collect()
}

/// A file of so many fragments that its records are several, names in other records, and odd names.
fn more(root: &Path) {
    let dir = root.join("more").join("and more").join("Größe 磁盘");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("ends here"), vec![7; 70_000]).unwrap();
    symlink("x".repeat(2000), dir.join("link")).unwrap();
    for n in 0..5 {
        let name = format!("one of many long names of a single file, number {n}");
        fs::hard_link(dir.join("ends here"), root.join(name)).unwrap();
    }
    let file = fs::File::create(root.join("holes")).unwrap();
    for n in 0..600u64 {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&[1; 4096], n * 3 * 65_536).unwrap();
    }
    aged::sync(root);
}

fn compares(len: u64, options: &[&str]) {
    let dir = scratch();
    let image = volume(dir.path(), len, 512, options);
    let mut owners: BTreeMap<u64, Owner> = mounted(&image, |root| {
        aged::age(root, len / 8, 3, NTFS);
        more(root);
        owners(root)
    });
    let cluster = info(&image, "Cluster Size:");
    let clusters = info(&image, "Volume Size in Clusters:");
    for (number, owner) in &mut owners {
        owner.content = content(&image, *number, cluster);
    }
    assert!(owners.values().any(|o| o.content.len() > 500));
    let truth = Truth {
        set_aside: 0,
        kind: "NTFS",
        unit: cluster,
        owners,
        free: free(&image, clusters, cluster),
    };
    truth.compare(&image);
    compare_with_ntfscluster(&image, &truth);
}

/// What `ntfscluster` says of clusters at random: also those of lists of attributes and of the volume.
fn compare_with_ntfscluster(image: &Path, truth: &Truth) {
    let clusters = bytes::length(image) / truth.unit - 1;
    let mut stream = bytes::Stream::new(5);
    for _ in 0..60 {
        let n = stream.below(clusters);
        let range = format!("{n}-{n}");
        let args = [
            "--force",
            "--quiet",
            "--cluster",
            &range,
            image.to_str().unwrap(),
        ];
        let said = tools::run("ntfscluster", &args);
        let hit = super::ask(
            image,
            std::slice::from_ref(&(n * truth.unit..(n + 1) * truth.unit)),
        );
        for line in said.lines().filter_map(|l| l.strip_prefix("Inode ")) {
            let (number, _) = line.split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            if truth.owners.contains_key(&number) {
                assert!(
                    hit.files.iter().any(|f| f.number == number),
                    "{n}: {line}: {hit:?}"
                );
            } else {
                assert!(!hit.metadata.is_empty(), "{n}: {line}: {hit:?}");
            }
        }
    }
}

#[test]
fn hit_ntfs_with_clusters_of_4_kib() {
    if privileged_with_fs("fuse", "hit_ntfs_with_clusters_of_4_kib") {
        compares(64 * MIB, &["-c", "4096"]);
    }
}

#[test]
fn hit_ntfs_with_clusters_of_512_bytes() {
    if privileged_with_fs("fuse", "hit_ntfs_with_clusters_of_512_bytes") {
        compares(32 * MIB, &["-c", "512"]);
    }
}
