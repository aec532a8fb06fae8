//! Damaged disks again, beside what another reader makes of the same disk: nothing that it calls used may be missing
//! from a certain map.
//!
//! Without checksums a bit that was cleared makes a free block, for everybody. What counts there is that both read the
//! same. Those of Btrfs are put right behind the damage; ext and XFS are looked at in kinds that have none.

mod readers;

use crate::campaign::{keep, records};
use crate::fs_kit::damage;
use crate::fs_kit::watch;
use crate::kit::{long, scratch};
use diskstrata::base::{ByteLen, Cancel};
use diskstrata::block::{BlockSource, Capsule};
use diskstrata::fs::{Certainty, UsedReport};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Another reader of a file system.
pub(crate) struct Reference {
    /// Disks to damage, with their names.
    pub(crate) disks: Vec<(String, Capsule)>,
    /// Puts the checksums of a damaged one of them right.
    pub(crate) mend: fn(&Capsule, &mut Capsule),
    /// What it calls used; `None` when it cannot tell.
    pub(crate) used: fn(&Path) -> Option<Used>,
}

/// What a reader calls used.
pub(crate) enum Used {
    /// These bytes, ascending.
    Ranges(Vec<Range<u64>>),
    /// So many bytes.
    Bytes(u64),
}

impl Used {
    /// What of it `found` has not, of a disk of `len` bytes.
    fn missing_in(self, found: &UsedReport, len: u64) -> Option<String> {
        match self {
            Used::Ranges(ranges) => {
                let missing = watch::missing_of(ranges.into_iter(), found, len)?;
                Some(format!("bytes {missing:?} are in use"))
            }
            Used::Bytes(bytes) => {
                let found = found.used_bytes(ByteLen(len)).0;
                let missing = bytes.checked_sub(found).filter(|missing| *missing > 0);
                missing.map(|missing| format!("{missing} bytes more are in use"))
            }
        }
    }
}

/// Damages of one decoder, in a short and in a long campaign.
const CASES: [u64; 2] = [300, 10_000];
/// Longer disks are not made into files.
const LONGEST: u64 = 64 << 30;

/// Damages the disks of `decoder` and compares.
pub(crate) fn run(decoder: &str) {
    let dir = scratch();
    let reference = readers::of(decoder, dir.path());
    let cases = CASES[usize::from(long())].div_ceil(reference.disks.len() as u64);
    let mut failures = Vec::new();
    let (mut all_taken, mut silent, mut compared) = (0, 0, 0);
    for (name, whole) in &reference.disks {
        let path = dir.path().join("disk.img");
        write(whole, &path);
        assert!((reference.used)(&path).is_some(), "{name}, undamaged");
        for case in 0..cases {
            let (mut disk, what) = damage::damaged(whole, &records(name, case));
            (reference.mend)(whole, &mut disk);
            let len = disk.len().0;
            let report = diskstrata::fs::used(&disk, &Cancel::new()).unwrap();
            if report.certainty != Certainty::Certain || len > LONGEST {
                all_taken += 1;
                continue;
            }
            write(&disk, &path);
            let Some(used) = (reference.used)(&path) else {
                silent += 1;
                continue;
            };
            compared += 1;
            if let Some(missing) = used.missing_in(&report, len) {
                let kept = keep(&disk, &format!("reference-{name}-{case}"));
                failures.push(format!(
                    "{name} damage {case}: {missing}\n    {what:x?}\n    {}",
                    kept.display()
                ));
            }
        }
    }
    println!(
        "{decoder}: {compared} compared, {all_taken} all taken, {silent} that the other cannot read"
    );
    let told: Vec<&str> = failures.iter().take(5).map(String::as_str).collect();
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        told.join("\n")
    );
    // A campaign in which there is nothing to compare proves nothing.
    assert!(
        compared >= CASES[usize::from(long())] / 10,
        "{compared} compared"
    );
}

/// Makes the file `path` the disk.
fn write(disk: &Capsule, path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(disk.len().0).unwrap();
    for (at, bytes) in disk.pieces() {
        file.write_all_at(bytes, *at).unwrap();
    }
}
