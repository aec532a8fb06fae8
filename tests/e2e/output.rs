//! What scripts and persons get to see: streams, members of JSON, modes of files.

use crate::kit::bytes;
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{STRATA, strata, text};
use crate::kit::store::Store;
use crate::kit::{scratch, tools};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;

struct Setting {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
    image: Value,
}

fn setting() -> Setting {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "source.img", 91);
    let store = Store::new(dir.path(), "store");
    let backup = store
        .backup(&disk.path)
        .args(["--comment", "before the upgrade"]);
    let image = backup
        .args(["--set", "laptop", "--json"])
        .run()
        .expect(0)
        .json()["image"]
        .clone();
    Setting {
        dir,
        disk,
        store,
        image,
    }
}

const VERBS: [&str; 10] = [
    "disks",
    "backup",
    "list",
    "show",
    "map",
    "verify",
    "restore",
    "export",
    "completions",
    "man",
];

#[test]
fn help_and_version_are_there_for_everything() {
    let version = strata("--version").run().expect(0);
    assert!(
        version.text().contains(env!("CARGO_PKG_VERSION")),
        "{version}"
    );
    let help = strata("--help").run().expect(0);
    for verb in VERBS {
        assert!(help.text().contains(verb), "{help}");
        let help = strata(verb).arg("--help").run().expect(0);
        assert!(help.text().contains("Usage"), "{help}");
        assert!(help.stderr.is_empty(), "{help}");
    }
    strata("completions")
        .arg("bash")
        .run()
        .expect(0)
        .expect_says("strata");
    strata("completions").arg("no-such-shell").run().expect(2);
    let dir = scratch();
    strata("man").arg(dir.path()).run().expect(0);
    let pages: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(pages.len() >= VERBS.len(), "{pages:?}");
}

#[test]
fn an_image_has_the_members_that_are_promised() {
    let setting = setting();
    let image = &setting.store.list()[0];
    let members: Vec<&str> = image
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for member in [
        "id",
        "parent",
        "kind",
        "set",
        "sequence",
        "time",
        "bytes",
        "disk_bytes",
        "block_size",
        "root",
        "file",
    ] {
        assert!(members.contains(&member), "{member} is missing in {image}");
    }
    assert_eq!(image["kind"], "full");
    assert_eq!(image["parent"], Value::Null);
    assert_eq!(image["set"], "laptop");
    assert_eq!(image["disk_bytes"], setting.disk.len);
    let id = image["id"].as_str().unwrap();
    let plain = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c) || c == '-';
    assert!(id.len() == 36 && id.chars().all(plain), "{id}");
    let time = image["time"].as_str().unwrap();
    assert!(
        time.contains('T') && time.ends_with('Z'),
        "RFC 3339 in UTC: {time}"
    );
    assert!(
        image["bytes"].as_u64().unwrap() < setting.disk.len,
        "{image}"
    );
}

#[test]
fn the_name_of_an_image_tells_a_person_what_it_is() {
    let setting = setting();
    let name = setting.image["file"].as_str().unwrap();
    assert!(name.contains("laptop") && name.contains("full"), "{name}");
}

#[test]
fn show_tells_of_source_partitions_and_comment() {
    let setting = setting();
    let shown = setting
        .store
        .verb("show")
        .args(["latest", "--json"])
        .run()
        .expect(0);
    let told = shown.json();
    assert_eq!(told["comment"], "before the upgrade", "{shown}");
    assert_eq!(told["source"]["bytes"], setting.disk.len, "{shown}");
    assert!(!told["layout"].is_null(), "{shown}");
    assert_eq!(told["unreadable"], Value::Array(Vec::new()), "{shown}");
    for state in ["data", "zero", "unused", "unreadable"] {
        assert!(told["blocks"][state].is_u64(), "{state}: {shown}");
    }
    assert!(told["blocks"]["data"].as_u64().unwrap() > 0, "{shown}");
    let said = setting.store.verb("show").arg("latest").run().expect(0);
    for part in ["before the upgrade", "laptop", "root", "esp"] {
        assert!(said.text().contains(part), "{part}: {said}");
    }
}

#[test]
fn images_are_for_their_owner_alone() {
    let setting = setting();
    let file = setting.store.file_of(&setting.image);
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let restored = setting.dir.path().join("restored.img");
    setting.store.restore("latest", &restored).run().expect(0);
    let mode = std::fs::metadata(&restored).unwrap().mode();
    assert_eq!(
        mode & 0o077,
        0,
        "a disk's content is not for everybody: {mode:o}"
    );
}

#[test]
fn a_listener_that_leaves_early_is_no_error() {
    let setting = setting();
    for line in [
        "list",
        "show latest",
        "list --json",
        "verify",
        "disks",
        "export latest -",
    ] {
        let store = if line == "disks" {
            ""
        } else {
            "--store \"$1\""
        };
        // The status of the first command of the pipe, and whatever it says.
        let script = format!("set -o pipefail; \"$0\" {line} {store} | true");
        let output = tools::try_run("bash", &["-c", &script, STRATA, text(&setting.store.dir)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{line}: {said}");
        // An export of which not all was taken is not done; everything else is.
        let right = match output.status.code() {
            Some(6) => line.starts_with("export"),
            code => code == Some(0),
        };
        assert!(right, "{line}: {} {said}", output.status);
    }
}

#[test]
fn quiet_is_silent_and_no_run_here_shows_progress_or_colours() {
    let setting = setting();
    let target = setting.dir.path().join("target.img");
    let quiet = setting
        .store
        .restore("latest", &target)
        .arg("-q")
        .run()
        .expect(0);
    assert_eq!((quiet.text().as_ref(), quiet.stderr.as_str()), ("", ""));
    let quiet = setting
        .store
        .backup(&setting.disk.path)
        .arg("--quiet")
        .run()
        .expect(0);
    assert_eq!((quiet.text().as_ref(), quiet.stderr.as_str()), ("", ""));
    for run in [
        setting.store.verb("list"),
        setting.store.verb("show").arg("latest"),
        setting.store.verb("verify").arg("--deep"),
        setting.store.verb("backup").arg(&setting.disk.path),
        setting.store.verb("show").arg("no-such-image"),
    ] {
        let said = run.run();
        assert!(!said.all_text().contains(['\u{1b}', '\r']), "{said}");
    }
}

#[test]
fn json_is_all_that_stands_on_standard_output() {
    let setting = setting();
    let target = setting.dir.path().join("target.img");
    for run in [
        setting.store.verb("list"),
        setting.store.verb("show").arg("latest"),
        setting.store.verb("verify"),
        setting.store.verb("backup").arg(&setting.disk.path),
        setting.store.restore("latest", &target),
        strata("disks"),
    ] {
        let said = run.arg("--json").arg("-v").run().expect(0);
        assert!(said.json().is_object(), "{said}");
    }
    bytes::assert_same(&setting.disk.path, &target);
}

#[test]
fn names_from_outside_cannot_drive_a_terminal() {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source\u{1b}[2J.img", 92);
    let store = Store::new(dir.path(), "store");
    let comment = "\u{1b}]0;owned\u{7}";
    let said = store.backup(&disk.path).args(["--comment", comment]).run();
    assert!(!said.all_text().contains(['\u{1b}', '\u{7}']), "{said:?}");
    for run in [store.verb("list"), store.verb("show").arg("latest")] {
        let said = run.run();
        assert!(!said.all_text().contains(['\u{1b}', '\u{7}']), "{said:?}");
    }
}

#[test]
fn disks_are_listed() {
    let listed = strata("disks").arg("--json").run().expect(0);
    let json = listed.json();
    for disk in json["disks"]
        .as_array()
        .unwrap_or_else(|| panic!("{listed}"))
    {
        for member in [
            "name",
            "path",
            "bytes",
            "logical_sector",
            "read_only",
            "partitions",
        ] {
            assert!(!disk[member].is_null(), "{member}: {listed}");
        }
    }
    strata("disks").run().expect(0);
}
