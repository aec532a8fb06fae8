//! Nothing that stands on a disk or in an image file makes this room panic, hang, read without
//! bound or name bytes outside of the disk.

use super::{SparseDisk, TABLES, disk, fix_checksums};
use crate::base::{ByteLen, SectorSize};
use crate::layout::{
    Layout, MAX_RAW_BYTES, adapt, critical_extents, free_tail, min_disk_len, raw_regions, read,
    table_extents,
};
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// The longest single read: an entry array at its limit.
const LONGEST: u64 = 1 << 20;
/// All reads of one `read`: four sector sizes and places of a GPT, a chain, some signatures.
const TOTAL: u64 = 16 << 20;

/// Does everything that can be done with a disk, and checks every promise that can be checked.
fn survive(disk: &SparseDisk, new_len: u64) {
    let layout = read(disk).unwrap();
    assert!(disk.longest.load(Ordering::Relaxed) <= LONGEST);
    assert!(disk.total.load(Ordering::Relaxed) <= TOTAL);
    layout.validate(ByteLen(disk.len)).unwrap();
    use_layout(&layout, disk, new_len);
}

fn use_layout(layout: &Layout, disk: &SparseDisk, new_len: u64) {
    let end = disk.len;
    for p in layout.shown() {
        assert!(p.extent().end().0 <= end && p.start > 0 && p.len > 0);
        let _ = (p.display_name(), p.type_name(), p.attribute_names());
    }
    assert!(table_extents(layout).iter().all(|e| e.end().0 <= end));
    assert!(free_tail(layout).end().0 == end);
    assert!(layout.usable().is_none_or(|e| e.end().0 <= end));
    let raw = raw_regions(disk, layout).unwrap();
    assert!(raw.iter().map(|r| r.bytes.len() as u64).sum::<u64>() <= MAX_RAW_BYTES);
    let _ = min_disk_len(layout);
    for len in [new_len, end, end * 2] {
        let critical = critical_extents(layout, ByteLen(len));
        assert!(critical.iter().all(|e| e.end().0 <= len));
        let sector = SectorSize::new(disk.sector).unwrap();
        if let Ok(adapted) = adapt(layout, disk, ByteLen(len), sector) {
            check_plan(layout, disk, len, &adapted);
        }
    }
}

fn check_plan(layout: &Layout, disk: &SparseDisk, len: u64, adapted: &crate::layout::Adapted) {
    let mut at = 0;
    for patch in &adapted.patches {
        assert!(patch.offset.0 >= at, "patches overlap");
        at = patch.offset.0 + patch.bytes.len() as u64;
        assert!(at <= len, "a patch passes the end");
        let touched = super::extent(patch.offset.0, patch.bytes.len() as u64);
        assert!(
            layout
                .partitions
                .iter()
                .all(|p| p.extent().intersect(touched).is_none())
        );
    }
    for extent in &adapted.zero {
        assert!(extent.end().0 <= len);
        assert!(
            layout
                .partitions
                .iter()
                .all(|p| p.extent().intersect(*extent).is_none())
        );
    }
    if !adapted.patches.is_empty() {
        let mut new = disk.resized(len);
        for patch in &adapted.patches {
            new.put(patch.offset.0, &patch.bytes);
        }
        let again = read(&new).unwrap();
        if again.table.name() == "gpt" {
            assert_eq!(again.partitions, layout.partitions);
        }
    }
}

/// A byte that matters: in the MBR entries, a GPT header, the first slots, an EBR.
#[derive(Debug, Clone)]
struct Mutation {
    /// Which structure, which byte of it, and what to put there.
    structure: usize,
    at: u64,
    value: Vec<u8>,
}

/// The numbers that break careless arithmetic, and any others.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|b| vec![b]),
        prop_oneof![
            Just(0u32),
            Just(1),
            Just(2),
            Just(34),
            Just(127),
            Just(129),
            Just(0x7fff_ffff),
            Just(u32::MAX),
            any::<u32>()
        ]
        .prop_map(|n| n.to_le_bytes().to_vec()),
        prop_oneof![
            Just(0u64),
            Just(1),
            Just(2),
            Just(33),
            Just(131_071),
            Just(131_072),
            Just(16_777_215),
            Just(1 << 55),
            Just(i64::MAX.unsigned_abs()),
            Just(u64::MAX - 1),
            Just(u64::MAX),
            any::<u64>(),
            0..200_000u64
        ]
        .prop_map(|n| n.to_le_bytes().to_vec()),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Even places three times out of four: that is where fields start.
    let at = prop_oneof![3 => (0..128u64).prop_map(|n| n * 4), 1 => 0..512u64];
    (any::<usize>(), at, value()).prop_map(|(structure, at, value)| Mutation {
        structure,
        at,
        value,
    })
}

/// Where the structures of a fixture start.
fn structures(disk: &SparseDisk) -> Vec<u64> {
    disk.pieces.keys().copied().collect()
}

fn mutated(name: &str, mutations: &[Mutation], fix: bool) -> SparseDisk {
    let mut disk = disk(name);
    let places = structures(&disk);
    for m in mutations {
        let at = places[m.structure % places.len()] + m.at;
        let room = usize::try_from(disk.len - at).unwrap();
        disk.put(at, &m.value[..m.value.len().min(room)]);
    }
    if fix {
        let sector = u64::from(disk.sector);
        fix_checksums(&mut disk, sector);
        let last = disk.len - sector;
        fix_checksums(&mut disk, last);
    }
    disk
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_tables(
        table in 0..TABLES.len(),
        mutations in proptest::collection::vec(mutation(), 1..5),
        fix in any::<bool>(),
        new_len in prop_oneof![0..(1u64 << 20), 0..(1u64 << 34)],
    ) {
        survive(&mutated(TABLES[table], &mutations, fix), new_len);
    }

    #[test]
    fn random_first_sectors(
        mut bytes in proptest::collection::vec(any::<u8>(), 4096),
        len in 0..40_000u64,
        boot in any::<bool>(),
        protective in any::<bool>(),
        big in any::<bool>(),
    ) {
        if boot {
            bytes[510] = 0x55;
            bytes[511] = 0xaa;
            for slot in 0..4 {
                bytes[0x1be + slot * 16] &= 0x80;
            }
        }
        if protective {
            bytes[0x1c2] = 0xee;
            bytes[512..520].copy_from_slice(b"EFI PART");
        }
        let mut disk = SparseDisk::zeros(if big { len << 20 } else { len }, 512);
        let room = usize::try_from(disk.len).unwrap().min(bytes.len());
        disk.put(0, &bytes[..room]);
        survive(&disk, len);
    }

    /// Layouts out of image files: what `validate` lets through is as harmless as what was read.
    #[test]
    fn mutated_layouts(table in 0..TABLES.len(), pick in any::<usize>(), value in any::<u64>(), small in 0..70_000u64, use_small in any::<bool>()) {
        let disk = disk(TABLES[table]);
        let text = serde_json::to_string(&read(&disk).unwrap()).unwrap();
        let value = if use_small { small } else { value };
        if let Ok(layout) = serde_json::from_str::<Layout>(&replace_number(&text, pick, value))
            && layout.validate(ByteLen(disk.len)).is_ok()
        {
            use_layout(&layout, &disk, small << 16);
        }
    }
}

/// `text` with one of its numbers replaced.
fn replace_number(text: &str, pick: usize, value: u64) -> String {
    let mut starts = Vec::new();
    let bytes = text.as_bytes();
    for i in 1..bytes.len() {
        let follows_colon = matches!(bytes[i - 1], b':' | b',' | b'[');
        if bytes[i].is_ascii_digit() && follows_colon {
            starts.push(i);
        }
    }
    let start = starts[pick % starts.len()];
    let len = text[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
    format!("{}{value}{}", &text[..start], &text[start + len..])
}
