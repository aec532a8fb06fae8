//! What a disk may hold when the power fails, for a folder whose changes were recorded.
//!
//! POSIX promises only this: what was written to a file is there once the file was synced, and a name once its
//! folder was. Everything else may be there or not, and file systems differ in what they do.

use super::recorded::{Change, Files};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// The smallest piece that a disk writes whole.
const SECTOR: usize = 512;

/// What of the changes that were not synced is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All: nothing but the process died.
    All,
    /// Nothing: a name lives once its folder was synced, and a byte once its file was.
    Nothing,
    /// Names and lengths, and zeros in place of the bytes.
    Lengths,
    /// Names, of files as they were synced last: mostly empty.
    Names,
    /// The first few names, and of the bytes those that a seed says, in whole sectors.
    Some(u64),
}

/// The files that may be in a folder after the power failed.
pub(crate) type Left = BTreeMap<OsString, Vec<u8>>;

#[derive(Debug, Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// Writes and new lengths since.
    since: Vec<Change>,
}

/// A folder and what of it is on the disk.
#[derive(Debug, Clone, Default)]
struct Folder {
    names: BTreeMap<OsString, u64>,
    /// Changes of names since the folder was synced.
    since: Vec<Change>,
    files: BTreeMap<u64, File>,
}

fn rename(names: &mut BTreeMap<OsString, u64>, change: &Change) {
    match change {
        Change::Create { file, name } | Change::Link { file, name } => {
            names.insert(name.clone(), *file);
        }
        Change::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove { name } => {
            names.remove(name);
        }
        _ => {}
    }
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

/// Writes the sectors of `bytes` that `keep` says by their number.
fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8], keep: &mut dyn FnMut(usize) -> bool) {
    let at = size(at);
    let mut done = 0;
    while done < bytes.len() {
        let here = at + done;
        let len = (SECTOR - here % SECTOR).min(bytes.len() - done);
        if keep(here / SECTOR) {
            if content.len() < here + len {
                content.resize(here + len, 0);
            }
            content[here..here + len].copy_from_slice(&bytes[done..done + len]);
        }
        done += len;
    }
}

impl File {
    fn left(&self, kept: Kept, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.synced.clone();
        for change in &self.since {
            match (change, kept) {
                (_, Kept::Nothing | Kept::Names) => {}
                (Change::SetLen { .. }, Kept::Some(_)) if chance.of(2) == 0 => {}
                (Change::SetLen { len, .. }, _) => content.resize(size(*len), 0),
                (Change::Write { at, bytes, .. }, Kept::All) => {
                    put(&mut content, *at, bytes, &mut |_| true);
                }
                (Change::Write { at, bytes, .. }, Kept::Lengths) => {
                    let end = size(*at) + bytes.len();
                    content.resize(content.len().max(end), 0);
                }
                (Change::Write { at, bytes, .. }, Kept::Some(_)) => match chance.of(3) {
                    0 => {}
                    1 => put(&mut content, *at, bytes, &mut |_| true),
                    _ => put(&mut content, *at, bytes, &mut |_| chance.of(2) == 0),
                },
                _ => {}
            }
        }
        content
    }

    fn sync(&mut self) {
        self.synced = self.left(Kept::All, &mut Chance(0));
        self.since.clear();
    }
}

impl Folder {
    fn of(files: &Files) -> Folder {
        let mut folder = Folder::default();
        for (name, (id, bytes)) in files {
            folder.names.insert(name.clone(), *id);
            let synced = bytes.clone();
            let file = File {
                synced,
                since: Vec::new(),
            };
            folder.files.insert(*id, file);
        }
        folder
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, .. } | Change::SetLen { file, .. } => {
                let file = self.files.entry(*file).or_default();
                file.since.push(change.clone());
            }
            Change::Sync { file } => self.files.entry(*file).or_default().sync(),
            Change::SyncFolder => {
                for change in self.since.drain(..) {
                    rename(&mut self.names, &change);
                }
            }
            _ => self.since.push(change.clone()),
        }
    }

    fn left(&self, kept: Kept) -> Left {
        let mut chance = Chance(match kept {
            Kept::Some(seed) => seed,
            _ => 0,
        });
        let count = match kept {
            Kept::Nothing => 0,
            Kept::Some(_) => chance.of(self.since.len() + 1),
            _ => self.since.len(),
        };
        let mut names = self.names.clone();
        for change in &self.since[..count] {
            rename(&mut names, change);
        }
        let left = |(name, id): (OsString, u64)| {
            let file = self.files.get(&id);
            let content = file.map_or_else(Vec::new, |file| file.left(kept, &mut chance));
            (name, content)
        };
        names.into_iter().map(left).collect()
    }
}

/// The same numbers for the same seed (a step of SplitMix64).
struct Chance(u64);

impl Chance {
    fn of(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        size((mixed ^ mixed >> 31) % u64::try_from(count).unwrap())
    }
}

/// A state that a power cut may leave.
pub(crate) struct Cut {
    /// Behind so many changes.
    pub(crate) behind: usize,
    /// What is kept of the changes that were not synced.
    pub(crate) kept: Kept,
    pub(crate) left: Left,
}

/// Every state that is different, for a cut behind each of `changes`: those of all rules, and `seeds` in which
/// chance decides. `before` was synced.
pub(crate) fn cuts(
    before: &Files,
    changes: &[Change],
    seeds: u64,
    mut visit: impl FnMut(Cut),
) -> usize {
    let mut seen = BTreeSet::new();
    let mut folder = Folder::of(before);
    for behind in 0..=changes.len() {
        if let Some(change) = behind.checked_sub(1).and_then(|last| changes.get(last)) {
            folder.apply(change);
        }
        let rules = [Kept::All, Kept::Nothing, Kept::Lengths, Kept::Names];
        let number = u64::try_from(behind).unwrap();
        let chances = (0..seeds).map(|seed| Kept::Some(seed * 1_000_003 + number));
        for kept in rules.into_iter().chain(chances) {
            let left = folder.left(kept);
            // The promises behind the last change are others than before it.
            if seen.insert((print(&left), behind == changes.len())) {
                visit(Cut { behind, kept, left });
            }
        }
    }
    seen.len()
}

fn print(left: &Left) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (name, content) in left {
        hasher.update(name.as_encoded_bytes());
        hasher.update(&content.len().to_le_bytes());
        hasher.update(blake3::hash(content).as_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> OsString {
        text.into()
    }

    /// A file that is written, synced and renamed; the folder is synced at the end, or not.
    fn changes(with_sync: bool) -> Vec<Change> {
        let file = 9;
        let mut all = vec![
            Change::Create {
                file,
                name: name("new"),
            },
            Change::Write {
                file,
                at: 0,
                bytes: vec![7; 1500],
            },
        ];
        if with_sync {
            all.push(Change::Sync { file });
        }
        all.push(Change::Rename {
            from: name("new"),
            to: name("whole"),
        });
        all.push(Change::SyncFolder);
        all
    }

    fn lens(with_sync: bool, wanted: impl Fn(&Cut) -> bool) -> BTreeSet<Option<usize>> {
        let mut lens = BTreeSet::new();
        cuts(&Files::new(), &changes(with_sync), 50, |cut| {
            if wanted(&cut) {
                lens.insert(cut.left.get(&name("whole")).map(Vec::len));
            }
        });
        lens
    }

    #[test]
    fn what_is_synced_first_has_its_name_only_when_it_is_whole() {
        let all = lens(true, |_| true);
        assert_eq!(all, BTreeSet::from([None, Some(1500)]));
        let last = lens(true, |cut| cut.behind == 5);
        assert_eq!(last, BTreeSet::from([Some(1500)]), "all of it is synced");
    }

    #[test]
    fn what_is_not_synced_may_be_empty_or_torn() {
        let all = lens(false, |_| true);
        assert!(
            all.is_superset(&BTreeSet::from([None, Some(0), Some(1500)])),
            "{all:?}"
        );
        assert!(all.len() > 3, "torn at sectors: {all:?}");
    }

    #[test]
    fn a_removal_that_is_not_synced_may_come_back() {
        let before = Files::from([(name("old"), (3, vec![1; 10]))]);
        let removal = Change::Remove { name: name("old") };
        for (changes, wanted) in [
            (vec![removal.clone()], 2),
            (vec![removal, Change::SyncFolder], 1),
        ] {
            let mut found = BTreeSet::new();
            let last = changes.len();
            cuts(&before, &changes, 3, |cut| {
                if cut.behind == last {
                    found.insert(cut.left.len());
                }
            });
            assert_eq!(found.len(), wanted);
        }
    }
}
