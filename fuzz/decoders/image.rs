//! An image file: everything that can be asked of it.

use crate::Target;
use crate::seeds::{self, Cut};
use crate::watch::{Metered, Sink, within_memory};
use diskstrata::base::{
    AlignedBuf, BlockIndex, ByteOffset, Cancel, Digest, ErrorKind, Silent, to_u64, to_usize,
};
use diskstrata::block::{BlockSource, Mapping};
use diskstrata::chain::ChainView;
use diskstrata::image::{
    BlockStates, BlockTable, Body, Compression, FilePiece, FrameReader, Header, ImageReader, Leaf,
    Node, OlderFiles, Page, PagePlace, Piece, Source, Unasked, Unfinished, Window, is_zero,
    read_window, rebuild, salvage, span_of,
};
use diskstrata::pipeline::{Damage, Depth, Resources, Sample, verify_disk, verify_file};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

pub(crate) const TARGET: Target = Target {
    name: "image",
    prepare: || {
        images();
    },
    run,
};

/// What a salvage may write.
const MOST_SALVAGED: usize = 4 << 20;
/// What is read of one disk.
const MOST_WINDOWS: usize = 64;
/// And so much again, byte by byte.
const MOST_READ_AGAIN: usize = 8;

pub(crate) fn images() -> &'static [Cut] {
    static SEEDS: OnceLock<Vec<Cut>> = OnceLock::new();
    SEEDS.get_or_init(seeds::cut_images)
}

fn run(input: &[u8]) {
    let Some(file) = seeds::file(input, images()) else {
        return;
    };
    let metered = Arc::new(Metered::new(&file));
    let opened = within_memory("open", || ImageReader::open(Arc::clone(&metered) as _));
    // Header, trailer, and each section once.
    assert!(
        metered.take() <= to_u64(file.len()) * 3 + 1024,
        "open reads too much"
    );
    match opened {
        Ok(image) => look(Arc::new(image), &metered, &file),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
    }
    begun(&file);
    mended(&file);
    let rescued = salvaged(&file);
    if let Some(rescued) = rescued {
        let image = ImageReader::open(Arc::new(rescued)).map(Arc::new);
        let image = image.expect("what a salvage made opens");
        assert!(image.findings().is_empty(), "{:?}", image.findings());
        let found = verified(&image, &Unasked, Depth::Deep);
        assert!(
            found.is_empty(),
            "a salvage made a damaged image: {found:?}"
        );
    }
}

/// What can be put together of a damaged file opens, and is read as any other.
fn mended(file: &[u8]) {
    let metered = Arc::new(Metered::new(file));
    match within_memory("mend", || rebuild(Arc::clone(&metered) as _)) {
        Ok(mended) => {
            let image = ImageReader::open(mended).map(Arc::new);
            let image = image.expect("what was put together opens");
            let found = verified(&image, &Unasked, Depth::Deep);
            drop(found);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
    }
}

/// A file that nobody finished is asked for its leaves, one after the other, as whoever goes on with it does.
fn begun(file: &[u8]) {
    let metered = Arc::new(Metered::new(file));
    let Some(begun) = within_memory("go on", || Unfinished::open(Arc::clone(&metered) as _)) else {
        return;
    };
    let blocks = begun.header().blocks();
    let mut at = 0;
    for _ in 0..MOST_WINDOWS {
        let leaf = within_memory("go on", || begun.leaf(BlockIndex(at)));
        at = at.saturating_add(span_of(0));
        drop(leaf);
        if at >= blocks {
            break;
        }
    }
    // Each record once, but for frames.
    assert!(
        metered.take() <= to_u64(file.len()) * 2 + 1024,
        "going on reads too much"
    );
}

/// Everything that an image which opens is asked.
fn look(image: Arc<ImageReader>, metered: &Arc<Metered>, file: &[u8]) {
    let again = Arc::new(Metered::new(file));
    let again = ImageReader::open(again).expect("it opened before");
    assert_eq!(image.header(), again.header());
    assert_eq!(image.root(), again.root());
    assert_eq!(
        (image.info(), image.summary()),
        (again.info(), again.summary())
    );
    assert_eq!(
        (image.tables(), image.findings()),
        (again.tables(), again.findings())
    );
    assert_eq!(image.file_len(), to_u64(file.len()));
    image.sections().expect("they were read when it was opened");
    let header = image.header();
    assert!(header.window_len() <= 4 << 20 && header.blocks() > 0);
    metered.take();
    let leaves = within_memory("walk", || walked(&image));
    let pages = to_u64(file.len() / 48 + 1);
    assert!(
        metered.take() <= pages * to_u64(file.len()).min(80 << 10),
        "a walk reads too much"
    );
    for leaf in &leaves {
        check_leaf(header, leaf);
        within_memory("frames", || frames(&image, leaf));
    }
    within_memory("pages", || {
        if let Ok(top) = image.top() {
            pages_below(&image, &top);
        }
    });
    let (quick, deep) = within_memory("verify", || {
        let quick = verified(&image, &Unasked, Depth::Quick);
        (quick, verified(&image, &Unasked, Depth::Deep))
    });
    assert!(!deep.is_empty() || quick.is_empty(), "{quick:?}");
    match ChainView::of(Arc::clone(&image)) {
        Err(_) => assert!(header.parent.is_some()),
        Ok(view) => within_memory("disk", || disk(&view, &deep)),
    }
}

/// A walk, whose pieces have to ascend.
fn walked(image: &ImageReader) -> Vec<Arc<Leaf>> {
    let mut leaves = Vec::new();
    let mut at = 0;
    let blocks = image.header().blocks();
    let mut take = |range: Range<u64>| {
        assert!(
            at <= range.start && range.start < range.end,
            "{range:?} behind {at}"
        );
        assert!(range.end <= blocks, "{range:?} of {blocks} blocks");
        at = range.end;
    };
    let done = image.walk(&mut |piece| {
        match piece {
            FilePiece::Leaf(leaf) => {
                take(leaf.first.0..leaf.end());
                leaves.push(leaf);
            }
            FilePiece::Older { level, index, .. } => {
                let first = index * span_of(level);
                take(first..(first + span_of(level)).min(blocks));
            }
            FilePiece::Lost { first, count, .. } => take(first.0..first.0 + count),
            FilePiece::Misplaced(error) => assert_eq!(error.kind(), ErrorKind::Damaged),
        }
        Ok(())
    });
    done.expect("nobody stopped it");
    leaves
}

/// What a leaf says of blocks and frames.
pub(crate) fn check_leaf(header: &Header, leaf: &Leaf) {
    let parent = header.parent_sequence();
    let mut held = Vec::new();
    for frame in &leaf.frames {
        assert!(frame.first.0.is_multiple_of(header.window_blocks()));
        held.extend(frame.blocks());
    }
    let is_new = |(_, block): &(u64, &diskstrata::image::Block)| {
        block.state.has_content() && block.since > parent
    };
    let blocks = (leaf.first.0..).zip(&leaf.blocks);
    let new: Vec<BlockIndex> = blocks.filter(is_new).map(|(i, _)| BlockIndex(i)).collect();
    assert_eq!(held, new, "frames hold what is new");
    for block in &leaf.blocks {
        assert!((1..=header.sequence).contains(&block.since));
    }
}

fn frame_len(header: &Header, frame: &diskstrata::image::FrameRef) -> usize {
    let lens = frame.blocks().map(|block| {
        let extent = header.block_size.extent_of(block, header.disk_len);
        to_usize(extent.len.0)
    });
    lens.sum()
}

/// Every way in which a frame is read.
fn frames(image: &ImageReader, leaf: &Leaf) {
    let header = image.header();
    let mut reader = FrameReader::new().expect("a reader");
    for frame in &leaf.frames {
        let len = frame_len(header, frame);
        let checked = reader.check(image, frame).is_ok();
        assert_eq!(reader.copy(image, frame).is_ok(), checked);
        let read = reader.read(image, frame).is_ok();
        assert!(checked || !read, "what is read is whole");
        let mut out = vec![0; len];
        if read {
            let held = reader.blocks().to_vec();
            assert_eq!(held.len(), len, "a frame is as long as its blocks");
            let wrong = reader.wrong_blocks(frame, leaf, header.block_size).count();
            reader
                .read_into(image, frame, &mut out)
                .expect("it was read before");
            assert!(out == held);
            let copied = reader.copy_checked(image, frame, leaf, header.block_size);
            assert_eq!(copied.is_ok(), wrong == 0);
        } else {
            assert!(reader.read_into(image, frame, &mut out).is_err());
        }
    }
}

/// The pages that lie in the file, by another way than a walk.
fn pages_below(image: &ImageReader, page: &Page) {
    let Body::Node(node) = &page.body else {
        return;
    };
    for (i, child) in node.children.iter().enumerate() {
        let range = Node::child_range(node, image.header(), i);
        assert!(range.start < range.end, "a child of no blocks");
        let PagePlace::Here(at) = child.place else {
            continue;
        };
        let (level, index) = (node.level - 1, node.child_index(i));
        let below = image.page(level, index, at, child.content);
        match below {
            Ok(below) => {
                if let Body::Leaf(leaf) = &below.body {
                    let frames = image.frames(index, at).expect("the page was read");
                    assert_eq!(frames, leaf.frames);
                }
                pages_below(image, &below);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged),
        }
    }
}

pub(crate) fn verified(
    image: &Arc<ImageReader>,
    older: &dyn OlderFiles,
    depth: Depth,
) -> Vec<Damage> {
    let done = with_resources(|r| verify_file(image, older, depth, Sample::ALL, r));
    let found = done.expect("nobody stopped it");
    for damage in &found {
        assert!(
            damage.extent.end().0 <= image.header().disk_len.0,
            "{damage:?}"
        );
    }
    found
}

pub(crate) fn with_resources<T>(what: impl FnOnce(Resources<'_>) -> T) -> T {
    let cancel = Cancel::new();
    what(Resources {
        threads: 1,
        memory: 8 << 20,
        cancel: &cancel,
        observer: &Silent,
    })
}

/// The disk that an image stands for. `deep` is what a deep look found wrong.
fn disk(view: &ChainView, deep: &[Damage]) {
    let header = view.header();
    let (mut at, mut lost, mut windows) = (0, 0, 0);
    let mut reader = FrameReader::new().expect("a reader");
    let each = view.each_piece(0..header.blocks(), &mut |piece| {
        let blocks = piece.blocks();
        assert_eq!(blocks.start, at, "pieces cover the disk once");
        assert!(
            at < blocks.end && blocks.end <= header.blocks(),
            "{blocks:?}"
        );
        at = blocks.end;
        let start = header.extent_of(&blocks).start;
        match &piece {
            Piece::Lost { .. } => {
                lost += 1;
                assert!(view.read_at(start, &mut [0]).is_err());
            }
            Piece::Uniform { state, since, .. } => {
                assert!(!state.has_content() && (1..=header.sequence).contains(since));
            }
            Piece::Leaf(leaf) => {
                for window in windows_of(header, leaf) {
                    windows += 1;
                    if windows <= MOST_WINDOWS {
                        let sources = view.sources(leaf, &window);
                        let read = read_checked(header, leaf, &window, &sources, &mut reader);
                        lost += read.lost.len();
                        if windows <= MOST_READ_AGAIN || !read.lost.is_empty() {
                            same_as_read(view, &window, &read);
                        }
                    }
                }
            }
        }
        if !matches!(piece, Piece::Lost { .. }) {
            let mapped = match view.mapping(start).expect("it is not lost") {
                Mapping::Data(len) | Mapping::Zero(len) => len,
            };
            assert!(mapped.0 > 0);
        }
        Ok(())
    });
    each.expect("nobody stopped it");
    assert_eq!(at, header.blocks(), "pieces cover the disk");
    if windows <= MOST_WINDOWS {
        let costs = deep.iter().any(|d| !d.extent.is_empty());
        assert_eq!(
            lost > 0,
            costs,
            "what is lost is what a deep look found: {deep:?}"
        );
        let all = 0..header.blocks();
        let found = with_resources(|r| verify_disk(view, all, Depth::Deep, r));
        assert_eq!(lost > 0, !found.expect("nobody stopped it").is_empty());
    }
}

pub(crate) fn windows_of(header: &Header, leaf: &Leaf) -> impl Iterator<Item = Range<u64>> {
    let (end, len) = (leaf.end(), header.window_blocks());
    let starts = (leaf.first.0..end).step_by(to_usize(len));
    starts.map(move |start| start..(start + len).min(end))
}

/// Reads a window: what is not lost has its digest, and the rest is zero.
pub(crate) fn read_checked(
    header: &Header,
    leaf: &Leaf,
    blocks: &Range<u64>,
    sources: &[Source],
    reader: &mut FrameReader,
) -> Window {
    let mut dirty = AlignedBuf::zeroed(header.window_len());
    dirty.fill(0xEE);
    let window = read_window(header, leaf, blocks, sources, reader, dirty);
    assert_eq!(to_u64(window.data.len()), header.extent_of(blocks).len.0);
    assert_eq!(window.error.is_some(), !window.lost.is_empty());
    let chunks = window.data.chunks(header.block_size.as_usize());
    assert_eq!(chunks.len(), window.blocks.len());
    for ((index, block), bytes) in blocks.clone().zip(&window.blocks).zip(chunks) {
        let index = BlockIndex(index);
        assert_eq!(leaf.block(index), Some(block));
        if block.state.has_content() && !window.lost.contains(&index) {
            assert_eq!(
                Digest::of(bytes),
                block.digest,
                "a wrong block was handed out"
            );
        } else {
            assert!(is_zero(bytes), "a block without content is not zero");
        }
    }
    for block in &window.lost {
        assert!(leaf.block(*block).is_some_and(|b| b.state.has_content()));
    }
    window
}

fn same_as_read(view: &ChainView, blocks: &Range<u64>, window: &Window) {
    let extent = view.header().extent_of(blocks);
    let mut bytes = vec![0xEE; window.data.len()];
    let read = view.read_at(extent.start, &mut bytes);
    assert_eq!(read.is_ok(), window.lost.is_empty());
    assert!(read.is_err() || bytes == *window.data);
}

/// What can be salvaged, unless that is too much.
fn salvaged(file: &[u8]) -> Option<Vec<u8>> {
    let metered = Metered::new(file);
    let fill = |out: &mut [u8], _: ByteOffset| out.fill(0xAB);
    let sink = Sink {
        most: MOST_SALVAGED,
        ..Sink::default()
    };
    let id = Uuid::from_u128(0x5A1);
    let made = within_memory("salvage", || {
        salvage(&metered, sink, "salvaged", id, Compression::None, &fill)
    });
    match made {
        Ok((sink, salvaged)) => {
            assert_eq!(salvaged.finished.len, to_u64(sink.kept.len()));
            Some(sink.kept)
        }
        Err(error) => {
            let kinds = [ErrorKind::Damaged, ErrorKind::Destination];
            assert!(kinds.contains(&error.kind()), "{error}");
            None
        }
    }
}
