//! exFAT: the truth is what the driver in user space reads: every file is found by the bytes that it has
//! and nothing else has.

use super::Owner;
use crate::exfat::{Case, Mounted, case, make};
use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::privileged;
use crate::kit::{MIB, scratch};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Files whose every sector begins with a number that no other has, some grown in turns.
fn fill(root: &Path) -> HashMap<[u8; 16], String> {
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
        "",
        "/one",
        "/one/Größe 磁盘",
        "/one/Größe 磁盘/three with a name of several entries",
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
    };
    for n in 0..60 {
        let name = format!(
            "{}/a file with a name that is not short, number {n}",
            dirs[n % 4]
        );
        append(&name, &sectors(&name, 1 + n as u64 * 3));
    }
    for _ in 0..40 {
        for name in ["/left", "/one/right"] {
            append(name, &sectors(name, 16));
        }
    }
    crate::aged::sync(root);
    marks
}

fn compares(case: Case) {
    let dir = scratch();
    let image = make(case, dir.path(), "image");
    let marks = {
        let mounted = Mounted::new(&image, &dir.path().join("mounted"), case.sector);
        fill(mounted.path())
    };
    // Sectors are read back from where they lie.
    let all = bytes::read(&image, 0, bytes::length(&image));
    let mut content: BTreeMap<String, Owner> = BTreeMap::new();
    for (n, sector) in all.chunks_exact(512).enumerate() {
        let mark: [u8; 16] = sector[..16].try_into().unwrap();
        if let Some(name) = marks.get(&mark) {
            let at = n as u64 * 512;
            let owner = content.entry(name.clone()).or_default();
            owner.paths = vec![name.clone()];
            owner.content.push(at..at + 512);
        }
    }
    let len = bytes::length(&image);
    let hit = super::ask(&image, std::slice::from_ref(&(0..len)));
    let named: BTreeMap<&String, u64> = hit.files.iter().map(|f| (&f.path, f.number)).collect();
    assert_eq!(hit.incomplete, None);
    assert_eq!(content.len(), 62);
    for directory in ["/", "/one", "/one/Größe 磁盘"] {
        assert!(
            hit.files.iter().any(|f| f.path == directory && f.directory),
            "{directory}"
        );
    }
    // Every sector with a mark, alone and together with others.
    let mut stream = Stream::new(3);
    for (name, owner) in &content {
        assert!(named.contains_key(name), "{name}");
        let hit = super::ask(&image, &owner.content);
        let [file] = hit.files.as_slice() else {
            panic!("{name}: {hit:?}")
        };
        let bytes = owner.content.len() as u64 * 512;
        assert_eq!(
            (&file.path, file.bytes, file.directory),
            (name, bytes, false)
        );
        let one =
            &owner.content[usize::try_from(stream.below(owner.content.len() as u64)).unwrap()];
        let hit = super::ask(&image, std::slice::from_ref(one));
        assert_eq!((&hit.files[0].path, hit.files[0].bytes), (name, 512));
        assert!(hit.metadata.is_empty() && hit.free.is_empty());
    }
    assert_eq!(hit.kind, "exFAT");
}

#[test]
fn hit_exfat() {
    if privileged("hit_exfat") {
        compares(case(64 * MIB, 512, 0, "-L Label"));
        compares(case(48 * MIB, 512, 0, "-c 512"));
    }
}
