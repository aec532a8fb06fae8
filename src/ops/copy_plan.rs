//! What a copy will do, and everything that is settled before the first byte is written.

use super::ImageRecord;
use super::anew::{free_name, header_with, names_in};
use super::backup::Split;
use super::backup_plan::longest_part;
use super::copy::CopyRequest;
use super::encryption::{CopyKeys, NewKeySet};
use super::piped::PIPE;
use crate::base::{ByteLen, Error, ErrorKind, Result};
use crate::chain::{Catalog, Image, Records, plan_removal};
use crate::image::Parent;
use crate::store::{FileName, Form, Store};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// What a copy will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyPlan {
    /// The store that the images are in.
    pub from: String,
    /// The store that the copies go into: the same one when they take the place of the old files, `-` for a
    /// pipe.
    pub to: String,
    /// The images, by set, oldest first.
    pub images: Vec<PlannedCopy>,
    /// Bytes that are free where the copies go, where that is known.
    pub free_bytes: Option<u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What happens to one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedCopy {
    /// The image as it is.
    pub image: ImageRecord,
    /// `copy`; `replace`: a new file takes the place of the old one in the same store; or `skip`.
    pub action: &'static str,
    /// Why it is skipped, or why it becomes full.
    pub reason: Option<String>,
    /// Name of the new file.
    pub file: Option<String>,
    /// What the copy is: `full`, `incremental` or `differential`.
    pub kind: &'static str,
    /// The image that the copy builds on.
    pub parent: Option<String>,
    /// `none` or `zstd:LEVEL` when it is compressed anew.
    pub compression: Option<String>,
    /// Bytes of each part of the new file; absent when it is not cut.
    pub part_bytes: Option<u64>,
    /// Whether the new file is encrypted.
    pub encrypted: bool,
    /// Whether the old file goes when the new one is verified.
    pub removes: bool,
    /// Why the old file stays although it was asked to go.
    pub stays: Option<String>,
}

/// Where copies go.
pub(super) enum Destination<'a> {
    /// The store that the images are in.
    Same,
    /// Another store, which may not be there yet, and what it holds.
    Other(Option<&'a Arc<dyn Store>>, Catalog),
    /// A pipe.
    Pipe,
}

/// One copy.
pub(super) struct Step {
    /// The image.
    pub(super) id: Uuid,
    /// The image in its new file, as far as that is known before; none when there is nothing to do.
    pub(super) new: Option<Image>,
    /// Bytes of each part of that file.
    part_len: Option<u64>,
    /// What it is encrypted with.
    keys: CopyKeys,
    reason: Option<String>,
    warning: Option<String>,
}

/// The images that a person means, by set, oldest first.
///
/// # Errors
/// `Usage` when none is named, `NotFound`, `Damaged`.
pub(super) fn chosen(catalog: &Catalog, request: &CopyRequest) -> Result<Vec<Uuid>> {
    let zone = super::time_zone();
    let mut wanted = HashSet::new();
    if request.all || request.set.is_some() {
        check_all_open(catalog)?;
    }
    for name in &request.images {
        wanted.insert(catalog.find(name, &zone)?.header.id);
    }
    if let Some(set) = &request.set {
        let images = catalog.set(set);
        if images.is_empty() {
            return Err(
                Error::new(ErrorKind::NotFound, "copy", format!("set {set}"))
                    .because("the store has no image of that set")
                    .hint("`strata list` shows the images of a store"),
            );
        }
        wanted.extend(images.iter().map(|i| i.header.id));
    }
    if request.all {
        wanted.extend(catalog.images.iter().map(|i| i.header.id));
    } else if wanted.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "copy", "no image")
            .because("none is named")
            .hint("name images, a set with --set NAME, or --all"));
    }
    let ids = catalog.images.iter().map(|i| i.header.id);
    let mut ids: Vec<Uuid> = ids.filter(|id| wanted.contains(id)).collect();
    ids.dedup();
    Ok(ids)
}

/// Plans to copy the images `ids` of `source`, which are in the store `from`.
///
/// # Errors
/// `Usage`, `NotFound`; `Damaged` when what an image builds on is missing; `Refused` when the destination
/// holds another image of the same id.
pub(super) fn steps(
    request: &CopyRequest,
    from: &Arc<dyn Store>,
    source: &Catalog,
    ids: &[Uuid],
    destination: &Destination<'_>,
) -> Result<(Vec<Step>, CopyPlan)> {
    let (images, store) = match destination {
        Destination::Same => (Vec::new(), Some(from)),
        Destination::Other(store, catalog) => {
            check_open(catalog, &request.to_text())?;
            (catalog.images.clone(), *store)
        }
        Destination::Pipe => (Vec::new(), None),
    };
    let mut there = Catalog::of(images, Vec::new());
    let taken = store.map(|s| names_in(s.as_ref())).transpose()?;
    let mut taken = taken.unwrap_or_default();
    let mut steps = Vec::new();
    for id in ids {
        let image = found(source, *id)?;
        source.lineage(image).check()?;
        let keys = match destination {
            Destination::Other(Some(store), catalog) => {
                CopyKeys::settle(request, from, image, Some((store, catalog)))?
            }
            _ => CopyKeys::settle(request, from, image, None)?,
        };
        let step = match destination {
            Destination::Same => in_place(request, from, source, image, &taken, keys)?,
            Destination::Other(..) => elsewhere(request, image, &there, &taken, keys)?,
            Destination::Pipe => into_pipe(image, keys)?,
        };
        if let Some(new) = &step.new {
            taken.push(new.file.clone());
            there = there.with(new.clone());
        }
        steps.push(step);
    }
    let free = store.map(|s| s.space()).transpose()?.flatten();
    let mut plan = CopyPlan {
        from: from.name().to_owned(),
        to: match destination {
            Destination::Same => from.name().to_owned(),
            Destination::Pipe => PIPE.to_owned(),
            Destination::Other(..) => request.to_text(),
        },
        images: Vec::new(),
        free_bytes: free.map(|s| s.available),
        warnings: steps.iter().filter_map(|s| s.warning.clone()).collect(),
    };
    let stays = match (destination, request.remove_old) {
        (Destination::Other(..), true) => staying(source, &Records::load(from.as_ref())?, ids),
        _ => HashMap::new(),
    };
    for step in &steps {
        let image = found(source, step.id)?;
        plan.images
            .push(planned(request, image, step, destination, &stays));
    }
    let in_place = matches!(destination, Destination::Same);
    plan.warnings
        .extend(nearly_full(source, &steps, &plan, in_place));
    Ok((steps, plan))
}

/// The files of `catalog` that cannot be opened, in words.
fn broken(catalog: &Catalog) -> Option<String> {
    let names: Vec<&str> = catalog.broken.iter().map(|b| b.file.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Refuses to take what can be opened for all that there is.
fn check_all_open(source: &Catalog) -> Result<()> {
    source.check_keys()?;
    if let Some(locked) = source.locked() {
        return Err(locked.clone());
    }
    let Some(names) = broken(source) else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Damaged, "copy", "all images")
        .because(format!("there are files that cannot be opened: {names}"))
        .hint("name the images that are wanted, or move those files out of the store"))
}

/// Refuses to copy into a store whose files cannot all be opened: one of them may be an image that is to be
/// copied, and would be there twice.
fn check_open(there: &Catalog, to: &str) -> Result<()> {
    if let Some(locked) = there.locked() {
        return Err(locked.clone());
    }
    let Some(names) = broken(there) else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Damaged, "copy into", to)
        .because(format!(
            "it has image files that cannot be opened, which may be the same images: {names}"
        ))
        .hint("bring them back from a copy, or move them out of that store"))
}

/// The image `id` of `catalog`.
///
/// # Errors
/// `NotFound`.
pub(super) fn found(catalog: &Catalog, id: Uuid) -> Result<&Image> {
    catalog.by_id(id).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find image", id.to_string())
            .because("it is not there any more: a merge that had been interrupted took it in")
            .hint("`strata list` shows the images of a store")
    })
}

/// `image` in a new file of the store that it is in.
fn in_place(
    request: &CopyRequest,
    store: &Arc<dyn Store>,
    source: &Catalog,
    image: &Image,
    taken: &[FileName],
    keys: CopyKeys,
) -> Result<Step> {
    let parent = image.header.parent.filter(|_| !request.full);
    let parent = parent.and_then(|p| source.by_id(p.id));
    let cut = store.part_len(&image.file)?;
    let part_len = match request.split {
        None => cut,
        Some(Split::Auto) => request.store.as_deref().and_then(longest_part),
        Some(split) => asked(split),
    };
    let becomes_full = parent.is_none() && image.header.parent.is_some();
    if request.recompress.is_none() && part_len == cut && !becomes_full {
        return Ok(Step::skip(image, "it is as asked for already"));
    }
    let reason = becomes_full.then(|| "as asked for".to_owned());
    Step::write(image, parent, taken, (part_len, keys), reason)
}

/// `image` in another store that holds `there`.
fn elsewhere(
    request: &CopyRequest,
    image: &Image,
    there: &Catalog,
    taken: &[FileName],
    keys: CopyKeys,
) -> Result<Step> {
    let to = request.to_text();
    if let Some(same) = there.by_id(image.header.id) {
        if same.root != image.root {
            return Err(Error::new(ErrorKind::Refused, "copy", image.file.as_str())
                .because(format!(
                    "{} in {to} has the same id and another content",
                    same.file
                ))
                .hint("use another store"));
        }
        let incomplete = there.lineage(same).check().err();
        return Ok(Step {
            warning: incomplete.map(|e| format!("{} in {to} is incomplete: {e}", same.file)),
            ..Step::skip(image, &format!("it is there already: {}", same.file))
        });
    }
    let part_len = match request.split {
        None | Some(Split::Auto) => request.to.as_deref().and_then(longest_part),
        Some(split) => asked(split),
    };
    let (parent, reason) = match image.header.parent {
        None => (None, None),
        Some(_) if request.full => (None, Some("as asked for".to_owned())),
        Some(parent) => match parent_there(image, parent, there) {
            Ok(parent) => (Some(parent), None),
            Err(why) => (None, Some(why)),
        },
    };
    Step::write(image, parent, taken, (part_len, keys), reason)
}

/// The image in `there` that `image` can build on, or why there is none.
fn parent_there<'a>(
    image: &Image,
    parent: Parent,
    there: &'a Catalog,
) -> Result<&'a Image, String> {
    let Some(found) = there.by_id(parent.id).filter(|i| i.root == parent.root) else {
        return Err(format!(
            "its parent, number {}, is not there",
            parent.sequence
        ));
    };
    let copy = Image {
        header: header_with(image, Some(found)),
        ..image.clone()
    };
    match there.lineage(&copy).check() {
        Ok(()) => Ok(found),
        Err(e) => Err(format!("its parent there cannot be built on: {e}")),
    }
}

fn into_pipe(image: &Image, keys: CopyKeys) -> Result<Step> {
    let reason = image
        .header
        .parent
        .map(|_| "it goes into a pipe".to_owned());
    let mut step = Step::write(image, None, &[], (None, keys), reason)?;
    if let Some(new) = &mut step.new {
        new.file = FileName::new(PIPE)?;
    }
    Ok(step)
}

/// The length of parts that a person asked for.
fn asked(split: Split) -> Option<u64> {
    match split {
        Split::Parts(len) => Some(len),
        Split::Auto | Split::Whole => None,
    }
}

impl Step {
    /// The parts and keys of the new file; keys that are `new` are made when they are first needed.
    pub(super) fn stored(&self, new: &mut NewKeySet<'_>) -> Result<Form> {
        Ok(Form {
            part_len: self.part_len,
            keys: new.of(&self.keys)?,
        })
    }

    fn skip(image: &Image, why: &str) -> Step {
        Step {
            id: image.header.id,
            new: None,
            part_len: None,
            keys: CopyKeys::None,
            reason: Some(why.to_owned()),
            warning: None,
        }
    }

    fn write(
        image: &Image,
        parent: Option<&Image>,
        taken: &[FileName],
        (part_len, keys): (Option<u64>, CopyKeys),
        reason: Option<String>,
    ) -> Result<Step> {
        let header = header_with(image, parent);
        let new = Image {
            file: free_name(taken, image, header.kind, keys.is_some())?,
            header,
            ..image.clone()
        };
        Ok(Step {
            id: image.header.id,
            new: Some(new),
            part_len,
            keys,
            reason,
            warning: None,
        })
    }
}

fn planned(
    request: &CopyRequest,
    image: &Image,
    step: &Step,
    destination: &Destination<'_>,
    stays: &HashMap<Uuid, String>,
) -> PlannedCopy {
    let new = step.new.as_ref();
    let header = new.map_or(&image.header, |new| &new.header);
    let anew = request.recompress.filter(|_| new.is_some());
    let (action, removes) = match (destination, new) {
        (Destination::Same, Some(_)) => ("replace", true),
        (Destination::Same, None) => ("skip", false),
        (_, Some(_)) => ("copy", request.remove_old),
        (_, None) => ("skip", request.remove_old),
    };
    let stays = stays.get(&step.id).cloned();
    PlannedCopy {
        image: ImageRecord::of(image),
        action,
        reason: step.reason.clone(),
        file: new.map(|new| new.file.to_string()),
        kind: header.kind.name(),
        parent: header.parent.map(|p| p.id.to_string()),
        compression: anew.map(|how| how.to_string()),
        part_bytes: step.part_len,
        encrypted: step.keys.is_some(),
        removes: removes && stays.is_none(),
        stays,
    }
}

/// Those of `ids` that must stay in `source`, and why.
pub(super) fn staying(source: &Catalog, records: &Records, ids: &[Uuid]) -> HashMap<Uuid, String> {
    let is_protected = |id: &Uuid| records.protected.contains_key(id);
    let unwanted: HashSet<Uuid> = ids.iter().filter(|id| !is_protected(id)).copied().collect();
    let goes: HashSet<Uuid> = plan_removal(source, &unwanted).remove.into_iter().collect();
    let reason = |id: &Uuid| match is_protected(id) {
        true => "it is protected".to_owned(),
        false => "others build on it".to_owned(),
    };
    let stay = ids.iter().filter(|id| !goes.contains(id));
    stay.map(|id| (*id, reason(id))).collect()
}

/// Warns when the copies, each about as long as what it is made of, may not fit. Where each takes the place of
/// another file, room is needed for one at a time.
fn nearly_full(
    source: &Catalog,
    steps: &[Step],
    plan: &CopyPlan,
    one_at_a_time: bool,
) -> Option<String> {
    let free = plan.free_bytes?;
    let lengths = steps.iter().filter_map(|s| s.new.as_ref()).map(|new| {
        let old = source.by_id(new.header.id)?;
        let lineage = source.lineage(old);
        let parent = new.header.parent_sequence();
        let newer = lineage.images.iter().filter(|i| i.header.sequence > parent);
        Some(newer.map(|i| i.len).fold(0, u64::saturating_add))
    });
    let needed = match one_at_a_time {
        true => lengths.flatten().max().unwrap_or(0),
        false => lengths.flatten().fold(0, u64::saturating_add),
    };
    (free < needed).then(|| {
        format!(
            "{} has {} free and up to {} are needed there",
            plan.to,
            ByteLen(free),
            ByteLen(needed)
        )
    })
}
