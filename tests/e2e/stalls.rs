//! A disk or a store that does not answer: what is waited for is named within ten seconds, and whoever wants to
//! stop is not kept.

use crate::kit::bytes::Stream;
use crate::kit::recorded::RecordedFolder;
use crate::kit::run::{Outcome, Running, strata};
use crate::kit::{MIB, scratch};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer than anything may take without a word.
const HANG: Duration = Duration::from_secs(9);
/// Whoever wants to stop is let go sooner.
const LEAVE: Duration = Duration::from_secs(4);
/// No run takes so long to begin.
const LIMIT: Duration = Duration::from_secs(60);

fn content(len: u64) -> Vec<u8> {
    Stream::new(1).bytes(len)
}

fn disk(folder: &Path) -> PathBuf {
    let path = folder.join("disk.img");
    std::fs::write(&path, content(96 * MIB)).unwrap();
    path
}

fn backup(disk: &Path, store: &Path) -> Running {
    let run = strata("backup").arg(disk).arg("--store").arg(store);
    run.args(["--set", "disk"]).start()
}

fn verify(store: &Path) -> Outcome {
    strata("verify")
        .args(["--deep", "--store"])
        .arg(store)
        .run()
}

/// Lets it hang for a while and looks at what it said by then.
fn answered_late(folder: &RecordedFolder, run: Running, what: &str) {
    std::thread::sleep(HANG);
    folder.release();
    let outcome = run.wait().expect(0);
    let said = |words: &str| {
        let line = |line: &&str| line.contains(words) && line.contains(what);
        outcome.stderr.lines().any(|l| line(&l))
    };
    assert!(said("waiting for"), "{what}: {outcome}");
    assert!(said("answered after"), "{what}: {outcome}");
}

/// Waits until a run has begun its image.
fn begun(folder: &RecordedFolder) {
    let start = Instant::now();
    while !folder.has("unfinished") {
        assert!(start.elapsed() < LIMIT, "no image was begun");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_store_that_does_not_answer_is_named() {
    let Some(folder) = RecordedFolder::mount("a store that hangs") else {
        return;
    };
    let dir = scratch();
    let disk = disk(dir.path());
    let name = folder.path().display().to_string();
    let run = backup(&disk, folder.path());
    begun(&folder);
    folder.hang();
    answered_late(&folder, run, &name);
    folder.hang();
    let run = strata("verify").arg("--store").arg(folder.path()).start();
    answered_late(&folder, run, &name);
    verify(folder.path()).expect(0);
}

#[test]
fn a_disk_that_does_not_answer_is_named() {
    let Some(folder) = RecordedFolder::mount("a disk that hangs") else {
        return;
    };
    let dir = scratch();
    // Longer than the buffers: it cannot all be read before it hangs.
    folder.put("disk.img", content(400 * MIB));
    let disk = folder.path().join("disk.img");
    let store = dir.path().join("store");
    let run = backup(&disk, &store);
    let start = Instant::now();
    let unfinished = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|e| e.file_name().to_string_lossy().contains("unfinished"))
    };
    while !std::fs::read_dir(&store).is_ok_and(|mut all| all.any(unfinished)) {
        assert!(start.elapsed() < LIMIT, "no image was begun");
        std::thread::sleep(Duration::from_millis(1));
    }
    folder.hang();
    answered_late(&folder, run, "disk.img");
    folder.hang();
    answered_late(&folder, backup(&disk, &store), "disk.img");
}

#[test]
fn a_store_that_does_not_answer_keeps_nobody() {
    let Some(folder) = RecordedFolder::mount("a store that keeps a run") else {
        return;
    };
    let dir = scratch();
    let disk = disk(dir.path());
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = backup(&disk, folder.path());
        begun(&folder);
        folder.hang();
        std::thread::sleep(Duration::from_secs(1));
        run.signal(signal);
        let told = Instant::now();
        let outcome = run.wait();
        let took = told.elapsed();
        folder.release();
        let outcome = outcome.expect(code);
        assert!(took < LEAVE, "{took:?}: {outcome}");
        assert!(outcome.stderr.contains("does not return"), "{outcome}");
        assert!(folder.has("unfinished"), "nobody could take it away");
    }
    backup(&disk, folder.path()).wait().expect(0);
    verify(folder.path()).expect(0);
    assert!(!folder.has("unfinished"));
}
