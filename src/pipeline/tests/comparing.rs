//! What a disk holds against what an image says.

use super::*;

#[test]
fn compare_names_exactly_the_blocks_that_differ() {
    let disk = mixed_disk(1500);
    let image = open(&image_of_bytes(&disk, Compression::Zstd(3))).unwrap();
    let differing = |disk: &[u8], except: Vec<Extent>| {
        let source = MemorySource::new("other", disk.to_vec());
        let cancel = Cancel::new();
        let what = Compared {
            blocks: 0..1501,
            except,
            in_use: None,
            unreadable: true,
            only: None,
            phase: Phase::Compare,
        };
        let read = |at, buf: &mut [u8]| source.read_at(at, buf);
        let mapping = |at| source.mapping(at);
        let disk = ReadBlocks {
            read: &read,
            read_whole: None,
            mapping: &mapping,
        };
        compare(&image, &disk, &what, resources(&cancel)).unwrap()
    };
    assert_eq!(differing(&disk, vec![]), vec![]);
    let mut other = disk;
    other[5 * BLOCK] ^= 1; // data
    other[6 * BLOCK + 9] ^= 1; // zero, and its neighbour
    other[1500 * BLOCK + 99] ^= 1; // the last byte
    let block = |i: usize, n: usize, len: usize| Extent {
        start: ByteOffset(to_u64(i * BLOCK)),
        len: ByteLen(to_u64(n * BLOCK + len)),
    };
    assert_eq!(
        differing(&other, vec![]),
        vec![block(5, 2, 0), block(1500, 0, 100)]
    );
    assert_eq!(
        differing(&other, vec![block(6, 0, 1)]),
        vec![block(5, 1, 0), block(1500, 0, 100)]
    );
}

#[test]
fn compare_reads_what_lies_between_and_asks_of_it_what_it_should() {
    // Data, zeros, data, unused: again and again, and then a gap that is wide.
    let mut disk = vec![0; 200 * BLOCK];
    let mut take = BlockMap::full(200);
    for group in (0..100).step_by(4) {
        disk[group * BLOCK..(group + 1) * BLOCK].fill(1);
        disk[(group + 2) * BLOCK..(group + 3) * BLOCK].fill(2);
        take.remove_range(to_u64(group + 3)..to_u64(group + 4));
    }
    disk[199 * BLOCK..].fill(3);
    let source = MemorySource::new("disk", disk.clone());
    let image = open(&image_of(&source, take, Compression::None).0).unwrap();
    let window = image.image().header().window_blocks();
    let compared = |disk: &[u8], except: Vec<Extent>| {
        let reads = Mutex::new(Vec::new());
        let cancel = Cancel::new();
        let read = |at: ByteOffset, buf: &mut [u8]| {
            reads
                .lock()
                .unwrap()
                .push(to_usize(at.0) / BLOCK..(to_usize(at.0) + buf.len()) / BLOCK);
            buf.copy_from_slice(&disk[to_usize(at.0)..][..buf.len()]);
            Ok(())
        };
        let what = Compared {
            blocks: 0..200,
            except,
            in_use: None,
            unreadable: true,
            only: None,
            phase: Phase::Compare,
        };
        let disk = ReadBlocks {
            read: &read,
            read_whole: None,
            mapping: &|at| Ok(Mapping::Zero(ByteLen(to_u64(200 * BLOCK) - at.0))),
        };
        let found = compare(&image, &disk, &what, resources(&cancel)).unwrap();
        let found: Vec<u64> = found.iter().map(|e| e.start.0 / to_u64(BLOCK)).collect();
        (found, reads.into_inner().unwrap())
    };
    let (found, reads) = compared(&disk, vec![]);
    assert_eq!(found, [0; 0]);
    let most = 100 / to_usize(window) + 2;
    assert!(reads.len() <= most, "{} reads: {reads:?}", reads.len());
    assert!(reads.iter().all(|r| !r.contains(&150)), "{reads:?}");
    // Unused, zeros, data.
    for (block, expected) in [(7, vec![]), (5, vec![5]), (6, vec![6]), (199, vec![199])] {
        let mut other = disk.clone();
        other[block * BLOCK + 9] ^= 4;
        assert_eq!(compared(&other, vec![]).0, expected, "block {block}");
    }
    // What is left out may not be readable.
    for block in [5, 6] {
        let mut other = disk.clone();
        other[block * BLOCK] ^= 4;
        let out = Extent {
            start: ByteOffset(to_u64(block * BLOCK)),
            len: ByteLen(1),
        };
        let (found, reads) = compared(&other, vec![out]);
        assert_eq!(found, [0; 0]);
        assert!(reads.iter().all(|r| !r.contains(&block)), "{reads:?}");
    }
}
