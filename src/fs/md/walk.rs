//! Finding a member's superblock, and the map of a member.

use super::super::doubt::{Doubt, ensure};
use super::super::files::Search;
use super::super::layer;
use super::super::map::MapBuilder;
use super::super::volume::{Piece, Volume};
use super::super::{Found, Reader, Used};
use super::disk::{self, LEN, Superblock};
use std::ops::Range;

/// What is looked for, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V0_90,
    V1_0,
    V1_1,
    V1_2,
    /// Intel's firmware.
    Imsm,
    /// The disk data format of SNIA.
    Ddf,
}

pub(super) const AT_END: [Format; 4] = [Format::V1_0, Format::V0_90, Format::Imsm, Format::Ddf];
pub(super) const AT_START: [Format; 2] = [Format::V1_1, Format::V1_2];

const IMSM_MAGIC: &[u8] = b"Intel Raid ISM Cfg Sig. ";
const DDF_MAGIC: &[u8] = &[0xDE, 0x11, 0xDE, 0x11];
/// Data is told apart in units of at most this.
const MAX_UNIT: u64 = 4096;

impl Format {
    /// Where its superblock begins on a disk of `len` bytes with sectors of `sector`.
    fn place(self, len: u64, sector: u64) -> Option<u64> {
        match self {
            Format::V0_90 => (len & !0xFFFF).checked_sub(65_536),
            Format::V1_0 => (len & !0xFFF).checked_sub(8192),
            Format::V1_1 => Some(0),
            Format::V1_2 => Some(4096),
            Format::Imsm => (len - len % sector).checked_sub(2 * sector),
            Format::Ddf => (len - len % sector).checked_sub(sector),
        }
    }

    fn version(self) -> &'static str {
        match self {
            Format::V0_90 => "0.90",
            Format::V1_0 => "1.0",
            Format::V1_1 => "1.1",
            Format::V1_2 => "1.2",
            Format::Imsm | Format::Ddf => "",
        }
    }

    fn is_at(self, bytes: &[u8]) -> bool {
        match self {
            Format::V0_90 => disk::is_version_0(bytes),
            Format::V1_0 | Format::V1_1 | Format::V1_2 => disk::is_version_1(bytes),
            Format::Imsm => bytes.starts_with(IMSM_MAGIC),
            Format::Ddf => bytes.starts_with(DDF_MAGIC),
        }
    }

    fn found(self, bytes: &[u8]) -> Result<Found, Doubt> {
        let (level, label) = match self {
            Format::Imsm => return Ok(firmware("IMSM RAID member")),
            Format::Ddf => return Ok(firmware("DDF RAID member")),
            Format::V0_90 => (disk::level_of_version_0(bytes)?, None),
            _ => (
                disk::level_of_version_1(bytes)?,
                disk::name_of_version_1(bytes),
            ),
        };
        let level = disk::level_name(level);
        Ok(Found {
            kind: format!("md {level} member {}", self.version()),
            label,
        })
    }
}

fn firmware(kind: &str) -> Found {
    Found {
        kind: kind.to_owned(),
        label: None,
    }
}

/// A recognised member.
pub(super) struct Member {
    format: Format,
    /// Where its superblock begins.
    place: u64,
    bytes: Vec<u8>,
    pub(super) found: Found,
}

/// The first of `formats` whose signature is in its place.
pub(super) fn find(volume: &Volume<'_>, formats: &[Format]) -> Result<Option<Member>, Doubt> {
    for format in formats {
        let Some(place) = format.place(volume.len(), volume.sector()) else {
            continue;
        };
        let len = LEN.min(volume.len().saturating_sub(place));
        if len < volume.sector().min(LEN) {
            continue;
        }
        let bytes = volume.read(place, len)?;
        if format.is_at(&bytes) {
            return Ok(Some(Member {
                format: *format,
                place,
                found: format.found(&bytes)?,
                bytes,
            }));
        }
    }
    Ok(None)
}

/// What is in use in the member `volume`, the data of a mirror looked into with `readers`.
pub(super) fn map(
    volume: &Volume<'_>,
    formats: &[Format],
    readers: &[&dyn Reader],
) -> Result<Used, Doubt> {
    let (superblock, place) = mirror(volume, formats)?;
    if let Some(why) = superblock.unsteady {
        return Err(Doubt::new(why));
    }
    let data = data(&superblock, place, volume)?;
    let mut used = Used::mapped(MapBuilder::new(volume.len(), unit(&data)));
    used.map.keep(0..data.start);
    used.map.keep(data.end..volume.len());
    used.notes.push(
        "after a restore a check of the array will count mismatches in free space; they do no harm"
            .to_owned(),
    );
    let name = superblock.name.unwrap_or_else(|| "array".to_owned());
    layer::look_into(&name, &[piece(&data)], volume, readers, &mut used)?;
    Ok(used)
}

/// Who holds in the member `volume` what `search` looks for, the data of a mirror looked into with
/// `readers`.
pub(super) fn files(
    volume: &Volume<'_>,
    formats: &[Format],
    readers: &[&dyn Reader],
    search: &mut Search,
) -> Result<(), Doubt> {
    let (superblock, place) = mirror(volume, formats)?;
    if let Some(why) = &superblock.unsteady {
        search.lacks(why.clone());
    }
    let data = data(&superblock, place, volume)?;
    search.metadata(0..data.start);
    search.metadata(data.end..volume.len());
    let name = superblock.name.unwrap_or_else(|| "array".to_owned());
    layer::files(&name, &[piece(&data)], volume, readers, search)
}

/// The superblock of a mirror's member, and where that begins.
fn mirror(volume: &Volume<'_>, formats: &[Format]) -> Result<(Superblock, u64), Doubt> {
    let member = find(volume, formats)?
        .ok_or_else(|| Doubt::new("its superblock is there at one look and not at the next"))?;
    let superblock = match member.format {
        Format::Imsm | Format::Ddf => {
            return Err(Doubt::new(
                "it is a member of a RAID that the machine's firmware knows",
            ));
        }
        Format::V0_90 => Superblock::version_0(&member.bytes)?,
        _ => Superblock::version_1(&member.bytes, member.place)?,
    };
    ensure(superblock.level == 1, || {
        format!(
            "it is a member of a {} array of {} disks, whose data only all of them tell",
            disk::level_name(superblock.level),
            superblock.disks
        )
    })?;
    Ok((superblock, member.place))
}

/// All of the array, which lies in one piece.
fn piece(data: &Range<u64>) -> Piece {
    Piece {
        start: 0,
        len: data.end - data.start,
        at: data.start,
    }
}

/// The bytes that the array has of the member: they must touch neither superblock nor bitmap.
fn data(superblock: &Superblock, place: u64, volume: &Volume<'_>) -> Result<Range<u64>, Doubt> {
    let end = superblock.data.checked_add(superblock.size);
    let end = end.filter(|end| *end <= volume.len() && superblock.size > 0);
    let data = superblock.data..end.ok_or_else(|| {
        Doubt::new(format!(
            "its {} bytes of data from byte {} pass its end at {}",
            superblock.size,
            superblock.data,
            volume.len()
        ))
    })?;
    let apart = data.end <= place || place.saturating_add(LEN) <= data.start;
    let bitmap = superblock.bitmap.is_some_and(|at| data.contains(&at));
    ensure(
        apart && !bitmap,
        || "its data overlaps its superblock or its bitmap",
    )?;
    Ok(data)
}

/// The largest power of two, up to [`MAX_UNIT`], that the data is aligned to.
fn unit(data: &Range<u64>) -> u64 {
    1 << (data.start | MAX_UNIT).trailing_zeros()
}
