//! Where in which history a new image stands, and what its file is called.

use crate::base::{Error, ErrorKind, Result};
use crate::chain::{Catalog, SUFFIX};
use crate::device::ReadClaim;
use crate::image::Kind;
use uuid::Uuid;

/// An image's place in a history.
pub(super) struct Place {
    /// Name of the history.
    pub(super) set: String,
    /// Its id.
    pub(super) set_id: Uuid,
    /// Place in it, from 1.
    pub(super) sequence: u64,
}

impl Place {
    /// Behind the newest image of the set `asked` for, or of the one that the disk's identity names.
    ///
    /// # Errors
    /// `Usage` when the name is no set name.
    pub(super) fn find(
        asked: Option<&str>,
        claim: &ReadClaim,
        catalog: Option<&Catalog>,
    ) -> Result<Place> {
        let set = match asked {
            Some(name) => checked_set(name)?,
            None => default_set(claim),
        };
        let newest = catalog
            .and_then(|c| c.set(&set).last())
            .map(|image| image.reader.clone());
        Ok(Place {
            set_id: newest
                .as_ref()
                .map_or_else(Uuid::new_v4, |reader| reader.header().set),
            sequence: newest.map_or(1, |reader| reader.info().sequence.saturating_add(1)),
            set,
        })
    }

    /// A name that a person can read in a folder: set, place, time, kind.
    pub(super) fn file_name(&self, created: i64, kind: Kind) -> String {
        let time: String = super::time_text(created)
            .chars()
            .filter(|c| c.is_ascii_alphanumeric())
            .collect();
        format!(
            "{}-{:05}-{time}-{}{SUFFIX}",
            self.set,
            self.sequence,
            kind.name()
        )
    }
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
fn default_set(claim: &ReadClaim) -> String {
    let identity = claim.identity();
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
        .take(MAX_SET_LEN)
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
        let place = |sequence| Place {
            set: "a".into(),
            set_id: Uuid::nil(),
            sequence,
        };
        assert_eq!(
            place(3).file_name(0, Kind::Full),
            "a-00003-19700101T000000Z-full.strata"
        );
        assert!(place(9).file_name(9, Kind::Full) < place(10).file_name(5, Kind::Full));
    }
}
