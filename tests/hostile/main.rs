//! Image files made by somebody who means no good, or by a machine that has gone mad: whatever they claim, they
//! end in an error or in what they really hold, within little memory, and nothing else is written.
//!
//! | file | what |
//! |---|---|
//! | `forge` | images by hand, all checksums and digests right |
//! | `cases` | what is wrong with them: header, records, table, compressed data, JSON, words, parts |
//! | `chains` | and with what they build on |
//! | `inside` | all of them through the library |
//! | `outside` | and through the command |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod chains;
mod forge;
mod inside;
#[path = "../kit/mod.rs"]
mod kit;
mod outside;

use peak_alloc::PeakAlloc;

/// Counts what the whole process has allocated.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What looking at one file may allocate at once, beside the file.
const MOST_HEAP: usize = 96 << 20;

/// Does `what`, which may not take more memory at once than that.
fn within_memory<T>(name: &str, what: impl FnOnce() -> T) -> T {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let done = what();
    let most = HEAP.peak_usage().saturating_sub(before);
    assert!(most <= MOST_HEAP, "{name}: {most} bytes of memory");
    done
}

/// Calls `check` with every case, and fails when any of them did, naming them.
fn each(cases: &[cases::Case], check: impl Fn(&cases::Case)) {
    let failed = |case: &&cases::Case| {
        eprintln!("{}", case.name);
        let check = std::panic::AssertUnwindSafe(|| check(case));
        std::panic::catch_unwind(check).is_err()
    };
    let failed = cases.iter().filter(failed).map(|case| &case.name);
    let failed: Vec<&String> = failed.collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
