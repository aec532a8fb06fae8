//! What goes wrong now and then: runs that are killed, a store that is full, a disk that cannot be read in a
//! place, a byte that rots. The day's own backup and prune follow, and nothing of it is seen afterwards.

use crate::clock::{Day, run_on, start_on};
use crate::kit::bad_disk::BadDisk;
use crate::kit::bytes;
use crate::kit::run::Strata;
use crate::kit::size;
use crate::kit::store::{number, text};
use crate::year::{SET, Soak};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    Rot,
    Kill,
    Full,
    BadSector,
}

/// One after the other.
const TURNS: [Mishap; 4] = [Mishap::Rot, Mishap::Kill, Mishap::Full, Mishap::BadSector];

impl Mishap {
    /// That of `day`, if any: there is one every `every` days.
    pub(crate) fn of(day: Day, every: u64) -> Option<Mishap> {
        let turn = day / every % 4;
        (day % every == every - 1).then(|| TURNS[size(turn)])
    }
}

/// A byte that was turned, until it is turned back: somebody has a second copy of the store.
pub(crate) struct Rotten {
    file: PathBuf,
    at: u64,
}

impl Soak {
    /// Before the backup of `day`. What rotted is still rotten then.
    #[track_caller]
    pub(crate) fn goes_wrong(&mut self, mishap: Mishap, day: Day) -> Option<Rotten> {
        let ids = self.listed();
        let mut rotten = None;
        match mishap {
            Mishap::Rot => rotten = Some(self.rots(day)),
            Mishap::Kill => {
                let backup = self.store.backup(&self.subject.disk);
                self.is_killed(day, &backup, self.usual.backup);
            }
            Mishap::Full => self.is_full(day),
            Mishap::BadSector => self.has_a_bad_sector(day),
        }
        if rotten.is_none() {
            assert!(self.listed().is_superset(&ids), "{mishap:?} on day {day}");
        }
        rotten
    }

    fn listed(&self) -> BTreeSet<String> {
        let images = self.store.list().into_iter();
        images.map(|image| text(&image, "id").to_owned()).collect()
    }

    /// Starts `command`, which takes about `usual`, and kills it within that time.
    #[track_caller]
    pub(crate) fn is_killed(&mut self, day: Day, command: &Strata, usual: Duration) {
        let after = usual.mul_f64(self.stream.below(1000) as f64 / 1000.0);
        let (outcome, killed) = start_on(day, command.clone()).kill_below_after(after);
        assert!(killed || outcome.code() == Some(0), "{outcome}");
        println!("day {day}: killed after {after:?}: {killed}");
    }

    /// Almost nothing more fits into the store.
    #[track_caller]
    fn is_full(&mut self, day: Day) {
        let before = self.store.all_files();
        let ballast = self.room.path().join("ballast");
        let room = nix::sys::statvfs::statvfs(self.room.path()).unwrap();
        let free = room.blocks_available() * room.fragment_size();
        let left = (4 + self.stream.below(8)) * room.fragment_size();
        bytes::create_filled(&ballast, free - left);
        let backup = self.store.backup(&self.subject.disk);
        run_on(day, backup).expect(6).expect_says("free");
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(self.store.all_files(), before, "as before");
    }

    /// A copy of the disk fails in one sector of a file.
    #[track_caller]
    fn has_a_bad_sector(&mut self, day: Day) {
        let mut lost = Vec::new();
        self.subject.used(self.dir.path(), |root| {
            let files = std::fs::read_dir(root.join("pictures")).unwrap();
            let mut files: Vec<PathBuf> = files.map(|e| e.unwrap().path()).collect();
            files.sort();
            let one = self.stream.below(u64::try_from(files.len()).unwrap());
            lost = bytes::read(&files[size(one)], 4096, 512);
        });
        let content = std::fs::read(&self.subject.disk).unwrap();
        // Where else the same stands, nothing uses it any more.
        let sectors = (0..).step_by(512).zip(content.chunks(512));
        let places: Vec<u64> = sectors
            .filter(|(_, s)| *s == lost)
            .map(|(at, _)| at)
            .collect();
        let Some(disk) = BadDisk::new(content, "a bad sector of a soak") else {
            return;
        };
        places.iter().for_each(|at| disk.spoil(*at..at + 512));
        let backup = self.store.backup(disk.path());
        let backup = backup.args(["--set", SET, "--json"]);
        let report = run_on(day, backup).expect(3).json();
        let unreadable = report["unreadable"].as_array().unwrap();
        let found = |range: &Value| {
            let start = number(range, "start");
            let end = start + number(range, "length");
            places.iter().any(|at| start <= *at && at + 512 <= end)
        };
        assert!(
            !unreadable.is_empty() && unreadable.iter().all(found),
            "{report}"
        );
        println!("day {day}: bad sectors at {places:?}");
    }

    /// One byte of one image changes; a verification finds that.
    #[track_caller]
    fn rots(&mut self, day: Day) -> Rotten {
        let images = self.store.list();
        let one = self.stream.below(u64::try_from(images.len()).unwrap());
        let image = &images[size(one)];
        let rotten = Rotten {
            file: self.store.file_of(image),
            at: self.stream.below(number(image, "bytes")),
        };
        bytes::flip(&rotten.file, rotten.at);
        let verify = self.store.verb("verify").arg("--deep");
        let outcome = run_on(day, verify).expect(7);
        let name = rotten.file.file_name().unwrap().to_str().unwrap();
        outcome.expect_says(name);
        println!("day {day}: byte {} of {name} turned", rotten.at);
        rotten
    }

    /// What rotted did not keep the newest image from having everything. Then the whole file comes back.
    #[track_caller]
    pub(crate) fn heals(&mut self, rotten: &Rotten, day: Day) {
        let target = self.target.clone();
        let restore = self.store.restore(&self.points[&day].id, &target);
        restore.run().expect(0);
        let files = self.subject.checked(&target, self.dir.path());
        self.points[&day].files.assert_same(&files);
        self.held = Some(day);
        bytes::flip(&rotten.file, rotten.at);
        let verify = self.store.verb("verify").arg("--deep");
        run_on(day, verify).expect(0);
    }
}
