//! The used map: what `$Bitmap` says, compared with what every file says.

use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::super::{Content as Left, Used};
use super::boot::Boot;
use super::contents::{Candidates, set_apart};
use super::disk::{
    Attribute, BITMAP, DATA, Record, Run, State, VOLUME_INFORMATION, Value, fix_up, in_record,
    state, whole_records,
};
use super::log::{ADVICE, ensure_clean};
use super::stream::{Content, Mft, boot_sector};
use crate::base::{AlignedBuf, to_u64, to_usize};

/// Files with fixed numbers.
const MIRROR: u64 = 1;
pub(super) const LOG: u64 = 2;
pub(super) const VOLUME: u64 = 3;
/// The root folder.
pub(super) const ROOT: u64 = 5;
/// `$Bitmap`.
pub(super) const ALLOCATION: u64 = 6;
const BOOT: u64 = 7;
const BAD_CLUSTERS: u64 = 8;

/// How much of the MFT and of the bitmap is in memory at once.
const PIECE: u64 = 1 << 20;
/// So many records are in the mirror at least; it may hold more where clusters are large.
const MIRRORED: u64 = 4;
/// The volume's flags that say nothing about its clusters: upgraded from NT 4 (8), object
/// identifiers to be made anew (0x20), changed by chkdsk (0x8000).
const HARMLESS: u16 = 0x8028;

/// What is in use in `volume`.
pub(super) fn used(volume: &Volume<'_>) -> Result<Used, Doubt> {
    let sector = boot_sector(volume)?.ok_or_else(|| Doubt::new("it is no NTFS"))?;
    let boot = Boot::decode(&Raw::new(&sector, "boot sector"), volume.len())?;
    let mft = Mft::open(volume, boot)?;
    compare_mirror(&mft)?;
    check_flags(&mft)?;
    let log = mft.plain(LOG, DATA, "journal")?;
    ensure_clean(volume, &log)?;

    let mut map = MapBuilder::new(volume.len(), boot.cluster);
    map.keep(0..boot.cluster);
    // The backup of the boot sector lies behind the last cluster.
    map.keep(boot.clusters * boot.cluster..volume.len());
    map.keep(boot.mirror..boot.mirror.saturating_add(MIRRORED * boot.record));
    let bitmap = mft.plain(ALLOCATION, DATA, "$Bitmap")?;
    for stream in [&mft.stream, &log, &bitmap] {
        stream.places().for_each(|place| map.keep(place));
    }
    for file in [MIRROR, BOOT] {
        let stream = mft.plain(file, DATA, "$MFTMirr or $Boot")?;
        stream.places().for_each(|place| map.keep(place));
    }
    let free = take_free(&mft, &mut map)?;
    let candidates = compare_files(&mft, &map, boot.clusters - free)?;
    let (contents, notes) = set_apart(&mft, candidates)?;
    Ok(finish(map, contents, notes))
}

fn finish(map: MapBuilder, contents: Vec<Left>, notes: Vec<String>) -> Used {
    Used {
        contents,
        notes,
        ..Used::mapped(map)
    }
}

/// The first records and their copy are the same in a volume that was let go of cleanly.
fn compare_mirror(mft: &Mft<'_>) -> Result<(), Doubt> {
    let mut first = vec![0; to_usize(MIRRORED * mft.boot.record)];
    mft.stream.read_into(mft.volume, 0, &mut first)?;
    let copy = mft.volume.read(mft.boot.mirror, to_u64(first.len()))?;
    let size = to_usize(mft.boot.record);
    for (number, (record, copy)) in (0u64..).zip(first.chunks(size).zip(copy.chunks(size))) {
        // What lies behind the bytes in use is not kept the same.
        let used = Raw::new(record, "MFT record").le32(0x18)?;
        let used = to_usize(u64::from(used)).min(size);
        ensure(record.get(..used) == copy.get(..used), || {
            format!(
                "record {number} of its $MFT and the copy in $MFTMirr differ: the last change to \
                 it was not finished; run `chkdsk /f` in Windows"
            )
        })?;
    }
    Ok(())
}

/// Version and flags of the volume.
pub(super) fn check_flags(mft: &Mft<'_>) -> Result<(), Doubt> {
    let found = mft.content(VOLUME, VOLUME_INFORMATION, "")?;
    let Some(Content::Resident(value)) = found else {
        return Err(Doubt::new("its $Volume says nothing about its version"));
    };
    let raw = Raw::new(&value, "volume information");
    let version = (raw.u8(8)?, raw.u8(9)?);
    ensure(matches!(version, (1, 1 | 2) | (3, 0 | 1)), || {
        let (major, minor) = version;
        format!("it is of NTFS version {major}.{minor}, which is not known")
    })?;
    let flags = raw.le16(10)?;
    ensure(flags & 1 == 0, || {
        format!(
            "it is marked dirty (flags {flags:#06x}): it was not unmounted cleanly; run \
             `chkdsk /f` in Windows, then {ADVICE}"
        )
    })?;
    ensure(flags & !HARMLESS == 0, || {
        format!(
            "its flags {flags:#06x} say that a change to it is not finished; let Windows open it \
             once, then {ADVICE}"
        )
    })
}

/// Frees what `$Bitmap` says is free; the number of those clusters.
fn take_free(mft: &Mft<'_>, map: &mut MapBuilder) -> Result<u64, Doubt> {
    let bitmap = mft.plain(ALLOCATION, DATA, "$Bitmap")?;
    let Boot {
        clusters, cluster, ..
    } = mft.boot;
    let needed = clusters.div_ceil(8);
    ensure(bitmap.initialised >= needed, || {
        format!(
            "its $Bitmap is {} bytes long where {clusters} clusters need {needed}",
            bitmap.initialised
        )
    })?;
    let (mut free, mut count) = (FreeRuns::default(), 0);
    let mut take = |run: std::ops::Range<u64>| {
        count += run.end - run.start;
        map.free(run.start * cluster..run.end * cluster);
    };
    let mut at = 0;
    while at < needed {
        let mut piece = vec![0; to_usize(PIECE.min(needed - at))];
        bitmap.read_into(mft.volume, at, &mut piece)?;
        free.take(at * 8, &piece, clusters, &mut take);
        at += PIECE;
    }
    if let Some(start) = free.start {
        take(start..clusters);
    }
    Ok(count)
}

/// Runs of zeros in a bitmap that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct FreeRuns {
    /// Where the run begins that goes on behind the pieces so far.
    pub(super) start: Option<u64>,
}

impl FreeRuns {
    /// Goes through the next piece, whose first bit is `first`; bits from `end` on do not count.
    pub(super) fn take(
        &mut self,
        first: u64,
        piece: &[u8],
        end: u64,
        mut each: impl FnMut(std::ops::Range<u64>),
    ) {
        for (byte, at) in piece.iter().zip((first..).step_by(8)) {
            match (byte, self.start) {
                (0, Some(_)) | (0xFF, None) => continue,
                _ => {}
            }
            for bit in (at..end).take(8) {
                let used = byte >> (bit - at) & 1 != 0;
                match (used, self.start) {
                    (false, None) => self.start = Some(bit),
                    (true, Some(start)) => {
                        each(start..bit);
                        self.start = None;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Goes through every record in use, a piece of the MFT at a time.
pub(super) fn each_record(
    mft: &Mft<'_>,
    mut each: impl FnMut(u64, &Record<'_>) -> Result<(), Doubt>,
) -> Result<(), Doubt> {
    let bitmap = mft.plain(0, BITMAP, "bitmap of MFT records")?;
    let (size, records) = (mft.boot.record, mft.records());
    let mut number = 0;
    while number < records {
        let count = (PIECE / size).min(records - number);
        let mut piece = AlignedBuf::zeroed(to_usize(count * size));
        mft.stream
            .read_into(mft.volume, number * size, &mut piece)?;
        // Pieces hold a multiple of eight records.
        let wanted = bitmap.initialised.saturating_sub(number / 8);
        let mut bits = vec![0; to_usize(wanted.min(count.div_ceil(8)))];
        bitmap.read_into(mft.volume, number / 8, &mut bits)?;
        for (bytes, index) in piece.chunks_exact_mut(to_usize(size)).zip(0usize..) {
            let taken = bits
                .get(index / 8)
                .is_some_and(|b| b >> (index % 8) & 1 != 0);
            let number = number + to_u64(index);
            one_record(bytes, number, taken, &mut each).map_err(|d| in_record(number, d))?;
        }
        number += whole_records(piece.len(), size).max(1);
    }
    Ok(())
}

fn one_record(
    bytes: &mut [u8],
    number: u64,
    taken: bool,
    each: &mut impl FnMut(u64, &Record<'_>) -> Result<(), Doubt>,
) -> Result<(), Doubt> {
    match state(bytes)? {
        State::InUse => {
            fix_up(bytes)?;
            each(number, &Record::decode(bytes, number)?)
        }
        State::Unused => Ok(()),
        State::Bad => Err(Doubt::new(
            "it was found torn before; run `chkdsk /f` in Windows",
        )),
        State::Nothing => ensure(
            !taken,
            || "it should be in use and is none; run `chkdsk /f` in Windows",
        ),
    }
}

/// Compares the runs of every file with the map, in which `used` clusters are in use, and finds the
/// files whose content a person may want to leave out. No cluster belongs to two files, so that all
/// of them together have no more than that; it bounds the time of this too.
fn compare_files(mft: &Mft<'_>, map: &MapBuilder, used: u64) -> Result<Candidates, Doubt> {
    let mut candidates = Candidates::default();
    let mut left = used;
    each_record(mft, |_, record| {
        for attribute in record.attributes()? {
            let attribute = attribute?;
            match attribute.value {
                Value::Clusters(_) if is_list_of_bad_clusters(record, &attribute) => {}
                Value::Clusters(clusters) => {
                    for run in clusters.runs() {
                        let run = run?;
                        let taken = run.at.map_or(Some(left), |_| left.checked_sub(run.len));
                        left = taken.ok_or_else(|| {
                            Doubt::new("its files have more clusters than are marked used")
                        })?;
                        check_run(mft, map, &attribute, run)?;
                    }
                }
                Value::Resident(value) => candidates.look_at(record, &attribute, value)?,
            }
        }
        Ok(())
    })?;
    Ok(candidates)
}

fn is_list_of_bad_clusters(record: &Record<'_>, attribute: &Attribute<'_>) -> bool {
    record.base == BAD_CLUSTERS && attribute.is(DATA, "$Bad")
}

fn check_run(
    mft: &Mft<'_>,
    map: &MapBuilder,
    attribute: &Attribute<'_>,
    run: Run,
) -> Result<(), Doubt> {
    let Some(start) = run.at else { return Ok(()) };
    let clusters = mft.boot.clusters;
    let end = start.checked_add(run.len).filter(|end| *end <= clusters);
    let end = end.ok_or_else(|| {
        Doubt::new(format!(
            "its attribute {:#x} has {} clusters at {start}, past the end at {clusters}",
            attribute.kind, run.len
        ))
    })?;
    let cluster = mft.boot.cluster;
    ensure(!map.frees(start * cluster..end * cluster), || {
        format!(
            "clusters {start} to {} hold its attribute {:#x} but are marked free; it was mounted \
             or is damaged: unmount it, or run `chkdsk /f` in Windows",
            end - 1,
            attribute.kind
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_a_bitmap_in_pieces_are_its_free_runs() {
        let bits = [0x00, 0xFF, 0b1110_0111, 0x00, 0x00, 0x01, 0xF0];
        for cut in 0..bits.len() {
            let (head, tail) = bits.split_at(cut);
            let (mut free, mut found) = (FreeRuns::default(), Vec::new());
            free.take(0, head, 52, |run| found.push(run));
            free.take(to_u64(cut) * 8, tail, 52, |run| found.push(run));
            assert_eq!(found, [0..8, 19..21, 24..40, 41..52][..3]);
            assert_eq!(free.start, Some(41));
        }
    }
}
