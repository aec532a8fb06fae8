//! Damaged tables and bad sectors: they cost no more than they must.

use super::reading::{layout, reason};
use super::{disk, extent, fix_checksums};
use crate::base::{ByteLen, ErrorKind};
use crate::block::{Fault, FaultSource, Faults};
use crate::layout::{CopyState, Table, raw_regions, read, table_extents};
use std::sync::Arc;

const EIO: i32 = 5;

#[test]
fn one_damaged_copy_is_survived_and_named() {
    let whole = layout("gpt-512");
    let last = disk("gpt-512").len - 512;
    for (at, word) in [
        (512 + 20, "(checksum)"),
        (512 + 60, "checksum"),
        (1024 + 130, "entries"),
    ] {
        let mut bad = disk("gpt-512");
        bad.flip(at);
        let layout = read(&bad).unwrap();
        assert_eq!(layout.partitions, whole.partitions);
        let expected = format!("the backup at byte {last} was used");
        let finding = &layout.findings[0];
        assert!(
            finding.contains(&expected) && finding.contains(word),
            "{finding}"
        );
        assert!(!layout.certain);
    }
    for at in [last + 60, last - 32 * 512] {
        let mut bad = disk("gpt-512");
        bad.flip(at);
        let layout = read(&bad).unwrap();
        assert_eq!(layout.partitions, whole.partitions);
        assert!(
            layout.findings[0].starts_with(&format!("the backup GPT at byte {last} is damaged"))
        );
        assert_eq!(
            table_extents(&layout),
            table_extents(&whole),
            "places are proven nevertheless"
        );
    }
}

#[test]
fn a_wiped_copy_claims_nothing_that_is_not_proven() {
    let mut bad = disk("gpt-512");
    let last = bad.len - 512;
    bad.put(last - 32 * 512, &[0; 33 * 512]);
    let layout = read(&bad).unwrap();
    let Table::Gpt(gpt) = &layout.table else {
        panic!()
    };
    assert_eq!(gpt.backup.state, CopyState::Missing);
    assert_eq!(table_extents(&layout), [extent(0, 34 * 512)]);
    let mut bad = disk("gpt-512");
    bad.put(512, &[0; 33 * 512]);
    let layout = read(&bad).unwrap();
    assert_eq!(
        table_extents(&layout),
        [extent(0, 1024), extent(last - 32 * 512, 33 * 512)]
    );
    let raw = raw_regions(&bad, &layout).unwrap();
    let lost = raw.iter().find(|r| r.offset.0 == 1024).unwrap();
    assert_eq!(
        lost.bytes.len(),
        32 * 512,
        "where the array should be is kept"
    );
}

#[test]
fn two_damaged_copies_make_the_disk_opaque() {
    let mut bad = disk("gpt-512");
    bad.flip(600);
    bad.flip(bad.len - 100 - 512);
    let mut good_array = bad.clone();
    good_array.flip(bad.len - 500);
    let layout = read(&good_array).unwrap();
    assert_eq!(layout.table.name(), "opaque");
    assert!(reason(&layout).contains("no copy"), "{layout:?}");
    layout.validate(ByteLen(bad.len)).unwrap();
}

#[test]
fn copies_that_differ_are_reported() {
    let mut bad = disk("gpt-512");
    let header = bad.len - 512;
    bad.put(header - 32 * 512 + 56, b"X\0");
    fix_checksums(&mut bad, header);
    let layout = read(&bad).unwrap();
    assert!(
        layout.findings[0].contains("differ"),
        "{:?}",
        layout.findings
    );
    assert!(!layout.certain);
}

#[test]
fn a_disk_that_grew_has_its_backup_in_the_middle() {
    let grown = disk("gpt-512").resized(9 << 30);
    let layout = read(&grown).unwrap();
    assert!(
        layout.findings[0].contains("not at the end"),
        "{:?}",
        layout.findings
    );
    assert!(layout.certain, "both copies are good and agree");
    let cut = read(&disk("gpt-512").resized(7 << 30)).unwrap();
    assert_eq!(
        cut.table.name(),
        "opaque",
        "its own numbers pass the end: {cut:?}"
    );
}

#[test]
fn bad_sectors_cost_one_copy() {
    let whole = layout("gpt-512");
    let last = disk("gpt-512").len - 512;
    for place in [
        extent(512, 512),
        extent(5 * 512, 512),
        extent(last, 512),
        extent(last - 512, 512),
    ] {
        let faults = Faults::new(vec![Fault::read_in(place, EIO)]);
        let source = FaultSource::new(Arc::new(disk("gpt-512")), faults);
        let layout = read(&source).unwrap();
        assert_eq!(layout.partitions, whole.partitions);
        assert!(
            layout.findings[0].contains("unreadable"),
            "{:?}",
            layout.findings
        );
        let raw = raw_regions(&source, &layout).unwrap();
        assert!(raw.iter().all(|r| r.offset.0 != place.start.0));
        assert!(raw.len() >= 3, "{place}");
    }
}

#[test]
fn a_bad_first_sector_does_not_stop_imaging() {
    let faults = Faults::new(vec![Fault::read_in(extent(0, 512), EIO)]);
    let source = FaultSource::new(Arc::new(disk("gpt-512")), faults);
    let layout = read(&source).unwrap();
    assert!(reason(&layout).contains("cannot be read"), "{layout:?}");
    let gone = Faults::new(vec![Fault::read_in(extent(0, 8 << 30), EIO)]);
    let error = read(&FaultSource::new(Arc::new(disk("gpt-512")), gone)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
}

#[test]
fn a_bad_link_of_the_chain_is_opaque() {
    let faults = Faults::new(vec![Fault::read_in(extent(18_874_368, 512), EIO)]);
    let source = FaultSource::new(Arc::new(disk("mbr-logicals")), faults);
    let layout = read(&source).unwrap();
    assert!(reason(&layout).contains("byte 18874368"), "{layout:?}");
    let mut wiped = disk("mbr-logicals");
    wiped.put(18_874_368, &[0; 512]);
    assert!(reason(&read(&wiped).unwrap()).contains("no boot record"));
}
