//! The golden encrypted image opens for ever, and is what the page says: it is read here with nothing but
//! docs/format.md, section 14, and the crates for age, AES-GCM and BLAKE3.

#![allow(clippy::unwrap_used)]

use diskstrata::base::{ErrorKind, RangeRead, Result};
use diskstrata::crypt::{EncryptedFile, Head, Identity, KeyRing, KeySource, Passphrase};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::str::FromStr;
use std::sync::Arc;

const KEY_SET: &str = "38d69530282207b613f40dd698abae53";

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A private key, or a password.
struct Given(Option<&'static str>);

impl KeySource for Given {
    fn identities(&self) -> Result<Vec<Identity>> {
        match self.0 {
            Some(_) => Ok(Vec::new()),
            None => {
                let text = String::from_utf8(file("crypt/v1.key")).unwrap();
                Identity::parse(&text, "v1.key", |_| None)
            }
        }
    }

    fn password(&self, attempt: u32, _: &str) -> Result<Option<Passphrase>> {
        let password = self.0.filter(|_| attempt == 1);
        Ok(password.map(|p| p.to_owned().into()))
    }
}

fn open(name: &str, given: Given) -> Result<EncryptedFile> {
    let input: Arc<dyn RangeRead> = Arc::new(file(name));
    let head = Head::read(input.as_ref())?.unwrap();
    EncryptedFile::open(input, &head, &KeyRing::new(given))
}

#[test]
fn version_1_opens_with_either_key_and_no_other() {
    let plain = file("image/v1-raw.strata");
    let all = [
        ("crypt/v1.strata", Given(None)),
        ("crypt/v1.strata", Given(Some("golden password"))),
        ("crypt/v1-continued.strata", Given(None)),
    ];
    for (name, given) in all {
        let opened = open(name, given).unwrap();
        let mut content = vec![0; usize::try_from(opened.len()).unwrap()];
        opened.read_at(0, &mut content).unwrap();
        assert!(content == plain);
        assert_eq!(RangeRead::key_set(&opened).unwrap().to_string(), KEY_SET);
        let names: Vec<&str> = opened
            .key_set()
            .keys()
            .iter()
            .map(|k| k.name.as_str())
            .collect();
        assert_eq!(names, ["password", "age-1"]);
    }
    let error = open("crypt/v1.strata", Given(Some("silver password")))
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
}

fn le(bytes: &[u8], at: usize, len: usize) -> usize {
    let number = bytes[at..at + len].iter().rev();
    number.fold(0, |n, b| n << 8 | usize::from(*b))
}

fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    blake3::derive_key(context, &parts.concat())
}

fn decrypt(key: [u8; 32], nonce: [u8; 12], stored: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let mut bytes = stored.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let plain = key.open_in_place(nonce, Aad::empty(), &mut bytes).unwrap();
    plain.to_vec()
}

/// The numbers here are those of the page, not of the code.
#[test]
fn the_page_describes_the_bytes() {
    for (name, continued) in [("crypt/v1.strata", 0), ("crypt/v1-continued.strata", 1)] {
        check_page(&file(name), continued);
    }
}

fn check_page(file_bytes: &[u8], continued: usize) {
    // Prelude.
    assert_eq!(
        file_bytes[..8],
        [0x89, 0x53, 0x54, 0x43, 0x52, 0x59, 0x50, 0x0A]
    );
    assert_eq!((le(file_bytes, 8, 2), le(file_bytes, 10, 2)), (1, 0));
    let slot_len = le(file_bytes, 12, 4);
    assert_eq!(slot_len % 4096, 0);
    assert_eq!(
        (le(file_bytes, 16, 4), le(file_bytes, 20, 4)),
        (continued, 0)
    );
    assert_eq!(file_bytes[24], 14);
    assert_eq!(file_bytes[25..60], [0; 35]);
    let crc =
        |from: usize, to: usize| usize::try_from(crc32fast::hash(&file_bytes[from..to])).unwrap();
    assert_eq!(le(file_bytes, 60, 4), crc(0, 60));
    // The first slot.
    assert_eq!(le(file_bytes, 64, 8), 1 + continued, "generation");
    let body_len = le(file_bytes, 72, 4);
    assert_eq!(le(file_bytes, 76 + body_len, 4), crc(64, 76 + body_len));
    let zeros = &file_bytes[80 + body_len..64 + 2 * slot_len];
    assert!(
        zeros.iter().all(|b| *b == 0),
        "the rest of it, and the second slot"
    );
    let body = &file_bytes[76..76 + body_len];
    let key_set_id: String = body[..16].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(key_set_id, KEY_SET);
    assert_eq!(le(body, 16, 2), 1, "one password");
    let mut at = 18;
    let mut part = |len: Option<usize>| {
        let len = len.unwrap_or_else(|| {
            at += 4;
            le(body, at - 4, 4)
        });
        at += len;
        &body[at - len..at]
    };
    let (protected, wrapped) = (part(None), part(None));
    let (salt, list) = (part(Some(16)), part(None));
    let earlier = (continued == 1).then(|| part(None));
    let tag = part(Some(32));
    assert_eq!(at, body_len);
    // The password opens a private key, and that the file's.
    let password = age::scrypt::Identity::new("golden password".to_owned().into());
    let hidden = age::decrypt(&password, protected).unwrap();
    let hidden = age::x25519::Identity::from_str(std::str::from_utf8(&hidden).unwrap()).unwrap();
    let both = age::decrypt(&hidden, wrapped).unwrap();
    let (file_key, secret) = both.split_at(32);
    assert_eq!(secret.len(), 32);
    let id = derive("diskstrata key set 1", &[secret]);
    assert_eq!(id[..16], body[..16]);
    let head_key = derive("diskstrata encrypted head 1", &[secret, file_key]);
    let mut hasher = blake3::Hasher::new_keyed(&head_key);
    hasher.update(&file_bytes[..64]).update(&file_bytes[64..72]);
    hasher.update(&body[..body_len - 32]);
    assert_eq!(hasher.finalize().as_bytes(), tag);
    let list = decrypt(
        derive("diskstrata list of keys 1", &[file_key, salt]),
        [0; 12],
        list,
    );
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list["version"], 1);
    assert_eq!(list["keys"][0]["kind"], "password");
    assert_eq!(list["keys"][0]["recipient"], hidden.to_public().to_string());
    // The runs before, whose key one chunk has.
    let earlier = earlier.map(|stored| {
        let key = derive("diskstrata earlier keys 1", &[file_key, salt]);
        decrypt(key, [0; 12], stored)
    });
    if let Some(entry) = &earlier {
        assert_eq!(
            (entry.len(), le(entry, 32, 8), le(entry, 40, 8)),
            (48, 0, 1)
        );
        assert!(entry[..32] != *file_key);
    }
    // Chunks.
    let chunks = &file_bytes[64 + 2 * slot_len..];
    let count = chunks.len().div_ceil((1 << 14) + 16);
    let mut content = Vec::new();
    for (number, chunk) in chunks.chunks((1 << 14) + 16).enumerate() {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
        nonce[8] = u8::from(number + 1 == count);
        let file_key = match &earlier {
            Some(entry) if number == 0 => &entry[..32],
            _ => file_key,
        };
        let key = derive("diskstrata encrypted data 1", &[file_key]);
        content.extend(decrypt(key, nonce, chunk));
    }
    assert!(content == file("image/v1-raw.strata"));
}
