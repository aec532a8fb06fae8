//! Everything about the files below a folder that a restore must bring back.

use crate::kit::tools;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One file: kind, mode, owner, links, size and a digest of content or link target.
type Facts = String;

/// Every file below `root` by its path, and all extended attributes as one text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    files: BTreeMap<String, Facts>,
    xattrs: String,
}

impl Manifest {
    /// Of all that is below `root`.
    pub(crate) fn of(root: &Path) -> Manifest {
        let mut files = BTreeMap::new();
        collect(root, root, &mut files);
        Manifest {
            files,
            xattrs: xattrs(root),
        }
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Fails and names the first files that differ, unless both are the same.
    #[track_caller]
    pub(crate) fn assert_same(&self, restored: &Manifest) {
        let differs = |(path, facts): &(&String, &Facts)| restored.files.get(*path) != Some(*facts);
        let wrong: Vec<_> = self.files.iter().filter(differs).take(5).collect();
        let more = restored
            .files
            .keys()
            .filter(|p| !self.files.contains_key(*p));
        let more: Vec<_> = more.take(5).collect();
        assert!(
            wrong.is_empty() && more.is_empty(),
            "differ or are missing: {wrong:#?}\nthere: {:#?}\nnew: {more:?}",
            wrong
                .iter()
                .map(|(p, _)| restored.files.get(*p))
                .collect::<Vec<_>>()
        );
        assert_eq!(self.xattrs, restored.xattrs, "extended attributes");
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<String, Facts>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_file() {
            let mut hasher = blake3::Hasher::new();
            let file = std::fs::File::open(&path).unwrap();
            hasher
                .update_reader(file)
                .unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
            hasher.finalize().to_hex().to_string()
        } else if kind.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else {
            String::new()
        };
        let size = if kind.is_dir() { 0 } else { meta.size() };
        let facts = format!(
            "mode {:o} owner {}:{} links {} size {size} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            if kind.is_dir() { 0 } else { meta.nlink() },
        );
        let name = path.strip_prefix(root).unwrap();
        let name = String::from_utf8_lossy(name.as_os_str().as_bytes()).into_owned();
        files.insert(name, facts);
        if kind.is_dir() {
            collect(root, &path, files);
        }
    }
}

/// What `getfattr` prints of all files, in the order of their paths.
fn xattrs(root: &Path) -> String {
    let mut command = tools::tool("getfattr");
    let command = command.current_dir(root).args([
        "-R",
        "-h",
        "-d",
        "-m",
        "^(user|security|trusted)\\.",
        "-e",
        "hex",
        ".",
    ]);
    let output = command.output().expect("start getfattr");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut files: Vec<&str> = text
        .split("\n\n")
        .filter(|f| !f.trim().is_empty())
        .collect();
    files.sort_unstable();
    files.join("\n\n")
}
