//! Producer, workers, consumer in order: the machine under every pass over a disk.

use crate::base::{Error, ErrorKind, Result};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the producer hands out: work for any worker, or a result that needs none.
enum Item<J, O> {
    Job(u64, J),
    Ready(u64, O),
}

/// The producer's end.
pub(super) struct Emit<J, O> {
    next: u64,
    tickets: Receiver<()>,
    items: Sender<Item<J, O>>,
}

/// Someone downstream stopped; the producer just ends.
fn stopped() -> Error {
    Error::new(ErrorKind::Internal, "continue", "a stopped pipeline")
}

impl<J, O> Emit<J, O> {
    /// Hands out work; waits while too much is under way.
    ///
    /// # Errors
    /// When the consumer or a worker has stopped; their error is the one that is reported.
    pub(super) fn job(&mut self, job: J) -> Result<()> {
        let number = self.ticket()?;
        self.items
            .send(Item::Job(number, job))
            .map_err(|_| stopped())
    }

    /// Passes on a result that needs no work, in its place in the order.
    ///
    /// # Errors
    /// As [`Emit::job`].
    pub(super) fn ready(&mut self, output: O) -> Result<()> {
        let number = self.ticket()?;
        self.items
            .send(Item::Ready(number, output))
            .map_err(|_| stopped())
    }

    fn ticket(&mut self) -> Result<u64> {
        self.tickets.recv().map_err(|_| stopped())?;
        let number = self.next;
        self.next += 1;
        Ok(number)
    }
}

/// Runs `produce` on a thread of its own, `threads` workers made by `make_worker`, and `consume` on
/// this thread with every output in the order of production. At most `tickets` items are between
/// production and the end of consumption.
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
    let stop = AtomicBool::new(false);
    let (ticket_in, ticket_out) = bounded(tickets);
    for _ in 0..tickets {
        let _ = ticket_in.send(());
    }
    let (item_in, item_out) = unbounded();
    let (done_in, done_out) = unbounded();
    std::thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let mut emit = Emit {
                next: 0,
                tickets: ticket_out,
                items: item_in,
            };
            produce(&mut emit)
        });
        for _ in 0..threads.max(1) {
            let (items, done) = (item_out.clone(), done_in.clone());
            let (make_worker, stop) = (&make_worker, &stop);
            scope.spawn(move || work(&items, &done, make_worker, stop));
        }
        drop((item_out, done_in));
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
    items: &Receiver<Item<J, O>>,
    done: &Sender<(u64, Result<O>)>,
    make_worker: &impl Fn() -> Result<W>,
    stop: &AtomicBool,
) {
    let mut worker = make_worker();
    for item in items {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (number, output) = match (item, &mut worker) {
            (Item::Ready(number, output), _) => (number, Ok(output)),
            (Item::Job(number, job), Ok(worker)) => (number, worker(job)),
            (Item::Job(number, _), Err(_)) => (number, Err(worker_failed(&mut worker))),
        };
        if done.send((number, output)).is_err() {
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
    done: &Receiver<(u64, Result<O>)>,
    tickets: &Sender<()>,
    consume: &mut impl FnMut(O) -> Result<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0u64;
    for (number, output) in done {
        waiting.insert(number, output);
        while let Some(output) = waiting.remove(&next) {
            consume(output?)?;
            next += 1;
            // The producer may be gone already.
            let _ = tickets.try_send(());
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
