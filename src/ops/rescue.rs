//! What could not be read is tried again once everything else is safe in an image: what that yields makes an
//! image of its own, which builds on it.
//!
//! A disk that is dying gives its good areas first. So the first pass takes a run of bad spots for bad after a
//! few dozen reads and goes on behind it. Then what was passed over is read sector by sector, then the bad
//! sectors as often as was asked. Each of these passes ends after a while with what it has, and the next may
//! take twice as long: whoever pulls the plug loses no more than half of the time.

use super::backup::{BackupReport, BackupRequest, reopened};
use super::place::{Place, differs};
use super::rescue_map::MapFile;
use super::{Context, ImageRecord, describe};
use crate::base::{
    BlockMap, ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Observer, Phase, Result,
    normalize, subtract,
};
use crate::block::{Effort, Missing};
use crate::chain::{Catalog, ChainView, Image};
use crate::device::{self, Consistency, DiskIdentity, Inventory, ReadClaim};
use crate::image::{BlockCounts, Header, ImageReader, ImageWriter, Info, Kind, Parent, Summary};
use crate::layout;
use crate::pipeline::{Input, Selection, write_blocks};
use crate::store::{FileName, Store};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often bad sectors are tried again unless asked otherwise.
pub const DEFAULT_RETRIES: u32 = 1;

/// Failing reads in one run of bad spots after which the first pass goes on behind it: a lone bad sector
/// costs about a dozen.
const FIRST_RUN: u32 = 64;
/// Time that failing reads may take in the first pass: after that, good areas matter more.
const FIRST_LIMIT: Duration = Duration::from_secs(60);
/// The same for the second pass; each further one has twice the time of the one before it.
const SECOND_LIMIT: Duration = Duration::from_secs(600);

/// What is done about bad sectors.
#[derive(Debug, Clone, Default)]
pub struct RescueOptions {
    /// How often they are tried again.
    pub retries: u32,
    /// Where the map of what could not be read is kept.
    pub map: Option<PathBuf>,
}

/// A pass over what could not be read before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RescuePass {
    /// The image with what it read; none when that was nothing.
    pub image: Option<ImageRecord>,
    /// Bytes that it tried to read.
    pub tried_bytes: u64,
    /// Bytes that it read.
    pub recovered_bytes: u64,
}

/// Time since it was made.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn new() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How hard the first pass tries. Where nothing can be tried `later`, it tries as hard as was asked.
pub(super) fn first_effort<'a>(
    options: &RescueOptions,
    later: bool,
    avoid: Vec<Extent>,
    clock: &'a (dyn Fn() -> Duration + Sync),
) -> Effort<'a> {
    if !later {
        return Effort {
            attempts: options.retries.saturating_add(1),
            ..Effort::THOROUGH
        };
    }
    Effort {
        attempts: 1,
        run: Some(FIRST_RUN),
        limit: Some((FIRST_LIMIT, clock)),
        avoid,
    }
}

/// What a person is told of bytes that are missing in an image.
pub(super) fn missing_in_words(missing: &Missing) -> Option<String> {
    let all = missing.all();
    if all.is_empty() {
        return None;
    }
    let untried: u64 = missing.untried.iter().map(|e| e.len.0).sum();
    let and_untried = match untried {
        0 => String::new(),
        some => format!(
            " ({} of them were passed over among bad sectors and not tried one by one)",
            some
        ),
    };
    Some(format!(
        "{} bytes in {} places could not be read{and_untried}; the image lists them",
        missing.bytes(),
        all.len()
    ))
}

/// Says nothing of places that cannot be read: that was said before.
struct KnownBad<'a>(&'a dyn Observer);

impl Observer for KnownBad<'_> {
    fn event(&self, event: Event) {
        if !matches!(event, Event::Unreadable(_)) {
            self.0.event(event);
        }
    }
}

/// The image that a map says to go on from, and what it lacks. `None`: there is no such map, or nothing is
/// missing.
///
/// # Errors
/// `Usage` when the map is of an image that is not the newest of its set, or is no map; `NotFound` when the
/// image is not in the store.
pub(super) fn goes_on_from(
    store: &dyn Store,
    map: Option<&MapFile>,
) -> Result<Option<(Image, Missing)>> {
    let Some((map, id)) = map.and_then(|m| Some((m, m.image()?))) else {
        return Ok(None);
    };
    let catalog = Catalog::load(store)?;
    let image = catalog.by_id(id).ok_or_else(|| {
        let subject = format!("image {id}, of which the rescue map is");
        Error::new(ErrorKind::NotFound, "find", subject)
            .because(format!("it is not in {}", store.name()))
            .hint("name the store that has it, or another file for the map")
    })?;
    let Some(found) = map.decode(image.header.disk_len)? else {
        return Ok(None);
    };
    // The image knows what it lacks; a map, which anybody may have edited, says only how hard that was tried.
    let reader = ImageReader::open(store.open(&image.file)?)?;
    let disk = Extent::whole(image.header.disk_len);
    let listed = reader.summary().unreadable.iter();
    let lacks = listed.filter_map(|r| Extent::new(ByteOffset(r.start), ByteLen(r.length)));
    let lacks = normalize(lacks.filter_map(|e| e.intersect(disk)).collect());
    let untried = subtract(&lacks, &found.missing.bad);
    let missing = Missing {
        bad: subtract(&lacks, &untried),
        untried,
    };
    if missing.is_empty() {
        return Ok(None);
    }
    let newest = catalog.set(&image.info.set).last();
    if let Some(newest) = newest.filter(|newest| newest.header.id != id) {
        return Err(Error::new(
            ErrorKind::Usage,
            "go on from the rescue map of",
            image.file.as_str(),
        )
        .because(format!("{} is newer", newest.file))
        .hint("name another file for the map: an ordinary backup reads bad sectors again, too"));
    }
    Ok(Some((image.clone(), missing)))
}

/// What goes on from `image`: nothing of it is stored, and it is what the report is about.
pub(super) fn report_of(store: &Arc<dyn Store>, image: &Image) -> Result<BackupReport> {
    let reader = ImageReader::open(store.open(&image.file)?)?;
    let info = &image.info;
    Ok(BackupReport {
        continued_bytes: 0,
        image: ImageRecord::of(image),
        reason: info.reason.clone(),
        blocks: reader.summary().blocks,
        changed: BlockCounts::default(),
        source: info.source.clone(),
        read_bytes: 0,
        stored_bytes: 0,
        part_bytes: store.part_len(&image.file)?,
        keys: None,
        healed_bytes: 0,
        unreadable: Vec::new(),
        untried: Vec::new(),
        rescue: Vec::new(),
        partitions: info.partitions.clone(),
        fallbacks: Vec::new(),
        warnings: Vec::new(),
    })
}

/// Tries again what `first`, the newest image, could not read.
pub(super) struct Rescuer<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) request: &'a BackupRequest,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) map: Option<MapFile>,
}

impl Rescuer<'_> {
    /// Does all passes, and brings `report`, which is about image `id`, up to date. When a pass fails, what the
    /// ones before it have read stays, and the report tells.
    ///
    /// # Errors
    /// `Interrupted` or `Terminated`.
    pub(super) fn run(
        mut self,
        id: Uuid,
        mut missing: Missing,
        mut report: BackupReport,
    ) -> Result<BackupReport> {
        let mut newest = id;
        self.note(newest, &missing, &mut report);
        let mut limit = SECOND_LIMIT;
        let mut retries = self.request.rescue.retries;
        loop {
            let (wanted, attempts) = if !missing.untried.is_empty() {
                (missing.untried.clone(), 1)
            } else if retries > 0 && !missing.bad.is_empty() {
                (missing.bad.clone(), std::mem::take(&mut retries))
            } else {
                break;
            };
            let wanted = Wanted {
                extents: wanted,
                attempts,
                limit,
            };
            let made = match self.pass(newest, &missing, &wanted) {
                Ok(made) => made,
                Err(e) if e.is_stop() => {
                    return Err(e.hint(format!(
                        "image {newest} is complete but for {}",
                        ByteLen(missing.bytes())
                    )));
                }
                Err(e) => {
                    let text =
                        format!("what could not be read was not tried again to the end: {e}");
                    self.context.observer.event(Event::Warning(text.clone()));
                    report.warnings.push(text);
                    break;
                }
            };
            report.read_bytes = report.read_bytes.saturating_add(made.pass.recovered_bytes);
            if let (Some(record), Some(blocks)) = (&made.pass.image, made.blocks) {
                newest = made.id;
                report.stored_bytes = report.stored_bytes.saturating_add(record.bytes);
                report.image = record.clone();
                report.blocks = blocks;
            }
            report.rescue.push(made.pass);
            missing = made.missing;
            self.note(newest, &missing, &mut report);
            limit = limit.saturating_mul(2);
        }
        report.unreadable = missing.all().into_iter().map(Into::into).collect();
        report.untried = missing.untried.iter().map(|e| (*e).into()).collect();
        report.warnings.extend(missing_in_words(&missing));
        // The first image may have told of them already.
        for caveat in self.store.caveats() {
            if !report.warnings.contains(&caveat) {
                report.warnings.push(caveat);
            }
        }
        Ok(report)
    }

    /// Writes the map. That this fails costs no image.
    fn note(&mut self, id: Uuid, missing: &Missing, report: &mut BackupReport) {
        let Some(map) = &mut self.map else {
            return;
        };
        if let Err(e) = map.write(id, ByteLen(report.source.bytes), missing) {
            let text = e.to_string();
            self.context.observer.event(Event::Warning(text.clone()));
            report.warnings.push(text);
        }
    }

    /// Reads what is `wanted` of what image `id` lacks; what that yields becomes the next image.
    fn pass(&self, id: Uuid, missing: &Missing, wanted: &Wanted) -> Result<Made> {
        let (context, store) = (self.context, self.store);
        let catalog = Catalog::load(store.as_ref())?;
        let image = catalog.by_id(id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "go on from", format!("image {id}"))
                .because(format!("it is no longer in {}", store.name()))
        })?;
        let lineage = catalog.lineage(image);
        lineage.check()?;
        let view = ChainView::open(Arc::clone(store), lineage)?;
        let claim = self.claim(image)?;
        let place = Place::find(Some(&image.info.set), claim.identity(), Some(&catalog))?;
        let (consistency, warnings) =
            describe::consistency(claim.consistency(), claim.source().name());
        let created = super::now();
        let header = Header {
            id: Uuid::new_v4(),
            sequence: place.sequence,
            kind: Kind::Incremental,
            parent: Some(Parent {
                id: image.header.id,
                sequence: image.header.sequence,
                root: image.root,
            }),
            ..image.header.clone()
        };
        let info = Info {
            tool: concat!("strata ", env!("CARGO_PKG_VERSION")).to_owned(),
            created,
            host: describe::host(&context.root),
            consistency,
            reason: format!(
                "reads again what number {} could not; all else is as it was then",
                image.header.sequence
            ),
            compression: self.request.compression.to_string(),
            comment: self.request.comment.clone(),
            healed: Vec::new(),
            ..image.info.as_ref().clone()
        };
        let form = store.form_of(&image.file)?;
        let file = place.file_name(created, Kind::Incremental, form.keys.is_some());
        let file = FileName::new(file)?;
        let upload = store.create_as(&file, &form)?;
        let tables = view.image().tables();
        let mut writer = ImageWriter::start(upload, file.as_str(), header.clone(), &info, tables)?;
        let left = self.read(&view, &claim, missing, wanted, &mut writer)?;
        let recovered = missing.bytes().saturating_sub(left.bytes());
        let mut made = Made {
            id: header.id,
            pass: RescuePass {
                image: None,
                tried_bytes: wanted.extents.iter().map(|e| e.len.0).sum(),
                recovered_bytes: recovered,
            },
            blocks: None,
            missing: left,
        };
        if recovered == 0 {
            return Ok(made);
        }
        let mut warnings = warnings;
        warnings.extend(missing_in_words(&made.missing));
        let summary = Summary {
            finished: super::now(),
            unreadable: made.missing.all().into_iter().map(Into::into).collect(),
            untried: made.missing.untried.iter().map(|e| (*e).into()).collect(),
            warnings,
            ..Summary::default()
        };
        let (upload, finished) = writer.finish(summary)?;
        context.cancel.check()?;
        upload.publish()?;
        let reader = reopened(store, &file, finished.root)?;
        made.pass.image = Some(ImageRecord::of(&Image::of(file, &reader)));
        made.blocks = Some(reader.summary().blocks);
        Ok(made)
    }

    /// The disk that `image` is of.
    fn claim(&self, image: &Image) -> Result<ReadClaim> {
        let inventory = Inventory::read(&self.context.root)?;
        let resolved = device::resolve(&inventory, &self.request.source)?;
        let claim = device::claim_read(&inventory, &resolved)?;
        let source = self.context.paced_source(claim.source());
        let layout = layout::read(source.as_ref())?;
        let disk = DiskIdentity {
            table_id: layout.disk_id.clone(),
            ..claim.identity().clone()
        };
        let other = differs(&image.info.source, &disk, self.request.set.is_some());
        let other = other.or_else(|| {
            let (then, now) = (image.header.disk_len, source.len());
            (then != now).then(|| format!("it was {} bytes long and has {}", then.0, now.0))
        });
        if let Some(why) = other {
            return Err(
                Error::new(ErrorKind::Source, "read again", source.name()).because(format!(
                    "it is not the disk of image {}: {why}",
                    image.header.id
                )),
            );
        }
        if let Consistency::Live(_) = claim.consistency() {
            crate::sys::sync_all();
        }
        drop(source);
        Ok(claim)
    }

    /// Writes all blocks: those with something `wanted` in them as they are now, the others as the image of
    /// `view` has them. Returns what is still missing.
    fn read<W: std::io::Write>(
        &self,
        view: &ChainView,
        claim: &ReadClaim,
        missing: &Missing,
        wanted: &Wanted,
        writer: &mut ImageWriter<W>,
    ) -> Result<Missing> {
        let (disk_len, block_size) = (writer.header().disk_len, writer.header().block_size);
        let changed = BlockMap::holding(&wanted.extents, disk_len, block_size);
        let selection = Selection::only(changed, disk_len, block_size);
        let all = missing.all();
        let avoid = subtract(&all, &wanted.extents);
        let watch = Stopwatch::new();
        let clock = || watch.elapsed();
        let source = self.context.paced_source(claim.source());
        let input = Input {
            effort: Effort {
                attempts: wanted.attempts,
                run: None,
                limit: Some((wanted.limit, &clock)),
                avoid: avoid.clone(),
            },
            known: Some((view, &all)),
            phase: Phase::Retry,
            ..Input::new(source.as_ref(), &selection)
        };
        let quiet = KnownBad(self.context.observer);
        let resources = crate::pipeline::Resources {
            observer: &quiet,
            ..self.context.resources()
        };
        let totals = write_blocks(
            &input,
            Some(view),
            self.request.encoding(),
            writer,
            resources,
        )?;
        // What was not wanted is missing as it was before.
        let mut left = Missing {
            bad: subtract(&missing.bad, &wanted.extents),
            untried: subtract(&missing.untried, &wanted.extents),
        };
        left.add(Missing {
            untried: subtract(&totals.missing.untried, &avoid),
            bad: totals.missing.bad,
        });
        Ok(left.normalized())
    }
}

/// What a pass reads, and how hard it tries.
struct Wanted {
    extents: Vec<Extent>,
    attempts: u32,
    limit: Duration,
}

/// What a pass has made.
struct Made {
    id: Uuid,
    pass: RescuePass,
    blocks: Option<BlockCounts>,
    missing: Missing,
}
