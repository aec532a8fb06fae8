//! Little to live on: few files, short files, little memory, no /proc, no /sys, nothing to write to, no standard
//! streams. Every verb works or says what is wrong; none panics, and no image is harmed.

use crate::kit::bytes;
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::privileged;
use crate::kit::run::{Outcome, Strata, strata, text};
use crate::kit::store::Store;
use crate::kit::{MIB, scratch, tools};
use std::path::PathBuf;

/// A disk, and a store with two images of it.
struct Place {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
}

impl Place {
    fn new(seed: u64) -> Place {
        let dir = scratch();
        let disk = Disk::build(Layout::Odd, dir.path(), "disk.img", seed);
        let store = Store::new(dir.path(), "store");
        store.backed_up(&disk.path);
        bytes::flip(&disk.path, 5000);
        store.backed_up(&disk.path);
        Place { dir, disk, store }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target.img")
    }

    /// Every verb that a bare machine needs.
    fn verbs(&self) -> Vec<(&'static str, Strata)> {
        let store = &self.store;
        vec![
            ("backup", store.backup(&self.disk.path)),
            ("list", store.verb("list")),
            ("show", store.verb("show").arg("latest")),
            ("verify", store.verb("verify").arg("--deep")),
            ("restore", store.restore("latest", &self.target())),
            ("prune", store.verb("prune").args(["--keep-last", "2"])),
            ("help", strata("--help")),
        ]
    }

    /// Runs every verb below `prefix`. Returns how each ended.
    fn all_below(&self, what: &str, prefix: &[&str]) -> Vec<(&'static str, Outcome)> {
        let mut ended = Vec::new();
        for (name, run) in self.verbs() {
            let outcome = run.start_below(prefix).wait();
            assert_sane(what, &outcome);
            self.unharmed(what);
            let _ = std::fs::remove_file(self.target());
            ended.push((name, outcome));
        }
        ended
    }

    fn unharmed(&self, what: &str) {
        let listed = self.store.list().len();
        assert!(listed >= 2, "{what}: {listed} images");
        self.store.verify(&["--deep"]).expect(0);
    }
}

/// It ended by itself, with a code of the documented ones, and said something when it failed.
#[track_caller]
fn assert_sane(what: &str, outcome: &Outcome) {
    let code = outcome.code();
    let documented = matches!(code, Some(0 | 2 | 4..=13));
    assert!(documented, "{what}: {outcome}");
    let quiet = outcome.all_text().trim().is_empty();
    assert!(
        code == Some(0) || !quiet,
        "{what}: without a word: {outcome}"
    );
}

/// Fails unless each of `verbs` ended well.
#[track_caller]
fn well(what: &str, ended: &[(&str, Outcome)], verbs: &[&str]) {
    for (name, outcome) in ended {
        if verbs.contains(name) {
            assert_eq!(outcome.code(), Some(0), "{what}: {name}: {outcome}");
        }
    }
}

const ALL: [&str; 7] = [
    "backup", "list", "show", "verify", "restore", "prune", "help",
];
const READING: [&str; 5] = ["list", "show", "verify", "prune", "help"];

#[test]
fn few_files_and_little_memory() {
    let place = Place::new(201);
    let ended = place.all_below("64 files", &["prlimit", "--nofile=64", "--"]);
    well("64 files", &ended, &ALL);
    let memory = format!("--as={}", 512 * MIB);
    let ended = place.all_below("512 MiB", &["prlimit", &memory, "--"]);
    well("512 MiB", &ended, &ALL);
}

#[test]
fn short_files() {
    let place = Place::new(202);
    for limit in [0, 1, 4096, 100_000] {
        let limit = format!("--fsize={limit}");
        let ended = place.all_below(&limit, &["prlimit", &limit, "--"]);
        well(&limit, &ended, &["list", "show", "help"]);
    }
}

/// Runs a line of shell in a mount namespace of its own, and then the command.
fn after(line: &str) -> Vec<String> {
    let script = format!("mount --make-rprivate / && {line} && exec \"$@\"");
    let words = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    words.map(str::to_owned).to_vec()
}

#[test]
fn without_proc_and_sys() {
    if !privileged("no /proc and no /sys") {
        return;
    }
    let place = Place::new(203);
    for (what, line) in [
        ("no /proc", "mount -t tmpfs none /proc"),
        ("no /sys", "mount -t tmpfs none /sys"),
        (
            "neither",
            "mount -t tmpfs none /proc && mount -t tmpfs none /sys",
        ),
    ] {
        let prefix = after(line);
        let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
        let ended = place.all_below(what, &prefix);
        well(what, &ended, &READING);
    }
}

#[test]
fn nothing_to_write_to() {
    if !privileged("a read-only root and a full temporary folder") {
        return;
    }
    let place = Place::new(204);
    let at = text(place.dir.path()).to_owned();
    let read_only = format!(
        "mount --bind {at} {at} && mount -o remount,bind,ro {at} && mount -o remount,bind,ro /"
    );
    let prefix = after(&read_only);
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let ended = place.all_below("read-only", &prefix);
    well("read-only", &ended, &["list", "show", "help", "verify"]);
    for (name, outcome) in &ended {
        // A target that is read-only is refused.
        let code = match *name {
            "backup" => Some(6),
            "restore" => Some(4),
            _ => outcome.code(),
        };
        assert_eq!(outcome.code(), code, "{outcome}");
    }
    let full = "mkdir -p /tmp && mount -t tmpfs -o size=4k none /mnt && \
                { dd if=/dev/zero of=/mnt/x bs=4k count=9 2>/dev/null || true; } && export TMPDIR=/mnt";
    let prefix = after(full);
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let ended = place.all_below("a full temporary folder", &prefix);
    well("a full temporary folder", &ended, &ALL);
}

#[test]
fn without_standard_streams() {
    let place = Place::new(205);
    for closed in [
        "<&-",
        ">&-",
        "2>&-",
        "<&- >&-",
        "<&- 2>&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
    ] {
        for (name, run) in place.verbs() {
            let line = run.command_line();
            let words: Vec<&str> = line.iter().map(|w| w.to_str().unwrap()).collect();
            let script = format!("\"$@\" {closed}; exit $?");
            let ended = tools::try_run("sh", &[&["-c", &script, "sh"][..], &words].concat());
            let code = ended.status.code();
            let sane = matches!(code, Some(0 | 2 | 4..=13));
            assert!(sane, "{name} {closed}: {}", ended.status);
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(!said.contains("panicked"), "{name} {closed}: {said}");
            let _ = std::fs::remove_file(place.target());
        }
        place.unharmed(closed);
    }
}

/// Whoever reads what it says ends at once.
#[test]
fn with_nobody_who_reads() {
    let place = Place::new(206);
    for (name, run) in place.verbs() {
        for run in [run, place.store.verb("list").arg("--json")] {
            let line = run.command_line();
            let words: Vec<&str> = line.iter().map(|w| w.to_str().unwrap()).collect();
            let script = "exec 3>&1; { \"$@\" 2>&3; echo $? >&3; } | true";
            let ended = tools::try_run("bash", &[&["-c", script, "bash"][..], &words].concat());
            let said = String::from_utf8_lossy(&ended.stdout).into_owned();
            assert!(!said.contains("panicked"), "{name}: {said}");
            let code = said.lines().last().and_then(|l| l.parse().ok());
            assert!(matches!(code, Some(0 | 2 | 4..=13)), "{name}: {said}");
        }
        let _ = std::fs::remove_file(place.target());
    }
    place.unharmed("nobody reads");
}
