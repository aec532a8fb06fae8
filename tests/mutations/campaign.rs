//! Damage by the hundred.

use crate::fs_kit::capsules::Fixture;
use crate::fs_kit::damage::{self, Damage, Record};
use crate::fs_kit::watch::{self, Run};
use crate::kit::{bytes::Stream, long};
use diskstrata::block::{BlockSource, Capsule};
use diskstrata::fs::{Certainty, UsedReport};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Variants of ext4 made with `metadata_csum`, and unmounted: a journal whose rest is gone, from the end
/// of a transaction on, looks like one that ends there, and no checksum tells them apart.
const CHECKSUMMED_EXT: &[&str] = &["ext4", "ext4-bigalloc", "ext4-meta-bg"];
/// Damages of one decoder in a long campaign.
const LONG: u64 = 10_000;
/// A short campaign looks at this many kept bytes a capsule, within these numbers of damages.
const SHORT_BYTES: u64 = 2 << 30;
const SHORT: std::ops::RangeInclusive<u64> = 100..=1000;
/// No damaged disk takes nearly as long: one that does hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// So many failures are told; the rest would say the same.
const TOLD: usize = 5;

/// What became of the damaged capsules of one kind of certainty.
#[derive(Debug, Default)]
struct Counts {
    cases: u64,
    /// Everything is taken.
    unknown: u64,
    /// Certain, and nothing is left out that was in use.
    certain: u64,
    /// Certain, and something is left out that was in use.
    smaller: u64,
    most_reads: u64,
    most_bytes: u64,
    most_heap: u64,
}

/// Damages all fixtures of a decoder.
pub(crate) fn run(decoder: &str) {
    let _alone = crate::alone();
    let fixtures = crate::fixtures(decoder);
    let mut failures = Vec::new();
    for fixture in &fixtures {
        let cases = if long() {
            LONG.div_ceil(fixtures.len() as u64)
        } else {
            let kept: usize = fixture.capsule.pieces().iter().map(|p| p.1.len()).sum();
            (SHORT_BYTES / (kept as u64).max(1)).clamp(*SHORT.start(), *SHORT.end())
        };
        let counts = damage_one(fixture, cases, &mut failures);
        let checks = checksummed(&fixture.name);
        println!(
            "{}: {} damages: {} all taken, {} certain and complete, {} certain but smaller{}; \
             at most {} reads, {} KiB read, {} KiB of memory",
            fixture.name,
            counts.cases,
            counts.unknown,
            counts.certain,
            counts.smaller,
            if checks {
                ""
            } else {
                " (no checksum could tell)"
            },
            counts.most_reads,
            counts.most_bytes >> 10,
            counts.most_heap >> 10,
        );
    }
    let (count, told) = (failures.len(), failures.iter().take(TOLD));
    let told: Vec<&str> = told.map(String::as_str).collect();
    assert!(count == 0, "{count} failures:\n{}", told.join("\n"));
}

/// Whether checksums cover everything in this fixture that says which blocks are in use: all of
/// Btrfs, XFS but for version 4, ext4 with `metadata_csum`. F2FS has them for its checkpoints only.
fn checksummed(name: &str) -> bool {
    match name.split_once('-') {
        Some(("btrfs", _)) => true,
        Some(("xfs", variant)) => !variant.starts_with("v4"),
        Some(("ext", variant)) => CHECKSUMMED_EXT.contains(&variant),
        _ => false,
    }
}

fn damage_one(fixture: &Fixture, cases: u64, failures: &mut Vec<String>) -> Counts {
    let truth = watch::run(&fixture.capsule).report.expect("no error");
    let watchdog = watchdog();
    let mut counts = Counts::default();
    for case in 0..cases {
        watchdog
            .send(format!("{} damage {case}", fixture.name))
            .unwrap();
        let (disk, what) = damage::damaged(&fixture.capsule, &records(&fixture.name, case));
        counts.cases += 1;
        if let Err(why) = judge(fixture, &truth, &disk, &mut counts) {
            let kept = keep(&disk, &format!("{}-{case}", fixture.name));
            let kept = kept.display();
            failures.push(format!(
                "{} damage {case}: {why}\n    {what:x?}\n    {kept}",
                fixture.name
            ));
        }
    }
    counts
}

/// Is told of every case before it; ends the process when the next one does not come, and says which
/// it was. Ends with its sender.
fn watchdog() -> Sender<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut current = String::new();
        loop {
            match receiver.recv_timeout(LIMIT) {
                Ok(case) => current = case,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("HANGS: {current}: no end after {LIMIT:?}");
                    std::process::abort();
                }
            }
        }
    });
    sender
}

/// Looks at one damaged disk and counts what came out.
fn judge(
    fixture: &Fixture,
    truth: &UsedReport,
    disk: &Capsule,
    counts: &mut Counts,
) -> Result<(), String> {
    let run: Run = catch_unwind(AssertUnwindSafe(|| watch::run(disk)))
        .map_err(|_| "a panic; its message stands above".to_owned())?;
    counts.most_reads = counts.most_reads.max(run.reads);
    counts.most_bytes = counts.most_bytes.max(run.bytes);
    counts.most_heap = counts.most_heap.max(run.heap);
    let report = run.check()?;
    let ranges = watch::ranges(disk.len().0);
    let hit = catch_unwind(AssertUnwindSafe(|| watch::run_hit(disk, &ranges)))
        .map_err(|_| "a panic of `files_hit`; its message stands above".to_owned())?;
    counts.most_reads = counts.most_reads.max(hit.reads);
    counts.most_bytes = counts.most_bytes.max(hit.bytes);
    counts.most_heap = counts.most_heap.max(hit.heap);
    hit.check_hit(&ranges)
        .map_err(|why| format!("`files_hit`: {why}"))?;
    if report.certainty != Certainty::Certain {
        counts.unknown += 1;
        return Ok(());
    }
    let len = disk.len().0.min(fixture.capsule.len().0);
    match watch::missing(truth, report, len) {
        None => counts.certain += 1,
        Some(range) => {
            counts.smaller += 1;
            if checksummed(&fixture.name) {
                return Err(format!(
                    "a certain map ({}) without bytes {range:?}, which are in use",
                    report.kind
                ));
            }
        }
    }
    Ok(())
}

/// The damage with the number `case`: mostly one, sometimes several at once.
pub(crate) fn records(name: &str, case: u64) -> Vec<Record> {
    let hash = blake3::hash(format!("{name} {case}").as_bytes());
    let mut stream = Stream::new(u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()));
    let count = match stream.below(10) {
        0..=6 => 1,
        7 | 8 => 2,
        _ => 3 + stream.below(4),
    };
    let record = |_| {
        let mut record = Record::default();
        stream.fill(&mut record);
        record
    };
    (0..count).map(record).collect()
}

/// Keeps a damaged capsule for whoever mends what it shows.
pub(crate) fn keep(disk: &Capsule, name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutations");
    let path = folder.join(format!("{name}.capsule"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(&path, disk.encode().unwrap()).unwrap();
    path
}

/// A campaign that cannot damage, or cannot see what is missing, would prove nothing.
mod tests {
    use super::*;
    use diskstrata::base::{BlockMap, ByteLen, ByteOffset, Extent};
    use diskstrata::block::MemorySource;

    fn capsule() -> Capsule {
        let source = MemorySource::new("m", (0..=255).cycle().take(100_000).collect());
        let extent = |start, len| Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        };
        Capsule::record(&source, vec![extent(1024, 20_000), extent(65_536, 4096)]).unwrap()
    }

    #[test]
    fn every_kind_of_damage_changes_the_disk() {
        let whole = capsule();
        let mut seen = std::collections::BTreeMap::<String, u64>::new();
        for case in 0..2000 {
            let (disk, all) = damage::damaged(&whole, &records("self", case));
            assert!(!all.is_empty());
            if disk != whole {
                for damage in &all {
                    let name = format!("{damage:?}");
                    let name = name.split([' ', '(']).next().unwrap().to_owned();
                    *seen.entry(name).or_default() += 1;
                }
            }
        }
        let kinds = [
            "Bit", "Bytes", "Copy", "Cut", "Fill", "Length", "Number", "Swap",
        ];
        assert_eq!(seen.keys().collect::<Vec<_>>(), kinds);
        assert!(seen.values().all(|count| *count > 20), "{seen:?}");
    }

    #[test]
    fn damage_is_what_it_says() {
        let disk = |record: Record| damage::damaged(&capsule(), &[record]);
        let mut number = Record::default();
        // A 32-bit number in big endian at the 5th kept byte becomes one more.
        (number[0], number[2], number[3], number[4]) = (5, 2, 2 | 4 << 2, 5);
        let (changed, what) = disk(number);
        let expected = Damage::Number {
            at: 5,
            width: 4,
            big_endian: true,
            value: damage::Value::OneMore,
        };
        assert_eq!(what, [expected]);
        assert_eq!(changed.pieces()[0].1[..9], [0, 1, 2, 3, 4, 5, 6, 8, 8]);
        let mut length = Record::default();
        (length[0], length[2]) = (15, 7);
        assert_eq!(disk(length).1, [Damage::Length(1 << 60)]);
        assert_eq!(disk(length).0.len().0, 1 << 60);
    }

    #[test]
    fn what_is_missing_is_seen_in_any_unit() {
        let report = |unit: u64, runs: &[std::ops::Range<u64>], len: u64| {
            let mut report = UsedReport::unknown("x", ByteLen(len), "y");
            report.unit = ByteLen(unit);
            report.used = BlockMap::empty(len.div_ceil(unit));
            for run in runs {
                report.used.insert_range(run.clone());
            }
            report
        };
        let truth = report(512, &[1..2, 16..24, 31..32], 16_384);
        let missing = |unit, runs: &[std::ops::Range<u64>]| {
            watch::missing(&truth, &report(unit, runs, 16_384), 16_384)
        };
        assert_eq!(missing(512, &[1..2, 16..24, 31..32]), None);
        assert_eq!(missing(4096, &[0..1, 2..4]), None);
        let from_the_second = vec![1..16; 1];
        assert_eq!(missing(1024, &from_the_second), Some(512..1024));
        assert_eq!(missing(4096, &[0..1, 3..4]), Some(8192..12_288));
        assert_eq!(missing(512, &[1..2, 16..24]), Some(15_872..16_384));
        assert_eq!(missing(512, &[]), Some(512..1024));
    }
}
