//! In which history a new image stands, and what its file is called.

use crate::base::{Error, ErrorKind, Result};
use crate::chain::{Catalog, Image, SUFFIX};
use crate::device::{DiskIdentity, Sameness};
use crate::image::{Kind, SourceInfo};
use crate::store::FileName;
use uuid::Uuid;

/// How far ahead of the newest image a number may be that only a file name or a note tells: names are what anybody
/// makes them, and numbers must not run out.
const MAX_AHEAD: u32 = 1 << 16;

/// An image's place in a history.
pub(super) struct Place {
    /// Name of the history.
    pub(super) set: String,
    /// Its id.
    pub(super) set_id: Uuid,
    /// Place in it, from 1.
    pub(super) sequence: u32,
    /// The images that it has, oldest first.
    pub(super) images: Vec<Image>,
    /// Whether it begins here, with an id of its own: no image of it is there, or none can be opened.
    pub(super) begins: bool,
    /// Files that by their names are of it, and cannot be opened, with the reason.
    pub(super) broken: Vec<Error>,
}

impl Place {
    /// Behind the newest image of the set `asked` for, or of the one that is of the same disk, or of a
    /// new one named after it.
    ///
    /// # Errors
    /// `Usage` when the name is no set name.
    pub(super) fn find(
        asked: Option<&str>,
        disk: &DiskIdentity,
        catalog: Option<&Catalog>,
    ) -> Result<Place> {
        let set = match asked {
            Some(name) => checked_set(name)?,
            None => own_set(disk, catalog),
        };
        let images = catalog.map(|c| c.set(&set)).unwrap_or_default();
        // Two histories of one name are told apart by their ids; the newest image says which one goes on.
        let set_id = images
            .iter()
            .max_by_key(|image| image.info.created)
            .map_or_else(Uuid::new_v4, |image| image.header.set);
        let images: Vec<Image> = images
            .iter()
            .filter(|image| image.header.set == set_id)
            .cloned()
            .collect();
        let newest = images.last().map_or(0, |image| image.header.sequence);
        let labels = [false, true].map(|encrypted| label(&set, set_id, encrypted));
        let number_in = |file: &FileName| {
            let (label, number) = label_and_number(file.as_str())?;
            labels.iter().any(|own| own == label).then_some(number)
        };
        // What cannot be opened today may be opened tomorrow.
        let broken = catalog.into_iter().flat_map(|c| &c.broken);
        let own = broken.filter(|b| !b.is_locked() && number_in(&b.file).is_some());
        let mut place = Place {
            set_id,
            sequence: newest.saturating_add(1),
            begins: images.is_empty(),
            images,
            broken: own.map(|b| b.error.clone()).collect(),
            set,
        };
        let files = catalog.into_iter().flat_map(Catalog::files);
        place.go_behind(files.filter_map(number_in));
        Ok(place)
    }

    /// Moves behind images with these `numbers`, which are not in the store, or cannot be opened: no two images
    /// may claim one place if they turn up.
    pub(super) fn go_behind(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let newest = self.images.last().map_or(0, |image| image.header.sequence);
        let end = newest.saturating_add(MAX_AHEAD);
        let believed = numbers.into_iter().filter(|number| *number <= end).max();
        let behind = believed.map_or(0, |number| number.saturating_add(1));
        self.sequence = self.sequence.max(behind);
    }

    /// A name that a person can read in a folder: set, place, time, kind.
    pub(super) fn file_name(&self, created: i64, kind: Kind, encrypted: bool) -> String {
        let label = label(&self.set, self.set_id, encrypted);
        file_name(&label, self.sequence, created, kind)
    }
}

/// What the files of a history are called by: its name, unless that is among what is encrypted.
pub(super) fn label(set: &str, id: Uuid, encrypted: bool) -> String {
    match encrypted {
        false => set.to_owned(),
        true => format!("encrypted-{}", &id.simple().to_string()[..8]),
    }
}

/// The name of an image's file: set, place, time, kind.
pub(super) fn file_name(set: &str, sequence: u32, created: i64, kind: Kind) -> String {
    let time: String = super::time_text(created)
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    format!("{set}-{sequence:05}-{time}-{}{SUFFIX}", kind.name())
}

/// What a name that [`file_name`] made begins with, and the number in it; `None` for other names.
pub(super) fn label_and_number(name: &str) -> Option<(&str, u32)> {
    let mut parts = name.strip_suffix(SUFFIX)?.rsplitn(4, '-');
    let (_kind, time, number) = (parts.next()?, parts.next()?, parts.next()?);
    let is_time = time.len() == 16 && time.ends_with('Z');
    let number = number.parse().ok().filter(|_| is_time)?;
    Some((parts.next()?, number))
}

/// Why the disk that was imaged is another one than `now`. `None` when it is the same; where nothing
/// tells, when `trusting`.
pub(super) fn differs(then: &SourceInfo, now: &DiskIdentity, trusting: bool) -> Option<String> {
    let before = DiskIdentity {
        wwn: then.wwn.clone(),
        serial: then.serial.clone(),
        model: then.model.clone(),
        // Another length is not another disk; whoever cares compares it.
        len: now.len,
        diskseq: None,
        table_id: then.table_id.clone(),
        partition: then.partition,
        path: then.path.clone().into(),
        dev: None,
        file: None,
    };
    let missing = match before.matches(now) {
        Sameness::Same => return None,
        Sameness::Different(what) => return Some(what.join("; ")),
        Sameness::Unsure(missing) => missing,
    };
    match (&before.table_id, &now.table_id) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => Some(format!("its partition table had the id {a} and has {b}")),
        _ if trusting || std::path::absolute(&now.path).ok().as_ref() == Some(&before.path) => None,
        _ => Some(format!("{missing}, and it was found at {}", then.path)),
    }
}

/// The set of the same disk, or a name for a new one.
fn own_set(disk: &DiskIdentity, catalog: Option<&Catalog>) -> String {
    let usual = default_set(disk);
    let Some(catalog) = catalog else {
        return usual;
    };
    let newest = catalog.newest_of_sets();
    let is_own = |image: &&&Image| {
        let source = &image.info.source;
        source.partition == disk.partition && differs(source, disk, false).is_none()
    };
    let own: Vec<&&Image> = newest.iter().filter(is_own).collect();
    if let Some(image) = own.iter().find(|i| i.info.set == usual) {
        return image.info.set.clone();
    }
    if let Some(image) = own.iter().max_by_key(|i| i.info.created) {
        return image.info.set.clone();
    }
    let taken = |name: &str| newest.iter().any(|i| i.info.set == name);
    let numbered = (2u32..).map(|n| format!("{usual}-{n}"));
    let mut names = std::iter::once(usual.clone()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or(usual)
}

/// Longest name of a set: leaves room for the rest of a file name everywhere.
const MAX_SET_LEN: usize = 64;

fn is_set_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn checked_set(name: &str) -> Result<String> {
    let good = (1..=MAX_SET_LEN).contains(&name.len())
        && name.chars().all(is_set_char)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if good {
        return Ok(name.to_owned());
    }
    Err(Error::new(ErrorKind::Usage, "use the set name", format!("{name:?}"))
        .because("a set name has 1 to 64 letters, digits, dots, dashes and underscores, and starts with a letter or digit"))
}

/// A set name from what stays the same: model and serial of a disk, the name of a file.
fn default_set(identity: &DiskIdentity) -> String {
    let words = match (&identity.model, &identity.serial, &identity.wwn) {
        (model, Some(serial), _) => format!("{} {serial}", model.as_deref().unwrap_or_default()),
        (_, None, Some(wwn)) => wwn.clone(),
        _ => identity
            .path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    };
    let part = identity
        .partition
        .map(|n| format!(" part{n}"))
        .unwrap_or_default();
    let name: String = format!("{}{part}", words.trim())
        .chars()
        .map(|c| if is_set_char(c) { c } else { '_' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(MAX_SET_LEN - 8)
        .collect();
    if name.is_empty() {
        "disk".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ByteLen;
    use crate::chain::Broken;

    #[test]
    fn set_names_are_safe_in_file_names() {
        assert_eq!(checked_set("web-1.main").unwrap(), "web-1.main");
        for bad in ["", "-x", ".x", "a/b", "a@b", "a b", &"x".repeat(65)] {
            assert_eq!(
                checked_set(bad).unwrap_err().kind(),
                ErrorKind::Usage,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn file_names_sort_by_place() {
        let name = |sequence, created| file_name("a", sequence, created, Kind::Full);
        assert_eq!(name(3, 0), "a-00003-19700101T000000Z-full.strata");
        assert!(name(9, 9) < name(10, 5));
    }

    #[test]
    fn file_names_tell_their_number() {
        for (label, number) in [("a", 3), ("a-00007-b", 123_456), ("encrypted-0a", u32::MAX)] {
            let name = file_name(label, number, 0, Kind::Incremental);
            assert_eq!(label_and_number(&name), Some((label, number)), "{name}");
        }
        for other in [
            "a.strata",
            "a-00003.strata",
            "a-00003-19700101T000000Z-full.json",
            "a-x-19700101T000000Z-full.strata",
            "a-4294967296-19700101T000000Z-full.strata",
            "a-00003-today-full.strata",
        ] {
            assert_eq!(label_and_number(other), None, "{other}");
        }
    }

    #[test]
    fn no_two_images_claim_one_place() {
        let image = |number| Image {
            file: FileName::new(file_name("a", number, 0, Kind::Full)).unwrap(),
            ..crate::chain::testing::point(number, 0)
        };
        let broken = |label: &str, number| Broken {
            file: FileName::new(file_name(label, number, 0, Kind::Full)).unwrap(),
            error: Error::new(ErrorKind::Damaged, "open", "it"),
        };
        let set = image(1).info.set.clone();
        let next = |images: Vec<Image>, broken: Vec<Broken>| {
            let catalog = Catalog::of(images, broken);
            Place::find(Some(&set), &disk("/a/disk.img"), Some(&catalog)).unwrap()
        };
        let two = || vec![image(1), image(2)];
        assert_eq!(next(two(), vec![]).sequence, 3);
        assert_eq!(
            next(two(), vec![broken(&set, 4), broken(&set, 3)]).sequence,
            5
        );
        let sealed = label(&set, image(1).header.set, true);
        assert_eq!(next(two(), vec![broken(&sealed, 3)]).sequence, 4);
        // Of another history, and from nowhere near.
        let others = vec![broken("other", 9), broken(&set, u32::MAX)];
        assert_eq!(next(two(), others).sequence, 3);
        let begun = next(vec![], vec![broken(&set, 4)]);
        assert_eq!((begun.sequence, begun.begins), (5, true));
        assert_eq!(begun.broken.len(), 1);
        assert!(next(two(), vec![broken("other", 3)]).broken.is_empty());
        let mut place = next(two(), vec![]);
        place.go_behind([7, 5]);
        assert_eq!(place.sequence, 8);
    }

    fn disk(path: &str) -> DiskIdentity {
        DiskIdentity {
            wwn: None,
            serial: None,
            model: None,
            len: ByteLen(1 << 30),
            diskseq: None,
            table_id: None,
            partition: None,
            path: path.into(),
            dev: None,
            file: None,
        }
    }

    #[test]
    fn a_disk_is_known_by_its_serial_number_then_by_its_table_then_by_its_place() {
        let mut then = SourceInfo {
            path: "/a/disk.img".into(),
            ..SourceInfo::default()
        };
        let mut now = disk("/a/disk.img");
        assert_eq!(differs(&then, &now, false), None, "the same place");
        let elsewhere = disk("/b/disk.img");
        let why = differs(&then, &elsewhere, false).unwrap();
        assert!(why.contains("/a/disk.img"), "{why}");
        assert_eq!(differs(&then, &elsewhere, true), None, "the person says so");
        then.table_id = Some("one".into());
        now.table_id = Some("two".into());
        let why = differs(&then, &now, true).unwrap();
        assert!(why.contains("one") && why.contains("two"), "{why}");
        then.serial = Some("S1".into());
        now.serial = Some("S1".into());
        assert_eq!(differs(&then, &now, false), None, "repartitioned");
        now.serial = Some("S2".into());
        assert!(differs(&then, &now, true).unwrap().contains("S2"));
    }
}
