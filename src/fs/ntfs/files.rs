//! Which files hold given bytes: a pass over all records of the MFT, then the records of those that are
//! hit for their names, and where records are lost one over the indexes of all folders.
//!
//! `$DATA` of any name and a folder's index are content; other values in clusters (lists of attributes,
//! access rights, reparse points) are metadata, and the file is told of. Of files with fixed numbers all
//! is metadata but the root folder. Files below `$Extend` are told of as files.

use super::super::doubt::Doubt;
use super::super::files::{Climber, Found, Hits, Search, shown_utf16};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::boot::Boot;
use super::disk::{
    Attribute, BITMAP, DATA, FILE_NAME, INDEX, INDEX_ROOT, Record, State, Value, file_name, fix_up,
    in_record, is_short_name, state,
};
use super::index;
use super::log::ensure_clean;
use super::stream::{Content, Mft, Stream, boot_sector};
use super::walk::{self, ALLOCATION, FreeRuns, LOG, ROOT};
use crate::base::to_usize;
use std::ops::Range;

/// Files below this number are the file system's own.
const FIRST_FILE: u64 = 24;
/// How much of the MFT is in memory at once.
const PIECE: u64 = 1 << 20;

/// Tells `search` who holds what in `volume`.
pub(super) fn files(volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
    let sector = boot_sector(volume)?.ok_or_else(|| Doubt::new("it is no NTFS"))?;
    let boot = Boot::decode(&Raw::new(&sector, "boot sector"), volume.len())?;
    search.metadata(0..boot.cluster);
    // The backup of the boot sector lies behind the last cluster.
    search.metadata(boot.clusters * boot.cluster..volume.len());
    let mft = match Mft::open(volume, boot) {
        Err(Doubt::Unsure(why)) => {
            search.lacks(why);
            Mft::open_by_mirror(volume, boot)?
        }
        other => other?,
    };
    let clean = walk::check_flags(&mft).and_then(|()| {
        let log = mft.plain(LOG, DATA, "journal")?;
        ensure_clean(volume, &log)
    });
    let is_clean = search.tolerate(clean)?.is_some();
    let mut pass = Pass {
        mft: &mft,
        hits: Hits::default(),
        lost: false,
    };
    let done = pass.records(search);
    search.tolerate(done)?;
    let Pass { mut hits, lost, .. } = pass;
    if is_clean && search.is_unsure() {
        let free = free(&mft, search);
        search.tolerate(free)?;
    }
    if hits.is_empty() {
        return Ok(());
    }
    for number in hits.numbers() {
        for (parent, name) in names(&mft, number)? {
            hits.name(number, parent, name);
        }
    }
    if lost {
        let found = by_index(&mft, search, &mut hits);
        search.tolerate(found)?;
    }
    let mut climber = Climber::new(ROOT, "record");
    hits.list(search, &mut climber, ROOT, &mut |folder| {
        Ok(names(&mft, folder)?.into_iter().next())
    })
}

/// The pass over all records.
struct Pass<'a, 'v> {
    mft: &'a Mft<'v>,
    hits: Hits,
    /// Whether records are lost that are in use for all that is known.
    lost: bool,
}

impl Pass<'_, '_> {
    fn records(&mut self, search: &mut Search) -> Result<(), Doubt> {
        let mft = self.mft;
        let in_use = match mft.plain(0, BITMAP, "bitmap of MFT records") {
            Ok(bitmap) => Some(bitmap),
            Err(Doubt::Unsure(_)) => None,
            Err(stopped) => return Err(stopped),
        };
        let table_is_hit = mft.stream.places().any(|place| search.touches(&place));
        let (size, records) = (mft.boot.record, mft.records());
        let at_once = (PIECE / size).max(1);
        for first in (0..records).step_by(to_usize(at_once)) {
            let read = |n: u64, count: u64| {
                let mut bytes = vec![0; to_usize(count * size)];
                let at = (first + n) * size;
                mft.stream.read_into(mft.volume, at, &mut bytes)?;
                Ok(bytes)
            };
            let count = at_once.min(records - first);
            mft.volume
                .read_around(size, count, &read, &mut |n, bytes| {
                    let number = first + n;
                    let hit = table_is_hit && self.is_hit(search, number);
                    let record = bytes.map(|bytes| self.record(search, number, bytes, hit));
                    match record {
                        Some(Ok(true)) => Ok(()),
                        Some(Err(stopped @ Doubt::Stopped(_))) => Err(stopped),
                        Some(Ok(false)) if !taken(mft, in_use.as_ref(), number)? => Ok(()),
                        Some(Err(Doubt::Unsure(why))) => {
                            search.lacks(why);
                            self.lost(search, number, hit);
                            Ok(())
                        }
                        None if !taken(mft, in_use.as_ref(), number)? => Ok(()),
                        Some(Ok(false)) | None => {
                            self.lost(search, number, hit);
                            Ok(())
                        }
                    }
                })?;
        }
        Ok(())
    }

    /// Whether any of the bytes of record `number` is looked for.
    fn is_hit(&self, search: &Search, number: u64) -> bool {
        let size = self.mft.boot.record;
        let mut places = self.mft.stream.places_of(number * size, size);
        places.any(|place| search.touches(&place))
    }

    /// Record `number` cannot be read, or is none although it is in use.
    fn lost(&mut self, search: &mut Search, number: u64, hit: bool) {
        search.lacks("records of its $MFT cannot be read: what else their files hold is not known");
        if number >= FIRST_FILE || number == ROOT {
            self.lost = true;
            let found = Found {
                own_metadata: hit,
                ..Found::default()
            };
            self.hits.add(number, &found);
        }
    }

    /// What record `number` holds; `false` when it is no record.
    fn record(
        &mut self,
        search: &mut Search,
        number: u64,
        bytes: &[u8],
        hit: bool,
    ) -> Result<bool, Doubt> {
        match state(bytes)? {
            State::InUse => {}
            State::Unused => return Ok(true),
            State::Bad | State::Nothing => return Ok(false),
        }
        let mut bytes = bytes.to_vec();
        let tell = |doubt| in_record(number, doubt);
        fix_up(&mut bytes).map_err(tell)?;
        let record = Record::decode(&bytes, number).map_err(tell)?;
        let mut found = Found {
            bytes: 0,
            own_metadata: hit,
            directory: record.folder,
            certain: true,
        };
        let own = record.base < FIRST_FILE && record.base != ROOT;
        for attribute in record.attributes()? {
            let read = attribute.and_then(|a| self.attribute(search, &a, own, &mut found));
            search.tolerate(read.map_err(tell))?;
        }
        if !own {
            self.hits.add(record.base, &found);
        }
        Ok(true)
    }

    fn attribute(
        &self,
        search: &mut Search,
        attribute: &Attribute<'_>,
        own: bool,
        found: &mut Found,
    ) -> Result<(), Doubt> {
        let Value::Clusters(clusters) = attribute.value else {
            return Ok(());
        };
        let Boot {
            cluster,
            clusters: all,
            ..
        } = self.mft.boot;
        for run in clusters.runs() {
            let run = run?;
            let Some(start) = run.at else { continue };
            let end = start.checked_add(run.len).filter(|end| *end <= all);
            let end = end.ok_or_else(|| {
                let kind = attribute.kind;
                Doubt::new(format!(
                    "its attribute {kind:#x} passes the end of the volume"
                ))
            })?;
            let bytes = start * cluster..end * cluster;
            if own {
                search.metadata(bytes);
            } else if matches!(attribute.kind, DATA | INDEX) {
                found.bytes = found.bytes.saturating_add(search.content(bytes));
            } else {
                found.own_metadata |= search.metadata(bytes);
            }
        }
        Ok(())
    }
}

/// Tells what `$Bitmap` calls free: a file that was not found may have the rest.
fn free(mft: &Mft<'_>, search: &mut Search) -> Result<(), Doubt> {
    const UNIT: u64 = 512;
    let bitmap = mft.plain(ALLOCATION, DATA, "$Bitmap")?;
    let cluster = mft.boot.cluster;
    let end = mft.boot.clusters.min(bitmap.initialised.saturating_mul(8));
    let units = end.div_ceil(8 * UNIT);
    let mut runs = FreeRuns::default();
    let mut take = |run: Range<u64>| search.free(run.start * cluster..run.end * cluster);
    for first in (0..units).step_by(to_usize(PIECE / UNIT)) {
        let read = |n: u64, count: u64| {
            let mut bytes = vec![0; to_usize(count * UNIT)];
            bitmap.read_into(mft.volume, (first + n) * UNIT, &mut bytes)?;
            Ok(bytes)
        };
        let count = (PIECE / UNIT).min(units - first);
        mft.volume
            .read_around(UNIT, count, &read, &mut |n, bytes| {
                // What cannot be read counts as in use.
                let bytes = bytes.unwrap_or(&[0xFF; 512]);
                runs.take((first + n) * UNIT * 8, bytes, end, &mut take);
                Ok(())
            })?;
    }
    if let Some(start) = runs.start {
        take(start..end);
    }
    Ok(())
}

/// Whether record `number` is in use for the bitmap of records; for all that is known it is, where that
/// cannot be read.
fn taken(mft: &Mft<'_>, in_use: Option<&Stream>, number: u64) -> Result<bool, Doubt> {
    let Some(bitmap) = in_use else {
        return Ok(true);
    };
    let mut byte = [0];
    match bitmap.read_into(mft.volume, number / 8, &mut byte) {
        Ok(()) => Ok(byte[0] >> (number % 8) & 1 != 0),
        Err(Doubt::Unsure(_)) => Ok(true),
        Err(stopped) => Err(stopped),
    }
}

/// The names of file `number` with their folders, as far as its records can be read; short names of DOS
/// only where there are no others.
fn names(mft: &Mft<'_>, number: u64) -> Result<Vec<(u64, String)>, Doubt> {
    let values = match mft.resident(number, FILE_NAME) {
        Ok(values) => values,
        Err(Doubt::Unsure(_)) => return Ok(Vec::new()),
        Err(stopped) => return Err(stopped),
    };
    let (mut long, mut short) = (Vec::new(), Vec::new());
    for value in &values {
        if let Ok((folder, name)) = file_name(value) {
            let list = if is_short_name(value) {
                &mut short
            } else {
                &mut long
            };
            list.push((folder, shown_utf16(name)));
        }
    }
    Ok(if long.is_empty() { short } else { long })
}

/// Looks through the indexes of all folders for names of files whose records are lost.
fn by_index(mft: &Mft<'_>, search: &mut Search, hits: &mut Hits) -> Result<(), Doubt> {
    let (size, records) = (mft.boot.record, mft.records());
    for number in 0..records {
        let mut bytes = vec![0; to_usize(size)];
        let read = mft.stream.read_into(mft.volume, number * size, &mut bytes);
        let folder = read.and_then(|()| folder(&mut bytes, number));
        let Ok(true) = folder else {
            if let Err(stopped @ Doubt::Stopped(_)) = folder {
                return Err(stopped);
            }
            mft.volume.must_go_on()?;
            continue;
        };
        let entries = entries_of(mft, number, &mut |file, value| {
            if !is_short_name(value)
                && hits.wants(file)
                && let Ok((_, name)) = file_name(value)
            {
                hits.name(file, number, shown_utf16(name));
            }
        });
        search.tolerate(entries.map_err(|doubt| in_record(number, doubt)))?;
    }
    Ok(())
}

/// Whether record `number` in `bytes` is the first of a folder in use.
fn folder(bytes: &mut [u8], number: u64) -> Result<bool, Doubt> {
    if state(bytes)? != State::InUse {
        return Ok(false);
    }
    fix_up(bytes)?;
    let record = Record::decode(bytes, number)?;
    Ok(record.folder && record.base == number)
}

/// Hands the files in the index of folder `number` and their names to `each`.
fn entries_of(mft: &Mft<'_>, number: u64, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), Doubt> {
    let Some(Content::Resident(root)) = mft.content(number, INDEX_ROOT, index::NAMES)? else {
        return Ok(());
    };
    let block = index::root(&root, each)?;
    let Some(Content::Clusters(stream)) = mft.content(number, INDEX, index::NAMES)? else {
        return Ok(());
    };
    for at in (0..stream.initialised).step_by(to_usize(block)) {
        let mut bytes = vec![0; to_usize(block.min(stream.initialised - at))];
        let read = stream.read_into(mft.volume, at, &mut bytes);
        match read.and_then(|()| index::block(&mut bytes, each)) {
            Err(Doubt::Unsure(_)) => mft.volume.must_go_on()?,
            other => other?,
        }
    }
    Ok(())
}
