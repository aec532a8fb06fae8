//! Is everything in a store as it must be?

use crate::deeds::resources;
use crate::disk::{BLOCK, Cell, Content, read_cells};
use crate::world::{Point, World, id};
use diskstrata::base::{BlockIndex, ByteOffset, Cancel, Digest, to_u64, to_usize};
use diskstrata::block::BlockSource;
use diskstrata::chain::{Catalog, ChainView, Image, Records};
use diskstrata::image::{
    Block, BlockStates, BlockTable, FilePiece, Header, ImageReader, Leaf, Piece,
};
use diskstrata::pipeline::{Depth, Extracted, Sample, extract, untouched, verify_file};
use diskstrata::store::{LockMode, Store};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use uuid::Uuid;

/// Longest disk that is read as a whole; of a longer one only the blocks near content.
const WHOLE: u64 = 4000;

/// The disk of one image.
pub(crate) fn view(store: &Arc<dyn Store>, catalog: &Catalog, image: &Image) -> ChainView {
    ChainView::open(Arc::clone(store), catalog.lineage(image)).unwrap()
}

/// The catalog, when every file in the store is a whole image that needs no absent one, or a note.
pub(crate) fn whole_catalog(store: &Arc<dyn Store>) -> Catalog {
    let catalog = Catalog::load(store.as_ref()).unwrap();
    let broken: Vec<&str> = catalog.broken.iter().map(|b| b.file.as_str()).collect();
    assert!(broken.is_empty(), "cannot be opened: {broken:?}");
    assert!(
        catalog.incomplete().is_empty(),
        "{:?}",
        catalog.incomplete()
    );
    catalog
}

/// Nothing is left of any run: no lock, no unfinished file, no file that another one replaces.
pub(crate) fn nothing_is_left(store: &Arc<dyn Store>, catalog: &Catalog) {
    drop(store.lock(LockMode::Exclusive, "a test").unwrap());
    assert_eq!(store.clean_up().unwrap(), Vec::<String>::new());
    let replaced: Vec<&str> = catalog.replaced.iter().map(|i| i.file.as_str()).collect();
    assert!(replaced.is_empty(), "replaced: {replaced:?}");
    let names = store
        .list()
        .unwrap()
        .into_iter()
        .map(|e| e.name.to_string());
    let (notes, files): (Vec<_>, Vec<_>) = names.partition(|n| n.ends_with(".json"));
    assert_eq!(files.len(), catalog.images.len(), "{files:?}");
    assert!(files.iter().all(|n| n.ends_with(".strata")), "{files:?}");
    let known = |n: &String| n.starts_with("protected-") || n.starts_with("verified-");
    assert!(notes.iter().all(known), "{notes:?}");
}

/// Everything that can be said of the store, of every image in it. Files whose name is in `looked_at`
/// are not read again to find damage: they have not changed since.
pub(crate) fn world(world: &World, looked_at: &mut Vec<String>) {
    let catalog = whole_catalog(&world.store);
    nothing_is_left(&world.store, &catalog);
    let ids: Vec<Uuid> = catalog.images.iter().map(|i| i.header.id).collect();
    let expected: Vec<Uuid> = world.points.keys().map(|n| id(*n)).collect();
    assert_eq!(ids, expected, "which images are listed");
    let records = Records::load(world.store.as_ref()).unwrap();
    let kept: Vec<Uuid> = records.protected.keys().copied().collect();
    let protected = world.points.iter().filter(|(_, p)| p.protected);
    assert_eq!(kept, protected.map(|(n, _)| id(*n)).collect::<Vec<_>>());
    for (image, (number, point)) in catalog.images.iter().zip(&world.points) {
        let view = view(&world.store, &catalog, image);
        says_of_itself(&view, *number, point);
        assert_eq!(restored(&view, &point.cells), Vec::<u64>::new());
        table_is(&view, point);
        if !looked_at.contains(&image.file.to_string()) {
            file_is_whole(&view, point);
            read_at_any_place(&view, &point.cells);
            looked_at.push(image.file.to_string());
        }
    }
}

fn says_of_itself(view: &ChainView, number: u32, point: &Point) {
    let image: &ImageReader = view.image();
    let header: &Header = image.header();
    assert_eq!((header.id, header.sequence), (id(number), number));
    assert_eq!(image.root(), point.root, "the root of image {number}");
    let parent = header.parent.map(|p| (p.id, p.sequence));
    assert_eq!(
        parent,
        point.parent.map(|n| (id(n), n)),
        "parent of {number}"
    );
    assert_eq!(header.kind, point.kind, "kind of {number}");
    assert_eq!(
        image.summary().changed,
        point.changed,
        "changes of {number}"
    );
    assert_eq!(image.info().created, point.time);
}

/// Restores the disk. Returns the blocks that are said to be lost; all others are as in `cells`.
pub(crate) fn restored(view: &ChainView, cells: &[Cell]) -> Vec<u64> {
    let (mut next, mut lost) = (0, Vec::new());
    let cancel = Cancel::new();
    let blocks = 0..view.header().blocks();
    let name = view.title().to_owned();
    extract(
        view,
        blocks,
        None,
        resources(&cancel),
        &untouched,
        |extracted, ()| {
            let count = match extracted {
                Extracted::Unwanted { .. } => panic!("every block is wanted"),
                Extracted::Run {
                    first,
                    count,
                    state,
                } => {
                    assert_eq!(first.0, next);
                    let alike = |c: &Cell| c.state == *state;
                    assert!(
                        cells[range(next, *count)].iter().all(alike),
                        "{name}: {state:?} at {next}"
                    );
                    *count
                }
                Extracted::Lost { first, count, .. } => {
                    assert_eq!(first.0, next);
                    lost.extend(next..next + count);
                    *count
                }
                Extracted::Window(window) => {
                    assert_eq!(window.first.0, next);
                    let bytes = window.data.chunks(to_usize(BLOCK));
                    for ((index, block), data) in (next..).zip(&window.blocks).zip(bytes) {
                        if window.lost.contains(&BlockIndex(index)) {
                            continue;
                        }
                        let cell = &cells[to_usize(index)];
                        is_cell(block, cell, &name, index);
                        match &cell.content {
                            Some(content) => assert!(data == &content[..], "{name}: block {index}"),
                            None => assert!(data.iter().all(|b| *b == 0), "{name}: block {index}"),
                        }
                    }
                    lost.extend(window.lost.iter().map(|b| b.0));
                    to_u64(window.blocks.len())
                }
            };
            next += count;
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(next, to_u64(cells.len()), "every block came");
    lost
}

fn range(first: u64, count: u64) -> Range<usize> {
    to_usize(first)..to_usize(first + count)
}

fn is_cell(block: &Block, cell: &Cell, name: &str, index: u64) {
    assert_eq!(block.state, cell.state, "{name}: block {index}");
    let digest = cell
        .content
        .as_ref()
        .map(|c| Digest::of(c))
        .unwrap_or_default();
    assert_eq!(block.digest, digest, "{name}: block {index}");
}

/// Every block was recorded by the image that it must have been recorded by. Of an image that was
/// just made these are exactly the blocks that differ from its parent.
fn table_is(view: &ChainView, point: &Point) {
    let mut next = 0;
    let name = view.title();
    view.each_piece(0..view.header().blocks(), &mut |piece| {
        assert_eq!(piece.blocks().start, next);
        let here = range(next, piece.blocks().end - next);
        next = piece.blocks().end;
        match piece {
            Piece::Lost { error, .. } => panic!("{error}"),
            Piece::Uniform { state, since, .. } => {
                let alike = |c: &Cell| c.state == state;
                assert!(
                    point.cells[here.clone()].iter().all(alike),
                    "{name}: {here:?}"
                );
                assert!(
                    point.since[here.clone()].iter().all(|s| *s == since),
                    "{name}: {here:?}"
                );
            }
            Piece::Leaf(leaf) => leaf_is(&leaf, point, name),
        }
        Ok(())
    })
    .unwrap();
}

/// Which image recorded each block, as the table says.
pub(crate) fn recorded_by(view: &ChainView) -> Vec<u32> {
    let mut since = Vec::new();
    view.each_piece(0..view.header().blocks(), &mut |piece| {
        let blocks = piece.blocks();
        match piece {
            Piece::Lost { error, .. } => panic!("{error}"),
            Piece::Uniform { since: one, .. } => {
                since.resize(since.len() + to_usize(blocks.end - blocks.start), one);
            }
            Piece::Leaf(leaf) => since.extend(leaf.blocks.iter().map(|b| b.since)),
        }
        Ok(())
    })
    .unwrap();
    since
}

fn leaf_is(leaf: &Leaf, point: &Point, name: &str) {
    for (index, block) in (leaf.first.0..).zip(&leaf.blocks) {
        assert_eq!(
            block.since,
            point.since[to_usize(index)],
            "{name}: since of block {index}"
        );
    }
}

/// The numbers of images in which something is found damaged, or on the way to what they build on.
pub(crate) struct Damaged {
    pub(crate) quick: BTreeSet<u32>,
    pub(crate) deep: BTreeSet<u32>,
}

/// Reads everything in a store in which something may be damaged: whatever is no error has to be right, and
/// what is lost has to be found.
pub(crate) fn damaged(world: &World) -> Damaged {
    let catalog = Catalog::load(world.store.as_ref()).unwrap();
    let (mut quick, mut deep) = (BTreeSet::new(), BTreeSet::new());
    for (n, point) in &world.points {
        let Some(image) = catalog.by_id(id(*n)) else {
            // It is not a part of the store any more, or broken.
            quick.insert(*n);
            deep.insert(*n);
            continue;
        };
        assert_eq!((image.root, image.info.created), (point.root, point.time));
        let lineage = catalog.lineage(image);
        let is_broken = lineage.broken.is_some();
        let view = ChainView::open(Arc::clone(&world.store), lineage).unwrap();
        let lost = restored(&view, &point.cells);
        let cancel = Cancel::new();
        let sees = |depth| {
            let seen = verify_file(view.image(), &view, depth, Sample::ALL, resources(&cancel));
            is_broken || !seen.unwrap().is_empty()
        };
        quick.extend(sees(Depth::Quick).then_some(*n));
        deep.extend(sees(Depth::Deep).then_some(*n));
        assert!(lost.is_empty() || !deep.is_empty(), "what is lost is found");
    }
    let seen = catalog.broken.is_empty() || !deep.is_empty();
    assert!(seen, "{:?}", catalog.broken);
    Damaged { quick, deep }
}

/// The file holds what is newer than the parent, nothing else, and is whole with what it refers to.
fn file_is_whole(view: &ChainView, point: &Point) {
    let (image, cancel) = (view.image(), Cancel::new());
    let found = verify_file(image, view, Depth::Deep, Sample::ALL, resources(&cancel)).unwrap();
    assert_eq!(found, []);
    let parent = image.header().parent_sequence();
    let new = |since: &u32| *since > parent;
    let mut frames = Vec::new();
    image
        .walk(&mut |piece| {
            match piece {
                FilePiece::Leaf(leaf) => {
                    leaf_is(&leaf, point, image.name());
                    // The top page is always stored.
                    let is_top = image.top_level() == 0;
                    assert!(
                        is_top || leaf.blocks.iter().any(|b| new(&b.since)),
                        "nothing new in a page"
                    );
                    frames.extend(leaf.frames.iter().flat_map(|f| f.blocks()).map(|b| b.0));
                }
                FilePiece::Older { .. } => {}
                FilePiece::Lost { error, .. } | FilePiece::Misplaced(error) => panic!("{error}"),
            }
            Ok(())
        })
        .unwrap();
    let cells = point.cells.iter().zip(point.since.iter()).zip(0u64..);
    let expected = cells.filter(|((cell, since), _)| cell.content.is_some() && new(since));
    let expected: Vec<u64> = expected.map(|(_, index)| index).collect();
    assert_eq!(
        frames,
        expected,
        "the blocks whose bytes {} holds",
        image.name()
    );
}

/// Reads the disk as one that can be read anywhere.
fn read_at_any_place(view: &ChainView, cells: &[Cell]) {
    let len = view.header().disk_len.0;
    let content = |block: u64| -> &Content { &cells[to_usize(block)].content };
    let compare = |bytes: Range<u64>| {
        let mut expected = vec![1; to_usize(bytes.end - bytes.start)];
        let mut found = vec![2; expected.len()];
        read_cells(bytes.start, &mut expected, content);
        view.read_at(ByteOffset(bytes.start), &mut found).unwrap();
        assert!(found == expected, "{}: bytes {bytes:?}", view.title());
    };
    if to_u64(cells.len()) <= WHOLE {
        compare(0..len);
    }
    let odd = 61 * BLOCK + 77;
    for start in (0..len).step_by(to_usize(odd)) {
        let near = start..(start + odd / 3).min(len);
        let with_content =
            (near.start / BLOCK..near.end.div_ceil(BLOCK)).any(|b| content(b).is_some());
        if with_content {
            compare(near);
        }
    }
}
