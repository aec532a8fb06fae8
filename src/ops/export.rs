//! An image as a raw disk: into a new file, or as a stream.

use super::partitions::{layout_of, numbered};
use super::restore::{self, RestoreRequest};
use super::{Context, Library};
use crate::base::{ByteOffset, Error, ErrorKind, Event, Extent, Phase, Result, to_u64, to_usize};
use crate::pipeline::{Extracted, extract, untouched};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The image.
    pub image: String,
    /// The store's folder.
    pub store: Option<PathBuf>,
    /// One partition instead of the whole disk.
    pub partition: Option<u32>,
}

/// What an export did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// The file; `-` for a stream.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Zeros are written in pieces of this length.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Writes the disk into a new sparse file.
///
/// # Errors
/// `Refused` when the file exists; otherwise as a restore.
pub fn to_file(
    context: &Context<'_>,
    request: &ExportRequest,
    file: String,
) -> Result<ExportReport> {
    let prepared = restore::prepare(
        context,
        &RestoreRequest {
            image: request.image.clone(),
            store: request.store.clone(),
            target: file,
            partition: request.partition.map(|n| (n, None)),
            only_changed: false,
            salvage: false,
            holds: None,
            read_back: true,
        },
    )?;
    if !prepared.preview.target.created {
        return Err(Error::new(
            ErrorKind::Refused,
            "export to",
            prepared.preview.target.name.clone(),
        )
        .because("it exists")
        .hint("name a new file, or use `strata restore` to overwrite a disk"));
    }
    let bytes = prepared.preview.source.length;
    let report = prepared.run(context)?;
    Ok(ExportReport {
        file: report.target,
        bytes,
        warnings: report.warnings,
    })
}

/// Writes the disk into `out`, front to back.
///
/// # Errors
/// `NotFound`, `Damaged` at the first block that is lost, `Destination` when `out` fails.
pub fn to_stream(
    context: &Context<'_>,
    request: &ExportRequest,
    out: &mut dyn Write,
) -> Result<ExportReport> {
    let found = Library::open(context, request.store.as_deref())?.find(&request.image)?;
    found.check_lineage()?;
    let view = &found.view;
    let image = view.image();
    let header = image.header();
    let wanted = match request.partition {
        None => header.extent_of(&(0..header.blocks())),
        Some(number) => {
            let layout = layout_of(view)?;
            numbered(&layout, number, image.name())?.extent()
        }
    };
    let size = header.block_size.bytes();
    let blocks = wanted.start.0 / size..wanted.end().0.div_ceil(size);
    let observer = context.observer;
    let phase = Phase::Export;
    observer.event(Event::PhaseStarted {
        phase,
        bytes: Some(wanted.len.0),
    });
    extract(
        view,
        blocks,
        None,
        context.resources(),
        &untouched,
        |extracted, ()| {
            let (extent, data) = match extracted {
                Extracted::Lost { error, .. } => return Err(error.clone()),
                Extracted::Window(window) => {
                    if let Some(error) = &window.error {
                        return Err(error.clone());
                    }
                    let first = window.first.0;
                    let blocks = first..first + to_u64(window.blocks.len());
                    (header.extent_of(&blocks), Some(&*window.data))
                }
                Extracted::Run { first, count, .. } | Extracted::Unwanted { first, count } => {
                    (header.extent_of(&(first.0..first.0 + count)), None)
                }
            };
            let Some(part) = extent.intersect(wanted) else {
                return Ok(());
            };
            context.rates.write(to_usize(part.len.0))?;
            write_part(out, extent.start, part, data)?;
            observer.event(Event::Advanced { bytes: part.len.0 });
            context.cancel.check()
        },
    )?;
    out.flush().map_err(stream_error)?;
    observer.event(Event::PhaseFinished { phase });
    Ok(ExportReport {
        file: "-".to_owned(),
        bytes: wanted.len.0,
        warnings: Vec::new(),
    })
}

fn write_part(
    out: &mut dyn Write,
    start: ByteOffset,
    part: Extent,
    data: Option<&[u8]>,
) -> Result<()> {
    if let Some(data) = data {
        let from = to_usize(part.start.0 - start.0);
        return out
            .write_all(&data[from..from + to_usize(part.len.0)])
            .map_err(stream_error);
    }
    let mut left = part.len.0;
    while left > 0 {
        let count = left.min(to_u64(ZEROS.len()));
        out.write_all(&ZEROS[..to_usize(count)])
            .map_err(stream_error)?;
        left -= count;
    }
    Ok(())
}

fn stream_error(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Destination, "write to", "standard output").caused_by(e)
}
