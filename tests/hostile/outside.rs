//! Cases through the command: nothing is written, no terminal is talked to, little memory is taken.

use crate::cases::{ASKED, Case, Fate, all};
use crate::each;
use crate::kit::bytes::{Stream, fingerprint};
use crate::kit::run::{Outcome, Strata, strata};
use crate::kit::{KIB, MIB, long, scratch};
use nix::sys::resource::{UsageWho, getrusage};
use std::path::Path;

/// The most that any run may have in memory.
const MOST_RESIDENT: u64 = 256 * MIB;
const TARGET: u64 = 4 * MIB;

/// What a terminal would obey, and what turns text around or hides it.
fn is_harmful(c: char) -> bool {
    let hidden = ['\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
    let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n') || reorders || hidden.contains(&c)
}

/// Runs it; it must not be a defect of the program that ends it, and nothing it says does harm.
fn run(case: &Case, command: &Strata) -> Outcome {
    let outcome = command.run();
    assert!(
        !matches!(outcome.code(), None | Some(1)),
        "{}: {outcome}",
        case.name
    );
    let said = outcome.all_text();
    let harm = said.chars().find(|c| is_harmful(*c));
    assert_eq!(harm, None, "{}: {said:?}", case.name);
    outcome
}

fn check(case: &Case, dir: &Path) {
    let store = dir.join("store");
    std::fs::create_dir(&store).unwrap();
    for (name, content) in &case.files {
        std::fs::write(store.join(name), content).unwrap();
    }
    let image = store.join(ASKED);
    let target = dir.join("target.img");
    std::fs::write(&target, Stream::new(71).bytes(TARGET)).unwrap();
    let before = fingerprint(&target);
    let ends_well = case.fate == Fate::Image;
    let on_store = |verb: &str| strata(verb).arg("--store").arg(&store);
    for json in [false, true] {
        let flag: &[&str] = if json { &["--json"] } else { &[] };
        run(case, &on_store("list").args(flag));
        for verb in ["show", "map"] {
            let shown = run(case, &strata(verb).arg(&image).args(flag));
            let refused = case.fate == Fate::Refused;
            assert!(
                !refused || shown.code() != Some(0),
                "{}: {shown}",
                case.name
            );
        }
        let verified = run(case, &strata("verify").arg(&image).arg("--deep").args(flag));
        assert_eq!(
            verified.code() == Some(0),
            ends_well,
            "{}: {verified}",
            case.name
        );
    }
    let restore = strata("restore").arg(&image).arg(&target).arg("--yes");
    let restored = run(case, &restore);
    let exported = dir.join("exported.raw");
    let exports = run(case, &strata("export").arg(&image).arg(&exported));
    assert!(
        !ends_well || restored.code() == Some(0),
        "{}: {restored}",
        case.name
    );
    assert!(
        !ends_well || exports.code() == Some(0),
        "{}: {exports}",
        case.name
    );
    // Damage that costs no block is no reason to lose them.
    let may_end_well = case.fate != Fate::Refused;
    if may_end_well && restored.code() == Some(0) {
        let held = std::fs::read(&target).unwrap();
        assert!(held.starts_with(&case.disk), "{}: another disk", case.name);
    } else {
        assert_ne!(restored.code(), Some(0), "{}: {restored}", case.name);
        assert_eq!(
            fingerprint(&target),
            before,
            "{}: it was written",
            case.name
        );
    }
    if may_end_well && exports.code() == Some(0) {
        assert!(
            std::fs::read(&exported).unwrap() == case.disk,
            "{}",
            case.name
        );
    } else {
        assert_ne!(exports.code(), Some(0), "{}: {exports}", case.name);
        assert!(!exported.exists(), "{}: something was exported", case.name);
    }
    let kept = [store.as_path(), &target, &exported];
    let others = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let others: Vec<_> = others
        .filter(|path| !kept.contains(&path.as_path()))
        .collect();
    assert!(others.is_empty(), "{}: {others:?}", case.name);
}

#[test]
fn hostile_files_do_no_harm() {
    let cases = all();
    // The usual run takes every sixth, and each that says something to a terminal.
    let some = |(n, case): &(usize, Case)| n % 6 == 0 || case.name.starts_with("words");
    let chosen = cases.into_iter().enumerate().filter(|c| long() || some(c));
    let chosen: Vec<Case> = chosen.map(|(_, case)| case).collect();
    each(&chosen, |case| check(case, scratch().path()));
    let count = chosen.len();
    let peak = |who| u64::try_from(getrusage(who).unwrap().max_rss()).unwrap() * KIB;
    let most = peak(UsageWho::RUSAGE_CHILDREN);
    eprintln!(
        "{count} hostile files, at most {} MiB in memory",
        most / MIB
    );
    assert!(count >= 50, "{count}");
    // The kernel counts what this process had before as a child's, too.
    let own = peak(UsageWho::RUSAGE_SELF);
    assert!(most <= MOST_RESIDENT.max(own), "{most} bytes in memory");
}
