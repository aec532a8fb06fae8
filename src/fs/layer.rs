//! A volume inside a volume: its answer, told in the places of the volume below.

use super::doubt::Doubt;
use super::files::{self, Search};
use super::volume::{Piece, Volume};
use super::{Certainty, Content, Inside, Reader, Used, UsedReport, probe};
use crate::base::{ByteLen, ByteOffset, Extent, normalize};

/// Looks with `readers` into the volume `name` that `pieces` of `below` make up, and takes what they
/// say over into `used`: what is free, its contents and notes, and itself.
///
/// # Errors
/// Only when the run was stopped: what cannot be looked into counts as used, with the reason.
pub(super) fn look_into(
    name: &str,
    pieces: &[Piece],
    below: &Volume<'_>,
    readers: &[&dyn Reader],
    used: &mut Used,
) -> Result<(), Doubt> {
    let len = ByteLen(pieces.iter().map(|p| p.len).sum());
    let report = match below.window(pieces) {
        Ok(window) => probe::look_into(&window, readers)?,
        Err(Doubt::Unsure(why)) => UsedReport::unknown("unknown", len, why),
        Err(stopped) => return Err(stopped),
    };
    used.map.free_inside(pieces, report.unit, &report.used);
    let bytes = report.used_bytes(len);
    used.inside.push(Inside {
        name: name.to_owned(),
        kind: report.kind,
        bytes: len,
        used: bytes,
        certainty: report.certainty,
    });
    let below_it = report.inside.into_iter().map(|inside| Inside {
        name: format!("{name} > {}", inside.name),
        ..inside
    });
    used.inside.extend(below_it);
    let notes = report.notes.into_iter();
    used.notes
        .extend(notes.map(|note| format!("{name}: {note}")));
    for content in report.contents {
        used.contents.push(Content {
            kind: content.kind,
            extents: normalize(places(&content.extents, pieces)),
        });
    }
    Ok(())
}

/// Looks with `readers` into the volume `name` that `pieces` of `below` make up for who holds the bytes
/// that `search` looks for.
///
/// # Errors
/// Only when the run was stopped.
pub(super) fn files(
    name: &str,
    pieces: &[Piece],
    below: &Volume<'_>,
    readers: &[&dyn Reader],
    search: &mut Search,
) -> Result<(), Doubt> {
    let inside = search.inside(pieces);
    if inside.is_empty() {
        return Ok(());
    }
    let window = below.window(pieces);
    if let Some(window) = search.tolerate(window)? {
        let hit = files::look_into(&window, inside.clone(), readers)?;
        search.absorb(name, pieces, &inside, hit);
    }
    Ok(())
}

/// A volume inside that is not looked into: all of its `len` bytes are in use.
pub(super) fn opaque(name: &str, kind: &str, len: u64, why: impl Into<String>) -> Inside {
    Inside {
        name: name.to_owned(),
        kind: kind.to_owned(),
        bytes: ByteLen(len),
        used: ByteLen(len),
        certainty: Certainty::Unknown(why.into()),
    }
}

/// Where `extents` of the volume made of `pieces` lie in the volume below.
pub(super) fn places(extents: &[Extent], pieces: &[Piece]) -> Vec<Extent> {
    let mut found = Vec::new();
    for extent in extents {
        let (start, end) = (extent.start.0, extent.end().0);
        let first = pieces.partition_point(|p| p.start + p.len <= start);
        for piece in pieces.iter().skip(first).take_while(|p| p.start < end) {
            let from = start.max(piece.start);
            let to = end.min(piece.start + piece.len);
            found.push(Extent {
                start: ByteOffset(piece.at + (from - piece.start)),
                len: ByteLen(to.saturating_sub(from)),
            });
        }
    }
    found
}

#[cfg(test)]
pub(super) mod testing {
    //! A file system for tests of what lies below one.

    use super::super::map::MapBuilder;
    use super::super::report::ContentKind;
    use super::super::{Content, Found, Reader, Used};
    use super::{ByteLen, ByteOffset, Doubt, Extent, Volume};
    use crate::base::to_u64;

    /// What it begins with.
    pub(crate) const MAGIC: &[u8; 8] = b"halffree";

    /// Recognises [`MAGIC`]; the first half is in use, and its second quarter is swap.
    pub(crate) struct HalfFree;

    impl Reader for HalfFree {
        fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
            let there = volume.read(0, to_u64(MAGIC.len()))? == MAGIC;
            Ok(there.then(|| Found {
                kind: "half".to_owned(),
                label: None,
            }))
        }

        fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
            let len = volume.len();
            let mut map = MapBuilder::new(len, 512);
            map.free(len / 2..len);
            let mut used = Used::mapped(map);
            used.notes.push("it is half empty".to_owned());
            used.contents.push(Content {
                kind: ContentKind::Swap,
                extents: vec![Extent {
                    start: ByteOffset(len / 4),
                    len: ByteLen(len / 4),
                }],
            });
            Ok(used)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::MapBuilder;
    use super::*;
    use crate::base::Cancel;
    use crate::block::MemorySource;

    #[test]
    fn what_is_inside_is_told_in_places_of_the_volume_below() {
        let mut bytes = vec![0; 65_536];
        bytes[32_768..32_776].copy_from_slice(testing::MAGIC);
        let (source, cancel) = (MemorySource::new("m", bytes), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        let piece = |start, len, at| Piece { start, len, at };
        let pieces = [piece(0, 4096, 32_768), piece(4096, 12_288, 4096)];
        let mut used = Used::mapped(MapBuilder::new(volume.len(), 1024));
        look_into("a/b", &pieces, &volume, &[&testing::HalfFree], &mut used).unwrap();
        let free: Vec<_> = used.map.finish().1.gaps().collect();
        assert_eq!((free.len(), free[0].clone()), (1, 8..16));
        let swap = &used.contents[0].extents;
        assert_eq!(
            (swap.len(), swap[0].start.0, swap[0].len.0),
            (1, 4096, 4096)
        );
        assert_eq!(used.notes, ["a/b: it is half empty"]);
        let inside = &used.inside[0];
        assert_eq!((inside.bytes.0, inside.used.0), (16_384, 8192));
        assert_eq!(inside.certainty, Certainty::Certain);
    }

    #[test]
    fn what_does_not_fit_is_all_in_use() {
        let (source, cancel) = (MemorySource::new("m", vec![0; 4096]), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        let pieces = [Piece {
            start: 0,
            len: 4096,
            at: 512,
        }];
        let mut used = Used::mapped(MapBuilder::new(4096, 512));
        look_into("a/b", &pieces, &volume, &[&testing::HalfFree], &mut used).unwrap();
        assert!(matches!(used.inside[0].certainty, Certainty::Unknown(_)));
        assert_eq!(used.map.finish().1.gaps().count(), 0);
    }
}
