//! Notes that a store keeps beside its images: which of them stay, and how verifications ended.
//!
//! Promises: what was noted is found again, whatever is killed later. A note is never replaced: it
//! is written under a new name, and an old one goes when its content is safe in another. What
//! cannot be read is listed and never an error, and is left where it is. Everything here works
//! beside other runs without a lock.

use crate::base::{Digest, Error, ErrorKind, Result, to_u64, to_usize};
use crate::store::{FileName, Store, Upload, write_error};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use uuid::Uuid;

/// What the names of notes begin with; behind it stand 32 hexadecimal digits.
const PROTECTED: &str = "protected-";
const VERIFIED: &str = "verified-";
pub(super) const MERGING: &str = "merging-";
pub(super) const REPLACING: &str = "replacing-";
/// What the names of notes end with.
const SUFFIX: &str = ".json";

/// The longest file that is read and written, in bytes.
const MAX_LEN: u64 = 16 << 20;
/// The most that is read of all notes together, in bytes.
const MAX_TOTAL: u64 = 64 << 20;
/// The longest text of a protection, in bytes.
const MAX_NOTE: usize = 4096;
/// How often the notes are read again because another run merged them meanwhile.
const ROUNDS: u32 = 4;
/// All of an image, in the unit of [`VerifiedRecord::share`].
const WHOLE: u32 = 1000;

/// Why and since when an image stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Protection {
    /// When it was protected, in seconds since 1970 UTC, where that can be read.
    pub time: Option<i64>,
    /// The person's own words. From outside: to be made printable where they are shown.
    pub note: Option<String>,
}

/// How thoroughly an image was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Its structure.
    Quick,
    /// Its structure and some of its frames.
    Sample,
    /// Every block of the disk it stands for.
    Deep,
}

/// How one verification of one image ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VerifiedRecord {
    /// The image.
    #[serde(with = "uuid::serde::simple")]
    pub image: Uuid,
    /// When, in seconds since 1970 UTC.
    pub time: i64,
    /// How thoroughly.
    pub how: How,
    /// How much of its frames was read, in thousandths, from 0 to 1000.
    pub share: u32,
    /// Whether nothing was wrong.
    pub ok: bool,
    /// The root digest of the image as it was then.
    #[serde(with = "hex")]
    pub root: Digest,
}

/// All notes of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// The images that stay. One whose note cannot be read stays too: the name of its file says so.
    pub protected: BTreeMap<Uuid, Protection>,
    /// For each image the newest good and the newest bad result of each [`How`], oldest first, a
    /// bad one behind a good one of the same time.
    pub verified: BTreeMap<Uuid, Vec<VerifiedRecord>>,
    /// Files that are called like notes and cannot be read as such, are too long, or too many.
    pub unreadable: Vec<FileName>,
}

/// Notes that image `id` stays. Returns whether that is new: one that stays already keeps its note.
///
/// # Errors
/// `Usage` when the note has more than 4096 bytes; `Destination`.
pub fn protect(store: &dyn Store, id: Uuid, note: Option<&str>, time: i64) -> Result<bool> {
    let len = note.map_or(0, str::len);
    if len > MAX_NOTE {
        return Err(
            Error::new(ErrorKind::Usage, "protect", id.simple().to_string())
                .because(format!("the note has {len} bytes"))
                .hint(format!("a note has at most {MAX_NOTE} bytes")),
        );
    }
    if !protections_of(store, id)?.is_empty() {
        return Ok(false);
    }
    let protection = Protection {
        time: Some(time),
        note: note.map(str::to_owned),
    };
    let bytes = encode(&protection)?;
    let file = name_of(PROTECTED, id)?;
    let made = store.create(&file);
    match made.and_then(|upload| fill(upload, store, &bytes)) {
        Ok(()) => Ok(true),
        // Another run may have been faster, which is as good. What the system failed at may have left a file of this
        // run that does not last.
        Err(error) => match protections_of(store, id) {
            Ok(names) if !names.is_empty() && error.os_error().is_none() => Ok(false),
            _ => Err(error),
        },
    }
}

/// Takes back that image `id` stays. Returns whether there was anything to take back.
///
/// # Errors
/// `Destination`.
pub fn unprotect(store: &dyn Store, id: Uuid) -> Result<bool> {
    let names = protections_of(store, id)?;
    names.iter().try_for_each(|name| remove(store, name))?;
    Ok(!names.is_empty())
}

/// Notes `results`, in a new file that takes over what the older ones hold. Its name is made of
/// `new_file_id`, which nobody has used before. Returns why older files could not be removed; they
/// do no harm, and the next call tries again.
///
/// What is noted now is younger than what was noted before, even when a clock says otherwise: an
/// older good result of the same image and [`How`] with a later time goes.
///
/// # Errors
/// `Usage` when the results do not fit a file of 16 MiB; `Destination`. Then nothing has changed.
pub fn record_verified(
    store: &dyn Store,
    results: &[VerifiedRecord],
    new_file_id: Uuid,
) -> Result<Vec<Error>> {
    if results.is_empty() {
        return Ok(Vec::new());
    }
    let file = name_of(VERIFIED, new_file_id)?;
    let mut own = Newest::default();
    results.iter().for_each(|result| own.add(result.clone()));
    let alone = own.encode()?;
    if to_u64(alone.len()) > MAX_LEN {
        return Err(Error::new(ErrorKind::Usage, "write", file.as_str())
            .because(format!(
                "{} results are too many for one file",
                results.len()
            ))
            .hint("verify fewer images at once"));
    }
    let names = store.list()?.into_iter().map(|entry| entry.name);
    let older = names.filter(|name| matches!(Note::of(name), Some(Note::Verified)));
    let mut budget = MAX_TOTAL;
    let found = Found::read(store, older.collect(), &mut budget);
    let (mut newest, files) = (found.newest, found.files);
    results
        .iter()
        .for_each(|result| newest.drop_good_behind(result));
    own.0.into_values().for_each(|result| newest.add(result));
    let together = newest.encode()?;
    if to_u64(together.len()) > MAX_LEN {
        fill(store.create(&file)?, store, &alone)?;
        return Ok(Vec::new());
    }
    fill(store.create(&file)?, store, &together)?;
    let outcomes = files.iter().map(|old| remove(store, old));
    Ok(outcomes.filter_map(Result::err).collect())
}

impl Records {
    /// Reads all notes of `store`.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn load(store: &dyn Store) -> Result<Records> {
        let mut round = 1;
        loop {
            let (records, merged_meanwhile) = Records::load_once(store)?;
            if !merged_meanwhile || round == ROUNDS {
                return Ok(records);
            }
            round += 1;
        }
    }

    /// The notes, and whether files of results went away before they were read.
    fn load_once(store: &dyn Store) -> Result<(Records, bool)> {
        let mut records = Records::default();
        let mut budget = MAX_TOTAL;
        let mut results = Vec::new();
        for name in store.list()?.into_iter().map(|entry| entry.name) {
            match Note::of(&name) {
                None => {}
                Some(Note::Verified) => results.push(name),
                Some(Note::Merging(_) | Note::Replacing(_)) => {}
                Some(Note::Odd) => records.unreadable.push(name),
                Some(Note::Protected(id)) => match read(store, &name, &mut budget) {
                    Reading::Gone => {}
                    Reading::Whole(protection) => {
                        records.protected.insert(id, protection);
                    }
                    Reading::Unreadable => {
                        records.protected.entry(id).or_default();
                        records.unreadable.push(name);
                    }
                },
            }
        }
        let found = Found::read(store, results, &mut budget);
        records.unreadable.extend(found.unreadable);
        for result in found.newest.0.into_values() {
            let of_image = records.verified.entry(result.image).or_default();
            of_image.push(result);
        }
        for of_image in records.verified.values_mut() {
            of_image.sort_by_key(|result| (result.time, !result.ok));
        }
        Ok((records, found.gone))
    }

    /// How the last verification of `image` of this kind ended.
    pub fn last(&self, image: Uuid, how: How) -> Option<&VerifiedRecord> {
        let mut results = self.verified.get(&image)?.iter().rev();
        results.find(|result| result.how == how)
    }

    /// What the last verification found wrong with `image`, unless one as thorough found it whole since.
    pub fn damage_of(&self, image: Uuid) -> Option<&VerifiedRecord> {
        let results = self.verified.get(&image)?;
        let clears = |good: &VerifiedRecord, bad: &VerifiedRecord| {
            let as_thorough = match good.how {
                How::Deep => true,
                How::Quick => bad.how == How::Quick,
                How::Sample => false,
            };
            good.ok && as_thorough && good.time > bad.time
        };
        let stands = |bad: &&VerifiedRecord| !bad.ok && !results.iter().any(|g| clears(g, bad));
        results.iter().rfind(stands)
    }

    /// Takes back the protection of images that are no more, and returns their ids. `alive` says
    /// yes when in doubt, also of an image that is there and cannot be opened.
    ///
    /// # Errors
    /// `Destination`; some protections may have been taken back.
    pub fn forget(store: &dyn Store, alive: &dyn Fn(Uuid) -> bool) -> Result<Vec<Uuid>> {
        let mut gone = Vec::new();
        for name in store.list()?.into_iter().map(|entry| entry.name) {
            match Note::of(&name) {
                Some(Note::Protected(id)) if !alive(id) => {
                    remove(store, &name)?;
                    gone.push(id);
                }
                _ => {}
            }
        }
        gone.dedup();
        Ok(gone)
    }
}

/// What a file is by its name.
pub(super) enum Note {
    Protected(Uuid),
    Verified,
    /// A merge into this image is under way.
    Merging(Uuid),
    /// A file is being written to take the place of the one that this image has.
    Replacing(Uuid),
    /// Called like a note, but with something else than an id.
    Odd,
}

impl Note {
    pub(super) fn of(name: &FileName) -> Option<Note> {
        let stem = name.as_str().strip_suffix(SUFFIX)?;
        let id = |digits: &str| {
            let plain = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            Uuid::try_parse(digits).ok().filter(|_| plain)
        };
        if let Some(digits) = stem.strip_prefix(PROTECTED) {
            return Some(id(digits).map_or(Note::Odd, Note::Protected));
        }
        if let Some(digits) = stem.strip_prefix(MERGING) {
            return Some(id(digits).map_or(Note::Odd, Note::Merging));
        }
        if let Some(digits) = stem.strip_prefix(REPLACING) {
            return Some(id(digits).map_or(Note::Odd, Note::Replacing));
        }
        let digits = stem.strip_prefix(VERIFIED)?;
        Some(id(digits).map_or(Note::Odd, |_| Note::Verified))
    }
}

pub(super) fn name_of(prefix: &str, id: Uuid) -> Result<FileName> {
    FileName::new(format!("{prefix}{}{SUFFIX}", id.simple()))
}

/// The files that protect image `id`: one, unless somebody wrote the digits in another case.
fn protections_of(store: &dyn Store, id: Uuid) -> Result<Vec<FileName>> {
    let names = store.list()?.into_iter().map(|entry| entry.name);
    let protects =
        |name: &FileName| matches!(Note::of(name), Some(Note::Protected(of)) if of == id);
    Ok(names.filter(protects).collect())
}

/// The newest result of each image, [`How`] and outcome. Good and bad ones are kept apart, so that
/// no clock and no luckier sample can hide a bad one for good.
#[derive(Default)]
struct Newest(BTreeMap<(Uuid, How, bool), VerifiedRecord>);

impl Newest {
    fn add(&mut self, result: VerifiedRecord) {
        let key = (result.image, result.how, result.ok);
        // Of equal times any one, but always the same one, whatever is merged first.
        if self.0.get(&key).is_none_or(|known| *known < result) {
            self.0.insert(key, result);
        }
    }

    /// Drops the good result that a clock put behind `result`, which came later.
    fn drop_good_behind(&mut self, result: &VerifiedRecord) {
        let good = (result.image, result.how, true);
        let known = self.0.get(&good);
        if known.is_some_and(|known| known.time > result.time) {
            self.0.remove(&good);
        }
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(&self.0.values().collect::<Vec<_>>())
    }
}

/// What files of results hold together.
#[derive(Default)]
struct Found {
    newest: Newest,
    /// The files that were read.
    files: Vec<FileName>,
    unreadable: Vec<FileName>,
    /// Whether a file was not there any more.
    gone: bool,
}

impl Found {
    fn read(store: &dyn Store, names: Vec<FileName>, budget: &mut u64) -> Found {
        let mut found = Found::default();
        for name in names {
            match read::<Vec<VerifiedRecord>>(store, &name, budget) {
                Reading::Gone => found.gone = true,
                Reading::Unreadable => found.unreadable.push(name),
                Reading::Whole(results) => {
                    for mut result in results {
                        result.share = result.share.min(WHOLE);
                        found.newest.add(result);
                    }
                    found.files.push(name);
                }
            }
        }
        found
    }
}

/// How reading a note ended.
pub(super) enum Reading<T> {
    Whole(T),
    /// Another run has removed it.
    Gone,
    Unreadable,
}

/// Reads a note and takes its length off `budget`, in bytes.
pub(super) fn read<T: DeserializeOwned>(
    store: &dyn Store,
    name: &FileName,
    budget: &mut u64,
) -> Reading<T> {
    let file = match store.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Reading::Gone,
        Err(_) => return Reading::Unreadable,
    };
    let len = file.len();
    if len > MAX_LEN || len > *budget {
        return Reading::Unreadable;
    }
    *budget -= len;
    let mut bytes = vec![0; to_usize(len)];
    if file.read_at(0, &mut bytes).is_err() {
        return Reading::Unreadable;
    }
    serde_json::from_slice(&bytes).map_or(Reading::Unreadable, Reading::Whole)
}

pub(super) fn encode(note: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(note)
        .map_err(|e| Error::new(ErrorKind::Internal, "encode", "a note").caused_by(e))
}

/// Writes and publishes a whole note.
pub(super) fn fill(mut upload: Box<dyn Upload>, store: &dyn Store, bytes: &[u8]) -> Result<()> {
    let outcome = upload.write_all(bytes);
    outcome.map_err(|e| write_error(store.name(), e))?;
    upload.publish()
}

/// Removes a note, which another run may have done already.
pub(super) fn remove(store: &dyn Store, name: &FileName) -> Result<()> {
    match store.remove(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// A digest as 64 hexadecimal digits.
mod hex {
    use crate::base::Digest;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        Digest::parse(&text).ok_or_else(|| Error::custom("no digest of 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests;
