//! Every call of the file system fails, once or from then on, and the file system is full at every step: no
//! run says that it is done when it is not, nothing is lost, and doing it again ends where an undisturbed run
//! ends.

use crate::crash::last;
use crate::deeds::Stop;
use crate::kit::recorded::{Break, Files, RecordedFolder};
use crate::long;
use crate::power::{CHAIN, Lying, long_history, open};
use crate::rehearsed::{Deed, Expected, Held, expect, history};
use crate::world::World;
use diskstrata::base::{Error, ErrorKind};
use diskstrata::chain::Wish;
use diskstrata::image::Compression;
use diskstrata::ops::copy::CopyRequest;
use std::time::{Duration, Instant};

/// No call that fails is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How calls fail: as media, full ones, quotas, read-only mounts, sticks that are pulled out and shares do.
const ERRNOS: [(&str, i32); 6] = [
    ("EIO", 5),
    ("ENOSPC", 28),
    ("EROFS", 30),
    ("EDQUOT", 122),
    ("ENODEV", 19),
    ("ESTALE", 116),
];
/// Those that only say that it was not the right moment.
const MOMENTS: [(&str, i32); 2] = [("EINTR", 4), ("EAGAIN", 11)];

struct Broken {
    what: &'static str,
    folder: RecordedFolder,
    lying: Lying,
    expected: Expected,
    before: Files,
}

fn breaking(
    what: &'static str,
    lying: Lying,
    kinds: &[Wish],
    prepare: impl Fn(&mut World),
    deed: impl Fn(&World) -> Deed,
) -> Option<Broken> {
    let folder = RecordedFolder::mount(what)?;
    let mut world = match lying {
        Lying::Whole => history(open(folder.path(), lying), kinds, 0),
        Lying::InParts => long_history(open(folder.path(), lying), kinds, 0),
    };
    prepare(&mut world);
    let (expected, before) = expect(world, deed, || folder.files());
    Some(Broken {
        what,
        folder,
        lying,
        expected,
        before,
    })
}

impl Broken {
    /// One disturbed run. `None` when nothing disturbed it.
    fn run(&self, broken: Break, when: &str) -> Option<Result<(), Error>> {
        self.folder.reset(&self.before);
        let store = open(self.folder.path(), self.lying);
        let start = Instant::now();
        self.folder.break_call(broken);
        let outcome = self.expected.deed.run(&store, &Stop::never());
        let fired = self.folder.mend();
        let took = start.elapsed();
        assert!(took < PATIENCE, "{when}: {took:?}");
        if outcome.is_ok() && !matches!(self.expected.deed, Deed::Backup(_)) {
            assert_eq!(
                Held::of(&store),
                self.expected.after,
                "{when}: it said that it was done"
            );
        }
        self.expected.again(&store, false, when);
        fired.then_some(outcome)
    }

    /// Every call fails in turn. Returns how many there were.
    fn everywhere(&self, name: &str, errno: i32, lasting: bool, must_survive: bool) -> u64 {
        for nth in 1.. {
            let when = format!(
                "{}: call {nth} answers {name}, lasting: {lasting}",
                self.what
            );
            let broken = Break {
                nth,
                errno,
                lasting,
            };
            match self.run(broken, &when) {
                None => return nth - 1,
                Some(Err(e)) => {
                    assert!(!must_survive, "{when}: {e}");
                    assert_ne!(e.kind(), ErrorKind::Internal, "{when}: {e}");
                }
                Some(Ok(())) => {}
            }
        }
        unreachable!()
    }

    fn disturb(&self) {
        let mut runs = 0;
        let usual = if long() { ERRNOS.len() } else { 3 };
        for (name, errno) in ERRNOS.into_iter().take(usual) {
            runs += self.everywhere(name, errno, false, false);
            if errno == 5 || long() {
                runs += self.everywhere(name, errno, true, false);
            }
        }
        for (name, errno) in MOMENTS {
            runs += self.everywhere(name, errno, false, true);
        }
        assert!(runs > 100, "{runs} runs");
        eprintln!("{}: {runs} runs with a call that failed", self.what);
    }

    /// The file system is full at every step of `step` bytes.
    fn fill(&self, step: u64) {
        let used: usize = self.before.values().map(|(_, bytes)| bytes.len()).sum();
        let used = u64::try_from(used).unwrap();
        for more in (0..).step_by(usize::try_from(step).unwrap()) {
            let when = format!("{}: {more} bytes are free", self.what);
            self.folder.reset(&self.before);
            let store = open(self.folder.path(), self.lying);
            self.folder.set_room(Some(used + more));
            let outcome = self.expected.deed.run(&store, &Stop::never());
            self.folder.set_room(None);
            let Err(error) = outcome else {
                assert!(more > 0, "nothing was ever full");
                self.expected.again(&store, true, &when);
                return;
            };
            assert_eq!(error.kind(), ErrorKind::Destination, "{when}: {error}");
            let said = format!("{error} {}", error.next_step().unwrap_or_default());
            assert!(said.contains("free"), "{when}: {said}");
            // What was begun is gone, so that there is as much room as before.
            assert_eq!(
                self.folder.files().len(),
                self.before.len() + self.markers(),
                "{when}"
            );
            self.expected.again(&store, true, &when);
        }
    }

    /// Empty files that stay: locks.
    fn markers(&self) -> usize {
        let files = self.folder.files();
        let new = files.keys().filter(|name| !self.before.contains_key(*name));
        new.filter(|name| files[*name].1.is_empty()).count()
    }
}

#[test]
fn a_backup_that_fails_leaves_nothing() {
    let deed = |world: &World| Deed::Backup(Box::new(world.taking(Wish::Incremental)));
    if let Some(broken) = breaking("a backup", Lying::Whole, &CHAIN[..1], |_| {}, deed) {
        broken.disturb();
        broken.fill(4096);
    }
}

#[test]
fn a_backup_in_parts_that_fails_leaves_nothing() {
    let deed = |world: &World| {
        let mut taking = world.taking(Wish::Incremental);
        taking.compression = Compression::None;
        Deed::Backup(Box::new(taking))
    };
    if let Some(broken) = breaking("a backup in parts", Lying::InParts, &[], |_| {}, deed) {
        broken.everywhere("EIO", 5, false, false);
        broken.fill(32 << 10);
    }
}

#[test]
fn a_prune_that_fails_loses_nothing() {
    let protect = |world: &mut World| world.protect(3, true);
    if let Some(broken) = breaking("a prune", Lying::Whole, &CHAIN, protect, |_| {
        Deed::Prune(last(1))
    }) {
        broken.disturb();
    }
}

#[test]
fn a_copy_that_fails_loses_nothing() {
    let request = CopyRequest {
        recompress: Some(Compression::None),
        ..CopyRequest::default()
    };
    let deed = |_: &World| Deed::Rewrite(vec![2], request.clone());
    if let Some(broken) = breaking("a copy in place", Lying::Whole, &CHAIN[..1], |_| {}, deed) {
        broken.disturb();
        broken.fill(4096);
    }
}

#[test]
fn a_protection_that_fails_is_not_there() {
    if let Some(broken) = breaking(
        "a protection",
        Lying::Whole,
        &CHAIN[..1],
        |_| {},
        |_| Deed::Protect(2),
    ) {
        broken.disturb();
        broken.fill(16);
    }
}
