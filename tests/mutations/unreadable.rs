//! Disks some of whose sectors cannot be read.

use crate::fs_kit::capsules::Fixture;
use crate::fs_kit::watch;
use crate::kit::long;
use diskstrata::block::{BlockSource, Fault, FaultSource, Faults};
use diskstrata::fs::UsedReport;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const EIO: i32 = 5;
/// Reads that fail in turn in a short run: the first ones, and others spread evenly.
const FIRST: u64 = 60;
const SPREAD: u64 = 60;

/// Lets the reads of all fixtures of a decoder fail, one after another.
pub(crate) fn run(decoder: &str) {
    let _alone = crate::alone();
    let mut failures = Vec::new();
    for fixture in crate::fixtures(decoder) {
        let whole = watch::run(&fixture.capsule);
        let truth = whole.report.expect("no error");
        let step = if long() {
            1
        } else {
            whole.reads.div_ceil(SPREAD).max(1)
        };
        let disk: Arc<dyn BlockSource> = Arc::new(fixture.capsule.clone());
        let mut certain = 0;
        let reads = (1..=whole.reads).filter(|n| *n <= FIRST || n % step == 0);
        for (nth, lasting) in reads.flat_map(|n| [(n, false), (n, true)]) {
            let fault = Fault::nth_read(nth, EIO, lasting);
            if let Err(why) = judge_hit(&disk, fault) {
                failures.push(format!("{}: `files_hit`, read {nth}: {why}", fixture.name));
            }
            match judge(&fixture, &truth, &disk, fault) {
                Ok(taken) => certain += u64::from(!taken),
                Err(why) => failures.push(format!(
                    "{}: read {nth} of {} fails{}: {why}",
                    fixture.name,
                    whole.reads,
                    if lasting { ", and all later ones" } else { "" }
                )),
            }
        }
        println!(
            "{}: {} reads, {certain} certain maps although one failed",
            fixture.name, whole.reads
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What is hit is still told, within all limits.
fn judge_hit(disk: &Arc<dyn BlockSource>, fault: Fault) -> Result<(), String> {
    let source = FaultSource::new(Arc::clone(disk), Faults::new(vec![fault]));
    let ranges = watch::ranges(disk.len().0);
    let run = catch_unwind(AssertUnwindSafe(|| watch::run_hit(&source, &ranges)))
        .map_err(|_| "a panic; its message stands above".to_owned())?;
    run.check_hit(&ranges).map(|_| ())
}

/// Whether everything is taken when `fault` happens.
fn judge(
    fixture: &Fixture,
    truth: &UsedReport,
    disk: &Arc<dyn BlockSource>,
    fault: Fault,
) -> Result<bool, String> {
    let source = FaultSource::new(Arc::clone(disk), Faults::new(vec![fault]));
    let run = catch_unwind(AssertUnwindSafe(|| watch::run(&source)))
        .map_err(|_| "a panic; its message stands above".to_owned())?;
    let report = run.check()?;
    match watch::missing(truth, report, fixture.capsule.len().0) {
        Some(range) => Err(format!("bytes {range:?} are in use and left out")),
        None => Ok(report.certainty != diskstrata::fs::Certainty::Certain),
    }
}
