//! An encrypted file: what is handed out is what was encrypted, or nothing.

use crate::Target;
use crate::image::images;
use crate::seeds::{self, Cut, RAW};
use crate::watch::{Metered, within_memory};
use diskstrata::base::{ErrorKind, KeySetId, RangeRead, Result, to_u64, to_usize};
use diskstrata::crypt::{
    DecryptReader, EncryptWriter, EncryptedFile, Head, Identity, KeyEntry, KeyKind, KeyRing,
    KeySet, KeySource, Passphrase, UnfinishedFile, is_encrypted, rewrap,
};
use diskstrata::image::ImageReader;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

pub(crate) const TARGET: Target = Target {
    name: "encrypted",
    prepare: || {
        golden();
    },
    run,
};

/// First bytes from here on, and below those that stand for bytes of their own, choose an image that is
/// damaged and then encrypted.
const PLAIN: u8 = 0x60;
/// Of those below that, the odd ones stand for the file with which a second run went on.
const CONTINUED: u8 = 1;
/// Lengths of the prelude of a file and of a chunk as it is stored.
const PRELUDE: usize = 64;
const CHUNK: usize = (1 << 14) + 16;

/// The golden files, cut, and what is in both.
struct Golden {
    cut: Cut,
    continued: Cut,
    plain: Vec<u8>,
    identity: String,
    key_set: KeySet,
    /// One for the same key, with another secret.
    other: KeySet,
}

/// An encrypted file in its pieces.
fn cut(name: &str) -> Cut {
    let file = seeds::read(name);
    let head = Head::read(&file)
        .expect("it is whole")
        .expect("it is encrypted");
    let slot = (head.len() - PRELUDE) / 2;
    let (head, chunks) = file.split_at(head.len());
    let (prelude, slots) = head.split_at(PRELUDE);
    let mut pieces = vec![prelude.to_vec()];
    pieces.extend(slots.chunks(slot).map(<[u8]>::to_vec));
    pieces.extend(chunks.chunks(CHUNK).map(<[u8]>::to_vec));
    Cut::of(pieces)
}

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let identity = String::from_utf8(seeds::read("crypt/v1.key")).expect("a key is text");
        let line = identity.lines().find(|line| !line.starts_with('#'));
        let public = Identity::public_of(line.expect("a key").trim()).expect("an age key");
        let key = KeyEntry::new("mine", KeyKind::Age, &public).expect("a key");
        let key_set = KeySet::new(vec![key], random).expect("keys");
        let other = key_set.rotated(random).expect("keys");
        Golden {
            cut: cut("crypt/v1.strata"),
            continued: cut("crypt/v1-continued.strata"),
            plain: seeds::read("image/v1-raw.strata"),
            identity,
            key_set,
            other,
        }
    })
}

/// Bytes that are never the same twice, which is all that a fuzzer needs of chance.
fn random(out: &mut [u8]) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut state = NEXT
        .fetch_add(1, Relaxed)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for byte in out {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = state.to_be_bytes()[0];
    }
    Ok(())
}

/// The private key, and no password: trying one takes half a second.
struct Given(&'static str);

impl KeySource for Given {
    fn identities(&self) -> Result<Vec<Identity>> {
        Identity::parse(self.0, "the fixture's", |_| None)
    }

    fn password(&self, _: u32, _: &str) -> Result<Option<Passphrase>> {
        Ok(None)
    }

    fn accepted(&self) -> Vec<KeySetId> {
        Vec::new()
    }
}

/// A ring that has opened nothing yet.
fn ring() -> KeyRing {
    KeyRing::new(Given(&golden().identity))
}

fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    match *first {
        RAW.. => check(rest, None),
        PLAIN.. => fresh(&{
            let mut chosen = vec![first - PLAIN];
            chosen.extend_from_slice(rest);
            seeds::file(&chosen, images()).expect("it has a first byte")
        }),
        _ => {
            let golden = golden();
            let cut = match *first & CONTINUED {
                0 => &golden.cut,
                _ => &golden.continued,
            };
            check(&cut.damaged(rest).concat(), Some(&golden.plain));
        }
    }
}

/// Asks all of `file`; `plain` is what was encrypted, if anything was.
fn check(file: &[u8], plain: Option<&[u8]>) {
    let metered: Arc<Metered> = Arc::new(Metered::new(file));
    let head = within_memory("head", || Head::read(metered.as_ref()));
    assert!(metered.take() <= (600 << 10), "a head reads too much");
    let again = Head::read(metered.as_ref());
    assert_eq!(format!("{head:?}"), format!("{again:?}"), "read again");
    let starts_so = is_encrypted(file);
    let opened = match &head {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            false
        }
        Ok(None) => {
            assert!(!starts_so || file.len() < PRELUDE);
            false
        }
        Ok(Some(head)) => {
            assert!(starts_so && head.len() <= file.len());
            within_memory("unfinished", || unfinished(&metered, head, plain));
            within_memory("open", || opens(&metered, head, plain))
        }
    };
    if starts_so {
        within_memory("stream", || stream(file, plain, opened));
    } else {
        let mut out = Vec::new();
        let mut reader = DecryptReader::new(file, "pipe", &ring()).expect("it is plain");
        reader.read_to_end(&mut out).expect("it is plain");
        assert!(out == file, "what is plain goes through as it is");
    }
}

/// Opens a file by range, and gives it other keys. Whether that was possible.
fn opens(metered: &Arc<Metered>, head: &Head, plain: Option<&[u8]>) -> bool {
    let file = EncryptedFile::open(Arc::clone(metered) as _, head, &ring());
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            let kinds = [ErrorKind::Damaged, ErrorKind::WrongKey];
            assert!(kinds.contains(&error.kind()), "{error}");
            return false;
        }
    };
    let plain = plain.expect("nobody encrypted it");
    let len = RangeRead::len(&file);
    // Piece by piece, over the ends of chunks too.
    let mut whole = true;
    for at in (0..len).step_by(10_000) {
        let mut bytes = vec![0; to_usize((len - at).min(10_001))];
        match file.read_at(at, &mut bytes) {
            Ok(()) => assert_eq!(
                plain.get(to_usize(at)..to_usize(at) + bytes.len()),
                Some(bytes.as_slice()),
                "what is not authentic was handed out"
            ),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                whole = false;
            }
        }
    }
    assert!(
        file.read_at(len, &mut [0]).is_err(),
        "nothing is behind the end"
    );
    assert!(
        !whole || len == to_u64(plain.len()),
        "a cut file was taken for whole"
    );
    rewrapped(metered, head, whole);
    true
}

/// Reads a file as one whose end was never written, and goes on with it.
fn unfinished(metered: &Arc<Metered>, head: &Head, plain: Option<&[u8]>) {
    let file = UnfinishedFile::open(Arc::clone(metered) as _, head.clone(), &ring());
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            let kinds = [ErrorKind::Damaged, ErrorKind::WrongKey];
            assert!(kinds.contains(&error.kind()), "{error}");
            return;
        }
    };
    let plain = plain.expect("nobody encrypted it");
    // As far as it can be read without a gap.
    let mut there = Vec::new();
    while there.len() < to_usize(file.len()) {
        let mut bytes = vec![0; (to_usize(file.len()) - there.len()).min(10_001)];
        if file.read_at(to_u64(there.len()), &mut bytes).is_err() {
            break;
        }
        there.extend_from_slice(&bytes);
    }
    assert!(
        plain.starts_with(&there),
        "what is not authentic was handed out"
    );
    if there.is_empty() || !file.can_go_on() {
        return;
    }
    let front = vec![7; there.len().min(100)];
    let keys = Arc::clone(file.key_set());
    let at = to_u64(there.len());
    let going_on = file.go_on(at, &front, &keys, &ring(), random);
    let going_on = going_on.expect("it was read");
    let mut bytes = vec![0; to_usize(metered.len())];
    metered.read_at(0, &mut bytes).expect("in memory");
    bytes[..going_on.start.len()].copy_from_slice(&going_on.start);
    bytes.truncate(to_usize(going_on.len));
    let mut writer = going_on.writer(bytes).expect("in memory");
    let more = [
        front.as_slice(),
        &there[front.len()..],
        &plain[there.len()..],
    ]
    .concat();
    writer.write_all(&more[there.len()..]).expect("in memory");
    let stored = writer.finish().expect("in memory");
    let head = Head::read(&stored)
        .expect("it is whole")
        .expect("it is encrypted");
    let file = EncryptedFile::open(Arc::new(stored), &head, &ring()).expect("it opens");
    let mut out = vec![0; to_usize(RangeRead::len(&file))];
    file.read_at(0, &mut out).expect("it is whole");
    assert!(out == more, "gone on with, it holds something else");
}

/// Gives the file other keys: it holds the same then.
fn rewrapped(metered: &Arc<Metered>, head: &Head, whole: bool) {
    let golden = golden();
    let other = &golden.other;
    let rewrite = rewrap(head, "file", &ring(), other, random).expect("it opens");
    let mut bytes = vec![0; to_usize(metered.len())];
    metered.read_at(0, &mut bytes).expect("in memory");
    for (at, step) in &rewrite.steps {
        let (at, end) = (to_usize(*at), to_usize(*at) + step.len());
        assert!(PRELUDE <= at && end <= head.len(), "only the head changes");
        bytes[at..end].copy_from_slice(step);
        let torn = Head::read(&bytes)
            .expect("one slot is whole")
            .expect("it is encrypted");
        EncryptedFile::open(Arc::new(bytes.clone()), &torn, &ring()).expect("it opens");
    }
    let head = Head::read(&bytes)
        .expect("it is whole")
        .expect("it is encrypted");
    assert_eq!(head.key_set(), other.id());
    let file = EncryptedFile::open(Arc::new(bytes), &head, &ring()).expect("it opens");
    if whole {
        let mut out = vec![0; to_usize(RangeRead::len(&file))];
        file.read_at(0, &mut out).expect("it was whole before");
        assert!(out == golden.plain, "other keys, other content");
    }
}

/// Reads a file as it comes out of a pipe.
fn stream(file: &[u8], plain: Option<&[u8]>, opened: bool) {
    let reader = DecryptReader::new(file, "pipe", &ring());
    // A file that ends with its head opens in a pipe only.
    assert!(reader.is_ok() || !opened, "it opens as a file");
    let Ok(mut reader) = reader else {
        return;
    };
    let plain = plain.expect("nobody encrypted it");
    let mut out = Vec::new();
    let read = reader.read_to_end(&mut out);
    assert!(
        plain.starts_with(&out),
        "what is not authentic was handed out"
    );
    assert!(
        read.is_err() || out == plain,
        "a cut file was taken for whole"
    );
    assert!(read.is_err() || opened, "it opens as a file too");
}

/// Encrypts `plain` and reads it again: nothing of what it holds changes that.
fn fresh(plain: &[u8]) {
    let golden = golden();
    let writer = EncryptWriter::new(Vec::new(), &golden.key_set, &ring(), random);
    let mut writer = writer.expect("keys").expect("in memory");
    for piece in plain.chunks(5000) {
        writer.write_all(piece).expect("in memory");
    }
    let stored = writer.finish().expect("in memory");
    check_fresh(&stored, plain);
}

fn check_fresh(stored: &[u8], plain: &[u8]) {
    let head = Head::read(&stored.to_vec())
        .expect("it is whole")
        .expect("it is encrypted");
    assert_eq!(head.key_set(), golden().key_set.id());
    let file = EncryptedFile::open(Arc::new(stored.to_vec()), &head, &ring()).expect("it opens");
    let mut out = vec![0; to_usize(RangeRead::len(&file))];
    file.read_at(0, &mut out).expect("it is whole");
    assert!(out == plain);
    let mut piped = Vec::new();
    let mut reader = DecryptReader::new(stored, "pipe", &ring()).expect("it opens");
    reader.read_to_end(&mut piped).expect("it is whole");
    assert!(piped == plain);
    // What an image says of itself does not depend on how it is stored.
    let encrypted = ImageReader::open(Arc::new(file));
    match (encrypted, ImageReader::open(Arc::new(plain.to_vec()))) {
        (Ok(image), Ok(same)) => {
            assert_eq!(image.root(), same.root());
            assert_eq!(image.info(), same.info());
            assert_eq!(image.key_set(), Some(golden().key_set.id()));
        }
        (Err(error), Err(same)) => assert_eq!(error.kind(), same.kind()),
        (image, _) => panic!("encrypted it opens: {}", image.is_ok()),
    }
}
