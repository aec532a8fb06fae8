//! Producer, workers, consumer in order: the machine under every pass over a disk.

use crate::base::{Error, ErrorKind, Result};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An item's place in the order, and the tickets that it has.
#[derive(Clone, Copy)]
struct Place {
    number: u64,
    tickets: usize,
}

/// A result that the consumer waits for. Dropped unsent it ends the run with an error: whoever has panicked must not leave
/// the others waiting.
struct Due<O> {
    place: Place,
    /// None when it was sent.
    done: Option<Sender<(Place, Result<O>)>>,
}

impl<O> Due<O> {
    /// Whether the consumer still takes results.
    fn send(&mut self, output: Result<O>) -> bool {
        let done = self.done.take();
        done.is_some_and(|done| done.send((self.place, output)).is_ok())
    }
}

impl<O> Drop for Due<O> {
    fn drop(&mut self) {
        self.send(Err(stopped()));
    }
}

/// Work for any worker.
type Work<J, O> = (Due<O>, J);

/// The producer's end.
pub(super) struct Emit<J, O> {
    next: u64,
    tickets: Receiver<()>,
    /// Tickets that there are.
    most: usize,
    jobs: Sender<Work<J, O>>,
    done: Sender<(Place, Result<O>)>,
    /// Set when nothing more is wanted.
    stop: Arc<AtomicBool>,
}

/// A place in the order whose work, or result, is made ready elsewhere. Dropped unfilled it ends the run with an error.
pub(super) struct Slot<J, O> {
    due: Due<O>,
    jobs: Sender<Work<J, O>>,
    stop: Arc<AtomicBool>,
}

// Where the run has ended, nobody wants to know what a slot is filled with.
impl<J, O> Slot<J, O> {
    /// Whether the run has not ended.
    pub(super) fn is_wanted(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Hands out the work.
    pub(super) fn job(self, job: J) {
        let _ = self.jobs.send((self.due, job));
    }

    /// Passes on a result that needs no work, or why there is none.
    pub(super) fn ready(mut self, output: Result<O>) {
        self.due.send(output);
    }
}

/// Someone downstream stopped; the producer just ends.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Internal, "continue", "a stopped pipeline")
}

impl<J, O> Emit<J, O> {
    /// Hands out work; waits while too much is under way.
    ///
    /// # Errors
    /// When the consumer or a worker has stopped; their error is the one that is reported.
    pub(super) fn job(&mut self, job: J) -> Result<()> {
        self.job_of(1, job)
    }

    /// Hands out work that counts as much as `tickets` others, or as all that there may be.
    ///
    /// # Errors
    /// As [`Emit::job`].
    pub(super) fn job_of(&mut self, tickets: usize, job: J) -> Result<()> {
        let due = self.due(tickets)?;
        self.jobs.send((due, job)).map_err(|_| stopped())
    }

    /// Passes on a result that needs no work, in its place in the order.
    ///
    /// # Errors
    /// As [`Emit::job`].
    pub(super) fn ready(&mut self, output: O) -> Result<()> {
        let is_taken = self.due(1)?.send(Ok(output));
        is_taken.then_some(()).ok_or_else(stopped)
    }

    /// The next place in the order, to be filled by whoever makes its work or result ready; waits while too much is under
    /// way.
    ///
    /// # Errors
    /// As [`Emit::job`].
    pub(super) fn slot(&mut self) -> Result<Slot<J, O>> {
        Ok(Slot {
            due: self.due(1)?,
            jobs: self.jobs.clone(),
            stop: Arc::clone(&self.stop),
        })
    }

    fn due(&mut self, tickets: usize) -> Result<Due<O>> {
        let place = Place {
            number: self.next,
            tickets: tickets.clamp(1, self.most),
        };
        // Nobody else takes any, so that those which are missing come back with what is under way.
        for _ in 0..place.tickets {
            self.tickets.recv().map_err(|_| stopped())?;
        }
        self.next += 1;
        Ok(Due {
            place,
            done: Some(self.done.clone()),
        })
    }
}

/// Runs `produce` on a thread of its own, `threads` workers made by `make_worker`, and `consume` on
/// this thread with every output in the order of production. Items that are between production and the
/// end of consumption have at most `tickets` together.
///
/// # Errors
/// The first error in the order of production, whoever had it.
pub(super) fn run<J, O, W>(
    threads: usize,
    tickets: usize,
    produce: impl FnOnce(&mut Emit<J, O>) -> Result<()> + Send,
    make_worker: impl Fn() -> Result<W> + Sync,
    mut consume: impl FnMut(O) -> Result<()>,
) -> Result<()>
where
    J: Send,
    O: Send,
    W: FnMut(J) -> Result<O>,
{
    let stop = Arc::new(AtomicBool::new(false));
    let tickets = tickets.max(1);
    let (ticket_in, ticket_out) = bounded(tickets);
    for _ in 0..tickets {
        let _ = ticket_in.send(());
    }
    let (jobs_in, jobs_out) = unbounded();
    let (done_in, done_out) = unbounded();
    std::thread::scope(|scope| {
        let told = Arc::clone(&stop);
        let producer = scope.spawn(move || {
            let mut emit = Emit {
                next: 0,
                tickets: ticket_out,
                most: tickets,
                jobs: jobs_in,
                done: done_in,
                stop: told,
            };
            produce(&mut emit)
        });
        for _ in 0..threads.max(1) {
            let jobs = jobs_out.clone();
            let (make_worker, stop) = (&make_worker, &stop);
            scope.spawn(move || work(&jobs, make_worker, stop));
        }
        drop(jobs_out);
        let consumed = consume_in_order(&done_out, &ticket_in, &mut consume);
        // Whatever happened, nobody may wait for this thread any more.
        stop.store(true, Ordering::Relaxed);
        drop((ticket_in, done_out));
        let produced = producer.join().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "read", "the source").because("a thread panicked"))
        });
        consumed?;
        produced
    })
}

fn work<J, O, W: FnMut(J) -> Result<O>>(
    jobs: &Receiver<Work<J, O>>,
    make_worker: &impl Fn() -> Result<W>,
    stop: &AtomicBool,
) {
    let mut worker = make_worker();
    for (mut due, job) in jobs {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let output = match &mut worker {
            Ok(worker) => worker(job),
            Err(_) => Err(worker_failed(&mut worker)),
        };
        if !due.send(output) {
            return;
        }
    }
}

/// Takes the error out of a worker that could not be made; later jobs get a plain one.
fn worker_failed<W>(worker: &mut Result<W>) -> Error {
    std::mem::replace(worker, Err(stopped()))
        .err()
        .unwrap_or_else(stopped)
}

fn consume_in_order<O>(
    done: &Receiver<(Place, Result<O>)>,
    tickets: &Sender<()>,
    consume: &mut impl FnMut(O) -> Result<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0u64;
    for (place, output) in done {
        waiting.insert(place.number, (place.tickets, output));
        while let Some((count, output)) = waiting.remove(&next) {
            consume(output?)?;
            next += 1;
            for _ in 0..count {
                // The producer may be gone already.
                let _ = tickets.try_send(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_all() {
        let mut seen = Vec::new();
        run(
            3,
            4,
            |emit| {
                (0..1000u64).try_for_each(|i| {
                    if i % 5 == 0 {
                        emit.ready(i * 2)
                    } else {
                        emit.job(i)
                    }
                })
            },
            || Ok(|i: u64| Ok(i * 2)),
            |o| {
                seen.push(o);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(seen, (0..1000).map(|i| i * 2).collect::<Vec<u64>>());
    }

    #[test]
    fn what_is_under_way_has_no_more_tickets_than_there_are() {
        let under_way = std::sync::Mutex::new((0usize, 0usize));
        let weight = |i: u64| [1, 3, 8, 100][(i % 4) as usize];
        let add = |by: usize| {
            let mut now = under_way.lock().unwrap();
            now.0 += by;
            now.1 = now.1.max(now.0);
        };
        run(
            2,
            8,
            |emit| {
                (0..400u64).try_for_each(|i| {
                    emit.job_of(weight(i), i)?;
                    add(weight(i).min(8));
                    Ok(())
                })
            },
            || Ok(|i: u64| Ok(i)),
            |i| {
                // What was taken is counted a moment after it was handed out.
                while under_way.lock().unwrap().0 < weight(i).min(8) {
                    std::thread::yield_now();
                }
                under_way.lock().unwrap().0 -= weight(i).min(8);
                Ok(())
            },
        )
        .unwrap();
        let (left, most) = *under_way.lock().unwrap();
        assert_eq!((left, most), (0, 8));
    }

    #[test]
    fn any_failure_ends_the_run() {
        let bad = || Error::new(ErrorKind::Source, "read", "x");
        let fail = |at_produce: u64, at_work: u64, at_consume: u64| {
            let mut count = 0;
            let result = run(
                2,
                4,
                |emit| {
                    (0..100u64).try_for_each(|i| {
                        if i == at_produce {
                            Err(bad())
                        } else {
                            emit.job(i)
                        }
                    })
                },
                || Ok(|i: u64| if i == at_work { Err(bad()) } else { Ok(i) }),
                |o| {
                    count += 1;
                    if o == at_consume { Err(bad()) } else { Ok(()) }
                },
            );
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Source);
            count
        };
        assert_eq!(
            fail(50, 999, 999),
            50,
            "what came before the failure is consumed"
        );
        assert_eq!(fail(999, 20, 999), 20);
        assert_eq!(fail(999, 999, 7), 8);
    }

    #[test]
    fn places_are_filled_by_others_in_any_order() {
        let fill = |broken: Option<u64>, dropped: Option<u64>| {
            let mut seen = Vec::new();
            let result = run(
                2,
                8,
                |emit| {
                    std::thread::scope(|scope| {
                        let (slots, handed) = bounded(0);
                        for _ in 0..3 {
                            let handed = handed.clone();
                            scope.spawn(move || {
                                for (n, slot) in handed {
                                    let slot: Slot<u64, u64> = slot;
                                    if n % 7 == 0 {
                                        std::thread::yield_now();
                                    }
                                    let bad = || Error::new(ErrorKind::Source, "read", "x");
                                    match (broken == Some(n), dropped == Some(n)) {
                                        (true, _) => slot.ready(Err(bad())),
                                        (false, true) => drop(slot),
                                        (false, false) if n % 2 == 0 => slot.ready(Ok(n)),
                                        (false, false) => slot.job(n),
                                    }
                                }
                            });
                        }
                        drop(handed);
                        (0..300u64).try_for_each(|n| match n % 3 {
                            0 => emit.ready(n),
                            _ => slots.send((n, emit.slot()?)).map_err(|_| stopped()),
                        })
                    })
                },
                || Ok(|n: u64| Ok(n)),
                |n| {
                    seen.push(n);
                    Ok(())
                },
            );
            (result, seen)
        };
        let (result, seen) = fill(None, None);
        result.unwrap();
        assert_eq!(seen, (0..300).collect::<Vec<_>>());
        let (result, seen) = fill(Some(200), None);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Source);
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        let (result, seen) = fill(None, Some(100));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_place_is_not_wanted_any_more_when_the_run_has_ended() {
        let mut wanted = (false, true);
        let result = run(
            1,
            4,
            |emit| {
                let (first, second) = (emit.slot()?, emit.slot()?);
                wanted.0 = second.is_wanted();
                first.ready(Err(Error::new(ErrorKind::Source, "read", "x")));
                // Half a minute, at most.
                for _ in 0..3000 {
                    wanted.1 = second.is_wanted();
                    if !wanted.1 {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Ok(())
            },
            || Ok(|n: u64| Ok(n)),
            |_: u64| Ok(()),
        );
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Source);
        assert_eq!(wanted, (true, false));
    }

    #[test]
    fn a_worker_that_panics_leaves_nobody_waiting() {
        for threads in [1, 2, 5] {
            let ran = std::panic::catch_unwind(|| {
                run(
                    threads,
                    4,
                    |emit| (0..100u64).try_for_each(|n| emit.job(n)),
                    || {
                        Ok(|n: u64| {
                            assert!(n != 20, "as it should");
                            Ok(n)
                        })
                    },
                    |_| Ok(()),
                )
            });
            assert!(ran.is_err());
        }
    }

    #[test]
    fn a_worker_that_cannot_start_is_an_error() {
        let result = run(
            2,
            2,
            |emit| (0..10u64).try_for_each(|i| emit.job(i)),
            || Err::<fn(u64) -> Result<u64>, _>(Error::new(ErrorKind::Internal, "start", "zstd")),
            |_| Ok(()),
        );
        assert!(result.is_err());
    }
}
