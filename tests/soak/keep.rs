//! Which days stay: the words of `prune --help` once more, over dates.

use crate::clock::{Day, date};
use jiff::civil::Date;
use std::collections::BTreeSet;

/// `--keep-daily`, `--keep-weekly`, `--keep-monthly`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) daily: usize,
    pub(crate) weekly: usize,
    pub(crate) monthly: usize,
}

impl Rules {
    pub(crate) fn arguments(self) -> Vec<String> {
        let rules = [
            ("--keep-daily", self.daily),
            ("--keep-weekly", self.weekly),
            ("--keep-monthly", self.monthly),
        ];
        let words = |(name, count): (&str, usize)| [name.to_owned(), count.to_string()];
        rules.into_iter().flat_map(words).collect()
    }

    /// What stays of the images of `days`.
    pub(crate) fn kept(self, days: &BTreeSet<Day>) -> BTreeSet<Day> {
        let mut kept = newest_of_each(days, self.daily, |d| (d.year(), d.month(), d.day()));
        kept.extend(newest_of_each(days, self.weekly, |d| {
            let week = d.iso_week_date();
            (week.year(), week.week(), 0)
        }));
        kept.extend(newest_of_each(days, self.monthly, |d| {
            (d.year(), d.month(), 0)
        }));
        kept.extend(days.last());
        kept
    }
}

/// The newest day of each of the `count` most recent periods that have one.
fn newest_of_each(
    days: &BTreeSet<Day>,
    count: usize,
    period: impl Fn(Date) -> (i16, i8, i8),
) -> BTreeSet<Day> {
    let (mut kept, mut last) = (BTreeSet::new(), None);
    for day in days.iter().rev() {
        let this = Some(period(date(*day)));
        if this != last && kept.len() < count {
            kept.insert(*day);
        }
        last = this;
    }
    kept
}

#[test]
fn the_newest_of_each_period_stays() {
    let rules = Rules {
        daily: 2,
        weekly: 2,
        monthly: 3,
    };
    // 2027-11-19 is a Friday: days 2 and 9 are Sundays, day 11 is the last of November.
    let all = (0..14).collect();
    assert_eq!(rules.kept(&all), BTreeSet::from([9, 11, 12, 13]));
    assert_eq!(rules.kept(&BTreeSet::from([0])), BTreeSet::from([0]));
}
