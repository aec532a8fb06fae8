//! The power fails behind every call of the file system, and of what was not synced anything may be lost, torn
//! or there: nothing that was there is lost, nothing half-made is listed, what was said to be done is done, and
//! doing it again ends where an undisturbed run ends.

use crate::crash::last;
use crate::disk::Edit;
use crate::kit::power::{Cut, cuts};
use crate::kit::recorded::RecordedFolder;
use crate::kit::scratch_in_memory;
use crate::long;
use crate::rehearsed::{Deed, Expected, Held, expect, history};
use crate::shaped::in_parts;
use crate::world::{World, odd_len};
use diskstrata::chain::Wish;
use diskstrata::image::Compression;
use diskstrata::ops::copy::CopyRequest;
use diskstrata::store::{LocalStore, SplitStore, Store};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) const CHAIN: [Wish; 2] = [Wish::Incremental; 2];

/// How the images lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lying {
    Whole,
    InParts,
}

pub(crate) fn open(path: &Path, lying: Lying) -> Arc<dyn Store> {
    let local = Arc::new(LocalStore::open(path).unwrap());
    match lying {
        Lying::Whole => Arc::new(SplitStore::new(local, Uuid::new_v4)),
        Lying::InParts => in_parts(local),
    }
}

pub(crate) fn lay_out(folder: &Path, cut: &Cut) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, content) in &cut.left {
        std::fs::write(folder.join(name), content).unwrap();
    }
}

fn check_cut(expected: &Expected, store: &Arc<dyn Store>, done: bool, when: &str) {
    if done {
        // It was said to be done: that stands, whatever was not synced.
        assert_eq!(Held::of(store), expected.after, "{when}");
    }
    expected.again(store, true, when);
}

/// How many states of each deed the long campaign looks at, at least.
const LONG_STATES: usize = 5000;

/// Calls `disturb`, which says how many states it has looked at, once, and in the long campaign with one number
/// after the other until that were enough. Stops where it cannot be done.
pub(crate) fn enough_states(what: &str, mut disturb: impl FnMut(u32) -> Option<usize>) {
    let wanted = if long() { LONG_STATES } else { 1 };
    let (mut states, mut rounds) = (0, 0);
    while states < wanted {
        let Some(more) = disturb(rounds) else {
            return;
        };
        states += more;
        rounds += 1;
    }
    eprintln!("{what}: {states} states of {rounds} histories");
}

/// Does a deed in a recorded folder and looks at every state that a power cut may leave.
fn disturb(
    what: &str,
    lying: Lying,
    kinds: &[Wish],
    prepare: impl Fn(&mut World),
    deed: impl Fn(&World) -> Deed,
) {
    let once = |seed| disturb_once(what, lying, (kinds, seed), &prepare, &deed);
    enough_states(what, once);
}

/// Each cut that is told from the others by what was not synced counts once. `None` where no folder can be
/// recorded.
fn disturb_once(
    what: &str,
    lying: Lying,
    (kinds, seed): (&[Wish], u32),
    prepare: impl Fn(&mut World),
    deed: impl Fn(&World) -> Deed,
) -> Option<usize> {
    let folder = RecordedFolder::mount(what)?;
    let mut world = match lying {
        Lying::Whole => history(open(folder.path(), lying), kinds, seed),
        Lying::InParts => long_history(open(folder.path(), lying), kinds, seed),
    };
    prepare(&mut world);
    let about_to = || {
        folder.take_log();
        folder.files()
    };
    let (expected, before) = expect(world, deed, about_to);
    let changes = folder.take_log();
    // What looking at it does behind its end changes nothing that counts.
    let room = scratch_in_memory();
    let store = open(room.path(), lying);
    // What lies in parts takes longer, and has far more places to be cut at.
    let seeds = match lying {
        Lying::Whole => 100,
        Lying::InParts => 4,
    };
    let mut shown = 0;
    let count = cuts(&before, &changes, seeds, |cut| {
        let when = format!(
            "{what}: behind {} of {} changes, kept: {:?}",
            cut.behind,
            changes.len(),
            cut.kept
        );
        lay_out(room.path(), &cut);
        check_cut(&expected, &store, cut.behind == changes.len(), &when);
        shown += 1;
    });
    assert_eq!(shown, count);
    assert!(
        count > changes.len(),
        "{count} states of {} changes",
        changes.len()
    );
    eprintln!("{what}: {count} states behind {} changes", changes.len());
    Some(count)
}

/// Images that take several parts, of a disk with other content for every `seed`.
pub(crate) fn long_history(store: Arc<dyn Store>, kinds: &[Wish], seed: u32) -> World {
    let mut world = World::new(store, odd_len(999), 5);
    for (n, wish) in (0u32..).zip(std::iter::once(&Wish::Full).chain(kinds)) {
        let (at, count) = (u64::from(n) * 40, if n == 0 { 60 } else { 20 });
        for run in 0..12 {
            // Every third seed is noise.
            let (at, seed) = (
                at + run * 70,
                3 * (100 * n + u32::try_from(run).unwrap() + 10_000 * seed) + 1,
            );
            world.disk.edit(&Edit::Write { at, count, seed });
        }
        let mut taking = world.taking(*wish);
        taking.compression = Compression::None;
        world.take(&taking);
    }
    world
}

#[test]
fn the_first_image_comes_whole_or_not_at_all() {
    let full = |world: &World| Deed::Backup(Box::new(world.taking(Wish::Full)));
    disturb("a full image", Lying::Whole, &[], |_| {}, full);
}

#[test]
fn an_increment_comes_whole_or_not_at_all() {
    for (what, wish) in [
        ("an increment", Wish::Incremental),
        ("a differential image", Wish::Differential),
    ] {
        let deed = |world: &World| Deed::Backup(Box::new(world.taking(wish)));
        disturb(what, Lying::Whole, &CHAIN, |_| {}, deed);
    }
}

#[test]
fn pruning_loses_nothing_that_stays() {
    let protect = |world: &mut World| world.protect(3, true);
    disturb("a prune", Lying::Whole, &CHAIN, protect, |_| {
        Deed::Prune(last(1))
    });
}

#[test]
fn merging_loses_nothing_that_stays() {
    disturb(
        "a merge",
        Lying::Whole,
        &CHAIN,
        |_| {},
        |_| Deed::Merge(Some(2), 3),
    );
}

#[test]
fn a_protection_is_there_or_not() {
    disturb(
        "a protection",
        Lying::Whole,
        &CHAIN,
        |_| {},
        |_| Deed::Protect(2),
    );
}

#[test]
fn an_image_is_written_anew_or_stays() {
    let request = CopyRequest {
        recompress: Some(Compression::None),
        ..CopyRequest::default()
    };
    let deed = |_: &World| Deed::Rewrite(vec![2], request.clone());
    disturb("a copy in place", Lying::Whole, &CHAIN, |_| {}, deed);
}

#[test]
fn an_image_in_parts_comes_whole_or_not_at_all() {
    let deed = |world: &World| {
        let mut taking = world.taking(Wish::Incremental);
        taking.compression = Compression::None;
        Deed::Backup(Box::new(taking))
    };
    disturb(
        "an increment in parts",
        Lying::InParts,
        &CHAIN[..1],
        |_| {},
        deed,
    );
}

#[test]
fn merging_parts_loses_nothing_that_stays() {
    disturb(
        "a merge in parts",
        Lying::InParts,
        &CHAIN[..1],
        |_| {},
        |_| Deed::Prune(last(1)),
    );
}
