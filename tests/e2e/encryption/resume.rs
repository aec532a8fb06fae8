//! An interrupted backup of an encrypted set goes on where it was, for whoever can open what is there.

use super::{History, WithKeys};
use crate::kit::bytes::{self, assert_same};
use crate::kit::run::{Outcome, Strata};
use crate::kit::store::{Store, number};
use crate::kit::{MIB, long, scratch};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// So many bytes of the disk are recorded together: the unit in which a run goes on. Behind it comes what the run had
/// in memory.
const LEAF: u64 = 256 * 4096;
/// Head, front, and the chunk in which a cut lies.
const AROUND: u64 = 100 << 10;

/// A disk, and files of a store: those that are there, and those of an image that was never finished.
struct Scene {
    dir: TempDir,
    disk: PathBuf,
    older: Vec<(String, Vec<u8>)>,
    new: Vec<(String, Vec<u8>)>,
    args: Vec<String>,
}

impl Scene {
    /// The first backup of a set is interrupted, or a `later` one.
    fn new(args: &[&str], later: bool, with: impl Fn(Strata) -> Strata) -> Scene {
        let dir = scratch();
        let disk = dir.path().join("secret-name.img");
        bytes::create_sparse(&disk, 6 * MIB - 512);
        bytes::write_random(&disk, 0, 4 * MIB, 71);
        bytes::write_random(&disk, 5 * MIB + 4096 * 7, 300_000, 73);
        let base = ["--set", "disk", "--block-size", "4K", "--full"];
        let args = base.iter().chain(args).map(ToString::to_string).collect();
        let mut scene = Scene {
            dir,
            disk,
            older: Vec::new(),
            new: Vec::new(),
            args,
        };
        let store = scene.store("made");
        if later {
            with(scene.run(&store)).run().expect(0);
            bytes::write_random(&scene.disk, 2 * MIB, 100_000, 74);
        }
        scene.older = store.contents();
        with(scene.run(&store)).run().expect(0);
        let mut new = store.contents();
        new.retain(|file| !scene.older.contains(file));
        scene.new = new;
        scene
    }

    /// An empty store, of which nobody remembers that images were made in it.
    fn store(&self, name: &str) -> Store {
        let _ = std::fs::remove_dir_all(self.dir.path().join(name));
        let notes = std::fs::read_dir(self.state()).into_iter().flatten();
        for note in notes.map(|entry| entry.unwrap().path()) {
            if note.extension().is_some_and(|e| e == "newest") {
                std::fs::remove_file(note).unwrap();
            }
        }
        Store::new(self.dir.path(), name)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn run(&self, store: &Store) -> Strata {
        let run = store.backup(&self.disk).args(&self.args);
        run.env("STRATA_STATE", self.state())
    }

    fn stored(&self) -> u64 {
        self.new.iter().map(|(_, bytes)| bytes::len(bytes)).sum()
    }

    /// A store as a run that was killed leaves it when it has written `bytes` of its image.
    fn killed(&self, bytes: u64) -> Store {
        let store = self.store("killed");
        for (name, content) in &self.older {
            std::fs::write(store.dir.join(name), content).unwrap();
        }
        self.leave(&store, bytes);
        store
    }

    fn leave(&self, store: &Store, bytes: u64) {
        let put = |name: &str, content: &[u8]| {
            std::fs::write(store.dir.join(name), content).unwrap();
        };
        let mut left = bytes;
        for (number, (name, content)) in (1..).zip(&self.new) {
            let here = left.min(bytes::len(content));
            left -= here;
            let there = &content[..usize::try_from(here).unwrap()];
            let is_whole = there.len() == content.len() && left > 0;
            let part = name.strip_suffix(&format!(".{number:03}"));
            match part {
                Some(_) if there.is_empty() => {}
                Some(_) if number > 1 && is_whole => put(name, there),
                Some(file) => {
                    put(&format!(".unfinished-{number}-{name}"), there);
                    put(&format!("{file}.unfinished"), &content[16..32]);
                }
                None => put(&format!(".unfinished-0-{name}"), there),
            }
        }
    }

    /// Runs the backup again; the bytes that it did not have to write. Whatever they were, the image is the
    /// disk, and nothing else is left.
    #[track_caller]
    fn goes_on(&self, store: &Store, with: impl Fn(Strata) -> Strata) -> u64 {
        let outcome = with(self.run(store)).arg("--json").run().expect(0);
        let kept = number(&outcome.json(), "continued_bytes");
        self.check(store, with);
        kept
    }

    #[track_caller]
    fn check(&self, store: &Store, with: impl Fn(Strata) -> Strata) {
        let verify = |args: &[&str]| with(store.verb("verify").args(args)).run();
        verify(&["disk@latest", "--deep"]).expect(0);
        let files = store.files().into_iter().map(|(name, _)| name);
        let clutter: Vec<String> = files.filter(|name| name.contains("unfinished")).collect();
        assert_eq!(clutter, [""; 0]);
        let target = self.dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        with(store.restore("disk@latest", &target)).run().expect(0);
        assert_same(&self.disk, &target);
    }
}

/// A key that lies in a file, of a set that has an image.
fn key(dir: &Path) -> (PathBuf, String) {
    let history = History::new(90, 0, &[]);
    let key = dir.join("key.txt");
    std::fs::copy(&history.key, &key).unwrap();
    (key, history.public())
}

fn wherever_it_was_cut(args: &[&str]) {
    let keys = scratch();
    let (key, public) = key(keys.path());
    let with = |run: Strata| run.identity(&key);
    let args = [args, &["--recipient", &public]].concat();
    let scene = Scene::new(&args, true, with);
    let (whole, many) = (scene.stored(), if long() { 300 } else { 12 });
    let mut most = 0;
    for cut in (0..many).map(|n| n * whole / many).chain([whole]) {
        let kept = scene.goes_on(&scene.killed(cut), with);
        assert!(kept <= cut, "{kept} of {cut}");
        assert!(kept + LEAF + AROUND >= cut, "{kept} of {cut}");
        most = most.max(kept);
    }
    assert!(most + AROUND > whole, "{most} of {whole}");
}

#[test]
fn a_file_goes_on_wherever_it_was_cut() {
    wherever_it_was_cut(&[]);
}

#[test]
fn a_file_in_parts_goes_on_wherever_it_was_cut() {
    wherever_it_was_cut(&["--split", "1M"]);
}

#[test]
fn a_file_goes_on_again_and_again_and_keeps_nothing_that_is_no_more() {
    let keys = scratch();
    let (key, public) = key(keys.path());
    let with = |run: Strata| run.identity(&key);
    let mut scene = Scene::new(&["--recipient", &public], true, with);
    for (round, share) in (0..).zip([9, 3, 7, 2, 8, 5]) {
        let cut = scene.stored() * share / 10;
        let store = scene.killed(cut);
        // What lies behind is another one now: so much is kept, and no more.
        let changed = (5 - round) * MIB / 2 + 4096;
        bytes::write_random(&scene.disk, changed, 5_000, 100 + round);
        let kept = scene.goes_on(&store, with);
        assert!(kept <= cut.min(changed + LEAF), "{round}: {kept} of {cut}");
        assert!(
            kept + 2 * LEAF >= cut.min(changed),
            "{round}: {kept} of {cut}"
        );
        let mut new = store.contents();
        new.retain(|file| !scene.older.contains(file));
        scene.new = new;
    }
}

fn says_that_it_went_on(outcome: &Outcome) -> bool {
    outcome
        .text()
        .contains("went on with an interrupted backup")
}

#[test]
fn the_first_image_of_a_set_goes_on_with_the_password_that_it_was_begun_with() {
    let with = |run: Strata| run.password("correct horse");
    let scene = Scene::new(&["--encrypt"], false, with);
    let half = scene.stored() / 2;
    let store = scene.killed(half);
    let dry = with(scene.run(&store)).args(["--dry-run", "--json"]).run();
    assert!(number(&dry.expect(0).json()["plan"], "continues_bytes") > 0);
    let outcome = with(scene.run(&store)).run().expect(0);
    assert!(says_that_it_went_on(&outcome), "{outcome}");
    scene.check(&store, with);
    let name = &store.files()[0].0;
    assert_eq!(&name[..18], &scene.new[0].0[..18], "it is the same set");

    // Whoever gives another password gets an image with that, and nothing of what was there.
    let store = scene.killed(half);
    let other = |run: Strata| run.password("battery staple");
    assert_eq!(scene.goes_on(&store, other), 0);
    with(store.verb("verify")).run().expect(8);
}

#[test]
fn a_recovery_key_that_the_first_run_has_written_is_the_one_of_the_image() {
    let keys = scratch();
    let recovery = keys.path().join("recovery.txt");
    let with = |run: Strata| run.password("correct horse");
    let asked = ["--encrypt", "--recovery-key", recovery.to_str().unwrap()];
    let scene = Scene::new(&asked, false, with);
    let most = scene.stored() * 9 / 10;
    let store = scene.killed(most);
    assert!(scene.goes_on(&store, with) > most / 2);
    scene.check(&store, |run| run.identity(&recovery));

    // Of another key nobody knows who has it.
    std::fs::rename(&recovery, keys.path().join("old.txt")).unwrap();
    let store = scene.killed(most);
    assert_eq!(scene.goes_on(&store, with), 0);
    scene.check(&store, |run| run.identity(&recovery));
}

#[test]
fn what_may_be_of_somebody_else_is_begun_anew() {
    let keys = scratch();
    let (key, public) = key(keys.path());
    // Anybody can begin an image for a public key.
    let with = |run: Strata| run.identity(&key);
    let scene = Scene::new(&["--recipient", &public], false, with);
    assert_eq!(scene.goes_on(&scene.killed(scene.stored() / 2), with), 0);

    // A machine that has nothing but that cannot look into what it has begun.
    let blind = |run: Strata| run;
    let scene = Scene::new(&["--recipient", &public], false, blind);
    let store = scene.killed(scene.stored() / 2);
    let _ = std::fs::remove_dir_all(scene.dir.path().join("state"));
    let report = scene.run(&store).arg("--json").run().expect(0).json();
    assert_eq!(number(&report, "continued_bytes"), 0);
    scene.check(&store, with);
}

#[test]
fn an_unfinished_file_of_other_keys_is_not_gone_on_with() {
    let keys = scratch();
    let (key, public) = key(keys.path());
    let with = |run: Strata| run.identity(&key);
    let scene = Scene::new(&["--recipient", &public], true, with);
    let store = scene.killed(scene.stored() * 9 / 10);
    let second = keys.path().join("second.txt");
    let add = ["add", "--name", "second", "--recovery-key"];
    let add = with(store.verb("key").args(add)).arg(&second);
    add.run().expect(0);
    scene.leave(&store, scene.stored() * 9 / 10);
    // What was kept could not be read by the new key's owner, nor kept from a removed one.
    assert_eq!(scene.goes_on(&store, with), 0);
    scene.check(&store, |run| run.identity(&second));
}
