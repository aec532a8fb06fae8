//! An image with another parent: what lies between the two is taken over, frame by frame.

use super::Resources;
use super::ordered::{self, Emit};
use crate::base::{BlockIndex, Event, Phase, Result};
use crate::image::{
    BlockTable, Body, Child, Compression, EncodedWindow, Encoder, FrameReader, Header, ImageWriter,
    Leaf, Node, PagePlace, Source, encode_frame, read_window,
};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

/// What a rewrite did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Frames that were copied as they are stored.
    pub copied: u64,
    /// Frames that were put together anew, because some of their blocks are no longer needed or because
    /// they come from several images.
    pub encoded: u64,
}

/// A window to write.
struct Job {
    leaf: Arc<Leaf>,
    blocks: Range<u64>,
    /// Bit i: the content of block i comes along.
    needed: u64,
    sources: Vec<Source>,
}

enum Output {
    /// A subtree that stays where it is, and the level of its page.
    Subtree(u8, Child),
    /// A window, and whether its frame was copied.
    Window(EncodedWindow, bool),
}

/// Writes `table` once more into `writer`, whose image has an older parent or none: what was recorded
/// after that parent comes along. Frames are copied as they are, unless some of their blocks are not
/// wanted any more. The content stays the same, block by block, and so does its digest.
///
/// # Errors
/// `Damaged` when something that is needed cannot be read, `Destination`, `Interrupted`, `Terminated`.
pub fn rewrite<W: Write>(
    table: &dyn BlockTable,
    compression: Compression,
    writer: &mut ImageWriter<W>,
    resources: Resources<'_>,
) -> Result<Rewritten> {
    let header = writer.header().clone();
    let mut totals = Rewritten::default();
    let observer = resources.observer;
    let (phase, bytes) = (Phase::Merge, Some(header.disk_len.0));
    observer.event(Event::PhaseStarted { phase, bytes });
    let planner = Planner {
        table,
        header: &header,
        resources: &resources,
    };
    ordered::run(
        resources.threads,
        resources.tickets(header.window_len()),
        |emit| planner.plan(emit),
        || {
            let header = &header;
            let mut tools = Tools {
                reader: FrameReader::new()?,
                encoder: Encoder::new(compression)?,
                window: Vec::new(),
                raw: Vec::new(),
            };
            Ok(move |job: Job| put_together(header, &job, &mut tools))
        },
        |output| {
            resources.cancel.check()?;
            let before = writer.next().0;
            match output {
                Output::Subtree(level, child) => writer.push_subtree(level, child)?,
                Output::Window(window, copied) => {
                    let frames = u64::from(window.stored_len() > 0);
                    writer.push_window(&window)?;
                    if copied {
                        totals.copied += frames;
                    } else {
                        totals.encoded += frames;
                    }
                }
            }
            let bytes = header.extent_of(&(before..writer.next().0)).len.0;
            observer.event(Event::Advanced { bytes });
            Ok(())
        },
    )?;
    observer.event(Event::PhaseFinished { phase });
    Ok(totals)
}

/// The producer: goes through the parts of the table that are newer than the new parent.
struct Planner<'a> {
    table: &'a dyn BlockTable,
    header: &'a Header,
    resources: &'a Resources<'a>,
}

impl Planner<'_> {
    fn plan(&self, emit: &mut Emit<Job, Output>) -> Result<()> {
        let top = self.table.top()?;
        self.body(&top.body, emit)
    }

    fn body(&self, body: &Body, emit: &mut Emit<Job, Output>) -> Result<()> {
        self.resources.cancel.check()?;
        match body {
            Body::Leaf(leaf) => self.leaf(leaf, emit),
            Body::Node(node) => self.node(node, emit),
        }
    }

    fn node(&self, node: &Node, emit: &mut Emit<Job, Output>) -> Result<()> {
        let level = node.level - 1;
        for (i, child) in node.children.iter().enumerate() {
            let stays = child.since <= self.header.parent_sequence();
            if child.place == PagePlace::Nowhere || stays {
                let place = match child.place {
                    PagePlace::Nowhere => PagePlace::Nowhere,
                    PagePlace::Here(_) | PagePlace::Older => PagePlace::Older,
                };
                let child = Child { place, ..*child };
                emit.ready(Output::Subtree(level, child))?;
                continue;
            }
            let page = self.table.page(level, node.child_index(i), child)?;
            self.body(&page.body, emit)?;
        }
        Ok(())
    }

    fn leaf(&self, leaf: &Arc<Leaf>, emit: &mut Emit<Job, Output>) -> Result<()> {
        let windows = self.header.window_blocks();
        let parent = self.header.parent_sequence();
        let mut at = leaf.first.0;
        while at < leaf.end() {
            let blocks = at..(at + windows).min(leaf.end());
            at = blocks.end;
            let mut needed = 0u64;
            for index in blocks.clone() {
                let block = leaf.block(BlockIndex(index));
                if block.is_some_and(|b| b.state.has_content() && b.since > parent) {
                    needed |= 1 << (index - blocks.start);
                }
            }
            let mut sources = match needed {
                0 => Vec::new(),
                _ => self.table.sources(leaf, &blocks),
            };
            sources.iter_mut().for_each(|s| s.wanted &= needed);
            sources.retain(|s| s.wanted != 0);
            emit.job(Job {
                leaf: Arc::clone(leaf),
                blocks,
                needed,
                sources,
            })?;
        }
        Ok(())
    }
}

/// What a worker keeps between windows.
struct Tools {
    reader: FrameReader,
    encoder: Encoder,
    window: Vec<u8>,
    raw: Vec<u8>,
}

fn put_together(header: &Header, job: &Job, tools: &mut Tools) -> Result<Output> {
    let Job { leaf, blocks, .. } = job;
    let first = BlockIndex(blocks.start);
    let of_window = || blocks.clone().filter_map(|b| leaf.block(BlockIndex(b)));
    let window = |frame| EncodedWindow::with_frame(first, of_window().copied().collect(), frame);
    if job.needed == 0 {
        return Ok(Output::Window(window(None), false));
    }
    if let [source] = job.sources.as_slice() {
        let (image, frame) = match &source.frame {
            Ok(found) => found,
            Err(error) => return Err(error.clone()),
        };
        if frame.mask == job.needed && frame.first == first {
            let copy = tools.reader.copy(image.as_ref(), frame)?;
            return Ok(Output::Window(window(Some(copy)), true));
        }
    }
    let (reader, room) = (&mut tools.reader, std::mem::take(&mut tools.window));
    let content = read_window(header, leaf, blocks, &job.sources, reader, room);
    if let Some(error) = content.error {
        return Err(error);
    }
    let size = header.block_size.as_usize();
    tools.raw.clear();
    for (bytes, bit) in content.data.chunks(size).zip(0u32..) {
        if job.needed >> bit & 1 == 1 {
            tools.raw.extend_from_slice(bytes);
        }
    }
    tools.window = content.data;
    let frame = encode_frame(&tools.raw, job.needed, &mut tools.encoder)?;
    Ok(Output::Window(window(Some(frame)), false))
}
