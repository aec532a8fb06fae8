//! Btrfs: the truth is the kernel's `FIEMAP`, whose logical addresses the chunk tree turns into places,
//! as `btrfs inspect-internal dump-tree` shows it.

use super::{Owner, ask, ask_kernel, owners};
use crate::aged::{self, POSIX};
use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::{MIB, scratch, tools};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// A chunk: its logical addresses and where its copies begin.
struct Chunk {
    logical: Range<u64>,
    copies: Vec<u64>,
}

fn chunks(image: &Path) -> Vec<Chunk> {
    let args = [
        "inspect-internal",
        "dump-tree",
        "-t",
        "chunk",
        image.to_str().unwrap(),
    ];
    let said = tools::run("btrfs", &args);
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut start = None;
    for line in said.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, _, "key", "(FIRST_CHUNK_TREE", "CHUNK_ITEM", at, ..] => {
                start = at.trim_end_matches(')').parse::<u64>().ok();
            }
            ["length", len, "owner", ..] => {
                if let Some(start) = start.take() {
                    let logical = start..start + len.parse::<u64>().unwrap();
                    let copies = Vec::new();
                    chunks.push(Chunk { logical, copies });
                }
            }
            ["stripe", _, "devid", _, "offset", at] => {
                chunks.last_mut().unwrap().copies.push(at.parse().unwrap());
            }
            _ => {}
        }
    }
    chunks
}

/// Logical `content` as places.
fn places(content: &[Range<u64>], chunks: &[Chunk]) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    for run in content {
        let chunk = chunks
            .iter()
            .find(|c| c.logical.contains(&run.start))
            .unwrap();
        assert!(run.end <= chunk.logical.end);
        for copy in &chunk.copies {
            let at = copy + (run.start - chunk.logical.start);
            found.push(at..at + (run.end - run.start));
        }
    }
    found.sort_by_key(|r| r.start);
    found
}

/// A subvolume with a snapshot, files that share extents, and one with several names.
fn more(root: &Path) {
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    tools::run("btrfs", &["subvolume", "create", &path("files/sub")]);
    fs::create_dir_all(root.join("files/sub/deep/er")).unwrap();
    fs::write(root.join("files/sub/deep/er/data"), vec![9; 300_000]).unwrap();
    fs::hard_link(
        root.join("files/sub/deep/er/data"),
        root.join("files/sub/link"),
    )
    .unwrap();
    aged::sync(root);
    let args = [
        "subvolume",
        "snapshot",
        &path("files/sub"),
        &path("snapshot"),
    ];
    tools::run("btrfs", &args);
    let mut rewritten = vec![9; 300_000];
    rewritten[100_000..150_000].fill(8);
    fs::write(root.join("files/sub/deep/er/data"), rewritten).unwrap();
    tools::run("cp", &["--reflink=always", &path("grown"), &path("shared")]);
    aged::sync(root);
}

/// Everything that a query should say: path and bytes.
fn expected(owners: &[Owner], ranges: &[Range<u64>]) -> BTreeMap<Vec<String>, u64> {
    let hit = owners.iter().map(|o| (o.paths.clone(), o.bytes_in(ranges)));
    hit.filter(|(_, bytes)| *bytes > 0).collect()
}

fn compares(options: &str) {
    let dir = scratch();
    let image = dir.path().join("image");
    let len = 256 * MIB;
    bytes::create_sparse(&image, len);
    let mut args = vec!["-q", "-f"];
    args.extend(options.split_whitespace());
    args.push(image.to_str().unwrap());
    tools::run("mkfs.btrfs", &args);
    let device = Loop::new(&image);
    let mount = Mount::new(device.path(), &dir.path().join("mounted"));
    aged::age(mount.path(), 12 * MIB, 4, POSIX);
    more(mount.path());
    let mut all = Vec::new();
    for subvolume in ["", "files/sub", "snapshot"] {
        let root = mount.path().join(subvolume);
        let mut owners = owners(&root);
        ask_kernel(&root, &mut owners, false);
        for (number, mut owner) in owners {
            // Another subvolume's, or what stands for it.
            if number < 257 || (subvolume.is_empty() && is_below(&owner)) {
                continue;
            }
            if !subvolume.is_empty() {
                owner.paths = owner
                    .paths
                    .iter()
                    .map(|p| format!("/{subvolume}{p}"))
                    .collect();
            }
            all.push(owner);
        }
    }
    drop(mount);
    drop(device);
    let chunks = chunks(&image);
    for owner in &mut all {
        owner.content = places(&owner.content, &chunks);
    }
    all.retain(|o| !o.content.is_empty());
    assert!(all.len() > 100, "{}", all.len());
    let mut stream = Stream::new(12);
    let block = 4096;
    let mut queries = vec![std::iter::once(0..len).collect::<Vec<_>>()];
    let set: Vec<u64> = (0..len / block).map(|_| stream.below(8)).collect();
    for wanted in 0..8 {
        let of_set = (0..len / block).filter(|n| set[usize::try_from(*n).unwrap()] == wanted);
        queries.push(of_set.map(|n| n * block..(n + 1) * block).collect());
    }
    for _ in 0..40 {
        let owner = &all[usize::try_from(stream.below(all.len() as u64)).unwrap()];
        let at = owner.content[0].start;
        queries.push(std::iter::once(at..at + 512).collect());
    }
    for ranges in queries {
        let hit = ask(&image, &ranges);
        assert_eq!(
            (hit.kind.as_str(), hit.incomplete.as_deref()),
            ("Btrfs", None)
        );
        assert_eq!(hit.unknown, []);
        let found = hit.files.iter().filter(|f| f.bytes > 0).map(|f| {
            let mut paths = vec![f.path.clone()];
            paths.extend(f.others.clone());
            (paths, f.bytes)
        });
        let found: BTreeMap<_, _> = found.collect();
        let expected = expected(&all, &ranges);
        if hit.more == 0 {
            assert_eq!(found, expected);
        } else {
            let all = hit.files.len() as u64 + hit.more;
            assert!(all >= expected.len() as u64);
            assert!(
                found
                    .iter()
                    .all(|(paths, bytes)| expected.get(paths) == Some(bytes))
            );
        }
    }
}

/// Whether a file is in one of the subvolumes that [`more`] makes.
fn is_below(owner: &Owner) -> bool {
    let path = &owner.paths[0];
    path.starts_with("/files/sub/") || path.starts_with("/snapshot/")
}

#[test]
fn hit_btrfs() {
    if privileged_with_fs("btrfs", "hit_btrfs") {
        compares("-d single -m dup");
    }
}

#[test]
fn hit_btrfs_with_mixed_groups() {
    if privileged_with_fs("btrfs", "hit_btrfs_with_mixed_groups") {
        compares("--mixed -d dup -m dup");
    }
}
