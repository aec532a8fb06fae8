//! Random actions that are disturbed: calls of the store fail, somebody stops them, and then what clears that up
//! is disturbed too; the power fails in the middle; bits rot. After each step every image is what it must be, as
//! if nothing had happened.
//!
//! `STRATA_MODEL_MINUTES` says for how long new histories are tried.

use crate::check;
use crate::deeds::Stop;
use crate::kit::power::cuts;
use crate::kit::recorded::{Files, RecordedFolder};
use crate::kit::scratch_in_memory;
use crate::power::lay_out;
use crate::random::{Action, Lying, action, config, lying, small_start};
use crate::rehearsed::{Deed, EIO, ENOSPC, Expected, Held, cells_of};
use crate::shaped::Shape;
use crate::world::{World, id, odd_len};
use diskstrata::base::{Error, ErrorKind, to_u64, to_usize};
use diskstrata::chain::{Catalog, Wish};
use diskstrata::store::{
    Fault, FaultStore, Faults, LocalStore, MemoryStore, RecordStore, Recorded, Store,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EROFS: i32 = 30;
const ENODEV: i32 = 19;
const ESTALE: i32 = 116;

/// What comes in between.
#[derive(Debug, Clone)]
enum Disturbance {
    /// So many thousandths of the way through its calls one fails, or all from there on: a process that dies.
    Fails { at: u64, errno: i32, lasting: bool },
    /// Somebody stops it when it reports something for the so many-th time.
    Stopped { nth: u64 },
}

/// What is tried in another store with the same content.
#[derive(Debug, Clone)]
enum Aside {
    Nothing,
    /// The power fails during the action, in some of all ways.
    PowerFails,
    /// A bit flips before it, so many thousandths of the way through a file.
    Rots {
        file: usize,
        at: u64,
        bit: u8,
    },
}

#[derive(Debug, Clone)]
struct Step {
    action: Action,
    disturbances: Vec<Disturbance>,
    aside: Aside,
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    let errno = prop_oneof![
        Just(EIO),
        Just(ENOSPC),
        Just(EROFS),
        Just(ENODEV),
        Just(ESTALE)
    ];
    prop_oneof![
        3 => (0u64..1000, errno, any::<bool>())
            .prop_map(|(at, errno, lasting)| Disturbance::Fails { at, errno, lasting }),
        1 => (1u64..40).prop_map(|nth| Disturbance::Stopped { nth }),
    ]
}

fn step(blocks: u64) -> impl Strategy<Value = Step> {
    let aside = prop_oneof![
        10 => Just(Aside::Nothing),
        1 => Just(Aside::PowerFails),
        4 => (any::<usize>(), 0u64..1000, 0u8..8)
            .prop_map(|(file, at, bit)| Aside::Rots { file, at, bit }),
    ];
    let disturbances = proptest::collection::vec(disturbance(), 0..3);
    (action(blocks), disturbances, aside).prop_map(|(action, disturbances, aside)| Step {
        action,
        disturbances,
        aside,
    })
}

#[derive(Debug, Clone)]
struct Life {
    blocks: u64,
    window_log2: u8,
    lying: Lying,
    start: Action,
    steps: Vec<Step>,
}

fn life() -> impl Strategy<Value = Life> {
    (1u64..80, 0u8..7, lying()).prop_flat_map(|(blocks, window_log2, lying)| {
        let steps = proptest::collection::vec(step(blocks), 3..24);
        (small_start(blocks), steps).prop_map(move |(start, steps)| Life {
            blocks,
            window_log2,
            lying,
            start,
            steps,
        })
    })
}

/// How often what came to pass.
#[derive(Debug, Default)]
struct Tally {
    histories: u32,
    steps: u32,
    failed: u32,
    stopped: u32,
    cuts: usize,
    rotten: u32,
    healed: u32,
}

impl Tally {
    /// Whether all of it came to pass so often that it says something.
    fn has_all(&self, power_can_fail: bool) -> bool {
        let often = [self.failed, self.stopped, self.rotten, self.healed];
        often.iter().all(|n| *n > 5) && (!power_can_fail || self.cuts > 5)
    }
}

/// Where the images are, how they lie there, and what is looked at beside.
struct Place<'a> {
    memory: MemoryStore,
    shape: Shape,
    folder: Option<&'a RecordedFolder>,
    tally: &'a mut Tally,
}

fn copy_of(memory: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new("copy");
    for entry in memory.list().unwrap() {
        copy.put(&entry.name, memory.get(&entry.name).unwrap());
    }
    copy
}

impl Place<'_> {
    fn over(&self, inner: impl Store + 'static) -> Arc<dyn Store> {
        self.shape.over(Arc::new(inner))
    }

    fn step(&mut self, world: &mut World, step: &Step) {
        self.tally.steps += 1;
        step.action.change(&mut world.disk);
        if let Aside::Rots { file, at, bit } = step.aside {
            self.rots(world, file, at, bit);
        }
        let Some(deed) = step.action.deed(world) else {
            return step.action.act(world);
        };
        // Elsewhere nothing disturbs it.
        let log = Recorded::default();
        let mut undisturbed = world.clone();
        let copy = RecordStore::new(Arc::new(copy_of(&self.memory)), log.clone());
        undisturbed.store = self.over(copy);
        let before = Held::of(&world.store);
        step.action.act(&mut undisturbed);
        if matches!(deed, Deed::Merge(..)) && undisturbed.points.len() == world.points.len() {
            // It was refused, and is so again.
            return step.action.act(world);
        }
        let calls = to_u64(log.ops().len());
        let mut cells = cells_of(world);
        cells.extend(cells_of(&undisturbed));
        let expected = Expected {
            deed,
            cells,
            before,
            after: Held::of(&undisturbed.store),
        };
        if let Aside::PowerFails = step.aside {
            self.power_fails(&expected);
        }
        for disturbance in &step.disturbances {
            self.disturb(&expected, disturbance, calls);
            let when = format!("{disturbance:?} of {calls} calls");
            expected.nothing_is_lost(&world.store, &when);
        }
        let fails = |d: &Disturbance| matches!(d, Disturbance::Fails { .. });
        let exactly = !step.disturbances.iter().any(fails);
        let when = format!("behind {:?}", step.disturbances);
        expected.again(&world.store, exactly, &when);
        let store = Arc::clone(&world.store);
        match &expected.deed {
            Deed::Backup(taking) if !exactly => {
                let number = taking.number;
                let catalog = check::whole_catalog(&store);
                let image = catalog.by_id(id(number)).unwrap();
                let view = check::view(&store, &catalog, image);
                let found = check::recorded_by(&view);
                // What could not be compared for a moment was stored again.
                let recorded = |at: usize, since| match found[at] == number {
                    true => number,
                    false => since,
                };
                world.took(taking, &image.header, image.root, recorded);
            }
            _ => {
                *world = undisturbed;
                world.store = store;
            }
        }
    }

    fn disturb(&mut self, expected: &Expected, disturbance: &Disturbance, calls: u64) {
        match *disturbance {
            Disturbance::Fails { at, errno, lasting } => {
                let nth = 1 + calls * at / 1000;
                let faults = Faults::new(vec![Fault::nth_of_all(nth, errno, lasting)]);
                let inner = Arc::new(self.memory.clone());
                let store = self.over(FaultStore::new(inner, faults.clone()));
                let outcome = expected.deed.run(&store, &Stop::never());
                self.tally.failed += u32::from(faults.fired() && outcome.is_err());
            }
            Disturbance::Stopped { nth } => {
                let stop = Stop::at(nth);
                let outcome = expected.deed.run(&self.over(self.memory.clone()), &stop);
                if !stop.fired() {
                    return;
                }
                let stopped = |e: &Error| e.kind() == ErrorKind::Interrupted;
                // What was stopped before may be done already, which is said.
                let again = matches!(expected.deed, Deed::Merge(..));
                if let Err(error) = &outcome {
                    assert!(again || stopped(error), "{error}");
                }
                self.tally.stopped += u32::from(outcome.is_err());
            }
        }
    }

    /// The power fails during a deed, behind some of its calls of the file system.
    fn power_fails(&mut self, expected: &Expected) {
        let Some(folder) = self.folder else {
            return;
        };
        folder.reset(&Files::new());
        for entry in self.memory.list().unwrap() {
            let bytes = self.memory.get(&entry.name).unwrap();
            folder.put(entry.name.as_str(), bytes);
        }
        let store = self.over(LocalStore::open(folder.path()).unwrap());
        folder.take_log();
        let before = folder.files();
        expected.deed.run(&store, &Stop::never()).unwrap();
        drop(store);
        let changes = folder.take_log();
        let room = scratch_in_memory();
        let store = self.over(LocalStore::open(room.path()).unwrap());
        // Eight or so of all.
        let mut seen = 0;
        let all = cuts(&before, &changes, 1, |_| seen += 1);
        let every = (all / 8).max(1);
        let mut number = 0;
        cuts(&before, &changes, 1, |cut| {
            number += 1;
            if number % every != seen % every {
                return;
            }
            self.tally.cuts += 1;
            lay_out(room.path(), &cut);
            let when = format!("behind {} of {}, {:?}", cut.behind, changes.len(), cut.kept);
            if cut.behind == changes.len() {
                // It was said to be done.
                assert_eq!(Held::of(&store), expected.after, "{when}");
            }
            expected.again(&store, true, &when);
        });
    }

    /// A bit flips: no wrong byte is handed out, what is lost is found, and the next image has all of it.
    fn rots(&mut self, world: &World, file: usize, at: u64, bit: u8) {
        let memory = copy_of(&self.memory);
        let mut names: Vec<_> = memory.list().unwrap().into_iter().map(|e| e.name).collect();
        names.retain(|name| !name.as_str().ends_with(".json"));
        let name = &names[file % names.len()];
        let mut bytes = memory.get(name).unwrap();
        let at = to_usize(to_u64(bytes.len()) * at / 1000);
        bytes[at] ^= 1 << bit;
        memory.put(name, bytes);
        let mut rotten = world.clone();
        rotten.store = self.over(memory);
        let found = check::damaged(&rotten).deep;
        if found.is_empty() {
            // Where nobody looks: slots of an encrypted head.
            assert!(
                matches!(self.shape, Shape::Encrypted(..)),
                "byte {at} of {name}"
            );
            return;
        }
        self.tally.rotten += 1;
        found.iter().for_each(|n| rotten.note(*n, false));
        let taking = rotten.taking(Wish::Auto);
        taking.run(&rotten.store, &Stop::never()).unwrap();
        let catalog = Catalog::load(rotten.store.as_ref()).unwrap();
        let image = catalog.by_id(id(taking.number)).unwrap();
        let view = check::view(&rotten.store, &catalog, image);
        let lost = check::restored(&view, &taking.cells());
        assert!(
            lost.is_empty(),
            "{lost:?} behind a flip of byte {at} of {name}"
        );
        self.tally.healed += 1;
    }
}

fn lived(life: &Life, folder: Option<&RecordedFolder>, tally: &mut Tally) {
    tally.histories += 1;
    let mut place = Place {
        memory: MemoryStore::new("memory"),
        shape: life.lying.shape(),
        folder,
        tally,
    };
    let store = place.over(place.memory.clone());
    let mut world = World::new(store, odd_len(life.blocks - 1), life.window_log2);
    life.start.run(&mut world);
    let mut looked_at = Vec::new();
    for step in &life.steps {
        place.step(&mut world, step);
        check::world(&world, &mut looked_at);
    }
    check::world(&world, &mut Vec::new());
}

#[test]
fn every_image_restores_whatever_disturbs_the_steps() {
    let folder = RecordedFolder::mount("random actions that are disturbed");
    let minutes = std::env::var("STRATA_MODEL_MINUTES").ok();
    let minutes = minutes.map_or(0, |text| text.parse::<u64>().unwrap());
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let tally = RefCell::new(Tally::default());
    // The histories differ from run to run, so some more are lived where something did not happen in them.
    let mut more = 5;
    loop {
        let mut runner = TestRunner::new(config(20));
        let check = |life: Life| {
            lived(&life, folder.as_ref(), &mut tally.borrow_mut());
            Ok(())
        };
        runner.run(&life(), check).unwrap();
        if Instant::now() < until {
            continue;
        }
        if more == 0 || tally.borrow().has_all(folder.is_some()) {
            break;
        }
        more -= 1;
    }
    let tally = tally.into_inner();
    eprintln!("{tally:?}");
    assert!(tally.has_all(folder.is_some()), "{tally:?}");
}
