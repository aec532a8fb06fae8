//! Every exit code that can be provoked, what is said with it, and the table that documents them.

use crate::kit::bytes;
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Outcome, STRATA, Strata, strata, text};
use crate::kit::store::Store;
use crate::kit::{scratch, tools};
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

/// Runs it for a person and for a script: the same code, the kind that belongs to it, a message.
#[track_caller]
fn fails(run: Strata, code: i32) -> Outcome {
    let said = run.run().expect(code);
    assert!(
        !said.stderr.trim().is_empty(),
        "an error says something: {said}"
    );
    assert!(
        said.stdout.is_empty(),
        "errors belong on standard error: {said}"
    );
    let json = run.arg("--json").run().expect(code);
    let told = json.json();
    let error = &told["error"];
    let kind = error["kind"].as_str().unwrap_or_else(|| panic!("{json}"));
    assert_eq!(documented().get(kind), Some(&code), "{json}");
    let message = error["message"]
        .as_str()
        .unwrap_or_else(|| panic!("{json}"));
    assert!(!message.is_empty() && !message.contains('\n'), "{json}");
    // Behind the first colon may stand what the machine has at that moment.
    let (what, _) = message.split_once(':').unwrap_or((message, ""));
    assert!(
        said.stderr.contains(what),
        "{what:?} is for persons too: {said}"
    );
    said
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
fn a_source_without_a_byte_is_5() {
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let empty = dir.path().join("empty.img");
    bytes::create_sparse(&empty, 0);
    fails(store.backup(&empty), 5).expect_says("empty.img");
    assert_eq!(store.files(), []);
}

#[test]
fn a_destination_that_fails_is_6() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 82);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let script = "exec \"$0\" export latest - --store \"$1\" > /dev/full";
    let output = tools::try_run("sh", &["-c", script, STRATA, text(&store.dir)]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("standard output"), "{said}");
    // A store cannot be a file.
    let file = Store::at(&disk.path);
    fails(file.backup(&disk.path), 6);
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
    fails(strata("restore").arg(&file).arg(&target).arg("--yes"), 7);
    fails(strata("show").arg(&file), 7);
    assert!(!target.exists());
}

#[test]
fn what_does_not_exist_is_10() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 84);
    let store = Store::new(dir.path(), "store");
    let target = dir.path().join("target.img");
    let nowhere = dir.path().join("no/such/folder/target.img");
    fails(store.backup(&dir.path().join("no-such-disk")), 10).expect_says("no-such-disk");
    fails(store.backup("NOSUCHSERIAL0042".as_ref()), 10);
    fails(store.restore("latest", &target), 10);
    fails(store.verb("show").arg("latest"), 10);
    store.backed_up(&disk.path);
    fails(store.restore("latest", &nowhere), 10).expect_says("target.img");
    fails(store.verb("export").arg("latest").arg(&nowhere), 10);
    for (image, said) in [
        ("0000ffff", "0000ffff"),
        ("nosuchset@latest", "nosuchset"),
        ("/no/such/file", "/no/such"),
    ] {
        fails(store.verb("show").arg(image), 10).expect_says(said);
        fails(store.restore(image, &target), 10);
        fails(store.verb("verify").arg(image), 10);
        fails(store.verb("export").arg(image).arg(&target), 10);
    }
    let nowhere = Store::at(&dir.path().join("no-store"));
    fails(nowhere.verb("list"), 10).expect_says("no-store");
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

/// Every error that a person can do something about says what.
#[test]
fn errors_say_what_to_do_next() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 87);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let (small, used) = (dir.path().join("small.img"), dir.path().join("used.img"));
    bytes::create_filled(&small, disk.len - 1);
    bytes::create_filled(&used, disk.len);
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let nowhere = dir.path().join("no/such/place");
    let empty = Store::new(dir.path(), "empty");
    let broken = Store::new(dir.path(), "broken");
    std::fs::write(broken.dir.join("x-00001-full.strata"), "nothing").unwrap();
    let runs = [
        store.backup(&dir.path().join("no-such-disk")),
        store.backup("NOSUCHSERIAL0042".as_ref()),
        store.backup(&folder),
        store.verb("show").arg("0000ffff"),
        store.verb("show").arg("no-such-set@latest"),
        store
            .verb("show")
            .arg(dir.path().join("no-such-file.strata")),
        empty.verb("show").arg("latest"),
        broken.verb("show").arg("latest"),
        Store::at(&nowhere).verb("list"),
        Store::at(&nowhere).backup(&disk.path),
        Store::at(&disk.path).backup(&disk.path),
        store.restore("latest", &small),
        store.restore("latest", &folder),
        store.restore("latest", &nowhere),
        store.verb("restore").arg("latest").arg(&used),
        store.restore("latest", &used).args(["--partition", "7"]),
        store.verb("export").arg("latest").arg(&nowhere),
        store.verb("export").arg("latest").arg(&folder),
    ];
    let mut silent = Vec::new();
    for run in runs {
        let said = run.arg("--json").run();
        assert_ne!(said.code(), Some(0), "{said}");
        if said.json()["error"]["hint"]
            .as_str()
            .is_none_or(str::is_empty)
        {
            silent.push(said.to_string());
        }
    }
    assert!(
        silent.is_empty(),
        "{} errors without a next step:\n{}",
        silent.len(),
        silent.join("\n")
    );
}
