//! ext2, ext3, ext4: the truth is the kernel's `FIEMAP`, and `debugfs` and `dumpe2fs`.

use super::{Owner, Truth, ask, ask_kernel, owners};
use crate::aged::{self, POSIX};
use crate::ext::{Make, crashed, dump, mounted};
use crate::kit::bytes;
use crate::kit::privileged::privileged_with_fs;
use crate::kit::{KIB, MIB, scratch, tools};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// A file system with old files, and who holds what in it.
fn aged(make: &Make, dir: &Path) -> (std::path::PathBuf, Truth) {
    let image = dir.join("image");
    make.make(&image, None);
    let owners = mounted(&image, dir, |root| {
        aged::age(root, make.len / 6, 9, POSIX);
        deep(root);
        let mut owners = owners(root);
        ask_kernel(root, &mut owners, true);
        owners
    });
    let truth = truth(make.kind, &image, owners);
    (image, truth)
}

/// Who holds what in the file system in `image`, whose files are `owners`.
fn truth(kind: &'static str, image: &Path, mut owners: BTreeMap<u64, Owner>) -> Truth {
    let dump = dump(image);
    for number in links(&owners) {
        let content = blocks(image, number, dump.block);
        owners.entry(number).or_default().content = content;
    }
    let bytes = |r: &Range<u64>| r.start * dump.block..r.end * dump.block;
    Truth {
        set_aside: 0,
        kind,
        unit: dump.block,
        owners,
        free: dump.free_ranges.iter().map(bytes).collect(),
    }
}

/// Files that the kernel tells no places of: links.
fn links(owners: &BTreeMap<u64, Owner>) -> Vec<u64> {
    let is_link = |o: &&Owner| o.paths.iter().any(|p| p == "/long-symlink");
    let all = owners.iter().filter(|(_, owner)| is_link(owner));
    all.map(|(number, _)| *number).collect()
}

/// The blocks of an inode, as `debugfs` lists them.
fn blocks(image: &Path, number: u64, block: u64) -> Vec<Range<u64>> {
    let request = format!("blocks <{number}>");
    let said = tools::run("debugfs", &["-R", &request, image.to_str().unwrap()]);
    let blocks = said.split_whitespace().map(|n| n.parse::<u64>().unwrap());
    blocks.map(|n| n * block..(n + 1) * block).collect()
}

/// Directories far below, and a file with several names there.
fn deep(root: &Path) {
    let dir = (0..40).fold(root.to_owned(), |dir, n| dir.join(format!("level {n}")));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("bottom"), vec![1; 9000]).unwrap();
    fs::hard_link(dir.join("bottom"), root.join("top")).unwrap();
    fs::hard_link(dir.join("bottom"), root.join("files/d0/middle")).unwrap();
    fs::write(root.join("small"), vec![2; 40]).unwrap();
    aged::sync(root);
}

fn compares(make: &Make) {
    let dir = scratch();
    let (image, truth) = aged(make, dir.path());
    truth.compare(&image);
    compare_with_debugfs(&image, &truth);
}

/// A copy under load, whose journal has changes: what counts is what `e2fsck` makes of it.
fn compares_crashed(make: &Make) {
    let crashed = crashed(make);
    let (dir, replayed) = (crashed.dir.path(), crashed.replayed());
    let owners = mounted(&replayed, dir, |root| {
        let mut owners = owners(root);
        ask_kernel(root, &mut owners, true);
        owners
    });
    let truth = truth(make.kind, &replayed, owners);
    truth.compare(&crashed.image);
}

/// What `debugfs` says of blocks at random: also those that only tell where others lie, and attributes.
fn compare_with_debugfs(image: &Path, truth: &Truth) {
    let blocks = bytes::length(image) / truth.unit;
    let mut stream = bytes::Stream::new(5);
    let mut asked: Vec<u64> = (0..120).map(|_| 1 + stream.below(blocks - 1)).collect();
    asked.sort_unstable();
    asked.dedup();
    let list: Vec<String> = asked.iter().map(u64::to_string).collect();
    let request = format!("icheck {}", list.join(" "));
    let said = tools::run("debugfs", &["-R", &request, image.to_str().unwrap()]);
    let mut looked_at = 0;
    for line in said.lines() {
        let Some((block, inode)) = line.split_once('\t') else {
            continue;
        };
        let Ok(block) = block.parse::<u64>() else {
            continue;
        };
        let hit = ask(
            image,
            std::slice::from_ref(&(block * truth.unit..(block + 1) * truth.unit)),
        );
        let numbers: Vec<u64> = hit.files.iter().map(|f| f.number).collect();
        match inode.parse::<u64>() {
            Ok(inode) if truth.owners.contains_key(&inode) => {
                assert!(numbers.contains(&inode), "{line}: {hit:?}");
            }
            // Inodes of the file system itself.
            Ok(_) => assert!(
                numbers.is_empty() && !hit.metadata.is_empty(),
                "{line}: {hit:?}"
            ),
            // Free, or metadata; of inode tables those who have their inodes there are told.
            Err(_) => assert!(hit.files.iter().all(|f| f.bytes == 0), "{line}: {hit:?}"),
        }
        looked_at += 1;
    }
    assert_eq!(looked_at, asked.len());
}

macro_rules! compares {
    ($($name:ident: $kind:literal, $kib:expr, $options:literal;)*) => {$(
        #[test]
        fn $name() {
            if privileged_with_fs("ext4", stringify!($name)) {
                compares(&Make::new($kind, $kib * KIB, $options));
            }
        }
    )*};
}

compares! {
    hit_ext2_with_lists_of_blocks: "ext2", 24_001, "-t ext2 -b 1024";
    hit_ext3: "ext3", 24_000, "-t ext3 -b 1024 -I 128";
    hit_ext4_with_blocks_of_4_kib: "ext4", 32_768, "-t ext4 -b 4096";
    hit_ext4_with_meta_groups: "ext4", 32_769, "-t ext4 -b 1024 -O meta_bg,^resize_inode,64bit";
    hit_ext4_with_clusters: "ext4", 40_960, "-t ext4 -b 1024 -C 4096 -O bigalloc";
    hit_ext4_with_content_in_inodes: "ext4", 32_768, "-t ext4 -b 1024 -O inline_data,ea_inode -I 512";
}

#[test]
fn hit_ext4_whose_journal_has_changes() {
    if privileged_with_fs("ext4", "hit_ext4_whose_journal_has_changes") {
        compares_crashed(&Make::new("ext4", 64 * MIB, "-t ext4 -b 1024 -J size=8"));
    }
}
