//! Which points of a history say a time that cannot be right. Pure.
//!
//! The order of points is their place in the history, so that a wrong clock shows: it says a time that is
//! still to come, goes back from one point to the next, or leaps. Retention keeps such points and does not
//! count them, because nobody knows in which period they belong.

/// A gap between two points that is longer than this, in seconds, is a leap when it is also longer than
/// [`LEAP_FACTOR`] times the longest one before it: a leap year, so that a yearly point never is.
const LEAP: u64 = 366 * 86_400;
/// A history that has had long gaps may have another.
const LEAP_FACTOR: u64 = 10;

/// Why the time of a point is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is still to come.
    Future,
    /// An older point, the one at this place, says a later time.
    Back(usize),
    /// It is much later than that of the point at this place, the last one that is believed.
    Leap(usize),
}

/// What is wrong with each of `times`, oldest point first, in seconds since 1970 UTC, when it is `now`.
///
/// What stands behind a leap is compared with what stands before it, too: nobody can tell from the times
/// alone whether the clock or the calendar went on.
pub fn doubts(times: &[i64], now: i64) -> Vec<Option<Doubt>> {
    // The last point that is believed, and the longest gap up to it.
    let (mut last, mut longest): (Option<(usize, i64)>, u64) = (None, 0);
    let mut judge = |(place, time): (usize, &i64)| {
        if *time > now {
            return Some(Doubt::Future);
        }
        if let Some((before, believed)) = last {
            if *time < believed {
                return Some(Doubt::Back(before));
            }
            let gap = time.abs_diff(believed);
            if gap > LEAP && gap > longest.saturating_mul(LEAP_FACTOR) {
                return Some(Doubt::Leap(before));
            }
            longest = longest.max(gap);
        }
        last = Some((place, *time));
        None
    };
    times.iter().enumerate().map(&mut judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const NOW: i64 = 1_800_000_000;

    /// Days before now, oldest first.
    fn days(days: &[i64]) -> Vec<Option<Doubt>> {
        let times: Vec<i64> = days.iter().map(|day| NOW - day * DAY).collect();
        doubts(&times, NOW)
    }

    #[test]
    fn a_right_clock_is_believed() {
        assert_eq!(days(&[3, 2, 1, 1, 0]), [None; 5]);
        assert_eq!(doubts(&[], NOW), []);
        // Once a year, and once after a long pause.
        assert_eq!(days(&[1100, 735, 369, 3, 0]), [None; 5]);
        assert_eq!(days(&[900, 700, 0]), [None; 3]);
    }

    #[test]
    fn a_time_to_come_is_not_and_what_follows_is() {
        let found = days(&[3, -3650, 2, 1, -1]);
        assert_eq!(
            found,
            [None, Some(Doubt::Future), None, None, Some(Doubt::Future)]
        );
        // By a clock that has fallen back, all times are still to come.
        assert_eq!(doubts(&[NOW - 1, NOW], NOW - 10), [Some(Doubt::Future); 2]);
    }

    #[test]
    fn a_clock_that_goes_back_is_not_believed_until_it_has_caught_up() {
        let found = days(&[9, 8, 20_000, 19_999, 7, 7]);
        let back = Some(Doubt::Back(1));
        assert_eq!(found, [None, None, back, back, None, None]);
    }

    #[test]
    fn a_leap_is_not_believed_nor_what_lies_behind_it() {
        let leap = Some(Doubt::Leap(2));
        assert_eq!(days(&[3652, 3651, 3650, 0]), [None, None, None, leap]);
        assert_eq!(
            days(&[3652, 3651, 3650, 2, 1]),
            [None, None, None, leap, leap]
        );
        // All that there is to compare with is one point.
        assert_eq!(days(&[3650, 0]), [None, Some(Doubt::Leap(0))]);
    }

    #[test]
    fn times_without_a_calendar_do_no_harm() {
        let found = doubts(&[i64::MIN, i64::MAX, 0, i64::MIN], i64::MAX);
        let back = Some(Doubt::Leap(0));
        assert_eq!(found, [None, back, back, None]);
    }
}
