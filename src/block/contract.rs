//! The contracts of [`BlockSource`] and [`BlockTarget`] as checks that any implementation can run.
//!
//! Panics on a breach: it is a test.

use super::{BlockSource, BlockTarget, Mapping};
use crate::base::{ByteLen, ByteOffset, ErrorKind, Extent, Result, to_u64, to_usize};

/// `len` bytes that tell their own position, with a run of zeros in the middle.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..to_u64(len))
        .map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[5])
        .collect();
    bytes[len / 3..len / 2].fill(0);
    bytes
}

/// Offsets and lengths around every edge that matters: sectors, pages, the end.
fn ranges(len: u64) -> Vec<(u64, usize)> {
    let starts = [
        0,
        1,
        511,
        512,
        513,
        4095,
        4096,
        len / 3,
        len / 2,
        len.saturating_sub(513),
        len - 1,
    ];
    let counts = [0usize, 1, 511, 512, 513, 4096, 8191];
    let mut out: Vec<_> = starts
        .iter()
        .flat_map(|&start| counts.map(|count| (start, count)))
        .filter(|(start, count)| start + to_u64(*count) <= len)
        .collect();
    out.push((0, to_usize(len)));
    out
}

/// Checks that `source` holds exactly `expected` and keeps the contract.
pub(crate) fn check_source(source: &dyn BlockSource, expected: &[u8]) {
    let len = source.len().0;
    assert_eq!(len, to_u64(expected.len()), "length");
    assert!(!source.name().is_empty(), "a source has a name");
    for (start, count) in ranges(len) {
        let mut buf = vec![0xEE; count];
        source
            .read_at(ByteOffset(start), &mut buf)
            .expect("reads inside succeed");
        let at = to_usize(start);
        assert_eq!(buf, expected[at..at + count], "{count} bytes at {start}");
    }
    for (start, count) in ranges(len) {
        let (at, mut seen) = (to_usize(start), Vec::new());
        let extent = Extent {
            start: ByteOffset(start),
            len: ByteLen(to_u64(count)),
        };
        if source.look_at_cached(extent, &mut |bytes| seen = bytes.to_vec()) {
            assert_eq!(seen, expected[at..at + count], "{extent} in memory");
        }
    }
    let outside = Extent {
        start: ByteOffset(len - 1),
        len: ByteLen(2),
    };
    assert!(!source.look_at_cached(outside, &mut |_| {}), "past the end");
    for (start, count) in [(len, 1), (len - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 5)] {
        let error = source
            .read_at(ByteOffset(start), &mut vec![0; count])
            .expect_err("past the end");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    check_mapping(&|at| source.mapping(at), expected);
    check_threads(source, expected);
}

/// Mappings cover the source without gaps and never call data zero.
fn check_mapping(mapping: &dyn Fn(ByteOffset) -> Result<Mapping>, expected: &[u8]) {
    let mut at = 0;
    while at < to_u64(expected.len()) {
        let (len, zero) = match mapping(ByteOffset(at)).expect("mapping inside succeeds") {
            Mapping::Data(len) => (len.0, false),
            Mapping::Zero(len) => (len.0, true),
        };
        assert!(len > 0, "a mapping is never empty");
        let range = to_usize(at)..to_usize(at + len);
        assert!(
            range.end <= expected.len(),
            "a mapping never passes the end"
        );
        assert!(
            !zero || expected[range].iter().all(|b| *b == 0),
            "data at {at} was called zero"
        );
        at += len;
    }
    assert!(mapping(ByteOffset(at)).is_err(), "no mapping at the end");
}

fn check_threads(source: &dyn BlockSource, expected: &[u8]) {
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            scope.spawn(move || {
                for i in 0..200usize {
                    let at = (i * 7919 + thread * 104_729) % (expected.len() - 100);
                    let mut buf = [0; 100];
                    source
                        .read_at(ByteOffset(to_u64(at)), &mut buf)
                        .expect("reads inside succeed");
                    assert_eq!(buf, expected[at..at + 100]);
                }
            });
        }
    });
}

/// Checks that `target` holds `expected` at first, takes writes exactly and keeps the contract.
pub(crate) fn check_target(target: &dyn BlockTarget, expected: &[u8]) {
    let mut model = expected.to_vec();
    let len = target.geometry().len.0;
    assert_eq!(len, to_u64(model.len()), "length");
    assert!(!target.name().is_empty(), "a target has a name");
    let compare = |model: &[u8], when: &str| {
        target.flush().expect("flush");
        let mut all = vec![0; model.len()];
        target
            .read_back(ByteOffset(0), &mut all)
            .expect("read back");
        assert!(all == model, "content differs {when}");
        check_mapping(&|at| target.mapping(at), model);
    };
    compare(&model, "before any write");
    for (i, (start, count)) in ranges(len).into_iter().enumerate().rev() {
        let data: Vec<u8> = (0..count).map(|b| (b + i).to_le_bytes()[0] | 1).collect();
        target
            .write_at(ByteOffset(start), &data)
            .expect("writes inside succeed");
        let at = to_usize(start);
        model[at..at + count].copy_from_slice(&data);
        let mut buf = vec![0; count];
        target
            .read_back(ByteOffset(start), &mut buf)
            .expect("read back");
        assert_eq!(buf, data, "{count} bytes at {start}");
    }
    compare(&model, "after writes");
    for (start, count) in [
        (0, 1),
        (100, 700),
        (512, 4096),
        (len / 2, 1000),
        (len - 3, 3),
    ] {
        let extent = Extent {
            start: ByteOffset(start),
            len: ByteLen(count),
        };
        target.write_zeros(extent).expect("zeroing inside succeeds");
        model[to_usize(start)..to_usize(start + count)].fill(0);
    }
    compare(&model, "after zeroing");
    check_target_bounds(target, len);
    compare(&model, "after calls past the end");
    // What a discarded range reads is undefined, so this stands last and only its neighbours count.
    let middle = Extent {
        start: ByteOffset(len / 4),
        len: ByteLen(len / 4),
    };
    target
        .discard(middle)
        .expect("discard inside succeeds or is not known");
    target.write_back(middle);
    let mut all = vec![0; model.len()];
    target
        .read_back(ByteOffset(0), &mut all)
        .expect("read back");
    assert!(
        all[..to_usize(len / 4)] == model[..to_usize(len / 4)],
        "bytes before a discard"
    );
    assert!(
        all[to_usize(len / 2)..] == model[to_usize(len / 2)..],
        "bytes behind a discard"
    );
}

fn check_target_bounds(target: &dyn BlockTarget, len: u64) {
    for (start, count) in [(len, 1usize), (len - 1, 2), (u64::MAX, 1)] {
        let at = ByteOffset(start);
        let extent = Extent {
            start: at,
            len: ByteLen(to_u64(count)),
        };
        let errors = [
            target.write_at(at, &vec![1; count]).err(),
            target.read_back(at, &mut vec![0; count]).err(),
            target.write_zeros(extent).err(),
            target.discard(extent).err(),
        ];
        for error in errors {
            assert_eq!(error.expect("past the end").kind(), ErrorKind::Internal);
        }
    }
}
