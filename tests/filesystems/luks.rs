//! LUKS headers that `cryptsetup` makes. No device mapper is needed for that.

use crate::cycle::Cycle;
use crate::kit::{MIB, bytes, scratch, tools};
use std::path::Path;

/// Makes a LUKS header on a file of 32 MiB of random bytes, with a pass phrase.
fn format(dir: &Path, options: &[&str]) -> std::path::PathBuf {
    let disk = dir.join("disk");
    bytes::create_sparse(&disk, 32 * MIB);
    bytes::write_random(&disk, 0, 32 * MIB, 5);
    let fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let mut args = vec!["luksFormat", "--batch-mode", "--key-file", "-"];
    args.extend(fast);
    args.extend(options);
    args.push(disk.to_str().unwrap());
    tools::run_with_input("cryptsetup", &args, "secret");
    disk
}

#[test]
fn both_versions_come_back_to_the_last_byte() {
    for (version, kind) in [("luks1", "LUKS1"), ("luks2", "LUKS2")] {
        let dir = scratch();
        let disk = format(dir.path(), &["--type", version]);
        let cycle = Cycle::of(&disk, dir.path());
        cycle.only().assert_mapped(kind);
        assert!(cycle.only().reason().contains("all of it is in use"));
        assert_eq!(cycle.only().free(), 0);
        bytes::assert_same(&disk, &cycle.restored);
        let restored = cycle.restored.to_str().unwrap();
        let test = ["open", "--test-passphrase", "--key-file", "-", restored];
        tools::run_with_input("cryptsetup", &test, "secret");
    }
}

#[test]
fn a_damaged_header_is_told() {
    let dir = scratch();
    let disk = format(dir.path(), &["--type", "luks2", "--label", "safe"]);
    bytes::flip(&disk, 4096 + 20);
    let cycle = Cycle::of(&disk, dir.path());
    cycle
        .only()
        .assert_whole("LUKS2", "checksum of its first LUKS2 header");
    assert_eq!(cycle.only().0["label"], "safe");
}
