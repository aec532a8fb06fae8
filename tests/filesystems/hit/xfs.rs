//! XFS: the truth is the kernel's `FIEMAP`, and `xfs_db`.

use super::{Truth, ask_kernel, extent, owners};
use crate::aged::{self, POSIX};
use crate::kit::bytes;
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::{MIB, scratch, tools};
use diskstrata::base::{Extent, normalize};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// What `xfs_db` says to `commands`.
fn ask_tool(image: &Path, commands: &[&str]) -> String {
    let mut args = vec!["-r"];
    args.extend(commands.iter().flat_map(|command| ["-c", command]));
    args.push(image.to_str().unwrap());
    tools::run("xfs_db", &args)
}

fn field(image: &Path, name: &str) -> u64 {
    let said = ask_tool(image, &["sb 0", &format!("print {name}")]);
    let (_, value) = said.trim().split_once(" = ").unwrap();
    value.parse().unwrap()
}

/// The blocks of the inodes' content, those of directories and links too.
fn contents<'n>(
    image: &Path,
    numbers: impl Iterator<Item = &'n u64>,
    group: u64,
    block: u64,
) -> BTreeMap<u64, Vec<Range<u64>>> {
    let numbers: Vec<&u64> = numbers.collect();
    let mut found: BTreeMap<u64, Vec<Range<u64>>> = BTreeMap::new();
    for some in numbers.chunks(500) {
        let ask = |n: &&u64| {
            [
                format!("inode {n}"),
                format!("echo of {n}"),
                "bmap -d".into(),
            ]
        };
        let commands: Vec<String> = some.iter().flat_map(ask).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let mut runs = None;
        for line in ask_tool(image, &commands).lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields.as_slice() {
                ["of", number] => runs = Some(found.entry(number.parse().unwrap()).or_default()),
                // data offset 0 startblock 13 (0/13) count 1 flag 0
                [
                    "data",
                    "offset",
                    _,
                    "startblock",
                    _,
                    place,
                    "count",
                    count,
                    ..,
                ] => {
                    let (ag, within) = place.trim_matches(['(', ')']).split_once('/').unwrap();
                    let start = ag.parse::<u64>().unwrap() * group + within.parse::<u64>().unwrap();
                    let end = start + count.parse::<u64>().unwrap();
                    runs.as_mut().unwrap().push(start * block..end * block);
                }
                _ => {}
            }
        }
    }
    for runs in found.values_mut() {
        runs.sort_by_key(|r| r.start);
    }
    found
}

/// Free space as the trees list it.
fn free(image: &Path, group: u64, block: u64) -> Vec<Range<u64>> {
    let said = ask_tool(image, &["freesp -d"]);
    let runs = said.lines().filter_map(|line| {
        let fields = line.split_whitespace().map(|f| f.parse::<u64>().ok());
        let fields: Vec<u64> = fields.collect::<Option<_>>()?;
        let [ag, within, count] = fields[..] else {
            return None;
        };
        let start = ag * group + within;
        Some(start * block..(start + count) * block)
    });
    runs.collect()
}

/// Blocks that are kept for the trees, which `freesp` counts as free.
fn set_aside(image: &Path) -> u64 {
    let kept = (0..field(image, "agcount")).map(|ag| {
        let said = ask_tool(image, &[&format!("agf {ag}"), "print flcount"]);
        said.trim()
            .trim_start_matches("flcount = ")
            .parse::<u64>()
            .unwrap()
    });
    kept.sum()
}

/// Directories of all forms, a tree of extents, several names, and what shares its blocks.
fn more(root: &Path, shares: bool) {
    let dir = (0..30).fold(root.to_owned(), |dir, n| dir.join(format!("level {n}")));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("bottom"), vec![1; 9000]).unwrap();
    fs::hard_link(dir.join("bottom"), root.join("top")).unwrap();
    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..60 {
        fs::write(many.join(format!("file {n}")), vec![n; 5000]).unwrap();
    }
    let file = fs::File::create(root.join("holes")).unwrap();
    for n in 0..400u64 {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&[1; 4096], n * 3 * 4096).unwrap();
    }
    aged::sync(root);
    if shares {
        let (from, to) = (root.join("holes"), root.join("level 0/shared"));
        let args = [
            "--reflink=always",
            from.to_str().unwrap(),
            to.to_str().unwrap(),
        ];
        tools::run("cp", &args);
        aged::sync(root);
    }
}

/// `runs` with those that follow one another made one.
fn joined(runs: &[Range<u64>]) -> Vec<Extent> {
    normalize(runs.iter().map(extent).collect())
}

fn compares(options: &str, shares: bool) {
    let dir = scratch();
    let image = dir.path().join("image");
    let len = 320 * MIB;
    bytes::create_sparse(&image, len);
    let mut args = vec!["-q", "-f"];
    args.extend(options.split_whitespace());
    args.push(image.to_str().unwrap());
    tools::run("mkfs.xfs", &args);
    let device = Loop::new(&image);
    let mount = Mount::with_options(device.path(), &dir.path().join("mounted"), "nouuid");
    aged::age(mount.path(), 20 * MIB, 4, POSIX);
    more(mount.path(), shares);
    drop(mount);
    // What was kept behind the ends of files that grew is given back now.
    let mount = Mount::with_options(device.path(), &dir.path().join("again"), "nouuid,ro");
    let mut owners = owners(mount.path());
    ask_kernel(mount.path(), &mut owners, false);
    drop(mount);
    drop(device);
    let (block, group) = (field(&image, "blocksize"), field(&image, "agblocks"));
    let contents = contents(&image, owners.keys(), group, block);
    for (number, owner) in &mut owners {
        let own = &contents[number];
        if owner.content.is_empty() {
            owner.content.clone_from(own);
        }
        assert_eq!(joined(&owner.content), joined(own), "{:?}", owner.paths);
    }
    assert!(owners.values().any(|o| o.content.len() > 300));
    let truth = Truth {
        set_aside: set_aside(&image) * block,
        kind: "XFS",
        unit: block,
        owners,
        free: free(&image, group, block),
    };
    truth.compare(&image);
}

#[test]
fn hit_xfs_with_shared_blocks() {
    if privileged_with_fs("xfs", "hit_xfs_with_shared_blocks") {
        compares("-m reflink=1,rmapbt=1", true);
    }
}

#[test]
fn hit_xfs_with_small_blocks() {
    if privileged_with_fs("xfs", "hit_xfs_with_small_blocks") {
        compares("-b size=1024 -i size=512,sparse=1 -m finobt=0", false);
    }
}

#[test]
fn hit_xfs_with_large_directory_blocks() {
    if privileged_with_fs("xfs", "hit_xfs_with_large_directory_blocks") {
        compares("-m reflink=0 -b size=1024 -n size=8192", false);
    }
}
