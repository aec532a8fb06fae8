//! Files that end too early, and files that go on behind their end: never taken for whole.

use crate::disk::Edit;
use crate::kit::bytes::Stream;
use crate::kit::records::number;
use crate::long;
use crate::power::long_history;
use crate::shaped::{encrypted, in_parts};
use crate::world::{World, id, odd_len};
use diskstrata::base::{ErrorKind, RangeRead, Result, to_u64, to_usize};
use diskstrata::block::fill_unreadable;
use diskstrata::chain::{Catalog, Wish};
use diskstrata::image::{Compression, Ending, ImageReader, ImageStream, StreamPiece, salvage};
use diskstrata::store::{FileName, MemoryStore, Store};
use std::sync::Arc;
use uuid::Uuid;

/// One image of a small disk.
fn small(store: Arc<dyn Store>) -> World {
    let mut world = World::new(store, odd_len(270), 2);
    world.disk.edit(&Edit::Free { at: 6, count: 260 });
    world.disk.edit(&Edit::Write {
        at: 0,
        count: 6,
        seed: 0,
    });
    world.backup(Wish::Full);
    world
}

fn files(memory: &MemoryStore) -> Vec<(FileName, Vec<u8>)> {
    let names = memory.list().unwrap().into_iter().map(|e| e.name);
    let all = names.map(|name| (name.clone(), memory.get(&name).unwrap()));
    all.collect()
}

/// Reads an image as it comes out of a pipe.
fn streamed(bytes: &[u8]) -> Result<Ending> {
    let mut stream = ImageStream::open(bytes, "pipe")?;
    loop {
        if let StreamPiece::End(ending) = stream.next_piece()? {
            return Ok(*ending);
        }
    }
}

fn is_refused(bytes: &[u8], what: &str) {
    let file: Arc<dyn RangeRead> = Arc::new(bytes.to_vec());
    let opened = ImageReader::open(file).err();
    assert_eq!(opened.map(|e| e.kind()), Some(ErrorKind::Damaged), "{what}");
    let streamed = streamed(bytes).err();
    assert_eq!(
        streamed.map(|e| e.kind()),
        Some(ErrorKind::Damaged),
        "{what}, a pipe"
    );
}

/// Image 1 is broken, not gone, and nothing of it is listed.
fn is_broken(world: &World, what: &str) {
    let catalog = Catalog::load(world.store.as_ref()).unwrap();
    assert!(catalog.by_id(id(1)).is_none(), "{what}: it is listed");
    assert_eq!(catalog.broken.len(), 1, "{what}");
}

fn is_whole(world: &World) {
    let catalog = Catalog::load(world.store.as_ref()).unwrap();
    assert!(catalog.by_id(id(1)).is_some() && catalog.broken.is_empty());
}

/// What a salvage gives of a cut file is right, as far as it goes.
fn salvaged(world: &World, bytes: &[u8]) -> usize {
    let input: &dyn RangeRead = &bytes.to_vec();
    let fill = |out: &mut [u8], at| fill_unreadable(out, at);
    let made = salvage(
        input,
        Vec::new(),
        "new",
        Uuid::from_u128(7),
        Compression::None,
        &fill,
    );
    let Ok((made, report)) = made else {
        assert!(bytes.len() < 128, "the header is enough to begin");
        return 0;
    };
    ImageReader::open(Arc::new(made)).unwrap();
    let blocks = report.lost.iter().flat_map(crate::salvage::blocks_of);
    let lost: Vec<u64> = blocks.collect();
    let cells = (0..).zip(world.points[&1].cells.iter());
    let kept = cells.filter(|(n, cell)| cell.content.is_some() && !lost.contains(n));
    kept.count()
}

#[test]
fn an_image_cut_at_any_length_is_refused() {
    let memory = MemoryStore::new("memory");
    let world = small(Arc::new(memory.clone()));
    let (_, good) = files(&memory).remove(0);
    streamed(&good).unwrap();
    let mut kept = 0;
    for len in (0..good.len()).rev() {
        is_refused(&good[..len], &format!("{len} of {} bytes", good.len()));
        if len % 64 == 0 {
            let now = salvaged(&world, &good[..len]);
            assert!(kept == 0 || now <= kept, "a shorter file never keeps more");
            kept = now;
        }
    }
    eprintln!("cut at {} lengths", good.len());
    assert!((8_000..40_000).contains(&good.len()), "{}", good.len());
}

/// Lengths of which some lie near `len`, where structure is.
fn lengths(len: usize, count: usize, stream: &mut Stream) -> Vec<usize> {
    let any = |n: usize| match n % 4 {
        0 => len - 1 - to_usize(stream.below(to_u64(len.min(2000)))),
        _ => to_usize(stream.below(to_u64(len))),
    };
    (0..count).map(any).collect()
}

#[test]
fn a_long_image_cut_at_a_thousand_lengths_is_refused() {
    let memory = MemoryStore::new("memory");
    let world = long_history(Arc::new(memory.clone()), &[], 0);
    let (name, good) = files(&memory).remove(0);
    assert!(good.len() > 1 << 20);
    let mut stream = Stream::new(61);
    for len in lengths(good.len(), 1000, &mut stream) {
        is_refused(&good[..len], &format!("{len} of {} bytes", good.len()));
    }
    memory.put(&name, good[..good.len() / 2].to_vec());
    is_broken(&world, "half of it");
}

/// What may stand behind a file that was whole.
fn garbage(n: usize, good: &[u8], stream: &mut Stream) -> Vec<u8> {
    match n {
        // Its own end again, twice, all of it again, the beginning of another one.
        0 => good[good.len() - 512..].to_vec(),
        1 => good.to_vec(),
        2 => [good, good].concat(),
        3 => good[..128].to_vec(),
        n if n % 2 == 0 => vec![0; n - 3],
        n => stream.bytes(to_u64(n) - 3),
    }
}

#[test]
fn an_image_with_something_behind_it_is_refused() {
    let memory = MemoryStore::new("memory");
    let _world = small(Arc::new(memory.clone()));
    let (_, good) = files(&memory).remove(0);
    let mut stream = Stream::new(62);
    for n in 0..1000 {
        let more = garbage(n, &good, &mut stream);
        let longer = [&good[..], &more].concat();
        is_refused(&longer, &format!("{} bytes behind it, {n}", more.len()));
    }
}

#[test]
fn an_encrypted_file_cut_at_any_length_or_longer_is_refused() {
    let memory = MemoryStore::new("memory");
    let world = small(encrypted(Arc::new(memory.clone())));
    let (name, good) = files(&memory).remove(0);
    is_whole(&world);
    // Beyond the head nothing but chunks, all of one kind: the usual run takes every 7th length of them.
    let head = 64 + 2 * to_usize(number(&good[12..16]));
    let step = if long() { 1 } else { 7 };
    let mut cases = 0;
    for len in (0..head)
        .step_by(step)
        .chain(head - 40..head + 80)
        .chain((head..good.len()).step_by(step))
    {
        memory.put(&name, good[..len].to_vec());
        is_broken(&world, &format!("{len} of {} bytes", good.len()));
        cases += 1;
    }
    let mut stream = Stream::new(63);
    for n in 0..if long() { 1000 } else { 200 } {
        let more = garbage(n, &good, &mut stream);
        memory.put(&name, [&good[..], &more].concat());
        is_broken(&world, &format!("{} bytes behind it, {n}", more.len()));
        cases += 1;
    }
    memory.put(&name, good);
    is_whole(&world);
    eprintln!("{cases} encrypted files that end too early or too late");
}

#[test]
fn a_part_cut_at_any_length_or_longer_is_refused() {
    let memory = MemoryStore::new("memory");
    let world = long_history(in_parts(Arc::new(memory.clone())), &[], 0);
    is_whole(&world);
    let parts = files(&memory);
    assert!(parts.len() >= 3, "{} parts", parts.len());
    let mut stream = Stream::new(64);
    let each = if long() { 1000 } else { 60 };
    let mut cases = 0;
    for (name, good) in &parts {
        for len in lengths(good.len(), each, &mut stream) {
            memory.put(name, good[..len].to_vec());
            is_broken(&world, &format!("{len} of {} bytes of {name}", good.len()));
            cases += 1;
        }
        for n in 0..each / 4 {
            let more = garbage(n, good, &mut stream);
            memory.put(name, [&good[..], &more].concat());
            is_broken(&world, &format!("{} bytes behind {name}", more.len()));
            cases += 1;
        }
        memory.remove(name).unwrap();
        is_broken(&world, &format!("without {name}"));
        memory.put(name, good.clone());
    }
    is_whole(&world);
    eprintln!("{cases} parts that end too early or too late");
}
