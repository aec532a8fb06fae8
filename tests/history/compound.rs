//! The power fails a second time, or the file system is full, while what a first power cut left is cleared up:
//! nothing is lost, and doing it once more ends where an undisturbed run ends.

use crate::crash::last;
use crate::deeds::Stop;
use crate::kit::power::{Left, cuts};
use crate::kit::recorded::RecordedFolder;
use crate::kit::scratch_in_memory;
use crate::long;
use crate::power::{CHAIN, Lying, lay_out, open};
use crate::rehearsed::{Deed, Expected, expect, history};
use crate::world::World;
use diskstrata::base::ErrorKind;
use diskstrata::chain::Wish;
use diskstrata::image::Compression;
use diskstrata::ops::copy::CopyRequest;

/// How many of the states that a first cut may leave are looked at.
const FIRST: usize = 6;

/// Bytes that are free while it is cleared up: none, a note, a part of an image.
const ROOM: [u64; 4] = [0, 1000, 9000, 40_000];

struct Rig {
    what: &'static str,
    folder: RecordedFolder,
    expected: Expected,
}

impl Rig {
    /// Puts the store into a state that a power cut has left.
    fn put(&self, left: &Left) {
        self.folder.reset(&crate::kit::recorded::Files::new());
        for (name, bytes) in left {
            self.folder.put(name.to_str().unwrap(), bytes.clone());
        }
    }

    /// The power fails wherever it can while a run clears up `first`. Returns how many states that were.
    fn cut_again(&self, first: &Left, seeds: u64, when: &str) -> usize {
        self.put(first);
        let before = self.folder.files();
        self.folder.take_log();
        let store = open(self.folder.path(), Lying::Whole);
        // What a merge has to say that is done already was looked at elsewhere.
        let _ = self.expected.deed.run(&store, &Stop::never());
        let changes = self.folder.take_log();
        let room = scratch_in_memory();
        let left = open(room.path(), Lying::Whole);
        cuts(&before, &changes, seeds, |second| {
            let when = format!(
                "{when}; again behind {} of {}, kept: {:?}",
                second.behind,
                changes.len(),
                second.kept
            );
            lay_out(room.path(), &second);
            self.expected.again(&left, true, &when);
        })
    }

    /// The file system is full while a run clears up `first`. Says how often it was.
    fn fill(&self, first: &Left, when: &str) -> usize {
        let used: usize = first.values().map(Vec::len).sum();
        let mut full = 0;
        for more in ROOM {
            self.put(first);
            let store = open(self.folder.path(), Lying::Whole);
            let room = u64::try_from(used).unwrap() + more;
            self.folder.set_room(Some(room));
            let outcome = self.expected.deed.run(&store, &Stop::never());
            self.folder.set_room(None);
            let when = format!("{when}; {more} bytes are free");
            if let Err(error) = outcome {
                let done_already = matches!(self.expected.deed, Deed::Merge(..))
                    && matches!(error.kind(), ErrorKind::Usage | ErrorKind::NotFound);
                let is_full = error.kind() == ErrorKind::Destination;
                assert!(is_full || done_already, "{when}: {error}");
                full += usize::from(is_full);
            }
            self.expected.again(&store, true, &when);
        }
        full
    }
}

fn disturb_twice(what: &'static str, prepare: impl Fn(&mut World), deed: impl Fn(&World) -> Deed) {
    let Some(folder) = RecordedFolder::mount(what) else {
        return;
    };
    let mut world = history(open(folder.path(), Lying::Whole), &CHAIN, 0);
    prepare(&mut world);
    let about_to = || {
        folder.take_log();
        folder.files()
    };
    let (expected, before) = expect(world, deed, about_to);
    let changes = folder.take_log();
    let rig = Rig {
        what,
        folder,
        expected,
    };
    let mut firsts = Vec::new();
    cuts(&before, &changes, 1, |cut| firsts.push(cut));
    // The last one is of a run that has ended.
    firsts.pop();
    let (wanted, seeds) = if long() {
        (firsts.len(), 10)
    } else {
        (FIRST, 1)
    };
    let step = firsts.len().div_ceil(wanted);
    let (mut states, mut full) = (0, 0);
    for first in firsts.iter().step_by(step) {
        let when = format!(
            "{what}: cut behind {}, kept: {:?}",
            first.behind, first.kept
        );
        states += rig.cut_again(&first.left, seeds, &when);
        full += rig.fill(&first.left, &when);
    }
    assert!(states >= 50, "{}: {states} states", rig.what);
    assert!(full >= 5, "{}: full {full} times", rig.what);
    eprintln!("{what}: {states} states of second cuts, full {full} times");
}

#[test]
fn a_backup_after_a_cut_is_cut_again() {
    let deed = |world: &World| Deed::Backup(Box::new(world.taking(Wish::Incremental)));
    disturb_twice("a backup twice", |_| {}, deed);
}

#[test]
fn a_prune_after_a_cut_is_cut_again() {
    let protect = |world: &mut World| world.protect(3, true);
    disturb_twice("a prune twice", protect, |_| Deed::Prune(last(1)));
}

#[test]
fn a_merge_after_a_cut_is_cut_again() {
    disturb_twice("a merge twice", |_| {}, |_| Deed::Merge(Some(2), 3));
}

#[test]
fn a_copy_in_place_after_a_cut_is_cut_again() {
    let request = CopyRequest {
        recompress: Some(Compression::None),
        ..CopyRequest::default()
    };
    let deed = |_: &World| Deed::Rewrite(vec![2], request.clone());
    disturb_twice("a copy in place twice", |_| {}, deed);
}
