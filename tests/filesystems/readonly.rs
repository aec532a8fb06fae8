//! Images that `mksquashfs`, `mkfs.erofs` and `xorriso` make, with something behind their end.

use crate::cycle::Cycle;
use crate::kit::{KIB, MIB, bytes, scratch, tools};
use std::path::Path;

/// A folder with some files in it.
fn fill(dir: &Path) -> String {
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).unwrap();
    for n in 0..20 {
        let content = bytes::Stream::new(n).text(n * 3 * KIB);
        std::fs::write(tree.join(format!("file-{n}")), content).unwrap();
    }
    tree.to_str().unwrap().to_owned()
}

#[track_caller]
fn assert_kept(image: &Path, dir: &Path, kind: &str) {
    // What follows the image, as a hash tree does.
    let len = bytes::length(image);
    let padded = (len + MIB).next_multiple_of(MIB);
    bytes::open_rw(image).set_len(padded).unwrap();
    bytes::write_random(image, padded - 300 * KIB, 300 * KIB, 1);
    let cycle = Cycle::of(image, dir);
    cycle.only().assert_mapped(kind);
    let reason = cycle.only().reason().to_owned();
    assert!(reason.contains("and all behind them"), "{reason}");
    assert_eq!(cycle.only().free(), 0);
    bytes::assert_same(image, &cycle.restored);
}

#[test]
fn squashfs_and_what_follows_it_come_back() {
    let dir = scratch();
    let tree = fill(dir.path());
    let image = dir.path().join("squashfs");
    tools::run(
        "mksquashfs",
        &[&tree, image.to_str().unwrap(), "-quiet", "-no-progress"],
    );
    assert_kept(&image, dir.path(), "squashfs");
}

#[test]
fn erofs_and_what_follows_it_come_back() {
    let dir = scratch();
    let tree = fill(dir.path());
    let image = dir.path().join("erofs");
    tools::run("mkfs.erofs", &[image.to_str().unwrap(), &tree]);
    assert_kept(&image, dir.path(), "erofs");
    let damaged = dir.path().join("damaged");
    std::fs::copy(&image, &damaged).unwrap();
    bytes::flip(&damaged, 1024 + 60);
    let cycle = Cycle::of(&damaged, dir.path());
    cycle.only().assert_whole("erofs", "checksum");
}

#[test]
fn iso_9660_and_what_follows_it_come_back() {
    let dir = scratch();
    let tree = fill(dir.path());
    let image = dir.path().join("iso");
    let args = ["-as", "mkisofs", "-quiet", "-V", "DISC", "-o"];
    tools::run(
        "xorriso",
        &[&args[..], &[image.to_str().unwrap(), &tree]].concat(),
    );
    assert_kept(&image, dir.path(), "ISO9660");
}
