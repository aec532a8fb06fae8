use super::machine::{inventory, target};
use crate::base::ErrorKind;
use crate::device::check_no_twin;

#[test]
fn a_clone_beside_its_original_is_named() {
    let (_machine, inventory) = inventory("usb-stick");
    for (name, other) in [("sdb", "sdc"), ("sdc", "sdb")] {
        let error = check_no_twin(&inventory, &target(&inventory, name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        let text = error.to_string();
        assert!(text.contains(&format!("/dev/{other}")), "{text}");
        assert!(error.next_step().unwrap().contains("--set"), "{error}");
    }
}

#[test]
fn ways_to_one_disk_and_areas_of_one_are_no_clones() {
    let mut looked_at = 0;
    for name in machines() {
        if name == "usb-stick" {
            continue;
        }
        let (_machine, inventory) = inventory(&name);
        let names: Vec<String> = inventory.disks().map(|d| d.name.clone()).collect();
        for disk in names {
            let found = check_no_twin(&inventory, &target(&inventory, &disk));
            // Two ways to one disk without a map above them cannot be told from a clone.
            let ways = name == "multipath-san" && ["sdf", "sdg"].contains(&disk.as_str());
            assert_eq!(found.is_err(), ways, "{name}: {disk}: {found:?}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 10, "{looked_at} disks");
}

/// All recorded machines.
fn machines() -> Vec<String> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/device");
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let trees = files.filter(|path| path.extension().is_some_and(|e| e == "tree"));
    let stem = |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    trees.map(stem).collect()
}
