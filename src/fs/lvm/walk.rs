//! From the description of a volume group to the map of one of its physical volumes.

use super::super::doubt::{Doubt, ensure};
use super::super::files::Search;
use super::super::layer;
use super::super::map::MapBuilder;
use super::super::volume::{Piece, Volume};
use super::super::{Reader, Used};
use super::disk::{Area, AreaState, Committed, Header, LABEL_SECTORS, SECTOR, is_label};
use super::group::{Group, Logical, Segment};
use super::text::Section;
use crate::base::{to_u64, to_usize};

/// A description may be this long: that of some ten thousand logical volumes.
const MAX_TEXT: u64 = 8 << 20;
/// A striped volume may have this many pieces on one disk; more are not looked into.
const MAX_PIECES: u64 = 1 << 17;
/// Extents of volumes are told apart in units of at most this.
const MAX_UNIT: u64 = 4096;

/// The sectors in which a label may be; short when the volume is.
pub(super) fn label_sectors(volume: &Volume<'_>) -> Result<Vec<u8>, Doubt> {
    volume.read(0, volume.len().min(LABEL_SECTORS * SECTOR))
}

/// What is in use in the physical volume `volume`, its logical volumes looked into with `readers`.
pub(super) fn map(volume: &Volume<'_>, readers: &[&dyn Reader]) -> Result<Used, Doubt> {
    let header = header(volume)?;
    let text = description(volume, &header)?;
    let text = String::from_utf8_lossy(&text);
    let parsed = Section::parse(text.trim_end_matches('\0'))?;
    let group = Group::of(&parsed, &header.uuid)?;
    let (start, end) = extents(&group, volume)?;
    let mut used = Used::mapped(MapBuilder::new(volume.len(), unit(&group)));
    for area in header.metadata.iter().chain(&header.boot) {
        used.map.keep(area.range());
    }
    used.map.keep(0..start);
    used.map.keep(end..volume.len());
    for gap in gaps(&group)? {
        used.map
            .free(start + gap.start * group.extent..start + gap.end * group.extent);
    }
    if group.physical_volumes > 1 {
        used.notes.push(format!(
            "the volume group {} lies on {} physical volumes: they belong together",
            group.name, group.physical_volumes
        ));
    }
    for logical in &group.volumes {
        look_into(logical, &group, volume, readers, &mut used)?;
    }
    Ok(used)
}

/// Who holds in the physical volume `volume` what `search` looks for, its logical volumes looked into with
/// `readers`.
pub(super) fn files(
    volume: &Volume<'_>,
    readers: &[&dyn Reader],
    search: &mut Search,
) -> Result<(), Doubt> {
    let header = header(volume)?;
    let text = description(volume, &header)?;
    let text = String::from_utf8_lossy(&text);
    let parsed = Section::parse(text.trim_end_matches('\0'))?;
    let group = Group::of(&parsed, &header.uuid)?;
    let (start, end) = extents(&group, volume)?;
    search.metadata(0..start);
    search.metadata(end..volume.len());
    for gap in gaps(&group)? {
        search.free(start + gap.start * group.extent..start + gap.end * group.extent);
    }
    for logical in &group.volumes {
        let name = format!("{}/{}", group.name, logical.name);
        let places = logical.segments.iter().flat_map(|s| {
            let len = s.area_count * group.extent;
            let firsts = s.areas.iter().flatten();
            firsts.map(move |first| (first * group.extent + start, len))
        });
        let hit = places.fold(false, |hit, (at, len)| {
            hit | search.touches(&(at..at + len))
        });
        if !hit {
            continue;
        }
        let pieces = match &logical.opaque {
            Some(why) => Err(why.to_string()),
            None => pieces(logical, &group)?
                .ok_or_else(|| "it has too many stripes on one disk".to_owned()),
        };
        match pieces {
            Ok(pieces) => layer::files(&name, &pieces, volume, readers, search)?,
            Err(why) => search.lacks(format!("{name}: {why}")),
        }
    }
    Ok(())
}

/// The only label's.
fn header(volume: &Volume<'_>) -> Result<Header, Doubt> {
    let bytes = label_sectors(volume)?;
    let sectors = bytes.chunks_exact(to_usize(SECTOR)).zip(0..);
    let mut labels = sectors.filter(|(sector, _)| is_label(sector));
    let (Some((sector, number)), None) = (labels.next(), labels.next()) else {
        return Err(Doubt::new("it has several LVM2 labels"));
    };
    Header::parse(sector, number)
}

/// The text that all metadata areas agree on.
fn description(volume: &Volume<'_>, header: &Header) -> Result<Vec<u8>, Doubt> {
    let mut held: Option<(Area, Committed)> = None;
    let mut ignored = false;
    for area in &header.metadata {
        let sector = volume.read(area.offset, SECTOR)?;
        match AreaState::parse(&sector, *area)? {
            AreaState::Holds(text) => {
                let same = |(_, other): (Area, Committed)| {
                    (other.size, other.crc) == (text.size, text.crc)
                };
                ensure(held.is_none_or(same), || {
                    "its two LVM2 metadata areas describe different states of its volume group; any \
                     LVM2 command that changes the group mends that"
                })?;
                // The second copy is read too: one that cannot be read is no copy.
                read_text(volume, *area, &text)?;
                held = Some((*area, text));
            }
            AreaState::Ignored => ignored = true,
            AreaState::Empty => ensure(
                held.is_none(),
                || "one of its LVM2 metadata areas is empty, the other is not",
            )?,
        }
    }
    let (area, text) = held.ok_or_else(|| {
        Doubt::new(if ignored || header.in_use {
            "the description of its volume group is only on other physical volumes"
        } else {
            "it belongs to no volume group"
        })
    })?;
    read_text(volume, area, &text)
}

fn read_text(volume: &Volume<'_>, area: Area, text: &Committed) -> Result<Vec<u8>, Doubt> {
    let size = text.size;
    ensure(size <= MAX_TEXT, || {
        format!("the description of its volume group claims to be {size} bytes long")
    })?;
    let mut bytes = Vec::new();
    for place in text.places(area) {
        bytes.extend(volume.read(place.start, place.end - place.start)?);
    }
    text.check(&bytes)?;
    Ok(bytes)
}

/// The first byte of its extents and the first behind them.
fn extents(group: &Group<'_>, volume: &Volume<'_>) -> Result<(u64, u64), Doubt> {
    let len = group.count.checked_mul(group.extent);
    let end = len.and_then(|len| len.checked_add(group.start));
    let end = end.filter(|end| *end <= volume.len()).ok_or_else(|| {
        Doubt::new(format!(
            "its {} extents of {} bytes from byte {} pass its end at {}",
            group.count,
            group.extent,
            group.start,
            volume.len()
        ))
    })?;
    Ok((group.start, end))
}

/// The largest power of two, up to [`MAX_UNIT`], that every extent is aligned to.
fn unit(group: &Group<'_>) -> u64 {
    let bits = group.start | group.extent | MAX_UNIT;
    1 << bits.trailing_zeros()
}

/// The runs of extents that no segment has, ascending.
fn gaps(group: &Group<'_>) -> Result<Vec<std::ops::Range<u64>>, Doubt> {
    let mut taken = Vec::new();
    for logical in &group.volumes {
        for segment in &logical.segments {
            for first in segment.areas.iter().flatten() {
                let end = first.checked_add(segment.area_count);
                let end = end.filter(|end| *end <= group.count).ok_or_else(|| {
                    Doubt::new(format!(
                        "its logical volume {} has extents behind the last",
                        logical.name
                    ))
                })?;
                taken.push((*first..end, logical.name));
            }
        }
    }
    taken.sort_unstable_by_key(|(range, _)| range.start);
    let mut gaps = Vec::new();
    let mut end = 0;
    let mut before = "";
    for (range, name) in taken {
        ensure(range.start >= end, || {
            format!(
                "its logical volumes {before} and {name} both have extent {}",
                range.start
            )
        })?;
        gaps.push(end..range.start);
        (end, before) = (range.end, name);
    }
    gaps.push(end..group.count);
    gaps.retain(|gap| gap.start < gap.end);
    Ok(gaps)
}

/// Looks into a logical volume that can be; tells of one that cannot.
fn look_into(
    logical: &Logical<'_>,
    group: &Group<'_>,
    volume: &Volume<'_>,
    readers: &[&dyn Reader],
    used: &mut Used,
) -> Result<(), Doubt> {
    let here = |s: &Segment<'_>| s.area_count * to_u64(s.areas.iter().flatten().count());
    let extents: u64 = logical.segments.iter().map(here).sum();
    if extents == 0 {
        // Nothing of it is on this disk: a thin volume, or one on other disks.
        return Ok(());
    }
    let name = format!("{}/{}", group.name, logical.name);
    let whole = |why: &str| layer::opaque(&name, "unknown", extents * group.extent, why);
    if let Some(why) = &logical.opaque {
        used.inside.push(whole(why));
        return Ok(());
    }
    match pieces(logical, group)? {
        Some(pieces) => layer::look_into(&name, &pieces, volume, readers, used),
        None => {
            used.inside
                .push(whole("it has too many stripes on one disk"));
            Ok(())
        }
    }
}

/// The places of a plain logical volume in order, unless there are too many. All its extents have
/// been checked to be inside.
fn pieces(logical: &Logical<'_>, group: &Group<'_>) -> Result<Option<Vec<Piece>>, Doubt> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for segment in &logical.segments {
        let firsts: Vec<u64> = segment.areas.iter().flatten().copied().collect();
        let area_len = segment.area_count * group.extent;
        let chunk = if firsts.len() == 1 {
            area_len
        } else {
            segment.stripe
        };
        ensure(chunk > 0 && area_len.is_multiple_of(chunk), || {
            format!(
                "the stripes of its logical volume {} do not add up",
                logical.name
            )
        })?;
        let rounds = area_len / chunk;
        let count = rounds.saturating_mul(to_u64(firsts.len()));
        if count.saturating_add(to_u64(pieces.len())) > MAX_PIECES {
            return Ok(None);
        }
        for round in 0..rounds {
            for first in &firsts {
                pieces.push(Piece {
                    start,
                    len: chunk,
                    at: group.start + first * group.extent + round * chunk,
                });
                start += chunk;
            }
        }
    }
    Ok(Some(pieces))
}
