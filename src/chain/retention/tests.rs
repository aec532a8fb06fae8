use super::*;
use proptest::prelude::*;

/// Berlin's rules since 1996, so that the tests need no database of time zones.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
/// Lord Howe Island: half an hour of summer time, in the southern summer.
const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";

fn zone(rules: &str) -> TimeZone {
    TimeZone::posix(rules).unwrap()
}

fn point(time: &str) -> Point {
    let time: Timestamp = time.parse().unwrap();
    Point {
        time: time.as_second(),
        protected: false,
        doubtful: false,
    }
}

fn points(times: &[&str]) -> Vec<Point> {
    times.iter().map(|time| point(time)).collect()
}

/// The words for each point; empty for one that goes.
fn words(points: &[Point], policy: Policy, zone: &TimeZone) -> Vec<String> {
    let words = |verdict: Verdict| match verdict {
        Verdict::Keep(reasons) => {
            let words: Vec<String> = reasons.iter().map(Reason::words).collect();
            words.join(", ")
        }
        Verdict::Remove => String::new(),
    };
    decide(points, &policy, zone)
        .into_iter()
        .map(words)
        .collect()
}

#[test]
fn a_table_shows_every_reason() {
    let mut history = points(&[
        "2024-05-05T10:00:00Z",
        "2025-12-29T10:00:00Z",
        "2026-10-30T10:00:00Z",
        "2026-11-22T10:00:00Z",
        "2026-11-23T23:10:00Z",
        "2026-11-24T08:10:00Z",
        "2026-11-24T08:20:00Z",
    ]);
    history[0].protected = true;
    let policy = Policy {
        last: 2,
        hourly: 1,
        daily: 2,
        weekly: 2,
        monthly: 2,
        yearly: Policy::ALL,
        within: Some(Within::parse("1d").unwrap()),
    };
    assert_eq!(
        words(&history, policy, &zone(BERLIN)),
        [
            "yearly 2024, protected",
            "yearly 2025",
            "monthly 2026-10",
            "daily 2026-11-22, weekly 2026-W47",
            "within 1d",
            "last 2, within 1d",
            "last 1, hourly 2026-11-24T09+01, daily 2026-11-24, weekly 2026-W48, \
             monthly 2026-11, yearly 2026, within 1d, newest",
        ]
    );
    // In UTC, half past midnight in Berlin belongs to the day before.
    let utc = words(&history, policy, &TimeZone::UTC);
    assert_eq!(utc[4], "daily 2026-11-23, within 1d");
    assert_eq!(utc[3], "weekly 2026-W47");
}

#[test]
fn the_leap_day_is_a_day() {
    let history = points(&[
        "2027-02-27T12:00:00Z",
        "2027-02-28T12:00:00Z",
        "2028-02-28T12:00:00Z",
        "2028-02-29T00:00:00Z",
        "2028-02-29T12:00:00Z",
    ]);
    let daily = Policy {
        daily: 2,
        ..Policy::default()
    };
    assert_eq!(
        words(&history, daily, &TimeZone::UTC),
        ["", "", "daily 2028-02-28", "", "daily 2028-02-29, newest"]
    );
    let year = Policy {
        within: Some(Within::parse("1y").unwrap()),
        ..Policy::default()
    };
    let verdicts = decide(&history, &year, &TimeZone::UTC);
    let kept: Vec<bool> = verdicts.iter().map(Verdict::keeps).collect();
    assert_eq!(
        kept,
        [false, true, true, true, true],
        "a year before 29 February is 28 February"
    );
}

#[test]
fn an_hour_left_out_and_an_hour_twice_are_hours() {
    let hourly = Policy {
        hourly: Policy::ALL,
        ..Policy::default()
    };
    let spring = points(&[
        "2026-03-29T00:10:00Z",
        "2026-03-29T00:50:00Z",
        "2026-03-29T01:10:00Z",
    ]);
    assert_eq!(
        words(&spring, hourly, &zone(BERLIN)),
        [
            "",
            "hourly 2026-03-29T01+01",
            "hourly 2026-03-29T03+02, newest"
        ]
    );
    let autumn = points(&[
        "2026-10-25T00:10:00Z",
        "2026-10-25T00:50:00Z",
        "2026-10-25T01:10:00Z",
        "2026-10-25T02:10:00Z",
    ]);
    assert_eq!(
        words(&autumn, hourly, &zone(BERLIN)),
        [
            "",
            "hourly 2026-10-25T02+02",
            "hourly 2026-10-25T02+01",
            "hourly 2026-10-25T03+01, newest"
        ]
    );
    // 01:45 +11 and, after clocks went back from 02:00 to 01:30, 01:45 +10:30.
    let island = points(&["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"]);
    assert_eq!(
        words(&island, hourly, &zone(LORD_HOWE)),
        [
            "hourly 2026-04-05T01+11",
            "hourly 2026-04-05T01+10:30, newest"
        ]
    );
}

#[test]
fn days_of_23_and_25_hours_are_one_day_each() {
    let policy = Policy {
        daily: Policy::ALL,
        ..Policy::default()
    };
    for (times, day) in [
        (["2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z"], 29),
        (["2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z"], 25),
    ] {
        let [first, last] = points(&times)[..] else {
            panic!("two points");
        };
        let before = Point {
            time: first.time - 1,
            ..first
        };
        let after = Point {
            time: last.time + 1,
            ..last
        };
        let words = words(&[before, first, last, after], policy, &zone(BERLIN));
        assert_eq!(words[1], "");
        assert!(words[0].ends_with(&format!("-{}", day - 1)), "{words:?}");
        assert!(words[2].ends_with(&format!("-{day}")), "{words:?}");
        assert!(
            words[3].contains(&format!("-{}, newest", day + 1)),
            "{words:?}"
        );
    }
}

#[test]
fn spans_follow_the_clocks_on_the_wall() {
    let berlin = zone(BERLIN);
    let utc = TimeZone::UTC;
    for (span, zone, latest, start) in [
        // Noon to noon is 23 hours in spring and 25 in autumn; 24 hours are 24 hours.
        (
            "1d",
            &berlin,
            "2026-03-29T10:00:00Z",
            "2026-03-28T11:00:00Z",
        ),
        (
            "24h",
            &berlin,
            "2026-03-29T10:00:00Z",
            "2026-03-28T10:00:00Z",
        ),
        (
            "1d",
            &berlin,
            "2026-10-25T11:00:00Z",
            "2026-10-24T10:00:00Z",
        ),
        // Half past two does not exist on that day.
        (
            "1d",
            &berlin,
            "2026-03-30T00:30:00Z",
            "2026-03-29T01:30:00Z",
        ),
        ("1m", &utc, "2026-03-31T10:00:00Z", "2026-02-28T10:00:00Z"),
        (
            "1y1m1w1d1h",
            &utc,
            "2026-03-31T10:00:00Z",
            "2025-02-20T09:00:00Z",
        ),
        ("2w", &utc, "2027-01-04T00:00:00Z", "2026-12-21T00:00:00Z"),
    ] {
        let policy = Policy {
            within: Some(Within::parse(span).unwrap()),
            ..Policy::default()
        };
        let start = point(start);
        let before = Point {
            time: start.time - 1,
            ..start
        };
        let verdicts = decide(&[before, start, point(latest)], &policy, zone);
        let kept: Vec<bool> = verdicts.iter().map(Verdict::keeps).collect();
        assert_eq!(kept, [false, true, true], "{span} before {latest}");
    }
}

#[test]
fn weeks_follow_iso_around_new_year() {
    let weekly = Policy {
        weekly: Policy::ALL,
        ..Policy::default()
    };
    let history = points(&[
        "2024-12-29T12:00:00Z",
        "2024-12-30T12:00:00Z",
        "2025-01-05T12:00:00Z",
        "2026-12-27T12:00:00Z",
        "2026-12-28T12:00:00Z",
        "2027-01-01T12:00:00Z",
        "2027-01-03T12:00:00Z",
        "2027-01-04T12:00:00Z",
    ]);
    assert_eq!(
        words(&history, weekly, &TimeZone::UTC),
        [
            "weekly 2024-W52",
            "",
            "weekly 2025-W01",
            "weekly 2026-W52",
            "",
            "",
            "weekly 2026-W53",
            "weekly 2027-W01, newest",
        ]
    );
}

#[test]
fn of_equal_times_the_later_place_counts() {
    let same = point("2026-11-24T08:00:00Z");
    let policy = Policy {
        daily: 3,
        ..Policy::default()
    };
    assert_eq!(
        words(&[same; 3], policy, &TimeZone::UTC),
        ["", "", "daily 2026-11-24, newest"]
    );
    let within = Policy {
        within: Some(Within::parse("1h").unwrap()),
        ..Policy::default()
    };
    assert_eq!(
        words(&[same; 2], within, &TimeZone::UTC),
        ["within 1h", "within 1h, newest"]
    );
}

#[test]
fn a_clock_that_goes_back_makes_no_period_count_twice() {
    let history = points(&[
        "2026-11-20T08:00:00Z",
        "2026-11-21T08:00:00Z",
        "2026-11-22T08:00:00Z",
        "2026-11-20T09:00:00Z",
        "2026-11-21T09:00:00Z",
    ]);
    let daily = |count| Policy {
        daily: count,
        ..Policy::default()
    };
    let kept = |count| words(&history, daily(count), &TimeZone::UTC);
    let expected = [
        "",
        "",
        "daily 2026-11-22",
        "daily 2026-11-20",
        "daily 2026-11-21, newest",
    ];
    assert_eq!(kept(3), expected);
    assert_eq!(kept(Policy::ALL), expected);
    assert_eq!(
        kept(2)[2],
        "",
        "recent by place, not by what the clock said"
    );
}

#[test]
fn a_doubtful_time_keeps_its_point_and_costs_no_other() {
    let mut history = points(&[
        "2026-11-20T10:00:00Z",
        "2026-11-21T10:00:00Z",
        "2026-11-22T10:00:00Z",
        "2036-11-23T10:00:00Z",
    ]);
    history[3].doubtful = true;
    let daily = Policy {
        daily: 2,
        ..Policy::default()
    };
    let kept = words(&history, daily, &TimeZone::UTC);
    assert_eq!(
        kept,
        [
            "",
            "daily 2026-11-21",
            "daily 2026-11-22",
            "doubtful time, newest"
        ]
    );
    let within = Policy {
        within: Some(Within::parse("1d").unwrap()),
        ..Policy::default()
    };
    let kept = words(&history, within, &TimeZone::UTC);
    assert_eq!(
        kept,
        ["", "within 1d", "within 1d", "doubtful time, newest"]
    );
    // Believed, it makes all others look old.
    history[3].doubtful = false;
    let kept = words(&history, within, &TimeZone::UTC);
    assert_eq!(kept, ["", "", "", "within 1d, newest"]);
}

#[test]
fn times_that_no_calendar_has_share_its_first_and_last_moment() {
    let far = |time| Point {
        time,
        protected: false,
        doubtful: false,
    };
    let mut history = vec![
        far(i64::MIN),
        far(i64::MIN + 1),
        far(i64::MAX - 1),
        far(i64::MAX),
        far(Timestamp::MIN.as_second()),
        far(Timestamp::MAX.as_second() + 1),
    ];
    history.extend(points(&["2026-11-23T08:00:00Z", "2026-11-24T08:00:00Z"]));
    let all = Policy {
        last: 0,
        hourly: Policy::ALL,
        daily: Policy::ALL,
        weekly: Policy::ALL,
        monthly: Policy::ALL,
        yearly: Policy::ALL,
        within: Some(Within::parse("2h").unwrap()),
    };
    for zone in [TimeZone::UTC, zone(BERLIN), zone(LORD_HOWE)] {
        let words = words(&history, all, &zone);
        assert_eq!(words[0], "");
        assert_eq!(words[1], "");
        assert_eq!(words[2], "within 2h", "later than all is not too old");
        assert_eq!(words[3], "within 2h");
        assert!(words[4].contains("yearly -"), "{words:?}");
        assert!(words[5].contains("yearly 9999, within 2h"), "{words:?}");
        assert!(
            !words[6].contains("within"),
            "far-out times move no measure"
        );
    }
    // Where no time can be measured by, none is too old.
    let verdicts = decide(&history[..4], &all, &TimeZone::UTC);
    assert!(verdicts.iter().all(Verdict::keeps));
}

#[test]
fn a_span_longer_than_the_calendar_keeps_all() {
    let history = points(&["-009999-01-03T00:00:00Z", "2026-11-24T08:00:00Z"]);
    for span in ["19000y", "4294967295y", "4294967295h"] {
        let within = Some(Within::parse(span).unwrap());
        let policy = Policy {
            within,
            ..Policy::default()
        };
        let verdicts = decide(&history, &policy, &TimeZone::UTC);
        assert!(verdicts.iter().all(Verdict::keeps), "{span}");
    }
}

#[test]
fn nothing_is_lost_to_a_policy_without_rules() {
    let policy = Policy::default();
    assert!(policy.is_empty());
    assert_eq!(policy.words(), "no rule");
    let history = points(&["2026-11-23T08:00:00Z", "2026-11-24T08:00:00Z"]);
    assert_eq!(
        words(&history, policy, &TimeZone::UTC),
        ["no rule", "newest, no rule"]
    );
    assert_eq!(decide(&[], &policy, &TimeZone::UTC), []);
}

#[test]
fn policies_say_what_they_are() {
    let policy = Policy {
        last: 3,
        daily: 7,
        yearly: Policy::ALL,
        within: Some(Within::parse("30d").unwrap()),
        ..Policy::default()
    };
    assert!(!policy.is_empty());
    assert_eq!(policy.words(), "last 3, daily 7, yearly all, within 30d");
    let within = Policy {
        within: policy.within,
        ..Policy::default()
    };
    assert!(!within.is_empty());
}

#[test]
fn spans_are_read_or_refused_with_a_hint() {
    for text in ["2y5m7d3h", "30d", "12h", "6w", "1y1m1w1d1h", "4294967295h"] {
        assert_eq!(Within::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Within::parse("0y030d").unwrap().to_string(), "30d");
    let long = "1".repeat(1000);
    for text in [
        "",
        "0d",
        "0y0h",
        "30",
        "d",
        "30 d",
        " 30d",
        "-30d",
        "+30d",
        "3.5d",
        "30D",
        "30s",
        "1d1y",
        "1d1d",
        "1dd",
        "4294967296h",
        "٣d",
        "1d\u{202e}",
        &long,
    ] {
        let error = Within::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Usage, "{text:?}");
        assert!(error.next_step().is_some_and(|hint| hint.contains("30d")));
        assert!(error.to_string().len() < 300, "{text:?}");
        assert!(!error.to_string().chars().any(crate::base::is_unprintable));
    }
}

#[test]
fn the_database_of_time_zones_agrees() {
    // A machine without the database has nothing to compare with.
    let Ok(berlin) = TimeZone::get("Europe/Berlin") else {
        return;
    };
    let start = point("2026-01-01T00:00:00Z").time;
    let every_hour = (0..9000).map(|hour| Point {
        time: start + hour * 3600,
        protected: false,
        doubtful: false,
    });
    let history: Vec<Point> = every_hour.collect();
    let policy = Policy {
        last: 0,
        hourly: 5000,
        daily: Policy::ALL,
        weekly: Policy::ALL,
        monthly: Policy::ALL,
        yearly: Policy::ALL,
        within: Some(Within::parse("2m").unwrap()),
    };
    assert_eq!(
        decide(&history, &policy, &berlin),
        decide(&history, &policy, &zone(BERLIN))
    );
}

#[test]
fn a_clock_that_ran_ahead_once_makes_no_other_point_old() {
    let times = [
        "2026-11-22T08:00:00Z",
        "2099-01-01T00:00:00Z",
        "2026-11-23T08:00:00Z",
        "2026-11-24T08:00:00Z",
    ];
    let within = Policy {
        within: Some(Within::parse("30d").unwrap()),
        ..Policy::default()
    };
    let verdicts = decide(&points(&times), &within, &TimeZone::UTC);
    assert!(verdicts.iter().all(Verdict::keeps), "{verdicts:?}");
}

#[test]
fn room_is_made_from_the_oldest() {
    // What each point frees; those of the places in the third column are protected.
    type Case<'a> = (&'a [u64], &'a [usize], u64, usize, &'a [usize], u64, bool);
    let cases: [Case<'_>; 12] = [
        (&[], &[], 0, 0, &[], 0, true),
        (&[], &[], 1, 0, &[], 0, false),
        (&[9], &[], 9, 0, &[], 0, false),
        (&[5, 5, 5, 5], &[], 0, 0, &[], 0, true),
        (&[5, 5, 5, 5], &[], 1, 0, &[0], 5, true),
        (&[5, 5, 5, 5], &[], 6, 0, &[0, 1], 10, true),
        (&[5, 5, 5, 5], &[0], 6, 0, &[1, 2], 10, true),
        (&[5, 5, 5, 5], &[0], 11, 0, &[1, 2], 10, false),
        (&[5, 5, 5, 5], &[], 15, 2, &[0, 1], 10, false),
        (&[5, 5, 5, 5], &[], 15, 9, &[], 0, false),
        (&[5, 0, 5, 5], &[], 10, 2, &[0, 2], 10, true),
        (&[u64::MAX, 5, 5], &[], u64::MAX, 0, &[0], u64::MAX, true),
    ];
    for (frees, protected, wanted, least, remove, freed, enough) in cases {
        let points: Vec<Removable> = (0..)
            .zip(frees)
            .map(|(place, frees)| Removable {
                frees: *frees,
                protected: protected.contains(&place),
            })
            .collect();
        let room = make_room(&points, wanted, least);
        let expected = Room {
            remove: remove.to_vec(),
            frees: freed,
            enough,
        };
        assert_eq!(room, expected, "{frees:?} {protected:?} {wanted} {least}");
    }
    let huge = Removable {
        frees: u64::MAX,
        protected: false,
    };
    let room = make_room(&[Removable { frees: 1, ..huge }, huge, huge], u64::MAX, 0);
    assert_eq!((room.remove.len(), room.frees), (2, u64::MAX));
}

fn some_time() -> impl Strategy<Value = i64> {
    let start = 1_790_000_000i64;
    prop_oneof![
        4 => (0..2000i64).prop_map(move |steps| start + steps * 1799),
        4 => (0..4000i64).prop_map(move |days| start - days * 86_400),
        1 => any::<i64>(),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0)],
    ]
}

fn some_history() -> impl Strategy<Value = Vec<Point>> {
    let point = (some_time(), proptest::bool::weighted(0.1)).prop_map(|(time, protected)| Point {
        time,
        protected,
        doubtful: false,
    });
    proptest::collection::vec(point, 0..40)
}

fn some_count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 6 => 1..6u32, 1 => Just(Policy::ALL)]
}

fn some_policy() -> impl Strategy<Value = Policy> {
    const SPANS: [&str; 6] = ["12h", "1d", "3w", "2m", "1y", "30000y"];
    let span = proptest::sample::select(&SPANS[..]).prop_map(|text| Within::parse(text).unwrap());
    let counts = proptest::array::uniform6(some_count());
    (counts, proptest::option::weighted(0.3, span)).prop_map(|(counts, within)| {
        let [last, hourly, daily, weekly, monthly, yearly] = counts;
        Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        }
    })
}

fn some_zone() -> impl Strategy<Value = TimeZone> {
    prop_oneof![
        Just(TimeZone::UTC),
        Just(zone(BERLIN)),
        Just(zone(LORD_HOWE))
    ]
}

fn kept(points: &[Point], policy: &Policy, zone: &TimeZone) -> Vec<usize> {
    let verdicts = decide(points, policy, zone);
    assert_eq!(verdicts.len(), points.len());
    let kept = (0..).zip(&verdicts).filter(|(_, verdict)| verdict.keeps());
    kept.map(|(place, _)| place).collect()
}

/// A policy of one rule, and the number of the period of a time in UTC.
type ModelRule = (fn(u32) -> Policy, fn(i64) -> i64);

/// Whether a rule that keeps one point for each of `count` periods keeps the point at `place`: no
/// later point is of its period, and later points are of fewer than `count` periods.
fn model_keeps(periods: &[i64], place: usize, count: u32) -> bool {
    let later: BTreeSet<i64> = periods[place + 1..].iter().copied().collect();
    !later.contains(&periods[place]) && crate::base::to_u64(later.len()) < u64::from(count)
}

proptest! {
    #[test]
    fn the_newest_and_the_protected_always_stay(
        history in some_history(), policy in some_policy(), zone in some_zone(),
    ) {
        let kept = kept(&history, &policy, &zone);
        for (place, point) in history.iter().enumerate() {
            if point.protected || place + 1 == history.len() {
                prop_assert!(kept.contains(&place));
            }
        }
    }

    #[test]
    fn each_rule_keeps_what_the_model_keeps(
        times in proptest::collection::vec(0..200_000_000i64, 1..40), count in some_count(),
    ) {
        let history: Vec<Point> = times.iter().map(|time| Point { time: *time, protected: false, doubtful: false }).collect();
        // 1 January 1970 was a Thursday.
        let rules: [ModelRule; 3] = [
            (|hourly| Policy { hourly, ..Policy::default() }, |time| time / 3600),
            (|daily| Policy { daily, ..Policy::default() }, |time| time / 86_400),
            (|weekly| Policy { weekly, ..Policy::default() }, |time| (time / 86_400 + 3) / 7),
        ];
        for (policy, period) in rules {
            let periods: Vec<i64> = times.iter().map(|time| period(*time)).collect();
            let by_model = |place: &usize| {
                count == 0 || place + 1 == times.len() || model_keeps(&periods, *place, count)
            };
            let expected: Vec<usize> = (0..times.len()).filter(by_model).collect();
            prop_assert_eq!(kept(&history, &policy(count), &TimeZone::UTC), expected);
        }
    }

    #[test]
    fn a_rule_that_keeps_more_keeps_the_same_and_more(
        history in some_history(), policy in some_policy(), zone in some_zone(),
        rule in 0..6usize, more in 1..4u32,
    ) {
        prop_assume!(!policy.is_empty());
        let mut larger = policy;
        let count = [
            &mut larger.last, &mut larger.hourly, &mut larger.daily, &mut larger.weekly,
            &mut larger.monthly, &mut larger.yearly,
        ].into_iter().nth(rule).unwrap();
        *count = count.saturating_add(more);
        let larger = kept(&history, &larger, &zone);
        for place in kept(&history, &policy, &zone) {
            prop_assert!(larger.contains(&place));
        }
    }

    #[test]
    fn deciding_again_over_what_was_kept_keeps_all_of_it(
        history in some_history(), policy in some_policy(), zone in some_zone(),
    ) {
        let left: Vec<Point> = kept(&history, &policy, &zone).iter().map(|place| history[*place]).collect();
        prop_assert_eq!(kept(&left, &policy, &zone).len(), left.len());
    }

    #[test]
    fn making_room_takes_what_it_may_and_no_more(
        points in proptest::collection::vec((0..50u64, any::<bool>()), 0..20),
        wanted in 0..300u64, least in 0..22usize,
    ) {
        let points: Vec<Removable> =
            points.into_iter().map(|(frees, protected)| Removable { frees, protected }).collect();
        let room = make_room(&points, wanted, least);
        let frees = |places: &[usize]| places.iter().map(|place| points[*place].frees).sum::<u64>();
        let may_go = |place: &usize| {
            !points[*place].protected && points[*place].frees > 0 && place + 1 < points.len()
        };
        prop_assert!(room.remove.iter().all(may_go));
        prop_assert!(room.remove.is_sorted());
        prop_assert_eq!(room.frees, frees(&room.remove));
        prop_assert_eq!(room.enough, room.frees >= wanted);
        let left = points.len() - room.remove.len();
        prop_assert!(room.remove.is_empty() || left >= least.max(1));
        let oldest: Vec<usize> = (0..points.len()).filter(may_go).take(room.remove.len()).collect();
        prop_assert_eq!(&room.remove, &oldest, "the oldest that may go");
        if let Some((_, others)) = room.remove.split_last() {
            prop_assert!(frees(others) < wanted, "the last one was needed");
        }
        if !room.enough {
            let all = (0..points.len()).filter(may_go).count();
            prop_assert!(room.remove.len() == all || left <= least.max(1));
        }
    }
}
