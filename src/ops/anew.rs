//! An image written once more: the same id, place, sections and root digest in another file.

use super::Context;
use super::place::{file_name, label};
use crate::base::{Error, ErrorKind, Event, Phase, Result};
use crate::chain::{ChainView, Image, Lineage, SUFFIX};
use crate::image::{
    Compression, Finished, Header, ImageReader, ImageWriter, Kind, Parent, USUAL_LEVEL,
};
use crate::pipeline::{Depth, Rewriting, Rewritten, Sample, rewrite, verify_file};
use crate::store::{FileName, Form, Store};
use std::io::Write;
use std::sync::Arc;

/// The header of `image` with another parent, or with none.
pub(super) fn header_with(image: &Image, parent: Option<&Image>) -> Header {
    Header {
        kind: match parent {
            None => Kind::Full,
            Some(_) => image.header.kind,
        },
        parent: parent.map(|p| Parent {
            id: p.header.id,
            sequence: p.header.sequence,
            root: p.root,
        }),
        ..image.header.clone()
    }
}

/// How frames of `image` are stored that are put together anew, unless asked otherwise.
pub(super) fn compression_of(image: &Image) -> Compression {
    let as_before = Compression::parse(&image.info.compression);
    as_before.unwrap_or(Compression::Zstd(USUAL_LEVEL))
}

/// The usual name of an image's file, which may be `encrypted`, with a number where it is one of `taken`.
///
/// # Errors
/// `Usage` when the name of the set, which may come from anywhere, does not fit a file name.
pub(super) fn free_name(
    taken: &[FileName],
    image: &Image,
    kind: Kind,
    encrypted: bool,
) -> Result<FileName> {
    let (info, sequence) = (&image.info, image.header.sequence);
    let label = label(&info.set, image.header.set, encrypted);
    let usual = file_name(&label, sequence, info.created, kind);
    let stem = usual.strip_suffix(SUFFIX).unwrap_or(&usual);
    let numbered = (2u32..).map(|n| format!("{stem}-{n}{SUFFIX}"));
    let mut names = std::iter::once(usual.clone()).chain(numbered);
    let free = names.find(|name| !taken.iter().any(|t| t.as_str() == name));
    FileName::new(free.unwrap_or(usual))
}

/// The names of all files of `store`.
pub(super) fn names_in(store: &dyn Store) -> Result<Vec<FileName>> {
    Ok(store.list()?.into_iter().map(|e| e.name).collect())
}

/// Writes the image of `view` with `header`, whose parent may be an older one than it has, into `sink`, which
/// is called `name` in messages.
///
/// # Errors
/// `Damaged` when something that is needed cannot be read, `Destination`, `Interrupted`, `Terminated`.
pub(super) fn write_into<W: Write>(
    context: &Context<'_>,
    view: &ChainView,
    header: Header,
    form: Rewriting,
    sink: W,
    name: &str,
) -> Result<(W, Finished, Rewritten)> {
    let image = view.image();
    let sections = image.sections()?;
    let mut writer = ImageWriter::start_rewrite(sink, name, header, &sections)?;
    let rewritten = rewrite(view, form, &mut writer, context.resources())?;
    let (sink, finished) = writer.finish_rewrite(&sections)?;
    if finished.root != image.root() {
        return Err(
            Error::new(ErrorKind::Internal, form.phase.name(), image.name())
                .because("its content would not be the same; nothing was changed"),
        );
    }
    context.cancel.check()?;
    Ok((sink, finished, rewritten))
}

/// A new file of an image in a store.
pub(super) struct NewFile<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) name: &'a FileName,
    pub(super) header: Header,
    /// Its parts and keys.
    pub(super) form: Form,
}

/// Writes the image of `view` into `file`, and publishes it.
///
/// # Errors
/// As [`write_into`]; then nothing is left of it.
pub(super) fn publish(
    context: &Context<'_>,
    view: &ChainView,
    form: Rewriting,
    file: NewFile<'_>,
) -> Result<Rewritten> {
    let upload = file.store.create_as(file.name, &file.form)?;
    let name = file.name.as_str();
    let (upload, _, rewritten) = write_into(context, view, file.header, form, upload, name)?;
    let phase = Phase::Sync;
    context
        .observer
        .event(Event::PhaseStarted { phase, bytes: None });
    upload.publish()?;
    context.observer.event(Event::PhaseFinished { phase });
    Ok(rewritten)
}

/// The image in the file `name` of `store`, opened now.
pub(super) fn opened(store: &Arc<dyn Store>, name: &FileName) -> Result<Image> {
    let reader = ImageReader::open(store.open(name)?)?;
    Ok(Image::of(name.clone(), &reader))
}

/// Whether the file of the youngest image of `lineage` is whole, and all that it needs of older ones
/// there.
///
/// # Errors
/// `Damaged` when not; `NotFound`, `Interrupted`, `Terminated`.
pub(super) fn check(
    context: &Context<'_>,
    store: &Arc<dyn Store>,
    lineage: Lineage,
    depth: Depth,
) -> Result<()> {
    lineage.check()?;
    let view = ChainView::open(Arc::clone(store), lineage)?;
    let image = view.image();
    let damage = verify_file(image, &view, depth, Sample::ALL, context.resources())?;
    match damage.first() {
        None => Ok(()),
        Some(first) => {
            Err(Error::new(ErrorKind::Damaged, "trust", image.name()).because(first.what.clone()))
        }
    }
}
