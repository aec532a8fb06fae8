//! No key and nonce encrypt twice, whatever is done to a history: every file that was ever begun has a key of
//! its own, is written once from front to back, and of what is written over it later nothing lies in its
//! chunks. A chunk's nonce is its number, so that is all it takes. The list of keys in a head is encrypted
//! by a key of the file's and a salt: no two of them may meet either.

use crate::check;
use crate::deeds::{Stop, context};
use crate::keys::{Pocket, RANDOM, request};
use crate::random::{Action, config, history};
use crate::shaped::Shaped;
use crate::world::{World, odd_len};
use age::secrecy::ExposeSecret;
use diskstrata::base::Result;
use diskstrata::crypt::{Identity, KeyEntry, KeyKind, KeyRing, KeySet};
use diskstrata::ops::keys::{KeyChange, change_in};
use diskstrata::store::{
    EncryptedStore, FileName, Form, MemoryStore, Op, RecordStore, Recorded, Store,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

/// The keys that the images of a store have now; `first` where there is none yet.
fn keys_of_images(store: &EncryptedStore, first: &Arc<KeySet>) -> Result<Arc<KeySet>> {
    let mut files = store.list()?.into_iter().map(|e| e.name);
    let image = files.rfind(|n| n.as_str().ends_with(".strata"));
    let keys = image.map(|name| store.keys_of(&name)).transpose()?;
    Ok(keys.flatten().unwrap_or_else(|| Arc::clone(first)))
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
}

/// What a slot says, by docs/format.md, section 14.
struct Slot {
    file_key: Vec<u8>,
    salt: Vec<u8>,
    list: Vec<u8>,
}

/// `None` for a slot that was wiped.
fn slot(bytes: &[u8], identity: &age::x25519::Identity) -> Option<Slot> {
    let len = number(&bytes[8..12]);
    (len > 0).then_some(())?;
    let mut body = &bytes[12 + 16..12 + len];
    let mut take = |len: Option<usize>| {
        let len = len.unwrap_or_else(|| {
            let (len, rest) = body.split_at(4);
            body = rest;
            number(len)
        });
        let (part, rest) = body.split_at(len);
        body = rest;
        part
    };
    for _ in 0..number(take(Some(2))) {
        take(None);
    }
    let wrapped = take(None);
    let (salt, list) = (take(Some(16)).to_vec(), take(None).to_vec());
    let both = age::decrypt(identity, wrapped).unwrap();
    let file_key = both[..32].to_vec();
    Some(Slot {
        file_key,
        salt,
        list,
    })
}

/// Follows every byte that was ever handed to the store.
fn check_ops(ops: &[Op], identity: &age::x25519::Identity) -> usize {
    let mut uploads: BTreeMap<u64, (FileName, Vec<u8>)> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Create(id, name) => {
                uploads.insert(*id, (name.clone(), Vec::new()));
            }
            Op::Write(id, bytes) => uploads.get_mut(id).unwrap().1.extend(bytes),
            _ => {}
        }
    }
    uploads.retain(|_, (_, bytes)| bytes.starts_with(b"\x89STCRYP\n"));
    let mut file_keys = BTreeSet::new();
    let mut lists: BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let mut note = |slot: Slot| {
        let list = lists
            .entry((slot.file_key, slot.salt))
            .or_insert_with(|| slot.list.clone());
        assert!(*list == slot.list, "two lists by one key");
    };
    for (name, bytes) in uploads.values() {
        let slot_len = number(&bytes[12..16]);
        let first = slot(&bytes[64..64 + slot_len], identity).unwrap();
        assert!(
            file_keys.insert(first.file_key.clone()),
            "{name}: its key is another file's"
        );
        note(first);
    }
    for op in ops {
        let Op::Overwrite(name, offset, bytes) = op else {
            continue;
        };
        let mut of = uploads.values().filter(|(n, _)| n == name);
        let slot_len = of
            .next_back()
            .map(|(_, bytes)| number(&bytes[12..16]))
            .unwrap();
        let (at, len) = (usize::try_from(*offset).unwrap(), bytes.len());
        assert!(
            at >= 64 && at + len <= 64 + 2 * slot_len,
            "{name}: {len} bytes at {at}"
        );
        slot(bytes, identity).into_iter().for_each(&mut note);
    }
    uploads.len()
}

fn check_history(actions: &[(Action, bool)]) {
    let (private, public) = Identity::generate();
    let text = private.expose_secret().to_owned();
    let key = KeyEntry::new("mine", KeyKind::Age, &public).unwrap();
    let keys = Arc::new(KeySet::new(vec![key], RANDOM).unwrap());
    let log = Recorded::default();
    let memory = Arc::new(MemoryStore::new("encrypted"));
    let recorded = RecordStore::new(memory, log.clone());
    let ring = KeyRing::new(Pocket(vec![text.clone()]));
    let inner = Arc::new(EncryptedStore::new(
        Arc::new(recorded),
        Arc::new(ring),
        RANDOM,
    ));
    let sealing = Arc::clone(&inner);
    let store = Arc::new(Shaped {
        inner: Arc::clone(&inner) as _,
        form: Box::new(move || {
            Ok(Form {
                part_len: None,
                keys: Some(keys_of_images(&sealing, &keys)?),
            })
        }),
    });
    let mut world = World::new(store, odd_len(399), 4);
    for (action, rotate) in actions {
        action.run(&mut world);
        if *rotate {
            change_in(
                &context(&Stop::never()),
                &inner,
                &request(),
                &KeyChange::Rotate,
            )
            .unwrap();
        }
    }
    check::world(&world, &mut Vec::new());
    let identity = age::x25519::Identity::from_str(&text).unwrap();
    let files = check_ops(&log.ops(), &identity);
    assert!(files >= world.points.len(), "{files} files");
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn no_nonce_is_used_twice(
        actions in history(400, 12),
        rotations in proptest::collection::vec(prop::bool::weighted(0.2), 12),
    ) {
        let actions: Vec<_> = actions.into_iter().zip(rotations).collect();
        check_history(&actions);
    }
}
