//! What a run may take: bytes a second, priority, threads, memory. That it takes no more is shown; that a disk
//! comes back as it was, too.

use crate::kit::bytes::{self, Stream};
use crate::kit::run::{Outcome, Running, Strata, strata};
use crate::kit::store::{Store, number, text};
use crate::kit::{MIB, scratch, size};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A file of 3 MiB that cannot be compressed.
fn disk(dir: &Path) -> PathBuf {
    let path = dir.join("disk.img");
    std::fs::write(&path, Stream::new(77).bytes(3 * MIB)).unwrap();
    path
}

/// Runs `command`, which must succeed and cannot end earlier than its limit allows: 3 MiB at a mebibyte a second,
/// of which the first one and a quarter of a second are free.
#[track_caller]
fn takes_its_time(command: &Strata) -> Outcome {
    let start = Instant::now();
    let outcome = command.run().expect(0);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1500), "{took:?}");
    outcome
}

#[test]
fn bytes_move_no_faster_than_a_person_allows() {
    let dir = scratch();
    let disk = disk(dir.path());
    let store = Store::new(dir.path(), "store");
    let backup = |limit: &str| store.backup(&disk).arg("--full").args([limit, "1M"]);
    takes_its_time(&backup("--limit-read"));
    takes_its_time(&backup("--limit-write"));
    takes_its_time(&store.verb("verify").args(["latest", "--limit-read", "1M"]));
    for limit in ["--limit-read", "--limit-write"] {
        let target = dir.path().join("restored.img");
        let restore = store.restore("latest", &target).arg("--no-read-back");
        takes_its_time(&restore.args([limit, "1M"]));
        bytes::assert_same(&disk, &target);
        std::fs::remove_file(&target).unwrap();
        let copies = dir.path().join(&limit[2..]);
        let copy = store.verb("copy").arg("latest").arg("--to").arg(&copies);
        takes_its_time(&copy.args([limit, "1M"]));
        let export = store.verb("export").arg("latest").arg(&target);
        takes_its_time(&export.args([limit, "1M"]));
        bytes::assert_same(&disk, &target);
        std::fs::remove_file(&target).unwrap();
    }
}

#[test]
fn pipes_are_limited_too() {
    let dir = scratch();
    let disk = disk(dir.path());
    let target = dir.path().join("restored.img");
    let into = strata("backup")
        .arg(&disk)
        .args(["--store", "-", "--limit-write", "1M"]);
    let image = takes_its_time(&into).stdout;
    let restore = strata("restore").args(["-", "--yes"]).arg(&target);
    let restore = restore.args(["--limit-read", "1M"]).input(&image);
    takes_its_time(&restore);
    bytes::assert_same(&disk, &target);
    let store = Store::new(dir.path(), "store");
    store.backup(&disk).run().expect(0);
    let export = store
        .verb("export")
        .args(["latest", "-", "--limit-write", "1M"]);
    assert!(takes_its_time(&export).stdout == std::fs::read(&disk).unwrap());
}

/// A backup that takes long, once `threads` of it are there.
fn waiting(store: &Store, disk: &Path, rate: &str, threads: usize, words: &[&str]) -> Running {
    let limit = ["--limit-read", rate, "--threads", "3"];
    let running = store.backup(disk).args(limit).args(words).start();
    let tasks = PathBuf::from(format!("/proc/{}/task", running.id()));
    let start = Instant::now();
    while !std::fs::read_dir(&tasks).is_ok_and(|tasks| tasks.count() >= threads) {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

/// One that listens for signals, one that does the work and writes, three workers; one that plans has
/// little to do.
const THREADS: usize = 5;

#[test]
fn who_waits_for_a_limit_can_be_stopped() {
    let dir = scratch();
    let disk = disk(dir.path());
    let store = Store::new(dir.path(), "store");
    let running = waiting(&store, &disk, "1K", 2, &[]);
    std::thread::sleep(Duration::from_millis(300));
    running.signal("INT");
    let start = Instant::now();
    let outcome = running.wait();
    assert_eq!(outcome.code(), Some(130), "{outcome}");
    assert!(start.elapsed() < Duration::from_secs(5), "{outcome}");
    assert_eq!(store.files(), Vec::new());
    store.backup(&disk).run().expect(0);
}

/// Nice values and I/O priorities of the threads of a process.
fn priorities(id: u32) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let of_task = |task: PathBuf| {
        // It may have ended.
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        // proc_pid_stat(5): field 19, and the second one ends with the last bracket.
        let behind = stat.rsplit_once(") ")?.1.to_owned();
        let nice = behind.split(' ').nth(19 - 3)?.to_owned();
        let said = Command::new("ionice")
            .arg("-p")
            .arg(task.file_name()?)
            .output()
            .unwrap();
        let class = String::from_utf8(said.stdout).unwrap();
        said.status
            .success()
            .then(|| (nice, class.trim().to_owned()))
    };
    tasks
        .filter_map(|task| of_task(task.unwrap().path()))
        .collect()
}

#[test]
fn other_programs_come_first_when_asked() {
    let dir = scratch();
    let disk = dir.path().join("disk.img");
    std::fs::write(&disk, Stream::new(78).bytes(40 * MIB)).unwrap();
    let store = Store::new(dir.path(), "store");
    let behind = ("10".to_owned(), "best-effort: prio 7".to_owned());
    for (words, wanted) in [(vec!["--nice"], true), (vec![], false)] {
        let running = waiting(&store, &disk, "10M", THREADS, &words);
        let found = priorities(running.id());
        running.signal("TERM");
        running.wait().expect(143);
        let standing_back = found.iter().filter(|p| **p == behind).count();
        // Some may have ended meanwhile.
        assert!(found.len() > 2, "{found:?}");
        // All but the one that listens for signals.
        let expected = if wanted { found.len() - 1 } else { 0 };
        assert_eq!(standing_back, expected, "{found:?}");
    }
}

#[test]
fn one_thread_and_little_memory_are_enough() {
    let dir = scratch();
    let disk = disk(dir.path());
    let little = ["--threads", "1", "--memory", "16M"];
    let store = Store::new(dir.path(), "store");
    store.backup(&disk).args(little).run().expect(0);
    bytes::flip(&disk, 1_234_567);
    store.backup(&disk).args(little).run().expect(0);
    store
        .verb("verify")
        .arg("--deep")
        .args(little)
        .run()
        .expect(0);
    let target = dir.path().join("restored.img");
    store
        .restore("latest", &target)
        .args(little)
        .run()
        .expect(0);
    bytes::assert_same(&disk, &target);
    store
        .verb("merge")
        .args(["..latest"])
        .args(little)
        .run()
        .expect(0);
    store
        .restore("latest", &target)
        .args(little)
        .run()
        .expect(0);
    bytes::assert_same(&disk, &target);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let dir = scratch();
    let disk = disk(dir.path());
    let store = Store::new(dir.path(), "store");
    for (name, value) in [
        ("--limit-read", "0"),
        ("--limit-read", "fast"),
        ("--limit-write", "1023"),
        ("--threads", "0"),
        ("--threads", "2000"),
        ("--memory", "15M"),
        ("--memory", "-1"),
    ] {
        let word = format!("{name}={value}");
        let outcome = store.backup(&disk).arg(&word).run();
        assert_eq!(outcome.code(), Some(2), "{word}: {outcome}");
    }
    assert_eq!(store.files(), Vec::new());
}

/// Short words in an order that nobody knows, which more effort compresses better.
fn words(len: u64) -> Vec<u8> {
    let mut stream = Stream::new(79);
    let letters = |bytes: &[u8]| bytes.iter().map(|b| b'a' + b % 10).collect();
    let words: Vec<Vec<u8>> = (0..600)
        .map(|n| letters(&stream.bytes(3 + n % 4)))
        .collect();
    let mut text = Vec::new();
    while text.len() < size(len) {
        text.extend_from_slice(&words[size(stream.below(600))]);
        text.push(b' ');
    }
    text.truncate(size(len));
    text
}

#[test]
fn a_slow_store_gets_smaller_images_when_asked() {
    let dir = scratch();
    let disk = dir.path().join("disk.img");
    std::fs::write(&disk, words(64 * MIB)).unwrap();
    let bytes_of = |name: &str, how: &[&str]| {
        let store = Store::new(dir.path(), name);
        store
            .backup(&disk)
            .args(["--threads", "1"])
            .args(how)
            .run()
            .expect(0);
        number(&store.list()[0], "bytes")
    };
    let usual = bytes_of("usual", &[]);
    let slow = bytes_of("slow", &["--compression", "auto", "--limit-write", "4M"]);
    assert!(slow < usual * 97 / 100, "{slow} of {usual}");
    let fast = bytes_of("fast", &["--compression", "auto"]);
    assert!(fast <= usual + usual / 100, "{fast} of {usual}");
    let store = Store::at(&dir.path().join("slow"));
    let shown = store
        .verb("show")
        .arg("latest")
        .arg("--json")
        .run()
        .expect(0);
    assert_eq!(text(&shown.json(), "compression"), "auto");
    store.verify(&["--deep"]).expect(0);
    let target = dir.path().join("restored.img");
    store.restore("latest", &target).run().expect(0);
    bytes::assert_same(&disk, &target);

    // What is put together anew goes on so.
    bytes::flip(&disk, 20_000_000);
    store
        .backup(&disk)
        .args(["--compression", "auto"])
        .run()
        .expect(0);
    store.verb("merge").arg("..latest").run().expect(0);
    let copies = dir.path().join("copies");
    let copy = store.verb("copy").args(["latest", "--recompress", "auto"]);
    copy.arg("--to").arg(&copies).run().expect(0);
    std::fs::remove_file(&target).unwrap();
    Store::at(&copies)
        .restore("latest", &target)
        .run()
        .expect(0);
    bytes::assert_same(&disk, &target);
}
