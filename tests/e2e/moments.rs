//! The moments at which runs are killed: all over a run, however fast this machine is meanwhile.

use crate::kit::bytes::Stream;
use crate::kit::run::{Outcome, Strata};
use std::time::{Duration, Instant};

/// More rounds than asked for, where too many runs ended before they were killed: at most this many times
/// as many.
const PATIENCE: u64 = 5;

/// Rounds in each of which a run is killed.
pub(crate) struct Moments {
    stream: Stream,
    /// How long a whole run takes, as far as is known.
    whole: Duration,
    wanted: u64,
    /// The round that is under way, from 1 on.
    round: u64,
    /// When the last run was killed, or would have been.
    after: Duration,
}

impl Moments {
    /// At least `rounds` of them in a run like `whole`, which is called three times to see how long it
    /// takes.
    pub(crate) fn of(seed: u64, rounds: u64, mut whole: impl FnMut() -> Duration) -> Moments {
        Moments {
            stream: Stream::new(seed),
            whole: (0..3).map(|_| whole()).min().unwrap(),
            wanted: rounds,
            round: 0,
            after: Duration::ZERO,
        }
    }

    /// Whether there is another round, after `hits` that came at the right time. Goes on beyond the rounds
    /// that were asked for until a third of that number was hit; that it never is fails the test.
    #[track_caller]
    pub(crate) fn go_on(&mut self, hits: u64) -> bool {
        let enough = hits * 3 > self.wanted;
        if self.round >= self.wanted && enough {
            println!("{hits} of {} kills came in time", self.round);
            return false;
        }
        let patient = self.round < self.wanted * PATIENCE;
        assert!(patient, "only {hits} of {} kills came in time", self.round);
        self.round += 1;
        true
    }

    /// Starts `run` and kills it at a moment within the time of a whole one, or shortly after it.
    pub(crate) fn kill(&mut self, run: &Strata) -> Outcome {
        let share = self.stream.below(1100) as f64 / 1000.0;
        self.after = self.whole.mul_f64(share);
        let start = Instant::now();
        let outcome = run.start().kill_after(self.after);
        if !was_killed(&outcome) {
            // Fewer other programs are at work now than when it was measured.
            self.whole = self.whole.min(start.elapsed());
        }
        outcome
    }

    /// What a whole run takes by now.
    pub(crate) fn takes(&mut self, whole: Duration) {
        self.whole = whole;
    }

    /// For messages: which round this is, and when its run was killed.
    pub(crate) fn when(&self) -> String {
        format!("round {}, killed after {:?}", self.round, self.after)
    }

    /// The round that is under way, from 0 on.
    pub(crate) fn round(&self) -> u64 {
        self.round - 1
    }
}

/// Whether SIGKILL ended it.
pub(crate) fn was_killed(outcome: &Outcome) -> bool {
    outcome.killed_by() == Some(9)
}

/// How long `run` takes.
pub(crate) fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}
