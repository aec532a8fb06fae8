//! The power fails while a store on a real file system is written, which recovers by itself: what was said to be
//! done is there, and the next run ends well. Long files go past the page cache there.

use crate::kit::bad_disk::{BadDisk, Change};
use crate::kit::bytes::Stream;
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::store::Store;
use crate::kit::{MIB, long, scratch, scratch_in_memory, size, tools};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file system that recovers by itself.
struct Filesystem {
    name: &'static str,
    mkfs: &'static [&'static str],
    /// Bytes of the disk below it.
    disk: u64,
    /// Bytes that it counts on being written whole or not at all.
    whole: usize,
}

/// What of the changes behind the last flush is on the disk.
#[derive(Debug, Clone, Copy)]
enum Kept {
    All,
    Nothing,
    /// Those that a seed says, some of them in part.
    Some(u64),
}

/// Writes the disk into the file `to`: `base`, and behind it `changes`.
/// A write that is there in part ends behind a multiple of `whole` bytes of it.
fn lay_out(to: &Path, base: &[u8], changes: &[Change], kept: Kept, whole: usize) {
    let file = std::fs::File::create(to).unwrap();
    file.set_len(base.len() as u64).unwrap();
    for (n, piece) in (0..).zip(base.chunks(size(MIB))) {
        if piece.iter().any(|b| *b != 0) {
            file.write_all_at(piece, n * MIB).unwrap();
        }
    }
    let flushed = changes.iter().rposition(|c| matches!(c, Change::Flush));
    let mut chance = Stream::new(match kept {
        Kept::Some(seed) => seed,
        Kept::All | Kept::Nothing => 0,
    });
    for (n, change) in changes.iter().enumerate() {
        let Change::Write { at, bytes } = change else {
            continue;
        };
        let sure = flushed.is_some_and(|flushed| n < flushed);
        let len = match kept {
            _ if sure => bytes.len(),
            Kept::All => bytes.len(),
            Kept::Nothing => 0,
            Kept::Some(_) => match chance.below(3) {
                0 => 0,
                1 => bytes.len(),
                _ => size(chance.below((bytes.len() / whole) as u64 + 1)) * whole,
            },
        };
        file.write_all_at(&bytes[..len], *at as u64).unwrap();
    }
}

/// A disk that was imaged once, and again when it had changed.
struct History {
    days: [Vec<u8>; 2],
    /// Behind how many changes of the store's disk each image was said to be stored.
    stored: [usize; 2],
}

impl History {
    /// Fails unless the store in `folder` holds what was said behind `behind` changes, and goes on well.
    fn check(&self, folder: &Path, behind: usize, when: &str) {
        // Seen where something of it fails.
        eprintln!("{when}");
        let promised = self.stored.iter().filter(|at| **at <= behind).count();
        let dir = scratch();
        let [disk, restored] = ["disk.img", "restored.img"].map(|name| dir.path().join(name));
        let store = match folder.join("store") {
            there if there.is_dir() => Store::at(&there),
            _ => {
                assert_eq!(promised, 0, "{when}: there is no store");
                return;
            }
        };
        let newest_is = |days: &[Vec<u8>]| {
            store.verify(&["--deep"]).expect(0);
            store.restore("latest", &restored).run().expect(0);
            let found = std::fs::read(&restored).unwrap();
            let is_one = days.contains(&found);
            assert!(is_one, "{when}: another disk than any of {}", days.len());
            std::fs::remove_file(&restored).unwrap();
        };
        let there = store.list().len();
        assert!(there >= promised.min(1), "{when}: no image is there");
        if there > 0 {
            newest_is(&self.days[promised.saturating_sub(1)..]);
        }
        std::fs::write(&disk, &self.days[1]).unwrap();
        store.backup(&disk).args(["--set", "disk"]).run().expect(0);
        newest_is(&self.days[1..]);
    }
}

fn power_fails(filesystem: &Filesystem) {
    let Filesystem { name, mkfs, .. } = filesystem;
    let what = format!("power cuts below {name}");
    if !privileged_with_fs(name, &what) {
        return;
    }
    let Some(medium) = BadDisk::new(vec![0; size(filesystem.disk)], &what) else {
        return;
    };
    let device = medium.path().to_str().unwrap();
    tools::run(mkfs[0], &[&mkfs[1..], &[device]].concat());
    let dir = scratch();
    let mount = Mount::new(medium.path(), &dir.path().join("mounted"));
    let mut noise = Stream::new(77);
    // Four pieces past the page cache, and some more.
    let first = noise.bytes(22 * MIB);
    let mut second = first.clone();
    noise.fill(&mut second[size(4 * MIB)..size(16 * MIB)]);
    let days = [first, second];
    let disk = dir.path().join("disk.img");
    tools::run("sync", &["--file-system", mount.path().to_str().unwrap()]);
    let base = medium.record();
    let store = Store::new(mount.path(), "store");
    let stored = days.each_ref().map(|day| {
        std::fs::write(&disk, day).unwrap();
        store.backup(&disk).args(["--set", "disk"]).run().expect(0);
        medium.changed()
    });
    drop(mount);
    let changes = medium.take_changes();
    let history = History { days, stored };
    let written = |c: &Change| match c {
        Change::Write { bytes, .. } => bytes.len(),
        Change::Flush => 0,
    };
    let written: usize = changes.iter().map(written).sum();
    assert!(written > size(34 * MIB), "{written} bytes of two images");

    // Before each flush as much as can be is not sure.
    let flushes: Vec<usize> = (0..changes.len())
        .filter(|n| matches!(changes[*n], Change::Flush))
        .chain([changes.len()])
        .collect();
    let (step, seeds) = match long() {
        true => (1, 30),
        false => (flushes.len().div_ceil(10), 1),
    };
    let room = scratch_in_memory();
    let mut states = 0;
    for behind in flushes.into_iter().rev().step_by(step) {
        let some = (0..seeds).map(|seed| Kept::Some(1000 * seed + behind as u64 + 1));
        for kept in [Kept::All, Kept::Nothing].into_iter().chain(some) {
            let when = format!(
                "{what}: behind {behind} of {} changes, kept: {kept:?}",
                changes.len()
            );
            let image = room.path().join("disk");
            lay_out(&image, &base, &changes[..behind], kept, filesystem.whole);
            let device = Loop::new(&image);
            let mount = Mount::new(device.path(), &room.path().join("mounted"));
            history.check(mount.path(), behind, &when);
            drop(mount);
            std::fs::remove_dir(room.path().join("mounted")).unwrap();
            states += 1;
        }
    }
    eprintln!("{what}: {states} states of {} changes", changes.len());
}

/// Its superblock has one checksum, stands in no journal when it is written at the mount, and is not believed when
/// half of it is old: what is smaller than a block of most disks is whole.
#[test]
fn a_power_cut_below_ext4_takes_nothing_that_was_stored() {
    power_fails(&Filesystem {
        name: "ext4",
        mkfs: &["mkfs.ext4", "-q"],
        disk: 160 * MIB,
        whole: 4096,
    });
}

#[test]
fn a_power_cut_below_xfs_takes_nothing_that_was_stored() {
    power_fails(&Filesystem {
        name: "xfs",
        mkfs: &["mkfs.xfs", "-q"],
        disk: 320 * MIB,
        whole: 512,
    });
}
