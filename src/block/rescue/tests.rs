use super::*;
use crate::block::{Fault, FaultSource, Faults, MemorySource, contract};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const WINDOW: usize = 1 << 20;

fn bad(start: u64, len: u64) -> Extent {
    Extent {
        start: ByteOffset(start),
        len: ByteLen(len),
    }
}

/// A disk of `len` bytes that fails at `spots`, and counts its reads.
struct Disk {
    source: FaultSource,
    bytes: Vec<u8>,
    reads: AtomicU64,
}

impl Disk {
    fn new(len: usize, spots: &[Extent]) -> Disk {
        let faults = spots.iter().map(|e| Fault::read_in(*e, 5)).collect();
        Disk::failing(len, Faults::new(faults))
    }

    fn failing(len: usize, faults: Faults) -> Disk {
        let bytes = contract::pattern(len);
        let source = FaultSource::new(Arc::new(MemorySource::new("m", bytes.clone())), faults);
        Disk {
            source,
            bytes,
            reads: AtomicU64::new(0),
        }
    }

    /// Reads all of it window by window; every byte must be right or the pattern of a missing one.
    fn read_by(&self, effort: Effort<'_>) -> Missing {
        let rescue = Rescue::new(self, effort);
        let mut missing = Missing::default();
        let mut found = vec![0; self.bytes.len()];
        for (n, window) in found.chunks_mut(WINDOW).enumerate() {
            let at = ByteOffset(to_u64(n * WINDOW));
            missing.add(rescue.read(at, window).unwrap());
        }
        let missing = missing.normalized();
        let mut expected = self.bytes.clone();
        for extent in missing.all() {
            let at = to_usize(extent.start.0);
            fill_unreadable(&mut expected[at..at + to_usize(extent.len.0)], extent.start);
        }
        assert!(found == expected);
        missing
    }

    fn reads(&self) -> u64 {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

impl BlockSource for Disk {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn geometry(&self) -> crate::base::Geometry {
        self.source.geometry()
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.source.read_at(offset, buf)
    }
}

/// No more than `run` failing reads in a run of bad spots.
fn good_first(run: u32) -> Effort<'static> {
    Effort {
        run: Some(run),
        ..Effort::THOROUGH
    }
}

#[test]
fn only_the_bad_sectors_are_lost() {
    let spots = [bad(5 * 512, 512), bad(40 * 512, 3 * 512)];
    let disk = Disk::new(64 * 1024, &spots);
    let mut buf = vec![0; 32 * 1024];
    let rescue = Rescue::new(&disk, Effort::THOROUGH);
    let missing = rescue.read(ByteOffset(100), &mut buf).unwrap();
    assert_eq!(missing.bad, spots);
    assert_eq!(missing.untried, []);
    let mut expected = disk.bytes[100..100 + 32 * 1024].to_vec();
    for extent in spots {
        let at = to_usize(extent.start.0) - 100;
        fill_unreadable(&mut expected[at..at + to_usize(extent.len.0)], extent.start);
    }
    assert_eq!(buf, expected);
    assert!(buf.windows(16).any(|w| w == UNREADABLE_PATTERN));
}

#[test]
fn a_device_that_is_gone_ends_the_read() {
    use crate::sys::errno::ENODEV;
    let faults = Faults::new(vec![Fault::read_in(bad(0, 1 << 20), ENODEV)]);
    let disk = Disk::failing(9000, faults);
    let rescue = Rescue::new(&disk, Effort::THOROUGH);
    let error = rescue.read(ByteOffset(0), &mut [0; 9000]).unwrap_err();
    assert_eq!(error.os_error(), Some(ENODEV));
}

#[test]
fn a_disk_that_fails_everywhere_is_gone() {
    let faults = Faults::new(vec![Fault::nth_read(3, 5, true)]);
    let disk = Disk::failing(64 * WINDOW, faults);
    let rescue = Rescue::new(&disk, good_first(64));
    let mut window = vec![0; WINDOW];
    let mut read = |n: usize| rescue.read(ByteOffset(to_u64(n * WINDOW)), &mut window);
    assert!(read(0).is_ok() && read(1).is_ok());
    let error = (2..64).find_map(|n| read(n).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.to_string().contains("go on"), "{error}");
    assert!(disk.reads() < 200);
}

#[test]
fn scattered_bad_sectors_are_found_exactly_and_for_few_reads() {
    let spots: Vec<Extent> = (0..15).map(|n| bad(n * 999 * 512 + 512, 512)).collect();
    let disk = Disk::new(8 * WINDOW, &spots);
    let missing = disk.read_by(good_first(64));
    assert_eq!((missing.bad, missing.untried), (spots, vec![]));
    assert!(disk.reads() <= 8 + 15 * 24);
}

#[test]
fn a_bad_region_is_passed_over_and_the_good_behind_it_read() {
    let region = bad(3 * 512 + 2 * to_u64(WINDOW), 40 << 20);
    let disk = Disk::new(64 * WINDOW, &[region]);
    let missing = disk.read_by(good_first(64));
    // What is left is the region and not much behind it: a skip is as long as all before it.
    assert!(missing.all().iter().all(|e| e.start.0 >= region.start.0));
    let last = missing.all().last().unwrap().end().0;
    assert!(
        last >= region.end().0 && last <= region.end().0 + (32 << 20),
        "{last}"
    );
    assert!(missing.bytes() <= region.len.0 + (32 << 20));
    assert!(missing.bad.iter().map(|e| e.len.0).sum::<u64>() <= 128 * 512);
    let reads = disk.reads();
    assert!(reads < 64 + 200, "{reads}");
    // What was left for later is then read as closely as can be.
    let all = disk.read_by(Effort::THOROUGH);
    assert_eq!((all.bad, all.untried), (vec![region], vec![]));
}

#[test]
fn what_is_to_be_avoided_is_not_read() {
    let avoid = vec![bad(700, 1000), bad(to_u64(WINDOW) - 512, 1024)];
    let disk = Disk::new(3 * WINDOW, &avoid);
    let effort = Effort {
        avoid: avoid.clone(),
        ..Effort::THOROUGH
    };
    let missing = disk.read_by(effort);
    assert_eq!((missing.bad, missing.untried), (vec![], avoid));
}

#[test]
fn a_sector_that_heals_is_read_by_another_attempt() {
    // Each failing read of a larger part counts too: 12 until it is down to the sector.
    let faults = (1..=15).map(|n| Fault::nth_read(n, 5, false)).collect();
    let once = Disk::failing(WINDOW, Faults::new(faults));
    assert!(!once.read_by(Effort::THOROUGH).is_empty());
    let faults = (1..=15).map(|n| Fault::nth_read(n, 5, false)).collect();
    let often = Disk::failing(WINDOW, Faults::new(faults));
    let effort = Effort {
        attempts: 5,
        ..Effort::THOROUGH
    };
    assert!(often.read_by(effort).is_empty());
}

#[test]
fn slow_failures_are_not_pursued_for_ever() {
    let spots: Vec<Extent> = (0..60)
        .map(|n| bad(n * to_u64(WINDOW) + 77 * 512, 512))
        .collect();
    let disk = Disk::new(64 * WINDOW, &spots);
    // Each time the clock is asked, a second has passed.
    let seconds = AtomicU64::new(0);
    let clock = || Duration::from_secs(seconds.fetch_add(1, Ordering::Relaxed));
    let effort = Effort {
        run: Some(64),
        limit: Some((Duration::from_secs(60), &clock)),
        ..Effort::THOROUGH
    };
    let missing = disk.read_by(effort);
    assert!(!missing.bad.is_empty() && !missing.untried.is_empty());
    for spot in &spots {
        let covers = |e: &Extent| e.intersect(*spot) == Some(*spot);
        assert!(missing.all().iter().any(covers), "{spot:?}");
    }
    let reads = disk.reads();
    assert!(reads < 64 + 60 * 4, "{reads}");
}
