//! Clocks that are wrong, when an image is made or when old ones are to go: the order of images is that of their
//! making, and no prune takes more than it would by a right clock.

use crate::kit::bytes::{self, assert_same};
use crate::kit::run::{Outcome, Strata};
use crate::kit::store::{Store, text};
use crate::kit::{MIB, scratch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Runs it by a clock that differs from the right one by `offset`, as faketime writes it.
fn by_clock(offset: &str, run: Strata) -> Outcome {
    run.env("TZ", "UTC")
        .start_below(&["faketime", "-m", "-f", offset])
        .wait()
}

/// A disk of which an image is made every day.
struct Days {
    dir: tempfile::TempDir,
    disk: PathBuf,
    store: Store,
    /// The disk as each image holds it, by number.
    copies: Vec<PathBuf>,
}

impl Days {
    fn new() -> Days {
        let dir = scratch();
        let disk = dir.path().join("disk.img");
        bytes::create_filled(&disk, MIB);
        Days {
            store: Store::new(dir.path(), "store"),
            disk,
            dir,
            copies: Vec::new(),
        }
    }

    /// One more image, by a clock that is `offset` from now.
    fn image(&mut self, offset: &str) -> Value {
        let number = self.copies.len() as u64 + 1;
        bytes::write_random(&self.disk, number * 65_536, 4096, number);
        let run = self.store.backup(&self.disk).arg("--json");
        let made = by_clock(offset, run).expect(0).json();
        let copy = self.dir.path().join(format!("copy-{number}"));
        std::fs::copy(&self.disk, &copy).unwrap();
        self.copies.push(copy);
        made
    }

    /// The numbers of the images that a prune by a clock leaves.
    fn pruned(&self, offset: &str, rules: &[&str]) -> (BTreeSet<u64>, Outcome) {
        let run = self.store.verb("prune").args(rules).arg("--json");
        let said = by_clock(offset, run).expect(0);
        (self.left(), said)
    }

    fn left(&self) -> BTreeSet<u64> {
        let listed = self.store.list();
        listed
            .iter()
            .map(|i| i["sequence"].as_u64().unwrap())
            .collect()
    }

    fn check(&self, wanted: &str, number: u64) {
        let target = self.dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        self.store.restore(wanted, &target).run().expect(0);
        assert_same(&self.copies[crate::kit::size(number - 1)], &target);
    }
}

// Half a day over: the clock goes on between two images.
const RULES: [&[&str]; 4] = [
    &["--keep-daily", "3"],
    &["--keep-within", "2d12h"],
    &["--keep-weekly", "1", "--keep-daily", "2"],
    &["--keep-hourly", "2", "--keep-yearly", "2"],
];

/// A week by a right clock, with one image, the `nth`, by one that is wrong.
fn week(nth: usize, wrong: &str) -> Days {
    let mut days = Days::new();
    for (at, right) in (1..).zip(["-6d", "-5d", "-4d", "-3d", "-2d", "-1d", "+0"]) {
        let offset = if at == nth { wrong } else { right };
        days.image(offset);
    }
    days
}

#[test]
fn a_wrong_clock_costs_no_image() {
    for rules in RULES {
        let (right, said) = week(0, "").pruned("+0", rules);
        assert!(right.len() < 7, "nothing had to go: {said}");
        for (nth, wrong) in [
            (7, "-10y"),
            (7, "+10y"),
            (4, "-10y"),
            (4, "+10y"),
            (1, "+10y"),
        ] {
            // Neither when the clock was right again, nor when it was not.
            for prune in ["+0", wrong] {
                let days = week(nth, wrong);
                let (left, said) = days.pruned(prune, rules);
                let what = format!("image {nth} at {wrong}, prune {rules:?} at {prune}");
                assert!(
                    left.is_superset(&right),
                    "{what}: {left:?}, not {right:?}: {said}"
                );
                days.check("latest", 7);
                days.store.verify(&["--deep"]).expect(0);
            }
        }
    }
}

/// By a clock that is a day late, two images are of one day: that cannot be told, and costs at most one more.
#[test]
fn a_day_that_is_missing_is_said_where_it_shows() {
    let days = week(7, "-2d");
    let (left, said) = days.pruned("+0", &["--keep-daily", "3"]);
    assert!(left.contains(&7) && left.contains(&6), "{left:?}");
    let json = said.json();
    let warnings = json["warnings"].to_string();
    assert!(
        warnings.contains("number 7") && warnings.contains("cannot be right"),
        "{said}"
    );
}

#[test]
fn the_order_is_that_of_parents() {
    for wrong in ["-1d", "-10y", "+10y"] {
        let mut days = Days::new();
        days.image("-2d");
        days.image(wrong);
        let third = days.image("+0");
        let listed = days.store.list();
        let parents: Vec<&Value> = listed.iter().map(|i| &i["parent"]).collect();
        assert_eq!(
            parents,
            [&Value::Null, &listed[0]["id"], &listed[1]["id"]],
            "{wrong}"
        );
        assert_eq!(third["image"]["sequence"], 3);
        days.check("latest", 3);
        days.check("disk@latest", 3);
        days.check("disk@-1", 2);
        days.check("disk@-2", 1);
    }
}

#[test]
fn a_clock_that_runs_wild_during_a_backup_changes_nothing() {
    let mut days = Days::new();
    days.image("-1d");
    bytes::write_random(&days.disk, 0, 65_536, 9);
    let run = days.store.backup(&days.disk).arg("--json");
    let wild = run.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let made = by_clock("+0 x50000", wild).expect(0).json();
    assert_eq!(made["image"]["kind"], "incremental", "{made}");
    let target = days.dir.path().join("target.img");
    days.store.restore("latest", &target).run().expect(0);
    assert_same(&days.disk, &target);
    days.store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_prune_may_be_told_that_all_times_are_right() {
    let mut days = Days::new();
    for offset in ["-3003d", "-3002d", "-3001d", "+0"] {
        days.image(offset);
    }
    let (left, said) = days.pruned("+0", &["--keep-daily", "1"]);
    assert_eq!(left, [3, 4].into(), "{said}");
    let (left, said) = days.pruned("+0", &["--keep-daily", "1", "--trust-times"]);
    assert_eq!(left, [4].into(), "{said}");
    days.check("latest", 4);
}

#[test]
fn a_verification_by_a_clock_that_was_ahead_is_done_again() {
    let mut days = Days::new();
    days.image("-1d");
    by_clock("+10y", days.store.verb("verify").arg("--deep")).expect(0);
    let lately = ["--deep", "--older-than", "30d", "--json"];
    let again = days.store.verify(&lately).expect(0).json();
    assert_eq!(again["skipped"], Value::Array(Vec::new()), "{again}");
    assert!(
        text(&again["images"][0], "file").contains("disk"),
        "{again}"
    );
    let skipped = days.store.verify(&lately).expect(0).json();
    assert_eq!(skipped["images"], Value::Array(Vec::new()), "{skipped}");
}
