//! NTFS: made by mkntfs, filled by ntfs-3g, judged by ntfs-3g's own tools.

use crate::aged::{self, Abilities};
use crate::cycle::Cycle;
use crate::kit::bytes::{self, Stream, assert_same_range};
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::{self, GIB, KIB, MIB, long, scratch, tools};
use crate::manifest::Manifest;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What ntfs-3g can without mapping of users: extended attributes are alternate data streams.
pub(crate) const NTFS: Abilities = Abilities {
    posix: false,
    xattrs: true,
    sparse: true,
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A volume on a new file of `len` bytes.
pub(crate) fn volume(dir: &Path, len: u64, sector: u64, options: &[&str]) -> PathBuf {
    let image = dir.join("volume");
    bytes::create_sparse(&image, len);
    let device = Loop::with_sector(&image, sector);
    let head = ["--quick", "--quiet", "--force", "-L", "a volume"];
    let args = [&head[..], options, &[text(device.path())]].concat();
    tools::run("mkntfs", &args);
    image
}

/// Calls `with` on the mounted volume.
pub(crate) fn mounted<T>(image: &Path, with: impl FnOnce(&Path) -> T) -> T {
    let dir = scratch();
    let device = Loop::new(image);
    let mount = Mount::ntfs(device.path(), &dir.path().join("mnt"));
    with(mount.path())
}

/// Mounts the volume, lets `fill` fill it, and says what is in it then.
fn filled(image: &Path, sector: u64, options: &str, fill: impl FnOnce(&Path)) -> Manifest {
    let dir = scratch();
    let device = Loop::with_sector(image, sector);
    let mount = Mount::with_options(device.path(), &dir.path().join("mnt"), options);
    fill(mount.path());
    aged::sync(mount.path());
    Manifest::of(mount.path())
}

fn content(image: &Path, sector: u64) -> Manifest {
    let dir = scratch();
    let device = Loop::with_sector(image, sector);
    let mount = Mount::read_only(device.path(), &dir.path().join("mnt"));
    Manifest::of(mount.path())
}

/// A number that `ntfsinfo` tells.
pub(crate) fn info(image: &Path, field: &str) -> u64 {
    let said = tools::run("ntfsinfo", &["--force", "--mft", text(image)]);
    let line = said.lines().find_map(|l| l.trim().strip_prefix(field));
    let value = line.unwrap_or_else(|| panic!("no {field} in {said}"));
    let number = value.split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// Fails unless a certain map leaves out what ntfs-3g counts as free, and the restored volume is
/// whole for ntfs-3g's tools and file by file.
#[track_caller]
fn assert_cycle(image: &Path, dir: &Path, sector: u64, expected: &Manifest) {
    let cycle = Cycle::of(image, dir);
    let part = cycle.only();
    part.assert_mapped("NTFS");
    let free = info(image, "Free Clusters:") * info(image, "Cluster Size:");
    assert!(free > 0);
    assert_eq!(part.free(), free);
    let restored = text(&cycle.restored);
    tools::run("ntfsfix", &["--no-action", restored]);
    tools::run("ntfsresize", &["--check", restored]);
    tools::run("ntfsresize", &["--info", "--force", restored]);
    // The backup of the boot sector lies in the last sector, in no cluster.
    let len = bytes::length(image);
    assert_same_range(image, 0, &cycle.restored, len - sector, 512);
    let kept = info(image, "Volume Size in Clusters:") * info(image, "Cluster Size:");
    assert_same_range(image, kept, &cycle.restored, kept, len - kept);
    expected.assert_same(&content(&cycle.restored, sector));
}

fn matrix(len: u64, sector: u64, options: &[&str], mounted: &str) {
    if !privileged_with_fs("fuseblk", "an NTFS volume through an image and back") {
        return;
    }
    let dir = scratch();
    let image = volume(dir.path(), len, sector, options);
    let before = filled(&image, sector, mounted, |root| {
        // However large a volume needs to be, its clusters may be large too.
        aged::age(root, (len / 10).min(64 * MIB), len, NTFS);
    });
    assert!(before.len() > 150);
    assert_cycle(&image, dir.path(), sector, &before);
}

#[test]
fn clusters_of_4_kib() {
    matrix(64 * MIB, 512, &["-c", "4096"], "rw");
}

#[test]
fn clusters_of_512_bytes() {
    matrix(48 * MIB, 512, &["-c", "512"], "rw");
}

#[test]
fn clusters_of_64_kib_and_an_odd_length() {
    matrix(150 * MIB + 512 * 77, 512, &["-c", "65536"], "rw");
}

#[test]
fn clusters_of_2_mib() {
    if long() {
        matrix(3 * GIB, 512, &["-c", "2097152"], "rw");
    }
}

#[test]
fn sectors_of_4096_bytes() {
    matrix(64 * MIB, 4096, &["-s", "4096"], "rw");
}

#[test]
fn compressed_files_in_a_volume_of_an_odd_length() {
    matrix(56 * MIB + 512 * 5, 512, &["-C"], "compression");
}

/// Gaps of a cluster all over, then thousands of small files whose records need more of the MFT.
fn fragment_mft(root: &Path) {
    let mut stream = Stream::new(5);
    for n in 0..20_000 {
        let file = fs::write(root.join(format!("f{n}")), stream.bytes(1500));
        if file.is_err() {
            break;
        }
    }
    for n in (0..20_000).step_by(2) {
        if fs::remove_file(root.join(format!("f{n}"))).is_err() {
            break;
        }
    }
    fs::create_dir(root.join("small")).unwrap();
    for n in 0..20_000 {
        if fs::write(root.join(format!("small/{n}")), b"in its record").is_err() {
            break;
        }
    }
    for n in (1..400).step_by(4) {
        fs::remove_file(root.join(format!("f{n}"))).unwrap();
    }
}

#[test]
fn an_mft_in_many_fragments() {
    if !privileged_with_fs("fuseblk", "an MFT in many fragments") {
        return;
    }
    let dir = scratch();
    let image = volume(dir.path(), 16 * MIB, 512, &["-c", "512"]);
    let before = filled(&image, 512, "rw", fragment_mft);
    // So many that they need an attribute list and more records.
    let list = Attribute::of(&image, 0, 0x20);
    assert!(list.value > 0 && Attribute::of(&image, 0, 0x80).runs.len() > 20);
    assert_cycle(&image, dir.path(), 512, &before);
}

#[test]
fn a_volume_that_was_made_larger_and_smaller() {
    if !privileged_with_fs("fuseblk", "a volume that was made larger and smaller") {
        return;
    }
    let dir = scratch();
    let image = volume(dir.path(), 48 * MIB, 512, &["-c", "512"]);
    filled(&image, 512, "rw", |root| aged::age(root, 8 * MIB, 3, NTFS));
    for size in ["40M", "30M", "48M"] {
        let args = ["--force", "--force", "--size", size, text(&image)];
        tools::run_with_input("ntfsresize", &args, "y\ny\n");
        // What a change of the size leaves to Windows is a mark that it should check the volume.
        clear_dirty(&image);
        let before = content(&image, 512);
        let cycle = Cycle::of(&image, &fresh(dir.path(), size));
        cycle.only().assert_mapped("NTFS");
        let free = info(&image, "Free Clusters:") * 512;
        assert_eq!(cycle.only().free(), free);
        before.assert_same(&content(&cycle.restored, 512));
    }
}

fn fresh(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// The little-endian number of `len` bytes at `at`.
fn le(raw: &[u8], at: u64, len: u64) -> u64 {
    let bytes = &raw[kit::size(at)..kit::size(at + len)];
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// An attribute as its record describes it.
struct Attribute {
    /// Where its record begins.
    record: u64,
    /// Where its value begins when it lies in its record.
    value: u64,
    cluster: u64,
    /// First cluster and number of clusters.
    runs: Vec<(u64, u64)>,
}

impl Attribute {
    /// The first unnamed attribute of type `kind` in record `number`, one of the first.
    fn of(image: &Path, number: u64, kind: u64) -> Attribute {
        let boot = bytes::read(image, 0, 512);
        let cluster = le(&boot, 11, 2) * le(&boot, 13, 1);
        let record = le(&boot, 0x30, 8) * cluster + number * 1024;
        let mut raw = bytes::read(image, record, 1024);
        for (end, saved) in [(510, 2), (1022, 4)] {
            let saved = kit::size(le(&raw, 4, 2)) + saved;
            raw.copy_within(saved..saved + 2, end);
        }
        let mut at = le(&raw, 0x14, 2);
        while le(&raw, at, 4) != kind || le(&raw, at + 9, 1) != 0 {
            assert!(le(&raw, at, 4) < 0x1000, "record {number} has no {kind:#x}");
            at += le(&raw, at + 4, 4);
        }
        let mut found = Attribute {
            record,
            value: record + at + le(&raw, at + 0x14, 2),
            cluster,
            runs: Vec::new(),
        };
        if le(&raw, at + 8, 1) == 0 {
            return found;
        }
        let (mut run, mut place) = (at + le(&raw, at + 0x20, 2), 0u64);
        while le(&raw, run, 1) != 0 {
            let (len, offset) = (le(&raw, run, 1) & 15, le(&raw, run, 1) >> 4);
            let moved = le(&raw, run + 1 + len, offset);
            // The distance is signed.
            let sign = 64 - 8 * offset;
            let moved = (moved << sign).cast_signed() >> sign;
            place = place.checked_add_signed(moved).unwrap();
            found.runs.push((place, le(&raw, run + 1, len)));
            run += 1 + len + offset;
        }
        found
    }

    /// Where byte 0 of its content is.
    fn start(&self) -> u64 {
        self.runs[0].0 * self.cluster
    }
}

/// Sets the volume's flags, in the mirror too.
fn set_flags(image: &Path, flags: u16) {
    let information = Attribute::of(image, 3, 0x70);
    let mirror = Attribute::of(image, 1, 0x80).start();
    let within = information.value + 10 - information.record;
    for record in [information.record, mirror + 3 * 1024] {
        bytes::write(image, record + within, &flags.to_le_bytes());
    }
}

fn clear_dirty(image: &Path) {
    set_flags(image, 0);
}

/// A small volume with a few files.
fn small(dir: &Path) -> PathBuf {
    let image = volume(dir, 16 * MIB, 512, &[]);
    filled(&image, 512, "rw", |root| {
        fs::write(root.join("file"), Stream::new(8).bytes(300 * KIB)).unwrap();
    });
    image
}

#[track_caller]
fn assert_whole(image: &Path, dir: &Path, why: &str) {
    let cycle = Cycle::of(image, &fresh(dir, "whole"));
    cycle.only().assert_whole("NTFS", why);
    bytes::assert_same(image, &cycle.restored);
    fs::remove_dir_all(dir.join("whole")).unwrap();
}

#[track_caller]
fn assert_mapped(image: &Path, dir: &Path) {
    let cycle = Cycle::of(image, &fresh(dir, "mapped"));
    cycle.only().assert_mapped("NTFS");
    fs::remove_dir_all(dir.join("mapped")).unwrap();
}

#[test]
fn a_dirty_volume_is_taken_whole() {
    if !privileged_with_fs("fuseblk", "a dirty NTFS volume") {
        return;
    }
    let dir = scratch();
    let image = small(dir.path());
    assert_mapped(&image, dir.path());
    set_flags(&image, 1);
    let said = tools::run("ntfsinfo", &["--force", "--mft", text(&image)]);
    assert!(said.contains("DIRTY"), "{said}");
    assert_whole(&image, dir.path(), "marked dirty");
    set_flags(&image, 0x4000);
    assert_whole(&image, dir.path(), "0x4000");
    set_flags(&image, 0x8000);
    assert_mapped(&image, dir.path());
}

/// A restart page of the journal: sequence number, version, client in use, flags.
fn restart_page(sequence: u64, version: u16, client: u16, flags: u16, log: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RSTR\x1E\0\x09\0");
    put(16, &[0, 16, 0, 0, 0, 16, 0, 0, 0x30, 0]);
    let (major, minor) = if version == 2 { (2, 0) } else { (version, 1) };
    put(26, &[minor, 0]);
    put(28, &u16::to_le_bytes(major));
    // The restart area: one client, whose record is behind it.
    put(0x30, &sequence.to_le_bytes());
    let free: u16 = if client == 0 { 0xFFFF } else { 0 };
    put(0x38, &1u16.to_le_bytes());
    put(0x3A, &free.to_le_bytes());
    put(0x3C, &client.to_le_bytes());
    put(0x3E, &flags.to_le_bytes());
    let sequence_bits = 67 - (64 - log.leading_zeros());
    put(0x40, &sequence_bits.to_le_bytes());
    put(0x44, &(0x40u16 + 160).to_le_bytes());
    put(0x46, &0x40u16.to_le_bytes());
    put(0x48, &log.to_le_bytes());
    put(0x54, &[0x30, 0, 0x40, 0]);
    put(0x70, &(sequence - 8).to_le_bytes());
    put(0x78, &sequence.to_le_bytes());
    put(0x80, &[0xFF; 4]);
    put(0x8C, &[8, 0, 0, 0, b'N', 0, b'T', 0, b'F', 0, b'S']);
    put(0x1E, &[1, 0]);
    for piece in page.chunks_exact_mut(512) {
        piece[510..].copy_from_slice(&[1, 0]);
    }
    page
}

#[test]
fn journals_are_judged_as_ntfs_3g_judges_them() {
    if !privileged_with_fs("fuseblk", "journals of NTFS") {
        return;
    }
    let dir = scratch();
    let image = small(dir.path());
    let log = Attribute::of(&image, 2, 0x80);
    let len: u64 = log.runs.iter().map(|(_, n)| n * log.cluster).sum();
    // Sequence, version, client, flags of both pages; what ntfs-3g.probe answers: 0 fine, 14
    // hibernated or in Windows' cache, 15 not unmounted cleanly; what the reason says.
    type Page = (u64, u16, u16, u16);
    let cases: [(Page, Page, i32, &str); 7] = [
        ((100, 1, 0xFFFF, 2), (100, 1, 0xFFFF, 2), 0, ""),
        ((100, 1, 0, 2), (100, 1, 0, 2), 0, ""),
        ((100, 1, 0, 0), (100, 1, 0, 0), 15, "not unmounted cleanly"),
        ((100, 2, 0xFFFF, 2), (100, 2, 0xFFFF, 2), 14, "fast startup"),
        (
            (300, 2, 0, 0),
            (200, 1, 0xFFFF, 2),
            14,
            "shutdown /s /f /t 0",
        ),
        (
            (100, 1, 0xFFFF, 2),
            (200, 1, 0, 0),
            15,
            "not unmounted cleanly",
        ),
        ((100, 1, 0, 0), (200, 1, 0xFFFF, 2), 0, ""),
    ];
    for (first, second, verdict, why) in cases {
        for ((sequence, version, client, flags), at) in [(first, 0), (second, 4096)] {
            let page = restart_page(sequence, version, client, flags, len);
            bytes::write(&image, log.start() + at, &page);
        }
        let probe = tools::try_run("ntfs-3g.probe", &["--readwrite", text(&image)]);
        assert_eq!(probe.status.code(), Some(verdict), "{first:?} {second:?}");
        match why {
            "" => assert_mapped(&image, dir.path()),
            why => assert_whole(&image, dir.path(), why),
        }
    }
    bytes::write(&image, log.start() + 510, &[9, 9]);
    assert_whole(&image, dir.path(), "torn");
}

#[test]
fn a_hibernated_windows_is_named() {
    if !privileged_with_fs("fuseblk", "a hibernated Windows") {
        return;
    }
    let dir = scratch();
    let image = small(dir.path());
    let hibernate = |head: &[u8]| {
        filled(&image, 512, "rw", |root| {
            let mut file = File::create(root.join("hiberfil.sys")).unwrap();
            file.write_all(head).unwrap();
            file.write_all(&[0; 20_000]).unwrap();
        });
    };
    hibernate(b"HIBR");
    let probe = tools::try_run("ntfs-3g.probe", &["--readwrite", text(&image)]);
    assert_eq!(probe.status.code(), Some(14), "{probe:?}");
    assert_whole(&image, dir.path(), "hiberfil.sys begins with \"HIBR\"");
    assert_whole(&image, dir.path(), "Shift");
    // ntfs-3g does not write to a hibernated volume: the file begins in a cluster of its own.
    let cluster = info(&image, "Cluster Size:");
    let length = bytes::length(&image);
    let starts = (0..length).step_by(usize::try_from(cluster).unwrap());
    let found = starts.filter(|at| bytes::read(&image, *at, 4) == b"HIBR");
    let found: Vec<u64> = found.collect();
    assert_eq!(found.len(), 1);
    bytes::write(&image, found[0], b"wake");
    assert_mapped(&image, dir.path());
    bytes::write(&image, found[0], &[0; 4]);
    assert_mapped(&image, dir.path());
    bytes::write(&image, found[0], b"what");
    assert_whole(&image, dir.path(), "hiberfil.sys begins with \"what\"");
}

/// Two files that grow in turns.
fn grow_in_turns(a: &Path, b: &Path, stream: &mut Stream, times: u64) {
    let open = |path| OpenOptions::new().create(true).append(true).open(path);
    let (mut a, mut b) = (open(a).unwrap(), open(b).unwrap());
    for _ in 0..times {
        for file in [&mut a, &mut b] {
            file.write_all(&stream.bytes(4 * KIB)).unwrap();
            file.sync_all().unwrap();
        }
    }
}

/// How many clusters a file's data has, as `ntfscluster` tells it: once for each of its records.
fn clusters_of(image: &Path, name: &str) -> u64 {
    let said = tools::run("ntfscluster", &["--force", "--filename", name, text(image)]);
    let (mut in_data, mut clusters) = (false, BTreeSet::new());
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [kind, "-", ..] => in_data = kind == "0x80",
            [_, first, len] if in_data => {
                if let (Ok(first), Ok(len)) = (first.parse::<u64>(), len.parse::<u64>()) {
                    clusters.extend(first..first + len);
                }
            }
            _ => {}
        }
    }
    u64::try_from(clusters.len()).unwrap()
}

#[test]
fn page_and_hibernation_files_can_be_left_out() {
    if !privileged_with_fs("fuseblk", "page files") {
        return;
    }
    let dir = scratch();
    let image = volume(dir.path(), 32 * MIB, 512, &[]);
    let before = filled(&image, 512, "rw", |root| {
        let mut stream = Stream::new(21);
        // So many fragments need more than one record.
        grow_in_turns(
            &root.join("pagefile.sys"),
            &root.join("other"),
            &mut stream,
            400,
        );
        fs::write(root.join("SwapFile.sys"), stream.bytes(700_000)).unwrap();
        let mut memory = stream.bytes(500_000);
        memory[..4].copy_from_slice(b"wake");
        fs::write(root.join("HIBERFIL.SYS"), memory).unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        fs::write(root.join("folder/pagefile.sys"), stream.bytes(900_000)).unwrap();
    });
    assert_cycle(&image, dir.path(), 512, &before);
    for (kind, name) in [
        ("pagefile", "pagefile.sys"),
        ("swap", "SwapFile.sys"),
        ("hibernation", "HIBERFIL.SYS"),
    ] {
        let place = fresh(dir.path(), kind);
        let cycle = Cycle::with(&image, &place, &["--exclude", kind]);
        let left_out = cycle.only().0["excluded"].as_u64().unwrap();
        assert_eq!(left_out, clusters_of(&image, name) * 4096, "{name}");
        tools::run("ntfsresize", &["--info", "--force", text(&cycle.restored)]);
        // It reads as zeros, and all others are as they were.
        let emptied = |image: &Path| {
            let mounted = scratch();
            let device = Loop::new(image);
            let mount = Mount::new(device.path(), &mounted.path().join("mnt"));
            let content = fs::read(mount.path().join(name)).unwrap();
            fs::remove_file(mount.path().join(name)).unwrap();
            (content, Manifest::of(mount.path()))
        };
        let copy = place.join("copy");
        fs::copy(&image, &copy).unwrap();
        let ((content, others), (zeros, restored)) = (emptied(&copy), emptied(&cycle.restored));
        others.assert_same(&restored);
        assert_eq!(content.len(), zeros.len());
        assert!(zeros.iter().all(|b| *b == 0));
    }
}

#[test]
fn damage_is_taken_whole() {
    if !privileged_with_fs("fuseblk", "damaged NTFS volumes") {
        return;
    }
    let dir = scratch();
    let image = small(dir.path());
    assert_mapped(&image, dir.path());
    let damage = |at: u64, byte: u8, why: &str| {
        let before = bytes::read(&image, at, 1);
        bytes::write(&image, at, &[byte]);
        assert_whole(&image, dir.path(), why);
        bytes::write(&image, at, &before);
    };
    // Of the clusters of the journal one is marked free.
    let bitmap = Attribute::of(&image, 6, 0x80).start();
    let log = Attribute::of(&image, 2, 0x80).runs[0].0;
    damage(bitmap + log / 8 + 1, 0xFD, "marked free");
    let root = Attribute::of(&image, 5, 0x10).record;
    damage(root + 510, 0x77, "torn");
    damage(root, b'B', "should be in use");
    let first = Attribute::of(&image, 1, 0x10).record;
    damage(first + 0x100, 0x77, "$MFTMirr differ");
    damage(0x2A, 0xFF, "more than");
    damage(0x40, 0, "records of 0 bytes");
}

/// What lies on the device while ntfs-3g writes.
#[test]
fn a_copy_taken_while_mounted_keeps_what_it_has() {
    if !privileged_with_fs("fuseblk", "a copy of a mounted NTFS volume") {
        return;
    }
    let dir = scratch();
    let image = volume(dir.path(), 48 * MIB, 512, &[]);
    let copy = dir.path().join("copy");
    let mut contents = Vec::new();
    filled(&image, 512, "rw", |root| {
        aged::age(root, 4 * MIB, 9, NTFS);
        let mut stream = Stream::new(33);
        for n in 0..60 {
            let content = stream.bytes(1000 + n * 997);
            let mut file = File::create(root.join(format!("synced-{n}"))).unwrap();
            file.write_all(&content).unwrap();
            file.sync_all().unwrap();
            contents.push(content);
        }
        // The image as it lies there, without a chance for ntfs-3g to finish.
        fs::copy(&image, &copy).unwrap();
    });
    let shown = content(&copy, 512);
    let cycle = Cycle::of(&copy, dir.path());
    assert_eq!(cycle.only().kind(), "NTFS");
    shown.assert_same(&content(&cycle.restored, 512));
    let mounted = dir.path().join("mnt");
    let device = Loop::new(&cycle.restored);
    let mount = Mount::read_only(device.path(), &mounted);
    let there = |n: usize| mount.path().join(format!("synced-{n}"));
    let intact = |(n, content): &(usize, &Vec<u8>)| {
        there(*n).exists() && fs::read(there(*n)).unwrap() == **content
    };
    let intact = contents.iter().enumerate().filter(intact).count();
    let original = original_intact(&copy, &contents);
    assert_eq!(intact, original);
    assert!(original > 0);
}

fn original_intact(copy: &Path, contents: &[Vec<u8>]) -> usize {
    let dir = scratch();
    let device = Loop::new(copy);
    let mount = Mount::read_only(device.path(), &dir.path().join("mnt"));
    let read = |n: usize| fs::read(mount.path().join(format!("synced-{n}")));
    let same = |(n, content): &(usize, &Vec<u8>)| read(*n).is_ok_and(|found| found == **content);
    contents.iter().enumerate().filter(same).count()
}
