//! F2FS, aged by a kernel of its own: clean ones come back file by file with only what is in use,
//! and those that were not unmounted come back whole.

use crate::cycle::Cycle;
use crate::kit::bytes::{self, Stream};
use crate::kit::vm::{Vm, virtual_machine};
use crate::kit::{KIB, MIB, scratch, tools};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const BLOCK: u64 = 4 * KIB;
const SEGMENT: u64 = 512;

/// Ages the file system at `$1`: files of many sizes made and deleted twice, two that grow in turns,
/// a large folder, holes, links, owners, room that is reserved, and text that compresses. `manifest`
/// tells all that a restore must bring back.
const HELPERS: &str = "
write() { dd if=/dev/urandom of=$1 bs=1k count=$2 $3 $4 2>/dev/null; }
age() {
    cd $1
    for round in 0 1; do
        n=0
        while [ $n -lt 90 ]; do
            mkdir -p files/d$((n % 7))
            write files/d$((n % 7))/r$round-$n $(((n * n * 7 + 13) % 180 + 1))
            n=$((n + 1))
        done
        sync
        n=$round
        while [ $n -lt 90 ]; do rm -f files/d$((n % 7))/r$round-$n; n=$((n + 2 + round)); done
        sync
    done
    n=0
    while [ $n -lt 12 ]; do
        for f in a b; do write fragmented-$f 4 seek=$((4 * n)) conv=notrunc,fsync; done
        n=$((n + 1))
    done
    rm fragmented-b
    mkdir large
    n=0
    while [ $n -lt 1200 ]; do : >\"large/a quite long name for a file $n\"; n=$((n + 1)); done
    rm large/*[13579]
    write truncated 600 && truncate -s 70000 truncated
    write sparse 10 && write sparse 10 seek=300 && write sparse 10 seek=5000
    fallocate -l 200000 reserved
    seq 1 40000 >numbers.txt
    ln numbers.txt hard-link
    ln -s numbers.txt symlink
    chmod 4751 truncated && chown 1234:5678 truncated
    cd /
}
manifest() {
    cd $1
    find . -path ./large -prune -o -type f -exec sha256sum {} + | sort
    find . -path ./large -prune -o ! -type d -exec stat -c '%N %f %u:%g %h %s' {} + | sort
    find large 2>/dev/null | sort | sha256sum
    cd /
}
";

fn machine(disks: &[PathBuf]) -> Vm {
    let vm = Vm::new().module("quota_v2").module("f2fs");
    disks.iter().fold(vm, |vm, disk| vm.disk(disk))
}

fn made(dir: &Path, name: &str, len: u64, options: &[&str]) -> PathBuf {
    let image = dir.join(name);
    bytes::create_sparse(&image, len);
    let file = ["-q", "-l", name, image.to_str().unwrap()];
    tools::run("mkfs.f2fs", &[options, &file].concat());
    image
}

/// What `fsck.f2fs` says when it changes nothing; fails unless it finds nothing wrong.
#[track_caller]
fn checked(image: &Path) -> String {
    let arguments = ["--dry-run", image.to_str().unwrap()];
    let said = tools::run("fsck.f2fs", &arguments);
    assert!(
        said.contains("other corrupted bugs                           [Ok..]"),
        "{said}"
    );
    assert!(
        !said.contains("[Fail]") && !said.contains("ASSERT"),
        "{said}"
    );
    said
}

/// The number after `name` in what `dump.f2fs -d 1` prints: `name [0x 22e : 558]`.
#[track_caller]
fn field(dump: &str, name: &str) -> u64 {
    let line = dump
        .lines()
        .find(|l| l.split_whitespace().next() == Some(name));
    let value = line.and_then(|l| l.rsplit_once(" : ")?.1.trim_end_matches(']').parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {dump}"))
}

/// What is in use by the count of `dump.f2fs`: all before the main area and behind it, the segments
/// that are written to, and the blocks in use of the others. The checkpoint may count up to `reserved`
/// blocks more, which files have but were never written.
#[track_caller]
fn expected_used(image: &Path, dir: &Path, reserved: u64) -> u64 {
    let image_text = image.to_str().unwrap();
    let dump = tools::run("dump.f2fs", &["-d", "1", image_text]);
    let current: BTreeSet<u64> = ["node", "data"]
        .iter()
        .flat_map(|kind| (0..3).map(move |n| format!("cur_{kind}_segno[{n}]")))
        .map(|name| field(&dump, &name))
        .collect();
    let segments = field(&dump, "segment_count_main");
    let list = tools::tool("dump.f2fs")
        .args([OsStr::new("-s"), OsStr::new("0~-1"), image.as_os_str()])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(list.status.success(), "{list:?}");
    let list = std::fs::read_to_string(dir.join("dump_sit")).unwrap();
    let (mut listed, mut valid, mut free) = (0, 0, 0);
    for line in list.lines().filter(|l| l.starts_with("segno:")) {
        let mut numbers = line
            .split(|c: char| !c.is_ascii_digit())
            .filter(|n| !n.is_empty());
        let mut next = || numbers.next().unwrap().parse::<u64>().unwrap();
        let (segment, blocks) = (next(), next());
        listed += 1;
        valid += blocks;
        if !current.contains(&segment) {
            free += SEGMENT - blocks;
        }
    }
    assert_eq!(listed, segments, "{list}");
    let counted = field(&dump, "valid_block_count");
    assert!(
        (valid..=valid + reserved).contains(&counted),
        "{valid}: {dump}"
    );
    bytes::length(image) - free * BLOCK
}

/// Runs `script` for each disk, with its device and an empty folder; what each wrote.
#[track_caller]
fn each(disks: &[PathBuf], script: &str) -> Vec<String> {
    let mut whole = HELPERS.to_owned();
    for letter in ('a'..='z').take(disks.len()) {
        whole += &format!("set -- /dev/vd{letter} /mnt/{letter}; mkdir $2; set -e\n{script}\n");
        whole += "echo --next--\n";
    }
    let output = machine(disks).run(&whole).expect(Some(0));
    let mut parts: Vec<String> = output.split("--next--\n").map(str::to_owned).collect();
    parts.pop();
    assert_eq!(parts.len(), disks.len(), "{output}");
    parts
}

const AGE: &str = "
mount -t f2fs -o compress_extension=txt $1 $2 2>/dev/null || mount -t f2fs $1 $2
age $2; umount $2
mount -t f2fs $1 $2; manifest $2; umount $2";
/// Blocks that the aged disks may have reserved: the 49 of `fallocate -l 200000`, and of the 56 of
/// `numbers.txt` those that compression saves.
const RESERVED: u64 = 49 + 56;
const READ: &str = "mount -t f2fs $1 $2; manifest $2; umount $2";

#[test]
fn aged_file_systems_come_back() {
    if !virtual_machine("aged F2FS") {
        return;
    }
    let dir = scratch();
    let features = "extra_attr,project_quota,inode_checksum,flexible_inline_xattr,quota,\
                    inode_crtime,lost_found,verity,sb_checksum,casefold,compression,encrypt";
    let disks = [
        made(dir.path(), "plain", 128 * MIB, &[]),
        made(
            dir.path(),
            "featured",
            160 * MIB,
            &["-O", features, "-C", "utf8"],
        ),
        // Behind the last whole segment remains something.
        made(
            dir.path(),
            "extended",
            150 * MIB + 20 * KIB,
            &["-i", "-O", "extra_attr,sb_checksum"],
        ),
        made(dir.path(), "sections", 400 * MIB, &["-s", "4", "-z", "2"]),
    ];
    let before = each(&disks, AGE);
    let mut restored = Vec::new();
    for disk in &disks {
        checked(disk);
        let cycle = Cycle::of(disk, dir.path());
        cycle.only().assert_mapped("F2FS");
        assert_eq!(
            cycle.only().used(),
            expected_used(disk, dir.path(), RESERVED),
            "{}",
            disk.display()
        );
        checked(&cycle.restored);
        restored.push(cycle.restored);
    }
    for (before, after) in before.iter().zip(each(&restored, READ)) {
        assert!(before.lines().count() > 100, "{before}");
        assert_eq!(*before, after);
    }
}

#[test]
fn filled_by_sload_and_never_mounted() {
    let dir = scratch();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("folder")).unwrap();
    let mut stream = Stream::new(5);
    for n in 0..40 {
        let len = stream.below(200_000);
        std::fs::write(tree.join(format!("folder/{n}")), stream.bytes(len)).unwrap();
    }
    let image = made(
        dir.path(),
        "loaded",
        100 * MIB,
        &["-O", "extra_attr,compression"],
    );
    tools::run(
        "sload.f2fs",
        &["-P", "-f", tree.to_str().unwrap(), image.to_str().unwrap()],
    );
    checked(&image);
    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped("F2FS");
    assert_eq!(cycle.only().used(), expected_used(&image, dir.path(), 0));
    checked(&cycle.restored);
    if virtual_machine("files of a restored F2FS") {
        let manifests = each(&[image, cycle.restored], READ);
        assert!(manifests[0].lines().count() >= 80, "{}", manifests[0]);
        assert_eq!(manifests[0], manifests[1]);
    }
}

#[test]
fn just_made_and_empty() {
    let dir = scratch();
    let image = made(dir.path(), "new", 64 * MIB, &[]);
    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped("F2FS");
    assert_eq!(cycle.only().used(), expected_used(&image, dir.path(), 0));
    checked(&cycle.restored);
}

#[test]
fn synced_files_that_a_mount_would_recover_come_back() {
    if !virtual_machine("F2FS that was not unmounted") {
        return;
    }
    let dir = scratch();
    let disks = [
        made(dir.path(), "unmounted-before", 100 * MIB, &[]),
        made(
            dir.path(),
            "checkpoint",
            100 * MIB,
            &["-O", "extra_attr,inode_checksum"],
        ),
    ];
    // Both are unmounted once. On the first, files are only synced one by one: its last checkpoint
    // is still that of the unmount. On the second there is a checkpoint in between.
    let script = "set -e
        for x in a b; do
            mkdir /mnt/$x
            mount -t f2fs /dev/vd$x /mnt/$x; write /mnt/$x/old 900; umount /mnt/$x
        done
        mount -t f2fs /dev/vdb /mnt/b; write /mnt/b/between 500; sync
        mount -t f2fs /dev/vda /mnt/a
        for x in a b; do
            n=0
            while [ $n -lt 30 ]; do write /mnt/$x/synced-$n $((n * 9 + 1)) conv=fsync; n=$((n + 1)); done
        done
        cd /mnt; sha256sum a/* b/*
        power_cut";
    let before = machine(&disks)
        .run(&format!("{HELPERS}{script}"))
        .expect(None);
    assert_eq!(before.lines().count(), 63, "{before}");
    let mut restored = Vec::new();
    for (disk, was_unmounted) in disks.iter().zip([true, false]) {
        let said = checked(disk);
        let state = said
            .lines()
            .find(|l| l.contains("checkpoint state"))
            .unwrap();
        assert_eq!(state.contains("unmount"), was_unmounted, "{state}");
        let cycle = Cycle::of(disk, dir.path());
        cycle.only().assert_whole("F2FS", "it was not unmounted");
        bytes::assert_same(disk, &cycle.restored);
        restored.push(cycle.restored);
    }
    let script = "set -e
        for x in a b; do mkdir /mnt/$x; mount -t f2fs /dev/vd$x /mnt/$x; done
        cd /mnt; sha256sum a/* b/*
        dmesg | grep -c 'recover_inode: .*synced' >&2
        cd /; umount /mnt/a /mnt/b";
    let after = machine(&restored).run(script).expect(Some(0));
    let (after, recovered) = after.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(before.trim_end(), after);
    assert_eq!(recovered, "60", "files that the mounts recovered");
    // The mounts have left them clean.
    let again = dir.path().join("again");
    std::fs::create_dir(&again).unwrap();
    for disk in &restored {
        let cycle = Cycle::of(disk, &again);
        cycle.only().assert_mapped("F2FS");
        checked(&cycle.restored);
    }
}
