//! Files that are found again by their bytes: every sector begins with a number that no other has.

use super::Owner;
use crate::kit::MIB;
use crate::kit::bytes::{self, Stream};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;

/// How many files there are.
pub(crate) const FILES: usize = 62;

/// Which file has a sector that begins so.
pub(crate) struct Marks(HashMap<[u8; 16], String>);

/// Fills `root`: folders in one another, of names as `third` too, files, some grown in turns.
pub(crate) fn fill(root: &Path, third: &str) -> Marks {
    let mut stream = Stream::new(77);
    let mut marks = HashMap::new();
    let mut sectors = |name: &str, count: u64| {
        let mut content = Vec::new();
        for _ in 0..count {
            let sector = stream.bytes(512);
            marks.insert(sector[..16].try_into().unwrap(), name.to_owned());
            content.extend(sector);
        }
        content
    };
    let dirs = [
        String::new(),
        "/one".to_owned(),
        format!("/one/{third}"),
        format!("/one/{third}/three with a name of several entries"),
    ];
    for dir in &dirs[1..] {
        fs::create_dir(root.join(dir.trim_start_matches('/'))).unwrap();
    }
    let append = |name: &str, content: &[u8]| {
        let path = root.join(name.trim_start_matches('/'));
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
    };
    for n in 0..FILES - 2 {
        let dir = &dirs[n % 4];
        let name = format!("{dir}/a file with a name that is not short, number {n}");
        // More than any file system keeps beside a file's metadata, and whole blocks.
        append(&name, &sectors(&name, 8 * (1 + n as u64 / 3)));
    }
    for _ in 0..40 {
        for name in ["/left", "/one/right"] {
            append(name, &sectors(name, 16));
        }
    }
    crate::aged::sync(root);
    Marks(marks)
}

impl Marks {
    /// The files with the places of their sectors in `image`, by path.
    pub(crate) fn find(&self, image: &Path) -> BTreeMap<String, Owner> {
        let mut content: BTreeMap<String, Owner> = BTreeMap::new();
        let len = bytes::length(image);
        for start in (0..len).step_by(usize::try_from(MIB).unwrap()) {
            let piece = bytes::read(image, start, MIB.min(len - start));
            for (at, sector) in (start..).step_by(512).zip(piece.chunks_exact(512)) {
                let mark: [u8; 16] = sector[..16].try_into().unwrap();
                if let Some(name) = self.0.get(&mark) {
                    let owner = content.entry(name.clone()).or_default();
                    owner.paths = vec![name.clone()];
                    owner.content.push(at..at + 512);
                }
            }
        }
        assert_eq!(content.len(), FILES);
        content
    }
}
