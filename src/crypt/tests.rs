//! Files that are written, read, damaged and opened with other keys.

use super::recipient::protect_with;
use super::testing::{Given, key_set, random, with_identity};
use super::*;
use crate::base::{Announced, Error, ErrorKind, RangeRead, to_u64};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn encrypt(content: &[u8], keys: &KeySet) -> Vec<u8> {
    let mut writer = EncryptWriter::new(Vec::new(), keys, &KeyRing::new(NoKeys), random)
        .unwrap()
        .unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn open(file: &[u8], ring: &KeyRing) -> Result<EncryptedFile, Error> {
    let inner: Arc<dyn RangeRead> = Arc::new(file.to_vec());
    let head = Head::read(inner.as_ref())?.expect("it is encrypted");
    EncryptedFile::open(inner, &head, ring)
}

fn decrypt(file: &[u8], ring: &KeyRing) -> Result<Vec<u8>, Error> {
    let file = open(file, ring)?;
    let mut content = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut content)?;
    Ok(content)
}

fn decrypt_stream(file: &[u8], ring: &KeyRing) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    DecryptReader::new(file, "pipe", ring)?.read_to_end(&mut content)?;
    Ok(content)
}

fn some_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random(&mut bytes).unwrap();
    bytes
}

fn head_len(file: &[u8]) -> usize {
    Head::read(&file.to_vec()).unwrap().unwrap().len()
}

#[test]
fn what_is_announced_is_what_is_read() {
    let (keys, secret) = key_set();
    let stored = Arc::new(Announced::new(encrypt(&some_bytes(300_000), &keys)));
    let head = Head::read(stored.as_ref()).unwrap().unwrap();
    let file = EncryptedFile::open(stored.clone(), &head, &with_identity(&secret)).unwrap();
    stored.take();
    for (offset, len) in [
        (0, 1),
        (16_383, 2),
        (77, 200_000),
        (299_999, 1),
        (0, 300_000),
    ] {
        file.will_need(offset, to_u64(len));
        file.read_at(offset, &mut vec![0; len]).unwrap();
        let read = stored.take();
        assert!(!read.is_empty());
        assert!(
            read.iter().all(|(_, known)| *known),
            "{offset}, {len}: {read:?}"
        );
    }
    for (offset, len) in [(300_000, 1), (u64::MAX, u64::MAX), (5, u64::MAX), (5, 0)] {
        file.will_need(offset, len);
        assert!(!file.is_cached(offset, len));
    }
}

/// Stored bytes of a whole chunk.
const CHUNK: usize = (16 << 10) + 16;

#[test]
fn content_of_every_length_comes_back() {
    let (keys, secret) = key_set();
    let ring = with_identity(&secret);
    let chunk = 16 << 10;
    for len in [
        0,
        1,
        chunk - 1,
        chunk,
        chunk + 1,
        2 * chunk,
        100 * chunk,
        (2 << 20) + 77,
    ] {
        let content = some_bytes(len);
        let file = encrypt(&content, &keys);
        assert_eq!(decrypt(&file, &ring).unwrap(), content, "{len}");
        assert_eq!(decrypt_stream(&file, &ring).unwrap(), content, "{len}");
        let chunks = len.div_ceil(chunk).max(1);
        assert_eq!(file.len(), head_len(&file) + len + 16 * chunks, "{len}");
    }
    let plain = some_bytes(77);
    assert_eq!(
        decrypt_stream(&plain, &ring).unwrap(),
        plain,
        "not encrypted"
    );
    assert_eq!(decrypt_stream(b"abc", &ring).unwrap(), b"abc");
}

#[test]
fn small_writes_make_the_same_chunks() {
    let (keys, secret) = key_set();
    let content = some_bytes((1 << 20) + 12_345);
    let mut writer = EncryptWriter::new(Vec::new(), &keys, &KeyRing::new(NoKeys), random)
        .unwrap()
        .unwrap();
    for piece in content.chunks(997) {
        writer.write_all(piece).unwrap();
        writer.flush().unwrap();
    }
    let file = writer.finish().unwrap();
    assert_eq!(decrypt(&file, &with_identity(&secret)).unwrap(), content);
}

#[test]
fn nothing_of_the_content_is_in_the_file() {
    let (keys, _) = key_set();
    let file = encrypt(&b"diskstrata secret ".repeat(5000), &keys);
    let shows = |what: &[u8]| file.windows(what.len()).any(|w| w == what);
    assert!(!shows(b"secret"));
    assert!(!shows(b"mine"), "not even the name of a key");
    assert!(!shows(b"age1"), "nor its public half");
}

#[test]
fn two_files_share_no_byte_of_ciphertext() {
    let (keys, _) = key_set();
    let content = vec![0; 64 << 10];
    let (a, b) = (encrypt(&content, &keys), encrypt(&content, &keys));
    let from = head_len(&a);
    let pieces: std::collections::HashSet<&[u8]> = a[from..].chunks_exact(16).collect();
    assert_eq!(pieces.len(), a[from..].len() / 16, "within a file neither");
    assert!(b[from..].chunks_exact(16).all(|p| !pieces.contains(p)));
}

/// Every kind of damage that moves, leaves out or adds chunks.
#[test]
fn chunks_that_are_not_where_they_were_written_are_noticed() {
    let (keys, secret) = key_set();
    let ring = with_identity(&secret);
    let content = some_bytes(5 * (16 << 10) + 500);
    let file = encrypt(&content, &keys);
    let older = encrypt(&content, &keys);
    let from = head_len(&file);
    let at = |i: usize| from + i * CHUNK;
    let mut bad: Vec<(String, Vec<u8>)> = Vec::new();
    for i in 0..5 {
        for j in i + 1..5 {
            let mut swapped = file.clone();
            swapped[at(i)..at(i + 1)].copy_from_slice(&file[at(j)..at(j + 1)]);
            swapped[at(j)..at(j + 1)].copy_from_slice(&file[at(i)..at(i + 1)]);
            bad.push((format!("{i} and {j} swapped"), swapped));
        }
        let mut twice = file[..at(i + 1)].to_vec();
        twice.extend_from_slice(&file[at(i)..]);
        bad.push((format!("{i} twice"), twice));
        let mut without = file[..at(i)].to_vec();
        without.extend_from_slice(&file[at(i + 1)..]);
        bad.push((format!("without {i}"), without));
        let mut replayed = file.clone();
        replayed[at(i)..at(i + 1)].copy_from_slice(&older[at(i)..at(i + 1)]);
        bad.push((format!("{i} of a sibling"), replayed));
        bad.push((format!("ends before {i}"), file[..at(i)].to_vec()));
        bad.push((format!("ends in {i}"), file[..at(i) + 100].to_vec()));
    }
    let mut longer = file.clone();
    longer.push(0);
    bad.push(("longer".to_owned(), longer));
    let mut spliced = older[..from].to_vec();
    spliced.extend_from_slice(&file[from..]);
    bad.push(("the head of a sibling".to_owned(), spliced));
    for (what, bad) in bad {
        let error = decrypt(&bad, &ring).expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}");
        let error = decrypt_stream(&bad, &ring).expect_err(&what);
        let error = error.downcast::<Error>().expect(&what);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}");
    }
}

#[test]
fn no_bit_of_a_chunk_can_be_flipped_unnoticed() {
    let (keys, secret) = key_set();
    let ring = with_identity(&secret);
    let file = encrypt(&some_bytes(300), &keys);
    for at in head_len(&file)..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            assert!(decrypt(&bad, &ring).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_damaged_chunk_costs_only_itself() {
    let (keys, secret) = key_set();
    let content = some_bytes(5 * (16 << 10));
    let mut file = encrypt(&content, &keys);
    let from = head_len(&file);
    file[from + 2 * CHUNK + 9] ^= 4;
    let file = open(&file, &with_identity(&secret)).unwrap();
    let mut buf = vec![0; 16 << 10];
    for chunk in [0u64, 1, 3, 4] {
        let at = chunk * (16 << 10);
        file.read_at(at, &mut buf).unwrap();
        assert_eq!(buf, content[usize::try_from(at).unwrap()..][..16 << 10]);
    }
    let error = file.read_at(2 * (16 << 10) + 5, &mut [0; 3]).unwrap_err();
    let at = from + 2 * CHUNK;
    assert!(
        error.to_string().contains(&format!("at byte {at}")),
        "{error}"
    );
    assert_eq!(
        file.read_at(to_u64(content.len()) - 1, &mut [0; 2])
            .unwrap_err()
            .kind(),
        ErrorKind::Damaged
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_range_reads_as_written(len in 1usize..200_000, at in 0usize..200_000, count in 0usize..100_000) {
        let (keys, secret) = key_set();
        let content = some_bytes(len);
        let file = open(&encrypt(&content, &keys), &with_identity(&secret)).unwrap();
        let at = at % len;
        let count = count.min(len - at);
        let mut buf = vec![0; count];
        file.read_at(to_u64(at), &mut buf).unwrap();
        prop_assert_eq!(&buf[..], &content[at..at + count]);
    }

    #[test]
    fn any_bytes_behind_the_magic_are_refused(bytes in prop::collection::vec(any::<u8>(), 56..20_000)) {
        let mut file = b"\x89STCRYP\n".to_vec();
        file.extend_from_slice(&bytes);
        prop_assert!(Head::read(&file).is_err());
        prop_assert!(decrypt_stream(&file, &KeyRing::new(NoKeys)).is_err());
    }
}

fn kind_of(outcome: Result<Vec<u8>, Error>) -> ErrorKind {
    outcome.expect_err("it must not open").kind()
}

#[test]
fn another_key_opens_nothing_and_says_so() {
    let (keys, _) = key_set();
    let (_, other) = key_set();
    let file = encrypt(b"content", &keys);
    assert_eq!(
        kind_of(decrypt(&file, &with_identity(&other))),
        ErrorKind::WrongKey
    );
    let none = KeyRing::new(NoKeys);
    let error = decrypt(&file, &none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    assert!(error.to_string().contains("no key was given"), "{error}");
    let error = decrypt_stream(&file, &none).unwrap_err();
    assert_eq!(
        error.downcast::<Error>().unwrap().kind(),
        ErrorKind::WrongKey
    );
}

/// A password with little work, so that the test is quick.
fn password(name: &str, text: &'static str) -> KeyEntry {
    let (secret, public) = Identity::generate();
    let protected = protect_with(&secret, &text.to_owned().into(), 4).unwrap();
    KeyEntry::new(name, KeyKind::Password, &public)
        .unwrap()
        .protected_by_password(protected)
}

#[test]
fn any_of_several_keys_opens_a_file() {
    use age::secrecy::ExposeSecret;
    let (age_secret, age_public) = Identity::generate();
    let ssh_public = include_str!("../../fixtures/crypt/ed25519.pub");
    let entry = |name: &str, recipient: &Recipient| {
        KeyEntry::new(name, recipient.kind(), recipient).unwrap()
    };
    let set = KeySet::new(
        vec![
            password("a", "first"),
            entry("b", &age_public),
            password("c", "second"),
            entry("d", &Recipient::parse(ssh_public).unwrap()),
        ],
        random,
    )
    .unwrap();
    let file = encrypt(b"content", &set);
    let by_password = |text| {
        KeyRing::new(Given {
            passwords: vec![text],
            ..Given::default()
        })
    };
    let rings = [
        by_password("first"),
        by_password("second"),
        with_identity(age_secret.expose_secret()),
        with_identity(include_str!("../../fixtures/crypt/ed25519")),
    ];
    for (i, ring) in rings.iter().enumerate() {
        assert_eq!(decrypt(&file, ring).unwrap(), b"content", "key {i}");
        let opened = open(&file, ring).unwrap();
        assert_eq!(opened.key_set().keys(), set.keys(), "key {i} shows all");
    }
    assert_eq!(
        kind_of(decrypt(&file, &by_password("third"))),
        ErrorKind::WrongKey
    );
}

#[test]
fn a_password_is_asked_for_once_for_all_files_and_threads() {
    let set = KeySet::new(vec![password("a", "right")], random).unwrap();
    let files: Vec<Vec<u8>> = (0..20u8).map(|i| encrypt(&[i], &set)).collect();
    let asked = Arc::new(AtomicU64::new(0));
    let ring = KeyRing::new(Given {
        passwords: vec!["wrong", "right"],
        asked: Arc::clone(&asked),
        ..Given::default()
    });
    std::thread::scope(|scope| {
        for (i, file) in files.iter().enumerate() {
            let ring = &ring;
            scope.spawn(move || {
                assert_eq!(decrypt(file, ring).unwrap(), [u8::try_from(i).unwrap()]);
            });
        }
    });
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // What cannot be opened is not asked for again either.
    let other = KeySet::new(vec![password("a", "unknown")], random).unwrap();
    let refused = encrypt(b"", &other);
    for _ in 0..3 {
        assert_eq!(kind_of(decrypt(&refused, &ring)), ErrorKind::WrongKey);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[test]
fn a_file_that_somebody_else_made_for_the_same_keys_is_told_from_ours() {
    let (keys, secret) = key_set();
    let forged = encrypt(b"forged", &keys.rotated(random).unwrap());
    let ring = KeyRing::new(Given {
        identities: vec![secret.clone()],
        accepted: vec![keys.id()],
        ..Given::default()
    });
    assert_eq!(decrypt(&encrypt(b"ours", &keys), &ring).unwrap(), b"ours");
    assert_eq!(kind_of(decrypt(&forged, &ring)), ErrorKind::Refused);
    assert_eq!(
        ring.accept_plain("x").unwrap_err().kind(),
        ErrorKind::Refused
    );
    // Its id alone cannot be taken over: the tag of the head needs the secret that the id follows from.
    let mut bytes = forged.clone();
    let id_at = 64 + 12;
    bytes[id_at..id_at + 16].copy_from_slice(&encrypt(b"ours", &keys)[id_at..id_at + 16]);
    let len = usize::try_from(u32::from_le_bytes(bytes[72..76].try_into().unwrap())).unwrap();
    let crc = crc32fast::hash(&bytes[64..76 + len]).to_le_bytes();
    bytes[76 + len..80 + len].copy_from_slice(&crc);
    assert_eq!(kind_of(decrypt(&bytes, &ring)), ErrorKind::Damaged);
}

#[test]
fn sets_of_keys_are_checked() {
    let key = |name: &str| password(name, "x");
    let with_halves = KeySet::new(vec![key("a")], random)
        .unwrap()
        .rotated(random)
        .unwrap();
    assert_eq!(KeySet::import(&with_halves.export()), Some(with_halves));
    assert_eq!(KeySet::import("{}"), None);
    assert!(KeySet::new(vec![], random).is_err());
    assert!(KeySet::new(vec![key("a"), key("a")], random).is_err());
    let set = KeySet::new(vec![key("a")], random).unwrap();
    let more = set.with_keys(vec![key("a"), key("b")]).unwrap();
    assert_eq!((more.id(), more.version()), (set.id(), set.version() + 1));
    let rotated = set.rotated(random).unwrap();
    assert_ne!(rotated.id(), set.id());
    assert!(rotated.succeeds(&set) && !set.succeeds(&rotated) && !more.succeeds(&set));
    let planted = KeySet::new(vec![key("a")], random).unwrap();
    assert!(!planted.rotated(random).unwrap().succeeds(&set));
    let (_, public) = Identity::generate();
    assert!(KeyEntry::new("", KeyKind::Age, &public).is_err());
    assert!(KeyEntry::new("a\nb", KeyKind::Age, &public).is_err());
    for bad in ["", "age1xyz", "ssh-rsa", "AGE-SECRET-KEY-1QQQQQQQQQQQQ"] {
        let error = Recipient::parse(bad).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(!error.to_string().contains("QQQ"), "a secret is not shown");
    }
    assert!(Identity::parse("# nothing\n", "x", |_| None).is_err());
    assert!(Identity::parse("AGE-SECRET-KEY-1X\n", "x", |_| None).is_err());
}

#[test]
fn other_keys_need_only_another_head() {
    let (keys, secret) = key_set();
    let (other_secret, other_public) = Identity::generate();
    let ring = with_identity(&secret);
    let mut file = encrypt(b"content", &keys);
    let other = KeyEntry::new("other", KeyKind::Age, &other_public).unwrap();
    let changed = keys.with_keys(vec![other]).unwrap();
    let head = Head::read(&file).unwrap().unwrap();
    let rewrite = rewrap(&head, "x", &ring, &changed, random).unwrap();
    let from = head.len();
    for (at, bytes) in &rewrite.steps {
        let at = usize::try_from(*at).unwrap();
        assert!(at + bytes.len() <= from, "only the head");
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    use age::secrecy::ExposeSecret;
    assert_eq!(
        decrypt(&file, &with_identity(other_secret.expose_secret())).unwrap(),
        b"content"
    );
    assert_eq!(
        kind_of(decrypt(&file, &with_identity(&secret))),
        ErrorKind::WrongKey
    );
    let head = Head::read(&file).unwrap().unwrap();
    let ring = with_identity(other_secret.expose_secret());
    assert!(
        rewrap(&head, "x", &ring, &changed, random)
            .unwrap()
            .steps
            .is_empty()
    );
}

#[test]
#[should_panic(expected = "is used twice with a key")]
fn a_repeated_nonce_would_be_noticed() {
    let key = Secret::random(random).unwrap();
    for content in [b"one", b"two"] {
        let key = super::chunk::ChunkKey::new(&key, 14).unwrap();
        key.seal(7, false, &mut content.to_vec(), 0).unwrap();
    }
}
