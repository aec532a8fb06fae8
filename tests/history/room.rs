//! Prunes that make room: the oldest images of a history go until so much is free, and what is left is
//! whole.

use crate::check;
use crate::deeds::{Stop, context};
use crate::disk::Edit;
use crate::world::{World, id};
use diskstrata::base::Result;
use diskstrata::chain::Wish;
use diskstrata::chain::retention::Policy;
use diskstrata::ops::prune::{self, PruneReport, PruneRequest};
use diskstrata::store::{MemoryStore, Space, Store};
use std::path::PathBuf;
use std::sync::Arc;

/// A store on a medium of `total` bytes.
struct Small {
    inner: MemoryStore,
    total: u64,
}

impl Small {
    fn used(&self) -> u64 {
        let files = self.inner.list().unwrap().into_iter();
        files.map(|e| self.inner.open(&e.name).unwrap().len()).sum()
    }
}

impl Store for Small {
    diskstrata::pass_on!(inner: name, list, open, create, overwrite, remove, lock, clean_up);

    fn space(&self) -> Result<Option<Space>> {
        Ok(Some(Space {
            available: self.total.saturating_sub(self.used()),
            total: self.total,
        }))
    }
}

/// A full image and ten others, each of which holds a few blocks that the next one overwrites in part.
fn history() -> (World, Arc<Small>) {
    let small = Arc::new(Small {
        inner: MemoryStore::new("memory"),
        total: 100 << 20,
    });
    let mut world = World::new(Arc::clone(&small) as _, 300 * 4096, 4);
    for n in 0..11u32 {
        let count = if n == 0 { 200 } else { 30 };
        world.disk.edit(&Edit::Write {
            at: u64::from(n) * 11,
            count,
            seed: 1000 * n,
        });
        world.backup(if n == 0 { Wish::Full } else { Wish::Auto });
    }
    (world, small)
}

fn make_room(world: &World, free_space: u64, least: usize) -> PruneReport {
    let request = PruneRequest {
        store: PathBuf::from("/nowhere"),
        set: None,
        policy: Policy::default(),
        free_space: Some(free_space),
        least,
        trust_times: false,
    };
    prune::run_in(&context(&Stop::never()), &world.store, &request).unwrap()
}

/// The numbers of the images that are left; each of them restores to what it was.
fn left(world: &World) -> Vec<u32> {
    let catalog = check::whole_catalog(&world.store);
    for image in &catalog.images {
        let view = check::view(&world.store, &catalog, image);
        let point = &world.points[&image.header.sequence];
        assert_eq!(image.root, point.root);
        assert_eq!(check::restored(&view, &point.cells), Vec::<u64>::new());
    }
    check::nothing_is_left(&world.store, &catalog);
    catalog.images.iter().map(|i| i.header.sequence).collect()
}

#[test]
fn the_oldest_of_a_chain_go_until_there_is_room() {
    let (world, small) = history();
    let (used, total) = (small.used(), small.total);
    for saved in [1, used / 50, used / 20, used / 10] {
        let wanted = total - used + saved;
        let report = make_room(&world, wanted, 1);
        assert_eq!(report.failures, Vec::<String>::new());
        let left = left(&world);
        assert!(total - small.used() >= wanted, "{left:?}");
        // The youngest stay, without a gap.
        let first = left[0];
        assert_eq!(left, (first..=11).collect::<Vec<_>>());
        assert!(first > 1, "something had to go");
    }
    // Enough is free already.
    let before = left(&world);
    make_room(&world, total - small.used(), 1);
    assert_eq!(left(&world), before);
}

#[test]
fn the_least_and_the_protected_stay_whatever_is_missing() {
    let (mut world, small) = history();
    world.protect(2, true);
    let report = make_room(&world, small.total, 4);
    assert!(
        report
            .warnings
            .iter()
            .any(|w| w.contains("are free now, not")),
        "{report:?}"
    );
    // The protected one is one of the four.
    assert_eq!(left(&world), [2, 9, 10, 11]);
    world.protect(2, false);
    make_room(&world, small.total, 1);
    assert_eq!(left(&world), [11]);
    assert_eq!(
        world.points[&11].parent,
        Some(10),
        "it was not full, and is now"
    );
    let catalog = check::whole_catalog(&world.store);
    assert_eq!(catalog.images[0].header.parent, None);
    assert_eq!(catalog.images[0].header.id, id(11));
}
