//! What happens between the guard's permission and the open target, what an open target holds, and
//! reading. On real loop devices; needs root, as tests/guard.rs does.

// A helper of tests gives up by panicking, as they do.
#![allow(clippy::unwrap_used)]

mod guard_rig;

use diskstrata::base::{ByteOffset, ErrorKind};
use diskstrata::block::BlockTarget;
use diskstrata::device::{Consistency, claim_read, permit_write};
use guard_rig::ask::{MIB, find, needs, refused, try_write};
use guard_rig::{Rig, run};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Permits `name`, lets `meanwhile` happen, and asserts that the permit is then worth nothing.
fn refused_at_opening(name: &Path, content: &Path, meanwhile: impl FnOnce(), reason: &str) {
    refused_for_one_of(name, content, meanwhile, &[reason]);
}

/// The same where the kernel decides which of several reasons it is.
fn refused_for_one_of(name: &Path, content: &Path, meanwhile: impl FnOnce(), reasons: &[&str]) {
    let (inventory, found) = find(name);
    let permit = permit_write(&inventory, &found, &needs(0)).unwrap();
    meanwhile();
    run("sync", &[]);
    let before = guard_rig::digest(content);
    let error = permit.into_target().unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Refused, "{text}");
    assert!(reasons.iter().any(|reason| text.contains(reason)), "{text}");
    assert_eq!(before, guard_rig::digest(content));
}

#[test]
fn another_disk_since_the_permit() {
    let Some(rig) = Rig::new("another_disk_since_the_permit") else {
        return;
    };
    let mut disk = rig.disk("disk", 4 * MIB);
    let other = rig.file("other", 4 * MIB);
    let path = disk.path().to_owned();
    let meanwhile = || disk.point_to(&other);
    refused_at_opening(&path, &other, meanwhile, "disk sequence number");
}

#[test]
fn mounted_since_the_permit() {
    let Some(rig) = Rig::new("mounted_since_the_permit") else {
        return;
    };
    let disk = rig.ext4("disk");
    let mut point = None;
    let meanwhile = || point = Some(rig.mount(&disk, "point", &[]));
    refused_at_opening(disk.path(), disk.path(), meanwhile, "claimed");
}

#[test]
fn a_link_moved_since_the_permit() {
    let Some(rig) = Rig::new("a_link_moved_since_the_permit") else {
        return;
    };
    let one = rig.disk("one", 4 * MIB);
    let two = rig.disk("two", 4 * MIB);
    let link = rig.path("link");
    symlink(one.path(), &link).unwrap();
    let meanwhile = || {
        std::fs::remove_file(&link).unwrap();
        symlink(two.path(), &link).unwrap();
    };
    refused_at_opening(&link, two.path(), meanwhile, "now leads elsewhere");
}

#[test]
fn a_file_replaced_since_the_permit() {
    let Some(rig) = Rig::new("a_file_replaced_since_the_permit") else {
        return;
    };
    let file = rig.file("file", MIB);
    let other = rig.file("other", MIB);
    let meanwhile = || std::fs::rename(&other, &file).unwrap();
    refused_at_opening(&file, &file, meanwhile, "another file has taken its place");
    let (inventory, found) = find(&file);
    let permit = permit_write(&inventory, &found, &needs(MIB)).unwrap();
    let shortened = std::fs::File::options().write(true).open(&file);
    shortened.unwrap().set_len(10).unwrap();
    assert!(
        permit
            .into_target()
            .unwrap_err()
            .to_string()
            .contains("too small")
    );
    let new = rig.path("new");
    let (inventory, found) = find(&new);
    let permit = permit_write(&inventory, &found, &needs(MIB)).unwrap();
    std::fs::write(&new, b"mine").unwrap();
    assert_eq!(permit.into_target().unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(std::fs::read(&new).unwrap(), b"mine");
}

#[test]
fn locked_by_another_program() {
    let Some(rig) = Rig::new("locked_by_another_program") else {
        return;
    };
    let disk = rig.disk("disk", MIB);
    let before = guard_rig::digest(disk.path());
    let other = std::fs::File::open(disk.path()).unwrap();
    other.lock_shared().unwrap();
    let error = try_write(disk.path(), &needs(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    other.unlock().unwrap();
    other.lock().unwrap();
    let (inventory, found) = find(disk.path());
    let error = claim_read(&inventory, &found).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    drop(other);
    assert_eq!(before, guard_rig::digest(disk.path()));
}

#[test]
fn an_idle_disk_is_written_and_held() {
    let Some(rig) = Rig::new("an_idle_disk_is_written_and_held") else {
        return;
    };
    let disk = rig.disk("disk", 4 * MIB);
    // What this process itself has open is its own business.
    let mine = std::fs::File::options().write(true).open(disk.path());
    let (inventory, found) = find(disk.path());
    let permit = permit_write(&inventory, &found, &needs(4 * MIB)).unwrap();
    drop(mine);
    assert!(!permit.created());
    let target = permit.into_target().unwrap();
    target.write_at(ByteOffset(512), &[7; 4096]).unwrap();
    target.flush().unwrap();
    let mut back = [0; 4096];
    target.read_back(ByteOffset(512), &mut back).unwrap();
    assert_eq!(back, [7; 4096]);
    // The claim lasts as long as the target: no mount, no second writer, no reader that locks.
    refused(disk.path(), disk.path(), &needs(0), &["claimed"]);
    let (inventory, found) = find(disk.path());
    assert_eq!(
        claim_read(&inventory, &found).unwrap_err().kind(),
        ErrorKind::Locked
    );
    drop(target);
    let (inventory, found) = find(disk.path());
    assert!(permit_write(&inventory, &found, &needs(0)).is_ok());
}

#[test]
fn files_are_created_exactly_or_kept_as_long_as_they_are() {
    let Some(rig) = Rig::new("files_are_created_exactly_or_kept_as_long_as_they_are") else {
        return;
    };
    let new = rig.path("new.img");
    let (inventory, found) = find(&new);
    let permit = permit_write(&inventory, &found, &needs(3 * MIB + 512)).unwrap();
    assert!(permit.created());
    assert!(!new.exists(), "a permit alone creates nothing");
    let target = permit.into_target().unwrap();
    let metadata = std::fs::metadata(&new).unwrap();
    assert_eq!(metadata.len(), 3 * MIB + 512);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.blocks(), 0, "sparse");
    assert!(target.starts_zeroed());
    drop(target);
    let (inventory, found) = find(&new);
    let permit = permit_write(&inventory, &found, &needs(MIB)).unwrap();
    assert!(!permit.created());
    let target = permit.into_target().unwrap();
    target.write_at(ByteOffset(0), &[9; 512]).unwrap();
    target.flush().unwrap();
    assert!(!target.starts_zeroed());
    assert_eq!(std::fs::metadata(&new).unwrap().len(), 3 * MIB + 512);
}

#[test]
fn a_source_is_never_written() {
    let Some(rig) = Rig::new("a_source_is_never_written") else {
        return;
    };
    let disk = rig.ext4("disk");
    run("sync", &[]);
    let before = guard_rig::digest(disk.path());
    let (inventory, found) = find(disk.path());
    let claim = claim_read(&inventory, &found).unwrap();
    assert_eq!(claim.consistency(), &Consistency::Unmounted);
    assert_eq!(
        claim.identity().diskseq,
        claim_read(&inventory, &found).unwrap().identity().diskseq
    );
    let mut bytes = vec![0; 1 << 20];
    claim.source().read_at(ByteOffset(0), &mut bytes).unwrap();
    assert_eq!(
        &bytes[1024 + 56..1024 + 58],
        &[0x53, 0xef],
        "the ext4 superblock"
    );
    drop(claim);
    assert_eq!(before, guard_rig::digest(disk.path()));
    let _point = rig.mount(&disk, "point", &[]);
    let (inventory, found) = find(disk.path());
    let claim = claim_read(&inventory, &found).unwrap();
    assert!(
        matches!(claim.consistency(), Consistency::Live(texts) if texts[0].contains("mounted at"))
    );
}

#[test]
fn a_partition_is_written_beside_a_mounted_one() {
    let Some(rig) = Rig::new("a_partition_is_written_beside_a_mounted_one") else {
        return;
    };
    let disk = rig.disk("disk", 24 * MIB);
    let parts = disk.partitions(&["1MiB,16MiB", "17MiB,4MiB"]);
    let [first, second] = parts.as_slice() else {
        eprintln!("SKIPPED: this kernel shows no partitions of loop devices");
        return;
    };
    run("mkfs.ext4", &["-q", "-F", first.to_str().unwrap()]);
    let _point = rig.mount_path(first, "point");
    let on = format!("{} is mounted at", first.display());
    refused(disk.path(), disk.path(), &needs(0), &[&on]);
    refused(first, disk.path(), &needs(0), &[&on]);
    let (inventory, found) = find(second);
    let permit = permit_write(&inventory, &found, &needs(4 * MIB)).unwrap();
    let target = permit.into_target().unwrap();
    target.write_at(ByteOffset(0), &[3; 512]).unwrap();
    target.flush().unwrap();
    drop(target);
    let (inventory, found) = find(disk.path());
    let claim = claim_read(&inventory, &found).unwrap();
    let mut bytes = [0; 512];
    claim
        .source()
        .read_at(ByteOffset(17 * MIB), &mut bytes)
        .unwrap();
    assert_eq!(bytes, [3; 512]);
}

#[test]
fn a_partition_moved_since_the_permit() {
    let Some(rig) = Rig::new("a_partition_moved_since_the_permit") else {
        return;
    };
    let disk = rig.disk("disk", 24 * MIB);
    let parts = disk.partitions(&["1MiB,4MiB"]);
    let [part] = parts.as_slice() else {
        eprintln!("SKIPPED: this kernel shows no partitions of loop devices");
        return;
    };
    let meanwhile = || {
        disk.partitions(&["9MiB,4MiB"]);
    };
    // A partition that is made anew gets the old device number back, unless another test has it.
    let reasons = ["it begins at another place", "now leads to another device"];
    refused_for_one_of(part, disk.file(), meanwhile, &reasons);
}
