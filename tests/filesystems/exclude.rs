//! Content of a Windows volume that is left out on request.

use crate::cycle::Cycle;
use crate::kit::bytes;
use crate::kit::privileged::{Loop, Mount, privileged};
use crate::kit::run::text;
use crate::kit::store::number;
use crate::kit::{MIB, scratch, tools};
use std::fs;
use std::path::Path;

/// An NTFS volume with a page file, a swap file, a hibernation file of a system that woke up, and
/// files that only look like them.
fn windows(dir: &Path) -> std::path::PathBuf {
    let disk = dir.join("windows");
    bytes::create_sparse(&disk, 128 * MIB);
    tools::run("mkntfs", &["-q", "-F", "-Q", text(&disk)]);
    let device = Loop::new(&disk);
    let mount = Mount::ntfs(device.path(), &dir.join("mnt"));
    let mut stream = bytes::Stream::new(11);
    let mut put = |name: &str, len: u64| {
        let path = mount.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, stream.bytes(len)).unwrap();
    };
    put("pagefile.sys", 20 * MIB);
    put("swapfile.sys", 5 * MIB + 100);
    put("documents/pagefile.sys", MIB);
    put("letter.txt", 3 * MIB);
    let mut hibernation = vec![0; 10 << 20];
    stream.fill(&mut hibernation[4096..]);
    fs::write(mount.path().join("hiberfil.sys"), &hibernation).unwrap();
    drop(mount);
    disk
}

/// The content of the files that a restored volume holds.
fn files(disk: &Path, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let device = Loop::read_only(disk);
    let mount = Mount::ntfs(device.path(), &dir.join("mnt-restored"));
    let names = [
        "pagefile.sys",
        "swapfile.sys",
        "hiberfil.sys",
        "documents/pagefile.sys",
        "letter.txt",
    ];
    let read = |name: &&str| (name.to_string(), fs::read(mount.path().join(name)).unwrap());
    let found = names.iter().map(read).collect();
    drop(mount);
    fs::remove_dir(dir.join("mnt-restored")).unwrap();
    found
}

#[test]
fn page_files_read_as_zeros() {
    if !privileged("page files that were left out read as zeros") {
        return;
    }
    let dir = scratch();
    let disk = windows(dir.path());
    let before = files(&disk, dir.path());
    for (words, gone) in [
        ("pagefile", vec!["pagefile.sys"]),
        ("swap,hibernation", vec!["swapfile.sys", "hiberfil.sys"]),
    ] {
        let out = dir.path().join(words);
        fs::create_dir(&out).unwrap();
        let cycle = Cycle::with(&disk, &out, &["--exclude", words]);
        cycle.only().assert_mapped("NTFS");
        let excluded = number(cycle.only().0, "excluded");
        let expected: usize = before
            .iter()
            .filter(|(n, _)| gone.contains(&n.as_str()))
            .map(|(_, c)| c.len())
            .sum();
        let expected = u64::try_from(expected).unwrap();
        assert!(
            excluded >= expected && excluded < expected + MIB,
            "{excluded} of {expected}"
        );
        let after = files(&cycle.restored, &out);
        for ((name, was), (_, is)) in before.iter().zip(&after) {
            if gone.contains(&name.as_str()) {
                assert!(
                    is.len() == was.len() && is.iter().all(|b| *b == 0),
                    "{name}"
                );
            } else {
                assert!(is == was, "{name}");
            }
        }
    }
}
