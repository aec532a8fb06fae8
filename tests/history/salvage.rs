//! What is lost by damage is told exactly, and all else is right: of a disk that is read through its chain, and
//! of an image that is rebuilt by walking.

use crate::damage::{blocks, chain_of_four, file_of};
use crate::deeds::resources;
use crate::disk::{BLOCK, Edit};
use crate::kit::bytes::Stream;
use crate::kit::records::{HEADER, Record, TRAILER, What, below, named_only_by, records};
use crate::world::{Point, World, id, odd_len};
use crate::{check, long};
use diskstrata::base::{Cancel, RangeRead, to_u64, to_usize};
use diskstrata::block::fill_unreadable;
use diskstrata::chain::{Catalog, ChainView, Wish};
use diskstrata::image::{BlockState, BlockStates, Compression, salvage};
use diskstrata::pipeline::{
    Depth, Extracted, Sample, extract, untouched, verify_disk, verify_file,
};
use diskstrata::store::{FileName, MemoryStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// What a salvage writes has this id.
const SALVAGED: Uuid = Uuid::from_u128(0x5A1 << 96);

/// The blocks of which `file` has the content that image `n` wants, of those that are in `held`.
fn wanted(point: &Point, file: u32, held: &BTreeSet<u64>) -> BTreeSet<u64> {
    let wants = |b: &&u64| {
        let at = to_usize(**b);
        point.since[at] == file && point.cells[at].content.is_some()
    };
    held.iter().filter(wants).copied().collect()
}

/// The frames of each image, and a store with its files.
struct Chain {
    memory: MemoryStore,
    world: World,
    files: BTreeMap<u32, (FileName, Vec<u8>)>,
}

impl Chain {
    fn of((memory, world): (MemoryStore, World)) -> Chain {
        let file = |n: &u32| {
            let name = file_of(&world, *n);
            let bytes = memory.get(&name).unwrap();
            (*n, (name, bytes))
        };
        let files = world.points.keys().map(file).collect();
        Chain {
            memory,
            world,
            files,
        }
    }

    fn restore_files(&self) {
        for (name, bytes) in self.files.values() {
            self.memory.put(name, bytes.clone());
        }
    }

    /// Damages frames, each of an image's file, and compares what every image has lost with what it must
    /// have. Returns how many blocks were lost in all.
    fn damage_frames(&self, damaged: &[(u32, Record)], stream: &mut Stream) -> usize {
        let mut held: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        let mut changed: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (n, frame) in damaged {
            held.entry(*n).or_default().extend(frame.blocks());
            let (_, good) = &self.files[n];
            let bytes = changed.entry(*n).or_insert_with(|| good.clone());
            let at = frame.bytes.start + to_usize(stream.below(to_u64(frame.bytes.len())));
            bytes[at] ^= 1 << stream.below(8);
        }
        for (n, bytes) in &changed {
            self.memory.put(&self.files[n].0, bytes.clone());
        }
        let catalog = Catalog::load(self.world.store.as_ref()).unwrap();
        let mut cost = 0;
        for (n, point) in &self.world.points {
            let image = catalog.by_id(id(*n)).unwrap();
            let view = check::view(&self.world.store, &catalog, image);
            let lost: BTreeSet<u64> = held
                .iter()
                .flat_map(|(file, held)| wanted(point, *file, held))
                .collect();
            let found: BTreeSet<u64> = check::restored(&view, &point.cells).into_iter().collect();
            assert_eq!(found, lost, "image {n} restored without {damaged:?}");
            assert_eq!(named(&view), lost, "image {n} verified: {damaged:?}");
            let own = held.get(n).cloned().unwrap_or_default();
            for depth in [Depth::Quick, Depth::Deep] {
                assert_eq!(
                    in_file(&view, depth),
                    own,
                    "the file of image {n}, {depth:?}"
                );
            }
            cost += lost.len();
        }
        for (n, bytes) in &changed {
            let rest = held.keys().filter(|file| *file < n).map(|f| (*f, &held[f]));
            let point = &self.world.points[n];
            let older = rest
                .flat_map(|(file, held)| wanted(point, file, held))
                .collect();
            self.salvaged(*n, bytes, &held[n], &older);
        }
        self.restore_files();
        cost
    }

    /// Salvages `bytes`, the damaged file of image `n`, which has to cost exactly `lost`. What it needs of older
    /// files is there, but for `older`.
    fn salvaged(&self, n: u32, bytes: &[u8], lost: &BTreeSet<u64>, older: &BTreeSet<u64>) {
        let fill = |out: &mut [u8], at| fill_unreadable(out, at);
        let input: &dyn RangeRead = &bytes.to_vec();
        let made = salvage(input, Vec::new(), "new", SALVAGED, Compression::None, &fill);
        let (made, report) = made.unwrap();
        let told: BTreeSet<u64> = report.lost.iter().flat_map(blocks_of).collect();
        assert_eq!(told, *lost, "what the salvage of image {n} says it lost");
        let name = FileName::new("salvaged.strata").unwrap();
        self.memory.put(&name, made);
        let catalog = Catalog::load(self.world.store.as_ref()).unwrap();
        let view = check::view(
            &self.world.store,
            &catalog,
            catalog.by_id(SALVAGED).unwrap(),
        );
        let listed = view.image().summary().unreadable.iter();
        let listed: BTreeSet<u64> = listed
            .flat_map(|r| r.start / BLOCK..(r.start + r.length).div_ceil(BLOCK))
            .collect();
        let before: BTreeSet<u64> = unreadable(&self.world.points[&n]);
        assert!(listed.is_superset(lost), "it is listed in the new image");
        assert!(listed.is_subset(&(&before | lost)), "and nothing else is");
        assert_eq!(in_file(&view, Depth::Deep), BTreeSet::new(), "it is whole");
        let gone = content_is(&view, &self.world.points[&n], lost);
        assert_eq!(gone, *older, "salvaged image {n}");
        self.memory.remove(&name).unwrap();
    }
}

pub(crate) fn blocks_of(extent: &diskstrata::base::Extent) -> std::ops::Range<u64> {
    extent.start.0 / BLOCK..extent.end().0.div_ceil(BLOCK)
}

fn unreadable(point: &Point) -> BTreeSet<u64> {
    let bad =
        |(i, cell): (u64, &crate::disk::Cell)| (cell.state == BlockState::Unreadable).then_some(i);
    (0..).zip(point.cells.iter()).filter_map(bad).collect()
}

/// What a look at the whole disk says is lost.
fn named(view: &ChainView) -> BTreeSet<u64> {
    let cancel = Cancel::new();
    let all = 0..view.header().blocks();
    let found = verify_disk(view, all, Depth::Deep, resources(&cancel)).unwrap();
    blocks(&found)
}

/// What a look at the image's own file says is lost.
fn in_file(view: &ChainView, depth: Depth) -> BTreeSet<u64> {
    let cancel = Cancel::new();
    let found = verify_file(view.image(), view, depth, Sample::ALL, resources(&cancel)).unwrap();
    blocks(&found)
}

/// Compares what a salvaged image gives with the truth: outside `lost`, all that can be read is right, and what
/// is unknown is not given out as if it were known. Returns the blocks that cannot be read.
fn content_is(view: &ChainView, point: &Point, lost: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut gone = BTreeSet::new();
    let cancel = Cancel::new();
    let all = 0..view.header().blocks();
    extract(
        view,
        all,
        None,
        resources(&cancel),
        &untouched,
        |extracted, ()| {
            for (n, block) in extracted.blocks().enumerate() {
                if lost.contains(&block) {
                    continue;
                }
                let truth = point.cells[to_usize(block)].content.as_deref();
                match extracted {
                    Extracted::Run { .. } => assert_eq!(truth, None, "block {block}"),
                    Extracted::Window(window) => {
                        if window.lost.iter().any(|b| b.0 == block) {
                            gone.insert(block);
                            continue;
                        }
                        let bytes = window.data.chunks(to_usize(BLOCK)).nth(n).unwrap();
                        let right = match truth {
                            Some(truth) => bytes == truth,
                            None => bytes.iter().all(|b| *b == 0),
                        };
                        assert!(right, "block {block} differs from the disk");
                    }
                    other => panic!("{other:?}"),
                }
            }
            Ok(())
        },
    )
    .unwrap();
    gone
}

fn frames(chain: &Chain) -> Vec<(u32, Record)> {
    let of = |(n, (_, bytes)): (&u32, &(FileName, Vec<u8>))| {
        let frames = records(bytes).into_iter().filter(Record::is_frame);
        frames.map(|frame| (*n, frame)).collect::<Vec<_>>()
    };
    chain.files.iter().flat_map(of).collect()
}

/// Wherever a frame is hit, in whichever file of the chain: each image loses those of its blocks that it has in
/// that frame.
#[test]
fn a_damaged_frame_costs_exactly_its_blocks() {
    let chain = Chain::of(chain_of_four());
    let mut stream = Stream::new(41);
    let (mut cases, mut cost) = (0, 0);
    for _ in 0..if long() { 40 } else { 3 } {
        for frame in frames(&chain) {
            cost += chain.damage_frames(&[frame], &mut stream);
            cases += 1;
        }
    }
    eprintln!("{cases} damaged frames, {cost} blocks lost");
    assert!(cases >= 60 && cost > cases, "{cases} frames, {cost} blocks");
}

#[test]
fn several_damaged_frames_cost_exactly_their_blocks() {
    let chain = Chain::of(chain_of_four());
    let all = frames(&chain);
    let mut stream = Stream::new(42);
    let cases = if long() { 2000 } else { 60 };
    let (mut several, mut cost) = (0, 0);
    for _ in 0..cases {
        let count = 2 + stream.below(5);
        let mut picked: BTreeMap<(u32, usize), Record> = BTreeMap::new();
        for _ in 0..count {
            let (n, frame) = &all[to_usize(stream.below(to_u64(all.len())))];
            picked.insert((*n, frame.bytes.start), frame.clone());
        }
        let damaged: Vec<(u32, Record)> = picked.into_iter().map(|((n, _), f)| (n, f)).collect();
        let files: BTreeSet<u32> = damaged.iter().map(|(n, _)| *n).collect();
        several += usize::from(files.len() > 1);
        cost += chain.damage_frames(&damaged, &mut stream);
    }
    eprintln!("{cases} times several frames, {several} times of several files, {cost} blocks lost");
    assert!(several > cases / 2 && cost > cases * 4);
}

/// A disk of three levels of pages, with content near its beginning and its end, and an increment that has
/// something new in some leaves only.
fn deep_chain() -> (MemoryStore, World) {
    let memory = MemoryStore::new("memory");
    let mut world = World::new(Arc::new(memory.clone()), odd_len(33_299), 4);
    world.disk.edit(&Edit::Free {
        at: 0,
        count: 33_300,
    });
    for (at, count) in [(0, 250), (700, 20), (20_000, 40), (32_700, 300)] {
        world.disk.edit(&Edit::Allocate { at, count });
        world.disk.edit(&Edit::Write { at, count, seed: 3 });
    }
    world.disk.edit(&Edit::Allocate {
        at: 8_000,
        count: 600,
    });
    world.backup(Wish::Full);
    for (at, seed) in [(10, 100), (32_800, 200)] {
        world.disk.edit(&Edit::Write { at, count: 9, seed });
    }
    world.backup(Wish::Auto);
    (memory, world)
}

/// What a salvage loses without a record that is no frame.
fn cost_of(image: &[u8], record: &Record, point: &Point, number: u32) -> BTreeSet<u64> {
    let (blocks, _) = crate::kit::records::geometry(image);
    match record.what {
        What::Frame { .. } => record.blocks(),
        // Nothing of the disk lies in sections.
        What::Section(_) => BTreeSet::new(),
        // What its frames hold is found by them; of the rest nobody knows what it was.
        What::Page { level: 0, index } => {
            let leaf: BTreeSet<u64> = below(0, index, blocks).collect();
            &leaf - &wanted(point, number, &leaf)
        }
        What::Page { .. } => named_only_by(image, record).into_iter().flatten().collect(),
    }
}

fn each_record_alone(chain: &Chain) {
    let mut stream = Stream::new(43);
    let (mut cases, mut most_lost) = (0, 0);
    for (n, (_, good)) in &chain.files {
        let point = &chain.world.points[n];
        let with_content = point.cells.iter().filter(|c| c.content.is_some()).count();
        let mut ends = vec![(0..HEADER, BTreeSet::new())];
        ends.push((good.len() - TRAILER..good.len(), BTreeSet::new()));
        let records = records(good);
        let of = |r: &Record| (r.bytes.clone(), cost_of(good, r, point, *n));
        let others = records.iter().filter(|r| !r.is_frame()).map(of);
        for (place, lost) in ends.into_iter().chain(others) {
            for _ in 0..if long() { 30 } else { 3 } {
                let mut bytes = good.clone();
                let at = place.start + to_usize(stream.below(to_u64(place.len())));
                bytes[at] ^= 1 << stream.below(8);
                chain.salvaged(*n, &bytes, &lost, &BTreeSet::new());
                // And when all of it is gone.
                bytes[place.clone()].fill(0);
                chain.salvaged(*n, &bytes, &lost, &BTreeSet::new());
                cases += 2;
            }
            let own: BTreeSet<u64> = (0..to_u64(point.cells.len())).collect();
            let own = wanted(point, *n, &own);
            assert!(own.is_disjoint(&lost), "content that this image holds");
            let content = lost
                .iter()
                .filter(|b| point.cells[to_usize(**b)].content.is_some());
            let content = content.count();
            most_lost = most_lost.max(content * 100 / with_content);
            if point.parent.is_none() {
                assert!(content * 100 <= with_content, "{content} of {with_content}");
            }
        }
    }
    eprintln!("{cases} salvages of damaged headers, ends, pages and sections");
    assert!(cases >= 60, "{cases}");
}

/// Header, trailer, each page of the table, each section: without it, all content of the image's own file is
/// still found by walking, and what cannot be known any more is listed exactly.
#[test]
fn without_header_end_page_or_section_all_content_is_found_by_walking() {
    each_record_alone(&Chain::of(chain_of_four()));
    each_record_alone(&Chain::of(deep_chain()));
}

/// All pages at once, and the trailer: nothing but frames is left.
#[test]
fn with_nothing_but_frames_all_content_is_found() {
    for chain in [Chain::of(chain_of_four()), Chain::of(deep_chain())] {
        let (_, good) = &chain.files[&1];
        let mut bytes = good.clone();
        let point = &chain.world.points[&1];
        for record in records(good).iter().filter(|r| !r.is_frame()) {
            bytes[record.bytes.clone()].fill(0);
        }
        let end = bytes.len() - TRAILER;
        bytes[end..].fill(0);
        let all: BTreeSet<u64> = (0..to_u64(point.cells.len())).collect();
        let lost = &all - &wanted(point, 1, &all);
        chain.salvaged(1, &bytes, &lost, &BTreeSet::new());
    }
}
