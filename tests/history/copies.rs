//! Images that are written into other files: whatever fails or is cut off, every image is whole in one of the
//! two stores, or in one of its two files, and doing it again ends where an undisturbed run ends.

use crate::check;
use crate::deeds::{Stop, run_copy};
use crate::disk::{Cell, Edit};
use crate::rehearsed::{Deed, EIO, ENOSPC, Held, Rehearsed, rehearse};
use crate::shaped::Shape;
use crate::world::{World, id, odd_len};
use diskstrata::base::{ErrorKind, RangeRead, Result};
use diskstrata::chain::{Catalog, Wish, begun_replacements};
use diskstrata::image::{Compression, Kind};
use diskstrata::ops::copy::{CopyReport, CopyRequest};
use diskstrata::store::{Fault, FaultStore, Faults, FileName, MemoryStore, Op, Store, replay};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

const CHAIN: [Wish; 3] = [Wish::Incremental; 3];

fn recompressed() -> CopyRequest {
    CopyRequest {
        recompress: Some(Compression::None),
        ..CopyRequest::default()
    }
}

fn rewriting(shape: Shape, numbers: &[u32], request: &CopyRequest) -> Rehearsed {
    let deed = |_: &World| Deed::Rewrite(numbers.to_vec(), request.clone());
    rehearse(shape, &CHAIN, |w| w.protect(2, true), deed)
}

#[test]
fn an_image_that_others_build_on_is_written_anew() {
    for shape in Shape::all() {
        let rehearsed = rewriting(shape, &[2], &recompressed());
        assert_eq!(rehearsed.after, rehearsed.before, "the same images");
        rehearsed.disturb();
    }
}

#[test]
fn the_newest_image_becomes_full() {
    let request = CopyRequest {
        full: true,
        ..CopyRequest::default()
    };
    for shape in Shape::all() {
        let rehearsed = rewriting(shape, &[4], &request);
        let (header, root) = &rehearsed.after.images[&id(4)];
        assert_eq!((header.kind, header.parent), (Kind::Full, None));
        assert_eq!(*root, rehearsed.before.images[&id(4)].1);
        rehearsed.disturb();
    }
}

#[test]
fn a_whole_chain_is_written_anew() {
    let rehearsed = rewriting(Shape::Plain, &[4, 1, 2, 3], &recompressed());
    assert_eq!(rehearsed.after, rehearsed.before);
    rehearsed.disturb();
}

/// The store as it is when the power fails behind the `nth` publication of the deed, from 1.
fn behind_publication(rehearsed: &Rehearsed, nth: usize) -> MemoryStore {
    let deed_ops = (rehearsed.start..).zip(&rehearsed.ops[rehearsed.start..]);
    let mut published = deed_ops.filter(|(_, op)| matches!(op, Op::Publish(_)));
    let (at, _) = published.nth(nth - 1).unwrap();
    replay(&rehearsed.ops[..=at])
}

#[test]
fn the_old_file_counts_until_it_is_gone() {
    let rehearsed = rewriting(Shape::Plain, &[2], &recompressed());
    // First comes the note.
    let memory = behind_publication(&rehearsed, 2);
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let begun = begun_replacements(store.as_ref()).unwrap().remove(0);
    let (old, new) = begun.files.unwrap();
    let catalog = check::whole_catalog(&store);
    assert_eq!(catalog.by_id(id(2)).unwrap().file, old);
    assert_eq!(catalog.images.len(), 4, "each image once");
    assert_eq!(catalog.replaced[0].file, new);
    // A damaged new file changes nothing, and goes.
    let mut bytes = memory.get(&new).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.put(&new, bytes);
    rehearsed.again(&store, true, "the new file is damaged");
    // When the old one is the damaged one, nothing goes before somebody has looked.
    let memory = behind_publication(&rehearsed, 2);
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let mut bytes = memory.get(&old).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.put(&old, bytes);
    let error = rehearsed.deed.run(&store, &Stop::never()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains(old.as_str()), "{error}");
    store.remove(&old).unwrap();
    assert_eq!(Held::of(&store), rehearsed.before);
    rehearsed.again(&store, true, "without the damaged old file");
}

#[test]
fn prune_and_merge_settle_what_a_copy_left() {
    let rehearsed = rewriting(Shape::Plain, &[2], &recompressed());
    let one_more_than_there_are = crate::crash::last(9);
    for deed in [
        Deed::Prune(one_more_than_there_are),
        Deed::Merge(Some(3), 4),
    ] {
        for publications in [1, 2] {
            let store: Arc<dyn Store> = Arc::new(behind_publication(&rehearsed, publications));
            deed.run(&store, &Stop::never()).unwrap();
            check::nothing_is_left(&store, &check::whole_catalog(&store));
        }
    }
}

/// A chain of four images, their disks, and what is asked.
struct Move {
    world: World,
    cells: BTreeMap<Uuid, Arc<Vec<Cell>>>,
    numbers: Vec<u32>,
    request: CopyRequest,
}

/// Two stores, perhaps behind one set of faults.
struct Two {
    from: Arc<dyn Store>,
    into: Arc<dyn Store>,
}

impl Two {
    fn behind(&self, faults: &Faults) -> Two {
        let faulty = |store: &Arc<dyn Store>| -> Arc<dyn Store> {
            Arc::new(FaultStore::new(Arc::clone(store), faults.clone()))
        };
        Two {
            from: faulty(&self.from),
            into: faulty(&self.into),
        }
    }

    fn held(&self) -> (Held, Held) {
        (Held::of(&self.from), Held::of(&self.into))
    }
}

impl Move {
    fn of(numbers: &[u32], request: CopyRequest) -> Move {
        let mut world = World::new(Arc::new(MemoryStore::new("from")), odd_len(299), 5);
        for n in 0..4u32 {
            world.disk.edit(&Edit::Write {
                at: u64::from(n) * 7,
                count: if n == 0 { 60 } else { 9 },
                seed: 100 * n,
            });
            world.backup(if n == 0 {
                Wish::Full
            } else {
                Wish::Incremental
            });
        }
        let points = world.points.iter();
        let cells = points
            .map(|(n, p)| (id(*n), Arc::clone(&p.cells)))
            .collect();
        Move {
            cells,
            world,
            numbers: numbers.to_vec(),
            request: CopyRequest {
                to: Some("/nowhere".into()),
                ..request
            },
        }
    }

    /// The stores before anything was copied.
    fn fresh(&self) -> Two {
        let memory = MemoryStore::new("from");
        for entry in self.world.store.list().unwrap() {
            let file = self.world.store.open(&entry.name).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            memory.put(&entry.name, bytes);
        }
        Two {
            from: Arc::new(memory),
            into: Arc::new(MemoryStore::new("into")),
        }
    }

    fn run(&self, two: &Two, stop: &Stop) -> Result<CopyReport> {
        let request = self.request.clone();
        run_copy(&two.from, Some(&two.into), &self.numbers, request, stop)
    }

    /// Every image is whole wherever it is listed, and each one is somewhere.
    fn nothing_is_lost(&self, two: &Two, when: &str) {
        let mut seen = Vec::new();
        for store in [&two.from, &two.into] {
            let catalog: Catalog = check::whole_catalog(store);
            for image in &catalog.images {
                let view = check::view(store, &catalog, image);
                let lost = check::restored(&view, &self.cells[&image.header.id]);
                assert!(lost.is_empty(), "{when}: {}", image.file);
                seen.push(image.header.id);
            }
        }
        let missing = self.cells.keys().find(|id| !seen.contains(id));
        assert_eq!(missing, None, "{when}");
    }

    fn ended(&self, two: &Two, after: &(Held, Held), when: &str) {
        self.nothing_is_lost(two, when);
        assert_eq!(two.held(), *after, "{when}");
        for store in [&two.from, &two.into] {
            check::nothing_is_left(store, &check::whole_catalog(store));
        }
    }

    /// Goes again after it was disturbed, unless it came to its end all the same.
    fn again(&self, two: &Two, after: &(Held, Held), when: &str, outcome: &Result<CopyReport>) {
        self.nothing_is_lost(two, when);
        if outcome.is_err() {
            let again = self.run(two, &Stop::never());
            again.unwrap_or_else(|e| panic!("{when}: again: {e}"));
        }
        self.ended(two, after, when);
    }

    /// Goes once as it should, and then with every call of either store failing and a stop at every report.
    fn disturb(&self) -> (Held, Held) {
        let two = self.fresh();
        self.run(&two, &Stop::never()).unwrap();
        let after = two.held();
        self.ended(&two, &after, "undisturbed");
        for (errno, lasting) in [(ENOSPC, false), (EIO, true)] {
            for nth in 1.. {
                let when = format!("call {nth} fails with {errno}, lasting: {lasting}");
                let faults = Faults::new(vec![Fault::nth_of_all(nth, errno, lasting)]);
                let two = self.fresh();
                let outcome = self.run(&two.behind(&faults), &Stop::never());
                if !faults.fired() {
                    outcome.unwrap();
                    assert!(nth > 20, "{nth} calls");
                    break;
                }
                self.again(&two, &after, &when, &outcome);
            }
        }
        for nth in 1.. {
            let (stop, two) = (Stop::at(nth), self.fresh());
            let outcome = self.run(&two, &stop);
            if !stop.fired() {
                outcome.unwrap();
                break;
            }
            if let Err(e) = &outcome {
                assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}");
            }
            let when = format!("stopped at its report {nth}");
            self.again(&two, &after, &when, &outcome);
        }
        after
    }
}

#[test]
fn a_chain_goes_into_another_store_as_it_is() {
    let (from, into) = Move::of(&[3, 1, 4, 2], CopyRequest::default()).disturb();
    assert_eq!(from, into);
}

#[test]
fn a_part_of_a_chain_begins_with_a_full_image() {
    let (from, into) = Move::of(&[3, 4], recompressed()).disturb();
    let kinds: Vec<Kind> = into.images.values().map(|(h, _)| h.kind).collect();
    assert_eq!(kinds, [Kind::Full, Kind::Incremental]);
    for (id, (_, root)) in &into.images {
        assert_eq!(*root, from.images[id].1);
    }
}

fn moved() -> CopyRequest {
    CopyRequest {
        remove_old: true,
        ..CopyRequest::default()
    }
}

#[test]
fn a_chain_moves() {
    // By name, those that have moved already would not be found again.
    let all = CopyRequest {
        all: true,
        ..moved()
    };
    let whole = Move::of(&[], all);
    let before = Held::of(&whole.fresh().from);
    let (from, into) = whole.disturb();
    assert!(from.images.is_empty());
    assert_eq!(into, before);
}

#[test]
fn what_others_build_on_or_is_protected_stays_when_the_rest_moves() {
    let mut part = Move::of(&[2, 4], moved());
    let (from, into) = part.disturb();
    assert_eq!(
        from.images.keys().collect::<Vec<_>>(),
        [&id(1), &id(2), &id(3)]
    );
    assert_eq!(into.images.len(), 2);
    part.world.protect(4, true);
    let two = part.fresh();
    let report = part.run(&two, &Stop::never()).unwrap();
    assert_eq!(report.removed, Vec::<String>::new());
    let why: Vec<&str> = report
        .plan
        .images
        .iter()
        .filter_map(|i| i.stays.as_deref())
        .collect();
    assert_eq!(why, ["others build on it", "it is protected"]);
    assert_eq!(Held::of(&two.from).images.len(), 4);
}

/// The copy has rotted before its source goes.
#[test]
fn nothing_goes_whose_copy_is_damaged() {
    let stays = Move::of(&[1, 2], CopyRequest::default());
    let goes = Move::of(&[2], moved());
    let memory = MemoryStore::new("into");
    let two = Two {
        into: Arc::new(memory.clone()),
        ..stays.fresh()
    };
    stays.run(&two, &Stop::never()).unwrap();
    // Number 2 builds on number 1 there.
    let catalog = Catalog::load(two.into.as_ref()).unwrap();
    let file = &catalog.by_id(id(1)).unwrap().file;
    let mut bytes = memory.get(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.put(file, bytes);
    for number in [4, 3] {
        let newest = Catalog::load(two.from.as_ref()).unwrap();
        two.from
            .remove(&newest.by_id(id(number)).unwrap().file)
            .unwrap();
    }
    let error = goes.run(&two, &Stop::never()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(Held::of(&two.from).images.len(), 2);
}

/// A store on a medium that does not keep what is new.
struct Rotting {
    inner: MemoryStore,
    old: Vec<FileName>,
}

impl Rotting {
    fn around(store: &Arc<dyn Store>, inner: MemoryStore) -> Arc<dyn Store> {
        let old = store.list().unwrap().into_iter().map(|e| e.name).collect();
        Arc::new(Rotting { inner, old })
    }
}

impl Store for Rotting {
    diskstrata::pass_on!(inner: name, list, create, overwrite, remove, space, lock, clean_up);

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        let file = self.inner.open(name)?;
        if self.old.contains(name) || !name.as_str().ends_with(".strata") {
            return Ok(file);
        }
        let mut bytes = self.inner.get(name).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(Arc::new(bytes))
    }
}

#[test]
fn what_does_not_read_back_is_taken_back() {
    let rehearsed = rewriting(Shape::Plain, &[2], &recompressed());
    let memory = rehearsed.fresh();
    let store = rehearsed.over(memory.clone());
    let rotting = Rotting::around(&store, memory);
    let error = rehearsed.deed.run(&rotting, &Stop::never()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Destination, "{error}");
    assert!(error.to_string().contains("does not read back"), "{error}");
    check::nothing_is_left(&store, &check::whole_catalog(&store));
    rehearsed.again(&store, true, "on a good medium");

    let moving = Move::of(&[4], moved());
    let memory = MemoryStore::new("into");
    let into: Arc<dyn Store> = Arc::new(memory.clone());
    let two = Two {
        into: Rotting::around(&into, memory),
        ..moving.fresh()
    };
    let error = moving.run(&two, &Stop::never()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Destination, "{error}");
    assert_eq!(Held::of(&two.from).images.len(), 4);
    check::nothing_is_left(&into, &check::whole_catalog(&into));
    assert_eq!(into.list().unwrap(), []);
}
