//! Holders on other machines, whose file locks may not reach this one.
//!
//! Below what it says for people, a holder's file has a line with the machine, the kernel's run and what it
//! locks. A file that nobody here holds is of a dead run when it is of this very kernel, or of an earlier start
//! of this machine. On a file system that no other machine can have mounted it is in any case. Else nobody can
//! tell from here, and age tells nothing: it counts until a person removes it.

use super::super::held::{self, Said};
use super::{HOLDER, MAX_TEXT};
use crate::base::{Digest, Error, ErrorKind, Result};
use crate::store::LockMode;
use crate::sys::{self, Folder};
use std::ffi::OsString;
use std::fs::File;

/// Digits of a machine's digest that stand in a file.
const DIGITS: usize = 16;
/// What begins the line.
const MARK: &str = "strata-lock";

/// How far the locks of a folder reach, seen from this machine.
pub(in super::super) struct Reach {
    /// Whether others may have mounted the folder's file system.
    shared: bool,
    /// This machine; empty when nothing tells it from others.
    machine: String,
    /// The kernel's run.
    boot: String,
}

impl Reach {
    pub(in super::super) fn of(folder: &Folder) -> Reach {
        let sys::Machine { ids, boot } = sys::machine();
        let [name, installation, maker] = &ids;
        let known = !installation.is_empty() || !maker.is_empty();
        let parts = [name, installation, maker].map(|id| id.as_bytes());
        let digest = Digest::derive("diskstrata machine 1", &parts).to_string();
        Reach {
            shared: folder.may_be_shared(),
            machine: match known {
                true => held::shortened(&digest, DIGITS).to_owned(),
                false => String::new(),
            },
            boot,
        }
    }

    /// The line for a holder in `mode`.
    pub(super) fn mark(&self, mode: LockMode) -> String {
        let word = word(mode);
        format!(
            "{MARK} {word} machine={} boot={}\n",
            self.machine, self.boot
        )
    }

    /// Whether nobody here can tell if the holder that wrote this lives; what it locks.
    fn unknown(&self, text: &str) -> Option<LockMode> {
        if !self.shared {
            return None;
        }
        let mut words = words_in(text)?;
        let mode = words.next()?;
        let machine = words.next()?.strip_prefix("machine=")?;
        let boot = words.next()?.strip_prefix("boot=")?;
        let here = !boot.is_empty() && boot == self.boot;
        let before = !machine.is_empty() && machine == self.machine;
        match here || before {
            true => None,
            // One that a later version writes keeps all others away.
            false => Some(mode_of(mode).unwrap_or(LockMode::Exclusive)),
        }
    }

    /// Whether the file of a holder that nobody here holds must stay.
    pub(in super::super) fn spares(&self, file: &File) -> bool {
        let mut bytes = [0; MAX_TEXT];
        let read = std::os::unix::fs::FileExt::read_at(file, &mut bytes, 0);
        let text = String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]);
        self.unknown(&text).is_some()
    }

    /// Fails when a holder elsewhere may have a lock that does not admit `mode`. `own` is the file in which this
    /// run says who it is.
    ///
    /// # Errors
    /// `Locked`, naming the holder and its file; `Destination`.
    pub(super) fn check(
        &self,
        folder: &Folder,
        store: &str,
        mode: LockMode,
        own: Option<&OsString>,
    ) -> Result<()> {
        if !self.shared {
            return Ok(());
        }
        let all = held::said(folder, HOLDER, MAX_TEXT);
        let all = all.map_err(|e| super::fail("lock", store, e))?;
        let against = |said: &&Said| {
            let theirs = (!said.alive).then(|| self.unknown(&said.text)).flatten();
            let is_own = own.is_some_and(|own| *own == *said.name.as_str());
            !is_own && theirs.is_some_and(|theirs| !mode.admits(theirs))
        };
        match all.iter().find(against) {
            None => Ok(()),
            Some(said) => Err(held_elsewhere(store, said)),
        }
    }
}

/// What stands in the line for machines in a holder's `text`.
fn words_in(text: &str) -> Option<impl Iterator<Item = &str>> {
    let line = text.lines().nth(1)?;
    Some(line.strip_prefix(MARK)?.split_whitespace())
}

/// What the holder that wrote `text` locks, where it says so.
pub(super) fn mode_in(text: &str) -> Option<LockMode> {
    mode_of(words_in(text)?.next()?)
}

fn mode_of(text: &str) -> Option<LockMode> {
    let modes = [LockMode::Exclusive, LockMode::Adding, LockMode::Shared];
    modes.into_iter().find(|mode| word(*mode) == text)
}

fn word(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "alone",
        LockMode::Adding => "adding",
        LockMode::Shared => "shared",
    }
}

fn held_elsewhere(store: &str, said: &Said) -> Error {
    let who = said.who();
    Error::new(ErrorKind::Locked, "lock", store)
        .because(format!(
            "held by {who}, on another machine; whether that run still lives cannot be told from here"
        ))
        .hint(format!(
            "wait until it has ended; if it is known to be dead (killed, machine switched off), remove \
             {store}/{} and try again",
            said.name
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tempfile::TempDir;

    const ALL: [LockMode; 3] = [LockMode::Exclusive, LockMode::Adding, LockMode::Shared];

    fn reach(shared: bool, machine: &str, boot: &str) -> Reach {
        Reach {
            shared,
            machine: machine.to_owned(),
            boot: boot.to_owned(),
        }
    }

    /// A folder with the file of a holder that is not held here.
    fn left_by(other: &Reach, mode: LockMode) -> (TempDir, Arc<Folder>) {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("far, process 7, backup\n{}", other.mark(mode));
        std::fs::write(dir.path().join(".holder-0-run"), text).unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        (dir, folder)
    }

    #[test]
    fn a_holder_elsewhere_keeps_away_whom_its_lock_does_not_admit() {
        let (here, far) = (reach(true, "a", "1"), reach(true, "b", "2"));
        for theirs in ALL {
            for ours in ALL {
                let (_dir, folder) = left_by(&far, theirs);
                let outcome = here.check(&folder, "/nas", ours, None);
                assert_eq!(outcome.is_ok(), ours.admits(theirs), "{theirs:?}, {ours:?}");
                let Err(e) = outcome else { continue };
                assert_eq!(e.kind(), ErrorKind::Locked);
                assert!(e.to_string().contains("far, process 7, backup"), "{e}");
                let hint = e.next_step().unwrap();
                assert!(hint.contains("/nas/.holder-0-run"), "{hint}");
                held::remove_dead(&folder, &[HOLDER], &|file| here.spares(file)).unwrap();
                here.check(&folder, "/nas", ours, None).unwrap_err();
            }
        }
    }

    #[test]
    fn one_of_this_machine_that_nobody_holds_is_dead() {
        let here = reach(true, "a", "1");
        // Killed just now; before the machine was started again; by one whose name nobody knows.
        let dead = [
            reach(true, "a", "1"),
            reach(true, "a", "0"),
            reach(true, "", "1"),
        ];
        for dead in &dead {
            let (_dir, folder) = left_by(dead, LockMode::Exclusive);
            here.check(&folder, "/nas", LockMode::Exclusive, None)
                .unwrap();
            let gone = held::remove_dead(&folder, &[HOLDER], &|file| here.spares(file));
            assert_eq!(gone.unwrap(), [".holder-0-run"]);
        }
        // Two machines that nothing tells apart are not one.
        let (_dir, folder) = left_by(&reach(true, "", "2"), LockMode::Exclusive);
        let nobody = reach(true, "", "1");
        nobody
            .check(&folder, "/nas", LockMode::Shared, None)
            .unwrap_err();
    }

    #[test]
    fn on_a_file_system_of_one_machine_the_kernel_knows() {
        let here = reach(false, "a", "1");
        let (_dir, folder) = left_by(&reach(true, "b", "2"), LockMode::Exclusive);
        here.check(&folder, "/disk", LockMode::Exclusive, None)
            .unwrap();
        held::remove_dead(&folder, &[HOLDER], &|file| here.spares(file)).unwrap();
        assert!(folder.names(10).unwrap().is_empty());
    }
}
