//! Keeps what the used map of a disk was made from: `make_capsule DISK FILE`.
//!
//! DISK is a file or device that holds a file system from its first byte. FILE gets the bytes that
//! were read (`block::Capsule`), FILE with `.map` added the map: kind, unit and runs in use as text.
//! `fixtures/fs/make-capsules` makes the fixtures with it.

use diskstrata::base::{Cancel, Error, ErrorKind, Result};
use diskstrata::block::{
    BlockSource, CachePolicy, Capsule, FileSource, Op, RecordSource, Recorded,
};
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [disk, file] = args.as_slice() else {
        return Err(Error::new(ErrorKind::Usage, "begin", "make_capsule")
            .because("it takes two arguments: DISK FILE"));
    };
    let source = FileSource::open(Path::new(disk), disk.as_str(), CachePolicy::Auto)?;
    let source: Arc<dyn BlockSource> = Arc::new(source);
    let log = Recorded::default();
    let recorded = RecordSource::new(Arc::clone(&source), log.clone());
    let report = diskstrata::fs::used(&recorded, &Cancel::new())?;
    let read = log.ops().into_iter().filter_map(|op| match op {
        Op::Read(extent) => Some(extent),
        _ => None,
    });
    let capsule = Capsule::record(source.as_ref(), read.collect())?;
    let failed = |e| Error::new(ErrorKind::Destination, "write", file.as_str()).caused_by(e);
    std::fs::write(file, capsule.encode()?).map_err(failed)?;
    let mut map = format!(
        "{}\n{:?}\n{}\n",
        report.kind, report.certainty, report.unit.0
    );
    for run in report.used.runs() {
        map.push_str(&format!("{}..{}\n", run.start, run.end));
    }
    std::fs::write(format!("{file}.map"), &map).map_err(failed)?;
    let lines: Vec<&str> = map.lines().take(2).collect();
    println!("{file}: {}", lines.join(", "));
    Ok(())
}
