//! What is taken of a disk: of which partition how much, and why.

use crate::base::{BlockSize, ByteLen, ByteOffset, Cancel, Error, ErrorKind, Extent, Result};
use crate::block::{BlockSource, SliceSource};
use crate::fs::{self, Certainty, ContentKind, UsedReport};
use crate::image::{InsideInfo, PartitionInfo, TakeInfo};
use crate::layout::Layout;
use crate::pipeline::{Selection, Used, select};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a person asked to be taken and left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakeOptions {
    /// Free space too.
    pub all_blocks: bool,
    /// Only these partitions; empty means all.
    pub partitions: Vec<u32>,
    /// Content to leave out.
    pub exclude: Vec<ContentKind>,
}

impl TakeOptions {
    /// What stands in an image.
    pub(super) fn info(&self) -> TakeInfo {
        TakeInfo {
            all_blocks: self.all_blocks,
            partitions: self.partitions.clone(),
            exclude: self.exclude.iter().map(|k| k.name().to_owned()).collect(),
        }
    }

    /// What an image was made with. Words that this version does not know are passed over: comparing
    /// then finds differences, never too few.
    pub(super) fn of_image(info: &TakeInfo) -> TakeOptions {
        let known = |kind: &ContentKind| info.exclude.iter().any(|word| word == kind.name());
        TakeOptions {
            all_blocks: info.all_blocks,
            partitions: info.partitions.clone(),
            exclude: ContentKind::ALL.into_iter().filter(known).collect(),
        }
    }
}

/// A part of a disk that is taken whole because its used map is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fallback {
    /// Number of the partition; 0 is a disk without any.
    pub partition: u32,
    /// The volume inside it, when it is only that.
    pub volume: Option<String>,
    /// What is in it.
    pub filesystem: String,
    /// Bytes that are taken whole.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

impl Fallback {
    /// As a warning.
    pub fn text(&self) -> String {
        let volume = self.volume.as_ref().map(|v| format!(", volume {v}"));
        format!(
            "{}{} ({}) is taken whole, all {}: {}",
            part_name(self.partition),
            volume.unwrap_or_default(),
            self.filesystem,
            ByteLen(self.bytes),
            self.reason
        )
    }
}

/// What is taken of a disk.
#[derive(Debug)]
pub(super) struct Taken {
    /// Block by block.
    pub(super) selection: Selection,
    /// Partition by partition.
    pub(super) partitions: Vec<PartitionInfo>,
    /// What is taken whole because nothing is known of it.
    pub(super) fallbacks: Vec<Fallback>,
    /// What a person should know besides.
    pub(super) notes: Vec<String>,
}

/// Says of a partition why its used map would be out of date before the disk is read: it is mounted
/// for writing. `None` when it keeps still.
pub(super) type InFlux<'a> = &'a (dyn Fn(Extent) -> Result<Option<String>> + Sync);

/// Partitions that are looked into at once. It is work more than reading; a disk that turns would lose by many.
const AT_ONCE: usize = 2;

/// Looks into every partition of `source`.
///
/// # Errors
/// `NotFound` when a partition that was asked for is not there, `Interrupted` or `Terminated`.
pub(super) fn take(
    source: &Arc<dyn BlockSource>,
    layout: &Layout,
    block_size: BlockSize,
    options: &TakeOptions,
    in_flux: InFlux<'_>,
    cancel: &Cancel,
) -> Result<Taken> {
    for number in &options.partitions {
        super::partitions::numbered(layout, *number, source.name())?;
    }
    let mut parts = look_into(&parts_of(layout, source.len()), &|part| {
        look_at(source, part, options, in_flux, cancel)
    })?;
    let used = parts.iter_mut().filter_map(|p| p.used.take()).collect();
    let left_out = parts.iter().flat_map(|p| p.excluded.clone()).collect();
    let selection = select(source.len(), block_size, used, left_out);
    for part in &mut parts {
        let extent = part.extent;
        part.info.taken = selection.taken_in(extent, block_size);
    }
    Ok(Taken {
        selection,
        fallbacks: parts
            .iter_mut()
            .flat_map(|p| p.fallbacks.drain(..))
            .collect(),
        notes: parts.iter_mut().flat_map(|p| p.notes.drain(..)).collect(),
        partitions: parts.into_iter().map(|p| p.info).collect(),
    })
}

/// One place where a file system may be.
#[derive(Debug, Clone, Copy)]
struct Part {
    number: u32,
    extent: Extent,
    /// What its type says it is, when that is something without a file system.
    bare: Option<&'static str>,
}

/// The partitions, or the whole disk as number 0 when it has none.
fn parts_of(layout: &Layout, disk_len: ByteLen) -> Vec<Part> {
    if layout.partitions.is_empty() {
        return vec![Part {
            number: 0,
            extent: Extent {
                start: ByteOffset(0),
                len: disk_len,
            },
            bare: None,
        }];
    }
    let parts = layout.partitions.iter().map(|p| Part {
        number: p.number,
        extent: p.extent(),
        bare: p.bare_type(),
    });
    parts.collect()
}

/// What was found in one partition.
struct Looked {
    extent: Extent,
    info: PartitionInfo,
    used: Option<Used>,
    excluded: Vec<Extent>,
    fallbacks: Vec<Fallback>,
    notes: Vec<String>,
}

/// Looks into `parts`, some of them at once. What was found, in their order.
///
/// # Errors
/// What `look` says of the first that it fails for.
fn look_into(
    parts: &[Part],
    look: &(dyn Fn(Part) -> Result<Looked> + Sync),
) -> Result<Vec<Looked>> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut found = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(n) else {
                return found;
            };
            let looked = look(*part);
            if looked.is_err() {
                next.store(parts.len(), Ordering::Relaxed);
            }
            found.push((n, looked));
        }
    };
    let mut found = std::thread::scope(|scope| {
        let others: Vec<_> = (1..AT_ONCE.min(parts.len()))
            .map(|_| scope.spawn(some))
            .collect();
        let mut found = some();
        for other in others {
            match other.join() {
                Ok(more) => found.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    found.sort_by_key(|(n, _)| *n);
    found.into_iter().map(|(_, looked)| looked).collect()
}

fn look_at(
    source: &Arc<dyn BlockSource>,
    part: Part,
    options: &TakeOptions,
    in_flux: InFlux<'_>,
    cancel: &Cancel,
) -> Result<Looked> {
    let (number, extent) = (part.number, part.extent);
    if !options.partitions.is_empty() && !options.partitions.contains(&number) {
        return Ok(not_asked_for(number, extent));
    }
    let name = format!("{} partition {number}", source.name());
    let slice = SliceSource::new(name, Arc::clone(source), extent)?;
    let mut report = if options.all_blocks {
        whole_on_request(fs::recognise(&slice, cancel)?, extent.len)
    } else {
        fs::used(&slice, cancel)?
    };
    if let (Some(what), "unknown") = (part.bare, report.kind.as_str()) {
        report = without_file_system(what, extent.len);
    }
    if let Some(why) = in_flux(extent)?.filter(|_| has_map(&report)) {
        report = UsedReport {
            label: report.label,
            ..UsedReport::unknown(report.kind, extent.len, why)
        };
    }
    Ok(looked(number, extent, report, options))
}

/// Whether something of the partition would be left out. A swap area's pages are nobody's, however
/// much they change.
fn has_map(report: &UsedReport) -> bool {
    report.certainty == Certainty::Certain
        && report.used.count() < report.used.blocks()
        && !report.kind.starts_with("swap")
}

fn whole_on_request(found: UsedReport, len: ByteLen) -> UsedReport {
    UsedReport {
        label: found.label,
        certainty: Certainty::Certain,
        basis: "all blocks, as asked for".to_owned(),
        ..UsedReport::unknown(found.kind, len, "")
    }
}

fn without_file_system(what: &str, len: ByteLen) -> UsedReport {
    UsedReport {
        certainty: Certainty::Certain,
        basis: "it has no file system: all of it is in use".to_owned(),
        ..UsedReport::unknown(what, len, "")
    }
}

fn looked(number: u32, extent: Extent, report: UsedReport, options: &TakeOptions) -> Looked {
    let named = |note: &String| format!("{} ({}): {note}", part_name(number), report.kind);
    let notes = report.notes.iter().map(named).collect();
    let fallbacks = report.fallbacks().map(|(inside, why)| Fallback {
        partition: number,
        volume: inside.map(|i| i.name.clone()),
        filesystem: inside.map_or(&report.kind, |i| &i.kind).clone(),
        bytes: inside.map_or(extent.len, |i| i.bytes).0,
        reason: why.to_owned(),
    });
    let fallbacks = fallbacks.collect();
    let contents = report.contents.iter();
    let wanted = contents.filter(|c| options.exclude.contains(&c.kind));
    let excluded: Vec<Extent> = wanted
        .flat_map(|c| c.extents.iter())
        .filter_map(|e| Extent::new(ByteOffset(extent.start.0.checked_add(e.start.0)?), e.len))
        .filter_map(|e| e.intersect(extent))
        .collect();
    let excluded = crate::base::normalize(excluded);
    let info = PartitionInfo {
        number,
        start: extent.start.0,
        length: extent.len.0,
        filesystem: report.kind.clone(),
        label: report.label.clone(),
        used: report.used_bytes(extent.len).0,
        taken: 0,
        excluded: excluded.iter().map(|e| e.len.0).sum(),
        left_out: false,
        reason: reason(&report.certainty, &report.basis),
        inside: report.inside.iter().map(inside_info).collect(),
    };
    Looked {
        extent,
        info,
        used: Some(Used {
            extent,
            unit: report.unit,
            map: report.used,
        }),
        excluded,
        fallbacks,
        notes,
    }
}

fn inside_info(inside: &fs::Inside) -> InsideInfo {
    InsideInfo {
        name: inside.name.clone(),
        filesystem: inside.kind.clone(),
        length: inside.bytes.0,
        used: inside.used.0,
        reason: reason(&inside.certainty, "in use"),
    }
}

fn reason(certainty: &Certainty, basis: &str) -> String {
    match certainty {
        Certainty::Certain => basis.to_owned(),
        Certainty::Unknown(why) => format!("all of it: {why}"),
    }
}

fn not_asked_for(number: u32, extent: Extent) -> Looked {
    Looked {
        extent,
        info: PartitionInfo {
            number,
            start: extent.start.0,
            length: extent.len.0,
            left_out: true,
            reason: "not asked for".to_owned(),
            ..PartitionInfo::default()
        },
        used: Some(Used {
            extent,
            unit: extent.len.max(ByteLen(1)),
            map: crate::base::BlockMap::empty(1),
        }),
        excluded: Vec::new(),
        fallbacks: Vec::new(),
        notes: Vec::new(),
    }
}

fn part_name(number: u32) -> String {
    match number {
        0 => "the disk".to_owned(),
        n => format!("partition {n}"),
    }
}

/// Turns the words of `--exclude` into kinds.
///
/// # Errors
/// `Usage` for a word that is none.
pub fn parse_exclude(words: &[String]) -> Result<Vec<ContentKind>> {
    words
        .iter()
        .map(|word| {
            let kind = ContentKind::ALL.into_iter().find(|k| k.name() == word);
            kind.ok_or_else(|| {
                let names = ContentKind::ALL.map(ContentKind::name).join(", ");
                Error::new(ErrorKind::Usage, "leave out", format!("{word:?}"))
                    .because(format!("what can be left out is {names}"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn parts(count: u32) -> Vec<Part> {
        let extent = Extent {
            start: ByteOffset(0),
            len: ByteLen(4096),
        };
        let part = |number| Part {
            number,
            extent,
            bare: None,
        };
        (1..=count).map(part).collect()
    }

    #[test]
    fn two_are_looked_into_at_once_and_keep_their_order() {
        let both = Barrier::new(AT_ONCE);
        let found = look_into(&parts(6), &|part| {
            both.wait();
            Ok(not_asked_for(part.number, part.extent))
        });
        let found: Vec<u32> = found.unwrap().iter().map(|l| l.info.number).collect();
        assert_eq!(found, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_first_that_fails_is_told() {
        let both = Barrier::new(AT_ONCE);
        let found = look_into(&parts(6), &|part| {
            both.wait();
            let subject = part.number.to_string();
            Err(Error::new(ErrorKind::Source, "read", subject))
        });
        let told = found.err().unwrap().to_string();
        assert!(told.contains("read 1"), "{told}");
    }
}
