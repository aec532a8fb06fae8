//! Going on with encrypted files, on a medium that loses what was not synced. Every nonce is watched meanwhile
//! (`crypt::testing::check_nonce`).

use super::*;
use crate::base::{Error, to_usize};
use crate::crypt::DecryptReader;
use crate::crypt::testing::{key_set, random, with_identity};
use crate::store::{Continued, Entry, LockMode, Space, StoreLock, as_io_error};
use proptest::prelude::*;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

const CHUNK: usize = 16 << 10;
/// What a disk writes whole.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Put(usize, Vec<u8>),
    Len(usize),
}

impl Change {
    /// Does it, but for the sectors that `keep` says no of.
    fn apply(&self, bytes: &mut Vec<u8>, keep: &mut dyn FnMut() -> bool) {
        match self {
            Change::Len(len) => bytes.resize(*len, 0),
            Change::Put(at, new) => {
                let mut done = 0;
                while done < new.len() {
                    let here = at + done;
                    let len = (SECTOR - here % SECTOR).min(new.len() - done);
                    if keep() {
                        let end = bytes.len().max(here + len);
                        bytes.resize(end, 0);
                        bytes[here..here + len].copy_from_slice(&new[done..done + len]);
                    }
                    done += len;
                }
            }
        }
    }
}

/// When a run is killed: before so many changes, with so many bytes of the next one done.
#[derive(Debug, Clone, Copy)]
struct Kill {
    changes: usize,
    bytes: usize,
}

/// One unfinished file and one that is published, at most.
#[derive(Default)]
struct Disk {
    durable: Vec<u8>,
    /// Since it was synced.
    since: Vec<Change>,
    is_begun: bool,
    published: Option<Vec<u8>>,
    kill: Option<Kill>,
    syncs: usize,
}

impl Disk {
    fn now(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.since
            .iter()
            .for_each(|c| c.apply(&mut bytes, &mut || true));
        bytes
    }

    fn dead() -> Error {
        Error::new(ErrorKind::Destination, "write", "the medium").because("killed")
    }

    fn change(&mut self, change: Change) -> Result<()> {
        if let Some(kill) = &mut self.kill {
            if kill.changes == 0 {
                let bytes = std::mem::take(&mut kill.bytes);
                if let (Change::Put(at, new), true) = (&change, bytes > 0) {
                    let part = new[..bytes.min(new.len())].to_vec();
                    self.since.push(Change::Put(*at, part));
                }
                return Err(Disk::dead());
            }
            kill.changes -= 1;
        }
        self.since.push(change);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if let Some(kill) = &mut self.kill {
            if kill.changes == 0 {
                return Err(Disk::dead());
            }
            kill.changes -= 1;
        }
        self.durable = self.now();
        self.since.clear();
        self.syncs += 1;
        Ok(())
    }

    /// What is there when the power failed, too: of what was not synced, the sectors that `seed` says.
    fn lose(&mut self, mut seed: u64) {
        let mut keep = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 62 != 0
        };
        let mut bytes = self.durable.clone();
        let since = std::mem::take(&mut self.since);
        since.iter().for_each(|c| c.apply(&mut bytes, &mut keep));
        self.durable = bytes;
    }
}

#[derive(Clone, Default)]
struct Medium(Arc<Mutex<Disk>>);

impl Medium {
    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Begun(Medium, usize);

impl Leftover for Begun {
    fn bytes(&self) -> Arc<dyn RangeRead> {
        Arc::new(self.0.disk().now())
    }
    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut disk = self.0.disk();
        assert!(to_usize(offset) + bytes.len() <= disk.now().len());
        disk.change(Change::Put(to_usize(offset), bytes.to_vec()))?;
        disk.sync()
    }
    fn resume(self: Box<Self>, _: &FileName, form: &Form, at: u64) -> Result<Box<dyn Upload>> {
        assert_eq!(*form, Form::default());
        assert!(
            to_usize(at) <= self.0.disk().now().len(),
            "it only gets shorter"
        );
        self.0.disk().change(Change::Len(to_usize(at)))?;
        Ok(Box::new(Begun(self.0, to_usize(at))))
    }
    fn remove(self: Box<Self>) {
        let mut disk = self.0.disk();
        (disk.durable, disk.since, disk.is_begun) = (Vec::new(), Vec::new(), false);
    }
}

impl Write for Begun {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let put = Change::Put(self.1, buf.to_vec());
        self.0.disk().change(put).map_err(as_io_error)?;
        self.1 += buf.len();
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for Begun {
    fn written(&self) -> u64 {
        to_u64(self.1)
    }
    fn publish(self: Box<Self>) -> Result<()> {
        let mut disk = self.0.disk();
        disk.sync()?;
        // Killed between its last write and its name.
        disk.change(Change::Len(self.1))?;
        disk.published = Some(disk.now());
        disk.is_begun = false;
        Ok(())
    }
    fn abandon(self: Box<Self>) {
        Box::new(*self).remove();
    }
    fn leave(self: Box<Self>) -> bool {
        true
    }
}

impl Store for Medium {
    fn name(&self) -> &str {
        "medium"
    }
    fn list(&self) -> Result<Vec<Entry>> {
        Ok(Vec::new())
    }
    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        let published = self.disk().published.clone();
        let bytes = published.ok_or_else(|| crate::store::not_found("open", "medium", name))?;
        Ok(Arc::new(bytes))
    }
    fn create(&self, _: &FileName) -> Result<Box<dyn Upload>> {
        let mut disk = self.disk();
        (disk.durable, disk.since, disk.is_begun) = (Vec::new(), Vec::new(), true);
        Ok(Box::new(Begun(self.clone(), 0)))
    }
    fn overwrite(&self, _: &FileName, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(file) = &mut self.disk().published {
            file[to_usize(offset)..][..bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }
    fn remove(&self, _: &FileName) -> Result<()> {
        Ok(())
    }
    fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }
    fn lock(&self, _: LockMode, _: &str) -> Result<StoreLock> {
        Ok(StoreLock::new(()))
    }
    fn clean_up(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn leftovers(&self) -> Result<Vec<Box<dyn Leftover>>> {
        match self.disk().is_begun {
            true => Ok(vec![Box::new(Begun(self.clone(), 0))]),
            false => Ok(Vec::new()),
        }
    }
}

struct Rig {
    medium: Medium,
    keys: Arc<KeySet>,
    secret: String,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    went_on: bool,
    kept: u64,
    published: bool,
}

fn file() -> FileName {
    FileName::new("a").unwrap()
}

impl Rig {
    fn new() -> Rig {
        let (keys, secret) = key_set();
        Rig {
            medium: Medium::default(),
            keys: Arc::new(keys),
            secret,
        }
    }

    /// As a run that has just begun.
    fn store(&self) -> EncryptedStore {
        let ring = Arc::new(with_identity(&self.secret));
        EncryptedStore::new(Arc::new(self.medium.clone()), ring, random)
    }

    fn form(&self) -> Form {
        Form {
            keys: Some(Arc::clone(&self.keys)),
            ..Form::default()
        }
    }

    /// Writes `content`, of which the first `front` bytes may be written over, in pieces of `piece` bytes, and is
    /// `killed` meanwhile.
    fn run(&self, content: &[u8], front: usize, piece: usize, kill: Option<Kill>) -> Done {
        self.medium.disk().kill = kill;
        let store = self.store();
        let mut done = Done {
            went_on: false,
            kept: 0,
            published: false,
        };
        let leftover = store.leftovers().unwrap().pop();
        let usable = leftover.filter(|left| {
            let bytes = left.bytes();
            let is_open = left.form().keys.as_ref() == Some(&self.keys);
            is_open && bytes.read_at(0, &mut vec![0; front]).is_ok()
        });
        let mut continued = None;
        let upload: Result<Box<dyn Upload>> = match usable {
            Some(left) => {
                done.went_on = true;
                let upload = Continued::new(left, file(), self.form(), to_u64(front));
                continued = Some(upload.clone());
                Ok(Box::new(upload))
            }
            None => store.create_as(&file(), &self.form()),
        };
        let written = upload.and_then(|mut upload| {
            let mut write = || -> io::Result<()> {
                for bytes in content.chunks(piece) {
                    upload.write_all(bytes)?;
                    upload.flush()?;
                }
                Ok(())
            };
            match write() {
                Ok(()) => upload.publish(),
                Err(e) => {
                    std::mem::forget(upload);
                    Err(write_error("a", e))
                }
            }
        });
        done.kept = continued.map_or(0, |c| c.kept());
        done.published = written.is_ok();
        done
    }

    fn check(&self, content: &[u8]) {
        let opened = self.store().open(&file()).unwrap();
        let mut bytes = vec![0; to_usize(opened.len())];
        opened.read_at(0, &mut bytes).unwrap();
        assert!(bytes == content, "read by range");
        let stored = self.medium.disk().published.clone().unwrap();
        let mut out = Vec::new();
        let ring = with_identity(&self.secret);
        let mut stream = DecryptReader::new(stored.as_slice(), "pipe", &ring).unwrap();
        stream.read_to_end(&mut out).unwrap();
        assert!(out == content, "read as it comes");
    }
}

fn some_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Content for a run: its front is its own, the rest is other from `other` on.
fn content(run: u64, len: usize, front: usize, other: Option<usize>) -> Vec<u8> {
    let mut content = some_bytes(1_000_000, len);
    let front = front.min(len);
    content[..front].copy_from_slice(&some_bytes(run, front));
    if let Some(at) = other.filter(|at| *at < len) {
        let behind = some_bytes(2_000_000 + run, len - at);
        content[at..].copy_from_slice(&behind);
    }
    content
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
    /// Runs that are killed anywhere, with and without what was not synced, with the same and with other content.
    #[test]
    fn whatever_becomes_of_the_runs_before_the_last_one_has_its_content(
        len in prop_oneof![Just(0), Just(CHUNK), Just(4 * CHUNK), 1..300_000usize],
        front in prop_oneof![Just(0), 1..600usize, 1..70_000usize],
        piece in prop_oneof![Just(CHUNK), 1_000..50_000usize],
        runs in proptest::collection::vec(
            (proptest::option::of(0..300_000usize), 0..40usize, 0..40_000usize, proptest::option::of(any::<u64>()), -2..3i8),
            0..12,
        ),
    ) {
        let rig = Rig::new();
        let front = front.min(len);
        for (number, (other, changes, bytes, lost, longer)) in (0..).zip(runs) {
            let len = len.saturating_add_signed(isize::from(longer) * 9_000).max(front);
            let content = content(number, len, front, other);
            let done = rig.run(&content, front, piece, Some(Kill { changes, bytes }));
            if done.published {
                rig.check(&content);
                rig.medium.disk().published = None;
            }
            let mut disk = rig.medium.disk();
            disk.kill = None;
            if let Some(seed) = lost {
                disk.lose(seed);
            }
        }
        let last = content(99, len, front, None);
        prop_assert!(rig.run(&last, front, piece, None).published);
        rig.check(&last);
    }
}

/// A file of ten chunks that was begun and killed before its end.
fn begun(front: usize) -> Rig {
    let rig = Rig::new();
    let content = content(0, 10 * CHUNK + 500, front, None);
    let kill = Kill {
        changes: 10,
        bytes: 100,
    };
    let done = rig.run(&content, front, CHUNK, Some(kill));
    assert!(!done.published && !done.went_on);
    rig
}

#[test]
fn what_is_alike_is_kept_and_the_rest_is_of_the_last_run() {
    for (other, front) in [
        (None, 0),
        (None, 300),
        (Some(5 * CHUNK + 7), 300),
        (Some(5 * CHUNK), 300),
        (Some(CHUNK), 300),
        (Some(400), 300),
        (Some(5 * CHUNK), 2 * CHUNK + 1),
    ] {
        let rig = begun(front);
        let content = content(1, 12 * CHUNK, front, other);
        let done = rig.run(&content, front, 7_000, None);
        assert!(done.went_on && done.published, "{other:?}");
        let alike = other.unwrap_or(8 * CHUNK).min(8 * CHUNK) - front;
        assert!(
            to_usize(done.kept) >= alike,
            "{other:?}: {} of {alike}",
            done.kept
        );
        rig.check(&content);
    }
}

#[test]
fn a_file_that_lacks_nothing_but_its_name_is_kept() {
    for len in [5 * CHUNK, 5 * CHUNK + 9, 9, CHUNK] {
        let mut kills = 0;
        for changes in 0.. {
            let rig = Rig::new();
            let content = content(0, len, 0, None);
            let kill = Kill { changes, bytes: 0 };
            if rig.run(&content, 0, CHUNK, Some(kill)).published {
                assert_eq!(rig.medium.disk().syncs, 1);
                break;
            }
            kills += 1;
            let done = rig.run(&content, 0, CHUNK, None);
            assert!(done.published);
            rig.check(&content);
            let all_there = rig.medium.disk().syncs > 2;
            assert!(!all_there || to_usize(done.kept) == len, "{}", done.kept);
        }
        assert!(kills > 2);
    }
}

/// Killed at every change that going on makes, with and without the loss of what was not synced.
#[test]
fn a_crash_while_going_on_costs_no_more_than_a_new_beginning() {
    for lost in [None, Some(1), Some(2), Some(3), Some(4)] {
        let mut lost_all = Vec::new();
        for changes in 0.. {
            let rig = begun(300);
            let second = content(1, 12 * CHUNK, 300, Some(6 * CHUNK + 5));
            let kill = Kill {
                changes,
                bytes: 20_000,
            };
            let done = rig.run(&second, 300, CHUNK, Some(kill));
            if done.published {
                assert!(changes > 8);
                break;
            }
            if let Some(seed) = lost {
                rig.medium.disk().lose(seed);
            }
            let third = content(2, 12 * CHUNK, 300, None);
            let done = rig.run(&third, 300, CHUNK, None);
            assert!(done.published);
            rig.check(&third);
            if done.kept < to_u64(4 * CHUNK) {
                lost_all.push(changes);
            }
        }
        // While head and front are written over: first the bytes, then the sync.
        assert!(lost_all.iter().all(|at| *at < 2), "{lost:?}: {lost_all:?}");
    }
}

#[test]
fn a_file_is_gone_on_with_so_often_and_then_begun_anew() {
    let rig = Rig::new();
    let mut runs = 0;
    loop {
        let content = content(runs, 80 * CHUNK, 300, None);
        // Each gets two chunks further than the one before: head, front and sync, cut, chunks.
        let changes = if runs == 0 { 3 } else { 5 };
        let kill = Kill { changes, bytes: 0 };
        let done = rig.run(&content, 300, CHUNK, Some(kill));
        assert!(!done.published);
        if runs > 0 && !done.went_on {
            break;
        }
        runs += 1;
    }
    // The first two leave nothing to be remembered: of one chunk behind the front, nothing is kept.
    assert_eq!(runs, 2 + 32);
}

#[test]
fn keys_of_a_continued_file_are_changed_like_those_of_any() {
    let rig = begun(300);
    let second = content(1, 12 * CHUNK, 300, Some(4 * CHUNK));
    assert!(rig.run(&second, 300, CHUNK, None).published);
    let before = rig.medium.disk().published.clone().unwrap();
    assert_eq!(before[16], 1, "the bit says that it was gone on with");
    let (other, other_secret) = key_set();
    let changed = rig.keys.with_keys(other.keys().to_vec()).unwrap();
    let print = rig.store().print_of(&file()).unwrap();
    rig.store().change_keys(&file(), &changed).unwrap();
    assert_eq!(rig.store().print_of(&file()).unwrap(), print);
    let error = rig.store().open(&file()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    let rig = Rig {
        secret: other_secret,
        ..rig
    };
    rig.check(&second);
}

#[test]
fn no_bit_of_a_continued_head_can_be_flipped_unnoticed() {
    let rig = begun(300);
    let second = content(1, 12 * CHUNK, 300, Some(4 * CHUNK));
    assert!(rig.run(&second, 300, CHUNK, None).published);
    let good = rig.medium.disk().published.clone().unwrap();
    let body = u32::from_le_bytes(good[72..76].try_into().unwrap());
    let end = 76 + usize::try_from(body).unwrap();
    for at in (8..60).chain(64..end) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // Mended by somebody who has no key.
        let crc = crc32fast::hash(&bad[..60]).to_le_bytes();
        bad[60..64].copy_from_slice(&crc);
        let crc = crc32fast::hash(&bad[64..end]).to_le_bytes();
        bad[end..end + 4].copy_from_slice(&crc);
        rig.medium.disk().published = Some(bad);
        let error = rig.store().open(&file()).err();
        let kind = error.unwrap_or_else(|| panic!("byte {at}")).kind();
        let right = [ErrorKind::Damaged, ErrorKind::WrongKey].contains(&kind);
        assert!(right, "byte {at}: {kind:?}");
    }
}

#[test]
fn what_no_key_opens_is_given_as_it_is() {
    let rig = begun(300);
    let stored = rig.medium.disk().now();
    let (_, other) = key_set();
    let ring = Arc::new(with_identity(&other));
    let store = EncryptedStore::new(Arc::new(rig.medium.clone()), ring, random);
    let left = store.leftovers().unwrap().pop().unwrap();
    assert_eq!(left.form(), Form::default());
    assert_eq!(left.bytes().len(), to_u64(stored.len()));
    // Nothing plain is ever put behind what is encrypted, nor the other way round.
    let left = rig.store().leftovers().unwrap().pop().unwrap();
    let error = left.resume(&file(), &Form::default(), 0).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(rig.medium.disk().now(), stored);
}
