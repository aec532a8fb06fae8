//! The plain bytes in front of an encrypted file: its prelude, and who may open it, twice.

use super::earlier::{self, Earlier};
use super::key_set::{KeySet, MAX_KEYS, id_of};
use super::recipient;
use super::secret::{Random, Secret};
use crate::base::{
    Error, ErrorKind, KeySetId, RangeRead, Result, checksum_matches, to_u64, to_usize,
};
use std::io::{self, Read};

const MAGIC: [u8; 8] = *b"\x89STCRYP\n";
const MAJOR: u16 = 1;
/// Incompatible feature: slots hold the keys of earlier runs.
const CONTINUED: u32 = 1;
/// Length of the prelude in bytes.
const PRELUDE_LEN: usize = 64;
/// A slot has whole pages.
const SLOT_STEP: usize = 4096;
/// The shortest slot: room for some keys to come.
const MIN_SLOT_LEN: usize = 2 * SLOT_STEP;
/// The longest slot: more than the most keys with the longest recipients.
const MAX_SLOT_LEN: usize = 256 << 10;
/// Chunks that are written have 2^14 bytes: reading a page decrypts little, and tags are a thousandth.
pub(super) const CHUNK_LOG2: u8 = 14;
const CHUNK_LOG2_RANGE: std::ops::RangeInclusive<u8> = 12..=20;

/// Whether a file that begins with `start`, 8 bytes at least, is an encrypted one.
pub fn is_encrypted(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

/// What stands in front of the chunks.
#[derive(Debug, Clone)]
pub struct Head {
    prelude: [u8; PRELUDE_LEN],
    slot_len: usize,
    pub(super) chunk_log2: u8,
    /// Which of the two slots counts, 0 or 1.
    active: usize,
    pub(super) slot: Slot,
    /// Whether the other slot holds anything: what a change of keys left that was interrupted.
    is_other_used: bool,
}

/// Who may open a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Grows with every change.
    generation: u64,
    pub(super) key_set: KeySetId,
    /// Identities that are protected by passwords, as age files.
    pub(super) protected: Vec<Vec<u8>>,
    /// The key of the file and the secret of the key set, for all recipients, as an age file.
    pub(super) wrapped: Vec<u8>,
    /// Makes the key of the list another one with every change.
    pub(super) salt: [u8; 16],
    /// The list of keys, encrypted.
    pub(super) list: Vec<u8>,
    /// The keys of earlier runs, encrypted; empty without any.
    pub(super) earlier: Vec<u8>,
    mac: [u8; 32],
}

impl Slot {
    /// The body without the tag at its end.
    fn body(&self) -> Vec<u8> {
        let mut out = self.key_set.0.to_vec();
        let count = u16::try_from(self.protected.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        let parts = self.protected.iter().chain([&self.wrapped]);
        parts.for_each(|part| put(&mut out, part));
        out.extend_from_slice(&self.salt);
        put(&mut out, &self.list);
        if !self.earlier.is_empty() {
            put(&mut out, &self.earlier);
        }
        out
    }

    /// Ties prelude and slot to the secret of the key set and the key of the file.
    fn mac_of(&self, prelude: &[u8], key_set: &Secret, file_key: &Secret) -> [u8; 32] {
        let key = Secret::derive(
            "diskstrata encrypted head 1",
            &[key_set.bytes(), file_key.bytes()],
        );
        let mut hasher = blake3::Hasher::new_keyed(key.bytes());
        hasher.update(prelude);
        hasher.update(&self.generation.to_le_bytes());
        hasher.update(&self.body());
        *hasher.finalize().as_bytes()
    }

    fn encode(&self) -> Vec<u8> {
        let body = self.body();
        let mut out = self.generation.to_le_bytes().to_vec();
        let len = u32::try_from(body.len() + self.mac.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&body);
        out.extend_from_slice(&self.mac);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` when it is empty, cut off by an interruption, or malformed. `continued` says whether it holds keys of
    /// earlier runs.
    fn decode(bytes: &[u8], continued: bool) -> Option<Slot> {
        let mut at = bytes;
        let generation = u64::from_le_bytes(array(&mut at)?);
        let len = to_usize(u64::from(u32::from_le_bytes(array(&mut at)?)));
        let mut body = take(&mut at, len)?;
        let crc = u32::from_le_bytes(array(&mut at)?);
        let right =
            generation > 0 && checksum_matches(crc32fast::hash(bytes.get(..12 + len)?), crc);
        right.then_some(())?;
        let key_set = KeySetId(array(&mut body)?);
        let count = usize::from(u16::from_le_bytes(array(&mut body)?));
        (count <= MAX_KEYS).then_some(())?;
        let protected = (0..count).map(|_| part(&mut body)).collect::<Option<_>>()?;
        let slot = Slot {
            generation,
            key_set,
            protected,
            wrapped: part(&mut body)?,
            salt: array(&mut body)?,
            list: part(&mut body)?,
            earlier: match continued {
                true => part(&mut body)?,
                false => Vec::new(),
            },
            mac: array(&mut body)?,
        };
        (body.is_empty() && slot.earlier.is_empty() != continued).then_some(slot)
    }
}

impl Head {
    /// A head for a new file with `file_key`, which the keys of `key_set` open, and its bytes.
    ///
    /// # Errors
    /// `Usage` when there are more keys than a head has room for; `Internal`.
    pub(super) fn create(
        file_key: &Secret,
        key_set: &KeySet,
        random: Random,
    ) -> Result<(Head, Vec<u8>)> {
        // The length of a slot does not depend on what is in the prelude.
        let keys = (file_key, &[][..]);
        let body_len = new_slot(&[], 1, keys, key_set, random)?.encode().len();
        let slot_len = (body_len * 2).next_multiple_of(SLOT_STEP).max(MIN_SLOT_LEN);
        let prelude = prelude(slot_len.min(MAX_SLOT_LEN));
        let slot = new_slot(&prelude, 1, keys, key_set, random)?;
        let head = Head {
            prelude,
            slot_len: slot_len.min(MAX_SLOT_LEN),
            chunk_log2: CHUNK_LOG2,
            active: 0,
            slot,
            is_other_used: false,
        };
        let bytes = head.bytes()?;
        Ok((head, bytes))
    }

    /// Length in bytes: where the chunks begin.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        PRELUDE_LEN + 2 * self.slot_len
    }

    /// The key set whose keys open the file. Believed only once it was opened.
    pub fn key_set(&self) -> KeySetId {
        self.slot.key_set
    }

    /// Whether whoever knows both secrets has made this head.
    pub(super) fn is_authentic(&self, key_set: &Secret, file_key: &Secret) -> bool {
        let expected = self.slot.mac_of(&self.prelude, key_set, file_key);
        self.slot.key_set == id_of(key_set)
            // Both sides are public once computed; blake3's own comparison takes the same time for all.
            && blake3::Hash::from_bytes(expected) == blake3::Hash::from_bytes(self.slot.mac)
    }

    /// The head that stands at the beginning of `input`; `None` when that is not encrypted.
    ///
    /// # Errors
    /// `Damaged` when neither of its slots is whole, or a newer program wrote it.
    pub fn read(input: &dyn RangeRead) -> Result<Option<Head>> {
        let mut start = [0; MAGIC.len()];
        if input.len() < to_u64(PRELUDE_LEN) {
            return Ok(None);
        }
        input.read_at(0, &mut start)?;
        if !is_encrypted(&start) {
            return Ok(None);
        }
        let mut bytes = vec![0; PRELUDE_LEN];
        input.read_at(0, &mut bytes)?;
        let slot_len = decode_prelude(&bytes, input.name())?.slot_len;
        bytes.resize(PRELUDE_LEN + 2 * slot_len, 0);
        input.read_at(0, &mut bytes)?;
        Head::decode(&bytes, input.name()).map(Some)
    }

    /// The head of an encrypted stream that begins with `start`, which was read from `input` already.
    ///
    /// # Errors
    /// As [`Head::read`]; as `input`.
    pub(super) fn read_stream(start: &[u8], input: &mut dyn Read, name: &str) -> io::Result<Head> {
        let mut bytes = start.to_vec();
        bytes.resize(PRELUDE_LEN, 0);
        input.read_exact(&mut bytes[start.len()..])?;
        let Prelude { slot_len, .. } = decode_prelude(&bytes, name).map_err(io::Error::other)?;
        bytes.resize(PRELUDE_LEN + 2 * slot_len, 0);
        input.read_exact(&mut bytes[PRELUDE_LEN..])?;
        Head::decode(&bytes, name).map_err(io::Error::other)
    }

    fn decode(bytes: &[u8], name: &str) -> Result<Head> {
        let Prelude {
            slot_len,
            chunk_log2,
            continued,
        } = decode_prelude(bytes, name)?;
        let mut prelude = [0; PRELUDE_LEN];
        prelude.copy_from_slice(&bytes[..PRELUDE_LEN]);
        let slots = bytes[PRELUDE_LEN..].chunks(slot_len).enumerate();
        let found: Vec<(usize, Slot)> = slots
            .filter_map(|(i, slot)| Some((i, Slot::decode(slot, continued)?)))
            .collect();
        let other = |active: usize| &bytes[PRELUDE_LEN + (1 - active) * slot_len..][..slot_len];
        match found.into_iter().max_by_key(|(_, slot)| slot.generation) {
            Some((active, slot)) => Ok(Head {
                prelude,
                slot_len,
                chunk_log2,
                active,
                slot,
                is_other_used: other(active).iter().any(|b| *b != 0),
            }),
            None => Err(damaged(name, "what says who may open it is damaged")
                .hint("bring the file back from a copy: without this nobody can decrypt it")),
        }
    }

    /// The head with the keys of `key_set` instead, and what to write where so that the file has it: first
    /// the new slot, then, once that is durable, zeros over the old one.
    ///
    /// `keys` are the file's own key and those of earlier runs.
    ///
    /// # Errors
    /// As [`Head::create`].
    pub(super) fn rewrite(
        &self,
        keys: (&Secret, &[Earlier]),
        key_set: &KeySet,
        random: Random,
    ) -> Result<[(u64, Vec<u8>); 2]> {
        let generation = self.slot.generation.saturating_add(1);
        let slot = new_slot(&self.prelude, generation, keys, key_set, random)?;
        let place = |which: usize| to_u64(PRELUDE_LEN + which * self.slot_len);
        Ok([
            (place(1 - self.active), self.fitted(&slot)?),
            (place(self.active), vec![0; self.slot_len]),
        ])
    }

    /// The head of the same length of a run that goes on with the file, and its bytes. `keys` are that run's file key
    /// and those of the runs before it.
    ///
    /// # Errors
    /// As [`Head::create`].
    pub(super) fn gone_on_with(
        &self,
        keys: (&Secret, &[Earlier]),
        key_set: &KeySet,
        random: Random,
    ) -> Result<(Head, Vec<u8>)> {
        let mut prelude = self.prelude;
        set_continued(&mut prelude, !keys.1.is_empty());
        let generation = self.slot.generation.saturating_add(1);
        let slot = new_slot(&prelude, generation, keys, key_set, random)?;
        let head = Head {
            prelude,
            slot_len: self.slot_len,
            chunk_log2: self.chunk_log2,
            active: 0,
            slot,
            is_other_used: false,
        };
        let bytes = head.bytes()?;
        Ok((head, bytes))
    }

    /// Whether the head of another run that goes on with the file surely has room in the place of this one, when
    /// the keys are as many.
    pub(super) fn has_room(&self) -> bool {
        // The age format adds a line of random length, so that readers get used to what they do not know.
        const MORE: usize = 1024;
        self.slot.encode().len() + MORE <= self.slot_len
    }

    /// What an interrupted change of keys has left to be done: zeros over what no longer counts.
    pub(super) fn leftover(&self) -> Option<(u64, Vec<u8>)> {
        let at = to_u64(PRELUDE_LEN + (1 - self.active) * self.slot_len);
        self.is_other_used.then(|| (at, vec![0; self.slot_len]))
    }

    /// All of it with its slot in the first place, and nothing in the second.
    fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = self.prelude.to_vec();
        bytes.extend_from_slice(&self.fitted(&self.slot)?);
        bytes.resize(self.len(), 0);
        Ok(bytes)
    }

    /// The bytes of `slot`, filled up with zeros.
    fn fitted(&self, slot: &Slot) -> Result<Vec<u8>> {
        let mut bytes = slot.encode();
        if bytes.len() > self.slot_len {
            return Err(
                Error::new(ErrorKind::Usage, "give the image", "so many keys")
                    .because(format!(
                        "they take {} bytes and its head has room for {}",
                        bytes.len(),
                        self.slot_len
                    ))
                    .hint("remove keys that nobody needs first"),
            );
        }
        bytes.resize(self.slot_len, 0);
        Ok(bytes)
    }
}

fn new_slot(
    prelude: &[u8],
    generation: u64,
    (file_key, earlier): (&Secret, &[Earlier]),
    key_set: &KeySet,
    random: Random,
) -> Result<Slot> {
    let mut salt = [0; 16];
    random(&mut salt)?;
    let mut slot = Slot {
        generation,
        key_set: key_set.id(),
        protected: key_set.protected(),
        wrapped: recipient::wrap(key_set, file_key)?,
        salt,
        list: key_set.encrypt_list(file_key, &salt)?,
        earlier: earlier::encrypt(earlier, file_key, &salt)?,
        mac: [0; 32],
    };
    slot.mac = slot.mac_of(prelude, key_set.secret(), file_key);
    Ok(slot)
}

fn prelude(slot_len: usize) -> [u8; PRELUDE_LEN] {
    let mut out = [0; PRELUDE_LEN];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    let slot_len = u32::try_from(slot_len).unwrap_or(0);
    out[12..16].copy_from_slice(&slot_len.to_le_bytes());
    out[24] = CHUNK_LOG2;
    seal(&mut out);
    out
}

fn set_continued(prelude: &mut [u8; PRELUDE_LEN], continued: bool) {
    let [bits, ..] = CONTINUED.to_le_bytes();
    match continued {
        true => prelude[16] |= bits,
        false => prelude[16] &= !bits,
    }
    seal(prelude);
}

/// Puts the crc32 of the rest into the last four bytes.
fn seal(prelude: &mut [u8; PRELUDE_LEN]) {
    let crc = crc32fast::hash(&prelude[..60]);
    prelude[60..].copy_from_slice(&crc.to_le_bytes());
}

/// What a prelude says.
struct Prelude {
    slot_len: usize,
    chunk_log2: u8,
    /// Whether slots hold the keys of earlier runs.
    continued: bool,
}

fn decode_prelude(bytes: &[u8], name: &str) -> Result<Prelude> {
    let mut at = bytes;
    let malformed = || damaged(name, "its head is damaged");
    let mut fields = || -> Option<[u32; 5]> {
        let magic: [u8; 8] = array(&mut at)?;
        let major = u16::from_le_bytes(array(&mut at)?);
        let reserved = u16::from_le_bytes(array(&mut at)?);
        let slot_len = u32::from_le_bytes(array(&mut at)?);
        let incompatible = u32::from_le_bytes(array(&mut at)?);
        let _compatible: [u8; 4] = array(&mut at)?;
        let [chunk_log2] = array(&mut at)?;
        let rest: [u8; 35] = array(&mut at)?;
        let crc = u32::from_le_bytes(array(&mut at)?);
        let right = checksum_matches(crc32fast::hash(bytes.get(..60)?), crc)
            && magic == MAGIC
            && reserved == 0;
        let odd = u32::from(rest.iter().any(|b| *b != 0));
        right.then_some([
            u32::from(major),
            incompatible,
            slot_len,
            u32::from(chunk_log2),
            odd,
        ])
    };
    let [major, incompatible, slot_len, chunk_log2, odd] = fields().ok_or_else(malformed)?;
    let newer = |why: String| damaged(name, &why).hint("use a newer version of strata");
    if major != u32::from(MAJOR) {
        return Err(newer(format!(
            "its encryption has version {major}, this program reads {MAJOR}"
        )));
    }
    let unknown = incompatible & !CONTINUED;
    if unknown != 0 {
        return Err(newer(format!(
            "its encryption needs features this program does not know: bits {unknown:#x}"
        )));
    }
    let slot_len = to_usize(u64::from(slot_len));
    let chunk_log2 = u8::try_from(chunk_log2).unwrap_or(u8::MAX);
    let sane = (SLOT_STEP..=MAX_SLOT_LEN).contains(&slot_len)
        && slot_len.is_multiple_of(SLOT_STEP)
        && CHUNK_LOG2_RANGE.contains(&chunk_log2)
        && odd == 0;
    let prelude = Prelude {
        slot_len,
        chunk_log2,
        continued: incompatible & CONTINUED != 0,
    };
    sane.then_some(prelude).ok_or_else(malformed)
}

fn damaged(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Damaged, "open", name).because(why)
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(part);
}

fn part(at: &mut &[u8]) -> Option<Vec<u8>> {
    let len = u32::from_le_bytes(array(at)?);
    take(at, to_usize(u64::from(len))).map(<[u8]>::to_vec)
}

fn take<'a>(at: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = at.split_at_checked(len)?;
    *at = rest;
    Some(head)
}

fn array<const N: usize>(at: &mut &[u8]) -> Option<[u8; N]> {
    take(at, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key_set, random};
    use super::*;

    fn made() -> (Head, Vec<u8>, Secret, KeySet) {
        let (keys, _) = key_set();
        let file_key = Secret::random(random).unwrap();
        let (head, bytes) = Head::create(&file_key, &keys, random).unwrap();
        (head, bytes, file_key, keys)
    }

    #[test]
    fn heads_round_trip_and_are_authentic() {
        let (head, bytes, file_key, keys) = made();
        assert_eq!(bytes.len(), head.len());
        let read = Head::read(&bytes).unwrap().unwrap();
        assert_eq!(read.slot, head.slot);
        assert!(read.is_authentic(keys.secret(), &file_key));
        assert!(!read.is_authentic(&Secret::random(random).unwrap(), &file_key));
        assert!(!read.is_authentic(keys.secret(), &Secret::random(random).unwrap()));
        assert!(Head::read(&b"\x89STRATA\n".repeat(9)).unwrap().is_none());
        assert!(Head::read(&Vec::new()).unwrap().is_none());
    }

    #[test]
    fn no_bit_of_a_head_can_be_flipped_unnoticed() {
        let (_, bytes, file_key, keys) = made();
        let used = PRELUDE_LEN + 12 + to_usize(u64::from(bytes[PRELUDE_LEN + 8])) + 1024;
        for at in MAGIC.len()..used.min(bytes.len()) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            // Where somebody also mends the checksums, the tag is still wrong.
            let crc = crc32fast::hash(&bad[..60]);
            bad[60..64].copy_from_slice(&crc.to_le_bytes());
            let len = to_usize(u64::from(u32::from_le_bytes(
                bad[72..76].try_into().unwrap(),
            )));
            if let Some(body) = bad.get(64..76 + len) {
                let crc = crc32fast::hash(body).to_le_bytes();
                if let Some(place) = bad.get_mut(76 + len..80 + len) {
                    place.copy_from_slice(&crc);
                }
            }
            match Head::read(&bad) {
                Ok(Some(head)) => {
                    let same = bad == bytes || at >= 80 + len || (60..64).contains(&at);
                    let same = same || (76 + len..80 + len).contains(&at);
                    let authentic = head.is_authentic(keys.secret(), &file_key);
                    assert_eq!(authentic, same, "byte {at}");
                }
                Ok(None) => panic!("byte {at}: it is taken for a plain file"),
                Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "byte {at}"),
            }
        }
    }

    #[test]
    fn a_rewrite_cut_anywhere_leaves_one_of_the_two_heads() {
        let (head, bytes, file_key, keys) = made();
        let mut more = keys.clone();
        more.version += 1;
        let [(at, new), (old_at, zeros)] = head.rewrite((&file_key, &[]), &more, random).unwrap();
        let write = |bytes: &mut Vec<u8>, at: u64, new: &[u8]| {
            bytes[to_usize(at)..][..new.len()].copy_from_slice(new);
        };
        for cut in 0..=new.len() {
            let mut torn = bytes.clone();
            write(&mut torn, at, &new[..cut]);
            let read = Head::read(&torn).unwrap().unwrap();
            assert!(read.is_authentic(keys.secret(), &file_key), "{cut}");
        }
        let mut done = bytes.clone();
        write(&mut done, at, &new);
        for cut in 0..=zeros.len() {
            let mut torn = done.clone();
            write(&mut torn, old_at, &zeros[..cut]);
            let read = Head::read(&torn).unwrap().unwrap();
            assert_eq!(read.slot.generation, 2, "{cut}");
        }
        let read = Head::read(&done).unwrap().unwrap();
        let (at, rest) = read.leftover().expect("the old slot is to be wiped");
        write(&mut done, at, &rest);
        let read = Head::read(&done).unwrap().unwrap();
        assert_eq!(read.leftover(), None);
        assert!(read.is_authentic(keys.secret(), &file_key));
    }

    #[test]
    fn newer_versions_are_named() {
        let (_, bytes, ..) = made();
        let change = |at: usize, value: u8| {
            let mut bad = bytes.clone();
            bad[at] = value;
            let crc = crc32fast::hash(&bad[..60]);
            bad[60..64].copy_from_slice(&crc.to_le_bytes());
            Head::read(&bad).unwrap_err().to_string()
        };
        assert!(change(8, 2).contains("version 2"));
        assert!(change(16, 8).contains("bits 0x8"));
        assert!(change(24, 40).contains("damaged"));
        assert!(change(30, 1).contains("damaged"), "reserved");
    }
}
