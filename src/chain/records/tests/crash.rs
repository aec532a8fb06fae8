//! Calls that fail, power cuts and other runs at every moment.

use super::*;
use crate::base::RangeRead;
use crate::store::{Call, Entry, Fault, FaultStore, Faults, RecordStore, Recorded, replay};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const EIO: i32 = 5;

/// Runs `action` on the store that `prepare` made, with the first, the second, … call failing
/// once and for good, until none is left to fail; then checks what is there.
fn with_each_fault(
    prepare: &dyn Fn(&MemoryStore),
    action: &dyn Fn(&dyn Store) -> Result<()>,
    check: &dyn Fn(&MemoryStore, bool, &str),
) {
    for lasting in [false, true] {
        let mut nth = 1;
        loop {
            let memory = store();
            prepare(&memory);
            let faults = Faults::new(vec![Fault::nth_of_all(nth, EIO, lasting)]);
            let faulty = FaultStore::new(Arc::new(memory.clone()), faults.clone());
            let outcome = action(&faulty);
            let place = format!("call {nth}, lasting {lasting}");
            check(&memory, outcome.is_ok(), &place);
            if !faults.fired() {
                assert!(outcome.is_ok(), "no fault, no failure");
                break;
            }
            action(&memory).expect("without faults it succeeds");
            check(&memory, true, &place);
            nth += 1;
        }
        assert!(nth > 1, "something was made to fail");
    }
}

fn prepared(store: &MemoryStore) {
    protect(store, id(1), Some("first"), 1).unwrap();
    record_verified(store, &[result(1, 1, How::Deep, false)], id(101)).unwrap();
    // What a run leaves that was killed before it could tidy up.
    let left = store.get(&name_of(VERIFIED, id(101)).unwrap()).unwrap();
    record_verified(store, &[result(2, 2, How::Quick, true)], id(102)).unwrap();
    store.put(&name_of(VERIFIED, id(101)).unwrap(), left);
}

fn assert_prepared(store: &MemoryStore, place: &str) {
    let records = Records::load(store).unwrap();
    assert_eq!(
        records.protected[&id(1)].note.as_deref(),
        Some("first"),
        "{place}"
    );
    let deep = records.last(id(1), How::Deep);
    assert_eq!(deep, Some(&result(1, 1, How::Deep, false)), "{place}");
    let quick = records.last(id(2), How::Quick);
    assert_eq!(quick, Some(&result(2, 2, How::Quick, true)), "{place}");
    assert_eq!(records.unreadable, [], "{place}");
}

#[test]
fn a_protection_that_was_promised_is_there_whatever_call_fails() {
    with_each_fault(
        &prepared,
        &|store| protect(store, id(5), Some("second"), 5).map(drop),
        &|memory, ok, place| {
            assert_prepared(memory, place);
            let there = Records::load(memory)
                .unwrap()
                .protected
                .get(&id(5))
                .cloned();
            assert_eq!(there.is_some(), ok, "{place}");
        },
    );
}

#[test]
fn taking_back_one_protection_takes_no_other() {
    with_each_fault(
        &|store| {
            prepared(store);
            protect(store, id(5), None, 5).unwrap();
        },
        &|store| unprotect(store, id(5)).map(drop),
        &|memory, ok, place| {
            assert_prepared(memory, place);
            let there = Records::load(memory)
                .unwrap()
                .protected
                .contains_key(&id(5));
            assert_eq!(there, !ok, "{place}");
        },
    );
}

#[test]
fn forgetting_takes_only_the_dead_whatever_call_fails() {
    with_each_fault(
        &|store| {
            prepared(store);
            protect(store, id(5), None, 5).unwrap();
            protect(store, id(6), None, 5).unwrap();
        },
        &|store| Records::forget(store, &|image| image == id(1)).map(drop),
        &|memory, ok, place| {
            assert_prepared(memory, place);
            let left = Records::load(memory).unwrap().protected.len();
            assert!(if ok { left == 1 } else { left > 1 }, "{place}: {left}");
        },
    );
}

#[test]
fn results_that_were_noted_are_there_whatever_call_fails() {
    let fresh = AtomicU64::new(1000);
    let new = result(3, 3, How::Sample, false);
    with_each_fault(
        &prepared,
        &|store| {
            let id = id(u128::from(fresh.fetch_add(1, Ordering::Relaxed)));
            record_verified(store, std::slice::from_ref(&new), id).map(drop)
        },
        &|memory, ok, place| {
            assert_prepared(memory, place);
            let there = !verified(memory, 3).is_empty();
            assert!(there || !ok, "{place}");
        },
    );
}

#[test]
fn files_that_cannot_be_removed_are_told_of_and_go_next_time() {
    let memory = store();
    prepared(&memory);
    let faults = Faults::new(vec![Fault::nth(Call::Remove, 1, EIO, true)]);
    let faulty = FaultStore::new(Arc::new(memory.clone()), faults);
    let left = record_verified(&faulty, &[result(3, 3, How::Deep, true)], id(103)).unwrap();
    assert_eq!(left.len(), 2);
    assert_prepared(&memory, "with all of them there");
    let left = record_verified(&memory, &[result(3, 4, How::Deep, true)], id(104)).unwrap();
    assert!(left.is_empty());
    assert_prepared(&memory, "in one file");
    assert_eq!(names(&memory).len(), 2);
}

#[test]
fn loading_never_fails_for_a_file_and_loses_no_protection() {
    let memory = store();
    prepared(&memory);
    let mut nth = 1;
    loop {
        let faults = Faults::new(vec![Fault::nth_of_all(nth, EIO, false)]);
        let faulty = FaultStore::new(Arc::new(memory.clone()), faults.clone());
        match Records::load(&faulty) {
            Ok(records) => {
                assert!(records.protected.contains_key(&id(1)));
                assert_eq!(records.unreadable.len(), usize::from(faults.fired()));
            }
            Err(error) => assert_eq!((nth, error.operation()), (1, "list")),
        }
        if !faults.fired() {
            break;
        }
        nth += 1;
    }
    assert_eq!(nth, 8, "one list, three opens, three reads");
}

#[test]
fn a_power_cut_at_any_moment_takes_nothing_that_was_promised() {
    let log = Recorded::default();
    let store = RecordStore::new(Arc::new(store()), log.clone());
    // After how many operations what must be there, and until when.
    type Check = Box<dyn Fn(&Records) -> bool>;
    let mut promises: Vec<(usize, usize, Check)> = Vec::new();
    let promise = |promises: &mut Vec<(usize, usize, Check)>, until: usize, check: Check| {
        promises.push((log.ops().len(), until, check));
    };
    let protects =
        |image: u128| -> Check { Box::new(move |r| r.protected.contains_key(&id(image))) };
    let holds = |image: u128, how: How, ok: bool, time: i64| -> Check {
        Box::new(move |r| {
            let results = r.verified.get(&id(image)).into_iter().flatten();
            results
                .into_iter()
                .any(|v| v.how == how && v.ok == ok && v.time >= time)
        })
    };
    protect(&store, id(1), Some("note"), 1).unwrap();
    promise(&mut promises, usize::MAX, protects(1));
    protect(&store, id(2), None, 1).unwrap();
    let second = promises.len();
    promise(&mut promises, usize::MAX, protects(2));
    let runs = [
        (1, How::Deep, false, 10),
        (1, How::Deep, true, 20),
        (2, How::Quick, true, 30),
        (1, How::Deep, true, 40),
        (1, How::Sample, true, 40),
    ];
    for (at, (image, how, ok, time)) in (100..).zip(runs) {
        record_verified(&store, &[result(image, time, how, ok)], id(at)).unwrap();
        promise(&mut promises, usize::MAX, holds(image, how, ok, time));
        protect(&store, id(at), None, time).unwrap();
        promise(&mut promises, usize::MAX, protects(at));
    }
    promises[second].1 = log.ops().len();
    unprotect(&store, id(2)).unwrap();
    let taken_back = log.ops().len();
    promise(
        &mut promises,
        usize::MAX,
        Box::new(|r| !r.protected.contains_key(&id(2))),
    );
    record_verified(&store, &[result(9, 50, How::Deep, true)], id(200)).unwrap();
    let ops = log.ops();
    assert!(taken_back < ops.len() && ops.len() > 60);
    for cut in 0..=ops.len() {
        let after = replay(&ops[..cut]);
        let records = Records::load(&after).unwrap();
        assert_eq!(records.unreadable, [], "nothing half-written is seen");
        for (number, (from, until, check)) in promises.iter().enumerate() {
            let due = (*from..=*until).contains(&cut);
            assert!(
                !due || check(&records),
                "promise {number} behind {cut} operations"
            );
        }
        // The next run finds its way.
        record_verified(&after, &[result(9, 60, How::Deep, true)], id(300)).unwrap();
        let files = names(&after).into_iter();
        assert_eq!(files.filter(|file| file.starts_with(VERIFIED)).count(), 1);
        let records = Records::load(&after).unwrap();
        for (number, (from, until, check)) in promises.iter().enumerate() {
            let due = (*from..=*until).contains(&cut);
            assert!(
                !due || check(&records),
                "promise {number} behind {cut} and a run"
            );
        }
    }
}

/// A store on which another run does its work between two calls.
struct Beside<'a> {
    inner: MemoryStore,
    /// Before which call, from 1.
    at: u64,
    calls: AtomicU64,
    other: &'a (dyn Fn(&MemoryStore) + Send + Sync),
}

impl Beside<'_> {
    fn step(&self) {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            (self.other)(&self.inner);
        }
    }
}

impl Store for Beside<'_> {
    crate::pass_on!(inner: name, space, lock, clean_up);

    fn list(&self) -> Result<Vec<Entry>> {
        self.step();
        self.inner.list()
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        self.step();
        self.inner.open(name)
    }

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        self.step();
        self.inner.create(name)
    }

    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        self.step();
        self.inner.overwrite(name, offset, bytes)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.step();
        self.inner.remove(name)
    }
}

/// Runs `action` with `other` between any two calls, and checks what is there in the end.
fn with_other_at_each_call(
    action: &dyn Fn(&dyn Store),
    other: &(dyn Fn(&MemoryStore) + Send + Sync),
    check: &dyn Fn(&MemoryStore, &str),
) {
    for at in 1.. {
        let memory = store();
        prepared(&memory);
        let beside = Beside {
            inner: memory.clone(),
            at,
            calls: AtomicU64::new(0),
            other,
        };
        action(&beside);
        if beside.calls.load(Ordering::Relaxed) < at {
            assert!(at > 1);
            break;
        }
        let place = format!("with the other run before call {at}");
        assert_prepared(&memory, &place);
        check(&memory, &place);
    }
}

#[test]
fn two_runs_at_once_lose_nothing() {
    let note = |store: &dyn Store, image, file| {
        record_verified(store, &[result(image, 7, How::Deep, true)], id(file)).unwrap();
    };
    let both = |memory: &MemoryStore, place: &str| {
        assert_eq!(verified(memory, 7).len(), 1, "{place}");
        assert_eq!(verified(memory, 8).len(), 1, "{place}");
    };
    with_other_at_each_call(
        &|store| note(store, 7, 201),
        &|memory| note(memory, 8, 202),
        &both,
    );
    with_other_at_each_call(
        &|store| {
            let records = Records::load(store).unwrap();
            assert!(records.last(id(1), How::Deep).is_some());
            assert!(records.last(id(2), How::Quick).is_some());
            assert_eq!(records.unreadable, []);
        },
        &|memory| {
            note(memory, 7, 201);
            note(memory, 8, 202);
        },
        &both,
    );
    with_other_at_each_call(
        &|store| assert!(protect(store, id(7), Some("a"), 1).is_ok()),
        &|memory| assert!(protect(memory, id(7), Some("b"), 2).is_ok()),
        &|memory, place| {
            let records = Records::load(memory).unwrap();
            assert!(records.protected[&id(7)].time.is_some(), "{place}");
        },
    );
    with_other_at_each_call(
        &|store| {
            protect(store, id(7), None, 1).unwrap();
            unprotect(store, id(7)).unwrap();
        },
        &|memory| assert!(unprotect(memory, id(7)).is_ok()),
        &|memory, place| {
            let records = Records::load(memory).unwrap();
            assert!(!records.protected.contains_key(&id(7)), "{place}");
        },
    );
}

#[test]
fn runs_in_threads_lose_nothing() {
    let store = store();
    std::thread::scope(|scope| {
        for thread in 0..4u128 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..40u128 {
                    let image = thread * 1000 + n;
                    record_verified(store, &[result(image, 1, How::Deep, true)], id(image))
                        .unwrap();
                    protect(store, id(image), None, 1).unwrap();
                }
            });
        }
    });
    let records = Records::load(&store).unwrap();
    assert_eq!(records.verified.len(), 160);
    assert_eq!(records.protected.len(), 160);
}

fn some_how() -> impl Strategy<Value = How> {
    prop_oneof![Just(How::Quick), Just(How::Sample), Just(How::Deep)]
}

proptest! {
    /// Runs one after the other, some killed at a call: the last result that was promised decides
    /// what is known, unless a killed run got further than it could say.
    #[test]
    fn the_last_promised_result_is_known(
        runs in proptest::collection::vec(
            (proptest::collection::vec((0..3u128, some_how(), any::<bool>()), 1..4),
             proptest::option::of(1..12u64)),
            1..12,
        ),
    ) {
        let memory = store();
        let mut promised: BTreeMap<(Uuid, How, bool), i64> = BTreeMap::new();
        for (time, (results, kill)) in (1..).zip(runs) {
            let results: Vec<VerifiedRecord> =
                results.into_iter().map(|(image, how, ok)| result(image, time, how, ok)).collect();
            let planned = kill.map(|nth| Fault::nth_of_all(nth, EIO, true));
            let faults = Faults::new(planned.into_iter().collect());
            let faulty = FaultStore::new(Arc::new(memory.clone()), faults);
            let file = id(1000 + time.unsigned_abs() as u128);
            if record_verified(&faulty, &results, file).is_ok() {
                for result in results {
                    promised.insert((result.image, result.how, result.ok), time);
                }
            }
            let records = Records::load(&memory).unwrap();
            prop_assert_eq!(&records.unreadable, &[]);
            for ((image, how, ok), time) in &promised {
                let known = records.verified[image].iter().find(|r| r.how == *how && r.ok == *ok);
                prop_assert!(known.is_some_and(|r| r.time >= *time));
            }
        }
    }
}
