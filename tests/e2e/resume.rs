//! An interrupted backup goes on where it was, and never holds anything but the disk as the last run found it.

use crate::kit::bytes::{self, Stream, assert_same};
use crate::kit::power;
use crate::kit::recorded::{Files, RecordedFolder};
use crate::kit::run::Outcome;
use crate::kit::store::{Store, number, text};
use crate::kit::{MIB, long, scratch, size};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// So many bytes of the disk are recorded together: the unit in which a run goes on.
const LEAF: u64 = 256 * 4096;

/// A store whose image is never finished, made anew for every try from one that was.
struct Scene {
    dir: TempDir,
    disk: PathBuf,
    /// Files that stay as they are: older images.
    older: Vec<(String, Vec<u8>)>,
    name: String,
    image: Vec<u8>,
    args: Vec<&'static str>,
}

impl Scene {
    /// A disk with content of all kinds; with `days`, changed and backed up as often before.
    fn new(days: u64, args: &[&'static str]) -> Scene {
        let dir = scratch();
        let disk = dir.path().join("disk.img");
        bytes::create_sparse(&disk, 6 * MIB - 512);
        bytes::write_random(&disk, 0, 3 * MIB, 71);
        bytes::write(&disk, 3 * MIB, &Stream::new(72).text(MIB));
        bytes::write_random(&disk, 5 * MIB + 4096 * 7, 300_000, 73);
        let mut scene = Scene {
            dir,
            disk,
            older: Vec::new(),
            name: String::new(),
            image: Vec::new(),
            args: [&["--set", "disk", "--block-size", "4K"], args].concat(),
        };
        let store = scene.store("made");
        for day in 0..days {
            scene.backup(&store).expect(0);
            bytes::write_random(&scene.disk, day * 500_000, 1_500_000, 80 + day);
        }
        let before = store.contents();
        scene.backup(&store).expect(0);
        let new = store
            .contents()
            .into_iter()
            .filter(|file| !before.contains(file));
        let new: Vec<_> = new.collect();
        scene.older = before;
        (scene.name, scene.image) = new[0].clone();
        scene
    }

    fn store(&self, name: &str) -> Store {
        let _ = std::fs::remove_dir_all(self.dir.path().join(name));
        Store::new(self.dir.path(), name)
    }

    fn backup(&self, store: &Store) -> Outcome {
        let run = store.backup(&self.disk).arg("--json").args(&self.args);
        run.run()
    }

    /// A store as a run that was killed leaves it when it has written `bytes` of its image.
    fn killed(&self, bytes: &[u8]) -> Store {
        let store = self.store("killed");
        for (name, content) in &self.older {
            std::fs::write(store.dir.join(name), content).unwrap();
        }
        std::fs::write(self.unfinished(&store), bytes).unwrap();
        store
    }

    fn unfinished(&self, store: &Store) -> PathBuf {
        store.dir.join(format!(".unfinished-0-{}", self.name))
    }

    /// Runs the backup again; the bytes that it did not have to write. Whatever they were, the image is the
    /// disk, and nothing else is left.
    #[track_caller]
    fn goes_on(&self, store: &Store) -> u64 {
        let report = self.backup(store).expect(0).json();
        store.verify(&["disk@latest", "--deep"]).expect(0);
        store.assert_no_clutter();
        let target = self.dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        let restore = store.restore("disk@latest", &target);
        restore.run().expect(0);
        assert_same(&self.disk, &target);
        number(&report, "continued_bytes")
    }
}

/// Every so many bytes, and both ends.
fn cuts(image: &[u8], many: u64) -> impl Iterator<Item = usize> {
    let (step, whole) = ((bytes::len(image) / many).max(1), image.len());
    (0..many).map(move |n| size(n * step)).chain([whole])
}

fn wherever_it_was_cut(scene: &Scene) {
    let many = if long() { 2000 } else { 40 };
    let mut most = 0;
    for cut in cuts(&scene.image, many) {
        let kept = scene.goes_on(&scene.killed(&scene.image[..cut]));
        assert!(kept <= bytes::len(&scene.image[..cut]), "{kept} of {cut}");
        // What is not kept: the front, what has no leaf page yet, and the end.
        assert!(
            kept + LEAF + 16384 >= bytes::len(&scene.image[..cut]),
            "{kept} of {cut}"
        );
        most = most.max(kept);
    }
    assert!(
        most + 4096 > bytes::len(&scene.image),
        "{most} of {}",
        scene.image.len()
    );
}

#[test]
fn a_full_image_goes_on_wherever_it_was_cut() {
    wherever_it_was_cut(&Scene::new(0, &[]));
}

#[test]
fn an_increment_goes_on_wherever_it_was_cut() {
    wherever_it_was_cut(&Scene::new(2, &[]));
}

/// What a power cut leaves: zeros, or anything, where something was written.
#[test]
fn what_is_torn_is_stored_anew() {
    let scene = Scene::new(0, &[]);
    let mut stream = Stream::new(74);
    for round in 0..if long() { 1000 } else { 30 } {
        let at = size(stream.below(bytes::len(&scene.image)));
        let mut torn = scene.image.clone();
        match round % 3 {
            0 => torn[at] ^= 1 << stream.below(8),
            1 => {
                let end = torn.len().min(at / 512 * 512 + 512);
                torn[at / 512 * 512..end].fill(0);
            }
            _ => {
                let end = torn.len();
                stream.fill(&mut torn[at..end]);
            }
        }
        let kept = scene.goes_on(&scene.killed(&torn));
        // The front of the file is written anew where it differs, but it has to be whole before.
        assert!(kept <= bytes::len(&torn), "round {round}");
        if at > 16384 {
            assert!(
                kept < bytes::len(&torn[..at]),
                "round {round}: {kept}, torn at {at}"
            );
        }
    }
}

#[test]
fn a_disk_that_has_changed_is_stored_as_it_is() {
    let scene = Scene::new(0, &[]);
    let before = std::fs::read(&scene.disk).unwrap();
    let half = scene.image.len() / 2;
    let mut kept = Vec::new();
    // From the end to the beginning: the earlier the change, the less is as it was.
    for at in (0..12).rev().map(|n| n * MIB / 2) {
        std::fs::write(&scene.disk, &before).unwrap();
        bytes::flip(&scene.disk, at);
        kept.push(scene.goes_on(&scene.killed(&scene.image[..half])));
    }
    assert!(kept.is_sorted_by(|a, b| a >= b), "{kept:?}");
    assert!(kept[0] > MIB && kept[11] < 4096, "{kept:?}");
}

/// What belongs to another history, or to another image of this one, is not gone on with.
#[test]
fn only_the_very_image_goes_on() {
    let scene = Scene::new(1, &[]);
    let half = &scene.image[..scene.image.len() / 2];
    for other in [
        &["--set", "disk", "--full"][..],
        &["--set", "disk", "--full", "--block-size", "8K"],
        &["--set", "disk", "--compression", "zstd:9"],
        &["--set", "disk", "--split", "1M"],
    ] {
        let store = scene.killed(half);
        let run = store.backup(&scene.disk).args(other).arg("--json").run();
        let report = run.expect(0).json();
        assert_eq!(number(&report, "continued_bytes"), 0, "{other:?}");
        assert!(
            !scene.unfinished(&store).exists(),
            "{other:?}: nobody can go on"
        );
        store.verify(&["latest", "--deep"]).expect(0);
    }
    // Another disk's backup leaves it for its own.
    let store = scene.killed(half);
    let other = scene.dir.path().join("other.img");
    std::fs::write(&other, Stream::new(75).bytes(MIB)).unwrap();
    store
        .backup(&other)
        .args(["--set", "other"])
        .run()
        .expect(0);
    assert!(scene.unfinished(&store).exists());
    assert!(scene.goes_on(&store) > 0);
    // Who makes room takes it away.
    let store = scene.killed(half);
    store
        .verb("prune")
        .args(["--keep-last", "9"])
        .run()
        .expect(0);
    assert!(!scene.unfinished(&store).exists());
    assert_eq!(scene.goes_on(&store), 0);
}

#[test]
fn a_dry_run_says_so_and_changes_nothing() {
    let scene = Scene::new(0, &[]);
    let store = scene.killed(&scene.image[..scene.image.len() / 2]);
    let before = store.all_files();
    let plan = store.backup(&scene.disk).args(&scene.args).arg("--dry-run");
    let said = plan.run().expect(0);
    assert!(
        said.text().contains("goes on with an interrupted backup"),
        "{said}"
    );
    let plan = store.backup(&scene.disk).args(&scene.args);
    let plan = plan.args(["--dry-run", "--json"]).run().expect(0).json();
    let there = number(&plan["plan"], "continues_bytes");
    assert_eq!(there, bytes::len(&scene.image) / 2);
    assert_eq!(store.all_files(), before);
    scene.goes_on(&store);
}

/// A file that a killed run has cut into parts: all but the last published, but for the first.
#[test]
fn a_file_in_parts_goes_on_wherever_it_was_cut() {
    let scene = Scene::new(0, &["--split", "1M"]);
    let parts = || {
        let store = scene.store("whole");
        scene.backup(&store).expect(0);
        store.contents()
    };
    let parts = parts();
    let file = parts[0].0.strip_suffix(".001").unwrap().to_owned();
    let all: u64 = parts.iter().map(|(_, bytes)| bytes::len(bytes)).sum();
    let mut most = 0;
    for cut in (1..40).map(|n| n * all / 40).chain([all]) {
        let store = scene.store("killed");
        let (mut left, mut last) = (cut, 0);
        for (number, (name, content)) in parts.iter().enumerate() {
            let there = &content[..content.len().min(size(left))];
            let begun = format!(".unfinished-0-{name}");
            let name =
                match number == 0 || there.len() < content.len() || left == bytes::len(content) {
                    true => &begun,
                    false => name,
                };
            std::fs::write(store.dir.join(name), there).unwrap();
            last = number;
            left -= bytes::len(there);
            if left == 0 {
                break;
            }
        }
        let id = &parts[0].1[16..32];
        std::fs::write(store.dir.join(format!("{file}.unfinished")), id).unwrap();
        let report = scene.backup(&store).expect(0).json();
        let kept = number(&report, "continued_bytes");
        let around = 96 * (u64::try_from(last).unwrap() + 1);
        assert!(kept + LEAF + 16384 + around >= cut, "{kept} of {cut}");
        most = most.max(kept);
        store.verify(&["latest", "--deep"]).expect(0);
        let target = scene.dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        store.restore("latest", &target).run().expect(0);
        assert_same(&scene.disk, &target);
        let names: Vec<String> = store.files().into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|n| n.contains(".strata.0")), "{names:?}");
    }
    assert!(most + 8192 > all, "{most} of {all}");
}

/// The power fails behind some write of a backup, and behind some write of the one that goes on.
#[test]
fn a_power_cut_leaves_what_can_be_gone_on_with_or_begun_anew() {
    let Some(folder) = RecordedFolder::mount("an interrupted backup") else {
        return;
    };
    let scene = Scene::new(0, &[]);
    let recorded = |left: &[(String, Vec<u8>)]| {
        folder.reset(&Files::new());
        for (name, content) in left {
            folder.put(name, content.clone());
        }
        let before = folder.files();
        folder.take_log();
        scene.backup(&Store::at(folder.path())).expect(0);
        (before, folder.take_log())
    };
    let half = scene.image.len() / 2;
    let begun = [(
        format!(".unfinished-0-{}", scene.name),
        scene.image[..half].to_vec(),
    )];
    let (mut states, mut went_on) = (0, 0);
    for left in [&[][..], &begun] {
        let (before, changes) = recorded(left);
        let (step, mut nth) = (if long() { 1 } else { 7 }, 0);
        power::cuts(&before, &changes, 3, |cut| {
            nth += 1;
            if nth % step != 0 {
                return;
            }
            let store = scene.store("cut");
            for (name, content) in &cut.left {
                std::fs::write(store.dir.join(name), content).unwrap();
            }
            states += 1;
            // Where the image was published, the next one is another.
            let published = !store.list().is_empty();
            went_on += u64::from(scene.goes_on(&store) > 0 && !published);
        });
    }
    println!("{states} states of power cuts, {went_on} of them were gone on with");
    assert!(went_on > 10, "{went_on} of {states}");
}

/// Longer than what a run that can clean up takes away.
fn long_disk(dir: &Path) -> PathBuf {
    let disk = dir.join("long.img");
    std::fs::write(&disk, Stream::new(76).bytes(200 * MIB)).unwrap();
    disk
}

/// Stops a backup by `signal` when it has stored `bytes`.
fn stopped(store: &Store, disk: &Path, args: &[&str], signal: &str, bytes: u64) -> Outcome {
    // Slowly enough to be stopped on the way.
    let slowly = ["--limit-write", "40M"];
    let mut run = store.backup(disk).args(args).args(slowly).start();
    let start = Instant::now();
    // Files come and go meanwhile.
    let stored = || {
        let files = std::fs::read_dir(&store.dir).unwrap();
        let lens = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
        lens.sum::<u64>()
    };
    while stored() < bytes {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it does not begin"
        );
        assert!(!run.has_ended(), "it ended before it was stopped");
    }
    run.signal(signal);
    run.wait()
}

#[test]
fn whoever_is_stopped_leaves_what_is_worth_it() {
    let dir = scratch();
    let disk = long_disk(dir.path());
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let store = Store::new(dir.path(), signal);
        let outcome = stopped(&store, &disk, &[], signal, 80 * MIB).expect(code);
        assert!(outcome.stderr.contains("goes on from there"), "{outcome}");
        assert_eq!(store.list(), Vec::<Value>::new());
        let report = store.backup(&disk).arg("--json").run();
        let report = report.expect(0).json();
        assert!(number(&report, "continued_bytes") > 60 * MIB, "{report}");
        store.verify(&["latest", "--deep"]).expect(0);
        store.assert_no_clutter();
        let store = Store::new(dir.path(), &format!("{signal}-soon"));
        stopped(&store, &disk, &[], signal, MIB).expect(code);
        store.assert_no_clutter();
    }
}

#[test]
fn a_backup_that_is_killed_again_and_again_comes_to_its_end() {
    let dir = scratch();
    let disk = long_disk(dir.path());
    for args in [&[][..], &["--split", "32M"]] {
        let store = Store::new(dir.path(), &format!("store-{}", args.len()));
        for stored in [20, 60, 100, 140, 180] {
            let outcome = stopped(&store, &disk, args, "KILL", stored * MIB);
            assert_eq!(outcome.killed_by(), Some(9), "{outcome}");
        }
        let report = store.backup(&disk).args(args).arg("--json").run();
        let report = report.expect(0).json();
        assert!(number(&report, "continued_bytes") > 140 * MIB, "{report}");
        assert_eq!(text(&report["image"], "kind"), "full");
        store.verify(&["latest", "--deep"]).expect(0);
        let target = dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        store.restore("latest", &target).run().expect(0);
        assert_same(&disk, &target);
    }
}
