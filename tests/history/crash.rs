//! Every operation on a store fails once, and the power fails behind each: nothing that was there is
//! lost, nothing half-made is listed, and doing it again ends where an undisturbed run ends.

use crate::check;
use crate::deeds::Stop;
use crate::rehearsed::{Deed, EIO, Held, rehearse};
use crate::shaped::Shape;
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
    for shape in Shape::all() {
        rehearse(shape, &CHAIN[..1], |_| {}, backup).disturb();
    }
}

#[test]
fn the_full_image_rolls_forward() {
    let protect = |w: &mut World| w.protect(4, true);
    for shape in Shape::all() {
        let rehearsed = rehearse(shape, &CHAIN, protect, |_| Deed::Prune(last(2)));
        assert_eq!(rehearsed.after.images.len(), 2);
        rehearsed.disturb();
    }
}

#[test]
fn the_middle_is_merged() {
    let protect = |w: &mut World| w.protect(1, true);
    for shape in Shape::all() {
        let rehearsed = rehearse(shape, &CHAIN, protect, |_| Deed::Prune(last(1)));
        let parent = rehearsed.after.images[&id(4)].0.parent;
        assert_eq!(parent.map(|p| p.id), Some(id(1)));
        rehearsed.disturb();
    }
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
    let protect = |w: &mut World| w.protect(2, true);
    for shape in Shape::all() {
        let rehearsed = rehearse(shape, &kinds, protect, |_| Deed::Prune(last(1)));
        let left: Vec<&Uuid> = rehearsed.after.images.keys().collect();
        assert_eq!(left, [&id(1), &id(2), &id(5)]);
        rehearsed.disturb();
    }
}

#[test]
fn a_range_is_merged() {
    for shape in Shape::all() {
        rehearse(shape, &CHAIN, |_| {}, |_| Deed::Merge(Some(2), 3)).disturb();
    }
}

#[test]
fn a_full_image_is_merged_into_another() {
    let protect = |w: &mut World| w.protect(3, true);
    for shape in Shape::all() {
        rehearse(shape, &CHAIN[..2], protect, |_| Deed::Merge(None, 3)).disturb();
    }
}

#[test]
fn a_protection_is_noted_or_not() {
    let protect = |w: &mut World| w.protect(2, true);
    for shape in Shape::all() {
        rehearse(shape, &CHAIN[..1], protect, |_| Deed::Protect(1)).disturb();
    }
}

/// The power fails behind the publication of a merged image, and not all of it has reached the disk.
#[test]
fn what_a_damaged_merged_image_was_made_of_stays() {
    for deed in [Deed::Prune(last(1)), Deed::Merge(None, 3)] {
        let rehearsed = rehearse(Shape::Plain, &CHAIN[..2], |_| {}, |_| Deed::Prune(last(1)));
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
    let rehearsed = rehearse(Shape::Plain, &CHAIN[..1], protect, |_| Deed::Prune(last(5)));
    for nth in 1.. {
        let memory = rehearsed.fresh();
        let faults = Faults::new(vec![Fault::nth(Call::Open, nth, EIO, false)]);
        let faulty = FaultStore::new(Arc::new(memory.clone()), faults.clone());
        let outcome = rehearsed.deed.run(&rehearsed.over(faulty), &Stop::never());
        let held = Held::of(&rehearsed.over(memory));
        assert_eq!(held, rehearsed.before, "{outcome:?}");
        if !faults.fired() {
            return outcome.unwrap();
        }
    }
}
