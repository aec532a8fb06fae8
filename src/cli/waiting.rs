//! Says what is waited for when a disk or a share does not answer, and does not let it keep anybody who wants
//! to stop.

use super::progress::Progress;
use crate::base::{Cancel, ErrorKind};
use crate::ops::{self, PendingCall};
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(250);
/// As much as a first thread has.
const STACK: usize = 8 << 20;
/// A call that takes longer is named.
const NOTICE: Duration = Duration::from_secs(5);
/// So long after a signal a call that was under way may still return.
const GRACE: Duration = Duration::from_millis(1500);

/// A call that takes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) call: PendingCall,
    pub(super) since: Duration,
}

/// Which calls were there at the last look, and since when.
#[derive(Default)]
struct Looks {
    first_seen: BTreeMap<u64, Instant>,
    stopping: Option<Instant>,
}

impl Looks {
    /// The call that takes longest.
    fn look(&mut self, calls: Vec<PendingCall>, now: Instant) -> Option<Waiting> {
        let there = |number: &u64| calls.iter().any(|c| c.number == *number);
        self.first_seen.retain(|number, _| there(number));
        for call in &calls {
            self.first_seen.entry(call.number).or_insert(now);
        }
        // Numbers grow: the first is the oldest.
        let call = calls.into_iter().next()?;
        let first = self.first_seen.get(&call.number)?;
        Some(Waiting {
            since: now.saturating_duration_since(*first),
            call,
        })
    }

    /// Whether a run that was told to stop is held by that call.
    fn is_held(&mut self, waiting: Option<&Waiting>, stopping: bool, now: Instant) -> bool {
        if !stopping {
            return false;
        }
        let since = *self.stopping.get_or_insert(now);
        let told = now.saturating_duration_since(since);
        told >= GRACE && waiting.is_some_and(|w| w.since >= GRACE)
    }
}

/// Does `work` in a thread of its own and looks after it. This thread calls nothing that may hang: the kernel
/// hands a signal to a process's first thread, and one that hangs never takes it.
pub(super) fn attend<T: Send>(
    progress: &Progress,
    cancel: &Cancel,
    work: impl FnOnce() -> T + Send,
) -> T {
    let (send, done) = channel();
    let work = move || {
        // This thread waits for it as long as it lives.
        let _ = send.send(work());
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let working = match thread.spawn_scoped(scope, work) {
            Ok(working) => working,
            Err(e) => {
                progress.say(&format!("no thread can be started: {e}"));
                std::process::exit(i32::from(ErrorKind::Internal.exit_code()));
            }
        };
        let mut looks = Looks::default();
        loop {
            match done.recv_timeout(LOOK) {
                Ok(outcome) => {
                    // Of a call that was named, the end is told too.
                    progress.wait_for(None);
                    return outcome;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // It panicked.
                Err(RecvTimeoutError::Disconnected) => match working.join() {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => std::process::exit(i32::from(ErrorKind::Internal.exit_code())),
                },
            }
            let now = Instant::now();
            let waiting = looks.look(ops::pending_calls(), now);
            progress.wait_for(waiting.as_ref().filter(|w| w.since >= NOTICE));
            if looks.is_held(waiting.as_ref(), cancel.is_cancelled(), now) {
                leave(progress, waiting.as_ref(), cancel);
            }
        }
    })
}

/// Ends the process: what it waits for may never come. Locks die with it, and what is unfinished in a store is
/// not taken for an image by anybody.
fn leave(progress: &Progress, waiting: Option<&Waiting>, cancel: &Cancel) -> ! {
    progress.finish();
    let held = waiting.map_or_else(String::new, |w| {
        format!("{} {} does not return; ", w.call.what, w.call.subject)
    });
    progress.say(&format!(
        "{held}stopped all the same. What is unfinished in a store is removed by the next run there"
    ));
    let code = cancel.check().err().map_or(1, |e| e.kind().exit_code());
    std::process::exit(i32::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64) -> PendingCall {
        PendingCall {
            number,
            what: "reading",
            subject: format!("disk {number}"),
        }
    }

    #[test]
    fn the_oldest_call_counts_from_the_look_that_saw_it_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut looks = Looks::default();
        let mut look = |calls, seconds| {
            looks
                .look(calls, at(seconds))
                .map(|w| (w.call.number, w.since.as_secs()))
        };
        assert_eq!(look(vec![], 0), None);
        assert_eq!(look(vec![call(3)], 1), Some((3, 0)));
        assert_eq!(look(vec![call(3), call(5)], 4), Some((3, 3)));
        assert_eq!(look(vec![call(5), call(6)], 6), Some((5, 2)));
        assert_eq!(look(vec![], 7), None);
    }

    #[test]
    fn only_a_run_that_is_to_stop_and_is_held_is_ended() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let waiting = |millis| Waiting {
            call: call(1),
            since: Duration::from_millis(millis),
        };
        let mut looks = Looks::default();
        assert!(
            !looks.is_held(Some(&waiting(90_000)), false, at(0)),
            "nobody wants to stop"
        );
        assert!(
            !looks.is_held(Some(&waiting(90_000)), true, at(0)),
            "it may still return"
        );
        assert!(
            !looks.is_held(Some(&waiting(100)), true, at(2000)),
            "others do"
        );
        assert!(!looks.is_held(None, true, at(2000)));
        assert!(looks.is_held(Some(&waiting(92_000)), true, at(2000)));
    }
}
