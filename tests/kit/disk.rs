//! Disks in sparse files, built without root: the same bytes for the same seed, but for the times
//! that `mke2fs -d` takes over from the files it is given.

use super::bytes::{self, Stream};
use super::{KIB, MIB, gpt, tools};
use std::fs;
use std::path::{Path, PathBuf};

/// What a partition or a whole disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Ext4,
    Fat,
    Swap,
    /// Bytes that mean nothing to anybody.
    Raw,
}

/// A partition as the builder placed it, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) number: u64,
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) content: Content,
}

/// A built disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    pub(crate) sector: u64,
    pub(crate) parts: Vec<Part>,
}

/// The kinds of disks; `fixtures/disks/README.md` says what each is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Gpt512,
    Gpt4096,
    Mbr,
    WholeExt4,
    Random,
    GptDamagedPrimary,
    GptDamagedBackup,
    Zero,
    Odd,
}

impl Disk {
    /// Builds `layout` as the file `name` in `dir`.
    pub(crate) fn build(layout: Layout, dir: &Path, name: &str, seed: u64) -> Disk {
        let path = dir.join(name);
        match layout {
            Layout::Gpt512 => gpt_512(path, seed),
            Layout::Gpt4096 => gpt_4096(path, seed),
            Layout::Mbr => mbr(path, seed),
            Layout::WholeExt4 => whole_ext4(path, seed),
            Layout::Random => random(path, seed),
            Layout::GptDamagedPrimary => {
                let disk = gpt_512(path, seed);
                bytes::flip(&disk.path, 512 + 40);
                disk
            }
            Layout::GptDamagedBackup => {
                let disk = gpt_512(path, seed);
                bytes::flip(&disk.path, disk.len - 512 + 40);
                disk
            }
            Layout::Zero => {
                bytes::create_sparse(&path, 64 * MIB);
                Disk::bare(path, Vec::new())
            }
            Layout::Odd => odd(path, seed),
        }
    }

    fn bare(path: PathBuf, parts: Vec<Part>) -> Disk {
        let len = bytes::length(&path);
        Disk {
            path,
            len,
            sector: 512,
            parts,
        }
    }

    pub(crate) fn part(&self, number: u64) -> Part {
        let found = self.parts.iter().find(|p| p.number == number);
        *found.unwrap_or_else(|| panic!("no partition {number} in {self:?}"))
    }
}

/// A system disk: boot sector code, BIOS boot partition, ESP, root, swap.
fn gpt_512(path: PathBuf, seed: u64) -> Disk {
    let len = 160 * MIB;
    bytes::create_sparse(&path, len);
    let ids = format!("-U={:08X}-0000-4000-8000-00000000D15C", seed);
    let file = path.to_str().unwrap();
    let mut args = vec!["-a2048".to_owned(), ids.replace("-U=", "--disk-guid=")];
    for (number, part) in [
        ("1", "2048:+1M:ef02:bios"),
        ("2", "4096:+33M:ef00:esp"),
        ("3", "71680:+96M:8300:root"),
        ("4", "268288:+16M:8200:swap"),
    ] {
        let fields: Vec<&str> = part.split(':').collect();
        args.push(format!("-n{number}:{}:{}", fields[0], fields[1]));
        args.push(format!("-t{number}:{}", fields[2]));
        args.push(format!("-c{number}:{}", fields[3]));
        args.push(format!(
            "-u{number}:{seed:08X}-0000-4000-8000-00000000000{number}"
        ));
    }
    args.push(file.to_owned());
    tools::run("sgdisk", &args);
    let parts = vec![
        part(1, MIB, MIB, Content::Raw),
        part(2, 2 * MIB, 33 * MIB, Content::Fat),
        part(3, 35 * MIB, 96 * MIB, Content::Ext4),
        part(4, 131 * MIB, 16 * MIB, Content::Swap),
    ];
    // Boot code lies in the first 440 bytes of the first sector.
    bytes::write(&path, 0, &Stream::new(seed ^ 0xB007).bytes(440));
    let disk = Disk::bare(path, parts);
    fill_parts(&disk, seed);
    disk
}

/// The same idea on a disk whose sectors have 4096 bytes.
fn gpt_4096(path: PathBuf, seed: u64) -> Disk {
    let (len, sector) = (192 * MIB, 4096);
    bytes::create_sparse(&path, len);
    let parts = vec![
        part(1, MIB, 40 * MIB, Content::Fat),
        part(2, 41 * MIB, 64 * MIB, Content::Ext4),
        part(3, 105 * MIB, 8 * MIB, Content::Raw),
    ];
    let names = [("esp", gpt::ESP), ("root", gpt::LINUX), ("raw", gpt::LINUX)];
    let entries: Vec<gpt::Entry> = parts
        .iter()
        .zip(names)
        .map(|(part, (name, kind))| gpt::Entry {
            first: part.start / sector,
            last: (part.start + part.len) / sector - 1,
            kind,
            name,
        })
        .collect();
    gpt::write(&path, len, sector, &entries);
    let disk = Disk {
        path,
        len,
        sector,
        parts,
    };
    fill_parts(&disk, seed);
    disk
}

/// Three primary partitions, and an extended one with two logical ones.
fn mbr(path: PathBuf, seed: u64) -> Disk {
    bytes::create_sparse(&path, 128 * MIB);
    let script = include_str!("../../fixtures/disks/mbr-logical.sfdisk");
    tools::run_with_input("sfdisk", &["--quiet", path.to_str().unwrap()], script);
    // Boot code, and a boot loader's second stage in the gap before the first partition.
    bytes::write(&path, 0, &Stream::new(seed ^ 0xB007).bytes(440));
    bytes::write_random(&path, 512, 60 * KIB, seed ^ 0x6A9);
    let parts = vec![
        part(1, MIB, 32 * MIB, Content::Ext4),
        part(2, 33 * MIB, 16 * MIB, Content::Fat),
        part(3, 49 * MIB, 8 * MIB, Content::Swap),
        part(5, 59 * MIB, 32 * MIB, Content::Ext4),
        part(6, 92 * MIB, 8 * MIB, Content::Raw),
    ];
    let disk = Disk::bare(path, parts);
    fill_parts(&disk, seed);
    disk
}

fn whole_ext4(path: PathBuf, seed: u64) -> Disk {
    bytes::create_sparse(&path, 64 * MIB);
    let whole = part(0, 0, 64 * MIB, Content::Ext4);
    fill(&path, 512, whole, seed);
    Disk::bare(path, Vec::new())
}

fn random(path: PathBuf, seed: u64) -> Disk {
    bytes::create_sparse(&path, 24 * MIB);
    bytes::write_random(&path, 0, 24 * MIB, seed);
    // Two bytes that would make the first sector look like a partition table.
    bytes::write(&path, 510, &[0, 0]);
    Disk::bare(path, Vec::new())
}

/// A length that no sector and no block divides, data at both ends, a hole between.
fn odd(path: PathBuf, seed: u64) -> Disk {
    let len = 9 * MIB + 1237;
    bytes::create_sparse(&path, len);
    bytes::write_random(&path, 0, 3 * MIB + 17, seed);
    bytes::write_random(&path, len - 70_001, 70_001, seed + 1);
    Disk::bare(path, Vec::new())
}

fn part(number: u64, start: u64, len: u64, content: Content) -> Part {
    Part {
        number,
        start,
        len,
        content,
    }
}

fn fill_parts(disk: &Disk, seed: u64) {
    for part in &disk.parts {
        fill(
            &disk.path,
            disk.sector,
            *part,
            seed.wrapping_add(part.number),
        );
    }
}

/// Makes the content of one partition.
fn fill(disk: &Path, sector: u64, part: Part, seed: u64) {
    match part.content {
        Content::Ext4 => ext4(disk, part, seed),
        Content::Fat => fat(disk, sector, part, seed),
        Content::Swap => swap(disk, part, seed),
        Content::Raw => bytes::write_random(disk, part.start, part.len.min(MIB), seed),
    }
}

fn ext4(disk: &Path, part: Part, seed: u64) {
    let tree = super::scratch();
    make_tree(tree.path(), seed, part.len / 8);
    let uuid = format!("{seed:08x}-0000-4000-8000-0000000000e4");
    let options = format!("offset={},hash_seed={uuid},root_owner=0:0", part.start);
    let blocks = (part.len / 4096).to_string();
    let (tree, disk) = (tree.path().to_str().unwrap(), disk.to_str().unwrap());
    let head = [
        "-q", "-F", "-t", "ext4", "-b", "4096", "-U", &uuid, "-L", "root",
    ];
    let tail = ["-E", &options, "-d", tree, disk, &blocks];
    tools::run("mke2fs", &[&head[..], &tail[..]].concat());
}

fn fat(disk: &Path, sector: u64, part: Part, seed: u64) {
    let tree = super::scratch();
    make_tree(tree.path(), seed, part.len / 8);
    let size = sector.to_string();
    let id = format!("{:08x}", seed ^ 0xFA70_FA70);
    let offset = format!("--offset={}", part.start / sector);
    let blocks = (part.len / KIB).to_string();
    let file = disk.to_str().unwrap();
    // FAT32 begins at 65525 clusters; smaller ones stay FAT16.
    let fat32 = part.len / sector > 66_600;
    let width: &[&str] = if fat32 { &["-F", "32", "-s", "1"] } else { &[] };
    let head = ["--invariant", "-i", &id, "-S", &size, "-n", "ESP"];
    tools::run(
        "mkfs.fat",
        &[&head[..], width, &[&offset, file, &blocks]].concat(),
    );
    let image = format!("{file}@@{}", part.start);
    let mut entries: Vec<String> = fs::read_dir(tree.path())
        .unwrap()
        .map(|e| e.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| !path.ends_with("link"))
        .collect();
    entries.sort();
    let mut args = vec!["-i".to_owned(), image, "-s".to_owned(), "-Q".to_owned()];
    args.extend(entries);
    args.push("::/".to_owned());
    tools::run("mcopy", &args);
}

/// A swap area that has never been used.
fn swap(disk: &Path, part: Part, seed: u64) {
    let dir = super::scratch();
    let file = dir.path().join("swap");
    bytes::create_filled(&file, 0);
    bytes::open_rw(&file).set_len(part.len).unwrap();
    let uuid = format!("{seed:08x}-0000-4000-8000-00000000005a");
    tools::run("mkswap", &["-q", "-U", &uuid, file.to_str().unwrap()]);
    bytes::write(disk, part.start, &bytes::read(&file, 0, 4096));
}

/// Files of many kinds: about `total` bytes, half of them compressible.
fn make_tree(dir: &Path, seed: u64, total: u64) {
    let mut stream = Stream::new(seed);
    let deep = dir.join("a/b/c/d");
    fs::create_dir_all(&deep).unwrap();
    fs::write(dir.join("empty"), []).unwrap();
    for number in 0..48 {
        let len = 1 + stream.below(9000);
        let content = if number % 2 == 0 {
            stream.text(len)
        } else {
            stream.bytes(len)
        };
        fs::write(deep.join(format!("small-{number}")), content).unwrap();
    }
    fs::write(dir.join("random.bin"), stream.bytes(total / 2)).unwrap();
    fs::write(dir.join("text.log"), stream.text(total / 2)).unwrap();
    let sparse = dir.join("sparse");
    bytes::create_sparse(&sparse, total / 4);
    bytes::write(&sparse, total / 8, b"an island");
    std::os::unix::fs::symlink("random.bin", dir.join("link")).unwrap();
}
