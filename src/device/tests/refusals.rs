//! The other reasons: what must be kept, sources, room, identity; and that all are listed.

use super::machine::{Machine, inventory, target};
use super::words::{has, plain, reasons};
use crate::base::{ByteLen, ErrorKind};
use crate::device::{
    DiskIdentity, Inventory, Overlap, Process, Refusal, Resolved, TargetFacts, Unfit, Use,
    WriteRequest, permit_write, refusals,
};
use std::path::PathBuf;

fn away(path: &str) -> WriteRequest {
    WriteRequest {
        keep_away: vec![PathBuf::from(path)],
        ..WriteRequest::default()
    }
}

fn from(inventory: &Inventory, source: &str) -> WriteRequest {
    WriteRequest {
        source: Some(target(inventory, source)),
        ..WriteRequest::default()
    }
}

#[test]
fn what_must_be_kept() {
    let (_machine, inventory) = inventory("sata-server");
    for name in ["sda", "sdb3", "md1", "dm-1"] {
        let text = reasons(&inventory, name, &away("/srv/store")).join("\n");
        has(&text, &["/srv/store lies on it"]);
    }
    for name in ["sdc", "sda1"] {
        assert!(reasons(&inventory, name, &away("/srv/store")).is_empty());
    }
    let text = reasons(&inventory, "md0", &away("/srv/store")).join("\n");
    assert!(!text.contains("lies on it"), "{text}");
}

#[test]
fn files_that_must_be_kept() {
    let (_machine, inventory) = inventory("snap-loops");
    let file = "/var/lib/images/free.img";
    has(
        &reasons(&inventory, file, &away(file)).join("\n"),
        &["it is part of /var/lib/images/free.img"],
    );
    has(
        &reasons(&inventory, file, &away("/var/lib/images")).join("\n"),
        &["it is part of /var/lib/images"],
    );
    // The file is overwritten through the loop device that shows it.
    has(
        &reasons(&inventory, "loop5", &away("/var/lib/images/idle.img")).join("\n"),
        &["it is part of /var/lib/images/idle.img"],
    );
    has(
        &reasons(&inventory, "loop3p1", &away("/var/lib/images")).join("\n"),
        &["it is part of /var/lib/images"],
    );
}

#[test]
fn sources_are_no_targets() {
    let (_machine, server) = inventory("sata-server");
    let overlap = |inventory: &Inventory, t: &str, s: &str| {
        let (t, s) = (target(inventory, t), target(inventory, s));
        inventory.overlap(&t, &s)
    };
    assert_eq!(
        overlap(&server, "sdc", "WD-WX12D3456789"),
        Some(Overlap::Same)
    );
    assert_eq!(
        overlap(&server, "sda1", "sda"),
        Some(Overlap::TargetOnSource)
    );
    assert_eq!(
        overlap(&server, "dm-1", "sda"),
        Some(Overlap::TargetOnSource)
    );
    assert_eq!(
        overlap(&server, "sda", "sda1"),
        Some(Overlap::SourceOnTarget)
    );
    assert_eq!(
        overlap(&server, "sdb", "dm-0"),
        Some(Overlap::SourceOnTarget)
    );
    assert_eq!(overlap(&server, "sda1", "sdb1"), None);
    assert_eq!(overlap(&server, "sda1", "sda2"), None);
    let (_machine, san) = inventory("multipath-san");
    assert_eq!(
        overlap(&san, "/dev/sdf", "/dev/sdg"),
        Some(Overlap::Same),
        "two ways, one disk"
    );
    assert_eq!(
        overlap(&san, "/dev/sdb", "mpatha"),
        Some(Overlap::SourceOnTarget)
    );
    let (_machine, usb) = inventory("usb-stick");
    assert_eq!(
        overlap(&usb, "/dev/sdb", "/dev/sdc"),
        None,
        "serial numbers of sticks lie"
    );
    let (_machine, loops) = inventory("snap-loops");
    let (idle, disk) = ("/var/lib/images/idle.img", "/var/lib/images/disk.img");
    assert_eq!(overlap(&loops, "loop5", idle), Some(Overlap::Same));
    assert_eq!(overlap(&loops, idle, "loop5"), Some(Overlap::Same));
    assert_eq!(overlap(&loops, idle, idle), Some(Overlap::Same));
    assert_eq!(
        overlap(&loops, disk, "loop3p1"),
        Some(Overlap::SourceOnTarget)
    );
    assert_eq!(
        overlap(&loops, "loop3p1", disk),
        Some(Overlap::TargetOnSource)
    );
    assert_eq!(overlap(&loops, "vda", idle), Some(Overlap::SourceOnTarget));
    assert_eq!(overlap(&loops, "loop5", disk), None);
    let text = reasons(&server, "sda1", &from(&server, "sda")).join("\n");
    has(&text, &["it is a part of the source /dev/sda"]);
}

#[test]
fn too_small_by_one_byte() {
    let (_machine, inventory) = inventory("sata-server");
    let len = inventory.named("sdc").unwrap().len.0;
    let request = |needed| WriteRequest {
        needed_len: ByteLen(needed),
        ..WriteRequest::default()
    };
    assert!(reasons(&inventory, "sdc", &request(len)).is_empty());
    let text = reasons(&inventory, "sdc", &request(len + 1)).join("\n");
    has(
        &text,
        &["it is too small: 4000787030017 bytes are needed, it has 4000787030016"],
    );
    let (_machine, loops) = super::machine::inventory("snap-loops");
    has(
        &reasons(&loops, "/var/lib/images/free.img", &request(8)).join(""),
        &["needed, it has 7"],
    );
}

#[test]
fn read_only_targets() {
    let (_machine, inventory) = inventory("swap");
    for name in ["sdc", "sdc1"] {
        has(&plain(&inventory, name), &["it is read-only"]);
    }
    let machine = Machine::new("usb-stick");
    machine.append(
        "/proc/self/mountinfo",
        "130 28 8:1 /iso /iso ro - ext4 /dev/sda1 rw",
    );
    machine.write("/iso/disk.img", b"disk");
    let inventory = machine.read();
    for name in ["/iso/disk.img", "/iso/new.img"] {
        has(
            &plain(&inventory, name),
            &["the file system at /iso is mounted read-only"],
        );
    }
}

#[test]
fn a_file_that_is_mounted() {
    let machine = Machine::new("usb-stick");
    machine.write("/srv/disk.img", b"disk");
    machine.append(
        "/proc/self/mountinfo",
        "130 28 8:1 /srv/disk.img /etc/bound rw - ext4 /dev/sda1 rw",
    );
    has(
        &plain(&machine.read(), "/srv/disk.img"),
        &["this file is mounted at /etc/bound"],
    );
}

#[test]
fn not_the_disk_of_the_plan() {
    let machine = Machine::new("sata-server");
    let before = machine.read();
    let expected = Some(DiskIdentity::of(&before, &target(&before, "sdc")).unwrap());
    let request = WriteRequest {
        expected,
        ..WriteRequest::default()
    };
    assert!(reasons(&before, "sdc", &request).is_empty());
    let folder = machine.at("/sys/class/block/sdc").canonicalize().unwrap();
    std::fs::write(folder.join("diskseq"), "42").unwrap();
    let text = reasons(&machine.read(), "sdc", &request).join("\n");
    has(
        &text,
        &["not the disk that was chosen: its disk sequence number was 3, is 42"],
    );
}

#[test]
fn a_program_that_writes_to_a_file() {
    let machine = Machine::new("swap");
    let file = machine.at("/data/other");
    machine.link("/proc/812/fd/7", file.to_str().unwrap());
    machine.write("/proc/812/fdinfo/7", b"pos:\t0\nflags:\t0100002\n");
    has(
        &plain(&machine.read(), "/data/other"),
        &["it is open for writing in process 812 (qemu-system-x86)"],
    );
    machine.write("/proc/812/fdinfo/7", b"pos:\t0\nflags:\t0100000\n");
    assert_eq!(plain(&machine.read(), "/data/other"), "");
}

#[test]
fn a_folder_that_is_missing() {
    let (_machine, inventory) = inventory("swap");
    let target = Resolved::File {
        path: "/nowhere/disk.img".into(),
        exists: false,
    };
    let error = permit_write(&inventory, &target, &WriteRequest::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let folder = Resolved::File {
        path: "/data".into(),
        exists: true,
    };
    let error = permit_write(&inventory, &folder, &WriteRequest::default()).unwrap_err();
    assert!(error.to_string().contains("it is a folder"), "{error}");
}

#[test]
fn all_reasons_at_once() {
    let (_machine, inventory) = inventory("nvme-laptop");
    let request = WriteRequest {
        needed_len: ByteLen(1 << 50),
        keep_away: vec!["/home/store".into(), "/boot".into()],
        source: Some(target(&inventory, "nvme0n1p1")),
        expected: Some(DiskIdentity::of(&inventory, &target(&inventory, "dm-0")).unwrap()),
    };
    let text = reasons(&inventory, "nvme0n1", &request).join("\n");
    has(
        &text,
        &[
            "not the disk that was chosen",
            "the running system has its / on",
            "is mounted at /boot/efi",
            "in use as swap",
            "held by LUKS",
            "/home/store lies on it",
            "/boot lies on it",
            "the source /dev/nvme0n1p1 lies on it",
            "too small",
        ],
    );
}

#[test]
fn a_table_of_facts_and_refusals() {
    let mounted = Use::Mounted {
        device: "/dev/x1".into(),
        point: "/mnt".into(),
        fs_type: "ext4".into(),
        read_only: true,
        process: None,
    };
    let process = Process {
        pid: 7,
        name: "qemu".into(),
    };
    let facts = TargetFacts::default;
    let rows: Vec<(TargetFacts, Vec<Refusal>)> = vec![
        (facts(), vec![]),
        (
            TargetFacts {
                unfit: Some(Unfit::Fifo),
                ..facts()
            },
            vec![Refusal::Unfit(Unfit::Fifo)],
        ),
        (
            TargetFacts {
                claimed: true,
                ..facts()
            },
            vec![Refusal::Claimed],
        ),
        (
            // Who has claimed it is known.
            TargetFacts {
                claimed: true,
                uses: vec![mounted.clone()],
                ..facts()
            },
            vec![Refusal::InUse(mounted)],
        ),
        (
            TargetFacts {
                writers: vec![process.clone()],
                ..facts()
            },
            vec![Refusal::OpenForWriting {
                processes: vec![process],
            }],
        ),
        (
            TargetFacts {
                is_swap_file: true,
                loops: vec!["l".into()],
                ..facts()
            },
            vec![Refusal::BacksLoop { device: "l".into() }, Refusal::SwapFile],
        ),
        (
            TargetFacts {
                needed: ByteLen(2),
                len: Some(ByteLen(1)),
                ..facts()
            },
            vec![Refusal::TooSmall {
                needed: ByteLen(2),
                has: ByteLen(1),
            }],
        ),
        (
            TargetFacts {
                needed: ByteLen(2),
                len: None,
                ..facts()
            },
            vec![],
        ),
        (
            TargetFacts {
                read_only: Some("w".into()),
                ..facts()
            },
            vec![Refusal::ReadOnly { why: "w".into() }],
        ),
    ];
    for (facts, expected) in rows {
        assert_eq!(refusals(&facts), expected, "{facts:?}");
    }
}
