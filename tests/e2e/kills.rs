//! Runs that are killed at any moment, or asked to stop: nothing half-made is ever taken for whole.

use crate::kit::bytes::{self, Stream, assert_same, same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Outcome, Running, STRATA, Strata, text};
use crate::kit::store::{Store, number};
use crate::kit::{MIB, long, scratch, tools};
use crate::moments::{Moments, time, was_killed};
use std::path::Path;
use std::time::Duration;

/// A bootable disk of 64 MiB with a GPT and data that partly compresses.
fn bootable(dir: &Path, name: &str, seed: u64) -> std::path::PathBuf {
    let path = dir.join(name);
    let mut stream = Stream::new(seed);
    bytes::create_sparse(&path, 64 * MIB);
    tools::run(
        "sgdisk",
        &[
            "-n1:2048:+60M",
            "-t1:8300",
            "-A1:set:2",
            path.to_str().unwrap(),
        ],
    );
    bytes::write(&path, 0, &stream.bytes(440));
    for at in (1..60).step_by(4) {
        bytes::write(&path, at * MIB, &stream.bytes(MIB / 2));
        bytes::write(&path, at * MIB + MIB, &stream.text(2 * MIB));
    }
    path
}

fn rounds(each: u64) -> u64 {
    if long() { each * 4 } else { each }
}

/// One share of the killed backups; each share has a store of its own.
fn killed_backups(seed: u64, rounds: u64) {
    let dir = scratch();
    let disk = bootable(dir.path(), "source.img", seed);
    let measured = Store::new(dir.path(), "measured");
    let full = |store: &Store| store.backup(&disk).arg("--full");
    let mut moments = Moments::of(seed, rounds, || {
        time(|| drop(full(&measured).run().expect(0)))
    });
    std::fs::remove_dir_all(&measured.dir).unwrap();

    let store = Store::new(dir.path(), "store");
    let mut there = 0;
    let mut killed = 0;
    while moments.go_on(killed) {
        let outcome = moments.kill(&full(&store));
        killed += u64::from(was_killed(&outcome));
        let when = moments.when();
        assert!(matches!(outcome.code(), None | Some(0)), "{outcome}");
        let listed = store.list().len();
        let published = outcome.code() == Some(0);
        let right = listed == there + 1 || (listed == there && !published);
        assert!(right, "{when}: {listed} images, {there} before: {outcome}");
        store.backed_up(&disk);
        there = store.list().len();
        assert_eq!(there, listed + 1, "{when}");
    }
    store.verify::<&str>(&[]).expect(0);
    store.verify(&["latest", "--deep"]).expect(0);
    store.assert_no_clutter();
    let target = dir.path().join("target.img");
    store.restore("latest", &target).run().expect(0);
    assert_same(&disk, &target);
}

#[test]
fn a_killed_backup_leaves_nothing_that_counts_1() {
    killed_backups(121, rounds(25));
}

#[test]
fn a_killed_backup_leaves_nothing_that_counts_2() {
    killed_backups(122, rounds(25));
}

#[test]
fn a_killed_backup_leaves_nothing_that_counts_3() {
    killed_backups(123, rounds(25));
}

#[test]
fn a_killed_backup_leaves_nothing_that_counts_4() {
    killed_backups(124, rounds(25));
}

/// What a target is after its restore was killed.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Untouched,
    Unfinished,
    Whole,
}

fn state(target: &Path, old: &Path, new: &Path) -> State {
    if same(target, old) {
        State::Untouched
    } else if same(target, new) {
        State::Whole
    } else {
        State::Unfinished
    }
}

/// Fails when a firmware or a kernel would take the disk for one that can be used.
#[track_caller]
fn assert_not_bootable(target: &Path, old: &Path, new: &Path) {
    assert_eq!(
        tools::table(target),
        None,
        "sfdisk finds a table on an unfinished disk"
    );
    let len = bytes::length(target);
    let head = bytes::read(target, 0, 1024);
    assert_ne!(head[510..512], [0x55, 0xAA], "the boot signature is there");
    assert_ne!(
        &head[512..520],
        b"EFI PART",
        "the primary GPT header is there"
    );
    assert!(head[..440].iter().all(|b| *b == 0), "boot code is there");
    if bytes::read(target, len - 512, 8) == b"EFI PART" {
        // No firmware looks there without a protective MBR, but a repair tool would: it may only
        // be there before the first and after the last byte of content was written.
        let content = |truth| {
            bytes::first_difference(truth, 2 * MIB, target, 2 * MIB, len - 4 * MIB).is_none()
        };
        assert!(
            content(old) || content(new),
            "the backup GPT header over mixed content"
        );
    }
}

fn killed_restores(seed: u64, rounds: u64) {
    let dir = scratch();
    let new = bootable(dir.path(), "new.img", seed);
    let old = bootable(dir.path(), "old.img", seed + 1000);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&new);
    let target = dir.path().join("target.img");
    let set_up = || {
        std::fs::copy(&old, &target).unwrap();
        tools::run("sync", &["-f", target.to_str().unwrap()]);
    };
    let restore = store.restore("latest", &target);
    let whole = || time(|| drop(restore.run().expect(0)));
    let mut moments = Moments::of(seed, rounds, || {
        set_up();
        whole()
    });
    let mut unfinished = 0;
    while moments.go_on(unfinished) {
        set_up();
        let outcome = moments.kill(&restore);
        let state = state(&target, &old, &new);
        if outcome.code() == Some(0) {
            let when = moments.when();
            assert_eq!(state, State::Whole, "{when}: it said that it was done");
        }
        if state == State::Unfinished {
            unfinished += 1;
            assert_not_bootable(&target, &old, &new);
        }
        // The same command once more makes it whole.
        moments.takes(whole());
        assert_same(&new, &target);
    }
    store.assert_no_clutter();
}

#[test]
fn a_killed_restore_leaves_no_bootable_disk_1() {
    killed_restores(131, rounds(20));
}

#[test]
fn a_killed_restore_leaves_no_bootable_disk_2() {
    killed_restores(132, rounds(20));
}

/// A store with four images of one disk, and the disk as each of them holds it.
struct Four {
    dir: tempfile::TempDir,
    template: Store,
    copies: Vec<std::path::PathBuf>,
}

impl Four {
    fn new(seed: u64) -> Four {
        let dir = scratch();
        let disk = dir.path().join("disk.img");
        bytes::create_sparse(&disk, 24 * MIB);
        let template = Store::new(dir.path(), "template");
        let mut copies = Vec::new();
        for number in 0..4 {
            bytes::write_random(&disk, number * 3 * MIB, 9 * MIB, seed + number);
            template
                .backup(&disk)
                .args(["--set", "disk"])
                .run()
                .expect(0);
            let copy = dir.path().join(format!("copy-{number}"));
            std::fs::copy(&disk, &copy).unwrap();
            copies.push(copy);
        }
        Four {
            dir,
            template,
            copies,
        }
    }

    /// The store as it was, to be disturbed.
    fn fresh(&self) -> Store {
        let dir = self.dir.path().join("store");
        let _ = std::fs::remove_dir_all(&dir);
        tools::run("cp", &["-a", text(&self.template.dir), text(&dir)]);
        Store::at(&dir)
    }

    /// Every image that is listed restores to what it was; those of `stay` are listed.
    fn whole(&self, store: &Store, stay: &[u64], what: &str) {
        let listed = store.list();
        let numbers: Vec<u64> = listed.iter().map(|i| number(i, "sequence")).collect();
        let there = stay.iter().all(|n| numbers.contains(n));
        assert!(there, "{what}: {numbers:?} of {stay:?}");
        store.verify(&["--deep"]).expect(0);
        let target = self.dir.path().join("target.img");
        for (image, number) in listed.iter().zip(numbers) {
            let _ = std::fs::remove_file(&target);
            store
                .restore(image["id"].as_str().unwrap(), &target)
                .run()
                .expect(0);
            assert_same(&self.copies[crate::kit::size(number - 1)], &target);
        }
    }
}

/// Kills `run` at moments all over it. Images of the numbers `stay` must be there whatever happens, and doing it
/// again ends well.
fn killed_runs(what: &str, seed: u64, rounds: u64, stay: &[u64], run: impl Fn(&Store) -> Strata) {
    let four = Four::new(seed);
    let mut moments = Moments::of(seed, rounds, || {
        let run = run(&four.fresh());
        time(|| drop(run.run().expect(0)))
    });
    let mut killed = 0;
    while moments.go_on(killed) {
        let store = four.fresh();
        let outcome = moments.kill(&run(&store));
        killed += u64::from(was_killed(&outcome));
        assert!(matches!(outcome.code(), None | Some(0)), "{outcome}");
        let when = format!("{what}, {}", moments.when());
        four.whole(&store, stay, &when);
        // What was asked for may have been done already.
        let again = run(&store).run();
        assert!(matches!(again.code(), Some(0 | 10)), "{when}: {again}");
        store
            .verb("prune")
            .args(["--keep-last", "9"])
            .run()
            .expect(0);
        four.whole(&store, stay, &when);
        store.assert_no_clutter();
    }
}

#[test]
fn a_killed_prune_loses_nothing() {
    killed_runs("prune", 161, rounds(10), &[3, 4], |store| {
        store.verb("prune").args(["--keep-last", "2"])
    });
}

#[test]
fn a_killed_merge_loses_nothing() {
    killed_runs("merge", 162, rounds(10), &[1, 3, 4], |store| {
        // By their ids: once it is done, a place in the history means another image.
        let images = Store::at(&store.dir.with_file_name("template")).list();
        let id = |at: usize| images[at]["id"].as_str().unwrap();
        store.verb("merge").arg(format!("{}..{}", id(1), id(2)))
    });
}

#[test]
fn a_killed_verification_changes_nothing() {
    killed_runs("verify", 163, rounds(8), &[1, 2, 3, 4], |store| {
        store.verb("verify").arg("--deep")
    });
}

#[test]
fn a_killed_copy_loses_nothing() {
    killed_runs("copy in place", 164, rounds(8), &[1, 2, 3, 4], |store| {
        let copy = store.verb("copy").arg("--all");
        copy.args(["--recompress", "zstd:1"])
    });
    // Into another store, from which nothing goes.
    killed_runs("copy", 165, rounds(4), &[1, 2, 3, 4], |store| {
        let into = store.dir.with_file_name("into");
        let _ = std::fs::remove_dir_all(&into);
        store.verb("copy").arg("--all").arg("--to").arg(into)
    });
}

/// Starts `run`, halts it in the middle of its work, sends it `signal` and lets it go on. `None`
/// when it was faster than the look at it.
fn interrupted(run: &Strata, signal: &str, bytes_in: u64) -> Option<Outcome> {
    let mut running = run.start();
    while !running.has_ended() && bytes_read(&running) < bytes_in {
        std::thread::yield_now();
    }
    if running.has_ended() {
        return None;
    }
    running.signal("STOP");
    running.signal(signal);
    running.signal("CONT");
    Some(running.wait())
}

/// Bytes that a run has read with any call.
fn bytes_read(running: &Running) -> u64 {
    let path = format!("/proc/{}/io", running.id());
    let told = std::fs::read_to_string(path).unwrap_or_default();
    let line = told.lines().find_map(|l| l.strip_prefix("rchar: "));
    line.map_or(0, |n| n.parse().unwrap())
}

/// A disk whose backup takes long enough to be caught at it.
fn large(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("large.img");
    bytes::create_sparse(&path, 384 * MIB);
    bytes::write_random(&path, 0, 384 * MIB, 141);
    path
}

#[test]
fn a_backup_that_is_asked_to_stop_leaves_nothing() {
    let dir = scratch();
    let disk = large(dir.path());
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let store = Store::new(dir.path(), signal);
        // However late it is caught: 64 MiB would stay, for the next run to go on with.
        let run = store.backup(&disk).args(["--limit-write", "40M"]);
        let outcome = interrupted(&run, signal, 32 * MIB).expect("caught at its work");
        outcome.expect(code);
        assert_eq!(store.files(), [], "after SIG{signal}");
        assert_eq!(store.list().len(), 0);
    }
    let store = Store::new(dir.path(), "json");
    let run = store.backup(&disk).arg("--json");
    let outcome = interrupted(&run, "INT", 32 * MIB)
        .expect("caught at its work")
        .expect(130);
    assert_eq!(outcome.json()["error"]["kind"], "interrupted", "{outcome}");
}

#[test]
fn reading_verbs_stop_when_asked_to() {
    let dir = scratch();
    let disk = large(dir.path());
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = store.verb("verify").arg("--deep");
        interrupted(&run, signal, 32 * MIB)
            .expect("caught at its work")
            .expect(code);
        let raw = dir.path().join("export.raw");
        let run = store.verb("export").arg("latest").arg(&raw);
        interrupted(&run, signal, 32 * MIB)
            .expect("caught at its work")
            .expect(code);
        assert!(!raw.exists(), "half an export");
    }
    store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_restore_that_is_asked_to_stop_leaves_no_bootable_disk() {
    let dir = scratch();
    let disk = large(dir.path());
    bytes::write(&disk, 0, &[0; 1024]);
    tools::run("sgdisk", &["-n1:2048:+300M", disk.to_str().unwrap()]);
    let store = Store::new(dir.path(), "store");
    let image = store.backed_up(&disk);
    let read_once = image["bytes"].as_u64().unwrap();
    let target = dir.path().join("target.img");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        bytes::create_filled(&target, bytes::length(&disk));
        bytes::write(&target, 0, &[0; 1024]);
        tools::run("sgdisk", &["-n1:2048:+200M", target.to_str().unwrap()]);
        let before = bytes::fingerprint(&target);
        let run = store.restore("latest", &target);
        // The image is checked before anything is written.
        let early = interrupted(&run, signal, 32 * MIB);
        early.expect("caught at its work").expect(code);
        assert_eq!(bytes::fingerprint(&target), before);
        let late = interrupted(&run, signal, read_once + 32 * MIB);
        late.expect("caught at its work").expect(code);
        assert_ne!(
            bytes::fingerprint(&target),
            before,
            "nothing was written yet"
        );
        assert_eq!(tools::table(&target), None, "a table on an unfinished disk");
    }
    let new = dir.path().join("new.img");
    let run = store.restore("latest", &new);
    let late = interrupted(&run, "INT", read_once + 32 * MIB);
    late.expect("caught at its work").expect(130);
    assert!(!new.exists(), "a file that the run made and did not finish");
    store.restore("latest", &target).run().expect(0);
    assert_same(&disk, &target);
}

#[test]
fn a_store_that_another_run_writes_to_is_locked_or_shared_safely() {
    let dir = scratch();
    let disk = large(dir.path());
    let small = Disk::build(Layout::Odd, dir.path(), "small.img", 142);
    let store = Store::new(dir.path(), "store");
    let mut first = store.backup(&disk).args(["--set", "same"]).start();
    while !first.has_ended() && bytes_read(&first) < 32 * MIB {
        std::thread::yield_now();
    }
    assert!(!first.has_ended(), "caught at its work");
    first.signal("STOP");
    // Reading is always possible, and shows nothing that is not finished.
    assert_eq!(store.list().len(), 0);
    store.verify::<&str>(&[]).expect(0);
    let second = store
        .backup(&small.path)
        .args(["--set", "same", "--json"])
        .run()
        .expect(9);
    assert_eq!(second.json()["error"]["kind"], "locked", "{second}");
    first.signal("CONT");
    first.wait().expect(0);
    assert_eq!(store.list().len(), 1);
    store
        .backup(&small.path)
        .args(["--set", "same"])
        .run()
        .expect(0);
    store.assert_no_clutter();
}

#[test]
fn a_lock_dies_with_its_holder() {
    let dir = scratch();
    let disk = large(dir.path());
    let store = Store::new(dir.path(), "store");
    let mut first = store.backup(&disk).start();
    while !first.has_ended() && bytes_read(&first) < 32 * MIB {
        std::thread::yield_now();
    }
    assert!(!first.has_ended(), "caught at its work");
    let killed = first.kill_after(Duration::ZERO);
    assert_eq!(killed.killed_by(), Some(9), "{killed}");
    store.backed_up(&disk);
    store.assert_no_clutter();
}

#[test]
fn no_standard_stream_is_needed() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "disk.img", 143);
    let store = Store::new(dir.path(), "store");
    let script = "exec \"$0\" backup \"$1\" --store \"$2\" <&- >&- 2>&-";
    let (disk_path, folder) = (disk.path.to_str().unwrap(), store.dir.to_str().unwrap());
    let run = ["-c", script, STRATA, disk_path, folder];
    let output = tools::try_run("sh", &run);
    assert!(
        matches!(output.status.code(), Some(0 | 6)),
        "{}",
        output.status
    );
    store.verify(&["--deep"]).expect(0);
}
