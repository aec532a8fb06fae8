//! Where passwords and private keys come from.

use super::WithKeys;
use crate::kit::bytes;
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{STRATA, text};
use crate::kit::scratch;
use crate::kit::store::Store;
use crate::kit::tools;
use std::path::{Path, PathBuf};

const PASSWORD: &str = "correct horse";

/// A disk, and a store with an image of it that a password opens.
fn with_password(dir: &Path, seed: u64) -> (PathBuf, Store) {
    let disk = Disk::build(Layout::Odd, dir, "disk.img", seed).path;
    let store = Store::new(dir, "store");
    store
        .backup(&disk)
        .arg("--encrypt")
        .password(PASSWORD)
        .run()
        .expect(0);
    (disk, store)
}

#[test]
fn a_password_comes_from_wherever_the_environment_says() {
    let dir = scratch();
    let (_, store) = with_password(dir.path(), 84);
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\nsecond line\n")).unwrap();
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::copy(&file, credentials.join("strata.password")).unwrap();
    let list = || store.verb("list");
    let command = format!("cat '{}'", text(&file));
    for good in [
        list().env("STRATA_PASSWORD", PASSWORD),
        list().env("STRATA_PASSWORD_FILE", &file),
        list().env("STRATA_PASSWORD_COMMAND", &command),
        list().env("CREDENTIALS_DIRECTORY", &credentials),
    ] {
        good.run().expect(0);
    }
    let line = format!(
        "'{STRATA}' list --store '{}' --password-fd 7 7<'{}'",
        text(&store.dir),
        text(&file)
    );
    tools::run("sh", &["-c", &line]);
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    for bad in [
        list().env("STRATA_PASSWORD_FILE", dir.path().join("missing")),
        list().env("STRATA_PASSWORD_FILE", &empty),
        list().env("STRATA_PASSWORD_COMMAND", "exit 3"),
        list().env("STRATA_PASSWORD_COMMAND", "true"),
        list().arg("--password-fd").arg("77"),
        list().password(PASSWORD).env("STRATA_PASSWORD_FILE", &file),
        list().arg("--identity").arg(&empty),
        list().arg("--key-set").arg("12345"),
    ] {
        let said = bad.run().expect(2).all_text();
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn a_password_is_asked_for_at_the_terminal_and_not_shown() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "disk.img", 85).path;
    let store = Store::new(dir.path(), "store");
    let backup = || store.backup(&disk).arg("--encrypt");
    let twice = |first, second| [("New password: ", first), ("The same again: ", second)];
    let (code, screen) = backup().converse(&twice("one password\n", "another\n"));
    assert_eq!(code, Some(2), "{screen}");
    assert!(screen.contains("two ways"), "{screen}");
    assert_eq!(store.files(), [], "nothing was made");
    let (code, screen) = backup().converse(&twice("one password\n", "one password\n"));
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("one password"), "{screen}");
    let verify = || store.verb("verify").arg("--deep");
    let tries: [(&[(&str, &str)], i32); 3] = [
        (&[("Password for", "one password\n")], 0),
        (&[("Password for", "no\n"), ("not it", "one password\n")], 0),
        (
            &[
                ("Password for", "a\n"),
                ("not it", "b\n"),
                ("not it", "c\n"),
            ],
            8,
        ),
    ];
    for (talk, expected) in tries {
        let (code, screen) = verify().converse(talk);
        assert_eq!(code, Some(expected), "{screen}");
    }
    // Whoever does not know it can stop.
    let (code, screen) = verify().converse(&[("Password for", "\x03")]);
    assert_eq!(code, Some(130), "{screen}");
    // Nobody is there to be asked.
    verify().run().expect(8);
    store
        .backup(&disk)
        .arg("--encrypt")
        .args(["--set", "other"])
        .run()
        .expect(2);
}

/// What would be written into a core dump, and what a child inherits.
#[test]
fn memory_with_keys_is_not_dumped() {
    let dir = scratch();
    let (_, store) = with_password(dir.path(), 86);
    let limits = dir.path().join("limits");
    let command = format!(
        "cat /proc/$PPID/limits > '{}'; echo '{PASSWORD}'",
        text(&limits)
    );
    store
        .verb("list")
        .env("STRATA_PASSWORD_COMMAND", command)
        .run()
        .expect(0);
    let limits = std::fs::read_to_string(limits).unwrap();
    let core = limits
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap();
    let words = core.split_whitespace();
    let numbers: Vec<&str> = words.filter(|w| w.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers, ["1", "1"], "{core}");
}

/// Whoever forgets the password must not get an image that anybody can read.
#[test]
fn nothing_is_stored_for_all_to_read_by_mistake() {
    let dir = scratch();
    let (disk, store) = with_password(dir.path(), 87);
    let before = store.files();
    let other = Disk::build(Layout::Odd, dir.path(), "other.img", 88).path;
    store.backup(&disk).run().expect(8);
    store.backup(&other).run().expect(8);
    assert_eq!(store.files(), before);
    // Another password makes a set of its own, and so does who says that it is meant.
    let made = store.backup(&disk).password("another").arg("--json").run();
    let made = made.expect(0).json();
    assert!(made["image"]["key_set"].is_string());
    assert_eq!(made["image"]["sequence"], 1);
    std::fs::remove_file(store.file_of(&made["image"])).unwrap();
    let plain = store.backup(&other).arg("--no-encrypt").arg("--json");
    let report = plain.run().expect(0).json();
    assert_eq!(report["image"].get("key_set"), None);
    // An existing set stays what it is.
    let with_it =
        |source: &Path, args: &[&str]| store.backup(source).args(args).password(PASSWORD).run();
    with_it(&disk, &["--no-encrypt"]).expect(2);
    let set = report["image"]["set"].as_str().unwrap();
    with_it(&other, &["--set", set, "--encrypt"]).expect(2);
    with_it(&other, &["--set", set])
        .expect(0)
        .expect_says("not encrypted");
    let plan = with_it(&disk, &["--dry-run", "--json"]).expect(0).json();
    assert_eq!(plan["plan"]["keys"][0]["name"], "password");
}

#[test]
fn private_keys_open_what_was_made_for_their_public_halves() {
    let dir = scratch();
    let disk = Disk::build(Layout::Random, dir.path(), "disk.img", 89).path;
    let store = Store::new(dir.path(), "store");
    let recovery = dir.path().join("recovery.txt");
    let ssh = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/crypt/ed25519");
    let public = std::fs::read_to_string(ssh.with_extension("pub")).unwrap();
    let backup = store.backup(&disk).arg("--recipient").arg(&public);
    let backup = backup.arg("--recovery-key").arg(&recovery);
    backup
        .env("STRATA_STATE", dir.path().join("state"))
        .run()
        .expect(0);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&recovery).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // A recovery key is never written over.
    store
        .backup(&disk)
        .args(["--set", "x", "--recovery-key"])
        .arg(&recovery)
        .run()
        .expect(6);
    let target = dir.path().join("target.img");
    for key in [&recovery, &ssh] {
        let _ = std::fs::remove_file(&target);
        store
            .restore("latest", &target)
            .arg("--identity")
            .arg(key)
            .run()
            .expect(0);
        bytes::assert_same(&disk, &target);
        store
            .verb("list")
            .env("STRATA_IDENTITY", key)
            .run()
            .expect(0);
    }
    store.verb("list").run().expect(8);
    store.verb("list").password("x").run().expect(8);
    // With a key, the history goes on.
    bytes::write_random(&disk, 1 << 20, 4096, 1);
    let next = store
        .backup(&disk)
        .arg("--identity")
        .arg(&ssh)
        .arg("--json")
        .run();
    assert_eq!(next.expect(0).json()["image"]["kind"], "incremental");
    let keys = store
        .verb("key")
        .args(["list", "--json", "--identity"])
        .arg(&recovery);
    let keys = keys.run().expect(0).json();
    let kinds: Vec<&str> = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["ssh", "recovery"]);
    assert_eq!(keys["images"], 2);
}
