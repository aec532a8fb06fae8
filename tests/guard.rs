//! The guard's refusals on real loop devices, mounts and swap. Needs root; skipped loudly without,
//! and a skip is a failure where `STRATA_REQUIRE_PRIVILEGED=1`.

mod guard_rig;

use diskstrata::base::{ByteLen, ErrorKind};
use diskstrata::device::{
    Consistency, DiskIdentity, WriteRequest, claim_read, permit_write, resolve,
};
use guard_rig::ask::{MIB, find, inventory, needs, refused, try_write};
use guard_rig::{Disk, Holder, Rig, run};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn away(paths: &[&Path]) -> WriteRequest {
    WriteRequest {
        keep_away: paths.iter().map(|p| PathBuf::from(*p)).collect(),
        ..WriteRequest::default()
    }
}

#[test]
fn mounted() {
    let Some(rig) = Rig::new("mounted") else {
        return;
    };
    let disk = rig.ext4("disk");
    let point = rig.mount(&disk, "point with blank", &[]);
    let at = format!("is mounted at {}", point.path().display());
    refused(
        disk.path(),
        disk.path(),
        &needs(0),
        &[&at, "ext4, read-write"],
    );
}

#[test]
fn mounted_read_only() {
    let Some(rig) = Rig::new("mounted_read_only") else {
        return;
    };
    let disk = rig.ext4("disk");
    let _point = rig.mount(&disk, "point", &["-o", "ro"]);
    refused(disk.path(), disk.path(), &needs(0), &["ext4, read-only"]);
    let (inventory, found) = find(disk.path());
    let claim = claim_read(&inventory, &found).unwrap();
    let consistency = claim.consistency();
    assert!(
        matches!(consistency, Consistency::ReadOnlyMounted(_)),
        "{consistency:?}"
    );
}

#[test]
fn mounted_elsewhere_after_the_first_mount_is_gone() {
    let Some(rig) = Rig::new("mounted_elsewhere_after_the_first_mount_is_gone") else {
        return;
    };
    let disk = rig.ext4("disk");
    let point = rig.mount(&disk, "point", &[]);
    let bound = rig.bind(point.path(), "bound");
    drop(point);
    let at = format!("is mounted at {}", bound.path().display());
    refused(disk.path(), disk.path(), &needs(0), &[&at]);
}

#[test]
fn mounted_in_another_namespace() {
    let Some(rig) = Rig::new("mounted_in_another_namespace") else {
        return;
    };
    let disk = rig.ext4("disk");
    let point = rig.folder("point");
    let script = format!(
        "mount {} {} && echo ready && read -r _",
        disk.path().display(),
        point.display()
    );
    let holder = Holder::spawn("unshare", &["--mount", "sh", "-c", &script]);
    let seen = format!("seen by process {}", holder.pid());
    refused(
        disk.path(),
        disk.path(),
        &needs(0),
        &["in another mount namespace", &seen],
    );
}

#[test]
fn lower_folder_of_an_overlay() {
    let Some(rig) = Rig::new("lower_folder_of_an_overlay") else {
        return;
    };
    let disk = rig.ext4("disk");
    let lower = rig.mount(&disk, "lower", &[]);
    let merged = rig.overlay(lower.path(), "merged");
    let overlay = format!("is mounted at {} (overlay", merged.path().display());
    let own = format!("is mounted at {} (ext4", lower.path().display());
    refused(disk.path(), disk.path(), &needs(0), &[&overlay, &own]);
}

#[test]
fn swap() {
    let Some(rig) = Rig::new("swap") else { return };
    let disk = rig.disk("disk", 16 * MIB);
    run("mkswap", &[disk.path().to_str().unwrap()]);
    let _swap = rig.swap(disk.path());
    let what = format!("{} is in use as swap", disk.path().display());
    refused(disk.path(), disk.path(), &needs(0), &[&what]);
}

#[test]
fn swap_file() {
    let Some(rig) = Rig::new("swap_file") else {
        return;
    };
    let disk = rig.ext4("disk");
    let point = rig.mount(&disk, "point", &[]);
    let file = point.path().join("swap file");
    guard_rig::fill(&file, 4 * MIB);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    run("mkswap", &[file.to_str().unwrap()]);
    let _swap = rig.swap(&file);
    refused(&file, &file, &needs(0), &["this file is in use as swap"]);
    let what = format!("{} is in use as swap", file.display());
    refused(
        disk.path(),
        disk.path(),
        &needs(0),
        &[&what, "is mounted at"],
    );
}

#[test]
fn read_only_device() {
    let Some(rig) = Rig::new("read_only_device") else {
        return;
    };
    let disk = rig.read_only("disk", 4 * MIB);
    refused(disk.path(), disk.path(), &needs(0), &["it is read-only"]);
}

#[test]
fn too_small_by_a_sector() {
    let Some(rig) = Rig::new("too_small_by_a_sector") else {
        return;
    };
    let disk = rig.disk("disk", 4 * MIB);
    let reason = "it is too small: 4194816 bytes are needed, it has 4194304";
    refused(disk.path(), disk.path(), &needs(4 * MIB + 512), &[reason]);
    let file = rig.file("file", 4 * MIB);
    refused(&file, &file, &needs(4 * MIB + 512), &[reason]);
}

#[test]
fn holds_the_store() {
    let Some(rig) = Rig::new("holds_the_store") else {
        return;
    };
    let disk = rig.ext4("disk");
    let point = rig.mount(&disk, "point", &[]);
    let store = point.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let image = point.path().join("one.image");
    guard_rig::fill(&image, 4096);
    refused(
        disk.path(),
        disk.path(),
        &away(&[&store, &image]),
        &[
            &format!("{} lies on it", store.display()),
            &format!("{} lies on it", image.display()),
            "is mounted at",
        ],
    );
}

#[test]
fn is_an_image_or_lies_in_the_store() {
    let Some(rig) = Rig::new("is_an_image_or_lies_in_the_store") else {
        return;
    };
    let store = rig.folder("store");
    let image = store.join("image");
    guard_rig::fill(&image, 8192);
    let part = format!("it is part of {}", store.display());
    refused(&image, &image, &away(&[&store]), &[&part]);
    let alias = rig.path("alias");
    std::fs::hard_link(&image, &alias).unwrap();
    let part = format!("it is part of {}", image.display());
    refused(&alias, &image, &away(&[&image]), &[&part]);
}

#[test]
fn a_loop_device_that_shows_an_image() {
    let Some(rig) = Rig::new("a_loop_device_that_shows_an_image") else {
        return;
    };
    let disk = rig.disk("image", 4 * MIB);
    let part = format!("it is part of {}", disk.file().display());
    refused(disk.path(), disk.file(), &away(&[disk.file()]), &[&part]);
}

#[test]
fn a_file_behind_a_loop_device() {
    let Some(rig) = Rig::new("a_file_behind_a_loop_device") else {
        return;
    };
    let disk = rig.disk("disk", 4 * MIB);
    let shows = format!(
        "loop device {} shows this file as a disk",
        disk.path().display()
    );
    refused(disk.file(), disk.file(), &needs(0), &[&shows]);
    let moved = rig.path("moved");
    std::fs::rename(disk.file(), &moved).unwrap();
    refused(&moved, &moved, &needs(8 * MIB), &[&shows, "too small"]);
}

#[test]
fn the_source_under_other_names() {
    let Some(rig) = Rig::new("the_source_under_other_names") else {
        return;
    };
    let disk = rig.disk("disk", 4 * MIB);
    let node = rig.path("node");
    let minor = std::fs::metadata(disk.path()).unwrap().rdev() & 0xff;
    run(
        "mknod",
        &[node.to_str().unwrap(), "b", "7", &minor.to_string()],
    );
    let link = rig.path("link");
    symlink(disk.path(), &link).unwrap();
    for name in [disk.path(), node.as_path(), link.as_path()] {
        let request = WriteRequest {
            source: Some(find(disk.path()).1),
            ..WriteRequest::default()
        };
        let itself = format!("it is the source {} itself", disk.path().display());
        refused(name, disk.path(), &request, &[&itself]);
    }
    // The file behind the source, and the source behind a file.
    let request = WriteRequest {
        source: Some(find(disk.path()).1),
        ..WriteRequest::default()
    };
    refused(
        disk.file(),
        disk.file(),
        &request,
        &["it is the source", "loop device"],
    );
    let request = WriteRequest {
        source: Some(find(disk.file()).1),
        ..WriteRequest::default()
    };
    refused(disk.path(), disk.path(), &request, &["it is the source"]);
}

#[test]
fn claimed_by_another_process() {
    let Some(rig) = Rig::new("claimed_by_another_process") else {
        return;
    };
    let disk = rig.disk("disk", 4 * MIB);
    let _holder = Holder::claims(disk.path());
    let (inventory, found) = find(disk.path());
    let planned = permit_write(&inventory, &found, &needs(0)).unwrap_err();
    assert!(
        planned.to_string().contains("claimed"),
        "before it is opened: {planned}"
    );
    refused(
        disk.path(),
        disk.path(),
        &needs(0),
        &["another program has claimed it"],
    );
}

#[test]
fn open_for_writing_in_another_process() {
    let Some(rig) = Rig::new("open_for_writing_in_another_process") else {
        return;
    };
    let disk = rig.disk("disk", 4 * MIB);
    let script = format!(
        "exec 7<>{} && echo ready && read -r _",
        disk.path().display()
    );
    let holder = Holder::spawn("bash", &["-c", &script]);
    let open = format!("open for writing in process {} (bash)", holder.pid());
    refused(disk.path(), disk.path(), &needs(0), &[&open]);
    let (inventory, found) = find(disk.path());
    let claim = claim_read(&inventory, &found).unwrap();
    assert!(matches!(claim.consistency(), Consistency::Live(_)));
}

#[test]
fn another_disk_since_the_plan() {
    let Some(rig) = Rig::new("another_disk_since_the_plan") else {
        return;
    };
    let mut disk = rig.disk("disk", 4 * MIB);
    let (inventory, found) = find(disk.path());
    let expected = Some(DiskIdentity::of(&inventory, &found).unwrap());
    disk.point_to(&rig.file("other", 4 * MIB));
    let request = WriteRequest {
        expected,
        ..WriteRequest::default()
    };
    let changed = "not the disk that was chosen: its disk sequence number was";
    refused(disk.path(), disk.path(), &request, &[changed]);
}

#[test]
fn no_disks_at_all() {
    let Some(rig) = Rig::new("no_disks_at_all") else {
        return;
    };
    let fifo = rig.path("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    let folder = rig.folder("folder");
    for (path, reason) in [
        (Path::new("/dev/null"), "character device"),
        (&fifo, "pipe"),
        (&folder, "folder"),
    ] {
        let error = try_write(path, &needs(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_loop_device_without_a_file() {
    let Some(rig) = Rig::new("a_loop_device_without_a_file") else {
        return;
    };
    // Another test may take the empty device at once: the answer is then about its disk.
    let said = (0..50).map(|n| {
        let mut disk = rig.disk(&format!("disk{n}"), MIB);
        let empty = disk.path().to_owned();
        disk.detach();
        try_write(&empty, &needs(0))
            .map(drop)
            .map_err(|e| (e.kind(), e.to_string()))
    });
    let empty = |answer: &Result<(), (ErrorKind, String)>| matches!(answer, Err((ErrorKind::Refused, text)) if text.contains("no medium"));
    assert!(said.into_iter().any(|answer| empty(&answer)));
}

#[test]
fn the_running_root() {
    let Some(_rig) = Rig::new("the_running_root") else {
        return;
    };
    let inventory = inventory();
    let devices = inventory.devices_of_path(Path::new("/"));
    let Some(root) = devices.first().and_then(|dev| inventory.device(*dev)) else {
        eprintln!("SKIPPED: / lies on no disk of this machine");
        return;
    };
    let found = resolve(&inventory, root.path.to_str().unwrap()).unwrap();
    let error = permit_write(&inventory, &found, &needs(0)).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(text.contains("the running system has its / on"), "{text}");
    assert!(text.contains("is mounted at /"), "{text}");
}

#[test]
fn several_reasons_are_all_listed() {
    let Some(rig) = Rig::new("several_reasons_are_all_listed") else {
        return;
    };
    let disk = rig.ext4("disk");
    let point = rig.mount(&disk, "point", &[]);
    let inner = Disk::attach(&{
        let file = point.path().join("inner");
        guard_rig::fill(&file, MIB);
        file
    });
    let request = WriteRequest {
        needed_len: ByteLen(1 << 40),
        keep_away: vec![point.path().to_owned()],
        source: Some(find(inner.path()).1),
        expected: Some({
            let (inventory, found) = find(inner.path());
            DiskIdentity::of(&inventory, &found).unwrap()
        }),
    };
    refused(
        disk.path(),
        disk.path(),
        &request,
        &[
            "not the disk that was chosen",
            "is mounted at",
            "shows its file",
            "lies on it",
            &format!("the source {} lies on it", inner.path().display()),
            "too small",
        ],
    );
}

/// No test: what [`Holder::claims`] runs in another process.
#[test]
#[ignore = "run by other tests in a process of its own"]
fn holds_a_disk() {
    guard_rig::hold_claim();
}
