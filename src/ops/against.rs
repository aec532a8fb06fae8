//! Does a disk hold what an image holds?

use super::take::{TakeOptions, take};
use super::verify::{Verified, VerifyReport, VerifyRequest};
use super::{Context, Library};
use crate::base::{ByteOffset, Error, ErrorKind, Extent, Phase, Result, normalize};
use crate::block::BlockSource;
use crate::chain::ChainView;
use crate::device::{self, Inventory};
use crate::image::{ByteRange, ImageReader};
use crate::layout;
use crate::pipeline::{self, Compared, Masked, ReadBlocks, Selection};
use std::sync::Arc;

/// Verifies the image that `request` names and compares `source` with it.
///
/// # Errors
/// As [`verify`](super::verify::verify).
pub(super) fn against(
    context: &Context<'_>,
    library: &Library<'_>,
    request: &VerifyRequest,
    source: &str,
) -> Result<VerifyReport> {
    let wanted = match request.images.as_slice() {
        [] => "latest",
        [one] => one,
        _ => {
            return Err(Error::new(ErrorKind::Usage, "compare", source)
                .because("a disk can be compared with one image only"));
        }
    };
    let found = library.find(wanted)?;
    let inventory = Inventory::read(&context.root)?;
    let resolved = device::resolve(&inventory, source)?;
    let claim = device::claim_read(&inventory, &resolved)?;
    let disk = context.paced_source(claim.source());
    let view = &found.view;
    let blocks = view.image().header().blocks();
    let damage = pipeline::verify_disk(view, 0..blocks, request.depth, context.resources())?;
    let verified = Verified::of(&found.image, &damage, request.depth);
    let differences = if verified.ok {
        Some(compare(context, view, &disk)?)
    } else {
        None
    };
    Ok(VerifyReport {
        images: vec![verified],
        skipped: Vec::new(),
        differences,
        warnings: Vec::new(),
    })
}

fn compare(
    context: &Context<'_>,
    view: &ChainView,
    disk: &Arc<dyn BlockSource>,
) -> Result<Vec<ByteRange>> {
    let header = view.image().header();
    let selection = selection_like(context, view.image(), disk)?;
    let masked = Masked::new(disk.as_ref(), &selection);
    let common = header.disk_len.min(disk.len());
    // A block that the disk holds only a part of differs as a whole.
    let whole = if common == header.disk_len {
        header.blocks()
    } else {
        common.0 / header.block_size.bytes()
    };
    let read = |at, buf: &mut [u8]| masked.read_at(at, buf);
    let read_whole = |at, buf: &mut [u8]| disk.read_at(at, buf);
    let mapping = |at| masked.mapping(at);
    let blocks = ReadBlocks {
        read: &read,
        read_whole: Some(&read_whole),
        mapping: &mapping,
    };
    let what = Compared {
        blocks: 0..whole,
        except: vec![],
        in_use: Some(selection.take.clone()),
        unreadable: false,
        only: None,
        phase: Phase::Compare,
    };
    let mut differences = pipeline::compare(view, &blocks, &what, context.resources())?;
    let compared = header.extent_of(&(0..whole)).end();
    let longest = header.disk_len.max(disk.len());
    differences.extend(Extent::between(compared, ByteOffset(longest.0)));
    Ok(normalize(differences)
        .into_iter()
        .map(ByteRange::from)
        .collect())
}

/// What a backup of `disk` with the options of `image` would take: the bytes that are compared. Free
/// space is not, on either side.
fn selection_like(
    context: &Context<'_>,
    image: &ImageReader,
    disk: &Arc<dyn BlockSource>,
) -> Result<Selection> {
    let options = TakeOptions::of_image(&image.info().take);
    let layout = layout::read(disk.as_ref())?;
    let all_there = |number: &u32| layout.partition(*number).is_some();
    if !options.partitions.iter().all(all_there) {
        // Its partition table is another one; everything is compared, and differs.
        return Ok(Selection::everything(disk.len(), image.header().block_size));
    }
    let block_size = image.header().block_size;
    let still = |_: Extent| Ok(None);
    let taken = take(disk, &layout, block_size, &options, &still, context.cancel)?;
    Ok(taken.selection)
}
