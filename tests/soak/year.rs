//! Day after day: use, backup, prune; now and then a restore, or a mishap; at the end all that is left.

use crate::clock::{self, Day, run_on};
use crate::keep::Rules;
use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::Mount;
use crate::kit::store::{Store, number, text};
use crate::kit::{MIB, run, scratch, size};
use crate::manifest::Manifest;
use crate::mishaps::Mishap;
use crate::subject::{Kind, Subject};
use crate::usage::Usage;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to live through.
#[derive(Debug)]
pub(crate) struct Year {
    pub(crate) kind: Kind,
    /// Length of the disk, and bytes of files on it.
    pub(crate) disk: u64,
    pub(crate) content: u64,
    pub(crate) days: u64,
    pub(crate) rules: Rules,
    /// Every how many days one of the points is restored.
    pub(crate) check_every: u64,
    /// Every how many days something goes wrong.
    pub(crate) mishap_every: u64,
    /// Bytes that the store has.
    pub(crate) room: u64,
    pub(crate) seed: u64,
}

/// Points that are restored at the end, beside the newest and the oldest.
const AT_RANDOM: usize = 10;

/// What the history is called.
pub(crate) const SET: &str = "disk";

/// An image that is still there.
pub(crate) struct Point {
    pub(crate) id: String,
    pub(crate) files: Manifest,
}

/// How long the last runs took.
#[derive(Debug, Default)]
pub(crate) struct Usual {
    pub(crate) backup: Duration,
    prune: Duration,
}

pub(crate) struct Soak {
    pub(crate) subject: Subject,
    pub(crate) store: Store,
    pub(crate) points: BTreeMap<Day, Point>,
    pub(crate) target: PathBuf,
    /// Which point the target holds.
    pub(crate) held: Option<Day>,
    pub(crate) stream: Stream,
    pub(crate) usual: Usual,
    merged: u64,
    // In this order: the mount goes before its folder.
    /// Where the store is, and nothing else.
    pub(crate) room: Mount,
    pub(crate) dir: tempfile::TempDir,
}

impl Soak {
    /// Lives through `year`.
    #[track_caller]
    pub(crate) fn lived(year: &Year) {
        let dir = scratch();
        let room = Mount::memory(&dir.path().join("room"), year.room);
        let mut soak = Soak {
            subject: Subject::made(year.kind, &dir.path().join(SET), year.disk),
            store: Store::new(room.path(), "store"),
            points: BTreeMap::new(),
            target: dir.path().join("target"),
            held: None,
            stream: Stream::new(year.seed),
            usual: Usual::default(),
            merged: 0,
            room,
            dir,
        };
        bytes::create_filled(&soak.target, year.disk);
        for day in 0..year.days {
            soak.day(year, day);
            if day % year.check_every == year.check_every - 1 {
                let day = soak.any_day();
                soak.assert_restores(day);
            }
        }
        assert!(soak.merged > year.days / 2, "{} merges", soak.merged);
        soak.assert_whole();
    }

    #[track_caller]
    fn day(&mut self, year: &Year, day: Day) {
        let usage = Usage {
            content: year.content,
            seed: year.seed,
        };
        let files = self.subject.used(self.dir.path(), |root| match day {
            0 => usage.begin(root),
            _ => usage.day(root, day),
        });
        assert!(files.len() > 300, "{} files", files.len());
        let mishap = Mishap::of(day, year.mishap_every);
        let rotten = mishap.and_then(|mishap| self.goes_wrong(mishap, day));
        let start = Instant::now();
        let backup = self.store.backup(&self.subject.disk).arg("--json");
        let report = run_on(day, backup).expect(0).json();
        self.usual.backup = start.elapsed();
        let image = &report["image"];
        clock::assert_made_on(day, image);
        assert_eq!(text(image, "set"), SET);
        let kind = if day == 0 { "full" } else { "incremental" };
        // On what has rotted nothing builds if it cannot be opened.
        let usual = rotten.is_some() || text(image, "kind") == kind;
        assert!(usual, "day {day}: {report}");
        let id = text(image, "id").to_owned();
        self.points.insert(day, Point { id, files });

        if let Some(rotten) = &rotten {
            self.heals(rotten, day);
        }

        let prune = self.store.verb("prune").args(year.rules.arguments());
        if mishap == Some(Mishap::Kill) {
            self.is_killed(day, &prune, self.usual.prune);
        }
        let start = Instant::now();
        let pruned = run_on(day, prune.arg("--json")).expect(0).json();
        assert_eq!(pruned["failures"], Value::Array(vec![]), "{pruned}");
        self.merged += pruned["rewritten"].as_array().unwrap().len() as u64;
        self.usual.prune = start.elapsed();
        self.forget(&year.rules.kept(&self.days()));
        println!(
            "day {day}: {} of {} blocks in {} KiB, {:.2} s; pruned to {} images in {:.2} s",
            number(&report["changed"], "data"),
            number(&report["blocks"], "data"),
            number(image, "bytes") >> 10,
            self.usual.backup.as_secs_f64(),
            self.points.len(),
            self.usual.prune.as_secs_f64(),
        );
    }

    fn days(&self) -> BTreeSet<Day> {
        self.points.keys().copied().collect()
    }

    fn any_day(&mut self) -> Day {
        let days: Vec<Day> = self.points.keys().copied().collect();
        days[size(self.stream.below(days.len() as u64))]
    }

    /// Forgets all but `kept`; fails unless the store did the same.
    #[track_caller]
    fn forget(&mut self, kept: &BTreeSet<Day>) {
        self.points.retain(|day, _| kept.contains(day));
        let listed: Vec<String> = self
            .store
            .list()
            .iter()
            .map(|image| text(image, "id").to_owned())
            .collect();
        let expected: Vec<String> = self.points.values().map(|p| p.id.clone()).collect();
        assert_eq!(listed, expected, "the images that should be left: {kept:?}");
    }

    /// Restores the image of `day` in one of three ways onto what the target held before; fails unless
    /// it is whole and has the files of that day.
    #[track_caller]
    fn assert_restores(&mut self, day: Day) {
        let mut restore = self.store.restore(&self.points[&day].id, &self.target);
        let held = self.held.and_then(|held| self.points.get(&held));
        restore = match (self.stream.below(3), held) {
            (0, Some(held)) => restore.args(["--holds", &held.id]),
            (0 | 1, _) => restore.arg("--only-changed"),
            _ => restore,
        };
        restore.run().expect(0);
        let files = self.subject.checked(&self.target, self.dir.path());
        self.points[&day].files.assert_same(&files);
        self.held = Some(day);
    }

    /// Fails unless all that is left is what it should be.
    #[track_caller]
    fn assert_whole(&mut self) {
        let newest = self.points.keys().copied().max().unwrap();
        let oldest = self.points.keys().copied().min().unwrap();
        self.assert_restores(newest);
        let mut others: Vec<Day> = self.points.keys().copied().collect();
        others.retain(|day| ![newest, oldest].contains(day));
        while others.len() > AT_RANDOM {
            let one = size(self.stream.below(others.len() as u64));
            others.swap_remove(one);
        }
        println!("restored: {newest}, {others:?}, {oldest}");
        others.iter().for_each(|day| self.assert_restores(*day));
        self.assert_restores(oldest);
        self.assert_as_new(oldest);
        let disk = run::text(&self.subject.disk);
        self.store.verify(&["latest", "--against", disk]).expect(0);
        // Among other things that every byte of every file belongs to something, and that frames hold
        // no block that its image does not need.
        let verified = self.store.verify(&["--deep", "--json"]).expect(0).json();
        let all = verified["images"].as_array().unwrap();
        assert_eq!(all.len(), self.points.len());
        assert!(
            all.iter()
                .all(|i| i["ok"] == true && i["damage"] == Value::Array(vec![]))
        );
        self.assert_no_orphan();
    }

    /// The oldest image took in all before it. Fails unless it holds what a new full image of the same
    /// disk, which the target is now, would hold, in as many bytes; and unless all that is left takes little more
    /// room than new images of the same days.
    #[track_caller]
    fn assert_as_new(&mut self, oldest: Day) {
        let show = |store: &Store, image: &str| {
            let shown = store.verb("show").arg(image).arg("--json").run();
            shown.expect(0).json()
        };
        let merged = show(&self.store, &self.points[&oldest].id);
        assert_eq!(text(&merged["image"], "kind"), "full");
        let fresh = Store::new(self.dir.path(), "fresh");
        fresh.backed_up(&self.target);
        let new = show(&fresh, "latest");
        assert_eq!(merged["blocks"], new["blocks"], "blocks by state");
        let lengths = [&merged, &new].map(|shown| number(&shown["image"], "bytes"));
        println!(
            "the oldest image has {} bytes, a new one {}",
            lengths[0], lengths[1]
        );
        let apart = lengths[0].abs_diff(lengths[1]);
        assert!(apart <= lengths[1] / 100 + MIB / 16, "{lengths:?} bytes");
        let later: Vec<Day> = self
            .points
            .keys()
            .copied()
            .filter(|d| *d != oldest)
            .collect();
        for day in later {
            let restore = self.store.restore(&self.points[&day].id, &self.target);
            restore.arg("--only-changed").run().expect(0);
            self.held = Some(day);
            fresh.backed_up(&self.target);
        }
        let sums = [&self.store, &fresh].map(|store| {
            let images = store.list();
            images.iter().map(|i| number(i, "bytes")).sum::<u64>()
        });
        println!("all images have {} bytes, new ones {}", sums[0], sums[1]);
        assert!(sums[0] <= sums[1] / 10 * 11, "{sums:?} bytes");
    }

    /// Fails unless every file is an image of the list, as long as it says, a note, or an empty file
    /// that locks hang on.
    #[track_caller]
    fn assert_no_orphan(&self) {
        let listed: BTreeMap<String, u64> = self
            .store
            .list()
            .iter()
            .map(|image| (text(image, "file").to_owned(), number(image, "bytes")))
            .collect();
        let (mut images, mut sum) = (BTreeMap::new(), 0);
        for (name, len) in self.store.all_files() {
            if [".adding", ".lock", ".publishing"].contains(&name.as_str()) {
                assert_eq!(len, 0, "{name}");
            } else if name.starts_with("verified-") && name.ends_with(".json") {
                assert!(len < 64 << 10, "a note of {len} bytes");
            } else {
                sum += len;
                images.insert(name, len);
            }
        }
        assert_eq!(images, listed, "files of the store, and the list");
        println!("{} images, {} MiB", listed.len(), sum / MIB);
    }
}
