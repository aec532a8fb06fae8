//! Every operation is stopped before each of its calls to the store, and every other one is run meanwhile;
//! then the first goes on, or is dead.

use crate::deeds::{Deed, Done, Stores, Template, document};
use crate::kit::long;
use crate::paused::{At, Gate};
use diskstrata::base::{Error, ErrorKind, Result};
use diskstrata::store::LockMode;
use std::collections::BTreeSet;
use uuid::Uuid;

/// At how many calls of each pair the first one is stopped, and at how many it dies, unless at all.
const STOPS: u64 = 5;
const DEATHS: u64 = 3;

/// The lock under which an operation does its work.
fn mode(deed: Deed) -> Option<LockMode> {
    match deed {
        Deed::Backup | Deed::CopyInto => Some(LockMode::Adding),
        Deed::Prune | Deed::Merge | Deed::CopyInPlace | Deed::CopyRemoving | Deed::Keys => {
            Some(LockMode::Exclusive)
        }
        Deed::Protect | Deed::Verify | Deed::Show | Deed::Restore | Deed::CopyFrom => {
            Some(LockMode::Shared)
        }
        Deed::List => None,
    }
}

fn admits(held: LockMode, wanted: LockMode) -> bool {
    use LockMode::{Adding, Shared};
    matches!(
        (held, wanted),
        (Shared, Shared) | (Shared, Adding) | (Adding, Shared)
    )
}

/// `count` of the numbers from 1 to `last`, or all of them.
fn spread(last: u64, count: u64, offset: u64) -> BTreeSet<u64> {
    if long() || last <= count {
        return (1..=last).collect();
    }
    let step = last / count;
    // Behind the first call, which is often that for the lock.
    let spread = (0..count).map(|i| 1 + offset % step + i * step);
    spread.chain([2]).collect()
}

/// How a pair went.
struct Met<'t> {
    stores: Stores<'t>,
    pair: (Deed, Deed),
    when: String,
    /// Images that must be there.
    new: BTreeSet<Uuid>,
    protected: bool,
}

impl<'t> Met<'t> {
    fn new(template: &'t Template, pair: (Deed, Deed), when: String) -> Met<'t> {
        Met {
            stores: template.fresh(),
            pair,
            when,
            new: BTreeSet::new(),
            protected: false,
        }
    }

    /// What may come of a deed beside a refusal: that all is well, or, where the other one takes images away,
    /// that one is not there any more.
    fn ended(&mut self, deed: Deed, other: Deed, outcome: Result<Done>) {
        match outcome {
            Ok(done) => {
                assert!(done.damaged.is_empty(), "{}: {done:?}", self.when);
                self.new.extend(done.new);
                self.protected |= deed == Deed::Protect;
            }
            Err(e) => {
                let gone = matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Usage);
                let removes = !other.may_remove(other).is_empty();
                let protected = e.kind() == ErrorKind::Refused && other == Deed::Protect;
                assert!(
                    (gone && removes) || protected,
                    "{}: {deed:?}: {e}",
                    self.when
                );
            }
        }
    }

    /// Nothing is lost, nothing half-made is listed, and the next run of anything goes well.
    fn check(mut self) {
        self.is_all_there();
        // Whatever was left is settled by the next backup, which nobody keeps away.
        let last = self.stores.run(Deed::Backup, None);
        let done = last.unwrap_or_else(|e| panic!("{}: {e}", self.when));
        self.new.extend(done.new);
        self.is_all_there();
        let left = self.stores.store().clean_up().unwrap();
        assert!(left.is_empty(), "{}: {left:?}", self.when);
    }

    fn is_all_there(&self) {
        let there = self.stores.whole();
        let may_go = self.pair.0.may_remove(self.pair.1);
        for (place, id) in &self.stores.template.ids {
            let stays = !may_go.contains(place) || (self.protected && *place == 1);
            let moved = *place == 4 && !stays && !there.contains(id);
            if stays {
                assert!(there.contains(id), "{}: {place} is lost", self.when);
            }
            if moved {
                assert!(
                    self.stores.is_elsewhere(*id),
                    "{}: {place} is lost",
                    self.when
                );
            }
        }
        let lost: Vec<_> = self.new.difference(&there).collect();
        assert!(lost.is_empty(), "{}: {lost:?} are lost", self.when);
    }
}

/// How the second fares while the first is stopped before its `nth` call.
pub(crate) fn stopped(template: &Template, pair: (Deed, Deed), nth: u64) -> Fate {
    let when = format!(
        "{:?} stopped before call {nth}, {:?} meanwhile",
        pair.0, pair.1
    );
    let mut met = Met::new(template, pair, when.clone());
    let gate = Gate::new(At::Pause(nth));
    let (first, second, fate) = std::thread::scope(|scope| {
        let stores = &met.stores;
        let behind = gate.clone();
        let first = scope.spawn(move || {
            let outcome = stores.run(pair.0, Some(&behind));
            behind.end();
            outcome
        });
        let held = gate.stopped().unwrap_or_default();
        let second = stores.run(pair.1, None);
        gate.let_go();
        let first = first.join().unwrap();
        let fate = fate(&when, &held, pair, &second);
        (first, second, fate)
    });
    met.ended(pair.0, pair.1, first);
    if fate != Fate::Both {
        let again = met.stores.run(pair.1, None);
        met.ended(pair.1, pair.0, again);
    } else {
        met.ended(pair.1, pair.0, second);
    }
    met.check();
    fate
}

/// What becomes of the second of a pair, by docs/concurrency.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Both,
    AtFirst,
    Refused,
}

/// The second was refused when the locks `held` by the first do not admit it, and only then.
fn fate(when: &str, held: &[LockMode], pair: (Deed, Deed), second: &Result<Done>) -> Fate {
    let wanted = mode(pair.1);
    let admitted = |held: &LockMode| wanted.is_none_or(|wanted| admits(*held, wanted));
    let must = !held.iter().all(admitted);
    match second {
        Err(e) if e.kind() == ErrorKind::Locked => {
            assert!(must, "{when}: {e}");
            names_the_holder(when, pair.0, e);
            match mode(pair.0).is_some_and(|working| held.contains(&working)) {
                true => Fate::Refused,
                false => Fate::AtFirst,
            }
        }
        outcome => {
            assert!(!must, "{when}: it went on under {held:?}: {outcome:?}");
            Fate::Both
        }
    }
}

fn names_the_holder(when: &str, holder: Deed, e: &Error) {
    let said = e.to_string();
    let process = format!("process {}, {}", std::process::id(), holder.said());
    assert!(said.contains(&process), "{when}: {said}");
    assert!(e.next_step().is_some(), "{when}: {said}");
}

/// The first dies before its `nth` call, and the second comes behind it.
pub(crate) fn dead(template: &Template, pair: (Deed, Deed), nth: u64) {
    let when = format!("{:?} dead before call {nth}, then {:?}", pair.0, pair.1);
    let mut met = Met::new(template, pair, when);
    let gate = Gate::new(At::Death(nth));
    if let Ok(done) = met.stores.run(pair.0, Some(&gate)) {
        // What it could not do was not worth a failure.
        met.new.extend(done.new);
    }
    let second = met.stores.run(pair.1, None);
    met.ended(pair.1, pair.0, second);
    met.check();
}

/// All seconds for one first. Returns those that are refused at some moment.
fn meets_all(first: Deed) {
    let template = Template::new();
    let gate = Gate::new(At::Never);
    template.fresh().run(first, Some(&gate)).unwrap();
    let calls = gate.calls();
    let (mut stops, mut deaths) = (0, 0);
    for (offset, second) in (0u64..).zip(Deed::ALL) {
        let mut fate = Fate::Both;
        for nth in spread(calls, STOPS, offset * 7) {
            fate = fate.max(stopped(&template, (first, second), nth));
            stops += 1;
        }
        for nth in spread(calls, DEATHS, offset * 5) {
            dead(&template, (first, second), nth);
            deaths += 1;
        }
        let documented = documented(first, second);
        assert_eq!(
            documented, fate,
            "{first:?} and {second:?} in docs/concurrency.md"
        );
    }
    println!("{first:?}: {calls} calls, {stops} stops, {deaths} deaths");
}

/// What docs/concurrency.md says.
fn documented(first: Deed, second: Deed) -> Fate {
    let text = document("concurrency.md");
    let mut rows = text.lines().filter(|l| l.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|c| c.trim().trim_matches('*').to_owned())
            .collect()
    };
    let head = rows.find(|l| l.contains("at work")).map(cells).unwrap();
    let column = head.iter().position(|c| c == second.name());
    let column = column.unwrap_or_else(|| panic!("no column {}", second.name()));
    let row = rows.map(cells).find(|row| row[0] == first.name());
    match row.unwrap_or_else(|| panic!("no row {}", first.name()))[column].as_str() {
        "refused" => Fate::Refused,
        "at first" => Fate::AtFirst,
        "both" => Fate::Both,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backup_meets_all() {
    meets_all(Deed::Backup);
}

#[test]
fn a_prune_meets_all() {
    meets_all(Deed::Prune);
}

#[test]
fn a_merge_meets_all() {
    meets_all(Deed::Merge);
}

#[test]
fn a_protection_meets_all() {
    meets_all(Deed::Protect);
}

#[test]
fn a_verification_meets_all() {
    meets_all(Deed::Verify);
}

#[test]
fn a_list_meets_all() {
    meets_all(Deed::List);
}

#[test]
fn a_look_meets_all() {
    meets_all(Deed::Show);
}

#[test]
fn a_restore_meets_all() {
    meets_all(Deed::Restore);
}

#[test]
fn a_copy_from_a_store_meets_all() {
    meets_all(Deed::CopyFrom);
}

#[test]
fn a_copy_into_a_store_meets_all() {
    meets_all(Deed::CopyInto);
}

#[test]
fn a_copy_in_place_meets_all() {
    meets_all(Deed::CopyInPlace);
}

#[test]
fn a_copy_that_removes_the_old_meets_all() {
    meets_all(Deed::CopyRemoving);
}

#[test]
fn a_change_of_keys_meets_all() {
    meets_all(Deed::Keys);
}
