//! On which image a new one builds, case by case.

use crate::disk::{Edit, block_size};
use crate::world::{SET, World, id, odd_len};
use diskstrata::base::{BlockSize, ByteLen};
use diskstrata::chain::{self, Catalog, Records, Wish};
use diskstrata::image::{Kind, SourceInfo};
use diskstrata::store::{MemoryStore, Store};
use std::sync::Arc;
use uuid::Uuid;

/// What is different from the usual case.
struct Case {
    wish: Wish,
    len: u64,
    block_size: Option<BlockSize>,
    window_log2: u8,
    differs: Option<&'static str>,
    /// What has to be said to be damaged.
    damaged: Vec<Uuid>,
}

fn usual() -> Case {
    Case {
        wish: Wish::Auto,
        len: odd_len(20),
        block_size: None,
        window_log2: 3,
        differs: None,
        damaged: Vec::new(),
    }
}

/// Kind, number of the parent, whether it is unexpected, and why.
fn chosen(store: &Arc<dyn Store>, case: &Case) -> (Kind, Option<u32>, bool, String) {
    let catalog = Catalog::load(store.as_ref()).unwrap();
    let records = Records::load(store.as_ref()).unwrap();
    let facts = chain::Disk {
        len: ByteLen(case.len),
        block_size: case.block_size,
        window_log2: &|_| case.window_log2,
        differs: &|_: &SourceInfo| case.differs.map(str::to_owned),
        damaged: &|id: Uuid| records.damage_of(id).map(|found| found.time),
    };
    let choice = chain::choose(&catalog, catalog.set(SET), case.wish, &facts);
    let damaged = choice.damaged.iter().map(|d| d.image);
    assert_eq!(damaged.collect::<Vec<_>>(), case.damaged);
    let parent = choice.parent.map(|lineage| {
        lineage.check().unwrap();
        lineage.point().unwrap().header.sequence
    });
    (choice.kind, parent, choice.unexpected, choice.reason)
}

/// Images 1, full, to 3.
fn three() -> World {
    let mut world = World::new(Arc::new(MemoryStore::new("memory")), odd_len(20), 3);
    for n in 0u32..3 {
        world.disk.edit(&Edit::Write {
            at: u64::from(n),
            count: 2,
            seed: n,
        });
        world.backup(Wish::Auto);
    }
    world
}

fn is_full(store: &Arc<dyn Store>, case: &Case, unexpected: bool, word: &str) {
    let (kind, parent, surprise, reason) = chosen(store, case);
    assert_eq!(
        (kind, parent, surprise),
        (Kind::Full, None, unexpected),
        "{reason}"
    );
    assert!(reason.contains(word), "{reason:?} lacks {word:?}");
}

fn builds_on(store: &Arc<dyn Store>, wish: Wish, kind: Kind, parent: u32) {
    let (found, on, unexpected, reason) = chosen(store, &Case { wish, ..usual() });
    assert_eq!(
        (found, on, unexpected),
        (kind, Some(parent), false),
        "{reason}"
    );
}

#[test]
fn wishes_are_granted() {
    let world = three();
    let store = &world.store;
    builds_on(store, Wish::Auto, Kind::Incremental, 3);
    builds_on(store, Wish::Incremental, Kind::Incremental, 3);
    builds_on(store, Wish::Differential, Kind::Differential, 1);
    is_full(
        store,
        &Case {
            wish: Wish::Full,
            ..usual()
        },
        false,
        "asked for",
    );
    let empty: Arc<dyn Store> = Arc::new(MemoryStore::new("memory"));
    for wish in [Wish::Auto, Wish::Incremental, Wish::Differential] {
        is_full(&empty, &Case { wish, ..usual() }, false, "no image yet");
    }
}

#[test]
fn another_shape_needs_a_full_image() {
    let world = three();
    let store = &world.store;
    let larger = BlockSize::new(8192);
    for wish in [Wish::Auto, Wish::Incremental, Wish::Differential] {
        let case = || Case { wish, ..usual() };
        let len = odd_len(20) + 512;
        is_full(store, &Case { len, ..case() }, true, &len.to_string());
        is_full(
            store,
            &Case {
                differs: Some("serial S2"),
                ..case()
            },
            true,
            "serial S2",
        );
        is_full(
            store,
            &Case {
                block_size: larger,
                ..case()
            },
            true,
            "8192",
        );
        is_full(
            store,
            &Case {
                window_log2: 4,
                ..case()
            },
            true,
            "frames of another size",
        );
    }
    let same = Case {
        block_size: Some(block_size()),
        ..usual()
    };
    assert_eq!(
        chosen(store, &same).0,
        Kind::Incremental,
        "the size that the set has"
    );
    // Asked for, it is no surprise, whatever else is different.
    let other = Case {
        wish: Wish::Full,
        len: 1,
        differs: Some("all"),
        ..usual()
    };
    is_full(store, &other, false, "asked for");
}

#[test]
fn a_broken_link_needs_a_full_image_and_is_named() {
    for missing in [1, 2] {
        let world = three();
        let catalog = Catalog::load(world.store.as_ref()).unwrap();
        world
            .store
            .remove(&catalog.by_id(id(missing)).unwrap().file)
            .unwrap();
        for wish in [Wish::Auto, Wish::Incremental, Wish::Differential] {
            is_full(
                &world.store,
                &Case { wish, ..usual() },
                true,
                &id(missing).to_string(),
            );
        }
    }
    let world = three();
    let catalog = Catalog::load(world.store.as_ref()).unwrap();
    world
        .store
        .remove(&catalog.by_id(id(3)).unwrap().file)
        .unwrap();
    builds_on(&world.store, Wish::Auto, Kind::Incremental, 2);
}

#[test]
fn what_was_found_damaged_is_named_until_it_was_stored_again() {
    for damaged in 1..=3 {
        let mut world = three();
        let choose = |world: &World, wish, expected: &[u32]| {
            let case = Case {
                wish,
                damaged: expected.iter().map(|n| id(*n)).collect(),
                ..usual()
            };
            chosen(&world.store, &case)
        };
        world.note(damaged, false);
        let (kind, parent, unexpected, reason) = choose(&world, Wish::Auto, &[damaged]);
        assert_eq!(
            (kind, parent, unexpected),
            (Kind::Incremental, Some(3), false)
        );
        assert!(reason.contains("is stored again"), "{reason}");
        // A differential image builds on the full one alone.
        let of_full: &[u32] = if damaged == 1 { &[1] } else { &[] };
        choose(&world, Wish::Differential, of_full);
        // Found whole by a later look.
        world.note(damaged, true);
        choose(&world, Wish::Auto, &[]);
        // Stored again by the next image, but not by what the full image alone has.
        world.note(damaged, false);
        world.backup(Wish::Auto);
        choose(&world, Wish::Auto, &[]);
        choose(&world, Wish::Differential, of_full);
        world.note(damaged, false);
        choose(&world, Wish::Auto, &[damaged]);
    }
}

#[test]
fn after_a_full_image_the_set_goes_on_from_it() {
    let mut world = three();
    world.backup(Wish::Full);
    builds_on(&world.store, Wish::Auto, Kind::Incremental, 4);
    builds_on(&world.store, Wish::Differential, Kind::Differential, 4);
    world.backup(Wish::Incremental);
    builds_on(&world.store, Wish::Differential, Kind::Differential, 4);
    world.backup(Wish::Differential);
    builds_on(&world.store, Wish::Incremental, Kind::Incremental, 6);
    builds_on(&world.store, Wish::Differential, Kind::Differential, 4);
}
