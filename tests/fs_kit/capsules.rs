//! The fixtures: disks of which the bytes are kept that decide what is in use.

use diskstrata::block::Capsule;
use diskstrata::fs::UsedReport;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A capsule of `fixtures/fs`.
pub(crate) struct Fixture {
    /// Its file name without the ending: "ext-checksums".
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) capsule: Capsule,
}

impl Fixture {
    /// The decoder that it is for: its name up to the first hyphen.
    pub(crate) fn decoder(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }
}

/// Where they are: below the package, or beside it when that is the one of the fuzzers.
pub(crate) fn folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut above = package.ancestors();
    let top = above.find(|folder| folder.join("fixtures").is_dir());
    top.unwrap_or(package).join("fixtures/fs")
}

/// The names of all files in the folder, sorted.
pub(crate) fn files() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.expect("a folder entry").file_name();
            name.into_string().expect("names are plain text")
        })
        .collect();
    names.sort();
    names
}

/// All fixtures whose names begin with `prefix`.
pub(crate) fn beginning_with(prefix: &str) -> Vec<Fixture> {
    let names = files().into_iter().filter(|name| name.starts_with(prefix));
    let names = names.filter_map(|name| Some(name.strip_suffix(".capsule")?.to_owned()));
    names.map(load).collect()
}

/// All fixtures of a decoder.
pub(crate) fn of_decoder(decoder: &str) -> Vec<Fixture> {
    beginning_with(&format!("{decoder}-"))
}

fn load(name: String) -> Fixture {
    let path = folder().join(format!("{name}.capsule"));
    let stored = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let capsule = Capsule::decode(&stored).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Fixture {
        name,
        path,
        capsule,
    }
}

/// The text of a `.capsule.map`: kind, certainty, unit, and the runs in use.
pub(crate) fn map_text(report: &UsedReport) -> String {
    let mut text = format!(
        "{}\n{:?}\n{}\n",
        report.kind, report.certainty, report.unit.0
    );
    for run in report.used.runs() {
        writeln!(text, "{}..{}", run.start, run.end).expect("text grows");
    }
    text
}
