//! On a terminal a person types the name of what will be overwritten; nothing else will do.

use crate::kit::bytes::{self, assert_same, fingerprint};
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Outcome, text};
use crate::kit::scratch;
use crate::kit::store::Store;
use std::path::{Path, PathBuf};

struct Setting {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
    target: PathBuf,
}

fn setting() -> Setting {
    let dir = scratch();
    let disk = Disk::build(Layout::Odd, dir.path(), "source.img", 51);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let target = dir.path().join("target.img");
    bytes::create_filled(&target, disk.len);
    Setting {
        dir,
        disk,
        store,
        target,
    }
}

impl Setting {
    fn type_in(&self, target: &Path, typed: &str) -> Outcome {
        let restore = self.store.verb("restore").arg("latest").arg(target);
        restore.input(typed.as_bytes()).run_on_terminal()
    }
}

#[test]
fn the_right_name_is_enough() {
    let setting = setting();
    let typed = format!("{}\n", text(&setting.target));
    let outcome = setting.type_in(&setting.target, &typed).expect(0);
    // The plan stands before the question.
    outcome.expect_says("target.img");
    assert_same(&setting.disk.path, &setting.target);
}

#[test]
fn anything_else_is_refused() {
    let setting = setting();
    let before = fingerprint(&setting.target);
    for typed in ["\n", "y\n", "yes\n", "target\n", "/dev/sda\n", ""] {
        setting.type_in(&setting.target, typed).expect(4);
        assert_eq!(
            fingerprint(&setting.target),
            before,
            "after typing {typed:?}"
        );
    }
}

#[test]
fn a_new_file_asks_nothing() {
    let setting = setting();
    let new = setting.dir.path().join("new.img");
    setting.type_in(&new, "").expect(0);
    assert_same(&setting.disk.path, &new);
}
