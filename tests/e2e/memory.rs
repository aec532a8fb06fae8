//! Memory follows the budget, not the disk.

use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::{Mount, privileged};
use crate::kit::run::Strata;
use crate::kit::store::Store;
use crate::kit::{GIB, KIB, MIB, TIB, long, scratch, size};
use nix::sys::resource::{UsageWho, getrusage};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// The budget for buffers and tables, and what the program itself may take beside it.
const LIMIT: u64 = (256 + 64) * MIB;

const MEASURED: &str = "STRATA_TEST_MEASURED";

/// The peak of a run that must succeed, in bytes.
#[track_caller]
fn peak(run: &Strata) -> u64 {
    let line = run.command_line().into_iter();
    let line: Vec<String> = line.map(|word| word.into_string().unwrap()).collect();
    peak_of(&line)
}

/// The peak of a command line that must succeed. This very program is started once more between
/// them, for the kernel tells the peak of children only as the maximum of all.
#[track_caller]
fn peak_of(line: &[String]) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["memory::measured", "--exact", "--ignored", "--nocapture"])
        .env(MEASURED, serde_json::to_string(&line).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line:?}:\n{said}\n{words}");
    let found = said.lines().find_map(|l| l.split_once("PEAK KIB "));
    found
        .unwrap_or_else(|| panic!("{said}"))
        .1
        .trim()
        .parse::<u64>()
        .unwrap()
        * KIB
}

#[test]
#[ignore = "not a test: the middle process of a measurement"]
fn measured() {
    let Some(line) = std::env::var_os(MEASURED) else {
        return;
    };
    let line: Vec<String> = serde_json::from_str(line.to_str().unwrap()).unwrap();
    let status = Command::new(&line[0]).args(&line[1..]).status().unwrap();
    assert!(status.success(), "{line:?}: {status}");
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!("PEAK KIB {peak}");
}

/// A sparse disk with `data` bytes in pieces of a mebibyte, spread evenly, half of it random.
fn sparse_disk(path: &Path, len: u64, data: u64) {
    bytes::create_sparse(path, len);
    let file = bytes::open_rw(path);
    let pieces = data / MIB;
    let mut stream = Stream::new(151);
    for piece in 0..pieces {
        let at = (len / pieces * piece) / 512 * 512;
        let mut content = stream.bytes(MIB / 2);
        content.resize(size(MIB), 7);
        file.write_all_at(&content, at).unwrap();
    }
}

/// Peaks of backup, deep verify and restore of a disk of `len` bytes that is built in `dir`.
fn peaks(dir: &Path, len: u64, data: u64) -> [u64; 3] {
    let disk = dir.join("disk.img");
    sparse_disk(&disk, len, data);
    let store = Store::new(dir, "store");
    let backup = peak(&store.backup(&disk));
    let verify = peak(&store.verb("verify").arg("--deep"));
    let target = dir.join("target.img");
    let restore = peak(&store.restore("latest", &target));
    bytes::assert_same(&disk, &target);
    std::fs::remove_dir_all(&store.dir).unwrap();
    std::fs::remove_file(&disk).unwrap();
    std::fs::remove_file(&target).unwrap();
    [backup, verify, restore]
}

/// Fails unless both stay within the limit and differ by no more than a tenth of it: how many
/// buffers are in flight at once differs from run to run.
#[track_caller]
fn assert_alike(small: [u64; 3], large: [u64; 3]) {
    for (what, (small, large)) in ["backup", "verify --deep", "restore"]
        .iter()
        .zip(small.into_iter().zip(large))
    {
        println!("{what}: {} MiB, {} MiB", small / MIB, large / MIB);
        assert!(
            large <= LIMIT && small <= LIMIT,
            "{what}: {small} and {large} bytes"
        );
        let apart = small.abs_diff(large);
        assert!(
            apart * 10 <= LIMIT,
            "{what}: {small} bytes and {large} bytes"
        );
    }
}

#[test]
fn is_the_same_for_8_gib_and_8_tib_with_the_same_data() {
    let data = if long() { GIB } else { 256 * MIB };
    let dir = scratch();
    let small = peaks(dir.path(), 8 * GIB, data);
    assert_alike(small, peaks(dir.path(), 8 * TIB, data));
}

#[test]
#[ignore = "a long campaign: needs a file system in memory"]
fn is_the_same_for_64_tib() {
    if !privileged("memory for a disk of 64 TiB") {
        return;
    }
    let dir = scratch();
    let small = peaks(dir.path(), 8 * GIB, 256 * MIB);
    let mount = Mount::memory(&dir.path().join("tmpfs"), 2 * GIB);
    assert_alike(small, peaks(mount.path(), 64 * TIB, 256 * MIB));
}

/// A measurement that could not see a large process would prove nothing.
#[test]
fn is_measured_rightly() {
    let dir = scratch();
    let file = dir.path().join("file");
    bytes::create_filled(&file, 200 * MIB);
    // `sort` keeps a line in memory, and this file is one line.
    let line = ["sort", "--output=/dev/null", file.to_str().unwrap()];
    let peak = peak_of(&line.map(str::to_owned));
    assert!(peak >= 200 * MIB, "{peak} bytes for a line of 200 MiB");
}
