//! A table to bytes: decode frames on all workers, hand out windows in order.

use super::Resources;
use super::fetching::{FromFrames, with_fetchers};
use super::ordered::{self, Emit};
use super::pool::Pool;
use crate::base::{AlignedBuf, BlockIndex, BlockMap, Error, Result, to_u64, to_usize};
use crate::image::{
    BlockState, BlockTable, FrameReader, Header, Leaf, Piece, Source, Window, read_window,
};
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
    /// Blocks with content, none of which is wanted.
    Unwanted {
        /// First block.
        first: BlockIndex,
        /// Number of blocks.
        count: u64,
    },
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

impl Extracted {
    /// The blocks that it is about.
    pub fn blocks(&self) -> Range<u64> {
        match self {
            Extracted::Run { first, count, .. }
            | Extracted::Unwanted { first, count }
            | Extracted::Lost { first, count, .. } => first.0..first.0 + count,
            Extracted::Window(window) => {
                window.first.0..window.first.0 + to_u64(window.blocks.len())
            }
        }
    }
}

/// What a worker is given.
pub(super) enum Task {
    Read(Job),
    Ready(Extracted),
}

impl FromFrames for Task {
    fn sources(&mut self) -> &mut [Source] {
        match self {
            Task::Read(job) => &mut job.sources,
            Task::Ready(_) => &mut [],
        }
    }
}

/// One window to read.
pub(super) struct Job {
    pub(super) leaf: Arc<Leaf>,
    pub(super) blocks: Range<u64>,
    pub(super) sources: Vec<Source>,
}

impl FromFrames for Job {
    fn sources(&mut self) -> &mut [Source] {
        &mut self.sources
    }
}

impl Job {
    /// Whether none of its blocks is among those that are wanted alone.
    fn is_outside(&self, only: Option<&BlockMap>) -> bool {
        only.is_some_and(|map| !map.intersects(self.blocks.clone()))
    }

    fn unwanted(&self) -> Extracted {
        Extracted::Unwanted {
            first: BlockIndex(self.blocks.start),
            count: self.blocks.end - self.blocks.start,
        }
    }

    pub(super) fn read(
        &self,
        header: &Header,
        reader: &mut FrameReader,
        buffer: AlignedBuf,
    ) -> Window {
        let (blocks, sources) = (&self.blocks, &self.sources);
        read_window(header, &self.leaf, blocks, sources, reader, buffer)
    }
}

/// What needs nothing done on the workers: the first step of [`extract`] and
/// [`extract_stream`](super::extract_stream) where everything is done in order.
///
/// # Errors
/// None.
pub fn untouched(_: &Extracted) -> Result<()> {
    Ok(())
}

/// Hands every block of `range` to `work`, on whichever worker has it and in any order, and then, with what that
/// gave, to `sink`, in order; runs are clipped to `range`, windows are not. Every block is compared with its digest
/// first. With `only`, windows that hold none of its blocks are not read.
///
/// # Errors
/// What `work` or `sink` returns, whichever is first in that order; `Interrupted` or `Terminated` when cancelled.
/// Damage is handed to both.
pub fn extract<T: Send>(
    table: &dyn BlockTable,
    range: Range<u64>,
    only: Option<&BlockMap>,
    resources: Resources<'_>,
    work: &(dyn Fn(&Extracted) -> Result<T> + Sync),
    sink: impl FnMut(&Extracted, T) -> Result<()>,
) -> Result<()> {
    decode(table.header(), &resources, work, sink, |emit| {
        with_fetchers(|bring| {
            each_part(table, range.clone(), &mut |part| {
                resources.cancel.check()?;
                let task = match part {
                    Part::Window(job) if job.is_outside(only) => Task::Ready(job.unwanted()),
                    part => part.into_task(),
                };
                bring(task, emit)
            })
        })
    })
}

/// Hands what `produce` emits, windows read on all workers, to `work` there and to `sink` in order.
///
/// # Errors
/// What `produce`, `work` or `sink` returns, whichever is first in that order.
pub(super) fn decode<T: Send>(
    header: &Header,
    resources: &Resources<'_>,
    work: &(dyn Fn(&Extracted) -> Result<T> + Sync),
    mut sink: impl FnMut(&Extracted, T) -> Result<()>,
    produce: impl FnOnce(&mut Emit<Task, (Extracted, T)>) -> Result<()> + Send,
) -> Result<()> {
    let pool = Pool::of(header.window_len());
    ordered::run(
        resources.threads,
        resources.tickets(header.window_len()),
        produce,
        || {
            let mut reader = FrameReader::new()?;
            let pool = &pool;
            Ok(move |task: Task| {
                let extracted = match task {
                    Task::Ready(extracted) => extracted,
                    Task::Read(job) => {
                        let window = job.read(header, &mut reader, pool.take());
                        check_resources(&window.error)?;
                        Extracted::Window(window)
                    }
                };
                let done = work(&extracted)?;
                Ok((extracted, done))
            })
        },
        |(extracted, done)| {
            resources.cancel.check()?;
            sink(&extracted, done)?;
            if let Extracted::Window(window) = extracted {
                pool.give(window.data);
            }
            Ok(())
        },
    )
}

/// Whether `errors` may be taken for damage of an image.
///
/// # Errors
/// The first that says that too many files are open: what could not be opened may be whole.
pub(super) fn check_resources<'a>(errors: impl IntoIterator<Item = &'a Error>) -> Result<()> {
    match errors.into_iter().find(|error| error.is_out_of_files()) {
        None => Ok(()),
        Some(error) => Err(error.clone()),
    }
}

/// A stretch of a table.
pub(super) enum Part {
    /// Blocks of one state without content.
    Run {
        blocks: Range<u64>,
        state: BlockState,
    },
    /// A window some of whose blocks have content.
    Window(Job),
    /// Blocks of which nothing is known.
    Lost { blocks: Range<u64>, error: Error },
}

impl Part {
    fn check_resources(&self) -> Result<()> {
        match self {
            Part::Window(job) => {
                let frames = job.sources.iter();
                check_resources(frames.filter_map(|s| s.frame.as_ref().err()))
            }
            Part::Lost { error, .. } => check_resources([error]),
            Part::Run { .. } => Ok(()),
        }
    }

    pub(super) fn into_task(self) -> Task {
        match self {
            Part::Window(job) => Task::Read(job),
            Part::Run { blocks, state } => Task::Ready(Extracted::Run {
                first: BlockIndex(blocks.start),
                count: blocks.end - blocks.start,
                state,
            }),
            Part::Lost { blocks, error } => Task::Ready(Extracted::Lost {
                first: BlockIndex(blocks.start),
                count: blocks.end - blocks.start,
                error,
            }),
        }
    }
}

/// Cuts the table into windows with content and runs without, in order; runs and losses are clipped
/// to `range`.
///
/// # Errors
/// What `each` returns; that too many files are open.
pub(super) fn each_part(
    table: &dyn BlockTable,
    range: Range<u64>,
    each: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    let clip = |blocks: Range<u64>| blocks.start.max(range.start)..blocks.end.min(range.end);
    let each = &mut |part: Part| {
        part.check_resources()?;
        each(part)
    };
    table.each_piece(range.clone(), &mut |piece| match piece {
        Piece::Uniform { blocks, state, .. } => each(Part::Run {
            blocks: clip(blocks),
            state,
        }),
        Piece::Lost { blocks, error } => each(Part::Lost {
            blocks: clip(blocks),
            error,
        }),
        Piece::Leaf(leaf) => {
            let sources = |window: &Range<u64>| table.sources(&leaf, window);
            split(table.header(), &leaf, &sources, &range, each)
        }
    })
}

/// Cuts a leaf, whose frames are where `sources` says, as [`each_part`] does.
pub(super) fn split(
    header: &Header,
    leaf: &Arc<Leaf>,
    sources: &dyn Fn(&Range<u64>) -> Vec<Source>,
    range: &Range<u64>,
    each: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    let windows = header.window_blocks();
    let has_content = |blocks: &Range<u64>| {
        let mut blocks = blocks.clone().filter_map(|b| leaf.block(BlockIndex(b)));
        blocks.any(|b| b.state.has_content())
    };
    let mut at = range.start.max(leaf.first.0) / windows * windows;
    while at < leaf.end().min(range.end) {
        let window = at..(at + windows).min(leaf.end());
        if has_content(&window) {
            at = window.end;
            each(Part::Window(Job {
                leaf: Arc::clone(leaf),
                sources: sources(&window),
                blocks: window,
            }))?;
            continue;
        }
        // Runs go on over windows without content.
        let mut end = window.end;
        while end < leaf.end().min(range.end) {
            let next = end..(end + windows).min(leaf.end());
            if has_content(&next) {
                break;
            }
            end = next.end;
        }
        runs(leaf, at.max(range.start)..end.min(range.end), each)?;
        at = end;
    }
    Ok(())
}

/// The runs of equal states among blocks without content.
fn runs(leaf: &Leaf, blocks: Range<u64>, each: &mut dyn FnMut(Part) -> Result<()>) -> Result<()> {
    let from = to_usize(blocks.start - leaf.first.0);
    let to = to_usize(blocks.end - leaf.first.0);
    let mut at = blocks.start;
    for run in leaf.blocks[from..to].chunk_by(|a, b| a.state == b.state) {
        let end = at + to_u64(run.len());
        if let Some(first) = run.first() {
            each(Part::Run {
                blocks: at..end,
                state: first.state,
            })?;
        }
        at = end;
    }
    Ok(())
}
