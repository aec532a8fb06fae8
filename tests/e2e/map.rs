//! The disk map as people, scripts and reports meet it.

use crate::kit::disk::{Disk, Layout};
use crate::kit::run::text;
use crate::kit::scratch;
use crate::kit::store::Store;
use serde_json::Value;

/// Adds up a member over a list of cells, or of what has totals.
fn sum(list: &Value, part: &str) -> u64 {
    let of = |value: &Value| {
        let cell = value.get("totals").unwrap_or(value);
        cell[part].as_u64().unwrap()
    };
    list.as_array().unwrap().iter().map(of).sum()
}

#[test]
fn a_disk_is_drawn() {
    let dir = scratch();
    let disk = Disk::build(Layout::Gpt512, dir.path(), "disk.img", 131);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let map = store.verb("map").arg("latest");

    let drawn = map.env("COLUMNS", "60").run().expect(0);
    assert!(drawn.text().lines().all(|line| line.chars().count() <= 60));
    assert!(!drawn.text().contains('\x1b') && drawn.text().is_ascii());
    for part in &disk.parts {
        let label = format!("\n{} ", part.number);
        assert!(drawn.text().contains(&label), "{label:?} in {drawn}");
    }
    let map = store.verb("map").arg("latest").env("LC_ALL", "C.UTF-8");
    let seen = map.env("COLUMNS", "100").env("NO_COLOR", "");
    let seen = seen.run_on_terminal().expect(0);
    assert!(
        seen.text().contains("\x1b[") && seen.text().contains('█'),
        "{seen}"
    );
    let map = store.verb("map").arg("latest").env("NO_COLOR", "1");
    let plain = map.run_on_terminal().expect(0);
    assert!(!plain.text().contains("\x1b["), "{plain}");
}

#[test]
fn a_map_for_programs_adds_up() {
    let dir = scratch();
    let disk = Disk::build(Layout::Mbr, dir.path(), "disk.img", 132);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let map = store.verb("map").args(["latest", "--json"]).run().expect(0);
    let map = map.json();
    assert_eq!(map["disk_bytes"], disk.len);
    assert_eq!(map["image"]["kind"], "full");
    let classes = ["data", "zero", "unused", "unreadable"];
    let whole: u64 = classes
        .iter()
        .map(|c| map["totals"][c].as_u64().unwrap())
        .sum();
    assert_eq!(whole, disk.len);
    for class in classes.iter().chain(&["changed"]) {
        let total = map["totals"][class].as_u64().unwrap();
        assert_eq!(sum(&map["cells"], class), total, "{class}");
        let regions = sum(&map["partitions"], class) + sum(&map["gaps"], class);
        assert_eq!(regions, total, "{class}");
    }
    let numbers: Vec<u64> = map["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len(), disk.parts.len(), "{numbers:?}");
    let cells = map["cells"].as_array().unwrap().len() as u64;
    assert_eq!(
        cells,
        disk.len.div_ceil(map["cell_bytes"].as_u64().unwrap())
    );
}

#[test]
fn a_picture_is_drawn_and_replaces_nothing() {
    let dir = scratch();
    let disk = Disk::build(Layout::WholeExt4, dir.path(), "disk.img", 133);
    let store = Store::new(dir.path(), "store");
    store.backed_up(&disk.path);
    let file = dir.path().join("map.svg");
    let draw = || store.verb("map").args(["latest", "--svg", text(&file)]);
    draw().run().expect(0).expect_says("map.svg");
    let picture = std::fs::read_to_string(&file).unwrap();
    assert!(picture.contains("<svg") && picture.ends_with("</svg>\n"));
    assert!(picture.contains("disk ext4"), "{picture}");

    std::fs::write(&file, "mine").unwrap();
    draw().run().expect(4);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let nowhere = text(&dir.path().join("no/map.svg")).to_owned();
    let map = store.verb("map").args(["latest", "--svg", &nowhere]);
    map.run().expect(6);
    store.verb("map").arg("ffffffff").run().expect(10);
}
