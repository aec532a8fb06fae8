//! Image to bytes: decode frames on all workers, hand out windows in order.

use super::Resources;
use super::ordered;
use crate::base::{BlockIndex, Error, Result, to_u64, to_usize};
use crate::image::{BlockState, FrameReader, FrameRef, ImageReader, Leaf, Piece};
use std::ops::Range;
use std::sync::Arc;

/// What is handed out, in the order of the blocks.
#[derive(Debug)]
pub enum Extracted {
    /// Blocks of one state without content.
    Run {
        /// First block.
        first: BlockIndex,
        /// Number of blocks.
        count: u64,
        /// Their state.
        state: BlockState,
    },
    /// Blocks of one frame window, with content.
    Window(Window),
    /// Blocks whose table page is damaged.
    Lost {
        /// First block.
        first: BlockIndex,
        /// Number of blocks.
        count: u64,
        /// What is wrong.
        error: Error,
    },
}

/// The content of up to 64 blocks.
#[derive(Debug)]
pub struct Window {
    /// First block.
    pub first: BlockIndex,
    /// One state a block.
    pub states: Vec<BlockState>,
    /// Content of all of them; zeros where a block has none.
    pub data: Vec<u8>,
    /// Blocks whose content is damaged; zeros stand in `data`.
    pub lost: Vec<BlockIndex>,
    /// What is wrong with them.
    pub error: Option<Error>,
}

/// One frame to decode.
struct Job {
    leaf: Arc<Leaf>,
    frame: FrameRef,
    blocks: Range<u64>,
}

/// Hands every block of `range` to `sink`, in order; runs are clipped to `range`, windows are not.
/// Every block is compared with its digest first.
///
/// # Errors
/// What `sink` returns; `Interrupted` or `Terminated` when cancelled. Damage is handed to the sink.
pub fn extract(
    image: &ImageReader,
    range: Range<u64>,
    resources: Resources<'_>,
    mut sink: impl FnMut(Extracted) -> Result<()>,
) -> Result<()> {
    ordered::run(
        resources.threads,
        resources.tickets(image.header().window_len()),
        |emit| {
            image.walk(range.clone(), &mut |piece| {
                resources.cancel.check()?;
                match piece {
                    Piece::Uniform {
                        first,
                        count,
                        state,
                    } => emit_run(first.0..first.0 + count, &range, state, |e| emit.ready(e)),
                    Piece::Lost {
                        first,
                        count,
                        error,
                    } => emit.ready(Extracted::Lost {
                        first,
                        count,
                        error,
                    }),
                    // No block is lost by it; verify is who reports it.
                    Piece::Misplaced(_) => Ok(()),
                    Piece::Leaf(leaf) => split(image, &leaf, &range, |part| match part {
                        Part::Frame { frame, blocks } => emit.job(Job {
                            leaf: Arc::clone(&leaf),
                            frame,
                            blocks,
                        }),
                        Part::Run { blocks, state } => {
                            emit_run(blocks, &range, state, |e| emit.ready(e))
                        }
                    }),
                }
            })
        },
        || {
            let mut reader = FrameReader::new()?;
            Ok(move |job: Job| Ok(Extracted::Window(decode(image, &job, &mut reader))))
        },
        |extracted| {
            resources.cancel.check()?;
            sink(extracted)
        },
    )
}

fn emit_run(
    blocks: Range<u64>,
    range: &Range<u64>,
    state: BlockState,
    emit: impl FnOnce(Extracted) -> Result<()>,
) -> Result<()> {
    let start = blocks.start.max(range.start);
    let end = blocks.end.min(range.end);
    if start >= end {
        return Ok(());
    }
    emit(Extracted::Run {
        first: BlockIndex(start),
        count: end - start,
        state,
    })
}

/// A stretch of a leaf.
pub(super) enum Part {
    /// A window that has a frame.
    Frame { frame: FrameRef, blocks: Range<u64> },
    /// Blocks of one state without content.
    Run {
        blocks: Range<u64>,
        state: BlockState,
    },
}

/// Cuts a leaf into windows with a frame and runs without, in order, as far as they touch `range`.
pub(super) fn split(
    image: &ImageReader,
    leaf: &Leaf,
    range: &Range<u64>,
    mut each: impl FnMut(Part) -> Result<()>,
) -> Result<()> {
    let windows = image.header().window_blocks();
    let end = leaf.first.0 + to_u64(leaf.states.len());
    let mut frames = leaf.frames.iter().peekable();
    let mut at = leaf.first.0;
    while at < end {
        let until = frames.peek().map_or(end, |f| f.first.0);
        while at < until {
            let state = leaf.states[to_usize(at - leaf.first.0)];
            let run = leaf.states[to_usize(at - leaf.first.0)..to_usize(until - leaf.first.0)]
                .iter()
                .take_while(|s| **s == state);
            let next = at + to_u64(run.count());
            if next > range.start && at < range.end {
                each(Part::Run {
                    blocks: at..next,
                    state,
                })?;
            }
            at = next;
        }
        if let Some(frame) = frames.next() {
            let blocks = at..(at + windows).min(end);
            at = blocks.end;
            if blocks.end > range.start && blocks.start < range.end {
                each(Part::Frame {
                    frame: *frame,
                    blocks,
                })?;
            }
        }
    }
    Ok(())
}

fn decode(image: &ImageReader, job: &Job, reader: &mut FrameReader) -> Window {
    let Job {
        leaf,
        frame,
        blocks,
    } = job;
    let from = to_usize(blocks.start - leaf.first.0);
    let to = to_usize(blocks.end - leaf.first.0);
    let states = leaf.states[from..to].to_vec();
    let stored = || leaf.blocks_of(frame).into_iter().map(|(block, _, _)| block);
    let (lost, error) = match reader.read(image, leaf, frame) {
        Ok(wrong) if wrong.is_empty() => (wrong, None),
        Ok(wrong) => {
            let why = "blocks there do not match their digests";
            (wrong, Some(image.damage_in_frame(frame, why)))
        }
        Err(error) => (stored().collect(), Some(error)),
    };
    let first = BlockIndex(blocks.start);
    let size = image.header().block_size;
    let whole = image.header().extent_of(blocks);
    let data = if lost.is_empty() && states.iter().all(|s| s.is_stored()) {
        reader.exchange(Vec::new())
    } else {
        let mut data = vec![0; to_usize(whole.len.0)];
        for (block, bytes) in stored().zip(reader.blocks().chunks(size.as_usize())) {
            if !lost.contains(&block) {
                let at = to_usize(block.0 - first.0) * size.as_usize();
                data[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        data
    };
    Window {
        first,
        states,
        data,
        lost,
        error,
    }
}
