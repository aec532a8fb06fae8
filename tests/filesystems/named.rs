//! Formats that are only known by name, made by their own tools: all of them is taken.

use crate::cycle::Cycle;
use crate::kit::{MIB, bytes, scratch, tools};

#[test]
fn formats_known_by_name_are_taken_whole() {
    for (kind, len, tool, args) in [
        (
            "ReiserFS",
            64,
            "mkfs.reiserfs",
            ["-q", "-f", "-f"].as_slice(),
        ),
        ("JFS", 32, "mkfs.jfs", &["-q"]),
        ("NILFS2", 160, "mkfs.nilfs2", &["-q", "-f"]),
        ("minix", 8, "mkfs.minix", &["-1"]),
        ("minix", 8, "mkfs.minix", &["-2"]),
        ("minix", 8, "mkfs.minix", &["-3"]),
        ("dm-integrity", 16, "integritysetup", &["format", "-q"]),
    ] {
        let dir = scratch();
        let disk = dir.path().join("disk");
        bytes::create_sparse(&disk, len * MIB);
        let all = [args, &[disk.to_str().unwrap()]].concat();
        let output = tools::try_run(tool, &all);
        // Without a device mapper the last writes its superblock and then fails.
        if kind != "dm-integrity" {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{tool} {all:?}: {said}");
        } else if bytes::read(&disk, 0, 8) != b"integrt\0" {
            continue;
        }
        let cycle = Cycle::of(&disk, dir.path());
        let why = format!("used maps of {kind} are not read");
        cycle.only().assert_whole(kind, &why);
        bytes::assert_same(&disk, &cycle.restored);
    }
}
