//! Is an image whole, and is it what a disk holds?

use super::take::{TakeOptions, take};
use super::{Context, Found, Library};
use crate::base::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Phase, Result, normalize};
use crate::block::BlockSource;
use crate::chain::Catalog;
use crate::device::{self, Inventory};
use crate::image::{ByteRange, ImageReader};
use crate::layout;
use crate::pipeline::{self, Compared, Damage, Depth, Masked, ReadBlocks, Selection};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// Images; none means every one of the store.
    pub images: Vec<String>,
    /// The store's folder.
    pub store: Option<PathBuf>,
    /// How closely.
    pub depth: Depth,
    /// A disk to compare with.
    pub against: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// One for each image.
    pub images: Vec<Verified>,
    /// Where the disk differs from the image; absent without `--against`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<ByteRange>>,
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
    /// Whether every block was compared with its digest.
    pub deep: bool,
    /// What is wrong, and which bytes of the disk it costs.
    pub damage: Vec<DamageRecord>,
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
    /// What is wrong.
    pub what: String,
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

/// Verifies images and, if asked, compares one with a disk.
///
/// # Errors
/// `NotFound`, `Usage`, `Source` when the disk cannot be read, `Interrupted` or `Terminated`. Damage
/// and differences are in the report.
pub fn verify(context: &Context<'_>, request: &VerifyRequest) -> Result<VerifyReport> {
    let library = Library::open(request.store.as_deref())?;
    if let Some(source) = &request.against {
        return against(context, &library, request, source);
    }
    let mut images = Vec::new();
    if request.images.is_empty() {
        let Catalog {
            images: whole,
            broken,
        } = library.catalog()?;
        for image in whole {
            let file = image.file.to_string();
            images.push(match library.open_image(image) {
                Ok(found) => verify_one(context, &found, request.depth)?,
                Err(e) => unopened(&file, &e),
            });
        }
        images.extend(broken.iter().map(|b| unopened(b.file.as_str(), &b.error)));
    }
    for wanted in &request.images {
        images.push(match library.find(wanted) {
            Ok(found) => verify_one(context, &found, request.depth)?,
            Err(e) if e.kind() == ErrorKind::Damaged => unopened(wanted, &e),
            Err(e) => return Err(e),
        });
    }
    Ok(VerifyReport {
        images,
        differences: None,
    })
}

fn verify_one(context: &Context<'_>, found: &Found, depth: Depth) -> Result<Verified> {
    let damage = pipeline::verify(&found.reader, depth, context.resources())?;
    Ok(Verified {
        id: Some(found.image.header.id.to_string()),
        file: found.image.file.to_string(),
        ok: damage.is_empty(),
        deep: depth == Depth::Deep,
        damage: damage.iter().map(record).collect(),
        message: None,
    })
}

fn record(damage: &Damage) -> DamageRecord {
    DamageRecord {
        start: damage.extent.start.0,
        length: damage.extent.len.0,
        what: damage.what.clone(),
    }
}

fn unopened(file: &str, error: &Error) -> Verified {
    Verified {
        id: None,
        file: file.to_owned(),
        ok: false,
        deep: false,
        damage: Vec::new(),
        message: Some(error.to_string()),
    }
}

fn against(
    context: &Context<'_>,
    library: &Library,
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
    let disk = claim.source();
    let verified = verify_one(context, &found, request.depth)?;
    let differences = if verified.ok {
        Some(compare(context, &found.reader, &disk)?)
    } else {
        None
    };
    Ok(VerifyReport {
        images: vec![verified],
        differences,
    })
}

fn compare(
    context: &Context<'_>,
    image: &ImageReader,
    disk: &Arc<dyn BlockSource>,
) -> Result<Vec<ByteRange>> {
    let header = image.header();
    let selection = selection_like(context, image, disk)?;
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
        phase: Phase::Compare,
    };
    let mut differences = pipeline::compare(image, &blocks, &what, context.resources())?;
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

/// The sum of ranges, for a sentence.
pub fn total(ranges: &[ByteRange]) -> ByteLen {
    ByteLen(ranges.iter().map(|r| r.length).fold(0, u64::saturating_add))
}
