//! Is every byte what it was when it was written?

use super::Resources;
use super::extract::{Extracted, Job, Part, check_resources, each_part, untouched};
use super::fetching::{FromFrames, with_fetchers};
use super::ordered;
use super::stream::extract_stream;
use crate::base::{AlignedBuf, BlockIndex, ByteLen, Error, Event, Extent, Observer, Phase, Result};
use crate::image::{
    BlockTable, Ending, FilePiece, FrameReader, FrameRef, Header, ImageReader, ImageStream, Leaf,
    OlderFiles, Source, Window, mismatch, span_of,
};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Structure, every table page's digest and every frame's checksum.
    Quick,
    /// Also decode every frame and compare every block with its digest.
    Deep,
}

/// Something wrong, and the bytes of the disk it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Bytes of the disk that cannot be restored; empty when the damage costs none.
    pub extent: Extent,
    /// What is wrong, in words.
    pub what: String,
}

/// How much of a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Every how many-th frame is read; 1 is all of them.
    pub every: u64,
    /// Which of these, below `every`: another one each time covers all in the end.
    pub offset: u64,
}

impl Sample {
    /// All frames.
    pub const ALL: Sample = Sample {
        every: 1,
        offset: 0,
    };
}

/// Checks the file `image` behind what opening it has checked: that every byte of it is accounted for,
/// every table page and, of the frames in `sample`, every one; and that what it has in older images is
/// there, as `older` says. An empty answer means that nothing is wrong.
///
/// # Errors
/// `Interrupted` or `Terminated` when cancelled; that too many files are open.
pub fn verify_file(
    image: &Arc<ImageReader>,
    older: &dyn OlderFiles,
    depth: Depth,
    sample: Sample,
    resources: Resources<'_>,
) -> Result<Vec<Damage>> {
    let costless = |what: &String| Damage {
        extent: Extent::default(),
        what: what.clone(),
    };
    let mut damage: Vec<Damage> = image.findings().iter().map(costless).collect();
    let header = image.header();
    let observer = resources.observer;
    let (phase, bytes) = (Phase::Verify, Some(image.file_len()));
    observer.event(Event::PhaseStarted { phase, bytes });
    let mut frame_number = 0;
    ordered::run(
        resources.threads,
        resources.tickets(header.window_len()),
        |emit| {
            with_fetchers(|bring| {
                image.walk(&mut |piece| {
                    resources.cancel.check()?;
                    let leaf = match piece {
                        FilePiece::Leaf(leaf) => leaf,
                        other => {
                            return match look_at(other, header, older)? {
                                Some(damage) => emit.ready((vec![damage], 0)),
                                None => Ok(()),
                            };
                        }
                    };
                    let missing = older.missing(&leaf);
                    check_resources(missing.iter().map(|(_, error)| error))?;
                    let missing = losses(header, missing);
                    if !missing.is_empty() {
                        emit.ready((missing, 0))?;
                    }
                    for frame in leaf.frames.iter().copied() {
                        frame_number += 1;
                        if frame_number % sample.every.max(1) == sample.offset {
                            bring(Frame::of(image, &leaf, frame), emit)?;
                        } else {
                            emit.ready((vec![], frame.record_len()))?;
                        }
                    }
                    Ok(())
                })
            })
        },
        || {
            let mut reader = FrameReader::new()?;
            Ok(move |frame: Frame| {
                let found = frame.check(header, depth, &mut reader)?;
                Ok((found, frame.frame.record_len()))
            })
        },
        |(found, bytes)| {
            resources.cancel.check()?;
            found.into_iter().for_each(|d| add(&mut damage, d));
            observer.event(Event::Advanced { bytes });
            Ok(())
        },
    )?;
    observer.event(Event::PhaseFinished { phase });
    Ok(damage)
}

/// Checks all that is needed to read the disk that `table` stands for, and nothing else.
///
/// # Errors
/// `Interrupted` or `Terminated` when cancelled; that too many files are open.
pub fn verify_disk(
    table: &dyn BlockTable,
    range: Range<u64>,
    depth: Depth,
    resources: Resources<'_>,
) -> Result<Vec<Damage>> {
    let header = table.header();
    let mut damage = Vec::new();
    let observer: &dyn Observer = resources.observer;
    let (phase, bytes) = (Phase::Verify, Some(header.extent_of(&range).len.0));
    observer.event(Event::PhaseStarted { phase, bytes });
    ordered::run(
        resources.threads,
        resources.tickets(header.window_len()),
        |emit| {
            with_fetchers(|bring| {
                each_part(table, range, &mut |part| {
                    resources.cancel.check()?;
                    match part {
                        Part::Run { blocks, .. } => {
                            emit.ready((vec![], header.extent_of(&blocks).len.0))
                        }
                        Part::Lost { blocks, error } => {
                            let extent = header.extent_of(&blocks);
                            let what = error.to_string();
                            emit.ready((vec![Damage { extent, what }], extent.len.0))
                        }
                        Part::Window(job) => bring(job, emit),
                    }
                })
            })
        },
        || {
            let (mut reader, mut buffer) = (FrameReader::new()?, AlignedBuf::default());
            Ok(move |job: Job| {
                let found = check_window(header, &job, depth, &mut reader, &mut buffer)?;
                Ok((found, header.extent_of(&job.blocks).len.0))
            })
        },
        |(found, bytes)| {
            resources.cancel.check()?;
            found.into_iter().for_each(|d| add(&mut damage, d));
            observer.event(Event::Advanced { bytes });
            Ok(())
        },
    )?;
    observer.event(Event::PhaseFinished { phase });
    Ok(damage)
}

/// What is wrong with a piece that is no leaf.
///
/// # Errors
/// That too many files are open.
fn look_at(piece: FilePiece, header: &Header, older: &dyn OlderFiles) -> Result<Option<Damage>> {
    let (extent, error) = match piece {
        FilePiece::Leaf(_) => return Ok(None),
        FilePiece::Misplaced(error) => (Extent::default(), error),
        FilePiece::Lost {
            first,
            count,
            error,
        } => (header.extent_of(&(first.0..first.0 + count)), error),
        FilePiece::Older {
            level,
            index,
            child,
        } => {
            let Err(error) = older.has_page(level, index, &child) else {
                return Ok(None);
            };
            let first = index * span_of(level);
            let end = (first + span_of(level)).min(header.blocks());
            (header.extent_of(&(first..end)), error)
        }
    };
    check_resources([&error])?;
    let what = error.to_string();
    Ok(Some(Damage { extent, what }))
}

/// Blocks that are lost, as ranges.
fn losses(header: &Header, blocks: Vec<(BlockIndex, Error)>) -> Vec<Damage> {
    let mut damage = Vec::new();
    for (block, error) in blocks {
        let lost = Damage {
            extent: header.extent_of(&(block.0..block.0 + 1)),
            what: error.to_string(),
        };
        add(&mut damage, lost);
    }
    damage
}

/// Neighbouring losses are one loss to a person; the first explanation stands for them.
fn add(damage: &mut Vec<Damage>, new: Damage) {
    match damage.last_mut() {
        Some(last)
            if !new.extent.is_empty()
                && !last.extent.is_empty()
                && last.extent.end() == new.extent.start =>
        {
            last.extent.len = ByteLen(last.extent.len.0 + new.extent.len.0);
        }
        _ => damage.push(new),
    }
}

/// A frame to look at, of `leaf`.
struct Frame {
    leaf: Arc<Leaf>,
    frame: FrameRef,
    source: Source,
}

impl FromFrames for Frame {
    fn sources(&mut self) -> &mut [Source] {
        std::slice::from_mut(&mut self.source)
    }
}

impl Frame {
    fn of(image: &Arc<ImageReader>, leaf: &Arc<Leaf>, frame: FrameRef) -> Frame {
        Frame {
            leaf: Arc::clone(leaf),
            frame,
            source: Source {
                wanted: frame.mask,
                frame: Ok((Arc::clone(image) as _, frame)),
            },
        }
    }

    fn check(
        &self,
        header: &Header,
        depth: Depth,
        reader: &mut FrameReader,
    ) -> Result<Vec<Damage>> {
        let frame = &self.frame;
        let source = self.source.frame.as_ref().map_err(Error::clone);
        let read = source.and_then(|(image, frame)| {
            match depth {
                Depth::Quick => reader.check(image.as_ref(), frame)?,
                Depth::Deep => reader.read(image.as_ref(), frame)?,
            }
            Ok(image)
        });
        let lost: Vec<(BlockIndex, Error)> = match read {
            Err(error) => {
                check_resources([&error])?;
                frame.blocks().map(|b| (b, error.clone())).collect()
            }
            Ok(_) if depth == Depth::Quick => return Ok(Vec::new()),
            Ok(image) => {
                let wrong = reader.wrong_blocks(frame, &self.leaf, header.block_size);
                let mismatch = |block| (block, mismatch(image.as_ref(), frame));
                wrong.map(mismatch).collect()
            }
        };
        Ok(losses(header, lost))
    }
}

/// The blocks of a window that are lost, and why.
fn lost_of(window: &Window) -> Vec<(BlockIndex, Error)> {
    let error = window.error.iter().cycle();
    window.lost.iter().copied().zip(error.cloned()).collect()
}

/// Checks everything of an image that comes out of a pipe: as a whole, and every block against its
/// digest.
///
/// # Errors
/// `Damaged` when it is no image, incomplete, or its structure is damaged: nothing behind that can be
/// looked at. `Interrupted` or `Terminated` when cancelled. Damaged blocks are in the answer.
pub fn verify_stream<R: Read + Send>(
    stream: &mut ImageStream<R>,
    resources: Resources<'_>,
) -> Result<(Vec<Damage>, Ending)> {
    let header = stream.beginning().header.clone();
    let mut damage = Vec::new();
    let observer = resources.observer;
    let (phase, bytes) = (Phase::Verify, Some(header.disk_len.0));
    observer.event(Event::PhaseStarted { phase, bytes });
    let ending = extract_stream(
        stream,
        0..header.blocks(),
        resources,
        &untouched,
        |extracted, ()| {
            let blocks = extracted.blocks();
            if let Extracted::Window(window) = extracted {
                let found = losses(&header, lost_of(window));
                found.into_iter().for_each(|d| add(&mut damage, d));
            }
            let bytes = header.extent_of(&blocks).len.0;
            observer.event(Event::Advanced { bytes });
            Ok(())
        },
    )?;
    observer.event(Event::PhaseFinished { phase });
    Ok((damage, ending))
}

fn check_window(
    header: &Header,
    job: &Job,
    depth: Depth,
    reader: &mut FrameReader,
    buffer: &mut AlignedBuf,
) -> Result<Vec<Damage>> {
    let lost = match depth {
        Depth::Deep => {
            let window = job.read(header, reader, std::mem::take(buffer));
            check_resources(&window.error)?;
            let lost = lost_of(&window);
            *buffer = window.data;
            lost
        }
        Depth::Quick => {
            let mut lost = Vec::new();
            for source in &job.sources {
                let checked = match &source.frame {
                    Ok((image, frame)) => reader.check(image.as_ref(), frame),
                    Err(error) => Err(error.clone()),
                };
                if let Err(error) = checked {
                    check_resources([&error])?;
                    let bits = (0..64).filter(|bit| source.wanted >> bit & 1 == 1);
                    let first = job.blocks.start;
                    lost.extend(bits.map(|bit: u64| (BlockIndex(first + bit), error.clone())));
                }
            }
            lost.sort_by_key(|(block, _)| *block);
            lost
        }
    };
    Ok(losses(header, lost))
}
