//! An image onto a disk.

use super::hits::{Hit, hits_on};
use super::partitions::{layout_of, numbered};
use super::piped::{self, PipeInput, Piped, TablesSource};
pub use super::restore_target::TargetInfo;
use super::restore_target::{Destination, destination, target_info};
use super::{Context, Found, ImageRecord, Library};
use crate::base::{
    BlockIndex, BlockMap, ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Result, normalize,
};
use crate::block::{BlockSource, BlockTarget, SliceTarget};
use crate::chain::{self, ChainView};
use crate::device::{self, Inventory, Resolved, WritePermit, WriteRequest};
use crate::image::{ByteRange, Header, Info};
use crate::layout::Layout;
use crate::pipeline::{self, Depth};
use crate::restore::{
    RestorePlan, Scope, execute, execute_salvaging, execute_stream, plan_disk, plan_partition,
};
use crate::sys;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Of the blocks that a target is said to hold, one in so many is looked at, within these bounds.
const SAMPLE_SHARE: u64 = 64;
const LEAST_SAMPLE: u64 = 256;
const MOST_SAMPLE: u64 = 16_384;

/// Of the memory that is available, one part in so many may hold what was verified until it is written. The rest is
/// for the target.
const MEMORY_SHARE: u64 = 2;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The image.
    pub image: String,
    /// The store's folder.
    pub store: Option<PathBuf>,
    /// The disk, partition or file to write.
    pub target: String,
    /// One partition of the image, and the partition of the target that it goes to.
    pub partition: Option<(u32, Option<u32>)>,
    /// Whether to write only what the target does not hold already.
    pub only_changed: bool,
    /// An image whose disk the target is known to hold: only what differs from that is written.
    pub holds: Option<String>,
    /// Whether to read back what was written.
    pub read_back: bool,
    /// Whether a damaged image is restored as far as it is whole. Everything is written then.
    pub salvage: bool,
}

/// What a restore will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RestorePreview {
    /// The image.
    pub image: ImageRecord,
    /// What will be written.
    pub target: TargetInfo,
    /// The bytes of the imaged disk that are restored.
    pub source: ByteRange,
    /// Where on the target they begin.
    pub target_start: u64,
    /// Ranges erased first and written last.
    pub critical: Vec<ByteRange>,
    /// Partition table bytes that are made to fit the target.
    pub table_patches: Vec<ByteRange>,
    /// The end of the target, which stays as it is.
    pub untouched: ByteRange,
    /// Whether only what differs is written.
    pub only_changed: bool,
    /// The image that the target is said to hold.
    pub holds: Option<ImageRecord>,
    /// Whether what was written will be read back.
    pub read_back: bool,
    /// Whether what the image has lost is left out, instead of nothing being written.
    pub salvage: bool,
    /// Every reason not to write; the restore runs only when there is none.
    pub refusals: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// The target.
    pub target: String,
    /// Bytes written with content.
    pub written_bytes: u64,
    /// Bytes that are zero now.
    pub zeroed_bytes: u64,
    /// Bytes given back to the medium as free.
    pub discarded_bytes: u64,
    /// Bytes with content that the target held already and that were not written.
    pub unchanged_bytes: u64,
    /// Whether everything was read back and was right.
    pub read_back: bool,
    /// What the image does not have.
    pub unreadable: Vec<ByteRange>,
    /// What the image has lost.
    pub lost: Vec<ByteRange>,
    /// What unreadable and lost bytes belong to, on the imaged disk.
    pub hits: Vec<Hit>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Where the image comes from.
enum Origin<'a> {
    Stored {
        found: Box<Found>,
        holds: Option<Box<Found>>,
    },
    Piped(Box<Piped<'a>>),
}

/// What is known of the imaged disk before anything is written.
struct Imaged<'a> {
    record: ImageRecord,
    name: &'a str,
    header: &'a Header,
    info: &'a Info,
    layout: Layout,
    disk: &'a dyn BlockSource,
    /// Files that must not be overwritten.
    files: &'a [PathBuf],
}

/// A restore that is planned and may be run.
pub struct Prepared<'a> {
    origin: Origin<'a>,
    planned: Planned,
    /// What will be done.
    pub preview: RestorePreview,
}

struct Planned {
    inventory: Inventory,
    target: Resolved,
    write: WriteRequest,
    /// The part of the target to write; all of it when absent.
    slice: Option<Extent>,
    plan: RestorePlan,
}

/// Plans a restore. Changes nothing.
///
/// # Errors
/// `NotFound`, `Damaged`, `Refused` when the image does not fit, `Usage`. Reasons not to write to the
/// target are in the preview.
pub fn prepare(context: &Context<'_>, request: &RestoreRequest) -> Result<Prepared<'static>> {
    let mut library = Library::open(context, request.store.as_deref())?;
    if request.salvage {
        library = library.mending();
    }
    prepare_in(context, &library, request)
}

/// [`prepare`] from a library that is open; the folder that `request` names is only kept from being
/// overwritten.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_in(
    context: &Context<'_>,
    library: &Library<'_>,
    request: &RestoreRequest,
) -> Result<Prepared<'static>> {
    let found = library.find(&request.image);
    let found = match request.salvage {
        true => found?,
        false => found.map_err(or_salvage)?,
    };
    if !request.salvage {
        found.check_lineage()?;
    }
    let holds = request.holds.as_deref().map(|wanted| {
        let holds = library.find(wanted)?;
        holds.check_lineage()?;
        Ok(holds)
    });
    let holds = holds.transpose()?;
    let reader = found.view.image();
    let tables = TablesSource::of_image(reader);
    let imaged = Imaged {
        record: ImageRecord::of(&found.image),
        name: reader.name(),
        header: reader.header(),
        info: reader.info(),
        layout: layout_of(&found.view)?,
        disk: if request.salvage {
            &tables
        } else {
            &found.view
        },
        files: &found.paths,
    };
    let (planned, mut preview) = plan(context, request, imaged)?;
    preview.holds = holds.as_ref().map(|h| ImageRecord::of(&h.image));
    preview.only_changed = request.only_changed || holds.is_some();
    preview.salvage = request.salvage;
    preview.warnings.extend(library.notes());
    Ok(Prepared {
        origin: Origin::Stored {
            found: Box::new(found),
            holds: holds.map(Box::new),
        },
        planned,
        preview,
    })
}

/// Plans a restore of the image that comes out of `input`; the image that `request` names is not looked
/// at. Reads the beginning of the image and changes nothing.
///
/// # Errors
/// As [`prepare`]; `Usage` for a restore of what differs alone, for which an image must be read twice.
pub fn prepare_piped<'a>(
    context: &Context<'_>,
    request: &RestoreRequest,
    input: PipeInput<'a>,
) -> Result<Prepared<'a>> {
    if request.salvage {
        return Err(
            Error::new(ErrorKind::Usage, "salvage", "an image in a pipe")
                .because("what is lost must be known before the first byte is written")
                .hint("store the image in a folder first"),
        );
    }
    if request.only_changed || request.holds.is_some() {
        return Err(
            Error::new(ErrorKind::Usage, "write only what differs", "from a pipe")
                .because("the image would have to be read twice")
                .hint("store the image in a folder first, or restore all of it"),
        );
    }
    let stream = piped::open(context, input)?;
    let beginning = stream.beginning();
    let tables = TablesSource::of(beginning);
    let imaged = Imaged {
        record: ImageRecord {
            key_set: stream.input().key_set().map(|id| id.to_string()),
            ..ImageRecord::begun(&beginning.header, &beginning.info)
        },
        name: stream.name(),
        header: &beginning.header,
        info: &beginning.info,
        layout: piped::layout_of(beginning, &tables)?,
        disk: &tables,
        files: &[],
    };
    let (planned, mut preview) = plan(context, request, imaged)?;
    preview.warnings.push(
        "the image comes out of a pipe and is checked while it is written; the target holds no valid \
         table until all of it was right"
            .to_owned(),
    );
    Ok(Prepared {
        origin: Origin::Piped(Box::new(stream)),
        planned,
        preview,
    })
}

fn plan(
    context: &Context<'_>,
    request: &RestoreRequest,
    imaged: Imaged<'_>,
) -> Result<(Planned, RestorePreview)> {
    let inventory = Inventory::read(&context.root)?;
    let layout = &imaged.layout;
    let source = match request.partition {
        None => Extent::whole(imaged.header.disk_len),
        Some((number, _)) => numbered(layout, number, imaged.name)?.extent(),
    };
    let destination = destination(&inventory, request, source.len)?;
    let block_size = imaged.header.block_size;
    let plan = match request.partition {
        None => plan_disk(layout, imaged.disk, block_size, destination.geometry)?,
        Some(_) => {
            let room = Extent {
                start: ByteOffset(0),
                len: destination.geometry.len,
            };
            plan_partition(source, block_size, room)?
        }
    };
    let mut keep_away: Vec<PathBuf> = request.store.iter().cloned().collect();
    keep_away.extend(imaged.files.iter().cloned());
    let needed = destination
        .slice
        .map_or(plan.source.len, |slice| ByteLen(slice.end().0));
    let write = WriteRequest {
        needed_len: needed,
        expected: None,
        keep_away,
        source: None,
    };
    let refusals = device::write_refusals(&inventory, &destination.resolved, &write)?;
    let left_out = not_in_image(
        imaged.info,
        imaged.name,
        request.partition.map(|(number, _)| number),
    )?;
    let preview = RestorePreview {
        image: imaged.record,
        target: target_info(&inventory, &destination),
        source: plan.source.into(),
        target_start: destination.slice.map_or(0, |s| s.start.0),
        critical: plan.critical.iter().map(|e| (*e).into()).collect(),
        table_patches: plan
            .patches
            .iter()
            .map(|p| ByteRange {
                start: p.offset.0,
                length: crate::base::to_u64(p.bytes.len()),
            })
            .collect(),
        untouched: plan.untouched.into(),
        only_changed: false,
        salvage: false,
        holds: None,
        read_back: request.read_back,
        refusals: refusals.iter().map(ToString::to_string).collect(),
        warnings: plan.findings.iter().cloned().chain(left_out).collect(),
    };
    let Destination {
        resolved: target,
        slice,
        ..
    } = destination;
    let planned = Planned {
        inventory,
        target,
        write,
        slice,
        plan,
    };
    Ok((planned, preview))
}

/// Partitions that were not asked for when the image was made: there is nothing to restore.
///
/// # Errors
/// `NotFound` when just that one is `wanted`.
fn not_in_image(info: &Info, name: &str, wanted: Option<u32>) -> Result<Vec<String>> {
    let left_out = info.partitions.iter().filter(|p| p.left_out);
    let mut warnings = Vec::new();
    for part in left_out {
        match wanted {
            None => warnings.push(format!(
                "partition {} was left out when the image was made; its place is empty afterwards",
                part.number
            )),
            Some(number) if number == part.number => {
                let what = format!("partition {number} of {name}");
                return Err(Error::new(ErrorKind::NotFound, "restore", what)
                    .because("it was left out when the image was made")
                    .hint("`strata show` tells what an image holds; restore from another one"));
            }
            Some(_) => {}
        }
    }
    Ok(warnings)
}

impl Prepared<'_> {
    /// Writes. The image's structure and checksums are verified before the first byte of the target
    /// is touched; those of an image in a pipe, while it is written.
    ///
    /// # Errors
    /// `Refused` with every reason, `Damaged`, `Destination`, `Locked`, `Interrupted`, `Terminated`. A
    /// file made for this restore is removed again; a disk is left without a valid table.
    pub fn run(self, context: &Context<'_>) -> Result<RestoreReport> {
        let Prepared {
            origin,
            planned,
            preview,
        } = self;
        let Planned { slice, plan, .. } = &planned;
        let mut permit = device::permit_write(&planned.inventory, &planned.target, &planned.write)?;
        let mut lost = Vec::new();
        if let Origin::Stored { found, .. } = &origin {
            // A stick or a share need not bring twice what fits into memory.
            let memory = sys::available_memory().unwrap_or(0);
            found.store.will_reread(memory / MEMORY_SHARE);
            if preview.salvage {
                lost = lost_of(context, &found.view, plan)?;
            } else {
                check_image(context, &found.view, plan)?;
            }
            found.store.will_reread(0);
            // Parts may have turned up where nobody knew of when it was planned.
            permit = planned.permit_beside(found.paths_now())?;
        }
        let created = permit.created().then(|| permit.path().to_owned());
        let target = Arc::new(permit.into_target()?);
        let paced = context.paced_target(Arc::clone(&target) as _);
        let place: Arc<dyn BlockTarget> = match *slice {
            None => paced,
            Some(slice) => Arc::new(SliceTarget::new(target.name().to_owned(), paced, slice)?),
        };
        let (read_back, resources) = (preview.read_back, context.resources());
        let mut known = false;
        let mut source = None;
        let result = match origin {
            Origin::Stored { found, .. } if preview.salvage => {
                let found = source.insert(found);
                let (view, place) = (&found.view, place.as_ref());
                execute_salvaging(view, plan, place, &lost, read_back, resources)
            }
            Origin::Stored { found, holds } => {
                let found = source.insert(found);
                let view = &found.view;
                let everything = target.starts_zeroed() || !preview.only_changed;
                let scope = match holds {
                    _ if everything => Scope::All,
                    None => Scope::Differing,
                    Some(holds) => known_scope(&holds.view, view)?,
                };
                known = matches!(scope, Scope::Known { .. });
                execute(view, plan, place.as_ref(), scope, read_back, resources)
            }
            Origin::Piped(mut stream) => {
                execute_stream(&mut stream, plan, place.as_ref(), read_back, resources)
                    .map(|(done, _)| done)
            }
        };
        if let (Err(_), Some(path)) = (&result, created) {
            // Made by this run and of no use half-written.
            let _ = std::fs::remove_file(path);
        }
        let done = result?;
        target.reread_partitions();
        let mut warnings = preview.warnings;
        if known && done.compared {
            warnings.push(
                "the target does not hold the image that it was said to hold: all of it was compared"
                    .to_owned(),
            );
        }
        if !done.unreadable.is_empty() {
            warnings.push(format!(
                "{} places could not be read when the image was made; a pattern stands there",
                done.unreadable.len()
            ));
        }
        let lost: Vec<ByteRange> = done.lost.iter().map(|e| (*e).into()).collect();
        if !lost.is_empty() {
            let bytes: u64 = lost.iter().map(|r| r.length).fold(0, u64::saturating_add);
            warnings.push(format!(
                "the image is damaged: {bytes} bytes in {} places are lost; a pattern stands there",
                lost.len()
            ));
        }
        let missing = normalize([done.unreadable.as_slice(), &done.lost].concat());
        let missing: Vec<ByteRange> = missing.into_iter().map(Into::into).collect();
        // The target is written: whoever stops now misses names, and nothing else.
        let hits = source.and_then(|s| hits_on(&s.view, context.cancel, &missing).ok());
        Ok(RestoreReport {
            lost,
            hits: hits.unwrap_or_default(),
            target: target.name().to_owned(),
            written_bytes: done.written,
            zeroed_bytes: done.zeroed,
            discarded_bytes: done.discarded,
            unchanged_bytes: done.unchanged,
            read_back: done.read_back,
            unreadable: done.unreadable.iter().map(|e| (*e).into()).collect(),
            warnings,
        })
    }
}

impl Planned {
    /// The leave to write, for a target that is none of `files` either.
    fn permit_beside(&self, files: Vec<PathBuf>) -> Result<WritePermit> {
        let mut write = self.write.clone();
        write.keep_away.extend(files);
        device::permit_write(&self.inventory, &self.target, &write)
    }
}

/// What has to be written of `wanted` to a target that is said to hold `holds`.
fn known_scope(holds: &ChainView, wanted: &ChainView) -> Result<Scope> {
    let blocks = wanted.image().header().blocks();
    let mut differing = BlockMap::empty(blocks);
    chain::diff(holds, wanted, &mut |found| {
        differing.insert_range(found.blocks);
        Ok(())
    })?;
    let mut sample = BlockMap::empty(blocks);
    let count = (blocks / SAMPLE_SHARE).clamp(LEAST_SAMPLE, MOST_SAMPLE);
    for block in super::chance(count, blocks) {
        sample.insert(BlockIndex(block));
    }
    sample.subtract(&differing);
    Ok(Scope::Known { differing, sample })
}

/// What the files of `view` have lost of what `plan` restores: every block of it is compared with its digest.
fn lost_of(context: &Context<'_>, view: &ChainView, plan: &RestorePlan) -> Result<Vec<Extent>> {
    let size = view.image().header().block_size.bytes();
    let blocks = plan.source.start.0 / size..plan.source.end().0.div_ceil(size);
    let damage = pipeline::verify_disk(view, blocks, Depth::Deep, context.resources())?;
    Ok(normalize(damage.into_iter().map(|d| d.extent).collect()))
}

fn check_image(context: &Context<'_>, view: &ChainView, plan: &RestorePlan) -> Result<()> {
    let header = view.image().header();
    view.image()
        .findings()
        .iter()
        .for_each(|f| context.observer.event(Event::Warning(f.clone())));
    let size = header.block_size.bytes();
    let blocks = plan.source.start.0 / size..plan.source.end().0.div_ceil(size);
    let damage = pipeline::verify_disk(view, blocks, Depth::Quick, context.resources())?;
    let Some(first) = damage.first() else {
        return Ok(());
    };
    Err(
        Error::new(ErrorKind::Damaged, "restore", view.image().name())
            .because(format!(
                "the image is damaged: {} of the disk are lost ({}); nothing was written",
                first.extent, first.what
            ))
            .hint(
                "`strata verify --deep` lists all of the damage; restore another image, or what is left of this \
                 one with --salvage",
            ),
    )
}

/// `e`, and what can still be done where it says that the image is damaged.
fn or_salvage(e: Error) -> Error {
    if e.kind() != ErrorKind::Damaged {
        return e;
    }
    let first = e.next_step().unwrap_or("restore another image").to_owned();
    e.hint(format!(
        "{first}; --salvage restores what is left of this one"
    ))
}

/// Parses `N` or `N:M`.
///
/// # Errors
/// `Usage` when it is neither.
pub fn parse_partition(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |t: &str| t.parse::<u32>().ok().filter(|n| *n > 0);
    let parsed = match text.split_once(':') {
        None => number(text).map(|n| (n, None)),
        Some((n, m)) => number(n).zip(number(m)).map(|(n, m)| (n, Some(m))),
    };
    parsed.ok_or_else(|| {
        Error::new(
            ErrorKind::Usage,
            "understand the partition",
            format!("{text:?}"),
        )
        .because("it is a number, or two with a colon: 3 or 3:1")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_numbers() {
        assert_eq!(parse_partition("3").unwrap(), (3, None));
        assert_eq!(parse_partition("3:11").unwrap(), (3, Some(11)));
        for bad in ["", "0", "a", "1:", ":1", "1:0", "1:2:3", "-1", "4294967296"] {
            assert_eq!(
                parse_partition(bad).unwrap_err().kind(),
                ErrorKind::Usage,
                "{bad}"
            );
        }
    }
}
