//! Keys that are changed: the power fails behind every operation and in the middle of each, and every image
//! is whole and opened by a key that it had or is to have; doing it again finishes it.

use crate::check;
use crate::deeds::{Stop, context};
use crate::disk::{Cell, Edit};
use crate::power::enough_states;
use crate::world::{SET, World, id, odd_len};
use age::secrecy::ExposeSecret;
use diskstrata::base::{ErrorKind, KeySetId, Result};
use diskstrata::chain::Wish;
use diskstrata::crypt::{
    Identity, KeyEntry, KeyKind, KeyRing, KeySet, KeySource, Passphrase, Random,
};
use diskstrata::ops::encryption::NewKeys;
use diskstrata::ops::keys::{KeyChange, KeyReport, KeyRequest, change_in, list_in};
use diskstrata::store::{
    EncryptedStore, Entry, Form, MemoryStore, Op, RecordStore, Recorded, Store, replay,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

const SECTOR: usize = 512;

pub(crate) const RANDOM: Random = |out| {
    for part in out.chunks_mut(16) {
        part.copy_from_slice(&Uuid::new_v4().as_bytes()[..part.len()]);
    }
    Ok(())
};

/// Private keys, as in the files that a person names.
#[derive(Clone)]
pub(crate) struct Pocket(pub(crate) Vec<String>);

impl KeySource for Pocket {
    fn identities(&self) -> Result<Vec<Identity>> {
        let parse = |text: &String| Identity::parse(text, "a test's", |_| None);
        let all: Result<Vec<Vec<Identity>>> = self.0.iter().map(parse).collect();
        Ok(all?.into_iter().flatten().collect())
    }

    fn password(&self, _: u32, _: &str) -> Result<Option<Passphrase>> {
        Ok(None)
    }

    fn accepted(&self) -> Vec<KeySetId> {
        Vec::new()
    }
}

/// A key called `name`, and its private half.
fn key(name: &str) -> (KeyEntry, String) {
    let (private, public) = Identity::generate();
    let entry = KeyEntry::new(name, KeyKind::Age, &public).unwrap();
    (entry, private.expose_secret().to_owned())
}

fn opened(store: Arc<dyn Store>, keys: &[&String]) -> EncryptedStore {
    let pocket = Pocket(keys.iter().map(|k| (*k).clone()).collect());
    EncryptedStore::new(store, Arc::new(KeyRing::new(pocket)), RANDOM)
}

/// A store that a power cut left.
struct Cut {
    when: String,
    memory: MemoryStore,
    /// Whether every file had the new list.
    done: bool,
}

/// A history with two keys, of which one always stays, and a change.
struct Changing {
    cells: BTreeMap<Uuid, Arc<Vec<Cell>>>,
    ops: Vec<Op>,
    start: usize,
    change: KeyChange,
    stays: String,
    goes: String,
    comes: String,
    /// Names of the keys behind the change.
    after: BTreeSet<String>,
}

fn changing(change: impl Fn(&KeyEntry) -> KeyChange) -> Changing {
    let mut world = World::new(Arc::new(MemoryStore::new("plain")), odd_len(99), 5);
    world.backup(Wish::Full);
    for n in 1..3 {
        world.disk.edit(&Edit::Write {
            at: 7,
            count: 9,
            seed: n,
        });
        world.backup(Wish::Incremental);
    }
    let ((first, stays), (second, goes), (third, comes)) =
        (key("stays"), key("goes"), key("comes"));
    let keys = KeySet::new(vec![first, second], RANDOM).unwrap();
    let log = Recorded::default();
    let memory = Arc::new(MemoryStore::new("encrypted"));
    let recorded: Arc<dyn Store> = Arc::new(RecordStore::new(memory, log.clone()));
    let store = opened(Arc::clone(&recorded), &[&stays]);
    let form = Form {
        part_len: None,
        keys: Some(Arc::new(keys)),
    };
    for entry in world.store.list().unwrap() {
        let file = world.store.open(&entry.name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        let mut upload = store.create_as(&entry.name, &form).unwrap();
        upload.write_all(&bytes).unwrap();
        upload.publish().unwrap();
    }
    let start = log.ops().len();
    let change = change(&third);
    let report = run(&store, &change).unwrap();
    let cells = world.points.iter();
    Changing {
        cells: cells.map(|(n, p)| (id(*n), Arc::clone(&p.cells))).collect(),
        ops: log.ops(),
        start,
        change,
        stays,
        goes,
        comes,
        after: names(&report),
    }
}

fn names(report: &KeyReport) -> BTreeSet<String> {
    report.keys.iter().map(|k| k.name.clone()).collect()
}

pub(crate) fn request() -> KeyRequest {
    KeyRequest {
        store: PathBuf::from("/nowhere"),
        set: Some(SET.to_owned()),
    }
}

fn run(store: &EncryptedStore, change: &KeyChange) -> Result<KeyReport> {
    change_in(&context(&Stop::never()), store, &request(), change)
}

/// How many of a file's bytes are zeros: all of a list that was wiped are.
fn zeros(file: &Option<Vec<u8>>) -> usize {
    file.iter().flatten().filter(|b| **b == 0).count() / SECTOR
}

/// What may be on the disk when the power fails while `new` is written over `old`, in whole sectors: more and
/// more from the front, all but one, and every other one.
fn torn(old: &[u8], new: &[u8]) -> Vec<Vec<u8>> {
    let sectors = new.len().div_ceil(SECTOR);
    let mixed = |is_new: &dyn Fn(usize) -> bool| {
        let mut mixed = old.to_vec();
        for (n, part) in new.chunks(SECTOR).enumerate().filter(|(n, _)| is_new(*n)) {
            mixed[n * SECTOR..n * SECTOR + part.len()].copy_from_slice(part);
        }
        mixed
    };
    let front = (1..sectors).map(|count| mixed(&|n| n < count));
    let all_but_one = (0..sectors).map(|gone| mixed(&|n| n != gone));
    let others = (0..2).map(|odd| mixed(&|n| n % 2 == odd));
    front.chain(all_but_one).chain(others).collect()
}

impl Changing {
    /// Every store that a power cut may leave.
    fn cuts(&self) -> Vec<Cut> {
        let mut all = Vec::new();
        let mut push = |end: usize, when: String, memory| {
            let to_come = self.ops[end..].iter();
            let to_come = to_come.filter(|op| matches!(op, Op::Overwrite(..))).count();
            // Each file gets its new list, and then loses its old one. A list is shorter than its place:
            // torn, it may be there.
            let done = to_come <= if when.contains("torn") { 2 } else { 1 };
            all.push(Cut { when, memory, done });
        };
        for end in self.start..=self.ops.len() {
            let store = replay(&self.ops[..end]);
            if let Some(Op::Overwrite(name, offset, new)) = self.ops.get(end) {
                let at = usize::try_from(*offset).unwrap();
                let file = store.get(name).unwrap();
                for (n, mixed) in torn(&file[at..at + new.len()], new).into_iter().enumerate() {
                    let store = replay(&self.ops[..end]);
                    let mut file = file.clone();
                    file[at..at + new.len()].copy_from_slice(&mixed);
                    store.put(name, file);
                    push(
                        end,
                        format!("operation {} torn, {n}", end - self.start),
                        store,
                    );
                }
            }
            push(end, format!("before operation {}", end - self.start), store);
        }
        all
    }

    /// Every image restores with `keys`.
    fn is_whole(&self, memory: &MemoryStore, keys: &[&String], when: &str) {
        let store: Arc<dyn Store> = Arc::new(opened(Arc::new(memory.clone()), keys));
        let catalog = check::whole_catalog(&store);
        assert_eq!(catalog.images.len(), self.cells.len(), "{when}");
        for image in &catalog.images {
            let view = check::view(&store, &catalog, image);
            let lost = check::restored(&view, &self.cells[&image.header.id]);
            assert!(lost.is_empty(), "{when}: {}", image.file);
        }
    }

    fn ended(&self, memory: &MemoryStore, report: &KeyReport, when: &str) {
        assert_eq!(report.stale, Vec::<String>::new(), "{when}");
        assert_eq!(names(report), self.after, "{when}");
        for (name, private) in [
            ("stays", &self.stays),
            ("goes", &self.goes),
            ("comes", &self.comes),
        ] {
            if self.after.contains(name) {
                self.is_whole(memory, &[private], when);
                continue;
            }
            let store = opened(Arc::new(memory.clone()), &[private]);
            for entry in store.list().unwrap() {
                let error = store.open(&entry.name).map(drop).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WrongKey, "{when}: {name}");
            }
        }
    }

    /// Returns how many states were looked at.
    fn disturb(&self) -> usize {
        let cuts = self.cuts();
        assert!(cuts.len() > 100, "{} states", cuts.len());
        let whole = replay(&self.ops);
        for Cut { when, memory, done } in &cuts {
            self.is_whole(memory, &[&self.stays], when);
            let store = opened(Arc::new(memory.clone()), &[&self.stays]);
            match run(&store, &self.change) {
                Ok(report) => self.ended(memory, &report, when),
                Err(error) => {
                    // It says so, and has finished it.
                    let known = matches!(error.kind(), ErrorKind::Usage | ErrorKind::NotFound);
                    assert!(known && *done, "{when}: {error}");
                    self.ended(memory, &list_in(&store, &request()).unwrap(), when);
                    let left = store.list().unwrap();
                    for Entry { name, .. } in left {
                        let (now, then) = (memory.get(&name), whole.get(&name));
                        assert_eq!(zeros(&now), zeros(&then), "{when}: {name}");
                    }
                }
            }
        }
        cuts.len()
    }
}

/// Disturbs a change of keys after which there are so many. The long campaign does it with other keys and secrets
/// again, until it has seen enough.
fn disturb(what: &str, after: usize, change: impl Fn(&KeyEntry) -> KeyChange) {
    enough_states(what, |_| {
        let changing = changing(&change);
        assert_eq!(changing.after.len(), after);
        Some(changing.disturb())
    });
}

#[test]
fn a_key_comes_whenever_the_power_fails() {
    let add = |third: &KeyEntry| KeyChange::Add {
        keys: NewKeys {
            recipients: vec![third.recipient.clone()],
            ..NewKeys::default()
        },
        name: Some("comes".to_owned()),
    };
    disturb("a key that comes", 3, add);
}

#[test]
fn a_key_goes_whenever_the_power_fails() {
    let remove = |_: &KeyEntry| KeyChange::Remove("goes".to_owned());
    disturb("a key that goes", 1, remove);
}

#[test]
fn a_secret_is_made_anew_whenever_the_power_fails() {
    disturb("a new secret", 2, |_| KeyChange::Rotate);
}
