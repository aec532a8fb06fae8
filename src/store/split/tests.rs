//! Files in parts: the contract, every crash, and parts that are not what they should be.

use super::part::{AROUND, name_of_part, part_of};
use super::*;
use crate::base::to_u64;
use crate::block::contract::pattern;
use crate::store::{
    Call, Fault, FaultStore, Faults, LocalStore, MemoryStore, Op, RecordStore, Recorded, contract,
    replay,
};
use std::io::Write;

const PART: u64 = MIN_PART_LEN;

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn over(inner: impl Store + 'static) -> SplitStore {
    SplitStore::new(Arc::new(inner), uuid::Uuid::new_v4)
}

fn publish(store: &dyn Store, file: &str, bytes: &[u8], part_len: Option<u64>) {
    let mut upload = store.create_in_parts(&name(file), part_len).unwrap();
    upload.write_all(bytes).unwrap();
    assert_eq!(upload.written(), to_u64(bytes.len()));
    upload.publish().unwrap();
}

fn content(store: &dyn Store, file: &str) -> Result<Vec<u8>> {
    let reader = store.open(&name(file))?;
    let mut bytes = vec![0; usize::try_from(reader.len()).unwrap()];
    reader.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn names(store: &dyn Store) -> Vec<String> {
    let entries = store.list().unwrap().into_iter();
    entries.map(|e| e.name.to_string()).collect()
}

#[test]
fn plain_files_keep_the_contract() {
    let memory = MemoryStore::new("memory");
    contract::check_store(&over(memory.clone()), &over(memory));
    let dir = tempfile::tempdir().unwrap();
    let local = || over(LocalStore::open(dir.path()).unwrap());
    contract::check_store(&local(), &local());
}

#[test]
fn a_file_in_parts_is_a_file() {
    let memory = MemoryStore::new("memory");
    let store = over(memory.clone());
    let room = usize::try_from(PART - AROUND).unwrap();
    for len in [0, 1, room - 1, room, room + 1, 3 * room, 3 * room + 777] {
        let bytes = pattern(len);
        publish(&store, "a", &bytes, Some(PART));
        let count = len.div_ceil(room).max(1);
        let last = to_u64(len - (count - 1) * room) + AROUND;
        let inner = memory.list().unwrap();
        let len_of = |e: &Entry| to_u64(memory.get(&e.name).unwrap().len());
        let lens: Vec<u64> = inner.iter().map(len_of).collect();
        assert_eq!(lens, [vec![PART; count - 1], vec![last]].concat(), "{len}");
        assert_eq!(inner[0].name, name("a.001"));
        let listed = store.list().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].parts, Some(to_u32(count)));
        assert_eq!(store.part_count(&name("a")).unwrap(), listed[0].parts);
        assert_eq!(store.part_len(&name("a")).unwrap(), Some(PART));
        assert!(content(&store, "a").unwrap() == bytes);
        let reader = store.open(&name("a")).unwrap();
        let places = [0, room.saturating_sub(3), len.saturating_sub(5)];
        for at in places.into_iter().filter(|at| *at < len) {
            let mut buf = vec![0; 5.min(len.saturating_sub(at))];
            reader.read_at(to_u64(at), &mut buf).unwrap();
            assert_eq!(buf, bytes[at..at + buf.len()], "{at} of {len}");
        }
        let error = reader.read_at(to_u64(len), &mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        for part_len in [None, Some(PART)] {
            let error = store.create_in_parts(&name("a"), part_len).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Destination, "the name is taken");
        }
        store.remove(&name("a")).unwrap();
        assert_eq!(memory.list().unwrap(), []);
    }
}

/// A chain may have thousands of files: were the store listed for each, a year would take minutes on a share.
#[test]
fn files_in_parts_are_found_by_their_names() {
    let (memory, log) = (MemoryStore::new("memory"), Recorded::default());
    let store = over(RecordStore::new(Arc::new(memory), log.clone()));
    let bytes = pattern(2 * usize::try_from(PART).unwrap());
    publish(&store, "a", &bytes, Some(PART));
    publish(&store, "b", &bytes, None);
    let lists = || log.ops().iter().filter(|op| **op == Op::List).count();
    let before = lists();
    assert!(content(&store, "a").unwrap() == bytes);
    store.overwrite(&name("a"), PART, b"new").unwrap();
    store.overwrite(&name("b"), 0, b"new").unwrap();
    assert_eq!(lists(), before, "read and changed");
    store.paths_of(&[&name("a"), &name("b"), &name("c")]);
    assert_eq!(lists(), before + 1, "where they lie");
    store.remove(&name("b")).unwrap();
    assert_eq!(lists(), before + 1, "removed");
}

#[test]
fn an_abandoned_upload_leaves_nothing_and_an_unfinished_one_is_no_file() {
    let memory = MemoryStore::new("memory");
    let store = over(memory.clone());
    let long = pattern(3 * usize::try_from(PART).unwrap());
    let begin = || {
        let mut upload = store.create_in_parts(&name("a"), Some(PART)).unwrap();
        upload.write_all(&long).unwrap();
        upload
    };
    let upload = begin();
    assert_eq!(names(&store), [""; 0]);
    assert_eq!(
        store.open(&name("a")).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    upload.abandon();
    drop(begin());
    assert_eq!(memory.list().unwrap(), []);
    publish(&store, "a", &long, Some(PART));
    assert_eq!(names(&store), ["a"]);
}

#[test]
fn names_of_parts_are_not_for_files() {
    let store = over(MemoryStore::new("memory"));
    for reserved in ["a.001", "a.unfinished"] {
        let error = store.create(&name(reserved)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Destination);
    }
    assert_eq!(store.file_of(&name("a.strata.002")), name("a.strata"));
    assert_eq!(store.file_of(&name("a.strata")), name("a.strata"));
    let short = store.create_in_parts(&name("a"), Some(PART - 1));
    assert_eq!(short.err().unwrap().kind(), ErrorKind::Usage);
}

/// The power fails behind every operation of a publication and a removal: there is the whole file or none,
/// and the next clean-up leaves nothing else.
#[test]
fn a_crash_at_any_moment_leaves_the_file_or_nothing() {
    let log = Recorded::default();
    let store = over(RecordStore::new(
        Arc::new(MemoryStore::new("memory")),
        log.clone(),
    ));
    let bytes = pattern(2 * usize::try_from(PART).unwrap() + 5);
    publish(&store, "b", b"another", Some(PART));
    let before = log.ops().len();
    publish(&store, "a", &bytes, Some(PART));
    let published = log.ops().len();
    store.remove(&name("a")).unwrap();
    let ops: Vec<Op> = log.ops();
    let (mut with, mut without) = (0, 0);
    for end in before..=ops.len() {
        let memory = replay(&ops[..end]);
        let store = over(memory.clone());
        let seen = names(&store);
        let when = format!("behind operation {end}: {:?}", ops.get(end.wrapping_sub(1)));
        if seen.contains(&"a".to_owned()) {
            with += 1;
            assert!(content(&store, "a").unwrap() == bytes, "{when}");
        } else {
            without += 1;
            assert!(end != published, "{when}");
        }
        store.clean_up().unwrap();
        assert_eq!(names(&store), seen, "{when}");
        assert_eq!(content(&store, "b").unwrap(), b"another");
        let left = memory.list().unwrap();
        let known =
            |e: &Entry| part_of(&e.name).is_some_and(|(f, _)| seen.contains(&f.to_string()));
        assert!(left.iter().all(known), "{when}: {left:?}");
        if !seen.contains(&"a".to_owned()) {
            publish(&store, "a", &bytes, Some(PART));
        }
    }
    assert!(with > 1 && without > 5, "{with}, {without}");
}

#[test]
fn what_somebody_lost_a_part_of_is_not_cleaned_up() {
    let memory = MemoryStore::new("memory");
    let store = over(memory.clone());
    let bytes = pattern(3 * usize::try_from(PART).unwrap());
    for lost in 1..=4 {
        publish(&store, "a", &bytes, Some(PART));
        memory
            .remove(&name_of_part(&name("a"), lost).unwrap())
            .unwrap();
        assert_eq!(store.clean_up().unwrap(), [""; 0]);
        assert_eq!(names(&store), ["a"], "it is listed, and cannot be opened");
        let error = store.open(&name("a")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(
            error
                .to_string()
                .contains(&format!("a.00{lost}, is missing")),
            "{error}"
        );
        store.remove(&name("a")).unwrap();
        assert_eq!(memory.list().unwrap(), []);
    }
}

/// What is removed, and what is cleaned up, is the file's own: another one's part may be its only copy.
#[test]
fn parts_of_other_files_are_left_alone() {
    let memory = MemoryStore::new("memory");
    let store = over(memory.clone());
    let bytes = pattern(3 * usize::try_from(PART).unwrap());
    publish(&store, "a", &bytes, Some(PART));
    publish(&store, "b", &bytes, Some(PART));
    let of_b = memory.get(&name("b.002")).unwrap();
    memory.put(&name("a.002"), of_b.clone());
    store.remove(&name("a")).unwrap();
    assert_eq!(memory.get(&name("a.002")), Some(of_b.clone()));
    assert_eq!(names(&store), ["a", "b"], "it is shown, and no file");
    // A mark of a file that is not there, and a file that is only called like a mark.
    set_mark(&memory, &name("a"), uuid::Uuid::from_u128(7)).unwrap();
    memory.put(&name("c.unfinished"), b"notes of a person".to_vec());
    memory.put(&name("c.002"), of_b.clone());
    store.clean_up().unwrap();
    for kept in ["a.002", "c.002", "c.unfinished"] {
        assert!(memory.get(&name(kept)).is_some(), "{kept}");
    }
    assert!(memory.get(&name("a.unfinished")).is_none());
}

/// A store that takes no new file, as a full one.
#[test]
fn a_full_store_lets_files_go() {
    let memory = MemoryStore::new("memory");
    let bytes = pattern(2 * usize::try_from(PART).unwrap());
    publish(&over(memory.clone()), "a", &bytes, Some(PART));
    let faults = Faults::new(vec![Fault::nth(Call::Create, 1, 28, true)]);
    let full = over(FaultStore::new(Arc::new(memory.clone()), faults));
    full.remove(&name("a")).unwrap();
    assert_eq!(memory.list().unwrap(), []);
}

/// Has the first call of a store fail, then the second, and so on until there are no more, which must be more than
/// `least`. `run` is given an empty memory, the faults and words for what fails.
fn each_call_fails(lasting: bool, least: u64, run: impl Fn(&MemoryStore, &Faults, &str)) {
    for nth in 1.. {
        let faults = Faults::new(vec![Fault::nth_of_all(nth, 5, lasting)]);
        let when = format!("call {nth}, lasting: {lasting}");
        run(&MemoryStore::new("memory"), &faults, &when);
        if !faults.fired() {
            assert!(nth > least, "{nth} calls");
            return;
        }
    }
}

fn failing(memory: &MemoryStore, faults: &Faults) -> SplitStore {
    over(FaultStore::new(Arc::new(memory.clone()), faults.clone()))
}

/// Every call of a publication fails, once or from then on: there is the whole file or none.
#[test]
fn a_store_that_fails_has_the_file_or_nothing() {
    let bytes = pattern(2 * usize::try_from(PART).unwrap() + 5);
    for lasting in [false, true] {
        each_call_fails(lasting, 10, |memory, faults, when| {
            let upload = failing(memory, faults).create_in_parts(&name("a"), Some(PART));
            let done = upload.and_then(|mut upload| {
                upload.write_all(&bytes).map_err(|e| write_error("a", e))?;
                upload.publish()
            });
            let store = over(memory.clone());
            store.clean_up().unwrap();
            if done.is_ok() {
                assert!(content(&store, "a").unwrap() == bytes, "{when}: {done:?}");
            } else {
                assert_eq!(memory.list().unwrap(), [], "{when}: {done:?}");
            }
        });
    }
}

/// Every call of a removal fails, once or from then on: what is said to be gone is gone, and what is not is there
/// whole or ended by the next clean-up.
#[test]
fn what_a_removal_says_to_be_gone_is_gone() {
    let bytes = pattern(2 * usize::try_from(PART).unwrap() + 5);
    for lasting in [false, true] {
        each_call_fails(lasting, 10, |memory, faults, when| {
            let store = over(memory.clone());
            publish(&store, "a", &bytes, Some(PART));
            let done = failing(memory, faults).remove(&name("a"));
            store.clean_up().unwrap();
            if done.is_err() && names(&store) == ["a"] {
                assert!(content(&store, "a").unwrap() == bytes, "{when}: {done:?}");
            } else {
                assert_eq!(memory.list().unwrap(), [], "{when}: {done:?}");
            }
        });
    }
}

/// Every call of a clean-up fails once: nothing of what it was to clear is shown as a file, and the next one clears it.
#[test]
fn a_clean_up_that_fails_is_made_up_for() {
    let bytes = pattern(3 * usize::try_from(PART).unwrap());
    each_call_fails(false, 8, |memory, faults, when| {
        let store = over(memory.clone());
        publish(&store, "a", &bytes, Some(PART));
        let id = store.id_of(&name("a.001")).unwrap().unwrap();
        set_mark(memory, &name("a"), id).unwrap();
        memory.remove(&name("a.001")).unwrap();
        let done = failing(memory, faults).clean_up();
        assert_eq!(names(&store), [""; 0], "{when}: {done:?}");
        store.clean_up().unwrap();
        assert_eq!(memory.list().unwrap(), [], "{when}: {done:?}");
    });
}

#[test]
fn a_part_in_the_wrong_place_is_named() {
    let memory = MemoryStore::new("memory");
    let store = over(memory.clone());
    let bytes = pattern(3 * usize::try_from(PART).unwrap());
    publish(&store, "a", &bytes, Some(PART));
    publish(&store, "b", &bytes, Some(PART));
    let get = |text: &str| memory.get(&name(text)).unwrap();
    let refused = |part: &str, bytes: Vec<u8>, why: &str| {
        let own = get(part);
        memory.put(&name(part), bytes);
        let error = store.open(&name("a")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let text = error.to_string();
        assert!(text.contains(part) && text.contains(why), "{text}");
        memory.put(&name(part), own);
        assert!(content(&store, "a").unwrap() == bytes_of(&store));
    };
    fn bytes_of(store: &dyn Store) -> Vec<u8> {
        content(store, "b").unwrap()
    }
    refused("a.002", get("b.002"), "another file");
    refused("a.002", get("a.003"), "is part 3");
    let short = get("a.002");
    refused(
        "a.002",
        short[..short.len() - 1].to_vec(),
        "cut off or damaged",
    );
    refused("a.002", short[..50].to_vec(), "cut off");
    let mut flipped = get("a.003");
    flipped[20] ^= 1;
    refused("a.003", flipped, "does not begin");
    // A part too many, and a last part that is not the last.
    memory.put(&name("a.005"), get("a.004"));
    let error = store.open(&name("a")).err().unwrap().to_string();
    assert!(error.contains("a.005, follows the last"), "{error}");
}

/// All that is missing is told at once: nobody wants to fetch one medium after the other for it.
#[test]
fn all_missing_parts_are_named_at_once() {
    let memory = MemoryStore::new("memory");
    let store = over(memory.clone());
    let bytes = pattern(7 * usize::try_from(PART).unwrap());
    publish(&store, "a", &bytes, Some(PART));
    let part = |number: u32| name_of_part(&name("a"), number).unwrap();
    let all: Vec<(FileName, Vec<u8>)> = (1..=8)
        .map(|n| (part(n), memory.get(&part(n)).unwrap()))
        .collect();
    for (lost, told) in [
        (&[2][..], "part 2, a.002, is missing"),
        (&[1, 2], "2 of its 8 parts are missing: a.001, a.002"),
        (
            &[1, 2, 3, 5],
            "4 of its 8 parts are missing: a.001 to a.003, a.005",
        ),
        (
            &[8],
            "part 8, a.008, is missing, and perhaps more behind it",
        ),
        (&[1, 8], "part 1, a.001, is missing, and those behind a.007"),
        (
            &[1, 3, 7, 8],
            "parts are missing: a.001, a.003, and those behind a.006",
        ),
    ] {
        lost.iter().for_each(|n| memory.remove(&part(*n)).unwrap());
        let error = store.open(&name("a")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().ends_with(told), "{lost:?}: {error}");
        assert_eq!(
            store.part_count(&name("a")).unwrap(),
            Some(8 - to_u32(lost.len()))
        );
        all.iter()
            .for_each(|(name, bytes)| memory.put(name, bytes.clone()));
        assert!(content(&store, "a").unwrap() == bytes);
    }
}

/// Lengths of parts are no choice of whoever reads: a byte is found by its number alone.
#[test]
fn a_part_that_is_shorter_than_it_has_to_be_is_named() {
    let memory = MemoryStore::new("memory");
    let store = over(memory.clone());
    let bytes = pattern(2 * usize::try_from(PART).unwrap());
    publish(&store, "a", &bytes, Some(PART));
    // A byte less, with both ends in order.
    let mut second = memory.get(&name("a.002")).unwrap();
    second.remove(100);
    memory.put(&name("a.002"), second);
    let error = store.open(&name("a")).err().unwrap().to_string();
    assert!(error.contains("a.002, is not as long"), "{error}");
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

/// A power cut may take the end of the first part, which nobody had synced, and leave parts behind it, which were.
#[test]
fn what_stands_behind_a_part_without_its_end_goes_when_it_is_gone_on_with() {
    let room = usize::try_from(PART - AROUND).unwrap();
    let bytes = pattern(3 * room + 777);
    for lost in [1, 1000] {
        for goes_on in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let store = over(LocalStore::open(dir.path()).unwrap());
            let mut upload = store.create_in_parts(&name("a"), Some(PART)).unwrap();
            upload.write_all(&bytes).unwrap();
            assert!(upload.leave());
            let files = || {
                let files = std::fs::read_dir(dir.path()).unwrap();
                files.map(|file| file.unwrap().path())
            };
            let first = files().find(|path| path.extension().is_some_and(|e| e == "001"));
            let first = std::fs::File::options().write(true).open(first.unwrap());
            let first = first.unwrap();
            let len = first.metadata().unwrap().len();
            first.set_len(len - AROUND - lost).unwrap();
            let left = store.leftovers().unwrap().remove(0);
            let there = left.bytes().len();
            assert!(there < to_u64(room) && there + 2 * lost + AROUND > to_u64(room));
            if goes_on {
                let form = left.form();
                let mut upload = left.resume(&name("a"), &form, there).unwrap();
                let rest = &bytes[usize::try_from(there).unwrap()..];
                upload.write_all(rest).unwrap();
                upload.publish().unwrap();
                assert!(content(&store, "a").unwrap() == bytes);
                assert_eq!(store.clean_up().unwrap().len(), 1, "the last part begun");
            } else {
                left.remove();
            }
            let kept = usize::from(goes_on);
            assert_eq!(names(&store).len(), kept);
            store.clean_up().unwrap();
            let visible =
                files().filter(|f| !f.file_name().unwrap().as_encoded_bytes().starts_with(b"."));
            assert_eq!(visible.count(), kept * 4);
        }
    }
}
