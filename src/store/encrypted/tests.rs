//! The contract, keys that change, and going on with what is unfinished.

use super::*;
use crate::base::ErrorKind;
use crate::crypt::testing::{key_set, random, with_identity};
use crate::crypt::{KeyRing, NoKeys};
use crate::store::{Call, Fault, FaultStore, Faults, MemoryStore, contract};

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

/// A store whose every file is encrypted, to hold it to the contract.
struct All(EncryptedStore, Arc<KeySet>);

impl Store for All {
    crate::pass_on!(0: name, list, open, remove, space, lock, clean_up);

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        let keys = Some(Arc::clone(&self.1));
        self.0.create_as(
            name,
            &Form {
                part_len: None,
                keys,
            },
        )
    }
    /// Of the content, which only the contract wants: read, changed, and written anew.
    fn overwrite(&self, name: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = self.0.open(name)?;
        if let Some(error) = crate::store::past_end_of("m", name, offset, bytes, file.len()) {
            return Err(error);
        }
        let mut content = vec![0; usize::try_from(file.len()).unwrap()];
        file.read_at(0, &mut content)?;
        let at = usize::try_from(offset).unwrap();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        self.0.remove(name)?;
        let mut upload = self.create(name)?;
        upload.write_all(&content).unwrap();
        upload.publish()
    }
}

#[test]
fn encrypted_files_keep_the_contract() {
    let memory = Arc::new(MemoryStore::new("m"));
    let (keys, secret) = key_set();
    let keys = Arc::new(keys);
    let ring = Arc::new(with_identity(&secret));
    let store = || {
        let store = EncryptedStore::new(memory.clone(), Arc::clone(&ring), random);
        All(store, Arc::clone(&keys))
    };
    contract::check_store(&store(), &store());
}

#[test]
fn plain_files_keep_the_contract() {
    let memory = Arc::new(MemoryStore::new("m"));
    let ring = Arc::new(KeyRing::new(NoKeys));
    let store = || EncryptedStore::new(memory.clone(), Arc::clone(&ring), random);
    contract::check_store(&store(), &store());
}

#[test]
fn a_store_that_cannot_encrypt_stores_nothing() {
    let memory = MemoryStore::new("m");
    let form = Form {
        keys: Some(Arc::new(key_set().0)),
        ..Form::default()
    };
    assert!(memory.create_as(&name("a"), &form).is_err());
    assert_eq!(memory.list().unwrap(), []);
}

#[test]
fn a_new_file_takes_the_form_of_an_old_one() {
    let memory = Arc::new(MemoryStore::new("m"));
    let (keys, secret) = key_set();
    let store = EncryptedStore::new(memory.clone(), Arc::new(with_identity(&secret)), random);
    let form = Form {
        part_len: None,
        keys: Some(Arc::new(keys)),
    };
    store
        .create_as(&name("a"), &form)
        .unwrap()
        .publish()
        .unwrap();
    assert_eq!(store.form_of(&name("a")).unwrap(), form);
    store.create(&name("b")).unwrap().publish().unwrap();
    assert_eq!(store.form_of(&name("b")).unwrap(), Form::default());
}

#[test]
fn a_print_survives_other_keys_and_no_other_content() {
    let (keys, secret) = key_set();
    let (other, other_secret) = key_set();
    let ring = Arc::new(with_identity(&format!("{secret}\n{other_secret}")));
    let store = EncryptedStore::new(Arc::new(MemoryStore::new("m")), ring, random);
    let form = Form {
        keys: Some(Arc::new(keys.clone())),
        ..Form::default()
    };
    for file in ["a", "b"] {
        let mut upload = store.create_as(&name(file), &form).unwrap();
        upload.write_all(b"the same content").unwrap();
        upload.publish().unwrap();
    }
    let print = |file: &str| store.print_of(&name(file)).unwrap();
    assert_ne!(print("a"), print("b"), "each file has a key of its own");
    let before = print("a");
    let changed = keys.with_keys(other.keys().to_vec()).unwrap();
    store.change_keys(&name("a"), &changed).unwrap();
    assert_eq!(print("a"), before);
}

/// Whatever fails while keys are changed, the file is opened by the old or the new ones, and doing it
/// again finishes it.
#[test]
fn keys_are_changed_or_not_whatever_fails() {
    let (keys, secret) = key_set();
    let (other, other_secret) = key_set();
    let changed = keys.with_keys(other.keys().to_vec()).unwrap();
    for nth in 1.. {
        let memory = Arc::new(MemoryStore::new("m"));
        let plain = EncryptedStore::new(memory.clone(), Arc::new(with_identity(&secret)), random);
        let form = Form {
            keys: Some(Arc::new(keys.clone())),
            ..Form::default()
        };
        let mut upload = plain.create_as(&name("a"), &form).unwrap();
        upload.write_all(b"content").unwrap();
        upload.publish().unwrap();
        let faults = Faults::new(vec![Fault::nth(Call::Overwrite, nth, 5, true)]);
        let faulty = Arc::new(FaultStore::new(memory.clone(), faults.clone()));
        let both = format!("{secret}\n{other_secret}");
        let ring = Arc::new(with_identity(&both));
        let outcome = EncryptedStore::new(faulty, Arc::clone(&ring), random)
            .change_keys(&name("a"), &changed);
        let open = |secret: &str| {
            let store =
                EncryptedStore::new(memory.clone(), Arc::new(with_identity(secret)), random);
            store.open(&name("a")).map(|f| f.len())
        };
        assert_eq!(open(&both).unwrap(), 7);
        assert_eq!(outcome.is_err(), faults.fired());
        let store = EncryptedStore::new(memory.clone(), ring, random);
        store.change_keys(&name("a"), &changed).unwrap();
        assert_eq!(open(&secret).unwrap_err().kind(), ErrorKind::WrongKey);
        assert_eq!(open(&other_secret).unwrap(), 7);
        if !faults.fired() {
            assert_eq!(nth, 3, "two writes were made to fail");
            break;
        }
    }
}
