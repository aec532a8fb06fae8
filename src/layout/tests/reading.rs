//! Real tables: what `read` sees is what `sfdisk` and the crates see.

use super::{SparseDisk, disk, extent, fixture};
use crate::base::{ByteLen, SectorSize, to_u64, to_usize};
use crate::block::BlockSource;
use crate::layout::{
    Layout, PartitionKind, Table, critical_extents, free_tail, min_disk_len, raw_regions, read,
    table_extents,
};
use serde_json::Value;
use std::io::Cursor;

pub(super) fn layout(name: &str) -> Layout {
    let layout = read(&disk(name)).unwrap();
    layout.validate(ByteLen(disk(name).len)).unwrap();
    layout
}

pub(super) fn reason(layout: &Layout) -> &str {
    match &layout.table {
        Table::None { reason } | Table::Opaque { reason } => reason,
        table => panic!("{table:?}"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_lowercase()
}

/// One partition of `sfdisk -J`, in the words of this crate.
fn as_sfdisk(layout: &Layout, number: u64) -> (u64, u64, String, String, String, bool) {
    let all = layout.shown();
    let found = all.iter().find(|p| u64::from(p.number) == number);
    let p = found.unwrap_or_else(|| panic!("no partition {number}"));
    let sector = u64::from(layout.sector.bytes());
    let uuid = p.unique_id.clone().filter(|id| id.len() == 36);
    (
        p.start / sector,
        p.len / sector,
        p.type_id
            .trim_start_matches("0x")
            .trim_start_matches('0')
            .to_owned(),
        uuid.unwrap_or_default(),
        p.name.clone(),
        p.bootable,
    )
}

#[test]
fn real_tables_read_as_sfdisk_reads_them() {
    for name in super::TABLES {
        let (disk, said) = fixture(name);
        if said.is_null() {
            continue;
        }
        let layout = layout(name);
        assert_eq!(layout.table.name(), said["label"], "{name}");
        assert_eq!(
            u64::from(layout.sector.bytes()),
            said["sectorsize"],
            "{name}"
        );
        let id = text(&said["id"]);
        assert_eq!(layout.disk_id.as_deref(), Some(id.trim_start_matches("0x")));
        let partitions = said["partitions"].as_array().unwrap();
        assert_eq!(layout.shown().len(), partitions.len(), "{name}");
        for p in partitions {
            let attrs = text(&p["attrs"]);
            let expected = (
                p["start"].as_u64().unwrap(),
                p["size"].as_u64().unwrap(),
                text(&p["type"]).trim_start_matches('0').to_owned(),
                text(&p["uuid"]),
                p["name"].as_str().unwrap_or_default().to_owned(),
                p["bootable"] == true || attrs.contains("legacy"),
            );
            let seen = as_sfdisk(&layout, p["number"].as_u64().unwrap());
            assert_eq!(seen, expected, "{name}");
        }
        if let Table::Gpt(gpt) = &layout.table {
            assert_eq!(gpt.first_usable, said["firstlba"], "{name}");
            assert_eq!(gpt.last_usable, said["lastlba"], "{name}");
            let count = said["table-length"].as_str().unwrap_or("128");
            assert_eq!(gpt.entry_count.to_string(), count, "{name}");
            assert!(layout.certain, "{name}");
        }
        assert_eq!(layout.disk_len, disk.len);
    }
}

#[test]
fn attributes_and_names_are_kept() {
    let layout = layout("gpt-512");
    let p = layout.partition(3).unwrap();
    assert_eq!(p.attribute_names(), ["required", "no automount"]);
    assert_eq!(
        layout.partition(2).unwrap().attribute_names(),
        ["legacy boot"]
    );
    assert_eq!(layout.partition(4).unwrap().display_name(), "größer ☃ 💾");
    assert_eq!(layout.partition(4).unwrap().type_name(), Some("BIOS boot"));
    assert_eq!(layout.findings, Vec::<String>::new());
}

#[test]
fn a_gpt_is_found_whatever_sector_the_source_reports() {
    let as_file = read(&disk("gpt-4096").with_sector(512)).unwrap();
    assert_eq!(as_file.partitions, layout("gpt-4096").partitions);
    assert_eq!(
        (as_file.sector, as_file.disk_sector),
        (SectorSize::S4096, SectorSize::S512)
    );
    assert!(
        as_file.findings[0].contains("4096 bytes"),
        "{:?}",
        as_file.findings
    );
    let moved = read(&disk("gpt-512").with_sector(4096)).unwrap();
    assert_eq!(moved.partitions, layout("gpt-512").partitions);
}

#[test]
fn logical_partitions_follow_the_chain() {
    let layout = layout("mbr-out-of-order");
    let logicals: Vec<_> = layout
        .partitions
        .iter()
        .filter(|p| p.kind == PartitionKind::Logical)
        .map(|p| (p.number, p.start / 512))
        .collect();
    assert_eq!(logicals, [(5, 28672), (8, 45056), (7, 63488), (6, 96256)]);
    assert_eq!(
        layout.extended.as_ref().unwrap().type_name(),
        Some("Extended (LBA)")
    );
    assert_eq!(
        layout.partition(6).unwrap().unique_id.as_deref(),
        Some("1badb002-06")
    );
    assert_eq!(
        layout.shown().iter().map(|p| p.number).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 8, 7, 6]
    );
}

#[test]
fn a_loop_in_the_chain_is_opaque() {
    let layout = layout("mbr-loop");
    assert_eq!(layout.table.name(), "opaque");
    assert!(reason(&layout).contains("loop"), "{layout:?}");
    assert!(!layout.certain && layout.findings[0].contains("loop"));
}

#[test]
fn the_crates_read_the_same_where_they_can() {
    for name in ["gpt-4-entries", "gpt-256-entries", "gpt-moved-array"] {
        let bytes = disk(name).get(0, disk(name).len);
        let other = ::gpt::GptConfig::new()
            .open_from_device(Cursor::new(bytes))
            .unwrap();
        let layout = layout(name);
        assert_eq!(other.partitions().len(), layout.partitions.len());
        for (number, p) in other.partitions() {
            let own = layout.partition(*number).unwrap();
            assert_eq!(
                (own.start / 512, own.len / 512),
                (p.first_lba, p.last_lba - p.first_lba + 1)
            );
            assert_eq!(own.unique_id, Some(p.part_guid.to_string()));
            assert_eq!(own.name, p.name);
        }
    }
    let bytes = disk("mbr-logicals").get(0, disk("mbr-logicals").len);
    let other = mbrman::MBR::read_from(&mut Cursor::new(bytes), 512).unwrap();
    let layout = layout("mbr-logicals");
    for (number, p) in other.iter().filter(|(_, p)| p.is_used()) {
        let all = layout.shown();
        let own = all
            .iter()
            .find(|own| to_u64(number) == u64::from(own.number))
            .unwrap();
        assert_eq!(
            (own.start / 512, own.len / 512),
            (p.starting_lba.into(), p.sectors.into())
        );
        assert_eq!(
            (own.type_id.clone(), own.bootable),
            (format!("0x{:02x}", p.sys), p.is_active())
        );
    }
}

#[test]
fn the_crates_fall_short_where_the_docs_say_so() {
    let bytes = disk("mbr-out-of-order").get(0, disk("mbr-out-of-order").len);
    let error = mbrman::MBR::read_from(&mut Cursor::new(bytes), 512).unwrap_err();
    assert!(matches!(error, mbrman::Error::InconsistentEBR), "{error:?}");

    let mut damaged = disk("gpt-4-entries");
    damaged.flip(1024 + 40);
    let bytes = damaged.get(0, damaged.len);
    let other = ::gpt::GptConfig::new().open_from_device(Cursor::new(bytes));
    assert!(other.is_err());
    let whole = layout("gpt-4-entries");
    assert_eq!(read(&damaged).unwrap().partitions, whole.partitions);
}

#[test]
fn an_mbr_over_an_old_gpt_counts() {
    let layout = layout("stale-gpt");
    assert_eq!(layout.table.name(), "dos");
    assert_eq!(layout.partitions.len(), 1);
    assert!(layout.findings.iter().all(|f| f.contains("old GPT")) && layout.findings.len() == 2);
    assert!(!layout.certain, "what the old partitions held may matter");
}

#[test]
fn a_hybrid_mbr_is_named_and_the_gpt_used() {
    let hybrid = layout("gpt-hybrid");
    assert_eq!(hybrid.partitions, layout("gpt-512").partitions);
    assert!(
        hybrid.findings[0].contains("hybrid MBR: 2"),
        "{:?}",
        hybrid.findings
    );
}

#[test]
fn file_systems_on_the_whole_disk_are_no_mbr() {
    for (name, word) in [
        ("fat32-disk", "FAT"),
        ("fat16-disk", "FAT"),
        ("ntfs-disk", "NTFS"),
    ] {
        let layout = layout(name);
        assert_eq!(layout.table.name(), "none", "{name}");
        assert!(reason(&layout).starts_with(word), "{layout:?}");
        assert!(layout.findings.is_empty() && layout.usable().is_none());
    }
}

#[test]
fn table_places_are_exact() {
    let len = disk("gpt-4096").len;
    let gpt = layout("gpt-4096");
    let tail = extent(len - 5 * 4096, 5 * 4096);
    assert_eq!(table_extents(&gpt), [extent(0, 6 * 4096), tail]);
    assert_eq!(
        critical_extents(&gpt, ByteLen(len)),
        [extent(0, 1 << 20), tail]
    );
    let mbr = layout("mbr-logicals");
    let ebrs = [13_631_488, 18_874_368, 24_117_248, 29_360_128].map(|at| extent(at, 512));
    assert_eq!(table_extents(&mbr)[1..], ebrs);
    assert_eq!(critical_extents(&mbr, ByteLen(100)), [extent(0, 100)]);
    assert_eq!(
        free_tail(&mbr),
        extent((26624 + 90000) * 512, (131_072 - 116_624) * 512)
    );
    let moved = layout("gpt-moved-array");
    assert_eq!(table_extents(&moved)[1], extent(512_000, 32 * 512));
    let none = read(&SparseDisk::zeros(1 << 20, 512)).unwrap();
    assert!(table_extents(&none).is_empty() && free_tail(&none).is_empty());
    assert_eq!(min_disk_len(&none), ByteLen(1 << 20));
}

#[test]
fn raw_regions_are_the_bytes_of_the_disk() {
    for name in super::TABLES {
        let source = disk(name);
        let layout = layout(name);
        let raw = raw_regions(&source, &layout).unwrap();
        assert_eq!(raw[0].offset.0, 0, "{name}");
        for region in &raw {
            assert_eq!(
                region.bytes,
                source.get(region.offset.0, to_u64(region.bytes.len()))
            );
        }
        let mut rebuilt = SparseDisk::zeros(source.len, source.sector);
        for region in &raw {
            rebuilt.put(region.offset.0, &region.bytes);
        }
        if layout.table.name() != "opaque" {
            assert_eq!(
                read(&rebuilt).unwrap().partitions,
                layout.partitions,
                "{name}"
            );
        }
    }
}

#[test]
fn small_disks_have_no_table() {
    for len in [0u64, 1, 511, 512, 513, 1024] {
        let layout = read(&SparseDisk::zeros(len, 512)).unwrap();
        assert_eq!(layout.table.name(), "none");
        layout.validate(ByteLen(len)).unwrap();
        assert_eq!(to_usize(layout.disk_len), to_usize(len));
        assert!(
            raw_regions(&SparseDisk::zeros(len, 512), &layout)
                .unwrap()
                .len()
                <= 1
        );
    }
    assert_eq!(disk("gpt-512").geometry().logical_sector, SectorSize::S512);
}
