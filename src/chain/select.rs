//! Which image a person means.

use super::catalog::{Catalog, Image};
use crate::base::{Error, ErrorKind, Result};
use jiff::tz::TimeZone;

/// Fewest characters of an id that may stand for it.
const MIN_PREFIX: usize = 4;

impl Catalog {
    /// The image that `wanted` names: `latest` (of the newest images of all sets the one that was begun last),
    /// `SET@latest`, `SET@-N` (N before the newest of the set), a time or `SET@TIME` (the newest that is not
    /// younger), an id or the start of one, or the name of its file. Times without an offset are of `zone`.
    ///
    /// # Errors
    /// `NotFound`, saying what there is; also when the start of an id fits several. `WrongKey` when it may be
    /// one that no key at hand opens; `Refused` or `Usage` when somebody else may have put it there.
    pub fn find<'a>(&'a self, wanted: &str, zone: &TimeZone) -> Result<&'a Image> {
        let image = self.named(wanted, zone)?;
        self.check_keys_of(&image.info.set)?;
        Ok(image)
    }

    fn named<'a>(&'a self, wanted: &str, zone: &TimeZone) -> Result<&'a Image> {
        if wanted == "latest" {
            self.check_only_keys(wanted)?;
            // Within a set, places decide: the newest image may say an earlier time than one before it.
            let newest = self.newest_of_sets().into_iter();
            return newest
                .max_by_key(|image| image.info.created)
                .ok_or_else(|| self.none_such(wanted));
        }
        if let Some((set, which)) = wanted.rsplit_once('@') {
            return self.find_in_set(set, which, zone);
        }
        if let Some(image) = self.images.iter().find(|i| i.file.as_str() == wanted) {
            return Ok(image);
        }
        if let Some(broken) = self.unopened().find(|b| b.file.as_str() == wanted) {
            return Err(broken.error.clone());
        }
        let prefix = wanted.to_ascii_lowercase().replace('-', "");
        let fits = |image: &&Image| image.id().starts_with(&prefix);
        let is_id = prefix.len() >= MIN_PREFIX && prefix.bytes().all(|b| b.is_ascii_hexdigit());
        let mut found = self.images.iter().filter(|i| is_id && fits(i));
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(image),
            (Some(_), Some(_)) => Err(Error::new(ErrorKind::NotFound, "find image", wanted)
                .because("several ids begin like that")
                .hint("give more characters of the id")),
            (None, _) => match point_in_time(wanted, zone) {
                Some(time) => {
                    self.check_only_keys(wanted)?;
                    newest_before(self.images.iter(), time).ok_or_else(|| self.none_such(wanted))
                }
                None => Err(self.none_such(wanted)),
            },
        }
    }

    fn find_in_set<'a>(&'a self, set: &str, which: &str, zone: &TimeZone) -> Result<&'a Image> {
        let images = self.set(set);
        let Some(newest) = images.last() else {
            return Err(self.no_such_set(set));
        };
        let wanted = format!("{set}@{which}");
        if which == "latest" {
            return Ok(newest);
        }
        if let Some(back) = which.strip_prefix('-').and_then(|n| n.parse().ok()) {
            let at = images
                .len()
                .checked_sub(1)
                .and_then(|last| last.checked_sub(back));
            return at.and_then(|at| images.get(at)).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "find image", wanted)
                    .because(format!("the set has {} images", images.len()))
            });
        }
        let Some(time) = point_in_time(which, zone) else {
            return Err(Error::new(ErrorKind::NotFound, "find image", wanted)
                .because(format!("{which:?} is no time"))
                .hint("write SET@latest, SET@-2, SET@2026-11-25 or SET@2026-11-25T14:30"));
        };
        newest_before(images.iter(), time).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find image", wanted)
                .because("every image of the set is younger")
        })
    }

    fn none_such(&self, wanted: &str) -> Error {
        if let Some(locked) = self.locked() {
            return locked.clone();
        }
        let why = match (self.images.len(), self.broken.len()) {
            (0, 0) => "the store holds no image".to_owned(),
            (0, n) => format!("none of the store's {n} image files can be opened"),
            (n, _) => format!("none of the {n} images in the store is called that"),
        };
        Error::new(ErrorKind::NotFound, "find image", wanted)
            .because(why)
            .hint("`strata list` shows the images of a store")
    }

    fn no_such_set(&self, set: &str) -> Error {
        if let Some(locked) = self.locked() {
            return locked.clone();
        }
        let mut names: Vec<&str> = self.images.iter().map(|i| i.info.set.as_str()).collect();
        names.dedup();
        let why = match names.as_slice() {
            [] => "the store holds no image".to_owned(),
            some => format!("the store has: {}", some.join(", ")),
        };
        Error::new(ErrorKind::NotFound, "find set", set)
            .because(why)
            .hint("`strata list` shows the images of a store")
    }
}

/// The image that was begun last, up to `time`.
fn newest_before<'a>(images: impl Iterator<Item = &'a Image>, time: i64) -> Option<&'a Image> {
    images
        .filter(|i| i.info.created <= time)
        .max_by_key(|i| i.info.created)
}

/// The last second that `text` means: a time with an offset, a time of `zone`, or a day of it.
fn point_in_time(text: &str, zone: &TimeZone) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_second());
    }
    let day = text.len() <= "2026-11-25".len();
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let minute = !day && text.matches(':').count() == 1;
    let time = match (day, minute) {
        (true, _) => time.date().at(23, 59, 59, 0),
        (_, true) => time.checked_add(jiff::Span::new().seconds(59)).ok()?,
        _ => time,
    };
    Some(zone.to_timestamp(time).ok()?.as_second())
}

impl Image {
    /// The id as 32 hexadecimal digits.
    fn id(&self) -> String {
        self.header.id.simple().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockSize, ByteLen};
    use crate::image::{BlockState, Header, ImageWriter, Info, Kind, Summary};
    use crate::store::{FileName, MemoryStore, Store};
    use uuid::Uuid;

    fn add(store: &dyn Store, file: &str, id: u128, set: &str, sequence: u32, created: i64) {
        let header = Header {
            id: Uuid::from_u128(id),
            set: Uuid::from_u128(9),
            sequence,
            parent: None,
            kind: Kind::Full,
            disk_len: ByteLen(4096),
            block_size: BlockSize::new(4096).unwrap(),
            window_log2: 0,
        };
        let info = Info {
            set: set.into(),
            created,
            ..Info::default()
        };
        let upload = store.create(&FileName::new(file).unwrap()).unwrap();
        let mut writer = ImageWriter::start(upload, file, header, &info, &[]).unwrap();
        writer.push_run(BlockState::Zero, sequence, 1).unwrap();
        writer
            .finish(Summary::default())
            .unwrap()
            .0
            .publish()
            .unwrap();
    }

    fn catalog() -> Catalog {
        let store = MemoryStore::new("memory");
        add(&store, "a1.strata", 0x1111_0000_u128 << 96, "a", 1, 500);
        // The clock went back before the second image of set a.
        add(&store, "a2.strata", 0x1112_0000_u128 << 96, "a", 2, 100);
        add(&store, "b1.strata", 0x2222_0000_u128 << 96, "b", 1, 300);
        let mut upload = store.create(&FileName::new("x.strata").unwrap()).unwrap();
        std::io::Write::write_all(&mut upload, b"nothing").unwrap();
        upload.publish().unwrap();
        Catalog::load(&store).unwrap()
    }

    #[test]
    fn images_are_found_by_every_name() {
        let catalog = catalog();
        let find = |wanted: &str| catalog.find(wanted, &TimeZone::UTC);
        let file = |wanted: &str| find(wanted).map(|i| i.file.to_string());
        assert_eq!(file("1111").unwrap(), "a1.strata");
        assert_eq!(file("22220000-0000").unwrap(), "b1.strata");
        assert_eq!(
            file("a@latest").unwrap(),
            "a2.strata",
            "the place in the set, not the clock"
        );
        // Not the first of set a, whatever its clock said.
        assert_eq!(file("latest").unwrap(), "b1.strata");
        assert_eq!(file("b1.strata").unwrap(), "b1.strata");
        assert_eq!(file("a@-0").unwrap(), "a2.strata");
        assert_eq!(file("a@-1").unwrap(), "a1.strata");
        assert_eq!(file("a@1970-01-01T00:02").unwrap(), "a2.strata");
        assert_eq!(file("a@1970-01-01").unwrap(), "a1.strata");
        assert_eq!(file("1970-01-01T00:05:00Z").unwrap(), "b1.strata");
        let kind = |wanted: &str| find(wanted).map(drop).unwrap_err().kind();
        for none in ["a@-2", "a@1969-12-31", "a@soon", "1969-12-31"] {
            assert_eq!(kind(none), ErrorKind::NotFound, "{none}");
        }
        assert_eq!(kind("111"), ErrorKind::NotFound, "too short");
        assert_eq!(kind("1113"), ErrorKind::NotFound);
        assert_eq!(kind("x.strata"), ErrorKind::Damaged);
        let error = find("c@latest").map(drop).unwrap_err().to_string();
        assert!(error.contains("a, b"), "{error}");
    }

    #[test]
    fn an_ambiguous_start_is_not_guessed() {
        let store = MemoryStore::new("memory");
        add(&store, "a1.strata", 0x1111_1000_u128 << 96, "a", 1, 1);
        add(&store, "a2.strata", 0x1111_2000_u128 << 96, "a", 2, 2);
        let catalog = Catalog::load(&store).unwrap();
        let error = catalog
            .find("1111", &TimeZone::UTC)
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(error.contains("several"), "{error}");
        assert!(catalog.find("11112", &TimeZone::UTC).is_ok());
    }
}
