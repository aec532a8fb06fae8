//! An image written once more, with another parent or in another form: what lies between the two is taken
//! over, frame by frame.

use super::Resources;
use super::adapt::Adapt;
use super::fetching::{Bring, FromFrames, with_fetchers};
use super::ordered::{self, Emit};
use crate::base::{AlignedBuf, BlockIndex, Event, Phase, Result};
use crate::image::{
    BlockTable, Body, Child, Compression, EncodedWindow, Encoder, FrameReader, Header, ImageWriter,
    Leaf, Node, PagePlace, Payloads, Source, encode_frame, read_window,
};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

/// What becomes of frames whose blocks are all wanted. The others are always put together anew, and
/// their blocks compared with their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// They are copied as they are stored, when their checksums are right.
    Copied,
    /// The same, and each block is compared with its digest.
    Checked,
    /// They are put together anew too.
    Anew,
}

/// How an image is written once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewriting {
    /// What becomes of whole frames.
    pub frames: Frames,
    /// How those are stored that are put together anew.
    pub compression: Compression,
    /// What observers are told that is done.
    pub phase: Phase,
}

/// What a rewrite did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Frames that were copied as they are stored.
    pub copied: u64,
    /// Frames that were put together anew, because some of their blocks are no longer needed, because
    /// they come from several images, or on request.
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

impl FromFrames for Job {
    fn sources(&mut self) -> &mut [Source] {
        &mut self.sources
    }
}

enum Output {
    /// A subtree that stays where it is, and the level of its page.
    Subtree(u8, Child),
    /// A window, and whether its frame was copied.
    Window(EncodedWindow, bool),
}

/// Writes `table` once more into `writer`, whose image has the same parent, an older one or none: what was
/// recorded after that parent comes along. The content stays the same, block by block, and so does its
/// digest.
///
/// # Errors
/// `Damaged` when something that is needed cannot be read, `Destination`, `Interrupted`, `Terminated`.
pub fn rewrite<W: Write>(
    table: &dyn BlockTable,
    form: Rewriting,
    writer: &mut ImageWriter<W>,
    resources: Resources<'_>,
) -> Result<Rewritten> {
    let header = writer.header().clone();
    let mut totals = Rewritten::default();
    let observer = resources.observer;
    let (phase, bytes) = (form.phase, Some(header.disk_len.0));
    observer.event(Event::PhaseStarted { phase, bytes });
    let planner = Planner {
        table,
        header: &header,
        resources: &resources,
    };
    let payloads = Payloads::default();
    let tickets = resources.tickets(header.window_len());
    let adapt = &Adapt::new(form.compression, resources.threads, tickets);
    ordered::run(
        resources.threads,
        tickets,
        |emit| with_fetchers(|bring| planner.plan(bring, emit)),
        || {
            let header = &header;
            let mut tools = Tools {
                reader: FrameReader::new()?,
                encoder: Encoder::new(form.compression)?.with_payloads(payloads.clone()),
                window: AlignedBuf::default(),
                raw: Vec::new(),
            };
            Ok(move |job: Job| {
                if let Some(level) = adapt.level() {
                    tools.encoder.set_level(level)?;
                }
                let output = put_together(header, &job, form.frames, &mut tools)?;
                adapt.made();
                Ok(output)
            })
        },
        |output| {
            resources.cancel.check()?;
            let before = writer.next().0;
            match output {
                Output::Subtree(level, child) => writer.push_subtree(level, child)?,
                Output::Window(window, copied) => {
                    let frames = u64::from(window.stored_len() > 0);
                    writer.push_window(&window)?;
                    payloads.give(window);
                    adapt.written();
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
    fn plan(&self, bring: Bring<'_, Job, Output>, emit: &mut Emit<Job, Output>) -> Result<()> {
        let top = self.table.top()?;
        self.body(&top.body, bring, emit)
    }

    fn body(
        &self,
        body: &Body,
        bring: Bring<'_, Job, Output>,
        emit: &mut Emit<Job, Output>,
    ) -> Result<()> {
        self.resources.cancel.check()?;
        match body {
            Body::Leaf(leaf) => self.leaf(leaf, bring, emit),
            Body::Node(node) => self.node(node, bring, emit),
        }
    }

    fn node(
        &self,
        node: &Node,
        bring: Bring<'_, Job, Output>,
        emit: &mut Emit<Job, Output>,
    ) -> Result<()> {
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
            self.body(&page.body, bring, emit)?;
        }
        Ok(())
    }

    fn leaf(
        &self,
        leaf: &Arc<Leaf>,
        bring: Bring<'_, Job, Output>,
        emit: &mut Emit<Job, Output>,
    ) -> Result<()> {
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
            let job = Job {
                leaf: Arc::clone(leaf),
                blocks,
                needed,
                sources,
            };
            bring(job, emit)?;
        }
        Ok(())
    }
}

/// What a worker keeps between windows.
struct Tools {
    reader: FrameReader,
    encoder: Encoder,
    window: AlignedBuf,
    raw: Vec<u8>,
}

fn put_together(header: &Header, job: &Job, frames: Frames, tools: &mut Tools) -> Result<Output> {
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
        let whole = frame.mask == job.needed && frame.first == first;
        let (image, reader) = (image.as_ref(), &mut tools.reader);
        let copy = match frames {
            Frames::Copied if whole => Some(reader.copy(image, frame)?),
            Frames::Checked if whole => {
                Some(reader.copy_checked(image, frame, leaf, header.block_size)?)
            }
            _ => None,
        };
        if copy.is_some() {
            return Ok(Output::Window(window(copy), true));
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
    tools
        .encoder
        .prove(header, first, &content.blocks, &frame)?;
    Ok(Output::Window(window(Some(frame)), false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Cancel, Digest, ErrorKind, Silent};
    use crate::chain::ChainView;
    use crate::image::{Block, BlockState, Info, Summary, testing};

    /// The image of `view`, written once more.
    fn again(
        view: &ChainView,
        frames: Frames,
        compression: Compression,
    ) -> Result<(Vec<u8>, Rewritten)> {
        let image = view.image();
        let sections = image.sections()?;
        let header = image.header().clone();
        let mut writer = ImageWriter::start_rewrite(Vec::new(), "memory", header, &sections)?;
        let form = Rewriting {
            frames,
            compression,
            phase: Phase::Copy,
        };
        let resources = Resources {
            threads: 2,
            memory: 1 << 20,
            cancel: &Cancel::new(),
            observer: &Silent,
        };
        let rewritten = rewrite(view, form, &mut writer, resources)?;
        Ok((writer.finish_rewrite(&sections)?.0, rewritten))
    }

    /// A disk of runs of like bytes, with a short last block.
    fn runs() -> Vec<u8> {
        let run = |n: u32| u8::try_from(n % 251).unwrap();
        (0..165).flat_map(|n| vec![run(n); 999]).collect()
    }

    fn view(bytes: &[u8]) -> ChainView {
        ChainView::of(Arc::new(testing::open(bytes.to_vec()))).unwrap()
    }

    #[test]
    fn frames_that_are_right_are_copied_and_the_file_is_the_same() {
        let disk = runs();
        let bytes = testing::image_of(&disk);
        for frames in [Frames::Copied, Frames::Checked] {
            let (copy, rewritten) = again(&view(&bytes), frames, Compression::None).unwrap();
            assert!(copy == bytes, "{frames:?}");
            assert!(
                rewritten.copied > 0 && rewritten.encoded == 0,
                "{rewritten:?}"
            );
        }
    }

    #[test]
    fn what_is_compressed_anew_is_the_same_image() {
        let disk = runs();
        let bytes = testing::image_of(&disk);
        let (raw, rewritten) = again(&view(&bytes), Frames::Anew, Compression::None).unwrap();
        assert!(
            rewritten.copied == 0 && rewritten.encoded > 0,
            "{rewritten:?}"
        );
        assert!(raw.len() > disk.len() && bytes.len() < disk.len() / 2);
        let (old, new) = (view(&bytes), view(&raw));
        assert_eq!(new.image().root(), old.image().root());
        let (back, _) = again(&new, Frames::Anew, Compression::Zstd(1)).unwrap();
        assert!(back == bytes, "there and back");
    }

    /// A frame whose checksum is right and whose second block is not what the table says.
    fn with_a_wrong_block() -> Vec<u8> {
        let sample = view(&testing::image_of(&[7; 4096 * 2]));
        let header = sample.image().header().clone();
        let writer = ImageWriter::start(Vec::new(), "memory", header, &Info::default(), &[]);
        let mut writer = writer.unwrap();
        let block = |content: u8| Block {
            digest: Digest::of(&[content; 4096]),
            ..Block::empty(BlockState::Data, 1)
        };
        let raw = [vec![1; 4096], vec![3; 4096]].concat();
        let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
        let frame = encode_frame(&raw, 0b11, &mut encoder).unwrap();
        let blocks = vec![block(1), block(2)];
        let window = EncodedWindow::with_frame(BlockIndex(0), blocks, Some(frame));
        writer.push_window(&window).unwrap();
        writer.finish(Summary::default()).unwrap().0
    }

    #[test]
    fn a_right_checksum_does_not_hide_a_wrong_block() {
        let bytes = with_a_wrong_block();
        let wrong = view(&bytes);
        for frames in [Frames::Checked, Frames::Anew] {
            let error = again(&wrong, frames, Compression::Zstd(1))
                .map(drop)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{frames:?}: {error}");
            assert!(error.to_string().contains("digests"), "{error}");
        }
        let (copy, _) = again(&wrong, Frames::Copied, Compression::Zstd(1)).unwrap();
        assert_eq!(copy.len(), bytes.len(), "a merge trusts checksums");
    }
}
