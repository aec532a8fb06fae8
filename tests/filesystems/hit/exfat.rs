//! exFAT: the truth is what the driver in user space reads: every file is found by the bytes that it has
//! and nothing else has.

use super::marks;
use crate::exfat::{Case, Mounted, case, make};
use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::privileged;
use crate::kit::{MIB, scratch};
use std::collections::BTreeMap;

fn compares(case: Case) {
    let dir = scratch();
    let image = make(case, dir.path(), "image");
    let marks = {
        let mounted = Mounted::new(&image, &dir.path().join("mounted"), case.sector);
        marks::fill(mounted.path(), "Größe 磁盘")
    };
    let content = marks.find(&image);
    let len = bytes::length(&image);
    let hit = super::ask(&image, std::slice::from_ref(&(0..len)));
    let named: BTreeMap<&String, u64> = hit.files.iter().map(|f| (&f.path, f.number)).collect();
    assert_eq!(hit.incomplete, None);
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
