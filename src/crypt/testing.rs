//! Keys for tests.

use super::{Identity, KeyEntry, KeyKind, KeyRing, KeySet, KeySource, Passphrase};
use crate::base::KeySetId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are never the same twice, which is all that the tests need of chance.
pub(crate) fn random(out: &mut [u8]) -> crate::base::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let seed = NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    blake3::Hasher::new().update(&seed).finalize_xof().fill(out);
    Ok(())
}

thread_local! {
    /// What was encrypted with which key and nonce.
    static SEALED: RefCell<HashMap<(blake3::Hash, u64, bool), blake3::Hash>> = RefCell::default();
}

/// Fails where `plain` is another one than was encrypted before in this thread with the nonce of chunk `index` and
/// the key called `key`.
pub(crate) fn check_nonce(key: blake3::Hash, index: u64, last: bool, plain: &[u8]) {
    let plain = blake3::hash(plain);
    SEALED.with_borrow_mut(|sealed| {
        let before = sealed.insert((key, index, last), plain);
        let repeated = before.is_some_and(|before| before != plain);
        assert!(
            !repeated,
            "the nonce of chunk {index} is used twice with a key"
        );
    });
}

/// A set of one age key, and the text of its private half.
pub(crate) fn key_set() -> (KeySet, String) {
    use age::secrecy::ExposeSecret;
    let (secret, public) = Identity::generate();
    let key = KeyEntry::new("mine", KeyKind::Age, &public).unwrap();
    let set = KeySet::new(vec![key], random).unwrap();
    (set, secret.expose_secret().to_owned())
}

/// Private keys as text, and passwords in the order in which they are given.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) identities: Vec<String>,
    pub(crate) passwords: Vec<&'static str>,
    pub(crate) accepted: Vec<KeySetId>,
    pub(crate) asked: Arc<AtomicU64>,
}

impl KeySource for Given {
    fn identities(&self) -> crate::base::Result<Vec<Identity>> {
        let mut all = Vec::new();
        for text in &self.identities {
            all.extend(Identity::parse(text, "the test's", |_| None)?);
        }
        Ok(all)
    }

    fn password(&self, attempt: u32, _: &str) -> crate::base::Result<Option<Passphrase>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(attempt).unwrap() - 1;
        Ok(self.passwords.get(at).map(|p| (*p).to_owned().into()))
    }

    fn accepted(&self) -> Vec<KeySetId> {
        self.accepted.clone()
    }
}

pub(crate) fn with_identity(text: &str) -> KeyRing {
    KeyRing::new(Given {
        identities: vec![text.to_owned()],
        ..Given::default()
    })
}
