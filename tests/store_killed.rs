//! What a killed process leaves in a local store: nothing that is listed, nothing that stays, no
//! lock.

use diskstrata::base::ErrorKind;
use diskstrata::store::{FileName, LocalStore, LockMode, Store};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the child finds the store. Without it the child's part is not played.
const STORE: &str = "STRATA_TEST_KILLED_STORE";

/// The child's part: hold a lock and an upload until killed.
#[test]
fn child() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let store = LocalStore::open(Path::new(&path)).unwrap();
    let _lock = store.lock(LockMode::Shared, "the child").unwrap();
    let mut upload = store.create(&FileName::new("image").unwrap()).unwrap();
    upload.write_all(&[1; 100_000]).unwrap();
    // Past the capture of the test harness: the parent waits for this line.
    writeln!(std::io::stderr(), "\nready").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_killed_process_leaves_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::create(&dir.path().join("store")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(STORE, dir.path().join("store"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap() == "ready"),
        "the child got there"
    );

    let error = store.lock(LockMode::Exclusive, "parent").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("the child"), "{error}");
    assert!(store.clean_up().unwrap().is_empty(), "the child lives");

    child.kill().unwrap();
    child.wait().unwrap();
    let _lock = store.lock(LockMode::Exclusive, "parent").unwrap();
    assert!(store.list().unwrap().is_empty());
    // What the child said of itself went when the lock was taken.
    assert_eq!(store.clean_up().unwrap(), [".unfinished-0-image"]);
    assert!(store.clean_up().unwrap().is_empty());
}
