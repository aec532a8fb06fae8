//! Is every image whole, with all that it builds on?

use super::against::against;
use super::hits::{Hit, hits_on};
use super::images::lock_to_read;
use super::remembered::Remembered;
use super::{Context, Library};
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Event, Extent, Result, normalize};
use crate::chain::{
    Catalog, ChainView, How, Image, Lineage, Records, VerifiedRecord, record_verified,
};
use crate::image::{BlockStates, ByteRange, PartitionInfo, Piece};
use crate::pipeline::{self, Damage, Depth, Sample};
use crate::store::{FileName, Store};
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// Images, each with all that it builds on; none means every one of the store.
    pub images: Vec<String>,
    /// The store's folder.
    pub store: Option<PathBuf>,
    /// How closely.
    pub depth: Depth,
    /// Only this share of the frames, in thousandths; another one each time.
    pub sample: Option<u32>,
    /// Only images that were not found whole, as closely, within so many seconds.
    pub older_than: Option<i64>,
    /// A disk to compare with.
    pub against: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// One for each image.
    pub images: Vec<Verified>,
    /// Files of images that were verified lately.
    pub skipped: Vec<String>,
    /// Where the disk differs from the image; absent without `--against`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<ByteRange>>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// One image's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Its id, when it can be told.
    pub id: Option<String>,
    /// Its file.
    pub file: String,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Whether every block that was looked at was compared with its digest.
    pub deep: bool,
    /// Which share of the frames was looked at, in thousandths.
    pub share: u32,
    /// What is wrong, and which bytes of the disk it costs.
    pub damage: Vec<DamageRecord>,
    /// What that belongs to on the image's disk.
    pub hits: Vec<Hit>,
    /// Younger images that lose something by it.
    pub affects: Vec<Affected>,
    /// What is wrong with the image as a whole.
    pub message: Option<String>,
}

/// One damaged range of the imaged disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamageRecord {
    /// First byte of the disk that is lost.
    pub start: u64,
    /// Number of bytes; zero when the damage costs none.
    pub length: u64,
    /// Numbers of the partitions it lies in.
    pub partitions: Vec<u32>,
    /// What is wrong.
    pub what: String,
}

/// What an image loses by the damage of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Its id.
    pub id: String,
    /// Its file.
    pub file: String,
    /// Bytes of the disk that are lost.
    pub bytes: u64,
    /// Numbers of the partitions they lie in.
    pub partitions: Vec<u32>,
}

impl VerifyReport {
    /// Whether any image is damaged.
    pub fn is_damaged(&self) -> bool {
        self.images.iter().any(|i| !i.ok)
    }

    /// Whether the disk differs.
    pub fn differs(&self) -> bool {
        self.differences.as_ref().is_some_and(|d| !d.is_empty())
    }
}

/// Images to verify, parents before children.
struct Wanted {
    store: Arc<dyn Store>,
    images: Vec<Image>,
    broken: Vec<Verified>,
    /// Whether each of them was named by its path and needs no other.
    alone: bool,
}

/// Verifies images and, if asked, compares one with a disk. The results are noted in the store.
///
/// # Errors
/// `NotFound`, `Usage`, `Locked`, `Source` when the disk cannot be read, `Interrupted` or
/// `Terminated`. Damage and differences are in the report.
pub fn verify(context: &Context<'_>, request: &VerifyRequest) -> Result<VerifyReport> {
    let library = Library::open(context, request.store.as_deref())?;
    verify_in(context, &library, request)
}

/// [`verify`], in a library that is open.
///
/// # Errors
/// As [`verify`].
pub fn verify_in(
    context: &Context<'_>,
    library: &Library<'_>,
    request: &VerifyRequest,
) -> Result<VerifyReport> {
    if let Some(source) = &request.against {
        return against(context, library, request, source);
    }
    let mut report = VerifyReport {
        images: Vec::new(),
        skipped: Vec::new(),
        differences: None,
        warnings: Vec::new(),
    };
    // What is listed must be there until it has been looked at.
    let everything = request.images.is_empty();
    let listing = everything.then(|| lock_to_read(library.store()?.as_ref(), "verify"));
    let _listing = listing.transpose()?;
    let Some(mut wanted) = wanted(library, request, &mut report)? else {
        return Ok(report);
    };
    // Where media are changed, what is not needed must not be asked for, nor kept from being taken out.
    let by_itself = wanted.alone && context.bringer.is_some();
    let store = wanted.store.as_ref();
    let _lock = (!by_itself && !everything)
        .then(|| lock_to_read(store, "verify"))
        .transpose()?;
    let records = match Records::load(store) {
        // The folder was on a medium that made room for another.
        Err(e) if by_itself && e.kind() == ErrorKind::NotFound => Records::default(),
        records => records?,
    };
    let catalog = match by_itself {
        true => Catalog::of(wanted.images.clone(), Vec::new()),
        false => Catalog::load(store)?,
    };
    if !by_itself {
        wanted.images = still_there(&catalog, wanted.images)?;
    }
    if everything {
        for lost in vanished(store, &catalog, &records) {
            context.observer.event(Event::Warning(lost.clone()));
            report.warnings.push(lost);
        }
    }
    let sample = sample(request.sample);
    let mut results = Vec::new();
    for image in wanted.images {
        if is_recent(&records, &image, request) {
            report.skipped.push(image.file.to_string());
            continue;
        }
        let lineage = catalog.lineage(&image);
        let verified = verify_one(context, &wanted.store, &catalog, lineage, request, sample)?;
        results.push(record_of(&image, &verified, request));
        report.images.push(verified);
    }
    report.images.extend(wanted.broken);
    if let Err(e) = record_verified(wanted.store.as_ref(), &results, Uuid::new_v4()) {
        let note = format!("the result cannot be noted in the store: {e}");
        context.observer.event(Event::Warning(note.clone()));
        report.warnings.push(note);
    }
    Ok(report)
}

/// What a person should know of images that were in `store` and are not in its `catalog`: nobody can look at what has
/// gone as a whole.
fn vanished(store: &dyn Store, catalog: &Catalog, records: &Records) -> Vec<String> {
    let remembered = Remembered::of(Path::new(store.name()));
    let mut lost = remembered.lost_of(None, catalog);
    // One that cannot be opened may be the one that is protected.
    if catalog.broken.is_empty() && catalog.refused.is_empty() {
        let noted = records.protected.keys().copied();
        let mut gone: BTreeSet<Uuid> = noted.filter(|id| catalog.by_id(*id).is_none()).collect();
        gone.extend(remembered.protections_of_nothing(catalog));
        let words = gone
            .iter()
            .map(|id| format!("image {id} is protected and gone from the store"));
        lost.extend(words);
    }
    for protection in remembered.lost_protections(catalog, records) {
        lost.push(format!(
            "{} was protected here, and the store does not say so any more: the next backup or prune here protects it \
             again, `strata protect --off` ends that",
            protection.words()
        ));
    }
    lost
}

/// `images` as they are in `catalog`, which is newer: since they were found, a merge may have written some of
/// them anew and removed others.
///
/// # Errors
/// `NotFound` when one has gone.
fn still_there(catalog: &Catalog, images: Vec<Image>) -> Result<Vec<Image>> {
    let files: HashSet<&FileName> = catalog.files().collect();
    let current = |image: Image| {
        if files.contains(&image.file) {
            return Ok(image);
        }
        let anew = catalog.by_id(image.header.id).cloned();
        anew.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "verify", image.file.as_str())
                .because("another run has removed it since it was found")
                .hint("`strata list` shows the images of a store")
        })
    };
    images.into_iter().map(current).collect()
}

/// What is to be verified; `None` when nothing of it can be opened, which is in the report then.
fn wanted(
    library: &Library<'_>,
    request: &VerifyRequest,
    report: &mut VerifyReport,
) -> Result<Option<Wanted>> {
    if request.images.is_empty() {
        let catalog = library.catalog()?;
        catalog.check_any_opens()?;
        // Images of others are not damaged.
        let (locked, broken): (Vec<_>, Vec<_>) = catalog.broken.iter().partition(|b| b.is_locked());
        for locked in locked {
            report.skipped.push(locked.file.to_string());
            report.warnings.push(locked.error.to_string());
        }
        return Ok(Some(Wanted {
            store: library.store()?.clone(),
            images: catalog.images,
            broken: broken
                .into_iter()
                .map(|b| Verified::unopened(b.file.as_str(), &b.error))
                .collect(),
            alone: false,
        }));
    }
    let mut wanted: Option<Wanted> = None;
    let mut known: Vec<Uuid> = Vec::new();
    for name in &request.images {
        let found = match library.find(name) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::Damaged => {
                report.images.push(Verified::unopened(name, &e));
                continue;
            }
            Err(e) => return Err(e),
        };
        let lineage = found.view.lineage();
        let into = wanted.get_or_insert_with(|| Wanted {
            store: found.store.clone(),
            images: Vec::new(),
            broken: Vec::new(),
            alone: true,
        });
        into.alone &= found.is_alone();
        if into.store.name() != found.store.name() {
            return Err(Error::new(ErrorKind::Usage, "verify", name)
                .because("images of two folders cannot be verified in one run"));
        }
        for image in &lineage.images {
            if !known.contains(&image.header.id) {
                known.push(image.header.id);
                into.images.push(image.clone());
            }
        }
    }
    Ok(wanted)
}

/// A share of the frames: every how many-th, beginning anywhere.
fn sample(share: Option<u32>) -> Sample {
    let every = share.map_or(1, |thousandths| {
        1000 / u64::from(thousandths.clamp(1, 1000))
    });
    let chance = Uuid::new_v4().as_u128() % u128::from(every);
    Sample {
        every,
        offset: u64::try_from(chance).unwrap_or(0),
    }
}

/// Whether `image` was found whole, as closely as asked for, not long ago.
fn is_recent(records: &Records, image: &Image, request: &VerifyRequest) -> bool {
    let Some(age) = request.older_than else {
        return false;
    };
    let close = |how: How| match (request.sample, request.depth) {
        (Some(_), _) => true,
        (None, Depth::Quick) => how != How::Sample,
        (None, Depth::Deep) => how == How::Deep,
    };
    let now = super::now();
    // A result from a time that is still to come is of a clock that was wrong.
    let lately = |time: i64| time <= now && now.saturating_sub(time) < age;
    let recent =
        |r: &&VerifiedRecord| r.ok && r.root == image.root && close(r.how) && lately(r.time);
    let all = records.verified.get(&image.header.id);
    records.damage_of(image.header.id).is_none()
        && all.is_some_and(|all| all.iter().any(|r| recent(&r)))
}

fn record_of(image: &Image, verified: &Verified, request: &VerifyRequest) -> VerifiedRecord {
    let how = match (request.sample, request.depth) {
        (Some(_), _) => How::Sample,
        (None, Depth::Quick) => How::Quick,
        (None, Depth::Deep) => How::Deep,
    };
    VerifiedRecord {
        image: image.header.id,
        time: super::now(),
        how,
        share: verified.share,
        ok: verified.ok,
        root: image.root,
    }
}

fn verify_one(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    catalog: &Catalog,
    lineage: Lineage,
    request: &VerifyRequest,
    sample: Sample,
) -> Result<Verified> {
    let Some(image) = lineage.point().cloned() else {
        return Err(Error::new(ErrorKind::Internal, "verify", "an empty chain"));
    };
    let broken = lineage.broken.as_ref().map(|b| b.words());
    let view = match ChainView::open(Arc::clone(store), lineage) {
        Ok(view) => view,
        // Nothing is wrong with the file.
        Err(e) if e.is_stop() || e.is_out_of_files() => return Err(e),
        Err(e) => return Ok(Verified::unopened(image.file.as_str(), &e)),
    };
    let resources = context.resources();
    let damage = pipeline::verify_file(view.image(), &view, request.depth, sample, resources)?;
    let mut verified = Verified::of(&image, &damage, request.depth);
    verified.share = u32::try_from(1000 / sample.every).unwrap_or(1000);
    if let Some(broken) = broken {
        verified.ok = false;
        verified.message = Some(broken);
    }
    let lost = normalize(damage.iter().map(|d| d.extent).collect());
    let ranges: Vec<ByteRange> = lost.iter().map(|e| (*e).into()).collect();
    verified.hits = hits_on(&view, context.cancel, &ranges)?;
    verified.affects = affected(store, catalog, &image, &lost);
    context.cancel.check()?;
    Ok(verified)
}

impl Verified {
    /// What `damage` means for `image`.
    pub(super) fn of(image: &Image, damage: &[Damage], depth: Depth) -> Verified {
        let record = |d: &Damage| DamageRecord {
            start: d.extent.start.0,
            length: d.extent.len.0,
            partitions: partitions_in(&image.info.partitions, &[d.extent]),
            what: d.what.clone(),
        };
        Verified {
            id: Some(image.header.id.to_string()),
            file: image.file.to_string(),
            ok: damage.is_empty(),
            deep: depth == Depth::Deep,
            share: 1000,
            damage: damage.iter().map(record).collect(),
            hits: Vec::new(),
            affects: Vec::new(),
            message: None,
        }
    }

    fn unopened(file: &str, error: &Error) -> Verified {
        Verified {
            id: None,
            file: file.to_owned(),
            ok: false,
            deep: false,
            share: 0,
            damage: Vec::new(),
            hits: Vec::new(),
            affects: Vec::new(),
            message: Some(error.to_string()),
        }
    }
}

/// The younger images that read something of `lost` from the file of `image`.
fn affected(
    store: &Arc<dyn Store>,
    catalog: &Catalog,
    image: &Image,
    lost: &[Extent],
) -> Vec<Affected> {
    let mut all = Vec::new();
    if lost.iter().all(|e| e.is_empty()) {
        return all;
    }
    let younger = catalog
        .images
        .iter()
        .filter(|i| i.header.set == image.header.set && i.header.sequence > image.header.sequence);
    for other in younger {
        let lineage = catalog.lineage(other);
        let link = lineage
            .images
            .iter()
            .position(|i| i.header.id == image.header.id);
        let (Some(link), Ok(view)) = (link, ChainView::open(Arc::clone(store), lineage)) else {
            continue;
        };
        let shared = lost_through(&view, link, lost);
        if !shared.is_empty() {
            all.push(Affected {
                id: other.header.id.to_string(),
                file: other.file.to_string(),
                bytes: shared.iter().map(|e| e.len.0).sum(),
                partitions: partitions_in(&other.info.partitions, &shared),
            });
        }
    }
    all
}

/// Of the bytes `lost`, those that `view` would read from the file of the image at `link`.
fn lost_through(view: &ChainView, link: usize, lost: &[Extent]) -> Vec<Extent> {
    let header = view.image().header();
    let size = header.block_size.bytes();
    let mut found = Vec::new();
    for extent in lost {
        let blocks = extent.start.0 / size..extent.end().0.div_ceil(size);
        let mut add = |block: u64| found.push(header.extent_of(&(block..block + 1)));
        // Nothing here fails: the closure does not.
        let _ = view.each_piece(blocks.clone(), &mut |piece| {
            let within = |b: &u64| blocks.contains(b);
            match piece {
                Piece::Uniform { .. } => {}
                Piece::Lost { blocks, .. } => blocks.filter(within).for_each(&mut add),
                Piece::Leaf(leaf) => (leaf.first.0..)
                    .zip(&leaf.blocks)
                    .filter(|(index, block)| {
                        within(index)
                            && block.state.has_content()
                            && view.holder(block.since).is_ok_and(|h| h == link)
                    })
                    .for_each(|(index, _)| add(index)),
            }
            Ok(())
        });
    }
    normalize(found)
}

/// The numbers of the partitions that share a byte with one of `extents`.
fn partitions_in(partitions: &[PartitionInfo], extents: &[Extent]) -> Vec<u32> {
    let shares = |part: &&PartitionInfo| {
        let place = Extent::new(ByteOffset(part.start), ByteLen(part.length));
        place.is_some_and(|place| extents.iter().any(|e| e.intersect(place).is_some()))
    };
    partitions.iter().filter(shares).map(|p| p.number).collect()
}

/// The sum of ranges, for a sentence.
pub fn total(ranges: &[ByteRange]) -> ByteLen {
    ByteLen(ranges.iter().map(|r| r.length).fold(0, u64::saturating_add))
}
