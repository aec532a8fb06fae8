//! How hard to compress, so that neither the cores nor the store wait for the other.

use crate::image::Compression;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Levels of zstd, each 1.2 to 4 times as slow as the one before it (`docs/performance.md`, "Compression"). The first
/// is the usual one: nobody's images become larger than they were.
const LEVELS: [i32; 8] = [3, 5, 7, 9, 12, 15, 17, 19];

/// Chooses the level for the next window by what waits to be written: while the store is behind, more time is spent
/// on each; once workers are what is waited for, less.
#[derive(Debug)]
pub(super) struct Adapt {
    is_on: bool,
    bounds: Bounds,
    /// Windows that are encoded and not written yet.
    waiting: AtomicUsize,
    steps: Mutex<Steps>,
}

impl Adapt {
    /// For `threads` workers that may be `ahead` windows ahead of the store, all together.
    pub(super) fn new(compression: Compression, threads: usize, ahead: usize) -> Adapt {
        Adapt {
            is_on: compression == Compression::Auto,
            bounds: Bounds::new(threads.max(1), ahead),
            waiting: AtomicUsize::new(0),
            steps: Mutex::default(),
        }
    }

    /// The level for the next window; `None` while it is not for this to choose.
    pub(super) fn level(&self) -> Option<i32> {
        if !self.is_on {
            return None;
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        Some(steps.next(waiting, self.bounds))
    }

    /// A window is encoded.
    pub(super) fn made(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A window that was encoded is written.
    pub(super) fn written(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many waiting windows are many, and how many are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    many: usize,
    few: usize,
    /// So many windows at least are made at a level before a higher one is tried. Down it goes sooner: windows that
    /// take long must not use up what waits.
    patience: usize,
    haste: usize,
}

impl Bounds {
    fn new(threads: usize, ahead: usize) -> Bounds {
        let many = (ahead / 2).max(2);
        Bounds {
            many,
            few: many / 2,
            patience: 4 * threads,
            haste: threads,
        }
    }
}

/// Where on the ladder of levels, and for how many windows.
#[derive(Debug, Default)]
struct Steps {
    at: usize,
    made: usize,
}

impl Steps {
    fn next(&mut self, waiting: usize, bounds: Bounds) -> i32 {
        self.made += 1;
        let wanted = match waiting {
            n if n >= bounds.many => (self.at + 1).min(LEVELS.len() - 1),
            n if n <= bounds.few => self.at.saturating_sub(1),
            _ => self.at,
        };
        let patience = if wanted < self.at {
            bounds.haste
        } else {
            bounds.patience
        };
        if wanted != self.at && self.made > patience {
            (self.at, self.made) = (wanted, 0);
        }
        LEVELS[self.at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets workers, each of whose windows takes as long as its level's place on the ladder says, and a store that
    /// takes `store` for each, work `windows` windows; the levels of the last half.
    fn levels(store: f64, windows: usize) -> Vec<i32> {
        let (threads, ahead) = (2usize, 64usize);
        let bounds = Bounds::new(threads, ahead);
        let mut steps = Steps::default();
        let mut free_at = vec![0.0f64; threads];
        let (mut written, mut chosen) = (Vec::<f64>::new(), Vec::new());
        for n in 0..windows {
            let worker = usize::from(free_at[1] < free_at[0]);
            // A worker has to wait until there is room.
            let room = n.checked_sub(ahead).map_or(0.0, |first| written[first]);
            let now = free_at[worker].max(room);
            let waiting = written.iter().rev().take_while(|at| **at > now).count();
            let level = steps.next(waiting, bounds);
            let place = LEVELS.iter().position(|l| *l == level).unwrap();
            let made = now + 1.5f64.powi(i32::try_from(place).unwrap());
            free_at[worker] = made;
            let last = written.last().copied().unwrap_or(0.0);
            written.push(last.max(made) + store);
            chosen.push(level);
        }
        chosen.split_off(windows / 2)
    }

    #[test]
    fn a_fast_store_gets_the_usual_level() {
        assert!(levels(0.01, 2000).iter().all(|l| *l == 3));
    }

    #[test]
    fn the_slower_the_store_the_harder_is_compressed() {
        let mean = |store: f64| {
            let levels = levels(store, 4000);
            levels.iter().map(|l| f64::from(*l)).sum::<f64>() / 2000.0
        };
        let means = [0.01, 1.0, 2.0, 4.0, 100.0].map(mean);
        assert!(means.is_sorted(), "{means:?}");
        assert!(means[2] > 5.0 && means[4] > 18.9, "{means:?}");
    }

    #[test]
    fn a_level_is_given_time() {
        let bounds = Bounds::new(2, 64);
        let mut steps = Steps::default();
        let levels: Vec<i32> = (0..30).map(|_| steps.next(64, bounds)).collect();
        assert_eq!(levels[..8], [3; 8]);
        assert_eq!(levels[8..17], [5; 9]);
        assert_eq!(levels[29], 9);
    }

    #[test]
    fn it_is_off_unless_asked_for() {
        let adapt = Adapt::new(Compression::Zstd(7), 2, 64);
        assert_eq!(adapt.level(), None);
        let adapt = Adapt::new(Compression::Auto, 1, 1);
        assert_eq!(adapt.level(), Some(3));
        adapt.made();
        adapt.written();
    }
}
