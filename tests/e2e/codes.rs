//! Every exit code that can be provoked, what is said with it, and the table that documents them.

use crate::kit::bytes;
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Outcome, Strata, strata, text};
use crate::kit::scratch;
use crate::kit::store::Store;
use std::collections::BTreeMap;

const TABLE: &str = include_str!("../../docs/exit-codes.md");
const SOURCE: &str = include_str!("../../src/base/error.rs");

/// Rows of the documented table: names of kinds and their codes.
fn documented() -> BTreeMap<String, i32> {
    let mut kinds = BTreeMap::new();
    for line in TABLE.lines().filter(|l| l.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[2].trim_matches('`');
        if let (Ok(code), true) = (cells[1].parse(), cells[2].starts_with('`')) {
            kinds.insert(name.to_owned(), code);
        }
    }
    kinds
}

/// `ErrorKind::Name => value,` of one function of the source, by name.
fn arms(function: &str) -> BTreeMap<String, String> {
    let start = SOURCE.find(function).expect("the function is there");
    let body = &SOURCE[start..start + SOURCE[start..].find("\n    }").unwrap()];
    let arms = body.lines().filter_map(|line| {
        let (name, value) = line
            .trim()
            .strip_prefix("ErrorKind::")?
            .split_once(" => ")?;
        let value = value.trim_end_matches(',').trim_matches('"');
        Some((name.to_owned(), value.to_owned()))
    });
    arms.collect()
}

#[test]
fn the_documented_table_is_that_of_the_program() {
    let (codes, names) = (arms("fn exit_code"), arms("fn name"));
    assert!(codes.len() >= 12, "{codes:?}");
    let program: BTreeMap<String, i32> = codes
        .iter()
        .map(|(kind, code)| (names[kind].clone(), code.parse().unwrap()))
        .collect();
    assert_eq!(documented(), program);
}

/// Runs it for a person and for a script: the same code, the kind that belongs to it, a message
/// and what to do next.
#[track_caller]
fn fails_with(run: &Strata, as_json: &Strata, code: i32, hint: bool) -> Outcome {
    let said = run.run().expect(code);
    assert!(
        !said.stderr.trim().is_empty(),
        "an error says something: {said}"
    );
    assert!(
        said.stdout.is_empty(),
        "errors belong on standard error: {said}"
    );
    let json = as_json.run().expect(code);
    let told = json.json();
    let error = &told["error"];
    let kind = error["kind"].as_str().unwrap_or_else(|| panic!("{json}"));
    assert_eq!(documented().get(kind), Some(&code), "{json}");
    let message = error["message"]
        .as_str()
        .unwrap_or_else(|| panic!("{json}"));
    assert!(!message.is_empty() && !message.contains('\n'), "{json}");
    if hint {
        let next = error["hint"]
            .as_str()
            .unwrap_or_else(|| panic!("no next step: {json}"));
        assert!(
            said.stderr.contains(next),
            "the hint {next:?} is for persons too: {said}"
        );
    }
    said
}

macro_rules! fails {
    ($run:expr, $code:expr) => {
        fails_with(&$run, &$run.arg("--json"), $code, true)
    };
}

#[test]
fn usage_is_2() {
    for line in [
        &["nonsense"][..],
        &["backup"],
        &["backup", "--nonsense"],
        &["restore", "latest"],
        &["show"],
        &["list", "extra"],
    ] {
        let said = strata(line[0]).args(&line[1..]).run().expect(2);
        assert!(said.stderr.to_lowercase().contains("usage"), "{said}");
        assert!(said.stdout.is_empty(), "{said}");
    }
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 81);
    let store = Store::new(dir.path(), "store");
    for option in [
        "--block-size=1000",
        "--block-size=0",
        "--block-size=-4096",
        "--block-size=99999999999999999999",
        "--block-size=512TiB",
        "--compression=rar",
        "--compression=zstd:99",
        "--set=a/b",
        "--set=",
        "--set=..",
    ] {
        store.backup(&disk.path).arg(option).run().expect(2);
        assert_eq!(store.files(), [], "{option}");
    }
    strata("list").run().expect(2).expect_says("--store");
    strata("verify").run().expect(2).expect_says("STRATA_STORE");
}

#[test]
fn a_source_that_cannot_be_read_is_5() {
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let said = fails!(store.backup(&folder), 5);
    said.expect_says("folder");
    assert_eq!(store.files(), []);
}

#[test]
fn a_destination_that_fails_is_6() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 82);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let nowhere = dir.path().join("no/such/folder/target.img");
    fails!(store.restore("latest", &nowhere), 6).expect_says("target.img");
    fails!(store.verb("export").arg("latest").arg(&nowhere), 6);
    let full = std::path::Path::new("/dev/full");
    let shell = "exec \"$0\" export latest - --store \"$1\" > /dev/full";
    let output = crate::kit::tools::try_run(
        "sh",
        &["-c", shell, crate::kit::run::STRATA, text(&store.dir)],
    );
    assert!(full.exists());
    assert_eq!(
        output.status.code(),
        Some(6),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn damage_is_7() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 83);
    let store = Store::new(dir.path(), "store");
    let file = store.file_of(&store.backed_up(&disk.path));
    bytes::open_rw(&file)
        .set_len(bytes::length(&file) / 2)
        .unwrap();
    let target = dir.path().join("target.img");
    fails!(
        crate::kit::run::strata("restore")
            .arg(&file)
            .arg(&target)
            .arg("--yes"),
        7
    );
    fails!(strata("show").arg(&file), 7);
    assert!(!target.exists());
}

#[test]
fn what_does_not_exist_is_10() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 84);
    let store = Store::new(dir.path(), "store");
    let target = dir.path().join("target.img");
    fails!(store.backup(&dir.path().join("no-such-disk")), 10).expect_says("no-such-disk");
    fails!(store.backup("NOSUCHSERIAL0042".as_ref()), 10);
    fails!(store.restore("latest", &target), 10);
    fails!(store.verb("show").arg("latest"), 10);
    store.backed_up(&disk.path);
    for image in ["0000ffff", "no-such-set@latest", "/no/such/file"] {
        fails!(store.verb("show").arg(image), 10).expect_says(image);
        fails!(store.restore(image, &target), 10);
        fails!(store.verb("verify").arg(image), 10);
        fails!(store.verb("export").arg(image).arg(&target), 10);
    }
    let nowhere = Store::at(&dir.path().join("no-store"));
    fails!(nowhere.verb("list"), 10).expect_says("no-store");
    assert!(!nowhere.dir.exists());
    assert!(!target.exists());
}

#[test]
fn the_start_of_an_id_must_be_long_enough() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 85);
    let store = Store::new(dir.path(), "store");
    let image = store.backed_up(&disk.path);
    let id = image["id"].as_str().unwrap();
    store.verb("show").arg(&id[..4]).run().expect(0);
    for short in [&id[..3], &id[..1], ""] {
        let said = store.verb("show").arg(short).run();
        assert!(matches!(said.code(), Some(2 | 10)), "{said}");
    }
}

#[test]
fn a_difference_is_11() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 86);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    bytes::flip(&disk.path, 100);
    let against = ["latest", "--against", text(&disk.path)];
    store.verify(&against).expect(11);
}
