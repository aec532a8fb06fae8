//! Another day: the command under test asks the C library what time it is, and libfaketime answers.

use crate::kit::run::{Outcome, Running, Strata};
use crate::kit::store::text;
use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::Value;

/// A day of a run, from 0.
pub(crate) type Day = u64;

/// The date of a day. The first one is a Friday before a turn of the year and a leap day.
pub(crate) fn date(day: Day) -> Date {
    let first = jiff::civil::date(2027, 11, 19);
    first.saturating_add(i64::try_from(day).unwrap().days())
}

/// Starts `command` on `day` at noon, in a time zone without surprises.
pub(crate) fn start_on(day: Day, command: Strata) -> Running {
    let noon = format!("@{} 12:00:00", date(day));
    let faked = ["faketime", "-m", "-f", noon.as_str()];
    command.env("TZ", "UTC").start_below(&faked)
}

/// Runs `command` as [`start_on`] does, to its end.
#[track_caller]
pub(crate) fn run_on(day: Day, command: Strata) -> Outcome {
    start_on(day, command).wait()
}

/// Fails unless `image` was made on `day`: a program that is linked statically is not fooled.
#[track_caller]
pub(crate) fn assert_made_on(day: Day, image: &Value) {
    let noon = format!("{}T12:0", date(day));
    assert!(
        text(image, "time").starts_with(&noon),
        "not made on {noon}: {image}"
    );
}
