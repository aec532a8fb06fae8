//! Flipped bytes and missing files: an image gives back what is right, or says what it has lost.

use crate::deeds::resources;
use crate::disk::{BLOCK, Edit, read_cells};
use crate::world::{Point, SET, World, id, odd_len};
use crate::{check, long};
use diskstrata::base::{ByteOffset, Cancel, Extent, normalize, to_u64, to_usize};
use diskstrata::block::BlockSource;
use diskstrata::chain::{self, Catalog, ChainView, Wish};
use diskstrata::image::limits::LEAF_BLOCKS;
use diskstrata::image::{BlockStates, Kind, RECORD_HEADER_LEN, TRAILER_LEN};
use diskstrata::pipeline::{Damage, Depth, Sample, verify_disk, verify_file};
use diskstrata::store::{FileName, MemoryStore};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Four images of a disk of three leaves, each with something new, something inherited and something
/// unreadable. The second leaf changes only once.
pub(crate) fn chain_of_four() -> (MemoryStore, World) {
    let memory = MemoryStore::new("memory");
    let mut world = World::new(Arc::new(memory.clone()), odd_len(699), 3);
    world.disk.edit(&Edit::Free { at: 70, count: 600 });
    world.disk.edit(&Edit::Allocate { at: 300, count: 20 });
    world.disk.edit(&Edit::Write {
        at: 0,
        count: 50,
        seed: 0,
    });
    world.disk.edit(&Edit::Write {
        at: 300,
        count: 10,
        seed: 500,
    });
    world.disk.edit(&Edit::Write {
        at: 690,
        count: 10,
        seed: 600,
    });
    world.backup(Wish::Auto);
    for n in 1u32..4 {
        let at = u64::from(n) * 9;
        world.disk.edit(&Edit::Write {
            at,
            count: 6,
            seed: 1000 * n,
        });
        world.disk.edit(&Edit::Zero {
            at: at + 20,
            count: 3,
        });
        world.disk.edit(&Edit::Spoil {
            sector: 8 * (45 + u64::from(n)),
            count: 1,
        });
        if n == 2 {
            world.disk.edit(&Edit::Write {
                at: 303,
                count: 3,
                seed: 9000,
            });
        }
        world.disk.edit(&Edit::Write {
            at: 694 + u64::from(n),
            count: 1,
            seed: 7000 + n,
        });
        world.backup(Wish::Auto);
    }
    (memory, world)
}

/// Offsets all over a file, some in every record.
fn offsets(bytes: &[u8]) -> BTreeSet<usize> {
    let spread = if long() { 5000 } else { 300 };
    let mut all: BTreeSet<usize> = (0..bytes.len())
        .step_by(bytes.len().div_ceil(spread))
        .collect();
    all.extend((0..128).step_by(7));
    all.extend((bytes.len() - TRAILER_LEN..bytes.len()).step_by(13));
    let records = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"sRec"));
    for (record, n) in records.zip(0..) {
        let within = [n % RECORD_HEADER_LEN, RECORD_HEADER_LEN + n % 40];
        all.extend(
            within
                .map(|at| record + at)
                .into_iter()
                .filter(|at| *at < bytes.len()),
        );
    }
    all
}

pub(crate) fn blocks(damage: &[Damage]) -> BTreeSet<u64> {
    let extents: Vec<Extent> = normalize(damage.iter().map(|d| d.extent).collect());
    let of = |e: &Extent| e.start.0 / BLOCK..e.end().0.div_ceil(BLOCK);
    extents.iter().flat_map(of).collect()
}

fn deep(view: &ChainView) -> (BTreeSet<u64>, bool) {
    let cancel = Cancel::new();
    let found = verify_file(
        view.image(),
        view,
        Depth::Deep,
        Sample::ALL,
        resources(&cancel),
    );
    let found = found.unwrap();
    (blocks(&found), found.is_empty())
}

/// What the disk of `view` has lost: the same whoever looks, and all else is right.
fn lost(view: &ChainView, point: &Point) -> BTreeSet<u64> {
    let lost: BTreeSet<u64> = check::restored(view, &point.cells).into_iter().collect();
    let cancel = Cancel::new();
    let all = 0..view.header().blocks();
    let named = verify_disk(view, all.clone(), Depth::Deep, resources(&cancel)).unwrap();
    assert_eq!(blocks(&named), lost, "what is lost is what is named");
    for start in all.step_by(29) {
        let from = start * BLOCK;
        let end = (from + 29 * BLOCK).min(view.header().disk_len.0);
        let mut bytes = vec![3; to_usize(end - from)];
        if view.read_at(ByteOffset(from), &mut bytes).is_ok() {
            let mut expected = vec![4; bytes.len()];
            read_cells(from, &mut expected, |b| &point.cells[to_usize(b)].content);
            assert!(bytes == expected, "silent difference near block {start}");
            assert!(lost.range(start..start + 29).next().is_none());
        } else {
            assert!(
                lost.range(start..start + 29).next().is_some(),
                "block {start}"
            );
        }
    }
    lost
}

/// What a point loses when image number `missing` cannot be read at all.
fn behind(point: &Point, missing: u32) -> BTreeSet<u64> {
    let mut lost = BTreeSet::new();
    let leaf = to_usize(LEAF_BLOCKS);
    for (start, (cells, since)) in (0..)
        .step_by(leaf)
        .zip(point.cells.chunks(leaf).zip(point.since.chunks(leaf)))
    {
        let first = &cells[0];
        let uniform = cells.iter().all(|c| c == first && c.content.is_none())
            && since.iter().all(|s| *s == since[0]);
        let page_is_lost = !uniform && since.iter().all(|s| *s <= missing);
        for ((cell, since), index) in cells.iter().zip(since).zip(start..) {
            if page_is_lost || (cell.content.is_some() && *since <= missing) {
                lost.insert(index);
            }
        }
    }
    lost
}

pub(crate) fn file_of(world: &World, number: u32) -> FileName {
    let catalog = Catalog::load(world.store.as_ref()).unwrap();
    catalog.by_id(id(number)).unwrap().file.clone()
}

fn flip_everywhere(number: u32) {
    let (memory, world) = chain_of_four();
    let file = file_of(&world, number);
    let good = memory.get(&file).unwrap();
    let (mut flips, mut opened, mut costs) = (0, 0, 0);
    for at in offsets(&good) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        memory.put(&file, bytes);
        flips += 1;
        let catalog = Catalog::load(world.store.as_ref()).unwrap();
        let mut named = None;
        let whole = catalog
            .by_id(id(number))
            .map(|i| check::view(&world.store, &catalog, i));
        if let Some(view) = whole {
            let (blocks, nothing) = deep(&view);
            assert!(!nothing, "byte {at} went unnoticed");
            named = Some(blocks);
            opened += 1;
        } else {
            let broken: Vec<&FileName> = catalog.broken.iter().map(|b| &b.file).collect();
            assert_eq!(broken, [&file], "byte {at}");
        }
        for (n, point) in &world.points {
            let Some(image) = catalog.by_id(id(*n)) else {
                assert_eq!(*n, number, "byte {at}");
                continue;
            };
            let lineage = catalog.lineage(image);
            if *n < number {
                assert!(lineage.images.iter().all(|i| i.file != file));
                continue;
            }
            let view = ChainView::open(Arc::clone(&world.store), lineage).unwrap();
            let lost = lost(&view, point);
            costs += usize::from(!lost.is_empty());
            match &named {
                Some(named) => assert!(lost.is_subset(named), "byte {at}, image {n}"),
                None => assert_eq!(lost, behind(point, number), "byte {at}, image {n}"),
            }
        }
    }
    assert!(flips >= 300 && opened > flips / 2, "{opened} of {flips}");
    assert!(costs > flips / 2, "{costs} of {flips}");
}

#[test]
fn flipped_bytes_of_the_full_image() {
    flip_everywhere(1);
}

#[test]
fn flipped_bytes_of_the_second_image() {
    flip_everywhere(2);
}

#[test]
fn flipped_bytes_of_the_third_image() {
    flip_everywhere(3);
}

#[test]
fn flipped_bytes_of_the_newest_image() {
    flip_everywhere(4);
}

#[test]
fn a_missing_file_costs_younger_images_what_they_have_in_it() {
    for missing in 1..=4 {
        let (_, world) = chain_of_four();
        world.store.remove(&file_of(&world, missing)).unwrap();
        let catalog = Catalog::load(world.store.as_ref()).unwrap();
        let incomplete = catalog.incomplete();
        for (n, point) in &world.points {
            let Some(image) = catalog.by_id(id(*n)) else {
                assert_eq!(*n, missing);
                continue;
            };
            let why = incomplete.get(&id(*n));
            assert_eq!(why.is_some(), *n > missing, "image {n} without {missing}");
            if *n == missing + 1 {
                let name = id(missing).to_string();
                assert!(why.is_some_and(|w| w.contains(&name)), "{why:?}");
            }
            let lineage = catalog.lineage(image);
            assert_eq!(lineage.check().is_err(), *n > missing);
            let view = ChainView::open(Arc::clone(&world.store), lineage).unwrap();
            let expected = if *n > missing {
                behind(point, missing)
            } else {
                BTreeSet::new()
            };
            assert_eq!(lost(&view, point), expected, "image {n} without {missing}");
            let some = to_u64(expected.len());
            assert!(
                *n < missing || (1..view.header().blocks()).contains(&some),
                "{some}"
            );
        }
        let facts = chain::Disk {
            len: diskstrata::base::ByteLen(world.disk.len),
            block_size: None,
            window_log2: &|_| world.window_log2,
            differs: &|_| None,
            damaged: &|_| None,
        };
        let choice = chain::choose(&catalog, catalog.set(SET), Wish::Auto, &facts);
        if missing == 4 {
            assert_eq!((choice.kind, choice.unexpected), (Kind::Incremental, false));
        } else {
            assert_eq!((choice.kind, choice.unexpected), (Kind::Full, true));
            assert!(
                choice.reason.contains(&id(missing).to_string()),
                "{}",
                choice.reason
            );
        }
    }
}
