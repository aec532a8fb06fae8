//! Which points of one history are kept, and which go first when room is short.
//!
//! Promises: pure; the newest point and protected ones are never given up; deciding again over what
//! was kept keeps all of it. The order of points is their place in the history: a clock that was set
//! wrong can put a point into a wrong period, never before or behind another. A point whose time is known to
//! be wrong stays, and takes no other one's place.

use crate::base::{Error, ErrorKind, Result, to_usize};
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp, Zoned};
use std::collections::BTreeSet;
use std::fmt;

/// One point of a history, as far as retention looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When it was made, in seconds since 1970 UTC. Any value: one that no calendar has counts as
    /// the first or last second of the year -9999 or 9999.
    pub time: i64,
    /// Whether a person said that it stays.
    pub protected: bool,
    /// Whether its time cannot be right; see [`super::doubts`].
    pub doubtful: bool,
}

/// How many points each rule keeps. [`Policy::ALL`] is without end, zero is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest points.
    pub last: u32,
    /// The newest point of an hour.
    pub hourly: u32,
    /// The newest point of a day.
    pub daily: u32,
    /// The newest point of an ISO week, which begins on Monday.
    pub weekly: u32,
    /// The newest point of a month.
    pub monthly: u32,
    /// The newest point of a year.
    pub yearly: u32,
    /// Every point not older than this before the newest one, which is the last by place whose time is not
    /// doubtful: one whose clock ran ahead does not make the others look older.
    pub within: Option<Within>,
}

/// What becomes of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for these reasons; at least one, in the order of [`Reason`].
    Keep(Vec<Reason>),
    /// No rule keeps it.
    Remove,
}

/// Why a point is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its place counted from the newest point, which is 1.
    Last(usize),
    /// It is the newest point of this period.
    Period(Period),
    /// It is not older than that.
    Within(Within),
    /// A person said so.
    Protected,
    /// Its time cannot be right.
    Doubtful,
    /// It is the newest point of the history.
    Newest,
    /// The policy has no rule at all, which is taken for a policy that nobody has made yet.
    NoRule,
}

/// A stretch of the calendar in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// An hour. Where clocks are set back, an hour of one name comes twice, and its distance from
    /// UTC tells the two apart.
    Hour(Date, i8, Offset),
    /// A day.
    Day(Date),
    /// A week of an ISO year, which may begin or end some days beside the calendar's.
    Week(i16, i8),
    /// A month of a year.
    Month(i16, i8),
    /// A year.
    Year(i16),
}

/// A span of the calendar, such as `30d`, `12h` or `1y6m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// How many of each of [`UNITS`]; not all are zero.
    counts: [u32; UNITS.len()],
}

/// Years, months, weeks, days and hours, in the order in which a span names them.
const UNITS: [char; 5] = ['y', 'm', 'w', 'd', 'h'];

/// Says of each of `points`, oldest first, whether `policy` keeps it.
///
/// Each rule goes from the newest point to older ones and keeps the first it meets of every period
/// in `zone`, until it has kept as many as it may; a period that was met before never counts again.
/// One point may count for several rules, a doubtful one only as one of the newest. A rule with places left
/// does not keep the oldest point in addition. A policy without any rule keeps everything.
pub fn decide(points: &[Point], policy: &Policy, zone: &TimeZone) -> Vec<Verdict> {
    let mut rules = [
        Rule::new(policy.hourly, |at| {
            Period::Hour(at.date(), at.hour(), at.offset())
        }),
        Rule::new(policy.daily, |at| Period::Day(at.date())),
        Rule::new(policy.weekly, |at| {
            let week = at.date().iso_week_date();
            Period::Week(week.year(), week.week())
        }),
        Rule::new(policy.monthly, |at| Period::Month(at.year(), at.month())),
        Rule::new(policy.yearly, |at| Period::Year(at.year())),
    ];
    let within = policy.within.map(|span| (span, span.start(points, zone)));
    let mut verdicts = Vec::with_capacity(points.len());
    for (age, point) in points.iter().rev().enumerate() {
        let at = on_calendar(point.time).to_zoned(zone.clone());
        let mut reasons = Vec::new();
        if policy.last == Policy::ALL || age < to_usize(u64::from(policy.last)) {
            reasons.push(Reason::Last(age + 1));
        }
        if !point.doubtful {
            let periods = rules.iter_mut().filter_map(|rule| rule.meet(&at));
            reasons.extend(periods.map(Reason::Period));
            let inside = within.filter(|(_, start)| point.time >= *start);
            reasons.extend(inside.map(|(span, _)| Reason::Within(span)));
        }
        if point.protected {
            reasons.push(Reason::Protected);
        }
        if point.doubtful {
            reasons.push(Reason::Doubtful);
        }
        if age == 0 {
            reasons.push(Reason::Newest);
        }
        if policy.is_empty() {
            reasons.push(Reason::NoRule);
        }
        verdicts.push(if reasons.is_empty() {
            Verdict::Remove
        } else {
            Verdict::Keep(reasons)
        });
    }
    verdicts.reverse();
    verdicts
}

/// A calendar rule on its way from the newest point to the oldest.
struct Rule {
    /// How many more it may keep.
    left: u32,
    period: fn(&Zoned) -> Period,
    seen: BTreeSet<Period>,
}

impl Rule {
    fn new(left: u32, period: fn(&Zoned) -> Period) -> Rule {
        let seen = BTreeSet::new();
        Rule { left, period, seen }
    }

    /// The period of a point, when the rule keeps the point for it.
    fn meet(&mut self, at: &Zoned) -> Option<Period> {
        let period = (self.period)(at);
        if self.left == 0 || !self.seen.insert(period) {
            return None;
        }
        if self.left != Policy::ALL {
            self.left -= 1;
        }
        Some(period)
    }
}

/// `time`, or the end of the calendar that is nearest to it.
fn on_calendar(time: i64) -> Timestamp {
    let end = if time < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_second(time).unwrap_or(end)
}

impl Policy {
    /// As many as there are.
    pub const ALL: u32 = u32::MAX;

    /// Whether there is no rule. To be refused by whoever is about to remove something.
    pub fn is_empty(&self) -> bool {
        *self == Policy::default()
    }

    /// The rules, such as `last 3, daily 7, yearly all, within 30d`.
    pub fn words(&self) -> String {
        let counts = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ];
        let rules = counts.iter().filter(|(_, count)| *count > 0);
        let rules = rules.map(|(rule, count)| match *count {
            Policy::ALL => format!("{rule} all"),
            count => format!("{rule} {count}"),
        });
        let within = self.within.map(|span| format!("within {span}"));
        let words: Vec<String> = rules.chain(within).collect();
        if words.is_empty() {
            return "no rule".to_owned();
        }
        words.join(", ")
    }
}

impl Verdict {
    /// Whether the point stays.
    pub fn keeps(&self) -> bool {
        matches!(self, Verdict::Keep(_))
    }
}

impl Reason {
    /// The reason as a table shows it: `last 3`, `daily 2026-11-24`, `weekly 2026-W47`, `newest`.
    pub fn words(&self) -> String {
        match self {
            Reason::Last(place) => format!("last {place}"),
            Reason::Period(period) => format!("{} {period}", period.rule()),
            Reason::Within(span) => format!("within {span}"),
            Reason::Protected => "protected".to_owned(),
            Reason::Doubtful => "doubtful time".to_owned(),
            Reason::Newest => "newest".to_owned(),
            Reason::NoRule => "no rule".to_owned(),
        }
    }
}

impl Period {
    /// The word for a rule that counts such periods.
    pub fn rule(&self) -> &'static str {
        match self {
            Period::Hour(..) => "hourly",
            Period::Day(_) => "daily",
            Period::Week(..) => "weekly",
            Period::Month(..) => "monthly",
            Period::Year(_) => "yearly",
        }
    }
}

/// ISO 8601: `2026-11-24T09+01`, `2026-11-24`, `2026-W47`, `2026-11`, `2026`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Period::Hour(day, hour, offset) => write!(f, "{day}T{hour:02}{offset}"),
            Period::Day(day) => write!(f, "{day}"),
            Period::Week(year, week) => write!(f, "{year:04}-W{week:02}"),
            Period::Month(year, month) => write!(f, "{year:04}-{month:02}"),
            Period::Year(year) => write!(f, "{year:04}"),
        }
    }
}

impl Within {
    /// Reads numbers with a unit each: `y` years, `m` months, `w` weeks, `d` days, `h` hours, in
    /// this order and each at most once.
    ///
    /// # Errors
    /// `Usage`, also for a span of no length and for numbers of 2^32 and more.
    pub fn parse(text: &str) -> Result<Within> {
        let bad = |why: &str| {
            // Escaped and short: the text may be made to fool a terminal.
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorKind::Usage, "use the span", format!("{shown:?}"))
                .because(why)
                .hint("write it like 30d, 12h, 6w or 1y6m (years, months, weeks, days, hours)")
        };
        let mut counts = [0; UNITS.len()];
        let mut rest = text;
        for (unit, count) in UNITS.iter().zip(&mut counts) {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            if let Some(tail) = tail.strip_prefix(*unit) {
                let number = number.parse();
                *count = number.map_err(|_| bad("a number is missing or too large"))?;
                rest = tail;
            }
        }
        if !rest.is_empty() {
            return Err(bad(
                "it is not made of numbers with y, m, w, d or h behind, in this order",
            ));
        }
        if counts == [0; UNITS.len()] {
            return Err(bad("it has no length"));
        }
        Ok(Within { counts })
    }

    /// The first second that lies within the span before the newest of `points`, by the clocks of `zone`.
    fn start(self, points: &[Point], zone: &TimeZone) -> i64 {
        let believed = points.iter().rfind(|point| !point.doubtful);
        let newest = believed.map(|point| point.time);
        newest.map_or(i64::MIN, |time| self.before(time, zone))
    }

    /// The second that lies the span before `time`, by the clocks of `zone`. A span that leaves the
    /// calendar reaches back for ever, and so does one from a time that no calendar has.
    pub fn before(self, time: i64, zone: &TimeZone) -> i64 {
        let back = |time: Timestamp| time.to_zoned(zone.clone()).checked_sub(self.span()?);
        match Timestamp::from_second(time).map(back) {
            Ok(Ok(start)) => start.timestamp().as_second(),
            Ok(Err(_)) | Err(_) => i64::MIN,
        }
    }

    fn span(self) -> Result<Span, jiff::Error> {
        let [years, months, weeks, days, hours] = self.counts;
        Span::new()
            .try_years(years)?
            .try_months(months)?
            .try_weeks(weeks)?
            .try_days(days)?
            .try_hours(hours)
    }
}

/// As [`Within::parse`] reads it.
impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self
            .counts
            .iter()
            .zip(UNITS)
            .filter(|(count, _)| **count > 0);
        parts.try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
    }
}

/// One point of a history, as far as making room looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removable {
    /// How many bytes its removal gives back.
    pub frees: u64,
    /// Whether a person said that it stays.
    pub protected: bool,
}

/// What makes room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The points that go, by their place in what was given, oldest first.
    pub remove: Vec<usize>,
    /// How many bytes that gives back; `u64::MAX` when it is more.
    pub frees: u64,
    /// Whether that is as much as was wanted. If not, nothing more can go.
    pub enough: bool,
}

/// Chooses from `points`, oldest first, those that go so that at least `wanted` bytes get free: the
/// oldest, but none that is protected, not the newest, and none that frees nothing. At least
/// `least` points stay, whatever is wanted.
pub fn make_room(points: &[Removable], wanted: u64, least: usize) -> Room {
    let may_go = points.len().saturating_sub(least);
    let older = &points[..points.len().saturating_sub(1)];
    let mut room = Room {
        remove: Vec::new(),
        frees: 0,
        enough: wanted == 0,
    };
    for (place, point) in older.iter().enumerate() {
        if room.enough || room.remove.len() == may_go {
            break;
        }
        if point.protected || point.frees == 0 {
            continue;
        }
        room.remove.push(place);
        room.frees = room.frees.saturating_add(point.frees);
        room.enough = room.frees >= wanted;
    }
    room
}

#[cfg(test)]
mod tests;
