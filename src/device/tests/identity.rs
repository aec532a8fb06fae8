//! The same disk, another disk, and what cannot be told.

use super::machine::{Machine, inventory, target};
use crate::base::ByteLen;
use crate::device::{DiskIdentity, Inventory, Sameness};

fn identity(inventory: &Inventory, name: &str) -> DiskIdentity {
    DiskIdentity::of(inventory, &target(inventory, name)).unwrap()
}

#[test]
fn nothing_changes_by_itself() {
    let (_machine, inventory) = inventory("sata-server");
    let sda = identity(&inventory, "sda");
    assert!(sda.changes(&sda).is_empty());
    assert_eq!(sda.matches(&sda), Sameness::Same);
    let part = identity(&inventory, "sda2");
    assert_eq!(part.serial.as_deref(), Some("ZC1A2B3C"), "its disk's");
    assert_eq!(
        (part.partition, part.len),
        (Some(2), ByteLen(2_097_152 * 512))
    );
}

#[test]
fn another_disk_under_the_same_name_is_seen() {
    let machine = Machine::new("sata-server");
    let was = identity(&machine.read(), "/dev/sdc");
    let folder = machine.at("/sys/class/block/sdc").canonicalize().unwrap();
    std::fs::write(folder.join("diskseq"), "77").unwrap();
    std::fs::write(folder.join("size"), "1000").unwrap();
    let now = identity(&machine.read(), "/dev/sdc");
    let changes = was.changes(&now).join("\n");
    assert!(
        changes.contains("length was 4000787030016 bytes, is 512000 bytes"),
        "{changes}"
    );
    assert!(
        changes.contains("disk sequence number was 3, is 77"),
        "{changes}"
    );
    assert!(matches!(was.matches(&now), Sameness::Different(d) if d.len() == 1));
}

#[test]
fn the_table_counts_only_when_both_know_it() {
    let (_machine, inventory) = inventory("sata-server");
    let was = DiskIdentity {
        table_id: Some("one".into()),
        ..identity(&inventory, "sda")
    };
    let now = identity(&inventory, "sda");
    assert!(was.changes(&now).is_empty());
    let other = DiskIdentity {
        table_id: Some("two".into()),
        ..now
    };
    assert_eq!(was.changes(&other).len(), 1);
    assert_eq!(
        was.matches(&other),
        Sameness::Same,
        "a restore changes the table"
    );
}

#[test]
fn a_dock_in_between_does_not_hide_the_disk() {
    let (_machine, inventory) = inventory("sata-server");
    let inside = identity(&inventory, "sda");
    let docked = DiskIdentity {
        serial: Some("DOCK0001".into()),
        model: Some("USB3.0 Dock".into()),
        diskseq: Some(99),
        ..inside.clone()
    };
    assert_eq!(inside.matches(&docked), Sameness::Same);
    let unnamed = DiskIdentity {
        wwn: None,
        ..docked
    };
    assert!(matches!(inside.matches(&unnamed), Sameness::Different(d) if d.len() == 2));
}

#[test]
fn disks_without_a_name_are_not_told_apart() {
    let (_machine, inventory) = inventory("snap-loops");
    let vda = identity(&inventory, "vda");
    assert!(matches!(vda.matches(&vda), Sameness::Unsure(_)));
    let file = identity(&inventory, "/var/lib/images/disk.img");
    assert_eq!(file.matches(&file), Sameness::Same);
    let other = identity(&inventory, "/var/lib/images/idle.img");
    assert!(matches!(file.matches(&other), Sameness::Different(_)));
    assert!(!file.changes(&other).is_empty());
    let json = serde_json::to_value(&vda).unwrap();
    assert_eq!(
        (json["bytes"].as_u64(), json["dev"].as_str()),
        (Some(42_949_672_960), Some("254:0"))
    );
}
