//! The MFT, and the content of its files wherever it lies.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::boot::Boot;
use super::disk::{
    ATTRIBUTE_LIST, Attribute, Clusters, DATA, Record, Run, State, Value, fix_up, in_record,
    list_entries, state,
};
use crate::base::{to_u64, to_usize};

/// The number of `$MFT` itself.
const MFT: u64 = 0;
/// More runs than this are not gathered in memory (3 MiB).
const MAX_RUNS: usize = 1 << 17;
/// NTFS ends an attribute list at 256 KiB.
const MAX_LIST: u64 = 256 << 10;

/// A value that lies in clusters.
#[derive(Debug)]
pub(super) struct Stream {
    cluster: u64,
    /// Gapless from the value's first cluster; each with its first cluster in the value.
    runs: Vec<(u64, Run)>,
    /// One past the last cluster in the value.
    end: u64,
    /// Length in bytes that is valid on the disk.
    pub(super) initialised: u64,
    /// Whether its bytes on the disk are its value.
    pub(super) plain: bool,
}

impl Stream {
    fn new(boot: &Boot, first: &Clusters<'_>) -> Stream {
        Stream {
            cluster: boot.cluster,
            runs: Vec::new(),
            end: 0,
            initialised: first.initialised.min(first.size),
            plain: !first.transformed,
        }
    }

    fn append(&mut self, part: &Clusters<'_>) -> Result<(), Doubt> {
        ensure(part.first == self.end, || {
            format!(
                "a part of a value begins at its cluster {}, the part before it ends at {}",
                part.first, self.end
            )
        })?;
        for run in part.runs() {
            let run = run?;
            ensure(self.runs.len() < MAX_RUNS, || {
                format!("a value lies in more than {MAX_RUNS} fragments")
            })?;
            self.runs.push((self.end, run));
            self.end = self.end.saturating_add(run.len);
        }
        Ok(())
    }

    /// Where it lies in the volume, in bytes, in its own order; holes left out.
    pub(super) fn places(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        self.runs.iter().filter_map(|(_, run)| {
            let start = run.at?.saturating_mul(self.cluster);
            Some(start..start.saturating_add(run.len.saturating_mul(self.cluster)))
        })
    }

    /// Where the `len` bytes from `at` of the value lie in the volume.
    pub(super) fn places_of(
        &self,
        at: u64,
        len: u64,
    ) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        let end = at.saturating_add(len);
        let first = self.runs.partition_point(|(first, run)| {
            first.saturating_add(run.len).saturating_mul(self.cluster) <= at
        });
        let rest = self.runs.iter().skip(first);
        let within = move |first: &u64| first.saturating_mul(self.cluster) < end;
        rest.take_while(move |(first, _)| within(first))
            .filter_map(move |(first, run)| {
                let place = run.at?.saturating_mul(self.cluster);
                let start = first.saturating_mul(self.cluster);
                let from = at.max(start);
                let to = end.min(start.saturating_add(run.len.saturating_mul(self.cluster)));
                Some(place.saturating_add(from - start)..place.saturating_add(to - start))
            })
    }

    /// Fills `buf` from byte `at` of the value.
    ///
    /// # Errors
    /// A doubt when it has a hole there or ends before.
    pub(super) fn read_into(
        &self,
        volume: &Volume<'_>,
        at: u64,
        buf: &mut [u8],
    ) -> Result<(), Doubt> {
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let vcn = at / self.cluster;
            let index = self.runs.partition_point(|(first, _)| *first <= vcn);
            let run = index.checked_sub(1).and_then(|i| self.runs.get(i));
            let run = run.filter(|(first, run)| vcn - first < run.len);
            let (first, run) = run.ok_or_else(|| {
                Doubt::new(format!(
                    "a value ends before its byte {at}, which is needed"
                ))
            })?;
            let lcn = run.at.ok_or_else(|| {
                Doubt::new(format!(
                    "a value has a hole at its byte {at}, which is needed"
                ))
            })?;
            let within = at - first * self.cluster;
            let left = run.len.saturating_mul(self.cluster) - within;
            let count = left.min(to_u64(rest.len()));
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(to_usize(count));
            let place = lcn.saturating_mul(self.cluster).saturating_add(within);
            volume.read_into(place, head)?;
            rest = tail;
            at += count;
        }
        Ok(())
    }
}

/// The value of an attribute.
#[derive(Debug)]
pub(super) enum Content {
    /// In its record.
    Resident(Vec<u8>),
    /// In clusters.
    Clusters(Stream),
}

/// The table of all files.
pub(super) struct Mft<'a> {
    pub(super) volume: &'a Volume<'a>,
    pub(super) boot: Boot,
    /// Its records.
    pub(super) stream: Stream,
}

impl<'a> Mft<'a> {
    /// Finds all of it, beginning with its first record.
    pub(super) fn open(volume: &'a Volume<'a>, boot: Boot) -> Result<Mft<'a>, Doubt> {
        Mft::open_at(volume, boot, boot.mft)
    }

    /// Finds all of it, beginning with the copy of its first record.
    pub(super) fn open_by_mirror(volume: &'a Volume<'a>, boot: Boot) -> Result<Mft<'a>, Doubt> {
        Mft::open_at(volume, boot, boot.mirror)
    }

    fn open_at(volume: &'a Volume<'a>, boot: Boot, at: u64) -> Result<Mft<'a>, Doubt> {
        let mut bytes = volume.read(at, boot.record)?;
        let record = usable(&mut bytes, MFT)?;
        ensure(record.base == MFT, || "its $MFT is a part of another file")?;
        let found = gather(volume, &boot, None, &record, MFT, DATA, "")?;
        let Some(Content::Clusters(stream)) = found else {
            return Err(Doubt::new("its $MFT has no content"));
        };
        let begins = stream.places().next().map(|place| place.start);
        ensure(
            stream.plain && begins == Some(boot.mft),
            || "its $MFT does not begin where the boot sector says",
        )?;
        Ok(Mft {
            volume,
            boot,
            stream,
        })
    }

    /// How many records it has.
    pub(super) fn records(&self) -> u64 {
        self.stream.initialised / self.boot.record
    }

    /// The bytes of record `number`, which must be in use, with its fix-ups done.
    pub(super) fn record(&self, number: u64) -> Result<Vec<u8>, Doubt> {
        record_of(self.volume, &self.boot, &self.stream, number)
    }

    /// The attribute of this type and name of the file whose first record is `number`.
    pub(super) fn content(
        &self,
        number: u64,
        kind: u32,
        name: &str,
    ) -> Result<Option<Content>, Doubt> {
        let bytes = self.record(number)?;
        let record = Record::decode(&bytes, number).map_err(|d| in_record(number, d))?;
        let known = Some(&self.stream);
        gather(self.volume, &self.boot, known, &record, number, kind, name)
    }

    /// All values in records of type `kind` of the file whose first record is `number`; those in its
    /// other records as far as they can be read.
    pub(super) fn resident(&self, number: u64, kind: u32) -> Result<Vec<Vec<u8>>, Doubt> {
        let mut found = Vec::new();
        let bytes = self.record(number)?;
        let base = Record::decode(&bytes, number).map_err(|d| in_record(number, d))?;
        take_resident(&base, kind, &mut found)?;
        let list = base.attributes()?.find_map(|attribute| {
            let attribute = attribute.ok().filter(|a| a.is(ATTRIBUTE_LIST, ""))?;
            Some(list_bytes(self.volume, &self.boot, &attribute))
        });
        let list = list.transpose()?.unwrap_or_default();
        let mut others: Vec<u64> = list_entries(&list)?
            .iter()
            .filter(|entry| entry.kind == kind && entry.record != number)
            .map(|entry| entry.record)
            .collect();
        others.dedup();
        for other in others {
            let part = self.record(other).and_then(|bytes| {
                let record = Record::decode(&bytes, other)?;
                ensure(record.base == number, || "it is a part of another file")?;
                take_resident(&record, kind, &mut found)
            });
            if let Err(stopped @ Doubt::Stopped(_)) = part {
                return Err(stopped);
            }
        }
        Ok(found)
    }

    /// A value that is needed, in clusters and readable as it lies there.
    pub(super) fn plain(&self, number: u64, kind: u32, what: &str) -> Result<Stream, Doubt> {
        match self.content(number, kind, "")? {
            Some(Content::Clusters(stream)) if stream.plain => Ok(stream),
            Some(Content::Clusters(_)) => Err(Doubt::new(format!(
                "its {what} is compressed, encrypted or sparse"
            ))),
            Some(Content::Resident(_)) => {
                Err(Doubt::new(format!("its {what} lies in its MFT record")))
            }
            None => Err(Doubt::new(format!("its {what} is missing"))),
        }
    }
}

/// Record `number` of the MFT that `stream` is, as far as it is known.
fn record_of(
    volume: &Volume<'_>,
    boot: &Boot,
    stream: &Stream,
    number: u64,
) -> Result<Vec<u8>, Doubt> {
    let mut bytes = vec![0; to_usize(boot.record)];
    let at = number.checked_mul(boot.record);
    let at = at.filter(|at| at.saturating_add(boot.record) <= stream.initialised);
    let at = at.ok_or_else(|| Doubt::new(format!("record {number} is not in its $MFT")))?;
    stream.read_into(volume, at, &mut bytes)?;
    usable(&mut bytes, number)?;
    Ok(bytes)
}

/// The bytes of record `number` as a record in use.
fn usable(bytes: &mut [u8], number: u64) -> Result<Record<'_>, Doubt> {
    let in_use = state(bytes).and_then(|s| ensure(s == State::InUse, || "it is not in use"));
    in_use
        .and_then(|()| fix_up(bytes))
        .and_then(|()| Record::decode(bytes, number))
        .map_err(|d| in_record(number, d))
}

/// The attribute of `kind` and `name` of the file whose first record is `base`, through its
/// attribute list if it has one. Other records come from `mft`; without one the content itself is
/// the MFT, whose records are read as far as its parts are known: they list in ascending order.
fn gather(
    volume: &Volume<'_>,
    boot: &Boot,
    mft: Option<&Stream>,
    base: &Record<'_>,
    number: u64,
    kind: u32,
    name: &str,
) -> Result<Option<Content>, Doubt> {
    let mut list = None;
    let mut found: Option<Stream> = None;
    for attribute in base.attributes()? {
        let attribute = attribute.map_err(|d| in_record(number, d))?;
        if attribute.is(ATTRIBUTE_LIST, "") {
            list = Some(list_bytes(volume, boot, &attribute)?);
        } else if attribute.is(kind, name) {
            match attribute.value {
                Value::Resident(value) => return Ok(Some(Content::Resident(value.to_vec()))),
                Value::Clusters(part) => take_part(&mut found, boot, &part)?,
            }
        }
    }
    let list = list.unwrap_or_default();
    for entry in list_entries(&list).map_err(|d| in_record(number, d))? {
        let wanted = entry.kind == kind && text_is(entry.name, name);
        if !wanted || entry.record == number {
            continue;
        }
        let records = mft.or(found.as_ref());
        let records = records.ok_or_else(|| Doubt::new("its $MFT does not hold its own start"))?;
        let bytes = record_of(volume, boot, records, entry.record)?;
        let record = Record::decode(&bytes, entry.record)?;
        ensure(record.base == number, || {
            format!(
                "record {} of its $MFT should be a part of file {number} and is one of {}",
                entry.record, record.base
            )
        })?;
        let mut part = None;
        for attribute in record.attributes()? {
            let attribute = attribute.map_err(|d| in_record(entry.record, d))?;
            match attribute.value {
                _ if !attribute.is(kind, name) => {}
                Value::Resident(value) => return Ok(Some(Content::Resident(value.to_vec()))),
                Value::Clusters(clusters) if clusters.first == entry.first => part = Some(clusters),
                Value::Clusters(_) => {}
            }
        }
        let part = part.ok_or_else(|| {
            Doubt::new(format!(
                "record {} of its $MFT does not hold the part of file {number} that it should",
                entry.record
            ))
        })?;
        take_part(&mut found, boot, &part)?;
    }
    Ok(found.map(Content::Clusters))
}

fn take_part(found: &mut Option<Stream>, boot: &Boot, part: &Clusters<'_>) -> Result<(), Doubt> {
    found
        .get_or_insert_with(|| Stream::new(boot, part))
        .append(part)
}

/// Adds the values of type `kind` that `record` holds itself.
fn take_resident(record: &Record<'_>, kind: u32, found: &mut Vec<Vec<u8>>) -> Result<(), Doubt> {
    for attribute in record.attributes()? {
        let attribute = attribute?;
        if let (true, Value::Resident(value)) = (attribute.kind == kind, attribute.value) {
            found.push(value.to_vec());
        }
    }
    Ok(())
}

fn text_is(utf16: &[u8], ascii: &str) -> bool {
    ascii.bytes().flat_map(|b| [b, 0]).eq(utf16.iter().copied())
}

/// The bytes of an attribute list, which has all its runs in the file's first record.
fn list_bytes(
    volume: &Volume<'_>,
    boot: &Boot,
    attribute: &Attribute<'_>,
) -> Result<Vec<u8>, Doubt> {
    match attribute.value {
        Value::Resident(value) => Ok(value.to_vec()),
        Value::Clusters(clusters) => {
            ensure(clusters.size <= MAX_LIST, || {
                format!(
                    "an attribute list claims to be {} bytes long",
                    clusters.size
                )
            })?;
            let mut stream = Stream::new(boot, &clusters);
            stream.append(&clusters)?;
            let mut bytes = vec![0; to_usize(clusters.size)];
            stream.read_into(volume, 0, &mut bytes)?;
            Ok(bytes)
        }
    }
}

/// The boot sector's bytes.
pub(super) fn boot_sector(volume: &Volume<'_>) -> Result<Option<Vec<u8>>, Doubt> {
    if volume.len() < 512 {
        return Ok(None);
    }
    let bytes = volume.read(0, 512)?;
    let ours = super::boot::is_ntfs(&Raw::new(&bytes, "boot sector"))?;
    Ok(ours.then_some(bytes))
}
