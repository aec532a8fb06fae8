//! Recorded machines for tests: `fixtures/device/*.tree` unfolded into a folder.

use crate::device::{Inventory, Resolved, resolve};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A machine unfolded from its record; gone when dropped.
pub(super) struct Machine {
    pub root: tempfile::TempDir,
}

impl Machine {
    /// Unfolds `fixtures/device/<name>.tree` (fixtures/device/README.md has the format).
    pub(super) fn new(name: &str) -> Machine {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/device")
            .join(format!("{name}.tree"));
        let machine = Machine {
            root: tempfile::tempdir().unwrap(),
        };
        machine.unfold(&fs::read_to_string(path).unwrap());
        machine
    }

    fn unfold(&self, record: &str) {
        let mut folder = "";
        let mut lines = record.lines().peekable();
        while let Some(line) = lines.next() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(path) = line.strip_prefix('@') {
                folder = path;
                continue;
            }
            let place = |path: &str| match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("{folder}/{path}"),
            };
            if let Some((path, to)) = line.split_once(" -> ") {
                self.link(&place(path), to);
            } else if let Some(path) = line.strip_suffix('/') {
                fs::create_dir_all(self.at(&place(path))).unwrap();
            } else {
                let (path, value) = line
                    .split_once(": ")
                    .or_else(|| Some((line.strip_suffix(':')?, "")))
                    .unwrap_or_else(|| panic!("{line}"));
                let mut content = unescape(value);
                while let Some(more) = lines.next_if(|l| l.starts_with('|')) {
                    content.extend(unescape(&more[1..]));
                    content.push(b'\n');
                }
                self.write(&place(path), &content);
            }
        }
    }

    /// Writes a file of the machine.
    pub(super) fn write(&self, path: &str, content: &[u8]) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
    }

    /// Appends to a file of the machine.
    pub(super) fn append(&self, path: &str, line: &str) {
        let at = self.at(path);
        let mut content = fs::read(&at).unwrap_or_default();
        content.extend_from_slice(line.as_bytes());
        content.push(b'\n');
        self.write(path, &content);
    }

    /// Makes a symbolic link of the machine.
    pub(super) fn link(&self, path: &str, to: &str) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&at);
        symlink(to, at).unwrap();
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn read(&self) -> Inventory {
        Inventory::read(self.root.path()).unwrap()
    }
}

/// Reads a fixture.
pub(super) fn inventory(name: &str) -> (Machine, Inventory) {
    let machine = Machine::new(name);
    let inventory = machine.read();
    (machine, inventory)
}

/// The device that `name` means; it must be one.
pub(super) fn target(inventory: &Inventory, name: &str) -> Resolved {
    resolve(inventory, name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// `\n`, `\\` and `\x1b` in values.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [b'x', a, b, tail @ ..]) => {
                let digits = [*a, *b];
                let digits = std::str::from_utf8(&digits).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
                rest = tail;
            }
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
