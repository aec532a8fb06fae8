//! The capsules of `fixtures/fs` give the maps that lie beside them: kind, certainty, unit and runs.
//!
//! `fixtures/fs/make-*` makes both from real file systems, and only after the tests of
//! `tests/filesystems` have proven the reader on them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "fs_kit/mod.rs"]
mod fs_kit;

use fs_kit::{capsules, watch};

#[test]
fn every_capsule_gives_its_map() {
    let fixtures = capsules::beginning_with("");
    assert!(
        !fixtures.is_empty(),
        "no capsule in {:?}",
        capsules::folder()
    );
    let mut wrong = Vec::new();
    for fixture in &fixtures {
        let run = watch::run(&fixture.capsule);
        let found = run.check().map(capsules::map_text);
        let map = fixture.path.with_extension("capsule.map");
        let expected = std::fs::read_to_string(&map).map_err(|e| format!("its map: {e}"));
        if found.is_err() || found != expected {
            let head = |text: &str| text.lines().take(4).collect::<Vec<_>>().join(", ");
            wrong.push(format!(
                "{}: {}\n    expected {}",
                fixture.name,
                head(found.as_ref().unwrap_or_else(|e| e)),
                head(expected.as_ref().unwrap_or_else(|e| e))
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_lies_there_that_no_test_reads() {
    let names = capsules::files();
    let has = |name: &str| names.iter().any(|n| n == name);
    for name in &names {
        let known = if let Some(capsule) = name.strip_suffix(".map") {
            has(capsule)
        } else if name.ends_with(".capsule") {
            has(&format!("{name}.map"))
        } else {
            name == "README.md" || name.starts_with("make-")
        };
        assert!(known, "{name} is an orphan in {:?}", capsules::folder());
    }
}
