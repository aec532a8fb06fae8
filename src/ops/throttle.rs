//! What a run may take of the machine.

use super::Context;
use crate::base::{ByteLen, Cancel, Error, ErrorKind, Rates, Result, Throttle};
use crate::block::{BlockSource, BlockTarget, ThrottledSource, ThrottledTarget};
use crate::store::{Store, ThrottledStore};
use crate::sys;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Fewer bytes for buffers are not enough for any run.
const LEAST_MEMORY: u64 = 16 << 20;
/// More threads than any machine has cores for.
const MOST_THREADS: usize = 1024;
/// Slower than this nothing would ever end.
const LEAST_RATE: u64 = 1 << 10;

/// What a person allows a run; as much as there is where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Worker threads, 1 to 1024.
    pub threads: Option<usize>,
    /// Bytes for buffers, at least 16 MiB.
    pub memory: Option<u64>,
    /// Bytes a second that are read of disks and stores together, at least 1 KiB.
    pub read: Option<u64>,
    /// Bytes a second that are written to disks and stores together, at least 1 KiB.
    pub write: Option<u64>,
    /// Whether other programs come first, on the processor and on the disk.
    pub nice: bool,
}

impl Limits {
    pub(super) fn check(&self) -> Result<()> {
        let usage = |what: String, why: &str| {
            Err(Error::new(ErrorKind::Usage, "use", what).because(why.to_owned()))
        };
        if let Some(threads) = self.threads.filter(|n| !(1..=MOST_THREADS).contains(n)) {
            return usage(
                format!("{threads} threads"),
                "it is a number from 1 to 1024",
            );
        }
        if let Some(memory) = self.memory.filter(|bytes| *bytes < LEAST_MEMORY) {
            let memory = ByteLen(memory);
            return usage(format!("{memory} of memory"), "buffers need 16M at least");
        }
        for rate in [self.read, self.write].into_iter().flatten() {
            if rate < LEAST_RATE {
                let rate = format!("a limit of {} a second", ByteLen(rate));
                return usage(
                    rate,
                    "it is 1K at least: slower than that nothing would end",
                );
            }
        }
        Ok(())
    }

    pub(super) fn rates(&self, cancel: &Cancel) -> Rates {
        let rate = |bytes: u64| Arc::new(Rate::new(bytes, cancel)) as Arc<dyn Throttle>;
        Rates {
            reads: self.read.map(rate),
            writes: self.write.map(rate),
        }
    }
}

/// Lets other programs come first from now on.
///
/// # Errors
/// `Internal` when the kernel does not allow it.
pub(super) fn stand_back() -> Result<()> {
    sys::stand_back().map_err(|e| {
        Error::new(ErrorKind::Internal, "lower the priority of", "this process").caused_by(e)
    })
}

impl Context<'_> {
    /// `source`, read at the rate that is allowed.
    pub(super) fn paced_source(&self, source: Arc<dyn BlockSource>) -> Arc<dyn BlockSource> {
        match self.rates.reads {
            None => source,
            Some(_) => Arc::new(ThrottledSource::new(source, self.rates.clone())),
        }
    }

    /// `target`, written and read at the rates that are allowed.
    pub(super) fn paced_target(&self, target: Arc<dyn BlockTarget>) -> Arc<dyn BlockTarget> {
        match self.rates.is_unlimited() {
            true => target,
            false => Arc::new(ThrottledTarget::new(target, self.rates.clone())),
        }
    }

    /// `store`, written and read at the rates that are allowed.
    pub(super) fn paced_store(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match self.rates.is_unlimited() {
            true => store,
            false => Arc::new(ThrottledStore::new(store, self.rates.clone())),
        }
    }
}

/// How long nobody looks whether the run was stopped.
const NAP: Duration = Duration::from_millis(50);

/// Lets so many bytes a second pass, all who ask together.
pub(super) struct Rate {
    start: Instant,
    queue: Mutex<Queue>,
    cancel: Cancel,
}

impl Rate {
    /// `rate` bytes a second, at least one; `cancel` ends all waiting.
    pub(super) fn new(rate: u64, cancel: &Cancel) -> Rate {
        Rate {
            start: Instant::now(),
            queue: Mutex::new(Queue::new(rate)),
            cancel: cancel.clone(),
        }
    }
}

impl Throttle for Rate {
    fn pass(&self, bytes: u64) -> Result<()> {
        let now = self.start.elapsed();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = queue.join(now, bytes);
        drop(queue);
        loop {
            self.cancel.check()?;
            let left = turn.saturating_sub(self.start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

/// Who moves bytes comes behind all who came before.
#[derive(Debug)]
struct Queue {
    rate: u64,
    /// When all bytes so far will have passed.
    end: Duration,
}

/// Time in which nothing moved is given back up to here, so that a pause of the one side does not slow the other.
const CREDIT: Duration = Duration::from_millis(250);

impl Queue {
    fn new(rate: u64) -> Queue {
        Queue {
            rate: rate.max(1),
            end: Duration::ZERO,
        }
    }

    /// Takes a place for `bytes` at the time `now`; when its turn is.
    fn join(&mut self, now: Duration, bytes: u64) -> Duration {
        let turn = self.end.max(now.saturating_sub(CREDIT));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.end = turn.saturating_add(takes);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bytes_wait_for_those_before_them() {
        let mut queue = Queue::new(1000);
        assert_eq!(queue.join(ms(1000), 500), ms(750));
        assert_eq!(queue.join(ms(1000), 500), ms(1250));
        assert_eq!(queue.join(ms(1000), 1), ms(1750));
        // Who was late for a little while catches up, who was away does not.
        assert_eq!(queue.join(ms(2000), 1), ms(1751));
        assert_eq!(queue.join(ms(60_000), 1000), ms(59_750));
        assert_eq!(queue.join(ms(60_000), 1000), ms(60_750));
    }

    #[test]
    fn no_number_is_too_large() {
        let mut queue = Queue::new(0);
        queue.join(ms(0), u64::MAX);
        queue.join(ms(0), u64::MAX);
        assert_eq!(Queue::new(u64::MAX).join(ms(0), 1), ms(0));
    }

    #[test]
    fn limits_have_bounds() {
        let limits = Limits::default();
        limits.check().unwrap();
        assert!(limits.rates(&Cancel::new()).is_unlimited());
        let least = Limits {
            threads: Some(1),
            memory: Some(LEAST_MEMORY),
            read: Some(LEAST_RATE),
            write: Some(LEAST_RATE),
            nice: false,
        };
        least.check().unwrap();
        assert!(!least.rates(&Cancel::new()).is_unlimited());
        for bad in [
            Limits {
                threads: Some(0),
                ..limits
            },
            Limits {
                threads: Some(1025),
                ..limits
            },
            Limits {
                memory: Some(LEAST_MEMORY - 1),
                ..limits
            },
            Limits {
                read: Some(1023),
                ..limits
            },
            Limits {
                write: Some(0),
                ..limits
            },
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
        }
    }

    #[test]
    fn waiting_ends_when_the_run_is_stopped() {
        let cancel = Cancel::new();
        let rate = Rate::new(1, &cancel);
        rate.pass(1_000_000).unwrap();
        cancel.cancel();
        assert_eq!(rate.pass(1).unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
