//! Every operation on a store fails once, and the power fails behind each: nothing that was there is
//! lost, nothing half-made is listed, and doing it again ends where an undisturbed run ends.

use crate::check;
use crate::deeds::Stop;
use crate::rehearsed::{Deed, EIO, Held, rehearse};
use crate::world::{World, id};
use diskstrata::base::ErrorKind;
use diskstrata::chain::Wish;
use diskstrata::chain::retention::Policy;
use diskstrata::image::Kind;
use diskstrata::store::{Call, Fault, FaultStore, Faults, Op, Store, replay};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn last(last: u32) -> Policy {
    Policy {
        last,
        ..Policy::default()
    }
}

const CHAIN: [Wish; 3] = [Wish::Incremental; 3];

#[test]
fn a_backup_is_there_whole_or_not_at_all() {
    let backup = |world: &World| Deed::Backup(Box::new(world.taking(Wish::Incremental)));
    rehearse(&CHAIN[..1], |_| {}, backup).disturb();
}

#[test]
fn the_full_image_rolls_forward() {
    let rehearsed = rehearse(&CHAIN, |w| w.protect(4, true), |_| Deed::Prune(last(2)));
    assert_eq!(rehearsed.after.images.len(), 2);
    rehearsed.disturb();
}

#[test]
fn the_middle_is_merged() {
    let rehearsed = rehearse(&CHAIN, |w| w.protect(1, true), |_| Deed::Prune(last(1)));
    let parent = rehearsed.after.images[&id(4)].0.parent;
    assert_eq!(parent.map(|p| p.id), Some(id(1)));
    rehearsed.disturb();
}

/// 1 is full, 2 and 3 build on it, 4 is differential, and 5 builds on that: 3 simply goes, 4 is merged
/// into 5, and 1 stays because 2 and 5 build on it.
#[test]
fn branches_are_pruned() {
    let kinds = [
        Wish::Incremental,
        Wish::Incremental,
        Wish::Differential,
        Wish::Incremental,
    ];
    let rehearsed = rehearse(&kinds, |w| w.protect(2, true), |_| Deed::Prune(last(1)));
    let left: Vec<&Uuid> = rehearsed.after.images.keys().collect();
    assert_eq!(left, [&id(1), &id(2), &id(5)]);
    rehearsed.disturb();
}

#[test]
fn a_range_is_merged() {
    rehearse(&CHAIN, |_| {}, |_| Deed::Merge(Some(2), 3)).disturb();
}

#[test]
fn a_full_image_is_merged_into_another() {
    rehearse(
        &CHAIN[..2],
        |w| w.protect(3, true),
        |_| Deed::Merge(None, 3),
    )
    .disturb();
}

#[test]
fn a_protection_is_noted_or_not() {
    rehearse(&CHAIN[..1], |w| w.protect(2, true), |_| Deed::Protect(1)).disturb();
}

/// The power fails behind the publication of a merged image, and not all of it has reached the disk.
#[test]
fn what_a_damaged_merged_image_was_made_of_stays() {
    for deed in [Deed::Prune(last(1)), Deed::Merge(None, 3)] {
        let rehearsed = rehearse(&CHAIN[..2], |_| {}, |_| Deed::Prune(last(1)));
        let publish = |op: &Op| matches!(op, Op::Publish(_));
        let deed_ops = &rehearsed.ops[rehearsed.start..];
        // First comes the note that the merge has begun.
        let mut published = (0..).zip(deed_ops).filter(|(_, op)| publish(op));
        let published: usize = published.nth(1).unwrap().0;
        let memory = replay(&rehearsed.ops[..rehearsed.start + published + 1]);
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let catalog = check::whole_catalog(&store);
        let merged = catalog.by_id(id(3)).unwrap();
        assert_eq!(
            (merged.header.kind, catalog.replaced.len()),
            (Kind::Full, 1)
        );
        let mut bytes = memory.get(&merged.file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        memory.put(&merged.file, bytes);
        let error = deed.run(&store, &Stop::never()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(merged.file.as_str()), "{error}");
        // Without the damaged file everything is as it was before.
        store.remove(&merged.file).unwrap();
        assert_eq!(Held::of(&store), rehearsed.before);
        rehearsed.again(&store, true, "without the damaged image");
    }
}

/// Each file in turn cannot be opened for a moment.
#[test]
fn a_protection_outlives_a_moment_in_which_its_image_cannot_be_opened() {
    let protect = |world: &mut World| (1..=2).for_each(|n| world.protect(n, true));
    let rehearsed = rehearse(&CHAIN[..1], protect, |_| Deed::Prune(last(5)));
    for nth in 1.. {
        let memory: Arc<dyn Store> = rehearsed.fresh();
        let faults = Faults::new(vec![Fault::nth(Call::Open, nth, EIO, false)]);
        let faulty: Arc<dyn Store> = Arc::new(FaultStore::new(Arc::clone(&memory), faults.clone()));
        let outcome = rehearsed.deed.run(&faulty, &Stop::never());
        assert_eq!(Held::of(&memory), rehearsed.before, "{outcome:?}");
        if !faults.fired() {
            return outcome.unwrap();
        }
    }
}
