//! What the contract cannot know: modes, links, leftovers, failing files.

use super::*;
use crate::base::to_u64;
use crate::store::{Form, contract, write_error};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

fn store() -> (TempDir, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::create(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Everything in the store's folder but the empty files that stay.
fn inside(store: &LocalStore) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&store.path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| ![".adding", ".lock", ".publishing"].contains(&n.as_str()))
        .collect();
    names.sort();
    names
}

#[test]
fn a_folder_keeps_the_contract() {
    let (_dir, store) = store();
    let other = LocalStore::open(&store.path).unwrap();
    contract::check_store(&store, &other);
    assert_eq!(inside(&store), [""; 0]);
}

#[test]
fn a_wrapped_folder_keeps_the_contract() {
    use crate::store::{FaultStore, Faults, RecordStore, Recorded};
    let (_dir, store) = store();
    let faulty = FaultStore::new(Arc::new(store.clone()), Faults::default());
    let recorded = RecordStore::new(Arc::new(store), Recorded::default());
    contract::check_store(&recorded, &faulty);
}

#[test]
fn only_the_owner_has_access() {
    let (_dir, store) = store();
    assert_eq!(mode(&store.path), 0o700);
    let mut upload = store.create(&name("a")).unwrap();
    upload.write_all(b"x").unwrap();
    let unfinished = store.path.join(&inside(&store)[0]);
    assert_eq!(mode(&unfinished), 0o600);
    upload.publish().unwrap();
    assert_eq!(mode(&store.paths_of(&[&name("a")])[0]), 0o600);
    drop(store.lock(LockMode::Exclusive, "x").unwrap());
    assert_eq!(mode(&store.path.join(".lock")), 0o600);
}

#[test]
fn creating_takes_a_folder_as_it_is_and_makes_no_parents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
    LocalStore::create(&path).unwrap();
    assert_eq!(mode(&path), 0o750);
    let missing = dir.path().join("not/mounted");
    let error = LocalStore::create(&missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!dir.path().join("not").exists());
    assert_eq!(
        LocalStore::open(&missing).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(
        LocalStore::open(&file).unwrap_err().kind(),
        ErrorKind::Destination
    );
    assert_eq!(
        LocalStore::create(&file).unwrap_err().kind(),
        ErrorKind::Destination
    );
}

#[test]
fn what_is_no_plain_file_is_not_there() {
    let (dir, store) = store();
    let secret = dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, store.path.join("link")).unwrap();
    symlink("nowhere", store.path.join("dangling")).unwrap();
    fs::create_dir(store.path.join("folder")).unwrap();
    fs::write(store.path.join("folder/file"), "x").unwrap();
    fs::write(store.path.join("odd\nname"), "x").unwrap();
    fs::write(store.path.join(".hidden"), "x").unwrap();
    let fifo = store.path.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    assert_eq!(store.list().unwrap(), []);
    for text in ["link", "dangling", "folder", "fifo"] {
        let file = name(text);
        assert_eq!(
            store.open(&file).err().unwrap().kind(),
            ErrorKind::NotFound,
            "{text}"
        );
        assert_eq!(
            store.remove(&file).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{text}"
        );
        assert_eq!(
            store.create(&file).err().unwrap().kind(),
            ErrorKind::Destination,
            "{text}"
        );
    }
    assert_eq!(store.clean_up().unwrap(), [""; 0]);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn dead_leftovers_go_and_living_uploads_stay() {
    let (dir, store) = store();
    let outside = dir.path().join("outside");
    fs::write(&outside, "x").unwrap();
    for leftover in [".unfinished-0-a", ".unfinished-junk", ".holder-7-run"] {
        fs::write(store.path.join(leftover), "x").unwrap();
    }
    symlink(&outside, store.path.join(".unfinished-1-link")).unwrap();
    fs::create_dir(store.path.join(".unfinished-2-folder")).unwrap();
    fs::write(store.path.join(".unfinished-\x1b[2J"), "x").unwrap();
    let mut upload = store.create(&name("a")).unwrap();
    upload.write_all(b"alive").unwrap();
    let removed = store.clean_up().unwrap();
    assert_eq!(
        removed,
        [".holder-7-run", ".unfinished-0-a", ".unfinished-junk"]
    );
    upload.publish().unwrap();
    assert_eq!(fs::read(store.path.join("a")).unwrap(), b"alive");
    assert!(outside.exists(), "a link is not followed");
}

#[test]
fn an_upload_whose_file_was_taken_away_is_not_published() {
    let (_dir, store) = store();
    let mut upload = store.create(&name("a")).unwrap();
    upload.write_all(b"mine").unwrap();
    let unfinished = store.path.join(&inside(&store)[0]);
    fs::remove_file(&unfinished).unwrap();
    fs::write(&unfinished, "another's").unwrap();
    let error = upload.publish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Destination);
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(fs::read_to_string(&unfinished).unwrap(), "another's");
}

#[test]
fn a_removed_lock_file_keeps_nobody_in_or_out_for_good() {
    let (_dir, store) = store();
    fs::write(store.path.join(".holder-0-run"), "a dead one").unwrap();
    let lock = store.lock(LockMode::Exclusive, "a\x1b[2J\nb").unwrap();
    let error = store
        .lock(LockMode::Shared, "late")
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.ends_with("held by a\u{FFFD}[2J\u{FFFD}b"),
        "only the living, harmlessly: {error}"
    );
    drop(lock);
    fs::remove_file(store.path.join(".lock")).unwrap();
    symlink("/etc/passwd", store.path.join(".lock")).unwrap();
    let error = store.lock(LockMode::Exclusive, "x").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Destination, "a link is not locked");
}

/// An upload into `file` instead of a new one.
fn upload_into(store: &LocalStore, file: fs::File) -> Box<LocalUpload> {
    let held = Held::create(&store.folder, UNFINISHED, "x").unwrap();
    Box::new(LocalUpload::new(
        store.clone(),
        held.with_file(file),
        name("a"),
    ))
}

#[test]
fn a_full_disk_says_so_and_spoils_the_upload() {
    let (_dir, store) = store();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut upload = upload_into(&store, full);
    let error = write_error("a", upload.write_all(&[0; 5000]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Destination);
    assert_eq!(error.os_error(), Some(28));
    let hint = error.next_step().unwrap();
    assert!(hint.contains("free") && hint.contains("4.9 KiB"), "{hint}");
    assert!(upload.write(b"more").is_err());
    let error = Upload::publish(upload).unwrap_err();
    assert!(error.to_string().contains("earlier write"), "{error}");
    assert_eq!(store.list().unwrap(), []);
}

/// However a long file is cut into writes, and wherever a dead run had stopped, it is what was written, and all of
/// it is there when it is left.
#[test]
fn a_long_file_is_what_was_written() {
    let (_dir, store) = store();
    let bytes = crate::block::contract::pattern((5 << 20) + 321);
    let steps = [1, 4095, 4096, 100_000, 1 << 20, 3 << 20];
    for (nth, step) in steps.into_iter().enumerate() {
        let mut upload = store.create(&name("left")).unwrap();
        let (first, second) = bytes.split_at(bytes.len() / (nth + 1) - nth);
        first
            .chunks(step.max(64))
            .for_each(|piece| upload.write_all(piece).unwrap());
        assert_eq!(upload.written(), first.len() as u64);
        assert!(upload.leave());
        let left = store.leftovers().unwrap().remove(0);
        assert_eq!(left.bytes().len(), first.len() as u64);
        let at = first.len() as u64;
        let file = name(&format!("f{nth}"));
        let mut upload = left.resume(&file, &Form::default(), at).unwrap();
        second
            .chunks(step.max(64))
            .for_each(|piece| upload.write_all(piece).unwrap());
        upload.publish().unwrap();
        assert!(
            fs::read(store.path.join(file.as_str())).unwrap() == bytes,
            "{step}"
        );
    }
}

#[test]
fn a_failed_sync_publishes_nothing() {
    let (_dir, store) = store();
    // A pipe takes writes and cannot be synced.
    let (_reader, writer) = io::pipe().unwrap();
    let mut upload = upload_into(&store, fs::File::from(std::os::fd::OwnedFd::from(writer)));
    upload.write_all(b"x").unwrap();
    let error = Upload::publish(upload).unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Destination, "sync")
    );
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_file_that_shrinks_is_damaged() {
    let (_dir, store) = store();
    let mut upload = store.create(&name("a")).unwrap();
    upload.write_all(&[7; 200_000]).unwrap();
    upload.publish().unwrap();
    let reader = store.open(&name("a")).unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(store.path.join("a"))
        .unwrap();
    file.set_len(100_000).unwrap();
    for count in [10, 100_000] {
        let error = reader.read_at(100_000, &mut vec![0; count]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("at byte 100000"), "{error}");
    }
}

/// A copy of a store by links shares its unfinished files with it: going on with one would write into the other.
#[test]
fn a_leftover_with_a_second_name_is_not_gone_on_with() {
    let (dir, store) = store();
    for _ in 0..2 {
        let mut upload = store.create(&name("a")).unwrap();
        upload.write_all(b"half").unwrap();
        assert!(upload.leave());
    }
    let linked = store.path.join(&inside(&store)[0]);
    fs::hard_link(&linked, dir.path().join("elsewhere")).unwrap();
    assert_eq!(store.leftovers().unwrap().len(), 1);
    assert_eq!(store.clean_up().unwrap().len(), 2);
    assert_eq!(fs::read(dir.path().join("elsewhere")).unwrap(), b"half");
}

/// A published file of 1 MiB and an odd end that is not in the page cache; `None` where the kernel does not tell.
fn uncached(store: &LocalStore) -> Option<(fs::File, Vec<u8>)> {
    let bytes = crate::block::contract::pattern((1 << 20) + 777);
    let mut upload = store.create(&name("a")).unwrap();
    upload.write_all(&bytes).unwrap();
    upload.publish().unwrap();
    let file = fs::File::open(store.path.join("a")).unwrap();
    fs::read(store.path.join("a")).unwrap();
    let told = sys::is_cached(&file, 0, 1 << 20) == Some(true);
    sys::drop_cached(&file, 0, 0);
    if !told || sys::is_cached(&file, 0, 1 << 20) == Some(true) {
        eprintln!("SKIPPED (the kernel does not tell what is cached, or keeps all of it)");
        return None;
    }
    Some((file, bytes))
}

#[test]
fn content_that_is_not_cached_is_read_past_the_cache() {
    let (_dir, store) = store();
    let Some((file, bytes)) = uncached(&store) else {
        return;
    };
    if sys::open_for_direct_reads(&file, 4096).is_none() {
        eprintln!(
            "SKIPPED: the file system of the temporary directory does not say that it has O_DIRECT"
        );
        return;
    }
    let reader = store.open(&name("a")).unwrap();
    let len = bytes.len();
    let any_cached =
        || (0..len.div_ceil(4096)).any(|page| reader.is_cached(to_u64(page * 4096), 1));
    let read = |from: usize, to: usize| {
        let mut buf = vec![0; to - from];
        reader.read_at(to_u64(from), &mut buf).unwrap();
        assert!(buf == bytes[from..to], "{from} to {to}");
    };
    for (from, to) in [(0, 1 << 20), (5, 70_000), (4096, len), (len - 65_536, len)] {
        reader.will_need(to_u64(from), to_u64(to - from));
        read(from, to);
        assert!(!any_cached(), "{from} to {to}");
    }
    // What somebody else has there is taken from there, and stays.
    fs::read(store.path.join("a")).unwrap();
    read(5, len);
    assert!(reader.is_cached(0, to_u64(len)));
    // What is written and not on the medium yet is not missed.
    store.overwrite(&name("a"), 100, b"new").unwrap();
    let written = fs::OpenOptions::new()
        .write(true)
        .open(store.path.join("a"));
    std::os::unix::fs::FileExt::write_all_at(&written.unwrap(), b"newer", 200_000).unwrap();
    let mut buf = vec![0; len];
    reader.read_at(0, &mut buf).unwrap();
    assert!(&buf[100..103] == b"new" && &buf[200_000..200_005] == b"newer");
}

/// Half of what is read stays in the page cache, as far as it was allowed to, until it is read once more.
#[test]
fn what_is_read_again_soon_stays_until_then() {
    const HALF: usize = 512 << 10;
    let (_dir, store) = store();
    let Some((on_disk, bytes)) = uncached(&store) else {
        return;
    };
    let cached = |half: u64| {
        let len = to_u64(HALF);
        sys::is_cached(&on_disk, half * len, len) == Some(true)
    };
    let file = store.open(&name("a")).unwrap();
    let read = |half: usize| {
        let mut buf = vec![0; HALF];
        file.read_at(to_u64(half * HALF), &mut buf).unwrap();
        assert!(buf == bytes[half * HALF..][..HALF]);
    };
    let state = || (cached(0), cached(1));
    read(0);
    // The kernel itself may have read ahead.
    assert!(!cached(0));
    store.will_reread(to_u64(HALF + HALF / 2));
    file.will_need(0, to_u64(2 * HALF));
    read(0);
    read(1);
    assert_eq!(state(), (true, false), "only one of them may stay");
    store.will_reread(0);
    read(0);
    read(1);
    assert_eq!(state(), (false, false));
}
