//! The contracts of [`Store`] and [`Upload`](super::Upload) as checks that any implementation can
//! run.
//!
//! Panics on a breach: it is a test.

use super::{Entry, FileName, LockMode, Store, write_error};
use crate::base::{ErrorKind, to_u64, to_usize};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Larger than every window, buffer and part of an implementation, and no multiple of any.
const LARGE: usize = (21 << 20) + 4321;

/// Checks that `store` and `other`, two handles on one empty store, keep the contract. Leaves the
/// store empty.
pub(crate) fn check_store(store: &dyn Store, other: &dyn Store) {
    assert!(!store.name().is_empty(), "a store has a name");
    assert_eq!(
        store.list().expect("list"),
        [],
        "the store is empty at first"
    );
    check_visibility(store, other);
    check_abandoning(store, other);
    check_no_replacing(store, other);
    check_listing(store, other);
    check_reading(store);
    check_overwriting(store, other);
    check_missing(store);
    check_large(store, other);
    check_threads(store);
    check_locks(store, other);
    check_clean_up(store, other);
    if let Some(space) = store.space().expect("space") {
        assert!(space.available <= space.total);
    }
    assert_eq!(
        other.list().expect("list"),
        [],
        "the store is empty at last"
    );
}

fn name(text: &str) -> FileName {
    FileName::new(text).expect("a plain name")
}

fn listed(store: &dyn Store) -> Vec<String> {
    let entries = store.list().expect("list").into_iter();
    entries.map(|Entry { name, .. }| name.to_string()).collect()
}

fn publish(store: &dyn Store, file: &FileName, bytes: &[u8]) {
    let mut upload = store.create(file).expect("create");
    upload.write_all(bytes).expect("write");
    upload.publish().expect("publish");
}

fn content(store: &dyn Store, file: &FileName) -> Vec<u8> {
    let reader = store.open(file).expect("open");
    let mut bytes = vec![0xEE; to_usize(reader.len())];
    reader.read_at(0, &mut bytes).expect("reads inside succeed");
    bytes
}

fn check_visibility(store: &dyn Store, other: &dyn Store) {
    let file = name("image-1");
    let mut upload = store.create(&file).expect("create");
    upload.write_all(b"hello ").expect("write");
    upload.flush().expect("flush");
    assert_eq!(upload.written(), 6);
    for handle in [store, other] {
        assert_eq!(listed(handle), [""; 0], "invisible until published");
        assert_eq!(
            handle.open(&file).err().expect("no file").kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            handle.remove(&file).expect_err("no file").kind(),
            ErrorKind::NotFound
        );
    }
    upload.write_all(b"world").expect("write");
    upload.publish().expect("publish");
    for handle in [store, other] {
        assert_eq!(listed(handle), ["image-1"]);
        assert_eq!(content(handle, &file), b"hello world");
    }
    other.remove(&file).expect("remove");
    assert_eq!(listed(store), [""; 0], "removed");
}

fn check_abandoning(store: &dyn Store, other: &dyn Store) {
    let file = name("image-2");
    let mut upload = store.create(&file).expect("create");
    upload.write_all(&[1; 100_000]).expect("write");
    upload.abandon();
    let mut upload = store.create(&file).expect("create again");
    upload.write_all(&[2; 100_000]).expect("write");
    drop(upload);
    drop(store.create(&file).expect("create an empty one"));
    assert_eq!(
        listed(other),
        [""; 0],
        "abandoned and dropped uploads are never seen"
    );
    assert_eq!(
        other.clean_up().expect("clean up"),
        [""; 0],
        "and leave nothing"
    );
}

fn check_no_replacing(store: &dyn Store, other: &dyn Store) {
    let file = name("image-3");
    let mut late = store.create(&file).expect("create");
    late.write_all(b"late").expect("write");
    publish(other, &file, b"early");
    let error = late.publish().expect_err("the name is taken");
    assert_eq!(error.kind(), ErrorKind::Destination);
    let error = store.create(&file).err().expect("the name is taken");
    assert_eq!(error.kind(), ErrorKind::Destination);
    assert_eq!(content(store, &file), b"early", "the first one stays");
    assert_eq!(
        store.clean_up().expect("clean up"),
        [""; 0],
        "the late one left nothing"
    );
    store.remove(&file).expect("remove");
    publish(store, &file, b"again");
    assert_eq!(content(other, &file), b"again", "a removed name is free");
    store.remove(&file).expect("remove");
}

fn check_listing(store: &dyn Store, other: &dyn Store) {
    let longest = "x".repeat(FileName::MAX_LEN);
    let mut names = [
        "b",
        "a",
        "B",
        "10",
        "9",
        "a b",
        "-n",
        "ä",
        "a.b",
        "~",
        longest.as_str(),
    ];
    for text in names {
        publish(store, &name(text), text.as_bytes());
    }
    names.sort_unstable();
    assert_eq!(listed(other), names, "sorted by bytes");
    for text in names {
        assert_eq!(content(other, &name(text)), text.as_bytes());
        other.remove(&name(text)).expect("remove");
    }
}

fn check_reading(store: &dyn Store) {
    let file = name("image-4");
    let bytes = crate::block::contract::pattern(300_001);
    publish(store, &file, &bytes);
    let reader = store.open(&file).expect("open");
    assert_eq!(reader.len(), to_u64(bytes.len()));
    assert!(reader.name().contains("image-4"), "messages name the file");
    for (at, count) in [
        (0, 1),
        (4095, 2),
        (1, 299_999),
        (300_000, 1),
        (300_001, 0),
        (77, 70_000),
    ] {
        for announced in [false, true] {
            if announced {
                reader.will_need(to_u64(at), to_u64(count));
            }
            // Where it is read from may depend on it; the bytes do not.
            reader.is_cached(to_u64(at), to_u64(count));
            let mut buf = vec![0xEE; count];
            reader
                .read_at(to_u64(at), &mut buf)
                .expect("reads inside succeed");
            assert_eq!(buf, bytes[at..at + count], "{count} bytes at {at}");
        }
    }
    for (at, count) in [
        (300_001, 1),
        (300_000, 2),
        (0, 300_002),
        (u64::MAX, 1),
        (u64::MAX - 1, 5),
    ] {
        reader.will_need(at, to_u64(count));
        reader.is_cached(at, to_u64(count));
        let error = reader
            .read_at(at, &mut vec![0; count])
            .expect_err("past the end");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{count} bytes at {at}");
        assert!(error.subject().contains("image-4"), "names the file");
        assert!(
            error.subject().contains(&at.to_string()),
            "names the offset"
        );
    }
    store.remove(&file).expect("remove");

    let empty = name("empty");
    store
        .create(&empty)
        .expect("create")
        .publish()
        .expect("publish");
    assert!(store.open(&empty).expect("open").is_empty());
    store.remove(&empty).expect("remove");
}

fn check_overwriting(store: &dyn Store, other: &dyn Store) {
    let file = name("a");
    publish(store, &file, b"0123456789");
    store.overwrite(&file, 3, b"abc").expect("overwrite");
    store.overwrite(&file, 9, b"z").expect("the last byte");
    store.overwrite(&file, 0, b"").expect("nothing");
    assert_eq!(content(other, &file), b"012abc678z");
    for (offset, bytes) in [(9, &b"zz"[..]), (11, b"x"), (u64::MAX, b"xx")] {
        let error = store
            .overwrite(&file, offset, bytes)
            .expect_err("past the end");
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    assert_eq!(content(other, &file), b"012abc678z", "nothing else changed");
    other.remove(&file).expect("remove");
    let error = store.overwrite(&file, 0, b"x").expect_err("no such file");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(listed(store), [""; 0], "nothing was made");
}

fn check_missing(store: &dyn Store) {
    let file = name("no-such-file");
    assert_eq!(
        store.open(&file).err().expect("missing").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        store.remove(&file).expect_err("missing").kind(),
        ErrorKind::NotFound
    );
}

fn check_large(store: &dyn Store, other: &dyn Store) {
    let file = name("large");
    let bytes = crate::block::contract::pattern(LARGE);
    let mut upload = store.create(&file).expect("create");
    for piece in bytes.chunks(777_777) {
        upload
            .write_all(piece)
            .map_err(|e| write_error("large", e))
            .expect("write");
    }
    assert_eq!(upload.written(), to_u64(LARGE));
    upload.publish().expect("publish");
    assert!(content(other, &file) == bytes, "large content differs");
    store.remove(&file).expect("remove");
}

/// Many uploads at once: those of different names all succeed, of those of one name just one.
fn check_threads(store: &dyn Store) {
    let winners = std::thread::scope(|scope| {
        let runs = [0u8, 1, 2, 3].map(|thread| {
            scope.spawn(move || {
                publish(store, &name(&format!("own-{thread}")), &[thread; 50_000]);
                let mut upload = store.create(&name("shared")).ok()?;
                upload.write_all(&[thread; 50_000]).expect("write");
                upload.publish().ok().map(|()| thread)
            })
        });
        runs.map(|run| run.join().expect("no panic"))
    });
    let winners: Vec<u8> = winners.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "one name, one winner");
    assert!(
        content(store, &name("shared"))
            .iter()
            .all(|byte| *byte == winners[0])
    );
    assert_eq!(
        listed(store),
        ["own-0", "own-1", "own-2", "own-3", "shared"]
    );
    for text in listed(store) {
        store.remove(&name(&text)).expect("remove");
    }
}

fn check_locks(store: &dyn Store, other: &dyn Store) {
    use LockMode::{Adding, Exclusive, Shared};
    let refused = |handle: &dyn Store, mode, holder: &str| {
        let error = handle.lock(mode, "the late one").err().expect("held");
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains(holder), "{error} names {holder}");
    };
    let holder = "host a, process 1, prune";
    let lock = store.lock(Exclusive, holder).expect("free");
    refused(other, Exclusive, holder);
    refused(other, Shared, holder);
    refused(store, Exclusive, holder);
    drop(lock);
    let first = store.lock(Shared, "first reader").expect("free");
    let second = other.lock(Shared, "second reader").expect("shared");
    refused(other, Exclusive, "first reader");
    refused(other, Exclusive, "second reader");
    drop(first);
    let error = store
        .lock(Exclusive, "writer")
        .err()
        .expect("held")
        .to_string();
    assert!(
        error.contains("second reader") && !error.contains("first reader"),
        "{error}"
    );
    let adding = store.lock(Adding, "who adds").expect("beside a reader");
    refused(other, Adding, "who adds");
    refused(store, Adding, "who adds");
    refused(other, Exclusive, "who adds");
    drop(other.lock(Shared, "third reader").expect("beside who adds"));
    drop((second, adding));
    let lock = store.lock(Exclusive, holder).expect("free again");
    refused(other, Adding, holder);
    drop(lock);
    drop(other.lock(Adding, "the next who adds").expect("free again"));
    drop(other.lock(Exclusive, "writer").expect("free again"));
    assert_eq!(listed(store), [""; 0], "locks are no files");
    assert_eq!(
        store.clean_up().expect("clean up"),
        [""; 0],
        "and leave nothing"
    );
}

fn check_clean_up(store: &dyn Store, other: &dyn Store) {
    let file = name("image-5");
    let mut upload = store.create(&file).expect("create");
    upload.write_all(b"alive").expect("write");
    let _lock = other.lock(LockMode::Exclusive, "cleaner").expect("free");
    assert_eq!(
        other.clean_up().expect("clean up"),
        [""; 0],
        "the living are left alone"
    );
    upload.publish().expect("publish");
    assert_eq!(content(other, &file), b"alive");
    store.remove(&file).expect("remove");
    check_clean_up_beside_uploads(store, other);
}

/// An upload may begin and end at any moment of a clean-up. One that is just beginning may have to
/// begin again, so that the clean-up may have something to tell.
fn check_clean_up_beside_uploads(store: &dyn Store, other: &dyn Store) {
    let done = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let cleaner = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                other.clean_up().expect("clean up");
            }
        });
        let runs = [0, 1].map(|thread| {
            scope.spawn(move || {
                for i in 0..30 {
                    publish(store, &name(&format!("{thread}-{i}")), &[thread; 100]);
                }
            })
        });
        let outcomes = runs.map(|run| run.join());
        done.store(true, Ordering::Relaxed);
        cleaner.join().expect("no panic");
        outcomes
    });
    assert!(outcomes.iter().all(Result::is_ok), "no upload is disturbed");
    assert_eq!(listed(store).len(), 60);
    for text in listed(store) {
        store.remove(&name(&text)).expect("remove");
    }
}
