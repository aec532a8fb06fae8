//! A store that holds anything: notes beside images, images, and parts of files.

use crate::Target;
use crate::seeds::{self, Cut, RAW};
use crate::watch::within_memory;
use diskstrata::base::{Digest, ErrorKind, to_usize};
use diskstrata::chain::{
    Catalog, How, Records, SUFFIX, VerifiedRecord, begin_merge, begin_replacing, begun_merges,
    begun_replacements, end_merge, end_replacing, plan_removal, protect, record_verified,
};
use diskstrata::store::{FileName, MIN_PART_LEN, MemoryStore, SplitStore, Store};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

pub(crate) const TARGET: Target = Target {
    name: "notes",
    prepare: || {
        stores();
    },
    run,
};

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn new_id() -> Uuid {
    id(0xF11E)
}

/// Stores to be damaged: the first piece holds the names of the files, the others the files.
fn stores() -> &'static [Cut] {
    static SEEDS: OnceLock<Vec<Cut>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let makers: [fn(&MemoryStore); 5] = [notes, replacing, merging, one_part, two_parts];
        let cut = |make: &fn(&MemoryStore)| {
            let store = MemoryStore::new("seed");
            make(&store);
            let names = store.list().expect("in memory").into_iter().map(|e| e.name);
            let names: Vec<FileName> = names.collect();
            let text: Vec<&str> = names.iter().map(FileName::as_str).collect();
            let mut pieces = vec![text.join("\n").into_bytes()];
            pieces.extend(names.iter().map(|name| store.get(name).expect("in memory")));
            Cut::of(pieces)
        };
        makers.iter().map(cut).collect()
    })
}

fn name(text: &str) -> FileName {
    FileName::new(text).expect("a name")
}

fn verified(n: u128, ok: bool) -> VerifiedRecord {
    VerifiedRecord {
        image: id(n),
        time: 1_700_000_000,
        how: How::Deep,
        share: 1000,
        ok,
        root: Digest::of(b"root"),
    }
}

fn notes(store: &MemoryStore) {
    protect(store, id(1), Some("for ever"), 1_700_000_000).expect("in memory");
    record_verified(store, &[verified(1, true), verified(2, false)], id(7)).expect("in memory");
    begin_merge(store, id(3), &[id(1), id(2)]).expect("in memory");
    begin_replacing(store, id(4), &name("a.strata"), &name("b.strata")).expect("in memory");
}

fn replacing(store: &MemoryStore) {
    let images = seeds::images();
    for file in ["a.strata", "b.strata"] {
        store.put(&name(file), images[3].clone());
    }
    begin_replacing(store, id(0x1D), &name("a.strata"), &name("b.strata")).expect("in memory");
}

fn merging(store: &MemoryStore) {
    let images = seeds::images();
    store.put(&name("full.strata"), images[0].clone());
    store.put(&name("incremental.strata"), images[2].clone());
    store.put(&name("other.strata"), images[5].clone());
    begin_merge(store, id(0x1D), &[id(2)]).expect("in memory");
}

fn in_parts(store: &MemoryStore, file: &str, bytes: &[u8]) {
    let split = SplitStore::new(Arc::new(store.clone()), new_id);
    let upload = split.create_in_parts(&name(file), Some(MIN_PART_LEN));
    let mut upload = upload.expect("in memory");
    upload.write_all(bytes).expect("in memory");
    upload.publish().expect("in memory");
}

fn one_part(store: &MemoryStore) {
    in_parts(store, "x.strata", &seeds::images()[3]);
    store.put(&name("y.strata.unfinished"), id(0xF11E).as_bytes().to_vec());
    store.put(&name("y.strata.002"), b"what a run has left".to_vec());
}

fn two_parts(store: &MemoryStore) {
    let len = to_usize(MIN_PART_LEN) + 300;
    in_parts(store, "x.strata", &vec![0x5A; len]);
    let second = store.get(&name("x.strata.002")).expect("in memory");
    store.put(&name("y.strata.002"), second);
    store.put(&name("y.strata.unfinished"), id(0xF11E).as_bytes().to_vec());
}

fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let store = MemoryStore::new("memory");
    if *first >= RAW {
        // Files, each behind its name and a line's end.
        for file in rest.split(|byte| *byte == 0xFF) {
            let at = file
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(file.len());
            put(&store, &file[..at], file[at..].get(1..).unwrap_or_default());
        }
    } else {
        let stores = stores();
        let pieces = stores[usize::from(*first) % stores.len()].damaged(rest);
        if let Some((names, files)) = pieces.split_first() {
            let names = names.split(|byte| *byte == b'\n');
            names
                .zip(files)
                .for_each(|(name, file)| put(&store, name, file));
        }
    }
    let split: Arc<dyn Store> = Arc::new(SplitStore::new(Arc::new(store.clone()), new_id));
    within_memory("read", || look(&store));
    within_memory("in parts", || look(split.as_ref()));
    within_memory("change", || changed(&split));
}

fn put(store: &MemoryStore, name: &[u8], file: &[u8]) {
    let name = String::from_utf8_lossy(name).into_owned();
    if let Ok(name) = FileName::new(name) {
        let text = name.as_str();
        let plain = !text.starts_with('.') && !text.contains(['/', '\\', '\0', '\n']);
        assert!(plain && !text.is_empty() && text.len() <= 255, "{text:?}");
        store.put(&name, file.to_vec());
    }
}

/// Reads all that a store holds, twice.
fn look(store: &dyn Store) {
    let entries = store.list().expect("in memory");
    for entry in &entries {
        assert!(FileName::new(entry.name.as_str()).is_ok());
        match store.open(&entry.name) {
            Ok(file) => {
                let mut bytes = vec![0; to_usize(file.len())];
                file.read_at(0, &mut bytes).expect("it opened");
                assert!(file.read_at(file.len(), &mut [0]).is_err());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
        }
        let _ = (store.form_of(&entry.name), store.part_count(&entry.name));
    }
    let records = Records::load(store).expect("in memory");
    assert_eq!(records, Records::load(store).expect("in memory"));
    for (image, results) in &records.verified {
        let sane = |r: &VerifiedRecord| r.image == *image && r.share <= 1000;
        assert!(results.iter().all(sane) && results.is_sorted_by_key(|r| r.time));
        let _ = (records.last(*image, How::Deep), records.damage_of(*image));
    }
    begun_merges(store).expect("in memory");
    begun_replacements(store).expect("in memory");
    let catalog = Catalog::load(store).expect("in memory");
    let called = entries.iter().filter(|e| e.name.as_str().ends_with(SUFFIX));
    let found = catalog.images.len() + catalog.replaced.len() + catalog.broken.len();
    assert_eq!(found, called.count(), "every image is listed once");
    for image in &catalog.images {
        assert!(catalog.by_id(image.header.id).is_some());
        let mut set = catalog.set(&image.info.set).iter();
        assert!(set.any(|other| other.file == image.file));
        let lineage = catalog.lineage(image);
        assert_eq!(lineage.point().map(|i| &i.file), Some(&image.file));
        let places: Vec<u32> = lineage.images.iter().map(|i| i.header.sequence).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        let one = [image.header.id].into_iter().collect();
        let _ = plan_removal(&catalog, &one);
    }
}

/// What can be read, by name.
fn readable(store: &dyn Store) -> BTreeMap<FileName, Digest> {
    let entries = store.list().expect("in memory").into_iter();
    let read = entries.filter_map(|entry| {
        let file = store.open(&entry.name).ok()?;
        let mut bytes = vec![0; to_usize(file.len())];
        file.read_at(0, &mut bytes).ok()?;
        Some((entry.name, Digest::of(&bytes)))
    });
    read.collect()
}

/// Cleaning up loses nothing that can be read, and what is noted is found again.
fn changed(store: &Arc<dyn Store>) {
    let before = readable(store.as_ref());
    let _ = store.clean_up();
    let after = readable(store.as_ref());
    for (name, digest) in &before {
        assert_eq!(after.get(name), Some(digest), "{name} was lost");
    }
    let store = store.as_ref();
    let (image, result) = (id(0xAB), verified(0xAB, false));
    if protect(store, image, None, 5).is_ok() {
        let records = Records::load(store).expect("in memory");
        assert!(records.protected.contains_key(&image));
    }
    if record_verified(store, std::slice::from_ref(&result), id(0xABCD)).is_ok() {
        let records = Records::load(store).expect("in memory");
        assert!(records.verified.contains_key(&image));
        assert_eq!(records.damage_of(image).map(|r| r.ok), Some(false));
    }
    for begun in begun_merges(store).expect("in memory") {
        end_merge(store, begun.into).expect("in memory");
    }
    for begun in begun_replacements(store).expect("in memory") {
        end_replacing(store, begun.image).expect("in memory");
    }
    assert!(begun_merges(store).expect("in memory").is_empty());
    assert!(begun_replacements(store).expect("in memory").is_empty());
    let images = |name: &&FileName| name.as_str().ends_with(SUFFIX);
    let left = readable(store);
    assert!(
        before
            .keys()
            .filter(images)
            .all(|name| left.contains_key(name))
    );
}
