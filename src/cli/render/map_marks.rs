//! What a cell of a disk map is shown as, and what the marks mean.

use crate::base::ByteLen;
use crate::ops::map::{Cell, DiskMap};

/// The one thing that a cell shows: the most important of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Something could not be read, however little.
    Unreadable,
    /// A tenth of it or more changed.
    MuchChanged,
    /// Less changed.
    LittleChanged,
    /// Two thirds or more is data.
    FullData,
    /// A third or more is data.
    HalfData,
    /// Less is data.
    SparseData,
    /// Zeros, and nothing of the above.
    Zero,
    /// Nothing but what is not in use.
    Unused,
}

impl Mark {
    /// `parent`: whether the image tells what changed.
    pub(super) fn of(cell: &Cell, parent: bool) -> Mark {
        let at_least = |part: u64, share: u64, of: u64| {
            u128::from(part) * u128::from(of) >= u128::from(cell.bytes()) * u128::from(share)
        };
        if cell.unreadable > 0 {
            Mark::Unreadable
        } else if parent && cell.changed > 0 {
            if at_least(cell.changed, 1, 10) {
                Mark::MuchChanged
            } else {
                Mark::LittleChanged
            }
        } else if cell.data > 0 {
            if at_least(cell.data, 2, 3) {
                Mark::FullData
            } else if at_least(cell.data, 1, 3) {
                Mark::HalfData
            } else {
                Mark::SparseData
            }
        } else if cell.zero > 0 {
            Mark::Zero
        } else {
            Mark::Unused
        }
    }
}

/// One line of what the marks mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) marks: &'static [Mark],
    pub(super) name: &'static str,
    /// On the whole disk.
    pub(super) bytes: u64,
    /// Of the whole disk; empty for nothing.
    pub(super) share: String,
    /// What tells several marks apart; empty where none of them is.
    pub(super) note: &'static str,
}

/// What the marks of `map` mean, the most important first: a cell shows the first that it holds.
pub(super) fn meanings(map: &DiskMap) -> Vec<Meaning> {
    use Mark::{
        FullData, HalfData, LittleChanged, MuchChanged, SparseData, Unreadable, Unused, Zero,
    };
    let totals = &map.totals;
    let line = |marks, name, bytes, note| Meaning {
        marks,
        name,
        bytes,
        share: share(bytes, map.disk_bytes),
        note: if bytes > 0 { note } else { "" },
    };
    let mut lines = vec![line(
        &[Unreadable],
        "unreadable",
        totals.unreadable,
        "in blocks that could not be read whole",
    )];
    if map.has_parent() {
        lines.push(line(
            &[LittleChanged, MuchChanged],
            "changed",
            totals.changed,
            "a little, a tenth of the cell or more",
        ));
    }
    lines.extend([
        line(
            &[SparseData, HalfData, FullData],
            "data",
            totals.data,
            "up to a third, two thirds, all of the cell",
        ),
        line(&[Zero], "zero", totals.zero, ""),
        line(&[Unused], "unused", totals.unused, ""),
    ]);
    lines
}

/// How to read the cells, in sentences.
pub(super) fn how_to_read(map: &DiskMap) -> Vec<String> {
    let mut sentences = vec![format!(
        "A cell is {} of the disk and shows the first of these that is in it.",
        ByteLen(map.cell_bytes)
    )];
    if let Some(parent) = &map.image.parent {
        sentences.push(format!(
            "Changed is what is new since image {}; it is also counted as what it is now.",
            short_id(parent)
        ));
    }
    if map.totals.unreadable > 0 {
        sentences
            .push("The command strata show lists the bytes that could not be read.".to_owned());
    }
    sentences
}

/// Enough of an image's id to name it by.
pub(super) fn short_id(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// `part` of `whole` in whole percent. Little never looks like nothing, nor almost all like all.
fn share(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    let percent = (part * 100 + whole / 2) / whole;
    match percent {
        0 => "<1 %".to_owned(),
        100.. if part < whole => ">99 %".to_owned(),
        _ => format!("{percent} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::map_testing::Sample;
    use super::*;

    fn cell(data: u64, zero: u64, unused: u64, unreadable: u64, changed: u64) -> Cell {
        Cell {
            data,
            zero,
            unused,
            unreadable,
            changed,
        }
    }

    #[test]
    fn a_cell_shows_the_most_important_of_what_it_holds() {
        const PIB64: u64 = 64 << 50;
        let of = |cell: Cell| (Mark::of(&cell, true), Mark::of(&cell, false));
        assert_eq!(
            of(cell(PIB64, 1, 1, 1, PIB64)),
            (Mark::Unreadable, Mark::Unreadable)
        );
        assert_eq!(
            of(cell(PIB64, 1, 1, 0, 1)),
            (Mark::LittleChanged, Mark::FullData)
        );
        assert_eq!(of(cell(0, 0, 10, 0, 1)), (Mark::MuchChanged, Mark::Unused));
        assert_eq!(of(cell(1, 0, PIB64, 0, 0)).0, Mark::SparseData);
        assert_eq!(of(cell(1, 1, 1, 0, 0)).0, Mark::HalfData);
        assert_eq!(of(cell(2, 0, 1, 0, 0)).0, Mark::FullData);
        assert_eq!(of(cell(0, 1, 9, 0, 0)).0, Mark::Zero);
        assert_eq!(of(Cell::default()).0, Mark::Unused);
    }

    #[test]
    fn shares_are_never_rounded_to_nothing_or_all() {
        assert_eq!(share(0, 10), "");
        assert_eq!(share(1, u64::MAX), "<1 %");
        assert_eq!(share(u64::MAX - 1, u64::MAX), ">99 %");
        assert_eq!(share(7, 7), "100 %");
        assert_eq!(share(1, 8), "13 %");
    }

    #[test]
    fn without_a_parent_nothing_is_called_changed() {
        let full = Sample::new(4096, 1).map();
        assert!(meanings(&full).iter().all(|m| m.name != "changed"));
        assert!(!how_to_read(&full).concat().contains("hanged"));
        let map = Sample::new(4096, 1).parent().map();
        assert!(meanings(&map).iter().any(|m| m.name == "changed"));
        assert!(how_to_read(&map).concat().contains("since image 5d1e77aa"));
    }
}
