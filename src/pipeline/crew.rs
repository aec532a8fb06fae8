//! Threads that wait for a medium, so that the workers need not.

use super::ordered::stopped;
use crate::base::Result;
use crossbeam_channel::{Sender, bounded};

/// How many reads are under way at once: a medium would be idle from the end of one to the beginning of the next.
const READERS: usize = 8;

/// Those who read; they begin when there is work for them.
pub(super) struct Crew<'a, T> {
    begin: Option<Box<dyn FnOnce() + 'a>>,
    work: Sender<T>,
}

impl<T> Crew<'_, T> {
    /// Has `work` done by one of them; waits while as much as may waits already.
    ///
    /// # Errors
    /// When all of them have panicked.
    pub(super) fn hand(&mut self, work: T) -> Result<()> {
        if let Some(begin) = self.begin.take() {
            begin();
        }
        self.work.send(work).map_err(|_| stopped())
    }
}

/// Runs `plan` with those who do `each` of what it hands to them, and waits for them. So much of it as `waiting` says may
/// wait for one of them; with 0, what is handed over is begun at once.
///
/// # Errors
/// What `plan` returns.
pub(super) fn with_crew<T: Send>(
    waiting: usize,
    each: impl Fn(T) + Sync,
    plan: impl FnOnce(&mut Crew<'_, T>) -> Result<()>,
) -> Result<()> {
    let (work, handed) = bounded(waiting);
    let each = &each;
    std::thread::scope(|scope| {
        let begin = move || {
            for _ in 0..READERS {
                let handed = handed.clone();
                scope.spawn(move || handed.into_iter().for_each(each));
            }
        };
        plan(&mut Crew {
            begin: Some(Box::new(begin)),
            work,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn all_work_is_done_before_it_ends_and_several_at_once() {
        let (done, at_once, most) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let order = Ordering::SeqCst;
        let each = |n: usize| {
            let now = at_once.fetch_add(1, order) + 1;
            most.fetch_max(now, order);
            // The first ones wait for each other.
            while n < READERS && most.load(order) < READERS {
                std::thread::yield_now();
            }
            at_once.fetch_sub(1, order);
            done.fetch_add(n, order);
        };
        with_crew(5, each, |crew| (0..100).try_for_each(|n| crew.hand(n))).unwrap();
        assert_eq!((done.into_inner(), most.into_inner()), (4950, READERS));
    }

    #[test]
    fn nobody_waits_for_those_who_panicked() {
        let mut handed = Ok(());
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            with_crew(
                0,
                |n: u32| assert!(n > 1000, "as it should"),
                |crew| {
                    handed = (0..100).try_for_each(|n| crew.hand(n));
                    Ok(())
                },
            )
        }));
        assert!(ran.is_err() && handed.is_err());
    }
}
