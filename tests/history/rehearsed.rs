//! An operation that has gone well once, and is disturbed then wherever it can be.

use crate::deeds::{Stop, Taking, name_start, run_copy, run_merge, run_prune};
use crate::disk::{Cell, Edit};
use crate::shaped::Shape;
use crate::world::{World, id, odd_len};
use crate::{check, long};
use diskstrata::base::{Digest, Error, ErrorKind, Result};
use diskstrata::chain::retention::Policy;
use diskstrata::chain::{self, Records, Wish};
use diskstrata::image::Header;
use diskstrata::ops::copy::CopyRequest;
use diskstrata::store::{
    Fault, FaultStore, Faults, MemoryStore, Op, RecordStore, Recorded, Store, replay,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;

/// What is done, and disturbed.
pub(crate) enum Deed {
    Backup(Box<Taking>),
    Prune(Policy),
    Merge(Option<u32>, u32),
    Protect(u32),
    /// Images that are written anew in their own store.
    Rewrite(Vec<u32>, CopyRequest),
}

impl Deed {
    /// Does it, as often as wanted.
    pub(crate) fn run(&self, store: &Arc<dyn Store>, stop: &Stop) -> Result<()> {
        match self {
            Deed::Backup(taking) => {
                // By its name: that it cannot be opened for a moment does not mean that it was not made.
                let start = name_start(taking.number);
                let made = store.list()?;
                match made.iter().any(|e| e.name.as_str().starts_with(&start)) {
                    // The next one would be another.
                    true => store.clean_up().map(drop),
                    false => taking.run(store, stop).map(drop),
                }
            }
            Deed::Prune(policy) => {
                let failures = run_prune(store, *policy, stop)?.failures;
                failures.into_iter().next().map_or(Ok(()), |why| {
                    Err(Error::new(ErrorKind::Damaged, "prune", "a store").because(why))
                })
            }
            Deed::Merge(from, into) => run_merge(store, *from, *into, stop),
            Deed::Protect(number) => {
                chain::protect(store.as_ref(), id(*number), Some("stays"), 1).map(drop)
            }
            Deed::Rewrite(numbers, request) => {
                run_copy(store, None, numbers, request.clone(), stop).map(drop)
            }
        }
    }
}

/// What a store holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) images: BTreeMap<Uuid, (Header, Digest)>,
    pub(crate) protected: BTreeSet<Uuid>,
}

impl Held {
    pub(crate) fn of(store: &Arc<dyn Store>) -> Held {
        let catalog = check::whole_catalog(store);
        let images = catalog.images.iter();
        let records = Records::load(store.as_ref()).unwrap();
        Held {
            images: images
                .map(|i| (i.header.id, (i.header.clone(), i.root)))
                .collect(),
            protected: records.protected.into_keys().collect(),
        }
    }
}

/// What a store holds before a deed and behind it.
pub(crate) struct Expected {
    pub(crate) deed: Deed,
    /// The disk of every image that there ever was.
    pub(crate) cells: BTreeMap<Uuid, Arc<Vec<Cell>>>,
    pub(crate) before: Held,
    pub(crate) after: Held,
}

/// A deed that has gone well once.
pub(crate) struct Rehearsed {
    pub(crate) expected: Expected,
    /// How the images lie.
    pub(crate) shape: Shape,
    /// All that was asked of what lies below the shape, from the first image on.
    pub(crate) ops: Vec<Op>,
    /// How many of these came before the deed.
    pub(crate) start: usize,
}

impl std::ops::Deref for Rehearsed {
    type Target = Expected;

    fn deref(&self) -> &Expected {
        &self.expected
    }
}

/// A history of full and incremental images that lie in `shape`, `kinds` from the second on, and a deed on top of it.
pub(crate) fn rehearse(
    shape: Shape,
    kinds: &[Wish],
    prepare: impl Fn(&mut World),
    deed: impl Fn(&World) -> Deed,
) -> Rehearsed {
    let log = Recorded::default();
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new("memory"));
    let store = shape.over(Arc::new(RecordStore::new(memory, log.clone())));
    let mut world = history(store, kinds, 0);
    prepare(&mut world);
    let (expected, start) = expect(world, deed, || log.ops().len());
    Rehearsed {
        expected,
        shape,
        start,
        ops: log.ops(),
    }
}

/// A full image and `kinds` on top of it, of a disk with other content for every `seed`.
pub(crate) fn history(store: Arc<dyn Store>, kinds: &[Wish], seed: u32) -> World {
    let mut world = World::new(store, odd_len(299), 5);
    world.disk.edit(&Edit::Free { at: 60, count: 210 });
    world.disk.edit(&Edit::Write {
        at: 5,
        count: 40,
        seed: 10_000 * seed,
    });
    world.backup(Wish::Full);
    for (n, wish) in (0u32..).zip(kinds) {
        change(&mut world, n);
        world.backup(*wish);
    }
    world
}

/// The disks of the images that are there.
pub(crate) fn cells_of(world: &World) -> BTreeMap<Uuid, Arc<Vec<Cell>>> {
    let all = world.points.iter();
    all.map(|(n, p)| (id(*n), Arc::clone(&p.cells))).collect()
}

/// Does a deed in the store of `world`, and says what that changed, and what `about_to` answered right before.
pub(crate) fn expect<T>(
    mut world: World,
    deed: impl Fn(&World) -> Deed,
    about_to: impl FnOnce() -> T,
) -> (Expected, T) {
    change(&mut world, 77);
    let store = Arc::clone(&world.store);
    let deed = deed(&world);
    let mut cells = cells_of(&world);
    if let Deed::Backup(taking) = &deed {
        cells.insert(id(taking.number), Arc::new(taking.cells()));
    }
    let before = Held::of(&store);
    let start = about_to();
    deed.run(&store, &Stop::never()).unwrap();
    let expected = Expected {
        deed,
        cells,
        before,
        after: Held::of(&store),
    };
    expected.ended(&store, "undisturbed");
    (expected, start)
}

/// Some blocks of the first leaf and one of the second.
fn change(world: &mut World, n: u32) {
    let at = u64::from(n % 9) * 3;
    world.disk.edit(&Edit::Write {
        at: 8 + at,
        count: 5,
        seed: 100 * n,
    });
    world.disk.edit(&Edit::Zero {
        at: 40 - at,
        count: 2,
    });
    world.disk.edit(&Edit::Write {
        at: 280 + at / 3,
        count: 1,
        seed: 100 * n + 50,
    });
    world.disk.edit(&Edit::Spoil {
        sector: 8 * (20 + at),
        count: 1,
    });
}

impl Expected {
    /// All that stays is there and whole, and nothing else than what was there or comes.
    pub(crate) fn nothing_is_lost(&self, store: &Arc<dyn Store>, when: &str) {
        let held = Held::of(store);
        let stays = |id: &&Uuid| self.after.images.contains_key(*id);
        for id in self.before.images.keys().filter(stays) {
            assert!(held.images.contains_key(id), "{when}: image {id} is gone");
        }
        let protected = |id: &&Uuid| self.after.protected.contains(*id);
        for id in self.before.protected.iter().filter(protected) {
            assert!(
                held.protected.contains(id),
                "{when}: {id} is no longer protected"
            );
        }
        let catalog = check::whole_catalog(store);
        for image in &catalog.images {
            let view = check::view(store, &catalog, image);
            let lost = check::restored(&view, &self.cells[&image.header.id]);
            assert!(lost.is_empty(), "{when}: {}", image.file);
        }
    }

    /// The store is as after an undisturbed run.
    fn ended(&self, store: &Arc<dyn Store>, when: &str) {
        self.nothing_is_lost(store, when);
        let held = Held::of(store);
        check::nothing_is_left(store, &check::whole_catalog(store));
        assert_eq!(held, self.after, "{when}");
    }

    /// As [`Rehearsed::ended`]; a backup that could not read an image for a moment may build on an older
    /// one, or on none.
    fn ended_somehow(&self, store: &Arc<dyn Store>, when: &str) {
        let Deed::Backup(taking) = &self.deed else {
            return self.ended(store, when);
        };
        self.nothing_is_lost(store, when);
        check::nothing_is_left(store, &check::whole_catalog(store));
        let others = |held: &Held| {
            let mut images = held.images.clone();
            assert!(images.remove(&id(taking.number)).is_some(), "{when}");
            images
        };
        assert_eq!(others(&Held::of(store)), others(&self.after), "{when}");
    }

    /// Does it again after it was disturbed.
    pub(crate) fn again(&self, store: &Arc<dyn Store>, exactly: bool, when: &str) {
        self.nothing_is_lost(store, when);
        let outcome = self.deed.run(store, &Stop::never());
        if let (Deed::Merge(..), Err(error)) = (&self.deed, &outcome) {
            // What is done already cannot be done again, and says so.
            let nothing_to_do = matches!(error.kind(), ErrorKind::Usage | ErrorKind::NotFound);
            assert!(nothing_to_do, "{when}: again: {error}");
            return self.ended(store, when);
        }
        outcome.unwrap_or_else(|e| panic!("{when}: again: {e}"));
        if let Deed::Protect(_) = &self.deed {
            // It shares the store with others; who has it alone cleans up.
            store.clean_up().unwrap();
        }
        if exactly {
            self.ended(store, when);
        } else {
            self.ended_somehow(store, when);
        }
    }
}

impl Rehearsed {
    /// What lies below the shape, as it was before the deed.
    pub(crate) fn fresh(&self) -> MemoryStore {
        replay(&self.ops[..self.start])
    }

    /// The store whose images lie in `inner`.
    pub(crate) fn over(&self, inner: impl Store + 'static) -> Arc<dyn Store> {
        self.shape.over(Arc::new(inner))
    }

    /// The power fails behind every operation.
    fn cut_everywhere(&self) {
        let mut cuts = 0;
        for end in self.start..=self.ops.len() {
            // Reads change nothing, and of an upload under way only its name is left.
            let last = end.checked_sub(1).and_then(|at| self.ops.get(at));
            let changes = |op: &Op| {
                matches!(
                    op,
                    Op::Create(..) | Op::Publish(_) | Op::Abandon(_) | Op::Remove(_)
                )
            };
            if end > self.start && !last.is_some_and(changes) {
                continue;
            }
            cuts += 1;
            let store = self.over(replay(&self.ops[..end]));
            self.again(
                &store,
                true,
                &format!("cut behind operation {} {last:?}", end - self.start),
            );
        }
        assert!(cuts > 2, "{cuts} cuts");
    }

    /// Every call fails, once or from then on.
    fn fail_everywhere(&self) {
        let ways = [(ENOSPC, false), (EIO, true), (EIO, false)];
        let tried = match (long(), &self.shape) {
            (true, _) => 3,
            (false, Shape::Plain) => 2,
            (false, _) => 1,
        };
        for (errno, lasting) in ways.into_iter().take(tried) {
            for nth in 1.. {
                let when = format!("call {nth} fails with {errno}, lasting: {lasting}");
                let faults = Faults::new(vec![Fault::nth_of_all(nth, errno, lasting)]);
                let memory = self.fresh();
                let faulty = FaultStore::new(Arc::new(memory.clone()), faults.clone());
                let outcome = self.deed.run(&self.over(faulty), &Stop::never());
                if !faults.fired() {
                    outcome.unwrap();
                    assert!(nth > 4, "{nth} calls");
                    break;
                }
                self.again(&self.over(memory), false, &when);
            }
        }
    }

    /// Somebody stops it whenever it reports something.
    fn stop_everywhere(&self) {
        for nth in 1.. {
            let stop = Stop::at(nth);
            let store = self.over(self.fresh());
            let outcome = self.deed.run(&store, &stop);
            if !stop.fired() {
                return outcome.unwrap();
            }
            let stopped = |e: Error| assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}");
            outcome.map_or_else(stopped, |()| ());
            self.again(&store, true, &format!("stopped at its report {nth}"));
        }
    }

    pub(crate) fn disturb(&self) {
        // What a dead run leaves of other shapes is looked at in `power` and `disturbed`.
        if long() || matches!(self.shape, Shape::Plain) {
            self.cut_everywhere();
            self.stop_everywhere();
        }
        self.fail_everywhere();
    }
}
