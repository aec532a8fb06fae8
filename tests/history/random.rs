//! Random actions, one after the other, and everything checked after each.

use crate::deeds::Taking;
use crate::disk::{Disk, Edit};
use crate::rehearsed::Deed;
use crate::shaped::Shape;
use crate::world::{World, odd_len};
use crate::{check, long};
use diskstrata::chain::Wish;
use diskstrata::chain::retention::{Policy, Within};
use diskstrata::image::Compression;
use diskstrata::ops::copy::CopyRequest;
use diskstrata::store::MemoryStore;
use diskstrata::store::Store;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Something that happens to a store. Images are counted from the oldest, round and round.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Backup {
        edits: Vec<Edit>,
        wish: Wish,
        compression: Compression,
        holes: bool,
    },
    Prune(Policy),
    Merge {
        from: Option<usize>,
        into: usize,
    },
    Protect {
        image: usize,
        on: bool,
    },
    Rewrite {
        image: usize,
        compression: Compression,
        full: bool,
    },
    Verified {
        image: usize,
        ok: bool,
    },
    /// All images go into another store, where they lie in some way, and the history goes on there.
    Move {
        lying: Lying,
        recompress: bool,
    },
}

/// How the images of a store lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lying {
    Plain,
    InParts,
    Encrypted,
}

impl Lying {
    pub(crate) fn shape(self) -> Shape {
        match self {
            Lying::Plain => Shape::Plain,
            Lying::InParts => Shape::InParts,
            Lying::Encrypted => Shape::encrypted(),
        }
    }

    /// An empty store.
    fn store(self) -> Arc<dyn Store> {
        self.shape().over(Arc::new(MemoryStore::new("memory")))
    }
}

pub(crate) fn lying() -> impl Strategy<Value = Lying> {
    prop_oneof![
        Just(Lying::Plain),
        Just(Lying::InParts),
        Just(Lying::Encrypted)
    ]
}

/// Places on a disk of so many blocks. On a long one only two regions change, one of them around the
/// blocks where the second page of the upper level begins.
fn places(blocks: u64) -> BoxedStrategy<u64> {
    if blocks < 4000 {
        return (0..blocks).boxed();
    }
    prop_oneof![0u64..700, 32_500..blocks].boxed()
}

fn edit(blocks: u64) -> impl Strategy<Value = Edit> {
    let at = || places(blocks);
    let run = || prop_oneof![4 => 1u64..4, 2 => 1u64..40, 1 => 1u64..300];
    prop_oneof![
        6 => (at(), run(), 0u32..3000).prop_map(|(at, count, seed)| Edit::Write { at, count: count.min(60), seed }),
        2 => (at(), run()).prop_map(|(at, count)| Edit::Zero { at, count }),
        2 => (at(), at(), run()).prop_map(|(from, at, count)| Edit::Copy { from, at, count }),
        2 => (at(), run(), 0usize..5).prop_map(|(at, count, back)| Edit::Revert { at, count, back }),
        2 => (at(), run()).prop_map(|(at, count)| Edit::Free { at, count }),
        2 => (at(), run()).prop_map(|(at, count)| Edit::Allocate { at, count }),
        1 => (at(), run()).prop_map(|(at, count)| Edit::LeaveOut { at, count }),
        1 => Just(Edit::TakeAgain),
        1 => (at(), 0u64..8, 1u64..4).prop_map(|(at, s, count)| Edit::Spoil { sector: at * 8 + s, count }),
        1 => Just(Edit::Heal),
        1 => (blocks - blocks / 8..=blocks + blocks / 8).prop_map(|blocks| Edit::Resize { blocks }),
    ]
}

fn backup(blocks: u64) -> impl Strategy<Value = Action> {
    let wish = prop_oneof![
        4 => Just(Wish::Auto),
        4 => Just(Wish::Incremental),
        3 => Just(Wish::Differential),
        1 => Just(Wish::Full),
    ];
    let compression = prop_oneof![Just(Compression::Zstd(1)), Just(Compression::None)];
    let edits = proptest::collection::vec(edit(blocks), 0..6);
    (edits, wish, compression, any::<bool>()).prop_map(|(edits, wish, compression, holes)| {
        Action::Backup {
            edits,
            wish,
            compression,
            holes,
        }
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let within =
        proptest::option::weighted(0.2, (1u32..9).prop_map(|h| Within::parse(&format!("{h}h"))));
    (0u32..5, 0u32..4, 0u32..3, within).prop_map(|(last, hourly, daily, within)| {
        let within = within.map(Result::unwrap);
        let none = last + hourly + daily == 0 && within.is_none();
        let last = if none { 1 } else { last };
        Policy {
            last,
            hourly,
            daily,
            within,
            ..Policy::default()
        }
    })
}

pub(crate) fn action(blocks: u64) -> impl Strategy<Value = Action> {
    prop_oneof![
        9 => backup(blocks),
        2 => policy().prop_map(Action::Prune),
        3 => (proptest::option::weighted(0.8, 0usize..20), 0usize..20)
            .prop_map(|(from, into)| Action::Merge { from, into }),
        2 => (0usize..20, prop::bool::weighted(0.7))
            .prop_map(|(image, on)| Action::Protect { image, on }),
        2 => (0usize..20, any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(image, raw, full)| {
            let compression = if raw { Compression::None } else { Compression::Zstd(1) };
            Action::Rewrite { image, compression, full }
        }),
        1 => (0usize..20, any::<bool>()).prop_map(|(image, ok)| Action::Verified { image, ok }),
    ]
}

/// A disk of `blocks` blocks and what happens to its images. Most of it is free at first.
pub(crate) fn history(blocks: u64, actions: usize) -> impl Strategy<Value = Vec<Action>> {
    let start = (places(blocks), 30u64..200, 0u32..3000).prop_map(|(at, count, seed)| {
        vec![
            Edit::Allocate { at, count },
            Edit::Write { at, count, seed },
        ]
    });
    let start = proptest::collection::vec(start, 1..3).prop_map(move |parts| {
        let mut edits = vec![Edit::Free {
            at: 0,
            count: blocks,
        }];
        edits.extend(parts.into_iter().flatten());
        Action::Backup {
            edits,
            wish: Wish::Auto,
            compression: Compression::Zstd(1),
            holes: false,
        }
    });
    let rest = proptest::collection::vec(action(blocks), 3..actions);
    begun_with(start, rest)
}

fn begun_with(
    start: impl Strategy<Value = Action>,
    rest: impl Strategy<Value = Vec<Action>>,
) -> impl Strategy<Value = Vec<Action>> {
    (start, rest).prop_map(|(start, rest)| std::iter::once(start).chain(rest).collect())
}

/// The first image of a disk of a few blocks.
pub(crate) fn small_start(blocks: u64) -> impl Strategy<Value = Action> {
    let edits = proptest::collection::vec(edit(blocks), 1..6);
    (edits, any::<bool>()).prop_map(|(edits, holes)| Action::Backup {
        edits,
        wish: Wish::Auto,
        compression: Compression::Zstd(1),
        holes,
    })
}

/// Of the numbers of the images, counted round and round.
fn pick(world: &World, n: usize) -> u32 {
    let numbers: Vec<u32> = world.points.keys().copied().collect();
    numbers[n % numbers.len()]
}

impl Action {
    pub(crate) fn run(&self, world: &mut World) {
        self.change(&mut world.disk);
        self.act(world);
    }

    /// What it changes on the disk before it begins.
    pub(crate) fn change(&self, disk: &mut Disk) {
        if let Action::Backup { edits, .. } = self {
            edits.iter().for_each(|edit| disk.edit(edit));
        }
    }

    /// The image that a backup makes of the disk as it is.
    fn taking(&self, world: &World) -> Option<Taking> {
        let Action::Backup {
            wish,
            compression,
            holes,
            ..
        } = self
        else {
            return None;
        };
        Some(Taking {
            compression: *compression,
            holes: *holes,
            ..world.taking(*wish)
        })
    }

    /// As something that can be done once more when it was disturbed.
    pub(crate) fn deed(&self, world: &World) -> Option<Deed> {
        match self {
            Action::Backup { .. } => {
                let taking = self.taking(world);
                taking.map(|taking| Deed::Backup(Box::new(taking)))
            }
            Action::Prune(policy) => Some(Deed::Prune(*policy)),
            Action::Merge { from, into } => Some(Deed::Merge(
                from.map(|n| pick(world, n)),
                pick(world, *into),
            )),
            Action::Protect { image, on } => on.then(|| Deed::Protect(pick(world, *image))),
            Action::Rewrite {
                image,
                compression,
                full,
            } => {
                let request = CopyRequest {
                    recompress: Some(*compression),
                    full: *full,
                    ..CopyRequest::default()
                };
                Some(Deed::Rewrite(vec![pick(world, *image)], request))
            }
            Action::Verified { .. } | Action::Move { .. } => None,
        }
    }

    /// Does it, with the disk as it is.
    pub(crate) fn act(&self, world: &mut World) {
        let picked = |n: usize| pick(world, n);
        match self {
            Action::Backup { .. } => {
                let taking = self.taking(world).unwrap();
                world.take(&taking);
            }
            Action::Prune(policy) => world.prune(*policy),
            Action::Merge { from, into } => {
                let (from, into) = (from.map(picked), picked(*into));
                world.merge(from, into);
            }
            Action::Protect { image, on } => world.protect(picked(*image), *on),
            Action::Rewrite {
                image,
                compression,
                full,
            } => world.rewrite(picked(*image), *compression, *full),
            Action::Verified { image, ok } => world.note(picked(*image), *ok),
            Action::Move { lying, recompress } => {
                world.move_to(lying.store(), recompress.then_some(Compression::None));
            }
        }
    }
}

/// A disk of a few blocks, of all lengths and with all windows, and more that happens to its images: they move
/// into other stores too.
fn small_history() -> impl Strategy<Value = (u64, u8, Lying, Vec<Action>)> {
    (1u64..80, 0u8..7, lying()).prop_flat_map(|(blocks, window, lying)| {
        let plain = prop_oneof![Just(Lying::Plain), Just(Lying::InParts)];
        let moving = (plain, any::<bool>())
            .prop_map(|(lying, recompress)| Action::Move { lying, recompress });
        // What is encrypted stays where its keys are.
        let any_action = match lying {
            Lying::Encrypted => action(blocks).boxed(),
            _ => prop_oneof![24 => action(blocks), 1 => moving].boxed(),
        };
        let rest = proptest::collection::vec(any_action, 3..40);
        (
            Just(blocks),
            Just(window),
            Just(lying),
            begun_with(small_start(blocks), rest),
        )
    })
}

fn check_history(blocks: u64, window_log2: u8, lying: Lying, actions: &[Action]) {
    let store = lying.store();
    let mut world = World::new(store, odd_len(blocks - 1), window_log2);
    let mut looked_at = Vec::new();
    for action in actions {
        action.run(&mut world);
        check::world(&world, &mut looked_at);
    }
    // Once more without trusting that a file that has not changed can be read as before.
    check::world(&world, &mut Vec::new());
}

pub(crate) fn config(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let usual = if long() { usual * 20 } else { usual };
    ProptestConfig {
        cases: asked.unwrap_or(usual),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn every_image_that_is_left_restores(
        (blocks, window_log2, actions) in (600u64..1500, 2u8..6)
            .prop_flat_map(|(blocks, window)| (Just(blocks), Just(window), history(blocks, 16)))
    ) {
        check_history(blocks, window_log2, Lying::Plain, &actions);
    }
}

proptest! {
    #![proptest_config(config(6))]

    /// A table of three levels.
    #[test]
    fn a_longer_disk_is_no_different(actions in history(33_300, 12)) {
        check_history(33_300, 5, Lying::Plain, &actions);
    }
}

/// How many steps the long campaign takes at least, with everything checked after each.
const LONG_STEPS: usize = 50_000;

#[test]
fn every_image_of_a_small_disk_restores_after_each_of_many_steps() {
    let steps = AtomicUsize::new(0);
    let config = config(if long() { 130 } else { 60 });
    let cases = config.cases;
    let check = |(blocks, window_log2, lying, actions): (_, _, _, Vec<Action>)| {
        check_history(blocks, window_log2, lying, &actions);
        steps.fetch_add(actions.len(), Ordering::Relaxed);
        Ok(())
    };
    TestRunner::new(config)
        .run(&small_history(), check)
        .unwrap();
    let steps = steps.into_inner();
    eprintln!("{steps} steps of {cases} histories");
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    assert!(asked || !long() || steps >= LONG_STEPS, "{steps} steps");
}
