//! Which calls into the kernel have not returned: a disk that fails or a share that is gone holds a call for
//! minutes or for ever, and nobody but this list can say which.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static NEXT: AtomicU64 = AtomicU64::new(0);
static CALLS: Mutex<BTreeMap<u64, PendingCall>> = Mutex::new(BTreeMap::new());

/// A call that has not returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCall {
    /// Its number. No other call of this process has it.
    pub number: u64,
    /// What is done: "reading", "syncing".
    pub what: &'static str,
    /// To what.
    pub subject: String,
}

/// Takes the call off the list when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    number: u64,
}

fn calls() -> MutexGuard<'static, BTreeMap<u64, PendingCall>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a call on the list until what is returned is dropped.
pub fn pending(what: &'static str, subject: &str) -> Pending {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let call = PendingCall {
        number,
        what,
        subject: subject.to_owned(),
    };
    calls().insert(number, call);
    Pending { number }
}

impl Drop for Pending {
    fn drop(&mut self) {
        calls().remove(&self.number);
    }
}

/// The calls of all threads that have not returned, oldest first.
pub fn pending_calls() -> Vec<PendingCall> {
    calls().values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_listed_until_it_returns() {
        let mine = || {
            let all = pending_calls().into_iter();
            let mine = all.filter(|c| c.subject.starts_with("a test's"));
            mine.map(|c| (c.what, c.subject)).collect::<Vec<_>>()
        };
        let first = pending("reading", "a test's disk");
        let second = pending("syncing", "a test's file");
        let [a, b] = [("reading", "a test's disk"), ("syncing", "a test's file")];
        let text = |(what, subject): (&'static str, &str)| (what, subject.to_owned());
        assert_eq!(mine(), [text(a), text(b)]);
        assert!(first.number < second.number);
        drop(first);
        assert_eq!(mine(), [text(b)]);
        drop(second);
        assert_eq!(mine(), []);
    }
}
