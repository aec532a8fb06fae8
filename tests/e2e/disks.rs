//! The disks of the kit are what they claim to be: otherwise nothing that uses them proves much.

use crate::kit::bytes;
use crate::kit::disk::{Content, Disk, Layout};
use crate::kit::privileged::{Loop, privileged};
use crate::kit::run::text;
use crate::kit::{MIB, scratch, tools};

const ALL: [Layout; 9] = [
    Layout::Gpt512,
    Layout::Gpt4096,
    Layout::Mbr,
    Layout::WholeExt4,
    Layout::Random,
    Layout::GptDamagedPrimary,
    Layout::GptDamagedBackup,
    Layout::Zero,
    Layout::Odd,
];

#[test]
fn the_same_seed_makes_the_same_disk_and_another_seed_another() {
    let dir = scratch();
    for layout in ALL {
        let first = Disk::build(layout, dir.path(), "first", 1);
        let again = Disk::build(layout, dir.path(), "again", 1);
        // An ext4 holds the times of the files that it was made from; everything else is decided.
        let mut decided = 0;
        for part in first.parts.iter().filter(|p| p.content == Content::Ext4) {
            let same = part.start - decided;
            bytes::assert_same_range(&first.path, decided, &again.path, decided, same);
            decided = part.start + part.len;
        }
        if layout != Layout::WholeExt4 {
            let same = first.len - decided;
            bytes::assert_same_range(&first.path, decided, &again.path, decided, same);
        }
        let other = Disk::build(layout, dir.path(), "other", 2);
        let differs = !bytes::same(&first.path, &other.path);
        assert_eq!(differs, layout != Layout::Zero, "{layout:?}");
    }
}

#[test]
fn partitions_lie_where_the_kit_says() {
    let dir = scratch();
    for layout in [Layout::Gpt512, Layout::Mbr] {
        let disk = Disk::build(layout, dir.path(), "disk", 3);
        let table = tools::table(&disk.path).expect("a partition table");
        let found: Vec<(u64, u64)> = table["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["type"] != "5")
            .map(|p| {
                (
                    p["start"].as_u64().unwrap() * 512,
                    p["size"].as_u64().unwrap() * 512,
                )
            })
            .collect();
        let built: Vec<(u64, u64)> = disk.parts.iter().map(|p| (p.start, p.len)).collect();
        assert_eq!(found, built, "{layout:?}");
    }
}

#[test]
fn their_file_systems_are_whole_and_full() {
    let dir = scratch();
    for layout in [Layout::Gpt512, Layout::Gpt4096, Layout::Mbr] {
        let disk = Disk::build(layout, dir.path(), "disk", 4);
        for part in &disk.parts {
            let alone = dir.path().join("part");
            let content = bytes::read(&disk.path, part.start, part.len);
            std::fs::write(&alone, &content).unwrap();
            match part.content {
                Content::Ext4 => {
                    tools::run("e2fsck", &["-fn", text(&alone)]);
                }
                Content::Fat => {
                    tools::run("fsck.fat", &["-n", text(&alone)]);
                    let files = tools::run("mdir", &["-i", text(&alone), "-b", "::/"]);
                    assert!(files.contains("random.bin"), "{files}");
                }
                Content::Swap => {
                    let kind = tools::run("blkid", &["-p", "-o", "export", text(&alone)]);
                    assert!(kind.contains("TYPE=swap"), "{kind}");
                }
                Content::Raw => assert!(content.iter().any(|b| *b != 0)),
            }
        }
    }
}

#[test]
fn damage_to_a_table_is_what_the_tools_see_too() {
    let dir = scratch();
    for (layout, sound) in [
        (Layout::Gpt512, true),
        (Layout::GptDamagedPrimary, false),
        (Layout::GptDamagedBackup, false),
    ] {
        let disk = Disk::build(layout, dir.path(), "disk", 5);
        let said = tools::try_run("sgdisk", &["-v", text(&disk.path)]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let sees_nothing = said.contains("No problems found") && !said.contains("Caution");
        assert_eq!(sees_nothing, sound, "{layout:?}: {said}");
    }
}

#[test]
fn a_disk_without_a_table_has_none() {
    let dir = scratch();
    for layout in [Layout::WholeExt4, Layout::Random, Layout::Zero, Layout::Odd] {
        let disk = Disk::build(layout, dir.path(), "disk", 6);
        assert_eq!(tools::table(&disk.path), None, "{layout:?}");
    }
}

#[test]
fn a_table_of_4096_byte_sectors_is_one_to_the_kernels_tools() {
    if !privileged("a table of 4096-byte sectors is one to the kernel's tools") {
        return;
    }
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt4096, dir.path(), "disk", 7);
    let device = Loop::with_sector(&disk.path, 4096);
    tools::assert_gpt_sound(device.path());
    let table = tools::table(device.path()).expect("a partition table");
    assert_eq!(table["sectorsize"], 4096);
    assert_eq!(table["partitions"].as_array().unwrap().len(), 3);
}

#[test]
fn a_comparison_notices_one_byte_and_a_length() {
    let dir = scratch();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for path in [&a, &b] {
        bytes::create_sparse(path, 40 * MIB);
        bytes::write_random(path, 20 * MIB, MIB, 1);
    }
    assert!(bytes::same(&a, &b));
    for at in [0, 20 * MIB + 77, 40 * MIB - 1] {
        bytes::flip(&b, at);
        assert_eq!(bytes::first_difference(&a, 0, &b, 0, 40 * MIB), Some(at));
        bytes::flip(&b, at);
    }
    assert!(bytes::same(&a, &b));
    bytes::open_rw(&b).set_len(40 * MIB + 1).unwrap();
    assert!(!bytes::same(&a, &b));
    assert_eq!(
        bytes::first_difference(&a, 20 * MIB, &b, 20 * MIB + 1, 64),
        Some(0)
    );
}
