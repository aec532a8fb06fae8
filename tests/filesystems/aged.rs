//! Fills a mounted file system as use does: files created, grown, truncated, deleted, fragmented,
//! sparse, with extended attributes, hard links, in large directories. The same for the same seed.

use crate::kit::bytes::Stream;
use crate::kit::{KIB, MIB, tools};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// What the file system can hold beside plain files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities {
    /// Owners, modes, symbolic and hard links.
    pub(crate) posix: bool,
    /// `user.` extended attributes.
    pub(crate) xattrs: bool,
    /// Holes in files.
    pub(crate) sparse: bool,
}

/// All that Linux' own file systems can.
pub(crate) const POSIX: Abilities = Abilities {
    posix: true,
    xattrs: true,
    sparse: true,
};
/// What FAT and exFAT can.
pub(crate) const PLAIN: Abilities = Abilities {
    posix: false,
    xattrs: false,
    sparse: false,
};

/// Ages the file system mounted at `root` with about `bytes` of content left in the end, as
/// repeatably as its allocator is. What is deleted leaves its bytes in free blocks.
pub(crate) fn age(root: &Path, bytes: u64, seed: u64, can: Abilities) {
    let mut stream = Stream::new(seed);
    let files = root.join("files");
    fs::create_dir(&files).unwrap();
    // Small and large files, every third deleted again, twice: the second lot lands in the holes
    // of the first.
    for round in 0..2 {
        let mut left = bytes * 3 / 4;
        let mut number = 0;
        while left > 0 {
            let len = (512 << stream.below(11)) + stream.below(4096);
            let len = len.min(left);
            let dir = files.join(format!("d{}", number % 7));
            fs::create_dir_all(&dir).unwrap();
            let content = if number % 2 == 0 {
                stream.bytes(len)
            } else {
                stream.text(len)
            };
            write(&dir.join(format!("r{round}-{number}")), &content);
            left -= len;
            number += 1;
        }
        sync(root);
        for n in (0..number).filter(|n| n % 3 == 0 || (round == 0 && n % 2 == 0)) {
            fs::remove_file(files.join(format!("d{}/r{round}-{n}", n % 7))).unwrap();
        }
        sync(root);
    }
    fragment(root, bytes / 16, &mut stream);
    large_directory(root, can);
    resized(root, &mut stream);
    if can.sparse {
        let file = File::create(root.join("sparse")).unwrap();
        for at in [0, 300 * KIB, 5 * MIB] {
            file.write_all_at(&stream.bytes(10_000), at).unwrap();
        }
        file.set_len(9 * MIB).unwrap();
    }
    if can.posix {
        links_and_owners(root);
    }
    if can.xattrs {
        attributes(root, &mut stream);
    }
    sync(root);
}

/// Two files that grow in turns, so that their blocks alternate.
fn fragment(root: &Path, bytes: u64, stream: &mut Stream) {
    let open = |name: &str| {
        let path = root.join(name);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    };
    let (mut a, mut b) = (open("fragmented-a"), open("fragmented-b"));
    for _ in 0..(bytes / (8 * KIB)).clamp(4, 64) {
        for file in [&mut a, &mut b] {
            file.write_all(&stream.bytes(4 * KIB)).unwrap();
            file.sync_all().unwrap();
        }
    }
    drop(b);
    fs::remove_file(root.join("fragmented-b")).unwrap();
}

fn large_directory(root: &Path, can: Abilities) {
    let dir = root.join("large-directory");
    fs::create_dir(&dir).unwrap();
    let count = if can.posix { 2000 } else { 200 };
    for n in 0..count {
        let name = format!("a file with quite a long name so that the directory grows {n}");
        write(&dir.join(name), &[]);
    }
    for n in (0..count).step_by(2) {
        let name = format!("a file with quite a long name so that the directory grows {n}");
        fs::remove_file(dir.join(name)).unwrap();
    }
}

fn resized(root: &Path, stream: &mut Stream) {
    write(&root.join("truncated"), &stream.bytes(600 * KIB));
    let file = OpenOptions::new()
        .write(true)
        .open(root.join("truncated"))
        .unwrap();
    file.set_len(70_000).unwrap();
    write(&root.join("grown"), &stream.bytes(3000));
    let mut file = OpenOptions::new()
        .append(true)
        .open(root.join("grown"))
        .unwrap();
    file.write_all(&stream.bytes(500_000)).unwrap();
}

fn links_and_owners(root: &Path) {
    fs::hard_link(root.join("grown"), root.join("hard-link")).unwrap();
    symlink("grown", root.join("symlink")).unwrap();
    symlink("x".repeat(900), root.join("long-symlink")).unwrap();
    fs::set_permissions(root.join("truncated"), fs::Permissions::from_mode(0o4751)).unwrap();
    chown(root.join("truncated"), Some(1234), Some(5678)).unwrap();
}

fn attributes(root: &Path, stream: &mut Stream) {
    for (name, len) in [("short", 10), ("long", 900)] {
        let value: String = (0..len)
            .map(|_| format!("{:02x}", stream.below(256)))
            .collect();
        for file in ["grown", "truncated"] {
            let path = root.join(file);
            let path = path.to_str().unwrap();
            let attribute = format!("user.{name}");
            tools::run(
                "setfattr",
                &["-n", &attribute, "-v", &format!("0x{value}"), path],
            );
        }
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

/// Makes the file system write all it has.
pub(crate) fn sync(root: &Path) {
    tools::run("sync", &["--file-system", root.to_str().unwrap()]);
}
