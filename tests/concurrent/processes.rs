//! The program itself, twice at once on one store, either killed at any moment; and one that sleeps.

use crate::kit::bytes::{self, Stream, assert_same};
use crate::kit::run::{Outcome, Running, Strata};
use crate::kit::store::{Store, text};
use crate::kit::{MIB, long, scratch};
use nix::unistd::Uid;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Both begin within this, and die within this if they die.
const SPREAD: u64 = 120;

/// A store with a history, and what each of its images holds.
struct Meeting {
    dir: tempfile::TempDir,
    store: Store,
    other: Store,
    disk: PathBuf,
    stream: Stream,
    /// The disks of images that were reported as made, by id.
    kept: BTreeMap<String, PathBuf>,
}

impl Meeting {
    fn new(seed: u64) -> Meeting {
        let dir = scratch();
        let disk = dir.path().join("disk.img");
        bytes::create_sparse(&disk, 3 * MIB);
        let mut meeting = Meeting {
            store: Store::new(dir.path(), "store"),
            other: Store::new(dir.path(), "other"),
            disk,
            dir,
            stream: Stream::new(seed),
            kept: BTreeMap::new(),
        };
        for _ in 0..4 {
            meeting.make();
        }
        meeting
    }

    fn change(&mut self) {
        let at = self.stream.below(2 * MIB);
        bytes::write(&self.disk, at, &self.stream.bytes(MIB / 4));
    }

    /// Makes one more image, undisturbed.
    fn make(&mut self) {
        self.change();
        let made = self.backup().run().expect(0);
        self.keep(&made);
    }

    fn backup(&self) -> Strata {
        self.store
            .backup(&self.disk)
            .args(["--set", "disk", "--json"])
    }

    fn keep(&mut self, made: &Outcome) {
        let image = &made.json()["image"];
        let id = text(image, "id").to_owned();
        let copy = self.dir.path().join(&id);
        std::fs::copy(&self.disk, &copy).unwrap();
        self.kept.insert(id, copy);
    }

    /// Any run, and whether it makes an image.
    fn any(&mut self) -> (Strata, bool) {
        let store = &self.store;
        let run = match self.stream.below(9) {
            0..=2 => return (self.backup(), true),
            3 => store.verb("prune").args(["--keep-last", "3"]),
            4 => store.verb("merge").arg("disk@-2..disk@-1"),
            5 => store.verb("verify").arg("--deep"),
            6 => store.verb("protect").arg("latest"),
            7 => store
                .verb("copy")
                .arg("latest")
                .arg("--to")
                .arg(&self.other.dir),
            _ => store.verb("list"),
        };
        (run.arg("--json"), false)
    }

    /// One run meets another.
    fn round(&mut self) -> [Option<i32>; 2] {
        self.change();
        let mut begun: Vec<(Running, bool, Duration)> = Vec::new();
        for _ in 0..2 {
            let (run, makes) = self.any();
            std::thread::sleep(Duration::from_millis(self.stream.below(SPREAD)));
            let dies = self.stream.below(2) == 0;
            let life = if dies {
                self.stream.below(SPREAD)
            } else {
                600_000
            };
            begun.push((run.start(), makes, Duration::from_millis(life)));
        }
        let ended: Vec<(Outcome, bool)> = std::thread::scope(|scope| {
            let wait = |(run, makes, life): (Running, bool, Duration)| {
                scope.spawn(move || (run.kill_after(life), makes))
            };
            let all: Vec<_> = begun.into_iter().map(wait).collect();
            all.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for (outcome, makes) in &ended {
            // 0 well, 4 what is protected is not merged, 9 locked, 10 gone.
            assert!(
                matches!(outcome.code(), None | Some(0 | 4 | 9 | 10)),
                "{outcome}"
            );
            if outcome.code() == Some(9) {
                assert!(outcome.all_text().contains("process "), "{outcome}");
            }
            if outcome.code() == Some(0) && *makes {
                self.keep(outcome);
            }
        }
        self.check();
        [ended[0].0.code(), ended[1].0.code()]
    }

    /// Every image that is listed is whole, and one of them restores to what it was; the newest that was
    /// reported is among them.
    fn check(&mut self) {
        let listed = self.store.list();
        let ids: Vec<String> = listed.iter().map(|i| text(i, "id").to_owned()).collect();
        assert!(!ids.is_empty(), "every image is gone");
        self.store.verify(&["--deep"]).expect(0);
        let known: Vec<&String> = ids
            .iter()
            .filter(|id| self.kept.contains_key(*id))
            .collect();
        let chosen = known[crate::kit::size(self.stream.below(known.len() as u64))];
        let target = self.dir.path().join("target.img");
        self.store.restore(chosen, &target).run().expect(0);
        assert_same(&self.kept[chosen], &target);
        std::fs::remove_file(&target).unwrap();
    }
}

fn meetings(seed: u64, rounds: u64) {
    let mut meeting = Meeting::new(seed);
    let mut codes: BTreeMap<Option<i32>, u64> = BTreeMap::new();
    for _ in 0..rounds {
        for code in meeting.round() {
            *codes.entry(code).or_default() += 1;
        }
        let newest = text(meeting.store.list().last().unwrap(), "id").to_owned();
        if !meeting.kept.contains_key(&newest) {
            // Published by a run that was killed before it could say so.
            meeting.make();
        }
    }
    // Whatever is left is cleared by the next run that has the store alone.
    meeting.make();
    meeting.store.assert_no_clutter();
    println!("seed {seed}: {rounds} meetings, by exit code: {codes:?}");
}

fn rounds() -> u64 {
    if long() { 100 } else { 10 }
}

#[test]
fn two_runs_at_once_and_either_may_be_killed_1() {
    meetings(501, rounds());
}

#[test]
fn two_runs_at_once_and_either_may_be_killed_2() {
    meetings(502, rounds());
}

/// Waits until a run has begun an image in `store`.
pub(crate) fn at_work(store: &Path, run: &mut Running) {
    let start = Instant::now();
    let begun = || {
        let names = std::fs::read_dir(store)
            .unwrap()
            .map(|e| e.unwrap().file_name());
        names
            .into_iter()
            .any(|n| n.to_string_lossy().starts_with(".unfinished-"))
    };
    while !begun() {
        assert!(!run.has_ended(), "it was faster than the look at it");
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no image was begun"
        );
        std::thread::yield_now();
    }
}

/// A disk that takes a while.
pub(crate) fn large(dir: &Path) -> PathBuf {
    let path = dir.join("large.img");
    bytes::create_sparse(&path, 256 * MIB);
    bytes::write_random(&path, 0, 256 * MIB, 503);
    path
}

#[test]
fn a_run_that_sleeps_keeps_its_lock_and_is_named() {
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let small = dir.path().join("small.img");
    bytes::create_filled(&small, MIB);
    store.backed_up(&small);
    let mut sleeping = store.backup(&large(dir.path())).start();
    at_work(&store.dir, &mut sleeping);
    sleeping.signal("STOP");
    let who = format!("process {}, backup", sleeping.id());
    let alone: [&[&str]; 3] = [
        &["prune", "--keep-last", "1"],
        &["merge", "..latest"],
        &["copy", "latest", "--recompress", "none"],
    ];
    for line in alone {
        let run = store.verb(line[0]).args(&line[1..]);
        run.run()
            .expect(9)
            .expect_says(&who)
            .expect_says("wait until");
    }
    store.backup(&small).run().expect(9).expect_says(&who);
    for line in [
        &["show", "latest"][..],
        &["verify"],
        &["list"],
        &["protect", "latest"],
    ] {
        store.verb(line[0]).args(&line[1..]).run().expect(0);
    }
    sleeping.signal("CONT");
    sleeping.wait().expect(0);
    store.backed_up(&small);
    store.verify(&["--deep"]).expect(0);
    store.assert_no_clutter();
}

#[test]
fn a_lock_file_that_may_not_be_opened_keeps_away_only_who_changes_something() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED (needs root): a lock file of another user");
        return;
    }
    let dir = scratch();
    let open = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o755);
    let store = Store::new(dir.path(), "store");
    let disk = dir.path().join("disk.img");
    bytes::create_filled(&disk, MIB);
    let image = store.file_of(&store.backed_up(&disk));
    open(&store.dir, 0o755);
    open(&image, 0o644);
    open(&store.dir.join(".lock"), 0o600);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let run = |line: &[&str]| {
        let run = store.verb(line[0]).args(&line[1..]);
        run.start_below(&nobody).wait()
    };
    run(&["list"]).expect(0);
    run(&["show", "latest"]).expect(0);
    for line in [&["prune", "--keep-last", "1"][..], &["merge", "..latest"]] {
        run(line).expect(6).expect_says("permission denied");
    }
    // And one that is no file is not taken for one.
    std::fs::remove_file(store.dir.join(".lock")).unwrap();
    std::fs::create_dir(store.dir.join(".lock")).unwrap();
    store.backup(&disk).run().expect(6);
    std::fs::remove_dir(store.dir.join(".lock")).unwrap();
    store.verify(&["--deep"]).expect(0);
}
