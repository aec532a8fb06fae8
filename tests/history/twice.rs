//! The same id twice in one store: two machines that made an image with it, and one image that was copied by
//! hand. Nothing is taken for the other one, and nothing is removed before a person has decided.

use crate::check;
use crate::deeds::{Stop, run_merge, run_prune};
use crate::disk::Edit;
use crate::world::{World, id, odd_len};
use diskstrata::base::ErrorKind;
use diskstrata::chain::retention::Policy;
use diskstrata::chain::{Catalog, Wish};
use diskstrata::store::{FileName, MemoryStore, Store};
use std::io::Write;
use std::sync::Arc;

/// A history of two images on a machine of its own.
fn machine(seed: u32) -> World {
    let mut world = World::new(Arc::new(MemoryStore::new("memory")), odd_len(99), 5);
    for n in 0..2 {
        world.disk.edit(&Edit::Write {
            at: 7,
            count: 20,
            seed: seed + n,
        });
        world.backup(if n == 0 {
            Wish::Full
        } else {
            Wish::Incremental
        });
    }
    world
}

/// Puts all files of `from` into `into`, under names of their own.
fn put_beside(from: &Arc<dyn Store>, into: &Arc<dyn Store>) {
    for entry in from.list().unwrap() {
        let file = from.open(&entry.name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        let name = FileName::new(format!("other-{}", entry.name)).unwrap();
        let mut upload = into.create(&name).unwrap();
        upload.write_all(&bytes).unwrap();
        upload.publish().unwrap();
    }
}

#[test]
fn two_machines_that_made_the_same_id_lose_nothing() {
    let (one, two) = (machine(1), machine(1000));
    put_beside(&two.store, &one.store);
    let store = &one.store;
    let catalog = Catalog::load(store.as_ref()).unwrap();
    assert_eq!((catalog.images.len(), catalog.replaced.len()), (4, 0));
    // The id names none of them, and the file each of them.
    let zone = jiff::tz::TimeZone::UTC;
    let error = catalog.find(&id(1).to_string(), &zone).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("several"), "{error}");
    for (world, prefix) in [(&one, ""), (&two, "other-")] {
        let files = world.store.list().unwrap().into_iter();
        let full = files
            .map(|e| e.name.to_string())
            .find(|n| n.contains("-full") && !n.starts_with("other"));
        let name = format!("{prefix}{}", full.unwrap());
        let image = catalog.find(&name, &zone).unwrap();
        let found = check::restored(
            &check::view(store, &catalog, image),
            &world.points[&1].cells,
        );
        assert_eq!(found, Vec::<u64>::new(), "{name}");
    }
    // What builds on one of them finds its own parent.
    for image in catalog.images.iter().filter(|i| i.header.parent.is_some()) {
        catalog.lineage(image).check().unwrap();
        let world = if image.file.as_str().starts_with("other") {
            &two
        } else {
            &one
        };
        let view = check::view(store, &catalog, image);
        assert_eq!(
            check::restored(&view, &world.points[&2].cells),
            Vec::<u64>::new()
        );
    }
    let policy = Policy {
        last: 1,
        ..Policy::default()
    };
    let before = store.list().unwrap();
    let refused = run_prune(store, policy, &Stop::never()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(
        refused.to_string().contains("are the same image"),
        "{refused}"
    );
    run_merge(store, None, 2, &Stop::never()).unwrap_err();
    assert_eq!(store.list().unwrap(), before, "nothing was removed");
}
