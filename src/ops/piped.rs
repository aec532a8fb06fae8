//! An image that comes out of a pipe, read once.

use super::partitions::valid_layout;
use super::show::{Shown, of_image};
use super::verify::{Verified, VerifyReport};
use super::{Context, ImageRecord, random};
use crate::base::{
    ByteLen, ByteOffset, Cancel, Error, ErrorKind, Extent, Geometry, Rates, Result, to_u64,
    to_usize,
};
use crate::block::BlockSource;
use crate::chain::Image;
use crate::crypt::{DecryptReader, EncryptWriter, KeySet};
use crate::image::{Beginning, Ending, ImageReader, ImageStream, RawTable};
use crate::layout::{self, Layout};
use crate::pipeline::{Depth, verify_stream};
use crate::store::{FileName, write_error};
use crate::sys;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

/// What stands for standard input or output instead of a file or a store.
pub const PIPE: &str = "-";
/// What standard output is called in messages.
pub(super) const PIPE_NAME: &str = "standard output";

/// How long a pipe that has nothing to say is waited for before it is asked whether to go on.
const PATIENCE_MS: u16 = 200;
/// Reads ask for so much: what the reader takes in pieces of a few bytes comes from here.
const BUFFER: usize = 1 << 20;

/// A pipe whose reader can be stopped while nothing comes.
pub struct PipeInput<'a> {
    file: File,
    cancel: &'a Cancel,
    rates: Rates,
}

impl<'a> PipeInput<'a> {
    /// Reads from `file`; `cancel` ends that.
    pub fn new(file: File, cancel: &'a Cancel) -> PipeInput<'a> {
        PipeInput {
            file,
            cancel,
            rates: Rates::default(),
        }
    }
}

impl Read for PipeInput<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.cancel.check().map_err(io::Error::other)?;
            if sys::is_readable(&self.file, PATIENCE_MS)? {
                let count = self.file.read(buf)?;
                self.rates.read(count).map_err(io::Error::other)?;
                return Ok(count);
            }
        }
    }
}

/// A pipe that an image is written into, encrypted where it has keys.
pub(super) enum PipeOutput<'a> {
    Plain(PacedOutput<'a>),
    Encrypted(Box<EncryptWriter<PacedOutput<'a>>>),
}

/// A pipe that is written into at the rate that is allowed.
pub(super) struct PacedOutput<'a> {
    out: &'a mut dyn Write,
    rates: Rates,
}

impl Write for PacedOutput<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.rates.write(buf.len()).map_err(io::Error::other)?;
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<'a> PipeOutput<'a> {
    /// Into `out`, with `keys`.
    ///
    /// # Errors
    /// `Destination` when `out` fails.
    pub(super) fn new(
        context: &Context<'_>,
        out: &'a mut dyn Write,
        keys: Option<&KeySet>,
    ) -> Result<PipeOutput<'a>> {
        let out = PacedOutput {
            out,
            rates: context.rates.clone(),
        };
        let Some(keys) = keys else {
            return Ok(PipeOutput::Plain(out));
        };
        let writer = EncryptWriter::new(out, keys, &context.keys, random)?;
        let writer = writer.map_err(|e| write_error(PIPE_NAME, e))?;
        Ok(PipeOutput::Encrypted(Box::new(writer)))
    }

    /// Writes what is still to be written.
    ///
    /// # Errors
    /// As [`PipeOutput::new`].
    pub(super) fn finish(self) -> Result<()> {
        match self {
            PipeOutput::Plain(_) => Ok(()),
            PipeOutput::Encrypted(writer) => {
                let finished = writer.finish();
                finished.map(drop).map_err(|e| write_error(PIPE_NAME, e))
            }
        }
    }
}

impl Write for PipeOutput<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            PipeOutput::Plain(out) => out.write(buf),
            PipeOutput::Encrypted(writer) => writer.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            PipeOutput::Plain(out) => out.flush(),
            PipeOutput::Encrypted(writer) => writer.flush(),
        }
    }
}

/// The image in a pipe.
pub(super) type Piped<'a> = ImageStream<DecryptReader<BufReader<PipeInput<'a>>>>;

/// Reads the beginning of the image in `input`.
///
/// # Errors
/// `Damaged` when it is none, or not full; `WrongKey` when no key at hand opens it.
pub(super) fn open<'a>(context: &Context<'_>, mut input: PipeInput<'a>) -> Result<Piped<'a>> {
    input.rates = context.rates.clone();
    let name = "the image in the pipe";
    let input = BufReader::with_capacity(BUFFER, input);
    let input = DecryptReader::new(input, name, &context.keys).map_err(|e| {
        e.downcast::<Error>().unwrap_or_else(|e| {
            Error::new(ErrorKind::Damaged, "read", name)
                .caused_by(e)
                .hint("what writes into the pipe has failed or was stopped")
        })
    })?;
    ImageStream::open(input, name)
}

/// Verifies the image in `input`, and every block of it.
///
/// # Errors
/// `Damaged` when it is no image, incomplete, or its structure is damaged; `Interrupted`, `Terminated`.
/// Damaged blocks are in the report.
pub fn verify(context: &Context<'_>, input: PipeInput<'_>) -> Result<VerifyReport> {
    let mut stream = open(context, input)?;
    let (damage, ending) = verify_stream(&mut stream, context.resources())?;
    let image = image_of(&stream, &ending)?;
    Ok(VerifyReport {
        images: vec![Verified::of(&image, &damage, Depth::Deep)],
        skipped: Vec::new(),
        differences: None,
        warnings: Vec::new(),
    })
}

/// Describes the image in `input`, which is verified on the way: what it says of itself comes last.
///
/// # Errors
/// As [`verify`]; `Damaged` also for damaged blocks.
pub fn show(context: &Context<'_>, input: PipeInput<'_>) -> Result<Shown> {
    let mut stream = open(context, input)?;
    let (damage, ending) = verify_stream(&mut stream, context.resources())?;
    let beginning = stream.beginning();
    let image = image_of(&stream, &ending)?;
    let tables = TablesSource::of(beginning);
    let layout = layout_of(beginning, &tables)?;
    let damage = damage.into_iter().map(|d| d.what).collect();
    Ok(of_image(
        ImageRecord::of(&image),
        &beginning.info,
        &ending.summary,
        layout,
        damage,
    ))
}

fn image_of(stream: &Piped<'_>, ending: &Ending) -> Result<Image> {
    let beginning = stream.beginning();
    Ok(Image {
        key_set: stream.input().key_set(),
        file: FileName::new(PIPE)?,
        len: ending.len,
        header: beginning.header.clone(),
        root: ending.root,
        info: Arc::new(beginning.info.clone()),
    })
}

/// The layout that the image carries, or a new reading of its raw partition tables.
///
/// # Errors
/// `Damaged`, `Refused` when these are not all that would have to be read.
pub(super) fn layout_of(beginning: &Beginning, tables: &TablesSource<'_>) -> Result<Layout> {
    let stored = valid_layout(&beginning.info, &beginning.header);
    stored.map_or_else(|| layout::read(tables), Ok)
}

/// The imaged disk as far as it is known before its content comes: the raw partition tables.
pub(super) struct TablesSource<'a> {
    name: &'a str,
    tables: &'a [RawTable],
    geometry: Geometry,
}

impl<'a> TablesSource<'a> {
    pub(super) fn of(beginning: &'a Beginning) -> TablesSource<'a> {
        TablesSource {
            name: "the image in the pipe",
            tables: &beginning.tables,
            geometry: beginning.info.source.geometry(beginning.header.disk_len),
        }
    }

    /// Of an image whose content may be damaged.
    pub(super) fn of_image(image: &'a ImageReader) -> TablesSource<'a> {
        TablesSource {
            name: image.name(),
            tables: image.tables(),
            geometry: image.info().source.geometry(image.header().disk_len),
        }
    }
}

impl BlockSource for TablesSource<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let wanted = Extent {
            start: offset,
            len: ByteLen(to_u64(buf.len())),
        };
        let mut at = offset;
        while at < wanted.end() {
            let holds = |(start, bytes): &&RawTable| {
                let table = Extent::new(*start, ByteLen(to_u64(bytes.len())));
                table.is_some_and(|t| t.start <= at && at < t.end())
            };
            let Some((start, bytes)) = self.tables.iter().find(holds) else {
                return Err(
                    Error::new(ErrorKind::Refused, "look at", wanted.to_string())
                        .because("what lies there is not known before it comes out of the pipe")
                        .hint(
                            "use a target that is at least as large as the imaged disk, or restore \
                         from a folder",
                        ),
                );
            };
            let from = to_usize(at.0 - start.0);
            let done = to_usize(at.0 - offset.0);
            let count = (bytes.len() - from).min(buf.len() - done);
            buf[done..done + count].copy_from_slice(&bytes[from..from + count]);
            at = ByteOffset(at.0 + to_u64(count));
        }
        Ok(())
    }
}
