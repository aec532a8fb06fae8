//! Old images go: those that no rule keeps, and the oldest where room is needed.

use super::images::lock;
use super::remembered::Remembered;
use super::removal::{Removed, check_readable, check_settled, execute, settle};
use super::stores;
use super::{Context, ImageRecord};
use crate::base::{ByteLen, Error, ErrorKind, Event, Result};
use crate::chain::retention::{Point, Removable, Verdict, decide, make_room};
pub use crate::chain::retention::{Policy, Within};
use crate::chain::{Catalog, Doubt, Image, Protection, Records, Removal, doubts, plan_removal};
use crate::store::{LockMode, Store};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// The store's folder.
    pub store: PathBuf,
    /// The only set to prune; all when absent.
    pub set: Option<String>,
    /// What stays.
    pub policy: Policy,
    /// Room that the store shall have afterwards, in bytes: the oldest images go until it has.
    pub free_space: Option<u64>,
    /// How many images of each set stay even then, at least 1.
    pub least: usize,
    /// Whether times that cannot be right, as it seems, are.
    pub trust_times: bool,
}

/// What a prune will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunePlan {
    /// Every image that was looked at, by set, oldest first.
    pub images: Vec<Planned>,
    /// Bytes that are free in the store, where it says.
    pub free_bytes: Option<u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What happens to one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The image.
    pub image: ImageRecord,
    /// Whether it stays.
    pub keep: bool,
    /// Why it stays: the rules that keep it.
    pub reasons: Vec<String>,
    /// `keep`, `remove`, or `merge` into the next younger one.
    pub action: &'static str,
    /// The image that takes it in.
    pub into: Option<String>,
}

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// What was planned.
    pub plan: PrunePlan,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// Files that were written in place of others.
    pub rewritten: Vec<String>,
    /// Bytes that the store has more than before; negative when it has less.
    pub freed_bytes: Option<i64>,
    /// Why some images could not go.
    pub failures: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What a prune would do. Changes nothing.
///
/// # Errors
/// `Usage` without a rule, `NotFound` without such a store or set, `Damaged` when the store has files
/// that cannot be opened.
pub fn plan(context: &Context<'_>, request: &PruneRequest) -> Result<PrunePlan> {
    let store = stores::open(context, &request.store)?;
    let catalog = Catalog::load(store.as_ref())?;
    decided(store.as_ref(), &catalog, request).map(|(_, plan)| plan)
}

/// Prunes.
///
/// # Errors
/// As [`plan`]; `Locked` while anybody uses the store, `Destination`, `Interrupted`, `Terminated`. At
/// every moment every image that is listed can be restored; run it again to go on.
pub fn run(context: &Context<'_>, request: &PruneRequest) -> Result<PruneReport> {
    run_in(context, &stores::open(context, &request.store)?, request)
}

/// [`run`] in any store; the folder that `request` names is not looked at.
///
/// # Errors
/// As [`run`].
pub fn run_in(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    request: &PruneRequest,
) -> Result<PruneReport> {
    let _lock = lock(store.as_ref(), LockMode::Exclusive, "prune")?;
    let before = free(store.as_ref())?;
    let mut warnings: Vec<String> = Vec::new();
    let settled = settle(context, store)?;
    warnings.extend(settled.brought_back);
    for note in settled.removed {
        warnings.push(format!("removed what an interrupted run left: {note}"));
    }
    let catalog = Catalog::load(store.as_ref())?;
    check_settled(&catalog, store.as_ref())?;
    let (removal, plan) = decided(store.as_ref(), &catalog, request)?;
    let mut done = execute(context, store, &catalog, &removal)?;
    if let Some(wanted) = request.free_space {
        free_more(context, store, request, wanted, &mut done)?;
        let free = free(store.as_ref())?.unwrap_or(u64::MAX);
        if free < wanted {
            warnings.push(format!(
                "{} are free now, not {}: what is left is protected or the least that stays",
                ByteLen(free),
                ByteLen(wanted)
            ));
        }
    }
    let catalog = Catalog::load(store.as_ref())?;
    // A file that cannot be opened at this moment may be the image that a protection is for.
    let alive = |id| !catalog.broken.is_empty() || catalog.by_id(id).is_some();
    let mut gone = Records::forget(store.as_ref(), &alive)?;
    let remembered = Remembered::of(Path::new(store.name()));
    gone.extend(remembered.protections_of_nothing(&catalog));
    remembered.forget_protections(&gone);
    gone.sort_unstable();
    gone.dedup();
    for id in gone {
        warnings.push(format!(
            "image {id} was protected and is not in the store any more; nothing is left to protect"
        ));
    }
    let after = free(store.as_ref())?;
    warnings.extend(plan.warnings.iter().cloned());
    warnings.extend(store.caveats());
    warnings
        .iter()
        .for_each(|w| context.observer.event(Event::Warning(w.clone())));
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok(PruneReport {
        plan,
        removed: done.files,
        rewritten: done.rewritten,
        freed_bytes: before.zip(after).map(|(b, a)| signed(a) - signed(b)),
        failures: done.failures,
        warnings,
    })
}

fn free(store: &dyn Store) -> Result<Option<u64>> {
    Ok(store.space()?.map(|s| s.available))
}

/// The images of each history that is to be pruned, oldest first.
fn histories<'a>(catalog: &'a Catalog, request: &PruneRequest) -> Result<Vec<&'a [Image]>> {
    let images = match &request.set {
        None => catalog.images.as_slice(),
        Some(set) => catalog.set(set),
    };
    if let (Some(set), true) = (&request.set, images.is_empty()) {
        return Err(
            Error::new(ErrorKind::NotFound, "prune", format!("set {set}"))
                .because("the store has no image of that set")
                .hint("`strata list` shows the images of a store"),
        );
    }
    let same = |a: &Image, b: &Image| a.info.set == b.info.set && a.header.set == b.header.set;
    Ok(images.chunk_by(same).collect())
}

/// What the notes of `store` say, with the protections that this machine remembers.
fn known_records(store: &dyn Store, catalog: &Catalog) -> Result<Records> {
    let mut records = Records::load(store)?;
    let remembered = Remembered::of(Path::new(store.name()));
    for lost in remembered.lost_protections(catalog, &records) {
        records.protected.insert(lost.image, Protection::default());
    }
    Ok(records)
}

fn decided(
    store: &dyn Store,
    catalog: &Catalog,
    request: &PruneRequest,
) -> Result<(Removal, PrunePlan)> {
    if request.policy.is_empty() && request.free_space.is_none() {
        return Err(Error::new(ErrorKind::Usage, "prune", store.name())
            .because("no rule says what stays")
            .hint("say for example --keep-last 7 --keep-weekly 4, or --free-space 100G"));
    }
    check_readable(catalog, store)?;
    let records = known_records(store, catalog)?;
    let zone = super::time_zone();
    let mut unwanted = HashSet::new();
    let mut reasons: HashMap<Uuid, Vec<String>> = HashMap::new();
    let mut warnings = Vec::new();
    for history in histories(catalog, request)? {
        let doubts = doubts_of(history, request);
        if !request.policy.is_empty() {
            warnings.extend(doubted(history, &doubts));
        }
        let points: Vec<Point> = history
            .iter()
            .zip(&doubts)
            .map(|(i, doubt)| Point {
                time: i.info.created,
                protected: records.protected.contains_key(&i.header.id),
                doubtful: doubt.is_some(),
            })
            .collect();
        let verdicts = match request.policy.is_empty() {
            true => Vec::new(),
            false => decide(&points, &request.policy, &zone),
        };
        for (image, verdict) in history.iter().zip(&verdicts) {
            match verdict {
                Verdict::Remove => {
                    unwanted.insert(image.header.id);
                }
                Verdict::Keep(why) => {
                    let words = why.iter().map(|r| r.words()).collect();
                    reasons.insert(image.header.id, words);
                }
            }
        }
    }
    let free_bytes = free(store)?;
    if let (Some(wanted), Some(free)) = (request.free_space, free_bytes) {
        let gone: u64 = catalog
            .images
            .iter()
            .filter(|i| unwanted.contains(&i.header.id))
            .map(|i| i.len)
            .sum();
        let missing = wanted.saturating_sub(free.saturating_add(gone));
        let more = for_room(catalog, request, &records, &unwanted, missing)?;
        if missing > 0 && !more.1 {
            warnings.push(format!(
                "even without all that may go, the store will not have {} free",
                ByteLen(wanted)
            ));
        }
        unwanted.extend(more.0);
    }
    let removal = plan_removal(catalog, &unwanted);
    let images = histories(catalog, request)?
        .into_iter()
        .flatten()
        .map(|i| planned(i, &removal, reasons.remove(&i.header.id)))
        .collect();
    let plan = PrunePlan {
        images,
        free_bytes,
        warnings,
    };
    Ok((removal, plan))
}

/// What is wrong with the times of the images of a history, unless a person vouches for them.
fn doubts_of(history: &[Image], request: &PruneRequest) -> Vec<Option<Doubt>> {
    if request.trust_times {
        return vec![None; history.len()];
    }
    let times: Vec<i64> = history.iter().map(|i| i.info.created).collect();
    doubts(&times, super::now())
}

/// Says whose times are not believed, and why.
fn doubted(history: &[Image], doubts: &[Option<Doubt>]) -> Option<String> {
    let of = |place: usize| history.get(place).map(|i| i.header.sequence);
    let time = |place: usize| history.get(place).map_or(0, |i| i.info.created);
    let mut found = doubts
        .iter()
        .enumerate()
        .filter_map(|(at, d)| Some((at, (*d)?)));
    let (first, doubt) = found.next()?;
    let more = found.count();
    let why = match doubt {
        Doubt::Future => format!("the clock says {} now", super::time_text(super::now())),
        Doubt::Back(before) => format!(
            "number {} before it says {}",
            of(before)?,
            super::time_text(time(before))
        ),
        Doubt::Leap(before) => format!(
            "it is much later than number {} before it, of {}",
            of(before)?,
            super::time_text(time(before))
        ),
    };
    let set = history.first().map_or("", |i| i.info.set.as_str());
    let others = match more {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    Some(format!(
        "set {set}: image number {} says that it is of {}, which cannot be right: {why}. It{others} stays, \
         and no rule counts it; if all times are right, say --trust-times",
        of(first)?,
        super::time_text(time(first)),
    ))
}

fn planned(image: &Image, removal: &Removal, reasons: Option<Vec<String>>) -> Planned {
    let id = image.header.id;
    let mut reasons = reasons.unwrap_or_default();
    let into = removal.merges.iter().find(|m| m.absorbs.contains(&id));
    if let Some((_, many)) = removal.bases.iter().find(|(base, _)| *base == id) {
        reasons.push(format!("{many} images build on it"));
    }
    let (keep, action) = match into {
        Some(_) => (false, "merge"),
        None if removal.remove.contains(&id) => (false, "remove"),
        None => (true, "keep"),
    };
    Planned {
        image: ImageRecord::of(image),
        keep,
        reasons,
        action,
        into: into.map(|m| m.image.to_string()),
    }
}

/// More images that go, the oldest first, until about `missing` bytes are freed; and whether that is
/// enough.
fn for_room(
    catalog: &Catalog,
    request: &PruneRequest,
    records: &Records,
    unwanted: &HashSet<Uuid>,
    missing: u64,
) -> Result<(Vec<Uuid>, bool)> {
    let (mut chosen, mut left) = (Vec::new(), missing);
    for history in histories(catalog, request)? {
        let rest: Vec<&Image> = history
            .iter()
            .filter(|i| !unwanted.contains(&i.header.id))
            .collect();
        let points: Vec<Removable> = rest
            .iter()
            .map(|i| Removable {
                frees: frees(catalog, i),
                protected: records.protected.contains_key(&i.header.id),
            })
            .collect();
        let room = make_room(&points, left, request.least.max(1));
        left = left.saturating_sub(room.frees);
        let ids = room.remove.iter().filter_map(|at| rest.get(*at));
        chosen.extend(ids.map(|i| i.header.id));
        if left == 0 {
            break;
        }
    }
    Ok((chosen, left == 0))
}

/// About how many bytes it frees when `image` goes: all of it, or, where another one takes it in, what
/// that one has newer.
fn frees(catalog: &Catalog, image: &Image) -> u64 {
    let heirs = catalog.children(image.header.id);
    heirs
        .map(|heir| heir.len)
        .min()
        .unwrap_or(u64::MAX)
        .min(image.len)
}

/// Lets one image after the other go, the oldest first, until the store has `wanted` bytes free.
fn free_more(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    request: &PruneRequest,
    wanted: u64,
    done: &mut Removed,
) -> Result<()> {
    let mut tried = HashSet::new();
    loop {
        let catalog = Catalog::load(store.as_ref())?;
        let records = Records::load(store.as_ref())?;
        let missing = match free(store.as_ref())? {
            Some(free) if free < wanted => wanted - free,
            _ => return Ok(()),
        };
        let (next, _) = for_room(&catalog, request, &records, &tried, missing)?;
        let Some(next) = next.first().copied() else {
            return Ok(());
        };
        tried.insert(next);
        let removal = plan_removal(&catalog, &HashSet::from([next]));
        let more = execute(context, store, &catalog, &removal)?;
        done.files.extend(more.files);
        done.rewritten.extend(more.rewritten);
        done.failures.extend(more.failures);
    }
}
