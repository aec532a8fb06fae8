//! Which history goes on: disks that grow and shrink, that come under other names or behind other docks, and
//! other disks under the same name.

use crate::kit::bytes::{self, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::privileged::{Loop, privileged};
use crate::kit::recorded::RecordedFolder;
use crate::kit::run::text;
use crate::kit::store::{Store, number};
use crate::kit::{KIB, MIB, scratch, tools};
use serde_json::Value;
use std::path::Path;

/// Images `disk`; the image as JSON tells of it.
fn image(store: &Store, disk: &Path, args: &[&str]) -> Value {
    let run = store.backup(disk).arg("--json").args(args);
    run.run().expect(0).json()
}

fn restores(store: &Store, dir: &Path, wanted: &str, truth: &Path) {
    let target = dir.join("target.img");
    let _ = std::fs::remove_file(&target);
    store.restore(wanted, &target).run().expect(0);
    assert_same(truth, &target);
}

#[test]
fn a_disk_that_grew_or_shrank_is_compared_as_a_whole_and_keeps_its_tail() {
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let disk = dir.path().join("disk.img");
    bytes::create_filled(&disk, 2 * MIB);
    image(&store, &disk, &[]);
    // Not even whole sectors, with something in the last byte.
    for (number, len) in (2..).zip([2 * MIB + 512, 3 * MIB + 77, MIB + 1, 600]) {
        bytes::open_rw(&disk).set_len(len).unwrap();
        bytes::write(&disk, len - 1, b"!");
        let made = image(&store, &disk, &["--set", "disk"]);
        assert_eq!(
            (&made["image"]["set"], &made["image"]["kind"]),
            (&"disk".into(), &"full".into())
        );
        assert_eq!(number, made["image"]["sequence"].as_u64().unwrap());
        assert_eq!(made["image"]["disk_bytes"], len);
        restores(&store, dir.path(), "latest", &disk);
    }
    store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_disk_under_another_name_goes_on() {
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let disk = Disk::build(Layout::Gpt512, dir.path(), "disk.img", 301).path;
    image(&store, &disk, &[]);
    let renamed = dir.path().join("other.img");
    std::fs::rename(&disk, &renamed).unwrap();
    bytes::write_random(&renamed, 40 * MIB, 4096, 302);
    let made = image(&store, &renamed, &[]);
    assert_eq!(made["image"]["set"], "disk", "{made}");
    assert_eq!(made["image"]["kind"], "incremental", "{made}");
    restores(&store, dir.path(), "latest", &renamed);
}

/// A dock that shows sectors of 512 bytes, and a controller that shows those of 4096.
#[test]
fn sectors_of_another_size_are_the_same_bytes() {
    if !privileged("a disk behind two docks") {
        return;
    }
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    for (layout, seed) in [(Layout::Gpt512, 303), (Layout::Gpt4096, 304)] {
        let name = format!("{seed}.img");
        let disk = Disk::build(layout, dir.path(), &name, seed);
        let mut made = Vec::new();
        let set = format!("s{seed}");
        let latest = format!("{set}@latest");
        for sector in [512, 4096, 512] {
            let device = Loop::with_sector(&disk.path, sector);
            made.push(image(
                &store,
                device.path(),
                &["--set", &set, "--all-blocks"],
            ));
            store
                .verify(&[latest.as_str(), "--against", text(device.path())])
                .expect(0);
            drop(device);
            bytes::write_random(&disk.path, 50 * MIB, 4096, seed + sector);
        }
        let sectors: Vec<u64> = made
            .iter()
            .map(|m| number(&m["source"], "logical_sector"))
            .collect();
        assert_eq!(sectors, [512, 4096, 512]);
        // Without free space, too: the table is found though it counts in the other sectors.
        let other = if disk.sector == 512 { 4096 } else { 512 };
        let device = Loop::with_sector(&disk.path, other);
        let made = image(&store, device.path(), &["--set", &set]);
        assert_eq!(made["image"]["kind"], "incremental", "{made}");
        let warnings = made["warnings"].to_string();
        assert!(warnings.contains("counts in sectors of"), "{made}");
        store
            .verify(&[latest.as_str(), "--against", text(device.path())])
            .expect(0);
    }
    store.verify(&["--deep"]).expect(0);
}

/// The file system says that there is nothing, and there is something.
#[test]
fn holes_that_are_none_are_found() {
    let Some(folder) = RecordedFolder::mount("a file system that tells wrong holes") else {
        return;
    };
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let mut stream = crate::kit::bytes::Stream::new(305);
    let mut content = vec![0; 8 << 20];
    content[5 << 20..(5 << 20) + 300_000].copy_from_slice(&stream.bytes(300_000));
    content.extend(stream.bytes(64 * KIB));
    folder.put("disk.img", content.clone());
    let disk = folder.path().join("disk.img");
    let truth = dir.path().join("truth.img");
    std::fs::write(&truth, &content).unwrap();
    folder.call_all_a_hole(true);
    let planned = store
        .backup(&disk)
        .args(["--dry-run", "--json"])
        .run()
        .expect(0)
        .json();
    assert_eq!(planned["plan"]["hole_bytes"], 0, "{planned}");
    image(&store, &disk, &[]);
    folder.call_all_a_hole(false);
    restores(&store, dir.path(), "latest", &truth);
    tools::run("cmp", &[text(&truth), text(&disk)]);
}
